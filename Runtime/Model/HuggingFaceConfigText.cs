using Trimtab.Kernels;

namespace Trimtab.Model;

// The decoder.
public static partial class HuggingFaceConfig
{
    private static TextSpec Text(ConfigSection text, ConfigSection root, ConfigSection generation, string type)
    {
        var family = TextFamily.All[type];
        // transformers 5 writes of PaliGemma's decoder what its prompts do.
        var prefix = root.Text("model_type") == PaliGemma ? "use_bidirectional_attention" : null;
        text.RefuseUnlessNeutral([.. TextOptions.Where(option => !family.Reads.Contains(option.Field) && option.Field != prefix)]);
        // Biases that a family does not have.
        if (!family.ReadsAttentionBias && !family.QkvBias)
            text.RefuseUnlessNeutral([("attention_bias", double.NaN)]);
        if (!family.ReadsMlpBias)
            text.RefuseUnlessNeutral([("mlp_bias", double.NaN)]);
        CheckActivation(text, family);

        var hidden = text.Size("hidden_size", family.Hidden);
        var heads = text.Size("num_attention_heads", family.Heads);
        var keyValueHeads = text.Size("num_key_value_heads", text.States("num_key_value_heads") ? heads : family.KeyValueHeads ?? heads);
        if (heads % keyValueHeads != 0)
            throw text.Invalid("num_key_value_heads", $"a divisor of num_attention_heads, {heads} (absent, it is {keyValueHeads})");
        var stated = text.Has("head_dim") || family.HeadDimension is not null && !text.States("head_dim");
        if (!stated && hidden % heads != 0)
            throw text.Invalid("num_attention_heads", $"a divisor of hidden_size, {hidden}, or a head_dim");
        var dimension = text.Size("head_dim", stated ? family.HeadDimension ?? 0 : hidden / heads);
        if (dimension % 2 != 0)
            throw text.Invalid(text.Has("head_dim") ? "head_dim" : "num_attention_heads",
                $"an even head dimension, not {dimension}: RoPE turns pairs");
        if ((long)heads * dimension > ConfigSection.MaxSize)
            throw text.Invalid("num_attention_heads", $"heads × head dimension of at most {ConfigSection.MaxSize}");

        var layers = text.Size("num_hidden_layers", family.Layers, ConfigSection.MaxLayers);
        var maxPositions = text.Size("max_position_embeddings", family.MaxPositions, 1 << 30);
        var bias = family.ReadsAttentionBias && text.Flag("attention_bias", false);
        var (bos, eos) = Tokens(text, root, generation, family);
        // Where a model has a text_config, older files kept this in it; transformers 5 ties when either says so.
        var tie = root.Flag("tie_word_embeddings", family.Tied) | text.Flag("tie_word_embeddings", false);
        return new(type, hidden, text.Size("intermediate_size", family.Intermediate), layers, heads, keyValueHeads, dimension,
            text.Size("vocab_size", family.Vocabulary), (float)(text.Number("rms_norm_eps", 0, 1) ?? family.Epsilon), family.Activation,
            bias || family.QkvBias, bias, family.ReadsMlpBias && text.Flag("mlp_bias", false), tie,
            Windows(text, family, layers), Rope(text, family, dimension, maxPositions), bos, eos)
        {
            QkNorm = family.QkNorm,
            PostNorms = family.PostNorms,
            NormOffset = family.Gemma ? 1 : 0,
            EmbeddingScale = family.Gemma ? MathF.Sqrt(hidden) : 1,
            QueryScale = family.QueryScalar is { } scalar ? (float)Math.Pow(text.Number("query_pre_attn_scalar", 1e-6, 1e9) ?? scalar, -0.5) : null,
            AttentionSoftCap = Cap(text, family, "attn_logit_softcapping", family.SoftCaps?.Attention),
            FinalSoftCap = Cap(text, family, "final_logit_softcapping", family.SoftCaps?.Final),
            LocalRope = LocalRope(text, family, dimension, maxPositions),
            Mixture = Mixture(text, family, layers),
        };
    }

    private static float Cap(ConfigSection text, TextFamily family, string field, double? otherwise) =>
        family.SoftCaps is null ? 0 : (float)(text.Number(field, 1e-6, 1e9) ?? (text.States(field) ? 0 : otherwise!.Value));

