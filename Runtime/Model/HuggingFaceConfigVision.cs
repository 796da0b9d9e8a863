using Trimtab.Kernels;

namespace Trimtab.Model;

// The vision tower and the projector.
public static partial class HuggingFaceConfig
{
    /// <summary>A vision-language model's parts.</summary>
    /// <param name="Architecture">Class name in a config's architectures.</param>
    /// <param name="Text">model_type of the text_config where the file does not say.</param>
    /// <param name="ImageToken">image_token_id where the file does not say.</param>
    /// <param name="Vision">Reads the tower and the projector, for a decoder.</param>
    /// <param name="IsFlat">Whether the text_config may be the file itself.</param>
    private sealed record Composite(
        string Architecture, string Text, int ImageToken, Func<ConfigSection, TextSpec, (VisionSpec Vision, ProjectorSpec Projector)> Vision, bool IsFlat = false);

    private const string PaliGemma = "paligemma";

    private static readonly Dictionary<string, Composite> Composites = new()
    {
        ["llava"] = new("LlavaForConditionalGeneration", "llama", 32000, Llava),
        ["llava_next"] = new("LlavaNextForConditionalGeneration", "llama", 32000, LlavaNext),
        ["llava_onevision"] = new("LlavaOnevisionForConditionalGeneration", "qwen2", 151646, LlavaOnevision),
        ["idefics3"] = new("Idefics3ForConditionalGeneration", "llama", 128257, Idefics),
        ["smolvlm"] = new("SmolVLMForConditionalGeneration", "llama", 128257, Idefics),
        ["gemma3"] = new("Gemma3ForConditionalGeneration", "gemma3_text", 262144, Gemma),
        [PaliGemma] = new("PaliGemmaForConditionalGeneration", "gemma", 256000, Prefixed),
        ["qwen2_vl"] = new("Qwen2VLForConditionalGeneration", "qwen2_vl_text", 151655, Qwen2, IsFlat: true),
        ["qwen2_5_vl"] = new("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl_text", 151655, Qwen25, IsFlat: true),
        ["qwen3_vl"] = new("Qwen3VLForConditionalGeneration", "qwen3_vl_text", 151655, Qwen3),
    };

    /// <summary>What a vision configuration class assumes.</summary>
    private sealed record VisionDefaults(int Hidden, int Intermediate, int Layers, int Heads, int ImageSize, int PatchSize, Epilogue Activation, double Epsilon);

    private static readonly VisionDefaults
        Clip = new(768, 3072, 12, 12, 224, 32, Epilogue.QuickGelu, 1e-5),
        LlavaTower = new(1024, 4096, 24, 16, 336, 14, Epilogue.QuickGelu, 1e-5), // LlavaConfig's, where there is no vision_config at all
        Siglip = new(768, 3072, 12, 12, 224, 16, Epilogue.GeluTanh, 1e-6),
        PaliTower = new(1152, 4096, 27, 16, 224, 14, Epilogue.GeluTanh, 1e-6), // PaliGemmaConfig's, where there is no vision_config at all
        OnevisionTower = new(1152, 4304, 26, 16, 384, 14, Epilogue.GeluTanh, 1e-6),
        IdeficsTower = new(1152, 3072, 12, 16, 224, 32, Epilogue.GeluTanh, 1e-6);

    private static (VisionSpec, ProjectorSpec) Llava(ConfigSection root, TextSpec text) => Llava(root, text, LlavaTower, "clip_vision_model", -2, true);

    private static (VisionSpec, ProjectorSpec) LlavaNext(ConfigSection root, TextSpec text)
    {
        var (vision, projector) = Llava(root, text);
        if (!root.Flag("use_image_newline_parameter", true))
            throw root.Unsupported("use_image_newline_parameter", "true");
        return (AnyResolution(root, vision, [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]), projector);
    }

    private static (VisionSpec, ProjectorSpec) LlavaOnevision(ConfigSection root, TextSpec text)
    {
        var (vision, projector) = Llava(root, text, OnevisionTower, "siglip_vision_model", -1, false);
        const string Field = "vision_aspect_ratio", Prefix = "anyres_max_";
        var aspect = root.Text(Field) ?? Prefix + "9";
        if (!aspect.StartsWith(Prefix, StringComparison.Ordinal) || !int.TryParse(aspect[Prefix.Length..], out var most) || most is < 1 or > 1 << 10)
            throw root.Unsupported(Field, Prefix + "N");
        var sides = Enumerable.Range(1, 6).Select(n => n * vision.ImageSize).ToArray();
        return (AnyResolution(root, vision with { MaxSquares = most }, [.. sides.SelectMany(h => sides.Select(w => (h, w)))]), projector);
    }

