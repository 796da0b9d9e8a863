using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

public class ChatTemplateTests
{
    private sealed class July26 : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => new(2024, 7, 26, 12, 0, 0, TimeSpan.Zero);

        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;
    }

    private static string Render(string template, params ChatMessage[] messages) => ChatTemplate.Parse(template, "t").Render(messages);

    [Test]
    public void Known_templates_render_as_Hugging_Face_renders_them()
    {
        using var json = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", "chat-templates.json")));
        var variables = new Dictionary<string, object?> { ["bos_token"] = "<s>", ["eos_token"] = "</s>" };
        foreach (var (name, entry) in json.RootElement.GetProperty("templates").EnumerateObject().Select(t => (t.Name, t.Value)))
        {
            var template = ChatTemplate.Parse(entry.GetProperty("template").GetString()!, name, new ChatTemplateOptions { Clock = new July26() });
            var rendered = entry.GetProperty("rendered").EnumerateArray().ToArray();
            var i = 0;
            foreach (var conversation in json.RootElement.GetProperty("conversations").EnumerateArray())
                foreach (var prompt in (bool[])[true, false])
                {
                    var expected = rendered[i++];
                    if (expected.ValueKind == JsonValueKind.String)
                        Assert.That(template.Render(conversation, prompt, variables), Is.EqualTo(expected.GetString()), $"{name} {i}");
                    else
                    {
                        var error = Assert.Throws<ChatTemplateException>(() => template.Render(conversation, prompt, variables), $"{name} {i}");
                        var message = expected.GetProperty("error").GetString()!;
                        Assert.That(error!.RaisedByTemplate ? "TemplateError: " + error.Reason : error.Reason, Is.EqualTo(message), $"{name} {i}");
                    }
                }
        }
    }

    [Test]
    public void Vicuna_is_as_LLaVA_writes_it()
    {
        Assert.That(ChatTemplate.Vicuna11.Render([new("user", "What is this?", 1)]), Is.EqualTo("USER: <image>\nWhat is this? ASSISTANT:"));
        Assert.That(ChatTemplate.Vicuna11.Render([new("system", "Be brief."), new("user", "Hi"), new("assistant", "Hello."), new("user", "Bye")]),
            Is.EqualTo("Be brief. USER: Hi ASSISTANT: Hello.</s>USER: Bye ASSISTANT:"));
        Assert.That(ChatTemplate.Vicuna11.Render(JsonNode.Parse("""[{"role":"user","content":[{"type":"text","text":"Q"},{"type":"image"},{"type":"image"}]}]""")!),
            Is.EqualTo("USER: <image>\n<image>\nQ ASSISTANT:"));
        Assert.That(() => ChatTemplate.Vicuna11.Render([new("tool", "x")]), Throws.InstanceOf<ChatTemplateException>().With.Message.EqualTo("chat template vicuna-1.1, line 16: Vicuna 1.1 knows the roles system, user and assistant, not tool")
            .Or.Property(nameof(ChatTemplateException.RaisedByTemplate)).True);
    }

    [Test]
    public void A_template_of_strings_gets_the_image_placeholder_in_the_text()
    {
        const string template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
        Assert.That(Render(template, new ChatMessage("user", "Q", 2)), Is.EqualTo("[user]<image>\n<image>\nQ"));
        Assert.That(ChatTemplate.Parse(template, "t").Render([new("user", "Q", 1)], imagePlaceholder: "<img>"), Is.EqualTo("[user]<img>Q"));
    }

    [Test]
    public void A_template_of_parts_gets_parts()
    {
        const string template = "{% for m in messages %}{{ m.role }}:{% for c in m.content | selectattr('type', 'equalto', 'image') %}<IMG>{% endfor %}{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ c.text }}{% endfor %};{% endfor %}";
        Assert.That(Render(template, new ChatMessage("system", "S"), new ChatMessage("user", "Q", 2), new ChatMessage("assistant", "A")), Is.EqualTo("system:S;user:<IMG><IMG>Q;assistant:A;"));
    }

    [Test]
    public void A_template_of_both_gets_parts_where_there_are_images()
    {
        const string template = "{% for m in messages %}{% if m.content is string %}{{ m.content | trim }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}<I>{% else %}({{ c.text }}){% endif %}{% endfor %}{% endif %}|{% endfor %}";
        Assert.That(Render(template, new ChatMessage("user", " Q ", 1), new ChatMessage("assistant", " A ")), Is.EqualTo("<I>( Q )|A|"));
    }

    [Test]
    public void A_template_of_parts_that_shows_no_images_gets_the_placeholder()
    {
        const string template = "{% for m in messages %}{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}";
        Assert.That(Render(template, new ChatMessage("user", "Q", 1)), Is.EqualTo("<image>\nQ"));
    }

    [Test]
    public void A_template_that_prints_lists_gets_strings() =>
        Assert.That(Render("{% for m in messages %}{{ m.content | string | trim }}{% endfor %}", new ChatMessage("user", "Q", 1)), Is.EqualTo("<image>\nQ"));

    [Test]
    public void A_template_that_refuses_a_role_says_why() =>
        Assert.That(() => Render("{% if messages[0].role == 'system' %}{{ raise_exception('No system messages!') }}{% endif %}", new ChatMessage("system", "x")),
            Throws.InstanceOf<ChatTemplateException>().With.Property("Reason").EqualTo("No system messages!"));

    [Test]
    public void Variables_reach_the_template()
    {
        var variables = new Dictionary<string, object?>
        {
            ["bos_token"] = "<s>", ["enable_thinking"] = false, ["n"] = 3, ["x"] = 1.5, ["tools"] = JsonNode.Parse("""[{"name":"f","p":{"a":1}}]"""), ["list"] = new[] { "a", "b" },
            ["map"] = new Dictionary<string, object?> { ["k"] = 2L }, ["none"] = null,
        };
        Assert.That(ChatTemplate.Parse("{{ bos_token }}{{ enable_thinking }}{{ n }}{{ x }}{{ tools | tojson }}{{ list }}{{ map }}{{ documents is none }}{{ add_generation_prompt }}", "t").Render(JsonNode.Parse("[]")!, true, variables),
            Is.EqualTo("<s>False31.5[{\"name\": \"f\", \"p\": {\"a\": 1}}]['a', 'b']{'k': 2}TrueTrue"));
        Assert.That(() => ChatTemplate.Parse("", "t").Render(JsonNode.Parse("[]")!, true, new Dictionary<string, object?> { ["bad"] = new Version(1, 0) }), Throws.ArgumentException.With.Message.Contains("'bad'"));
    }

    [Test]
    public void Messages_with_half_a_surrogate_pair_are_refused_by_name()
    {
        using var json = JsonDocument.Parse("""[{"role":"user","content":"\ud800"}]""");
        Assert.That(() => ChatTemplate.Vicuna11.Render(json.RootElement), Throws.ArgumentException.With.Message.Contains("messages"));
    }

    [TestCase("a\n{% if x %}", 2, "endif")]
    [TestCase("{{ 1 +\n\n }}", 3, "expected an expression")]
    [TestCase("a\nb\n{{ 1 | nosuch }}", 3, "nosuch")]
    [TestCase("{% nosuch %}", 1, "unknown tag 'nosuch'")]
    [TestCase("{{ 'x }}", 1, "string")]
    [TestCase("\n{# x", 2, "#}")]
    public void A_syntax_error_names_template_line_and_what_was_expected(string source, int line, string expected)
    {
        var error = Assert.Throws<ChatTemplateException>(() => ChatTemplate.Parse(source, "mine.jinja"));
        Assert.That((error!.Line, error.Template), Is.EqualTo((line, "mine.jinja")));
        Assert.That(error.Message, Does.Contain("mine.jinja").And.Contain(expected));
    }

    [Test]
    public void An_error_while_rendering_names_its_line()
    {
        var error = Assert.Throws<ChatTemplateException>(() => Render("{% for m in messages %}\n{{ m.role }}\n{{ m.nope.x }}\n{% endfor %}", new ChatMessage("user", "x")));
        Assert.That((error!.Line, error.Reason), Is.EqualTo((3, "UndefinedError: 'dict object' has no attribute 'nope'")));
    }

    private static IEnumerable<string> Hostile()
    {
        yield return "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        yield return "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
        yield return "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
        yield return "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
        yield return "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}";
        yield return "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}";
        yield return "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}";
        yield return "{% set ns = namespace(s=(1,), t=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.s: 1}[ns.t] }}";
        yield return "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}";
        yield return "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        yield return "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}";
        yield return "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}";
        yield return "{{ 'a' * 10000000000 }}";
        yield return "{{ [1] * 10000000000 }}";
        yield return "{{ 2 ** 2 ** 2 ** 100000 }}";
        yield return "{{ 9 ** 99999999 }}";
        yield return "{{ '%1000000000d' % 1 }}";
        yield return "{{ '%.1000000000f' % 1 }}";
        yield return "{{ '{:1000000000}'.format(1) }}";
        yield return "{{ 'a'.center(1000000000) }}{{ 'a'.zfill(1000000000) }}";
        yield return "{{ 'a' | indent(1000000000) }}";
        yield return "{{ ('a' * 1000000) | replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaa') }}";
        yield return "{{ (['a' * 1000] * 100000) | join }}";
        yield return "{{ [1] | batch(1000000000, 0) | list }}{{ [1] | slice(1000000000) | list }}";
        yield return "{% set ns = namespace(k='a' * 1000000) %}{% for i in range(100000) %}{% set x = ns.k | upper %}{% endfor %}";
        yield return "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}";
        yield return new string('(', 100_000);
        yield return "{{ " + new string('[', 100_000) + " }}";
        yield return "{{ " + string.Concat(Enumerable.Repeat("not ", 100_000)) + "1 }}";
        yield return "{{ " + string.Concat(Enumerable.Repeat("-", 100_000)) + "1 }}";
        yield return "{{ 1" + string.Concat(Enumerable.Repeat(" + 1", 200_000)) + " }}";
        yield return "{{ 1" + string.Concat(Enumerable.Repeat(" | abs", 100_000)) + " }}";
        yield return "{{ x" + string.Concat(Enumerable.Repeat(".x", 100_000)) + " }}";
        yield return string.Concat(Enumerable.Repeat("{% if 1 %}", 50_000)) + string.Concat(Enumerable.Repeat("{% endif %}", 50_000));
        yield return new string('a', 2 << 20);
        yield return "{% " + new string('{', 100_000);
        yield return string.Concat(Enumerable.Repeat("{% raw %}", 50_000));
        yield return "{{ 0x" + new string('f', 900_000) + " }}";
        yield return "{{ " + new string('9', 900_000) + " }}";
    }

    [TestCaseSource(nameof(Hostile))]
    public void A_hostile_template_ends_soon_and_in_an_error_or_little_text(string source)
    {
        var clock = Stopwatch.StartNew();
        string? text = null;
        try
        {
            text = ChatTemplate.Parse(source, "hostile").Render(JsonNode.Parse("[]")!);
        }
        catch (ChatTemplateException)
        {
        }
        Assert.That(clock.Elapsed.TotalSeconds, Is.LessThan(20));
        Assert.That(text?.Length ?? 0, Is.LessThanOrEqualTo(4 << 20));
    }

    [Test]
    public void Damaged_templates_end_in_a_template_error_or_in_text()
    {
        const string noise = "{}%#()[]|.,:'\"=+-*/~ 019axif\n";
        var random = new Random(4);
        var sources = new[] { ChatTemplate.Vicuna11.Source, "{% set ns = namespace(a=[1, 'x', {'k': 2.5}]) %}{% for k, v in {'a': 1}.items() %}{{ k[::-1] ~ v | tojson(indent=2) }}{% endfor %}{{ ns.a[1:] | map('string') | join('-') }}{{ '%5.1f' % 2.5 }}{{ '{:>4}'.format('x') }}{% if ns is defined and not 1 in ns.a %}{% endif %}" };
        for (var i = 0; i < 4000; i++)
        {
            var source = sources[i % sources.Length].ToCharArray().ToList();
            for (var edits = random.Next(1, 4); edits > 0; edits--)
            {
                var at = random.Next(source.Count);
                if (random.Next(3) == 0)
                    source.RemoveAt(at);
                else
                    source.Insert(at, noise[random.Next(noise.Length)]);
            }
            try
            {
                ChatTemplate.Parse(new string([.. source]), "damaged").Render(JsonNode.Parse("""[{"role":"user","content":"x"}]""")!);
            }
            catch (ChatTemplateException)
            {
            }
        }
    }

    [Test]
    public void Templates_are_found_in_a_model_folder()
    {
        var folder = Directory.CreateTempSubdirectory("chat-template").FullName;
        try
        {
            void Write(string name, string text) => File.WriteAllText(Path.Combine(folder, name), text);
            string Found() => ChatTemplate.Find(folder)!.Render(JsonNode.Parse("[]")!);
            Assert.That(ChatTemplate.Find(folder), Is.Null);
            Write("tokenizer_config.json", """{"bos_token": "<s>"}""");
            Assert.That(ChatTemplate.Find(folder), Is.Null);
            Write("tokenizer_config.json", """{"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "from a list"}]}""");
            Assert.That(Found(), Is.EqualTo("from a list"));
            Write("tokenizer_config.json", """{"chat_template": "from tokenizer_config"}""");
            Assert.That(Found(), Is.EqualTo("from tokenizer_config"));
            Write("chat_template.json", """{"chat_template": "from json"}""");
            Assert.That(Found(), Is.EqualTo("from json"));
            Write("chat_template.jinja", "from jinja\n");
            Assert.That(Found(), Is.EqualTo("from jinja"));
            File.Delete(Path.Combine(folder, "chat_template.jinja"));
            foreach (var bad in (string[])["{", "[]", """{"chat_template": 5}""", """{"chat_template": [{"name": "a", "template": "x"}, {"name": "b", "template": "y"}]}""", """{"chat_template": "{% if %}"}"""])
            {
                Write("chat_template.json", bad);
                Assert.That(() => ChatTemplate.Find(folder), Throws.InstanceOf<ChatTemplateException>().With.Message.Contains("chat_template.json"), bad);
            }
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
