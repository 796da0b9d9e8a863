using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>Two AVX2 registers, with fused multiply-add.</summary>
internal readonly unsafe struct Lanes256(Vector256<float> a, Vector256<float> b) : ILanes<Lanes256>
{
    private readonly Vector256<float> _a = a, _b = b;

    public static string Name => "AVX2";

    public static bool IsSupported => Avx2.IsSupported && Fma.IsSupported;

    public static bool IsWide => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator +(Lanes256 a, Lanes256 b) => new(a._a + b._a, a._b + b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator -(Lanes256 a, Lanes256 b) => new(a._a - b._a, a._b - b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator *(Lanes256 a, Lanes256 b) => new(a._a * b._a, a._b * b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator /(Lanes256 a, Lanes256 b) => new(a._a / b._a, a._b / b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator &(Lanes256 a, Lanes256 b) => new(a._a & b._a, a._b & b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator |(Lanes256 a, Lanes256 b) => new(a._a | b._a, a._b | b._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyAdd(Lanes256 a, Lanes256 b, Lanes256 c) => new(Fma.MultiplyAdd(a._a, b._a, c._a), Fma.MultiplyAdd(a._b, b._b, c._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyAdd(Lanes256 a, float* b, Lanes256 c) => MultiplyAdd(a, Broadcast(*b), c);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Min(Lanes256 a, Lanes256 b) => new(Vector256.MinNative(a._a, b._a), Vector256.MinNative(a._b, b._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Max(Lanes256 a, Lanes256 b) => new(Vector256.MaxNative(a._a, b._a), Vector256.MaxNative(a._b, b._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 WhereLess(Lanes256 a, Lanes256 b, Lanes256 then, Lanes256 otherwise) => new(
        Vector256.ConditionalSelect(Vector256.LessThan(a._a, b._a), then._a, otherwise._a),
        Vector256.ConditionalSelect(Vector256.LessThan(a._b, b._b), then._b, otherwise._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Broadcast(float value) => Same(Vector256.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 BroadcastBits(uint value) => Same(Vector256.Create(value).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Load(void* source) => new(Vector256.Load((float*)source), Vector256.Load((float*)source + 8));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes256 value, float* target)
    {
        value._a.Store(target);
        value._b.Store(target + 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 LoadHalves(void* source) => new(Avx2.ConvertToVector256Int32((ushort*)source).AsSingle(), Avx2.ConvertToVector256Int32((ushort*)source + 8).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 LoadBytes(void* source) => new(Avx2.ConvertToVector256Int32((byte*)source).AsSingle(), Avx2.ConvertToVector256Int32((byte*)source + 8).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ToFloat(Lanes256 integers) => new(Vector256.ConvertToSingle(integers._a.AsInt32()), Vector256.ConvertToSingle(integers._b.AsInt32()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 AddIntegers(Lanes256 a, Lanes256 b) => new((a._a.AsInt32() + b._a.AsInt32()).AsSingle(), (a._b.AsInt32() + b._b.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 SubtractIntegers(Lanes256 a, Lanes256 b) => new((a._a.AsInt32() - b._a.AsInt32()).AsSingle(), (a._b.AsInt32() - b._b.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ShiftLeft(Lanes256 a, int bits) => new((a._a.AsUInt32() << bits).AsSingle(), (a._b.AsUInt32() << bits).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ShiftRight(Lanes256 a, int bits) => new((a._a.AsUInt32() >>> bits).AsSingle(), (a._b.AsUInt32() >>> bits).AsSingle());

    // A shuffle clears the bytes whose index has its top bit set: shift and mask in one.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Byte(Lanes256 packed, int index) => new(Byte(packed._a, index), Byte(packed._b, index));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Byte(Vector256<float> packed, int index) => Vector256.ConvertToSingle(Avx2.Shuffle(packed.AsByte(), (Vector256.Create(
        0x80808000u, 0x80808004, 0x80808008, 0x8080800C, 0x80808000, 0x80808004, 0x80808008, 0x8080800C) + Vector256.Create((uint)index)).AsByte()).AsInt32());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Nibble(Lanes256 packed, int bit) => ToFloat(ShiftRight(packed, bit) & BroadcastBits(15));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Lanes256 Same(Vector256<float> v) => new(v, v);

    public static bool HasDot => AvxVnni.IsSupported;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Dot(Lanes256 sum, Lanes256 unsigned, Lanes256 signed) => new(
        AvxVnni.MultiplyWideningAndAdd(sum._a.AsInt32(), unsigned._a.AsByte(), signed._a.AsSByte()).AsSingle(),
        AvxVnni.MultiplyWideningAndAdd(sum._b.AsInt32(), unsigned._b.AsByte(), signed._b.AsSByte()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyBytes(Lanes256 unsigned, Lanes256 signed) => new(
        Avx2.MultiplyAddAdjacent(unsigned._a.AsByte(), signed._a.AsSByte()).AsSingle(),
        Avx2.MultiplyAddAdjacent(unsigned._b.AsByte(), signed._b.AsSByte()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 AddShorts(Lanes256 a, Lanes256 b) => new((a._a.AsInt16() + b._a.AsInt16()).AsSingle(), (a._b.AsInt16() + b._b.AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyShorts(Lanes256 a, Lanes256 b) => new(
        Avx2.MultiplyAddAdjacent(a._a.AsInt16(), b._a.AsInt16()).AsSingle(), Avx2.MultiplyAddAdjacent(a._b.AsInt16(), b._b.AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreBytes(Lanes256 integers, byte* target)
    {
        Vector256<short> shorts = Vector256.Narrow(integers._a.AsInt32(), integers._b.AsInt32());
        Vector128.Narrow(shorts.GetLower(), shorts.GetUpper()).Store((sbyte*)target);
    }
}
