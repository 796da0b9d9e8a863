using System.Numerics;
using static Trimtab.Text.JinjaTokenKind;

namespace Trimtab.Text;

internal sealed partial class JinjaParser
{
    private static readonly string[] Comparisons = ["==", "!=", "<", "<=", ">", ">="];

    /// <summary>What may be assigned to: names, tuples of them and, where allowed, namespace attributes.</summary>
    private JinjaExpression Target(string? end, bool withNamespace = false)
    {
        var line = Current.Line;
        var target = Commas(end, explicitParentheses: false, () => Primary(withNamespace));
        Check(target);
        return target;

        void Check(JinjaExpression part)
        {
            if (part is JinjaSequence { IsTuple: true } tuple)
                foreach (var item in tuple.Items)
                    Check(item);
            else if (part is not (JinjaName or JinjaNamespaceTarget))
                throw new JinjaError("only names, and tuples of names, can be assigned to", line);
        }
    }

    /// <summary>An expression, or a tuple of several with commas between.</summary>
    private JinjaExpression TupleExpression(bool conditional = true, string? end = null, bool explicitParentheses = false) =>
        Commas(end, explicitParentheses, conditional ? Expression : Or);

    private JinjaExpression Commas(string? end, bool explicitParentheses, Func<JinjaExpression> item)
    {
        var line = Current.Line;
        var items = new List<JinjaExpression>();
        var tuple = false;
        while (true)
        {
            if (items.Count > 0)
                Expect(Operator, ",");
            if (Current.Kind is VariableEnd or BlockEnd || IsOperator(")") || end is not null && Is(Name, end))
                break;
            items.Add(item());
            if (!IsOperator(","))
                break;
            tuple = true;
        }
        if (!tuple && items.Count == 1)
            return items[0];
        return tuple || explicitParentheses ? new JinjaSequence(line, items, tuple: true) : throw Unexpected("an expression");
    }

    private JinjaExpression Expression()
    {
        Guard();
        var line = Current.Line;
        var value = Or();
        while (Skip(Name, "if"))
        {
            var test = Or();
            value = new JinjaConditional(line, test, value, Skip(Name, "else") ? Expression() : null);
        }
        return value;
    }

    private JinjaExpression Or() => Binary(And, Name, "or");

    private JinjaExpression And() => Binary(Not, Name, "and");

    private JinjaExpression Binary(Func<JinjaExpression> operand, JinjaTokenKind kind, params string[] operations)
    {
        var left = operand();
        while (Current.Kind == kind && operations.Contains(Current.Text))
        {
            var operation = Next();
            left = new JinjaBinary(operation.Line, operation.Text, left, operand());
        }
        return left;
    }

    private JinjaExpression Not()
    {
        Guard();
        var line = Current.Line;
        return Skip(Name, "not") ? new JinjaUnary(line, "not", Not()) : Comparison();
    }

    private JinjaExpression Comparison()
    {
        var line = Current.Line;
        var first = Sum();
        var rest = new List<(string, JinjaExpression)>();
        while (true)
        {
            string operation;
            if (Current.Kind == Operator && Comparisons.Contains(Current.Text))
                operation = Next().Text;
            else if (Skip(Name, "in"))
                operation = "in";
            else if (Is(Name, "not") && Look() is { Kind: Name, Text: "in" })
            {
                _position += 2;
                operation = "not in";
            }
            else
                break;
            rest.Add((operation, Sum()));
        }
        return rest.Count == 0 ? first : new JinjaComparison(line, first, rest);
    }

    private JinjaExpression Sum() => Binary(Concatenation, Operator, "+", "-");

    private JinjaExpression Concatenation()
    {
        var line = Current.Line;
        var parts = new List<JinjaExpression> { Product() };
        while (Skip(Operator, "~"))
            parts.Add(Product());
        return parts.Count == 1 ? parts[0] : new JinjaConcatenation(line, parts);
    }

    private JinjaExpression Product() => Binary(Power, Operator, "*", "/", "//", "%");

    private JinjaExpression Power() => Binary(() => Unary(), Operator, "**");

    private JinjaExpression Unary(bool filtered = true)
    {
        Guard();
        var line = Current.Line;
        var value = Skip(Operator, "-") ? new JinjaUnary(line, "-", Unary(false))
            : Skip(Operator, "+") ? new JinjaUnary(line, "+", Unary(false))
            : Primary();
        value = Postfix(value);
        while (filtered)
            if (Skip(Operator, "|"))
                value = new JinjaFiltered(value, Filter());
            else if (Skip(Name, "is"))
                value = Test(value);
            else if (IsOperator("("))
                value = new JinjaCall(Current.Line, value, Arguments());
            else
                break;
        return value;
    }

    private JinjaExpression Postfix(JinjaExpression value)
    {
        while (true)
        {
            var line = Current.Line;
            if (Skip(Operator, "."))
            {
                var name = Next();
                value = name.Kind switch
                {
                    Name => new JinjaAttribute(line, value, name.Text),
                    Integer => new JinjaSubscript(line, value, new JinjaConstant(line, name.Number)),
                    _ => throw new JinjaError($"unexpected {name.Description} after '.', expected a name or a number", name.Line),
                };
            }
            else if (Skip(Operator, "["))
            {
                var keys = new List<JinjaExpression>();
                while (!IsOperator("]"))
                {
                    if (keys.Count > 0)
                        Expect(Operator, ",");
                    keys.Add(Subscript());
                }
                Next();
                if (keys.Count > 1 && keys.Exists(k => k is JinjaSlice))
                    throw new JinjaError("a subscript of several slices is not supported", line);
                value = new JinjaSubscript(line, value, keys.Count == 1 ? keys[0] : new JinjaSequence(line, keys, tuple: true));
            }
            else if (IsOperator("("))
                value = new JinjaCall(line, value, Arguments());
            else
                return value;
        }
    }

