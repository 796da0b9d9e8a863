using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Json.Schema;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

/// <summary>Texts that a schema's grammar allows satisfy the schema, by an independent validator; texts that must be possible are; the rest is refused by name.</summary>
public class JsonSchemaGrammarTests
{
    private static JsonElement Parse(string json) => JsonDocument.Parse(json).RootElement;

    private static ByteGrammar Grammar(string schema) => JsonSchemaGrammar.Of(Parse(schema));

    private static bool Accepts(ByteGrammar grammar, string text)
    {
        var (state, work) = (grammar.Start, 0L);
        foreach (var value in Encoding.UTF8.GetBytes(text))
            state = grammar.Next(state, value, ref work);
        return state.CanEnd;
    }

    [TestCase("""{"type":"integer"}""", new[] { "0", "-7", "123456789012345" }, new[] { "", "01", "-", "1.0", "1e3", "\"1\"", "null" })]
    [TestCase("""{"type":"integer","minimum":-3,"maximum":12}""", new[] { "-3", "-1", "0", "9", "10", "12" }, new[] { "-4", "13", "20", "100", "-0", "-10" })]
    [TestCase("""{"type":"integer","exclusiveMinimum":7,"exclusiveMaximum":1000}""", new[] { "8", "10", "99", "100", "999" }, new[] { "7", "1000", "0", "1" })]
    [TestCase("""{"type":"integer","minimum":2.5,"exclusiveMaximum":4.5}""", new[] { "3", "4" }, new[] { "2", "5" })]
    [TestCase("""{"type":"number","minimum":0,"maximum":1}""", new[] { "0", "0.5", "1", "1.0", "0.999" }, new[] { "-0.1", "1.1", "2", "1.01" })]
    [TestCase("""{"type":"number","exclusiveMinimum":-2,"exclusiveMaximum":3}""", new[] { "-1.99", "-1", "-0.5", "0", "2.9" }, new[] { "-2", "-2.0", "3", "3.0", "-2.5" })]
    [TestCase("""{"type":"number"}""", new[] { "1.5e-3", "-0.25E+10", "7" }, new[] { ".5", "1.", "1e", "+1", "NaN" })]
    [TestCase("""{"type":"string","minLength":2,"maxLength":3}""", new[] { "\"ab\"", "\"äöü\"", "\"\\n\\u00e9\"", "\"\\ud83d\\ude00a\"", "\"😀😀\"" }, new[] { "\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\"", "\"a\nb\"", "\"\\ud83dab\"" })]
    [TestCase("""{"type":"string","format":"date"}""", new[] { "\"2026-11-25\"", "\"2024-02-28\"" }, new[] { "\"2026-02-30\"", "\"2026-13-01\"", "\"26-11-25\"", "\"2026-04-31\"" })]
    [TestCase("""{"type":"string","format":"date-time"}""", new[] { "\"2026-11-25T13:28:05Z\"", "\"2026-11-25T13:28:05.125+02:00\"" }, new[] { "\"2026-11-25\"", "\"2026-11-25T24:00:00Z\"" })]
    [TestCase("""{"enum":["red",2,null,{"a":[1]}]}""", new[] { "\"red\"", "2", "null", "{\"a\":[1]}" }, new[] { "\"blue\"", "3", "\"red" })]
    [TestCase("""{"const":"é\"\\"}""", new[] { "\"é\\\"\\\\\"" }, new[] { "\"é\"" })]
    [TestCase("""{"type":["boolean","null"]}""", new[] { "true", "false", "null" }, new[] { "0", "\"true\"" })]
    [TestCase("""{"anyOf":[{"type":"integer","minimum":1},{"type":"string","maxLength":1}]}""", new[] { "1", "20", "\"x\"" }, new[] { "0", "\"xy\"" })]
    [TestCase("""{"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3}""", new[] { "[1]", "[1,2,3]", "[ 1, 2 ]", "[\n  1,\n  2\n]" }, new[] { "[]", "[1,2,3,4]", "[1,]", "[\"1\"]" })]
    [TestCase("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"null"}},"required":["b"],"additionalProperties":false}""",
        new[] { "{\"b\":\"\"}", "{\"a\":1,\"b\":\"x\"}", "{ \"a\": 1, \"b\": \"x\", \"c\": null }", "{\"b\":\"\",\"c\":null}" }, new[] { "{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",\"d\":1}", "{\"b\":\"\",}" })]
    [TestCase("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}}}""", new[] { "{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}" }, new[] { "{,\"b\":1}", "{\"a\":1\"b\":2}" })]
    [TestCase("""{"type":"object","additionalProperties":{"type":"integer"}}""", new[] { "{}", "{\"any\":1,\"other\":2}" }, new[] { "{\"any\":\"1\"}" })]
    [TestCase("""{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["next"]}}}""",
        new[] { "{\"next\":null}", "{\"next\":{\"next\":{\"next\":null}}}" }, new[] { "{}", "{\"next\":{}}" })]
    [TestCase("{}", new[] { "1", "\"a\"", "[1,{\"a\":[]}]", "{\"a\":{\"b\":[true,null]}}" }, new[] { "", "[1", "tru", "{a:1}" })]
    public void Schemas_allow_and_forbid(string schema, string[] good, string[] bad)
    {
        var grammar = Grammar(schema);
        Assert.Multiple(() =>
        {
            foreach (var text in good)
                Assert.That(Accepts(grammar, text), Is.True, text);
            foreach (var text in bad)
                Assert.That(Accepts(grammar, text), Is.False, text);
        });
    }

