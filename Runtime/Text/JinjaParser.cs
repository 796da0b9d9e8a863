using System.Runtime.CompilerServices;
using static Trimtab.Text.JinjaTokenKind;

namespace Trimtab.Text;

/// <summary>Reads a template's statements; the expressions are in the other part. The grammar is Jinja 3.1's with the loopcontrols extension and
/// transformers' {% generation %}.</summary>
internal sealed partial class JinjaParser
{
    private static readonly string[] SpecialNames = ["caller", "kwargs", "varargs"];
    private static readonly string[] Reserved = ["true", "false", "none", "True", "False", "None"];

    private readonly List<JinjaToken> _tokens;

    /// <summary>The special names used in each macro around the current position.</summary>
    private readonly Stack<HashSet<string>> _macros = new();
    private int _position;
    private int _loops;

    /// <summary>Within a condition: an unknown filter or test is an error only if it is reached, as in Jinja.</summary>
    private int _conditions;

    private JinjaParser(List<JinjaToken> tokens) => _tokens = tokens;

    public static IReadOnlyList<JinjaStatement> Parse(string source)
    {
        var parser = new JinjaParser(JinjaLexer.Tokenize(source));
        return parser.Body([]);
    }

    private JinjaToken Current => _tokens[_position];

    private JinjaToken Next() => Current.Kind == End ? Current : _tokens[_position++];

    private JinjaToken Look() => _tokens[Math.Min(_position + 1, _tokens.Count - 1)];

    private bool Is(JinjaTokenKind kind, string text) => Current.Kind == kind && Current.Text == text;

    private bool IsOperator(string text) => Is(Operator, text);

    private bool Skip(JinjaTokenKind kind, string text)
    {
        if (!Is(kind, text))
            return false;
        _position++;
        return true;
    }

    private JinjaToken Expect(JinjaTokenKind kind, string? text = null)
    {
        if (Current.Kind != kind || text is not null && Current.Text != text)
            throw Unexpected(text ?? (kind == Name ? "a name" : new JinjaToken(kind, "", null, 0).Description));
        return Next();
    }

    private JinjaError Unexpected(string expected) => new($"unexpected {Current.Description}, expected {expected}", Current.Line);

