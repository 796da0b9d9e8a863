using System.Collections.Frozen;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>The filters of "x | …", Jinja's own with transformers' tojson; those on text are in the other part.</summary>
internal static partial class JinjaFilters
{
    private delegate object? Filter(JinjaRun run, object? value, JinjaArguments arguments);

    private static readonly FrozenDictionary<string, Filter> All = new Dictionary<string, Filter>
    {
        ["abs"] = Abs, ["attr"] = Attr, ["batch"] = Batch, ["capitalize"] = Plain("capitalize", JinjaText.Capitalize), ["center"] = Center, ["count"] = Length,
        ["d"] = Default, ["default"] = Default, ["dictsort"] = DictSort, ["e"] = Escape, ["escape"] = Escape, ["filesizeformat"] = FileSize, ["first"] = First,
        ["float"] = Float, ["forceescape"] = ForceEscape, ["format"] = Format, ["groupby"] = GroupBy, ["indent"] = Indent, ["int"] = Int, ["items"] = Items,
        ["join"] = Join, ["last"] = Last, ["length"] = Length, ["list"] = List, ["lower"] = Plain("lower", JinjaText.Lower), ["map"] = Map,
        ["max"] = (run, value, a) => Extreme(run, value, a, "max"), ["min"] = (run, value, a) => Extreme(run, value, a, "min"), ["pprint"] = PrettyPrint,
        ["random"] = Random, ["reject"] = (run, value, a) => Select(run, value, a, keep: false, byAttribute: false),
        ["rejectattr"] = (run, value, a) => Select(run, value, a, keep: false, byAttribute: true), ["replace"] = Replace, ["reverse"] = Reverse, ["round"] = Round,
        ["safe"] = Safe, ["select"] = (run, value, a) => Select(run, value, a, keep: true, byAttribute: false),
        ["selectattr"] = (run, value, a) => Select(run, value, a, keep: true, byAttribute: true), ["slice"] = Slice, ["sort"] = Sort, ["string"] = String,
        ["striptags"] = StripTags, ["sum"] = Sum, ["title"] = Plain("title", Title), ["tojson"] = JinjaJson.Write, ["trim"] = Trim, ["truncate"] = Truncate,
        ["unique"] = Unique, ["upper"] = Plain("upper", JinjaText.Upper), ["urlencode"] = UrlEncode, ["wordcount"] = WordCount, ["wordwrap"] = WordWrap,
        ["xmlattr"] = XmlAttributes,
    }.ToFrozenDictionary();

    public static bool Exists(string name) => All.ContainsKey(name);

    public static object? Apply(JinjaRun run, string name, object? value, JinjaArguments arguments) =>
        All.TryGetValue(name, out var filter) ? filter(run, value, arguments) : throw new JinjaError($"TemplateRuntimeError: No filter named '{name}'.");

    private static readonly object Absent = JinjaArguments.Missing;

    private static JinjaError ArgumentError(string message) => new("FilterArgumentError: " + message);

    private static object Abs(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("abs", 0);
        return value switch
        {
            double d => Math.Abs(d),
            bool or BigInteger => BigInteger.Abs(JinjaNumbers.Integer(value)!.Value),
            JinjaUndefined undefined => throw undefined.Error,
            _ => throw new JinjaError($"TypeError: bad operand type for abs(): '{JinjaValue.TypeName(value)}'"),
        };
    }

    private static object? Attr(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var name = run.Str(arguments.Bind("attr", 1, "name")[0]);
        if (value is JinjaUndefined undefined)
            throw undefined.Error;
        return JinjaMethods.TryGetAttribute(value, name, out var attribute) ? attribute : JinjaUndefined.Member(value, name);
    }

    private static object Length(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("length", 0);
        return (BigInteger)JinjaValue.Length(value);
    }

    private static object? Default(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("default", 0, "default_value", "boolean");
        return value is JinjaUndefined || JinjaRun.Bool(bound[1], false) && !JinjaValue.IsTrue(value) ? JinjaRun.Or(bound[0], "") : value;
    }

    private static JinjaIterator Items(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("items", 0);
        return value switch
        {
            JinjaUndefined => new JinjaIterator([]),
            JinjaDict dict => new JinjaIterator(run.Iterate(new JinjaView(dict, "items"))),
            _ => throw new JinjaError("TypeError: Can only get item pairs from a mapping."),
        };
    }

