using System.Globalization;
using System.Text;

namespace Trimtab.Text;

/// <summary>Strings as Python counts them: by code points, a lone surrogate being one.</summary>
internal static class JinjaText
{
    /// <summary>Python's str.isspace of one char.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\x1c' and <= '\x1f';

    public static void AppendCodePoint(StringBuilder text, int code)
    {
        if (code < 0x10000)
            text.Append((char)code);
        else
            text.Append(char.ConvertFromUtf32(code));
    }

    private static bool IsPlain(string text) => text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0;

    /// <summary>Number of code points.</summary>
    public static int Length(string text)
    {
        if (IsPlain(text))
            return text.Length;
        var count = 0;
        for (var i = 0; i < text.Length; i += Width(text, i))
            count++;
        return count;
    }

    /// <summary>Chars of the code point at char <paramref name="i"/>.</summary>
    public static int Width(string text, int i) => i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1]) ? 2 : 1;

    /// <summary>The char position of the code point <paramref name="index"/> (at most the length).</summary>
    public static int Position(string text, int index)
    {
        if (IsPlain(text))
            return Math.Min(index, text.Length);
        var i = 0;
        for (; index > 0 && i < text.Length; index--)
            i += Width(text, i);
        return i;
    }

    /// <summary>The number of code points before the char <paramref name="position"/>.</summary>
    public static int Index(string text, int position) => Length(text[..position]);

    public static string[] Characters(string text)
    {
        var list = new List<string>(text.Length);
        for (var i = 0; i < text.Length; i += Width(text, i))
            list.Add(text.Substring(i, Width(text, i)));
        return [.. list];
    }

    public static IEnumerable<Rune> Runes(string text) => text.EnumerateRunes();

    /// <summary>The order of code points, which is not that of UTF-16 where surrogates meet U+E000 and above.</summary>
    public static int Compare(string a, string b)
    {
        var common = a.AsSpan().CommonPrefixLength(b);
        if (common == a.Length || common == b.Length)
            return a.Length.CompareTo(b.Length);
        char x = a[common], y = b[common];
        return char.IsSurrogate(x) != char.IsSurrogate(y) ? char.IsSurrogate(x) ? y >= 0xE000 ? 1 : x.CompareTo(y) : x >= 0xE000 ? -1 : x.CompareTo(y) : x.CompareTo(y);
    }

    /// <summary>Python's repr of a string.</summary>
    public static void AppendRepr(StringBuilder output, string text)
    {
        var quote = text.Contains('\'') && !text.Contains('"') ? '"' : '\'';
        output.Append(quote);
        for (var i = 0; i < text.Length; i += Width(text, i))
        {
            var c = text[i];
            if (c == quote || c == '\\')
                output.Append('\\').Append(c);
            else if (c is >= ' ' and <= '~')
                output.Append(c);
            else if (c is '\n' or '\r' or '\t')
                output.Append('\\').Append(c switch { '\n' => 'n', '\r' => 'r', _ => 't' });
            else
            {
                var code = Width(text, i) == 2 ? char.ConvertToUtf32(c, text[i + 1]) : c;
                if (IsPrintable(code))
                    output.Append(text, i, Width(text, i));
                else
                    output.Append(code < 0x100 ? $"\\x{code:x2}" : code < 0x10000 ? $"\\u{code:x4}" : $"\\U{code:x8}");
            }
        }
        output.Append(quote);
    }

    public static bool IsPrintable(int code) => code == ' ' || CharUnicodeInfo.GetUnicodeCategory(code) is not (UnicodeCategory.Control or UnicodeCategory.Format
        or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator
        or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator);

    /// <summary>Upper case as Unicode's full mapping gives it where one letter becomes several (the common cases).</summary>
    public static string Upper(string text)
    {
        text = text.ToUpperInvariant();
        if (Ascii.IsValid(text))
            return text;
        var output = new StringBuilder(text.Length + 8);
        foreach (var c in text)
            output.Append(c switch
            {
                'ß' => "SS", 'ŉ' => "ʼN", 'ǰ' => "J\u030C", 'ΐ' => "Ι\u0308\u0301", 'ΰ' => "Υ\u0308\u0301", 'և' => "ԵՒ",
                'ﬀ' => "FF", 'ﬁ' => "FI", 'ﬂ' => "FL", 'ﬃ' => "FFI", 'ﬄ' => "FFL", 'ﬅ' or 'ﬆ' => "ST", _ => c.ToString(),
            });
        return output.ToString();
    }

    /// <summary>Lower case with Unicode's two special rules: the dotted capital I, and sigma at a word's end.</summary>
    public static string Lower(string text)
    {
        var lower = text.ToLowerInvariant().Replace("\u0130", "i\u0307", StringComparison.Ordinal);
        if (!text.Contains('Σ'))
            return lower;
        var output = new StringBuilder(lower);
        for (int i = 0, o = 0; i < text.Length; o += text[i] == '\u0130' ? 2 : 1, i++)
            if (text[i] == 'Σ' && i > 0 && char.IsLetter(text[i - 1]) && !(i + 1 < text.Length && char.IsLetter(text[i + 1])))
                output[o] = 'ς';
        return output.ToString();
    }

    /// <summary>Python's str.capitalize.</summary>
    public static string Capitalize(string text) => text.Length == 0 ? "" : Titled(text[..Width(text, 0)]) + Lower(text)[Lower(text[..Width(text, 0)]).Length..];

    private static string Titled(string letter)
    {
        // Three digraphs of Croatian, and one more, have a capital of their own for a word's beginning.
        if (letter is "Ǆ" or "ǆ" or "ǅ" or "Ǉ" or "ǉ" or "ǈ" or "Ǌ" or "ǌ" or "ǋ" or "Ǳ" or "ǳ" or "ǲ")
            return letter switch { "Ǆ" or "ǆ" or "ǅ" => "ǅ", "Ǉ" or "ǉ" or "ǈ" => "ǈ", "Ǌ" or "ǌ" or "ǋ" => "ǋ", _ => "ǲ" };
        var upper = Upper(letter);
        return upper.Length > 1 && char.IsLetter(upper[0]) && letter.Length == 1 ? upper[..1] + Lower(upper[1..]) : upper;
    }

    /// <summary>Python's str.title: a letter after a non-letter is a capital.</summary>
    public static string Title(string text)
    {
        var output = new StringBuilder(text.Length);
        var inWord = false;
        foreach (var character in Characters(text))
        {
            var cased = IsCased(character);
            output.Append(cased ? inWord ? Lower(character) : Titled(character) : character);
            inWord = cased;
        }
        return output.ToString();
    }

    private static bool IsCased(string character) =>
        Rune.TryGetRuneAt(character, 0, out var rune) && Rune.GetUnicodeCategory(rune) is UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter;

    public static string SwapCase(string text) => string.Concat(Characters(text).Select(c => Lower(c) == c ? Upper(c) : Lower(c)));

    /// <summary>Python's islower (or isupper): at least one cased letter, and none of the other case.</summary>
    public static bool IsCase(string text, bool upper)
    {
        var found = false;
        foreach (var rune in text.EnumerateRunes())
            switch (Rune.GetUnicodeCategory(rune))
            {
                case UnicodeCategory.TitlecaseLetter:
                    return false;
                case UnicodeCategory.UppercaseLetter:
                    if (!upper)
                        return false;
                    found = true;
                    break;
                case UnicodeCategory.LowercaseLetter:
                    if (upper)
                        return false;
                    found = true;
                    break;
            }
        return found;
    }

    public static bool IsTitle(string text)
    {
        var found = false;
        var inWord = false;
        foreach (var rune in text.EnumerateRunes())
        {
            var category = Rune.GetUnicodeCategory(rune);
            var capital = category is UnicodeCategory.UppercaseLetter or UnicodeCategory.TitlecaseLetter;
            var small = category == UnicodeCategory.LowercaseLetter;
            if (capital && inWord || small && !inWord)
                return false;
            inWord = capital || small;
            found |= inWord;
        }
        return found;
    }

    /// <summary>Whether a text is not empty and all its code points satisfy a test.</summary>
    public static bool All(string text, Func<Rune, bool> test) => text.Length > 0 && text.EnumerateRunes().All(test);

    /// <summary>Python's str.splitlines.</summary>
    public static List<string> Lines(string text, bool keepEnds = false)
    {
        var lines = new List<string>();
        for (int i = 0, start = 0; i <= text.Length; i++)
        {
            if (i == text.Length)
            {
                if (start < i)
                    lines.Add(text[start..]);
                break;
            }
            if (text[i] is not ('\n' or '\r' or '\v' or '\f' or '\x1c' or '\x1d' or '\x1e' or '\x85' or '\u2028' or '\u2029'))
                continue;
            var end = i;
            if (text[i] == '\r' && i + 1 < text.Length && text[i + 1] == '\n')
                i++;
            lines.Add(text[start..(keepEnds ? i + 1 : end)]);
            start = i + 1;
        }
        return lines;
    }

    /// <summary>Strips code points of a set (Python's strip(chars)), or white space.</summary>
    public static string Strip(string text, string? set, bool left, bool right)
    {
        int start = 0, end = text.Length;
        var members = set is null || IsPlain(set) ? null : Characters(set).ToHashSet();
        bool In(int i, int width) => set is null ? IsSpace(text[i]) : members?.Contains(text.Substring(i, width)) ?? (width == 1 && set.Contains(text[i]));
        while (left && start < end && In(start, Width(text, start)))
            start += Width(text, start);
        while (right && end > start)
        {
            var width = end - 2 >= start && char.IsSurrogatePair(text[end - 2], text[end - 1]) ? 2 : 1;
            if (!In(end - width, width))
                break;
            end -= width;
        }
        return text[start..end];
    }
}
