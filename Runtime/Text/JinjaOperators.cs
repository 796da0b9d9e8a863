using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>Python's arithmetic on template values.</summary>
internal static class JinjaOperators
{
    public static object? Apply(JinjaRun run, string operation, object? a, object? b)
    {
        // A format's values may be undefined: they print as nothing.
        if (operation == "%" && JinjaValue.Text(a) is { } format)
            return a is JinjaMarkup ? new JinjaMarkup(JinjaFormat.Percent(run, format, Escaped(run, b))) : JinjaFormat.Percent(run, format, b);
        if (a is JinjaUndefined || b is JinjaUndefined)
            throw ((a as JinjaUndefined) ?? (JinjaUndefined)b!).Error;
        if (JinjaValue.IsNumber(a) && JinjaValue.IsNumber(b))
            return a is double || b is double || operation == "/" ? Float(operation, a, b) : Integer(operation, JinjaNumbers.Integer(a)!.Value, JinjaNumbers.Integer(b)!.Value);
        return operation switch
        {
            "+" => Add(run, a, b),
            "*" => Repeat(run, a, b),
            _ => throw Unsupported(operation, a, b),
        };
    }

    /// <summary>The values for a format that is HTML: their strings are escaped.</summary>
    private static object? Escaped(JinjaRun run, object? values) => values switch
    {
        string or JinjaMarkup => JinjaMarkup.Escape(values, run).Text,
        JinjaTuple tuple => new JinjaTuple(tuple.Items.Select(item => Escaped(run, item)).ToArray()),
        _ => values,
    };

    private static JinjaError Unsupported(string operation, object? a, object? b) =>
        new($"TypeError: unsupported operand type(s) for {(operation == "**" ? "** or pow()" : operation)}: '{JinjaValue.TypeName(a)}' and '{JinjaValue.TypeName(b)}'");

    private static object Integer(string operation, BigInteger a, BigInteger b)
    {
        switch (operation)
        {
            case "+": return JinjaNumbers.Checked(a + b);
            case "-": return JinjaNumbers.Checked(a - b);
            case "*": return JinjaNumbers.Checked(a * b);
            case "**":
                if (b.Sign < 0)
                    return Power(JinjaNumbers.ToDouble(a), JinjaNumbers.ToDouble(b));
                if (BigInteger.Abs(a) > 1 && (b > JinjaNumbers.MaxBits || (long)b * (a.GetBitLength() - 1) > JinjaNumbers.MaxBits))
                    throw new JinjaError("integer too large");
                return BigInteger.Abs(a) <= 1 ? BigInteger.Pow(a, b.IsZero ? 0 : b.IsEven ? 2 : 1) : JinjaNumbers.Checked(BigInteger.Pow(a, (int)b));
        }
        if (b.IsZero)
            throw new JinjaError("ZeroDivisionError: integer division or modulo by zero");
        var quotient = BigInteger.DivRem(a, b, out var rest);
        if (!rest.IsZero && rest.Sign != b.Sign)
        {
            quotient -= 1;
            rest += b;
        }
        return operation == "//" ? quotient : rest;
    }

    private static object Float(string operation, object? left, object? right)
    {
        if (operation == "/" && left is BigInteger or bool && right is BigInteger or bool)
            return Divide(JinjaNumbers.Integer(left)!.Value, JinjaNumbers.Integer(right)!.Value);
        double a = JinjaNumbers.Float(left)!.Value, b = JinjaNumbers.Float(right)!.Value;
        switch (operation)
        {
            case "+": return a + b;
            case "-": return a - b;
            case "*": return a * b;
            case "**": return Power(a, b);
        }
        if (b == 0)
            throw new JinjaError(operation switch { "/" => "ZeroDivisionError: float division by zero", "//" => "ZeroDivisionError: float floor division by zero", _ => "ZeroDivisionError: float modulo" });
        if (operation == "/")
            return a / b;
        // Python's float_divmod: the remainder has the divisor's sign, and the quotient is made from it.
        var rest = a % b;
        var quotient = (a - rest) / b;
        if (rest != 0)
        {
            if (b < 0 != rest < 0)
            {
                rest += b;
                quotient -= 1;
            }
        }
        else
            rest = Math.CopySign(0, b);
        if (operation == "%")
            return rest;
        var whole = Math.Floor(quotient);
        return quotient == 0 ? Math.CopySign(0, a / b) : quotient - whole > 0.5 ? whole + 1 : whole;
    }

