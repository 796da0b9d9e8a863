namespace Trimtab.Imaging;

/// <summary>Decodes image files, which are untrusted: every failure is an <see cref="InvalidImageException"/>.</summary>
public static class ImageDecoder
{
    /// <summary>The most pixels (width x height) that are accepted unless a caller says otherwise.</summary>
    public const long DefaultMaxPixels = 64_000_000;

    /// <summary>The longest side accepted. What resizing costs grows with a side too: a hair of an image must not take minutes.</summary>
    private const int MaxSide = 1 << 18;

    /// <summary>
    /// Decodes a PNG, JPEG, GIF, BMP or WebP file, known by its signature, whatever its name says. The first frame of an animation counts;
    /// the image is turned upright by its EXIF orientation and transparent pixels are composited on white. A file cut short is refused,
    /// not shown in part.
    /// </summary>
    /// <param name="file">The whole file.</param>
    /// <param name="name">What errors call it.</param>
    /// <param name="maxPixels">The most pixels (width x height) that are accepted; checked before memory is taken.</param>
    /// <exception cref="InvalidImageException">The file is truncated, corrupt, too large or of an unknown kind.</exception>
    public static Image Decode(ReadOnlySpan<byte> file, string name, long maxPixels = DefaultMaxPixels)
    {
        try
        {
            return Upright(file switch
            {
                // formats
                [0x89, (byte)'P', (byte)'N', (byte)'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => PngDecoder.Decode(file, maxPixels),
                [(byte)'G', (byte)'I', (byte)'F', (byte)'8', (byte)'7' or (byte)'9', (byte)'a', ..] => GifDecoder.Decode(file, maxPixels),
                [(byte)'B', (byte)'M', ..] => BmpDecoder.Decode(file, maxPixels),
                [0xFF, 0xD8, 0xFF, ..] => JpegDecoder.Decode(file, maxPixels),
                [(byte)'R', (byte)'I', (byte)'F', (byte)'F', _, _, _, _, (byte)'W', (byte)'E', (byte)'B', (byte)'P', ..] =>
                    WebpDecoder.Decode(file, maxPixels),
                [] => throw new InvalidImageException("the file is empty"),
                _ => throw new InvalidImageException("not a PNG, JPEG, GIF, BMP or WebP file: it begins with the bytes "
                    + Convert.ToHexString(file[..Math.Min(12, file.Length)])),
            });
        }
        catch (InvalidImageException e)
        {
            throw new InvalidImageException($"{name}: {e.Message}", e);
        }
    }

    /// <summary>Refuses sizes that are not positive or above the limits, before anything is allocated by them.</summary>
    internal static void CheckSize(string format, long width, long height, long maxPixels)
    {
        if (width <= 0 || height <= 0)
            throw new InvalidImageException($"{format}: an image of {width} x {height} pixels has none");
        // Four channels of any accepted image fit one array.
        maxPixels = Math.Min(maxPixels, Array.MaxLength / 4);
        if (width > MaxSide || height > MaxSide || width * height > maxPixels)
            throw new InvalidImageException(
                $"{format}: {width} x {height} pixels are more than the limit of {maxPixels} pixels and {MaxSide} a side");
    }

    private static Image Upright(Raster raster)
    {
        var pixels = raster.Channels == 4 ? OnWhite(raster.Pixels) : raster.Pixels;
        var (w, h) = (raster.Width, raster.Height);
        // Where the upright image's first pixel lies in the stored one, and the steps that its columns and rows take there (TIFF 6.0, Orientation).
        var (first, column, row) = raster.Orientation switch
        {
            2 => (w - 1, -1, w),
            3 => (w * h - 1, -1, -w),
            4 => (w * (h - 1), 1, -w),
            5 => (0, w, 1),
            6 => (w * (h - 1), -w, 1),
            7 => (w * h - 1, -w, -1),
            8 => (w - 1, w, -1),
            _ => (0, 1, w),
        };
        if (column == 1 && row == w)
            return new(w, h, pixels);
        if (raster.Orientation >= 5)
            (w, h) = (h, w);
        var upright = new byte[pixels.Length];
        var at = 0;
        for (var y = 0; y < h; y++)
            for (var x = 0; x < w; x++, at += 3)
            {
                var from = 3 * (first + x * column + y * row);
                (upright[at], upright[at + 1], upright[at + 2]) = (pixels[from], pixels[from + 1], pixels[from + 2]);
            }
        return new(w, h, upright);
    }

    private static byte[] OnWhite(byte[] rgba)
    {
        var rgb = new byte[rgba.Length / 4 * 3];
        for (int from = 0, to = 0; to < rgb.Length; from += 4)
        {
            int alpha = rgba[from + 3];
            for (var channel = 0; channel < 3; channel++)
            {
                // The nearest integer to sum / 255, without a division.
                var sum = rgba[from + channel] * alpha + 255 * (255 - alpha) + 128;
                rgb[to++] = (byte)(((sum >> 8) + sum) >> 8);
            }
        }
        return rgb;
    }
}
