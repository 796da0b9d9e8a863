using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>
/// Reads WebP files (RFC 9649): lossy and lossless, with alpha, plain and extended; of an animation the first frame on its canvas.
/// Pixels equal libwebp's.
/// </summary>
internal static class WebpDecoder
{
    /// <summary>What an image's transparency depends on, as the file's header and libwebp have it.</summary>
    private enum Alpha
    {
        /// <summary>What the image says of itself.</summary>
        Own,

        /// <summary>The same, but not an ALPH chunk, which the file's header does not announce.</summary>
        OfLossless,

        /// <summary>A lossless image's counts even where it says that it does not.</summary>
        Always,
    }

    private const int AnimationFlag = 2, ExifFlag = 8, AlphaFlag = 16;

    /// <summary>Decodes a file to RGB, or RGBA where it has transparency.</summary>
    /// <exception cref="InvalidImageException">The file is truncated, corrupt or larger than allowed.</exception>
    internal static Raster Decode(ReadOnlySpan<byte> data, long maxPixels)
    {
        if (data.Length < 12 || !data.StartsWith("RIFF"u8) || !data[8..].StartsWith("WEBP"u8))
            throw Bad("no RIFF header of kind WEBP at byte 0");
        var size = BinaryPrimitives.ReadUInt32LittleEndian(data[4..]);
        if (size > data.Length - 8)
            throw Bad($"truncated: {size + 8L} bytes announced, {data.Length} there");
        if (size < 12)
            throw Bad($"a RIFF size of {size} bytes, in which no image fits");
        var rest = data[12..((int)size + 8)];
        var first = Chunk(rest, out var name, out var after);
        if (name is "VP8 " or "VP8L")
            return Frame(rest, Alpha.Own, maxPixels, out _);
        if (name != "VP8X")
            throw Bad($"chunk '{name}' where VP8, VP8L or VP8X was expected");
        if (first.Length < 10)
            throw Bad($"a VP8X chunk of {first.Length} bytes, not 10");
        return Extended(first, after, maxPixels);
    }

    internal static InvalidImageException Bad(string what) => new($"WebP: {what}");

    private static Raster Extended(ReadOnlySpan<byte> header, ReadOnlySpan<byte> chunks, long maxPixels)
    {
        int flags = header[0], width = 1 + Number24(header[4..]), height = 1 + Number24(header[7..]);
        CheckSize(width, height, maxPixels);
        var animated = (flags & AnimationFlag) != 0;
        Raster? image = null;
        var orientation = 0;
        while (!chunks.IsEmpty)
        {
            var body = Chunk(chunks, out var name, out var after);
            if (image is null && animated && name == "ANMF")
                image = AnimationFrame(body, width, height, (flags & AlphaFlag) != 0, maxPixels);
            else if (image is null && !animated && name is "ALPH" or "VP8 " or "VP8L")
            {
                image = Frame(chunks, (flags & AlphaFlag) != 0 ? Alpha.Own : Alpha.OfLossless, maxPixels, out after);
                if (image.Width != width || image.Height != height)
                    throw Bad($"an image of {image.Width} × {image.Height} on a canvas of {width} × {height}");
            }
            else if (orientation == 0 && (flags & ExifFlag) != 0 && name == "EXIF")
                orientation = Exif.Orientation(body.StartsWith("Exif\0\0"u8) ? body[6..] : body);
            chunks = after;
        }
        if (image is null)
            throw Bad(animated ? "an animation without a frame" : "no image chunk");
        return image with { Orientation = Math.Max(orientation, 1) };
    }

