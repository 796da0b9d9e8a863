namespace Trimtab.Text;

/// <summary>A stretch of a text, never empty; <paramref name="First"/>: it begins where the caller's whole text does.</summary>
internal readonly record struct Piece(string Text, int Start, int End, bool First)
{
    public ReadOnlySpan<char> Span => Text.AsSpan(Start, End - Start);
}

/// <summary>What becomes of a match when a text is split at it (tokenizers' SplitDelimiterBehavior).</summary>
internal enum SplitBehavior
{
    Isolated,
    Removed,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// <summary>Splits a text into the pieces that the model encodes one by one: one of tokenizer.json's pre-tokenizers.</summary>
internal abstract class PreTokenizer
{
    /// <summary>GPT-2's pattern.</summary>
    public const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    /// <summary>Appends what becomes of one piece.</summary>
    public abstract void Apply(Piece piece, List<Piece> pieces);
}

/// <summary>Splits at a pattern, or (<paramref name="invert"/>) at what is between its matches.</summary>
internal sealed class SplitPreTokenizer(TextPattern pattern, SplitBehavior behavior, bool invert = false) : PreTokenizer
{
    public override void Apply(Piece piece, List<Piece> pieces)
    {
        var matches = new List<(int Start, int End)>();
        pattern.FindAll(piece.Span, matches);
        var parts = new List<(int Start, int End, bool Match)>(2 * matches.Count + 1);
        var done = 0;
        foreach (var (start, end) in matches)
        {
            if (done < start)
                parts.Add((done, start, invert));
            parts.Add((start, end, !invert));
            done = end;
        }
        if (done < piece.End - piece.Start)
            parts.Add((done, piece.End - piece.Start, invert));
        Merge(parts);
        foreach (var (start, end, match) in parts)
            if (end > start && !(match && behavior == SplitBehavior.Removed))
                pieces.Add(new Piece(piece.Text, piece.Start + start, piece.Start + end, piece.First && start == 0));
    }

    /// <summary>Joins neighbours as the behavior says, in place.</summary>
    private void Merge(List<(int Start, int End, bool Match)> parts)
    {
        if (behavior is SplitBehavior.Isolated or SplitBehavior.Removed)
            return;
        var backwards = behavior == SplitBehavior.MergedWithNext;
        if (backwards)
            parts.Reverse();
        var kept = 0;
        var previous = false;
        foreach (var part in parts.ToArray())
        {
            var join = behavior == SplitBehavior.Contiguous ? part.Match == previous : part.Match && !previous;
            previous = part.Match;
            if (join && kept > 0)
                parts[kept - 1] = parts[kept - 1] with { Start = Math.Min(parts[kept - 1].Start, part.Start), End = Math.Max(parts[kept - 1].End, part.End) };
            else
                parts[kept++] = part;
        }
        parts.RemoveRange(kept, parts.Count - kept);
        if (backwards)
            parts.Reverse();
    }
}

/// <summary>Byte-level BPE: splits by <paramref name="split"/> where there is one, and writes each piece in the byte alphabet.</summary>
internal sealed class BytePreTokenizer(bool addPrefixSpace, SplitPreTokenizer? split) : PreTokenizer
{
    public override void Apply(Piece piece, List<Piece> pieces)
    {
        if (addPrefixSpace && piece.Span[0] != ' ')
        {
            var text = " " + piece.Span.ToString();
            piece = new Piece(text, 0, text.Length, piece.First);
        }
        var from = pieces.Count;
        if (split is null)
            pieces.Add(piece);
        else
            split.Apply(piece, pieces);
        for (var i = from; i < pieces.Count; i++)
        {
            var written = ByteAlphabet.Write(pieces[i].Span);
            pieces[i] = new Piece(written, 0, written.Length, pieces[i].First);
        }
    }
}

/// <summary>Where <see cref="MetaspacePreTokenizer"/> writes its character before a text.</summary>
internal enum PrependScheme
{
    Always,
    First,
    Never,
}

/// <summary>SentencePiece's spaces: ' ' becomes a visible character, which may be written before the text and split at.</summary>
internal sealed class MetaspacePreTokenizer(string replacement, PrependScheme scheme, bool split) : PreTokenizer
{
    private readonly SplitPreTokenizer _split = new(new LiteralPattern(replacement), SplitBehavior.MergedWithNext);

    public override void Apply(Piece piece, List<Piece> pieces)
    {
        var text = piece.Span.ToString().Replace(" ", replacement, StringComparison.Ordinal);
        if (!text.StartsWith(replacement, StringComparison.Ordinal)
            && (scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.First)))
        {
            text = replacement + text;
        }
        piece = new Piece(text, 0, text.Length, piece.First);
        if (split)
            _split.Apply(piece, pieces);
        else
            pieces.Add(piece);
    }
}
