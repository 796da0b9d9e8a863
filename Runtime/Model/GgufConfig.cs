using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>A vision tower and its projector as an mmproj file describes them, with the normalisation of its pixels.</summary>
/// <param name="Vision">The tower.</param>
/// <param name="Projector">The projector.</param>
/// <param name="Mean">Of each channel, pixels in [0, 1]; [3].</param>
/// <param name="Std">Of each channel; [3].</param>
public sealed record GgufVision(VisionSpec Vision, ProjectorSpec Projector, float[] Mean, float[] Std);

/// <summary>
/// Reads the metadata of GGUF files (the gguf specification of the ggml project, and llama.cpp's keys) into specs. Metadata
/// values are strings, booleans, numbers of any primitive type, and arrays of those. Shapes are asked for by tensor name and
/// given outermost dimension first ([rows, columns]: a GGUF's own ne reversed), null for a tensor that is not there.
/// </summary>
public static class GgufConfig
{
    private const string Frequencies = "rope_freqs.weight";

    private static readonly string[] StopKeys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"];

    /// <summary>Keys after the architecture's name that change the computation, and the number at which they do not.</summary>
    private static readonly (string, double)[] Options =
    [
        ("expert_count", 0), ("expert_used_count", 0), ("use_parallel_residual", double.NaN), ("attn_logit_softcapping", double.NaN),
        ("final_logit_softcapping", double.NaN), ("logit_scale", 1), ("embedding_scale", 1), ("residual_scale", 1), ("attention.scale", 0),
        ("attention.max_alibi_bias", 0), ("attention.clamp_kqv", 0), ("attention.sliding_window_pattern", double.NaN),
        ("attention.temperature_scale", 0), ("rope.scaling.yarn_log_multiplier", 0), ("rope.scaling.yarn_ext_factor", 1),
        ("rope.dimension_sections", double.NaN),
    ];

    /// <summary>Reads a language model's metadata: arch llama (Mistral is exported as it too) or qwen2.</summary>
    /// <param name="metadata">Key to value.</param>
    /// <param name="shape">Shape of a tensor, outermost dimension first, or null.</param>
    /// <param name="name">The file, for errors.</param>
    /// <param name="ropeFrequencies">Values of the tensor rope_freqs.weight where the file has it: [R/2] divisors.</param>
    /// <returns>
    /// A spec without vision. ImageTokenId is that of "&lt;image&gt;" where the vocabulary has it; a vocabulary of plain
    /// Vicuna has not, as llama.cpp splices without a token.
    /// </returns>
    /// <exception cref="UnsupportedModelException">An architecture or option that is not computed here.</exception>
    /// <exception cref="InvalidConfigException">Damaged or contradictory.</exception>
    /// <exception cref="ArgumentException">The file has rope_freqs.weight, and its values were not given.</exception>
    public static ModelSpec Parse(IReadOnlyDictionary<string, object> metadata, Func<string, long[]?> shape, string name,
        float[]? ropeFrequencies = null)
    {
        ArgumentNullException.ThrowIfNull(metadata);
        ArgumentNullException.ThrowIfNull(shape);
        var keys = new GgufSection(metadata, name);
        var architecture = keys.Text("general.architecture");
        if (architecture is not ("llama" or "qwen2"))
            throw keys.Unsupported("general.architecture", "llama, qwen2 (and clip for an mmproj file)");
        var a = architecture + ".";
        keys.RefuseUnlessNeutral(a, Options);
        if (!keys.Flag(a + "attention.causal", true))
            throw keys.Unsupported(a + "attention.causal", "true");

        var hidden = keys.Size(a + "embedding_length");
        var heads = keys.UniformSize(a + "attention.head_count");
        var keyValueHeads = keys.UniformSize(a + "attention.head_count_kv", heads);
        if (heads % keyValueHeads != 0)
            throw keys.Invalid(a + "attention.head_count_kv", $"a divisor of head_count, {heads}");
        if (!keys.Has(a + "attention.key_length") && hidden % heads != 0)
            throw keys.Invalid(a + "attention.head_count", $"a divisor of embedding_length, {hidden}, or a key_length");
        var dimension = keys.Size(a + "attention.key_length", hidden / heads);
        if (dimension % 2 != 0 || (long)heads * dimension > ConfigSection.MaxSize)
            throw keys.Invalid(a + "attention.head_count",
                $"an even head dimension, not {dimension}, and heads × it of at most {ConfigSection.MaxSize}");
        foreach (var key in (ReadOnlySpan<string>)["attention.value_length", "rope.dimension_count"])
            if (keys.Size(a + key, dimension) != dimension)
                throw keys.Unsupported(a + key, $"the head dimension, {dimension}");

        var layers = keys.Size(a + "block_count", null, ConfigSection.MaxLayers);
        var window = keys.Size(a + "attention.sliding_window", 0, 1 << 30, 0);
        if (window > 0 && architecture == "qwen2") // which of its layers have it is not in the file
            throw keys.Unsupported(a + "attention.sliding_window", "0");

        bool HasBias(string part) => shape($"blk.0.{part}.bias") is not null;
        var tokens = keys.List("tokenizer.ggml.tokens");
        var text = new TextSpec(architecture, hidden, keys.UniformSize(a + "feed_forward_length"), layers, heads, keyValueHeads, dimension,
            Vocabulary(keys, a, shape, tokens), (float)keys.Number(a + "attention.layer_norm_rms_epsilon", 0, 1), Epilogue.SiluGate,
            architecture == "qwen2" || HasBias("attn_q"), HasBias("attn_output"), HasBias("ffn_gate"), shape("output.weight") is null,
            [.. Enumerable.Repeat(window, layers)], Rope(keys, a, dimension, shape, ropeFrequencies),
            keys.Has("tokenizer.ggml.bos_token_id") ? Id(keys, "tokenizer.ggml.bos_token_id") : null, Stops(keys));
        var image = tokens is string[] vocabulary ? Array.IndexOf(vocabulary, "<image>") : -1;
        return new(architecture, text, null, null, image >= 0 ? image : null, StoredType(keys));
    }

