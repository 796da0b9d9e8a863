using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>Which decoder layers have a sliding window.</summary>
internal enum WindowRule
{
    /// <summary>None.</summary>
    None,
    /// <summary>All, where the config states one or the family assumes one.</summary>
    All,
    /// <summary>Where use_sliding_window says so, those from max_window_layers on, or as layer_types says.</summary>
    Flagged,
    /// <summary>All but every n-th, or as layer_types says.</summary>
    Pattern,
}

/// <summary>
/// What tells one decoder family from another: the defaults of transformers' configuration class, which a sparse config.json relies on,
/// and what its modelling code does that no field of the file says. Everything else is read from the file.
/// </summary>
/// <param name="Architecture">Class name in a config's architectures.</param>
/// <param name="Hidden">hidden_size.</param>
/// <param name="Intermediate">intermediate_size.</param>
/// <param name="Layers">num_hidden_layers.</param>
/// <param name="Heads">num_attention_heads.</param>
/// <param name="KeyValueHeads">num_key_value_heads; null: as many as query heads.</param>
/// <param name="Vocabulary">vocab_size.</param>
/// <param name="MaxPositions">max_position_embeddings.</param>
internal sealed record TextFamily(
    string Architecture, int Hidden, int Intermediate, int Layers, int Heads, int? KeyValueHeads, int Vocabulary, int MaxPositions)
{
    public int? Bos { get; init; }

    public int[] Eos { get; init; } = [];

    public double Theta { get; init; } = 10000;

    public double Epsilon { get; init; } = 1e-6;

    /// <summary>head_dim; null: hidden_size / num_attention_heads.</summary>
    public int? HeadDimension { get; init; }

    public bool Tied { get; init; }

    public WindowRule Windows { get; init; }

    /// <summary>sliding_window; null: none.</summary>
    public int? Window { get; init; }

    /// <summary>Of <see cref="WindowRule.Pattern"/>: every n-th layer sees all.</summary>
    public int Period { get; init; }

    public Epilogue Activation { get; init; } = Epilogue.SiluGate;

    /// <summary>Whether q, k and v have biases whatever the file says.</summary>
    public bool QkvBias { get; init; }

    /// <summary>Whether attention_bias is read: of q, k, v and the output.</summary>
    public bool ReadsAttentionBias { get; init; }

    /// <summary>Whether mlp_bias is read.</summary>
    public bool ReadsMlpBias { get; init; }

    public bool QkNorm { get; init; }

    /// <summary>Gemma: norms of (1 + w), embeddings times √D.</summary>
    public bool Gemma { get; init; }

    public bool PostNorms { get; init; }

    /// <summary>query_pre_attn_scalar, where it is read.</summary>
    public double? QueryScalar { get; init; }

    /// <summary>attn_logit_softcapping and final_logit_softcapping, where they are read.</summary>
    public (double Attention, double Final)? SoftCaps { get; init; }

    /// <summary>rope_local_base_freq, where it is read.</summary>
    public double? LocalTheta { get; init; }

    /// <summary>Whether RoPE has three positions (mrope_section).</summary>
    public bool MRope { get; init; }

    /// <summary>num_experts or num_local_experts, and num_experts_per_tok, where they are read.</summary>
    public (int Experts, int Used)? Experts { get; init; }

    /// <summary>moe_intermediate_size where it is read; an expert's width is else intermediate_size.</summary>
    public int? ExpertSize { get; init; }

    /// <summary>Options of <see cref="HuggingFaceConfig"/>'s list of refused ones that this family reads.</summary>
    public string[] Reads { get; init; } = [];

    /// <summary>By model_type. Those that end in _text are decoders of vision-language models.</summary>
    public static readonly Dictionary<string, TextFamily> All = new()
    {
        ["llama"] = new("LlamaForCausalLM", 4096, 11008, 32, 32, null, 32000, 2048)
        {
            Bos = 1, Eos = [2], ReadsAttentionBias = true, ReadsMlpBias = true,
        },
        ["mistral"] = new("MistralForCausalLM", 4096, 14336, 32, 32, 8, 32000, 131072) { Bos = 1, Eos = [2], Windows = WindowRule.All, Window = 4096 },
        ["mixtral"] = new("MixtralForCausalLM", 4096, 14336, 32, 32, 8, 32000, 131072)
        {
            Bos = 1, Eos = [2], Windows = WindowRule.All, Epsilon = 1e-5, Theta = 1e6, Experts = (8, 2), Reads = ["num_local_experts", "num_experts"],
        },
        ["phi3"] = new("Phi3ForCausalLM", 3072, 8192, 32, 32, null, 32064, 4096)
        {
            Bos = 1, Eos = [32000], Windows = WindowRule.All, Epsilon = 1e-5, Reads = ["partial_rotary_factor"],
        },
        ["qwen2"] = new("Qwen2ForCausalLM", 4096, 22016, 32, 32, 32, 151936, 32768) { Windows = WindowRule.Flagged, Window = 4096, QkvBias = true },
        ["qwen3"] = new("Qwen3ForCausalLM", 4096, 22016, 32, 32, 32, 151936, 32768)
        {
            Windows = WindowRule.Flagged, Window = 4096, HeadDimension = 128, QkNorm = true, ReadsAttentionBias = true,
        },
        ["qwen3_moe"] = new("Qwen3MoeForCausalLM", 2048, 6144, 24, 32, 4, 151936, 32768)
        {
            Windows = WindowRule.Flagged, Window = 4096, QkNorm = true, ReadsAttentionBias = true, Experts = (128, 8), ExpertSize = 768,
            Reads = ["num_experts", "num_local_experts"],
        },
        ["gemma"] = new("GemmaForCausalLM", 3072, 24576, 28, 16, 16, 256000, 8192)
        {
            Bos = 2, Eos = [1], HeadDimension = 256, Tied = true, Activation = Epilogue.GeluTanhGate, Gemma = true, ReadsAttentionBias = true,
        },
        ["gemma2"] = new("Gemma2ForCausalLM", 2304, 9216, 26, 8, 4, 256000, 8192)
        {
            Bos = 2, Eos = [1], HeadDimension = 256, Tied = true, Activation = Epilogue.GeluTanhGate, Gemma = true, PostNorms = true,
            ReadsAttentionBias = true, Windows = WindowRule.Pattern, Window = 4096, Period = 2, QueryScalar = 256, SoftCaps = (50, 30),
            Reads = ["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"],
        },
        ["gemma3_text"] = new("Gemma3ForCausalLM", 2304, 9216, 26, 8, 4, 262208, 131072)
        {
            Bos = 2, Eos = [1], HeadDimension = 256, Tied = true, Activation = Epilogue.GeluTanhGate, Gemma = true, PostNorms = true, QkNorm = true,
            ReadsAttentionBias = true, Windows = WindowRule.Pattern, Window = 4096, Period = 6, QueryScalar = 256, SoftCaps = (0, 0),
            Theta = 1e6, LocalTheta = 1e4,
            Reads = ["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "rope_local_base_freq"],
        },
        ["qwen2_vl_text"] = new("Qwen2VLForConditionalGeneration", 8192, 29568, 80, 64, 8, 152064, 32768)
        {
            Windows = WindowRule.Flagged, Window = 4096, QkvBias = true, Epsilon = 1e-5, Theta = 1e6, MRope = true,
        },
        ["qwen2_5_vl_text"] = new("Qwen2_5_VLForConditionalGeneration", 8192, 29568, 80, 64, 8, 152064, 32768)
        {
            Windows = WindowRule.Flagged, Window = 4096, QkvBias = true, Epsilon = 1e-5, Theta = 1e6, MRope = true,
        },
        ["qwen3_vl_text"] = new("Qwen3VLForConditionalGeneration", 4096, 22016, 32, 32, 32, 151936, 128000)
        {
            HeadDimension = 128, QkNorm = true, ReadsAttentionBias = true, Theta = 5e6, MRope = true,
        },
    };

    /// <summary>Whether it is a language model of its own, not only part of another.</summary>
    public bool IsWhole => Architecture.EndsWith("ForCausalLM", StringComparison.Ordinal);
}
