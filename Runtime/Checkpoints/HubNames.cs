using System.Text;

namespace Trimtab.Checkpoints;

/// <summary>Which names are taken from a hub, and what they may look like. A server's names are not to be trusted.</summary>
internal static class HubNames
{
    /// <summary>Whether a text is ORG/NAME by the hub's rules: letters, digits, <c>-</c>, <c>_</c> and <c>.</c>, without <c>--</c> and <c>..</c>.</summary>
    public static bool IsRepository(string name)
        => name.Split('/') is { Length: 2 } parts && parts.All(IsPart) && !name.Contains("--") && !name.Contains("..") && !name.EndsWith(".git");

    /// <summary>What forbids a path from a server, or a revision, as a path below a folder of ours; null where nothing does.</summary>
    public static string? Fault(string path)
    {
        if (path.Length is 0 or > 1024)
            return "is empty or longer than 1024 characters";
        if (path.Any(c => char.IsControl(c) || c is '\\' or ':') || !IsUnicode(path))
            return "has control characters, a backslash or a colon";
        foreach (var part in path.Split('/'))
        {
            if (part is "" or "." or ".." || part[^1] is '.' or ' ' || part[0] == ' ')
                return "is absolute or has a part that is empty, '.', '..' or ends in a dot or a space";
            if (Encoding.UTF8.GetByteCount(part) > 255 || IsDevice(part))
                return "has a part that no file system takes";
        }
        return null;
    }

    /// <summary>Whether a file is one that a model is made of. Pickles (.bin, .pt, …) are not: opening one may run its author's code.</summary>
    public static bool IsFetched(string name)
    {
        var file = name[(name.LastIndexOf('/') + 1)..].ToLowerInvariant();
        var extension = Path.GetExtension(file);
        return extension is ".safetensors" or ".gguf" or ".json" or ".jinja"
            || file is "merges.txt" or "vocab.txt" or "tokenizer.model"
            || (extension is "" or ".md" or ".txt" && (file.StartsWith("readme") || file.StartsWith("license") || file.StartsWith("notice")));
    }

    /// <summary>Whether a file holds weights.</summary>
    public static bool IsWeights(string name) => Path.GetExtension(name).ToLowerInvariant() is ".safetensors" or ".gguf";

    /// <summary>
    /// Whether a pattern takes a whole path, as the hub's own tools match (Python's fnmatch): <c>*</c> any characters, <c>/</c> too;
    /// <c>?</c> one; <c>[a-z]</c>, <c>[!a-z]</c> one of or none of. A pattern that ends in <c>/</c> takes all below that folder.
    /// </summary>
    public static bool Matches(string pattern, string name)
    {
        if (pattern.EndsWith('/'))
            pattern += '*';
        // Where a mismatch follows a star, that star takes one more character: at most pattern × name steps.
        var (p, n, star, taken) = (0, 0, -1, 0);
        while (n < name.Length)
        {
            if (p < pattern.Length && pattern[p] == '*')
                (star, taken, p) = (p, n, p + 1);
            else if (p < pattern.Length && MatchesOne(pattern, p, name[n], out var next))
                (p, n) = (next, n + 1);
            else if (star >= 0)
                (p, n) = (star + 1, ++taken);
            else
                return false;
        }
        return pattern.AsSpan(p).Trim('*').IsEmpty;
    }

    private static bool MatchesOne(string pattern, int p, char c, out int next)
    {
        next = p + 1;
        if (pattern[p] == '?')
            return true;
        var first = p + 1 < pattern.Length && pattern[p + 1] == '!' ? p + 2 : p + 1;
        // A bracket that stands first is a member; without a closing one, [ stands for itself.
        if (pattern[p] != '[' || first >= pattern.Length || pattern.IndexOf(']', first + 1) is not (> 0 and var end))
            return pattern[p] == c;
        next = end + 1;
        var member = false;
        for (var i = first; i < end; i++)
        {
            if (i + 2 < end && pattern[i + 1] == '-')
            {
                member |= c >= pattern[i] && c <= pattern[i + 2];
                i += 2;
            }
            else
            {
                member |= c == pattern[i];
            }
        }
        return member == (first == p + 1);
    }

    private static bool IsPart(string part)
        => part.Length is > 0 and <= 96 && part.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.')
            && part[0] is not ('-' or '.') && part[^1] is not ('-' or '.');

    private static bool IsUnicode(string text)
    {
        foreach (var rune in text.EnumerateRunes())
        {
            if (rune == Rune.ReplacementChar)
                return false;
        }
        return true;
    }

    // Windows opens these whatever their ending is; they are no files anywhere else either.
    private static bool IsDevice(string part)
        => OperatingSystem.IsWindows() && part.Split('.')[0].ToUpperInvariant() is var stem
            && (stem is "CON" or "PRN" or "AUX" or "NUL" || (stem.Length == 4 && (stem.StartsWith("COM") || stem.StartsWith("LPT")) && char.IsAsciiDigit(stem[3])));
}
