using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>What is fetched from a hub.</summary>
/// <param name="Repository">ORG/NAME.</param>
public sealed record HubRequest(string Repository)
{
    /// <summary>A branch, a tag or a commit.</summary>
    public string Revision { get; init; } = "main";

    /// <summary>Patterns of the files wanted (<c>*</c>, <c>?</c>, <c>[…]</c>; <c>*</c> takes <c>/</c> too); none for all that a model is made of.</summary>
    public IReadOnlyList<string> Files { get; init; } = [];

    /// <summary>A folder for plain files instead of the cache, or null.</summary>
    public string? Folder { get; init; }
}

/// <summary>How far fetching is.</summary>
/// <param name="Bytes">Bytes that came.</param>
/// <param name="TotalBytes">Bytes that were missing.</param>
public readonly record struct HubProgress(long Bytes, long TotalBytes);

/// <summary>A model that was fetched.</summary>
/// <param name="Folder">The full path of the folder to open it from.</param>
/// <param name="Commit">The commit it is of.</param>
/// <param name="Files">Its files in that folder.</param>
/// <param name="Notes">What the user should know: files that were skipped, files without a checksum.</param>
public sealed record HubSnapshot(string Folder, string Commit, IReadOnlyList<string> Files, IReadOnlyList<string> Notes);

/// <summary>Fetches models from a Hugging Face hub by the protocol of its own tools (huggingface_hub).</summary>
public static class Hub
{
    private const int Streams = 4;

    /// <summary>
    /// Fetches a model: safetensors, GGUF, JSON, templates, vocabularies, README and licence; never pickles. What the cache has is not
    /// fetched again, what was interrupted goes on where it stopped, and every file is checked against the hub's checksum. Offline,
    /// says where the cache has the revision.
    /// </summary>
    /// <exception cref="HubException">It cannot be had; the message says why, and what to do.</exception>
    /// <exception cref="IOException">The disk refuses.</exception>
    public static async Task<HubSnapshot> PullAsync(
        HubRequest request, HubOptions options, IProgress<HubProgress>? progress = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(options);
        if (!HubNames.IsRepository(request.Repository))
            throw new HubException($"{Quote(request.Repository)} is not the name of a repository; expected ORG/NAME");
        if (HubNames.Fault(request.Revision) is { } fault)
            throw new HubException($"the revision {Quote(request.Revision)} {fault}");
        if (options.Offline)
            return FromCache(request, options);

        using var client = new HubClient(options, request.Repository, request.Revision);
        var listing = await client.ListAsync(cancel).ConfigureAwait(false);
        var notes = new List<string>();
        var selected = Select(client.Page, listing, request.Files, notes);
        var files = new HubFile[selected.Count];
        await ForEachAsync(
            files.Length,
            async (i, stop) => files[i] = selected[i].Known ?? await client.DescribeAsync(listing.Commit, selected[i].Name, stop).ConfigureAwait(false),
            cancel).ConfigureAwait(false);
        if (files.Where(file => !file.IsHashed).Select(file => file.Name).ToList() is { Count: > 0 } unhashed)
            notes.Add($"the hub tells no checksum of {List(unhashed)}; only sizes were checked");

        HubStore store = request.Folder is { } folder
            ? new HubFolderStore(Path.GetFullPath(folder))
            : new HubCacheStore(options.Cache, request.Repository, listing.Commit, options.Links);
        var missing = new List<HubFile>();
        foreach (var file in files)
        {
            if (!await store.HasAsync(file, cancel).ConfigureAwait(false))
                missing.Add(file);
        }
        await FetchAsync(client, listing.Commit, store, missing, options, progress, cancel).ConfigureAwait(false);
        // Only now: a name that stood for half a snapshot would be opened as a model.
        if (request.Folder is null)
            HubCache.Refer(options.Cache, request.Repository, request.Revision, listing.Commit);
        return new(Path.GetFullPath(store.Folder), listing.Commit, [.. files.Select(file => file.Name)], [.. notes.Select(OneLine)]);
    }