    private static List<object?> List(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("list", 0);
        return run.List(value);
    }

    private static object? First(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("first", 0);
        foreach (var item in run.Iterate(value))
            return item;
        return new JinjaUndefined("UndefinedError: No first item, sequence was empty.");
    }

    private static object? Last(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("last", 0);
        if (value is JinjaUndefined)
            return new JinjaUndefined("UndefinedError: No last item, sequence was empty.");
        var reversed = run.Reversed(value) ?? throw new JinjaError($"TypeError: '{JinjaValue.TypeName(value)}' object is not reversible");
        return reversed.Count > 0 ? reversed[0] : new JinjaUndefined("UndefinedError: No last item, sequence was empty.");
    }

    private static object? Random(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("random", 0);
        var items = run.List(value);
        return items.Count > 0 ? items[System.Random.Shared.Next(items.Count)] : new JinjaUndefined("UndefinedError: No random item, sequence was empty.");
    }

    private static object Reverse(JinjaRun run, object? value, JinjaArguments arguments)
    {
        arguments.Bind("reverse", 0);
        if (JinjaValue.Text(value) is { } text)
            return string.Concat(JinjaText.Characters(text).Reverse());
        if (run.Reversed(value) is { } reversed)
            return new JinjaIterator(reversed, value is List<object?> ? "list_reverseiterator" : "reversed");
        var list = JinjaRun.IsIterable(value) ? run.List(value) : throw ArgumentError("argument must be iterable");
        list.Reverse();
        return list;
    }

    private static JinjaIterator Batch(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("batch", 1, "linecount", "fill_with");
        var fill = JinjaRun.Or(bound[1], null);
        return new JinjaIterator(Batches());

        IEnumerable<object?> Batches()
        {
            var batch = new List<object?>();
            foreach (var item in run.Iterate(value))
            {
                if (run.Equal((BigInteger)batch.Count, bound[0]))
                {
                    yield return batch;
                    batch = [];
                }
                batch.Add(item);
            }
            if (batch.Count == 0)
                yield break;
            if (fill is not null && JinjaRun.Int(bound[0]) - batch.Count is var missing and > 0)
            {
                run.Spend(missing);
                batch.AddRange(Enumerable.Repeat(fill, missing));
            }
            yield return batch;
        }
    }

    private static JinjaIterator Slice(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("slice", 1, "slices", "fill_with");
        var fill = JinjaRun.Or(bound[1], null);
        return new JinjaIterator(Slices());

        IEnumerable<object?> Slices()
        {
            var items = run.List(value);
            var count = JinjaRun.Int(bound[0]);
            if (count == 0)
                throw new JinjaError("ZeroDivisionError: integer division or modulo by zero");
            for (int i = 0, start = 0; i < count; i++)
            {
                run.CountIteration();
                var size = items.Count / count + (i < items.Count % count ? 1 : 0);
                var slice = items.GetRange(start, size);
                start += size;
                if (fill is not null && i >= items.Count % count)
                    slice.Add(fill);
                yield return slice;
            }
        }
    }

    /// <summary>What an attribute path such as "a.b.0" finds in an item; no path gives the item itself.</summary>
    private static Func<object?, object?> Getter(JinjaRun run, object? path, object? fallback = null, bool ignoreCase = false)
    {
        object?[] steps = ReferenceEquals(path, Absent) || path is null ? []
            : JinjaValue.Text(path) is { } text
                ? text.Split('.').Select(p => p.Length is > 0 and < 10 && p.All(char.IsAsciiDigit) ? (object?)BigInteger.Parse(p, CultureInfo.InvariantCulture) : p).ToArray()
                : [path];
        return item =>
        {
            foreach (var step in steps)
            {
                item = run.Item(item, step);
                if (fallback is not null && item is JinjaUndefined)
                    item = fallback;
            }
            return ignoreCase && JinjaValue.Text(item) is { } name ? JinjaText.Lower(name) : item;
        };
    }

