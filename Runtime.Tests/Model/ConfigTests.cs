using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Tests;

public class ConfigTests
{
    private const string Tiny = """
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100
        """;

    private static ModelSpec Parse(string json, string? generation = null) =>
        HuggingFaceConfig.Parse(Encoding.UTF8.GetBytes(json), "tiny", generation is null ? default : Encoding.UTF8.GetBytes(generation));

    private static ModelSpec Text(string family, string more = "", string? generation = null) =>
        Parse($$"""{"model_type": "{{family}}", {{Tiny}}{{(family is "mistral" or "qwen2" ? ", \"num_key_value_heads\": 2" : "")}}{{(more.Length > 0 ? ", " : "")}}{{more}}}""", generation);

    private static ModelSpec Llava(string more = "", string text = "", string vision = "") => Parse($$"""
        {
          "model_type": "llava",
          "text_config": {"model_type": "llama", {{Tiny}}{{(text.Length > 0 ? ", " : "")}}{{text}}},
          "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14{{(vision.Length > 0 ? ", " : "")}}{{vision}}
          }{{(more.Length > 0 ? ", " : "")}}{{more}}
        }
        """);

    private static ModelSpec Fixture(string model)
    {
        var folder = Shared.Path("fixtures", "models", model);
        var generation = Path.Combine(folder, "generation_config.json");
        return HuggingFaceConfig.Parse(File.ReadAllBytes(Path.Combine(folder, "config.json")), folder,
            File.Exists(generation) ? File.ReadAllBytes(generation) : default);
    }

    [Test]
    public void Fills_sparse_hub_configs_as_transformers_resolves_them([Values("llava-1.5-7b-hf", "llava-1.5-13b-hf")] string model)
    {
        using var file = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", "configs.json")));
        var given = file.RootElement.GetProperty(model);
        var spec = Parse(given.GetProperty("config").GetRawText());
        // The resolved form is a config too: it must mean the same.
        var full = Parse(given.GetProperty("resolved").GetRawText());
        var resolved = given.GetProperty("resolved");
        var (text, vision) = (resolved.GetProperty("text_config"), resolved.GetProperty("vision_config"));
        foreach (var s in new[] { spec, full })
            using (Assert.EnterMultipleScope())
            {
                Assert.That(s.Architecture, Is.EqualTo("LlavaForConditionalGeneration"));
                Assert.That(s.ImageTokenId, Is.EqualTo(resolved.GetProperty("image_token_index").GetInt32()));
                Assert.That(s.StoredType, Is.EqualTo(resolved.GetProperty("dtype").GetString() is null ? null : (DType?)DType.F16));
                Assert.That(s.Text.Family, Is.EqualTo(text.GetProperty("model_type").GetString()));
                Assert.That(s.Text.HiddenSize, Is.EqualTo(text.GetProperty("hidden_size").GetInt32()));
                Assert.That(s.Text.IntermediateSize, Is.EqualTo(text.GetProperty("intermediate_size").GetInt32()));
                Assert.That(s.Text.Layers, Is.EqualTo(text.GetProperty("num_hidden_layers").GetInt32()));
                Assert.That(s.Text.Heads, Is.EqualTo(text.GetProperty("num_attention_heads").GetInt32()));
                Assert.That(s.Text.KeyValueHeads, Is.EqualTo(text.GetProperty("num_key_value_heads").GetInt32()));
                Assert.That(s.Text.HeadDimension, Is.EqualTo(text.GetProperty("head_dim").GetInt32()));
                Assert.That(s.Text.VocabularySize, Is.EqualTo(text.GetProperty("vocab_size").GetInt32()));
                Assert.That(s.Text.NormEpsilon, Is.EqualTo(text.GetProperty("rms_norm_eps").GetSingle()));
                Assert.That(s.Text.Activation, Is.EqualTo(Epilogue.SiluGate));
                Assert.That(s.Text.QkvBias || s.Text.OutputBias, Is.EqualTo(text.GetProperty("attention_bias").GetBoolean()));
                Assert.That(s.Text.MlpBias, Is.EqualTo(text.GetProperty("mlp_bias").GetBoolean()));
                Assert.That(s.Text.TieEmbeddings, Is.EqualTo(resolved.GetProperty("tie_word_embeddings").GetBoolean()));
                Assert.That(s.Text.Windows, Is.All.Zero);
                Assert.That(s.Text.Rope, Is.EqualTo(new RopeSpec(RopeKind.Default,
                    text.GetProperty("rope_parameters").GetProperty("rope_theta").GetDouble(), 128, text.GetProperty("max_position_embeddings").GetInt32())));
                Assert.That(s.Text.BosId, Is.EqualTo(text.GetProperty("bos_token_id").GetInt32()));
                Assert.That(s.Text.EosIds, Is.EqualTo(new[] { text.GetProperty("eos_token_id").GetInt32() }));
                var layers = vision.GetProperty("num_hidden_layers").GetInt32();
                Assert.That(s.Vision, Is.EqualTo(new VisionSpec("clip_vision_model", vision.GetProperty("hidden_size").GetInt32(),
                    vision.GetProperty("intermediate_size").GetInt32(), layers, layers + 1 + resolved.GetProperty("vision_feature_layer").GetInt32(),
                    vision.GetProperty("num_attention_heads").GetInt32(), vision.GetProperty("image_size").GetInt32(),
                    vision.GetProperty("patch_size").GetInt32(), vision.GetProperty("layer_norm_eps").GetSingle(), Epilogue.QuickGelu, true, true, true)));
                Assert.That(s.Vision!.Features, Is.EqualTo(resolved.GetProperty("image_seq_length").GetInt32()));
                Assert.That(s.Projector, Is.EqualTo(new ProjectorSpec(1024, s.Text.HiddenSize, s.Text.HiddenSize, Epilogue.Gelu,
                    resolved.GetProperty("multimodal_projector_bias").GetBoolean())));
            }
    }

