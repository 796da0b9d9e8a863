using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Trimtab.Imaging;

/// <summary>
/// The bits of a JPEG scan, first bit highest, byte stuffing removed (T.81, F.2.2.5). They end at a marker or at the data's end; zeros
/// follow.
/// </summary>
internal ref struct JpegBits(ReadOnlySpan<byte> data, int position)
{
    private readonly ReadOnlySpan<byte> data = data;
    private ulong buffer; // next bit highest; below `count` bits there may be a copy of the byte that comes next
    private int count;    // bits that may be taken
    private int padding;  // how many of the bits ever loaded since the last restart were made up

    /// <summary>Where reading stands: at a marker once the entropy-coded segment is used up, before it otherwise.</summary>
    internal int Position { get; private set; } = position;

    /// <summary>Bits were taken that the data does not have.</summary>
    internal readonly bool Overrun => count < padding;

    /// <summary>Makes at least 32 bits available, enough for a Huffman code and the value after it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Need32()
    {
        if (count < 32)
            Fill();
    }

    /// <summary>The next 1 … 32 bits, not taken. They must be available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal readonly int Peek(int bits) => (int)(buffer >> (64 - bits));

    /// <summary>Takes bits that are available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Skip(int bits)
    {
        buffer <<= bits;
        count -= bits;
    }

    /// <summary>Takes one bit, loading where needed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool Bit()
    {
        if (count < 1)
            Fill();
        var set = (long)buffer < 0;
        Skip(1);
        return set;
    }

    /// <summary>Takes 1 … 16 available bits as a number.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Take(int bits)
    {
        var value = Peek(bits);
        Skip(bits);
        return value;
    }

    /// <summary>Takes a signed value of a size category 1 … 16 (T.81, F.12: EXTEND). The bits must be available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int TakeSigned(int size)
    {
        var value = Take(size);
        return value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
    }

    /// <summary>Drops what is left of an entropy-coded segment and goes on after a marker.</summary>
    internal void Restart(int position)
    {
        (buffer, count, padding) = (0, 0, 0);
        Position = position;
    }

    private void Fill()
    {
        if (Position <= data.Length - 8)
        {
            var next = BinaryPrimitives.ReadUInt64BigEndian(data[Position..]);
            // No byte is FF: no byte of the complement is zero.
            if (((~next - 0x0101010101010101) & next & 0x8080808080808080) == 0)
            {
                buffer |= next >> count;
                var bytes = (63 - count) >> 3;
                Position += bytes;
                count += bytes * 8;
                return;
            }
        }
        while (count <= 56)
        {
            ulong value = 0;
            if (!TryByte(ref value))
                padding += 8;
            buffer |= value << (56 - count);
            count += 8;
        }
    }

    private bool TryByte(ref ulong value)
    {
        if (Position >= data.Length)
            return false;
        value = data[Position];
        if (value == 0xFF)
        {
            var after = Position + 1;
            while (after < data.Length && data[after] == 0xFF)
                after++;
            if (after >= data.Length || data[after] != 0)
            {
                value = 0;
                return false;
            }
            Position = after;
        }
        Position++;
        return true;
    }
}
