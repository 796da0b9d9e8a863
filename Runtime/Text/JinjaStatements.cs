namespace Trimtab.Text;

/// <summary>How a statement ended: {% break %} and {% continue %} end the bodies around them.</summary>
internal enum JinjaFlow { Next, Break, Continue }

/// <summary>A node of a template's body.</summary>
internal abstract class JinjaStatement(int line)
{
    public int Line { get; } = line;

    public abstract JinjaFlow Execute(JinjaRun run, JinjaScope scope);

    public static JinjaFlow ExecuteAll(IReadOnlyList<JinjaStatement> body, JinjaRun run, JinjaScope scope)
    {
        foreach (var statement in body)
        {
            run.Enter();
            run.Line = statement.Line;
            if (statement.Execute(run, scope) is var flow && flow != JinjaFlow.Next)
                return flow;
        }
        return JinjaFlow.Next;
    }

    /// <summary>Binds a name, a tuple of names or a namespace's attribute.</summary>
    public static void Assign(JinjaRun run, JinjaScope scope, JinjaExpression target, object? value)
    {
        switch (target)
        {
            case JinjaName name:
                scope.Set(name.Name, value);
                break;
            case JinjaNamespaceTarget attribute:
                if (!scope.TryGet(attribute.Name, out var owner) || owner is not JinjaNamespace space)
                    throw new JinjaError("TemplateRuntimeError: cannot assign attribute on non-namespace object");
                space.Attributes[attribute.Attribute] = value;
                break;
            case JinjaSequence tuple:
                if (value is JinjaUndefined)
                    value = new JinjaTuple([]);
                if (!JinjaRun.IsIterable(value))
                    throw new JinjaError($"TypeError: cannot unpack non-iterable {JinjaValue.TypeName(value)} object");
                var items = run.Iterate(value).Take(tuple.Items.Count + 1).ToList();
                if (items.Count != tuple.Items.Count)
                    throw new JinjaError(items.Count > tuple.Items.Count
                        ? $"ValueError: too many values to unpack (expected {tuple.Items.Count})"
                        : $"ValueError: not enough values to unpack (expected {tuple.Items.Count}, got {items.Count})");
                for (var i = 0; i < items.Count; i++)
                    Assign(run, scope, tuple.Items[i], items[i]);
                break;
        }
    }

    protected static string Capture(JinjaRun run, JinjaScope scope, IReadOnlyList<JinjaStatement> body, out JinjaFlow flow)
    {
        var end = JinjaFlow.Next;
        var text = run.Capture(() => end = ExecuteAll(body, run, scope));
        flow = end;
        return text;
    }
}

internal sealed class JinjaData(int line, string text) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        run.Write(text);
        return JinjaFlow.Next;
    }
}

internal sealed class JinjaOutput(int line, JinjaExpression value) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        run.Write(run.Str(value.Evaluate(run, scope)));
        return JinjaFlow.Next;
    }
}

internal sealed class JinjaIf(int line, IReadOnlyList<(JinjaExpression Test, IReadOnlyList<JinjaStatement> Body)> branches, IReadOnlyList<JinjaStatement> otherwise) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        foreach (var (test, body) in branches)
        {
            run.Line = test.Line;
            if (JinjaValue.IsTrue(test.Evaluate(run, scope)))
                return ExecuteAll(body, run, scope);
        }
        return ExecuteAll(otherwise, run, scope);
    }
}

internal sealed class JinjaJump(int line, JinjaFlow flow) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope) => flow;
}

internal sealed class JinjaFor(
    int line, JinjaExpression target, JinjaExpression iterable, JinjaExpression? test, bool recursive,
    IReadOnlyList<JinjaStatement> body, IReadOnlyList<JinjaStatement> otherwise) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        var items = iterable.Evaluate(run, scope);
        if (!recursive)
            return Loop(run, scope, items, 0);
        run.Write(Recurse(run, scope, items, 0));
        return JinjaFlow.Next;
    }

    /// <summary>The text of the loop over other items: what calling "loop" in a recursive loop gives.</summary>
    public string Recurse(JinjaRun run, JinjaScope scope, object? items, int depth) => recursive
        ? run.Nested(() => run.Capture(() => Loop(run, scope, items, depth)))
        : throw new JinjaError("TypeError: The loop must have the 'recursive' marker to be called recursively.");

    private JinjaFlow Loop(JinjaRun run, JinjaScope scope, object? items, int depth)
    {
        run.Line = Line;
        var loop = new JinjaLoop(run, this, scope, test is null ? items : null, test is null ? run.Iterate(items) : Chosen(run, scope, run.Iterate(items)), depth);
        var completed = false;
        while (loop.MoveNext())
        {
            var inner = new JinjaScope(scope);
            inner.Set("loop", loop);
            Assign(run, inner, target, loop.Current);
            var flow = ExecuteAll(body, run, inner);
            if (flow == JinjaFlow.Break)
                break;
            // As Jinja compiles it: an iteration that ends early does not count for "else".
            completed |= flow == JinjaFlow.Next;
        }
        return completed ? JinjaFlow.Next : ExecuteAll(otherwise, run, new JinjaScope(scope));
    }

    /// <summary>The items for which the loop's condition holds.</summary>
    private IEnumerable<object?> Chosen(JinjaRun run, JinjaScope scope, IEnumerable<object?> items)
    {
        foreach (var item in items)
        {
            var inner = new JinjaScope(scope);
            Assign(run, inner, target, item);
            if (JinjaValue.IsTrue(test!.Evaluate(run, inner)))
                yield return item;
        }
    }
}

