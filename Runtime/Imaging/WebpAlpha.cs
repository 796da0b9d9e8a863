namespace Trimtab.Imaging;

/// <summary>Reads the transparency of a lossy WebP image (RFC 9649, section 2.7.1.2: ALPH).</summary>
internal static class WebpAlpha
{
    private const int Horizontal = 1, Vertical = 2; // and 3, by the gradient

    /// <summary>Writes the fourth byte of each of the [height, width, 4] pixels.</summary>
    internal static void Decode(ReadOnlySpan<byte> chunk, int width, int height, Span<byte> pixels)
    {
        if (chunk.IsEmpty)
            throw WebpDecoder.Bad("an empty ALPH chunk");
        int method = chunk[0] & 3, filter = (chunk[0] >> 2) & 3, processing = (chunk[0] >> 4) & 3;
        if (method > 1 || processing > 1)
            throw WebpDecoder.Bad($"an ALPH chunk of compression {method} and preprocessing {processing}, outside 0 … 1");
        var alpha = new byte[width * height];
        chunk = chunk[1..];
        if (method == 1)
        {
            var coded = WebpLossless.Decode(chunk, width, height);
            for (var i = 0; i < alpha.Length; i++)
                alpha[i] = (byte)(coded[i] >> 8);
        }
        else if (chunk.Length >= alpha.Length)
            chunk[..alpha.Length].CopyTo(alpha);
        else
            throw WebpDecoder.Bad($"an ALPH chunk of {chunk.Length} bytes for {width} × {height} pixels");
        Unfilter(alpha, width, filter);
        for (var i = 0; i < alpha.Length; i++)
            pixels[4 * i + 3] = alpha[i];
    }

    /// <summary>Adds to each value what its neighbours predict: in the first row that at the left, in the first column that above.</summary>
    private static void Unfilter(Span<byte> alpha, int width, int filter)
    {
        for (var i = 1; filter != 0 && i < alpha.Length; i++)
        {
            var guess = i < width ? alpha[i - 1]
                : i % width == 0 || filter == Vertical ? alpha[i - width]
                : filter == Horizontal ? alpha[i - 1]
                : Math.Clamp(alpha[i - 1] + alpha[i - width] - alpha[i - width - 1], 0, 255);
            alpha[i] += (byte)guess;
        }
    }
}
