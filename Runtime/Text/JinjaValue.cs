using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;

namespace Trimtab.Text;

/// <summary>What Python says of any value: its type's name, truth, length, equality, order and repr.</summary>
internal static class JinjaValue
{
    public static string TypeName(object? value) => value switch
    {
        null => "NoneType",
        bool => "bool",
        BigInteger => "int",
        double => "float",
        string => "str",
        JinjaMarkup => "Markup",
        List<object?> => "list",
        JinjaTuple => "tuple",
        JinjaDict => "dict",
        JinjaView view => "dict_" + view.Kind,
        JinjaRange => "range",
        JinjaIterator iterator => iterator.Type,
        JinjaUndefined => "Undefined",
        JinjaNamespace => "Namespace",
        JinjaMacro => "Macro",
        JinjaLoop => "LoopContext",
        JinjaCycler => "Cycler",
        JinjaFunction => "function",
        JinjaMethod => "builtin_function_or_method",
        _ => "object",
    };

    /// <summary>How an "undefined" message names an owner.</summary>
    public static string Describe(object? value) => value switch
    {
        null => "None",
        JinjaMarkup => "markupsafe.Markup object",
        JinjaMacro or JinjaLoop => $"jinja2.runtime.{TypeName(value)} object",
        JinjaNamespace or JinjaCycler => $"jinja2.utils.{TypeName(value)} object",
        _ => TypeName(value) + " object",
    };

    /// <summary>The text of a string, marked as HTML or not; null for all else.</summary>
    public static string? Text(object? value) => value as string ?? (value as JinjaMarkup)?.Text;

    /// <summary>The items of a list or tuple; null for all else.</summary>
    public static IReadOnlyList<object?>? Sequence(object? value) => value as List<object?> ?? (IReadOnlyList<object?>?)(value as JinjaTuple)?.Items;

    public static bool IsTrue(object? value) => value switch
    {
        null => false,
        bool b => b,
        BigInteger i => !i.IsZero,
        double d => d != 0,
        JinjaUndefined => false,
        _ => TryLength(value) is not 0,
    };

    /// <summary>Python's len, or null for a value that has none.</summary>
    public static int? TryLength(object? value) => value switch
    {
        string s => JinjaText.Length(s),
        JinjaMarkup m => JinjaText.Length(m.Text),
        List<object?> list => list.Count,
        JinjaTuple tuple => tuple.Items.Length,
        JinjaDict dict => dict.Count,
        JinjaView view => view.Dict.Count,
        JinjaRange range => range.Count,
        JinjaLoop loop => loop.Length,
        JinjaUndefined => 0,
        _ => null,
    };

    public static int Length(object? value) => TryLength(value) ?? throw new JinjaError($"TypeError: object of type '{TypeName(value)}' has no len()");

    public static bool IsNumber(object? value) => value is bool or BigInteger or double;

