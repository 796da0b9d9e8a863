namespace Trimtab.Text;

/// <summary>The variables of one block; what it does not hold, its parent may.</summary>
internal sealed class JinjaScope(JinjaScope? parent)
{
    private readonly Dictionary<string, object?> _values = [];

    public void Set(string name, object? value) => _values[name] = value;

    public bool TryGet(string name, out object? value)
    {
        for (var scope = this; scope is not null; scope = scope.Parent)
            if (scope._values.TryGetValue(name, out value))
                return true;
        value = null;
        return false;
    }

    public JinjaScope? Parent { get; } = parent;
}

/// <summary>A node of an expression.</summary>
internal abstract class JinjaExpression(int line)
{
    public int Line { get; } = line;

    public object? Evaluate(JinjaRun run, JinjaScope scope)
    {
        run.Enter();
        return Compute(run, scope);
    }

    protected abstract object? Compute(JinjaRun run, JinjaScope scope);
}

internal sealed class JinjaConstant(int line, object? value) : JinjaExpression(line)
{
    public object? Value { get; } = value;

    protected override object? Compute(JinjaRun run, JinjaScope scope) => Value;
}

internal sealed class JinjaName(int line, string name) : JinjaExpression(line)
{
    public string Name { get; } = name;

    protected override object? Compute(JinjaRun run, JinjaScope scope) =>
        scope.TryGet(Name, out var value) || JinjaGlobals.TryGet(Name, out value) ? value : JinjaUndefined.Name(Name);
}

/// <summary>namespace.attribute as the target of an assignment.</summary>
internal sealed class JinjaNamespaceTarget(int line, string name, string attribute) : JinjaExpression(line)
{
    public string Name { get; } = name;

    public string Attribute { get; } = attribute;

    protected override object? Compute(JinjaRun run, JinjaScope scope) => throw new JinjaError("a namespace target has no value", Line);
}

internal sealed class JinjaSequence(int line, IReadOnlyList<JinjaExpression> items, bool tuple) : JinjaExpression(line)
{
    public IReadOnlyList<JinjaExpression> Items { get; } = items;

    public bool IsTuple { get; } = tuple;

    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var values = new object?[Items.Count];
        for (var i = 0; i < values.Length; i++)
            values[i] = Items[i].Evaluate(run, scope);
        return IsTuple ? new JinjaTuple(values) : new List<object?>(values);
    }
}

internal sealed class JinjaDictLiteral(int line, IReadOnlyList<(JinjaExpression Key, JinjaExpression Value)> items) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var dict = new JinjaDict();
        foreach (var (key, value) in items)
        {
            var name = key.Evaluate(run, scope);
            dict[name] = value.Evaluate(run, scope);
        }
        return dict;
    }
}

internal sealed class JinjaUnary(int line, string operation, JinjaExpression operand) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var value = operand.Evaluate(run, scope);
        return operation == "not" ? !JinjaValue.IsTrue(value) : JinjaOperators.Negate(value, operation == "-");
    }
}

internal sealed class JinjaBinary(int line, string operation, JinjaExpression left, JinjaExpression right) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var a = left.Evaluate(run, scope);
        switch (operation)
        {
            case "and": return JinjaValue.IsTrue(a) ? right.Evaluate(run, scope) : a;
            case "or": return JinjaValue.IsTrue(a) ? a : right.Evaluate(run, scope);
        }
        var b = right.Evaluate(run, scope);
        run.Line = Line;
        return JinjaOperators.Apply(run, operation, a, b);
    }
}

internal sealed class JinjaConcatenation(int line, IReadOnlyList<JinjaExpression> parts) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var values = new object?[parts.Count];
        for (var i = 0; i < values.Length; i++)
            values[i] = parts[i].Evaluate(run, scope);
        return JinjaOperators.Concatenate(run, values);
    }
}

/// <summary>a &lt; b == c …: true if each pair is, as in Python.</summary>
internal sealed class JinjaComparison(int line, JinjaExpression first, IReadOnlyList<(string Operation, JinjaExpression Operand)> rest) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var left = first.Evaluate(run, scope);
        foreach (var (operation, operand) in rest)
        {
            var right = operand.Evaluate(run, scope);
            run.Line = Line;
            if (!Holds(run, operation, left, right))
                return false;
            left = right;
        }
        return true;
    }

    public static bool Holds(JinjaRun run, string operation, object? a, object? b) => operation switch
    {
        "==" => run.Equal(a, b),
        "!=" => !run.Equal(a, b),
        "in" => run.Contains(b, a),
        "not in" => !run.Contains(b, a),
        "<" => run.Compare(a, b, operation) < 0,
        "<=" => run.Compare(a, b, operation) <= 0,
        ">" => run.Compare(a, b, operation) > 0,
        _ => run.Compare(a, b, operation) >= 0,
    };
}

