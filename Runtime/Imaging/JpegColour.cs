namespace Trimtab.Imaging;

/// <summary>How a JPEG file's components stand for colours.</summary>
internal enum JpegColours
{
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// <summary>
/// From components to RGB: chroma brought to full size by the triangle filter (a quarter of the farther sample, three of the nearer)
/// and JFIF's conversion in 16-bit fixed point. Roundings are those of libjpeg-turbo, so that pixels equal its.
/// </summary>
internal static class JpegColour
{
    // What Cb and Cr add, [chroma]: to red and blue rounded, to green with 16 fraction bits.
    private static readonly int[] Red = Table(1.402, 1), Blue = Table(1.772, 1);
    private static readonly int[] GreenCr = Table(-0.71414, 0), GreenCb = Table(-0.34414, 2);

    /// <summary>RGB, [Height, Width, 3], of a decoded frame.</summary>
    internal static byte[] ToRgb(JpegFrame frame, JpegColours colours)
    {
        int width = frame.Width, components = frame.Components.Length;
        var pixels = new byte[checked(width * frame.Height * 3)];
        // Replicated rows may run past the image by a sample's width.
        var scratch = new byte[components][];
        for (var i = 0; i < components; i++)
            scratch[i] = new byte[frame.Components[i].Stride * (frame.Across / frame.Components[i].Horizontal)];
        for (var y = 0; y < frame.Height; y++)
        {
            var rgb = pixels.AsSpan(y * width * 3, width * 3);
            var first = Row(0);
            switch (colours)
            {
                case JpegColours.Grey:
                    for (int x = 0, at = 0; x < first.Length; x++, at += 3)
                        rgb[at] = rgb[at + 1] = rgb[at + 2] = first[x];
                    break;
                case JpegColours.Rgb:
                    Interleave(first, Row(1), Row(2), rgb);
                    break;
                case JpegColours.YCbCr:
                    Convert(first, Row(1), Row(2), rgb);
                    break;
                case JpegColours.Cmyk:
                    Interleave(first, Row(1), Row(2), rgb);
                    Blacken(rgb, Row(3));
                    break;
                case JpegColours.Ycck:
                    Convert(first, Row(1), Row(2), rgb);
                    // The conversion gives the complement of the inks.
                    for (var i = 0; i < rgb.Length; i++)
                        rgb[i] = (byte)~rgb[i];
                    Blacken(rgb, Row(3));
                    break;
            }

            ReadOnlySpan<byte> Row(int i) => Upsample(frame, frame.Components[i], y, scratch[i])[..width];
        }
        return pixels;
    }

    private static int[] Table(double factor, int rounding)
    {
        // Rounding: 1 shifts to whole numbers, 2 leaves the half that the sum of both greens needs, 0 does neither.
        var step = (int)(Math.Abs(factor) * 65536 + 0.5) * Math.Sign(factor);
        var table = new int[256];
        for (var i = 0; i < 256; i++)
        {
            var value = step * (i - 128);
            table[i] = rounding switch { 1 => (value + 32768) >> 16, 2 => value + 32768, _ => value };
        }
        return table;
    }

    private static void Interleave(ReadOnlySpan<byte> red, ReadOnlySpan<byte> green, ReadOnlySpan<byte> blue, Span<byte> rgb)
    {
        for (int x = 0, at = 0; x < red.Length; x++, at += 3)
        {
            rgb[at] = red[x];
            rgb[at + 1] = green[x];
            rgb[at + 2] = blue[x];
        }
    }

    private static void Convert(ReadOnlySpan<byte> luma, ReadOnlySpan<byte> cb, ReadOnlySpan<byte> cr, Span<byte> rgb)
    {
        int[] red = Red, blue = Blue, greenCb = GreenCb, greenCr = GreenCr;
        cb = cb[..luma.Length];
        cr = cr[..luma.Length];
        for (var x = 0; x < luma.Length; x++)
        {
            int y = luma[x], b = cb[x], r = cr[x];
            var pixel = rgb.Slice(x * 3, 3);
            pixel[0] = Clamp(y + red[r]);
            pixel[1] = Clamp(y + ((greenCb[b] + greenCr[r]) >> 16));
            pixel[2] = Clamp(y + blue[b]);
        }
    }

