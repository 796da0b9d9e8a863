using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

public class TokenizerTests
{
    private const string LlamaSteps = """
        "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
        "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
        {"type":"Strip","content":" ","start":1,"stop":0}]}
        """;

    private static readonly string[] BytePieces = [.. Enumerable.Range(0, 256).Select(b => $"<0x{b:X2}>")];

    private static Tokenizer Llama(string added = "[]") => TinyTokenizers.Json(
        TinyTokenizers.Model(
            ["<unk>", "<s>", "</s>", .. BytePieces, "▁", "h", "i", "▁h", "▁hi", "a", "b"], ["▁ h", "▁h i"],
            ""","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true"""),
        LlamaSteps + ",\"added_tokens\":" + added);

    private static string Added(string content, string flags = "", int id = 9000) =>
        $$"""{"id":{{id}},"content":"{{content}}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true{{flags}}}""";

    private static string[] Tokens(Tokenizer tokenizer, string text, bool special = true) =>
        [.. tokenizer.Encode(text, parseSpecial: special).Select(i => tokenizer.TokenOf(i)!)];

    [Test]
    public void Unknown_characters_become_their_bytes() =>
        Assert.That(Tokens(Llama(), "hi é"), Is.EqualTo(new[] { "▁hi", "▁", "<0xC3>", "<0xA9>" }));

    [Test]
    public void Invalid_byte_runs_decode_to_one_mark_a_byte_and_valid_ones_to_text()
    {
        var llama = Llama();
        int Byte(int value) => llama.IdOf($"<0x{value:X2}>")!.Value;
        Assert.That(llama.Decode([Byte(0xC3), Byte(0xA9), llama.IdOf("h")!.Value]), Is.EqualTo("éh"));
        Assert.That(llama.Decode([Byte(0xC3), Byte(0xA9), Byte(0xC3), llama.IdOf("h")!.Value, Byte(0xFF)]), Is.EqualTo("\uFFFD\uFFFD\uFFFDh\uFFFD"));
    }

    [TestCase(true, new[] { "x", "<unk>", "x" })]
    [TestCase(false, new[] { "x", "<unk>", "<unk>", "x" })]
    public void Unknown_runs_are_fused_where_the_file_says_so(bool fuse, string[] expected)
    {
        var model = TinyTokenizers.Model(["<unk>", "x"], [], $",\"unk_token\":\"<unk>\",\"fuse_unk\":{(fuse ? "true" : "false")}");
        Assert.That(Tokens(TinyTokenizers.Json(model), "xéüx"), Is.EqualTo(expected));
    }

    [Test]
    public void Merges_go_by_rank_then_from_the_left()
    {
        var pieces = new[] { "a", "b", "c", "ab", "bc", "aa" };
        Assert.That(Tokens(TinyTokenizers.Json(TinyTokenizers.Model(pieces, ["b c", "a b", "a a"])), "abcaaa"), Is.EqualTo(new[] { "a", "bc", "aa", "a" }));
        Assert.That(Tokens(TinyTokenizers.Json(TinyTokenizers.Model(pieces, ["a b", "b c", "a a"])), "abcaaa"), Is.EqualTo(new[] { "ab", "c", "aa", "a" }));
        var arrays = """{"type":"BPE","merges":[["b","c"]],"vocab":{"a":0,"b":1,"c":2,"bc":3}}"""; // merges before the vocabulary, as pairs
        Assert.That(Tokens(TinyTokenizers.Json(arrays), "abc"), Is.EqualTo(new[] { "a", "bc" }));
    }

    [Test]
    public void Special_tokens_are_text_where_they_are_not_to_be_parsed()
    {
        var tokenizer = TinyTokenizers.ByteLevel($$"""
            "added_tokens":[{{Added("<|x|>", "", 9000)}},{{Added("<|y|>", ",\"special\":false", 9001)}}]
            """);
        Assert.That(tokenizer.Encode("<|x|>"), Is.EqualTo(new[] { 9000 }));
        Assert.That(tokenizer.Encode("<|x|>", parseSpecial: false), Has.Length.EqualTo(5));
        Assert.That(tokenizer.Encode("<|y|>", parseSpecial: false), Is.EqualTo(new[] { 9001 }));
        Assert.That(tokenizer.Decode([9000, 9001], skipSpecial: true), Is.EqualTo("<|y|>"));
        Assert.That((tokenizer.IsSpecial(9000), tokenizer.IsSpecial(9001), tokenizer.VocabularySize), Is.EqualTo((true, false, 9002)));
    }