    /// <summary>A CLIP or SigLIP tower up to its feature layers, and LLaVA's MLP.</summary>
    private static (VisionSpec, ProjectorSpec) Llava(ConfigSection root, TextSpec text, VisionDefaults absent, string type, int layer, bool drops)
    {
        var stated = root.Object("vision_config");
        type = stated?.Text("model_type") ?? (stated is null ? type : "clip_vision_model");
        if (type is not ("clip_vision_model" or "siglip_vision_model"))
            throw stated!.Value.Unsupported("model_type", "clip_vision_model, siglip_vision_model");
        var clip = type == "clip_vision_model";
        var tower = Tower(stated ?? root.Empty("vision_config"), type, stated is null ? absent : clip ? Clip : Siglip);

        // hidden_states has an entry before the first layer and one after each: a feature layer is a count of layers.
        int[] features = [.. root.Whole("vision_feature_layer", layer, -tower.Layers - 1, tower.Layers).Select(f => f < 0 ? tower.Layers + 1 + f : f)];
        var drop = root.Text("vision_feature_select_strategy") switch
        {
            null => drops,
            "default" => true,
            "full" => false,
            _ => throw root.Unsupported("vision_feature_select_strategy", "default, full"),
        };
        if (drop && !clip)
            throw root.Unsupported("vision_feature_select_strategy", "full: this tower has no class token that could be dropped");
        var vision = tower with
        {
            UsedLayers = features.Max(), FeatureLayers = features.Length > 1 ? features : null, ClassToken = clip, DropClassToken = drop, PreNorm = clip,
        };
        return (vision, new(vision.FeatureSize, text.HiddenSize, text.HiddenSize,
            Activation(root, "projector_hidden_act", Epilogue.Gelu), root.Flag("multimodal_projector_bias", true)));
    }

    private static VisionSpec AnyResolution(ConfigSection root, VisionSpec vision, (int, int)[] otherwise)
    {
        const string Field = "image_grid_pinpoints";
        var pinpoints = root.Pairs(Field) ?? otherwise;
        if (pinpoints.Length == 0 || pinpoints.Any(p => p.Item1 % vision.ImageSize != 0 || p.Item2 % vision.ImageSize != 0))
            throw root.Invalid(Field, $"heights and widths that are multiples of the tower's image size, {vision.ImageSize}");
        if (vision.ClassToken && !vision.DropClassToken)
            throw root.Unsupported("vision_feature_select_strategy", "default, for images of any resolution");
        return vision with { Division = ImageDivision.AnyResolution, Pinpoints = pinpoints };
    }

    private static (VisionSpec, ProjectorSpec) Idefics(ConfigSection root, TextSpec text)
    {
        var tower = Tower(root.Object("vision_config") ?? root.Empty("vision_config"), "idefics3_vision", IdeficsTower);
        var merge = root.Size("scale_factor", 2, 64);
        var vision = Merged(root, "scale_factor", tower, merge) with { PostNorm = true, Division = ImageDivision.Tiles };
        return (vision, new(vision.FeatureSize, 0, text.HiddenSize, Epilogue.None, false));
    }

    private static (VisionSpec, ProjectorSpec) Gemma(ConfigSection root, TextSpec text)
    {
        var tower = Tower(root.Object("vision_config") ?? root.Empty("vision_config"), "siglip_vision_model", Siglip);
        var tokens = root.Size("mm_tokens_per_image", 256);
        var (side, wanted) = (tower.ImageSize / tower.PatchSize, (int)Math.Round(Math.Sqrt(tokens)));
        if (wanted * wanted != tokens || side % wanted != 0)
            throw root.Invalid("mm_tokens_per_image", $"the square of a divisor of the {side} patches a side");
        var vision = Merged(root, "mm_tokens_per_image", tower, side / wanted) with { PostNorm = true, Pooled = true };
        return (vision, new(vision.HiddenSize, 0, text.HiddenSize, Epilogue.None, false) { Norm = true, NormOffset = 1, Transposed = true });
    }

    /// <summary>PaliGemma's: every patch of one square, normed, and one matrix.</summary>
    private static (VisionSpec, ProjectorSpec) Prefixed(ConfigSection root, TextSpec text)
    {
        var stated = root.Object("vision_config");
        var tower = Tower(stated ?? root.Empty("vision_config"), "siglip_vision_model", stated is null ? PaliTower : Siglip);
        return (tower with { PostNorm = true }, new(tower.HiddenSize, 0, text.HiddenSize, Epilogue.None, true));
    }

    private static VisionSpec Merged(ConfigSection root, string field, VisionSpec tower, int merge) =>
        tower.ImageSize / tower.PatchSize % merge == 0 ? tower with { Merge = merge }
            : throw root.Invalid(field, $"a divisor of the {tower.ImageSize / tower.PatchSize} patches a side");

    /// <summary>A tower for squares of a fixed size, all of its layers used.</summary>
    private static VisionSpec Tower(ConfigSection vision, string type, VisionDefaults defaults)
    {
        vision.RefuseUnlessNeutral([.. CommonOptions, .. Compression]);
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
        var layers = vision.Size("num_hidden_layers", defaults.Layers, ConfigSection.MaxLayers);
        return new(type, hidden, vision.Size("intermediate_size", defaults.Intermediate), layers, layers, heads, image, patch,
            (float)(vision.Number("layer_norm_eps", 0, 1) ?? defaults.Epsilon), Activation(vision, "hidden_act", defaults.Activation),
            ClassToken: false, DropClassToken: false, PreNorm: false);
    }

