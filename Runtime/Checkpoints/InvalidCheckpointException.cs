namespace Trimtab.Checkpoints;

/// <summary>
/// A weight or vector file that is missing, unreadable, truncated, corrupt or of a kind that is not read. The message is one line
/// and names the file, the field and what was expected.
/// </summary>
public sealed class InvalidCheckpointException(string message, Exception? inner = null) : Exception(OneLine(message), inner)
{
    private const int Longest = 160;
    private const int Listed = 50;

    /// <summary>A name out of an untrusted file, fit for a message: quoted, and not longer than a line.</summary>
    internal static string Quote(string name) => name.Length <= Longest ? $"'{name}'" : $"'{name[..Longest]}…'";

    /// <summary>Names for a message, in the order given; beyond fifty only their number.</summary>
    internal static string List(IEnumerable<string> names)
    {
        var all = names as IReadOnlyCollection<string> ?? [.. names];
        var text = string.Join(", ", all.Take(Listed));
        return all.Count > Listed ? $"{text} and {all.Count - Listed} more" : text;
    }

    /// <summary>Files name tensors as they like, with line breaks and terminal codes too: those do not reach a terminal.</summary>
    internal static string OneLine(string text) =>
        text.Any(char.IsControl) ? string.Concat(text.Select(c => char.IsControl(c) ? '\uFFFD' : c)) : text;
}