    [Test]
    public void Reads_the_supported_fixtures()
    {
        using (Assert.EnterMultipleScope())
        {
            var gqa = Fixture("llava-gqa");
            Assert.That((gqa.Text.Heads, gqa.Text.KeyValueHeads, gqa.Text.HeadDimension, gqa.Vision!.UsedLayers, gqa.Vision.Features), Is.EqualTo((4, 2, 16, 3, 16)));
            Assert.That((gqa.ImageTokenId, gqa.StoredType, gqa.Text.TieEmbeddings), Is.EqualTo(((int?)32000, (DType?)DType.BF16, false)));
            var wide = Fixture("llava-576");
            Assert.That((wide.Text.HeadDimension, wide.Text.Rope.Dimension, wide.Vision!.UsedLayers, wide.Vision.Features), Is.EqualTo((128, 128, 2, 576)));
            Assert.That(wide.StoredType, Is.EqualTo(DType.F16));
            var tied = Fixture("llava-llama3");
            Assert.That((tied.Text.TieEmbeddings, tied.Text.KeyValueHeads, tied.StoredType), Is.EqualTo((true, 1, (DType?)DType.F32)));
            Assert.That(tied.Text.Rope, Is.EqualTo(new RopeSpec(RopeKind.Llama3, 500000, 32, 2048, 8, 64, 1, 4)));
            var llama = Fixture("text-llama");
            Assert.That((llama.Text.QkvBias, llama.Text.OutputBias, llama.Text.MlpBias, llama.Vision), Is.EqualTo((true, true, true, (VisionSpec?)null)));
            Assert.That(llama.Text.Rope, Is.EqualTo(tied.Text.Rope));
            var mistral = Fixture("text-mistral-window");
            Assert.That(mistral.Text.Windows, Is.EqualTo(new[] { 24, 24, 24, 24 }));
            var qwen = Fixture("text-qwen2");
            Assert.That((qwen.Text.QkvBias, qwen.Text.OutputBias, qwen.Text.TieEmbeddings, qwen.Text.HeadDimension), Is.EqualTo((true, false, true, 32)));
            Assert.That(qwen.Text.Windows, Is.EqualTo(new int[4]));
        }
    }

