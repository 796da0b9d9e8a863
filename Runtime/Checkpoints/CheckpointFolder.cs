using System.Globalization;
using System.Text.RegularExpressions;

namespace Trimtab.Checkpoints;

/// <summary>Which file of a folder is its model.</summary>
internal static partial class CheckpointFolder
{
    private const StringComparison AnyCase = StringComparison.OrdinalIgnoreCase;

    /// <summary>Opens the folder's model; the order is <see cref="Checkpoint.Open"/>'s.</summary>
    public static Checkpoint Open(string folder)
    {
        string[] names;
        try
        {
            folder = Path.GetFullPath(folder);
            names = [.. Directory.GetFiles(folder).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidCheckpointException($"{folder}: the folder cannot be listed ({e.Message})", e);
        }
        var ggufs = Models(folder, [.. names.Where(name => name.EndsWith(".gguf", AnyCase))]);
        var name = Only(folder, names.Where(name => name == "model.safetensors"))
            ?? Only(folder, names.Where(name => name == "model.safetensors.index.json"))
            ?? Only(folder, names.Where(name => name.EndsWith(".safetensors.index.json", AnyCase)))
            ?? Only(folder, ggufs)
            ?? Only(folder, names.Where(name => name.EndsWith(".safetensors", AnyCase)))
            ?? throw new InvalidCheckpointException(
                $"{folder}: holds no checkpoint; looked for model.safetensors, model.safetensors.index.json, another *.safetensors.index.json, "
                + $"one *.gguf that is not an mmproj, one *.safetensors; the folder holds "
                + (names.Length == 0 ? "no files" : InvalidCheckpointException.List(names)));
        return Checkpoint.Open(Path.Combine(folder, name));
    }

    /// <summary>The number and the count of a split GGUF's part, 1-based as its name has them; null for other names.</summary>
    public static (string Prefix, int Part, int Parts)? Split(string path)
    {
        var match = SplitName().Match(path);
        return match.Success
            ? (match.Groups[1].Value, Number(match.Groups[2]), Number(match.Groups[3]))
            : null;

        static int Number(Group digits) => int.Parse(digits.ValueSpan, CultureInfo.InvariantCulture);
    }

    private static string? Only(string folder, IEnumerable<string> candidates)
    {
        string[] names = [.. candidates];
        return names.Length <= 1
            ? names.FirstOrDefault()
            : throw new InvalidCheckpointException(
                $"{folder}: holds {names.Length} checkpoints and no sign which to take; name one of {InvalidCheckpointException.List(names)}");
    }

    /// <summary>Without projectors and later parts of splits; by architecture too where names leave more than one.</summary>
    private static List<string> Models(string folder, string[] names)
    {
        var models = names.Where(name => !name.Contains("mmproj", AnyCase) && Split(name) is not { Part: not 1 }).ToList();
        return models.Count < 2 ? models : [.. models.Where(name => IsModel(Path.Combine(folder, name)))];
    }

    private static bool IsModel(string path)
    {
        try
        {
            using var file = DataFile.Open(path);
            var metadata = GgufHeader.Read(file).Metadata;
            return metadata.GetValueOrDefault("general.architecture") is not ("clip" or "controlvector" or "imatrix")
                && metadata.GetValueOrDefault("general.type") is not ("adapter" or "mmproj" or "imatrix");
        }
        catch (InvalidCheckpointException)
        {
            return true; // a broken file is not passed over in silence: it stays a candidate
        }
    }

    [GeneratedRegex(@"^(.*)-([0-9]{5})-of-([0-9]{5})\.gguf$", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex SplitName();
}
