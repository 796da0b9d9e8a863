namespace Trimtab.Imaging;

/// <summary>Undoes the transforms of lossless WebP (RFC 9649, section 3.5) on pixels of alpha, red, green, blue.</summary>
internal static class WebpTransforms
{
    internal const int Predictor = 0, Colour = 1, Green = 2, Palette = 3;

    private const uint Black = 0xFF000000;

    /// <summary>Adds to each pixel what its neighbours predict; the green byte of a tile's pixel is its mode.</summary>
    internal static void Predict(uint[] pixels, int width, int height, uint[] tiles, int bits)
    {
        var tilesWide = (width + (1 << bits) - 1) >> bits;
        pixels[0] = Add(pixels[0], Black);
        for (var x = 1; x < width; x++)
            pixels[x] = Add(pixels[x], pixels[x - 1]);
        for (var y = 1; y < height; y++)
        {
            // From the end of the row above: one step past it is this row's first pixel, as the last column's "above right" wants it.
            var row = pixels.AsSpan(y * width, width);
            var above = pixels.AsSpan((y - 1) * width, width + 1);
            row[0] = Add(row[0], above[0]);
            for (var x = 1; x < width;)
            {
                var mode = (tiles[(y >> bits) * tilesWide + (x >> bits)] >> 8) & 15;
                var end = Math.Min(width, ((x >> bits) + 1) << bits);
                for (; x < end; x++)
                    row[x] = Add(row[x], Guess(mode, row[x - 1], above[x], above[x + 1], above[x - 1]));
            }
        }
    }

    private static uint Guess(uint mode, uint left, uint top, uint topRight, uint topLeft) => mode switch
    {
        1 => left,
        2 => top,
        3 => topRight,
        4 => topLeft,
        5 => Average(Average(left, topRight), top),
        6 => Average(left, topLeft),
        7 => Average(left, top),
        8 => Average(topLeft, top),
        9 => Average(top, topRight),
        10 => Average(Average(left, topLeft), Average(top, topRight)),
        11 => Nearer(left, top, topLeft),
        12 => Gradient(left, top, topLeft),
        13 => HalfGradient(Average(left, top), topLeft),
        _ => Black,
    };

    private static uint Average(uint a, uint b) => (((a ^ b) & 0xFEFEFEFE) >> 1) + (a & b);

    private static uint Add(uint a, uint b) =>
        (((a & 0xFF00FF00) + (b & 0xFF00FF00)) & 0xFF00FF00) | (((a & 0x00FF00FF) + (b & 0x00FF00FF)) & 0x00FF00FF);

    private static int Byte(uint pixel, int shift) => (int)(pixel >> shift) & 0xFF;

    private static uint Nearer(uint left, uint top, uint topLeft)
    {
        var difference = 0;
        for (var shift = 0; shift < 32; shift += 8)
            difference += Math.Abs(Byte(left, shift) - Byte(topLeft, shift)) - Math.Abs(Byte(top, shift) - Byte(topLeft, shift));
        return difference <= 0 ? top : left;
    }

    private static uint Gradient(uint left, uint top, uint topLeft)
    {
        uint result = 0;
        for (var shift = 0; shift < 32; shift += 8)
            result |= (uint)Math.Clamp(Byte(left, shift) + Byte(top, shift) - Byte(topLeft, shift), 0, 255) << shift;
        return result;
    }

    private static uint HalfGradient(uint average, uint topLeft)
    {
        uint result = 0;
        for (var shift = 0; shift < 32; shift += 8)
        {
            var a = Byte(average, shift);
            result |= (uint)Math.Clamp(a + (a - Byte(topLeft, shift)) / 2, 0, 255) << shift;
        }
        return result;
    }

    /// <summary>Adds to red and blue their shares of green, and to blue its share of red; a tile's pixel holds the factors.</summary>
    internal static void Recolour(uint[] pixels, int width, uint[] tiles, int bits)
    {
        var tilesWide = (width + (1 << bits) - 1) >> bits;
        for (int i = 0, y = 0; i < pixels.Length; y++)
            for (var x = 0; x < width;)
            {
                var tile = tiles[(y >> bits) * tilesWide + (x >> bits)];
                int greenToRed = (sbyte)tile, greenToBlue = (sbyte)(tile >> 8), redToBlue = (sbyte)(tile >> 16);
                for (var end = Math.Min(width, ((x >> bits) + 1) << bits); x < end; x++, i++)
                {
                    var pixel = pixels[i];
                    int green = (sbyte)(pixel >> 8);
                    var red = (Byte(pixel, 16) + ((greenToRed * green) >> 5)) & 0xFF;
                    var blue = (Byte(pixel, 0) + ((greenToBlue * green) >> 5) + ((redToBlue * (sbyte)red) >> 5)) & 0xFF;
                    pixels[i] = (pixel & 0xFF00FF00) | ((uint)red << 16) | (uint)blue;
                }
            }
    }

    /// <summary>Adds green to red and to blue.</summary>
    internal static void AddGreen(uint[] pixels)
    {
        foreach (ref var pixel in pixels.AsSpan())
            pixel = Add(pixel, ((pixel >> 8) & 0xFF) * 0x00010001);
    }

    /// <summary>Turns a palette's differences into its colours.</summary>
    internal static void AddUp(uint[] palette)
    {
        for (var i = 1; i < palette.Length; i++)
            palette[i] = Add(palette[i], palette[i - 1]);
    }

    /// <summary>Colours of indices, 1, 2, 4 or 8 of which share a green byte; an index past the palette is transparent black.</summary>
    internal static uint[] LookUp(uint[] packed, int width, int height, uint[] palette, int bits)
    {
        var full = new uint[256];
        palette.CopyTo(full, 0);
        var packedWide = (width + (1 << bits) - 1) >> bits;
        int depth = 8 >> bits, mask = (1 << depth) - 1;
        var pixels = new uint[width * height];
        for (var y = 0; y < height; y++)
        {
            var from = packed.AsSpan(y * packedWide, packedWide);
            var to = pixels.AsSpan(y * width, width);
            for (var x = 0; x < to.Length; x++)
                to[x] = full[(Byte(from[x >> bits], 8) >> ((x & ((1 << bits) - 1)) * depth)) & mask];
        }
        return pixels;
    }
}
