using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

internal static partial class JinjaFilters
{
    /// <summary>A filter without arguments on the text of any value.</summary>
    private static Filter Plain(string name, Func<string, string> function) => (run, value, arguments) =>
    {
        arguments.Bind(name, 0);
        var text = run.Produced(function(run.Str(value)));
        return value is JinjaMarkup ? new JinjaMarkup(text) : text;
    };

    /// <summary>Jinja's own title: after blanks, hyphens and opening brackets a capital, the rest small.</summary>
    private static string Title(string text)
    {
        var output = new StringBuilder(text.Length);
        for (int i = 0, start = 0; i <= text.Length; i++)
        {
            if (i < text.Length && !(text[i] is '-' or '(' or '{' or '[' or '<' || JinjaText.IsSpace(text[i])))
                continue;
            if (i > start)
            {
                var first = JinjaText.Width(text, start);
                output.Append(JinjaText.Upper(text.Substring(start, first))).Append(JinjaText.Lower(text[(start + first)..i]));
            }
            if (i < text.Length)
                output.Append(text[i]);
            start = i + 1;
        }
        return output.ToString();
    }

    private static object String(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("string", 0);
        return value is JinjaMarkup ? value : run.Str(value);
    }

    private static object Safe(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("safe", 0);
        return value as JinjaMarkup ?? new JinjaMarkup(run.Str(value));
    }

    private static object Escape(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("escape", 0);
        var escaped = JinjaMarkup.Escape(value, run);
        run.Produce(escaped.Text.Length);
        return escaped;
    }

    private static object ForceEscape(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("forceescape", 0);
        return new JinjaMarkup(run.Produced(JinjaMarkup.EscapeText(run.Str(value))));
    }

    private static object Center(JinjaRun run, object? value, JinjaArguments arguments) =>
        JinjaStrings.Center(run, run.Str(value), JinjaRun.Int(arguments.Bind("center", 0, "width")[0], 80));

    private static object Trim(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var text = JinjaStrings.Strip(run.Str(value), arguments.Bind("trim", 0, "chars")[0]);
        return value is JinjaMarkup ? new JinjaMarkup(text) : text;
    }

    private static object Join(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("join", 0, "d", "attribute");
        var getter = Getter(run, bound[1]);
        return JinjaStrings.Join(run, run.Str(JinjaRun.Or(bound[0], "")), run.Iterate(value).Select(item => run.Str(getter(item))));
    }

    private static object Replace(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("replace", 2, "old", "new", "count");
        return JinjaStrings.Replace(run, run.Str(value), run.Str(bound[0]), run.Str(bound[1]), JinjaRun.Or(bound[2], null) is null ? -1 : JinjaRun.Int(bound[2]));
    }

    private static object Format(JinjaRun run, object? value, JinjaArguments arguments)
    {
        if (arguments.Positional.Length > 0 && arguments.Named.Count > 0)
            throw ArgumentError("can't handle positional and keyword arguments at the same time");
        if (arguments.Named.Count == 0)
            return JinjaFormat.Percent(run, run.Str(value), new JinjaTuple(arguments.Positional));
        var named = new JinjaDict();
        foreach (var (key, argument) in arguments.Named)
            named[key] = argument;
        return JinjaFormat.Percent(run, run.Str(value), named);
    }

    private static object Indent(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("indent", 0, "width", "first", "blank");
        if (JinjaValue.Text(value) is not { } text)
            throw (value as JinjaUndefined)?.Error ?? new JinjaError($"TypeError: unsupported operand type(s) for +=: '{JinjaValue.TypeName(value)}' and 'str'");
        var width = JinjaRun.Or(bound[0], (BigInteger)4);
        run.Produce(JinjaValue.Text(width)?.Length ?? Math.Max(0, JinjaRun.Int(width)));
        var indention = JinjaValue.Text(width) ?? new string(' ', Math.Max(0, JinjaRun.Int(width)));
        var lines = JinjaText.Lines(text + "\n");
        run.Produce(text.Length + (long)lines.Count * (indention.Length + 1));
        var blank = JinjaRun.Bool(bound[2], false);
        var output = new StringBuilder(JinjaRun.Bool(bound[1], false) ? indention : "");
        for (var i = 0; i < lines.Count; i++)
            output.Append(i > 0 ? "\n" : "").Append(i > 0 && (blank || lines[i].Length > 0) ? indention : "").Append(lines[i]);
        return value is JinjaMarkup ? new JinjaMarkup(output.ToString()) : output.ToString();
    }

