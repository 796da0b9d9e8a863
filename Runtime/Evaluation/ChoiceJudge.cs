using System.Text;
using System.Text.RegularExpressions;

namespace Trimtab.Evaluation;

/// <summary>"choice": the letter that an answer to a multiple-choice question settles on.</summary>
public sealed partial class ChoiceJudge : IJudge
{
    /// <inheritdoc/>
    public string Name => "choice";

    /// <inheritdoc/>
    public bool Understands => false;

    /// <inheritdoc/>
    public ValueTask<Judgement?> JudgeAsync(Question question, Answer answer, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(question);
        ArgumentNullException.ThrowIfNull(answer);
        if (question.Choices.Count == 0 || question.Expected is not { Length: 1 } expected)
            return new((Judgement?)null);
        if (Parse(answer.Text, question.Choices) is not { } letter)
            return new(new Judgement(Verdict.Unparsed(answer.Text)));
        return new(new Judgement($"{letter}, {(letter == expected[0] ? "right" : "wrong")}", Correct: letter == expected[0]));
    }

    /// <summary>
    /// The chosen letter; null where none or several could be meant. In this order: a stated answer ("the answer is (B)"), a leading
    /// letter ("B.", "(B) text", "**B**"), one bracketed letter, the text of one choice, one letter standing alone.
    /// </summary>
    /// <param name="text">The answer.</param>
    /// <param name="choices">Texts by upper-case letter.</param>
    public static char? Parse(string text, IReadOnlyDictionary<char, string> choices)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(choices);
        var plain = Plain(text);
        if (plain.Length == 0)
            return null;
        if (plain.Trim('(', ')', '[', ']', '.', ':', ' ', '"', '\'') is [var only] && choices.ContainsKey(char.ToUpperInvariant(only)))
            return char.ToUpperInvariant(only);
        var said = Distinct(Stated(), plain, choices);
        if (said.Count > 1 && Distinct(Final(), plain, choices) is [var last])
            said = [last];
        if (said.Count > 0)
            return said.Count == 1 && !Stated().Matches(plain).Any(match => OneOfSeveral(plain, match.Groups["letter"].Index)) ? said[0] : null;
        if (Leading().Match(plain) is { Success: true } leading && choices.ContainsKey(leading.Groups["letter"].Value[0]))
        {
            var letter = leading.Groups["letter"].Value[0];
            var rest = plain[leading.Length..];
            var named = NamedBy(rest, choices, whole: true);
            if (leading.Groups["mark"].Success || named == letter || rest.Trim().Length == 0)
                return leading.Value.Contains('(') && Distinct(Bracketed(), plain, choices).Count > 1 || OneOfSeveral(plain, leading.Groups["letter"].Index) || Distinct(LineLetters(), plain, choices).Count > 1 || named is { } other && other != letter ? null : letter;
        }
        if (Several().IsMatch(plain))
            return null;
        var bracketed = Distinct(Bracketed(), plain, choices);
        if (bracketed.Count > 0)
            return bracketed.Count == 1 ? bracketed[0] : null;
        if (NamedBy(plain, choices, whole: true) is { } exact)
            return exact;
        var alone = Distinct(Standalone(), plain, choices);
        var byText = NamedBy(plain, choices, whole: false);
        return alone.Count switch
        {
            0 => byText,
            1 when byText is null || byText == alone[0] => alone[0],
            _ => null,
        };
    }

    /// <summary>The one choice whose text the answer is, or (not <paramref name="whole"/>) has in it.</summary>
    private static char? NamedBy(string text, IReadOnlyDictionary<char, string> choices, bool whole)
    {
        const int enough = 24; // so much of a long choice names it, where the answer was cut off
        var answer = Words(text);
        if (answer.Length <= 2)
            return null;
        var named = new List<(char Letter, string Words)>();
        foreach (var (letter, choice) in choices)
        {
            var words = Words(choice);
            if (words.Length <= 2)
                continue;
            if (words == answer)
                return choices.Count(other => Words(other.Value) == words) == 1 ? letter : null;
            if (answer.Length >= enough && words.StartsWith(answer.TrimEnd(), StringComparison.Ordinal)
                || words.Length >= 2 * enough && answer.StartsWith(words, StringComparison.Ordinal)
                || !whole && answer.Contains(words, StringComparison.Ordinal) && !answer.Contains(" not" + words, StringComparison.Ordinal))
                named.Add((letter, words));
        }
        // "black bear" names the bear only in so far as no longer choice that holds the word is named.
        named.RemoveAll(a => named.Any(b => b.Words.Length > a.Words.Length && b.Words.Contains(a.Words, StringComparison.Ordinal)
            && Count(answer, a.Words) <= Count(answer, b.Words)));
        return named.Count == 1 ? named[0].Letter : null;
    }

    /// <summary>Whether the letter at an index stands in a list such as "A or B".</summary>
    private static bool OneOfSeveral(string text, int index)
        => Several().Matches(text).Any(match => index >= match.Index && index < match.Index + match.Length);

    private static int Count(string text, string part)
    {
        var count = 0;
        for (var at = text.IndexOf(part, StringComparison.Ordinal); at >= 0; at = text.IndexOf(part, at + 1, StringComparison.Ordinal))
            count++;
        return count;
    }

    /// <summary>Lower-case words with one space before, between and after them.</summary>
    private static string Words(string text)
    {
        var words = new StringBuilder(" ");
        foreach (var c in text)
        {
            if (char.IsLetterOrDigit(c))
                words.Append(char.ToLowerInvariant(c));
            else if (c is not ('\'' or '’') && words[^1] != ' ')
                words.Append(' ');
        }
        return words[^1] == ' ' ? words.ToString() : words.Append(' ').ToString();
    }

    private static string Plain(string text)
    {
        var plain = new StringBuilder(text.Length);
        foreach (var c in text)
        {
            if (c is not ('*' or '_' or '`' or '#' or '$' or '\u200b'))
                plain.Append(c is >= '！' and <= '～' ? (char)(c - '！' + '!') : c is '：' ? ':' : c is '（' ? '(' : c is '）' ? ')' : c);
        }
        return plain.Replace("\\boxed{", "(").Replace("\\text{", "").Replace('}', ')').ToString().Trim();
    }

    private static List<char> Distinct(Regex pattern, string text, IReadOnlyDictionary<char, string> choices)
        => [.. pattern.Matches(text).Select(match => char.ToUpperInvariant(match.Groups["letter"].Value[0])).Where(choices.ContainsKey).Distinct()];

    // A bare lower-case "a" is an article: letters are upper case unless a mark closes them.
    [GeneratedRegex("""
        \b(?i:(the\ |my\ |final\ |correct\ |right\ |best\ )*(answer|choice|option|response|solution)(\ (here|to\ this\ question))?\s*(is|would\ be|should\ be|must\ be|:|=|-)\s*:?\s*(clearly\ |definitely\ |option\ |choice\ |letter\ |answer\ )*)
          (\(\s*(?<letter>[A-Za-z])\s*\)|\[\s*(?<letter>[A-Za-z])\s*\]|["']?(?<letter>[A-Z])(?![A-Za-z0-9'])|(?<letter>[a-z])\))
        |\b(?i:option|choice|answer)\s+\(?(?<letter>[A-Z])\)?\s+(?i:is\ (the\ )?(correct|right|best|most|true))
        |(?<![A-Za-z0-9])\(?(?<letter>[A-Z])\)?\s+(?i:is\ (the\ )?(correct|right|best|true)\b)
        |\b(?i:i\ (would\ |will\ |'d\ )?(choose|pick|select|go\ with|go\ for))\s+(?i:option\ |choice\ |answer\ |letter\ )?\(?(?<letter>[A-Z])\)?(?![A-Za-z0-9'])
        """, RegexOptions.IgnorePatternWhitespace | RegexOptions.CultureInvariant)]
    private static partial Regex Stated();

    [GeneratedRegex("""(?i:final\s+answer)\s*(?i:is|:)*\s*(?i:option\s+)?\(?(?<letter>[A-Z])(?![A-Za-z0-9'])""", RegexOptions.CultureInvariant)]
    private static partial Regex Final();

    [GeneratedRegex("""^(?i:option\ |choice\ |answer\ |letter\ )?[(\["']*\s*(?<letter>[A-Z])(?![A-Za-z0-9'])\s*(?<mark>[)\].:,;>"](?![A-Za-z]\b)|-(?=\s)|\n)?""", RegexOptions.CultureInvariant | RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex Leading();

    [GeneratedRegex("""^\s*[(\[]?(?<letter>[A-Z])[)\].:]""", RegexOptions.CultureInvariant | RegexOptions.Multiline)]
    private static partial Regex LineLetters();

    [GeneratedRegex("""[(\[]\s*(?<letter>[A-Z])\s*[)\]](?!\s+is\s+(not|wrong|incorrect|false))""", RegexOptions.CultureInvariant)]
    private static partial Regex Bracketed();

    [GeneratedRegex("""(?<![A-Za-z0-9'])(?<!\b(?i:not)\ )(?!A\ [a-z]|I\b(?!\.$))(?<letter>[A-Z])(?![A-Za-z0-9'])(?!\ is\ (not|wrong|incorrect|false))""", RegexOptions.CultureInvariant)]
    private static partial Regex Standalone();

    // "A or B", "both A and C", "A, B".
    [GeneratedRegex("""(?<![A-Za-z0-9'])\(?[A-Z]\)?\s*(,|/|&|\+|\bor\b|\band\b|,\s*(or|and))\s*(?i:option\s+)?\(?[A-Z]\)?(?![A-Za-z0-9'])""", RegexOptions.CultureInvariant)]
    private static partial Regex Several();
}
