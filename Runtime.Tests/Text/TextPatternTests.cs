using System.Text;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

public class TextPatternTests
{
    private static string Find(string pattern, string text)
    {
        var matches = new List<(int Start, int End)>();
        new RegexPattern(pattern).FindAll(text, matches);
        return string.Join('|', matches.Select(m => text[m.Start..m.End]));
    }

    [TestCase(@"'s|'t| ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+", "it's 12  b ", "it|'s| 12| | b| ")]
    [TestCase(@"\p{N}{1,3}", "1234567", "123|456|7")]
    [TestCase(@"\p{L}+", "𝕳𝖊𝖑 𐐀x", "𝕳𝖊𝖑|𐐀x")] // letters beyond U+FFFF
    [TestCase(@"\p{N}{1,3}", "𝟘𝟙𝟚𝟛", "𝟘𝟙𝟚|𝟛")] // which count as one each
    [TestCase(@"[𐐀-𐑏a]+", "a𐐨b", "a𐐨")]
    [TestCase(@"(?i:'s|'t)", "'S'ſ'T't", "'S|'ſ|'T|'t")] // ſ folds to s
    [TestCase(@"(?i)k", "kK\u212A", "k|K|\u212A")]
    [TestCase(@"a++b|a", "aaa", "a|a|a")]
    [TestCase(@"a{2}+", "aaaaa", "aaaa")] // not possessive in this syntax, but repeated
    [TestCase(@"a{,2}b", "aaab", "aab")]
    [TestCase(@"a{x}", "a{x}", "a{x}")]
    [TestCase(@"(?<=\s)\S|(?<!b)c", "a bc c", "b|c")]
    [TestCase(@"(?>a+)ab|b", "aaab", "b")]
    [TestCase(@"[^a-z&&[^x]]+", "ax!b", "x!")] // all of it negated: not (a to z, but not x)
    [TestCase(@"[a-c&&[b-z]]+", "abcd", "bc")]
    [TestCase(@"[]a]+|[\]\-x-]+", "a]x-", "a]|x-")]
    [TestCase(@"[[:digit:]_]+|\h", "12_f", "12_|f")]
    [TestCase(@"^a|b$", "a\nab\nb", "a|a|b|b")] // lines
    [TestCase(@"\Aa|\bc\b|\x41|\x{1F642}|\u0062", "ac c A🙂b", "a|c|A|🙂|b")]
    [TestCase(@"a+?b??", "aab", "a|a")]
    [TestCase(@"(?:ab|a)(?:c|bc)?", "abc", "abc")]
    [TestCase(@"\p{^L}|\P{L}", "a1", "1")]
    [TestCase(@"\p{Han}+", "中文かな", "中文")]
    [TestCase(@"x*", "axb", "|x|")]
    [TestCase(@"(?:a|b)*c", "abac", "abac")]
    public void Patterns_match_as_in_oniguruma(string pattern, string text, string expected) => Assert.That(Find(pattern, text), Is.EqualTo(expected));

