using System.Text.Json;

namespace Trimtab.Imaging;

/// <summary>How an image is divided.</summary>
public enum ImageTiling
{
    /// <summary>Not at all.</summary>
    None,
    /// <summary>The whole image and a grid of squares over the best of some sizes (LLaVA-NeXT).</summary>
    AnyResolution,
    /// <summary>A grid of squares and the whole image (Idefics 3).</summary>
    Grid,
    /// <summary>Patches of the image in nearly its own size (Qwen2-VL).</summary>
    Patches,
}

/// <summary>
/// What a checkpoint's vision tower wants done to an image, in this order: pad, resize, crop, rescale, normalise. The defaults are those of
/// Hugging Face's CLIPImageProcessor.
/// </summary>
public sealed record ImageProcessorOptions
{
    /// <summary>Whether the image is first padded to a square with the colour of <see cref="Mean"/>, as LLaVA-1.5 was trained.</summary>
    public bool PadToSquare { get; init; }

    /// <summary>The length in pixels that the shorter side is resized to, the other in proportion; null: not so.</summary>
    public int? ShortestEdge { get; init; } = 224;

    /// <summary>The size in pixels that the image is resized to whatever its proportion; null: not so.</summary>
    public (int Width, int Height)? Exact { get; init; }

    /// <summary>How it is resized.</summary>
    public Resampling Resampling { get; init; } = Resampling.Bicubic;

    /// <summary>The size in pixels cut from the middle, black where there is none; null: all of it.</summary>
    public (int Width, int Height)? Crop { get; init; } = (224, 224);

    /// <summary>Whether a smaller image's odd pixel of black goes to the right and the bottom, as in the Fast processors, not left and top.</summary>
    public bool OddPixelLast { get; init; }

    /// <summary>What the levels 0 … 255 are multiplied with.</summary>
    public double RescaleFactor { get; init; } = 1.0 / 255;

    /// <summary>What is subtracted from red, green and blue after that; [3].</summary>
    public IReadOnlyList<double> Mean { get; init; } = [0.48145466, 0.4578275, 0.40821073];

    /// <summary>What red, green and blue are divided by in the end; [3].</summary>
    public IReadOnlyList<double> Std { get; init; } = [0.26862954, 0.26130258, 0.27577711];

    /// <summary>How it is divided; the sizes below belong to that.</summary>
    public ImageTiling Tiling { get; init; }

    /// <summary>Of any resolution: heights and widths in pixels that an image may be fitted to.</summary>
    public IReadOnlyList<(int Height, int Width)> Pinpoints { get; init; } = [];

    /// <summary>Grid: what the longer side is resized to first.</summary>
    public int? LongestEdge { get; init; }

    /// <summary>Grid: whether images are divided at all (do_image_splitting).</summary>
    public bool SplitsImages { get; init; } = true;

    /// <summary>Patches: fewest and most pixels of a resized image.</summary>
    public (long Least, long Most) PixelRange { get; init; } = (56 * 56, 28 * 28 * 1280);

    /// <summary>Patches: pixels of a patch's side.</summary>
    public int PatchSize { get; init; } = 14;

    /// <summary>Patches: patches of a merged square's side.</summary>
    public int MergeSize { get; init; } = 2;

    /// <summary>Patches: frames, of which an image has as many copies.</summary>
    public int TemporalPatchSize { get; init; } = 2;

    private const int MaxEdge = 1 << 12;

    /// <summary>Reads a preprocessor_config.json, or a processor_config.json that holds one as image_processor.</summary>
    /// <exception cref="InvalidDataException">It is not JSON, or a field is not what it should be.</exception>
    /// <exception cref="NotSupportedException">It asks for a processor or an option that is not supported.</exception>
    internal static ImageProcessorOptions FromJson(ReadOnlySpan<byte> json, string name)
    {
        JsonDocument document;
        try
        {
            var reader = new Utf8JsonReader(json.StartsWith("\uFEFF"u8) ? json[3..] : json, new() { MaxDepth = 64, CommentHandling = JsonCommentHandling.Skip });
            document = JsonDocument.ParseValue(ref reader);
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{name}: not JSON: {e.Message}", e);
        }
        using (document)
        {
            var root = document.RootElement;
            if (root.ValueKind == JsonValueKind.Object && root.TryGetProperty("image_processor", out var inner))
                root = inner;
            if (root.ValueKind != JsonValueKind.Object)
                throw new InvalidDataException($"{name}: expected a JSON object");
            return new Fields(root, name).Read();
        }
    }