    [Test]
    public void Fills_each_family_with_its_own_defaults()
    {
        var llama = Parse("""{"model_type": "llama"}""").Text;
        var mistral = Parse("""{"model_type": "mistral"}""").Text;
        var qwen = Parse("""{"architectures": ["Qwen2ForCausalLM"]}""").Text;
        using (Assert.EnterMultipleScope())
        {
            Assert.That((llama.VocabularySize, llama.IntermediateSize, llama.KeyValueHeads, llama.Rope.MaxPositions, llama.BosId), Is.EqualTo((32000, 11008, 32, 2048, (int?)1)));
            Assert.That((mistral.VocabularySize, mistral.IntermediateSize, mistral.KeyValueHeads, mistral.Rope.MaxPositions, mistral.BosId), Is.EqualTo((32000, 14336, 8, 131072, (int?)1)));
            Assert.That((qwen.VocabularySize, qwen.IntermediateSize, qwen.KeyValueHeads, qwen.Rope.MaxPositions, qwen.BosId), Is.EqualTo((151936, 22016, 32, 32768, (int?)null)));
            Assert.That(new[] { llama, mistral, qwen }.Select(t => (t.HiddenSize, t.Layers, t.HeadDimension, t.Rope.Theta)), Is.All.EqualTo((4096, 32, 128, 10000.0)));
            Assert.That(new[] { llama, mistral, qwen }.Select(t => t.NormEpsilon), Is.All.EqualTo(1e-6f));
            Assert.That((llama.Windows.Max(), mistral.Windows.Min(), qwen.Windows.Max()), Is.EqualTo((0, 4096, 0)));
            Assert.That(llama.EosIds, Is.EqualTo(new[] { 2 }));
            Assert.That(qwen.EosIds, Is.Empty);
            Assert.That((llama.QkvBias, mistral.QkvBias, qwen.QkvBias), Is.EqualTo((false, false, true)));
        }
    }

    [Test]
    public void Takes_llavas_own_defaults_where_it_has_no_sub_configs()
    {
        var spec = Parse("""{"architectures": ["LlavaForConditionalGeneration"]}""");
        Assert.That(spec.Vision, Is.EqualTo(new VisionSpec("clip_vision_model", 1024, 4096, 24, 23, 16, 336, 14, 1e-5f, Epilogue.QuickGelu, true, true, true)));
        Assert.That((spec.ImageTokenId, spec.Text.HiddenSize, spec.Text.VocabularySize), Is.EqualTo(((int?)32000, 4096, 32000)));
        var clip = Parse("""{"model_type": "llava", "vision_config": {}, "text_config": {}}""").Vision!;
        Assert.That((clip.HiddenSize, clip.IntermediateSize, clip.Layers, clip.Heads, clip.ImageSize, clip.PatchSize), Is.EqualTo((768, 3072, 12, 12, 224, 32)));
    }

    [TestCase("", 16, 4)]
    [TestCase("\"num_key_value_heads\": null, \"head_dim\": null", 16, 4)]
    [TestCase("\"num_key_value_heads\": 2, \"head_dim\": 48", 48, 2)]
    [TestCase("\"num_key_value_heads\": 1.0", 16, 1)]
    public void Counts_heads(string more, int dimension, int keyValueHeads)
    {
        var text = Text("llama", more).Text;
        Assert.That((text.HeadDimension, text.KeyValueHeads), Is.EqualTo((dimension, keyValueHeads)));
    }

    [TestCase("-2", "\"default\"", 3, 4)]
    [TestCase("-1", "\"full\"", 4, 5)]
    [TestCase("-5", "\"default\"", 0, 4)]
    [TestCase("0", "\"full\"", 0, 5)]
    [TestCase("4", "\"default\"", 4, 4)]
    [TestCase("[1]", "null", 1, 4)]
    public void Counts_feature_layers_over_all_hidden_states(string layer, string strategy, int used, int features)
    {
        var vision = Llava($"\"vision_feature_layer\": {layer}, \"vision_feature_select_strategy\": {strategy}").Vision!;
        Assert.That((vision.UsedLayers, vision.Features, vision.Layers), Is.EqualTo((used, features, 4)));
    }

    [Test]
    public void Divides_images_into_whole_patches_as_clip_does()
    {
        var vision = Llava(vision: "\"image_size\": 32").Vision!;
        Assert.That((vision.Patches, vision.Rows), Is.EqualTo((4, 5)));
    }

    [TestCase("\"tie_word_embeddings\": true", "", true)]
    [TestCase("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", true)]
    [TestCase("", "\"tie_word_embeddings\": true", true)]
    [TestCase("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", true)]
    [TestCase("", "", false)]
    public void Ties_embeddings_where_either_level_says_so(string top, string text, bool tied) =>
        Assert.That(Llava(top, text).Text.TieEmbeddings, Is.EqualTo(tied));

    [TestCase("\"image_token_id\": 7", 7)]
    [TestCase("\"image_token_index\": 8", 8)]
    [TestCase("\"image_token_index\": 9, \"image_token_id\": 9", 9)]
    public void Knows_both_names_of_the_image_token(string more, int id) => Assert.That(Llava(more).ImageTokenId, Is.EqualTo(id));

