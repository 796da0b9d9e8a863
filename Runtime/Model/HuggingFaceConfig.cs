using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// Reads a Hugging Face config.json, of transformers 4 or 5, into a <see cref="ModelSpec"/>. What a file leaves out takes the
/// value that transformers' configuration class of that model_type gives it.
/// </summary>
public static partial class HuggingFaceConfig
{
    /// <summary>Options of any part that change what is computed, and the number at which they do not.</summary>
    private static readonly (string, double)[] CommonOptions =
        [("quantization_config", double.NaN), ("compression_config", double.NaN), ("pruned_heads", double.NaN)];

    /// <summary>The same for the decoder: other families' options, which a converted or edited file may carry.</summary>
    private static readonly (string Field, double Neutral)[] TextOptions =
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
        if (TextFamily.All.ContainsKey(family))
            return new(architecture, Text(root, root, generation, family), null, null, null, StoredType(root));

        var text = root.Object("text_config") ?? root.Empty("text_config");
        text.RefuseUnlessNeutral(CommonOptions);
        var textFamily = text.Text("model_type") ?? "llama";
        if (!TextFamily.All.TryGetValue(textFamily, out var known) || !known.IsWhole)
            throw text.Unsupported("model_type", Decoders);
        var decoder = Text(text, root, generation, textFamily);

        var vision = Vision(root);
        var projector = new ProjectorSpec(vision.HiddenSize, decoder.HiddenSize, decoder.HiddenSize,
            Activation(root, "projector_hidden_act", Epilogue.Gelu), root.Flag("multimodal_projector_bias", true));
        return new(architecture, decoder, vision, projector, ImageToken(root), StoredType(root) ?? StoredType(text));
    }

    private static string Decoders => string.Join(", ", TextFamily.All.Where(f => f.Value.IsWhole).Select(f => f.Key));

    private static (string Architecture, string Family) Architecture(ConfigSection root)
    {
        Dictionary<string, string> all = new() { ["llava"] = "LlavaForConditionalGeneration" };
        foreach (var (type, known) in TextFamily.All.Where(f => f.Value.IsWhole))
            all[type] = known.Architecture;
        var named = root.Texts("architectures") is [var first, ..] ? first : null;
        var family = root.Text("model_type");
        if (named is not null && !all.ContainsValue(named))
            throw root.Unsupported("architectures", string.Join(", ", all.Values));
        if (family is not null && !all.ContainsKey(family) || family is null && named is null)
            throw root.Unsupported("model_type", string.Join(", ", all.Keys));
        family ??= all.First(a => a.Value == named).Key;
        if (named is not null && all[family] != named)
            throw root.Invalid("model_type", $"the one of {named}");
        return (all[family], family);
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