/// <summary>The variable "loop".</summary>
internal sealed class JinjaLoop(JinjaRun run, JinjaFor statement, JinjaScope scope, object? source, IEnumerable<object?> items, int depth)
{
    private IEnumerator<object?> _items = items.GetEnumerator();
    private bool _ahead;
    private object? _next;
    private object? _previous;
    private int? _length;
    private object?[]? _changed;

    public object? Current { get; private set; }

    public int Index { get; private set; }

    /// <summary>Number of items; those of a lazy sequence are fetched for it.</summary>
    public int Length
    {
        get
        {
            if (_length is null && source is not null && source is not JinjaLoop && JinjaValue.TryLength(source) is { } known)
                _length = known;
            if (_length is null)
            {
                var rest = new List<object?>();
                while (_items.MoveNext())
                    rest.Add(_items.Current);
                _length = rest.Count + Index + (_ahead ? 1 : 0);
                _items = rest.GetEnumerator();
            }
            return _length.Value;
        }
    }

    private bool Peek()
    {
        if (!_ahead && _items.MoveNext())
            (_ahead, _next) = (true, _items.Current);
        return _ahead;
    }

    public bool MoveNext()
    {
        if (!Peek())
            return false;
        (_previous, Current, _ahead) = (Current, _next, false);
        Index++;
        return true;
    }

    /// <summary>The items not yet reached, with the loop moving along.</summary>
    public IEnumerable<object?> Rest()
    {
        while (MoveNext())
            yield return new JinjaTuple([Current, this]);
    }

    public string Recurse(JinjaArguments arguments) => statement.Recurse(run, scope, arguments.Bind("loop", 1, "iterable")[0], depth + 1);

    public object? Attribute(string name) => name switch
    {
        "index" => (System.Numerics.BigInteger)Index,
        "index0" => (System.Numerics.BigInteger)(Index - 1),
        "revindex" => (System.Numerics.BigInteger)(Length - Index + 1),
        "revindex0" => (System.Numerics.BigInteger)(Length - Index),
        "first" => Index == 1,
        "last" => !Peek(),
        "length" => (System.Numerics.BigInteger)Length,
        "depth" => (System.Numerics.BigInteger)(depth + 1),
        "depth0" => (System.Numerics.BigInteger)depth,
        "previtem" => Index == 1 ? new JinjaUndefined("UndefinedError: there is no previous item") : _previous,
        "nextitem" => Peek() ? _next : new JinjaUndefined("UndefinedError: there is no next item"),
        "cycle" => new JinjaFunction(name, (_, arguments) => arguments.Positional.Length > 0
            ? arguments.Positional[(Index - 1) % arguments.Positional.Length] : throw new JinjaError("TypeError: no items for cycling given")),
        "changed" => new JinjaFunction(name, (_, arguments) => Changed(arguments.Positional)),
        _ => null,
    };

    private bool Changed(object?[] values)
    {
        if (_changed is not null && run.Equal(new JinjaTuple(_changed), new JinjaTuple(values)))
            return false;
        _changed = values;
        return true;
    }
}

internal sealed class JinjaSet(int line, JinjaExpression target, JinjaExpression value) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        Assign(run, scope, target, value.Evaluate(run, scope));
        return JinjaFlow.Next;
    }
}

/// <summary>{% set x | filter %}…{% endset %}, or {% filter f %}…{% endfilter %} where there is no target.</summary>
internal sealed class JinjaCaptured(int line, JinjaExpression? target, IReadOnlyList<JinjaFilterCall> filters, IReadOnlyList<JinjaStatement> body) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        var inner = new JinjaScope(scope);
        object? value = Capture(run, inner, body, out var flow);
        if (flow != JinjaFlow.Next)
            return flow;
        foreach (var filter in filters)
            value = filter.Apply(run, inner, value);
        if (target is not null)
            Assign(run, scope, target, value);
        else
            run.Write(run.Str(value));
        return JinjaFlow.Next;
    }
}

