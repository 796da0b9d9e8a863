using System.Text;
using System.Text.Json;

namespace Trimtab.Tests;

/// <summary>Headers and bf16 data of the fixtures' files, read in the plainest way: independent of the product's readers.</summary>
internal static class ConfigHeaders
{
    public sealed record GgufFile(Dictionary<string, object> Metadata, Dictionary<string, long[]> Shapes, Dictionary<string, long> Offsets, byte[] Bytes)
    {
        public long[]? Shape(string name) => Shapes.GetValueOrDefault(name);

        public ReadOnlySpan<byte> Data(string name, int bytes) => Bytes.AsSpan((int)Offsets[name], bytes);
    }

    public static Dictionary<string, long[]> Safetensors(string folder)
    {
        var shapes = new Dictionary<string, long[]>();
        foreach (var file in Directory.GetFiles(folder, "*.safetensors"))
            foreach (var tensor in Header(File.ReadAllBytes(file)).Item1.RootElement.EnumerateObject())
                if (tensor.Name != "__metadata__")
                    shapes.Add(tensor.Name, [.. tensor.Value.GetProperty("shape").EnumerateArray().Select(n => n.GetInt64())]);
        return shapes;
    }

    public static byte[] SafetensorsData(string file, string name)
    {
        var bytes = File.ReadAllBytes(file);
        var (header, start) = Header(bytes);
        var offsets = header.RootElement.GetProperty(name).GetProperty("data_offsets");
        return bytes[(start + offsets[0].GetInt32())..(start + offsets[1].GetInt32())];
    }

    private static (JsonDocument, int) Header(byte[] bytes)
    {
        var length = (int)BitConverter.ToInt64(bytes);
        return (JsonDocument.Parse(bytes.AsMemory(8, length)), 8 + length);
    }

    public static GgufFile Gguf(string file)
    {
        using var reader = new BinaryReader(File.OpenRead(file));
        reader.ReadBytes(8);
        var (tensors, keys) = (reader.ReadInt64(), reader.ReadInt64());
        string Text() => Encoding.UTF8.GetString(reader.ReadBytes((int)reader.ReadInt64()));
        object Value(uint type) => type switch
        {
            0 => reader.ReadByte(),
            1 => reader.ReadSByte(),
            2 => reader.ReadUInt16(),
            3 => reader.ReadInt16(),
            4 => reader.ReadUInt32(),
            5 => reader.ReadInt32(),
            6 => reader.ReadSingle(),
            7 => reader.ReadByte() != 0,
            8 => Text(),
            9 => List(reader.ReadUInt32()),
            10 => reader.ReadUInt64(),
            11 => reader.ReadInt64(),
            _ => reader.ReadDouble(),
        };
        object List(uint type)
        {
            var items = new object[reader.ReadInt64()];
            for (var i = 0; i < items.Length; i++)
                items[i] = Value(type);
            return type switch
            {
                8 => items.Cast<string>().ToArray(),
                6 => items.Cast<float>().ToArray(),
                5 => items.Cast<int>().ToArray(),
                _ => items,
            };
        }
        var metadata = new Dictionary<string, object>();
        for (var i = 0L; i < keys; i++)
            metadata.Add(Text(), Value(reader.ReadUInt32()));
        var (shapes, offsets) = (new Dictionary<string, long[]>(), new Dictionary<string, long>());
        for (var i = 0L; i < tensors; i++)
        {
            var name = Text();
            var shape = new long[reader.ReadUInt32()];
            for (var j = shape.Length; j-- > 0;)
                shape[j] = reader.ReadInt64();
            reader.ReadUInt32();
            shapes.Add(name, shape);
            offsets.Add(name, reader.ReadInt64());
        }
        var start = (reader.BaseStream.Position + 31) / 32 * 32;
        return new(metadata, shapes, offsets.ToDictionary(o => o.Key, o => start + o.Value), File.ReadAllBytes(file));
    }
}
