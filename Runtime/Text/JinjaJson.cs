using System.Globalization;
using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Trimtab.Text;

/// <summary>JSON in both directions: messages into template values, and the filter tojson as transformers defines it (Python's json.dumps).</summary>
internal sealed class JinjaJson
{
    private readonly JinjaRun _run;
    private readonly StringBuilder _output = new();
    private readonly bool _ascii;
    private readonly string? _indent;
    private readonly string _itemSeparator;
    private readonly string _keySeparator;
    private readonly bool _sorted;

    private JinjaJson(JinjaRun run, object?[] options)
    {
        _run = run;
        _ascii = JinjaRun.Bool(options[0], false);
        _indent = JinjaRun.Or(options[1], null) switch
        {
            null => null,
            string text => text,
            var count => new string(' ', Math.Clamp(JinjaRun.Int(count), 0, 1000)),
        };
        _itemSeparator = _indent is null ? ", " : ",";
        _keySeparator = ": ";
        if (JinjaRun.Or(options[2], null) is { } separators)
        {
            var pair = run.List(separators);
            if (pair.Count != 2 || JinjaValue.Text(pair[0]) is not { } item || JinjaValue.Text(pair[1]) is not { } key)
                throw new JinjaError("TypeError: tojson's separators must be two strings");
            (_itemSeparator, _keySeparator) = (item, key);
        }
        _sorted = JinjaRun.Bool(options[3], false);
    }

    /// <summary>tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False).</summary>
    public static string Write(JinjaRun run, object? value, JinjaArguments arguments)
    {
        var json = new JinjaJson(run, arguments.Bind("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys"));
        json.Write(value, 0);
        return run.Produced(json._output.ToString());
    }

    private void Write(object? value, int depth)
    {
        _run.Spend(1);
        if (_output.Length > _run.Options.MaxOutput)
            _run.Produce(_output.Length);
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new JinjaError("a value for tojson is nested too deeply");
        switch (value)
        {
            case string or JinjaMarkup:
                WriteText(JinjaValue.Text(value)!);
                break;
            case null or bool or BigInteger or double:
                _output.Append(Scalar(value));
                break;
            case List<object?> or JinjaTuple:
                var items = JinjaValue.Sequence(value)!;
                Open('[', items.Count == 0);
                for (var i = 0; i < items.Count; i++)
                {
                    Separate(i, depth + 1);
                    Write(items[i], depth + 1);
                }
                Close(']', items.Count == 0, depth);
                break;
            case JinjaDict dict:
                Open('{', dict.Count == 0);
                var members = Enumerable.Range(0, dict.Count).Select(dict.At).ToList();
                if (_sorted)
                    members = JinjaFilters.Sorted(_run, members, m => m.Key, reverse: false);
                for (var i = 0; i < members.Count; i++)
                {
                    Separate(i, depth + 1);
                    WriteText(JinjaValue.Text(members[i].Key) ?? (members[i].Key is null or bool or BigInteger or double ? Scalar(members[i].Key)
                        : throw new JinjaError($"TypeError: keys must be str, int, float, bool or None, not {JinjaValue.TypeName(members[i].Key)}")));
                    _output.Append(_keySeparator);
                    Write(members[i].Value, depth + 1);
                }
                Close('}', dict.Count == 0, depth);
                break;
            default:
                throw new JinjaError($"TypeError: Object of type {JinjaValue.TypeName(value)} is not JSON serializable");
        }
    }

    private static string Scalar(object? value) => value switch
    {
        null => "null",
        bool b => b ? "true" : "false",
        BigInteger i => i.ToString(CultureInfo.InvariantCulture),
        double d => double.IsFinite(d) ? JinjaNumbers.Repr(d) : double.IsNaN(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity",
        _ => "",
    };

    private void Open(char bracket, bool empty) => _output.Append(bracket).Append(empty ? bracket == '[' ? "]" : "}" : "");

    private void Separate(int index, int depth)
    {
        if (index > 0)
            _output.Append(_itemSeparator);
        NewLine(depth);
    }

    private void Close(char bracket, bool empty, int depth)
    {
        if (empty)
            return;
        NewLine(depth);
        _output.Append(bracket);
    }

    private void NewLine(int depth)
    {
        if (_indent is null)
            return;
        _run.Produce(_output.Length / 64 + (long)_indent.Length * depth);
        _output.Append('\n');
        for (var i = 0; i < depth; i++)
            _output.Append(_indent);
    }

    private void WriteText(string text)
    {
        _run.Produce((long)_output.Length + text.Length);
        _output.Append('"');
        foreach (var c in text)
            _ = c switch
            {
                '"' => _output.Append("\\\""),
                '\\' => _output.Append("\\\\"),
                '\n' => _output.Append("\\n"),
                '\r' => _output.Append("\\r"),
                '\t' => _output.Append("\\t"),
                '\f' => _output.Append("\\f"),
                '\b' => _output.Append("\\b"),
                < ' ' => _output.Append($"\\u{(int)c:x4}"),
                > '~' when _ascii => _output.Append($"\\u{(int)c:x4}"),
                _ => _output.Append(c),
            };
        _output.Append('"');
    }

    /// <summary>A host's value as a template's: JSON, strings, numbers, booleans, lists and dictionaries of them.</summary>
    public static object? Read(object? value, string name)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new ArgumentException($"the value of '{name}' is nested too deeply", nameof(value));
        switch (value)
        {
            case null: return null;
            case string or bool or double or BigInteger: return value;
            case int or long or short or byte or uint or ulong or ushort or sbyte: return BigInteger.Parse(Convert.ToString(value, CultureInfo.InvariantCulture)!, CultureInfo.InvariantCulture);
            case float f: return (double)f;
            case JsonElement element:
                try
                {
                    return Read(element);
                }
                catch (InvalidOperationException error)
                {
                    // System.Text.Json cannot give a string with half a surrogate pair ("\ud800").
                    throw new ArgumentException($"'{name}' holds text that is not valid Unicode: {error.Message}", nameof(value), error);
                }
            case JsonDocument document: return Read(document.RootElement, name);
            case JsonNode node:
                // Through the text: a node may hold any .NET value, and members twice.
                using (var document = JsonDocument.Parse(node.ToJsonString()))
                    return Read(document.RootElement, name);
            case IEnumerable<KeyValuePair<string, object?>> members:
                var dict = new JinjaDict();
                foreach (var (key, member) in members)
                    dict[key] = Read(member, key);
                return dict;
            case System.Collections.IEnumerable items:
                var list = new List<object?>();
                foreach (var item in items)
                    list.Add(Read(item, name));
                return list;
            default:
                throw new ArgumentException($"the variable '{name}' has the type {value.GetType().Name}; expected JSON, a string, a number, a boolean, a list or a dictionary", nameof(value));
        }
    }

    private static object? Read(JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                var dict = new JinjaDict();
                foreach (var member in element.EnumerateObject())
                    dict[member.Name] = Read(member.Value);
                return dict;
            case JsonValueKind.Array:
                var list = new List<object?>(element.GetArrayLength());
                foreach (var item in element.EnumerateArray())
                    list.Add(Read(item));
                return list;
            case JsonValueKind.String:
                return element.GetString();
            case JsonValueKind.Number:
                var text = element.GetRawText();
                return text.AsSpan().IndexOfAny('.', 'e', 'E') >= 0 || text.Length > 4300
                    ? double.Parse(text, CultureInfo.InvariantCulture) : BigInteger.Parse(text, CultureInfo.InvariantCulture);
            case JsonValueKind.True:
                return true;
            case JsonValueKind.False:
                return false;
            default:
                return null;
        }
    }
}
