using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Model;

namespace Trimtab;

// Images into prompts: how each family divides them, and how many tokens that takes.
public sealed partial class ModelFiles
{
    /// <summary>Repeats each image token once for every row of its image, and prepares the images' pixels.</summary>
    /// <exception cref="ArgumentException">Placeholders and images differ in number, or the model sees no images.</exception>
    public Prompt Expand(int[] ids, IReadOnlyList<Image> images)
    {
        ArgumentNullException.ThrowIfNull(images);
        return Expand(ids, images.Count, i => images[i]);
    }

    /// <summary>The same with images that are made one after the other, so that no two need be there at a time.</summary>
    /// <param name="ids">Token ids with a placeholder for each image.</param>
    /// <param name="count">Images.</param>
    /// <param name="image">Makes an image; asked once for each, in order.</param>
    /// <exception cref="ArgumentException">Placeholders and images differ in number, or the model sees no images.</exception>
    public Prompt Expand(int[] ids, int count, Func<int, Image> image)
    {
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(image);
        if (Spec.Vision is not { } vision || Processor is null)
        {
            return count == 0
                ? new(ids)
                : throw new ArgumentException($"{Path} is a language model without a vision encoder; it takes no images");
        }
        var placeholders = ids.Count(id => id == Spec.ImageTokenId);
        if (placeholders != count)
            throw new ArgumentException($"the prompt has {placeholders} image placeholders ({ImagePlaceholder}) for {count} images");
        var tokens = new List<int>(ids.Length + count * vision.Features);
        var (prepared, next) = (new List<PromptImage>(count), 0);
        foreach (var id in ids)
        {
            if (id != Spec.ImageTokenId)
            {
                tokens.Add(id);
                continue;
            }
            var here = image(next++);
            if (vision.Division == ImageDivision.Tiles)
                Tile(here, tokens, prepared);
            else
                Add(tokens, prepared, Pixels(here, count == 1), Divide(here.Width, here.Height, count == 1));
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
        var (vision, processor) = Sight();
        if (vision.Division != ImageDivision.Tiles)
            return vision.FeatureRows(Divide(width, height, alone));
        var (rows, columns) = processor.Grid(width, height);
        return TileMarkers(rows, columns).Sum(part => part is null ? vision.Features : part.Length);
    }

    /// <summary>Numbers that the vision encoder reads of an image of a size (<see cref="PromptImage.Pixels"/>), known as early.</summary>
    /// <inheritdoc cref="ImageTokens"/>
    public long ImageValues(int width, int height, bool alone = true)
    {
        var (vision, processor) = Sight();
        if (vision.Division != ImageDivision.Tiles)
            return vision.PixelCount(Divide(width, height, alone));
        var (rows, columns) = processor.Grid(width, height);
        return (rows * columns > 1 ? 1L + rows * columns : 1) * vision.PixelCount(default);
    }

    private (VisionSpec Vision, ImageProcessor Processor) Sight() => (Spec.Vision, Processor) is ({ } vision, { } processor)
        ? (vision, processor)
        : throw new InvalidOperationException($"{Path} is a language model without a vision encoder; it takes no images");

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
}
