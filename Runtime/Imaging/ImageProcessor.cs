namespace Trimtab.Imaging;

/// <summary>
/// Turns an image into what a vision tower sees, with the arithmetic of Hugging Face's image processors (on Pillow): CLIP's, LLaVA's, SigLIP's,
/// ViT's and Gemma 3's, and those that divide an image, LLaVA-NeXT's, LLaVA-OneVision's, Idefics 3's, SmolVLM's and Qwen2-VL's.
/// </summary>
public sealed partial class ImageProcessor
{
    // The float of each level: red's 256, green's, blue's.
    private readonly float[] _levels = new float[3 * 256];

    // RGB of the padding.
    private readonly byte[] _padding = new byte[3];

    /// <summary>A processor of these options.</summary>
    /// <exception cref="ArgumentException">The options contradict each other, or do not give every image the same size.</exception>
    public ImageProcessor(ImageProcessorOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Mean.Count != 3 || options.Std.Count != 3 || options.Std.Any(std => (float)std == 0))
            throw new ArgumentException("image_mean and image_std are three numbers each, those of image_std not zero", nameof(options));
        if (options.ShortestEdge is not null && options.Exact is not null)
            throw new ArgumentException("size is either the shortest edge or height and width", nameof(options));
        if (options.ShortestEdge <= 0 || options.Exact is { Width: <= 0 } or { Height: <= 0 } || options.Crop is { Width: <= 0 } or { Height: <= 0 })
            throw new ArgumentException("sizes are positive", nameof(options));
        if (options is { PatchSize: < 1 } or { MergeSize: < 1 } or { TemporalPatchSize: < 1 } or { LongestEdge: < 1 } || options.PixelRange is not (> 0, > 0))
            throw new ArgumentException("sizes are positive", nameof(options));
        if (options.Tiling == ImageTiling.Grid && (options.LongestEdge is null || options.Exact is null))
            throw new ArgumentException("a grid needs the longest edge and the size of its squares", nameof(options));
        var wanted = 16 * options.PatchSize * options.MergeSize;
        Options = options;
        Size = options.Tiling == ImageTiling.Patches ? Smart(wanted, wanted) : options.Crop ?? options.Exact
            ?? (options.ShortestEdge is { } edge && (options.PadToSquare || options.Tiling == ImageTiling.AnyResolution) ? (edge, edge)
                : throw new ArgumentException("without do_center_crop, size must give height and width: every image needs the same size", nameof(options)));
        for (var channel = 0; channel < 3; channel++)
        {
            // The product in double, what follows in float, as NumPy computes it.
            var (mean, std) = ((float)options.Mean[channel], (float)options.Std[channel]);
            for (var level = 0; level < 256; level++)
                _levels[256 * channel + level] = ((float)(level * options.RescaleFactor) - mean) / std;
            _padding[channel] = (byte)Math.Clamp(options.Mean[channel] * 255, 0, 255);
        }
    }

    /// <summary>What it was made from.</summary>
    public ImageProcessorOptions Options { get; }

    /// <summary>The size in pixels of every prepared image; of patches that of a typical one.</summary>
    public (int Width, int Height) Size { get; }

    /// <summary>Reads a checkpoint's preprocessor_config.json.</summary>
    /// <exception cref="InvalidDataException">It is not JSON, or a field is not what it should be.</exception>
    /// <exception cref="NotSupportedException">It asks for a processor or an option that is not supported, which is named.</exception>
    public static ImageProcessor Open(string path) => FromJson(File.ReadAllBytes(path), path);

    /// <summary>The processor that the text of a preprocessor_config.json describes.</summary>
    /// <param name="json">UTF-8.</param>
    /// <param name="name">What errors call it.</param>
    /// <exception cref="InvalidDataException">It is not JSON, or a field is not what it should be.</exception>
    /// <exception cref="NotSupportedException">It asks for a processor or an option that is not supported, which is named.</exception>
    public static ImageProcessor FromJson(ReadOnlySpan<byte> json, string name)
    {
        var options = ImageProcessorOptions.FromJson(json, name);
        try
        {
            return new(options);
        }
        catch (ArgumentException e)
        {
            throw new InvalidDataException($"{name}: {e.Message}", e);
        }
    }

    /// <summary>The image padded, resized and cropped to <see cref="Size"/>; for a processor of patches in nearly its own size.</summary>
    /// <exception cref="InvalidImageException">The image is so narrow that resizing it in proportion makes more than 2^28 pixels of a side.</exception>
    public Image Prepare(Image image)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (Options.Tiling is ImageTiling.AnyResolution or ImageTiling.Grid)
            return Squashed(image, Size.Width, Size.Height);
        if (Options.Tiling == ImageTiling.Patches && Smart(image.Width, image.Height) is var own)
            return Squashed(image, own.Width, own.Height);
        var (canvasWidth, canvasHeight) = (image.Width, image.Height);
        if (Options.PadToSquare)
            canvasWidth = canvasHeight = Math.Max(image.Width, image.Height);
        var (width, height) = Resized(canvasWidth, canvasHeight);
        var (horizontal, left) = Window(image.Width, canvasWidth, width, Size.Width);
        var (vertical, top) = Window(image.Height, canvasHeight, height, Size.Height);
        var window = Resampler.Resize(image, horizontal, vertical, Options.Resampling, _padding);
        if (window.Width == Size.Width && window.Height == Size.Height)
            return window;
        var prepared = Image.Blank(Size.Width, Size.Height, 0, 0, 0);
        for (var y = 0; y < window.Height; y++)
            window.Pixels.AsSpan(3 * y * window.Width, 3 * window.Width).CopyTo(prepared.Pixels.AsSpan(3 * ((top + y) * Size.Width + left)));
        return prepared;
    }

    /// <summary>Turns a prepared image's levels into the vision tower's input: (level x rescale_factor - mean) / std, in float32.</summary>
    /// <param name="prepared">An image of <see cref="Size"/>.</param>
    /// <param name="pixels">Receives [3, Height, Width].</param>
    /// <exception cref="ArgumentException">The sizes differ.</exception>
    public void Normalise(Image prepared, Span<float> pixels)
    {
        ArgumentNullException.ThrowIfNull(prepared);
        var count = Size.Width * Size.Height;
        if (prepared.Width != Size.Width || prepared.Height != Size.Height || pixels.Length != 3 * count)
            throw new ArgumentException(
                $"an image of {prepared.Width} x {prepared.Height} and {pixels.Length} floats; expected {Size.Width} x {Size.Height} and {3 * count}", nameof(pixels));
        for (var channel = 0; channel < 3; channel++)
        {
            var levels = _levels.AsSpan(256 * channel, 256);
            var plane = pixels.Slice(channel * count, count);
            for (int i = 0, from = channel; i < count; i++, from += 3)
                plane[i] = levels[prepared.Pixels[from]];
        }
    }

    private (int Width, int Height) Resized(int width, int height)
    {
        if (Options.Exact is { } exact)
            return exact;
        if (Options.ShortestEdge is not { } edge)
            return (width, height);
        // The longer side as Python's int(edge * long / short).
        var longer = (double)((long)edge * Math.Max(width, height)) / Math.Min(width, height);
        if (longer > 1 << 28)
            throw new InvalidImageException($"an image of {width} x {height} pixels is too narrow to be resized to {edge} in proportion");
        return width <= height ? (edge, (int)longer) : ((int)longer, edge);
    }

    // The part of a resized axis that the crop keeps, and where in the crop it lies: whole and in the middle where it is the smaller.
    private (ResizeAxis Axis, int Place) Window(int length, int canvas, int target, int size)
    {
        var offset = (canvas - length) / 2;
        return target >= size
            ? (new(length, canvas, offset, target, (target - size) / 2, size), 0)
            : (new(length, canvas, offset, target, 0, target), (size - target + (Options.OddPixelLast ? 0 : 1)) / 2);
    }
}
