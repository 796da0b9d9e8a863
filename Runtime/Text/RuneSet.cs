using System.Globalization;
using System.Text;

namespace Trimtab.Text;

/// <summary>A set of code points: a character class of a regular expression. Build it up, then <see cref="Freeze"/> it.</summary>
internal sealed class RuneSet
{
    private readonly List<(int First, int Last)> _ranges = [];
    private readonly List<RuneSet> _united = [];
    private readonly List<RuneSet> _intersected = [];
    private uint _categories;
    private ulong _low, _high; // the answers for ASCII

    /// <summary>The set is everything that was not added.</summary>
    public bool Negated { get; set; }

    /// <summary>Case is ignored: a character whose simple case variant was added belongs too.</summary>
    public bool IgnoreCase { get; init; }

    public static RuneSet Space { get; } = new RuneSet().Add(Tables.SpaceRanges).Freeze();

    public static RuneSet Word { get; } =
        new RuneSet().Add(Categories("L") | Categories("M") | Categories("Nd") | Categories("Nl") | Categories("Pc")).Add(Tables.WordRanges).Freeze();

    public static RuneSet Digit { get; } = new RuneSet().Add(Categories("Nd")).Freeze();

    public static RuneSet HexDigit { get; } = new RuneSet().Add([('0', '9'), ('A', 'F'), ('a', 'f')]).Freeze();

    /// <summary>Rust's char::is_numeric: Nd, Nl, No.</summary>
    public static RuneSet Number { get; } = new RuneSet().Add(Categories("N")).Freeze();

