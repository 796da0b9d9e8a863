using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>
/// An image file's size from its headers alone, so that what an image will cost is known before it is decoded. It promises nothing of the pixels:
/// a file that is measured may still be damaged.
/// </summary>
public static class ImageHeader
{
    /// <summary>Width and height of the upright image that <see cref="ImageDecoder.Decode"/> would give.</summary>
    /// <param name="file">The file, or as much of its beginning as holds the headers.</param>
    /// <param name="name">What errors call it.</param>
    /// <exception cref="InvalidImageException">The headers are cut short, corrupt or of an unknown kind.</exception>
    public static (int Width, int Height) Measure(ReadOnlySpan<byte> file, string name)
    {
        try
        {
            var (width, height, orientation) = file switch
            {
                [0x89, (byte)'P', (byte)'N', (byte)'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Png(file),
                [(byte)'G', (byte)'I', (byte)'F', (byte)'8', (byte)'7' or (byte)'9', (byte)'a', ..] => Gif(file),
                [(byte)'B', (byte)'M', ..] => Bmp(file),
                [0xFF, 0xD8, 0xFF, ..] => Jpeg(file),
                [(byte)'R', (byte)'I', (byte)'F', (byte)'F', _, _, _, _, (byte)'W', (byte)'E', (byte)'B', (byte)'P', ..] => Webp(file),
                _ => throw new InvalidImageException("not a PNG, JPEG, GIF, BMP or WebP file"),
            };
            ImageDecoder.CheckSize("header", width, height, long.MaxValue);
            return orientation >= 5 ? ((int)height, (int)width) : ((int)width, (int)height);
        }
        catch (InvalidImageException e)
        {
            throw new InvalidImageException($"{name}: {e.Message}", e);
        }
    }

    private static ReadOnlySpan<byte> At(ReadOnlySpan<byte> file, long start, int count) => start <= file.Length - count ? file.Slice((int)start, count)
        : throw new InvalidImageException($"cut short at byte {file.Length}, within the header");

    private static (long, long, int) Png(ReadOnlySpan<byte> file)
    {
        var header = At(file, 16, 8);
        var orientation = 1;
        // eXIf is among the first chunks, or the file has a long way of pixels before it.
        for (long at = 8; at <= file.Length - 12;)
        {
            var length = BinaryPrimitives.ReadUInt32BigEndian(file[(int)at..]);
            if (file.Slice((int)at + 4, 4).SequenceEqual("eXIf"u8) && length <= file.Length - at - 12)
            {
                orientation = Exif.Orientation(file.Slice((int)at + 8, (int)length));
                break;
            }
            at += 12L + length;
        }
        return (BinaryPrimitives.ReadUInt32BigEndian(header), BinaryPrimitives.ReadUInt32BigEndian(header[4..]), orientation);
    }

    private static (long, long, int) Gif(ReadOnlySpan<byte> file)
    {
        // The canvas, and the first frame where that reaches beyond it.
        var screen = At(file, 6, 7);
        (long width, long height) = (BinaryPrimitives.ReadUInt16LittleEndian(screen), BinaryPrimitives.ReadUInt16LittleEndian(screen[2..]));
        long at = 13 + ((screen[4] & 0x80) != 0 ? 3 << (screen[4] & 7) + 1 : 0);
        for (byte block; (block = At(file, at, 1)[0]) is 0x21 or 0;)
        {
            at += block == 0 ? 1 : 2;
            for (int length; block != 0 && (length = At(file, at++, 1)[0]) > 0;)
                at += length;
        }
        if (file[(int)at] != 0x2C)
            throw new InvalidImageException($"GIF: no image at byte {at}");
        var frame = At(file, at + 1, 8);
        return (Math.Max(width, BinaryPrimitives.ReadUInt16LittleEndian(frame) + BinaryPrimitives.ReadUInt16LittleEndian(frame[4..])),
            Math.Max(height, BinaryPrimitives.ReadUInt16LittleEndian(frame[2..]) + BinaryPrimitives.ReadUInt16LittleEndian(frame[6..])), 1);
    }

    private static (long, long, int) Bmp(ReadOnlySpan<byte> file)
    {
        var header = At(file, 14, 12);
        return BinaryPrimitives.ReadUInt32LittleEndian(header) == 12
            ? (BinaryPrimitives.ReadUInt16LittleEndian(header[4..]), BinaryPrimitives.ReadUInt16LittleEndian(header[6..]), 1)
            : (BinaryPrimitives.ReadInt32LittleEndian(header[4..]), Math.Abs((long)BinaryPrimitives.ReadInt32LittleEndian(header[8..])), 1);
    }

    private static (long, long, int) Jpeg(ReadOnlySpan<byte> file)
    {
        var (position, orientation) = (2, 0);
        while (true)
        {
            var code = JpegDecoder.NextMarker(file, ref position);
            if (code is 0x01 or (>= 0xD0 and <= 0xD7))
                continue;
            if (code is 0xD8 or 0xD9 or 0xDA)
                throw JpegDecoder.Bad($"no frame header before byte {position}");
            var length = BinaryPrimitives.ReadUInt16BigEndian(At(file, position, 2));
            if (length < 2)
                throw JpegDecoder.Bad($"segment {code:X2} at byte {position} has length {length}, less than 2");
            var segment = At(file, position + 2, length - 2);
            if (code == 0xE1 && orientation == 0 && segment.StartsWith("Exif\0"u8) && segment.Length > 6)
                orientation = Exif.Orientation(segment[6..]);
            if (code is >= 0xC0 and <= 0xCF and not (0xC4 or 0xC8 or 0xCC))
            {
                var size = At(segment, 1, 4);
                return (BinaryPrimitives.ReadUInt16BigEndian(size[2..]), BinaryPrimitives.ReadUInt16BigEndian(size), orientation);
            }
            position += length;
        }
    }

    private static (long, long, int) Webp(ReadOnlySpan<byte> file)
    {
        var body = At(file, 20, 10);
        switch (file.Slice(12, 4))
        {
            case [(byte)'V', (byte)'P', (byte)'8', (byte)' ']: // a frame tag, a start code, and 14 bits each
                return (BinaryPrimitives.ReadUInt16LittleEndian(body[6..]) & 0x3FFF, BinaryPrimitives.ReadUInt16LittleEndian(body[8..]) & 0x3FFF, 1);
            case [(byte)'V', (byte)'P', (byte)'8', (byte)'L']: // a signature, and 14 bits each, less one
                var bits = BinaryPrimitives.ReadUInt32LittleEndian(body[1..]);
                return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 1);
            case [(byte)'V', (byte)'P', (byte)'8', (byte)'X']:
                var orientation = 1;
                for (long at = 12; at <= file.Length - 8 && (body[0] & 8) != 0;)
                {
                    var length = BinaryPrimitives.ReadUInt32LittleEndian(file[((int)at + 4)..]);
                    if (file.Slice((int)at, 4).SequenceEqual("EXIF"u8) && length <= file.Length - at - 8)
                    {
                        orientation = Exif.Orientation(file.Slice((int)at + 8, (int)length));
                        break;
                    }
                    at += 8L + length + length % 2;
                }
                return (1 + Number(body[4..]), 1 + Number(body[7..]), orientation);
            default:
                throw new InvalidImageException("WebP: no VP8, VP8L or VP8X chunk");
        }

        static long Number(ReadOnlySpan<byte> three) => three[0] | three[1] << 8 | three[2] << 16;
    }
}