    /// <summary>The first frame of an animation on its canvas, which is clear (black where the file has no transparency).</summary>
    private static Raster AnimationFrame(ReadOnlySpan<byte> body, int width, int height, bool alpha, long maxPixels)
    {
        if (body.Length < 16)
            throw Bad($"an ANMF chunk of {body.Length} bytes is truncated");
        int left = 2 * Number24(body), top = 2 * Number24(body[3..]), wide = 1 + Number24(body[6..]), high = 1 + Number24(body[9..]);
        if (left + wide > width || top + high > height)
            throw Bad($"a frame of {wide} × {high} at ({left}, {top}) leaves the canvas of {width} × {height}");
        var frame = Frame(body[16..], alpha ? Alpha.Always : Alpha.OfLossless, maxPixels, out _);
        if (frame.Width != wide || frame.Height != high)
            throw Bad($"an image of {frame.Width} × {frame.Height} in a frame of {wide} × {high}");
        var channels = alpha ? 4 : 3;
        if (frame.Channels == channels && wide == width && high == height)
            return frame;
        var pixels = new byte[checked(width * height * channels)];
        for (var y = 0; y < high; y++)
        {
            var from = frame.Pixels.AsSpan(y * wide * frame.Channels, wide * frame.Channels);
            var to = pixels.AsSpan(((y + top) * width + left) * channels, wide * channels);
            for (var x = 0; x < wide; x++)
            {
                from.Slice(x * frame.Channels, 3).CopyTo(to[(x * channels)..]);
                if (alpha)
                    to[x * 4 + 3] = frame.Channels == 4 ? from[x * 4 + 3] : (byte)255;
            }
        }
        return new(width, height, channels, pixels);
    }

    /// <summary>One image: VP8L, or VP8 with or without ALPH before it; other chunks between them are passed over.</summary>
    private static Raster Frame(ReadOnlySpan<byte> chunks, Alpha kept, long maxPixels, out ReadOnlySpan<byte> after)
    {
        ReadOnlySpan<byte> alpha = default;
        var transparent = false;
        while (!chunks.IsEmpty)
        {
            var body = Chunk(chunks, out var name, out chunks);
            after = chunks;
            if (name == "ALPH" && !transparent)
            {
                alpha = body;
                transparent = true;
            }
            else if (name == "VP8L")
            {
                if (transparent)
                    throw Bad("an ALPH chunk before a VP8L chunk, which has its own transparency");
                return Lossless(body, kept == Alpha.Always, maxPixels);
            }
            else if (name == "VP8 ")
            {
                var (width, height) = Vp8Header.Size(body);
                CheckSize(width, height, maxPixels);
                transparent &= kept != Alpha.OfLossless;
                var channels = transparent ? 4 : 3;
                var pixels = Vp8Decoder.Decode(body.ToArray(), channels);
                if (transparent)
                    WebpAlpha.Decode(alpha, width, height, pixels);
                return new(width, height, channels, pixels);
            }
        }
        throw Bad("an image without a VP8 or VP8L chunk");
    }

    private static Raster Lossless(ReadOnlySpan<byte> stream, bool alwaysAlpha, long maxPixels)
    {
        var (width, height, alpha) = WebpLossless.Header(stream);
        alpha |= alwaysAlpha;
        CheckSize(width, height, maxPixels);
        var colours = WebpLossless.Decode(stream[5..], width, height);
        var channels = alpha ? 4 : 3;
        var pixels = new byte[checked(width * height * channels)];
        var to = pixels.AsSpan();
        foreach (var colour in colours)
        {
            if (alpha)
                to[3] = (byte)(colour >> 24);
            to[2] = (byte)colour;
            to[1] = (byte)(colour >> 8);
            to[0] = (byte)(colour >> 16);
            to = to[channels..];
        }
        return new(width, height, channels, pixels);
    }

    private static void CheckSize(int width, int height, long maxPixels)
    {
        var allowed = Math.Min(maxPixels, Array.MaxLength / 4);
        if ((long)width * height > allowed)
            throw Bad($"{width} × {height} pixels are more than the {allowed} allowed");
    }

    private static int Number24(ReadOnlySpan<byte> data) => data[0] | data[1] << 8 | data[2] << 16;

    /// <summary>Contents of the next chunk; a padding byte may be missing at the very end.</summary>
    private static ReadOnlySpan<byte> Chunk(ReadOnlySpan<byte> data, out string name, out ReadOnlySpan<byte> after)
    {
        if (data.Length < 8)
            throw Bad($"{data.Length} bytes where a chunk was expected");
        name = string.Concat(data[..4].ToArray().Select(b => b is >= 0x20 and < 0x7F ? (char)b : '?'));
        var size = BinaryPrimitives.ReadUInt32LittleEndian(data[4..]);
        if (size > data.Length - 8)
            throw Bad($"chunk '{name}' has {size} bytes, {data.Length - 8} are left");
        after = data[Math.Min(data.Length, 8 + (int)size + (int)(size & 1))..];
        return data.Slice(8, (int)size);
    }
}