    [TestCase("""{"type":"string","pattern":"a+"}""", "#/pattern is not enforced")]
    [TestCase("""{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}""", "#/properties/a/uniqueItems is not enforced")]
    [TestCase("""{"type":"strnig"}""", "'strnig' is no type")]
    [TestCase("""{"not":{"type":"null"}}""", "#/not is not enforced")]
    [TestCase("""{"$ref":"#/$defs/gone"}""", "there is no #/$defs/gone")]
    [TestCase("""{"$ref":"#"}""", "no finite value")]
    [TestCase("""{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}""", "no finite value")]
    [TestCase("""{"type":"object","required":["x"],"properties":{"a":{}}}""", "'x' is not among the properties")]
    [TestCase("""{"type":"integer","minimum":5,"maximum":4}""", "no integer")]
    [TestCase("""{"type":"integer","minimum":1e18}""", "no integer")]
    [TestCase("""{"type":"number","multipleOf":0.1}""", "#/multipleOf is not enforced")]
    [TestCase("""{"type":"string","maxLength":100000}""", "#/maxLength is 100000")]
    [TestCase("""{"type":"string","format":"email"}""", "'email' is not enforced")]
    [TestCase("""{"oneOf":[{"type":"integer"},{"type":"number"}]}""", "#/oneOf")]
    [TestCase("""{"allOf":[{"type":"integer"},{"minimum":3}]}""", "#/allOf")]
    [TestCase("""{"enum":[]}""", "a list that is not empty")]
    [TestCase("""{"required":"a"}""", "#/required: expected a list of names")]
    [TestCase("false", "which nothing satisfies")]
    [TestCase("[]", "expected a schema")]
    [TestCase("""{"type":"array","minItems":8000,"items":{"type":"array","minItems":8000},"maxItems":1}""", "#/minItems is 8000, above maxItems 1")]
    public void What_is_not_enforced_is_refused_by_name(string schema, string message)
        => Assert.That(() => Grammar(schema), Throws.TypeOf<FormatException>().With.Message.Contains(message));

