using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Model;
using Trimtab.Text;

namespace Trimtab;

/// <summary>
/// What stands beside a model's weights: tokenizer, chat template, image processor. Opening it reads no weights, so it is
/// also what tokenizing, inspecting and seeing use.
/// </summary>
public sealed class ModelFiles
{
    private ModelFiles(string path, ModelSpec spec, Tokenizer tokenizer, ChatTemplate? template, ImageProcessor? processor)
        => (Path, Spec, Tokenizer, Template, Processor) = (path, spec, tokenizer, template, processor);

    /// <summary>The folder or file that was opened.</summary>
    public string Path { get; }

    /// <summary>What the model is.</summary>
    public ModelSpec Spec { get; }

    /// <summary>Its tokenizer.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>Its chat template; Vicuna 1.1 for a LLaVA that brings none; null for a language model that brings none.</summary>
    public ChatTemplate? Template { get; }

    /// <summary>Its image processor, or null for a language model alone.</summary>
    public ImageProcessor? Processor { get; }

    /// <summary>The text that stands for an image in a prompt.</summary>
    public string ImagePlaceholder => Tokenizer.TokenOf((Spec.Markers?.Begin ?? Spec.ImageTokenId) ?? -1) ?? "<image>";

    /// <summary>Opens what stands beside the weights.</summary>
    /// <param name="path">
    /// A Hugging Face folder, a .safetensors file in one, or a .gguf file; where there is nothing by that name, ORG/NAME in the
    /// cache of Hugging Face's tools.
    /// </param>
    /// <param name="mmproj">The vision file of a GGUF model; null looks for *mmproj*.gguf beside it.</param>
    /// <exception cref="FileNotFoundException">There is nothing to open.</exception>
    public static ModelFiles Open(string path, string? mmproj = null)
    {
        path = Locate(path);
        if (FindGguf(path) is not { } gguf)
            return OpenFolder(path, Folder(path));
        using var source = ModelSource.OpenGguf(gguf, mmproj ?? FindMmproj(gguf));
        return OpenGguf(path, gguf, source);
    }

