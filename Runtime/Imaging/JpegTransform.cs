namespace Trimtab.Imaging;

/// <summary>
/// The inverse DCT in the accurate integer arithmetic that most decoders share (Loeffler, Ligtenberg and Moschytz 1989, 12
/// multiplications, 13-bit constants, two extra bits between the passes), so that pixels equal theirs.
/// </summary>
internal static class JpegTransform
{
    private const int Fraction = 13, Between = 2;

    // cos and sin of multiples of π/16 and their sums, times 2¹³, rounded.
    private const int C0298 = 2446, C0390 = 3196, C0541 = 4433, C0765 = 6270, C0899 = 7373, C1175 = 9633;
    private const int C1501 = 12299, C1847 = 15137, C1961 = 16069, C2053 = 16819, C2562 = 20995, C3072 = 25172;

    /// <summary>
    /// Turns dequantized coefficients in natural order into 8 × 8 samples. <paramref name="last"/>: zigzag place of the last that may not
    /// be zero. The coefficients are lost.
    /// </summary>
    internal static void Inverse(Span<int> block, int last, Span<byte> samples, int stride)
    {
        if (last == 0)
        {
            var value = Sample(((block[0] << Between) + (1 << (Between + 2))) >> (Between + 3));
            for (var y = 0; y < 8; y++)
                samples.Slice(y * stride, 8).Fill(value);
            return;
        }
        block = block[..64];
        for (var x = 0; x < 8; x++)
        {
            if ((block[x + 8] | block[x + 16] | block[x + 24] | block[x + 32] | block[x + 40] | block[x + 48] | block[x + 56]) == 0)
            {
                var value = block[x] << Between;
                for (var y = 0; y < 64; y += 8)
                    block[x + y] = value;
                continue;
            }
            var (e0, e1, e2, e3, o0, o1, o2, o3) = Butterfly(block[x], block[x + 8], block[x + 16], block[x + 24],
                block[x + 32], block[x + 40], block[x + 48], block[x + 56]);
            const int shift = Fraction - Between, half = 1 << (shift - 1);
            block[x] = (e0 + o3 + half) >> shift;
            block[x + 56] = (e0 - o3 + half) >> shift;
            block[x + 8] = (e1 + o2 + half) >> shift;
            block[x + 48] = (e1 - o2 + half) >> shift;
            block[x + 16] = (e2 + o1 + half) >> shift;
            block[x + 40] = (e2 - o1 + half) >> shift;
            block[x + 24] = (e3 + o0 + half) >> shift;
            block[x + 32] = (e3 - o0 + half) >> shift;
        }
        for (var y = 0; y < 8; y++)
        {
            var row = block.Slice(y * 8, 8);
            var to = samples.Slice(y * stride, 8);
            var (e0, e1, e2, e3, o0, o1, o2, o3) = Butterfly(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]);
            const int shift = Fraction + Between + 3, half = 1 << (shift - 1);
            to[0] = Sample((e0 + o3 + half) >> shift);
            to[7] = Sample((e0 - o3 + half) >> shift);
            to[1] = Sample((e1 + o2 + half) >> shift);
            to[6] = Sample((e1 - o2 + half) >> shift);
            to[2] = Sample((e2 + o1 + half) >> shift);
            to[5] = Sample((e2 - o1 + half) >> shift);
            to[3] = Sample((e3 + o0 + half) >> shift);
            to[4] = Sample((e3 - o0 + half) >> shift);
        }
    }

    /// <summary>The one-dimensional transform: its even and its odd half, whose sums and differences are the eight values.</summary>
    private static (int E0, int E1, int E2, int E3, int O0, int O1, int O2, int O3) Butterfly(
        int i0, int i1, int i2, int i3, int i4, int i5, int i6, int i7)
    {
        var rotation = (i2 + i6) * C0541;
        var low = rotation - i6 * C1847;
        var high = rotation + i2 * C0765;
        var sum = (i0 + i4) << Fraction;
        var difference = (i0 - i4) << Fraction;

        var z5 = (i7 + i3 + i5 + i1) * C1175;
        var z1 = -(i7 + i1) * C0899;
        var z2 = -(i5 + i3) * C2562;
        var z3 = z5 - (i7 + i3) * C1961;
        var z4 = z5 - (i5 + i1) * C0390;
        return (sum + high, difference + low, difference - low, sum - high,
            i7 * C0298 + z1 + z3, i5 * C2053 + z2 + z4, i3 * C3072 + z2 + z3, i1 * C1501 + z1 + z4);
    }

    private static byte Sample(int value) => (byte)Math.Clamp(value + 128, 0, 255);
}
