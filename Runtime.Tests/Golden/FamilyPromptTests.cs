using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;

namespace Trimtab.Tests.Golden;

/// <summary>What no fixture's vocabulary has: the tokens that processors write around images; and sequences that outgrow LongRoPE's short angles.</summary>
public class FamilyPromptTests
{
    private const string Decoder = """
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": $V
        """, Tower = """
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14
        """;

    private string _folder = null!;

    [SetUp]
    public void Make() => _folder = Directory.CreateTempSubdirectory("trimtab-prompts-").FullName;

    [TearDown]
    public void Delete() => Directory.Delete(_folder, true);

    /// <summary>As Idefics 3's processor writes it: each tile after its row and column, lines end rows, the whole image comes last.</summary>
    [TestCase("idefics3", "Idefics3"), TestCase("smolvlm", "SmolVLM")]
    public void Tiles_stand_between_their_markers(string type, string name)
    {
        string[] special = ["<fake_token_around_image>", "<global-img>", .. from row in Enumerable.Range(1, 2) from column in Enumerable.Range(1, 2) select $"<row_{row}_col_{column}>"];
        using var model = Open($$"""
            { "model_type": "{{type}}", "image_token_id": $I, "scale_factor": 2, "tie_word_embeddings": true, "text_config": { "model_type": "llama", {{Decoder}} },
              "vision_config": { "model_type": "idefics3_vision", {{Tower}} } }
            """, $$"""
            { "image_processor_type": "{{name}}ImageProcessor", "do_image_splitting": true, "size": { "longest_edge": 56 }, "max_image_size": { "longest_edge": 28 } }
            """, special);
        const string Rows = "<fake_token_around_image><row_1_col_1><image><fake_token_around_image><row_1_col_2><image>\n"
            + "<fake_token_around_image><row_2_col_1><image><fake_token_around_image><row_2_col_2><image>\n\n", Whole = "<fake_token_around_image><global-img><image><fake_token_around_image>";
        Check(model, "a <image> b", 60, 60, $"a {Rows}{Whole} b");
        Check(model, "<image>\n", 60, 20, $"<fake_token_around_image><row_1_col_1><image><fake_token_around_image><row_1_col_2><image>\n\n{Whole}\n");
        var outcome = Outcome.Run(model, [(model.Raw("a <image> b", [Image.Noise(60, 60, 1)]), new() { MaxTokens = 2, IgnoreEos = true })])[0];
        Assert.That(outcome.Tokens, Has.Length.EqualTo(2));
    }

    [Test]
    public void Gemma_writes_around_an_image()
    {
        using var model = Open($$"""
            { "model_type": "gemma3", "image_token_index": $2, "boi_token_index": $0, "eoi_token_index": $1, "mm_tokens_per_image": 1,
              "text_config": { "model_type": "gemma3_text", "sliding_window": 16, "query_pre_attn_scalar": 8, {{Decoder}} }, "vision_config": { "model_type": "siglip_vision_model", {{Tower}} } }
            """, """{ "image_processor_type": "Gemma3ImageProcessor", "size": { "height": 28, "width": 28 }, "do_pan_and_scan": null }""",
            ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]);
        Check(model, "a <start_of_image> b", 40, 30, "a \n\n<start_of_image><image_soft_token><end_of_image>\n\n b");
        Assert.That(model.Raw("<start_of_image>a<start_of_image>", [Image.Noise(9, 9, 1), Image.Noise(9, 9, 2)]).Images.Select(image => image.Rows), Is.EqualTo(new[] { 1, 1 }));
    }

    /// <summary>What is drawn after the change is what a prompt of all those tokens would give, to the bit, cache or none.</summary>
    [Test]
    public void A_sequence_that_outgrows_its_short_angles_begins_again([Values] bool cache)
    {
        using var model = Open($$"""
            { "model_type": "llama", {{Decoder}}, "max_position_embeddings": 256, "original_max_position_embeddings": 40,
              "rope_scaling": { "type": "longrope", "short_factor": [1, 1, 1.5, 2], "long_factor": [1, 2, 8, 30] } }
            """, "");
        var options = new EngineOptions { PrefixCache = cache };
        Prompt[] prompts = [model.Raw("the answer in the rain is one that no one on the"), model.Raw("the answer in the rain is another one, on the whole of it a long one")];
        Assert.That(prompts.Select(prompt => prompt.Tokens.Length), Is.All.InRange(25, 50));
        foreach (var outcome in Outcome.Run(model, [.. prompts.Select(prompt => (prompt, new GenerationOptions { MaxTokens = 30, IgnoreEos = true }))], options))
        {
            int[] tokens = [.. outcome.Sequence.Prompt.Tokens];
            for (var step = 0; step < 30; step++)
            {
                var fresh = Outcome.Run(model, [(new Prompt([.. tokens, .. outcome.Tokens[..step]]), new() { MaxTokens = 1, IgnoreEos = true })], options)[0];
                Assert.That(outcome.Logits[step], Is.EqualTo(fresh.Logits[0]), $"step {step} of {tokens.Length} tokens");
            }
        }
    }

    private VisionLanguageModel Open(string config, string processor, params ReadOnlySpan<string> special) =>
        VisionLanguageModel.Open(TinyModel.Write(_folder, config, processor, special), new() { WeightType = DType.F32, Threads = 2 });

    private static void Check(VisionLanguageModel model, string text, int width, int height, string expected)
    {
        var prompt = model.Raw(text, [Image.Noise(width, height, 1)]);
        Assert.That(model.Tokenizer.Decode(prompt.Tokens, skipSpecial: false), Is.EqualTo(expected));
        Assert.That(prompt.Tokens, Is.EqualTo(model.Tokenizer.Encode(expected, addSpecial: false)));
        var markers = prompt.Tokens.Length - model.Tokenizer.Encode(text.Replace(model.Files.ImagePlaceholder, "", StringComparison.Ordinal), addSpecial: false).Length;
        if (model.Files.Spec.Markers!.Tiles)
            Assert.That(model.Files.ImageTokens(width, height), Is.EqualTo(markers));
    }
}