    private readonly struct Fields(JsonElement root, string name)
    {
        internal ImageProcessorOptions Read()
        {
            var type = Text("image_processor_type") ?? Text("feature_extractor_type") ?? "CLIPImageProcessor";
            // The same processors under the names of their PyTorch, Pillow and early forms.
            var family = type;
            foreach (var suffix in (ReadOnlySpan<string>)["Fast", "Pil", "ImageProcessor", "FeatureExtractor"])
                if (family.EndsWith(suffix, StringComparison.Ordinal))
                    family = family[..^suffix.Length];
            // Their defaults in Hugging Face transformers.
            var tiling = family switch
            {
                "LlavaNext" or "LlavaOnevision" => ImageTiling.AnyResolution,
                "Idefics3" or "SmolVLM" => ImageTiling.Grid,
                "Qwen2VL" or "Qwen2_5_VL" or "Qwen3VL" => ImageTiling.Patches,
                _ => ImageTiling.None,
            };
            var clip = family is "CLIP" or "Llava" or "LlavaNext" or "LlavaOnevision" or "Qwen2VL" or "Qwen2_5_VL";
            if (!clip && tiling == ImageTiling.None && family is not ("Siglip" or "ViT" or "Gemma3"))
                throw new NotSupportedException($"{name}: image_processor_type {type} is not supported; CLIP, Llava, LlavaNext, LlavaOnevision, Siglip, ViT, Gemma3, Idefics3, SmolVLM and Qwen2VL are");
            foreach (var field in root.EnumerateObject())
                if (field.Name.StartsWith("do_", StringComparison.Ordinal) && field.Value.ValueKind == JsonValueKind.True
                    && field.Name is not ("do_resize" or "do_center_crop" or "do_rescale" or "do_normalize" or "do_convert_rgb" or "do_pad")
                    && (tiling != ImageTiling.Grid || field.Name != "do_image_splitting"))
                    throw new NotSupportedException($"{name}: {field.Name} is not supported for {type}");
            if (Value("pad_size") is not null)
                throw new NotSupportedException($"{name}: pad_size is not supported for {type}");

            var aspect = Text("image_aspect_ratio");
            if (aspect is not (null or "pad" or "square" or "resize"))
                throw new NotSupportedException($"{name}: image_aspect_ratio {aspect} is not supported for {type}");
            var defaults = new ImageProcessorOptions();
            var (shortest, exact) = tiling is ImageTiling.Grid or ImageTiling.Patches ? (null, null) : Flag("do_resize", true) ? Size(clip) : (null, null);
            if (tiling != ImageTiling.None && !Flag("do_resize", true))
                throw new NotSupportedException($"{name}: do_resize: false is not supported for {type}");
            if (tiling == ImageTiling.Grid)
                exact = Square("max_image_size", 364);
            var plain = Value("resample") is null ? family is "ViT" or "Gemma3" ? Resampling.Bilinear : tiling == ImageTiling.Grid ? Resampling.Lanczos : Resampling.Bicubic : (Resampling)Whole(Value("resample")!.Value, "resample", 0, 5);
            var half = new double[] { 0.5, 0.5, 0.5 };
            var normalise = Flag("do_normalize", true);
            var mean = Triple("image_mean") ?? (clip ? defaults.Mean : half);
            return new()
            {
                Tiling = tiling,
                Pinpoints = tiling == ImageTiling.AnyResolution ? Pinpoints() : [],
                LongestEdge = tiling == ImageTiling.Grid ? Square("size", 1456).Width : null,
                SplitsImages = Flag("do_image_splitting", true),
                PixelRange = tiling == ImageTiling.Patches ? Pixels() : defaults.PixelRange,
                PatchSize = Count("patch_size", family == "Qwen3VL" ? 16 : 14),
                MergeSize = Count("merge_size", 2),
                TemporalPatchSize = Count("temporal_patch_size", 2),
                PadToSquare = aspect == "pad" || tiling == ImageTiling.None && Flag("do_pad", false),
                ShortestEdge = shortest,
                Exact = exact,
                Resampling = plain,
                Crop = Flag("do_center_crop", clip && tiling != ImageTiling.Patches && family != "LlavaOnevision") ? Crop() : null,
                OddPixelLast = type.EndsWith("Fast", StringComparison.Ordinal),
                RescaleFactor = !Flag("do_rescale", true) ? 1 : Value("rescale_factor") is { } factor ? Number(factor, "rescale_factor") : 1.0 / 255,
                Mean = normalise ? mean : [0, 0, 0],
                Std = normalise ? Triple("image_std") ?? (clip ? defaults.Std : half) : [1, 1, 1],
            };
        }

        // size: a number (the shortest edge of CLIP, a square elsewhere), [height, width], {shortest_edge} or {height, width}.
        private (int? Shortest, (int Width, int Height)? Exact) Size(bool clip)
        {
            if (Value("size") is not { } size)
                return clip ? (224, null) : (null, (224, 224));
            switch (size.ValueKind)
            {
                case JsonValueKind.Number:
                    var edge = Edge(size, "size");
                    return Flag("default_to_square", !clip) ? (null, (edge, edge)) : (edge, null);
                case JsonValueKind.Array:
                    return (null, Pair(size, "size"));
                case JsonValueKind.Object when size.TryGetProperty("longest_edge", out var longest) && longest.ValueKind != JsonValueKind.Null:
                    throw new NotSupportedException($"{name}: size.longest_edge is not supported");
                case JsonValueKind.Object when size.TryGetProperty("shortest_edge", out var shortest) && shortest.ValueKind != JsonValueKind.Null:
                    return (Edge(shortest, "size.shortest_edge"), null);
                default:
                    return (null, Pair(size, "size"));
            }
        }

        // {longest_edge}: the side of a square, or the bound of an image's.
        private (int Width, int Height) Square(string field, int otherwise)
        {
            var edge = Value(field) is not { } size ? otherwise
                : size.ValueKind == JsonValueKind.Object && size.TryGetProperty("longest_edge", out var longest) ? Edge(longest, field + ".longest_edge")
                : throw new InvalidDataException($"{name}: {field} is {size}; expected longest_edge");
            return (edge, edge);
        }

        private int Count(string field, int otherwise) => Value(field) is { } value ? Whole(value, field, 1, 1 << 10) : otherwise;

        // min_pixels and max_pixels, or size: {shortest_edge, longest_edge}, which are counts of pixels too.
        private (long, long) Pixels()
        {
            const int Most = 1 << 30;
            var (least, most) = (56 * 56, 28 * 28 * 1280);
            if (Value("size") is { ValueKind: JsonValueKind.Object } size)
            {
                if (size.TryGetProperty("shortest_edge", out var low))
                    least = Whole(low, "size.shortest_edge", 1, Most);
                if (size.TryGetProperty("longest_edge", out var high))
                    most = Whole(high, "size.longest_edge", 1, Most);
            }
            least = Value("min_pixels") is { } min ? Whole(min, "min_pixels", 1, Most) : least;
            most = Value("max_pixels") is { } max ? Whole(max, "max_pixels", 1, Most) : most;
            return least <= most ? (least, most) : throw new InvalidDataException($"{name}: at least {least} and at most {most} pixels");
        }

        private List<(int, int)> Pinpoints()
        {
            if (Value("image_grid_pinpoints") is not { ValueKind: JsonValueKind.Array } list || list.GetArrayLength() is < 1 or > 1024)
                throw new InvalidDataException($"{name}: image_grid_pinpoints: expected a list of [height, width]");
            var pairs = new List<(int, int)>();
            foreach (var item in list.EnumerateArray())
            {
                var (width, height) = Pair(item, "image_grid_pinpoints");
                pairs.Add((height, width));
            }
            return pairs;
        }

        private (int Width, int Height) Crop()
        {
            if (Value("crop_size") is not { } size)
                return (224, 224);
            if (size.ValueKind != JsonValueKind.Number)
                return Pair(size, "crop_size");
            var edge = Edge(size, "crop_size");
            return (edge, edge);
        }

        private (int Width, int Height) Pair(JsonElement size, string field)
        {
            if (size.ValueKind == JsonValueKind.Array && size.GetArrayLength() == 2)
                return (Edge(size[1], field), Edge(size[0], field));
            if (size.ValueKind == JsonValueKind.Object && size.TryGetProperty("height", out var height) && size.TryGetProperty("width", out var width))
                return (Edge(width, field + ".width"), Edge(height, field + ".height"));
            throw new InvalidDataException($"{name}: {field} is {size}; expected a number, height and width{(field == "size" ? ", or shortest_edge" : "")}");
        }

        private int Edge(JsonElement value, string field) => Whole(value, field, 1, MaxEdge);

        private int Whole(JsonElement value, string field, int least, int most) =>
            value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var number) && number == Math.Floor(number) && number >= least && number <= most
                ? (int)number
                : throw new InvalidDataException($"{name}: {field} is {value}; expected a whole number from {least} to {most}");