    private static object? Truncate(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("truncate", 0, "length", "killwords", "end", "leeway");
        var length = JinjaRun.Int(bound[0], 255);
        var end = run.Str(JinjaRun.Or(bound[2], "..."));
        var leeway = JinjaRun.Or(bound[3], null) is { } given ? JinjaRun.Int(given) : 5;
        var endLength = JinjaText.Length(end);
        if (length < endLength)
            throw new JinjaError($"AssertionError: expected length >= {endLength}, got {length}");
        if (leeway < 0)
            throw new JinjaError($"AssertionError: expected leeway >= 0, got {leeway}");
        var size = JinjaValue.Length(value);
        if (size <= (long)length + leeway)
            return value;
        var text = JinjaValue.Text(value) ?? throw new JinjaError($"TypeError: truncate expects a string, not {JinjaValue.TypeName(value)}");
        var cut = text[..JinjaText.Position(text, length - endLength)];
        if (!JinjaRun.Bool(bound[1], false) && cut.LastIndexOf(' ') is var blank and >= 0)
            cut = cut[..blank];
        return cut + end;
    }

    private static object WordCount(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("wordcount", 0);
        var count = 0;
        var inWord = false;
        foreach (var rune in run.Str(value).EnumerateRunes())
        {
            var word = rune.Value == '_' || Rune.IsLetterOrDigit(rune);
            count += word && !inWord ? 1 : 0;
            inWord = word;
        }
        return (BigInteger)count;
    }

    /// <summary>Lines of at most a width, broken at blanks, after hyphens, and within words that are longer.</summary>
    private static object WordWrap(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("wordwrap", 0, "width", "break_long_words", "wrapstring", "break_on_hyphens");
        var width = JinjaRun.Int(bound[0], 79);
        if (width <= 0)
            throw new JinjaError($"ValueError: invalid width {width} (must be > 0)");
        var breakLong = JinjaRun.Bool(bound[1], true);
        var newLine = JinjaRun.Or(bound[2], null) is { } wrap ? run.Str(wrap) : "\n";
        var hyphens = JinjaRun.Bool(bound[3], true);
        var text = JinjaValue.Text(value) ?? throw (value as JinjaUndefined)?.Error ?? new JinjaError($"AttributeError: '{JinjaValue.TypeName(value)}' object has no attribute 'splitlines'");
        var wrapped = JinjaText.Lines(text).SelectMany(line => WrapLine(line, width, breakLong, hyphens) is { Count: > 0 } lines ? lines : [""]);
        return JinjaStrings.Join(run, newLine, wrapped);
    }

    private static List<string> WrapLine(string text, int width, bool breakLong, bool hyphens)
    {
        var chunks = new List<string>();
        for (int i = 0, start = 0; i <= text.Length; i++)
        {
            var edge = i == text.Length || i > start && (char.IsWhiteSpace(text[i]) != char.IsWhiteSpace(text[i - 1])
                || hyphens && text[i - 1] == '-' && i - start > 2 && char.IsLetter(text[i - 2]) && char.IsLetter(text[i - 3]) && char.IsLetter(text[i]));
            if (!edge || i == start)
                continue;
            chunks.Add(text[start..i]);
            start = i;
        }
        var lines = new List<string>();
        var at = 0;
        while (at < chunks.Count)
        {
            if (lines.Count > 0 && string.IsNullOrWhiteSpace(chunks[at]))
                at++;
            var line = new List<string>();
            var length = 0;
            for (; at < chunks.Count && length + JinjaText.Length(chunks[at]) <= width; at++)
            {
                line.Add(chunks[at]);
                length += JinjaText.Length(chunks[at]);
            }
            if (at < chunks.Count && JinjaText.Length(chunks[at]) > width)
            {
                if (breakLong)
                {
                    var split = JinjaText.Position(chunks[at], Math.Max(1, width - length));
                    line.Add(chunks[at][..split]);
                    chunks[at] = chunks[at][split..];
                }
                else if (line.Count == 0)
                    line.Add(chunks[at++]);
            }
            if (line.Count > 0 && string.IsNullOrWhiteSpace(line[^1]))
                line.RemoveAt(line.Count - 1);
            if (line.Count > 0)
                lines.Add(string.Concat(line));
        }
        return lines;
    }