    private static double Divide(BigInteger a, BigInteger b)
    {
        if (b.IsZero)
            throw new JinjaError("ZeroDivisionError: division by zero");
        double x = (double)a, y = (double)b;
        if (new BigInteger(long.MinValue) <= a && a <= long.MaxValue && Math.Abs(x) < 1L << 53 && Math.Abs(y) < 1L << 53)
            return x / y;
        // Enough quotient bits for one rounding; the last bit says that there was more.
        var shift = Math.Max(0, 66 - (int)(a.GetBitLength() - b.GetBitLength()));
        var quotient = BigInteger.DivRem(BigInteger.Abs(a) << shift, BigInteger.Abs(b), out var rest);
        var result = Math.ScaleB(JinjaNumbers.Nearest(rest.IsZero ? quotient : quotient | 1), -shift);
        return double.IsFinite(result) ? a.Sign * b.Sign * result : throw new JinjaError("OverflowError: integer division result too large for a float");
    }

    private static double Power(double a, double b)
    {
        if (a == 0 && b < 0)
            throw new JinjaError("ZeroDivisionError: 0.0 cannot be raised to a negative power");
        if (a < 0 && double.IsFinite(a) && double.IsFinite(b) && b != Math.Floor(b))
            throw new JinjaError("complex numbers are not supported");
        var result = Math.Pow(a, b);
        return double.IsInfinity(result) && double.IsFinite(a) && double.IsFinite(b) ? throw new JinjaError("OverflowError: (34, 'Numerical result out of range')") : result;
    }

    private static object Add(JinjaRun run, object? a, object? b)
    {
        if (JinjaValue.Text(a) is { } left && JinjaValue.Text(b) is { } right)
        {
            run.Produce((long)left.Length + right.Length);
            if (a is not JinjaMarkup && b is not JinjaMarkup)
                return left + right;
            return new JinjaMarkup(run.Produced(JinjaMarkup.Escape(a, run).Text + JinjaMarkup.Escape(b, run).Text));
        }
        if (a is List<object?> && b is List<object?> || a is JinjaTuple && b is JinjaTuple)
        {
            var (x, y) = (JinjaValue.Sequence(a)!, JinjaValue.Sequence(b)!);
            run.Spend(x.Count + y.Count);
            return a is JinjaTuple ? new JinjaTuple([.. x, .. y]) : new List<object?>([.. x, .. y]);
        }
        throw a is string or JinjaMarkup or List<object?> or JinjaTuple
            ? new JinjaError($"TypeError: can only concatenate {JinjaValue.TypeName(a is JinjaMarkup ? "" : a)} (not \"{JinjaValue.TypeName(b)}\") to {JinjaValue.TypeName(a is JinjaMarkup ? "" : a)}")
            : Unsupported("+", a, b);
    }

    private static object Repeat(JinjaRun run, object? a, object? b)
    {
        var (sequence, times) = JinjaNumbers.Integer(a) is { } n ? (b, n) : (a, JinjaNumbers.Integer(b) ?? -1);
        if (JinjaNumbers.Integer(a) is null && JinjaNumbers.Integer(b) is null)
            throw sequence is string or List<object?> or JinjaTuple
                ? new JinjaError($"TypeError: can't multiply sequence by non-int of type '{JinjaValue.TypeName(b)}'")
                : Unsupported("*", a, b);
        times = BigInteger.Max(0, times);
        if (JinjaValue.Text(sequence) is { } text)
        {
            run.Produce(text.Length == 0 ? 0 : (long)BigInteger.Min(long.MaxValue / 8, times * text.Length));
            var repeated = text.Length == 0 ? "" : new StringBuilder().Insert(0, text, (int)times).ToString();
            return sequence is JinjaMarkup ? new JinjaMarkup(repeated) : repeated;
        }
        if (JinjaValue.Sequence(sequence) is not { } items)
            throw Unsupported("*", a, b);
        run.Spend((long)BigInteger.Min(long.MaxValue / 8, times * items.Count));
        var list = new List<object?>();
        for (var i = 0; items.Count > 0 && i < times; i++)
            list.AddRange(items);
        return sequence is JinjaTuple ? new JinjaTuple([.. list]) : list;
    }

    public static object Negate(object? value, bool minus) => value switch
    {
        double d => minus ? -d : d,
        bool or BigInteger => minus ? -JinjaNumbers.Integer(value)!.Value : JinjaNumbers.Integer(value)!.Value,
        JinjaUndefined undefined => throw undefined.Error,
        _ => throw new JinjaError($"TypeError: bad operand type for unary {(minus ? '-' : '+')}: '{JinjaValue.TypeName(value)}'"),
    };

    /// <summary>The ~ operator: str of each part; one part marked as HTML makes no difference, for autoescape is off.</summary>
    public static string Concatenate(JinjaRun run, IReadOnlyList<object?> parts)
    {
        var texts = new string[parts.Count];
        long length = 0;
        for (var i = 0; i < texts.Length; i++)
            length += (texts[i] = run.Str(parts[i])).Length;
        run.Produce(length);
        return string.Concat(texts);
    }
}
