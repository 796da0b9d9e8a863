using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>What kernels need that go along a row, with its elements in the lanes: sums over lanes in a fixed order, and ends of rows.</summary>
internal static unsafe class LanesSums
{
    /// <summary>Lanes of every <see cref="ILanes{T}"/>.</summary>
    public const int Width = 16;

    /// <summary>The sum of all lanes: opposite halves are added until one is left.</summary>
    public static float Sum<T>(T lanes) where T : struct, ILanes<T>
    {
        var p = stackalloc float[Width];
        T.Store(lanes, p);
        var v = Vector128.Load(p) + Vector128.Load(p + 8) + (Vector128.Load(p + 4) + Vector128.Load(p + 12));
        return v.GetElement(0) + v.GetElement(2) + (v.GetElement(1) + v.GetElement(3));
    }

    /// <summary>The greatest lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Highest<T>(T lanes) where T : struct, ILanes<T>
    {
        Vector128<float> v;
        if (typeof(T) == typeof(Lanes512))
        {
            var all = Unsafe.BitCast<T, Vector512<float>>(lanes);
            var half = Vector256.MaxNative(all.GetLower(), all.GetUpper());
            v = Vector128.MaxNative(half.GetLower(), half.GetUpper());
        }
        else if (typeof(T) == typeof(Lanes256))
        {
            var halves = Unsafe.BitCast<T, Halves>(lanes);
            var half = Vector256.MaxNative(halves.Lower, halves.Upper);
            v = Vector128.MaxNative(half.GetLower(), half.GetUpper());
        }
        else
        {
            var quarters = Unsafe.BitCast<T, Quarters>(lanes);
            v = Vector128.MaxNative(Vector128.MaxNative(quarters.First, quarters.Third), Vector128.MaxNative(quarters.Second, quarters.Fourth));
        }
        v = Vector128.MaxNative(v, Vector128.Shuffle(v, Vector128.Create(2, 3, 0, 1)));
        return Vector128.MaxNative(v, Vector128.Shuffle(v, Vector128.Create(1, 0, 3, 2))).ToScalar();
    }

    /// <summary>The sums of all lanes of four vectors: they are folded together, which costs three instructions each.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Sums<T>(T a, T b, T c, T d) where T : struct, ILanes<T>
    {
        if (typeof(T) == typeof(Lanes512))
        {
            Vector512<float> e = Unsafe.BitCast<T, Vector512<float>>(a), f = Unsafe.BitCast<T, Vector512<float>>(b);
            Vector512<float> g = Unsafe.BitCast<T, Vector512<float>>(c), h = Unsafe.BitCast<T, Vector512<float>>(d);
            var ef = Avx512F.UnpackLow(e, f) + Avx512F.UnpackHigh(e, f);
            var gh = Avx512F.UnpackLow(g, h) + Avx512F.UnpackHigh(g, h);
            var all = Avx512F.Shuffle(ef, gh, 0x44) + Avx512F.Shuffle(ef, gh, 0xEE);
            return Fold(all.GetLower() + all.GetUpper());
        }
        if (typeof(T) == typeof(Lanes256))
        {
            Vector256<float> e = Half(a), f = Half(b), g = Half(c), h = Half(d);
            var ef = Avx.UnpackLow(e, f) + Avx.UnpackHigh(e, f);
            var gh = Avx.UnpackLow(g, h) + Avx.UnpackHigh(g, h);
            return Fold(Avx.Shuffle(ef, gh, 0x44) + Avx.Shuffle(ef, gh, 0xEE));
        }
        else
        {
            Vector128<float> e = Quarter(a), f = Quarter(b), g = Quarter(c), h = Quarter(d);
            var ef = UnpackLow(e, f) + UnpackHigh(e, f);
            var gh = UnpackLow(g, h) + UnpackHigh(g, h);
            return Vector128.Create(ef.GetLower(), gh.GetLower()) + Vector128.Create(ef.GetUpper(), gh.GetUpper());
        }
    }

    /// <summary>The first <paramref name="count"/> lanes from memory (all where there are so many), the others <paramref name="rest"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Load<T>(float* p, int count, float rest = 0) where T : struct, ILanes<T> =>
        count >= Width ? T.Load(p) : LoadPart<T>(p, count, rest);

    /// <summary>Stores the first <paramref name="count"/> lanes, or all.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<T>(T lanes, float* p, int count) where T : struct, ILanes<T>
    {
        if (count >= Width)
            T.Store(lanes, p);
        else
            StorePart(lanes, p, count);
    }

    private static T LoadPart<T>(float* p, int count, float rest) where T : struct, ILanes<T>
    {
        var buffer = stackalloc float[Width];
        for (var i = 0; i < Width; i++)
            buffer[i] = i < count ? p[i] : rest;
        return T.Load(buffer);
    }

    private static void StorePart<T>(T lanes, float* p, int count) where T : struct, ILanes<T>
    {
        var buffer = stackalloc float[Width];
        T.Store(lanes, buffer);
        for (var i = 0; i < count; i++)
            p[i] = buffer[i];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> Fold(Vector256<float> v) => v.GetLower() + v.GetUpper();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Half<T>(T lanes) where T : struct
    {
        var halves = Unsafe.BitCast<T, Halves>(lanes);
        return halves.Lower + halves.Upper;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> Quarter<T>(T lanes) where T : struct
    {
        var quarters = Unsafe.BitCast<T, Quarters>(lanes);
        return quarters.First + quarters.Third + (quarters.Second + quarters.Fourth);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> UnpackLow(Vector128<float> a, Vector128<float> b)
    {
        if (Sse.IsSupported)
            return Sse.UnpackLow(a, b);
        return AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipLow(a, b) : Vector128.Create(a[0], b[0], a[1], b[1]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> UnpackHigh(Vector128<float> a, Vector128<float> b)
    {
        if (Sse.IsSupported)
            return Sse.UnpackHigh(a, b);
        return AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipHigh(a, b) : Vector128.Create(a[2], b[2], a[3], b[3]);
    }

    /// <summary>What <see cref="Lanes256"/> holds.</summary>
    private readonly record struct Halves(Vector256<float> Lower, Vector256<float> Upper);

    /// <summary>What <see cref="Lanes128"/> holds.</summary>
    private readonly record struct Quarters(Vector128<float> First, Vector128<float> Second, Vector128<float> Third, Vector128<float> Fourth);
}
