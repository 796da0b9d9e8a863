using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Dot products of one to eight tokens with the 16 rows of a panel's chunk. Every sum is taken in the same order in all of them,
/// whatever the number of tokens: even columns in one chain, odd ones in another (two chains hide the latency of multiply-add
/// for a single token), both added at the chunk's end, the chunk to the total of the chunks before it.
/// </summary>
internal static unsafe class LinearDot<T> where T : struct, ILanes<T>
{
    /// <summary>One token, elements made into floats on the way.</summary>
    /// <param name="chunk">The chunk.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="x">Token's activations where the chunk begins.</param>
    /// <param name="total">16 sums a token.</param>
    /// <param name="first">Whether there are no sums yet.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void One<TForm>(byte* chunk, int columns, float* x, float* total, bool first) where TForm : struct, IForm
    {
        var group = chunk + TForm.HeadBytes((columns + TForm.Group - 1) / TForm.Group);
        T xEven = default, xOdd = default;
        var k = 0;
        for (; k + TForm.Group <= columns; k += TForm.Group, group += TForm.GroupBytes)
        {
            var scale = TForm.Scale<T>(chunk, k / TForm.Group, out var offset);
            for (var o = 0; o < TForm.Group / 8; o++)
            {
                var at = k + 8 * o;
                xEven = T.MultiplyAdd(TForm.Element(group, o, 0, scale, offset), x + at, xEven);
                xOdd = T.MultiplyAdd(TForm.Element(group, o, 1, scale, offset), x + at + 1, xOdd);
                xEven = T.MultiplyAdd(TForm.Element(group, o, 2, scale, offset), x + at + 2, xEven);
                xOdd = T.MultiplyAdd(TForm.Element(group, o, 3, scale, offset), x + at + 3, xOdd);
                xEven = T.MultiplyAdd(TForm.Element(group, o, 4, scale, offset), x + at + 4, xEven);
                xOdd = T.MultiplyAdd(TForm.Element(group, o, 5, scale, offset), x + at + 5, xOdd);
                xEven = T.MultiplyAdd(TForm.Element(group, o, 6, scale, offset), x + at + 6, xEven);
                xOdd = T.MultiplyAdd(TForm.Element(group, o, 7, scale, offset), x + at + 7, xOdd);
            }
        }
        for (var j = 0; k < columns; j++, k++) // plain elements only
        {
            var w = TForm.Element(group, 0, j, default(T), default);
            if ((j & 1) == 0)
                xEven = T.MultiplyAdd(w, x + k, xEven);
            else
                xOdd = T.MultiplyAdd(w, x + k, xOdd);
        }
        Add(xEven + xOdd, total, first);
    }

