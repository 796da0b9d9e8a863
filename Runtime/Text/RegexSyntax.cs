using System.Globalization;
using System.Text;

namespace Trimtab.Text;

/// <summary>A parsed regular expression.</summary>
internal abstract record RegexNode
{
    public sealed record One(RuneSet Set) : RegexNode;

    public sealed record Series(IReadOnlyList<RegexNode> Parts) : RegexNode;

    public sealed record Choice(IReadOnlyList<RegexNode> Branches) : RegexNode;

    /// <param name="Body">What is repeated.</param>
    /// <param name="Least">At least so often.</param>
    /// <param name="Most">At most so often; int.MaxValue: without end.</param>
    /// <param name="Lazy">As few as will do.</param>
    public sealed record Repeat(RegexNode Body, int Least, int Most, bool Lazy) : RegexNode;

    public sealed record Look(RegexNode Body, bool Behind, bool Negated) : RegexNode;

    /// <summary>What matched inside is not reconsidered: (?&gt;…), and possessive repetition.</summary>
    public sealed record Atomic(RegexNode Body) : RegexNode;

    public sealed record Anchor(AnchorKind Kind) : RegexNode;

    /// <summary>Whether it can match nothing.</summary>
    public bool Nullable => this switch
    {
        One => false,
        Series series => series.Parts.All(p => p.Nullable),
        Choice choice => choice.Branches.Any(b => b.Nullable),
        Repeat repeat => repeat.Least == 0 || repeat.Body.Nullable,
        Atomic atomic => atomic.Body.Nullable,
        _ => true,
    };

    /// <summary>The number of characters that every match has, or −1 where it varies.</summary>
    public int Width => this switch
    {
        One => 1,
        Series series => series.Parts.Aggregate(0, (sum, p) => sum < 0 || p.Width < 0 ? -1 : sum + p.Width),
        Choice choice => choice.Branches.All(b => b.Width == choice.Branches[0].Width) ? choice.Branches[0].Width : -1,
        Repeat repeat => repeat.Least == repeat.Most && repeat.Body.Width >= 0 ? repeat.Least * repeat.Body.Width : -1,
        Atomic atomic => atomic.Body.Width,
        _ => 0,
    };
}

/// <summary>The places that an anchor asks for; ^ and $ are those of lines, as Oniguruma's are.</summary>
internal enum AnchorKind
{
    LineStart,
    LineEnd,
    TextStart,
    TextEnd,
    TextEndOrLastNewline,
    WordBoundary,
    NotWordBoundary,
}

/// <summary>
/// Reads Oniguruma's syntax (its doc/RE), which the patterns of tokenizer.json are written in: the part of it that splitting needs. What is
/// left out is refused by name: back references, subexpression calls, conditions, \X, \R, \K, \G, POSIX brackets other than digit, space,
/// word and xdigit, and properties other than the general categories and a few scripts.
/// </summary>
/// <param name="pattern">The pattern.</param>
internal sealed class RegexSyntax(string pattern)
{
    /// <summary>The largest counted repetition, which is written out.</summary>
    private const int MostRepeats = 1000;

    private const int DeepestNesting = 50;
    private const int LongestPattern = 1 << 16;
    private int _at;
    private int _depth;
    private bool _ignoreCase;
    private bool _dotAll;

    /// <summary>Parses the whole pattern.</summary>
    /// <exception cref="FormatException">It is malformed, or uses what is not supported.</exception>
    public static RegexNode Parse(string pattern)
    {
        if (pattern.Length > LongestPattern)
            throw new FormatException($"the regular expression has {pattern.Length} characters; at most {LongestPattern} are supported");
        var syntax = new RegexSyntax(pattern);
        var node = syntax.Alternatives();
        return syntax.End ? node : throw syntax.Error("an unmatched ')'");
    }

    private bool End => _at >= pattern.Length;

    private FormatException Error(string what) =>
        new($"the regular expression \"{pattern}\" has {what} at character {Math.Min(_at, pattern.Length)}");

    private bool Take(string text)
    {
        if (!pattern.AsSpan(_at).StartsWith(text))
            return false;
        _at += text.Length;
        return true;
    }

    private void Expect(string text)
    {
        if (!Take(text))
            throw Error($"no '{text}' where one was expected");
    }

    private int TakeRune()
    {
        if (End)
            throw Error("an end where a character was expected");
        Rune.DecodeFromUtf16(pattern.AsSpan(_at), out var rune, out var length);
        _at += length;
        return rune.Value;
    }

