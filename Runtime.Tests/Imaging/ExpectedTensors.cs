using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Trimtab.Tests.Imaging;

/// <summary>The tensors of a safetensors file of expected values, read without the product's own reader.</summary>
internal sealed class ExpectedTensors
{
    private readonly byte[] _file;
    private readonly JsonElement _header;
    private readonly int _data;

    public ExpectedTensors(string path)
    {
        _file = File.ReadAllBytes(path);
        _data = 8 + (int)BinaryPrimitives.ReadUInt64LittleEndian(_file);
        _header = JsonDocument.Parse(_file.AsMemory(8, _data - 8)).RootElement;
    }

    public IEnumerable<string> Names => _header.EnumerateObject().Select(tensor => tensor.Name).Where(name => name != "__metadata__");

    public bool Has(string name) => _header.TryGetProperty(name, out _);

    public int[] Shape(string name) => [.. _header.GetProperty(name).GetProperty("shape").EnumerateArray().Select(size => size.GetInt32())];

    public byte[] Bytes(string name)
    {
        var ends = _header.GetProperty(name).GetProperty("data_offsets");
        return _file[(_data + ends[0].GetInt32())..(_data + ends[1].GetInt32())];
    }

    public float[] Floats(string name) => MemoryMarshal.Cast<byte, float>(Bytes(name)).ToArray();
}