    /// <summary>Two tokens, elements made into floats on the way.</summary>
    /// <param name="chunk">The chunk.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="x">Token's activations where the chunk begins.</param>
    /// <param name="stride">Floats from one token to the next.</param>
    /// <param name="total">16 sums a token.</param>
    /// <param name="first">Whether there are no sums yet.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Two<TForm>(byte* chunk, int columns, float* x, nint stride, float* total, bool first) where TForm : struct, IForm
    {
        var group = chunk + TForm.HeadBytes((columns + TForm.Group - 1) / TForm.Group);
        var y = x + stride;
        T xEven = default, xOdd = default, yEven = default, yOdd = default;
        var k = 0;
        for (; k + TForm.Group <= columns; k += TForm.Group, group += TForm.GroupBytes)
        {
            var scale = TForm.Scale<T>(chunk, k / TForm.Group, out var offset);
            for (var o = 0; o < TForm.Group / 8; o++)
            {
                var at = k + 8 * o;
                var w = TForm.Element(group, o, 0, scale, offset);
                xEven = T.MultiplyAdd(w, x + at, xEven);
                yEven = T.MultiplyAdd(w, y + at, yEven);
                w = TForm.Element(group, o, 1, scale, offset);
                xOdd = T.MultiplyAdd(w, x + at + 1, xOdd);
                yOdd = T.MultiplyAdd(w, y + at + 1, yOdd);
                w = TForm.Element(group, o, 2, scale, offset);
                xEven = T.MultiplyAdd(w, x + at + 2, xEven);
                yEven = T.MultiplyAdd(w, y + at + 2, yEven);
                w = TForm.Element(group, o, 3, scale, offset);
                xOdd = T.MultiplyAdd(w, x + at + 3, xOdd);
                yOdd = T.MultiplyAdd(w, y + at + 3, yOdd);
                w = TForm.Element(group, o, 4, scale, offset);
                xEven = T.MultiplyAdd(w, x + at + 4, xEven);
                yEven = T.MultiplyAdd(w, y + at + 4, yEven);
                w = TForm.Element(group, o, 5, scale, offset);
                xOdd = T.MultiplyAdd(w, x + at + 5, xOdd);
                yOdd = T.MultiplyAdd(w, y + at + 5, yOdd);
                w = TForm.Element(group, o, 6, scale, offset);
                xEven = T.MultiplyAdd(w, x + at + 6, xEven);
                yEven = T.MultiplyAdd(w, y + at + 6, yEven);
                w = TForm.Element(group, o, 7, scale, offset);
                xOdd = T.MultiplyAdd(w, x + at + 7, xOdd);
                yOdd = T.MultiplyAdd(w, y + at + 7, yOdd);
            }
        }
        for (var j = 0; k < columns; j++, k++) // plain elements only
        {
            var w = TForm.Element(group, 0, j, default(T), default);
            if ((j & 1) == 0)
            {
                xEven = T.MultiplyAdd(w, x + k, xEven);
                yEven = T.MultiplyAdd(w, y + k, yEven);
            }
            else
            {
                xOdd = T.MultiplyAdd(w, x + k, xOdd);
                yOdd = T.MultiplyAdd(w, y + k, yOdd);
            }
        }
        Add(xEven + xOdd, total, first);
        Add(yEven + yOdd, total + 16, first);
    }

    /// <summary>Three tokens, elements already floats, column by column.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Three(float* chunk, int columns, float* x, nint stride, float* total, bool first)
    {
        float* x0 = x, x1 = x + stride, x2 = x + 2 * stride;
        T e0 = default, e1 = default, e2 = default;
        T o0 = default, o1 = default, o2 = default;
        nint k = 0;
        for (; k + 2 <= columns; k += 2, chunk += 32)
        {
            T even = T.Load(chunk), odd = T.Load(chunk + 16);
            e0 = T.MultiplyAdd(even, x0 + k, e0);
            e1 = T.MultiplyAdd(even, x1 + k, e1);
            e2 = T.MultiplyAdd(even, x2 + k, e2);
            o0 = T.MultiplyAdd(odd, x0 + k + 1, o0);
            o1 = T.MultiplyAdd(odd, x1 + k + 1, o1);
            o2 = T.MultiplyAdd(odd, x2 + k + 1, o2);
        }
        if (k < columns)
        {
            var even = T.Load(chunk);
            e0 = T.MultiplyAdd(even, x0 + k, e0);
            e1 = T.MultiplyAdd(even, x1 + k, e1);
            e2 = T.MultiplyAdd(even, x2 + k, e2);
        }
        Add(e0 + o0, total, first);
        Add(e1 + o1, total + 16, first);
        Add(e2 + o2, total + 32, first);
    }