    private static (VisionSpec, ProjectorSpec) Qwen2(ConfigSection root, TextSpec text)
    {
        var vision = root.Object("vision_config") ?? root.Empty("vision_config");
        var width = vision.Size("embed_dim", 1280);
        var ratio = vision.Number("mlp_ratio", 1e-3, 1e3) ?? 4;
        return Native(vision, text, "qwen2_vl", width, (int)(width * ratio), 32, Epilogue.QuickGelu, 14, "hidden_size", spec => spec);
    }

    private static (VisionSpec, ProjectorSpec) Qwen25(ConfigSection root, TextSpec text)
    {
        var vision = root.Object("vision_config") ?? root.Empty("vision_config");
        if ((vision.Text("hidden_act") ?? "silu") != "silu")
            throw vision.Unsupported("hidden_act", "silu");
        return Native(vision, text, "qwen2_5_vl", vision.Size("hidden_size", 3584), vision.Size("intermediate_size", 3420), 32, Epilogue.SiluGate, 14,
            "out_hidden_size", spec => spec with
            {
                RmsNorms = true,
                TimeFactor = MultipliesTime(root) ? vision.Size("tokens_per_second", 4, 1 << 10) : 1,
                Window = Math.Max(1, vision.Size("window_size", 112, 1 << 14) / spec.Merge / spec.PatchSize),
                FullLayers = vision.Has("fullatt_block_indexes") ? vision.Ids("fullatt_block_indexes") : [7, 15, 23, 31],
            });
    }

    /// <summary>Whether the transformers that wrote (and so trained, or ran) a checkpoint had the fault that 5.6 mended; see <see cref="VisionSpec.TimeFactor"/>.</summary>
    private static bool MultipliesTime(ConfigSection root) =>
        root.Text("transformers_version")?.Split('.') is ["5", "3" or "4" or "5", ..];

    private static (VisionSpec, ProjectorSpec) Qwen3(ConfigSection root, TextSpec text)
    {
        var vision = root.Object("vision_config") ?? root.Empty("vision_config");
        return Native(vision, text, "qwen3_vl", vision.Size("hidden_size", 1152), vision.Size("intermediate_size", 4304), 27,
            Activation(vision, "hidden_act", Epilogue.GeluTanh), 16, "out_hidden_size", spec =>
            {
                var positions = vision.Size("num_position_embeddings", 2304);
                var side = (int)Math.Round(Math.Sqrt(positions));
                if (side * side != positions)
                    throw vision.Invalid("num_position_embeddings", "a square");
                int[] levels = vision.Has("deepstack_visual_indexes") ? vision.Ids("deepstack_visual_indexes") : [8, 16, 24];
                if (levels.Any(level => level >= spec.Layers) || levels.Distinct().Count() != levels.Length || levels.Length > text.Layers)
                    throw vision.Invalid("deepstack_visual_indexes", $"different layers below {spec.Layers}, at most {text.Layers}");
                return spec with { PositionSide = side, Deepstack = levels };
            });
    }

    /// <summary>A tower for images in nearly their own size, and its merger.</summary>
    private static (VisionSpec, ProjectorSpec) Native(
        ConfigSection vision, TextSpec text, string type, int width, int intermediate, int layers, Epilogue activation, int patchSize, string output,
        Func<VisionSpec, VisionSpec> more)
    {
        vision.RefuseUnlessNeutral([.. CommonOptions, .. Compression]);
        foreach (var channels in (ReadOnlySpan<string>)["in_channels", "in_chans"])
            if (vision.Size(channels, 3) != 3)
                throw vision.Unsupported(channels, "3");
        var heads = vision.Size("num_heads", 16);
        if (width % heads != 0 || width / heads % 4 != 0)
            throw vision.Invalid("num_heads", $"heads of the width {width} whose dimension is a multiple of 4");
        if (vision.Size(output, text.HiddenSize) != text.HiddenSize)
            throw vision.Invalid(output, $"the decoder's hidden_size, {text.HiddenSize}");
        var patch = vision.Size("patch_size", patchSize, 1 << 10);
        var merge = vision.Size("spatial_merge_size", 2, 64);
        var depth = vision.Size("depth", layers, ConfigSection.MaxLayers);
        var spec = more(new VisionSpec(type, width, intermediate, depth, depth, heads, 16 * merge * patch, patch, 1e-6f,
            type == "qwen2_vl" ? Activation(vision, "hidden_act", activation) : activation, false, false, false)
        {
            Division = ImageDivision.Native, Merge = merge, PostNorm = true, TemporalPatch = vision.Size("temporal_patch_size", 2, 16),
        });
        return (spec, new(spec.FeatureSize, spec.FeatureSize, text.HiddenSize, Epilogue.Gelu, true));
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
}
