using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// Reads a Hugging Face config.json, of transformers 4 or 5, into a <see cref="ModelSpec"/>. What a file leaves out takes the
/// value that transformers' configuration class of that model_type gives it.
/// </summary>
public static partial class HuggingFaceConfig
{
    private static readonly Dictionary<string, string> Architectures = new()
    {
        ["llama"] = "LlamaForCausalLM",
        ["mistral"] = "MistralForCausalLM",
        ["qwen2"] = "Qwen2ForCausalLM",
        ["llava"] = "LlavaForConditionalGeneration",
    };

    /// <summary>Options of any part that change what is computed, and the number at which they do not.</summary>
    private static readonly (string, double)[] CommonOptions =
        [("quantization_config", double.NaN), ("compression_config", double.NaN), ("pruned_heads", double.NaN)];

    /// <summary>The same for the decoder: other families' options, which a converted or edited file may carry.</summary>
    private static readonly (string, double)[] TextOptions =
    [
        ("partial_rotary_factor", 1), ("rotary_pct", 1), ("num_local_experts", 0), ("num_experts", 0), ("n_routed_experts", 0),
        ("attn_logit_softcapping", double.NaN), ("final_logit_softcapping", double.NaN), ("query_pre_attn_scalar", double.NaN),
        ("use_qk_norm", double.NaN), ("qk_norm", double.NaN), ("qk_layernorm", double.NaN), ("use_bidirectional_attention", double.NaN),
        ("attention_chunk_size", double.NaN), ("no_rope_layers", double.NaN), ("no_rope_layer_interval", 0), ("rope_local_base_freq",
            double.NaN),
        ("alibi", double.NaN), ("use_alibi", double.NaN), ("clip_qkv", double.NaN), ("parallel_attn", double.NaN),
        ("use_parallel_residual", double.NaN), ("add_cross_attention", double.NaN), ("is_encoder_decoder", double.NaN),
        ("logit_scale", 1), ("logits_scaling", 1), ("attention_multiplier", double.NaN), ("embedding_multiplier", 1),
            ("residual_multiplier", 1),
    ];

    /// <summary>What LlamaConfig, MistralConfig and Qwen2Config assume. KeyValueHeads null: as many as query heads.</summary>
    private sealed record TextDefaults(int Vocabulary, int Intermediate, int? KeyValueHeads, int MaxPositions, int? Bos, int[] Eos);

    /// <summary>What CLIPVisionConfig assumes, and what LlavaConfig does when there is no vision_config at all.</summary>
    private sealed record VisionDefaults(int Hidden, int Intermediate, int Layers, int Heads, int ImageSize, int PatchSize);

    private static readonly VisionDefaults Clip = new(768, 3072, 12, 12, 224, 32), LlavaTower = new(1024, 4096, 24, 16, 336, 14);

    /// <summary>Reads a model's configuration.</summary>
    /// <param name="configJson">config.json, UTF-8.</param>
    /// <param name="name">The model's folder or the file's path, for errors.</param>
    /// <param name="generationConfigJson">generation_config.json, or empty: its tokens come before config.json's.</param>
    /// <exception cref="UnsupportedModelException">An architecture or option that is not computed here.</exception>
    /// <exception cref="InvalidConfigException">Damaged or contradictory.</exception>
    public static ModelSpec Parse(ReadOnlyMemory<byte> configJson, string name, ReadOnlyMemory<byte> generationConfigJson = default)
    {
        ArgumentNullException.ThrowIfNull(name);
        var file = name.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? name : Path.Combine(name, "config.json");
        using var document = ConfigSection.Open(configJson, file);
        var root = new ConfigSection(document.RootElement, file);

        var generationFile = Path.Combine(Path.GetDirectoryName(file) ?? "", "generation_config.json");
        using var generationDocument = generationConfigJson.IsEmpty ? null : ConfigSection.Open(generationConfigJson, generationFile);
        var generation = generationDocument is null ? default : new ConfigSection(generationDocument.RootElement, generationFile);

        var (architecture, family) = Architecture(root);
        root.RefuseUnlessNeutral(CommonOptions);
        if (family != "llava")
            return new(architecture, Text(root, root, generation, family, root.Flag("tie_word_embeddings", false)), null, null, null,
                StoredType(root));

        var text = root.Object("text_config") ?? root.Empty("text_config");
        text.RefuseUnlessNeutral(CommonOptions);
        var textFamily = text.Text("model_type") ?? "llama";
        if (textFamily == "llava" || !Architectures.ContainsKey(textFamily))
            throw text.Unsupported("model_type", "llama, mistral, qwen2");
        // LlavaConfig once kept this in its text_config; transformers 5 ties when either says so.
        var tie = root.Flag("tie_word_embeddings", false) | text.Flag("tie_word_embeddings", false);
        var decoder = Text(text, root, generation, textFamily, tie);

        var vision = Vision(root);
        var projector = new ProjectorSpec(vision.HiddenSize, decoder.HiddenSize, decoder.HiddenSize,
            Activation(root, "projector_hidden_act", Epilogue.Gelu), root.Flag("multimodal_projector_bias", true));
        return new(architecture, decoder, vision, projector, ImageToken(root), StoredType(root) ?? StoredType(text));
    }