    /// <summary>Eight tokens, elements already floats, column by column.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Eight(float* chunk, int columns, float* x, nint stride, float* total, bool first)
    {
        float* x0 = x, x1 = x + stride, x2 = x + 2 * stride, x3 = x + 3 * stride, x4 = x + 4 * stride, x5 = x + 5 * stride, x6 = x + 6 * stride, x7 = x + 7 * stride;
        T e0 = default, e1 = default, e2 = default, e3 = default, e4 = default, e5 = default, e6 = default, e7 = default;
        T o0 = default, o1 = default, o2 = default, o3 = default, o4 = default, o5 = default, o6 = default, o7 = default;
        nint k = 0;
        for (; k + 2 <= columns; k += 2, chunk += 32)
        {
            T even = T.Load(chunk), odd = T.Load(chunk + 16);
            e0 = T.MultiplyAdd(even, x0 + k, e0);
            e1 = T.MultiplyAdd(even, x1 + k, e1);
            e2 = T.MultiplyAdd(even, x2 + k, e2);
            e3 = T.MultiplyAdd(even, x3 + k, e3);
            e4 = T.MultiplyAdd(even, x4 + k, e4);
            e5 = T.MultiplyAdd(even, x5 + k, e5);
            e6 = T.MultiplyAdd(even, x6 + k, e6);
            e7 = T.MultiplyAdd(even, x7 + k, e7);
            o0 = T.MultiplyAdd(odd, x0 + k + 1, o0);
            o1 = T.MultiplyAdd(odd, x1 + k + 1, o1);
            o2 = T.MultiplyAdd(odd, x2 + k + 1, o2);
            o3 = T.MultiplyAdd(odd, x3 + k + 1, o3);
            o4 = T.MultiplyAdd(odd, x4 + k + 1, o4);
            o5 = T.MultiplyAdd(odd, x5 + k + 1, o5);
            o6 = T.MultiplyAdd(odd, x6 + k + 1, o6);
            o7 = T.MultiplyAdd(odd, x7 + k + 1, o7);
        }
        if (k < columns)
        {
            var even = T.Load(chunk);
            e0 = T.MultiplyAdd(even, x0 + k, e0);
            e1 = T.MultiplyAdd(even, x1 + k, e1);
            e2 = T.MultiplyAdd(even, x2 + k, e2);
            e3 = T.MultiplyAdd(even, x3 + k, e3);
            e4 = T.MultiplyAdd(even, x4 + k, e4);
            e5 = T.MultiplyAdd(even, x5 + k, e5);
            e6 = T.MultiplyAdd(even, x6 + k, e6);
            e7 = T.MultiplyAdd(even, x7 + k, e7);
        }
        Add(e0 + o0, total, first);
        Add(e1 + o1, total + 16, first);
        Add(e2 + o2, total + 32, first);
        Add(e3 + o3, total + 48, first);
        Add(e4 + o4, total + 64, first);
        Add(e5 + o5, total + 80, first);
        Add(e6 + o6, total + 96, first);
        Add(e7 + o7, total + 112, first);
    }

    /// <summary>Makes a chunk's elements into floats, column by column.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Unpack<TForm>(byte* chunk, int columns, float* target) where TForm : struct, IForm
    {
        var group = chunk + TForm.HeadBytes((columns + TForm.Group - 1) / TForm.Group);
        for (var k = 0; k < columns; k += TForm.Group, group += TForm.GroupBytes)
        {
            var scale = TForm.Scale<T>(chunk, k / TForm.Group, out var offset);
            for (var o = 0; o < TForm.Group / 8; o++, target += 128)
            {
                T.Store(TForm.Element(group, o, 0, scale, offset), target);
                T.Store(TForm.Element(group, o, 1, scale, offset), target + 16);
                T.Store(TForm.Element(group, o, 2, scale, offset), target + 32);
                T.Store(TForm.Element(group, o, 3, scale, offset), target + 48);
                T.Store(TForm.Element(group, o, 4, scale, offset), target + 64);
                T.Store(TForm.Element(group, o, 5, scale, offset), target + 80);
                T.Store(TForm.Element(group, o, 6, scale, offset), target + 96);
                T.Store(TForm.Element(group, o, 7, scale, offset), target + 112);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Add(T sum, float* total, bool first) => T.Store(first ? sum : T.Load(total) + sum, total);
}
