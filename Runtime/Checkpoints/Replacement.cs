namespace Trimtab.Checkpoints;

/// <summary>Writes a file whole or not at all.</summary>
internal static class Replacement
{
    /// <summary>Writes a temporary file beside <paramref name="path"/>, flushes it to the disk and renames it; a failure leaves what was there.</summary>
    public static void Write(string path, Action<Stream> write)
    {
        path = Path.GetFullPath(path);
        var temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            using (var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }
            File.Move(temporary, path, overwrite: true);
        }
        catch
        {
            File.Delete(temporary);
            throw;
        }
    }
}
