using System.Runtime.CompilerServices;

namespace Trimtab.Text;

/// <summary>
/// The model's pieces: text ↔ id, both ways. Ids may have holes; equal texts keep the last id. All texts lie in one array and are found by
/// a hash table of their indices, because a start-up with 128,000 strings and a dictionary of them takes several times as long.
/// </summary>
internal sealed class Vocabulary
{
    /// <summary>Ids at or above this are refused: the tables by id are dense, and no published vocabulary comes near it.</summary>
    public const int MaximumSize = 1 << 24;

    private char[] _texts = new char[1 << 16];
    private int _used;                        // of _texts
    private Entry[] _entries = new Entry[1 << 12]; // open addressing
    private int _count;
    private int[] _entryOfId = [];            // [Size]: an entry's index, or −1
    private string?[] _strings = [];          // [Size]: made when first asked for

    /// <summary>A piece; Text is where its text begins, + 1, or 0 in an empty entry.</summary>
    // All that a look-up needs in one cache line: its misses are most of a load's time.
    private record struct Entry(int Hash, int Text, int Length, int Id);

    /// <summary>The highest id + 1.</summary>
    public int Size { get; private set; }

    /// <summary>The length of the longest piece, in UTF-16 units.</summary>
    public int Longest { get; private set; }

    /// <summary>The id of "&lt;0xHH&gt;" for each byte, −1 where there is none.</summary>
    public int[] ByteIds { get; } = new int[256];

    /// <summary>Adds a piece; its id is in [0, <see cref="MaximumSize"/>).</summary>
    // Fully optimised from its first call on: the whole load is over before tiered compilation would get to it.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Add(ReadOnlySpan<char> text, int id)
    {
        Size = Math.Max(Size, id + 1);
        var hash = string.GetHashCode(text);
        ref var entry = ref _entries[Find(text, hash)];
        if (entry.Text > 0)
        {
            entry.Id = id;
            return;
        }
        Longest = Math.Max(Longest, text.Length);
        if (text.Length > _texts.Length - _used)
            Array.Resize(ref _texts, checked(Math.Max(2 * _texts.Length, _used + text.Length)));
        text.CopyTo(_texts.AsSpan(_used));
        entry = new Entry(hash, _used + 1, text.Length, id);
        _used += text.Length;
        if (++_count > _entries.Length / 4 * 3)
            Grow();
    }

    /// <summary>Ends adding; only then are the other members to be used.</summary>
    public Vocabulary Seal()
    {
        _entryOfId = new int[Size];
        _strings = new string?[Size];
        Array.Fill(_entryOfId, -1);
        for (var i = 0; i < _entries.Length; i++)
            if (_entries[i].Text > 0)
                _entryOfId[_entries[i].Id] = i;
        for (var value = 0; value < 256; value++)
            ByteIds[value] = IdOf($"<0x{value:X2}>");
        return this;
    }

    /// <summary>The id of a piece, or −1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public int IdOf(ReadOnlySpan<char> text) =>
        text.Length <= Longest && _entries[Find(text, string.GetHashCode(text))] is { Text: > 0 } entry ? entry.Id : -1;

    /// <summary>The piece of an id, or null.</summary>
    public string? TextOf(int id)
    {
        if ((uint)id >= (uint)Size || _entryOfId[id] < 0)
            return null;
        var entry = _entries[_entryOfId[id]];
        return _strings[id] ??= new string(_texts, entry.Text - 1, entry.Length);
    }

    /// <summary>The entry that holds a text, or the empty one where it would go.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int Find(ReadOnlySpan<char> text, int hash)
    {
        for (var i = hash & (_entries.Length - 1); ; i = (i + 1) & (_entries.Length - 1))
        {
            ref readonly var entry = ref _entries[i];
            if (entry.Text == 0 || (entry.Hash == hash && text.SequenceEqual(_texts.AsSpan(entry.Text - 1, entry.Length))))
                return i;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Grow()
    {
        var old = _entries;
        _entries = new Entry[2 * old.Length];
        foreach (ref readonly var entry in old.AsSpan())
        {
            if (entry.Text == 0)
                continue;
            var i = entry.Hash & (_entries.Length - 1);
            while (_entries[i].Text > 0)
                i = (i + 1) & (_entries.Length - 1);
            _entries[i] = entry;
        }
    }
}
