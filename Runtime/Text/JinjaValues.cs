using System.Diagnostics.CodeAnalysis;
using System.Numerics;

namespace Trimtab.Text;

// A template's values are plain objects: null (None), bool, BigInteger (int), double (float), string, List<object?> (list), and the
// classes of this file. Lists and dictionaries never change once made: the sandbox refuses Python's mutating methods.

/// <summary>A name, key or attribute that is not there. It prints as nothing and is false; most other uses are errors.</summary>
internal sealed class JinjaUndefined(string message)
{
    public JinjaError Error => new(message);

    public static JinjaUndefined Name(string name) => new($"UndefinedError: {Quoted(name)} is undefined");

    public static JinjaUndefined Member(object? owner, object? key) => new(key is string name
        ? $"UndefinedError: '{JinjaValue.Describe(owner)}' has no attribute {Quoted(name)}"
        : $"UndefinedError: {JinjaValue.Describe(owner)} has no element {JinjaValue.BriefRepr(key)}");

    public static JinjaUndefined Unsafe(object? owner, string name) =>
        new($"SecurityError: access to attribute {Quoted(name)} of '{JinjaValue.TypeName(owner)}' object is unsafe.");

    private static string Quoted(string name) => JinjaValue.BriefRepr(name);
}

/// <summary>A string marked as HTML (filters safe and escape): what is joined to it is escaped.</summary>
internal sealed class JinjaMarkup(string text)
{
    public string Text { get; } = text;

    public static JinjaMarkup Escape(object? value, JinjaRun run) => value as JinjaMarkup ?? new JinjaMarkup(EscapeText(run.Str(value)));

    public static string EscapeText(string text) => text.Replace("&", "&amp;", StringComparison.Ordinal).Replace(">", "&gt;", StringComparison.Ordinal)
        .Replace("<", "&lt;", StringComparison.Ordinal).Replace("'", "&#39;", StringComparison.Ordinal).Replace("\"", "&#34;", StringComparison.Ordinal);
}

/// <summary>A tuple; a group of the groupby filter also answers to "grouper" and "list".</summary>
internal sealed class JinjaTuple(object?[] items, bool group = false)
{
    public object?[] Items { get; } = items;

    public bool IsGroup { get; } = group;
}

/// <summary>A dictionary in insertion order, whose keys are equal as Python's are: 1 == 1.0 == True.</summary>
internal sealed class JinjaDict
{
    private static readonly object NoneKey = new();
    private readonly OrderedDictionary<object, object?> _items = new(new Keys());

    public int Count => _items.Count;

    public object? this[object? key]
    {
        set => _items[key ?? NoneKey] = value;
    }

    public bool TryGet(object? key, out object? value) => _items.TryGetValue(key ?? NoneKey, out value);

    public KeyValuePair<object?, object?> At(int index) => _items.GetAt(index) is var (key, value) && ReferenceEquals(key, NoneKey) ? new(null, value) : new(key, value);

    /// <summary>Equality and hash of keys; a nested tuple is compared with a small budget, since each lookup pays for it.</summary>
    private sealed class Keys : IEqualityComparer<object>
    {
        public new bool Equals(object? a, object? b)
        {
            var steps = 1000L;
            return ReferenceEquals(a, b) || !ReferenceEquals(a, NoneKey) && !ReferenceEquals(b, NoneKey) && JinjaValue.Equal(a, b, ref steps);
        }

        public int GetHashCode([DisallowNull] object key) => Hash(key, 2);

        private static int Hash(object? key, int depth)
        {
            switch (key)
            {
                case null: return 0;
                case string s: return s.GetHashCode();
                case JinjaMarkup m: return m.Text.GetHashCode();
                case double d: return double.IsInteger(d) ? new BigInteger(d).GetHashCode() : d.GetHashCode();
                case bool or BigInteger: return JinjaNumbers.Integer(key)!.Value.GetHashCode();
                case JinjaTuple t:
                    var hash = new HashCode();
                    hash.Add(t.Items.Length);
                    for (var i = 0; i < t.Items.Length && i < 16 && depth > 0; i++)
                        hash.Add(Hash(t.Items[i], depth - 1));
                    return hash.ToHashCode();
                case List<object?> or JinjaDict: throw new JinjaError($"TypeError: unhashable type: '{JinjaValue.TypeName(key)}'");
                case JinjaUndefined: return 1;
                default: return System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(key);
            }
        }
    }
}