    private static (string Architecture, string Family) Architecture(ConfigSection root)
    {
        var supported = string.Join(", ", Architectures.Values) + " (with a clip_vision_model tower)";
        var named = root.Texts("architectures") is [var first, ..] ? first : null;
        var family = root.Text("model_type");
        if (named is not null && !Architectures.ContainsValue(named))
            throw root.Unsupported("architectures", supported);
        if (family is not null && !Architectures.ContainsKey(family) || family is null && named is null)
            throw root.Unsupported("model_type", string.Join(", ", Architectures.Keys));
        family ??= Architectures.First(a => a.Value == named).Key;
        if (named is not null && Architectures[family] != named)
            throw root.Invalid("model_type", $"the one of {named}");
        return (Architectures[family], family);
    }

    private static TextSpec Text(ConfigSection text, ConfigSection root, ConfigSection generation, string family, bool tie)
    {
        var defaults = family switch
        {
            "mistral" => new TextDefaults(32000, 14336, 8, 131072, 1, [2]),
            "qwen2" => new(151936, 22016, 32, 32768, null, []),
            _ => new(32000, 11008, null, 2048, 1, [2]),
        };
        text.RefuseUnlessNeutral(TextOptions);
        if (family != "llama") // biases that these families do not have
            text.RefuseUnlessNeutral(family == "mistral" ? [("attention_bias", double.NaN), ("mlp_bias", double.NaN)] : [("mlp_bias",
                double.NaN)]);
        if ((text.Text("hidden_act") ?? "silu") is not ("silu" or "swish"))
            throw text.Unsupported("hidden_act", "silu");

        var hidden = text.Size("hidden_size", 4096);
        var heads = text.Size("num_attention_heads", 32);
        var keyValueHeads = text.Size("num_key_value_heads", text.States("num_key_value_heads") ? heads : defaults.KeyValueHeads ?? heads);
        if (heads % keyValueHeads != 0)
            throw text.Invalid("num_key_value_heads", $"a divisor of num_attention_heads, {heads} (absent, it is {keyValueHeads})");
        if (!text.Has("head_dim") && hidden % heads != 0)
            throw text.Invalid("num_attention_heads", $"a divisor of hidden_size, {hidden}, or a head_dim");
        var dimension = text.Size("head_dim", hidden / heads);
        if (dimension % 2 != 0)
            throw text.Invalid(text.Has("head_dim") ? "head_dim" : "num_attention_heads",
                $"an even head dimension, not {dimension}: RoPE turns pairs");
        if ((long)heads * dimension > ConfigSection.MaxSize)
            throw text.Invalid("num_attention_heads", $"heads × head dimension of at most {ConfigSection.MaxSize}");

        var layers = text.Size("num_hidden_layers", 32, ConfigSection.MaxLayers);
        var maxPositions = text.Size("max_position_embeddings", defaults.MaxPositions, 1 << 30);
        var bias = family == "llama" && text.Flag("attention_bias", false);
        var (bos, eos) = Tokens(text, root, generation, defaults);
        return new(family, hidden, text.Size("intermediate_size", defaults.Intermediate), layers, heads, keyValueHeads, dimension,
            text.Size("vocab_size", defaults.Vocabulary), (float)(text.Number("rms_norm_eps", 0, 1) ?? 1e-6), Epilogue.SiluGate,
            bias || family == "qwen2", bias, family == "llama" && text.Flag("mlp_bias", false), tie,
            Windows(text, family, layers), Rope(text, dimension, maxPositions), bos, eos);
    }

    /// <summary>Each layer's window. MistralConfig's applies to all; Qwen2Config's from max_window_layers on, or as layer_types
    /// says.</summary>
    private static int[] Windows(ConfigSection text, string family, int layers)
    {
        var types = text.Texts("layer_types");
        if (types is not null && types.Length != layers)
            throw text.Invalid("layer_types", $"one for each of {layers} layers");
        if (types is not null && types.Any(t => t is not ("full_attention" or "sliding_attention")))
            throw text.Unsupported("layer_types", "full_attention, sliding_attention");

        var windows = new int[layers];
        if (family == "llama")
            text.RefuseUnlessNeutral([("sliding_window", double.NaN)]);
        else if (family == "mistral" ? !text.States("sliding_window") || text.Has("sliding_window") : text.Flag("use_sliding_window",
            false))
        {
            // Qwen2's is off where it is null; the default of both is 4096.
            var window = text.States("sliding_window") && !text.Has("sliding_window") ? 0 : text.Size("sliding_window", 4096, 1 << 30);
            var first = family == "mistral" ? 0 : text.Size("max_window_layers", 28, 1 << 30, 0);
            for (var layer = 0; layer < layers; layer++)
                if (types is null || family == "mistral" ? layer >= first : types[layer] == "sliding_attention")
                    windows[layer] = window;
        }
        for (var layer = 0; layer < layers && types is not null; layer++)
            if (windows[layer] > 0 != (types[layer] == "sliding_attention"))
                throw text.Invalid("layer_types", $"what the window's other fields say of layer {layer}: "
                    + (windows[layer] > 0 ? $"a window of {windows[layer]}" : "no window"));
        return windows;
    }

