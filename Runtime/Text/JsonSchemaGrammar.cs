using System.Buffers;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using static Trimtab.Text.BytePattern;

namespace Trimtab.Text;

/// <summary>
/// A JSON Schema (draft 2020-12) as a grammar of the texts that satisfy it. Every text of the grammar is valid JSON and satisfies the schema; where a schema
/// allows several orders or spellings the grammar has one: members come in the schema's order, members that it does not name are left out, numbers have at most
/// 15 digits before the point, and values lie within each other at most 48 deep. A keyword that is not enforced is refused by name.
/// </summary>
internal sealed class JsonSchemaGrammar
{
    private const int Depth = 48, MostCount = 8192, MostDigits = 15;

    private static readonly HashSet<string> Annotations =
        ["title", "description", "default", "examples", "$schema", "$id", "$anchor", "$comment", "deprecated", "readOnly", "writeOnly", "$defs", "definitions", "strict"];

    private readonly JsonElement _root;
    private readonly List<(BytePattern Body, bool Counted)> _rules = [];
    private readonly Dictionary<string, Rule> _references = [];
    private readonly Rule _space, _character, _value;

    private JsonSchemaGrammar(JsonElement root)
    {
        _root = root;
        var (hex, rest) = (Any("0123456789abcdefABCDEF"), Range(0x80, 0xBF));
        // Little freedom in white space: a model must not be able to write nothing else for ever.
        _space = Add(Optional(new Choice(Literal(" "), new Sequence(Literal("\n"), new Repeat(Any(" \t"), 0, 16)))));
        _character = Add(new Choice(
            Set.Except("\"\\"),
            new Sequence(Range(0xC2, 0xDF), rest),
            new Sequence(Range(0xE0, 0xE0), Range(0xA0, 0xBF), rest),
            new Sequence(new Choice(Range(0xE1, 0xEC), Range(0xEE, 0xEF)), rest, rest),
            new Sequence(Range(0xED, 0xED), Range(0x80, 0x9F), rest),
            new Sequence(Range(0xF0, 0xF0), Range(0x90, 0xBF), rest, rest),
            new Sequence(Range(0xF1, 0xF3), rest, rest, rest),
            new Sequence(Range(0xF4, 0xF4), Range(0x80, 0x8F), rest, rest),
            new Sequence(Literal("\\"), Any("\"\\/bfnrt")),
            // A surrogate stands only in a pair.
            new Sequence(Literal("\\u"), Any("0123456789abcefABCEF"), hex, hex, hex),
            new Sequence(Literal("\\u"), Any("dD"), Any("01234567"), hex, hex),
            new Sequence(Literal("\\u"), Any("dD"), Any("89abAB"), hex, hex, Literal("\\u"), Any("dD"), Any("cdefCDEF"), hex, hex)));
        _value = Add(Nothing, counted: true);
        var anything = new Choice(
            List("{", new Sequence(Text(0, -1), _space, Literal(":"), _space, _value), 0, -1, "}"), List("[", _value, 0, -1, "]"),
            Text(0, -1), Number(null), Literal("true"), Literal("false"), Literal("null"));
        _rules[_value.Number] = (anything, true);
    }

    /// <summary>The grammar of a schema.</summary>
    /// <exception cref="FormatException">It asks for what is not enforced here, or for nothing that exists; the message names where.</exception>
    public static ByteGrammar Of(JsonElement schema)
    {
        var made = new JsonSchemaGrammar(schema);
        return made.Compile(made.Schema(schema, "#"));
    }

    /// <summary>The grammar of any JSON object.</summary>
    public static ByteGrammar OfObject()
    {
        var made = new JsonSchemaGrammar(default);
        return made.Compile(((Choice)made._rules[made._value.Number].Body).Options[0]);
    }

    private ByteGrammar Compile(BytePattern start)
    {
        try
        {
            return new(new Sequence(_space, start), _rules, Depth);
        }
        catch (FormatException error)
        {
            throw new FormatException($"the schema cannot be enforced: {error.Message}");
        }
    }

    private Rule Add(BytePattern body, bool counted = false)
    {
        _rules.Add((body, counted));
        return new(_rules.Count - 1);
    }