    [Test]
    public void Depth_is_bounded_and_always_comes_to_an_end()
    {
        var grammar = JsonSchemaGrammar.OfObject();
        var (state, open, work) = (grammar.Start, 0, 0L);
        foreach (var value in Enumerable.Repeat("{\"a\":", 100).SelectMany(text => Encoding.UTF8.GetBytes(text)))
        {
            var next = grammar.Next(state, value, ref work);
            if (next.IsDead)
                break;
            state = next;
            open += value == '{' ? 1 : 0;
        }
        Assert.That(open, Is.InRange(20, 60));
        // The innermost object has room for itself, but for no member.
        foreach (var value in Encoding.UTF8.GetBytes(new string('}', open)))
            state = grammar.Next(state, value, ref work);
        Assert.That(state.CanEnd, Is.True);
    }

    /// <summary>Two ways to read every bracket: 2ⁿ stacks after n of them.</summary>
    internal const string Ambiguous = """
        {"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1,"maxItems":1},{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1,"maxItems":1},{"const":1}]}}}
        """;

    [Test]
    public void A_schema_of_exponentially_many_readings_ends_the_answer_and_not_the_server()
    {
        var grammar = Grammar(Ambiguous);
        Assert.That(Accepts(grammar, "[[[1]]]"), Is.True);
        Assert.That(() => Accepts(grammar, new string('[', 40)), Throws.TypeOf<ConstraintTooCostlyException>());
        Assert.That(Accepts(grammar, "[[[1]]]"), Is.True, "other answers go on");
    }

    [Test]
    public void States_beyond_the_limit_begin_anew_and_change_no_answer()
    {
        // Every depth has states of its own, and so has every way there: more than are kept.
        var (grammar, random) = (JsonSchemaGrammar.OfObject(), new Random(7));
        for (var round = 0; round < 400; round++)
        {
            var (open, close) = (new StringBuilder("{\"a\":"), new Stack<char>("}"));
            for (var depth = 0; depth < 40; depth++)
            {
                var array = random.Next(2) == 0;
                open.Append(array ? "[" : "{\"b\":");
                close.Push(array ? ']' : '}');
            }
            var text = $"{open}1{string.Concat(close)}";
            Assert.That(Accepts(grammar, text), Is.True, text);
            Assert.That(Accepts(grammar, text[..^1]), Is.False);
        }
        Assert.That(grammar.Memory, Is.LessThanOrEqualTo(ByteGrammar.MostMemory));
        Assert.That(grammar.Age, Is.GreaterThan(0), "the test reaches the limit");
    }

    [Test]
    public void Long_chains_of_references_are_taken_or_refused_and_never_overflow_the_stack()
    {
        foreach (var (form, taken) in new[] { ("""{"items":{"$ref":"#/$defs/d"}}""", true), ("""{"$ref":"#/$defs/d"}""", false) })
        {
            var defs = string.Join(',', Enumerable.Range(0, 7000).Select(i => $"\"d{i}\":{form.Replace("/d\"", $"/d{i + 1}\"", StringComparison.Ordinal)}"));
            var schema = """{"$ref":"#/$defs/d0","$defs":{ALL,"d7000":{"type":"integer"}}}""".Replace("ALL", defs, StringComparison.Ordinal);
            Exception? error = null;
            // As little stack as a thread may have on any system.
            var thread = new Thread(() =>
            {
                try
                {
                    Assert.That(Accepts(Grammar(schema), "[]"), Is.EqualTo(taken));
                }
                catch (Exception failure)
                {
                    error = failure;
                }
            }, 1 << 20);
            thread.Start();
            thread.Join();
            Assert.That(error, Is.Null.Or.TypeOf<FormatException>(), form);
        }
    }

