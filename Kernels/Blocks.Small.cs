using System.Buffers.Binary;

namespace Trimtab.Kernels;

// Blocks of 32, and int4 groups of several. In the 4- and 5-bit forms byte j holds element j in its low and element j + 16 in its high half.
public static partial class Blocks
{
    /// <summary>The values of the non-linear 4-bit forms.</summary>
    private static ReadOnlySpan<sbyte> NonLinear => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    /// <summary>Twice the values of E2M1, so that they are integers.</summary>
    private static ReadOnlySpan<sbyte> E2M1Doubled => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    private static void ReadQ4_0(ReadOnlySpan<byte> block, Span<float> target)
    {
        var d = Half(block);
        for (var j = 0; j < 16; j++)
        {
            target[j] = ((block[2 + j] & 15) - 8) * d;
            target[j + 16] = ((block[2 + j] >> 4) - 8) * d;
        }
    }

    private static void ReadQ4_1(ReadOnlySpan<byte> block, Span<float> target)
    {
        float d = Half(block), m = Half(block[2..]);
        for (var j = 0; j < 16; j++)
        {
            target[j] = (block[4 + j] & 15) * d + m;
            target[j + 16] = (block[4 + j] >> 4) * d + m;
        }
    }

    private static void ReadQ5_0(ReadOnlySpan<byte> block, Span<float> target)
    {
        var d = Half(block);
        var fifth = BinaryPrimitives.ReadUInt32LittleEndian(block[2..]);
        for (var j = 0; j < 16; j++)
        {
            target[j] = (Five(block[6 + j] & 15, fifth, j) - 16) * d;
            target[j + 16] = (Five(block[6 + j] >> 4, fifth, j + 16) - 16) * d;
        }
    }

    private static void ReadQ5_1(ReadOnlySpan<byte> block, Span<float> target)
    {
        float d = Half(block), m = Half(block[2..]);
        var fifth = BinaryPrimitives.ReadUInt32LittleEndian(block[4..]);
        for (var j = 0; j < 16; j++)
        {
            target[j] = Five(block[8 + j] & 15, fifth, j) * d + m;
            target[j + 16] = Five(block[8 + j] >> 4, fifth, j + 16) * d + m;
        }
    }

    private static void ReadQ8_0(ReadOnlySpan<byte> block, Span<float> target)
    {
        var d = Half(block);
        for (var j = 0; j < Small; j++)
            target[j] = (sbyte)block[2 + j] * d;
    }

    private static void ReadIQ4_NL(ReadOnlySpan<byte> block, Span<float> target) => Lookup(block[2..], NonLinear, Half(block), target);

    private static void ReadMXFP4(ReadOnlySpan<byte> block, Span<float> target) =>
        Lookup(block[1..], E2M1Doubled, (float)Math.ScaleB(1d, block[0] - 128), target); // 2^(e − 127), halved for the table

    private static void Lookup(ReadOnlySpan<byte> indices, ReadOnlySpan<sbyte> values, float scale, Span<float> target)
    {
        for (var j = 0; j < 16; j++)
        {
            target[j] = values[indices[j] & 15] * scale;
            target[j + 16] = values[indices[j] >> 4] * scale;
        }
    }

    /// <summary>An int4 group: of every 32 elements byte j has element j in its low and element j + 16 in its high half. No value is rounded: 5 bits times 11.</summary>
    private static void ReadGroup(ReadOnlySpan<byte> block, Span<float> target)
    {
        float d = Half(block), zero = Half(block[2..]);
        for (var i = 0; i < target.Length; i++)
            target[i] = ((block[4 + i / 32 * 16 + i % 16] >> i % 32 / 16 * 4 & 15) - zero) * d;
    }

    private static int Five(int low, uint fifth, int bit) => low | (int)(fifth >> bit & 1) << 4;
}
