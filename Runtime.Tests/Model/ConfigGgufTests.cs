using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Tests;

public class ConfigGgufTests
{
    private static Dictionary<string, object> Metadata(string a = "llama") => new()
    {
        ["general.architecture"] = a, ["general.file_type"] = 7u, [a + ".context_length"] = 2048u, [a + ".embedding_length"] = 64u,
        [a + ".block_count"] = 3u, [a + ".feed_forward_length"] = 96ul, [a + ".attention.head_count"] = 4u,
        [a + ".attention.layer_norm_rms_epsilon"] = 1e-5f, ["tokenizer.ggml.tokens"] = new[] { "a", "<image>", "c" },
        ["tokenizer.ggml.bos_token_id"] = 0u, ["tokenizer.ggml.eos_token_id"] = 2u,
    };

    private static Dictionary<string, object> VisionMetadata() => new()
    {
        ["general.architecture"] = "clip", ["clip.has_vision_encoder"] = true, ["clip.projector_type"] = "mlp", ["clip.use_gelu"] = false,
        ["clip.vision.embedding_length"] = 32u, ["clip.vision.feed_forward_length"] = 48u, ["clip.vision.block_count"] = 3u,
        ["clip.vision.image_size"] = 28u, ["clip.vision.patch_size"] = 14u, ["clip.vision.attention.head_count"] = 2u,
        ["clip.vision.attention.layer_norm_epsilon"] = 1e-5f, ["clip.vision.image_mean"] = new[] { 0.5f, 0.4f, 0.3f }, ["clip.vision.image_std"] = new[] { 0.1f, 0.2f, 0.3f },
    };

    private static readonly Dictionary<string, long[]> VisionTensors = new()
    {
        ["v.class_embd"] = [32], ["v.pre_ln.weight"] = [32], ["mm.0.weight"] = [80, 32], ["mm.0.bias"] = [80], ["mm.2.weight"] = [64, 80],
    };

    private static ModelSpec Parse(Dictionary<string, object> metadata, Dictionary<string, long[]>? tensors = null, float[]? frequencies = null) =>
        GgufConfig.Parse(metadata, name => (tensors ?? []).GetValueOrDefault(name), "tiny.gguf", frequencies is null ? null : _ => frequencies);

    private static GgufVision ParseVision(Dictionary<string, object> metadata, Dictionary<string, long[]>? tensors = null) =>
        GgufConfig.ParseVision(metadata, name => (tensors ?? VisionTensors).GetValueOrDefault(name), "mmproj.gguf", 64);

    private static Dictionary<string, object> With(Dictionary<string, object> metadata, string key, object? value)
    {
        metadata.Remove(key);
        if (value is not null)
            metadata[key] = value;
        return metadata;
    }

