using Trimtab.Checkpoints;

namespace Trimtab.Tests;

/// <summary>Headers and raw data of the fixtures' checkpoint files.</summary>
internal static class ConfigHeaders
{
    public sealed record GgufFile(IReadOnlyDictionary<string, object> Metadata, Dictionary<string, long[]> Shapes, string Path)
    {
        public long[]? Shape(string name) => Shapes.GetValueOrDefault(name);

        public ReadOnlySpan<byte> Data(string name, int bytes) => ConfigHeaders.Data(Path, name).AsSpan(0, bytes);
    }

    public static Dictionary<string, long[]> Safetensors(string folder)
    {
        using var checkpoint = Checkpoint.Open(folder);
        return Shapes(checkpoint);
    }

    public static byte[] SafetensorsData(string file, string name) => Data(file, name);

    public static GgufFile Gguf(string file)
    {
        using var checkpoint = (GgufCheckpoint)Checkpoint.Open(file);
        return new(checkpoint.Metadata, Shapes(checkpoint), file);
    }

    private static Dictionary<string, long[]> Shapes(Checkpoint checkpoint) => checkpoint.Tensors.ToDictionary(t => t.Key, t => t.Value.Shape.ToArray());

    private static byte[] Data(string file, string name)
    {
        using var checkpoint = Checkpoint.Open(file);
        using var mapped = checkpoint.Map(name);
        return mapped.Span.ToArray();
    }
}
