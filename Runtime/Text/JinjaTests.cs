using System.Collections.Frozen;
using System.Numerics;

namespace Trimtab.Text;

/// <summary>The tests of "x is …".</summary>
internal static class JinjaTests
{
    private delegate bool Test(JinjaRun run, object? value, JinjaArguments arguments);

    private static readonly FrozenDictionary<string, Test> All = Named().ToFrozenDictionary();

    public static bool Exists(string name) => All.ContainsKey(name);

    public static bool Apply(JinjaRun run, string name, object? value, JinjaArguments arguments) =>
        All.TryGetValue(name, out var test) ? test(run, value, arguments) : throw new JinjaError($"TemplateRuntimeError: No test named '{name}'.");

    private static Dictionary<string, Test> Named()
    {
        var tests = new Dictionary<string, Test>();
        Add("defined", v => v is not JinjaUndefined);
        Add("undefined", v => v is JinjaUndefined);
        Add("none", v => v is null);
        Add("boolean", v => v is bool);
        Add("true", v => v is true);
        Add("false", v => v is false);
        Add("integer", v => v is BigInteger);
        Add("float", v => v is double);
        Add("number", JinjaValue.IsNumber);
        Add("string", v => v is string or JinjaMarkup);
        Add("mapping", v => v is JinjaDict);
        Add("sequence", v => v is string or JinjaMarkup or List<object?> or JinjaTuple or JinjaDict or JinjaRange or JinjaUndefined);
        Add("iterable", JinjaRun.IsIterable);
        Add("callable", v => v is JinjaCallable or JinjaUndefined or JinjaLoop);
        Add("escaped", v => v is JinjaMarkup);
        tests["lower"] = (run, v, a) => Unary(a, "lower") && JinjaText.IsCase(run.Str(v), upper: false);
        tests["upper"] = (run, v, a) => Unary(a, "upper") && JinjaText.IsCase(run.Str(v), upper: true);
        tests["odd"] = (run, v, a) => Unary(a, "odd") && run.Equal(JinjaOperators.Apply(run, "%", v, (BigInteger)2), BigInteger.One);
        tests["even"] = (run, v, a) => Unary(a, "even") && run.Equal(JinjaOperators.Apply(run, "%", v, (BigInteger)2), BigInteger.Zero);
        tests["divisibleby"] = (run, v, a) => run.Equal(JinjaOperators.Apply(run, "%", v, a.Bind("divisibleby", 1, "num")[0]), BigInteger.Zero);
        tests["filter"] = (_, v, a) => Unary(a, "filter") && JinjaFilters.Exists(Key(v));
        tests["test"] = (_, v, a) => Unary(a, "test") && Exists(Key(v));
        // Python keeps one object of each small integer and of most strings; equal ones of the same type pass for one here.
        tests["sameas"] = (run, v, a) => a.Bind("sameas", 1, "other")[0] is var other && (ReferenceEquals(v, other)
            || v?.GetType() == other?.GetType() && v is bool or BigInteger or string && run.Equal(v, other));
        tests["in"] = (run, v, a) => run.Contains(a.Bind("in", 1, "seq")[0], v);
        foreach (var (operation, names) in new (string, string[])[]
        {
            ("==", ["==", "eq", "equalto"]), ("!=", ["!=", "ne"]), (">", [">", "gt", "greaterthan"]), (">=", [">=", "ge"]), ("<", ["<", "lt", "lessthan"]), ("<=", ["<=", "le"]),
        })
            foreach (var name in names)
                tests[name] = (run, v, a) => JinjaComparison.Holds(run, operation, v, a.Bind(name, 1, "other")[0]);
        return tests;

        void Add(string name, Func<object?, bool> test) => tests[name] = (_, value, arguments) => Unary(arguments, name) && test(value);
    }

    /// <summary>A name to look up; lists and dictionaries cannot be looked up.</summary>
    private static string Key(object? value) => value is List<object?> or JinjaDict or JinjaView
        ? throw new JinjaError($"TypeError: unhashable type: '{JinjaValue.TypeName(value)}'") : JinjaValue.Text(value) ?? "";

    private static bool Unary(JinjaArguments arguments, string name)
    {
        arguments.Bind(name, 0);
        return true;
    }
}
