using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace Trimtab.Imaging;

/// <summary>The boolean entropy decoder of VP8 (RFC 6386, section 7) over <c>data[position..end]</c>.</summary>
internal sealed class Vp8Bits(byte[] data, int position, int end)
{
    private ulong value;     // bits read and not used up
    private int bits = -8;   // how many of them come after the eight that are compared
    private uint range = 254; // one less than the range of the section

    /// <summary>A bit was needed that the data do not have.</summary>
    internal bool Ended { get; private set; }

    /// <summary>A bit that is 0 with a probability of 1/256ths.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Bit(int probability)
    {
        if (bits < 0)
            Load();
        var split = (range * (uint)probability) >> 8;
        int bit;
        uint width;
        if ((uint)(value >> bits) > split)
        {
            value -= (ulong)(split + 1) << bits;
            width = range - split;
            bit = 1;
        }
        else
        {
            width = split + 1;
            bit = 0;
        }
        var shift = BitOperations.LeadingZeroCount(width) - 24;
        range = (width << shift) - 1;
        bits -= shift;
        return bit;
    }

    /// <summary>A bit of even odds.</summary>
    internal bool Flag() => Bit(128) == 1;

    /// <summary>An unsigned number, its highest bit first.</summary>
    internal int Number(int width)
    {
        var number = 0;
        while (width-- > 0)
            number = number << 1 | Bit(128);
        return number;
    }

    /// <summary>A number with its sign behind it.</summary>
    internal int Signed(int width)
    {
        var number = Number(width);
        return Flag() ? -number : number;
    }

    /// <summary>A signed number where a flag says that there is one, else 0.</summary>
    internal int OptionalSigned(int width) => Flag() ? Signed(width) : 0;

    private void Load()
    {
        if (position + 8 <= end)
        {
            value = value << 56 | BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(position)) >> 8;
            position += 7;
            bits += 56;
        }
        else
        {
            Ended |= position >= end;
            value = value << 8 | (position < end ? data[position++] : 0u);
            bits += 8;
        }
    }
}
