using System.Buffers;
using System.Text;

namespace Trimtab.Text;

/// <summary>A token that is found in the text itself, before the model sees it, with the flags that tokenizer.json gives it.</summary>
/// <param name="Content">The text.</param>
/// <param name="Id">The id.</param>
/// <param name="Special">Skipped by decoding that skips special tokens; found in a text only where the caller allows it.</param>
/// <param name="Normalized">Looked for, itself normalized, in the normalized text.</param>
/// <param name="SingleWord">Only where no word character stands beside it.</param>
/// <param name="StripLeft">Takes the white space before it with it.</param>
/// <param name="StripRight">Takes the white space after it with it.</param>
internal sealed record AddedToken(
    string Content, int Id, bool Special, bool Normalized = false, bool SingleWord = false, bool StripLeft = false, bool StripRight = false);

/// <summary>Finds added tokens in a text, the leftmost first and the longest of those, by a trie.</summary>
internal sealed class AddedTokens
{
    private readonly Dictionary<long, int> _edges = [];
    private readonly List<AddedToken?> _ends = [null];
    private readonly SearchValues<char> _starts;

    /// <param name="tokens">The tokens, each with the text to look for (its content, or that normalized).</param>
    public AddedTokens(IEnumerable<(string Text, AddedToken Token)> tokens)
    {
        var starts = new HashSet<char>();
        foreach (var (text, token) in tokens)
        {
            if (text.Length == 0)
                continue;
            starts.Add(text[0]);
            var node = 0;
            foreach (var unit in text)
            {
                var key = ((long)node << 16) | unit;
                if (!_edges.TryGetValue(key, out var child))
                {
                    _edges.Add(key, child = _ends.Count);
                    _ends.Add(null);
                }
                node = child;
            }
            _ends[node] ??= token;
        }
        _starts = SearchValues.Create([.. starts]);
    }

    /// <summary>
    /// Cuts a text into tokens and what is between them (token null; never empty). The rules are those of Hugging Face tokenizers: a match
    /// that its flags (or <paramref name="special"/> = false) rule out is passed over whole, as is what it hides.
    /// </summary>
    public void Cut(string text, bool special, List<(int Start, int End, AddedToken? Token)> parts)
    {
        var done = 0;
        for (var position = 0; Next(ref position, out var length) is { } token;)
        {
            var start = position;
            var end = position += length;
            if (token.Special && !special)
                continue;
            if (token.SingleWord && ((start > 0 && IsWordBefore(text, start)) || (end < text.Length && IsWordAt(text, end))))
                continue;
            if (token.StripLeft)
            {
                while (start > done && char.IsWhiteSpace(text[start - 1]))
                    start--;
            }
            if (token.StripRight)
            {
                while (end < text.Length && char.IsWhiteSpace(text[end]))
                    end++;
            }
            if (done < start)
                parts.Add((done, start, null));
            parts.Add((start, end, token));
            done = end;
        }
        if (done < text.Length)
            parts.Add((done, text.Length, null));

        AddedToken? Next(ref int position, out int length)
        {
            length = 0;
            while (position < text.Length)
            {
                var skip = text.AsSpan(position).IndexOfAny(_starts);
                if (skip < 0)
                    return null;
                position += skip;
                AddedToken? longest = null;
                for (int node = 0, i = position; i < text.Length && _edges.TryGetValue(((long)node << 16) | text[i], out node); i++)
                    if (_ends[node] is { } token)
                        (longest, length) = (token, i + 1 - position);
                if (longest is not null)
                    return longest;
                position++;
            }
            return null;
        }
    }

    private static bool IsWordAt(string text, int index) => RuneSet.IsWord(Rune.GetRuneAt(text, index).Value);

    private static bool IsWordBefore(string text, int index) =>
        RuneSet.IsWord(Rune.GetRuneAt(text, char.IsLowSurrogate(text[index - 1]) ? index - 2 : index - 1).Value);
}