    private static VisionSpec Vision(ConfigSection root)
    {
        var stated = root.Object("vision_config");
        var vision = stated ?? root.Empty("vision_config");
        var defaults = stated is null ? LlavaTower : Clip;
        if ((vision.Text("model_type") ?? "clip_vision_model") != "clip_vision_model")
            throw vision.Unsupported("model_type", "clip_vision_model");
        vision.RefuseUnlessNeutral(CommonOptions);
        if (vision.Size("num_channels", 3) != 3)
            throw vision.Unsupported("num_channels", "3");

        var hidden = vision.Size("hidden_size", defaults.Hidden);
        var heads = vision.Size("num_attention_heads", defaults.Heads);
        if (hidden % heads != 0)
            throw vision.Invalid("num_attention_heads", $"a divisor of hidden_size, {hidden}");
        // At most 4,096 × 4,096 patches: their number, squared sides, must stay an int.
        var image = vision.Size("image_size", defaults.ImageSize, 1 << 14);
        var patch = vision.Size("patch_size", defaults.PatchSize, 1 << 12);
        if (patch > image || image / patch > 1 << 12)
            throw vision.Invalid("patch_size", $"from 1/4096 of image_size, {image}, to all of it");

        // hidden_states has an entry before the first layer and one after each: a feature layer is a count of layers.
        var layers = vision.Size("num_hidden_layers", defaults.Layers, ConfigSection.MaxLayers);
        var feature = root.Single("vision_feature_layer", -2, -layers - 1, layers);
        var drop = root.Text("vision_feature_select_strategy") switch
        {
            null or "default" => true,
            "full" => false,
            _ => throw root.Unsupported("vision_feature_select_strategy", "default, full"),
        };
        return new("clip_vision_model", hidden, vision.Size("intermediate_size", defaults.Intermediate), layers,
            feature < 0 ? layers + 1 + feature : feature, heads, image, patch, (float)(vision.Number("layer_norm_eps", 0, 1) ?? 1e-5),
            Activation(vision, "hidden_act", Epilogue.QuickGelu), ClassToken: true, drop, PreNorm: true);
    }

    private static Epilogue Activation(ConfigSection section, string field, Epilogue otherwise) => section.Text(field) switch
    {
        null => otherwise,
        "gelu" => Epilogue.Gelu,
        "gelu_new" or "gelu_pytorch_tanh" => Epilogue.GeluTanh,
        "quick_gelu" => Epilogue.QuickGelu,
        "silu" or "swish" => Epilogue.Silu,
        _ => throw section.Unsupported(field, "gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, silu"),
    };

    /// <summary>
    /// The tokens that files state, generation_config.json's first; a family's defaults only where no file says anything. A
    /// LLaVA's own come before its text_config's.
    /// </summary>
    private static (int? Bos, int[] Eos) Tokens(ConfigSection text, ConfigSection root, ConfigSection generation, TextDefaults defaults)
    {
        int[]? Stated(string field) => root.Has(field) ? root.Ids(field) : text.States(field) ? text.Ids(field) : null;
        var stops = Stated("eos_token_id");
        int[] eos = generation.Has("eos_token_id") ? [.. generation.Ids("eos_token_id").Union(stops ?? [])] : [.. (stops
            ?? defaults.Eos).Distinct()];
        var starts = generation.Has("bos_token_id") ? generation.Ids("bos_token_id") : Stated("bos_token_id");
        return (starts is null ? defaults.Bos : starts is [var bos, ..] ? bos : null, eos);
    }

    private static int ImageToken(ConfigSection root)
    {
        var old = root.Size("image_token_index", -1, int.MaxValue, 0);
        var now = root.Size("image_token_id", old, int.MaxValue, 0);
        if (old >= 0 && now != old)
            throw root.Invalid("image_token_id", $"image_token_index's value, {old}");
        return now >= 0 ? now : 32000;
    }

    private static DType? StoredType(ConfigSection section)
    {
        var field = section.Has("dtype") ? "dtype" : "torch_dtype";
        var type = section.Text(field);
        return type?.StartsWith("torch.", StringComparison.Ordinal) is true ? Of(type[6..]) : Of(type);

        DType? Of(string? type) => type switch
        {
            null or "auto" => null,
            "float32" or "float" => DType.F32,
            "float16" or "half" => DType.F16,
            "bfloat16" => DType.BF16,
            "float64" or "double" => DType.F64,
            "float8_e4m3fn" => DType.F8E4M3,
            "float8_e5m2" => DType.F8E5M2,
            _ => throw section.Unsupported(field, "float32, float16, bfloat16"),
        };
    }
}