    private JinjaExpression Subscript()
    {
        var line = Current.Line;
        JinjaExpression? start = null;
        if (!IsOperator(":"))
        {
            start = Expression();
            if (!IsOperator(":"))
                return start;
        }
        Next();
        var stop = IsOperator(":") || IsOperator("]") || IsOperator(",") ? null : Expression();
        var step = Skip(Operator, ":") && !IsOperator("]") && !IsOperator(",") ? Expression() : null;
        return new JinjaSlice(line, start, stop, step);
    }

    private JinjaExpression Primary(bool withNamespace = false)
    {
        var token = Next();
        switch (token.Kind)
        {
            case Name when token.Text is "true" or "True" or "false" or "False":
                return new JinjaConstant(token.Line, token.Text is "true" or "True");
            case Name when token.Text is "none" or "None":
                return new JinjaConstant(token.Line, null);
            case Name when withNamespace && Skip(Operator, "."):
                return new JinjaNamespaceTarget(token.Line, token.Text, Expect(Name).Text);
            case Name:
                if (SpecialNames.Contains(token.Text))
                    foreach (var macro in _macros)
                        macro.Add(token.Text);
                return new JinjaName(token.Line, token.Text);
            case Literal:
                var parts = new List<string> { token.Text };
                while (Current.Kind == Literal)
                    parts.Add(Next().Text);
                return new JinjaConstant(token.Line, string.Concat(parts));
            case Integer or Float:
                return new JinjaConstant(token.Line, token.Number);
            case Operator when token.Text == "(":
                var inner = TupleExpression(explicitParentheses: true);
                Expect(Operator, ")");
                return inner;
            case Operator when token.Text == "[":
                var items = new List<JinjaExpression>();
                Items("]", () => items.Add(Expression()));
                return new JinjaSequence(token.Line, items, tuple: false);
            case Operator when token.Text == "{":
                var pairs = new List<(JinjaExpression, JinjaExpression)>();
                Items("}", () =>
                {
                    var key = Expression();
                    Expect(Operator, ":");
                    pairs.Add((key, Expression()));
                });
                return new JinjaDictLiteral(token.Line, pairs);
            default:
                throw new JinjaError($"unexpected {token.Description}, expected an expression", token.Line);
        }
    }

    /// <summary>Items with commas between them and perhaps one after the last.</summary>
    private void Items(string end, Action item)
    {
        for (var first = true; !IsOperator(end); first = false)
        {
            if (!first)
                Expect(Operator, ",");
            if (IsOperator(end))
                break;
            item();
        }
        Next();
    }

    private JinjaCallArguments Arguments()
    {
        var open = Expect(Operator, "(");
        var positional = new List<JinjaExpression>();
        var named = new List<(string, JinjaExpression)>();
        JinjaExpression? unpacked = null, unpackedNamed = null;
        void Ensure(bool valid)
        {
            if (!valid)
                throw new JinjaError("invalid order of arguments in a call", open.Line);
        }
        Items(")", () =>
        {
            if (Skip(Operator, "*"))
            {
                Ensure(unpacked is null && unpackedNamed is null);
                unpacked = Expression();
            }
            else if (Skip(Operator, "**"))
            {
                Ensure(unpackedNamed is null);
                unpackedNamed = Expression();
            }
            else if (Current.Kind == Name && Look() is { Kind: Operator, Text: "=" })
            {
                Ensure(unpackedNamed is null);
                var name = Next().Text;
                Next();
                if (named.Exists(n => n.Item1 == name))
                    throw new JinjaError($"keyword argument repeated: {name}", open.Line);
                named.Add((name, Expression()));
            }
            else
            {
                Ensure(unpacked is null && unpackedNamed is null && named.Count == 0);
                positional.Add(Expression());
            }
        });
        return new JinjaCallArguments(positional, named, unpacked, unpackedNamed);
    }

    private JinjaFilterCall Filter()
    {
        var line = Current.Line;
        var name = DottedName();
        if (_conditions == 0 && !JinjaFilters.Exists(name))
            throw new JinjaError($"TemplateAssertionError: No filter named '{name}'.", line);
        return new JinjaFilterCall(line, name, IsOperator("(") ? Arguments() : JinjaCallArguments.None);
    }

    private JinjaExpression Test(JinjaExpression value)
    {
        var line = Current.Line;
        var negated = Skip(Name, "not");
        var name = DottedName();
        if (_conditions == 0 && !JinjaTests.Exists(name))
            throw new JinjaError($"TemplateAssertionError: No test named '{name}'.", line);
        var arguments = JinjaCallArguments.None;
        if (IsOperator("("))
            arguments = Arguments();
        else if (Current.Kind is Name or Literal or Integer or Float && !(Current.Kind == Name && Current.Text is "else" or "or" or "and") || IsOperator("[") || IsOperator("{"))
        {
            if (Is(Name, "is"))
                throw new JinjaError("You cannot chain multiple tests with is", line);
            arguments = new JinjaCallArguments([Postfix(Primary())], [], null, null);
        }
        JinjaExpression test = new JinjaTested(line, value, name, arguments);
        return negated ? new JinjaUnary(line, "not", test) : test;
    }

    private string DottedName()
    {
        var name = Expect(Name).Text;
        while (Skip(Operator, "."))
            name += "." + Expect(Name).Text;
        return name;
    }
}
