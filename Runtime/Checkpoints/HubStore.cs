namespace Trimtab.Checkpoints;

/// <summary>Where fetched files go.</summary>
internal abstract class HubStore
{
    // What a file that another process has locked answers: EWOULDBLOCK (Linux, macOS), ERROR_SHARING_VIOLATION (Windows).
    private static readonly int[] InUse = [11, 35, unchecked((int)0x80070020)];

    /// <summary>The folder that a model is opened from.</summary>
    public abstract string Folder { get; }

    /// <summary>The folder that holds all of it, for the question of space.</summary>
    public abstract string Root { get; }

    /// <summary>Whether the file is there, whole and in its place.</summary>
    public abstract Task<bool> HasAsync(HubFile file, CancellationToken cancel);

    /// <summary>Whether its content is there.</summary>
    public abstract Task<bool> HasContentAsync(HubFile file, CancellationToken cancel);

    /// <summary>Where the content goes once it is whole.</summary>
    public abstract string Target(HubFile file);

    /// <summary>Where it grows.</summary>
    public abstract string Incomplete(HubFile file);

    /// <summary>Puts the content in its place.</summary>
    public abstract void Publish(HubFile file);

    protected abstract string LockFile(HubFile file);

    /// <summary>Waits until no other process fetches the same content. Closing the result lets the next one in.</summary>
    public async Task<IDisposable> LockAsync(HubFile file, CancellationToken cancel)
    {
        var path = LockFile(file);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        while (true)
        {
            try
            {
                // On Unix this is flock(2), which Python's filelock takes too: the hub's own tools wait for us and we for them.
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException e) when (InUse.Contains(e.HResult))
            {
                await Task.Delay(100, cancel).ConfigureAwait(false);
            }
        }
    }
}

/// <summary>The cache that the hub's own tools share: <c>blobs/TAG</c>, and <c>snapshots/COMMIT/FILE</c> that link to them.</summary>
internal sealed class HubCacheStore(string cache, string repository, string commit, bool links) : HubStore
{
    private readonly string _repository = HubCache.RepositoryFolder(cache, repository);

    public override string Folder => Path.Combine(_repository, "snapshots", commit);

    public override string Root => cache;

    public override Task<bool> HasAsync(HubFile file, CancellationToken cancel) => Task.FromResult(HubTransfer.Length(Place(file)) == file.Size);

    // The tag is the name: who wrote the blob has checked it.
    public override Task<bool> HasContentAsync(HubFile file, CancellationToken cancel) => Task.FromResult(HubTransfer.Length(Target(file)) == file.Size);

    public override string Target(HubFile file) => Path.Combine(_repository, "blobs", file.Tag);

    public override string Incomplete(HubFile file)
    {
        Directory.CreateDirectory(Path.Combine(_repository, "blobs"));
        return Target(file) + ".incomplete";
    }

    public override void Publish(HubFile file)
    {
        var place = Place(file);
        if (HubTransfer.Length(place) == file.Size)
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(place)!);
        File.Delete(place); // a link that leads nowhere, or to something else
        if (links)
        {
            try
            {
                File.CreateSymbolicLink(place, Path.GetRelativePath(Path.GetDirectoryName(place)!, Target(file)));
                return;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or PlatformNotSupportedException)
            {
                // Windows without the right to link, a FAT disk: a file of its own, as the hub's tools do it.
            }
        }
        // Another file of this repository may have the same content: the blob stays, and a large one takes its space twice.
        File.Copy(Target(file), place + ".incomplete", overwrite: true);
        File.Move(place + ".incomplete", place, overwrite: true);
    }

    protected override string LockFile(HubFile file) => Path.Combine(cache, ".locks", Path.GetFileName(_repository), file.Tag + ".lock");

    private string Place(HubFile file) => Path.Combine(Folder, file.Name);
}

/// <summary>A folder of plain files outside the cache; what is not yet whole lies below its <c>.cache/huggingface/download</c>.</summary>
internal sealed class HubFolderStore(string folder) : HubStore
{
    public override string Folder => folder;

    public override string Root => folder;

    public override Task<bool> HasAsync(HubFile file, CancellationToken cancel) => HasContentAsync(file, cancel);

    public override Task<bool> HasContentAsync(HubFile file, CancellationToken cancel) => HubTransfer.IsSameAsync(Path.Combine(folder, file.Name), file, cancel);

    public override string Target(HubFile file)
    {
        var path = Path.Combine(folder, file.Name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        return path;
    }

    public override string Incomplete(HubFile file) => State(file, ".incomplete");

    public override void Publish(HubFile file)
    {
    }

    protected override string LockFile(HubFile file) => State(file, ".lock");

    private string State(HubFile file, string ending) => Path.Combine(folder, ".cache", "huggingface", "download", file.Tag + ending);
}
