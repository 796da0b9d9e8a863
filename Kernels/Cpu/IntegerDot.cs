using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Dot products of one, two or four tokens in eight bits with the 16 rows of a panel's chunk. A group's products are summed as integers,
/// so exactly; its sum times both scales is added to the total of the groups before it, and then the minimum's part: one chain of
/// multiply-adds an output, the same in all of these kernels.
/// </summary>
internal static unsafe class IntegerDot<T> where T : struct, ILanes<T>
{
    /// <summary>Room for an unpacked chunk.</summary>
    public const int UnpackedBytes = 9 * 1024;

    /// <summary>One token; elements are unpacked on the way.</summary>
    /// <param name="chunk">The chunk, packed.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="layout">Shape of the activations.</param>
    /// <param name="x">The token's row.</param>
    /// <param name="k">The chunk's first column.</param>
    /// <param name="total">16 sums.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void One<TForm>(byte* chunk, int columns, in ActivationRows layout, byte* x, int k, float* total) where TForm : struct, IIntegerForm
    {
        var group = chunk + TForm.HeadBytes(columns / TForm.Group);
        var block = x + layout.Columns + k;
        x += TForm.IsWide ? layout.Shorts + 2 * k : k;
        var y = k == 0 ? default : T.Load(total);
        for (var g = 0; g < columns / TForm.Group; g++, group += TForm.GroupBytes, x += TForm.Group << (TForm.IsWide ? 1 : 0))
        {
            T sum = default;
            for (var p = 0; p < TForm.Pairs; p++)
            {
                var first = TForm.Pair<T>(group, p, out var second);
                var xs = TForm.Activations<T>(x + (TForm.IsWide ? 4 : 8) * p, out var xs2);
                sum = TForm.Step(sum, first, second, xs, xs2);
            }
            var scale = TForm.Scale<T>(chunk, g, out var offset);
            y = Add<TForm>(y, sum, scale, offset, Of<TForm>(block, g), g);
        }
        T.Store(y, total);
    }

    /// <summary>Two tokens (or one, twice) and unpacked elements: for machines with few registers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Two<TForm>(byte* unpacked, int columns, in ActivationRows layout, byte* x, int tokens, int k, float* total) where TForm : struct, IIntegerForm
    {
        nint next = layout.Stride, at = TForm.IsWide ? layout.Shorts + 2 * k : k;
        byte* x0 = x, x1 = tokens > 1 ? x + next : x;
        var block = layout.Columns + k;
        T y0 = default, y1 = default;
        if (k != 0)
            (y0, y1) = (T.Load(total), T.Load(total + 16));
        for (var g = 0; g < columns / TForm.Group; g++, at += TForm.IsWide ? 32 : 0)
        {
            T s0 = default, s1 = default;
            for (var p = TForm.Pairs; p > 0; p--, unpacked += 128, at += TForm.IsWide ? 4 : 8)
            {
                T first = T.Load(unpacked), second = T.Load(unpacked + 64);
                var xs = TForm.Activations<T>(x0 + at, out var xs2);
                s0 = TForm.Step(s0, first, second, xs, xs2);
                xs = TForm.Activations<T>(x1 + at, out xs2);
                s1 = TForm.Step(s1, first, second, xs, xs2);
            }
            T scale = T.Load(unpacked), offset = TForm.HasMinimum ? T.Load(unpacked + 64) : default;
            unpacked += Scales<TForm>();
            y0 = Add<TForm>(y0, s0, scale, offset, Of<TForm>(x0 + block, g), g);
            y1 = Add<TForm>(y1, s1, scale, offset, Of<TForm>(x1 + block, g), g);
        }
        T.Store(y0, total);
        T.Store(y1, total + 16);
    }