    private static JinjaIterator Map(JinjaRun run, object? value, JinjaArguments arguments)
    {
        if (arguments.Positional.Length > 0)
        {
            var name = run.Str(arguments.Positional[0]);
            var rest = arguments.Skip(1);
            return new JinjaIterator(Lazy(item => Apply(run, name, item, rest)));
        }
        if (arguments.Named.Count == 0 || !arguments.Named.Any(n => n.Key == "attribute"))
            throw ArgumentError("map requires a filter argument");
        var bound = arguments.Bind("map", 1, "attribute", "default");
        return new JinjaIterator(Lazy(Getter(run, bound[0], JinjaRun.Or(bound[1], null))));

        IEnumerable<object?> Lazy(Func<object?, object?> function)
        {
            if (JinjaValue.IsTrue(value))
                foreach (var item in run.Iterate(value))
                    yield return function(item);
        }
    }

    private static JinjaIterator Select(JinjaRun run, object? value, JinjaArguments arguments, bool keep, bool byAttribute)
    {
        return new JinjaIterator(Lazy());

        IEnumerable<object?> Lazy()
        {
            if (!JinjaValue.IsTrue(value))
                yield break;
            var offset = byAttribute ? 1 : 0;
            if (arguments.Positional.Length < offset)
                throw ArgumentError("Missing parameter for attribute name");
            var getter = byAttribute ? Getter(run, arguments.Positional[0]) : item => item;
            var test = arguments.Positional.Length > offset ? run.Str(arguments.Positional[offset]) : null;
            var rest = arguments.Skip(offset + 1);
            foreach (var item in run.Iterate(value))
            {
                var subject = getter(item);
                if ((test is null ? JinjaValue.IsTrue(subject) : JinjaTests.Apply(run, test, subject, rest)) == keep)
                    yield return item;
            }
        }
    }

    private static JinjaIterator Unique(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("unique", 0, "case_sensitive", "attribute");
        var getter = Getter(run, bound[1], ignoreCase: !JinjaRun.Bool(bound[0], false));
        return new JinjaIterator(Lazy());

        IEnumerable<object?> Lazy()
        {
            var seen = new JinjaDict();
            foreach (var item in run.Iterate(value))
                if (getter(item) is var key && !seen.TryGet(key, out _))
                {
                    seen[key] = true;
                    yield return item;
                }
        }
    }

    private static object? Extreme(JinjaRun run, object? value, JinjaArguments arguments, string name)
    {
        var bound = arguments.Bind(name, 0, "case_sensitive", "attribute");
        var getter = Getter(run, bound[1], ignoreCase: !JinjaRun.Bool(bound[0], false));
        object? best = Absent, bestKey = null;
        foreach (var item in run.Iterate(value))
        {
            var key = getter(item);
            if (ReferenceEquals(best, Absent) || (name == "min" ? run.Less(key, bestKey) : run.Compare(key, bestKey, ">") > 0))
                (best, bestKey) = (item, key);
        }
        return ReferenceEquals(best, Absent) ? new JinjaUndefined("UndefinedError: No aggregated item, sequence was empty.") : best;
    }

    private static object? Sum(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("sum", 0, "attribute", "start");
        var getter = Getter(run, bound[0]);
        var total = JinjaRun.Or(bound[1], BigInteger.Zero);
        if (JinjaValue.Text(total) is not null)
            throw new JinjaError("TypeError: sum() can't sum strings [use ''.join(seq) instead]");
        foreach (var item in run.Iterate(value))
            total = JinjaOperators.Apply(run, "+", total, getter(item));
        return total;
    }

    /// <summary>A stable merge sort by Python's &lt;, which may raise an error for any pair.</summary>
    public static List<T> Sorted<T>(JinjaRun run, List<T> items, Func<T, object?> key, bool reverse)
    {
        var source = items.ConvertAll(item => (Key: key(item), Item: item)).ToArray();
        var target = new (object? Key, T Item)[source.Length];
        for (var width = 1; width < source.Length; width *= 2)
        {
            for (var start = 0; start < source.Length; start += 2 * width)
            {
                int left = start, middle = Math.Min(start + width, source.Length), right = middle, end = Math.Min(start + 2 * width, source.Length);
                for (var i = start; i < end; i++)
                {
                    var takeRight = left >= middle || right < end
                        && (reverse ? run.Less(source[left].Key, source[right].Key) : run.Less(source[right].Key, source[left].Key));
                    target[i] = takeRight ? source[right++] : source[left++];
                }
            }
            (source, target) = (target, source);
        }
        return source.Select(s => s.Item).ToList();
    }