    [TestCase(",\"lstrip\":true", "a <x> b", new[] { "a", "<x>", "Ġ", "b" })]
    [TestCase(",\"rstrip\":true", "a <x> b", new[] { "a", "Ġ", "<x>", "b" })]
    [TestCase(",\"single_word\":true", "a<x>b <x>", new[] { "a", "<", "x", ">", "b", "Ġ", "<x>" })]
    [TestCase(",\"single_word\":true", "é<x>", new[] { "Ã", "©", "<", "x", ">" })]
    [TestCase("", "<x><x>", new[] { "<x>", "<x>" })]
    public void Added_tokens_keep_to_their_flags(string flags, string text, string[] expected) =>
        Assert.That(Tokens(TinyTokenizers.ByteLevel("\"added_tokens\":[" + Added("<x>", flags) + "]"), text), Is.EqualTo(expected));

    [Test]
    public void The_longest_added_token_wins() =>
        Assert.That(
            Tokens(TinyTokenizers.ByteLevel($"\"added_tokens\":[{Added("<x", "", 9000)},{Added("<x>", "", 9001)}]"), "<x<x>"),
            Is.EqualTo(new[] { "<x", "<x>" }));

    [Test]
    public void Normalized_added_tokens_are_sought_in_the_normalized_text()
    {
        // The prepended "▁" becomes part of what is sought, as in Hugging Face tokenizers.
        var tokenizer = Llama("[" + Added("ab", ",\"normalized\":true,\"special\":false") + "]");
        Assert.That(Tokens(tokenizer, "ab"), Is.EqualTo(new[] { "ab" }));
        Assert.That(Tokens(tokenizer, "b ab"), Is.EqualTo(new[] { "▁", "b", "ab" }));
        Assert.That(Tokens(tokenizer, "bab"), Is.EqualTo(new[] { "▁", "b", "a", "b" }));
    }

    [Test]
    public void The_template_and_the_configuration_decide_on_bos_and_eos()
    {
        var template = $$$"""
            "added_tokens":[{{{Added("<s>", "", 9000)}}},{{{Added("</s>", "", 9001)}}}],
            "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0} },{"Sequence":{"id":"A","type_id":0} }],
            "pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[9000],"tokens":["<s>"]} } }
            """;
        int[] Encode(string config) => TinyTokenizers.ByteLevel(template, config).Encode("a");
        Assert.That(Encode(""), Is.EqualTo(new[] { 9000, 'a' }));
        Assert.That(TinyTokenizers.ByteLevel(template).Encode("a", addSpecial: false), Is.EqualTo(new[] { (int)'a' }));
        Assert.That(Encode("""{"bos_token":"<s>","add_bos_token":true}"""), Is.EqualTo(new[] { 9000, 'a' }));
        Assert.That(Encode("""{"bos_token":{"content":"<s>"},"add_bos_token":false}"""), Is.EqualTo(new[] { (int)'a' }));
        Assert.That(Encode("""{"bos_token":"<s>","eos_token":"</s>","add_eos_token":true}"""), Is.EqualTo(new[] { 9000, 'a', 9001 }));
        var tokenizer = TinyTokenizers.ByteLevel(template, """{"eos_token":"</s>"}""");
        Assert.That((tokenizer.BosId, tokenizer.EosId, tokenizer.EndIds.Single()), Is.EqualTo((9000, 9001, 9001)));
    }

    [TestCase("always", false, "a b", "_a_b")]
    [TestCase("always", true, "a b", "_a|_b")]
    [TestCase("first", true, " a", "_a")]
    [TestCase("never", true, "a b", "a|_b")]
    [TestCase("always", true, "a  b", "_a|_|_b")]
    public void Metaspace_marks_the_words(string scheme, bool split, string text, string expected) => Assert.That(
        TinyTokenizers.Split($$"""{"type":"Metaspace","replacement":"_","prepend_scheme":"{{scheme}}","split":{{(split ? "true" : "false")}}}""", text),
        Is.EqualTo(expected));

    [TestCase("Isolated", false, "the|-|final|-|-|countdown")]
    [TestCase("Removed", false, "the|final|countdown")]
    [TestCase("MergedWithPrevious", false, "the-|final-|-|countdown")]
    [TestCase("MergedWithNext", false, "the|-final|-|-countdown")]
    [TestCase("Contiguous", false, "the|-|final|--|countdown")]
    [TestCase("Removed", true, "-|-|-")]
    public void Split_does_with_matches_what_its_behavior_says(string behavior, bool invert, string expected)
    {
        foreach (var pattern in new[] { """{"String":"-"}""", """{"Regex":"-"}""" })
            Assert.That(
                TinyTokenizers.Split(
                    $$"""{"type":"Split","pattern":{{pattern}},"behavior":"{{behavior}}","invert":{{(invert ? "true" : "false")}}}""", "the-final--countdown"),
                Is.EqualTo(expected));
    }

