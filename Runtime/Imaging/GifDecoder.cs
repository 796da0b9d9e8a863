using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>Reads the first frame of GIF files (GIF87a, GIF89a).</summary>
/// <remarks>
/// The image is the logical screen, grown where the frame reaches beyond it. What the frame does not cover is transparent where the frame
/// has a transparent colour and its palette's first colour elsewhere, as Pillow does. An index beyond the palette is black, and without
/// any palette an index is a level of grey. Later frames are walked for their structure, so that a file cut short is noticed.
/// </remarks>
internal static class GifDecoder
{
    private const int MaxCodes = 4096;

    internal static Raster Decode(ReadOnlySpan<byte> data, long maxPixels)
    {
        var at = 6;
        var screen = Take(data, ref at, 7, "the screen descriptor");
        var (width, height) = (Half(screen), Half(screen[2..]));
        var palette = Palette(data, ref at, screen[4]);
        var transparent = -1;
        Raster? first = null;
        for (; ; )
        {
            var start = at;
            switch (Take(data, ref at, 1, "a block or the trailer")[0])
            {
                case 0x3B:
                    return first ?? throw new InvalidImageException($"GIF: no image before the trailer at byte {start}");
                case 0x21:
                    var label = Take(data, ref at, 1, "an extension's label")[0];
                    // Graphic control: packed fields, delay, transparent index. It holds for the next image.
                    if (label == 0xF9 && at < data.Length && data[at] >= 4)
                    {
                        var control = Take(data, ref at, 1 + data[at], "a graphic control extension");
                        transparent = (control[1] & 1) != 0 ? control[4] : -1;
                    }
                    SkipBlocks(data, ref at);
                    break;
                case 0x2C:
                    var frame = Take(data, ref at, 9, "an image descriptor");
                    var local = Palette(data, ref at, frame[8]) ?? palette;
                    var codeBits = Take(data, ref at, 1, "an image's code size")[0];
                    var codesAt = at;
                    var length = SkipBlocks(data, ref at);
                    if (first is null)
                    {
                        var codes = new byte[length];
                        for (int from = codesAt, to = 0; data[from] != 0; from += 1 + data[from])
                        {
                            data.Slice(from + 1, data[from]).CopyTo(codes.AsSpan(to));
                            to += data[from];
                        }
                        first = Frame(frame, width, height, local, transparent, codes, codeBits, maxPixels, start);
                    }
                    break;
                case 0:
                    // A surplus block terminator, which some writers leave.
                    break;
                default:
                    throw new InvalidImageException($"GIF: no block begins with 0x{data[start]:X2}, at byte {start}");
            }
        }
    }

    private static Raster Frame(ReadOnlySpan<byte> frame, int width, int height, byte[]? palette, int transparent, byte[] codes, int codeBits,
        long maxPixels, int start)
    {
        var (left, top, columns, rows) = (Half(frame), Half(frame[2..]), Half(frame[4..]), Half(frame[6..]));
        (width, height) = (Math.Max(width, left + columns), Math.Max(height, top + rows));
        if (columns == 0 || rows == 0)
            throw new InvalidImageException($"GIF image at byte {start}: {columns} x {rows} pixels");
        ImageDecoder.CheckSize("GIF", width, height, maxPixels);
        if (codeBits is < 1 or > 8)
            throw new InvalidImageException($"GIF image at byte {start}: LZW code size {codeBits}, expected 1 to 8");
        // No code of at least two bits stands for more pixels than there are codes.
        if ((long)columns * rows > 4L * codes.Length * MaxCodes)
            throw new InvalidImageException($"GIF image at byte {start}: {codes.Length} bytes cannot hold {columns} x {rows} pixels");
        var indices = new byte[columns * rows];
        Decompress(codes, codeBits, indices, start);

        var channels = transparent >= 0 ? 4 : 3;
        var colours = new byte[256 * channels];
        for (var i = 0; i < 256; i++)
        {
            var colour = colours.AsSpan(i * channels, channels);
            if (palette is null)
                colour.Fill((byte)i);
            else if (3 * i < palette.Length)
                palette.AsSpan(3 * i, 3).CopyTo(colour);
            if (channels == 4)
                colour[3] = i == transparent ? (byte)0 : (byte)255;
        }
        var pixels = new byte[width * height * channels];
        if (columns < width || rows < height)
        {
            var background = colours.AsSpan(Math.Max(0, transparent) * channels, channels);
            for (var i = 0; i < pixels.Length; i += channels)
                background.CopyTo(pixels.AsSpan(i));
        }
        // Interlaced rows come in four passes: every 8th, the 8ths between, the 4ths between, the rest. (first row, step)
        ReadOnlySpan<(int First, int Step)> passes = (frame[8] & 0x40) != 0 ? [(0, 8), (4, 8), (2, 4), (1, 2)] : [(0, 1)];
        var from = 0;
        foreach (var (first, step) in passes)
            for (var y = first; y < rows; y += step)
            {
                var to = ((top + y) * width + left) * channels;
                for (var x = 0; x < columns; x++, to += channels)
                    colours.AsSpan(indices[from++] * channels, channels).CopyTo(pixels.AsSpan(to));
            }
        return new(width, height, channels, pixels);
    }

