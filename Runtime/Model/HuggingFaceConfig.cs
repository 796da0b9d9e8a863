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
        [("pruned_heads", double.NaN)];

    private static readonly (string, double)[] Compression = [("quantization_config", double.NaN), ("compression_config", double.NaN)];

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
        root.RefuseUnlessNeutral([("compression_config", double.NaN)]);
        if (TextFamily.All.ContainsKey(family))
            return new(architecture, Text(root, root, generation, family), null, null, null, StoredType(root)) { Quantization = Quantization(root) };

        var composite = Composites[family];
        // Qwen2-VL's first files had the decoder's fields beside their own.
        var text = root.Object("text_config") ?? (composite.IsFlat ? root : root.Empty("text_config"));
        text.RefuseUnlessNeutral(CommonOptions);
        if (root.Object("text_config") is not null)
            text.RefuseUnlessNeutral(Compression);
        var textFamily = text.Text("model_type") is { } stated && !(composite.IsFlat && stated == family) ? stated : composite.Text;
        if (!TextFamily.All.TryGetValue(textFamily, out var known) || !known.IsWhole && textFamily != composite.Text)
            throw text.Unsupported("model_type", Decoders);
        var decoder = Text(text, root, generation, textFamily);
        var (vision, projector) = composite.Vision(root, decoder);
        decoder = decoder with { SeesWholeImages = family == "gemma3", SeesWholePrompts = family == PaliGemma, AddedLayers = vision.Deepstack.Length };
        return new(architecture, decoder, vision, projector, ImageToken(root, composite.ImageToken),
            StoredType(root) ?? StoredType(text))
        {
            Quantization = Quantization(root),
            Markers = family switch
            {
                "gemma3" => new(root.Size("boi_token_index", 255999, int.MaxValue, 0), root.Size("eoi_token_index", 256000, int.MaxValue, 0), false),
                "idefics3" or "smolvlm" => new(null, null, true),
                _ => null,
            },
        };
    }

    private static string Decoders => string.Join(", ", TextFamily.All.Where(f => f.Value.IsWhole).Select(f => f.Key));

    private static (string Architecture, string Family) Architecture(ConfigSection root)
    {
        var all = Composites.ToDictionary(c => c.Key, c => c.Value.Architecture);
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

    private static int ImageToken(ConfigSection root, int otherwise)
    {
        var old = root.Size("image_token_index", -1, int.MaxValue, 0);
        var now = root.Size("image_token_id", old, int.MaxValue, 0);
        if (old >= 0 && now != old)
            throw root.Invalid("image_token_id", $"image_token_index's value, {old}");
        return now >= 0 ? now : otherwise;
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
