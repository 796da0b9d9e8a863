namespace Trimtab.Kernels;

/// <summary>
/// Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
/// a value depends on key and counter alone, so any device can make the n-th one without the others.
/// </summary>
internal static class Philox
{
    /// <summary>Four random words for a counter of four words and a key of two.</summary>
    public static (uint X0, uint X1, uint X2, uint X3) Block(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1)
    {
        for (var round = 0; round < 10; round++)
        {
            var a = 0xD2511F53UL * c0;
            var b = 0xCD9E8D57UL * c2;
            (c0, c1, c2, c3) = ((uint)(b >> 32) ^ c1 ^ k0, (uint)b, (uint)(a >> 32) ^ c3 ^ k1, (uint)a);
            k0 += 0x9E3779B9;
            k1 += 0xBB67AE85;
        }
        return (c0, c1, c2, c3);
    }

    /// <summary>The uniform number in [0, 1) of a seed and an index: the upper 53 bits of the first two words, word 0 above word 1,
    /// of the block whose key is the seed and whose counter is the index (low words first).</summary>
    public static double Uniform(ulong seed, ulong index)
    {
        var (x0, x1, _, _) = Block((uint)index, (uint)(index >> 32), 0, 0, (uint)seed, (uint)(seed >> 32));
        return (((ulong)x0 << 32 | x1) >> 11) * (1.0 / (1UL << 53));
    }
}
