namespace Trimtab.Text;

/// <summary>The model's pieces: text ↔ id, both ways. Ids may have holes; equal texts keep the last id.</summary>
internal sealed class Vocabulary
{
    /// <summary>Ids at or above this are refused: the tables by id are dense, and no published vocabulary comes near it.</summary>
    public const int MaximumSize = 1 << 24;

    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _bySpan;
    private readonly string?[] _texts;

    /// <param name="ids">Text to id; every id is in [0, <see cref="MaximumSize"/>).</param>
    public Vocabulary(Dictionary<string, int> ids)
    {
        _bySpan = ids.GetAlternateLookup<ReadOnlySpan<char>>();
        var size = 0;
        foreach (var (text, id) in ids)
        {
            size = Math.Max(size, id + 1);
            Longest = Math.Max(Longest, text.Length);
        }
        _texts = new string?[size];
        foreach (var (text, id) in ids)
            _texts[id] = text;
        for (var value = 0; value < 256; value++)
            ByteIds[value] = IdOf($"<0x{value:X2}>");
    }

    /// <summary>The highest id + 1.</summary>
    public int Size => _texts.Length;

    /// <summary>The length of the longest piece, in UTF-16 units.</summary>
    public int Longest { get; }

    /// <summary>The id of "&lt;0xHH&gt;" for each byte, −1 where there is none.</summary>
    public int[] ByteIds { get; } = new int[256];

    /// <summary>The id of a piece, or −1.</summary>
    public int IdOf(ReadOnlySpan<char> text) => _bySpan.TryGetValue(text, out var id) ? id : -1;

    /// <summary>The piece of an id, or null.</summary>
    public string? TextOf(int id) => (uint)id < (uint)_texts.Length ? _texts[id] : null;
}
