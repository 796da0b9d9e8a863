using System.Text;
using Trimtab.Engine;

namespace Trimtab.Tests.Engine;

public class StopStringsTests
{
    private static (string Text, bool Stopped) Stream(IEnumerable<string> stops, IEnumerable<string> pieces)
    {
        var matcher = new StopStrings(stops);
        var text = new StringBuilder();
        foreach (var piece in pieces)
        {
            text.Append(matcher.Append(piece, out var stopped));
            if (stopped)
                break;
        }
        text.Append(matcher.Flush());
        return (text.ToString(), matcher.Stopped);
    }

    [TestCase("Hello</s>more", "Hello", true)]
    [TestCase("Hello</", "Hello</", false)]
    [TestCase("</s>", "", true)]
    [TestCase("a<</s>", "a<", true)]
    [TestCase("", "", false)]
    public void A_stop_string_ends_the_text_at_every_division_into_pieces(string text, string expected, bool stopped)
    {
        for (var size = 1; size <= text.Length + 1; size++)
            Assert.That(Stream(["</s>"], text.Chunk(size).Select(c => new string(c))), Is.EqualTo((expected, stopped)), $"pieces of {size}");
    }

    [Test]
    public void The_leftmost_of_several_wins_even_if_it_is_complete_later()
    {
        Assert.That(Stream(["b", "abc"], ["xa", "b", "c", "d"]), Is.EqualTo(("x", true)));
        Assert.That(Stream(["b", "abc"], ["xa", "b", "d"]), Is.EqualTo(("xa", true)));
        Assert.That(Stream(["b", "abc"], ["xa", "b"]), Is.EqualTo(("xa", true)));
    }

    [Test]
    public void Only_text_that_may_begin_a_stop_string_is_held_back()
    {
        var matcher = new StopStrings(["\nUSER:"]);
        Assert.That(matcher.Append("A cat.", out _), Is.EqualTo("A cat."));
        Assert.That(matcher.Append("\nUS", out _), Is.Empty);
        Assert.That(matcher.Append("A and", out _), Is.EqualTo("\nUSA and"));
        Assert.That(matcher.Append("\nUSER: hi", out var stopped), Is.Empty);
        Assert.That((stopped, matcher.Found), Is.EqualTo((true, "\nUSER:")));
        Assert.That(matcher.Append("more", out stopped) + matcher.Flush(), Is.Empty);
        Assert.That(stopped);
    }

    [Test]
    public void Without_stop_strings_nothing_is_held_back()
    {
        var matcher = new StopStrings([]);
        Assert.That(matcher.Append("abc", out var stopped), Is.EqualTo("abc"));
        Assert.That((stopped, matcher.Found), Is.EqualTo((false, (string?)null)));
    }

    [Test]
    public void An_empty_stop_string_is_refused() => Assert.That(() => new StopStrings(["a", ""]), Throws.ArgumentException);

    [Test]
    public void Any_text_in_any_pieces_ends_where_the_definition_says()
    {
        var random = new Random(5);
        string Word(int least, int most) => new(Enumerable.Range(0, random.Next(least, most)).Select(_ => "ab<"[random.Next(random.Next(1, 4))]).ToArray());
        for (var trial = 0; trial < 20_000; trial++)
        {
            var stops = Enumerable.Range(0, random.Next(0, 4)).Select(_ => Word(1, 6)).ToArray();
            var pieces = Enumerable.Range(0, random.Next(0, 12)).Select(_ => Word(0, 5)).ToArray();
            var text = string.Concat(pieces);
            var ends = stops.Select(s => text.IndexOf(s, StringComparison.Ordinal)).Where(i => i >= 0).ToArray();
            var expected = ends.Length > 0 ? (text[..ends.Min()], true) : (text, false);
            Assert.That(Stream(stops, pieces), Is.EqualTo(expected), $"stops {string.Join(' ', stops)}, pieces {string.Join('|', pieces)}");
        }
    }

    [Test]
    public void Long_repetitive_stop_strings_take_linear_time()
    {
        var matcher = new StopStrings([new string('a', 50_000) + "b"]);
        var emitted = 0;
        for (var i = 0; i < 300; i++)
            emitted += matcher.Append(new string('a', 1000), out _).Length;
        Assert.That(emitted, Is.EqualTo(250_000));
    }
}
