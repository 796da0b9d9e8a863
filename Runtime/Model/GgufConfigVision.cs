using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>A vision tower and its projector as an mmproj file describes them, with the normalisation of its pixels.</summary>
/// <param name="Vision">The tower.</param>
/// <param name="Projector">The projector.</param>
/// <param name="Mean">Of each channel, pixels in [0, 1]; [3].</param>
/// <param name="Std">Of each channel; [3].</param>
/// <param name="LongestEdge">Of tiles: what an image's longer side is resized to first; else 0.</param>
public sealed record GgufVision(VisionSpec Vision, ProjectorSpec Projector, float[] Mean, float[] Std, int LongestEdge = 0);

// mmproj files.
public static partial class GgufConfig
{
    /// <summary>
    /// Reads an mmproj file's metadata: a CLIP or SigLIP tower with LLaVA's two-layer MLP (projector_type mlp; of any resolution where it says
    /// spatial_unpad), or with the projectors of Gemma 3 (gemma3) and of Idefics 3 and SmolVLM (idefics3); Qwen's towers (qwen2vl_merger and later).
    /// </summary>
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
        const string Clip = "clip.", V = "clip.vision.", Qwen2 = "qwen2vl_merger", Qwen25 = "qwen2.5vl_merger", Qwen3 = "qwen3vl_merger";
        if (keys.Text("general.architecture") != "clip")
            throw keys.Unsupported("general.architecture", "clip");
        if (!keys.Flag(Clip + "has_vision_encoder", true))
            throw keys.Unsupported(Clip + "has_vision_encoder", "true");
        var type = "mlp";
        foreach (var key in (ReadOnlySpan<string>)[Clip + "projector_type", V + "projector_type"])
            if ((type = keys.Text(key, type)) is not ("mlp" or "gemma3" or "idefics3" or Qwen2 or Qwen25 or Qwen3))
                throw keys.Unsupported(key, $"mlp, gemma3, idefics3, {Qwen2}, {Qwen25}, {Qwen3}");
        var unpads = keys.Text(V + "mm_patch_merge_type", "flat") == "spatial_unpad";
        if (!unpads && keys.Text(V + "mm_patch_merge_type", "flat") != "flat")
            throw keys.Unsupported(V + "mm_patch_merge_type", "flat, spatial_unpad");
        var clip = shape("v.class_embd") is not null;

        var hidden = keys.Size(V + "embedding_length");
        var heads = keys.Size(V + "attention.head_count");
        if (hidden % heads != 0)
            throw keys.Invalid(V + "attention.head_count", $"a divisor of embedding_length, {hidden}");
        var image = keys.Size(V + "image_size", null, 1 << 14);
        var patch = keys.Size(V + "patch_size", null, 1 << 12);
        if (patch > image || image / patch > 1 << 12)
            throw keys.Invalid(V + "patch_size", $"from 1/4096 of image_size, {image}, to all of it");

