using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

internal enum JinjaTokenKind { Data, VariableBegin, VariableEnd, BlockBegin, BlockEnd, Name, Literal, Integer, Float, Operator, End }

/// <summary>A token: its text (a name, an operator, a string's value, template data) or its number.</summary>
internal readonly record struct JinjaToken(JinjaTokenKind Kind, string Text, object? Number, int Line)
{
    /// <summary>How an error message names this token.</summary>
    public string Description => Kind switch
    {
        JinjaTokenKind.Data => "template text",
        JinjaTokenKind.VariableBegin => "begin of print statement",
        JinjaTokenKind.VariableEnd => "end of print statement",
        JinjaTokenKind.BlockBegin => "begin of statement block",
        JinjaTokenKind.BlockEnd => "end of statement block",
        JinjaTokenKind.End => "end of template",
        JinjaTokenKind.Literal => "string",
        JinjaTokenKind.Integer or JinjaTokenKind.Float => "number",
        _ => Text,
    };
}

/// <summary>
/// Divides a template into tokens, as Jinja 3.1 does with trim_blocks and lstrip_blocks on and keep_trailing_newline off
/// (the settings of Hugging Face's apply_chat_template). Hand-written, so that its time is linear in the source.
/// </summary>
internal sealed class JinjaLexer
{
    private const string SingleOperators = "+-/*%~[](){}=<>.:|,;";
    private static readonly string[] DoubleOperators = ["//", "**", "==", "!=", ">=", "<="];

    private readonly string _source;
    private readonly List<JinjaToken> _tokens = [];
    private int _position;
    private int _line = 1;
    private int _counted;

