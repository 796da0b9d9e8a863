using System.Buffers.Binary;
using System.IO.Compression;

namespace Trimtab.Imaging;

/// <summary>Writes PNG files (W3C PNG, third edition): RGB, 8 bits, Paeth-filtered rows.</summary>
internal static class PngEncoder
{
    internal static void Write(Image image, Stream stream)
    {
        stream.Write([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]);
        Span<byte> header = stackalloc byte[13];
        BinaryPrimitives.WriteInt32BigEndian(header, image.Width);
        BinaryPrimitives.WriteInt32BigEndian(header[4..], image.Height);
        (header[8], header[9]) = (8, 2);
        Chunk(stream, "IHDR"u8, header);
        using var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            var filtered = new byte[1 + 3 * image.Width];
            var above = new byte[3 * image.Width].AsSpan();
            filtered[0] = 4;
            for (var y = 0; y < image.Height; y++)
            {
                var row = image.Pixels.AsSpan(y * above.Length, above.Length);
                for (var x = 0; x < row.Length; x++)
                    filtered[1 + x] = (byte)(row[x] - (x < 3 ? above[x] : PngDecoder.Paeth(row[x - 3], above[x], above[x - 3])));
                zlib.Write(filtered);
                above = row;
            }
        }
        var data = packed.GetBuffer().AsSpan(0, (int)packed.Length);
        for (var at = 0; at < data.Length; at += 1 << 20)
            Chunk(stream, "IDAT"u8, data.Slice(at, Math.Min(1 << 20, data.Length - at)));
        Chunk(stream, "IEND"u8, []);
    }

    private static void Chunk(Stream stream, ReadOnlySpan<byte> type, ReadOnlySpan<byte> data)
    {
        Span<byte> word = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(word, data.Length);
        stream.Write(word);
        stream.Write(type);
        stream.Write(data);
        BinaryPrimitives.WriteUInt32BigEndian(word, Crc32.Of(type, data));
        stream.Write(word);
    }
}

/// <summary>The cyclic redundancy check of PNG chunks (ISO 3309; polynomial 0x04C11DB7, bit-reversed).</summary>
internal static class Crc32
{
    private static readonly uint[] Table = [.. Enumerable.Range(0, 256).Select(n =>
    {
        var c = (uint)n;
        for (var bit = 0; bit < 8; bit++)
            c = (c & 1) != 0 ? 0xEDB88320 ^ (c >> 1) : c >> 1;
        return c;
    })];

    /// <summary>The check over one part and then another.</summary>
    internal static uint Of(ReadOnlySpan<byte> first, ReadOnlySpan<byte> second = default)
    {
        var crc = uint.MaxValue;
        foreach (var b in first)
            crc = Table[(byte)(crc ^ b)] ^ (crc >> 8);
        foreach (var b in second)
            crc = Table[(byte)(crc ^ b)] ^ (crc >> 8);
        return ~crc;
    }
}
