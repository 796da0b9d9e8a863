using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Trimtab.Kernels.Cpu;

/// <summary>Four 128-bit vectors: what any machine has. Multiply-add rounds twice where the hardware does not fuse it.</summary>
internal readonly unsafe struct Lanes128(Vector128<float> a, Vector128<float> b, Vector128<float> c, Vector128<float> d) : ILanes<Lanes128>
{
    private readonly Vector128<float> _a = a, _b = b, _c = c, _d = d;

    public static string Name => "portable";

    public static bool IsSupported => true;

    public static bool IsWide => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator +(Lanes128 a, Lanes128 b) => new(a._a + b._a, a._b + b._b, a._c + b._c, a._d + b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator -(Lanes128 a, Lanes128 b) => new(a._a - b._a, a._b - b._b, a._c - b._c, a._d - b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator *(Lanes128 a, Lanes128 b) => new(a._a * b._a, a._b * b._b, a._c * b._c, a._d * b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator /(Lanes128 a, Lanes128 b) => new(a._a / b._a, a._b / b._b, a._c / b._c, a._d / b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator &(Lanes128 a, Lanes128 b) => new(a._a & b._a, a._b & b._b, a._c & b._c, a._d & b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 operator |(Lanes128 a, Lanes128 b) => new(a._a | b._a, a._b | b._b, a._c | b._c, a._d | b._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 MultiplyAdd(Lanes128 a, Lanes128 b, Lanes128 c) => new(
        Vector128.MultiplyAddEstimate(a._a, b._a, c._a),
        Vector128.MultiplyAddEstimate(a._b, b._b, c._b),
        Vector128.MultiplyAddEstimate(a._c, b._c, c._c),
        Vector128.MultiplyAddEstimate(a._d, b._d, c._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 MultiplyAdd(Lanes128 a, float* b, Lanes128 c) => MultiplyAdd(a, Broadcast(*b), c);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Min(Lanes128 a, Lanes128 b) => new(
        Vector128.MinNative(a._a, b._a),
        Vector128.MinNative(a._b, b._b),
        Vector128.MinNative(a._c, b._c),
        Vector128.MinNative(a._d, b._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Max(Lanes128 a, Lanes128 b) => new(
        Vector128.MaxNative(a._a, b._a),
        Vector128.MaxNative(a._b, b._b),
        Vector128.MaxNative(a._c, b._c),
        Vector128.MaxNative(a._d, b._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 WhereLess(Lanes128 a, Lanes128 b, Lanes128 then, Lanes128 otherwise) => new(
        Vector128.ConditionalSelect(Vector128.LessThan(a._a, b._a), then._a, otherwise._a),
        Vector128.ConditionalSelect(Vector128.LessThan(a._b, b._b), then._b, otherwise._b),
        Vector128.ConditionalSelect(Vector128.LessThan(a._c, b._c), then._c, otherwise._c),
        Vector128.ConditionalSelect(Vector128.LessThan(a._d, b._d), then._d, otherwise._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Broadcast(float value) => Same(Vector128.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 BroadcastBits(uint value) => Same(Vector128.Create(value).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Load(void* source) => new(
        Vector128.Load((float*)source),
        Vector128.Load((float*)source + 4),
        Vector128.Load((float*)source + 8),
        Vector128.Load((float*)source + 12));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes128 value, float* target)
    {
        value._a.Store(target);
        value._b.Store(target + 4);
        value._c.Store(target + 8);
        value._d.Store(target + 12);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 LoadHalves(void* source)
    {
        Vector128<ushort> low = Vector128.Load((ushort*)source), high = Vector128.Load((ushort*)source + 8);
        return new(
            Vector128.WidenLower(low).AsSingle(),
            Vector128.WidenUpper(low).AsSingle(),
            Vector128.WidenLower(high).AsSingle(),
            Vector128.WidenUpper(high).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 LoadBytes(void* source)
    {
        var (low, high) = Vector128.Widen(Vector128.Load((byte*)source));
        return new(
            Vector128.WidenLower(low).AsSingle(),
            Vector128.WidenUpper(low).AsSingle(),
            Vector128.WidenLower(high).AsSingle(),
            Vector128.WidenUpper(high).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 ToFloat(Lanes128 integers) => new(
        Vector128.ConvertToSingle(integers._a.AsInt32()),
        Vector128.ConvertToSingle(integers._b.AsInt32()),
        Vector128.ConvertToSingle(integers._c.AsInt32()),
        Vector128.ConvertToSingle(integers._d.AsInt32()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 AddIntegers(Lanes128 a, Lanes128 b) => new(
        (a._a.AsInt32() + b._a.AsInt32()).AsSingle(),
        (a._b.AsInt32() + b._b.AsInt32()).AsSingle(),
        (a._c.AsInt32() + b._c.AsInt32()).AsSingle(),
        (a._d.AsInt32() + b._d.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 SubtractIntegers(Lanes128 a, Lanes128 b) => new(
        (a._a.AsInt32() - b._a.AsInt32()).AsSingle(),
        (a._b.AsInt32() - b._b.AsInt32()).AsSingle(),
        (a._c.AsInt32() - b._c.AsInt32()).AsSingle(),
        (a._d.AsInt32() - b._d.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 ShiftLeft(Lanes128 a, int bits) => new(
        (a._a.AsUInt32() << bits).AsSingle(),
        (a._b.AsUInt32() << bits).AsSingle(),
        (a._c.AsUInt32() << bits).AsSingle(),
        (a._d.AsUInt32() << bits).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 ShiftRight(Lanes128 a, int bits) => new(
        (a._a.AsUInt32() >>> bits).AsSingle(),
        (a._b.AsUInt32() >>> bits).AsSingle(),
        (a._c.AsUInt32() >>> bits).AsSingle(),
        (a._d.AsUInt32() >>> bits).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Byte(Lanes128 packed, int index) => ToFloat(ShiftRight(packed, 8 * index) & BroadcastBits(255));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Nibble(Lanes128 packed, int bit) => ToFloat(ShiftRight(packed, bit) & BroadcastBits(15));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Lanes128 Same(Vector128<float> v) => new(v, v, v, v);

    public static bool HasDot => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Dot(Lanes128 sum, Lanes128 unsigned, Lanes128 signed) => throw new PlatformNotSupportedException();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 MultiplyBytes(Lanes128 unsigned, Lanes128 signed) => new(
        MultiplyBytes(unsigned._a.AsInt16(), signed._a.AsInt16()),
        MultiplyBytes(unsigned._b.AsInt16(), signed._b.AsInt16()),
        MultiplyBytes(unsigned._c.AsInt16(), signed._c.AsInt16()),
        MultiplyBytes(unsigned._d.AsInt16(), signed._d.AsInt16()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> MultiplyBytes(Vector128<short> unsigned, Vector128<short> signed) =>
        ((unsigned & Vector128.Create((short)255)) * ((signed << 8) >> 8) + (unsigned >>> 8) * (signed >> 8)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 AddShorts(Lanes128 a, Lanes128 b) => new(
        (a._a.AsInt16() + b._a.AsInt16()).AsSingle(),
        (a._b.AsInt16() + b._b.AsInt16()).AsSingle(),
        (a._c.AsInt16() + b._c.AsInt16()).AsSingle(),
        (a._d.AsInt16() + b._d.AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 MultiplyShorts(Lanes128 a, Lanes128 b) => new(
        MultiplyShorts(a._a.AsInt32(), b._a.AsInt32()),
        MultiplyShorts(a._b.AsInt32(), b._b.AsInt32()),
        MultiplyShorts(a._c.AsInt32(), b._c.AsInt32()),
        MultiplyShorts(a._d.AsInt32(), b._d.AsInt32()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> MultiplyShorts(Vector128<int> a, Vector128<int> b) =>
        (((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreBytes(Lanes128 integers, byte* target) => Vector128.Narrow(
        Vector128.Narrow(integers._a.AsInt32(), integers._b.AsInt32()), Vector128.Narrow(integers._c.AsInt32(), integers._d.AsInt32())).Store((sbyte*)target);
}