    private static object FileSize(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var binary = JinjaRun.Bool(arguments.Bind("filesizeformat", 0, "binary")[0], false);
        var bytes = JinjaNumbers.Float(value) ?? (JinjaValue.Text(value) is { } text ? JinjaNumbers.ParseFloat(text) : null)
            ?? throw new JinjaError("ValueError: filesizeformat expects a number");
        if (bytes == 1)
            return "1 Byte";
        double unit = binary ? 1024 : 1000, size = bytes;
        if (bytes < unit)
            return $"{Math.Truncate(bytes).ToString("F0", CultureInfo.InvariantCulture)} Bytes";
        var prefix = -1;
        while (size >= unit && prefix < 7)
        {
            size /= unit;
            prefix++;
        }
        return $"{JinjaNumbers.Fixed(size, 1)} {(binary ? "KMGTPEZY" : "kMGTPEZY")[prefix]}{(binary ? "iB" : "B")}";
    }

    private static object PrettyPrint(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("pprint", 0);
        return run.Repr(value);
    }

    private static object StripTags(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("striptags", 0);
        var text = run.Str(value);
        var output = new StringBuilder(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            var comment = string.CompareOrdinal(text, i, "<!--", 0, 4) == 0;
            var end = text[i] != '<' ? -1 : comment ? text.IndexOf("-->", i, StringComparison.Ordinal) : text.IndexOf('>', i);
            if (end < 0)
                output.Append(text[i]);
            else
                i = end + (comment ? 2 : 0);
        }
        var words = output.ToString().Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        return string.Join(' ', words).Replace("&lt;", "<", StringComparison.Ordinal).Replace("&gt;", ">", StringComparison.Ordinal)
            .Replace("&#34;", "\"", StringComparison.Ordinal).Replace("&quot;", "\"", StringComparison.Ordinal)
            .Replace("&#39;", "'", StringComparison.Ordinal).Replace("&amp;", "&", StringComparison.Ordinal);
    }

    private static object UrlEncode(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("urlencode", 0);
        if (value is JinjaDict dict)
            value = new JinjaView(dict, "items");
        if (JinjaValue.Text(value) is not null || !JinjaRun.IsIterable(value))
            return run.Produced(Quote(run.Str(value), query: false));
        return JinjaStrings.Join(run, "&", run.Iterate(value).Select(pair => run.List(pair) is { Count: 2 } parts
            ? Quote(run.Str(parts[0]), query: true) + "=" + Quote(run.Str(parts[1]), query: true) : throw new JinjaError("ValueError: urlencode expects pairs")));
    }

    private static string Quote(string text, bool query)
    {
        var output = new StringBuilder(text.Length);
        foreach (var b in Encoding.UTF8.GetBytes(text))
            if (char.IsAsciiLetterOrDigit((char)b) || "_.-~".Contains((char)b) || b == '/' && !query)
                output.Append((char)b);
            else if (b == ' ' && query)
                output.Append('+');
            else
                output.Append($"%{b:X2}");
        return output.ToString();
    }

    private static object XmlAttributes(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var space = JinjaRun.Bool(arguments.Bind("xmlattr", 0, "autospace")[0], true);
        if (value is not JinjaDict dict)
            throw (value as JinjaUndefined)?.Error ?? JinjaUndefined.Member(value, "items").Error;
        var parts = new List<string>();
        for (var i = 0; i < dict.Count; i++)
        {
            var (key, item) = dict.At(i);
            if (item is null or JinjaUndefined)
                continue;
            var name = run.Str(key);
            if (name.Any(c => c is '/' or '>' or '=' || char.IsWhiteSpace(c)))
                throw new JinjaError($"ValueError: Invalid character in attribute name: {JinjaValue.BriefRepr(name)}");
            parts.Add($"{JinjaMarkup.Escape(key, run).Text}=\"{JinjaMarkup.Escape(item, run).Text}\"");
        }
        return (space && parts.Count > 0 ? " " : "") + JinjaStrings.Join(run, " ", parts);
    }
}
