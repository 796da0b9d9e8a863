using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>The one EXIF tag that changes how an image looks.</summary>
internal static class Exif
{
    /// <summary>
    /// The orientation, 1 … 8, in EXIF data (a TIFF structure, with or without the "Exif\0\0" that JPEG puts before it). Data that is
    /// damaged or says nothing is 1, upright: metadata never makes an image unreadable.
    /// </summary>
    internal static int Orientation(ReadOnlySpan<byte> tiff)
    {
        if (tiff.StartsWith("Exif\0\0"u8))
            tiff = tiff[6..];
        bool little;
        if (tiff.StartsWith("II*\0"u8))
            little = true;
        else if (tiff.StartsWith("MM\0*"u8))
            little = false;
        else
            return 1;
        if (tiff.Length < 8 || Word(tiff[4..]) is var start && start > (uint)tiff.Length - 2)
            return 1;
        var directory = tiff[(int)start..];
        var count = Half(directory);
        for (var entry = directory[2..]; count-- > 0 && entry.Length >= 12; entry = entry[12..])
        {
            if (Half(entry) != 0x0112)
                continue;
            // SHORT as the standard has it; BYTE and LONG as some writers do.
            var value = Half(entry[2..]) switch { 1 => entry[8], 3 => Half(entry[8..]), 4 => Word(entry[8..]), _ => 1u };
            return value is >= 1 and <= 8 ? (int)value : 1;
        }
        return 1;

        uint Half(ReadOnlySpan<byte> at) => little ? BinaryPrimitives.ReadUInt16LittleEndian(at) : BinaryPrimitives.ReadUInt16BigEndian(at);
        uint Word(ReadOnlySpan<byte> at) => little ? BinaryPrimitives.ReadUInt32LittleEndian(at) : BinaryPrimitives.ReadUInt32BigEndian(at);
    }
}
