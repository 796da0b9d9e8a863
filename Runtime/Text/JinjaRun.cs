using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;

namespace Trimtab.Text;

/// <summary>One rendering: its output, the globals, and the limits that keep a hostile template from running or growing without end.</summary>
internal sealed class JinjaRun(ChatTemplateOptions options)
{
    private StringBuilder _output = new();
    private long _written;
    private long _work = options.MaxWork;
    private int _iterations = options.MaxIterations;
    private int _depth;

    /// <summary>The line being executed, for error messages.</summary>
    public int Line { get; set; }

    public ChatTemplateOptions Options => options;

    public string Output => _output.ToString();

    /// <summary>Counts units of work: an evaluated node, a compared or copied item, four produced chars.</summary>
    public void Spend(long units)
    {
        _work -= units;
        if (_work < 0)
            throw new JinjaError("the template does too much work: ChatTemplateOptions.MaxWork is exceeded");
    }

    /// <summary>To be called before each nested evaluation: no template may overflow the stack.</summary>
    public void Enter()
    {
        Spend(1);
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("the template is nested too deeply");
    }

    public void CountIteration()
    {
        if (--_iterations < 0)
            throw new JinjaError($"the template loops more than {options.MaxIterations} times");
        Spend(1);
    }

    public T Nested<T>(Func<T> body)
    {
        if (_depth >= options.MaxDepth)
            throw new JinjaError($"macros or recursive loops nest deeper than {options.MaxDepth} calls");
        _depth++;
        try
        {
            return body();
        }
        finally
        {
            _depth--;
        }
    }

    public void Write(string text)
    {
        _written += text.Length;
        if (_written > 8L * options.MaxOutput || _output.Length + text.Length > options.MaxOutput)
            throw TooLong();
        _output.Append(text);
    }

    /// <summary>Runs <paramref name="body"/> and returns what it wrote instead of writing it.</summary>
    public string Capture(Action body)
    {
        var outer = _output;
        _output = new StringBuilder();
        try
        {
            body();
            return _output.ToString();
        }
        finally
        {
            _output = outer;
        }
    }

    private JinjaError TooLong() => new($"the text is longer than {options.MaxOutput} characters (ChatTemplateOptions.MaxOutput)");

    /// <summary>Checks that a text of this many chars may be made, before it is made.</summary>
    public void Produce(long length)
    {
        if (length > options.MaxOutput)
            throw TooLong();
        Spend(length / 4);
    }

    /// <summary>Counts a text that a method has just made.</summary>
    public string Produced(string text)
    {
        Produce(text.Length);
        return text;
    }

    /// <summary>Python's str.</summary>
    public string Str(object? value)
    {
        if (JinjaValue.Text(value) is { } text)
            return text;
        if (value is JinjaUndefined)
            return "";
        return Repr(value);
    }

    public string Repr(object? value)
    {
        var output = new StringBuilder();
        JinjaValue.AppendRepr(output, value, options.MaxOutput);
        return Produced(output.ToString());
    }

    public bool Equal(object? a, object? b)
    {
        var before = _work;
        var equal = JinjaValue.Equal(a, b, ref _work);
        return _work <= before && equal;
    }

    /// <summary>Python's order of two values; null where it is neither (NaN).</summary>
    public int? Compare(object? a, object? b, string operation) => JinjaValue.Compare(a, b, operation, ref _work);

    public bool Less(object? a, object? b) => Compare(a, b, "<") < 0;

    /// <summary>Python's "item in container".</summary>
    public bool Contains(object? container, object? item)
    {
        if (JinjaValue.Text(container) is { } text)
        {
            Spend(text.Length / 16);
            if (item is JinjaUndefined undefined)
                throw undefined.Error;
            return text.Contains(JinjaValue.Text(item) ?? throw new JinjaError($"TypeError: 'in <string>' requires string as left operand, not {JinjaValue.TypeName(item)}"), StringComparison.Ordinal);
        }
        if (container is JinjaDict dict)
            return dict.TryGet(item, out _);
        if (!IsIterable(container))
            throw new JinjaError($"TypeError: argument of type '{JinjaValue.TypeName(container)}' is not iterable");
        foreach (var member in Iterate(container))
            if (ReferenceEquals(member, item) || Equal(member, item))
                return true;
        return false;
    }