        // Converters leave out the blocks after the feature layer and count the rest; newer ones also name the layers.
        var layers = keys.Size(V + "block_count", null, ConfigSection.MaxLayers, 0);
        int[] features = [layers];
        if (keys.List(V + "feature_layer") is { Count: > 0 and <= ConfigSection.MaxLayers } list)
            features = [.. keys.Numbers(V + "feature_layer", list.Count, 0, layers).Select(n => (int)n)];
        if (keys.Flag(Clip + "use_gelu", false) && keys.Flag(Clip + "use_silu", false))
            throw keys.Invalid(Clip + "use_silu", "not both of use_gelu and use_silu");
        // llama.cpp's GELU is the tanh form, which is what SigLIP's towers have; CLIP's files of that key were made of the exact one's.
        var activation = keys.Flag(Clip + "use_gelu", false) ? clip ? Epilogue.Gelu : Epilogue.GeluTanh
            : keys.Flag(Clip + "use_silu", false) ? Epilogue.Silu : Epilogue.QuickGelu;
        var vision = new VisionSpec(clip ? "clip_vision_model" : "siglip_vision_model", hidden, keys.Size(V + "feed_forward_length"), layers, features.Max(),
            heads, image, patch, (float)keys.Number(V + "attention.layer_norm_epsilon", 0, 1), activation, clip, DropClassToken: clip,
            PreNorm: shape("v.pre_ln.weight") is not null)
        {
            FeatureLayers = features.Length > 1 ? features : null,
        };
        if (unpads)
        {
            var sides = keys.Numbers(V + "image_grid_pinpoints", Math.Clamp((keys.List(V + "image_grid_pinpoints")?.Count ?? 0) / 2 * 2, 2, 2048), image, 1 << 15);
            if (sides.Any(pixels => pixels % image != 0))
                throw keys.Invalid(V + "image_grid_pinpoints", $"widths and heights that are multiples of image_size, {image}");
            vision = vision with { Division = ImageDivision.AnyResolution, Pinpoints = [.. sides.Chunk(2).Select(pair => ((int)pair[1], (int)pair[0]))] };
        }
        var (mean, std) = (keys.Numbers(V + "image_mean", 3, -1e3, 1e3), keys.Numbers(V + "image_std", 3, 1e-6, 1e3));
        if (type is Qwen2 or Qwen25 or Qwen3)
        {
            if (hidden / heads % 4 != 0)
                throw keys.Invalid(V + "attention.head_count", $"heads of the width {hidden} whose dimension is a multiple of 4");
            Width("mm.2.weight", 0);
            // Files of Qwen2-VL give another number as their MLP's width.
            var width = shape("v.blk.0.ffn_up.weight") is [>= 1 and <= ConfigSection.MaxSize, _] up ? (int)up[0] : vision.IntermediateSize;
            var cells = keys.Size(V + "spatial_merge_size", 2, 64);
            var pattern = type == Qwen25 ? keys.Size(V + "n_wa_pattern", null, ConfigSection.MaxLayers) : 1;
            var table = type == Qwen3 ? Matrix("v.position_embd.weight")[0] : 0;
            bool[] levels = [.. keys.List(V + "is_deepstack_layers")?.OfType<bool>() ?? []];
            if (levels.Length > layers)
                throw keys.Invalid(V + "is_deepstack_layers", $"at most one for each of {layers} blocks");
            vision = vision with
            {
                Family = type switch { Qwen2 => "qwen2_vl", Qwen25 => "qwen2_5_vl", _ => "qwen3_vl" }, IntermediateSize = width, ImageSize = 16 * cells * patch,
                Activation = type == Qwen25 ? Epilogue.SiluGate : activation, Division = ImageDivision.Native, Merge = cells, PostNorm = true, TemporalPatch = 2,
                RmsNorms = type == Qwen25, Window = type == Qwen25 ? Math.Max(1, 112 / cells / patch) : 0,
                FullLayers = [.. Enumerable.Range(0, layers).Where(l => (l + 1) % pattern == 0)], PositionSide = (int)Math.Round(Math.Sqrt(table)),
                Deepstack = [.. Enumerable.Range(0, levels.Length).Where(l => levels[l])],
            };
            if ((long)vision.PositionSide * vision.PositionSide != table)
                throw new InvalidConfigException($"{name}: v.position_embd.weight: {table} rows; expected a square");
            return new(vision, new(vision.FeatureSize, vision.FeatureSize, decoderHiddenSize, Epilogue.Gelu, true), mean, std);
        }
        int side = image / patch, merge = keys.Size(V + "projector.scale_factor", type == "gemma3" ? 4 : type == "idefics3" ? 2 : 1, 64);
        if (side % merge != 0)
            throw keys.Invalid(V + "projector.scale_factor", $"a divisor of the {side} patches a side");
        switch (type)
        {
            case "gemma3":
                Width("mm.input_projection.weight", 1);
                return new(vision with { PostNorm = true, Pooled = true, Merge = merge },
                    new(hidden, 0, decoderHiddenSize, Epilogue.None, false) { Norm = true, Transposed = true }, mean, std);
            case "idefics3":
                Width("mm.model.fc.weight", 0);
                vision = vision with { PostNorm = true, Merge = merge, Division = ImageDivision.Tiles };
                return new(vision, new(vision.FeatureSize, 0, decoderHiddenSize, Epilogue.None, false), mean, std,
                    keys.Size(V + "preproc_image_size", 4 * image, 1 << 12));
            default:
                var first = Matrix("mm.0.weight");
                Width("mm.2.weight", 0);
                return new(vision, new(vision.FeatureSize, (int)first[0], decoderHiddenSize, Epilogue.Gelu, shape("mm.0.bias") is not null), mean, std);
        }

        void Width(string tensor, int dimension)
        {
            if (Matrix(tensor)[dimension] is var width && width != decoderHiddenSize)
                throw new InvalidConfigException($"{name}: {tensor}: {width} {(dimension == 0 ? "rows" : "columns")}; expected the language model's width, {decoderHiddenSize}: "
                    + "this projector belongs to another model");
        }

        long[] Matrix(string tensor) => shape(tensor) is [>= 1 and <= ConfigSection.MaxSize, _] matrix ? matrix
            : throw new InvalidConfigException($"{name}: {tensor}: expected this matrix of the projector");
    }
}