    /// <summary>Python's ==, in at most <paramref name="steps"/> comparisons: shared parts can make a small value deep.</summary>
    public static bool Equal(object? a, object? b, ref long steps)
    {
        if (--steps < 0 || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("a comparison is too large");
        if (ReferenceEquals(a, b))
            return a is not double.NaN;
        if (a is null || b is null)
            return false;
        if (IsNumber(a) && IsNumber(b))
            return JinjaNumbers.Compare(a, b) == 0;
        if (Text(a) is { } text)
            return text == Text(b);
        switch (a, b)
        {
            case (JinjaUndefined, JinjaUndefined):
                return true;
            case (List<object?>, List<object?>) or (JinjaTuple, JinjaTuple):
                var (left, right) = (Sequence(a)!, Sequence(b)!);
                if (left.Count != right.Count)
                    return false;
                for (var i = 0; i < left.Count; i++)
                    if (!Same(left[i], right[i], ref steps))
                        return false;
                return true;
            case (JinjaDict x, JinjaDict y):
                if (x.Count != y.Count)
                    return false;
                for (var i = 0; i < x.Count; i++)
                    if (x.At(i) is var (key, value) && (!y.TryGet(key, out var other) || !Same(value, other, ref steps)))
                        return false;
                return true;
            case (JinjaRange x, JinjaRange y):
                return x.Count == y.Count && (x.Count == 0 || x.Start == y.Start && (x.Count == 1 || x.Step == y.Step));
            case (JinjaView { Kind: not "values" } x, JinjaView { Kind: not "values" } y):
                if (x.Dict.Count != y.Dict.Count || x.Kind != y.Kind)
                    return false;
                for (var i = 0; i < x.Dict.Count; i++)
                    if (x.Dict.At(i) is var (key, value) && (!y.Dict.TryGet(key, out var other) || x.Kind == "items" && !Same(value, other, ref steps)))
                        return false;
                return true;
            default:
                return false;
        }
    }

    /// <summary>Containers compare by identity first, so that a NaN in them equals itself.</summary>
    private static bool Same(object? a, object? b, ref long steps) => ReferenceEquals(a, b) || Equal(a, b, ref steps);

    /// <summary>Python's order for &lt;, &lt;=, &gt;, &gt;= (<paramref name="operation"/>); null where it is neither (NaN). TypeError where there is none.</summary>
    public static int? Compare(object? a, object? b, string operation, ref long steps)
    {
        if (--steps < 0 || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("a comparison is too large");
        if (IsNumber(a) && IsNumber(b))
            return JinjaNumbers.Compare(a!, b!);
        if (Text(a) is { } left && Text(b) is { } right)
            return JinjaText.Compare(left, right);
        if (a is List<object?> && b is List<object?> || a is JinjaTuple && b is JinjaTuple)
        {
            var (x, y) = (Sequence(a)!, Sequence(b)!);
            for (var i = 0; i < x.Count && i < y.Count; i++)
                if (!Same(x[i], y[i], ref steps))
                    return Compare(x[i], y[i], operation, ref steps);
            return x.Count.CompareTo(y.Count);
        }
        if (a is JinjaUndefined || b is JinjaUndefined)
            throw ((a as JinjaUndefined) ?? (JinjaUndefined)b!).Error;
        throw new JinjaError($"TypeError: '{operation}' not supported between instances of '{TypeName(a)}' and '{TypeName(b)}'");
    }

    /// <summary>A short repr for messages.</summary>
    public static string BriefRepr(object? value)
    {
        var output = new StringBuilder();
        switch (value)
        {
            case string text: JinjaText.AppendRepr(output, text.Length > 80 ? text[..80] : text); break;
            case null or bool or BigInteger or double: AppendRepr(output, value, 200); break;
            default: output.Append(TypeName(value)); break;
        }
        return output.ToString();
    }

    /// <summary>Python's repr, which also is the str of all but strings and undefined values; an error beyond <paramref name="limit"/> chars.</summary>
    public static void AppendRepr(StringBuilder output, object? value, int limit)
    {
        if (output.Length > limit)
            throw new JinjaError($"a printed value is longer than {limit} characters");
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("a printed value is nested too deeply");
        switch (value)
        {
            case null: output.Append("None"); break;
            case bool b: output.Append(b ? "True" : "False"); break;
            case BigInteger i: output.Append(i); break;
            case double d: output.Append(JinjaNumbers.Repr(d)); break;
            case string s: JinjaText.AppendRepr(output, s); break;
            case JinjaMarkup m:
                output.Append("Markup(");
                JinjaText.AppendRepr(output, m.Text);
                output.Append(')');
                break;
            case List<object?> list: AppendItems(output, "[", list, "]", limit); break;
            case JinjaTuple tuple: AppendItems(output, "(", tuple.Items, tuple.Items.Length == 1 ? ",)" : ")", limit); break;
            case JinjaDict dict: AppendDict(output, dict, limit); break;
            case JinjaView view:
                AppendItems(output, $"dict_{view.Kind}([", Enumerable.Range(0, view.Dict.Count).Select(view.At), "])", limit);
                break;
            case JinjaRange range:
                output.Append($"range({range.Start}, {range.Stop}{(range.Step.IsOne ? "" : ", " + range.Step)})");
                break;
            case JinjaUndefined: output.Append("Undefined"); break;
            case JinjaLoop loop: output.Append($"<LoopContext {loop.Index}/{loop.Length}>"); break;
            case JinjaNamespace space:
                var attributes = new JinjaDict();
                foreach (var (name, attribute) in space.Attributes)
                    attributes[name] = attribute;
                output.Append("<Namespace ");
                AppendDict(output, attributes, limit);
                output.Append('>');
                break;
            case JinjaMacro macro: output.Append($"<Macro '{macro.Name}'>"); break;
            case JinjaCallable callable: output.Append($"<function {callable.Name}>"); break;
            default: output.Append($"<{TypeName(value)} object>"); break;
        }
    }

    private static void AppendItems(StringBuilder output, string open, IEnumerable<object?> items, string close, int limit)
    {
        output.Append(open);
        var first = true;
        foreach (var item in items)
        {
            if (!first)
                output.Append(", ");
            first = false;
            AppendRepr(output, item, limit);
        }
        output.Append(close);
    }

    private static void AppendDict(StringBuilder output, JinjaDict dict, int limit)
    {
        output.Append('{');
        for (var i = 0; i < dict.Count; i++)
        {
            var (key, value) = dict.At(i);
            output.Append(i > 0 ? ", " : "");
            AppendRepr(output, key, limit);
            output.Append(": ");
            AppendRepr(output, value, limit);
        }
        output.Append('}');
    }
}
