using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Activations as integer kernels want them. A row holds its elements as signed bytes, then 32 bytes a block of 32 elements (so that
/// a column's bytes and its block lie at the same distance): the scale d, d · Σq, and Σq times the numbers that center each form; then,
/// for machines without a dot product of bytes, the elements as 16-bit numbers.
/// </summary>
/// <param name="Columns">Elements; a multiple of 32.</param>
/// <param name="Wide">Whether there are 16-bit numbers too.</param>
internal readonly record struct ActivationRows(int Columns, bool Wide)
{
    /// <summary>Elements that share a scale.</summary>
    public const int Block = 32;

    /// <summary>In a block: the float d · Σq.</summary>
    public const int ScaledSum = 4;

    /// <summary>In a block: −8 Σq, for four-bit elements centered at 8.</summary>
    public const int Center8 = 8;

    /// <summary>In a block: −128 Σq.</summary>
    public const int Center128 = 12;

    /// <summary>In a block: −32 Σq of the first 16 elements; −32 Σq of the others is next to it.</summary>
    public const int Center32 = 16;

    /// <summary>Where a row's 16-bit numbers begin: 64 bytes a block, columns 4i and 4i + 2 as pairs first, then columns 4i + 1 and 4i + 3.</summary>
    public nint Shorts => 2 * Columns;

    /// <summary>Bytes from a row to the next: no power of two, for the sake of caches that find lines by low bits.</summary>
    public nint Stride => ((Wide ? 4 : 2) * Columns + 63 & ~63 | 64) + 128;
}

/// <summary>Makes floats into rows of eight-bit numbers.</summary>
internal static unsafe class ActivationRows<T> where T : struct, ILanes<T>
{
    // 1.5 · 2²³: a float added to it has its nearest integer in its low bits, ties to even.
    private const uint RoundingBits = 0x4B400000;

    // Blocks that are smaller than this count as zero: 127 / m must be finite.
    private const float Least = 1e-30f;

    /// <summary>Rounds a row. A block with an element that is not finite makes every output of its row NaN.</summary>
    /// <param name="layout">The row's shape.</param>
    /// <param name="x">Its floats.</param>
    /// <param name="row">Receives it.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Quantize(in ActivationRows layout, float* x, byte* row)
    {
        T sign = T.BroadcastBits(0x7FFFFFFF), infinity = T.Broadcast(float.PositiveInfinity), rounding = T.BroadcastBits(RoundingBits);
        for (var k = 0; k < layout.Columns; k += ActivationRows.Block)
        {
            T a = T.Load(x + k), b = T.Load(x + k + 16);
            T sizeA = a & sign, sizeB = b & sign;
            var m = Highest(T.Max(T.WhereLess(sizeA, infinity, sizeA, infinity), T.WhereLess(sizeB, infinity, sizeB, infinity)));
            var finite = m < float.PositiveInfinity;
            var inverse = T.Broadcast(finite && m >= Least ? 127 / m : 0);
            if (!finite) // zero times infinity would be no number, and no number no integer
                a = b = default;
            T roundedA = a * inverse + rounding, roundedB = b * inverse + rounding;
            T.StoreBytes(T.SubtractIntegers(roundedA, rounding), row + k);
            T.StoreBytes(T.SubtractIntegers(roundedB, rounding), row + k + 16);
            int sumA = Sum(row + k), sumB = Sum(row + k + 16);
            var d = !finite ? float.NaN : m >= Least ? m / 127 : 0;
            var block = row + layout.Columns + k;
            *(float*)block = d;
            *(float*)(block + ActivationRows.ScaledSum) = d * (sumA + sumB);
            *(int*)(block + ActivationRows.Center8) = -8 * (sumA + sumB);
            *(int*)(block + ActivationRows.Center128) = -128 * (sumA + sumB);
            *(int*)(block + ActivationRows.Center32) = -32 * sumA;
            *(int*)(block + ActivationRows.Center32 + 4) = -32 * sumB;
            if (layout.Wide)
                for (var i = 0; i < 32; i += 16)
                {
                    var q = Vector128.Load((short*)(row + k + i));
                    ((q << 8) >> 8).Store((short*)(row + layout.Shorts + 2 * k + i));
                    (q >> 8).Store((short*)(row + layout.Shorts + 2 * k + 32 + i));
                }
        }
    }

    /// <summary>Rounds a row to BF16, ties to even, a zero after an odd end.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Halve(int columns, float* x, ushort* row)
    {
        var k = 0;
        for (; Vector512.IsHardwareAccelerated && k + 32 <= columns; k += 32)
            Vector512.Narrow(Rounded(Vector512.Load((uint*)x + k)), Rounded(Vector512.Load((uint*)x + k + 16))).Store(row + k);
        for (; k < columns; k++)
        {
            var bits = ((uint*)x)[k];
            row[k] = (ushort)((float.IsNaN(x[k]) ? bits | 0x400000 : bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        }
        if (columns % 2 != 0)
            row[columns] = 0;

        static Vector512<uint> Rounded(Vector512<uint> bits) => Vector512.ConditionalSelect(
            Vector512.GreaterThan(bits & Vector512.Create(0x7FFFFFFFu), Vector512.Create(0x7F800000u)),
            bits | Vector512.Create(0x400000u), bits + Vector512.Create(0x7FFFu) + ((bits >>> 16) & Vector512<uint>.One)) >>> 16;
    }

    /// <summary>The greatest lane, found in registers where there is one register.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float Highest(T lanes)
    {
        if (typeof(T) != typeof(Lanes512))
            return LanesSums.Highest(lanes);
        var all = Unsafe.BitCast<T, Vector512<float>>(lanes);
        var half = Vector256.MaxNative(all.GetLower(), all.GetUpper());
        var v = Vector128.MaxNative(half.GetLower(), half.GetUpper());
        v = Vector128.MaxNative(v, Vector128.Shuffle(v, Vector128.Create(2, 3, 0, 1)));
        return Vector128.MaxNative(v, Vector128.Shuffle(v, Vector128.Create(1, 0, 3, 2))).ToScalar();
    }

    /// <summary>Sum of 16 signed bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Sum(byte* q)
    {
        var sum = 0;
        if (Sse2.IsSupported)
        {
            var halves = Sse2.SumAbsoluteDifferences(Vector128.Load(q) ^ Vector128.Create((byte)0x80), Vector128<byte>.Zero);
            return halves.GetElement(0) + halves.GetElement(4) - 16 * 128;
        }
        for (var i = 0; i < 16; i++)
            sum += (sbyte)q[i];
        return sum;
    }
}