/// <summary>{% with a = 1 %}, and with no variables any body that has its own scope (blocks, generation).</summary>
internal sealed class JinjaWith(
    int line, IReadOnlyList<(JinjaExpression Target, JinjaExpression Value)> variables, IReadOnlyList<JinjaStatement> body, bool fromRoot = false) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        var outer = scope;
        // A block that is not "scoped" sees the template's own variables, not those of the loop around it: the root is the
        // scope below the one of the caller's variables.
        while (fromRoot && outer.Parent?.Parent is not null)
            outer = outer.Parent;
        var inner = new JinjaScope(outer);
        foreach (var (target, value) in variables)
            Assign(run, inner, target, value.Evaluate(run, scope));
        return ExecuteAll(body, run, inner);
    }
}

/// <summary>include, import, from and extends: they need other templates, and a model has one.</summary>
internal sealed class JinjaNeedsTemplates(int line, string tag) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope) =>
        throw new JinjaError($"TypeError: {{% {tag} %}} needs another template, and a chat template has none to load");
}

internal sealed record JinjaParameter(string Name, JinjaExpression? Default);

/// <summary>A macro's parameters and body; which of the special names its body uses decides what it accepts.</summary>
internal sealed record JinjaSignature(string Name, IReadOnlyList<JinjaParameter> Parameters, IReadOnlySet<string> Special, IReadOnlyList<JinjaStatement> Body);

internal sealed class JinjaMacroDefinition(int line, JinjaSignature signature) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        scope.Set(signature.Name, new JinjaMacro(signature, scope));
        return JinjaFlow.Next;
    }
}

/// <summary>{% call(a) macro(…) %}…{% endcall %}: the body is the macro "caller" of the called one.</summary>
internal sealed class JinjaCallBlock(int line, JinjaSignature signature, JinjaCall call) : JinjaStatement(line)
{
    public override JinjaFlow Execute(JinjaRun run, JinjaScope scope)
    {
        run.Write(run.Str(call.With(run, scope, new JinjaMacro(signature, scope))));
        return JinjaFlow.Next;
    }
}

/// <summary>A macro bound to the variables around its definition.</summary>
internal sealed class JinjaMacro(JinjaSignature signature, JinjaScope scope) : JinjaCallable(signature.Name)
{
    public JinjaSignature Signature => signature;

    public override object? Call(JinjaRun run, JinjaArguments arguments)
    {
        var parameters = signature.Parameters;
        var inner = new JinjaScope(scope);
        var given = new object?[parameters.Count];
        Array.Fill(given, JinjaArguments.Missing);
        Array.Copy(arguments.Positional, given, Math.Min(given.Length, arguments.Positional.Length));
        var extra = new JinjaDict();
        object? caller = JinjaArguments.Missing;
        foreach (var (name, value) in arguments.Named)
        {
            var i = 0;
            while (i < parameters.Count && parameters[i].Name != name)
                i++;
            if (i < parameters.Count && ReferenceEquals(given[i], JinjaArguments.Missing))
                given[i] = value;
            else if (name == "caller" && signature.Special.Contains("caller"))
                caller = value;
            else if (i < parameters.Count)
                throw new JinjaError($"TypeError: macro '{Name}' got multiple values for argument '{name}'");
            else
                extra[name] = value;
        }
        if (extra.Count > 0 && !signature.Special.Contains("kwargs"))
            throw new JinjaError(extra.At(0).Key is "caller"
                ? $"TypeError: macro '{Name}' was invoked with a call block but does not use 'caller'"
                : $"TypeError: macro '{Name}' takes no keyword argument {JinjaValue.BriefRepr(extra.At(0).Key)}");
        if (arguments.Positional.Length > parameters.Count && !signature.Special.Contains("varargs"))
            throw new JinjaError($"TypeError: macro '{Name}' takes not more than {parameters.Count} argument(s)");
        if (signature.Special.Contains("caller") && !parameters.Any(p => p.Name == "caller"))
            inner.Set("caller", ReferenceEquals(caller, JinjaArguments.Missing) ? new JinjaUndefined("UndefinedError: No caller defined") : caller);
        if (signature.Special.Contains("kwargs"))
            inner.Set("kwargs", extra);
        if (signature.Special.Contains("varargs"))
            inner.Set("varargs", new JinjaTuple(arguments.Positional.Skip(parameters.Count).ToArray()));
        return run.Nested(() =>
        {
            for (var i = 0; i < parameters.Count; i++)
                inner.Set(parameters[i].Name, !ReferenceEquals(given[i], JinjaArguments.Missing) ? given[i]
                    : parameters[i].Default is { } fallback ? fallback.Evaluate(run, inner)
                    : new JinjaUndefined($"UndefinedError: parameter '{parameters[i].Name}' was not provided"));
            return run.Capture(() => ExecuteAll(run, inner));
        });
    }

    private void ExecuteAll(JinjaRun run, JinjaScope inner) => JinjaStatement.ExecuteAll(signature.Body, run, inner);
}
