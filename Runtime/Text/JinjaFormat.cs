using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>Python's two formatting languages: "%5.2f" % x and "{:>5}".format(x).</summary>
internal static class JinjaFormat
{
    private const int MaxWidth = 100_000;
    private const int MaxPrecision = 1000;

    private sealed record Spec
    {
        public string Fill { get; init; } = " ";
        public char Align { get; init; }
        public char Sign { get; init; } = '-';
        public bool Alternate { get; init; }
        public int Width { get; init; }
        public char Group { get; init; }
        public int Precision { get; init; } = -1;
        public char Type { get; init; }
    }

    /// <summary>format % values.</summary>
    public static string Percent(JinjaRun run, string format, object? values)
    {
        var output = new StringBuilder();
        var tuple = (values as JinjaTuple)?.Items;
        var next = 0;
        var named = false;
        object? Take()
        {
            if (tuple is null ? next++ > 0 : next >= tuple.Length)
                throw new JinjaError("TypeError: not enough arguments for format string");
            return tuple is null ? values : tuple[next++];
        }
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%')
            {
                output.Append(format[i]);
                continue;
            }
            char At(int at) => at < format.Length ? format[at] : throw new JinjaError("ValueError: incomplete format");
            i++;
            object? value = JinjaArguments.Missing;
            if (At(i) == '(')
            {
                var depth = 1;
                var start = i + 1;
                while (depth > 0)
                    depth += At(++i) switch { '(' => 1, ')' => -1, _ => 0 };
                var key = format[start..i++];
                named = true;
                if (values is not JinjaDict dict)
                    throw new JinjaError("TypeError: format requires a mapping");
                if (!dict.TryGet(key, out value))
                    throw new JinjaError($"KeyError: {JinjaValue.BriefRepr(key)}");
            }
            var spec = new Spec();
            var left = false;
            for (; "-+ #0".Contains(At(i)); i++)
                switch (At(i))
                {
                    case '-': left = true; break;
                    case '+': spec = spec with { Sign = '+' }; break;
                    case ' ' when spec.Sign != '+': spec = spec with { Sign = ' ' }; break;
                    case '#': spec = spec with { Alternate = true }; break;
                    case '0': spec = spec with { Fill = "0", Align = '=' }; break;
                }
            var width = Number(ref i, -1);
            if (width < -1)
                (left, width) = (true, -width);
            spec = spec with { Width = Math.Max(width, 0) };
            if (At(i) == '.')
            {
                i++;
                spec = spec with { Precision = Math.Max(0, Number(ref i, 0)) };
            }
            while (At(i) is 'h' or 'l' or 'L')
                i++;
            if (At(i) == '%')
            {
                output.Append('%');
                continue;
            }
            if (ReferenceEquals(value, JinjaArguments.Missing))
                value = Take();
            output.Append(Convert(run, spec with { Type = At(i) }, value, left));
            run.Produce(output.Length / 16);

            int Number(ref int at, int missing)
            {
                if (At(at) == '*')
                {
                    at++;
                    return JinjaNumbers.Integer(Take()) is { } given ? Limit((long)BigInteger.Max(-MaxWidth - 1, BigInteger.Min(given, MaxWidth + 1))) : throw new JinjaError("TypeError: * wants int");
                }
                if (!char.IsAsciiDigit(At(at)))
                    return missing;
                long number = 0;
                for (; char.IsAsciiDigit(At(at)); at++)
                    number = Limit(number * 10 + format[at] - '0');
                return (int)number;
            }
        }
        if (!named && (tuple is null ? next == 0 && values is not (JinjaDict or List<object?> or JinjaUndefined or JinjaRange) : next < tuple.Length))
            throw new JinjaError("TypeError: not all arguments converted during string formatting");
        return run.Produced(output.ToString());
    }

    private static int Limit(long number) => Math.Abs(number) <= MaxWidth ? (int)number : throw new JinjaError($"a format's width may be {MaxWidth} at most");

    private static string Convert(JinjaRun run, Spec spec, object? value, bool left)
    {
        var align = left ? '<' : spec.Align == '=' ? '=' : '>';
        switch (spec.Type)
        {
            case 's' or 'r' or 'a':
                return Aligned(spec with { Align = left ? '<' : '>', Fill = " " }, "", Cut(spec, spec.Type == 's' ? run.Str(value) : run.Repr(value)));
            case 'c':
                var character = JinjaValue.Text(value) is { } text ? JinjaText.Length(text) == 1 ? text : throw new JinjaError("TypeError: %c requires int or char") : Character(value);
                return Aligned(spec with { Align = left ? '<' : '>', Fill = " " }, "", character);
            case 'd' or 'i' or 'u':
                var whole = value is double d ? double.IsFinite(d) ? new BigInteger(d) : throw new JinjaError("OverflowError: cannot convert float infinity or NaN to integer")
                    : JinjaNumbers.Integer(value) ?? throw new JinjaError($"TypeError: %{spec.Type} format: a real number is required, not {JinjaValue.TypeName(value)}");
                return Aligned(spec with { Align = align, Fill = left ? " " : spec.Fill }, SignOf(spec, whole.Sign < 0), Digits(spec, BigInteger.Abs(whole), 10));
            case 'x' or 'X' or 'o':
                var integer = JinjaNumbers.Integer(value) ?? throw new JinjaError($"TypeError: %{spec.Type} format: an integer is required, not {JinjaValue.TypeName(value)}");
                var digits = Digits(spec, BigInteger.Abs(integer), spec.Type == 'o' ? 8 : 16);
                var sign = SignOf(spec, integer.Sign < 0) + (spec.Alternate ? "0" + spec.Type : "");
                return Aligned(spec with { Align = align, Fill = left ? " " : spec.Fill }, sign, spec.Type == 'X' ? digits.ToUpperInvariant() : digits);
            case 'e' or 'E' or 'f' or 'F' or 'g' or 'G':
                var number = JinjaNumbers.Float(value) ?? throw new JinjaError($"TypeError: must be real number, not {JinjaValue.TypeName(value)}");
                return Aligned(spec with { Align = align, Fill = left ? " " : spec.Fill }, SignOf(spec, double.IsNegative(number) && !double.IsNaN(number)), Real(spec, number));
            default:
                throw new JinjaError($"ValueError: unsupported format character '{spec.Type}'");
        }
    }

    private static string Digits(Spec spec, BigInteger value, int radix) =>
        JinjaNumbers.InBase(value, radix).PadLeft(Math.Max(0, Math.Min(spec.Precision, MaxPrecision)), '0');

    private static string Character(object? value)
    {
        if (JinjaNumbers.Integer(value) is not { } code)
            throw new JinjaError("TypeError: %c requires int or char");
        if (code.Sign < 0 || code > 0x10FFFF)
            throw new JinjaError("OverflowError: %c arg not in range(0x110000)");
        var output = new StringBuilder();
        JinjaText.AppendCodePoint(output, (int)code);
        return output.ToString();
    }

    private static string Cut(Spec spec, string text) => spec.Precision < 0 ? text : text[..JinjaText.Position(text, spec.Precision)];

    private static string SignOf(Spec spec, bool negative) => negative ? "-" : spec.Sign == '-' ? "" : spec.Sign.ToString();

    /// <summary>|value| in one of the forms e, f, g, %, or that of repr.</summary>
    private static string Real(Spec spec, double value)
    {
        var type = char.ToLowerInvariant(spec.Type);
        value = Math.Abs(value);
        var precision = Math.Min(spec.Precision < 0 ? 6 : spec.Precision, MaxPrecision);
        string text;
        if (!double.IsFinite(value))
            text = double.IsNaN(value) ? "nan" : "inf";
        else
            text = type switch
            {
                'e' => JinjaNumbers.Exponential(value, precision, spec.Alternate),
                'f' => JinjaNumbers.Fixed(value, precision) + (spec.Alternate && precision == 0 ? "." : ""),
                '%' => JinjaNumbers.Fixed(value * 100, precision),
                'g' or 'n' => JinjaNumbers.General(value, precision, spec.Alternate),
                _ when spec.Precision >= 0 => PlainGeneral(value, precision),
                _ => JinjaNumbers.Repr(value),
            };
        text = char.IsUpper(spec.Type) ? text.ToUpperInvariant() : text;
        return type == '%' ? text + "%" : text;
    }

    /// <summary>The form without a type but with a precision: as g, but a whole number keeps ".0".</summary>
    private static string PlainGeneral(double value, int precision)
    {
        precision = Math.Max(precision, 1);
        var text = JinjaNumbers.General(value, precision, false);
        if (text.Contains('e') || text.Contains('.'))
            return text;
        return text.Length < precision ? text + ".0" : JinjaNumbers.Exponential(value, precision - 1) is var e ? TrimMantissa(e) : text;
    }

    private static string TrimMantissa(string text)
    {
        var e = text.IndexOf('e');
        return text.Contains('.') ? text[..e].TrimEnd('0').TrimEnd('.') + text[e..] : text;
    }

    private static string Aligned(Spec spec, string sign, string body)
    {
        if (spec.Group != '\0')
            body = Grouped(spec, sign, body);
        var missing = spec.Width - JinjaText.Length(sign) - JinjaText.Length(body);
        if (missing <= 0)
            return sign + body;
        string Fill(int count) => string.Concat(Enumerable.Repeat(spec.Fill, count));
        return spec.Align switch
        {
            '<' => sign + body + Fill(missing),
            '^' => Fill(missing / 2) + sign + body + Fill(missing - missing / 2),
            '=' => sign + Fill(missing) + body,
            _ => Fill(missing) + sign + body,
        };
    }

    private static string Grouped(Spec spec, string sign, string body)
    {
        var whole = 0;
        while (whole < body.Length && char.IsAsciiLetterOrDigit(body[whole]) && (char.IsAsciiDigit(body[whole]) || spec.Type is 'x' or 'X'))
            whole++;
        var every = spec.Type is 'b' or 'o' or 'x' or 'X' ? 4 : 3;
        var rest = body[whole..];
        var digits = new StringBuilder(body[..whole]);
        // Zeros that fill the width are grouped too.
        if (spec is { Align: '=', Fill: "0" })
            while (digits.Length + (digits.Length - 1) / every + rest.Length + sign.Length < spec.Width)
                digits.Insert(0, '0');
        for (var i = digits.Length - every; i > 0; i -= every)
            digits.Insert(i, spec.Group);
        return digits + rest;
    }

    /// <summary>format.format(arguments), with the attribute and item lookups of the sandbox.</summary>
    public static string Braces(JinjaRun run, string format, JinjaArguments arguments)
    {
        var next = 0;
        return run.Produced(Braces(run, format, arguments, ref next, 2));
    }

    private static string Braces(JinjaRun run, string format, JinjaArguments arguments, ref int next, int depth)
    {
        if (depth == 0)
            throw new JinjaError("ValueError: Max string recursion exceeded");
        var output = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            var c = format[i];
            if (c is '{' or '}' && i + 1 < format.Length && format[i + 1] == c)
                i++;
            else if (c == '}')
                throw new JinjaError("ValueError: Single '}' encountered in format string");
            else if (c == '{')
            {
                var end = i + 1;
                for (var open = 1; open > 0; end++)
                    open += end >= format.Length ? throw new JinjaError("ValueError: expected '}' before end of string") : format[end] switch { '{' => 1, '}' => -1, _ => 0 };
                var field = format[(i + 1)..(end - 1)];
                i = end - 1;
                output.Append(Field(run, field, arguments, ref next, depth));
                run.Produce(output.Length / 16);
                continue;
            }
            output.Append(c);
        }
        return output.ToString();
    }

    private static string Field(JinjaRun run, string field, JinjaArguments arguments, ref int next, int depth)
    {
        var brackets = 0;
        var split = 0;
        for (; split < field.Length && (brackets > 0 || field[split] is not (':' or '!')); split++)
            brackets += field[split] switch { '[' => 1, ']' => -1, _ => 0 };
        var path = field[..split];
        var conversion = '\0';
        if (split < field.Length && field[split] == '!')
        {
            if (split + 1 >= field.Length || split + 2 < field.Length && field[split + 2] != ':')
                throw new JinjaError("ValueError: expected ':' after conversion specifier");
            conversion = field[split + 1];
            split += 2;
        }
        var value = Lookup(run, path, arguments, ref next);
        var text = split < field.Length ? Braces(run, field[(split + 1)..], arguments, ref next, depth - 1) : "";
        value = conversion switch
        {
            '\0' => value,
            's' => run.Str(value),
            'r' or 'a' => run.Repr(value),
            _ => throw new JinjaError($"ValueError: Unknown conversion specifier {conversion}"),
        };
        return Format(run, value, text);
    }

    private static object? Lookup(JinjaRun run, string path, JinjaArguments arguments, ref int next)
    {
        var end = path.AsSpan().IndexOfAny('.', '[') is var at && at < 0 ? path.Length : at;
        var name = path[..end];
        object? value;
        if (name.Length == 0 || name.All(char.IsAsciiDigit))
        {
            if (name.Length > 6)
                throw new JinjaError("ValueError: Too many decimal digits in format string");
            var index = name.Length == 0 ? next++ : int.Parse(name, CultureInfo.InvariantCulture);
            if (index >= arguments.Positional.Length)
                throw new JinjaError($"IndexError: Replacement index {index} out of range for positional args tuple");
            value = arguments.Positional[index];
        }
        else
        {
            var found = arguments.Named.FirstOrDefault(n => n.Key == name);
            value = found.Key is not null ? found.Value : throw new JinjaError($"KeyError: {JinjaValue.BriefRepr(name)}");
        }
        while (end < path.Length)
        {
            if (path[end] == '[')
            {
                var close = path.IndexOf(']', end);
                if (close < 0)
                    throw new JinjaError("ValueError: Missing ']' in format string");
                var key = path[(end + 1)..close];
                value = run.Item(value, key.Length is > 0 and < 10 && key.All(char.IsAsciiDigit) ? BigInteger.Parse(key, CultureInfo.InvariantCulture) : key);
                end = close + 1;
            }
            else
            {
                var start = end + 1;
                end = path.AsSpan(start).IndexOfAny('.', '[') is var length && length < 0 ? path.Length : start + length;
                value = run.Attribute(value, path[start..end]);
            }
        }
        return value;
    }

    /// <summary>format(value, text).</summary>
    private static string Format(JinjaRun run, object? value, string text)
    {
        if (text.Length == 0)
            return run.Str(value);
        var spec = Parse(text);
        if (JinjaValue.Text(value) is { } self)
        {
            if (spec.Type is not ('\0' or 's') || spec.Align == '=' && spec.Fill != "0")
                throw new JinjaError($"ValueError: Unknown format code '{spec.Type}' for object of type 'str'");
            return Aligned(spec with { Align = spec.Align is '\0' or '=' ? '<' : spec.Align, Group = '\0' }, "", Cut(spec, self));
        }
        var align = spec.Align == '\0' ? '>' : spec.Align;
        if (JinjaNumbers.Integer(value) is { } integer && spec.Type is not ('e' or 'E' or 'f' or 'F' or 'g' or 'G' or '%'))
        {
            var radix = spec.Type switch { '\0' or 'd' or 'n' => 10, 'b' => 2, 'o' => 8, 'x' or 'X' => 16, 'c' => 0, _ => throw new JinjaError($"ValueError: Unknown format code '{spec.Type}' for object of type 'int'") };
            if (radix == 0)
                return Aligned(spec with { Align = align }, "", Character(value));
            if (spec.Precision >= 0)
                throw new JinjaError("ValueError: Precision not allowed in integer format specifier");
            var digits = JinjaNumbers.InBase(BigInteger.Abs(integer), radix);
            var sign = SignOf(spec, integer.Sign < 0) + (spec.Alternate && radix != 10 ? "0" + spec.Type : "");
            return Aligned(spec with { Align = align }, sign, spec.Type == 'X' ? digits.ToUpperInvariant() : digits);
        }
        if (JinjaNumbers.Float(value) is { } number)
        {
            if (spec.Type is not ('\0' or 'e' or 'E' or 'f' or 'F' or 'g' or 'G' or '%' or 'n'))
                throw new JinjaError($"ValueError: Unknown format code '{spec.Type}' for object of type 'float'");
            return Aligned(spec with { Align = align }, SignOf(spec, double.IsNegative(number) && !double.IsNaN(number)), Real(spec, number));
        }
        throw value is JinjaUndefined undefined ? undefined.Error
            : new JinjaError($"TypeError: unsupported format string passed to {JinjaValue.TypeName(value)}.__format__");
    }

    /// <summary>[[fill]align][sign][#][0][width][grouping][.precision][type]</summary>
    private static Spec Parse(string text)
    {
        var i = 0;
        var spec = new Spec();
        var first = JinjaText.Width(text, 0);
        var filled = false;
        if (first < text.Length && "<>=^".Contains(text[first]))
        {
            spec = spec with { Fill = text[..first], Align = text[first] };
            filled = true;
            i = first + 1;
        }
        else if ("<>=^".Contains(text[0]))
            spec = spec with { Align = text[i++] };
        bool Is(string set) => i < text.Length && set.Contains(text[i]);
        if (Is("+- "))
            spec = spec with { Sign = text[i++] };
        if (Is("z"))
            i++;
        if (Is("#"))
        {
            spec = spec with { Alternate = true };
            i++;
        }
        if (Is("0"))
        {
            // Before the width, 0 is the fill unless another is given; it goes between sign and digits unless an alignment is given.
            spec = spec with { Fill = filled ? spec.Fill : "0", Align = spec.Align == '\0' ? '=' : spec.Align };
            i++;
        }
        long Number()
        {
            long number = 0;
            for (; i < text.Length && char.IsAsciiDigit(text[i]); i++)
                number = Limit(number * 10 + text[i] - '0');
            return number;
        }
        spec = spec with { Width = (int)Number() };
        if (Is(",_"))
            spec = spec with { Group = text[i++] };
        if (Is("."))
        {
            i++;
            if (!Is("0123456789"))
                throw new JinjaError("ValueError: Format specifier missing precision");
            spec = spec with { Precision = (int)Number() };
        }
        if (i < text.Length)
            spec = spec with { Type = text[i++] };
        return i == text.Length ? spec : throw new JinjaError($"ValueError: Invalid format specifier '{text}'");
    }
}