    /// <summary>Four tokens and two panels unpacked: of what is loaded, weights serve four times and activations twice.</summary>
    /// <param name="unpacked">The first panel's chunk; the second's is <see cref="UnpackedBytes"/> on.</param>
    /// <param name="columns">The chunk's columns.</param>
    /// <param name="layout">Shape of the activations.</param>
    /// <param name="x">The first token's row.</param>
    /// <param name="tokens">Tokens that there are; where there are fewer than four, the last one is taken again.</param>
    /// <param name="k">The chunk's first column.</param>
    /// <param name="total">Sums of the first panel, 16 a token.</param>
    /// <param name="total2">Sums of the second.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Four<TForm>(byte* unpacked, int columns, in ActivationRows layout, byte* x, int tokens, int k, float* total, float* total2)
        where TForm : struct, IIntegerForm
    {
        nint next = layout.Stride, at = TForm.IsWide ? layout.Shorts + 2 * k : k, block = layout.Columns + k;
        byte* x0 = x, x1 = tokens > 1 ? x0 + next : x0, x2 = tokens > 2 ? x1 + next : x1, x3 = tokens > 3 ? x2 + next : x2;
        T y0 = default, y1 = default, y2 = default, y3 = default, z0 = default, z1 = default, z2 = default, z3 = default;
        if (k != 0)
        {
            (y0, y1, y2, y3) = (T.Load(total), T.Load(total + 16), T.Load(total + 32), T.Load(total + 48));
            (z0, z1, z2, z3) = (T.Load(total2), T.Load(total2 + 16), T.Load(total2 + 32), T.Load(total2 + 48));
        }
        for (var g = 0; g < columns / TForm.Group; g++, at += TForm.IsWide ? 32 : 0)
        {
            T r0 = default, r1 = default, r2 = default, r3 = default, s0 = default, s1 = default, s2 = default, s3 = default;
            for (var p = TForm.Pairs; p > 0; p--, unpacked += 128, at += TForm.IsWide ? 4 : 8)
            {
                T first = T.Load(unpacked), second = T.Load(unpacked + 64);
                T first2 = T.Load(unpacked + UnpackedBytes), second2 = T.Load(unpacked + UnpackedBytes + 64);
                var xs = TForm.Activations<T>(x0 + at, out var xs2);
                r0 = TForm.Step(r0, first, second, xs, xs2);
                s0 = TForm.Step(s0, first2, second2, xs, xs2);
                xs = TForm.Activations<T>(x1 + at, out xs2);
                r1 = TForm.Step(r1, first, second, xs, xs2);
                s1 = TForm.Step(s1, first2, second2, xs, xs2);
                xs = TForm.Activations<T>(x2 + at, out xs2);
                r2 = TForm.Step(r2, first, second, xs, xs2);
                s2 = TForm.Step(s2, first2, second2, xs, xs2);
                xs = TForm.Activations<T>(x3 + at, out xs2);
                r3 = TForm.Step(r3, first, second, xs, xs2);
                s3 = TForm.Step(s3, first2, second2, xs, xs2);
            }
            T scale = T.Load(unpacked), offset = TForm.HasMinimum ? T.Load(unpacked + 64) : default;
            T scale2 = T.Load(unpacked + UnpackedBytes), offset2 = TForm.HasMinimum ? T.Load(unpacked + UnpackedBytes + 64) : default;
            unpacked += Scales<TForm>();
            y0 = Add<TForm>(y0, r0, scale, offset, Of<TForm>(x0 + block, g), g);
            z0 = Add<TForm>(z0, s0, scale2, offset2, Of<TForm>(x0 + block, g), g);
            y1 = Add<TForm>(y1, r1, scale, offset, Of<TForm>(x1 + block, g), g);
            z1 = Add<TForm>(z1, s1, scale2, offset2, Of<TForm>(x1 + block, g), g);
            y2 = Add<TForm>(y2, r2, scale, offset, Of<TForm>(x2 + block, g), g);
            z2 = Add<TForm>(z2, s2, scale2, offset2, Of<TForm>(x2 + block, g), g);
            y3 = Add<TForm>(y3, r3, scale, offset, Of<TForm>(x3 + block, g), g);
            z3 = Add<TForm>(z3, s3, scale2, offset2, Of<TForm>(x3 + block, g), g);
        }
        T.Store(y0, total);
        T.Store(y1, total + 16);
        T.Store(y2, total + 32);
        T.Store(y3, total + 48);
        T.Store(z0, total2);
        T.Store(z1, total2 + 16);
        T.Store(z2, total2 + 32);
        T.Store(z3, total2 + 48);
    }

    /// <summary>Writes a chunk's groups one after another: pairs of vectors, the scales as floats and, if there are minimums, those.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Unpack<TForm>(byte* chunk, int columns, byte* target) where TForm : struct, IIntegerForm
    {
        var group = chunk + TForm.HeadBytes(columns / TForm.Group);
        for (var g = 0; g < columns / TForm.Group; g++, group += TForm.GroupBytes)
        {
            for (var p = 0; p < TForm.Pairs; p++, target += 128)
            {
                T.Store(TForm.Pair<T>(group, p, out var second), (float*)target);
                T.Store(second, (float*)(target + 64));
            }
            T.Store(TForm.Scale<T>(chunk, g, out var offset), (float*)target);
            if (TForm.HasMinimum)
                T.Store(offset, (float*)(target + 64));
            target += Scales<TForm>();
        }
    }

    /// <summary>Bytes of an unpacked group's scales.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Scales<TForm>() where TForm : struct, IIntegerForm => TForm.HasMinimum ? 128 : 64;

    /// <summary>The block of activations that a group belongs to.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static byte* Of<TForm>(byte* blocks, int group) where TForm : struct, IIntegerForm =>
        blocks + (TForm.Group == ActivationRows.Block ? 32 * group : 32 * (group >> 1));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Add<TForm>(T total, T sum, T scale, T offset, byte* block, int group) where TForm : struct, IIntegerForm
    {
        sum = TForm.End(sum);
        if (!TForm.HasMinimum)
            sum = T.AddIntegers(sum, T.BroadcastBits(*(uint*)(block + TForm.Center + (TForm.Group == ActivationRows.Block ? 0 : 4 * (group & 1)))));
        total = T.MultiplyAdd(T.ToFloat(sum), scale * T.Broadcast(*(float*)block), total);
        return TForm.HasMinimum ? T.MultiplyAdd(offset, (float*)(block + ActivationRows.ScaledSum), total) : total;
    }
}