    [TestCase("""{"type":"Digits","individual_digits":true}""", "a12b", "a|1|2|b")]
    [TestCase("""{"type":"Digits","individual_digits":false}""", "a12b", "a|12|b")]
    [TestCase("""{"type":"Punctuation"}""", "a,!b$", "a|,|!|b|$")]
    [TestCase("""{"type":"Punctuation","behavior":"Contiguous"}""", "a,!b", "a|,!|b")]
    [TestCase("""{"type":"Whitespace"}""", "a,! b1", "a|,!|b1")]
    [TestCase("""{"type":"WhitespaceSplit"}""", "a,! b", "a,!|b")]
    [TestCase("""{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Digits","individual_digits":true}]}""", "a1 2", "a|1|2")]
    public void Other_pre_tokenizers_split_as_theirs_do(string preTokenizer, string text, string expected) =>
        Assert.That(TinyTokenizers.Split(preTokenizer, text), Is.EqualTo(expected));

    [TestCase("""{"type":"NFC"}""", "e\u0301", "é")]
    [TestCase("""{"type":"NFKC"}""", "ﬁ", "fi")]
    [TestCase("""{"type":"Lowercase"}""", "ÀB", "àb")]
    [TestCase("""{"type":"Strip","strip_left":true,"strip_right":true}""", "  a ", "a")]
    [TestCase("""{"type":"Replace","pattern":{"Regex":" +"},"content":"_"}""", "a   b c", "a_b_c")]
    [TestCase("""{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"x"},{"type":"Lowercase"}]}""", "A", "xa")]
    public void Normalizers_change_the_text_first(string normalizer, string text, string expected)
    {
        var tokenizer = TinyTokenizers.ByteLevel($"\"normalizer\":{normalizer}");
        Assert.That(tokenizer.Decode(tokenizer.Encode(text)), Is.EqualTo(expected));
    }

    [TestCase("""{"type":"Metaspace","replacement":"_","prepend_scheme":"always"}""", "a b c")]
    [TestCase("null", "_a _b_c")]
    [TestCase("""{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":"__"},{"type":"Fuse"},{"type":"Strip","content":"_","start":1,"stop":0}]}""", "_a__b__c")]
    [TestCase("""{"type":"Strip","content":"_","start":0,"stop":1}""", "_a_b_c")]
    public void Decoders_join_the_tokens(string decoder, string expected)
    {
        var tokenizer = TinyTokenizers.Json(TinyTokenizers.Model(["_a", "_b_c"], []), $"\"decoder\":{decoder}");
        Assert.That(tokenizer.Decode([0, 1]), Is.EqualTo(expected));
        var stream = tokenizer.Stream();
        Assert.That(stream.Append(0) + stream.Append(1) + stream.Flush(), Is.EqualTo(expected));
    }