    private BytePattern Schema(JsonElement schema, string at)
    {
        if (schema.ValueKind == JsonValueKind.True)
            return _value;
        if (schema.ValueKind != JsonValueKind.Object)
            throw new FormatException($"{at} is {(schema.ValueKind == JsonValueKind.False ? "false, which nothing satisfies" : $"a JSON {schema.ValueKind}; expected a schema")}");
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new FormatException($"{at}: too many schemas refer to one another in a row");
        var known = new Keywords(schema, at);
        if (known.Take("$ref") is { } reference)
            return known.Done(Reference(reference, at));
        if (known.Take("const") is { } only)
            return known.Done(Constant(only), ignored: ["type"]);
        if (known.Take("enum") is { } values)
            return known.Done(OneOf(values, at, value => Constant(value)), ignored: ["type"]);
        if (known.Take("anyOf") is { } any)
            return known.Done(OneOf(any, $"{at}/anyOf", Schema));
        if (known.Take("oneOf") is { } one)
            return known.Done(Distinct(one, $"{at}/oneOf"));
        if (known.Take("allOf") is { } all)
            return all.ValueKind == JsonValueKind.Array && all.GetArrayLength() == 1
                ? known.Done(Schema(all[0], $"{at}/allOf/0"))
                : throw new FormatException($"{at}/allOf: expected exactly one schema; several at once are not enforced");
        var types = known.Take("type") is not { } type ? known.Implied() : type.ValueKind switch
        {
            JsonValueKind.String => [type.GetString()!],
            JsonValueKind.Array when type.GetArrayLength() > 0 && type.EnumerateArray().All(t => t.ValueKind == JsonValueKind.String) => [.. type.EnumerateArray().Select(t => t.GetString()!)],
            _ => throw new FormatException($"{at}/type: expected a name or a list of names"),
        };
        if (types.Length == 0)
            return known.Done(_value);
        // An integer is a number too.
        var names = types.Contains("number") ? types.Where(t => t != "integer").ToArray() : types;
        var options = names.Select(name => name switch
        {
            "null" => Literal("null"),
            "boolean" => new Choice(Literal("true"), Literal("false")),
            "integer" => Integer(known),
            "number" => Number(known),
            "string" => String(known),
            "array" => Array(known),
            "object" => Object(known),
            _ => throw new FormatException($"{at}/type: '{name}' is no type of JSON Schema"),
        }).ToArray();
        return known.Done(options.Length == 1 ? options[0] : new Choice(options), ignored: Keywords.OfOtherTypes(names));
    }