    /// <summary>ASCII's punctuation and symbols, and Unicode's punctuation.</summary>
    public static RuneSet Punctuation { get; } =
        new RuneSet().Add(Categories("P")).Add([('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]).Freeze();

    /// <summary>A word character by UTS #18: Alphabetic, Mark, decimal number, connector punctuation, join control.</summary>
    public static bool IsWord(int rune) => Word.Contains(rune) || rune is 0x200C or 0x200D;

    public bool Contains(int rune) =>
        rune < 64 ? (_low >> rune & 1) != 0 : rune < 128 ? (_high >> (rune - 64) & 1) != 0 : Test(rune);

    public RuneSet Add(params ReadOnlySpan<(int First, int Last)> ranges)
    {
        _ranges.AddRange(ranges);
        return this;
    }

    public RuneSet Add(uint categories)
    {
        _categories |= categories;
        return this;
    }

    public RuneSet Add(RuneSet other)
    {
        _united.Add(other);
        return this;
    }

    public RuneSet Intersect(RuneSet other)
    {
        _intersected.Add(other);
        return this;
    }

    public RuneSet Not() => new RuneSet { Negated = true }.Add(this).Freeze();

    public RuneSet Freeze()
    {
        for (var i = 0; i < 64; i++)
        {
            _low |= (Test(i) ? 1UL : 0) << i;
            _high |= (Test(64 + i) ? 1UL : 0) << i;
        }
        return this;
    }

    /// <summary>The general categories that a short or long property name means, as bits, or 0.</summary>
    public static uint Categories(string name)
    {
        var key = name.Replace("_", "").Replace(" ", "").Replace("-", "").ToLowerInvariant();
        uint bits = 0;
        foreach (var (shortName, longName, category) in Tables.Categories)
            if (key == shortName || key == longName || (key.Length == 1 && shortName[0] == key[0]))
                bits |= 1u << (int)category;
        return bits != 0 ? bits : key switch
        {
            "lc" or "l&" or "casedletter" => Categories("Lu") | Categories("Ll") | Categories("Lt"),
            "letter" or "mark" or "number" or "punctuation" or "symbol" or "other" => Categories(key[..1]),
            "separator" => Categories("Z"),
            _ => 0,
        };
    }

    /// <summary>The set of a property's name as Oniguruma knows it (general categories, a few scripts, Any), or null.</summary>
    public static RuneSet? Property(string name) => name.Replace("_", "").Replace(" ", "").ToLowerInvariant() switch
    {
        "any" => new RuneSet().Add((0, 0x10FFFF)).Freeze(),
        "space" or "whitespace" => Space,
        "word" => Word,
        "digit" => Digit,
        "han" => new RuneSet().Add(Tables.Han).Freeze(),
        "hiragana" => new RuneSet().Add(Tables.Hiragana).Freeze(),
        "katakana" => new RuneSet().Add(Tables.Katakana).Freeze(),
        "hangul" => new RuneSet().Add(Tables.Hangul).Freeze(),
        _ => Categories(name) is var bits and not 0 ? new RuneSet().Add(bits).Freeze() : null,
    };

    private bool Test(int rune)
    {
        var inside = Added(rune);
        if (!inside && IgnoreCase)
        {
            var value = new Rune(rune is >= 0xD800 and < 0xE000 ? 0xFFFD : rune);
            // The runtime's invariant case mapping keeps ASCII and the rest apart; these three pairs cross.
            inside = Added(Rune.ToLowerInvariant(value).Value) || Added(Rune.ToUpperInvariant(value).Value) || rune switch
            {
                's' or 'S' => Added(0x17F),
                0x17F => Added('s') || Added('S'),
                'k' or 'K' => Added(0x212A),
                0x212A => Added('k') || Added('K'),
                0xE5 or 0xC5 => Added(0x212B),
                0x212B => Added(0xE5) || Added(0xC5),
                _ => false,
            };
        }
        return inside != Negated;
    }

    private bool Added(int rune)
    {
        var inside = _categories != 0 && (_categories >> (int)CharUnicodeInfo.GetUnicodeCategory(rune) & 1) != 0;
        for (var i = 0; !inside && i < _ranges.Count; i++)
            inside = rune >= _ranges[i].First && rune <= _ranges[i].Last;
        for (var i = 0; !inside && i < _united.Count; i++)
            inside = _united[i].Contains(rune);
        for (var i = 0; inside && i < _intersected.Count; i++)
            inside = _intersected[i].Contains(rune);
        return inside;
    }

    // In a class of its own: the sets above are built from these while RuneSet itself is being initialised.
    private static class Tables
    {
        /// <summary>White_Space (PropList.txt).</summary>
        public static readonly (int, int)[] SpaceRanges =
        [
            (0x09, 0x0D), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
            (0x205F, 0x205F), (0x3000, 0x3000),
        ];

        /// <summary>What is Alphabetic though neither letter, mark nor number: circled and squared letters.</summary>
        public static readonly (int, int)[] WordRanges = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)];

        // Scripts.txt, as of Unicode 14.0.
        public static readonly (int, int)[] Han =
        [
            (0x2E80, 0x2E99), (0x2E9B, 0x2EF3), (0x2F00, 0x2FD5), (0x3005, 0x3005), (0x3007, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B),
            (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFA6D), (0xFA70, 0xFAD9), (0x16FE2, 0x16FE3), (0x16FF0, 0x16FF1),
            (0x20000, 0x2A6DF), (0x2A700, 0x2B738), (0x2B740, 0x2B81D), (0x2B820, 0x2CEA1), (0x2CEB0, 0x2EBE0), (0x2F800, 0x2FA1D),
            (0x30000, 0x3134A),
        ];

        public static readonly (int, int)[] Hiragana =
            [(0x3041, 0x3096), (0x309D, 0x309F), (0x1B001, 0x1B11F), (0x1B150, 0x1B152), (0x1F200, 0x1F200)];

        public static readonly (int, int)[] Katakana =
        [
            (0x30A1, 0x30FA), (0x30FD, 0x30FF), (0x31F0, 0x31FF), (0x32D0, 0x32FE), (0x3300, 0x3357), (0xFF66, 0xFF6F), (0xFF71, 0xFF9D),
            (0x1AFF0, 0x1AFF3), (0x1AFF5, 0x1AFFB), (0x1AFFD, 0x1AFFE), (0x1B000, 0x1B000), (0x1B120, 0x1B122), (0x1B164, 0x1B167),
        ];

        public static readonly (int, int)[] Hangul =
        [
            (0x1100, 0x11FF), (0x302E, 0x302F), (0x3131, 0x318E), (0x3200, 0x321E), (0x3260, 0x327E), (0xA960, 0xA97C), (0xAC00, 0xD7A3),
            (0xD7B0, 0xD7C6), (0xD7CB, 0xD7FB), (0xFFA0, 0xFFBE), (0xFFC2, 0xFFC7), (0xFFCA, 0xFFCF), (0xFFD2, 0xFFD7), (0xFFDA, 0xFFDC),
        ];

        public static readonly (string Short, string Long, UnicodeCategory Category)[] Categories =
        [
            ("lu", "uppercaseletter", UnicodeCategory.UppercaseLetter), ("ll", "lowercaseletter", UnicodeCategory.LowercaseLetter),
            ("lt", "titlecaseletter", UnicodeCategory.TitlecaseLetter), ("lm", "modifierletter", UnicodeCategory.ModifierLetter),
            ("lo", "otherletter", UnicodeCategory.OtherLetter), ("mn", "nonspacingmark", UnicodeCategory.NonSpacingMark),
            ("mc", "spacingmark", UnicodeCategory.SpacingCombiningMark), ("me", "enclosingmark", UnicodeCategory.EnclosingMark),
            ("nd", "decimalnumber", UnicodeCategory.DecimalDigitNumber), ("nl", "letternumber", UnicodeCategory.LetterNumber),
            ("no", "othernumber", UnicodeCategory.OtherNumber), ("zs", "spaceseparator", UnicodeCategory.SpaceSeparator),
            ("zl", "lineseparator", UnicodeCategory.LineSeparator), ("zp", "paragraphseparator", UnicodeCategory.ParagraphSeparator),
            ("cc", "control", UnicodeCategory.Control), ("cf", "format", UnicodeCategory.Format),
            ("cs", "surrogate", UnicodeCategory.Surrogate), ("co", "privateuse", UnicodeCategory.PrivateUse),
            ("cn", "unassigned", UnicodeCategory.OtherNotAssigned), ("pc", "connectorpunctuation", UnicodeCategory.ConnectorPunctuation),
            ("pd", "dashpunctuation", UnicodeCategory.DashPunctuation), ("ps", "openpunctuation", UnicodeCategory.OpenPunctuation),
            ("pe", "closepunctuation", UnicodeCategory.ClosePunctuation), ("pi", "initialpunctuation", UnicodeCategory.InitialQuotePunctuation),
            ("pf", "finalpunctuation", UnicodeCategory.FinalQuotePunctuation), ("po", "otherpunctuation", UnicodeCategory.OtherPunctuation),
            ("sm", "mathsymbol", UnicodeCategory.MathSymbol), ("sc", "currencysymbol", UnicodeCategory.CurrencySymbol),
            ("sk", "modifiersymbol", UnicodeCategory.ModifierSymbol), ("so", "othersymbol", UnicodeCategory.OtherSymbol),
        ];
    }
}
