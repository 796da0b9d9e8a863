using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>The methods of Python's str.</summary>
internal static class JinjaStrings
{
    public static object? Call(JinjaRun run, string self, string name, JinjaArguments arguments)
    {
        run.Spend(self.Length / 16);
        switch (name)
        {
            case "format":
                return JinjaFormat.Braces(run, self, arguments);
            case "strip" or "lstrip" or "rstrip":
                return Strip(self, arguments.Bind(name, 0, "chars")[0], name != "rstrip", name != "lstrip");
            case "startswith" or "endswith":
                return Affix(run, self, name, arguments);
            case "find" or "index" or "rfind" or "rindex" or "count":
                return Search(self, name, arguments);
            case "split" or "rsplit":
                var split = arguments.Bind(name, 0, "sep", "maxsplit");
                return Strings(run, Split(self, JinjaRun.Or(split[0], null), JinjaRun.Int(split[1], -1), name == "rsplit"));
            case "splitlines":
                return Strings(run, JinjaText.Lines(self, JinjaRun.Bool(arguments.Bind(name, 0, "keepends")[0], false)));
            case "partition" or "rpartition":
                var separator = Str(arguments.Bind(name, 1, "sep")[0], name);
                if (separator.Length == 0)
                    throw new JinjaError("ValueError: empty separator");
                var at = name == "partition" ? self.IndexOf(separator, StringComparison.Ordinal) : self.LastIndexOf(separator, StringComparison.Ordinal);
                if (at < 0)
                    return new JinjaTuple(name == "partition" ? [self, "", ""] : ["", "", self]);
                return new JinjaTuple([self[..at], separator, self[(at + separator.Length)..]]);
            case "join":
                return Join(run, self, run.Iterate(arguments.Bind(name, 1, "iterable")[0]).Select((item, i) => JinjaValue.Text(item)
                    ?? throw new JinjaError($"TypeError: sequence item {i}: expected str instance, {JinjaValue.TypeName(item)} found")));
            case "replace":
                var replace = arguments.Bind(name, 2, "old", "new", "count");
                return Replace(run, self, Str(replace[0], name), Str(replace[1], name), JinjaRun.Int(replace[2], -1));
            case "removeprefix":
                return Str(arguments.Bind(name, 1, "prefix")[0], name) is var prefix && self.StartsWith(prefix, StringComparison.Ordinal) ? self[prefix.Length..] : self;
            case "removesuffix":
                return Str(arguments.Bind(name, 1, "suffix")[0], name) is var suffix && self.EndsWith(suffix, StringComparison.Ordinal) ? self[..^suffix.Length] : self;
            case "center" or "ljust" or "rjust":
                var pad = arguments.Bind(name, 1, "width", "fillchar");
                return Pad(run, self, name, JinjaRun.Int(pad[0]), Str(JinjaRun.Or(pad[1], " "), name));
            case "zfill":
                var width = JinjaRun.Int(arguments.Bind(name, 1, "width")[0]) - JinjaText.Length(self);
                if (width <= 0)
                    return self;
                run.Produce(self.Length + (long)width);
                return self.StartsWith('-') || self.StartsWith('+') ? self[0] + new string('0', width) + self[1..] : new string('0', width) + self;
            case "expandtabs":
                return ExpandTabs(run, self, JinjaRun.Int(arguments.Bind(name, 0, "tabsize")[0], 8));
            case "encode" or "format_map" or "maketrans" or "translate":
                throw new JinjaError($"the string method '{name}' is not supported in chat templates");
        }
        arguments.Bind(name, 0);
        return name switch
        {
            "upper" => JinjaText.Upper(self),
            "lower" => JinjaText.Lower(self),
            "casefold" => JinjaText.Lower(self).Replace("ß", "ss", StringComparison.Ordinal).Replace('ς', 'σ'),
            "capitalize" => JinjaText.Capitalize(self),
            "title" => JinjaText.Title(self),
            "swapcase" => JinjaText.SwapCase(self),
            "islower" => JinjaText.IsCase(self, upper: false),
            "isupper" => JinjaText.IsCase(self, upper: true),
            "istitle" => JinjaText.IsTitle(self),
            "isspace" => self.Length > 0 && self.All(JinjaText.IsSpace),
            "isascii" => System.Text.Ascii.IsValid(self),
            "isalpha" => JinjaText.All(self, Rune.IsLetter),
            "isdecimal" => JinjaText.All(self, r => Rune.GetUnicodeCategory(r) == UnicodeCategory.DecimalDigitNumber),
            "isdigit" => JinjaText.All(self, r => CharUnicodeInfo.GetDigitValue(r.ToString(), 0) >= 0),
            "isnumeric" => JinjaText.All(self, IsNumeric),
            "isalnum" => JinjaText.All(self, r => Rune.IsLetter(r) || IsNumeric(r)),
            "isprintable" => self.EnumerateRunes().All(r => JinjaText.IsPrintable(r.Value)),
            _ => IsIdentifier(self),
        };
    }

