using System.Runtime.InteropServices;
using System.Text;

namespace Trimtab.Text;

/// <summary>
/// Byte-pair encoding of one pre-tokenized piece: a linked list of symbols and a queue of the pairs that may merge. The pair of lowest
/// rank merges first, the leftmost among equals, so the time is n log n in the piece's length whatever the text is.
/// </summary>
internal abstract class MergeModel(Vocabulary vocabulary)
{
    /// <summary>A symbol of the piece; a removed one has length 0.</summary>
    internal struct Symbol
    {
        public int Id, Start, Length, Previous, Next;
    }

    /// <summary>The working memory of one call of Encode, so that the many short words of a text allocate nothing.</summary>
    public sealed class Scratch
    {
        internal readonly PriorityQueue<int, long> Pairs = new();
        internal readonly List<Symbol> Symbols = [];
        internal readonly Dictionary<int, (int LeftLength, int RightLength)> Undo = [];
    }

    protected Vocabulary Vocabulary { get; } = vocabulary;

    /// <summary>Appends the ids of one piece. The piece holds no lone surrogate.</summary>
    public abstract void Encode(ReadOnlySpan<char> piece, List<int> ids, Scratch scratch);

    /// <summary>Whether two neighbours merge; the lower rank goes first.</summary>
    protected abstract bool TryMerge(ReadOnlySpan<char> piece, in Symbol left, in Symbol right, out int rank, out int id);

    /// <summary>Appends a symbol to the list, linked to its neighbours.</summary>
    protected static void Add(List<Symbol> symbols, int id, int start, int length) => symbols.Add(
        new Symbol { Id = id, Start = start, Length = length, Previous = symbols.Count - 1, Next = symbols.Count + 1 });

    /// <summary>Merges until no pair is left.</summary>
    protected void MergeAll(ReadOnlySpan<char> piece, Scratch scratch)
    {
        var symbols = CollectionsMarshal.AsSpan(scratch.Symbols);
        if (symbols.Length < 2)
            return;
        symbols[^1].Next = -1;
        var pairs = scratch.Pairs;
        pairs.Clear();
        for (var i = 0; i + 1 < symbols.Length; i++)
            Propose(piece, symbols, i, pairs);
        while (pairs.TryDequeue(out var id, out var key))
        {
            var position = (int)(key & int.MaxValue);
            ref var left = ref symbols[position];
            if (left.Length == 0 || left.Next < 0)
                continue;
            ref var right = ref symbols[left.Next];
            // One of the two may have merged with another since this pair was proposed.
            if (!TryMerge(piece, left, right, out _, out var current) || current != id)
                continue;
            Merged(id, left, right, scratch);
            left.Id = id;
            left.Length += right.Length;
            left.Next = right.Next;
            right.Length = 0;
            if (left.Next >= 0)
                symbols[left.Next].Previous = position;
            if (left.Previous >= 0)
                Propose(piece, symbols, left.Previous, pairs);
            Propose(piece, symbols, position, pairs);
        }
    }

    /// <summary>Told of each merge before it is made.</summary>
    protected virtual void Merged(int id, in Symbol left, in Symbol right, Scratch scratch) { }

    private void Propose(ReadOnlySpan<char> piece, Span<Symbol> symbols, int position, PriorityQueue<int, long> pairs)
    {
        ref readonly var left = ref symbols[position];
        if (left.Next >= 0 && TryMerge(piece, left, symbols[left.Next], out var rank, out var id))
            pairs.Enqueue(id, ((long)rank << 32) | (uint)position);
    }
}

