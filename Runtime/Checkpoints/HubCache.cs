namespace Trimtab.Checkpoints;

/// <summary>
/// Models in the cache that Hugging Face's tools share (huggingface.co/docs/hub/local-cache): <c>models--ORG--NAME</c> with
/// <c>refs/REVISION</c>, <c>snapshots/COMMIT</c> and <c>blobs</c>.
/// </summary>
public static class HubCache
{
    /// <summary>Whether a text has the form ORG/NAME of a repository.</summary>
    public static bool IsName(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return HubNames.IsRepository(text);
    }

    /// <summary>The snapshot of a model: of its main branch, or the only one there is. Null where the cache has none, or the text is no name.</summary>
    /// <param name="name">ORG/NAME.</param>
    public static string? Find(string name) => IsName(name) ? Find(HubOptions.CacheFolder(Environment.GetEnvironmentVariable), name) : null;

    /// <summary>See <see cref="Find(string)"/>.</summary>
    internal static string? Find(string cache, string name)
    {
        if (Find(cache, name, "main") is { } main)
            return main;
        try
        {
            return Directory.GetDirectories(Path.Combine(RepositoryFolder(cache, name), "snapshots")) is [var only] ? only : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>The snapshot of a revision (branch, tag or commit), or null.</summary>
    internal static string? Find(string cache, string name, string revision)
    {
        var repository = RepositoryFolder(cache, name);
        try
        {
            var reference = Path.Combine(repository, "refs", revision);
            var commit = File.Exists(reference) && new FileInfo(reference).Length < 100 ? File.ReadAllText(reference).Trim() : revision;
            var folder = Path.Combine(repository, "snapshots", commit);
            return HubFile.IsHash(commit, 40) && Directory.Exists(folder) ? folder : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Remembers which commit a branch or a tag stood for.</summary>
    internal static void Refer(string cache, string name, string revision, string commit)
    {
        if (revision == commit)
            return;
        var path = Path.Combine(RepositoryFolder(cache, name), "refs", revision);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        Replacement.Write(path, stream => stream.Write(System.Text.Encoding.ASCII.GetBytes(commit)));
    }

    internal static string RepositoryFolder(string cache, string name) => Path.Combine(cache, "models--" + name.Replace("/", "--"));
}
