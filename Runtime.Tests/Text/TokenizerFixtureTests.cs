using System.Text.Json;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

/// <summary>Against ids and texts from Hugging Face tokenizers.</summary>
public class TokenizerFixtureTests
{
    private static string PathOf(string tokenizer) => tokenizer == "llama"
        ? Shared.Path("fixtures", "models", "llava-gqa", "tokenizer.json")
        : Shared.Path("fixtures", "tokenizers", tokenizer, "tokenizer.json");

    private static JsonElement Json(params string[] parts)
    {
        using var document = JsonDocument.Parse(File.ReadAllBytes(Shared.Path(parts)));
        return document.RootElement.Clone();
    }

    private static int[] Ids(JsonElement ids) => ids.EnumerateArray().Select(i => i.GetInt32()).ToArray();

    private static string[] Texts(JsonElement texts) => texts.EnumerateArray().Select(t => t.GetString()!).ToArray();

    [TestCase("llama")]
    [TestCase("llama-nonlegacy")]
    [TestCase("smollm")]
    [TestCase("qwen2")]
    [TestCase("llama3")]
    public void Agrees_with_hugging_face_tokenizers(string name) => Check(Tokenizer.Open(PathOf(name)), name);

    [Test]
    public void Sentencepiece_vocabulary_in_gguf_agrees_with_its_json_twin() =>
        Check(Tokenizer.FromGguf(ConfigHeaders.Gguf(Shared.Path("fixtures", "models", "llava-gqa-gguf", "model-bf16.gguf")).Metadata, "gguf"), "llama");

    [Test]
    public void Byte_level_vocabulary_in_gguf_agrees_with_its_json_twin()
    {
        var metadata = ConfigHeaders.Gguf(Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf")).Metadata;
        var tokenizer = Tokenizer.FromGguf(metadata, "gguf");
        Check(tokenizer, "smollm");
        Assert.That(tokenizer.EndIds, Is.EquivalentTo(new[] { 0, 2 }));
        Assert.That((tokenizer.BosId, tokenizer.EosId), Is.EqualTo((1, 2)));
    }

    private static void Check(Tokenizer tokenizer, string name)
    {
        var expected = Json("fixtures", "tokenizers", "expected.json");
        var strings = Texts(expected.GetProperty("strings"));
        var own = expected.GetProperty(name);
        var ids = own.GetProperty("ids").EnumerateArray().Select(Ids).ToArray();
        var (decoded, skipped) = (Texts(own.GetProperty("decoded")), Texts(own.GetProperty("decoded_skip_special")));
        Assert.Multiple(() =>
        {
            for (var i = 0; i < strings.Length; i++)
            {
                Assert.That(tokenizer.Encode(strings[i], addSpecial: false), Is.EqualTo(ids[i]), $"string {i}");
                Assert.That(tokenizer.Decode(ids[i]), Is.EqualTo(decoded[i]), $"string {i}");
                Assert.That(tokenizer.Decode(ids[i], skipSpecial: true), Is.EqualTo(skipped[i]), $"string {i}");
                foreach (var skip in new[] { false, true })
                {
                    var stream = tokenizer.Stream(skip);
                    Assert.That(string.Concat(ids[i].Select(stream.Append)) + stream.Flush(), Is.EqualTo(skip ? skipped[i] : decoded[i]), $"string {i}");
                }
            }
            var withSpecial = own.GetProperty("with_special").EnumerateArray().Select(Ids).ToArray();
            for (var i = 0; i < withSpecial.Length; i++)
                Assert.That(tokenizer.Encode(strings[i]), Is.EqualTo(withSpecial[i]), $"string {i}");
        });
    }

    [Test]
    public void Gives_the_prompts_of_every_model_their_ids()
    {
        var seen = 0;
        foreach (var path in Directory.GetFiles(Shared.Path("fixtures", "expected"), "*.json"))
        {
            var expected = Json(path);
            var model = Path.GetFileNameWithoutExtension(path);
            var folder = Shared.Path("fixtures", "models", model);
            if (!expected.TryGetProperty("cases", out var cases) || cases.ValueKind != JsonValueKind.Array)
                continue;
            if (model == "smollm2")
                folder = Shared.Path("fixtures", "tokenizers", "smollm");
            else if (!File.Exists(Path.Combine(folder, "tokenizer.json")))
                continue;
            var tokenizer = Tokenizer.Open(folder);
            foreach (var item in cases.EnumerateArray())
            {
                if (!item.TryGetProperty("prompt", out var prompt) || prompt.ValueKind != JsonValueKind.String
                    || !item.TryGetProperty("input_ids", out var ids))
                {
                    continue;
                }
                // Later families' image cases are given by their ids alone.
                var hasImage = item.TryGetProperty("image", out var image) && image.ValueKind != JsonValueKind.Null;
                if (hasImage && !prompt.GetString()!.Contains("<image>", StringComparison.Ordinal))
                    continue;
                var want = Ids(ids);
                var got = tokenizer.Encode(prompt.GetString()!);
                if (hasImage)
                {
                    // A model whose image token is not the tokenizer's has it in its configuration.
                    var marker = tokenizer.IdOf("<image>");
                    var count = want.Count(i => i == marker) / got.Count(i => i == marker);
                    if (count == 0)
                        continue;
                    got = [.. got.SelectMany(i => Enumerable.Repeat(i, i == marker ? count : 1))];
                }
                Assert.That(got, Is.EqualTo(want), $"{model} {item.GetProperty("id")}");
                if (item.TryGetProperty("greedy_text", out var text))
                    Assert.That(tokenizer.Decode(Ids(item.GetProperty("greedy"))), Is.EqualTo(text.GetString()), $"{model} {item.GetProperty("id")}");
                seen++;
            }
        }
        Assert.That(seen, Is.GreaterThan(50));
    }

    [Test]
    public void Knows_bos_and_eos_from_the_configuration_beside_the_file()
    {
        var llava = Tokenizer.Open(Shared.Path("fixtures", "models", "llava-gqa"));
        Assert.That((llava.BosId, llava.EosId, llava.VocabularySize), Is.EqualTo((1, 2, 32002)));
        Assert.That(llava.IsSpecial(32000) && llava.TokenOf(32000) == "<image>" && llava.IdOf("<image>") == 32000);
        Assert.That(llava.TokenOf(29871), Is.EqualTo("▁"));
        var qwen = Tokenizer.Open(Shared.Path("fixtures", "models", "text-qwen2"));
        Assert.That((qwen.BosId, qwen.EosId), Is.EqualTo(((int?)null, (int?)3002)));
    }

    [Test]
    public void Loads_and_starts_quickly()
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        Tokenizer.Open(PathOf("llama")).Encode("hello");
        TestContext.Out.WriteLine($"32000 pieces, 61249 merges: {clock.ElapsedMilliseconds} ms");
        Assert.That(clock.Elapsed.TotalSeconds, Is.LessThan(5));
    }
}