/// <summary>
/// BPE with a ranked list of merges, as GPT-2's (Radford et al. 2019) and the `BPE` model of tokenizer.json are, with byte fallback and
/// an unknown piece where the file has them.
/// </summary>
/// <param name="vocabulary">The pieces.</param>
/// <param name="merges">Its merges.</param>
/// <param name="unknown">The unknown piece's id, or −1: characters outside the vocabulary vanish.</param>
/// <param name="fuseUnknown">A run of unknown characters is one unknown piece.</param>
/// <param name="byteFallback">An unknown character becomes its bytes' pieces, where all of them exist.</param>
/// <param name="ignoreMerges">A whole piece that is in the vocabulary is taken as it is.</param>
internal sealed class RankedMerges(
    Vocabulary vocabulary, MergeTable merges, int unknown, bool fuseUnknown, bool byteFallback, bool ignoreMerges)
    : MergeModel(vocabulary)
{
    public override void Encode(ReadOnlySpan<char> piece, List<int> ids, Scratch scratch)
    {
        if (ignoreMerges && Vocabulary.IdOf(piece) is var whole and >= 0)
        {
            ids.Add(whole);
            return;
        }
        var symbols = scratch.Symbols;
        symbols.Clear();
        var pending = false;
        Span<byte> utf8 = stackalloc byte[4];
        for (int start = 0, length; start < piece.Length; start += length)
        {
            Rune.DecodeFromUtf16(piece[start..], out var rune, out length);
            if (Vocabulary.IdOf(piece.Slice(start, length)) is var id and >= 0)
            {
                if (pending)
                    Add(symbols, unknown, start, 1);
                pending = false;
                Add(symbols, id, start, length);
                continue;
            }
            if (byteFallback && utf8[..rune.EncodeToUtf8(utf8)] is var bytes && HasAll(bytes))
            {
                foreach (var value in bytes)
                    Add(symbols, Vocabulary.ByteIds[value], start, 1);
                continue;
            }
            if (unknown < 0)
                continue;
            if (pending && !fuseUnknown)
                Add(symbols, unknown, start, 1);
            pending = true;
        }
        if (pending)
            Add(symbols, unknown, piece.Length, 1);
        MergeAll(piece, scratch);
        foreach (ref readonly var symbol in CollectionsMarshal.AsSpan(symbols))
            if (symbol.Length > 0)
                ids.Add(symbol.Id);
    }

    protected override bool TryMerge(ReadOnlySpan<char> piece, in Symbol left, in Symbol right, out int rank, out int id) =>
        merges.TryGet(left.Id, right.Id, out rank, out id);

    private bool HasAll(ReadOnlySpan<byte> bytes)
    {
        foreach (var value in bytes)
            if (Vocabulary.ByteIds[value] < 0)
                return false;
        return true;
    }
}

/// <summary>
/// SentencePiece's BPE (Kudo and Richardson 2018): neighbours merge where their joined text is a piece, the highest score first. Pieces
/// that are marked unused take part in merging and are taken apart again at the end.
/// </summary>
/// <param name="vocabulary">The normal and unused pieces, and the byte pieces.</param>
/// <param name="ranks">For each id its place in descending order of score (equal scores share one), −1 for an id that no merge makes.</param>
/// <param name="unused">Whether an id is marked unused.</param>
/// <param name="unknown">The unknown piece's id, or −1.</param>
internal sealed class ScoredPieces(Vocabulary vocabulary, int[] ranks, bool[] unused, int unknown) : MergeModel(vocabulary)
{
    public override void Encode(ReadOnlySpan<char> piece, List<int> ids, Scratch scratch)
    {
        var symbols = scratch.Symbols;
        symbols.Clear();
        scratch.Undo.Clear();
        for (int start = 0, length; start < piece.Length; start += length)
        {
            Rune.DecodeFromUtf16(piece[start..], out _, out length);
            Add(symbols, -1, start, length);
        }
        MergeAll(piece, scratch);
        var afterUnknown = false;
        foreach (ref readonly var symbol in CollectionsMarshal.AsSpan(symbols))
            if (symbol.Length > 0)
                Emit(piece.Slice(symbol.Start, symbol.Length), ids, scratch, ref afterUnknown);
    }

    protected override bool TryMerge(ReadOnlySpan<char> piece, in Symbol left, in Symbol right, out int rank, out int id)
    {
        var length = left.Length + right.Length;
        id = length > Vocabulary.Longest ? -1 : Vocabulary.IdOf(piece.Slice(left.Start, length));
        rank = id < 0 ? -1 : ranks[id];
        return rank >= 0;
    }

    protected override void Merged(int id, in Symbol left, in Symbol right, Scratch scratch)
    {
        if (unused[id])
            scratch.Undo[id] = (left.Length, right.Length);
    }

    // The recursion is as deep as a chain of unused pieces, each shorter than the one that it is a part of; one longer than a real
    // vocabulary's longest piece is not followed.
    private void Emit(ReadOnlySpan<char> text, List<int> ids, Scratch scratch, ref bool afterUnknown, int depth = 0)
    {
        var id = Vocabulary.IdOf(text);
        if (id >= 0 && ranks[id] >= 0)
        {
            if (unused[id] && depth < 256 && scratch.Undo.TryGetValue(id, out var parts))
            {
                Emit(text[..parts.LeftLength], ids, scratch, ref afterUnknown, depth + 1);
                Emit(text[parts.LeftLength..], ids, scratch, ref afterUnknown, depth + 1);
                return;
            }
            ids.Add(id);
            afterUnknown = false;
            return;
        }
        Span<byte> utf8 = stackalloc byte[4];
        Rune.DecodeFromUtf16(text, out var rune, out _);
        var bytes = utf8[..rune.EncodeToUtf8(utf8)];
        foreach (var value in bytes)
            if (Vocabulary.ByteIds[value] < 0)
            {
                if (!afterUnknown && unknown >= 0)
                    ids.Add(unknown);
                afterUnknown = true;
                return;
            }
        foreach (var value in bytes)
            ids.Add(Vocabulary.ByteIds[value]);
        afterUnknown = false;
    }
}