    // LZW as appendix F of GIF89a has it: codes grow from codeBits + 1 to 12 bits; a full table stays as it is until a clear code.
    private static void Decompress(ReadOnlySpan<byte> codes, int codeBits, Span<byte> indices, int start)
    {
        var (clear, end) = (1 << codeBits, (1 << codeBits) + 1);
        // A code beyond the end code stands for a stretch of what is written already: the code before it and the index that followed.
        Span<int> offsets = stackalloc int[MaxCodes];
        Span<int> lengths = stackalloc int[MaxCodes];
        var (next, bits) = (end + 1, codeBits + 1);
        var (previous, previousLength, written) = (0, 0, 0);
        var (buffer, buffered, at) = (0u, 0, 0);
        while (written < indices.Length)
        {
            for (; buffered < bits; buffered += 8)
            {
                if (at == codes.Length)
                    throw new InvalidImageException($"GIF image at byte {start}: its data end after {written} of {indices.Length} pixels");
                buffer |= (uint)codes[at++] << buffered;
            }
            var code = (int)(buffer & ((1u << bits) - 1));
            buffer >>= bits;
            buffered -= bits;
            if (code == clear)
            {
                (next, bits, previousLength) = (end + 1, codeBits + 1, 0);
                continue;
            }
            if (code == end)
                throw new InvalidImageException($"GIF image at byte {start}: it ends after {written} of {indices.Length} pixels");
            if (previousLength > 0 && next < MaxCodes)
            {
                (offsets[next], lengths[next]) = (previous, previousLength + 1);
                if (++next == 1 << bits && bits < 12)
                    bits++;
            }
            if (code >= next)
                throw new InvalidImageException($"GIF image at byte {start}: code {code} after {written} pixels, where there are {next}");
            previous = written;
            if (code < clear)
            {
                (indices[written++], previousLength) = ((byte)code, 1);
                continue;
            }
            previousLength = lengths[code];
            var count = Math.Min(previousLength, indices.Length - written);
            // One by one: the stretch may reach into what it writes.
            for (var from = offsets[code]; count-- > 0;)
                indices[written++] = indices[from++];
        }
    }

    private static byte[]? Palette(ReadOnlySpan<byte> data, ref int at, byte packed) =>
        (packed & 0x80) == 0 ? null : Take(data, ref at, 3 << ((packed & 7) + 1), "a palette").ToArray();

    // Passes sub-blocks and their terminator; returns the bytes in them.
    private static int SkipBlocks(ReadOnlySpan<byte> data, ref int at)
    {
        var total = 0;
        for (; ; )
        {
            var length = Take(data, ref at, 1, "a sub-block")[0];
            if (length == 0)
                return total;
            Take(data, ref at, length, "a sub-block");
            total += length;
        }
    }

    private static ReadOnlySpan<byte> Take(ReadOnlySpan<byte> data, ref int at, int length, string what)
    {
        if (data.Length - at < length)
            throw new InvalidImageException($"GIF: cut short at byte {data.Length}, within {what}");
        at += length;
        return data.Slice(at - length, length);
    }

    private static int Half(ReadOnlySpan<byte> at) => BinaryPrimitives.ReadUInt16LittleEndian(at);
}