    /// <summary>
    /// Inks to light. Files hold 255 less the ink, Adobe's convention, with or without its marker; each light is what black leaves
    /// less the ink's share of that.
    /// </summary>
    private static void Blacken(Span<byte> rgb, ReadOnlySpan<byte> black)
    {
        for (var x = 0; x < black.Length; x++)
        {
            int light = black[x];
            foreach (ref var channel in rgb.Slice(x * 3, 3))
            {
                var product = (255 - channel) * light + 128;
                channel = (byte)(light - ((product + (product >> 8)) >> 8));
            }
        }
    }

    /// <summary>One row of a component at the image's size; a slice of the samples themselves where there is nothing to do.</summary>
    private static ReadOnlySpan<byte> Upsample(JpegFrame frame, JpegComponent c, int y, Span<byte> row)
    {
        int across = frame.Across / c.Horizontal, down = frame.Down / c.Vertical;
        var at = y / down;
        var near = Samples(at);
        if (across == 1 && down == 1)
            return c.Samples.AsSpan(at * c.Stride, c.Stride);
        if (down == 2 && (across == 1 || (across == 2 && c.Width > 2)))
        {
            var below = (y & 1) == 1;
            var far = Samples(Math.Clamp(below ? at + 1 : at - 1, 0, c.Height - 1));
            if (across == 1)
                for (var x = 0; x < near.Length; x++)
                    row[x] = (byte)((near[x] * 3 + far[x] + (below ? 2 : 1)) >> 2);
            else
                Triangle(near, far, row);
        }
        else if (across == 2 && down == 1 && c.Width > 2)
            Triangle(near, row);
        else
            for (var x = 0; x < near.Length; x++)
                row.Slice(x * across, across).Fill(near[x]);
        return row;

        ReadOnlySpan<byte> Samples(int line) => c.Samples.AsSpan(line * c.Stride, c.Width);
    }

    private static void Triangle(ReadOnlySpan<byte> from, Span<byte> to)
    {
        to = to[..(from.Length * 2)];
        to[0] = from[0];
        to[1] = (byte)((from[0] * 3 + from[1] + 2) >> 2);
        for (var x = 1; x < from.Length - 1; x++)
        {
            var value = from[x] * 3;
            to[x * 2] = (byte)((value + from[x - 1] + 1) >> 2);
            to[x * 2 + 1] = (byte)((value + from[x + 1] + 2) >> 2);
        }
        to[^2] = (byte)((from[^1] * 3 + from[^2] + 1) >> 2);
        to[^1] = from[^1];
    }

    private static void Triangle(ReadOnlySpan<byte> near, ReadOnlySpan<byte> far, Span<byte> to)
    {
        to = to[..(near.Length * 2)];
        far = far[..near.Length];
        int before, value = near[0] * 3 + far[0], after = near[1] * 3 + far[1];
        to[0] = (byte)((value * 4 + 8) >> 4);
        to[1] = (byte)((value * 3 + after + 7) >> 4);
        for (var x = 1; x < near.Length - 1; x++)
        {
            (before, value, after) = (value, after, near[x + 1] * 3 + far[x + 1]);
            to[x * 2] = (byte)((value * 3 + before + 8) >> 4);
            to[x * 2 + 1] = (byte)((value * 3 + after + 7) >> 4);
        }
        to[^2] = (byte)((after * 3 + value + 8) >> 4);
        to[^1] = (byte)((after * 4 + 7) >> 4);
    }

    private static byte Clamp(int value) => (byte)((uint)value <= 255 ? value : value < 0 ? 0 : 255);
}