    private static void Guard()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("the template is nested too deeply");
    }

    /// <summary>Statements until one of the end tags, whose name is then the current token; none means the end of the template.</summary>
    private List<JinjaStatement> Body(ReadOnlySpan<string> ends)
    {
        Guard();
        var body = new List<JinjaStatement>();
        while (true)
            switch (Current.Kind)
            {
                case Data:
                    body.Add(new JinjaData(Current.Line, Next().Text));
                    break;
                case VariableBegin:
                    var line = Next().Line;
                    body.Add(new JinjaOutput(line, TupleExpression()));
                    Expect(VariableEnd);
                    break;
                case BlockBegin:
                    Next();
                    if (Current.Kind == Name && ends.Contains(Current.Text))
                        return body;
                    body.AddRange(Statement(ends));
                    Expect(BlockEnd);
                    break;
                default:
                    if (ends.Length > 0)
                        throw new JinjaError($"unexpected end of template, expected {{% {string.Join(" %} or {% ", ends.ToArray())} %}}", Current.Line);
                    return body;
            }
    }

    /// <summary>The body of a statement up to one of its end tags.</summary>
    private List<JinjaStatement> Block(params ReadOnlySpan<string> ends)
    {
        Skip(Operator, ":");
        Expect(BlockEnd);
        return Body(ends);
    }

    /// <summary>A body that is its own function in Jinja: loops and conditions around it do not count within.</summary>
    private List<JinjaStatement> Function(string end, bool loop = false)
    {
        var (loops, conditions) = (_loops, _conditions);
        (_loops, _conditions) = (loop ? loops : 0, 0);
        var body = Block(end);
        Next();
        (_loops, _conditions) = (loops, conditions);
        return body;
    }

    private IEnumerable<JinjaStatement> Statement(ReadOnlySpan<string> ends)
    {
        var token = Current;
        if (token.Kind != Name)
            throw Unexpected("a tag name");
        if (token.Text == "print")
            return Print();
        Next();
        return
        [
            token.Text switch
            {
                "if" => If(token.Line),
                "for" => For(token.Line),
                "set" => Set(token.Line),
                "macro" => Macro(token.Line),
                "call" => CallBlock(token.Line),
                "filter" => FilterBlock(token.Line),
                "with" => With(token.Line),
                "block" => NamedBlock(token.Line),
                "generation" => new JinjaWith(token.Line, [], Function("endgeneration")),
                "autoescape" => Autoescape(token.Line),
                "break" or "continue" => _loops > 0
                    ? new JinjaJump(token.Line, token.Text == "break" ? JinjaFlow.Break : JinjaFlow.Continue)
                    : throw new JinjaError($"{{% {token.Text} %}} stands outside a loop", token.Line),
                "include" or "import" or "from" or "extends" => NeedsTemplates(token),
                _ => throw new JinjaError($"unknown tag '{token.Text}'" + (ends.Length > 0 ? $"; the innermost open block expects {string.Join(" or ", ends.ToArray())}" : ""), token.Line),
            },
        ];
    }

    private List<JinjaStatement> Print()
    {
        Next();
        var outputs = new List<JinjaStatement>();
        while (Current.Kind is not (BlockEnd or End))
        {
            if (outputs.Count > 0)
                Expect(Operator, ",");
            outputs.Add(new JinjaOutput(Current.Line, Expression()));
        }
        return outputs;
    }

    private JinjaIf If(int line)
    {
        _conditions++;
        var branches = new List<(JinjaExpression, IReadOnlyList<JinjaStatement>)>();
        IReadOnlyList<JinjaStatement> otherwise = [];
        while (true)
        {
            var test = TupleExpression(conditional: false);
            branches.Add((test, Block("elif", "else", "endif")));
            var end = Next().Text;
            if (end == "elif")
                continue;
            if (end == "else")
            {
                otherwise = Block("endif");
                Next();
            }
            _conditions--;
            return new JinjaIf(line, branches, otherwise);
        }
    }

    private JinjaFor For(int line)
    {
        var target = Target("in");
        if (Names(target).Contains("loop"))
            throw new JinjaError("the variable 'loop' cannot be a loop's target", line);
        Expect(Name, "in");
        var items = TupleExpression(conditional: false, end: "recursive");
        var test = Skip(Name, "if") ? Expression() : null;
        var recursive = Skip(Name, "recursive");
        var conditions = _conditions;
        _conditions = 0;
        _loops++;
        var body = Block("endfor", "else");
        _loops--;
        IReadOnlyList<JinjaStatement> otherwise = [];
        if (Next().Text == "else")
        {
            otherwise = Block("endfor");
            Next();
        }
        _conditions = conditions;
        return new JinjaFor(line, target, items, test, recursive, body, otherwise);
    }

    private static IEnumerable<string> Names(JinjaExpression target) => target switch
    {
        JinjaName name => [name.Name],
        JinjaSequence tuple => tuple.Items.SelectMany(Names),
        _ => [],
    };

    private JinjaStatement Set(int line)
    {
        var target = Target(null, withNamespace: true);
        if (Skip(Operator, "="))
            return new JinjaSet(line, target, TupleExpression());
        var filters = Filters();
        return new JinjaCaptured(line, target, filters, Function("endset", loop: true));
    }

    private List<JinjaFilterCall> Filters()
    {
        var filters = new List<JinjaFilterCall>();
        while (Skip(Operator, "|"))
            filters.Add(Filter());
        return filters;
    }

    private JinjaCaptured FilterBlock(int line)
    {
        List<JinjaFilterCall> filters = [Filter(), .. Filters()];
        return new JinjaCaptured(line, null, filters, Function("endfilter", loop: true));
    }

    private JinjaMacroDefinition Macro(int line) => new(line, Signature(Expect(Name).Text, "endmacro", Parameters()));

    private JinjaCallBlock CallBlock(int line)
    {
        var parameters = IsOperator("(") ? Parameters() : [];
        if (Expression() is not JinjaCall call)
            throw new JinjaError("{% call %} expects the call of a macro", line);
        return new JinjaCallBlock(line, Signature("caller", "endcall", parameters), call);
    }

    private JinjaSignature Signature(string name, string end, List<JinjaParameter> parameters)
    {
        _macros.Push([]);
        var body = Function(end);
        return new JinjaSignature(name, parameters, _macros.Pop(), body);
    }

    private List<JinjaParameter> Parameters()
    {
        Expect(Operator, "(");
        var parameters = new List<JinjaParameter>();
        while (!IsOperator(")"))
        {
            if (parameters.Count > 0)
                Expect(Operator, ",");
            var name = Expect(Name);
            if (Reserved.Contains(name.Text) || parameters.Exists(p => p.Name == name.Text))
                throw new JinjaError($"'{name.Text}' cannot be a parameter here", name.Line);
            var value = Skip(Operator, "=") ? Expression() : null;
            if (value is null && parameters.Count > 0 && parameters[^1].Default is not null)
                throw new JinjaError("non-default argument follows default argument", name.Line);
            parameters.Add(new JinjaParameter(name.Text, value));
        }
        Next();
        return parameters;
    }

    private JinjaWith With(int line)
    {
        var variables = new List<(JinjaExpression, JinjaExpression)>();
        while (Current.Kind is not (BlockEnd or End))
        {
            if (variables.Count > 0)
                Expect(Operator, ",");
            var target = Target(null);
            Expect(Operator, "=");
            variables.Add((target, Expression()));
        }
        return new JinjaWith(line, variables, Function("endwith", loop: true));
    }

    private JinjaWith NamedBlock(int line)
    {
        var name = Expect(Name).Text;
        var scoped = Skip(Name, "scoped");
        Skip(Name, "required");
        var body = Function("endblock");
        Skip(Name, name);
        return new JinjaWith(line, [], body, fromRoot: !scoped);
    }

    private JinjaWith Autoescape(int line)
    {
        if (Expression() is not JinjaConstant { Value: false })
            throw new JinjaError("{% autoescape %} is supported with the value false only: a prompt is not HTML", line);
        return new JinjaWith(line, [], Function("endautoescape", loop: true));
    }

    private JinjaNeedsTemplates NeedsTemplates(JinjaToken tag)
    {
        while (Current.Kind is not (BlockEnd or End))
            Next();
        return new JinjaNeedsTemplates(tag.Line, tag.Text);
    }
}