    private static List<object?> Sort(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("sort", 0, "reverse", "case_sensitive", "attribute");
        var ignoreCase = !JinjaRun.Bool(bound[1], false);
        var attribute = JinjaRun.Or(bound[2], null);
        var getters = JinjaValue.Text(attribute) is { } names
            ? names.Split(',').Select(name => Getter(run, name, ignoreCase: ignoreCase)).ToArray()
            : [Getter(run, attribute, ignoreCase: ignoreCase)];
        return Sorted(run, run.List(value), item => new JinjaTuple(getters.Select(g => g(item)).ToArray()), JinjaRun.Bool(bound[0], false));
    }

    private static List<object?> DictSort(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("dictsort", 0, "case_sensitive", "by", "reverse");
        var ignoreCase = !JinjaRun.Bool(bound[0], false);
        var by = JinjaRun.Or(bound[1], "key") switch { "key" => 0, "value" => 1, _ => throw ArgumentError("You can only sort by either \"key\" or \"value\"") };
        if (value is not JinjaDict dict)
            throw (value as JinjaUndefined)?.Error ?? JinjaUndefined.Member(value, "items").Error;
        return Sorted(run, run.List(new JinjaView(dict, "items")), item => ((JinjaTuple)item!).Items[by] is var part && ignoreCase && JinjaValue.Text(part) is { } text ? JinjaText.Lower(text) : part,
            JinjaRun.Bool(bound[2], false));
    }

    private static List<object?> GroupBy(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("groupby", 1, "attribute", "default", "case_sensitive");
        var fallback = JinjaRun.Or(bound[1], null);
        var getter = Getter(run, bound[0], fallback, ignoreCase: !JinjaRun.Bool(bound[2], false));
        var real = Getter(run, bound[0], fallback);
        var groups = new List<object?>();
        List<object?>? group = null;
        object? current = null;
        foreach (var item in Sorted(run, run.List(value), getter, reverse: false))
        {
            var key = getter(item);
            if (group is null || !run.Equal(key, current))
            {
                group = [];
                current = key;
                groups.Add(new JinjaTuple([real(item), group], group: true));
            }
            group.Add(item);
        }
        return groups;
    }

    private static object Round(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("round", 0, "precision", "method");
        var places = JinjaRun.Int(bound[0], 0);
        var method = JinjaRun.Or(bound[1], "common");
        if (method is not ("common" or "ceil" or "floor"))
            throw ArgumentError("method must be common, ceil or floor");
        if (value is JinjaUndefined undefined)
            throw undefined.Error;
        if (method is "common")
            return JinjaNumbers.Round(value, places);
        var unit = JinjaOperators.Apply(run, "**", (BigInteger)10, (BigInteger)places);
        var scaled = JinjaOperators.Apply(run, "*", value, unit);
        var whole = scaled is double d
            ? double.IsFinite(d) ? new BigInteger(method is "ceil" ? Math.Ceiling(d) : Math.Floor(d)) : throw new JinjaError("OverflowError: cannot convert float infinity to integer")
            : JinjaNumbers.Integer(scaled) ?? throw new JinjaError($"TypeError: must be real number, not {JinjaValue.TypeName(scaled)}");
        return JinjaOperators.Apply(run, "/", whole, unit)!;
    }

    private static object? Int(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var bound = arguments.Bind("int", 0, "default", "base");
        if (value is JinjaUndefined undefined)
            throw undefined.Error;
        if (JinjaNumbers.Integer(value) is { } integer)
            return integer;
        var number = value as double?;
        if (JinjaValue.Text(value) is { } text)
        {
            if (JinjaNumbers.ParseInteger(text, JinjaRun.Int(bound[1], 10)) is { } parsed)
                return parsed;
            number = JinjaNumbers.ParseFloat(text);
        }
        return number is { } d && double.IsFinite(d) ? new BigInteger(d) : JinjaRun.Or(bound[0], BigInteger.Zero);
    }

    private static object? Float(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var fallback = JinjaRun.Or(arguments.Bind("float", 0, "default")[0], 0.0);
        if (value is JinjaUndefined undefined)
            throw undefined.Error;
        return JinjaNumbers.Float(value) ?? (JinjaValue.Text(value) is { } text ? JinjaNumbers.ParseFloat(text) : null) ?? fallback;
    }
}
