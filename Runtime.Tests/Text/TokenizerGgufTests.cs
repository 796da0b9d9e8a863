using Trimtab.Text;

namespace Trimtab.Tests.Text;

public class TokenizerGgufTests
{
    private static Dictionary<string, object> SentencePieces() => new()
    {
        ["tokenizer.ggml.model"] = "llama",
        ["tokenizer.ggml.tokens"] = new[] { "<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "ba", "▁a", "<0x41>", "[x]", "bb", "bbb" },
        ["tokenizer.ggml.scores"] = new[] { 0f, 0, 0, -9, -9, -9, -2, -1, -3, 0, 0, -0.5f, -0.4f },
        ["tokenizer.ggml.token_type"] = new[] { 2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 4, 5, 1 },
    };

    private static string[] Tokens(Dictionary<string, object> metadata, string text, bool special = true)
    {
        var tokenizer = Tokenizer.FromGguf(metadata, "tiny.gguf");
        return [.. tokenizer.Encode(text, parseSpecial: special).Select(i => tokenizer.TokenOf(i)!)];
    }

    [Test]
    public void The_highest_score_merges_first() =>
        Assert.That(Tokens(SentencePieces(), "aba"), Is.EqualTo(new[] { "<s>", "▁a", "ba" }));

    [Test]
    public void Characters_without_pieces_become_bytes_or_one_unknown_piece() =>
        Assert.That(Tokens(SentencePieces(), "Aééa"), Is.EqualTo(new[] { "<s>", "▁", "<0x41>", "<unk>", "a" }));

    [Test]
    public void Unused_pieces_are_taken_apart_again()
    {
        Assert.That(Tokens(SentencePieces(), "bb"), Is.EqualTo(new[] { "<s>", "▁", "b", "b" }));
        Assert.That(Tokens(SentencePieces(), "bbb"), Is.EqualTo(new[] { "<s>", "▁", "bbb" }));
    }

    [Test]
    public void Control_tokens_are_found_on_request_and_user_defined_ones_always()
    {
        Assert.That(Tokens(SentencePieces(), "</s>[x]"), Is.EqualTo(new[] { "<s>", "</s>", "[x]" }));
        Assert.That(Tokens(SentencePieces(), "a[x]", special: false), Is.EqualTo(new[] { "<s>", "▁a", "[x]" }));
        Assert.That(Tokens(SentencePieces(), "</s>", special: false), Has.None.EqualTo("</s>"));
    }

    [Test]
    public void The_space_before_and_the_ends_are_what_the_keys_say()
    {
        var metadata = SentencePieces();
        metadata["tokenizer.ggml.add_space_prefix"] = false;
        metadata["tokenizer.ggml.add_bos_token"] = false;
        metadata["tokenizer.ggml.add_eos_token"] = true;
        metadata["tokenizer.ggml.eos_token_id"] = 2u;
        metadata["tokenizer.ggml.eot_token_id"] = 10ul;
        Assert.That(Tokens(metadata, "a"), Is.EqualTo(new[] { "a", "</s>" }));
        var tokenizer = Tokenizer.FromGguf(metadata, "tiny.gguf");
        Assert.That(tokenizer.EndIds, Is.EqualTo(new[] { 2, 10 }));
        Assert.That((tokenizer.BosId, tokenizer.EosId), Is.EqualTo((1, 2)));
        Assert.That(tokenizer.Decode([3, 4]), Is.EqualTo(" a"));
    }

    private static Dictionary<string, object> BytePairs(string pre) => new()
    {
        ["tokenizer.ggml.model"] = "gpt2",
        ["tokenizer.ggml.pre"] = pre,
        ["tokenizer.ggml.tokens"] = (string[])[.. TinyTokenizers.Bytes, "11", "111", "Ġa", "<|im_end|>", "<|e|>"],
        ["tokenizer.ggml.merges"] = new[] { "1 1", "11 1", "Ġ a" },
        ["tokenizer.ggml.token_type"] = (int[])[.. Enumerable.Repeat(1, 259), 3, 3],
        ["tokenizer.ggml.eos_token_id"] = 260u,
    };

    [TestCase("smollm", new[] { "1", "1", "1", "1", "Ġa" })]
    [TestCase("qwen2", new[] { "1", "1", "1", "1", "Ġa" })]
    [TestCase("llama-bpe", new[] { "111", "1", "Ġa" })]
    [TestCase("gpt-2", new[] { "11", "11", "Ġa" })]
    [TestCase("default", new[] { "111", "1", "Ġa" })]
    [TestCase("tekken", new[] { "1", "1", "1", "1", "Ġa" })]
    [TestCase("deepseek-v3", new[] { "111", "1", "Ġa" })]
    public void The_kind_of_split_is_that_of_pre(string pre, string[] expected) =>
        Assert.That(Tokens(BytePairs(pre), "1111 a"), Is.EqualTo(expected));

    [Test]
    public void Every_known_kind_of_split_has_patterns_that_can_be_read()
    {
        foreach (var pre in GgufSplits.Known.Split(", "))
        {
            var tokenizer = Tokenizer.FromGguf(BytePairs(pre), pre);
            const string Text = "It's THE test, isn't it? 12345 naïve 中文 かな\r\n\n  x = (a+b)*2; 🙂 ";
            Assert.That(tokenizer.Decode(tokenizer.Encode(Text)), Is.EqualTo(Text), pre);
        }
    }

    [Test]
    public void Tokens_known_to_end_a_turn_end_a_generation() =>
        Assert.That(Tokenizer.FromGguf(BytePairs("qwen2"), "x").EndIds, Is.EquivalentTo(new[] { 260, 259 }));

    [TestCase("tokenizer.ggml.pre", "unheard-of")]
    [TestCase("tokenizer.ggml.model", "rwkv")]
    [TestCase("tokenizer.ggml.token_type", new[] { 1 })]
    [TestCase("tokenizer.ggml.tokens", "a")]
    [TestCase("tokenizer.ggml.merges", new[] { "1 2" })]
    [TestCase("tokenizer.ggml.eos_token_id", 261u)]
    [TestCase("tokenizer.ggml.add_bos_token", 3)]
    public void Keys_that_are_malformed_or_not_supported_are_refused_by_name(string key, object value)
    {
        var metadata = BytePairs("gpt-2");
        metadata[key] = value;
        Assert.That(() => Tokenizer.FromGguf(metadata, "tiny.gguf"), Throws.InstanceOf<InvalidDataException>().With.Message.Contains(key).And.Message.Contains("tiny.gguf"));
        metadata = SentencePieces();
        metadata.Remove("tokenizer.ggml.scores");
        Assert.That(() => Tokenizer.FromGguf(metadata, "tiny.gguf"), Throws.InstanceOf<InvalidDataException>().With.Message.Contains("scores"));
    }
}