    [Test]
    public void What_has_no_finite_value_is_no_way_out()
    {
        // The first alternative can never end.
        var grammar = Grammar("""{"anyOf":[{"$ref":"#/$defs/a"},{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1},{"const":1}],"$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1}}}""");
        var work = 0L;
        Assert.That(Accepts(grammar, "1"), Is.True);
        Assert.That(grammar.Next(grammar.Start, (byte)'[', ref work).IsDead, Is.True);
        // Nor is what has none within the depth that is left.
        grammar = Grammar("""{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1,"maxItems":1},{"const":1}]}}}""");
        var (state, open) = (grammar.Start, 0);
        for (; grammar.Next(state, (byte)'[', ref work) is { IsDead: false } next; open++)
            state = next;
        foreach (var value in Encoding.UTF8.GetBytes("1" + new string(']', open)))
            state = grammar.Next(state, value, ref work);
        Assert.That((open > 20, state.CanEnd), Is.EqualTo((true, true)));
    }

    /// <summary>A schema by chance.</summary>
    private static JsonNode Schema(Random random, int depth, bool references)
    {
        switch (random.Next(depth > 0 ? 12 : 7))
        {
            case 0: return new JsonObject { ["type"] = "null" };
            case 1: return new JsonObject { ["type"] = "boolean" };
            case 2:
                var low = random.Next(-2000, 2000);
                return new JsonObject { ["type"] = "integer", [random.Next(2) == 0 ? "minimum" : "exclusiveMinimum"] = low, [random.Next(2) == 0 ? "maximum" : "exclusiveMaximum"] = low + 2 + random.Next(3000) };
            case 3:
                var least = random.Next(-20, 20);
                var number = new JsonObject { ["type"] = "number" };
                if (random.Next(3) > 0)
                    number[random.Next(2) == 0 ? "minimum" : "exclusiveMinimum"] = least;
                if (random.Next(3) > 0)
                    number[random.Next(2) == 0 ? "maximum" : "exclusiveMaximum"] = least + 1 + random.Next(40);
                return number;
            case 4:
                var length = random.Next(4);
                return new JsonObject { ["type"] = "string", ["minLength"] = length, ["maxLength"] = length + random.Next(5) };
            case 5: return new JsonObject { ["enum"] = new JsonArray("red", 1.5, "grün\n", null, random.Next(100)) };
            case 6: return references ? new JsonObject { ["$ref"] = "#/$defs/tree" } : new JsonObject { ["type"] = new JsonArray("string", "integer") };
            case 7 or 8:
                var (items, count) = (Schema(random, depth - 1, references), random.Next(3));
                return new JsonObject { ["type"] = "array", ["items"] = items, ["minItems"] = count, ["maxItems"] = count + random.Next(3) };
            case 9: return new JsonObject { ["anyOf"] = new JsonArray(Schema(random, depth - 1, references), Schema(random, depth - 1, references)) };
            default:
                var (properties, required) = (new JsonObject(), new JsonArray());
                for (var i = random.Next(1, 5); i > 0; i--)
                {
                    properties[$"key {i}"] = Schema(random, depth - 1, references);
                    if (random.Next(2) == 0)
                        required.Add((JsonNode)$"key {i}");
                }
                return new JsonObject { ["type"] = "object", ["properties"] = properties, ["required"] = required, ["additionalProperties"] = false };
        }
    }

