using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Trimtab.Kernels;

/// <summary>
/// Converts between floats and the storage forms of checkpoints. The block layouts are GGUF's, as ggml defines them
/// (https://github.com/ggml-org/ggml, ggml-common.h and ggml-quants.c), and every value comes out as ggml's reference gives it; those of
/// int4 groups are Trimtab's own.
/// </summary>
public static partial class Blocks
{
    private const int Small = 32, Super = 256;

    private delegate void BlockReader(ReadOnlySpan<byte> block, Span<float> target);

    /// <summary>Reads elements of a storage form as floats.</summary>
    /// <param name="type">Form of <paramref name="source"/>: any but the integer types.</param>
    /// <param name="source">Whole blocks, one after another.</param>
    /// <param name="target">Receives the elements; its length says how many there are.</param>
    /// <exception cref="ArgumentException">The target is no whole number of blocks, or the source has not just their bytes.</exception>
    /// <exception cref="NotSupportedException">The form holds no numbers to compute with.</exception>
    public static void Dequantize(DType type, ReadOnlySpan<byte> source, Span<float> target)
    {
        CheckLengths(type, target.Length, source.Length);
        switch (type)
        {
            case DType.F32: Reinterpret<uint>(source, target, static v => BitConverter.UInt32BitsToSingle(v)); break;
            case DType.F64: Reinterpret<ulong>(source, target, static v => (float)BitConverter.UInt64BitsToDouble(v)); break;
            case DType.F16: Reinterpret<ushort>(source, target, static v => (float)BitConverter.UInt16BitsToHalf(v)); break;
            case DType.BF16: Reinterpret<ushort>(source, target, static v => BitConverter.UInt32BitsToSingle((uint)v << 16)); break;
            case DType.F8E4M3: Reinterpret<byte>(source, target, E4M3); break;
            case DType.F8E5M2: Reinterpret<byte>(source, target, static v => (float)BitConverter.UInt16BitsToHalf((ushort)(v << 8))); break;
            default: Each(type, Reader(type), source, target); break;
        }
    }

    private static BlockReader Reader(DType type) => type switch
    {
        DType.Q4_0 => ReadQ4_0,
        DType.Q4_1 => ReadQ4_1,
        DType.Q5_0 => ReadQ5_0,
        DType.Q5_1 => ReadQ5_1,
        DType.Q8_0 => ReadQ8_0,
        DType.Q2_K => ReadQ2_K,
        DType.Q3_K => ReadQ3_K,
        DType.Q4_K => ReadQ4_K,
        DType.Q5_K => ReadQ5_K,
        DType.Q6_K => ReadQ6_K,
        DType.IQ4_NL => ReadIQ4_NL,
        DType.IQ4_XS => ReadIQ4_XS,
        DType.MXFP4 => ReadMXFP4,
        DType.TQ2_0 => ReadTQ2_0,
        DType.I4G32 or DType.I4G64 or DType.I4G128 => ReadGroup,
        _ => throw new NotSupportedException($"{type} elements cannot be read as floats"),
    };

    private static void Each(DType type, BlockReader read, ReadOnlySpan<byte> source, Span<float> target)
    {
        int bytes = type.BlockBytes(), elements = type.BlockSize();
        for (; !target.IsEmpty; source = source[bytes..], target = target[elements..])
            read(source[..bytes], target[..elements]);
    }

    private static void Reinterpret<TStored>(ReadOnlySpan<byte> source, Span<float> target, Func<TStored, float> read) where TStored : unmanaged
    {
        if (typeof(TStored) == typeof(uint) && BitConverter.IsLittleEndian)
        {
            source.CopyTo(MemoryMarshal.AsBytes(target));
            return;
        }
        for (var i = 0; i < target.Length; i++)
            target[i] = read(Unsafe.ReadUnaligned<TStored>(in source[i * Unsafe.SizeOf<TStored>()]));
    }

    /// <summary>OCP FP8 E4M3: bias 7, no infinities, all ones is not a number.</summary>
    private static float E4M3(byte v)
    {
        int exponent = v >> 3 & 15, mantissa = v & 7;
        if ((v & 0x7F) == 0x7F)
            return float.NaN;
        var magnitude = exponent == 0 ? mantissa * (1f / 512) : (8 + mantissa) * BitConverter.UInt32BitsToSingle((uint)(exponent + 117) << 23);
        return (v & 0x80) != 0 ? -magnitude : magnitude;
    }

    private static void CheckLengths(DType type, int elements, int bytes)
    {
        var block = type.BlockSize();
        if (elements % block != 0)
            throw new ArgumentException($"{elements} elements are not a whole number of {type} blocks of {block}");
        var expected = (long)elements / block * type.BlockBytes();
        if (bytes != expected)
            throw new ArgumentException($"{elements} elements of {type} take {expected} bytes, not {bytes}");
    }

    private static float Half(ReadOnlySpan<byte> source) => (float)BinaryPrimitives.ReadHalfLittleEndian(source);
}
