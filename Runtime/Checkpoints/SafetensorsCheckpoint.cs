namespace Trimtab.Checkpoints;

/// <summary>A safetensors file, or shards that an index names.</summary>
public sealed class SafetensorsCheckpoint : Checkpoint
{
    internal SafetensorsCheckpoint(
        string path, IReadOnlyList<DataFile> files, IReadOnlyDictionary<string, TensorInfo> tensors, IReadOnlyDictionary<string, string> unread,
        IReadOnlyDictionary<string, string> metadata) : base(path, files, tensors, unread) => Metadata = metadata;

    /// <summary>The header's <c>__metadata__</c>, empty where it has none; of several shards, the first that has a key.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Takes over the file.</summary>
    internal static SafetensorsCheckpoint Open(DataFile file)
    {
        var header = SafetensorsHeader.Read(file);
        return new(file.Path, [file], header.Tensors, header.Unread, header.Metadata);
    }
}