    [Test]
    public void What_tokens_by_chance_write_satisfies_random_schemas()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var trie = TokenTrie.Of(tokenizer);
        var random = new Random(20261125);
        for (var round = 0; round < 400; round++)
        {
            var schema = Schema(random, 3, references: true).AsObject();
            schema["$defs"] = JsonNode.Parse("""{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"},"maxItems":2}},"required":["v"],"additionalProperties":false}}""");
            var grammar = Grammar(schema.ToJsonString());
            var ids = new List<int>();
            var work = 0L;
            for (var state = grammar.Start; !state.IsComplete;)
            {
                var allowed = trie.Allowed(grammar, state, ref work);
                int[] choices = [.. Enumerable.Range(0, tokenizer.VocabularySize).Where(id => (allowed[id >> 6] >> id & 1) != 0)];
                Assert.That(choices, Is.Not.Empty.Or.Empty.And.Matches<int[]>(_ => state.CanEnd), schema.ToJsonString());
                if (state.CanEnd && (choices.Length == 0 || random.Next(4) == 0))
                    break;
                // Brackets and quotes end things: by chance alone nothing would end.
                int[] closing = [.. choices.Where(id => trie[id] is [(byte)']' or (byte)'}' or (byte)'"'])];
                var token = closing.Length > 0 && random.Next(3) == 0 ? closing[random.Next(closing.Length)] : choices[random.Next(choices.Length)];
                ids.Add(token);
                foreach (var value in trie[token])
                    state = grammar.Next(state, value, ref work);
                Assert.That(ids, Has.Count.LessThan(20_000));
            }
            Assert.That(work, Is.LessThan(ByteGrammar.MostWork / 4), $"an ordinary schema: {schema.ToJsonString()}");
            var text = tokenizer.Decode([.. ids]);
            var valid = JsonSchema.FromText(schema.ToJsonString()).Evaluate(Parse(text)).IsValid;
            Assert.That(valid, Is.True, $"{schema.ToJsonString()}\n{text}");
        }
    }

    [Test]
    public void Allowed_tokens_are_exactly_those_whose_bytes_may_follow()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var (trie, grammar, random) = (TokenTrie.Of(tokenizer), Grammar("""{"type":"object","properties":{"the a":{"type":"string"}},"required":["the a"]}"""), new Random(3));
        var (state, work) = (grammar.Start, 0L);
        for (var step = 0; step < 60 && !state.IsComplete; step++)
        {
            var allowed = trie.Allowed(grammar, state, ref work);
            var choices = new List<int>();
            for (var id = 0; id < tokenizer.VocabularySize; id++)
            {
                var next = state;
                foreach (var value in trie[id])
                    next = grammar.Next(next, value, ref work);
                var may = trie[id].Length > 0 && !next.IsDead;
                Assert.That((allowed[id >> 6] >> id & 1) != 0, Is.EqualTo(may), $"step {step}, token {id}");
                if (may)
                    choices.Add(id);
            }
            foreach (var value in trie[choices[random.Next(choices.Count)]])
                state = grammar.Next(state, value, ref work);
        }
    }

    private static IEnumerable<TestCaseData> Tokenizers()
    {
        yield return new TestCaseData((Func<Tokenizer>)(() => TinyTokenizers.ByteLevel())).SetArgDisplayNames("byte-level");
        yield return new TestCaseData((Func<Tokenizer>)(() => Tokenizer.Open(Path.Combine(AppContext.BaseDirectory, "demo-vlm")))).SetArgDisplayNames("demo");
        foreach (var name in (string[])["llama-nonlegacy", "llama3", "smollm", "qwen2"])
            yield return new TestCaseData((Func<Tokenizer>)(() => Tokenizer.Open(Shared.Path("fixtures", "tokenizers", name, "tokenizer.json")))).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Tokenizers))]
    public void Bytes_of_tokens_are_what_decoding_adds(Func<Tokenizer> open)
    {
        var tokenizer = open();
        // Byte tokens that are not UTF-8 together decode as each vocabulary's kind has it; the grammar asks for UTF-8.
        int[] ids = [.. Enumerable.Range(0, tokenizer.VocabularySize).Where(id => !tokenizer.IsSpecial(id) && tokenizer.TokenOf(id) is { } text && !text.StartsWith("<0x", StringComparison.Ordinal))];
        var (random, anchor) = (new Random(5), tokenizer.IdOf("a")!.Value);
        for (var round = 0; round < 200; round++)
        {
            int[] text = [anchor, .. Enumerable.Range(0, 20).Select(_ => ids[random.Next(ids.Length)])];
            byte[] bytes = [.. text.SelectMany(tokenizer.BytesOf)];
            Assert.That(tokenizer.Decode(text), Is.EqualTo(Encoding.UTF8.GetString(bytes)));
        }
    }
}
