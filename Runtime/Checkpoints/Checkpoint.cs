using System.Buffers;
using System.Security.Cryptography;

namespace Trimtab.Checkpoints;

/// <summary>
/// Named tensors on disk: safetensors (one file, or shards with an index) or GGUF. Opening reads and checks the headers alone;
/// <see cref="Map"/> maps one tensor at a time. All members may be used from several threads.
/// </summary>
public abstract class Checkpoint : IDisposable
{
    private readonly IReadOnlyList<DataFile> _files;
    private bool _disposed;

    private protected Checkpoint(
        string path, IReadOnlyList<DataFile> files, IReadOnlyDictionary<string, TensorInfo> tensors, IReadOnlyDictionary<string, string> unread)
    {
        (Path, _files, Tensors, Unread) = (path, files, tensors, unread);
    }

    /// <summary>Another's files, seen as other tensors; to be closed in its place.</summary>
    private protected Checkpoint(Checkpoint other, IReadOnlyDictionary<string, TensorInfo> tensors) : this(other.Path, other._files, tensors, other.Unread)
    {
    }

    /// <summary>Full path of the file opened; of the index where there are shards, of the first part of a split GGUF.</summary>
    public string Path { get; }

    /// <summary>Full paths of all files that hold tensors.</summary>
    public IEnumerable<string> Files => _files.Select(file => file.Path);

    /// <summary>All tensors that can be mapped, by name.</summary>
    public IReadOnlyDictionary<string, TensorInfo> Tensors { get; }

    /// <summary>Tensors of a known type that has no <see cref="Kernels.DType"/> (BOOL, I8, …), name → type: refused only when mapped.</summary>
    public IReadOnlyDictionary<string, string> Unread { get; }

    /// <summary>
    /// Opens a <c>.safetensors</c> or <c>.gguf</c> file (told apart by content), a <c>.safetensors.index.json</c>, or a folder. In a
    /// folder the first of these is taken: <c>model.safetensors</c>, <c>model.safetensors.index.json</c> (transformers' order), the only
    /// other <c>*.safetensors.index.json</c>, the only <c>*.gguf</c> that is a model, the only <c>*.safetensors</c>.
    /// </summary>
    /// <exception cref="InvalidCheckpointException">Nothing there can be read as a checkpoint; the message says why.</exception>
    public static Checkpoint Open(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        if (Directory.Exists(path))
            return CheckpointFolder.Open(path);
        var file = DataFile.Open(path);
        try
        {
            if (file.Path.EndsWith(".json", StringComparison.OrdinalIgnoreCase))
            {
                using (file)
                    return SafetensorsIndex.Open(file);
            }
            Span<byte> head = stackalloc byte[9];
            head = head[..(int)Math.Min(9, file.Length)];
            file.Read(0, head);
            if (head.StartsWith("GGUF"u8) || file.Path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase))
                return GgufCheckpoint.Open(file);
            if ((head.Length == 9 && head[8] == '{') || file.Path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase))
                return SafetensorsCheckpoint.Open(file);
            throw new InvalidCheckpointException(
                $"{file.Path}: is neither a safetensors nor a GGUF file (PyTorch's .bin, .pt and .pth are not read: convert them to safetensors)");
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Maps the bytes of one tensor. Disposing the result unmaps them.</summary>
    /// <exception cref="InvalidCheckpointException">There is no such tensor, its type is not read, or the file has shrunk.</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint was closed.</exception>
    public MappedTensor Map(string name)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (Tensors.TryGetValue(name, out var info))
            return View(info);
        throw new InvalidCheckpointException(Unread.TryGetValue(name, out var type)
            ? $"{Path}: tensor {InvalidCheckpointException.Quote(name)} is stored as {type}, which this runtime does not read"
            : $"{Path}: has no tensor {InvalidCheckpointException.Quote(name)}");
    }

    /// <summary>The bytes of a tensor that there is.</summary>
    private protected virtual MappedTensor View(TensorInfo info)
        => new(info, info.Bytes == 0 ? null : _files.First(file => file.Path == info.File).View(info.Offset, info.Bytes));

    /// <summary>Appends the SHA-256 of each 4 MiB of the files, which are read on all cores.</summary>
    internal void Hash(IncrementalHash into)
    {
        const int Part = 4 << 20;
        foreach (var file in _files)
        {
            var digests = new byte[(file.Length + Part - 1) / Part * SHA256.HashSizeInBytes];
            Parallel.For(0, digests.Length / SHA256.HashSizeInBytes, i =>
            {
                var buffer = ArrayPool<byte>.Shared.Rent(Part);
                var part = buffer.AsSpan(0, (int)Math.Min(Part, file.Length - (long)i * Part));
                file.Read((long)i * Part, part);
                SHA256.HashData(part, digests.AsSpan(i * SHA256.HashSizeInBytes));
                ArrayPool<byte>.Shared.Return(buffer);
            });
            into.AppendData(digests);
        }
    }

    /// <summary>Closes the files. Tensors that are mapped stay so until they are disposed.</summary>
    public void Dispose()
    {
        _disposed = true;
        foreach (var file in _files)
            file.Dispose();
        GC.SuppressFinalize(this);
    }
}
