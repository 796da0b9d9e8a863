using System.Buffers.Binary;

namespace Trimtab.Kernels;

// Blocks of 256, divided into sub-blocks of 16 or 32 with small integer scales.
public static partial class Blocks
{
    private static void ReadQ2_K(ReadOnlySpan<byte> block, Span<float> target)
    {
        ReadOnlySpan<byte> scales = block[..16], quants = block[16..80];
        float d = Half(block[80..]), min = Half(block[82..]);
        for (var i = 0; i < Super; i++)
        {
            var scale = scales[i / 16];
            target[i] = d * (scale & 15) * (Pair(quants, i) & 3) - min * (scale >> 4);
        }
    }

    private static void ReadQ3_K(ReadOnlySpan<byte> block, Span<float> target)
    {
        ReadOnlySpan<byte> high = block[..32], quants = block[32..96], scales = block[96..108];
        var d = Half(block[108..]);
        for (var s = 0; s < 16; s++)
        {
            // Low four bits of the 16 scales in eight bytes, their upper two bits in the last four.
            var low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
            var scale = d * ((low | (scales[8 + s % 4] >> 2 * (s / 4) & 3) << 4) - 32);
            for (var i = s * 16; i < s * 16 + 16; i++)
                target[i] = scale * ((Pair(quants, i) & 3) - ((high[i % 32] >> i / 32 & 1) != 0 ? 0 : 4));
        }
    }

    private static void ReadQ4_K(ReadOnlySpan<byte> block, Span<float> target)
    {
        var quants = block[16..];
        for (var s = 0; s < 8; s++)
        {
            var (scale, min) = ScaleAndMin(block, s);
            for (var i = 0; i < 32; i++)
                target[s * 32 + i] = scale * (quants[s / 2 * 32 + i] >> 4 * (s % 2) & 15) - min;
        }
    }

    private static void ReadQ5_K(ReadOnlySpan<byte> block, Span<float> target)
    {
        ReadOnlySpan<byte> fifth = block[16..48], quants = block[48..];
        for (var s = 0; s < 8; s++)
        {
            var (scale, min) = ScaleAndMin(block, s);
            for (var i = 0; i < 32; i++)
                target[s * 32 + i] = scale * ((quants[s / 2 * 32 + i] >> 4 * (s % 2) & 15) + (fifth[i] >> s & 1) * 16) - min;
        }
    }

    private static void ReadQ6_K(ReadOnlySpan<byte> block, Span<float> target)
    {
        ReadOnlySpan<byte> low = block[..128], high = block[128..192], scales = block[192..208];
        var d = Half(block[208..]);
        for (var i = 0; i < Super; i++)
        {
            // Each half of 128 has four quarters of 32: the first two in the low, the last two in the high four bits.
            int half = i / 128, quarter = i / 32 % 4, at = i % 32;
            var q = low[half * 64 + quarter % 2 * 32 + at] >> 4 * (quarter / 2) & 15 | (high[half * 32 + at] >> 2 * quarter & 3) << 4;
            target[i] = d * (sbyte)scales[i / 16] * (q - 32);
        }
    }

    private static void ReadIQ4_XS(ReadOnlySpan<byte> block, Span<float> target)
    {
        var d = Half(block);
        var high = BinaryPrimitives.ReadUInt16LittleEndian(block[2..]);
        for (var s = 0; s < 8; s++)
        {
            var scale = (block[4 + s / 2] >> 4 * (s % 2) & 15 | (high >> 2 * s & 3) << 4) - 32;
            Lookup(block.Slice(8 + s * 16, 16), NonLinear, d * scale, target.Slice(s * 32, 32));
        }
    }

    private static void ReadTQ2_0(ReadOnlySpan<byte> block, Span<float> target)
    {
        var d = Half(block[64..]);
        for (var i = 0; i < Super; i++)
            target[i] = ((Pair(block, i) & 3) - 1) * d;
    }

    /// <summary>Bits of element i, two an element: 128 elements share 32 bytes, 32 of them the same bit position.</summary>
    private static int Pair(ReadOnlySpan<byte> quants, int i) => quants[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2;

    /// <summary>Scale and minimum of sub-block s of a Q4_K or Q5_K block.</summary>
    private static (float Scale, float Min) ScaleAndMin(ReadOnlySpan<byte> block, int s)
    {
        var (scale, min) = SixBits(block[4..16], s);
        return (Half(block) * scale, Half(block[2..]) * min);
    }

    /// <summary>Six-bit scale and minimum s of eight, in twelve bytes: the last four of each have their upper two bits with the first four.</summary>
    internal static (int Scale, int Min) SixBits(ReadOnlySpan<byte> scales, int s) => s < 4
        ? (scales[s] & 63, scales[s + 4] & 63)
        : (scales[s + 4] & 15 | scales[s - 4] >> 6 << 4, scales[s + 4] >> 4 | scales[s] >> 6 << 4);
}
