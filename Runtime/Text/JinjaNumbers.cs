using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>Python's int (a BigInteger here) and float (a double): text, rounding, exact comparison.</summary>
internal static class JinjaNumbers
{
    /// <summary>Largest integer, in bits: what 4300 digits need, Python's own limit for printing.</summary>
    public const int MaxBits = 14285;

    /// <summary>A bool or an integer as an integer.</summary>
    public static BigInteger? Integer(object? value) => value switch
    {
        BigInteger i => i,
        bool b => b ? BigInteger.One : BigInteger.Zero,
        _ => null,
    };

    /// <summary>A bool, an integer or a float as a float.</summary>
    public static double? Float(object? value) => value is double d ? d : Integer(value) is { } i ? ToDouble(i) : null;

    /// <summary>The nearest double, half to even (BigInteger's own conversion truncates); infinite if there is none.</summary>
    public static double Nearest(BigInteger value)
    {
        var size = BigInteger.Abs(value);
        var shift = (int)Math.Max(0, size.GetBitLength() - 62);
        var top = (long)(size >> shift);
        // The last of 62 bits stands for all that were cut off.
        if (shift > 0 && (size & (BigInteger.One << shift) - 1) != 0)
            top |= 1;
        return value.Sign * Math.ScaleB((double)top, shift);
    }

    public static double ToDouble(BigInteger value)
    {
        var d = Nearest(value);
        return double.IsFinite(d) ? d : throw new JinjaError("OverflowError: int too large to convert to float");
    }

    public static BigInteger Checked(BigInteger value) => value.GetBitLength() <= MaxBits ? value : throw new JinjaError("integer too large");

    /// <summary>Exact comparison of two numbers; null where one is NaN.</summary>
    public static int? Compare(object a, object b)
    {
        if (a is double x)
            return b is double y ? double.IsNaN(x) || double.IsNaN(y) ? null : x.CompareTo(y) : -Compare(Integer(b)!.Value, x);
        return b is double z ? Compare(Integer(a)!.Value, z) : Integer(a)!.Value.CompareTo(Integer(b)!.Value);
    }

    private static int? Compare(BigInteger a, double b)
    {
        if (double.IsNaN(b))
            return null;
        if (double.IsInfinity(b))
            return b > 0 ? -1 : 1;
        var whole = Math.Floor(b);
        var order = a.CompareTo(new BigInteger(whole));
        return order == 0 && whole < b ? -1 : order;
    }

    /// <summary>Python's repr of a float: the shortest digits that read back, 1e16 and 1e-05 in scientific form.</summary>
    public static string Repr(double value)
    {
        if (!double.IsFinite(value))
            return double.IsNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
        if (value == 0)
            return double.IsNegative(value) ? "-0.0" : "0.0";
        var (digits, exponent) = Shortest(Math.Abs(value));
        var sign = value < 0 ? "-" : "";
        if (exponent is < -4 or >= 16)
            return sign + Scientific(digits, exponent);
        if (exponent < 0)
            return sign + "0." + new string('0', -exponent - 1) + digits;
        return digits.Length <= exponent + 1
            ? sign + digits.PadRight(exponent + 1, '0') + ".0"
            : sign + digits[..(exponent + 1)] + "." + digits[(exponent + 1)..];
    }

    /// <summary>The shortest digits and the decimal exponent of the first.</summary>
    private static (string Digits, int Exponent) Shortest(double value)
    {
        var text = value.ToString("R", CultureInfo.InvariantCulture);
        var e = text.IndexOf('E');
        var mantissa = e < 0 ? text : text[..e];
        var exponent = ExponentOf(mantissa) + (e < 0 ? 0 : int.Parse(text.AsSpan(e + 1), CultureInfo.InvariantCulture));
        var digits = mantissa.Replace(".", "", StringComparison.Ordinal).Trim('0');
        return (digits, exponent);
    }

    private static int ExponentOf(string plain)
    {
        var dot = plain.IndexOf('.');
        var whole = dot < 0 ? plain : plain[..dot];
        if (whole != "0")
            return whole.Length - 1;
        var fraction = plain[(dot + 1)..];
        return -1 - (fraction.Length - fraction.TrimStart('0').Length);
    }

    private static string Scientific(string digits, int exponent, bool point = false) =>
        (digits.Length > 1 ? digits[..1] + "." + digits[1..] : point ? digits + "." : digits)
        + "e" + (exponent < 0 ? "-" : "+") + Math.Abs(exponent).ToString("00", CultureInfo.InvariantCulture);

    /// <summary>|value| · 10^<paramref name="places"/> rounded half to even, exactly.</summary>
    private static BigInteger Scaled(double value, int places)
    {
        var bits = BitConverter.DoubleToInt64Bits(value) & long.MaxValue;
        var exponent = (int)(bits >> 52);
        BigInteger numerator = (bits & 0xFFFFFFFFFFFFF) | (exponent == 0 ? 0 : 1L << 52), denominator = 1;
        exponent = Math.Max(exponent, 1) - 1075;
        if (exponent >= 0)
            numerator <<= exponent;
        else
            denominator <<= -exponent;
        if (places >= 0)
            numerator *= BigInteger.Pow(10, places);
        else
            denominator *= BigInteger.Pow(10, -places);
        return DivideToEven(numerator, denominator);
    }

    private static BigInteger DivideToEven(BigInteger numerator, BigInteger denominator)
    {
        var quotient = BigInteger.DivRem(numerator, denominator, out var rest);
        var twice = (rest * 2).CompareTo(denominator);
        return twice > 0 || twice == 0 && !quotient.IsEven ? quotient + 1 : quotient;
    }

