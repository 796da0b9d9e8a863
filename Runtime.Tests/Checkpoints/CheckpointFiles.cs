using System.Text;
using Trimtab.Checkpoints;

namespace Trimtab.Tests.Checkpoints;

/// <summary>A folder for one test, and small files made byte by byte, so that writers and readers do not vouch for each other alone.</summary>
internal sealed class CheckpointFiles : IDisposable
{
    public string Folder { get; } = Directory.CreateTempSubdirectory("trimtab-test-").FullName;

    public string At(string name) => Path.Combine(Folder, name);

    public string Bytes(string name, byte[] bytes)
    {
        File.WriteAllBytes(At(name), bytes);
        return At(name);
    }

    public string Safetensors(string name, string header, int data) => Bytes(name, SafetensorsBytes(header, new byte[data]));

    public static byte[] SafetensorsBytes(string header, byte[] data)
    {
        var json = Encoding.UTF8.GetBytes(header);
        return [.. BitConverter.GetBytes((ulong)json.Length), .. json, .. data];
    }

    public string Text(string name, string text) => Bytes(name, Encoding.UTF8.GetBytes(text));

    public string Gguf(string name, Action<GgufBytes> write, int tensors = 0, int pairs = 0, uint version = 3)
    {
        var bytes = new GgufBytes();
        bytes.Raw("GGUF"u8.ToArray()).U32(version).U64((ulong)tensors).U64((ulong)pairs);
        write(bytes);
        return Bytes(name, bytes.ToArray());
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);

    /// <summary>The message with which opening a file is refused.</summary>
    public static string Refusal(string path)
    {
        var error = Assert.Throws<InvalidCheckpointException>(() => Checkpoint.Open(path).Dispose())!;
        Assert.That(error.Message, Does.Not.Contain("\n"));
        return error.Message;
    }
}

/// <summary>GGUF's encoding of values, spelled out.</summary>
internal sealed class GgufBytes
{
    private readonly List<byte> _bytes = [];

    public GgufBytes Raw(params byte[] bytes)
    {
        _bytes.AddRange(bytes);
        return this;
    }

    public GgufBytes U32(uint value) => Raw(BitConverter.GetBytes(value));

    public GgufBytes U64(ulong value) => Raw(BitConverter.GetBytes(value));

    public GgufBytes Text(string text) => U64((ulong)Encoding.UTF8.GetByteCount(text)).Raw(Encoding.UTF8.GetBytes(text));

    public GgufBytes Tensor(string name, uint type, ulong offset, params ulong[] ne)
    {
        Text(name).U32((uint)ne.Length);
        foreach (var dimension in ne)
            U64(dimension);
        return U32(type).U64(offset);
    }

    public GgufBytes Align(int alignment = 32) => Raw(new byte[(alignment - _bytes.Count % alignment) % alignment]);

    public byte[] ToArray() => [.. _bytes];
}
