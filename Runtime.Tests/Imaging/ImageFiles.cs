using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace Trimtab.Tests.Imaging;

/// <summary>Small image files built byte by byte.</summary>
internal static class ImageFiles
{
    public static byte[] Join(params byte[][] parts) => [.. parts.SelectMany(part => part)];

    public static byte[] Bytes(string hex) => Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal));

    /// <summary>A PNG chunk with its check, by a bitwise CRC of the tests' own.</summary>
    public static byte[] Chunk(string type, params byte[] content)
    {
        var body = Join(Encoding.ASCII.GetBytes(type), content);
        return Join(BigEndian(content.Length), body, BigEndian((int)Crc(body)));
    }

    public static byte[] Header(int width, int height, int depth, int colourType, int interlace = 0) =>
        Chunk("IHDR", Join(BigEndian(width), BigEndian(height), [(byte)depth, (byte)colourType, 0, 0, (byte)interlace]));

    public static byte[] Deflate(params byte[] rows)
    {
        using var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal))
            zlib.Write(rows);
        return packed.ToArray();
    }

    public static byte[] Png(params byte[][] chunks) => Join([[0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A], .. chunks, Chunk("IEND")]);

    /// <summary>A PNG of filtered rows.</summary>
    public static byte[] Png(int width, int height, int depth, int colourType, byte[] rows, int interlace = 0, params byte[][] chunks) =>
        Png([Header(width, height, depth, colourType, interlace), .. chunks, Chunk("IDAT", Deflate(rows))]);

    /// <summary>The same file with the checks of its chunks put right, so that damage reaches what lies behind them.</summary>
    public static byte[] WithChecks(byte[] png)
    {
        for (var at = 8; at + 12 <= png.Length;)
        {
            var length = BinaryPrimitives.ReadUInt32BigEndian(png.AsSpan(at));
            if (length > png.Length - at - 12)
                break;
            BigEndian((int)Crc(png.AsSpan(at + 4, 4 + (int)length))).CopyTo(png, at + 8 + (int)length);
            at += 12 + (int)length;
        }
        return png;
    }

    /// <summary>A bitmap of a header of 40 bytes or so (its size field is written here) and what follows it.</summary>
    public static byte[] Bmp(byte[] header, byte[] palette, byte[] pixels)
    {
        BinaryPrimitives.WriteInt32LittleEndian(header, header.Length);
        var offset = 14 + header.Length + palette.Length;
        return Join([0x42, 0x4D], LittleEndian(offset + pixels.Length), new byte[4], LittleEndian(offset), header, palette, pixels);
    }

    public static byte[] BmpHeader(int width, int height, int bits, int compression = 0, int size = 40)
    {
        var header = new byte[size];
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(4), width);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(8), height);
        (header[12], header[14], header[16]) = (1, (byte)bits, (byte)compression);
        return header;
    }

    public static byte[] BigEndian(int value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(bytes, value);
        return bytes;
    }

    public static byte[] LittleEndian(int value) => [(byte)value, (byte)(value >> 8), (byte)(value >> 16), (byte)(value >> 24)];

    private static uint Crc(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        foreach (var b in bytes)
        {
            crc ^= b;
            for (var bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (0xEDB88320 & (0 - (crc & 1)));
        }
        return ~crc;
    }
}