    public static bool IsIterable(object? value) =>
        value is string or JinjaMarkup or List<object?> or JinjaTuple or JinjaDict or JinjaView or JinjaRange or JinjaIterator or JinjaUndefined or JinjaLoop;

    /// <summary>The items of any iterable, each of them counted.</summary>
    public IEnumerable<object?> Iterate(object? value) => IsIterable(value)
        ? Counted(value)
        : throw new JinjaError($"TypeError: '{JinjaValue.TypeName(value)}' object is not iterable");

    private IEnumerable<object?> Counted(object? value)
    {
        var items = value switch
        {
            string or JinjaMarkup => JinjaText.Characters(JinjaValue.Text(value)!),
            JinjaDict dict => Enumerable.Range(0, dict.Count).Select(i => dict.At(i).Key),
            JinjaView view => Enumerable.Range(0, view.Dict.Count).Select(view.At),
            JinjaRange range => Enumerable.Range(0, range.Count).Select(range.At),
            JinjaIterator iterator => iterator.Rest(),
            JinjaLoop loop => loop.Rest(),
            _ => JinjaValue.Sequence(value) ?? [],
        };
        foreach (var item in items)
        {
            CountIteration();
            yield return item;
        }
    }

    public List<object?> List(object? value) => Iterate(value).ToList();

    /// <summary>Python's reversed(value), or null where there is none.</summary>
    public List<object?>? Reversed(object? value)
    {
        if (value is JinjaIterator or JinjaUndefined or JinjaLoop || !IsIterable(value))
            return null;
        var list = List(value);
        list.Reverse();
        return list;
    }

    /// <summary>owner[key] as Jinja looks it up: the item first, then, for a string, the attribute.</summary>
    public object? Item(object? owner, object? key)
    {
        if (owner is JinjaUndefined undefined)
            throw undefined.Error;
        if (owner is JinjaDict dict)
        {
            if (key is not (List<object?> or JinjaDict) && dict.TryGet(key, out var found))
                return found;
        }
        else if (JinjaNumbers.Integer(key) is { } index && Element(owner, index, out var element))
            return element;
        return Text(key) is { } name && JinjaMethods.TryGetAttribute(owner, name, out var attribute) ? attribute : JinjaUndefined.Member(owner, key);
    }

    /// <summary>owner.name as Jinja looks it up: the attribute first, then the item.</summary>
    public object? Attribute(object? owner, string name)
    {
        if (owner is JinjaUndefined undefined)
            throw undefined.Error;
        if (JinjaMethods.TryGetAttribute(owner, name, out var attribute))
            return attribute;
        return owner is JinjaDict dict && dict.TryGet(name, out var found) ? found : JinjaUndefined.Member(owner, name);
    }

    private static string? Text(object? value) => JinjaValue.Text(value);

    private static bool Element(object? owner, BigInteger index, out object? element)
    {
        element = null;
        if (owner is not (string or JinjaMarkup or List<object?> or JinjaTuple or JinjaRange))
            return false;
        var count = JinjaValue.Length(owner);
        if (index.Sign < 0)
            index += count;
        if (index.Sign < 0 || index >= count)
            return false;
        var i = (int)index;
        if (Text(owner) is { } text)
        {
            var at = JinjaText.Position(text, i);
            var character = text.Substring(at, JinjaText.Width(text, at));
            element = owner is JinjaMarkup ? new JinjaMarkup(character) : character;
        }
        else
            element = owner is JinjaRange range ? range.At(i) : JinjaValue.Sequence(owner)![i];
        return true;
    }