    private static bool IsNumeric(Rune rune) => CharUnicodeInfo.GetNumericValue(rune.ToString(), 0) >= 0;

    private static bool IsIdentifier(string text) =>
        text.Length > 0 && !char.IsAsciiDigit(text[0]) && text.EnumerateRunes().All(r => r.Value == '_' || Rune.IsLetterOrDigit(r));

    private static string Str(object? value, string method) => JinjaValue.Text(value)
        ?? throw (value as JinjaUndefined)?.Error ?? new JinjaError($"TypeError: {method}() argument must be str, not {JinjaValue.TypeName(value)}");

    private static List<object?> Strings(JinjaRun run, List<string> parts)
    {
        run.Spend(parts.Count + parts.Sum(p => (long)p.Length) / 4);
        return parts.ConvertAll<object?>(p => p);
    }

    public static string Strip(string self, object? set, bool left = true, bool right = true) =>
        JinjaText.Strip(self, ReferenceEquals(set, JinjaArguments.Missing) || set is null ? null : Str(set, "strip"), left, right);

    /// <summary>Concatenates what an iterable gives, with a separator between.</summary>
    public static string Join(JinjaRun run, string separator, IEnumerable<string> parts)
    {
        var output = new StringBuilder();
        var first = true;
        foreach (var part in parts)
        {
            if (output.Length + (long)separator.Length + part.Length > run.Options.MaxOutput)
                run.Produce(long.MaxValue);
            if (!first)
                output.Append(separator);
            first = false;
            output.Append(part);
        }
        return run.Produced(output.ToString());
    }

    public static string Replace(JinjaRun run, string self, string old, string replacement, int count)
    {
        if (count < 0)
            count = int.MaxValue;
        var output = new StringBuilder();
        var at = 0;
        void Put(ReadOnlySpan<char> part)
        {
            if ((long)output.Length + part.Length > run.Options.MaxOutput)
                run.Produce(long.MaxValue);
            output.Append(part);
        }
        if (old.Length == 0)
        {
            // Python puts the replacement before each code point and at the end.
            for (; count > 0 && at <= self.Length; count--)
            {
                Put(replacement);
                if (at == self.Length)
                    return run.Produced(output.ToString());
                var width = JinjaText.Width(self, at);
                Put(self.AsSpan(at, width));
                at += width;
            }
        }
        else
            for (int found; count > 0 && (found = self.IndexOf(old, at, StringComparison.Ordinal)) >= 0; count--, at = found + old.Length)
            {
                Put(self.AsSpan(at, found - at));
                Put(replacement);
            }
        Put(self.AsSpan(at));
        return run.Produced(output.ToString());
    }

    private static List<string> Split(string self, object? separator, int count, bool fromRight)
    {
        if (count < 0)
            count = int.MaxValue;
        var parts = new List<string>();
        if (separator is null)
        {
            int start = 0, end = self.Length;
            while (true)
            {
                if (fromRight)
                    while (end > start && JinjaText.IsSpace(self[end - 1]))
                        end--;
                else
                    while (start < end && JinjaText.IsSpace(self[start]))
                        start++;
                if (start == end)
                    break;
                if (parts.Count == count)
                {
                    parts.Add(self[start..end]);
                    break;
                }
                var edge = fromRight ? end : start;
                if (fromRight)
                    while (edge > start && !JinjaText.IsSpace(self[edge - 1]))
                        edge--;
                else
                    while (edge < end && !JinjaText.IsSpace(self[edge]))
                        edge++;
                parts.Add(fromRight ? self[edge..end] : self[start..edge]);
                if (fromRight)
                    end = edge;
                else
                    start = edge;
            }
        }
        else
        {
            var mark = Str(separator, "split");
            if (mark.Length == 0)
                throw new JinjaError("ValueError: empty separator");
            int start = 0, end = self.Length;
            while (parts.Count < count)
            {
                var at = fromRight ? self.AsSpan(start, end - start).LastIndexOf(mark) : self.IndexOf(mark, start, StringComparison.Ordinal);
                if (at < 0)
                    break;
                parts.Add(fromRight ? self[(at + mark.Length)..end] : self[start..at]);
                if (fromRight)
                    end = at;
                else
                    start = at + mark.Length;
            }
            parts.Add(self[start..end]);
        }
        if (fromRight)
            parts.Reverse();
        return parts;
    }