    [Test]
    public void Byte_level_text_survives_encoding_and_decoding()
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        var text = ArbMap.Default.GeneratorFor<string>().Select(s => Encoding.UTF8.GetString(Encoding.UTF8.GetBytes((s ?? "") + " the \U0001F642" + s)));
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(300), Prop.ForAll(text.ToArbitrary(), s => tokenizer.Decode(tokenizer.Encode(s)) == s));
    }

    [Test]
    public void Streamed_pieces_join_to_the_decoded_text_and_never_end_within_a_character()
    {
        foreach (var tokenizer in new[] { TinyTokenizers.ByteLevel(), Llama() })
        {
            var ids = Gen.Choose(-1, tokenizer.VocabularySize).Or(Gen.Choose(198, 256)).ListOf().Select(l => l.ToArray());
            Check.One(Config.QuickThrowOnFailure.WithMaxTest(500), Prop.ForAll(ids.ToArbitrary(), sequence =>
            {
                var stream = tokenizer.Stream(skipSpecial: false);
                string[] pieces = [.. sequence.Select(stream.Append).ToArray(), stream.Flush()];
                return string.Concat(pieces) == tokenizer.Decode(sequence)
                    && pieces.All(p => p.Length == 0 || (!char.IsHighSurrogate(p[^1]) && !char.IsLowSurrogate(p[0])));
            }));
        }
    }

    [Test]
    public void A_stream_gives_each_character_as_soon_as_it_is_whole()
    {
        var stream = TinyTokenizers.ByteLevel().Stream();
        Assert.That(new[] { 0xF0, 0x9F, 0x99, 0x82, 'a', 0xC3 }.Select(stream.Append), Is.EqualTo(new[] { "", "", "", "🙂", "a", "" }));
        Assert.That(stream.Flush(), Is.EqualTo("\uFFFD"));
        Assert.That(stream.Append('b') + stream.Flush(), Is.EqualTo("b"));
    }

    [TestCase("a\uD83D")]
    [TestCase("\uDE42a\uD83D\uD83D\uDE42")]
    public void Lone_surrogates_count_as_replacement_characters(string text)
    {
        var tokenizer = TinyTokenizers.ByteLevel();
        Assert.That(tokenizer.Decode(tokenizer.Encode(text)), Is.EqualTo(Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text))));
    }

    [Test]
    public void Nothing_encodes_to_nothing_but_special_tokens() => Assert.That(Llama().Encode(""), Is.Empty);

    [CancelAfter(60_000)]
    [TestCase("a")]
    [TestCase(" ")]
    [TestCase("\n")]
    [TestCase("the cat's 12 hats, über 中文 🙂\n")]
    [TestCase("\u0301\u0323")]
    public void A_megabyte_takes_no_more_than_its_share(string unit, CancellationToken cancel)
    {
        var text = string.Concat(Enumerable.Repeat(unit, (1 << 20) / unit.Length));
        foreach (var tokenizer in new[] { TinyTokenizers.ByteLevel("\"normalizer\":{\"type\":\"NFC\"}"), Llama() })
        {
            Assert.That(tokenizer.Encode(text + "中"), Is.Not.Empty);
            cancel.ThrowIfCancellationRequested();
        }
    }

    [TestCase("""{"model":{"type":"Unigram","vocab":[]}}""", "model.type")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}""", "model.vocab")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":2147483647},"merges":[]}}""", "model.vocab")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"\ud800":1},"merges":[]}}""", "model.vocab")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":0}}}""", "model.merges")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}""", "\"ab\"")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a"]}}""", "model.merges[0]")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}}""", "model.merges[0]")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[],"dropout":0.1}}""", "model.dropout")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[],"end_of_word_suffix":"</w>"}}""", "model.end_of_word_suffix")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[],"unk_token":"?"}}""", "model.unk_token")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"normalizer":{"type":"Nmt"}}""", "normalizer.type")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"UnicodeScripts"}]}}""", "pre_tokenizer.pretokenizers[0].type")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Isolated"}}""", "pre_tokenizer.pattern.Regex")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"decoder":{"type":"CTC"}}""", "decoder.type")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"post_processor":{"type":"BertProcessing"}}""", "post_processor.type")]
    [TestCase("""{"model":{"type":"BPE","vocab":{"a":5},"merges":[]},"added_tokens":[{"id":5,"content":"b"}]}""", "added_tokens[0].id")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"added_tokens":[{"id":99999999,"content":"b"}]}""", "added_tokens[0].id")]
    [TestCase("""{"model":{"type":"BPE","vocab":{},"merges":[]},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"s"}},{"Sequence":{"id":"A"}}],"special_tokens":{"s":{"ids":[7]}}}}""", "post_processor")]
    [TestCase("""{"\ud800":1}""", "tiny.json")]
    [TestCase("[]", "object")]
    [TestCase("{", "tiny.json")]
    [TestCase("", "tiny.json")]
    [TestCase("{}", "model")]
    [TestCase("""{"model":[]}""", "model")]
    public void What_is_malformed_or_not_supported_is_refused_by_name(string json, string named) => Assert.That(
        () => Tokenizer.FromJson(Encoding.UTF8.GetBytes(json), "tiny.json"),
        Throws.InstanceOf<InvalidDataException>().With.Message.Contains(named).And.Message.Contains("tiny.json"));

    [Test]
    public void Bad_files_of_every_length_are_refused_not_crashed_on()
    {
        var whole = Encoding.UTF8.GetBytes("{\"model\":" + TinyTokenizers.Model(["a", "b", "ab"], ["a b"]) + ",\"added_tokens\":[" + Added("<x>") + "]}");
        for (var length = 0; length < whole.Length; length++)
            Assert.That(() => Tokenizer.FromJson(whole.AsMemory(0, length), "cut"), Throws.InstanceOf<InvalidDataException>());
    }
}
