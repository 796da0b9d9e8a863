using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>One AVX-512 register.</summary>
internal readonly unsafe struct Lanes512(Vector512<float> v) : ILanes<Lanes512>
{
    private readonly Vector512<float> _v = v;

    public static string Name => "AVX-512";

    public static bool IsSupported => Vector512.IsHardwareAccelerated && Avx512BW.IsSupported;

    public static bool IsWide => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator +(Lanes512 a, Lanes512 b) => new(a._v + b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator -(Lanes512 a, Lanes512 b) => new(a._v - b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator *(Lanes512 a, Lanes512 b) => new(a._v * b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator /(Lanes512 a, Lanes512 b) => new(a._v / b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator &(Lanes512 a, Lanes512 b) => new(a._v & b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 operator |(Lanes512 a, Lanes512 b) => new(a._v | b._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 MultiplyAdd(Lanes512 a, Lanes512 b, Lanes512 c) => new(Avx512F.FusedMultiplyAdd(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 MultiplyAdd(Lanes512 a, float* b, Lanes512 c) => new(Avx512F.FusedMultiplyAdd(a._v, Vector512.Create(*b), c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Min(Lanes512 a, Lanes512 b) => new(Vector512.MinNative(a._v, b._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Max(Lanes512 a, Lanes512 b) => new(Vector512.MaxNative(a._v, b._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 WhereLess(Lanes512 a, Lanes512 b, Lanes512 then, Lanes512 otherwise) => new(Vector512.ConditionalSelect(Vector512.LessThan(a._v, b._v), then._v, otherwise._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Broadcast(float value) => new(Vector512.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 BroadcastBits(uint value) => new(Vector512.Create(value).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Load(void* source) => new(Vector512.Load((float*)source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes512 value, float* target) => value._v.Store(target);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 LoadHalves(void* source) => new(Avx512F.ConvertToVector512Int32(Vector256.Load((ushort*)source)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 LoadBytes(void* source) => new(Avx512F.ConvertToVector512Int32(Vector128.Load((byte*)source)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 ToFloat(Lanes512 integers) => new(Vector512.ConvertToSingle(integers._v.AsInt32()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 AddIntegers(Lanes512 a, Lanes512 b) => new((a._v.AsInt32() + b._v.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 SubtractIntegers(Lanes512 a, Lanes512 b) => new((a._v.AsInt32() - b._v.AsInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 ShiftLeft(Lanes512 a, int bits) => new((a._v.AsUInt32() << bits).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 ShiftRight(Lanes512 a, int bits) => new((a._v.AsUInt32() >>> bits).AsSingle());

    // A shuffle clears the bytes whose index has its top bit set: shift and mask in one.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Byte(Lanes512 packed, int index) => new(Vector512.ConvertToSingle(Avx512BW.Shuffle(packed._v.AsByte(), (Vector512.Create(
        0x80808000u, 0x80808004, 0x80808008, 0x8080800C, 0x80808000, 0x80808004, 0x80808008, 0x8080800C,
        0x80808000, 0x80808004, 0x80808008, 0x8080800C, 0x80808000, 0x80808004, 0x80808008, 0x8080800C) + Vector512.Create((uint)index)).AsByte()).AsInt32()));

    // A permutation looks at an index's low four bits only: mask and conversion in one.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Nibble(Lanes512 packed, int bit) => new(Avx512F.PermuteVar16x32(
        Vector512.Create(0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), (packed._v.AsUInt32() >>> bit).AsInt32()));

    // AVX-512's own (VNNI) is not among the intrinsics.
    public static bool HasDot => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Dot(Lanes512 sum, Lanes512 unsigned, Lanes512 signed) => throw new PlatformNotSupportedException();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 MultiplyBytes(Lanes512 unsigned, Lanes512 signed) => new(Avx512BW.MultiplyAddAdjacent(unsigned._v.AsByte(), signed._v.AsSByte()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 AddShorts(Lanes512 a, Lanes512 b) => new((a._v.AsInt16() + b._v.AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 MultiplyShorts(Lanes512 a, Lanes512 b) => new(Avx512BW.MultiplyAddAdjacent(a._v.AsInt16(), b._v.AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreBytes(Lanes512 integers, byte* target) => Avx512F.ConvertToVector128Byte(integers._v.AsUInt32()).Store(target);
}