    /// <summary>Opens the weights too.</summary>
    /// <param name="path">See <see cref="Open"/>.</param>
    /// <param name="mmproj">See <see cref="Open"/>.</param>
    /// <param name="weights">The opened checkpoint files.</param>
    public static ModelFiles OpenWithWeights(string path, string? mmproj, out ModelSource weights)
    {
        path = Locate(path);
        var gguf = FindGguf(path);
        weights = gguf is null ? ModelSource.OpenFolder(Folder(path)) : ModelSource.OpenGguf(gguf, mmproj ?? FindMmproj(gguf));
        try
        {
            return gguf is null ? OpenFolder(path, Folder(path)) : OpenGguf(path, gguf, weights);
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    /// <summary>Opens a tokenizer alone: a tokenizer.json, a folder that holds one, or a GGUF file.</summary>
    public static Tokenizer OpenTokenizer(string path)
    {
        path = Locate(path);
        var gguf = FindGguf(path);
        if (gguf is null)
            return Tokenizer.Open(File.Exists(path) && !IsTokenizer(path) ? Folder(path) : path);
        using var checkpoint = (GgufCheckpoint)Checkpoint.Open(gguf);
        return Tokenizer.FromGguf(checkpoint.Metadata, gguf);
    }

    /// <summary>Renders a conversation with the answer to come.</summary>
    /// <exception cref="InvalidOperationException">The model has no chat template.</exception>
    /// <exception cref="ChatTemplateException">The template refuses the conversation.</exception>
    public string Render(IReadOnlyList<ChatMessage> messages)
    {
        if (Template is null)
            throw new InvalidOperationException($"{Path} has no chat template; give the whole prompt as it stands (raw)");
        var variables = new Dictionary<string, object?>();
        if (Tokenizer.BosId is { } bos)
            variables["bos_token"] = Tokenizer.TokenOf(bos);
        if (Tokenizer.EosId is { } eos)
            variables["eos_token"] = Tokenizer.TokenOf(eos);
        return Template.Render(messages, true, variables, ImagePlaceholder + "\n");
    }

    /// <summary>Token ids of a prompt's text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="rendered">From a chat template: a begin-of-sequence token that the template wrote is not added twice.</param>
    public int[] Encode(string text, bool rendered)
    {
        ArgumentNullException.ThrowIfNull(text);
        var hasBos = rendered && Tokenizer.BosId is { } bos && Tokenizer.TokenOf(bos) is { Length: > 0 } token
            && text.StartsWith(token, StringComparison.Ordinal);
        if (Spec is { Markers: { Begin: { } begin, End: { } end }, ImageTokenId: { } row }
            && (Tokenizer.TokenOf(begin), Tokenizer.TokenOf(row), Tokenizer.TokenOf(end)) is ({ } b, { } r, { } e))
            text = text.Replace(b, $"\n\n{b}{r}{e}\n\n", StringComparison.Ordinal); // as Gemma 3's processor writes it
        if (Spec.ImageTokenId is not { } image || Tokenizer.TokenOf(image) is not null)
            return Tokenizer.Encode(text, addSpecial: !hasBos);
        // The vocabulary has no image token: the placeholder splits the text.
        var ids = new List<int>();
        var parts = text.Split(ImagePlaceholder);
        for (var i = 0; i < parts.Length; i++)
        {
            if (i > 0)
                ids.Add(image);
            if (i == 0 || parts[i].Length > 0)
                ids.AddRange(Tokenizer.Encode(parts[i], addSpecial: i == 0 && !hasBos));
        }
        return [.. ids];
    }

    /// <summary>Repeats each image token once for every row of its image, and prepares the images' pixels.</summary>
    /// <exception cref="ArgumentException">Placeholders and images differ in number, or the model sees no images.</exception>
    public Prompt Expand(int[] ids, IReadOnlyList<Image> images)
    {
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(images);
        if (Spec.Vision is not { } vision || Processor is null)
        {
            return images.Count == 0
                ? new(ids)
                : throw new ArgumentException($"{Path} is a language model without a vision encoder; it takes no images");
        }
        var placeholders = ids.Count(id => id == Spec.ImageTokenId);
        if (placeholders != images.Count)
            throw new ArgumentException($"the prompt has {placeholders} image placeholders ({ImagePlaceholder}) for {images.Count} images");
        var tokens = new List<int>(ids.Length + images.Count * vision.Features);
        var (prepared, next) = (new List<PromptImage>(images.Count), 0);
        foreach (var id in ids)
        {
            if (id != Spec.ImageTokenId)
            {
                tokens.Add(id);
                continue;
            }
            var image = images[next++];
            if (vision.Division == ImageDivision.Tiles)
                Tile(image, tokens, prepared);
            else
                Add(tokens, prepared, Pixels(image, images.Count == 1), Divide(image.Width, image.Height, images.Count == 1));
        }
        return new([.. tokens], prepared);
    }

    /// <summary>
    /// Tokens that an image of a size takes in a prompt, known before the image is decoded: its rows, and the markers around its tiles.
    /// </summary>
    /// <param name="width">In pixels, upright.</param>
    /// <param name="height">In pixels, upright.</param>
    /// <param name="alone">Whether it is the prompt's only image: some families divide no others.</param>
    /// <exception cref="InvalidOperationException">The model sees no images.</exception>
    /// <exception cref="InvalidImageException">The image is too narrow for the model.</exception>
    public int ImageTokens(int width, int height, bool alone = true)
    {
        if (Spec.Vision is not { } vision || Processor is null)
            throw new InvalidOperationException($"{Path} is a language model without a vision encoder; it takes no images");
        if (vision.Division != ImageDivision.Tiles)
            return vision.FeatureRows(Divide(width, height, alone));
        var (rows, columns) = Processor.Grid(width, height);
        return TileMarkers(rows, columns).Sum(part => part is null ? vision.Features : part.Length);
    }

    /// <summary>How the vision encoder sees an image of a size.</summary>
    private ImageGrid Divide(int width, int height, bool alone)
    {
        // LLaVA-OneVision divides only a prompt's single image; LLaVA-NeXT all of them.
        if (Spec.Vision!.Division == ImageDivision.AnyResolution && !alone && Spec.Vision.MaxSquares > 0 || Spec.Vision.Division == ImageDivision.Whole)
            return default;
        var (rows, columns) = Processor!.Grid(width, height);
        return Spec.Vision.Division == ImageDivision.Native ? new(rows, columns) : new(rows, columns, width, height);
    }

    private float[] Pixels(Image image, bool alone)
    {
        var processor = Processor!;
        if (processor.Options.Tiling == ImageTiling.Patches)
        {
            var prepared = processor.Prepare(image);
            var patches = new float[3 * processor.Options.TemporalPatchSize * prepared.Width * prepared.Height];
            processor.Patches(prepared, patches);
            return patches;
        }
        IReadOnlyList<Image> tiles = Divide(image.Width, image.Height, alone) == default ? [processor.Prepare(image)] : processor.Tiles(image);
        var size = 3 * processor.Size.Width * processor.Size.Height;
        var pixels = new float[tiles.Count * size];
        for (var i = 0; i < tiles.Count; i++)
            processor.Normalise(tiles[i], pixels.AsSpan(i * size, size));
        return pixels;
    }

    private void Add(List<int> tokens, List<PromptImage> prepared, float[] pixels, ImageGrid grid)
    {
        var rows = Spec.Vision!.FeatureRows(grid);
        prepared.Add(new(tokens.Count, rows, pixels, grid));
        tokens.AddRange(Enumerable.Repeat(Spec.ImageTokenId!.Value, rows));
    }

    /// <summary>Idefics 3's form of an image: every tile an image of its own, with the markers of its row and column before it.</summary>
    private void Tile(Image image, List<int> tokens, List<PromptImage> prepared)
    {
        var tiles = Processor!.Tiles(image);
        var (rows, columns) = Processor.Grid(image.Width, image.Height);
        var next = 0;
        foreach (var part in TileMarkers(rows, columns))
        {
            if (part is not null)
            {
                tokens.AddRange(part);
                continue;
            }
            var pixels = new float[3 * Processor.Size.Width * Processor.Size.Height];
            Processor.Normalise(tiles[next++], pixels);
            Add(tokens, prepared, pixels, default);
        }
    }

    /// <summary>Marker tokens around tiles, null for a tile; no markers where the vocabulary has none.</summary>
    private List<int[]?> TileMarkers(int rows, int columns)
    {
        const string Fake = "<fake_token_around_image>", Global = "<global-img>";
        var parts = new List<int[]?>();
        var marked = Spec.Markers is { Tiles: true } && Tokenizer.IdOf(Fake) is not null && Tokenizer.IdOf(Global) is not null;
        if (rows * columns > 1)
        {
            for (var row = 1; row <= rows; row++)
            {
                for (var column = 1; column <= columns; column++)
                {
                    Mark($"{Fake}<row_{row}_col_{column}>");
                    parts.Add(null);
                }
                Mark(row < rows ? "\n" : "\n\n");
            }
        }
        Mark(Fake + Global);
        parts.Add(null);
        Mark(Fake);
        return parts;

        void Mark(string text)
        {
            if (marked)
                parts.Add(Tokenizer.Encode(text, addSpecial: false));
        }
    }

    private static ModelFiles OpenFolder(string path, string folder)
    {
        var config = System.IO.Path.Combine(folder, "config.json");
        if (!File.Exists(config))
            throw new FileNotFoundException($"{path}: expected a folder with config.json and model.safetensors, or a .gguf file", config);
        var generation = System.IO.Path.Combine(folder, "generation_config.json");
        var spec = HuggingFaceConfig.Parse(
            File.ReadAllBytes(config), config, File.Exists(generation) ? File.ReadAllBytes(generation) : default);
        ImageProcessor? processor = null;
        if (spec.Vision is { } vision)
        {
            var file = System.IO.Path.Combine(folder, "preprocessor_config.json");
            processor = File.Exists(file) ? ImageProcessor.Open(file) : Assumed(vision);
            CheckProcessor(processor, vision, file, config);
        }
        var template = ChatTemplate.Find(folder) ?? (spec.Vision is null ? null : ChatTemplate.Vicuna11);
        return new(path, spec, Tokenizer.Open(folder), template, processor);
    }

    /// <summary>The processor of a checkpoint that brings no file for it: what its family's does by default, in the tower's sizes.</summary>
    private static ImageProcessor Assumed(VisionSpec vision)
    {
        (int, int) square = (vision.ImageSize, vision.ImageSize);
        // LLaVA-OneVision's class has CLIP's colours, its checkpoints' files SigLIP's.
        var clip = vision.Family is "clip_vision_model" or "qwen2_vl" or "qwen2_5_vl" || vision.Division == ImageDivision.AnyResolution;
        double[] half = [0.5, 0.5, 0.5];
        var options = new ImageProcessorOptions();
        if (!clip)
            options = options with { Mean = half, Std = half };
        return new(vision.Division switch
        {
            ImageDivision.Native => options with
            {
                Tiling = ImageTiling.Patches, ShortestEdge = null, Crop = null, PatchSize = vision.PatchSize, MergeSize = vision.Merge,
                TemporalPatchSize = vision.TemporalPatch,
            },
            ImageDivision.AnyResolution => options with { Tiling = ImageTiling.AnyResolution, ShortestEdge = null, Exact = square, Crop = null, Pinpoints = vision.Pinpoints },
            ImageDivision.Tiles => options with
            {
                Tiling = ImageTiling.Grid, ShortestEdge = null, Exact = square, Crop = null, LongestEdge = 4 * vision.ImageSize, Resampling = Resampling.Lanczos,
            },
            _ when clip => options with { ShortestEdge = vision.ImageSize, Crop = square },
            _ => options with { ShortestEdge = null, Exact = square, Crop = null, Resampling = vision.Pooled ? Resampling.Bilinear : Resampling.Bicubic },
        });
    }

    private static void CheckProcessor(ImageProcessor processor, VisionSpec vision, string file, string config)
    {
        var options = processor.Options;
        var expected = vision.Division switch
        {
            ImageDivision.Native => ImageTiling.Patches,
            ImageDivision.AnyResolution => ImageTiling.AnyResolution,
            ImageDivision.Tiles => ImageTiling.Grid,
            _ => ImageTiling.None,
        };
        if (options.Tiling != expected)
            throw new UnsupportedModelException($"{file}: a processor that divides images by {options.Tiling}; the model of {config} expects {expected}");
        if (expected == ImageTiling.Patches
            ? (options.PatchSize, options.MergeSize, options.TemporalPatchSize) != (vision.PatchSize, vision.Merge, vision.TemporalPatch)
            : processor.Size != (vision.ImageSize, vision.ImageSize))
            throw new UnsupportedModelException(
                $"{file}: images of {processor.Size.Width} × {processor.Size.Height}; the vision encoder of {config} expects {vision.ImageSize} × {vision.ImageSize}");
        if (expected == ImageTiling.AnyResolution && !options.Pinpoints.All(vision.Pinpoints.Contains))
            throw new UnsupportedModelException($"{file}: image_grid_pinpoints that those of {config} do not have");
    }

    private static ModelFiles OpenGguf(string path, string gguf, ModelSource source)
    {
        var metadata = ((GgufCheckpoint)source.Files[0]).Metadata;
        var tokenizer = Tokenizer.FromGguf(metadata, gguf);
        var spec = source.Spec;
        ImageProcessor? processor = null;
        if (spec.Vision is { } vision && source.VisionFile is { } file)
        {
            // GGUF files name no image token; the vocabulary may have one.
            spec = spec with { ImageTokenId = spec.ImageTokenId ?? tokenizer.IdOf("<image>") ?? spec.Text.VocabularySize };
            if (spec.Text.SeesWholeImages)
            {
                int Token(string name) => tokenizer.IdOf(name) ?? throw new UnsupportedModelException($"{gguf}: the vocabulary has no {name}, which Gemma 3's images need");
                spec = spec with { ImageTokenId = Token("<image_soft_token>"), Markers = new(Token("<start_of_image>"), Token("<end_of_image>"), false) };
            }
            double[] mean = [.. file.Mean.Select(x => (double)x)], std = [.. file.Std.Select(x => (double)x)];
            var assumed = Assumed(vision).Options;
            processor = new(assumed with { Mean = mean, Std = std, LongestEdge = vision.Division == ImageDivision.Tiles ? file.LongestEdge : null });
        }
        var template = metadata.TryGetValue("tokenizer.chat_template", out var text) && text is string jinja
            ? ChatTemplate.Parse(jinja, $"{gguf}: tokenizer.chat_template")
            : spec.Vision is null ? null : ChatTemplate.Vicuna11;
        return new(path, spec, tokenizer, template, processor);
    }

    private static bool IsTokenizer(string path) => path.EndsWith("tokenizer.json", StringComparison.Ordinal);

    // What lies at the path always wins over a model of that name in the cache.
    private static string Locate(string path) => File.Exists(path) || Directory.Exists(path) ? path : HubCache.Find(path) ?? path;

    private static string Folder(string path)
        => Directory.Exists(path) ? path
        : File.Exists(path) ? System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!
        : throw new FileNotFoundException($"{path}: no such file or folder{(HubCache.IsName(path) ? ", nor a model in the cache (see: pull)" : "")}", path);

    private static string? FindGguf(string path)
    {
        if (File.Exists(path))
            return path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) ? path : null;
        if (!Directory.Exists(path) || File.Exists(System.IO.Path.Combine(path, "config.json")) || File.Exists(System.IO.Path.Combine(path, "tokenizer.json")))
            return null;
        var files = Directory.GetFiles(path, "*.gguf").Where(f => !IsMmproj(f)).ToArray();
        return files.Length switch
        {
            0 => null,
            1 => files[0],
            _ => throw new FileNotFoundException(
                $"{path} holds {files.Length} GGUF models ({string.Join(", ", files.Select(System.IO.Path.GetFileName))}); name one of them", path),
        };
    }

    private static string? FindMmproj(string gguf)
    {
        var folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(gguf))!;
        var files = Directory.GetFiles(folder, "*.gguf").Where(IsMmproj).ToArray();
        return files.Length <= 1
            ? files.FirstOrDefault()
            : throw new FileNotFoundException(
                $"beside {gguf} are {files.Length} vision files ({string.Join(", ", files.Select(System.IO.Path.GetFileName))}); name one of them (--mmproj)", folder);
    }

    private static bool IsMmproj(string path) => System.IO.Path.GetFileName(path).Contains("mmproj", StringComparison.OrdinalIgnoreCase);
}