    [TestCase(@"(a)\1")]
    [TestCase(@"\X")]
    [TestCase(@"a(")]
    [TestCase(@"a)")]
    [TestCase(@"[a")]
    [TestCase(@"[b-a]")]
    [TestCase(@"*a")]
    [TestCase(@"(?:a*)*")]
    [TestCase(@"\p{Nonsense}")]
    [TestCase(@"\")]
    [TestCase(@"(?<=a+)b")]
    [TestCase(@"a{2,1}")]
    [TestCase(@"a{1001}")]
    [TestCase(@"(?:(?:(?:ab){1000}){1000}){1000}")]
    [TestCase(@"\x{110000}")]
    [TestCase(@"(?#comment)")]
    public void What_cannot_be_matched_is_refused(string pattern) => Assert.That(() => new RegexPattern(pattern), Throws.InstanceOf<FormatException>());

    [Test]
    public void Deep_nesting_is_refused_rather_than_overflowing() => Assert.Multiple(() =>
    {
        Assert.That(() => new RegexPattern(new string('(', 60_000)), Throws.InstanceOf<FormatException>());
        Assert.That(() => new RegexPattern(new string('[', 60_000)), Throws.InstanceOf<FormatException>());
        Assert.That(() => new RegexPattern("a" + string.Concat(Enumerable.Repeat("{1}", 20_000))), Throws.InstanceOf<FormatException>());
    });

    [CancelAfter(60_000)]
    [TestCase(@"\s+$", " ", "中")]
    [TestCase(@"a*b|a", " ", "a")]
    [TestCase(@"\s*[\r\n]+|\s+(?!\S)|\s+", " ", "x")]
    [TestCase(@"(?:a|b)+c|(?:ab)+", "ab", "")]
    public void Long_runs_that_lead_nowhere_are_walked_once(string pattern, string unit, string ending, CancellationToken cancel)
    {
        var matches = new List<(int, int)>();
        new RegexPattern(pattern).FindAll(string.Concat(Enumerable.Repeat(unit, 1 << 19)) + ending, matches);
        cancel.ThrowIfCancellationRequested();
    }

    [Test]
    [CancelAfter(60_000)]
    public void A_pattern_that_explodes_is_an_error_not_a_hang(CancellationToken cancel) =>
        Assert.That(() => Find("(?:a|a)+b", new string('a', 60)), Throws.InstanceOf<InvalidDataException>());

    // From UAX #15, and from the corners of its algorithm.
    [TestCase("\u212B", "\u00C5", "A\u030A", "\u00C5", "A\u030A")]
    [TestCase("\u1E9B\u0323", "\u1E9B\u0323", "\u017F\u0323\u0307", "\u1E69", "s\u0323\u0307")]
    [TestCase("\uFB01", "\uFB01", "\uFB01", "fi", "fi")]
    [TestCase("q\u0307\u0323", "q\u0323\u0307", "q\u0323\u0307", "q\u0323\u0307", "q\u0323\u0307")]
    [TestCase("\uAC01", "\uAC01", "\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8")]
    [TestCase("\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8")]
    [TestCase("\u0958", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C")] // excluded from composition
    [TestCase("\U000110A5\U000110BA", "\U000110AB", "\U000110A5\U000110BA", "\U000110AB", "\U000110A5\U000110BA")]
    [TestCase("a\u0305\u0300", "a\u0305\u0300", "a\u0305\u0300", "a\u0305\u0300", "a\u0305\u0300")] // blocked
    public void Texts_have_their_normalization_forms(string text, string nfc, string nfd, string nfkc, string nfkd) => Assert.Multiple(() =>
    {
        Assert.That(UnicodeForms.Normalize(text, compatibility: false, compose: true), Is.EqualTo(nfc));
        Assert.That(UnicodeForms.Normalize(text, compatibility: false, compose: false), Is.EqualTo(nfd));
        Assert.That(UnicodeForms.Normalize(text, compatibility: true, compose: true), Is.EqualTo(nfkc));
        Assert.That(UnicodeForms.Normalize(text, compatibility: true, compose: false), Is.EqualTo(nfkd));
    });

    [Test]
    public void Every_character_keeps_its_forms_when_normalized_again()
    {
        (int, int)[] ranges = [(0xA0, 0x3400), (0xA600, 0xAD00), (0xF900, 0x10000), (0x11000, 0x11A00), (0x1D000, 0x1D800), (0x2F800, 0x2FA20)];
        foreach (var value in ranges.SelectMany(r => Enumerable.Range(r.Item1, r.Item2 - r.Item1)))
        {
            var text = new Rune(value).ToString();
            var (nfc, nfd) = (UnicodeForms.Normalize(text, false, true), UnicodeForms.Normalize(text, false, false));
            if (nfc != UnicodeForms.Normalize(nfd, false, true) || nfd != UnicodeForms.Normalize(nfc, false, false))
                Assert.Fail($"U+{value:X}");
        }
    }
}
