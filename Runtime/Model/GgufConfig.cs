using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// Reads the metadata of GGUF files (the gguf specification of the ggml project, and llama.cpp's keys) into specs. Metadata
/// values are strings, booleans, numbers of any primitive type, and arrays of those. Shapes are asked for by tensor name and
/// given outermost dimension first ([rows, columns]: a GGUF's own ne reversed), null for a tensor that is not there.
/// </summary>
public static partial class GgufConfig
{
    private const string Frequencies = "rope_freqs.weight", LongFactors = "rope_factors_long.weight", ShortFactors = "rope_factors_short.weight";

    private static readonly string[] StopKeys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"];

    /// <summary>Architectures that are read, and the family of <see cref="TextFamily"/> that each is.</summary>
    private static readonly Dictionary<string, string> Families = new()
    {
        ["llama"] = "llama", ["qwen2"] = "qwen2", ["qwen3"] = "qwen3", ["qwen3moe"] = "qwen3_moe", ["phi3"] = "phi3",
        ["gemma"] = "gemma", ["gemma2"] = "gemma2", ["gemma3"] = "gemma3_text", ["qwen2vl"] = "qwen2_vl_text", ["qwen3vl"] = "qwen3_vl_text",
    };

    /// <summary>Keys after the architecture's name that change the computation, and the number at which they do not.</summary>
    private static readonly (string Key, double Neutral)[] Options =
    [
        ("expert_count", 0), ("expert_used_count", 0), ("expert_shared_count", 0), ("use_parallel_residual", double.NaN), ("attn_logit_softcapping", double.NaN),
        ("final_logit_softcapping", double.NaN), ("logit_scale", 1), ("embedding_scale", 1), ("residual_scale", 1), ("attention.scale", 0),
        ("attention.max_alibi_bias", 0), ("attention.clamp_kqv", 0), ("attention.sliding_window_pattern", double.NaN),
        ("attention.temperature_scale", 0), ("rope.scaling.yarn_log_multiplier", 0), ("rope.scaling.yarn_ext_factor", 1),
        ("rope.dimension_sections", double.NaN),
    ];

