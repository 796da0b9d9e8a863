using System.Collections.Frozen;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace Trimtab.Text;

/// <summary>The attributes and methods of values that a template may reach.</summary>
internal static class JinjaMethods
{
    private static readonly FrozenSet<string> StringMethods = FrozenSet.ToFrozenSet([
        "capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map", "index", "isalnum", "isalpha", "isascii",
        "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip",
        "maketrans", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
        "startswith", "strip", "swapcase", "title", "translate", "upper", "zfill"]);
    private static readonly FrozenSet<string> DictMethods = FrozenSet.ToFrozenSet(["copy", "fromkeys", "get", "items", "keys", "values"]);
    private static readonly FrozenSet<string> DictMutators = FrozenSet.ToFrozenSet(["clear", "pop", "popitem", "setdefault", "update"]);
    private static readonly FrozenSet<string> ListMutators = FrozenSet.ToFrozenSet(["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]);

    /// <summary>The attribute <paramref name="name"/> of a value (not a dictionary's item), if it has one.</summary>
    public static bool TryGetAttribute(object? owner, string name, out object? attribute)
    {
        attribute = null;
        var found = owner switch
        {
            string or JinjaMarkup => StringMethods.Contains(name),
            JinjaDict => DictMethods.Contains(name) || DictMutators.Contains(name),
            List<object?> => name is "copy" or "count" or "index" || ListMutators.Contains(name),
            JinjaTuple { IsGroup: true } when name is "grouper" or "list" => true,
            JinjaTuple => name is "count" or "index",
            JinjaRange => name is "count" or "index" or "start" or "stop" or "step",
            double => name is "is_integer" or "real" or "imag" or "conjugate",
            bool or BigInteger => name is "bit_length" or "bit_count" or "real" or "imag" or "numerator" or "denominator" or "conjugate",
            JinjaNamespace space => space.Attributes.ContainsKey(name),
            JinjaLoop loop => (attribute = loop.Attribute(name)) is not null || name is "previtem" or "nextitem",
            JinjaCycler => name is "next" or "reset" or "current" or "pos",
            JinjaMacro => name is "name" or "arguments" or "catch_kwargs" or "catch_varargs" or "caller",
            _ => false,
        };
        // Every object of Python's has its double underscores; the sandbox gives none of them out.
        if (!found && name.StartsWith("__", StringComparison.Ordinal) && name.EndsWith("__", StringComparison.Ordinal) && (owner as JinjaDict)?.TryGet(name, out _) != true)
        {
            attribute = JinjaUndefined.Unsafe(owner, name);
            return true;
        }
        if (!found || owner is JinjaLoop)
            return found;
        attribute = (owner, name) switch
        {
            (JinjaDict, _) when DictMutators.Contains(name) => JinjaUndefined.Unsafe(owner, name),
            (List<object?>, _) when ListMutators.Contains(name) => JinjaUndefined.Unsafe(owner, name),
            (JinjaTuple group, "grouper") => group.Items[0],
            (JinjaTuple group, "list") => group.Items[1],
            (JinjaRange range, "start") => range.Start,
            (JinjaRange range, "stop") => range.Stop,
            (JinjaRange range, "step") => range.Step,
            (double, "real") => owner,
            (double, "imag") => 0.0,
            (bool or BigInteger, "real" or "numerator") => JinjaNumbers.Integer(owner),
            (bool or BigInteger, "imag") => BigInteger.Zero,
            (bool or BigInteger, "denominator") => BigInteger.One,
            (JinjaNamespace space, _) => space.Attributes[name],
            (JinjaCycler cycler, "current") => cycler.Current,
            (JinjaCycler cycler, "pos") => (BigInteger)cycler.Position,
            (JinjaMacro macro, _) => name switch
            {
                "name" => macro.Name,
                "arguments" => new JinjaTuple(macro.Signature.Parameters.Select(p => (object?)p.Name).ToArray()),
                "catch_kwargs" => macro.Signature.Special.Contains("kwargs"),
                "catch_varargs" => macro.Signature.Special.Contains("varargs"),
                _ => macro.Signature.Special.Contains("caller"),
            },
            _ => new JinjaMethod(owner!, name),
        };
        return true;
    }

    public static object? Call(JinjaRun run, object owner, string name, JinjaArguments arguments)
    {
        switch (owner)
        {
            case string text:
                return JinjaStrings.Call(run, text, name, arguments);
            case JinjaMarkup markup:
                return CallMarkup(run, markup, name, arguments);
            case JinjaDict dict:
                return CallDict(run, dict, name, arguments);
            case List<object?> or JinjaTuple or JinjaRange:
                return CallSequence(run, owner, name, arguments);
            case JinjaCycler cycler:
                arguments.Bind(name, 0);
                if (name == "next")
                    return cycler.Next();
                cycler.Position = 0;
                return null;
            case double d:
                arguments.Bind(name, 0);
                return name == "is_integer" ? double.IsInteger(d) : d;
            default:
                arguments.Bind(name, 0);
                var integer = JinjaNumbers.Integer(owner)!.Value;
                return name switch
                {
                    "bit_length" => (BigInteger)(long)BigInteger.Abs(integer).GetBitLength(),
                    "bit_count" => (BigInteger)JinjaNumbers.InBase(BigInteger.Abs(integer), 2).Count(c => c == '1'),
                    _ => integer,
                };
        }
    }

    private static object? CallMarkup(JinjaRun run, JinjaMarkup markup, string name, JinjaArguments arguments)
    {
        // What is joined into HTML is escaped first.
        object? Escaped(object? value) => JinjaValue.Text(value) is null ? value : JinjaMarkup.Escape(value, run).Text;
        if (name is "replace" or "format")
            arguments = new JinjaArguments(arguments.Positional.Select(Escaped).ToArray(), arguments.Named.Select(n => new KeyValuePair<string, object?>(n.Key, Escaped(n.Value))).ToArray());
        else if (name == "join" && arguments.Positional.Length == 1)
            arguments = new JinjaArguments([run.Iterate(arguments.Positional[0]).Select(Escaped).ToList()]);
        return JinjaStrings.Call(run, markup.Text, name, arguments) switch
        {
            string text => new JinjaMarkup(text),
            List<object?> parts => parts.ConvertAll(p => p is string part ? new JinjaMarkup(part) : p),
            var other => other,
        };
    }

    private static object? CallDict(JinjaRun run, JinjaDict dict, string name, JinjaArguments arguments)
    {
        switch (name)
        {
            case "get":
                if (arguments.Named.Count > 0)
                    throw new JinjaError("TypeError: dict.get() takes no keyword arguments");
                var get = arguments.Bind(name, 1, "key", "default");
                return dict.TryGet(get[0], out var value) ? value : JinjaRun.Or(get[1], null);
            case "items" or "keys" or "values":
                arguments.Bind(name, 0);
                return new JinjaView(dict, name);
            case "fromkeys":
                var from = arguments.Bind(name, 1, "iterable", "value");
                var made = new JinjaDict();
                foreach (var key in run.Iterate(from[0]))
                    made[key] = JinjaRun.Or(from[1], null);
                return made;
            default:
                arguments.Bind(name, 0);
                return dict;
        }
    }

    private static object? CallSequence(JinjaRun run, object owner, string name, JinjaArguments arguments)
    {
        if (name == "copy")
        {
            arguments.Bind(name, 0);
            return owner;
        }
        var values = arguments.Bind(name, 1, "value", "start", "stop");
        var items = run.List(owner);
        if (name == "count")
            return (BigInteger)items.Count(item => run.Equal(item, values[0]));
        int Bound(object? bound, int missing) => JinjaRun.Int(bound, missing) is var i && i < 0 ? Math.Max(0, i + items.Count) : Math.Min(i, items.Count);
        for (int i = Bound(values[1], 0), end = Bound(values[2], items.Count); i < end; i++)
            if (run.Equal(items[i], values[0]))
                return (BigInteger)i;
        throw new JinjaError($"ValueError: {JinjaValue.BriefRepr(values[0])} is not in {JinjaValue.TypeName(owner)}");
    }
}