    private RegexNode Alternatives()
    {
        if (++_depth > DeepestNesting)
            throw Error($"groups nested more than {DeepestNesting} deep");
        var (ignoreCase, dotAll) = (_ignoreCase, _dotAll);
        // An option on its own holds for the rest of its group, alternatives and all.
        while (Take("(?i)") || Take("(?m)"))
        {
            if (pattern[_at - 2] == 'i')
                _ignoreCase = true;
            else
                _dotAll = true;
        }
        var branches = new List<RegexNode> { Sequence() };
        while (Take("|"))
            branches.Add(Sequence());
        (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
        _depth--;
        return branches.Count == 1 ? branches[0] : new RegexNode.Choice(branches);
    }

    private RegexNode.Series Sequence()
    {
        var parts = new List<RegexNode>();
        while (!End && pattern[_at] is not ('|' or ')'))
            parts.Add(Repeated());
        return new RegexNode.Series(parts);
    }

    private RegexNode Repeated()
    {
        var node = Atom();
        for (var stacked = 0; !End; stacked++)
        {
            int least, most;
            var interval = false;
            if (Take("*"))
                (least, most) = (0, int.MaxValue);
            else if (Take("+"))
                (least, most) = (1, int.MaxValue);
            else if (Take("?"))
                (least, most) = (0, 1);
            else if (Interval(out least, out most))
                interval = true;
            else
                break;
            if (stacked == 8)
                throw Error("too many repetitions of repetitions");
            if (node is RegexNode.Anchor or RegexNode.Look)
                throw Error("a repetition of an assertion");
            if (most == int.MaxValue && node.Nullable)
                throw Error("an endless repetition of what can be empty");
            // In this syntax {n,m}+ repeats a repetition; only ?+ *+ ++ are possessive.
            var lazy = Take("?");
            if (lazy && interval && least == most)
                throw Error("{n}? (ambiguous between dialects)");
            node = new RegexNode.Repeat(node, least, most, lazy);
            if (!lazy && !interval && Take("+"))
                node = new RegexNode.Atomic(node);
        }
        return node;
    }

    private bool Interval(out int least, out int most)
    {
        (least, most) = (0, 0);
        var close = End || pattern[_at] != '{' ? -1 : pattern.IndexOf('}', _at);
        if (close < 0)
            return false;
        var text = pattern[(_at + 1)..close];
        var comma = text.IndexOf(',');
        var (first, second) = comma < 0 ? (text, text) : (text[..comma], text[(comma + 1)..]);
        if ((first + second).Length == 0 || !(first + second).All(char.IsAsciiDigit) || (comma < 0 && first.Length == 0))
            return false; // a literal brace
        if (first.Length > 6 || second.Length > 6)
            throw Error($"a repetition count above {MostRepeats}");
        least = first.Length == 0 ? 0 : int.Parse(first, CultureInfo.InvariantCulture);
        most = second.Length == 0 ? int.MaxValue : int.Parse(second, CultureInfo.InvariantCulture);
        if (least > MostRepeats || (most > MostRepeats && most != int.MaxValue))
            throw Error($"a repetition count above {MostRepeats}");
        if (most < least)
            throw Error("an interval whose end is below its start");
        _at = close + 1;
        return true;
    }

    private RegexNode Atom()
    {
        if (Take("("))
            return Group();
        if (Take("["))
            return new RegexNode.One(Class());
        if (Take("."))
            return new RegexNode.One(_dotAll ? RuneSet.Property("any")! : new RuneSet().Add(('\n', '\n')).Not());
        if (Take("^"))
            return new RegexNode.Anchor(AnchorKind.LineStart);
        if (Take("$"))
            return new RegexNode.Anchor(AnchorKind.LineEnd);
        if (pattern[_at] is '*' or '+' or '?')
            throw Error("a repetition of nothing");
        if (pattern[_at] != '\\')
            return Literal(TakeRune());
        AnchorKind? anchor = _at + 1 >= pattern.Length ? null : pattern[_at + 1] switch
        {
            'A' => AnchorKind.TextStart,
            'z' => AnchorKind.TextEnd,
            'Z' => AnchorKind.TextEndOrLastNewline,
            'b' => AnchorKind.WordBoundary,
            'B' => AnchorKind.NotWordBoundary,
            _ => null,
        };
        if (anchor is { } kind)
        {
            _at += 2;
            return new RegexNode.Anchor(kind);
        }
        return Escape(out var rune) is { } set ? new RegexNode.One(set) : Literal(rune);
    }

    private RegexNode.One Literal(int rune) => new(new RuneSet { IgnoreCase = _ignoreCase }.Add((rune, rune)).Freeze());

    private RegexNode Group()
    {
        var (ignoreCase, dotAll) = (_ignoreCase, _dotAll);
        Func<RegexNode, RegexNode> wrap = static body => body;
        if (Take("?"))
        {
            if (Take("="))
                wrap = static body => new RegexNode.Look(body, Behind: false, Negated: false);
            else if (Take("!"))
                wrap = static body => new RegexNode.Look(body, Behind: false, Negated: true);
            else if (Take("<="))
                wrap = static body => new RegexNode.Look(body, Behind: true, Negated: false);
            else if (Take("<!"))
                wrap = static body => new RegexNode.Look(body, Behind: true, Negated: true);
            else if (Take(">"))
                wrap = static body => new RegexNode.Atomic(body);
            else if (Take("<"))
                TakeName();
            else
                Options();
        }
        var node = Alternatives();
        Expect(")");
        (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
        node = wrap(node);
        return node is RegexNode.Look { Behind: true } look && look.Body.Width < 0
            ? throw Error("a lookbehind whose length varies")
            : node;
    }

    private void TakeName()
    {
        var close = pattern.IndexOf('>', _at);
        if (close <= _at || !pattern[_at..close].All(c => char.IsLetterOrDigit(c) || c == '_'))
            throw Error("a malformed group name");
        _at = close + 1;
    }

    private void Options()
    {
        for (var on = true; !Take(":");)
        {
            if (Take("-"))
                on = false;
            else if (Take("i"))
                _ignoreCase = on;
            else if (Take("m"))
                _dotAll = on;
            else
                throw Error(Take(")") ? "an option that does not begin its group" : "a kind of group that is not supported");
        }
    }

    /// <summary>Reads a class, after its '['.</summary>
    private RuneSet Class()
    {
        if (++_depth > DeepestNesting)
            throw Error($"classes nested more than {DeepestNesting} deep");
        var negated = Take("^");
        var set = new RuneSet { Negated = negated, IgnoreCase = _ignoreCase };
        var operand = set;
        var operands = new List<RuneSet>();
        for (var first = true; first || !Take("]"); first = false)
        {
            if (End)
                throw Error("a class that is not closed");
            if (Take("&&"))
            {
                // a&&b&&c: each operand further on is a set of its own, and the class their intersection.
                operands.Add(operand = new RuneSet { IgnoreCase = _ignoreCase });
                continue;
            }
            if (Take("[:"))
            {
                operand.Add(Bracket());
                continue;
            }
            if (Take("["))
            {
                operand.Add(Class());
                continue;
            }
            var low = Member(out var added);
            if (added is not null)
            {
                operand.Add(added);
                continue;
            }
            var high = low;
            if (_at + 1 < pattern.Length && pattern[_at] == '-' && pattern[_at + 1] is not (']' or '['))
            {
                _at++;
                high = Member(out added);
                if (added is not null)
                    throw Error("a range that ends in a set");
                if (high < low)
                    throw Error("a range whose end is below its start");
            }
            operand.Add((low, high));
        }
        _depth--;
        foreach (var further in operands)
            set.Intersect(further.Freeze());
        return set.Freeze();
    }

    private int Member(out RuneSet? set)
    {
        set = null;
        if (End)
            throw Error("a class that is not closed");
        if (pattern[_at] != '\\')
            return TakeRune();
        set = Escape(out var rune);
        return rune;
    }

    private RuneSet Bracket()
    {
        var negated = Take("^");
        RuneSet set = Take("digit:]") ? RuneSet.Digit : Take("space:]") ? RuneSet.Space : Take("word:]") ? RuneSet.Word
            : Take("xdigit:]") ? RuneSet.HexDigit : throw Error("a POSIX bracket that is not supported");
        return negated ? set.Not() : set;
    }

    /// <summary>Reads an escape: a set, or else one character.</summary>
    private RuneSet? Escape(out int rune)
    {
        Expect("\\");
        rune = TakeRune();
        switch (rune)
        {
            case 's': return RuneSet.Space;
            case 'S': return RuneSet.Space.Not();
            case 'd': return RuneSet.Digit;
            case 'D': return RuneSet.Digit.Not();
            case 'w': return RuneSet.Word;
            case 'W': return RuneSet.Word.Not();
            case 'h': return RuneSet.HexDigit;
            case 'H': return RuneSet.HexDigit.Not();
            case 'p': return Property(negated: false);
            case 'P': return Property(negated: true);
            case 'n': rune = '\n'; return null;
            case 'r': rune = '\r'; return null;
            case 't': rune = '\t'; return null;
            case 'f': rune = '\f'; return null;
            case 'v': rune = '\v'; return null;
            case 'a': rune = '\a'; return null;
            case 'e': rune = 0x1B; return null;
            case 'x' when Take("{"):
                var close = pattern.IndexOf('}', _at);
                rune = Hex(close < 0 ? 0 : close - _at, 1, 8);
                Expect("}");
                return null;
            case 'x':
                rune = Hex(_at + 1 < pattern.Length && char.IsAsciiHexDigit(pattern[_at + 1]) ? 2 : 1, 1, 2);
                return rune < 0x80 ? null : throw Error(@"a byte above \x7F");
            case 'u': rune = Hex(4, 4, 4); return null;
            case < 128 when char.IsAsciiLetterOrDigit((char)rune):
                throw Error($"the escape \\{(char)rune}, which is not supported,");
            default: return null;
        }
    }

    private int Hex(int length, int least, int most)
    {
        if (length < least || length > most || _at + length > pattern.Length
            || !uint.TryParse(pattern.AsSpan(_at, length), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value)
            || !Rune.IsValid(value))
        {
            throw Error("a malformed code point");
        }
        _at += length;
        return (int)value;
    }

    private RuneSet Property(bool negated)
    {
        Expect("{");
        negated ^= Take("^");
        var close = pattern.IndexOf('}', _at);
        if (close < 0)
            throw Error("a property that is not closed");
        var set = RuneSet.Property(pattern[_at..close]) ?? throw Error($"the property {pattern[_at..close]}, which is not supported,");
        _at = close + 1;
        return negated ? set.Not() : set;
    }
}
