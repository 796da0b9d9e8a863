using System.Runtime.CompilerServices;

namespace Trimtab.Text;

/// <summary>The merges of a BPE vocabulary: a pair of ids → its rank and the merged id. A hash table of flat entries.</summary>
/// <param name="vocabulary">The pieces.</param>
/// <param name="name">What errors call the file.</param>
/// <param name="path">What errors call the list of merges.</param>
internal sealed class MergeTable(Vocabulary vocabulary, string name, string path)
{
    // A random odd factor makes multiply-shift hashing one that no file can be written against.
    private static readonly ulong Factor = (ulong)Random.Shared.NextInt64() | 1;

    private (ulong Pair, int Rank, int Id)[] _entries = new (ulong, int, int)[1 << 12]; // open addressing; Rank from 1, 0 is empty
    private int _shift = 64 - 12;
    private int _count;
    private int _read;
    private char[] _joined = new char[256];

    /// <summary>Looks a pair up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public bool TryGet(int left, int right, out int rank, out int id)
    {
        ref readonly var entry = ref _entries[Slot(Pair(left, right))];
        (rank, id) = (entry.Rank - 1, entry.Id);
        return rank >= 0;
    }

    /// <summary>Adds the next merge, of lower rank than all before it, as "left right".</summary>
    /// <exception cref="InvalidDataException">It is not two tokens of the vocabulary that join to a third.</exception>
    public void Add(ReadOnlySpan<char> pair)
    {
        if (pair.StartsWith("#version"))
        {
            _read++;
            return;
        }
        var space = pair.IndexOf(' ');
        if (space < 0 || pair[(space + 1)..].Contains(' '))
            throw Malformed();
        Add(pair[..space], pair[(space + 1)..]);
    }

    /// <summary>Adds the next merge.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Add(ReadOnlySpan<char> left, ReadOnlySpan<char> right)
    {
        var length = left.Length + right.Length;
        if (length > _joined.Length)
            _joined = new char[checked(2 * length)];
        left.CopyTo(_joined);
        right.CopyTo(_joined.AsSpan(left.Length));
        var pair = Pair(Id(left), Id(right));
        var id = Id(_joined.AsSpan(0, length));
        // A pair that is written twice has its last rank.
        var slot = Slot(pair);
        if (_entries[slot].Rank == 0)
            _count++;
        _entries[slot] = (pair, ++_read, id);
        if (_count > _entries.Length / 4 * 3)
            Grow();
    }

    /// <summary>The error of the merge that was about to be added.</summary>
    public InvalidDataException Malformed() => new($"{name}: {path}[{_read}]: two tokens were expected, as \"a b\" or [\"a\", \"b\"]");

    private static ulong Pair(int left, int right) => ((ulong)left << 32) | (uint)right;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int Slot(ulong pair)
    {
        var slot = (int)(pair * Factor >> _shift);
        while (_entries[slot].Rank != 0 && _entries[slot].Pair != pair)
            slot = (slot + 1) & (_entries.Length - 1);
        return slot;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Grow()
    {
        var old = _entries;
        _entries = new (ulong, int, int)[2 * old.Length];
        _shift--;
        foreach (ref readonly var entry in old.AsSpan())
            if (entry.Rank != 0)
                _entries[Slot(entry.Pair)] = entry;
    }

    private int Id(ReadOnlySpan<char> token) => vocabulary.IdOf(token) is var id and >= 0
        ? id
        : throw new InvalidDataException($"{name}: {path}[{_read}] needs the token \"{token}\", which the vocabulary does not have");
}