        private double Number(JsonElement value, string field) =>
            value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var number) && double.IsFinite(number)
                ? number
                : throw new InvalidDataException($"{name}: {field} is {value}; expected a number");

        private double[]? Triple(string field)
        {
            if (Value(field) is not { } value)
                return null;
            var fields = this;
            double[] three = value.ValueKind == JsonValueKind.Array
                ? [.. value.EnumerateArray().Select(one => fields.Number(one, field))]
                : [.. Enumerable.Repeat(Number(value, field), 3)];
            return three.Length == 3 ? three : throw new InvalidDataException($"{name}: {field} has {three.Length} numbers, expected 3");
        }

        private bool Flag(string field, bool otherwise) => Value(field) switch
        {
            null => otherwise,
            { ValueKind: JsonValueKind.True } => true,
            { ValueKind: JsonValueKind.False } => false,
            var value => throw new InvalidDataException($"{name}: {field} is {value}; expected true or false"),
        };

        private string? Text(string field) => Value(field) switch
        {
            null => null,
            { ValueKind: JsonValueKind.String } text => text.GetString(),
            var value => throw new InvalidDataException($"{name}: {field} is {value}; expected a string"),
        };

        // A field that is there and not null.
        private JsonElement? Value(string field) =>
            root.TryGetProperty(field, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }
}
