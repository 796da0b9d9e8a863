using System.Collections.Frozen;
using System.IO.Compression;
using System.Text;

namespace Trimtab.Text;

/// <summary>
/// Unicode's normalization forms (UAX #15). The runtime's own string.Normalize changes nothing where globalization is invariant, as it is
/// in this program, and a library cannot choose that for its host.
/// </summary>
internal static partial class UnicodeForms
{
    private const int SyllableBase = 0xAC00, LeadBase = 0x1100, VowelBase = 0x1161, TailBase = 0x11A7;
    private const int Leads = 19, Vowels = 21, Tails = 28, Syllables = Leads * Vowels * Tails;

    private static readonly Lazy<Tables> Loaded = new(Tables.Read);

    private sealed record Tables(
        FrozenDictionary<int, (int[] Runes, bool Compatibility)> Decompositions, FrozenDictionary<long, int> Compositions,
        FrozenDictionary<int, int> Classes)
    {
        public static Tables Read()
        {
            using var stream = new ZLibStream(new MemoryStream(Convert.FromBase64String(Data)), CompressionMode.Decompress);
            using var bytes = new MemoryStream();
            stream.CopyTo(bytes);
            bytes.Position = 0;
            var decompositions = new Dictionary<int, (int[], bool)>();
            var compositions = new Dictionary<long, int>();
            var classes = new Dictionary<int, int>();
            for (int left = Number(bytes), rune = 0; left > 0; left--)
            {
                rune += Number(bytes);
                var head = Number(bytes);
                var parts = new int[head >> 2];
                for (int i = 0, last = rune; i < parts.Length; i++)
                {
                    var step = Number(bytes);
                    parts[i] = last += (step >> 1) ^ -(step & 1);
                }
                decompositions.Add(rune, (parts, (head & 2) != 0));
                if ((head & 3) == 0 && parts.Length == 2)
                    compositions.Add(Pair(parts[0], parts[1]), rune);
            }
            for (int left = Number(bytes), rune = 0; left > 0; left--)
            {
                rune += Number(bytes);
                var length = Number(bytes);
                var value = Number(bytes);
                for (var i = 0; i < length; i++)
                    classes.Add(rune + i, value);
            }
            return new Tables(decompositions.ToFrozenDictionary(), compositions.ToFrozenDictionary(), classes.ToFrozenDictionary());
        }

        private static int Number(MemoryStream bytes)
        {
            for (int value = 0, shift = 0; ; shift += 7)
            {
                var next = bytes.ReadByte();
                value |= (next & 127) << shift;
                if (next < 128)
                    return value;
            }
        }
    }

    /// <summary>The text in a normalization form. It holds no lone surrogate.</summary>
    public static string Normalize(string text, bool compatibility, bool compose)
    {
        // Nothing below U+00A0 decomposes, and below U+0300 nothing composes with what is before it or has a canonical composition left out.
        if (!text.AsSpan().ContainsAnyExceptInRange('\0', compose && !compatibility ? '\u02FF' : '\u009F'))
            return text;
        var tables = Loaded.Value;
        var runes = new List<int>(text.Length);
        foreach (var rune in text.EnumerateRunes())
            Decompose(tables, rune.Value, compatibility, runes);
        Order(tables, runes);
        if (compose)
            Compose(tables, runes);
        var result = new StringBuilder(text.Length);
        foreach (var rune in runes)
            result.Append(new Rune(rune));
        return result.ToString();
    }

    private static long Pair(int first, int second) => ((long)first << 32) | (uint)second;

    private static void Decompose(Tables tables, int rune, bool compatibility, List<int> runes)
    {
        if (rune is >= SyllableBase and < SyllableBase + Syllables)
        {
            var index = rune - SyllableBase;
            runes.Add(LeadBase + index / (Vowels * Tails));
            runes.Add(VowelBase + index % (Vowels * Tails) / Tails);
            if (index % Tails != 0)
                runes.Add(TailBase + index % Tails);
        }
        else if (rune >= 0xA0 && tables.Decompositions.TryGetValue(rune, out var parts) && (compatibility || !parts.Compatibility))
        {
            foreach (var part in parts.Runes)
                Decompose(tables, part, compatibility, runes);
        }
        else
        {
            runes.Add(rune);
        }
    }

    /// <summary>Sorts each run of combining marks by class, keeping the order of equals.</summary>
    private static void Order(Tables tables, List<int> runes)
    {
        var run = new List<(int Class, int Index, int Rune)>();
        for (var i = 0; i <= runes.Count; i++)
        {
            var value = i < runes.Count ? Class(tables, runes[i]) : 0;
            if (value != 0)
            {
                run.Add((value, i, runes[i]));
            }
            else if (run.Count > 0)
            {
                run.Sort();
                for (var j = 0; j < run.Count; j++)
                    runes[i - run.Count + j] = run[j].Rune;
                run.Clear();
            }
        }
    }

    private static void Compose(Tables tables, List<int> runes)
    {
        int starter = -1, lastClass = -1, kept = 0;
        for (var i = 0; i < runes.Count; i++)
        {
            var rune = runes[i];
            var value = Class(tables, rune);
            // Blocked where a mark of the same or a higher class (or a starter) stands between the starter and this one.
            if (starter >= 0 && (lastClass < value || lastClass == -1) && Composite(tables, runes[starter], rune) is var composite and >= 0)
            {
                runes[starter] = composite;
                continue;
            }
            if (value == 0)
                (starter, lastClass) = (kept, -1);
            else
                lastClass = value;
            runes[kept++] = rune;
        }
        runes.RemoveRange(kept, runes.Count - kept);
    }

    private static int Composite(Tables tables, int first, int second)
    {
        if (first is >= LeadBase and < LeadBase + Leads && second is >= VowelBase and < VowelBase + Vowels)
            return SyllableBase + ((first - LeadBase) * Vowels + second - VowelBase) * Tails;
        if (first is >= SyllableBase and < SyllableBase + Syllables && (first - SyllableBase) % Tails == 0 && second is > TailBase and < TailBase + Tails)
            return first + second - TailBase;
        return tables.Compositions.GetValueOrDefault(Pair(first, second), -1);
    }

    private static int Class(Tables tables, int rune) => rune < 0x300 ? 0 : tables.Classes.GetValueOrDefault(rune);
}