    /// <summary>Reads an mmproj file's metadata: a CLIP tower with LLaVA's two-layer MLP.</summary>
    /// <param name="metadata">Key to value.</param>
    /// <param name="shape">Shape of a tensor, outermost dimension first, or null.</param>
    /// <param name="name">The file, for errors.</param>
    /// <param name="decoderHiddenSize">D of the language model that it is for.</param>
    /// <exception cref="UnsupportedModelException">Another tower, projector or option.</exception>
    /// <exception cref="InvalidConfigException">Damaged, contradictory, or for a model of another width.</exception>
    public static GgufVision ParseVision(IReadOnlyDictionary<string, object> metadata, Func<string, long[]?> shape, string name,
        int decoderHiddenSize)
    {
        ArgumentNullException.ThrowIfNull(metadata);
        ArgumentNullException.ThrowIfNull(shape);
        var keys = new GgufSection(metadata, name);
        const string Clip = "clip.", V = "clip.vision.";
        if (keys.Text("general.architecture") != "clip")
            throw keys.Unsupported("general.architecture", "clip");
        if (!keys.Flag(Clip + "has_vision_encoder", true))
            throw keys.Unsupported(Clip + "has_vision_encoder", "true");
        foreach (var key in (ReadOnlySpan<string>)[Clip + "projector_type", V + "projector_type"])
            if (keys.Text(key, "mlp") != "mlp")
                throw keys.Unsupported(key, "mlp");
        if (keys.Text(V + "mm_patch_merge_type", "flat") != "flat")
            throw keys.Unsupported(V + "mm_patch_merge_type", "flat");
        if (shape("v.class_embd") is null)
            throw new UnsupportedModelException($"{name}: no tensor v.class_embd: only CLIP towers, which have a class token, are supported");

        var hidden = keys.Size(V + "embedding_length");
        var heads = keys.Size(V + "attention.head_count");
        if (hidden % heads != 0)
            throw keys.Invalid(V + "attention.head_count", $"a divisor of embedding_length, {hidden}");
        var image = keys.Size(V + "image_size", null, 1 << 14);
        var patch = keys.Size(V + "patch_size", null, 1 << 12);
        if (patch > image || image / patch > 1 << 12)
            throw keys.Invalid(V + "patch_size", $"from 1/4096 of image_size, {image}, to all of it");

        // Converters leave out the blocks after the feature layer and count the rest; newer ones also name the layer.
        var layers = keys.Size(V + "block_count", null, ConfigSection.MaxLayers, 0);
        var used = layers;
        if (keys.List(V + "feature_layer") is { Count: > 0 } features)
            used = features.Count == 1 ? (int)keys.Numbers(V + "feature_layer", 1, 0, layers)[0]
                : throw keys.Unsupported(V + "feature_layer", "one layer");
        if (keys.Flag(Clip + "use_gelu", false) && keys.Flag(Clip + "use_silu", false))
            throw keys.Invalid(Clip + "use_silu", "not both of use_gelu and use_silu");
        var activation = keys.Flag(Clip + "use_gelu", false) ? Epilogue.Gelu
            : keys.Flag(Clip + "use_silu", false) ? Epilogue.Silu : Epilogue.QuickGelu;

        var first = Matrix("mm.0.weight");
        var second = Matrix("mm.2.weight");
        if (second[0] != decoderHiddenSize)
            throw new InvalidConfigException($"{name}: mm.2.weight: {second[0]} rows; expected the language model's width, {decoderHiddenSize}: "
                + "this projector belongs to another model");
        return new(
            new("clip_vision_model", hidden, keys.Size(V + "feed_forward_length"), layers, used, heads, image, patch,
                (float)keys.Number(V + "attention.layer_norm_epsilon", 0, 1), activation, ClassToken: true, DropClassToken: true,
                PreNorm: shape("v.pre_ln.weight") is not null),
            new(hidden, (int)first[0], decoderHiddenSize, Epilogue.Gelu, shape("mm.0.bias") is not null),
            keys.Numbers(V + "image_mean", 3, -1e3, 1e3), keys.Numbers(V + "image_std", 3, 1e-6, 1e3));

        long[] Matrix(string tensor) => shape(tensor) is [>= 1 and <= ConfigSection.MaxSize, _] matrix ? matrix
            : throw new InvalidConfigException($"{name}: {tensor}: expected this matrix of a two-layer projector");
    }