    private BytePattern Reference(JsonElement reference, string at)
    {
        var path = reference.ValueKind == JsonValueKind.String ? reference.GetString()! : "";
        if (path != "#" && !path.StartsWith("#/", StringComparison.Ordinal))
            throw new FormatException($"{at}/$ref: '{path}': expected a place in this schema, such as #/$defs/name");
        if (_references.TryGetValue(path, out var known))
            return known;
        var target = _root;
        foreach (var part in path.Split('/').Skip(1).Select(part => Uri.UnescapeDataString(part).Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal)))
        {
            if (target.ValueKind == JsonValueKind.Array && int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index < target.GetArrayLength())
                target = target[index];
            else if (target.ValueKind != JsonValueKind.Object || !target.TryGetProperty(part, out target))
                throw new FormatException($"{at}/$ref: there is no {path}");
        }
        var rule = Add(Nothing, counted: true);
        _references[path] = rule;
        _rules[rule.Number] = (Schema(target, path), true);
        return rule;
    }

    private static BytePattern OneOf(JsonElement list, string at, Func<JsonElement, BytePattern> make) => OneOf(list, at, (item, _) => make(item));

    private static BytePattern OneOf(JsonElement list, string at, Func<JsonElement, string, BytePattern> make)
    {
        if (list.ValueKind != JsonValueKind.Array || list.GetArrayLength() == 0)
            throw new FormatException($"{at}: expected a list that is not empty");
        return new Choice([.. list.EnumerateArray().Select((item, i) => make(item, $"{at}/{i}"))]);
    }

    /// <summary>oneOf, where no value can satisfy two of them: their types differ.</summary>
    private BytePattern Distinct(JsonElement list, string at)
    {
        var pattern = OneOf(list, at, Schema);
        var types = list.EnumerateArray().Select(item => item.ValueKind == JsonValueKind.Object && item.TryGetProperty("type", out var type) && type.ValueKind == JsonValueKind.String ? type.GetString() : null).ToList();
        return types.TrueForAll(type => type is not null) && types.Distinct().Count() == types.Count && !(types.Contains("integer") && types.Contains("number"))
            ? pattern
            : throw new FormatException($"{at}: enforced only where each has another type; anyOf says that any of them will do");
    }

    /// <summary>A value as a model would write it: nothing escaped that need not be.</summary>
    private static BytePattern Constant(JsonElement value) => Written(value.WriteTo);

    private static BytePattern Written(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(buffer, new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            write(writer);
        return Literal(Encoding.UTF8.GetString(buffer.WrittenSpan));
    }

    private BytePattern Text(int least, int most) => new Sequence(Literal("\""), new Repeat(_character, least, most), Literal("\""));

    /// <summary>Items with commas between, in brackets.</summary>
    private BytePattern List(string open, BytePattern item, int least, int most, string close)
    {
        var one = item is Rule ? item : Add(item);
        var more = Add(new Sequence(_space, Literal(","), _space, one));
        var some = new Sequence(one, new Repeat(more, Math.Max(0, least - 1), most < 0 ? -1 : most - 1));
        return new Sequence(Literal(open), _space, most == 0 ? Nothing : least == 0 ? Optional(some) : some, _space, Literal(close));
    }

    private BytePattern String(Keywords known)
    {
        var (least, most) = (known.Count("minLength") ?? 0, known.Count("maxLength") ?? -1);
        if (known.Take("format") is not { } format)
            return least <= most || most < 0 ? Text(least, most) : throw new FormatException($"{known.At}/minLength is {least}, above maxLength {most}");
        var (digit, two) = (Any("0123456789"), new Func<string, BytePattern>(AnyOf));
        BytePattern date = new Sequence(new Repeat(digit, 4, 4), Literal("-"), new Choice(
            new Sequence(two("01 03 05 07 08 10 12"), Literal("-"), Integers(1, 31, 2)),
            new Sequence(two("04 06 09 11"), Literal("-"), Integers(1, 30, 2)),
            new Sequence(Literal("02-"), Integers(1, 28, 2))));
        BytePattern minutes = new Sequence(Integers(0, 23, 2), Literal(":"), Integers(0, 59, 2));
        BytePattern time = new Sequence(minutes, Literal(":"), Integers(0, 59, 2), Optional(new Sequence(Literal("."), new Repeat(digit, 1, 6))), new Choice(Literal("Z"), new Sequence(Any("+-"), minutes)));
        BytePattern Hex(int count) => new Repeat(Any("0123456789abcdef"), count, count);
        BytePattern body = (format.ValueKind == JsonValueKind.String ? format.GetString() : null) switch
        {
            "date" => date,
            "time" => time,
            "date-time" => new Sequence(date, Literal("T"), time),
            "uuid" => new Sequence(Hex(8), Literal("-"), Hex(4), Literal("-"), Hex(4), Literal("-"), Hex(4), Literal("-"), Hex(12)),
            var other => throw new FormatException($"{known.At}/format: '{other}' is not enforced; date, time, date-time and uuid are"),
        };
        if (least > 0 || most >= 0)
            throw new FormatException($"{known.At}: a format and a length together are not enforced");
        return new Sequence(Literal("\""), body, Literal("\""));

        static BytePattern AnyOf(string words) => new Choice([.. words.Split(' ').Select(Literal)]);
    }

    private BytePattern Array(Keywords known)
    {
        var (least, most) = (known.Count("minItems") ?? 0, known.Count("maxItems") ?? -1);
        if (most >= 0 && least > most)
            throw new FormatException($"{known.At}/minItems is {least}, above maxItems {most}");
        return List("[", known.Take("items") is { } items ? Schema(items, $"{known.At}/items") : _value, least, most, "]");
    }

    private BytePattern Object(Keywords known)
    {
        var required = new HashSet<string>();
        if (known.Take("required") is { } list)
            required = list.ValueKind == JsonValueKind.Array && list.EnumerateArray().All(name => name.ValueKind == JsonValueKind.String)
                ? [.. list.EnumerateArray().Select(name => name.GetString()!)]
                : throw new FormatException($"{known.At}/required: expected a list of names");
        var additional = known.Take("additionalProperties");
        var members = new List<(BytePattern Member, bool Required)>();
        if (known.Take("properties") is { } properties)
        {
            if (properties.ValueKind != JsonValueKind.Object)
                throw new FormatException($"{known.At}/properties: expected an object");
            foreach (var property in properties.EnumerateObject())
            {
                var name = Written(writer => writer.WriteStringValue(property.Name));
                members.Add((Add(new Sequence(name, _space, Literal(":"), _space, Schema(property.Value, $"{known.At}/properties/{property.Name}"))), required.Remove(property.Name)));
            }
        }
        if (required.Count > 0)
            throw new FormatException($"{known.At}/required: '{required.First()}' is not among the properties");
        if (members.Count == 0)
            return additional is { ValueKind: JsonValueKind.False }
                ? new Sequence(Literal("{"), _space, Literal("}"))
                : List("{", new Sequence(Text(0, -1), _space, Literal(":"), _space, additional is { } values ? Schema(values, $"{known.At}/additionalProperties") : _value), 0, -1, "}");
        return new Sequence(Literal("{"), _space, Members(members), _space, Literal("}"));
    }

    /// <summary>Members in order, those that are not required at will: whichever comes first, then each of the later ones behind a comma.</summary>
    private BytePattern Members(List<(BytePattern Member, bool Required)> members)
    {
        var (rest, options) = (new BytePattern[members.Count + 1], new List<BytePattern>());
        rest[^1] = Nothing;
        for (var i = members.Count - 1; i >= 0; i--)
        {
            BytePattern member = new Sequence(_space, Literal(","), _space, members[i].Member);
            rest[i] = Add(new Sequence(members[i].Required ? member : Optional(member), rest[i + 1]));
        }
        for (var i = 0; i < members.Count; i++)
        {
            options.Add(new Sequence(members[i].Member, rest[i + 1]));
            if (members[i].Required)
                return new Choice(options);
        }
        return new Choice([.. options, Nothing]);
    }

    private static BytePattern Integer(Keywords known)
    {
        var (least, _, most, _) = known.Bounds(integers: true);
        return Whole(least, most) ?? throw new FormatException($"{known.At}: no integer of at most {MostDigits} digits lies within its bounds");
    }

    /// <summary>Integers from one bound to the other, or null where there are none.</summary>
    private static BytePattern? Whole(long least, long most)
    {
        var options = new List<BytePattern>();
        if (most >= 0 && least <= most)
            options.Add(Integers(Math.Max(0, least), most, 1));
        if (least < 0 && least <= most)
            options.Add(new Sequence(Literal("-"), Integers(Math.Max(1, -most), -least, 1)));
        return options.Count == 0 ? null : new Choice(options);
    }

    private static BytePattern Number(Keywords? known)
    {
        var (least, above, most, below) = known?.Bounds(integers: false) ?? (-Limit, false, Limit, false);
        var options = new List<BytePattern>();
        Side(Math.Max(0, least), above && least >= 0, most, below, "");
        Side(Math.Max(0, -most), below && most <= 0, -least, above, "-");
        if (options.Count == 0)
            throw new FormatException($"{known?.At}: no number lies within its bounds");
        if (least == -Limit && most == Limit)
            return new Sequence(new Choice(options), Optional(new Sequence(Any("eE"), Optional(Any("+-")), new Repeat(Any("0123456789"), 1, 2))));
        return new Choice(options);

        // Magnitudes from a to b, which are whole: digits, and a fraction where that stays inside.
        void Side(long a, bool aboveA, long b, bool belowB, string sign)
        {
            if (a > b || (a == b && (aboveA || belowB)) || (sign.Length > 0 && b <= 0))
                return;
            var (digits, some) = (new Repeat(Any("0123456789"), 0, 16), new Repeat(Literal("0"), 0, 8));
            BytePattern fraction = new Sequence(Literal("."), Any("0123456789"), digits);
            var first = aboveA ? a + 1 : a;
            if (first < b)
                options.Add(new Sequence(Literal(sign), Integers(first, b - 1, 1), Optional(fraction)));
            if (!belowB && first <= b)
                options.Add(new Sequence(Literal(sign), Integers(b, b, 1), Optional(new Sequence(Literal("."), new Repeat(Literal("0"), 1, 8)))));
            if (aboveA && a < b)
                options.Add(new Sequence(Literal(sign), Integers(a, a, 1), Literal("."), some, Any("123456789"), digits));
        }
    }

    /// <summary>The largest whole number of so many digits as a double keeps exactly.</summary>
    private static readonly long Limit = (long)Math.Pow(10, MostDigits) - 1;

    /// <summary>Whole numbers 0 ≤ a ≤ b in decimal, at least so many digits.</summary>
    private static BytePattern Integers(long a, long b, int width)
    {
        var options = new List<BytePattern>();
        for (var length = Math.Max(width, Digits(a)); length <= Math.Max(width, Digits(b)); length++)
        {
            var (low, high) = (length == Math.Max(width, Digits(a)) ? a : Power(length - 1), length == Math.Max(width, Digits(b)) ? b : Power(length) - 1);
            options.Add(Same(low.ToString($"D{length}", CultureInfo.InvariantCulture), high.ToString($"D{length}", CultureInfo.InvariantCulture)));
        }
        return options.Count == 1 ? options[0] : new Choice(options);

        static int Digits(long value) => value.ToString(CultureInfo.InvariantCulture).Length;

        static long Power(int exponent)
        {
            var power = 1L;
            for (var i = 0; i < exponent; i++)
                power *= 10;
            return power;
        }
    }

    /// <summary>Numbers between two of equal length.</summary>
    private static BytePattern Same(string low, string high)
    {
        if (low.Length == 0)
            return Nothing;
        if (low[0] == high[0])
            return new Sequence(Literal(low[..1]), Same(low[1..], high[1..]));
        var (nines, zeros) = (new string('9', low.Length - 1), new string('0', low.Length - 1));
        var (first, last) = ((byte)low[0], (byte)high[0]);
        var options = new List<BytePattern>();
        if (low[1..] != zeros)
            options.Add(new Sequence(Range(first, first++), Same(low[1..], nines)));
        if (high[1..] != nines)
            options.Add(new Sequence(Range(last, last--), Same(zeros, high[1..])));
        if (first <= last)
            options.Add(new Sequence(Range(first, last), new Repeat(Any("0123456789"), zeros.Length, zeros.Length)));
        return new Choice(options);
    }

    /// <summary>A schema's keywords, of which none is passed over.</summary>
    private sealed class Keywords(JsonElement schema, string at)
    {
        private static readonly Dictionary<string, string[]> ByType = new()
        {
            ["string"] = ["minLength", "maxLength", "format", "pattern"],
            ["integer"] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
            ["number"] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
            ["array"] = ["items", "minItems", "maxItems", "prefixItems", "uniqueItems", "contains"],
            ["object"] = ["properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties", "propertyNames"],
        };

        private readonly HashSet<string> _taken = [];

        public string At { get; } = at;

        public JsonElement? Take(string name)
        {
            if (!schema.TryGetProperty(name, out var value))
                return null;
            _taken.Add(name);
            return value;
        }

        public int? Count(string name) => Take(name) is not { } value ? null
            : value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var count) && count is >= 0 and <= MostCount
                ? count
                : throw new FormatException($"{At}/{name} is {value}; expected a whole number up to {MostCount}");

        /// <summary>Whole bounds, and whether each is itself left out.</summary>
        public (long Least, bool Above, long Most, bool Below) Bounds(bool integers)
        {
            var (least, above) = Bound("minimum", "exclusiveMinimum", -1);
            var (most, below) = Bound("maximum", "exclusiveMaximum", 1);
            if (integers)
                (least, above, most, below) = (above ? least + 1 : least, false, below ? most - 1 : most, false);
            return (Math.Max(least, -Limit), above, Math.Min(most, Limit), below);

            (long, bool) Bound(string name, string exclusive, int side)
            {
                var (inner, outer) = (Value(name, side), Value(exclusive, side));
                // The tighter of the two.
                return outer is not null && (inner is null || side * outer <= side * inner) ? (outer.Value, true) : (inner ?? side * Limit, false);
            }

            long? Value(string name, int side)
            {
                if (Take(name) is not { } value)
                    return null;
                if (value.ValueKind != JsonValueKind.Number || !value.TryGetDecimal(out var number) || (!integers && number != Math.Floor(number)) || Math.Abs(number) > 9e18m)
                    throw new FormatException($"{At}/{name} is {value}; expected a {(integers ? "" : "whole ")}number");
                var exclusive = name.StartsWith('e');
                // 2.5 leaves integers from 3 on, whether itself is left out or not.
                return (long)(number == Math.Floor(number) ? number : (side < 0) != exclusive ? Math.Ceiling(number) : Math.Floor(number));
            }
        }

        /// <summary>Without a type: the one whose keywords there are. A subset of what the schema allows.</summary>
        public string[] Implied()
        {
            foreach (var type in (string[])["object", "array", "string", "number"])
                if (ByType[type].Any(name => schema.TryGetProperty(name, out _)))
                    return [type];
            return [];
        }

        /// <summary>What says nothing of values of these types.</summary>
        public static IEnumerable<string> OfOtherTypes(string[] types) => ByType.Values.SelectMany(names => names).Except(types.Where(ByType.ContainsKey).SelectMany(type => ByType[type]));

        public BytePattern Done(BytePattern pattern, IEnumerable<string>? ignored = null)
        {
            var known = (ignored ?? []).ToHashSet();
            foreach (var property in schema.EnumerateObject())
                if (!_taken.Contains(property.Name) && !Annotations.Contains(property.Name) && !known.Contains(property.Name))
                    throw new FormatException($"{At}/{property.Name} is not enforced here");
            return pattern;
        }
    }
}