    private JinjaLexer(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    public static List<JinjaToken> Tokenize(string source)
    {
        var lexer = new JinjaLexer(source);
        lexer.Root();
        lexer.Add(JinjaTokenKind.End, "", source.Length);
        return lexer._tokens;
    }

    private void Root()
    {
        while (_position < _source.Length)
        {
            var begin = NextTag(_position);
            if (begin < 0)
            {
                Add(JinjaTokenKind.Data, _source[_position..], _position);
                return;
            }
            var kind = _source[begin + 1];
            var after = begin + 2;
            var sign = SignAt(after);
            if (sign != '\0')
                after++;
            AddData(_position, begin, sign, lstrip: kind != '{');
            if (kind == '%' && RawBegin(after) is var raw and >= 0)
                Raw(begin, raw);
            else if (kind == '#')
                Comment(begin, after);
            else
            {
                Add(kind == '{' ? JinjaTokenKind.VariableBegin : JinjaTokenKind.BlockBegin, _source[begin..after], begin);
                _position = after;
                Expression(kind == '{');
            }
        }
    }

    private int NextTag(int from)
    {
        for (var i = _source.IndexOf('{', from); i >= 0 && i + 1 < _source.Length; i = _source.IndexOf('{', i + 1))
            if (_source[i + 1] is '{' or '%' or '#')
                return i;
        return -1;
    }

    private char SignAt(int i) => i < _source.Length && _source[i] is '-' or '+' ? _source[i] : '\0';

    private void AddData(int start, int end, char sign, bool lstrip)
    {
        if (sign == '-')
            while (end > start && JinjaText.IsSpace(_source[end - 1]))
                end--;
        else if (sign != '+' && lstrip)
        {
            // Blanks between a line's start and a statement are not output; a text that ends in "\n" has none.
            var line = end;
            while (line > start && _source[line - 1] != '\n' && JinjaText.IsSpace(_source[line - 1]))
                line--;
            if (line > start ? _source[line - 1] == '\n' : start == 0 || _source[start - 1] == '\n')
                end = line;
        }
        if (end > start)
            Add(JinjaTokenKind.Data, _source[start..end], start);
    }

    /// <summary>The position after "raw %}", or −1 if this statement is another.</summary>
    private int RawBegin(int i)
    {
        i = Word(i, "raw");
        if (i < 0)
            return -1;
        if (At(i, "%}"))
            return i + 2;
        return At(i, "-%}") ? SkipSpace(i + 3) : -1;
    }

    private int Word(int i, string word)
    {
        i = SkipSpace(i);
        return At(i, word) ? SkipSpace(i + word.Length) : -1;
    }

    private void Raw(int begin, int start)
    {
        for (var i = _source.IndexOf("{%", start, StringComparison.Ordinal); i >= 0; i = _source.IndexOf("{%", i + 1, StringComparison.Ordinal))
        {
            var sign = SignAt(i + 2);
            var after = Word(i + (sign == '\0' ? 2 : 3), "endraw");
            if (after < 0 || BlockEnd(after) is not (var end and >= 0))
                continue;
            AddData(start, i, sign, lstrip: true);
            _position = end;
            return;
        }
        // As in Jinja: what opens at the very end of the source just ends there.
        _position = start == _source.Length ? start : throw Error("the end of a raw block, {% endraw %}, is missing", begin);
    }

    private void Comment(int begin, int start)
    {
        var end = _source.IndexOf("#}", start, StringComparison.Ordinal);
        if (end < 0)
        {
            // As in Jinja: what opens at the very end of the source just ends there.
            _position = start == _source.Length ? start : throw Error("the end of a comment, #}, is missing", begin);
            return;
        }
        var sign = end > start ? _source[end - 1] : '\0';
        _position = end + 2;
        if (sign == '-')
            _position = SkipSpace(_position);
        else if (sign != '+' && At(_position, "\n"))
            _position++;
    }

    /// <summary>The position after a statement's end at <paramref name="i"/>, or −1 if none is there.</summary>
    private int BlockEnd(int i)
    {
        if (At(i, "-%}"))
            return SkipSpace(i + 3);
        if (At(i, "+%}"))
            return i + 3;
        return At(i, "%}") ? At(i + 2, "\n") ? i + 3 : i + 2 : -1;
    }

    private void Expression(bool variable)
    {
        var open = new Stack<char>();
        while (_position < _source.Length)
        {
            var i = _position;
            var c = _source[i];
            if (open.Count == 0)
            {
                var end = !variable ? BlockEnd(i) : At(i, "-}}") ? SkipSpace(i + 3) : At(i, "}}") ? i + 2 : -1;
                if (end >= 0)
                {
                    Add(variable ? JinjaTokenKind.VariableEnd : JinjaTokenKind.BlockEnd, "", i);
                    _position = end;
                    return;
                }
            }
            if (JinjaText.IsSpace(c))
                _position++;
            else if (char.IsAsciiDigit(c))
                Number();
            else if (c is '\'' or '"')
                Quoted(c);
            else if (IsWord(i, out _))
                Name();
            else
                Operator(open);
        }
    }

    private void Operator(Stack<char> open)
    {
        var i = _position;
        var text = Array.Find(DoubleOperators, o => At(i, o));
        if (text is null)
        {
            if (!SingleOperators.Contains(_source[i]))
                throw Error($"unexpected character '{(Rune.TryGetRuneAt(_source, i, out var rune) ? rune.ToString() : "?")}'", i);
            text = _source[i].ToString();
        }
        switch (text)
        {
            case "(": open.Push(')'); break;
            case "[": open.Push(']'); break;
            case "{": open.Push('}'); break;
            case ")" or "]" or "}":
                if (open.Count == 0)
                    throw Error($"unexpected '{text}'", i);
                if (open.Pop() is var expected && expected != text[0])
                    throw Error($"unexpected '{text}', expected '{expected}'", i);
                break;
        }
        Add(JinjaTokenKind.Operator, text, i);
        _position = i + text.Length;
    }

    private void Name()
    {
        var start = _position;
        while (IsWord(_position, out var length))
            _position += length;
        Add(JinjaTokenKind.Name, _source[start.._position], start);
    }

    /// <summary>Whether a letter, digit or underscore is at <paramref name="i"/>, and how many chars it has.</summary>
    private bool IsWord(int i, out int length)
    {
        length = 1;
        if (i >= _source.Length || !Rune.TryGetRuneAt(_source, i, out var rune))
            return false;
        length = rune.Utf16SequenceLength;
        return rune.Value == '_' || Rune.IsLetterOrDigit(rune)
            || Rune.GetUnicodeCategory(rune) is UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.LetterNumber;
    }

    private void Number()
    {
        var start = _position;
        var radix = start + 1 < _source.Length && _source[start] == '0' ? char.ToLowerInvariant(_source[start + 1]) switch { 'b' => 2, 'o' => 8, 'x' => 16, _ => 10 } : 10;
        if (radix != 10 && Digits(start + 2, radix, leading: true) is var last && last > start + 2)
        {
            _position = last;
            var value = BigInteger.Zero;
            foreach (var c in _source.AsSpan(start + 2, last - start - 2))
                if (c != '_')
                    value = Limited(value * radix + Convert.ToInt32(c.ToString(), 16), start);
            Add(JinjaTokenKind.Integer, _source[start..last], start, value);
            return;
        }
        var end = Digits(start, 10);
        // "a.0.1" is two subscripts, not a float.
        if (start == 0 || _source[start - 1] != '.')
        {
            var whole = end;
            if (At(whole, ".") && Digits(whole + 1, 10) is var fraction && fraction > whole + 1)
                end = fraction;
            if (end < _source.Length && _source[end] is 'e' or 'E')
            {
                var exponent = end + 1;
                if (SignAt(exponent) != '\0')
                    exponent++;
                if (Digits(exponent, 10) is var power && power > exponent)
                    end = power;
            }
            if (end > whole)
            {
                _position = end;
                var text = _source[start..end];
                Add(JinjaTokenKind.Float, text, start, double.Parse(text.Replace("_", "", StringComparison.Ordinal), CultureInfo.InvariantCulture));
                return;
            }
        }
        if (_source[start] == '0')
        {
            // Only zeros follow a leading zero; what comes after is the next token, and a syntax error.
            end = start + 1;
            while (end < _source.Length && _source[end] == '0')
                end++;
        }
        _position = end;
        var digits = _source[start..end].Replace("_", "", StringComparison.Ordinal);
        if (digits.Length > 4300)
            throw Error("an integer may have 4300 digits", start);
        Add(JinjaTokenKind.Integer, digits, start, BigInteger.Parse(digits, CultureInfo.InvariantCulture));
    }

    private BigInteger Limited(BigInteger value, int at) => value.GetBitLength() <= JinjaNumbers.MaxBits ? value : throw Error("integer too large", at);

    /// <summary>The end of a run of digits with single underscores between them.</summary>
    private int Digits(int i, int radix, bool leading = false)
    {
        bool Digit(int at) => at < _source.Length && (radix == 16 ? char.IsAsciiHexDigit(_source[at]) : _source[at] >= '0' && _source[at] < '0' + radix);
        if (leading && At(i, "_") && Digit(i + 1))
            i++;
        while (Digit(i))
            i += At(i + 1, "_") && Digit(i + 2) ? 2 : 1;
        return i;
    }

    private void Quoted(char quote)
    {
        var start = _position;
        var text = new StringBuilder();
        for (var i = start + 1; i < _source.Length; i++)
        {
            var c = _source[i];
            if (c == quote)
            {
                _position = i + 1;
                Add(JinjaTokenKind.Literal, text.ToString(), start);
                return;
            }
            if (c != '\\' || i + 1 >= _source.Length)
                text.Append(c);
            else
                i = Escape(text, i + 1);
        }
        throw Error("the end of a string is missing", start);
    }

    /// <summary>Appends the escape whose letter is at <paramref name="i"/> (Python's unicode-escape) and returns its last position.</summary>
    private int Escape(StringBuilder text, int i)
    {
        var c = _source[i];
        var simple = "abfnrtv\\'\"".IndexOf(c);
        if (simple >= 0)
        {
            text.Append("\a\b\f\n\r\t\v\\'\""[simple]);
            return i;
        }
        switch (c)
        {
            case '\n':
                return i;
            case >= '0' and <= '7':
                var octal = 0;
                var last = i;
                for (; last < i + 3 && last < _source.Length && _source[last] is >= '0' and <= '7'; last++)
                    octal = octal * 8 + _source[last] - '0';
                text.Append((char)octal);
                return last - 1;
            case 'x' or 'u' or 'U':
                var count = c switch { 'x' => 2, 'u' => 4, _ => 8 };
                if (i + count >= _source.Length || !uint.TryParse(_source.AsSpan(i + 1, count), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code) || code > 0x10FFFF)
                    throw Error($"the escape \\{c} needs {count} hexadecimal digits of a Unicode code point", i);
                JinjaText.AppendCodePoint(text, (int)code);
                return i + count;
            case 'N':
                throw Error("the escape \\N{name} is not supported; write the code point as \\uXXXX", i);
            default:
                text.Append('\\').Append(c);
                return i;
        }
    }

    private bool At(int i, string text) => string.CompareOrdinal(_source, i, text, 0, text.Length) == 0;

    private int SkipSpace(int i)
    {
        while (i < _source.Length && JinjaText.IsSpace(_source[i]))
            i++;
        return i;
    }

    private void Add(JinjaTokenKind kind, string text, int at, object? number = null)
    {
        CountLines(at);
        _tokens.Add(new JinjaToken(kind, text, number, _line));
    }

    private void CountLines(int until)
    {
        for (; _counted < until && _counted < _source.Length; _counted++)
            if (_source[_counted] == '\n')
                _line++;
    }

    private JinjaError Error(string message, int at)
    {
        CountLines(at);
        return new JinjaError(message, _line);
    }
}
