namespace Trimtab.Imaging;

// Families that divide an image: what it becomes is known from its size alone.
public sealed partial class ImageProcessor
{
    private const int MostSide = 4096; // Idefics 3's bound on a side after the first resize

    /// <summary>
    /// Rows and columns of what an image of a size becomes, before it is decoded: squares beside the whole image
    /// (<see cref="ImageTiling.AnyResolution"/>; <see cref="ImageTiling.Grid"/>, where 1 × 1 is the whole image alone), patches
    /// (<see cref="ImageTiling.Patches"/>), else 1 × 1.
    /// </summary>
    /// <exception cref="InvalidImageException">The image is too narrow for the family.</exception>
    public (int Rows, int Columns) Grid(int width, int height)
    {
        switch (Options.Tiling)
        {
            case ImageTiling.AnyResolution:
                var best = Best(width, height);
                return (best.Height / Size.Height, best.Width / Size.Width);
            case ImageTiling.Grid:
                var (w, h) = Split(width, height).Second;
                return w > Size.Width || h > Size.Height ? (Ceiling(h, Size.Height), Ceiling(w, Size.Width)) : (1, 1);
            case ImageTiling.Patches:
                var (across, down) = Smart(width, height);
                return (down / Options.PatchSize, across / Options.PatchSize);
            default:
                return (1, 1);
        }
    }

    /// <summary>
    /// What the model sees of an image, in order: images of <see cref="Size"/>. Of any resolution the whole image comes first, of a grid last.
    /// Of patches it is one image of nearly its own size.
    /// </summary>
    /// <exception cref="InvalidImageException">The image is too narrow for the family.</exception>
    public IReadOnlyList<Image> Tiles(Image image)
    {
        ArgumentNullException.ThrowIfNull(image);
        var tiles = new List<Image>();
        if (Options.Tiling == ImageTiling.AnyResolution)
        {
            tiles.Add(Prepare(image));
            Cut(Fitted(image, Best(image.Width, image.Height)), Size.Width, Size.Height, tiles);
        }
        else if (Options.Tiling == ImageTiling.Grid && Grid(image.Width, image.Height) is not (1, 1))
        {
            var (first, second) = Split(image.Width, image.Height);
            var large = Squashed(Squashed(image, first.Width, first.Height), second.Width, second.Height);
            Cut(large, Size.Width, Size.Height, tiles);
            tiles.Add(Squashed(large, Size.Width, Size.Height));
        }
        else if (Options.Tiling == ImageTiling.Grid)
        {
            var (first, second) = Split(image.Width, image.Height);
            tiles.Add(Squashed(Squashed(image, first.Width, first.Height), second.Width, second.Height));
        }
        else
            tiles.Add(Prepare(image));
        return tiles;
    }

    /// <summary>
    /// A resized image as patches, normalised: those of a merged square follow each other, rows first; each patch has its channels, of each all
    /// frames, which are the same.
    /// </summary>
    /// <param name="prepared">What <see cref="Prepare"/> made of an image, for a processor of patches.</param>
    /// <param name="patches">Receives [rows · columns, 3 · T · P · P].</param>
    /// <exception cref="ArgumentException">The sizes differ.</exception>
    public void Patches(Image prepared, Span<float> patches)
    {
        ArgumentNullException.ThrowIfNull(prepared);
        int patch = Options.PatchSize, merge = Options.MergeSize, side = patch * merge, frames = Options.TemporalPatchSize;
        if (prepared.Width % side != 0 || prepared.Height % side != 0 || patches.Length != (long)3 * frames * prepared.Width * prepared.Height)
            throw new ArgumentException($"an image of {prepared.Width} x {prepared.Height} and {patches.Length} floats in patches of {patch}, {merge} merged a side");
        var at = 0;
        for (var top = 0; top < prepared.Height; top += side)
            for (var left = 0; left < prepared.Width; left += side)
                for (var part = 0; part < merge * merge; part++)
                    for (var channel = 0; channel < 3; channel++)
                    {
                        var levels = _levels.AsSpan(256 * channel, 256);
                        var first = at;
                        for (var y = top + part / merge * patch; y < top + (part / merge + 1) * patch; y++)
                            for (int x = 0, from = 3 * (y * prepared.Width + left + part % merge * patch) + channel; x < patch; x++, from += 3)
                                patches[at++] = levels[prepared.Pixels[from]];
                        for (var frame = 1; frame < frames; frame++, at += patch * patch)
                            patches.Slice(first, patch * patch).CopyTo(patches[at..]);
                    }
    }

    /// <summary>LLaVA-NeXT's choice among the sizes it may fit an image to: most of the image's pixels kept, of equal ones the least padding.</summary>
    private (int Width, int Height) Best(int width, int height)
    {
        (int Width, int Height) best = default;
        long most = 0, least = long.MaxValue;
        foreach (var (h, w) in Options.Pinpoints)
        {
            var scale = Math.Min((double)w / width, (double)h / height);
            var kept = Math.Min((long)(int)(width * scale) * (int)(height * scale), (long)width * height);
            var wasted = (long)w * h - kept;
            if (kept > most || kept == most && wasted < least)
                (best, most, least) = ((w, h), kept, wasted);
        }
        return best == default ? (Size.Width, Size.Height) : best;
    }