    /// <summary>The MLP's function. Gemma's first files say "gelu" and mean its tanh form, as transformers takes them.</summary>
    private static void CheckActivation(ConfigSection text, TextFamily family)
    {
        var tanh = family.Activation == Epilogue.GeluTanhGate;
        var field = tanh && text.Has("hidden_activation") ? "hidden_activation" : "hidden_act";
        if (tanh ? text.Text(field) is not (null or "gelu_pytorch_tanh" or "gelu_new" or "gelu") : text.Text(field) is not (null or "silu" or "swish"))
            throw text.Unsupported(field, tanh ? "gelu_pytorch_tanh" : "silu");
    }

    private static MixtureSpec? Mixture(ConfigSection text, TextFamily family, int layers)
    {
        if (family.Experts is not { } assumed)
            return null;
        var field = text.Has("num_local_experts") ? "num_local_experts" : "num_experts";
        var experts = text.Size(field, assumed.Experts, 4096);
        var used = text.Size("num_experts_per_tok", assumed.Used, experts);
        // Qwen3-MoE: every n-th layer has experts, and those of the list have none.
        var step = text.Size("decoder_sparse_step", 1, ConfigSection.MaxLayers);
        var dense = text.Ids("mlp_only_layers");
        var width = family.ExpertSize is { } size ? text.Size("moe_intermediate_size", size) : text.Size("intermediate_size", family.Intermediate);
        return new(experts, used, width, family.ExpertSize is null || text.Flag("norm_topk_prob", false),
            [.. Enumerable.Range(0, layers).Select(l => (l + 1) % step == 0 && !dense.Contains(l))]);
    }

    /// <summary>Each layer's window, by the family's rule or as layer_types says.</summary>
    private static int[] Windows(ConfigSection text, TextFamily family, int layers)
    {
        var types = text.Texts("layer_types");
        if (types is not null && types.Length != layers)
            throw text.Invalid("layer_types", $"one for each of {layers} layers");
        if (types is not null && types.Any(t => t is not ("full_attention" or "sliding_attention")))
            throw text.Unsupported("layer_types", "full_attention, sliding_attention");

        var windows = new int[layers];
        var rule = family.Windows;
        if (rule == WindowRule.None)
            text.RefuseUnlessNeutral([("sliding_window", double.NaN)]);
        else if (rule != WindowRule.Flagged || text.Flag("use_sliding_window", false))
        {
            // Stated as null, it is off.
            var window = text.States("sliding_window") && !text.Has("sliding_window") ? 0 : text.Size("sliding_window", family.Window ?? 0, 1 << 30, family.Window is null ? 0 : 1);
            var first = rule == WindowRule.Flagged ? text.Size("max_window_layers", 28, 1 << 30, 0) : 0;
            var period = rule != WindowRule.Pattern ? 0
                : text.Size(text.Has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern", family.Period, ConfigSection.MaxLayers);
            for (var layer = 0; layer < layers; layer++)
                if (types is not null && rule != WindowRule.All ? types[layer] == "sliding_attention" : layer >= first && (period == 0 || (layer + 1) % period != 0))
                    windows[layer] = window;
        }
        for (var layer = 0; layer < layers && types is not null; layer++)
            if (windows[layer] > 0 != (types[layer] == "sliding_attention"))
                throw text.Invalid("layer_types", $"what the window's other fields say of layer {layer}: "
                    + (windows[layer] > 0 ? $"a window of {windows[layer]}" : "no window"));
        return windows;
    }

    /// <summary>
    /// The tokens that files state, generation_config.json's first; a family's defaults only where no file says anything. A
    /// vision-language model's own come before its text_config's.
    /// </summary>
    private static (int? Bos, int[] Eos) Tokens(ConfigSection text, ConfigSection root, ConfigSection generation, TextFamily family)
    {
        int[]? Stated(string field) => root.Has(field) ? root.Ids(field) : text.States(field) ? text.Ids(field) : null;
        var stops = Stated("eos_token_id");
        int[] eos = generation.Has("eos_token_id") ? [.. generation.Ids("eos_token_id").Union(stops ?? [])] : [.. (stops
            ?? family.Eos).Distinct()];
        var starts = generation.Has("bos_token_id") ? generation.Ids("bos_token_id") : Stated("bos_token_id");
        return (starts is null ? family.Bos : starts is [var bos, ..] ? bos : null, eos);
    }
}