    /// <summary>The digits of |value| with <paramref name="places"/> decimals, as Python's "%.nf".</summary>
    public static string Fixed(double value, int places)
    {
        var digits = Scaled(value, places).ToString(CultureInfo.InvariantCulture).PadLeft(places + 1, '0');
        return places == 0 ? digits : digits[..^places] + "." + digits[^places..];
    }

    /// <summary>|value| as Python's "%.ne".</summary>
    public static string Exponential(double value, int places, bool point = false)
    {
        var (digits, exponent) = Significant(value, places + 1);
        return Scientific(digits, exponent, point);
    }

    private static (string Digits, int Exponent) Significant(double value, int count)
    {
        if (value == 0)
            return (new string('0', count), 0);
        var exponent = Shortest(Math.Abs(value)).Exponent;
        var digits = Scaled(value, count - 1 - exponent).ToString(CultureInfo.InvariantCulture);
        // Rounding may have carried into one more digit: 9.99 to 10.
        return digits.Length > count ? (digits[..count], exponent + 1) : (digits, exponent);
    }

    /// <summary>|value| as Python's "%.ng": <paramref name="precision"/> significant digits, trailing zeros dropped unless <paramref name="alternate"/>.</summary>
    public static string General(double value, int precision, bool alternate)
    {
        precision = Math.Max(precision, 1);
        var (digits, exponent) = Significant(value, precision);
        if (exponent < -4 || exponent >= precision)
            return Scientific(alternate ? digits : digits[..1] + digits[1..].TrimEnd('0'), exponent, alternate);
        var text = exponent >= 0
            ? digits[..(exponent + 1)] + "." + digits[(exponent + 1)..]
            : "0." + new string('0', -exponent - 1) + digits;
        return alternate ? text : text.TrimEnd('0').TrimEnd('.');
    }

    /// <summary>Python's round(value, places).</summary>
    public static object Round(object? value, int places)
    {
        if (Integer(value) is { } i)
        {
            if (places >= 0)
                return i;
            if (places < -4300)
                return BigInteger.Zero;
            var unit = BigInteger.Pow(10, -places);
            return BigInteger.Abs(i) is var size ? DivideToEven(size, unit) * unit * i.Sign : i;
        }
        if (value is not double d)
            throw new JinjaError($"TypeError: type {JinjaValue.TypeName(value)} doesn't define __round__ method");
        if (!double.IsFinite(d) || places > 323)
            return d;
        if (places < -308)
            return d * 0;
        var scaled = Scaled(d, places);
        var text = scaled.ToString(CultureInfo.InvariantCulture) + "E" + (-places).ToString(CultureInfo.InvariantCulture);
        return Math.CopySign(double.Parse(text, CultureInfo.InvariantCulture), d);
    }

    /// <summary>Python's int(text, radix); null where it would raise ValueError.</summary>
    public static BigInteger? ParseInteger(string text, int radix)
    {
        text = JinjaText.Strip(text, null, true, true);
        var negative = text.StartsWith('-');
        var digits = text.AsSpan(negative || text.StartsWith('+') ? 1 : 0);
        var prefix = digits.Length > 1 && digits[0] == '0' ? char.ToLowerInvariant(digits[1]) switch { 'b' => 2, 'o' => 8, 'x' => 16, _ => 0 } : 0;
        var afterPrefix = prefix != 0 && (radix == 0 || radix == prefix);
        if (afterPrefix)
        {
            digits = digits[2..];
            radix = prefix;
        }
        else if (radix == 0)
            radix = digits.Length > 1 && digits[0] == '0' && digits.Trim("0_").Length > 0 ? -1 : 10;
        if (radix is < 2 or > 36 || digits.Length is 0 or > 4300)
            return null;
        var value = BigInteger.Zero;
        var separable = afterPrefix;
        foreach (var c in digits)
        {
            if (c == '_')
            {
                if (!separable)
                    return null;
                separable = false;
                continue;
            }
            var digit = char.IsAsciiLetter(c) ? char.ToLowerInvariant(c) - 'a' + 10 : char.IsDigit(c) ? CharUnicodeInfo.GetDecimalDigitValue(c) : 99;
            if (digit >= radix)
                return null;
            value = Checked(value * radix + digit);
            separable = true;
        }
        return separable ? negative ? -value : value : null;
    }

    /// <summary>Python's float(text); null where it would raise ValueError.</summary>
    public static double? ParseFloat(string text)
    {
        text = JinjaText.Strip(text, null, true, true).ToLowerInvariant();
        var body = text.TrimStart('+', '-');
        if (text.Length - body.Length > 1 || body.Length == 0)
            return null;
        var sign = text[0] == '-' ? -1.0 : 1.0;
        if (body is "inf" or "infinity")
            return sign * double.PositiveInfinity;
        if (body == "nan")
            return double.NaN;
        for (var i = 0; i < body.Length; i++)
            if (body[i] == '_' && (i == 0 || i + 1 == body.Length || !char.IsAsciiDigit(body[i - 1]) || !char.IsAsciiDigit(body[i + 1])))
                return null;
        return double.TryParse(body.Replace("_", "", StringComparison.Ordinal), NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out var value)
            ? sign * value : null;
    }

    /// <summary>An integer in another base, without prefix.</summary>
    public static string InBase(BigInteger value, int radix)
    {
        if (radix == 10)
            return value.ToString(CultureInfo.InvariantCulture);
        var size = BigInteger.Abs(value);
        var digits = new StringBuilder();
        do
        {
            digits.Insert(0, "0123456789abcdef"[(int)(size % radix)]);
            size /= radix;
        }
        while (!size.IsZero);
        return value.Sign < 0 ? "-" + digits : digits.ToString();
    }
}