    /// <summary>
    /// For each row of a query or key projection in Hugging Face's order, the row of the GGUF's tensor that holds it. In files of
    /// arch llama (not qwen2) a head's rows are interleaved, row 2j + half for the pair's element half · d/2 + j, since
    /// llama.cpp rotates neighbours there; our <see cref="Device.RopeStore"/> pairs halves. Biases are permuted in the same way.
    /// </summary>
    /// <param name="heads">Query heads for q, key and value heads for k.</param>
    /// <param name="headDim">d, even.</param>
    /// <returns>[heads · headDim].</returns>
    public static int[] HalvesRowOrder(int heads, int headDim)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(heads);
        ArgumentOutOfRangeException.ThrowIfNotEqual(headDim % 2, 0, nameof(headDim));
        var order = new int[checked(heads * headDim)];
        for (var row = 0; row < order.Length; row++)
        {
            var (half, j) = Math.DivRem(row % headDim, headDim / 2);
            order[row] = row - row % headDim + 2 * j + half;
        }
        return order;
    }

    private static int Vocabulary(GgufSection keys, string a, Func<string, long[]?> shape, System.Collections.IList? tokens)
    {
        // The table itself is the truth: some exporters pad it beyond the tokens.
        if (shape("token_embd.weight") is [>= 1 and <= ConfigSection.MaxSize, _] table)
            return (int)table[0];
        if (keys.Has(a + "vocab_size"))
            return keys.Size(a + "vocab_size");
        return tokens is { Count: >= 1 and <= ConfigSection.MaxSize } ? tokens.Count : throw keys.Invalid(a + "vocab_size",
            "the vocabulary's size");
    }

    private static RopeSpec Rope(GgufSection keys, string a, int dimension, Func<string, long[]?> shape, float[]? frequencies)
    {
        foreach (var longRope in (ReadOnlySpan<string>)["rope_factors_long.weight", "rope_factors_short.weight"])
            if (shape(longRope) is not null)
                throw new UnsupportedModelException($"{keys.File}: tensor {longRope}: LongRoPE is not supported; "
                    + $"supported: none, linear, yarn, {Frequencies}");
        if (shape(Frequencies) is null)
            frequencies = null;
        else if (frequencies is null)
            throw new ArgumentException($"{keys.File} has {Frequencies}: its values are needed", nameof(frequencies));
        else if (frequencies.Length != dimension / 2 || frequencies.Any(f => !(f > 0 && float.IsFinite(f))))
            throw new InvalidConfigException($"{keys.File}: {Frequencies}: expected {dimension / 2} positive divisors");

        var s = a + "rope.scaling.";
        // llama.cpp takes a factor without a type as linear, and 0 as no scaling.
        var factor = keys.Number(s + "factor", 0, 1e9, keys.Number(a + "rope.scale_linear", 0, 1e9, 0));
        var type = keys.Text(s + "type", factor > 0 ? "linear" : "none");
        if (type is not ("none" or "linear" or "yarn"))
            throw keys.Unsupported(s + "type", "none, linear, yarn");
        var attention = keys.Number(s + "attn_factor", 1e-9, 1e9, keys.Number(s + "yarn_attn_factor", 1e-9, 1e9, 1));
        if (attention != 1 && type != "yarn")
            throw keys.Unsupported(s + "attn_factor", "1");
        var positions = keys.Size(a + "context_length", null, 1 << 30);
        var spec = new RopeSpec(RopeKind.Default, keys.Number(a + "rope.freq_base", 1.000001, 1e15, 10000), dimension, positions,
            Frequencies: frequencies);
        if (type == "none" || factor == 0)
            return spec;
        if (type == "linear")
            return spec with { Kind = RopeKind.Linear, Factor = factor };
        var (fast, slow) = (keys.Number(s + "yarn_beta_fast", 1e-9, 1e9, 32), keys.Number(s + "yarn_beta_slow", 1e-9, 1e9, 1));
        if (fast < slow)
            throw keys.Invalid(s + "yarn_beta_fast", $"at least yarn_beta_slow, {slow}");
        return spec with
        {
            Kind = RopeKind.Yarn, Factor = factor, BetaFast = fast, BetaSlow = slow,
            OriginalPositions = keys.Size(s + "original_context_length", positions, 1 << 30),
            // There the file's factor comes on top of the paper's; here it replaces it.
            AttentionFactor = attention == 1 ? null : attention * (factor <= 1 ? 1 : 1 + 0.1 * Math.Log(factor)),
        };
    }

    private static int Id(GgufSection keys, string key) => keys.Size(key, null, int.MaxValue, 0);

    private static int[] Stops(GgufSection keys) =>
    [
        .. StopKeys.Where(keys.Has).Select(key => Id(keys, key)).Distinct(),
    ];

    private static DType? StoredType(GgufSection keys) => keys.Size("general.file_type", -1, int.MaxValue, 0) switch
    {
        0 => DType.F32,
        1 => DType.F16,
        2 => DType.Q4_0,
        3 => DType.Q4_1,
        7 => DType.Q8_0,
        8 => DType.Q5_0,
        9 => DType.Q5_1,
        10 or 21 => DType.Q2_K,
        11 or 12 or 13 => DType.Q3_K,
        14 or 15 => DType.Q4_K,
        16 or 17 => DType.Q5_K,
        18 => DType.Q6_K,
        25 => DType.IQ4_NL,
        30 => DType.IQ4_XS,
        32 => DType.BF16,
        _ => null,
    };
}