internal sealed class JinjaConditional(int line, JinjaExpression test, JinjaExpression then, JinjaExpression? otherwise) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope) =>
        JinjaValue.IsTrue(test.Evaluate(run, scope)) ? then.Evaluate(run, scope)
        : otherwise is not null ? otherwise.Evaluate(run, scope)
        : new JinjaUndefined($"UndefinedError: the inline if-expression on line {Line} evaluated to false and no else section was defined.");
}

internal sealed class JinjaAttribute(int line, JinjaExpression owner, string name) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var value = owner.Evaluate(run, scope);
        run.Line = Line;
        return run.Attribute(value, name);
    }
}

internal sealed class JinjaSubscript(int line, JinjaExpression owner, JinjaExpression key) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var value = owner.Evaluate(run, scope);
        if (key is JinjaSlice slice)
        {
            var (start, stop, step) = slice.Bounds(run, scope);
            run.Line = Line;
            return run.Slice(value, start, stop, step);
        }
        var at = key.Evaluate(run, scope);
        run.Line = Line;
        return run.Item(value, at);
    }
}

internal sealed class JinjaSlice(int line, JinjaExpression? start, JinjaExpression? stop, JinjaExpression? step) : JinjaExpression(line)
{
    public (object?, object?, object?) Bounds(JinjaRun run, JinjaScope scope) => (start?.Evaluate(run, scope), stop?.Evaluate(run, scope), step?.Evaluate(run, scope));

    protected override object? Compute(JinjaRun run, JinjaScope scope) => throw new JinjaError("a slice is not a value", Line);
}

/// <summary>The arguments of a call, a filter or a test, as written.</summary>
internal sealed class JinjaCallArguments(
    IReadOnlyList<JinjaExpression> positional, IReadOnlyList<(string Name, JinjaExpression Value)> named, JinjaExpression? unpacked, JinjaExpression? unpackedNamed)
{
    public static readonly JinjaCallArguments None = new([], [], null, null);

    public JinjaArguments Evaluate(JinjaRun run, JinjaScope scope, JinjaCallable? caller = null)
    {
        if (positional.Count == 0 && named.Count == 0 && unpacked is null && unpackedNamed is null && caller is null)
            return JinjaArguments.None;
        var values = new List<object?>(positional.Count);
        foreach (var expression in positional)
            values.Add(expression.Evaluate(run, scope));
        if (unpacked is not null)
            values.AddRange(run.Iterate(unpacked.Evaluate(run, scope)));
        var names = new List<KeyValuePair<string, object?>>();
        foreach (var (name, expression) in named)
            names.Add(new(name, expression.Evaluate(run, scope)));
        if (caller is not null)
            names.Add(new("caller", caller));
        if (unpackedNamed?.Evaluate(run, scope) is { } value)
        {
            if (value is not JinjaDict dict)
                throw new JinjaError($"TypeError: argument after ** must be a mapping, not {JinjaValue.TypeName(value)}");
            for (var i = 0; i < dict.Count; i++)
            {
                run.CountIteration();
                var name = dict.At(i).Key as string ?? throw new JinjaError("TypeError: keywords must be strings");
                if (names.Count < 64 && names.Exists(n => n.Key == name))
                    throw new JinjaError($"TypeError: got multiple values for keyword argument '{name}'");
                names.Add(new(name, dict.At(i).Value));
            }
        }
        return new JinjaArguments([.. values], names);
    }
}

internal sealed class JinjaCall(int line, JinjaExpression callee, JinjaCallArguments arguments) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope) => With(run, scope, null);

    /// <summary>Calls with the body of a call block as the argument "caller".</summary>
    public object? With(JinjaRun run, JinjaScope scope, JinjaCallable? caller)
    {
        var function = callee.Evaluate(run, scope);
        var values = arguments.Evaluate(run, scope, caller);
        run.Line = Line;
        return run.Call(function, values);
    }
}

/// <summary>A filter's name and arguments, not yet what it is applied to.</summary>
internal sealed record JinjaFilterCall(int Line, string Name, JinjaCallArguments Arguments)
{
    public object? Apply(JinjaRun run, JinjaScope scope, object? value)
    {
        var arguments = Arguments.Evaluate(run, scope);
        run.Line = Line;
        return JinjaFilters.Apply(run, Name, value, arguments);
    }
}

internal sealed class JinjaFiltered(JinjaExpression value, JinjaFilterCall filter) : JinjaExpression(filter.Line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope) => filter.Apply(run, scope, value.Evaluate(run, scope));
}

internal sealed class JinjaTested(int line, JinjaExpression value, string test, JinjaCallArguments arguments) : JinjaExpression(line)
{
    protected override object? Compute(JinjaRun run, JinjaScope scope)
    {
        var subject = value.Evaluate(run, scope);
        var values = arguments.Evaluate(run, scope);
        run.Line = Line;
        return JinjaTests.Apply(run, test, subject, values);
    }
}
