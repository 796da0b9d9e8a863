using System.Collections.Frozen;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>The functions that every chat template may call: Jinja's own, and transformers' raise_exception and strftime_now.</summary>
internal static class JinjaGlobals
{
    private static readonly FrozenDictionary<string, JinjaFunction> All = new JinjaFunction[]
    {
        new("range", (_, arguments) => Range(arguments)),
        new("dict", Dict),
        new("namespace", Namespace),
        new("cycler", (_, arguments) => arguments.Positional.Length > 0 ? new JinjaCycler(arguments.Positional)
            : throw new JinjaError("RuntimeError: at least one item has to be provided")),
        new("joiner", Joiner),
        new("raise_exception", (run, arguments) => throw new JinjaError(run.Str(arguments.Bind("raise_exception", 1, "message")[0]), raised: true)),
        new("strftime_now", (run, arguments) => run.Produced(Time(run.Options.Clock.GetLocalNow(), run.Str(arguments.Bind("strftime_now", 1, "format")[0])))),
    }.ToFrozenDictionary(f => f.Name);

    public static bool TryGet(string name, out object? function)
    {
        var found = All.TryGetValue(name, out var known);
        function = known;
        return found;
    }

    private static JinjaRange Range(JinjaArguments arguments)
    {
        if (arguments.Named.Count > 0)
            throw new JinjaError("TypeError: range() takes no keyword arguments");
        var values = arguments.Positional.Select(v => JinjaNumbers.Integer(v)
            ?? throw (v as JinjaUndefined)?.Error ?? new JinjaError($"TypeError: '{JinjaValue.TypeName(v)}' object cannot be interpreted as an integer")).ToArray();
        return values.Length switch
        {
            1 => new JinjaRange(0, values[0], 1),
            2 => new JinjaRange(values[0], values[1], 1),
            3 => new JinjaRange(values[0], values[1], values[2]),
            _ => throw new JinjaError($"TypeError: range expected from 1 to 3 arguments, got {values.Length}"),
        };
    }

    private static JinjaDict Dict(JinjaRun run, JinjaArguments arguments)
    {
        var dict = new JinjaDict();
        if (arguments.Positional.Length > 1)
            throw new JinjaError($"TypeError: dict expected at most 1 argument, got {arguments.Positional.Length}");
        foreach (var source in arguments.Positional)
            if (source is JinjaDict other)
                for (var i = 0; i < other.Count; i++)
                {
                    run.CountIteration();
                    dict[other.At(i).Key] = other.At(i).Value;
                }
            else
                foreach (var pair in run.Iterate(source))
                {
                    var parts = run.List(pair);
                    if (parts.Count != 2)
                        throw new JinjaError($"ValueError: dictionary update sequence element has length {parts.Count}; 2 is required");
                    dict[parts[0]] = parts[1];
                }
        foreach (var (name, value) in arguments.Named)
            dict[name] = value;
        return dict;
    }

    private static JinjaNamespace Namespace(JinjaRun run, JinjaArguments arguments)
    {
        var space = new JinjaNamespace();
        var dict = Dict(run, arguments);
        for (var i = 0; i < dict.Count; i++)
            space.Attributes[run.Str(dict.At(i).Key)] = dict.At(i).Value;
        return space;
    }

    private static JinjaFunction Joiner(JinjaRun run, JinjaArguments arguments)
    {
        var separator = JinjaRun.Or(arguments.Bind("joiner", 0, "sep")[0], ", ");
        var used = false;
        return new JinjaFunction("joiner", (_, none) =>
        {
            none.Bind("joiner", 0);
            var first = !used;
            used = true;
            return first ? "" : separator;
        });
    }

    /// <summary>C's strftime in the C locale, with glibc's "-" (no padding).</summary>
    internal static string Time(DateTimeOffset now, string format)
    {
        var output = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                output.Append(format[i]);
                continue;
            }
            var flag = format[i + 1] is '-' or '_' or '0' or '^' && i + 2 < format.Length ? format[++i] : '\0';
            var text = Field(now, format[++i]) ?? $"%{(flag == '\0' ? "" : flag)}{format[i]}";
            output.Append(flag switch
            {
                '-' when text.Length > 0 && text.All(char.IsAsciiDigit) => text.TrimStart('0') is { Length: > 0 } digits ? digits : "0",
                '_' when text.Length > 0 && text.All(char.IsAsciiDigit) => text.TrimStart('0').PadLeft(text.Length),
                '^' => text.ToUpperInvariant(),
                _ => text,
            });
        }
        return output.ToString();
    }

    private static string? Field(DateTimeOffset now, char code)
    {
        string Of(string pattern) => now.ToString(pattern, CultureInfo.InvariantCulture);
        string Two(int number, char pad = '0') => number.ToString(CultureInfo.InvariantCulture).PadLeft(2, pad);
        var hour = now.Hour % 12 == 0 ? 12 : now.Hour % 12;
        return code switch
        {
            'a' => Of("ddd"),
            'A' => Of("dddd"),
            'b' or 'h' => Of("MMM"),
            'B' => Of("MMMM"),
            'c' => Of("ddd MMM ") + Two(now.Day, ' ') + Of(" HH:mm:ss yyyy"),
            'C' => Two(now.Year / 100),
            'd' => Of("dd"),
            'D' or 'x' => Of("MM'/'dd'/'yy"),
            'e' => Two(now.Day, ' '),
            'f' => Of("ffffff"),
            'F' => Of("yyyy-MM-dd"),
            'g' => Two(ISOWeek.GetYear(now.DateTime) % 100),
            'G' => ISOWeek.GetYear(now.DateTime).ToString("0000", CultureInfo.InvariantCulture),
            'H' => Of("HH"),
            'I' => Two(hour),
            'j' => now.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
            'k' => Two(now.Hour, ' '),
            'l' => Two(hour, ' '),
            'm' => Of("MM"),
            'M' => Of("mm"),
            'n' => "\n",
            'p' => now.Hour < 12 ? "AM" : "PM",
            'P' => now.Hour < 12 ? "am" : "pm",
            'r' => Two(hour) + Of(":mm:ss ") + (now.Hour < 12 ? "AM" : "PM"),
            'R' => Of("HH:mm"),
            's' => now.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture),
            'S' => Of("ss"),
            't' => "\t",
            'T' or 'X' => Of("HH:mm:ss"),
            'u' => (now.DayOfWeek == DayOfWeek.Sunday ? 7 : (int)now.DayOfWeek).ToString(CultureInfo.InvariantCulture),
            'U' => Two((now.DayOfYear + 6 - (int)now.DayOfWeek) / 7),
            'V' => Two(ISOWeek.GetWeekOfYear(now.DateTime)),
            'w' => ((int)now.DayOfWeek).ToString(CultureInfo.InvariantCulture),
            'W' => Two((now.DayOfYear + 6 - ((int)now.DayOfWeek + 6) % 7) / 7),
            'y' => Of("yy"),
            'Y' => now.Year.ToString(CultureInfo.InvariantCulture),
            // Python's datetime.now() knows no time zone.
            'z' or 'Z' => "",
            '%' => "%",
            _ => null,
        };
    }
}