    [Test]
    public void Collects_the_tokens_that_end_a_generation()
    {
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Text("llama").Text.EosIds, Is.EqualTo(new[] { 2 }));
            Assert.That(Text("llama", "\"eos_token_id\": null").Text.EosIds, Is.Empty);
            Assert.That(Text("llama", "\"eos_token_id\": [5, 6, 5]").Text.EosIds, Is.EqualTo(new[] { 5, 6 }));
            Assert.That(Text("llama", "\"eos_token_id\": 9", """{"eos_token_id": [8, 9]}""").Text.EosIds, Is.EqualTo(new[] { 8, 9 }));
            Assert.That(Text("llama", "", """{"eos_token_id": 8, "bos_token_id": 4}""").Text.EosIds, Is.EqualTo(new[] { 8 }), "no default beside a stated one");
            Assert.That(Text("llama", "\"eos_token_id\": 9", """{"temperature": 0.5}""").Text.EosIds, Is.EqualTo(new[] { 9 }));
            Assert.That(Text("llama", "", """{"bos_token_id": 4}""").Text.BosId, Is.EqualTo(4));
            Assert.That(Text("llama", "\"bos_token_id\": null").Text.BosId, Is.Null);
            Assert.That(Llava("\"eos_token_id\": 7", "\"eos_token_id\": 8").Text.EosIds, Is.EqualTo(new[] { 7 }));
            Assert.That(Llava("\"eos_token_id\": null", "\"eos_token_id\": 8").Text.EosIds, Is.EqualTo(new[] { 8 }));
        }
    }

    [TestCase("llama", "", 0, 0, 0)]
    [TestCase("mistral", "", 4096, 4096, 4096)]
    [TestCase("mistral", "\"sliding_window\": null", 0, 0, 0)]
    [TestCase("mistral", "\"sliding_window\": 7", 7, 7, 7)]
    [TestCase("qwen2", "\"sliding_window\": 7", 0, 0, 0)]
    [TestCase("qwen2", "\"use_sliding_window\": true, \"sliding_window\": 7, \"max_window_layers\": 1", 0, 7, 7)]
    [TestCase("qwen2", "\"use_sliding_window\": true, \"sliding_window\": 7", 0, 0, 0)]
    [TestCase("qwen2", "\"use_sliding_window\": true, \"sliding_window\": null, \"max_window_layers\": 0", 0, 0, 0)]
    [TestCase("qwen2", "\"use_sliding_window\": true, \"sliding_window\": 7, \"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]", 7, 0, 7)]
    public void Gives_each_layer_its_window(string family, string more, int first, int second, int third) =>
        Assert.That(Text(family, more).Text.Windows, Is.EqualTo(new[] { first, second, third }));

    [Test]
    public void Reads_rope_in_its_old_and_new_forms()
    {
        static RopeSpec Rope(string more) => Text("llama", more).Text.Rope;
        var plain = new RopeSpec(RopeKind.Default, 10000, 16, 2048);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Rope("\"rope_theta\": 5e5, \"rope_scaling\": null"), Is.EqualTo(plain with { Theta = 5e5 }));
            Assert.That(Rope("\"rope_scaling\": {}, \"rope_parameters\": {\"rope_theta\": 77, \"rope_type\": \"default\"}"), Is.EqualTo(plain with { Theta = 77 }));
            Assert.That(Rope("\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"), Is.EqualTo(plain with { Kind = RopeKind.Linear, Factor = 2 }));
            Assert.That(Rope("\"rope_theta\": 99, \"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 4.0}"),
                Is.EqualTo(plain with { Kind = RopeKind.Dynamic, Factor = 4, Theta = 99 }));
            Assert.That(Rope("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 512}"),
                Is.EqualTo(plain with { Kind = RopeKind.Llama3, Factor = 8, OriginalPositions = 512 }));
            Assert.That(Rope("\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 8, \"finetuned\": true}"),
                Is.EqualTo(plain with { Kind = RopeKind.Yarn, Factor = 8, OriginalPositions = 2048 }));
            Assert.That(Rope("""
                "rope_parameters": {"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 512, "beta_fast": 16, "beta_slow": 2,
                "attention_factor": 1.5, "mscale": 0.7, "mscale_all_dim": 0, "truncate": false}
                """), Is.EqualTo(new RopeSpec(RopeKind.Yarn, 10000, 16, 2048, 4, 512, BetaFast: 16, BetaSlow: 2, AttentionFactor: 1.5, MScale: 0.7, Truncate: false)));
        }
    }

    [TestCase("quick_gelu", Epilogue.QuickGelu)]
    [TestCase("gelu", Epilogue.Gelu)]
    [TestCase("gelu_pytorch_tanh", Epilogue.GeluTanh)]
    [TestCase("gelu_new", Epilogue.GeluTanh)]
    public void Maps_activations(string name, Epilogue expected)
    {
        var spec = Llava($"\"projector_hidden_act\": \"{name}\", \"multimodal_projector_bias\": false", "", $"\"hidden_act\": \"{name}\"");
        Assert.That((spec.Vision!.Activation, spec.Projector!.Activation, spec.Projector.Bias), Is.EqualTo((expected, expected, false)));
    }

    [TestCase("\"dtype\": \"bfloat16\"", DType.BF16)]
    [TestCase("\"torch_dtype\": \"float32\"", DType.F32)]
    [TestCase("\"torch_dtype\": \"torch.float16\"", DType.F16)]
    [TestCase("\"dtype\": \"float16\", \"torch_dtype\": \"float32\"", DType.F16)]
    [TestCase("\"dtype\": null", null)]
    [TestCase("\"torch_dtype\": \"auto\"", null)]
    public void Reads_the_stored_type(string more, DType? expected) => Assert.That(Text("llama", more).StoredType, Is.EqualTo(expected));

    [TestCase("llama", "\"hidden_act\": \"relu\"", "hidden_act")]
    [TestCase("llama", "\"hidden_act\": \"gelu\"", "hidden_act")]
    [TestCase("llama", "\"rope_scaling\": {\"type\": \"resonance\"}", "rope_scaling.type")]
    [TestCase("llama", "\"rope_parameters\": {\"rope_type\": \"proportional\"}", "rope_type")]
    [TestCase("llama", "\"rope_parameters\": {\"partial_rotary_factor\": 0.5}", "partial_rotary_factor")]
    [TestCase("llama", "\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [4, 2, 2]}", "mrope_section")]
    [TestCase("qwen2", "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}", "full_attention")]
    [TestCase("llama", "\"partial_rotary_factor\": 0.25", "partial_rotary_factor")]
    [TestCase("llama", "\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}", "quantization_config")]
    [TestCase("llama", "\"sliding_window\": 128", "sliding_window")]
    [TestCase("llama", "\"num_local_experts\": 8", "num_local_experts")]
    [TestCase("llama", "\"final_logit_softcapping\": 30.0", "final_logit_softcapping")]
    [TestCase("llama", "\"pruned_heads\": {\"0\": [1]}", "pruned_heads")]
    [TestCase("llama", "\"use_qk_norm\": true", "use_qk_norm")]
    [TestCase("mistral", "\"attention_bias\": true", "attention_bias")]
    [TestCase("qwen2", "\"layer_types\": [\"full_attention\", \"linear_attention\", \"full_attention\"]", "layer_types")]
    [TestCase("falcon", "", "model_type")]
    [TestCase("qwen3_vl_text", "", "model_type")]
    [TestCase("llama", "\"architectures\": [\"LlamaForSequenceClassification\"]", "architectures")]
    [TestCase("llama", "\"torch_dtype\": \"int8\"", "torch_dtype")]
    public void Refuses_what_it_does_not_compute(string family, string more, string field)
    {
        var error = Assert.Throws<UnsupportedModelException>(() => Text(family, more))!;
        Assert.That(error.Message, Does.Contain(Path.Combine("tiny", "config.json")).And.Contain(field).And.Contain("supported:"));
    }

    [TestCase("\"vision_feature_select_strategy\": \"cls\"", "", "vision_feature_select_strategy")]
    [TestCase("\"projector_hidden_act\": \"relu\"", "", "projector_hidden_act")]
    [TestCase("\"quantization_config\": {\"load_in_4bit\": true}", "", "quantization_config")]
    [TestCase("", "\"model_type\": \"pixtral\"", "vision_config.model_type")]
    [TestCase("", "\"hidden_act\": \"mish\"", "vision_config.hidden_act")]
    [TestCase("", "\"num_channels\": 1", "vision_config.num_channels")]
    public void Refuses_visions_that_it_does_not_compute(string more, string vision, string field)
    {
        var error = Assert.Throws<UnsupportedModelException>(() => Llava(more, "", vision))!;
        Assert.That(error.Message, Does.Contain(field).And.Contain("supported:"));
    }

    [TestCase("\"text_config\": {\"model_type\": \"falcon\"}", "text_config.model_type")]
    [TestCase("\"text_config\": {\"model_type\": \"llava\"}", "text_config.model_type")]
    public void Refuses_decoders_that_it_does_not_compute(string more, string field) =>
        Assert.That(Assert.Throws<UnsupportedModelException>(() => Parse($$"""{"model_type": "llava", {{more}}}"""))!.Message, Does.Contain(field));

    [TestCase("\"hidden_size\": -64", "hidden_size")]
    [TestCase("\"hidden_size\": 0", "hidden_size")]
    [TestCase("\"hidden_size\": 1e300", "hidden_size")]
    [TestCase("\"hidden_size\": 64.5", "hidden_size")]
    [TestCase("\"hidden_size\": \"64\"", "hidden_size")]
    [TestCase("\"hidden_size\": 66", "num_attention_heads")]
    [TestCase("\"num_hidden_layers\": 16777216", "num_hidden_layers")]
    [TestCase("\"num_key_value_heads\": 3", "num_key_value_heads")]
    [TestCase("\"num_key_value_heads\": 8", "num_key_value_heads")]
    [TestCase("\"head_dim\": 15", "head_dim")]
    [TestCase("\"head_dim\": 16777216", "heads × head dimension")]
    [TestCase("\"vocab_size\": [100]", "vocab_size")]
    [TestCase("\"rms_norm_eps\": \"1e-5\"", "rms_norm_eps")]
    [TestCase("\"rms_norm_eps\": -1", "rms_norm_eps")]
    [TestCase("\"rope_theta\": 0", "rope_theta")]
    [TestCase("\"rope_theta\": 1e999", "rope_theta")]
    [TestCase("\"rope_scaling\": {\"type\": \"linear\"}", "factor")]
    [TestCase("\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}", "factor")]
    [TestCase("\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}", "high_freq_factor")]
    [TestCase("\"rope_scaling\": \"linear\"", "rope_scaling")]
    [TestCase("\"attention_bias\": 1", "attention_bias")]
    [TestCase("\"eos_token_id\": -1", "eos_token_id")]
    [TestCase("\"eos_token_id\": [1, \"2\"]", "eos_token_id")]
    [TestCase("\"architectures\": \"LlamaForCausalLM\"", "architectures")]
    [TestCase("\"architectures\": [\"MistralForCausalLM\"]", "model_type")]
    [TestCase("\"layer_types\": [\"full_attention\"]", "layer_types")]
    [TestCase("\"layer_types\": [\"sliding_attention\", \"full_attention\", \"full_attention\"]", "layer_types")]
    [TestCase("\"dtype\": 16", "dtype")]
    public void Names_the_field_that_makes_no_sense(string more, string field)
    {
        // The later of two equal keys counts, as in Python.
        var error = Assert.Throws<InvalidConfigException>(() => Text("llama", more))!;
        Assert.That(error.Message, Does.Contain(Path.Combine("tiny", "config.json")).And.Contain(field).And.Contain("expected"));
    }

    /// <summary>Files as sparse as the hub's are: everything else is transformers' default.</summary>
    [Test]
    public void Fills_what_sparse_files_of_later_families_leave_out()
    {
        var gemma = Parse("""
            { "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
              "mm_tokens_per_image": 256, "model_type": "gemma3", "text_config": { "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
                "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "sliding_window": 1024 }, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
              "vision_config": { "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
                "patch_size": 14, "vision_use_head": false } }
            """);
        Assert.That((gemma.Text.Heads, gemma.Text.KeyValueHeads, gemma.Text.HeadDimension, gemma.Text.VocabularySize, gemma.Text.TieEmbeddings, gemma.Vision!.Features),
            Is.EqualTo((8, 4, 256, 262208, true, 256)));
        Assert.That((gemma.Text.Rope.Kind, gemma.Text.Rope.Theta, gemma.Text.LocalRope!.Theta, gemma.Text.Windows[..7]), Is.EqualTo((RopeKind.Linear, 1e6, 1e4, new[] { 1024, 1024, 1024, 1024, 1024, 0, 1024 })));
        Assert.That(gemma.Text.EosIds, Is.EqualTo(new[] { 1, 106 }));

        var pali = Parse("""
            { "architectures": ["PaliGemmaForConditionalGeneration"], "bos_token_id": 2, "eos_token_id": 1, "hidden_size": 2048, "image_token_index": 257152, "model_type": "paligemma",
              "projection_dim": 2048, "text_config": { "hidden_size": 2048, "intermediate_size": 16384, "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18,
                "num_image_tokens": 256, "num_key_value_heads": 1, "vocab_size": 257216 }, "vision_config": { "hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model",
                "num_attention_heads": 16, "num_hidden_layers": 27, "num_image_tokens": 256, "patch_size": 14, "projection_dim": 2048, "vision_use_head": false } }
            """);
        Assert.That((pali.Text.HeadDimension, pali.Text.SeesWholePrompts, pali.Vision!.Features, pali.Vision.PostNorm, pali.Projector, pali.ImageTokenId),
            Is.EqualTo((256, true, 256, true, new ProjectorSpec(1152, 0, 2048, Epilogue.None, true), 257152)));

        var qwen = Parse("""
            { "architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_act": "silu", "hidden_size": 2048, "image_token_id": 151655, "intermediate_size": 11008, "max_position_embeddings": 128000,
              "max_window_layers": 70, "model_type": "qwen2_5_vl", "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
              "rope_scaling": { "mrope_section": [16, 24, 24], "type": "mrope" }, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "transformers_version": "4.41.2",
              "use_sliding_window": false, "vision_config": { "depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "hidden_act": "silu", "hidden_size": 1280, "in_chans": 3, "intermediate_size": 3420,
                "num_heads": 16, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 112 },
              "vocab_size": 151936 }
            """);
        Assert.That((qwen.Text.HeadDimension, qwen.Text.Rope.Sections, qwen.Vision!.Window, qwen.Vision.TimeFactor, qwen.Vision.FullLayers.Length, qwen.Text.Windows.Max()),
            Is.EqualTo((128, new[] { 16, 24, 24 }, 4, 1, 4, 0)));
    }

    [Test]
    public void Reads_long_rope_under_all_of_its_names()
    {
        const string Factors = "\"short_factor\": [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], \"long_factor\": [1, 2, 3, 4, 5, 6, 7, 8]";
        foreach (var json in (string[])[
            $"\"max_position_embeddings\": 1024, \"original_max_position_embeddings\": 64, \"rope_scaling\": {{\"type\": \"longrope\", {Factors}}}",
            $"\"max_position_embeddings\": 1024, \"original_max_position_embeddings\": 64, \"rope_scaling\": {{\"type\": \"su\", {Factors}}}",
            $"\"max_position_embeddings\": 1024, \"rope_parameters\": {{\"rope_type\": \"longrope\", \"original_max_position_embeddings\": 64, {Factors}}}"])
        {
            var rope = Text("phi3", json).Text.Rope;
            Assert.That((rope.Kind, rope.OriginalPositions, rope.Factor, rope.AttentionFactor), Is.EqualTo((RopeKind.LongRope, 64, 16.0, (double?)null)));
            Assert.That((rope.Frequencies![1], rope.LongFrequencies![7]), Is.EqualTo((1.1f, 8f)));
        }
        Assert.That(Assert.Throws<InvalidConfigException>(() => Text("phi3", "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1]}"))!.Message, Does.Contain("short_factor").And.Contain("8"));
    }

    [TestCase("5.4.0", 2), TestCase("5.3.1", 2), TestCase("5.5.4", 2), TestCase("5.6.0.dev0", 1), TestCase("5.2.0", 1), TestCase("4.49.0", 1), TestCase("5.16.0", 1)]
    public void Turns_as_the_transformers_that_wrote_a_checkpoint_did(string version, int expected) => Assert.That(Parse($$"""
        {
          "model_type": "qwen2_5_vl", "transformers_version": "{{version}}",
          "text_config": {"model_type": "qwen2_5_vl_text", {{Tiny}}, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3] } },
          "vision_config": {"hidden_size": 32, "num_heads": 2, "depth": 2, "out_hidden_size": 64, "tokens_per_second": 2}
        }
        """).Vision!.TimeFactor, Is.EqualTo(expected));

    [TestCase("mistral", "8")]
    [TestCase("qwen2", "32")]
    public void Says_so_when_a_familys_default_does_not_fit(string family, string assumed) =>
        Assert.That(Assert.Throws<InvalidConfigException>(() => Parse($$"""{"model_type": "{{family}}", {{Tiny}}}"""))!.Message,
            Does.Contain("num_key_value_heads").And.Contain($"it is {assumed}"));

    [TestCase("", "\"num_attention_heads\": 3", "vision_config.num_attention_heads")]
    [TestCase("", "\"patch_size\": 29", "vision_config.patch_size")]
    [TestCase("", "\"image_size\": 16777216", "vision_config.image_size")]
    [TestCase("", "\"image_size\": [28, 28]", "vision_config.image_size")]
    [TestCase("\"vision_feature_layer\": 5", "", "vision_feature_layer")]
    [TestCase("\"vision_feature_layer\": -6", "", "vision_feature_layer")]
    [TestCase("\"image_token_index\": -200", "", "image_token_index")]
    [TestCase("\"image_token_index\": 1, \"image_token_id\": 2", "", "image_token_id")]
    [TestCase("\"text_config\": []", "", "text_config")]
    public void Names_the_vision_field_that_makes_no_sense(string more, string vision, string field) =>
        Assert.That(Assert.Throws<InvalidConfigException>(() => Llava(more, "", vision))!.Message, Does.Contain(field).And.Contain("expected"));

    [TestCase("")]
    [TestCase("[]")]
    [TestCase("{\"model_type\": \"llama\"")]
    [TestCase("version https://git-lfs.github.com/spec/v1")]
    public void Says_so_when_a_file_is_no_json_object(string json)
    {
        Assert.That(Assert.Throws<InvalidConfigException>(() => Parse(json))!.Message, Does.Contain("config.json"));
        if (json.Length > 0)
            Assert.That(Assert.Throws<InvalidConfigException>(() => Text("llama", "", json))!.Message, Does.Contain("generation_config.json"));
    }

    [Test]
    public void Survives_a_byte_order_mark_and_refuses_broken_text()
    {
        Assert.That(HuggingFaceConfig.Parse(Encoding.UTF8.GetPreamble().Concat("{\"model_type\": \"llama\"}"u8.ToArray()).ToArray(), "x").Text.Family, Is.EqualTo("llama"));
        Assert.Throws<InvalidConfigException>(() => HuggingFaceConfig.Parse((byte[])[.. "{\"model_type\": \""u8, 0xFF, .. "\"}"u8], "x"));
        Assert.Throws<InvalidConfigException>(() => Parse("""{"model_type": "\ud800"}"""));
        Assert.Throws<InvalidConfigException>(() => Parse("{\"a\": " + new string('[', 100_000)));
    }

    [Test]
    public void Ends_every_spoiled_value_in_a_spec_or_one_of_its_two_errors()
    {
        const string Full = """
            {
              "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 5, "projector_hidden_act": "gelu",
              "multimodal_projector_bias": true, "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "torch_dtype": "float16",
              "tie_word_embeddings": false, "eos_token_id": 3, "bos_token_id": 2, "quantization_config": null,
              "text_config": {
                "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100,
                "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
                "use_sliding_window": true, "sliding_window": 32, "max_window_layers": 1, "tie_word_embeddings": true, "rope_theta": 1e4,
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "partial_rotary_factor": 1.0, "num_experts": 0,
                "rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 512, "beta_fast": 32, "beta_slow": 1, "mscale": 1, "truncate": true}
              },
              "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5
              }
            }
            """;
        Assert.That(Parse(Full).Text.Windows, Is.EqualTo(new[] { 0, 32, 32 }));
        string[] spoilt = ["null", "true", "0", "1", "-1", "7", "0.5", "1e999", "-1e999", "2147483648", "1099511627776", "123456789012345678901234567890", "\"\"", "\"\\ud800\"", "[]", "[1]", "[null]", "[\"x\"]", "{}", "{\"a\": {}}"];
        string[] sections = ["", "text_config", "text_config/rope_scaling", "vision_config"];
        var runs = 0;
        foreach (var path in sections)
            foreach (var field in Section(JsonNode.Parse(Full)!, path).Select(p => p.Key).ToList())
                foreach (var value in spoilt)
                {
                    var root = JsonNode.Parse(Full)!;
                    Section(root, path)[field] = "@";
                    var json = root.ToJsonString().Replace("\"@\"", value, StringComparison.Ordinal);
                    try
                    {
                        var spec = Parse(json);
                        _ = new Rope(spec.Text.Rope);
                        _ = spec.Vision!.Features;
                    }
                    catch (Exception e) when (e is InvalidConfigException or UnsupportedModelException)
                    {
                        Assert.That(e.Message, Does.Contain("config.json"));
                    }
                    runs++;
                }
        Assert.That(runs, Is.GreaterThan(800));

        static JsonObject Section(JsonNode root, string path) =>
            path.Split('/', StringSplitOptions.RemoveEmptyEntries).Aggregate(root, (node, part) => node[part]!).AsObject();
    }
}