    [Test]
    public void Says_of_a_gguf_what_its_hugging_face_twin_says()
    {
        var folder = Shared.Path("fixtures", "models", "llava-gqa-gguf");
        var twinFolder = Shared.Path("fixtures", "models", "llava-gqa");
        var twin = HuggingFaceConfig.Parse(File.ReadAllBytes(Path.Combine(twinFolder, "config.json")), twinFolder);
        var file = ConfigHeaders.Gguf(Path.Combine(folder, "model-bf16.gguf"));
        var spec = GgufConfig.Parse(file.Metadata, file.Shape, "model-bf16.gguf");
        var mmproj = ConfigHeaders.Gguf(Path.Combine(folder, "mmproj-bf16.gguf"));
        var vision = GgufConfig.ParseVision(mmproj.Metadata, mmproj.Shape, "mmproj-bf16.gguf", spec.Text.HiddenSize);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(spec.Text with { Windows = twin.Text.Windows, EosIds = twin.Text.EosIds }, Is.EqualTo(twin.Text));
            Assert.That(spec.Text.Windows, Is.EqualTo(twin.Text.Windows));
            Assert.That(spec.Text.EosIds, Is.EqualTo(twin.Text.EosIds));
            Assert.That((spec.ImageTokenId, spec.StoredType), Is.EqualTo((twin.ImageTokenId, twin.StoredType)));
            Assert.That(vision.Vision, Is.EqualTo(twin.Vision! with { Layers = 3 }));
            Assert.That(vision.Projector, Is.EqualTo(twin.Projector));
            Assert.That(vision.Mean, Is.EqualTo(new[] { 0.48145466f, 0.4578275f, 0.40821073f }).Within(1e-7));
            Assert.That(vision.Std, Is.EqualTo(new[] { 0.26862954f, 0.26130258f, 0.27577711f }).Within(1e-7));
        }
    }

    [Test]
    public void Reads_a_real_model()
    {
        var file = ConfigHeaders.Gguf(Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf"));
        var spec = GgufConfig.Parse(file.Metadata, file.Shape, "SmolLM2");
        Assert.That((spec.Text.HiddenSize, spec.Text.Layers, spec.Text.Heads, spec.Text.KeyValueHeads, spec.Text.HeadDimension, spec.Text.VocabularySize, spec.Text.TieEmbeddings),
            Is.EqualTo((576, 30, 9, 3, 64, 49152, true)));
        Assert.That(spec.Text.Rope, Is.EqualTo(new RopeSpec(RopeKind.Default, 100000, 64, 8192)));
        Assert.That((spec.StoredType, spec.ImageTokenId, spec.Text.BosId), Is.EqualTo(((DType?)DType.Q4_1, (int?)null, (int?)1)));
        Assert.That(spec.Text.EosIds, Is.EqualTo(new[] { 2 }));
    }

    [TestCase("q_proj", "attn_q", 4)]
    [TestCase("k_proj", "attn_k", 2)]
    public void Finds_hugging_faces_rows_in_llama_cpps_order(string part, string ggufPart, int heads)
    {
        var file = ConfigHeaders.Gguf(Shared.Path("fixtures", "models", "llava-gqa-gguf", "model-bf16.gguf"));
        var twin = Shared.Path("fixtures", "models", "llava-gqa", "model.safetensors");
        var order = GgufConfig.HalvesRowOrder(heads, 16);
        for (var layer = 0; layer < 4; layer++)
        {
            var expected = ConfigHeaders.SafetensorsData(twin, $"model.language_model.layers.{layer}.self_attn.{part}.weight");
            var stored = file.Data($"blk.{layer}.{ggufPart}.weight", expected.Length).ToArray();
            var rowBytes = expected.Length / order.Length;
            Assert.That(order.SelectMany(row => stored[(row * rowBytes)..((row + 1) * rowBytes)]), Is.EqualTo(expected));
            Assert.That(stored, Is.Not.EqualTo(expected));
        }
    }

    [Test]
    public void Takes_halves_apart_head_by_head() =>
        Assert.That(GgufConfig.HalvesRowOrder(2, 6), Is.EqualTo(new[] { 0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11 }));

    [Test]
    public void Fills_what_a_gguf_leaves_out()
    {
        var spec = Parse(Metadata(), new() { ["token_embd.weight"] = [128, 64], ["output.weight"] = [128, 64], ["blk.0.attn_q.bias"] = [64] });
        using (Assert.EnterMultipleScope())
        {
            Assert.That((spec.Text.KeyValueHeads, spec.Text.HeadDimension, spec.Text.VocabularySize, spec.Text.TieEmbeddings), Is.EqualTo((4, 16, 128, false)));
            Assert.That((spec.Text.QkvBias, spec.Text.OutputBias, spec.Text.MlpBias), Is.EqualTo((true, false, false)));
            Assert.That(spec.Text.Rope, Is.EqualTo(new RopeSpec(RopeKind.Default, 10000, 16, 2048)));
            Assert.That((spec.ImageTokenId, spec.StoredType, spec.Architecture), Is.EqualTo(((int?)1, (DType?)DType.Q8_0, "llama")));
            Assert.That(Parse(Metadata()).Text.VocabularySize, Is.EqualTo(3));
            Assert.That(Parse(Metadata("qwen2")).Text.QkvBias, Is.True);
            Assert.That(Parse(Metadata("qwen2")).Text.TieEmbeddings, Is.True);
            Assert.That(Parse(With(Metadata(), "llama.attention.head_count_kv", new[] { 2, 2, 2 })).Text.KeyValueHeads, Is.EqualTo(2));
            Assert.That(Parse(With(Metadata(), "llama.attention.sliding_window", 9u)).Text.Windows, Is.EqualTo(new[] { 9, 9, 9 }));
            Assert.That(Parse(With(Metadata(), "tokenizer.ggml.eot_token_id", 1u)).Text.EosIds, Is.EqualTo(new[] { 2, 1 }));
        }
    }

    [Test]
    public void Reads_rope_scaling_keys()
    {
        RopeSpec Rope(params (string Key, object Value)[] keys)
        {
            var metadata = Metadata();
            foreach (var (key, value) in keys)
                metadata["llama.rope." + key] = value;
            return Parse(metadata).Text.Rope;
        }
        var plain = new RopeSpec(RopeKind.Default, 10000, 16, 2048);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Rope(("freq_base", 5e5f)), Is.EqualTo(plain with { Theta = 5e5 }));
            Assert.That(Rope(("scaling.type", "none"), ("scaling.factor", 4f)), Is.EqualTo(plain));
            Assert.That(Rope(("scaling.factor", 4f)), Is.EqualTo(plain with { Kind = RopeKind.Linear, Factor = 4 }));
            Assert.That(Rope(("scale_linear", 2f)), Is.EqualTo(plain with { Kind = RopeKind.Linear, Factor = 2 }));
            Assert.That(Rope(("scaling.type", "yarn"), ("scaling.factor", 4f), ("scaling.original_context_length", 512u)),
                Is.EqualTo(plain with { Kind = RopeKind.Yarn, Factor = 4, OriginalPositions = 512 }));
            Assert.That(Rope(("scaling.type", "yarn"), ("scaling.factor", 4f), ("scaling.attn_factor", 2f)).AttentionFactor, Is.EqualTo(2 * (1 + 0.1 * Math.Log(4))));
        }
    }

    [Test]
    public void Wants_the_frequency_divisors_that_a_file_has()
    {
        var tensors = new Dictionary<string, long[]> { ["rope_freqs.weight"] = [8] };
        float[] divisors = [1, 1, 1, 1, 2, 4, 8, 8];
        Assert.That(Parse(Metadata(), tensors, divisors).Text.Rope.Frequencies, Is.SameAs(divisors));
        Assert.Throws<ArgumentException>(() => Parse(Metadata(), tensors));
        Assert.Throws<InvalidConfigException>(() => Parse(Metadata(), tensors, [1, 2]));
        Assert.Throws<InvalidConfigException>(() => Parse(Metadata(), tensors, [1, 1, 1, 1, 0, 4, 8, 8]));
        Assert.That(Parse(Metadata(), [], divisors).Text.Rope.Frequencies, Is.Null);
    }

    [Test]
    public void Reads_long_rope_where_its_factors_are()
    {
        var tensors = new Dictionary<string, long[]> { ["rope_factors_long.weight"] = [8], ["rope_factors_short.weight"] = [8] };
        float[] divisors = [1, 1, 1, 1, 2, 4, 8, 8];
        var metadata = With(With(Metadata(), "llama.rope.scaling.original_context_length", 64u), "llama.rope.scaling.attn_factor", 1.25f);
        var rope = Parse(metadata, tensors, divisors).Text.Rope;
        Assert.That((rope.Kind, rope.OriginalPositions, rope.AttentionFactor), Is.EqualTo((RopeKind.LongRope, 64, (double?)1.25)));
        Assert.That((rope.Frequencies, rope.LongFrequencies), Is.EqualTo((divisors, divisors)));
        Assert.Throws<InvalidConfigException>(() => Parse(Metadata(), tensors, divisors), "no original length");
    }

    [TestCase("general.architecture", "falcon")]
    [TestCase("general.architecture", "clip")]
    [TestCase("llama.expert_shared_count", 1u)]
    [TestCase("llama.rope.scaling.type", "longrope")]
    [TestCase("llama.rope.dimension_count", 8u)]
    [TestCase("llama.attention.value_length", 8u)]
    [TestCase("llama.attention.head_count", new[] { 4, 2, 4 })]
    [TestCase("llama.attn_logit_softcapping", 50f)]
    [TestCase("llama.use_parallel_residual", true)]
    [TestCase("llama.attention.causal", false)]
    public void Refuses_what_it_does_not_compute(string key, object value)
    {
        var error = Assert.Throws<UnsupportedModelException>(() => Parse(With(Metadata(), key, value)))!;
        Assert.That(error.Message, Does.Contain("tiny.gguf").And.Contain(key).And.Contain("supported:"));
    }

    [TestCase("general.architecture", 3u)]
    [TestCase("general.architecture", null)]
    [TestCase("llama.embedding_length", null)]
    [TestCase("llama.embedding_length", 0u)]
    [TestCase("llama.embedding_length", uint.MaxValue)]
    [TestCase("llama.embedding_length", "64")]
    [TestCase("llama.embedding_length", true)]
    [TestCase("llama.embedding_length", new[] { 64 })]
    [TestCase("llama.embedding_length", 66u)]
    [TestCase("llama.block_count", 1000000u)]
    [TestCase("llama.attention.head_count_kv", 3u)]
    [TestCase("llama.attention.head_count_kv", new int[0])]
    [TestCase("llama.attention.key_length", 15u)]
    [TestCase("llama.attention.layer_norm_rms_epsilon", float.NaN)]
    [TestCase("llama.rope.freq_base", 0f)]
    [TestCase("llama.context_length", null)]
    [TestCase("tokenizer.ggml.tokens", "abc")]
    [TestCase("tokenizer.ggml.eos_token_id", -1)]
    public void Names_the_key_that_makes_no_sense(string key, object? value)
    {
        var error = Assert.Throws<InvalidConfigException>(() => Parse(With(Metadata(), key, value)))!;
        Assert.That(error.Message, Does.Contain("tiny.gguf").And.Contain("expected"));
    }

    [Test]
    public void Reads_a_vision_file()
    {
        var plain = new VisionSpec("clip_vision_model", 32, 48, 3, 3, 2, 28, 14, 1e-5f, Epilogue.QuickGelu, true, true, true);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(ParseVision(VisionMetadata()).Vision, Is.EqualTo(plain));
            Assert.That(ParseVision(VisionMetadata()).Projector, Is.EqualTo(new ProjectorSpec(32, 80, 64, Epilogue.Gelu, true)));
            Assert.That(ParseVision(With(VisionMetadata(), "clip.use_gelu", true)).Vision.Activation, Is.EqualTo(Epilogue.Gelu));
            Assert.That(ParseVision(With(VisionMetadata(), "clip.vision.feature_layer", new[] { 2 })).Vision, Is.EqualTo(plain with { UsedLayers = 2 }));
            var several = ParseVision(With(VisionMetadata(), "clip.vision.feature_layer", new[] { 1, 3 }));
            Assert.That((several.Vision.FeatureLayers, several.Vision.UsedLayers, several.Projector.InputSize), Is.EqualTo((new[] { 1, 3 }, 3, 64)));
        }
    }

    [TestCase("clip.projector_type", "ldp")]
    [TestCase("clip.projector_type", "resampler")]
    [TestCase("clip.has_vision_encoder", false)]
    [TestCase("clip.vision.mm_patch_merge_type", "spatial")]
    [TestCase("general.architecture", "llama")]
    public void Refuses_visions_that_it_does_not_compute(string key, object value) =>
        Assert.That(Assert.Throws<UnsupportedModelException>(() => ParseVision(With(VisionMetadata(), key, value)))!.Message,
            Does.Contain("mmproj.gguf").And.Contain(key).And.Contain("supported:"));

    [TestCase("clip.vision.image_mean", new[] { 0.5f })]
    [TestCase("clip.vision.image_std", new[] { 0.5f, 0f, 0.5f })]
    [TestCase("clip.vision.patch_size", 29u)]
    [TestCase("clip.vision.attention.head_count", 3u)]
    [TestCase("clip.vision.feature_layer", new[] { 4 })]
    [TestCase("clip.vision.feature_layer", new[] { -2 })]
    public void Names_the_vision_key_that_makes_no_sense(string key, object value) =>
        Assert.That(Assert.Throws<InvalidConfigException>(() => ParseVision(With(VisionMetadata(), key, value)))!.Message, Does.Contain(key));

    [Test]
    public void Refuses_another_models_projector_and_other_towers()
    {
        Assert.That(Assert.Throws<InvalidConfigException>(() => GgufConfig.ParseVision(VisionMetadata(), n => VisionTensors.GetValueOrDefault(n), "m", 128))!.Message, Does.Contain("128"));
        Assert.Throws<InvalidConfigException>(() => ParseVision(VisionMetadata(), new() { ["v.class_embd"] = [32] }));
        Assert.Throws<InvalidConfigException>(() => ParseVision(VisionMetadata(), []));
        Assert.Throws<InvalidConfigException>(() => ParseVision(With(VisionMetadata(), "clip.projector_type", "gemma3"), VisionTensors));
    }
}