    /// <summary>owner[start:stop:step].</summary>
    public object? Slice(object? owner, object? start, object? stop, object? step)
    {
        if (owner is JinjaUndefined undefined)
            throw undefined.Error;
        if (owner is not (string or JinjaMarkup or List<object?> or JinjaTuple or JinjaRange))
            throw new JinjaError(owner is JinjaDict ? "TypeError: unhashable type: 'slice'" : $"TypeError: '{JinjaValue.TypeName(owner)}' object is not subscriptable");
        var count = JinjaValue.Length(owner);
        var by = SliceIndex(step) ?? BigInteger.One;
        if (by.IsZero)
            throw new JinjaError("ValueError: slice step cannot be zero");
        var low = by.Sign < 0 ? -1 : 0;
        var high = by.Sign < 0 ? count - 1 : count;
        var from = Bound(SliceIndex(start), by.Sign < 0 ? high : low);
        var to = Bound(SliceIndex(stop), by.Sign < 0 ? low : high);
        var stride = (int)BigInteger.Max(BigInteger.Min(by, count + 1), -count - 1);
        var picked = stride > 0 ? Math.Max(0, (to - from + stride - 1) / stride) : Math.Max(0, (from - to - stride - 1) / -stride);
        Spend(picked);
        if (Text(owner) is { } text)
        {
            string part;
            if (stride == 1)
            {
                var at = JinjaText.Position(text, from);
                part = picked == 0 ? "" : text.Substring(at, JinjaText.Position(text, to) - at);
            }
            else
            {
                var characters = JinjaText.Characters(text);
                part = string.Concat(Enumerable.Range(0, picked).Select(i => characters[from + i * stride]));
            }
            return owner is JinjaMarkup ? new JinjaMarkup(part) : part;
        }
        if (owner is JinjaRange range)
            return new JinjaRange(range.Start + from * range.Step, range.Start + to * range.Step, range.Step * stride);
        var items = JinjaValue.Sequence(owner)!;
        var result = new object?[picked];
        for (var i = 0; i < picked; i++)
            result[i] = items[from + i * stride];
        return owner is JinjaTuple ? new JinjaTuple(result) : result.ToList();

        int Bound(BigInteger? given, int absent)
        {
            if (given is not { } i)
                return absent;
            if (i.Sign < 0)
                i += count;
            return (int)BigInteger.Max(low, BigInteger.Min(high, i));
        }
    }

    private static BigInteger? SliceIndex(object? value) => value is null ? null : JinjaNumbers.Integer(value)
        ?? throw (value as JinjaUndefined)?.Error ?? new JinjaError("TypeError: slice indices must be integers or None or have an __index__ method");

    public object? Call(object? callee, JinjaArguments arguments) => callee switch
    {
        JinjaCallable callable => callable.Call(this, arguments),
        JinjaUndefined undefined => throw undefined.Error,
        JinjaLoop loop => loop.Recurse(arguments),
        _ => throw new JinjaError($"TypeError: '{JinjaValue.TypeName(callee)}' object is not callable"),
    };

    /// <summary>An argument that must be an integer, brought into the range of an int.</summary>
    public static int Int(object? value) => JinjaNumbers.Integer(value) is { } i
        ? (int)BigInteger.Max(int.MinValue, BigInteger.Min(int.MaxValue, i))
        : throw (value as JinjaUndefined)?.Error ?? new JinjaError($"TypeError: '{JinjaValue.TypeName(value)}' object cannot be interpreted as an integer");

    /// <summary>An argument that may be missing.</summary>
    public static int Int(object? value, int missing) => ReferenceEquals(value, JinjaArguments.Missing) ? missing : Int(value);

    /// <summary>A truth that may be missing.</summary>
    public static bool Bool(object? value, bool missing) => ReferenceEquals(value, JinjaArguments.Missing) ? missing : JinjaValue.IsTrue(value);

    /// <summary>A value that may be missing.</summary>
    public static object? Or(object? value, object? missing) => ReferenceEquals(value, JinjaArguments.Missing) ? missing : value;
}