    private static async Task FetchAsync(
        HubClient client, string commit, HubStore store, List<HubFile> missing, HubOptions options, IProgress<HubProgress>? progress, CancellationToken cancel)
    {
        Directory.CreateDirectory(store.Root);
        var total = 0L;
        foreach (var file in missing.DistinctBy(file => store is HubCacheStore ? file.Tag : file.Name))
        {
            if (!await store.HasContentAsync(file, cancel).ConfigureAwait(false))
                total += file.Size - Math.Clamp(HubTransfer.Length(store.Incomplete(file)), 0, file.Size);
        }
        if (total > 0 && options.FreeSpace(store.Root) is var free && total > free)
            throw new HubException($"{store.Root}: needs {Size(total)} and has {Size(free)} free; make room, or set HF_HUB_CACHE to another disk");

        var gate = new Lock();
        var done = 0L;
        var transfer = new HubTransfer(client, commit, bytes =>
        {
            lock (gate)
            {
                done += bytes;
                progress?.Report(new(Math.Clamp(done, 0, total), total));
            }
        });
        // The largest first: they take as long as all others together.
        missing.Sort((a, b) => b.Size.CompareTo(a.Size));
        await ForEachAsync(
            missing.Count,
            async (i, stop) =>
            {
                using var held = await store.LockAsync(missing[i], stop).ConfigureAwait(false);
                if (!await store.HasContentAsync(missing[i], stop).ConfigureAwait(false))
                    await transfer.FetchAsync(missing[i], store.Incomplete(missing[i]), store.Target(missing[i]), stop).ConfigureAwait(false);
                store.Publish(missing[i]);
            },
            cancel).ConfigureAwait(false);
    }

    /// <summary>The files to fetch, and notes about the others.</summary>
    private static List<(string Name, HubFile? Known)> Select(string page, HubListing listing, IReadOnlyList<string> patterns, List<string> notes)
    {
        var wanted = listing.Files.Where(file => patterns.Count == 0 || patterns.Any(pattern => HubNames.Matches(pattern, file.Name))).ToList();
        var selected = wanted.Where(file => HubNames.IsFetched(file.Name)).ToList();
        var skipped = wanted.Where(file => !HubNames.IsFetched(file.Name)).Select(file => file.Name).ToList();
        var never = $"{List(skipped.Select(Quote))} (only safetensors, GGUF, JSON, tokenizer and licence files are; pickles such as .bin may run code)";
        if (selected.Count == 0)
        {
            throw new HubException(
                skipped.Count > 0 ? $"{page}: nothing to fetch; never fetched: {never}"
                : patterns.Count > 0 ? $"{page}: no file matches {List(patterns.Select(Quote))}; it has {List(listing.Files.Select(file => Quote(file.Name)))}"
                : $"{page}: has no files");
        }
        if (skipped.Count > 0)
            notes.Add($"skipped {never}");
        if (patterns.Where(pattern => !wanted.Any(file => HubNames.Matches(pattern, file.Name))).ToList() is { Count: > 0 } idle)
            notes.Add($"no file matches {List(idle.Select(Quote))}");
        if (patterns.Count == 0 && !selected.Any(file => HubNames.IsWeights(file.Name)))
            notes.Add($"{page} has no safetensors or GGUF weights");

        var seen = new HashSet<string>(OperatingSystem.IsLinux() ? StringComparer.Ordinal : StringComparer.OrdinalIgnoreCase);
        foreach (var (name, _) in selected)
        {
            if (HubNames.Fault(name) is { } fault)
                throw new HubException($"{page}: the file name {Quote(name)} {fault}; nothing was fetched");
            if (!seen.Add(name))
                throw new HubException($"{page}: lists {Quote(name)} twice");
        }
        return selected;
    }

    private static HubSnapshot FromCache(HubRequest request, HubOptions options)
    {
        if (request.Folder is not null)
            throw new HubException("HF_HUB_OFFLINE is set: only the cache is used, and a folder cannot be filled");
        var folder = HubCache.Find(options.Cache, request.Repository, request.Revision)
            ?? throw new HubException($"HF_HUB_OFFLINE is set, and the cache {options.Cache} has no {request.Repository} at revision {Quote(request.Revision)}");
        string[] names = [.. Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Where(File.Exists)
            .Select(file => Path.GetRelativePath(folder, file).Replace('\\', '/'))
            .Where(name => request.Files.Count == 0 || request.Files.Any(pattern => HubNames.Matches(pattern, name))).Order(StringComparer.Ordinal)];
        return names.Length > 0
            ? new(Path.GetFullPath(folder), Path.GetFileName(folder), names, [])
            : throw new HubException($"HF_HUB_OFFLINE is set, and {folder} has no file"
                + (request.Files.Count > 0 ? $" that matches {List(request.Files.Select(Quote))}" : ""));
    }

    private static Task ForEachAsync(int count, Func<int, CancellationToken, Task> run, CancellationToken cancel)
    {
        var options = new ParallelOptions { MaxDegreeOfParallelism = Streams, CancellationToken = cancel };
        return Parallel.ForAsync(0, count, options, async (i, stop) => await run(i, stop).ConfigureAwait(false));
    }

    private static string Size(long bytes) => bytes >= 1 << 30 ? $"{bytes / (double)(1 << 30):F1} GiB" : $"{bytes / (double)(1 << 20):F1} MiB";
}