    /// <summary>The image in proportion within a size, in the middle of black.</summary>
    private Image Fitted(Image image, (int Width, int Height) size)
    {
        double across = (double)size.Width / image.Width, down = (double)size.Height / image.Height;
        var (width, height) = across < down
            ? (size.Width, Math.Min((int)Math.Ceiling(image.Height * across), size.Height))
            : (Math.Min((int)Math.Ceiling(image.Width * down), size.Width), size.Height);
        var resized = Squashed(image, width, height);
        var fitted = Image.Blank(size.Width, size.Height, 0, 0, 0);
        int left = (size.Width - width) / 2, top = (size.Height - height) / 2;
        for (var y = 0; y < height; y++)
            resized.Pixels.AsSpan(3 * y * width, 3 * width).CopyTo(fitted.Pixels.AsSpan(3 * ((top + y) * size.Width + left)));
        return fitted;
    }

    private static void Cut(Image image, int width, int height, List<Image> tiles)
    {
        for (var top = 0; top < image.Height; top += height)
            for (var left = 0; left < image.Width; left += width)
            {
                var tile = Image.Blank(width, height, 0, 0, 0);
                for (var y = 0; y < height; y++)
                    image.Pixels.AsSpan(3 * ((top + y) * image.Width + left), 3 * width).CopyTo(tile.Pixels.AsSpan(3 * y * width));
                tiles.Add(tile);
            }
    }

    private Image Squashed(Image image, int width, int height) => image.Width == width && image.Height == height ? image
        : Resampler.Resize(image, new(image.Width, image.Width, 0, width, 0, width), new(image.Height, image.Height, 0, height, 0, height), Options.Resampling, _padding);

    /// <summary>Idefics 3's two resizes: the longer side to its bound, then both to whole squares.</summary>
    private ((int Width, int Height) First, (int Width, int Height) Second) Split(int width, int height)
    {
        var first = Within(Longest(width, height, Options.LongestEdge!.Value), MostSide);
        if (!Options.SplitsImages)
            return (first, Size);
        var aspect = (double)first.Width / first.Height;
        int w, h;
        if (first.Width >= first.Height)
        {
            w = Ceiling(first.Width, Size.Width) * Size.Width;
            h = Ceiling((int)(w / aspect), Size.Height) * Size.Height;
        }
        else
        {
            h = Ceiling(first.Height, Size.Height) * Size.Height;
            w = Ceiling((int)(h * aspect), Size.Width) * Size.Width;
        }
        return (first, (Math.Max(w, Size.Width), Math.Max(h, Size.Height)));
    }

    private static (int Width, int Height) Longest(int width, int height, int edge)
    {
        var aspect = (double)width / height;
        return width >= height ? (edge, Math.Max(1, Even((int)(edge / aspect)))) : (Math.Max(1, Even((int)(edge * aspect))), edge);

        static int Even(int side) => side + side % 2;
    }

    private static (int Width, int Height) Within((int Width, int Height) size, int most)
    {
        var aspect = (double)size.Width / size.Height;
        return size.Width >= size.Height && size.Width > most ? (most, Math.Max(1, (int)(most / aspect)))
            : size.Height > size.Width && size.Height > most ? (Math.Max(1, (int)(most * aspect)), most) : size;
    }

    /// <summary>Qwen2-VL's smart_resize: sides in whole merged patches, pixels within the bounds, in proportion as nearly as that lets.</summary>
    private (int Width, int Height) Smart(int width, int height)
    {
        var factor = Options.PatchSize * Options.MergeSize;
        if ((double)Math.Max(width, height) / Math.Min(width, height) > 200)
            throw new InvalidImageException($"an image of {width} x {height} pixels is too narrow: one side is more than 200 times the other");
        // Python rounds halves to even, as Math.Round does.
        double h = Math.Max(1, Math.Round((double)height / factor)) * factor, w = Math.Max(1, Math.Round((double)width / factor)) * factor;
        var (least, most) = Options.PixelRange;
        if (h * w > most)
        {
            var beta = Math.Sqrt((double)height * width / most);
            h = Math.Max(factor, Math.Floor(height / beta / factor) * factor);
            w = Math.Max(factor, Math.Floor(width / beta / factor) * factor);
        }
        else if (h * w < least)
        {
            var beta = Math.Sqrt((double)least / ((double)height * width));
            h = Math.Ceiling(height * beta / factor) * factor;
            w = Math.Ceiling(width * beta / factor) * factor;
        }
        return ((int)w, (int)h);
    }

    private static int Ceiling(int value, int step) => (value + step - 1) / step;
}
