namespace Trimtab.Imaging;

/// <summary>
/// Lossy WebP's planes to RGB: chroma doubled by the filter of 9, 3, 3 and 1 sixteenths, then BT.601 with 14-bit factors. Roundings are
/// those of libwebp, so that pixels equal its.
/// </summary>
internal static class WebpColour
{
    /// <summary>[height, width, channels] pixels, the first three channels written.</summary>
    internal static byte[] ToRgb(Vp8Plane luma, Vp8Plane blues, Vp8Plane reds, int width, int height, int channels)
    {
        var pixels = new byte[checked(width * height * channels)];
        int chromaWide = (width + 1) / 2, chromaHigh = (height + 1) / 2;
        // One more than the image is wide: the last chroma sample's second column.
        byte[] u = new byte[2 * chromaWide], v = new byte[2 * chromaWide];
        for (var y = 0; y < height; y++)
        {
            var near = y / 2;
            var far = Math.Clamp((y & 1) == 0 ? near - 1 : near + 1, 0, chromaHigh - 1);
            Upsample(blues.Row(near)[..chromaWide], blues.Row(far)[..chromaWide], u);
            Upsample(reds.Row(near)[..chromaWide], reds.Row(far)[..chromaWide], v);
            var row = pixels.AsSpan(y * width * channels, width * channels);
            var lumas = luma.Row(y)[..width];
            for (var x = 0; x < lumas.Length; x++)
            {
                int l = (lumas[x] * 19077) >> 8, b = u[x], r = v[x];
                var pixel = row.Slice(x * channels, 3);
                pixel[0] = Clamp(l + ((r * 26149) >> 8) - 14234);
                pixel[1] = Clamp(l - ((b * 6419) >> 8) - ((r * 13320) >> 8) + 8708);
                pixel[2] = Clamp(l + ((b * 33050) >> 8) - 17685);
            }
        }
        return pixels;
    }

    private static void Upsample(ReadOnlySpan<byte> near, ReadOnlySpan<byte> far, Span<byte> to)
    {
        to[0] = (byte)((3 * near[0] + far[0] + 2) >> 2);
        to[^1] = (byte)((3 * near[^1] + far[^1] + 2) >> 2);
        for (var x = 1; x < near.Length; x++)
        {
            int left = near[x - 1], right = near[x], farLeft = far[x - 1], farRight = far[x];
            var sum = left + right + farLeft + farRight + 8;
            to[2 * x - 1] = (byte)((((sum + 2 * (right + farLeft)) >> 3) + left) >> 1);
            to[2 * x] = (byte)((((sum + 2 * (left + farRight)) >> 3) + right) >> 1);
        }
    }

    private static byte Clamp(int value) => (byte)Math.Clamp(value >> 6, 0, 255);
}