/// <summary>What dict.keys(), .values() and .items() give: iterable again and again, not indexable.</summary>
internal sealed class JinjaView(JinjaDict dict, string kind)
{
    public JinjaDict Dict { get; } = dict;

    public string Kind { get; } = kind;

    public object? At(int i) => Dict.At(i) is var (key, value) && Kind == "keys" ? key : Kind == "values" ? value : new JinjaTuple([key, value]);
}

/// <summary>A range, of at most 100000 items as Jinja's sandbox allows.</summary>
internal sealed class JinjaRange
{
    private const int MaxCount = 100_000;

    public JinjaRange(BigInteger start, BigInteger stop, BigInteger step)
    {
        if (step.IsZero)
            throw new JinjaError("ValueError: range() arg 3 must not be zero");
        var count = step.Sign > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
        if (count > MaxCount)
            throw new JinjaError($"OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MaxCount}).");
        (Start, Stop, Step, Count) = (start, stop, step, count.Sign < 0 ? 0 : (int)count);
    }

    public BigInteger Start { get; }

    public BigInteger Stop { get; }

    public BigInteger Step { get; }

    public int Count { get; }

    public object At(int i) => Start + i * Step;
}

/// <summary>A lazy sequence that can be walked once: what map, select and their like give.</summary>
internal sealed class JinjaIterator(IEnumerable<object?> items, string type = "generator")
{
    private readonly IEnumerator<object?> _items = items.GetEnumerator();

    public string Type { get; } = type;

    public IEnumerable<object?> Rest()
    {
        while (_items.MoveNext())
            yield return _items.Current;
    }
}

/// <summary>The one object whose attributes a template may set.</summary>
internal sealed class JinjaNamespace
{
    public Dictionary<string, object?> Attributes { get; } = [];
}

/// <summary>Something that a template may call.</summary>
internal abstract class JinjaCallable(string name)
{
    public string Name { get; } = name;

    public abstract object? Call(JinjaRun run, JinjaArguments arguments);
}

internal sealed class JinjaFunction(string name, Func<JinjaRun, JinjaArguments, object?> body) : JinjaCallable(name)
{
    public override object? Call(JinjaRun run, JinjaArguments arguments) => body(run, arguments);
}

/// <summary>A method of a value: "text".strip.</summary>
internal sealed class JinjaMethod(object owner, string name) : JinjaCallable(name)
{
    public object Owner { get; } = owner;

    public override object? Call(JinjaRun run, JinjaArguments arguments) => JinjaMethods.Call(run, Owner, Name, arguments);
}

/// <summary>cycler(...): hands out its items in turn.</summary>
internal sealed class JinjaCycler(object?[] items)
{
    public int Position { get; set; }

    public object? Current => items[Position];

    public object? Next()
    {
        var item = Current;
        Position = (Position + 1) % items.Length;
        return item;
    }
}

/// <summary>The values of a call, and how they meet parameter names.</summary>
internal sealed class JinjaArguments(object?[] positional, IReadOnlyList<KeyValuePair<string, object?>>? named = null)
{
    /// <summary>Stands where no argument was given.</summary>
    public static readonly object Missing = new();

    public static readonly JinjaArguments None = new([]);

    public object?[] Positional { get; } = positional;

    public IReadOnlyList<KeyValuePair<string, object?>> Named { get; } = named ?? [];

    /// <summary>One value for each name, <see cref="Missing"/> where none was given; TypeError for what does not fit.</summary>
    public object?[] Bind(string function, int required, params ReadOnlySpan<string> names)
    {
        if (Positional.Length > names.Length)
            throw new JinjaError($"TypeError: {function}() takes at most {names.Length} arguments ({Positional.Length} given)");
        var values = new object?[names.Length];
        Array.Fill(values, Missing);
        Positional.CopyTo(values, 0);
        foreach (var (name, value) in Named)
        {
            var i = names.IndexOf(name);
            if (i < 0)
                throw new JinjaError($"TypeError: {function}() got an unexpected keyword argument '{name}'");
            if (!ReferenceEquals(values[i], Missing))
                throw new JinjaError($"TypeError: {function}() got multiple values for argument '{name}'");
            values[i] = value;
        }
        for (var i = 0; i < required; i++)
            if (ReferenceEquals(values[i], Missing))
                throw new JinjaError($"TypeError: {function}() missing required argument: '{names[i]}'");
        return values;
    }

    /// <summary>All but the first <paramref name="count"/> positional arguments.</summary>
    public JinjaArguments Skip(int count) => new(Positional[Math.Min(count, Positional.Length)..], Named);
}