    /// <summary>Reads a language model's metadata: arch llama (Mistral and Mixtral are exported as it too), qwen2, qwen3, phi3, gemma3, ….</summary>
    /// <param name="metadata">Key to value.</param>
    /// <param name="shape">Shape of a tensor, outermost dimension first, or null.</param>
    /// <param name="name">The file, for errors.</param>
    /// <param name="values">Values of a tensor that is there: those of RoPE's divisors belong to the spec.</param>
    /// <returns>
    /// A spec without vision. ImageTokenId is that of "&lt;image&gt;" where the vocabulary has it; a vocabulary of plain
    /// Vicuna has not, as llama.cpp splices without a token.
    /// </returns>
    /// <exception cref="UnsupportedModelException">An architecture or option that is not computed here.</exception>
    /// <exception cref="InvalidConfigException">Damaged or contradictory.</exception>
    /// <exception cref="ArgumentException">The file has divisors of RoPE's frequencies, and no way to their values was given.</exception>
    public static ModelSpec Parse(IReadOnlyDictionary<string, object> metadata, Func<string, long[]?> shape, string name,
        Func<string, float[]>? values = null)
    {
        ArgumentNullException.ThrowIfNull(metadata);
        ArgumentNullException.ThrowIfNull(shape);
        var keys = new GgufSection(metadata, name);
        var architecture = keys.Text("general.architecture");
        if (!Families.TryGetValue(architecture, out var type))
            throw keys.Unsupported("general.architecture", string.Join(", ", Families.Keys) + " (and clip for an mmproj file)");
        var a = architecture + ".";
        // Mixtral is a llama with experts.
        if (architecture == "llama" && keys.Size(a + "expert_count", 0, 4096, 0) > 0)
            type = "mixtral";
        var family = TextFamily.All[type];
        string[] read =
        [
            .. family.Experts is null ? (string[])[] : ["expert_count", "expert_used_count"],
            .. family.SoftCaps is null ? (string[])[] : ["attn_logit_softcapping", "final_logit_softcapping"],
            .. family.Windows == WindowRule.Pattern ? (string[])["attention.sliding_window_pattern"] : [],
            .. family.MRope ? (string[])["rope.dimension_sections"] : [],
        ];
        keys.RefuseUnlessNeutral(a, [.. Options.Where(option => !read.Contains(option.Key))]);
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
        var rotated = keys.Size(a + "rope.dimension_count", dimension);
        if (keys.Size(a + "attention.value_length", dimension) != dimension)
            throw keys.Unsupported(a + "attention.value_length", $"the head dimension, {dimension}");
        if (rotated != dimension && (architecture != "phi3" || rotated > dimension || rotated % 2 != 0))
            throw keys.Unsupported(a + "rope.dimension_count", $"the head dimension, {dimension}");

        var layers = keys.Size(a + "block_count", null, ConfigSection.MaxLayers);
        bool HasBias(string part) => shape($"blk.0.{part}.bias") is not null;
        var tokens = keys.List("tokenizer.ggml.tokens");
        var qkvBias = family.QkvBias || HasBias(shape("blk.0.attn_qkv.weight") is null ? "attn_q" : "attn_qkv");
        var rope = Rope(keys, a, rotated, name => shape(name) is null ? null : Divisors(keys, name, rotated, values));
        var experts = family.Experts is not null ? Mixture(keys, a, family, layers) : null;
        var text = new TextSpec(type, hidden, keys.UniformSize(a + "feed_forward_length", experts?.IntermediateSize), layers, heads, keyValueHeads, dimension,
            Vocabulary(keys, a, shape, tokens), (float)keys.Number(a + "attention.layer_norm_rms_epsilon", 0, 1), family.Activation,
            qkvBias, HasBias("attn_output"), HasBias("ffn_gate"), shape("output.weight") is null,
            Windows(keys, a, family, layers), family.MRope ? rope with { Sections = Sections(keys, a, dimension), Interleaved = type == "qwen3_vl_text" } : rope,
            keys.Has("tokenizer.ggml.bos_token_id") ? Id(keys, "tokenizer.ggml.bos_token_id") : null, Stops(keys))
        {
            QkNorm = family.QkNorm,
            PostNorms = family.PostNorms,
            EmbeddingScale = family.Gemma ? MathF.Sqrt(hidden) : 1, // norms hold 1 + w already
            // The two largest Gemmas divide by the width of a head's share of the residual stream; llama.cpp knows them by their layers.
            QueryScale = family.QueryScalar is null ? null
                : 1 / MathF.Sqrt((type, layers) is ("gemma2", 46) or ("gemma3_text", 62) ? (float)hidden / heads : dimension),
            AttentionSoftCap = family.SoftCaps is { } caps ? (float)keys.Number(a + "attn_logit_softcapping", 0, 1e9, caps.Attention) : 0,
            FinalSoftCap = family.SoftCaps is { } final ? (float)keys.Number(a + "final_logit_softcapping", 0, 1e9, final.Final) : 0,
            LocalRope = family.LocalTheta is { } theta
                ? new(RopeKind.Default, keys.Number(a + "rope.freq_base_swa", 1.000001, 1e15, theta), dimension, rope.MaxPositions) : null,
            Mixture = experts,
        };
        var image = tokens is string[] vocabulary ? Array.IndexOf(vocabulary, "<image>") : -1;
        return new(architecture, text, null, null, image >= 0 ? image : null, StoredType(keys));
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

    private static MixtureSpec Mixture(GgufSection keys, string a, TextFamily family, int layers)
    {
        var experts = keys.Size(a + "expert_count", null, 4096);
        return new(experts, keys.Size(a + "expert_used_count", null, experts),
            family.ExpertSize is null ? keys.UniformSize(a + "feed_forward_length") : keys.Size(a + "expert_feed_forward_length"),
            true, [.. Enumerable.Repeat(true, layers)]);
    }

    private static int[] Windows(GgufSection keys, string a, TextFamily family, int layers)
    {
        var window = keys.Size(a + "attention.sliding_window", 0, 1 << 30, 0);
        if (window > 0 && family.Windows == WindowRule.Flagged) // which of its layers have it is not in the file
            throw keys.Unsupported(a + "attention.sliding_window", "0");
        var period = family.Windows == WindowRule.Pattern ? keys.Size(a + "attention.sliding_window_pattern", family.Period, ConfigSection.MaxLayers) : 0;
        return [.. Enumerable.Range(0, layers).Select(l => period > 0 && (l + 1) % period == 0 ? 0 : window)];
    }

    /// <summary>M-RoPE's sections; llama.cpp has a fourth, of nothing.</summary>
    private static int[] Sections(GgufSection keys, string a, int dimension)
    {
        const string Key = "rope.dimension_sections";
        var count = keys.List(a + Key)?.Count ?? 0;
        int[] sections = [.. keys.Numbers(a + Key, Math.Clamp(count, 3, 4), 0, dimension).Select(n => (int)n)];
        return sections.Take(3).Sum() == dimension / 2 && sections.Skip(3).All(s => s == 0) ? sections[..3]
            : throw keys.Invalid(a + Key, $"three counts that sum to half the head dimension, {dimension / 2}");
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

    private static float[] Divisors(GgufSection keys, string tensor, int dimension, Func<string, float[]>? values)
    {
        var divisors = (values ?? throw new ArgumentException($"{keys.File} has {tensor}: its values are needed", nameof(values)))(tensor);
        return divisors.Length == dimension / 2 && divisors.All(f => f > 0 && float.IsFinite(f)) ? divisors
            : throw new InvalidConfigException($"{keys.File}: {tensor}: expected {dimension / 2} positive divisors");
    }

    private static RopeSpec Rope(GgufSection keys, string a, int dimension, Func<string, float[]?> divisors)
    {
        var s = a + "rope.scaling.";
        // llama.cpp takes a factor without a type as linear, and 0 as no scaling.
        var factor = keys.Number(s + "factor", 0, 1e9, keys.Number(a + "rope.scale_linear", 0, 1e9, 0));
        var type = keys.Text(s + "type", factor > 0 ? "linear" : "none");
        var attention = keys.Number(s + "attn_factor", 1e-9, 1e9, keys.Number(s + "yarn_attn_factor", 1e-9, 1e9, 1));
        var positions = keys.Size(a + "context_length", null, 1 << 30);
        var spec = new RopeSpec(RopeKind.Default, keys.Number(a + "rope.freq_base", 1.000001, 1e15, 10000), dimension, positions,
            Frequencies: divisors(Frequencies));
        if ((divisors(ShortFactors), divisors(LongFactors)) is ({ } brief, { } lengthy) && spec.Frequencies is null)
        {
            if (type is not ("none" or "longrope"))
                throw keys.Unsupported(s + "type", $"longrope, as the file has {LongFactors}");
            var within = keys.Size(s + "original_context_length", null, 1 << 30);
            return spec with
            {
                Kind = RopeKind.LongRope, Factor = (double)positions / within, OriginalPositions = within,
                AttentionFactor = keys.Has(s + "attn_factor") ? attention : null, Frequencies = brief, LongFrequencies = lengthy,
            };
        }
        if (type is not ("none" or "linear" or "yarn"))
            throw keys.Unsupported(s + "type", $"none, linear, yarn; longrope with {ShortFactors} and {LongFactors}");
        if (attention != 1 && type != "yarn")
            throw keys.Unsupported(s + "attn_factor", "1");
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
