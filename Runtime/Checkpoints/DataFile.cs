using System.IO.MemoryMappedFiles;
using Microsoft.Win32.SafeHandles;

namespace Trimtab.Checkpoints;

/// <summary>A file of weights, open for reading and for mapping. Every failure is an <see cref="InvalidCheckpointException"/> naming it.</summary>
internal sealed class DataFile : IDisposable
{
    private readonly SafeFileHandle _handle;

    private DataFile(string path, SafeFileHandle handle, long length) => (Path, _handle, Length) = (path, handle, length);

    /// <summary>Full path.</summary>
    public string Path { get; }

    /// <summary>Bytes, as they were when the file was opened.</summary>
    public long Length { get; }

    /// <summary>Opens a regular file that is not empty.</summary>
    public static DataFile Open(string path)
    {
        SafeFileHandle? handle = null;
        try
        {
            if (Directory.Exists(path))
                throw new InvalidCheckpointException($"{path}: is a folder; expected a file");
            if (!File.Exists(path))
                throw new InvalidCheckpointException($"{path}: no such file");
            path = System.IO.Path.GetFullPath(path);
            // Asked before opening: opening a pipe would wait for its writer for ever. Pipes and devices have no length.
            var target = File.ResolveLinkTarget(path, returnFinalTarget: true) as FileInfo ?? new FileInfo(path);
            if (target.Length == 0)
                throw new InvalidCheckpointException($"{path}: is empty (0 bytes)");
            handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read, FileOptions.RandomAccess);
            var file = new DataFile(path, handle, RandomAccess.GetLength(handle));
            handle = null;
            return file;
        }
        catch (UnauthorizedAccessException e)
        {
            throw new InvalidCheckpointException($"{path}: permission to read it is denied", e);
        }
        catch (Exception e) when (e is IOException or NotSupportedException or ArgumentException)
        {
            throw new InvalidCheckpointException($"{path}: cannot be opened ({e.Message})", e);
        }
        finally
        {
            handle?.Dispose();
        }
    }

    /// <summary>Fills <paramref name="into"/> from <paramref name="offset"/>.</summary>
    public void Read(long offset, Span<byte> into)
    {
        try
        {
            while (into.Length > 0)
            {
                var read = RandomAccess.Read(_handle, into, offset);
                if (read == 0)
                    throw new InvalidCheckpointException($"{Path}: ends at byte {offset}, {into.Length} bytes too early");
                offset += read;
                into = into[read..];
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidCheckpointException($"{Path}: cannot be read at byte {offset} ({e.Message})", e);
        }
    }

    /// <summary>Maps [offset, offset + bytes) alone; <paramref name="bytes"/> &gt; 0.</summary>
    public MemoryMappedViewAccessor View(long offset, long bytes)
    {
        try
        {
            // Touching a mapped page beyond the end of a file kills the process, so the length is asked again: the file may have shrunk.
            var length = RandomAccess.GetLength(_handle);
            if (offset + bytes > length)
                throw new InvalidCheckpointException($"{Path}: has shrunk from {Length} to {length} bytes since it was opened");
            using var map = MemoryMappedFile.CreateFromFile(
                _handle, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            return map.CreateViewAccessor(offset, bytes, MemoryMappedFileAccess.Read);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new InvalidCheckpointException($"{Path}: {bytes} bytes at byte {offset} cannot be mapped ({e.Message})", e);
        }
    }

    public void Dispose() => _handle.Dispose();
}
