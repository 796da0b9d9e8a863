using System.Text.Json;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>A file of a repository, as the hub describes it.</summary>
/// <param name="Name">Its path in the repository; checked by <see cref="HubNames.Fault"/> before anything is written.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Tag">
/// Its ETag, the name of its blob: the SHA-256 of a file in large-file storage (64 hex digits), the SHA-1 of another's git object
/// (40), or something else that cannot be checked.
/// </param>
internal sealed record HubFile(string Name, long Size, string Tag)
{
    /// <summary>No file of a model is near this.</summary>
    public const long LargestFile = 1L << 40;

    /// <summary>Whether the tag says what the content is.</summary>
    public bool IsHashed => IsHash(Tag, 64) || IsHash(Tag, 40);

    /// <summary>Whether a text is so many lower-case hex digits.</summary>
    public static bool IsHash(string? text, int digits) => text?.Length == digits && text.All(char.IsAsciiHexDigitLower);
}

/// <summary>What a hub answers about a revision: <c>GET /api/models/ORG/NAME/revision/R?blobs=true</c>.</summary>
/// <param name="Commit">The commit that the revision stands for.</param>
/// <param name="Files">All names, and what is known of each; null for files that must be asked for one by one.</param>
internal sealed record HubListing(string Commit, IReadOnlyList<(string Name, HubFile? Known)> Files)
{
    /// <summary>Longest answer that is read.</summary>
    public const int LongestJson = 32 << 20;

    private const int MostFiles = 100_000;

    /// <summary>Reads the answer.</summary>
    /// <param name="json">UTF-8.</param>
    /// <param name="source">Who answered, for messages.</param>
    /// <exception cref="HubException">It is not what a hub answers.</exception>
    public static HubListing Parse(ReadOnlyMemory<byte> json, string source)
    {
        try
        {
            using var document = JsonDocument.Parse(json);
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !HubFile.IsHash(Text(root, "sha"), 40))
                throw new HubException($"{source}: the answer names no commit (sha); is this a hub?");
            if (!root.TryGetProperty("siblings", out var siblings) || siblings.ValueKind != JsonValueKind.Array)
                throw new HubException($"{source}: the answer lists no files (siblings)");
            if (siblings.GetArrayLength() > MostFiles)
                throw new HubException($"{source}: lists {siblings.GetArrayLength()} files; a model has at most {MostFiles}");
            return new(Text(root, "sha")!, [.. siblings.EnumerateArray().Select(file => ParseFile(file, source))]);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // InvalidOperationException: a text that is no Unicode.
            throw new HubException($"{source}: the answer is not the JSON of a hub ({e.Message})", e);
        }
    }

    private static (string Name, HubFile? Known) ParseFile(JsonElement file, string source)
    {
        if (file.ValueKind != JsonValueKind.Object || Text(file, "rfilename") is not { } name)
            throw new HubException($"{source}: a file has no name (siblings[].rfilename)");
        var size = Size(file, name, source);
        if (file.TryGetProperty("lfs", out var lfs) && lfs.ValueKind == JsonValueKind.Object)
        {
            var stored = Size(lfs, name, source);
            if (size is not null && stored is not null && size != stored)
                throw new HubException($"{source}: {Quote(name)} has {size} bytes and {stored} in large-file storage");
            return (name, Known(size ?? stored, Text(lfs, "sha256")?.ToLowerInvariant(), 64));
        }
        return (name, Known(size, Text(file, "blobId")?.ToLowerInvariant(), 40));

        HubFile? Known(long? bytes, string? tag, int digits) => bytes is { } known && HubFile.IsHash(tag, digits) ? new(name, known, tag!) : null;
    }

    private static string? Text(JsonElement element, string name)
        => element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static long? Size(JsonElement element, string name, string source)
        => !element.TryGetProperty("size", out var size) || size.ValueKind == JsonValueKind.Null ? null
        : size.ValueKind == JsonValueKind.Number && size.TryGetInt64(out var bytes) && bytes is >= 0 and <= HubFile.LargestFile ? bytes
        : throw new HubException($"{source}: the size of {Quote(name)} is {Quote(size.GetRawText())}; expected 0 to {HubFile.LargestFile} bytes");
}
