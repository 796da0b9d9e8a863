using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>The one field of EXIF that changes how an image looks (EXIF 2.32, section 4.6.4: tag 0x0112).</summary>
internal static class Exif
{
    private const ushort OrientationTag = 0x0112;
    private const ushort Short = 3;

    /// <summary>Orientation 1 … 8 of a TIFF block ("II*\0" or "MM\0*" first); 1 where it is absent or unreadable.</summary>
    internal static int Orientation(ReadOnlySpan<byte> tiff)
    {
        if (tiff.Length < 8)
            return 1;
        bool little;
        if (tiff.StartsWith("II*\0"u8))
            little = true;
        else if (tiff.StartsWith("MM\0*"u8))
            little = false;
        else
            return 1;

        var directory = Read32(tiff[4..], little);
        if (directory > tiff.Length - 2)
            return 1;
        var entries = tiff[(int)directory..];
        int count = Read16(entries, little);
        entries = entries[2..];
        for (var i = 0; i < count && entries.Length >= 12; i++, entries = entries[12..])
        {
            if (Read16(entries, little) != OrientationTag)
                continue;
            if (Read16(entries[2..], little) != Short || Read32(entries[4..], little) != 1)
                return 1;
            var value = Read16(entries[8..], little);
            return value is >= 1 and <= 8 ? value : 1;
        }
        return 1;
    }

    private static ushort Read16(ReadOnlySpan<byte> data, bool little) =>
        little ? BinaryPrimitives.ReadUInt16LittleEndian(data) : BinaryPrimitives.ReadUInt16BigEndian(data);

    private static uint Read32(ReadOnlySpan<byte> data, bool little) =>
        little ? BinaryPrimitives.ReadUInt32LittleEndian(data) : BinaryPrimitives.ReadUInt32BigEndian(data);
}