    private static bool Affix(JinjaRun run, string self, string name, JinjaArguments arguments)
    {
        var values = arguments.Bind(name, 1, "affix", "start", "end");
        var part = Part(self, values[1], values[2], out _);
        var affixes = values[0] is JinjaTuple tuple ? run.Iterate(tuple) : [values[0]];
        return part is not null && affixes.Select(a => Str(a, name)).Any(a => name == "startswith" ? part.StartsWith(a, StringComparison.Ordinal) : part.EndsWith(a, StringComparison.Ordinal));
    }

    /// <summary>self[start:end] by code points, null where start lies beyond the text, and the char position of its start.</summary>
    private static string? Part(string self, object? start, object? end, out int position)
    {
        position = 0;
        start = JinjaRun.Or(start, null);
        end = JinjaRun.Or(end, null);
        if (start is null && end is null)
            return self;
        var length = JinjaText.Length(self);
        int Bound(object? bound, int missing) => bound is null ? missing : JinjaRun.Int(bound) is var i && i < 0 ? Math.Max(0, i + length) : i;
        int from = Bound(start, 0), to = Math.Min(Bound(end, length), length);
        if (from > to)
            return null;
        position = JinjaText.Position(self, from);
        return self[position..JinjaText.Position(self, to)];
    }

    private static object Search(string self, string name, JinjaArguments arguments)
    {
        var values = arguments.Bind(name, 1, "sub", "start", "end");
        var sub = Str(values[0], name);
        var part = Part(self, values[1], values[2], out var position);
        if (name == "count")
        {
            var count = part is null ? 0 : sub.Length == 0 ? JinjaText.Length(part) + 1 : 0;
            if (part is not null && sub.Length > 0)
                for (var i = part.IndexOf(sub, StringComparison.Ordinal); i >= 0; i = part.IndexOf(sub, i + sub.Length, StringComparison.Ordinal))
                    count++;
            return (BigInteger)count;
        }
        var at = part is null ? -1 : name[0] == 'r' ? part.LastIndexOf(sub, StringComparison.Ordinal) : part.IndexOf(sub, StringComparison.Ordinal);
        if (at < 0 && name.EndsWith("index", StringComparison.Ordinal))
            throw new JinjaError("ValueError: substring not found");
        return (BigInteger)(at < 0 ? -1 : JinjaText.Index(self, position + at));
    }

    private static string Pad(JinjaRun run, string self, string name, int width, string fill)
    {
        if (JinjaText.Length(fill) != 1)
            throw new JinjaError("TypeError: The fill character must be exactly one character long");
        var missing = width - JinjaText.Length(self);
        if (missing <= 0)
            return self;
        run.Produce(self.Length + 2L * missing);
        // As CPython centres: the odd blank goes left if the width is odd.
        var left = name switch { "ljust" => 0, "rjust" => missing, _ => missing / 2 + (missing & width & 1) };
        return string.Concat(Enumerable.Repeat(fill, left)) + self + string.Concat(Enumerable.Repeat(fill, missing - left));
    }

    public static string Center(JinjaRun run, string self, int width) => Pad(run, self, "center", width, " ");

    private static string ExpandTabs(JinjaRun run, string self, int size)
    {
        var output = new StringBuilder();
        var column = 0;
        foreach (var c in self)
        {
            if (c == '\t')
            {
                var blanks = size > 0 ? size - column % size : 0;
                run.Produce(output.Length + (long)blanks);
                output.Append(' ', blanks);
                column += blanks;
                continue;
            }
            output.Append(c);
            column = c is '\n' or '\r' ? 0 : column + (char.IsLowSurrogate(c) ? 0 : 1);
        }
        return run.Produced(output.ToString());
    }
}
