using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Trimtab.Imaging;

/// <summary>Bits of a lossless WebP stream, first bit lowest (RFC 9649, section 3.2). Zeros follow after the data's end.</summary>
internal ref struct WebpBits(ReadOnlySpan<byte> data)
{
    private readonly ReadOnlySpan<byte> data = data;
    private ulong buffer; // next bit lowest; above `count` bits there may be a copy of the byte that comes next
    private int count, padding, position;

    /// <summary>Bits were taken that the data does not have.</summary>
    internal readonly bool Overrun => count < padding;

    /// <summary>Makes at least 48 bits available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Need48()
    {
        if (count < 48)
            Fill();
    }

    /// <summary>The next 0 … 15 bits, not taken. They must be available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal readonly int Peek(int bits) => (int)buffer & ((1 << bits) - 1);

    /// <summary>Takes bits that are available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Skip(int bits)
    {
        buffer >>= bits;
        count -= bits;
    }

    /// <summary>Takes 0 … 24 bits as a number, loading where needed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Read(int bits)
    {
        if (count < bits)
            Fill();
        var value = Peek(bits);
        Skip(bits);
        return value;
    }

    private void Fill()
    {
        if (position <= data.Length - 8)
        {
            buffer |= BinaryPrimitives.ReadUInt64LittleEndian(data[position..]) << count;
            var bytes = (63 - count) >> 3;
            position += bytes;
            count += bytes * 8;
            return;
        }
        for (; count <= 56; count += 8)
        {
            if (position < data.Length)
                buffer |= (ulong)data[position++] << count;
            else
                padding += 8;
        }
    }
}
