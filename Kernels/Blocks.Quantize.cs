using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Trimtab.Kernels;

public static partial class Blocks
{
    /// <summary>Stores floats in a form, rounded to nearest: F32, F16, BF16, F8E4M3 (ties to even; beyond 448 and NaN: 448), Q8_0, Q4_0, Q4_1 (as ggml's reference rounds).</summary>
    /// <param name="type">Form of <paramref name="target"/>.</param>
    /// <param name="source">The elements: a whole number of blocks.</param>
    /// <param name="target">Receives just their bytes.</param>
    /// <exception cref="ArgumentException">The source is no whole number of blocks, or the target has not just their bytes.</exception>
    /// <exception cref="NotSupportedException">Nothing is quantised to this form here.</exception>
    public static void Quantize(DType type, ReadOnlySpan<float> source, Span<byte> target)
    {
        CheckLengths(type, source.Length, target.Length);
        switch (type)
        {
            case DType.F32:
                MemoryMarshal.AsBytes(source).CopyTo(target);
                break;
            case DType.F16:
                for (var i = 0; i < source.Length; i++)
                    BinaryPrimitives.WriteHalfLittleEndian(target[(2 * i)..], (Half)source[i]);
                break;
            case DType.BF16:
                for (var i = 0; i < source.Length; i++)
                    BinaryPrimitives.WriteUInt16LittleEndian(target[(2 * i)..], BFloat16(source[i]));
                break;
            case DType.F8E4M3:
                for (var i = 0; i < source.Length; i++)
                    target[i] = E4M3(source[i]);
                break;
            case DType.Q8_0 or DType.Q4_0 or DType.Q4_1:
                var bytes = type.BlockBytes();
                for (; !source.IsEmpty; source = source[Small..], target = target[bytes..])
                    if (type == DType.Q8_0)
                        WriteQ8_0(source[..Small], target[..bytes]);
                    else
                        WriteFourBits(type, source[..Small], target[..bytes]);
                break;
            default:
                throw new NotSupportedException($"floats cannot be stored as {type}; F32, F16, BF16, F8E4M3, Q8_0, Q4_0 and Q4_1 are the forms for that");
        }
    }

    private static ushort BFloat16(float value)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        // Rounding could carry a NaN's payload into infinity: keep it, quiet.
        return (ushort)(float.IsNaN(value) ? bits >> 16 | 0x40 : bits + 0x7FFF + (bits >> 16 & 1) >> 16);
    }

    private static byte E4M3(float value)
    {
        var magnitude = BitConverter.SingleToUInt32Bits(Math.Abs(value) <= 448 ? Math.Abs(value) : 448);
        // Below 2^−6 steps are 2^−9.
        var code = magnitude < 0x3C80_0000 ? (uint)MathF.Round(BitConverter.UInt32BitsToSingle(magnitude) * 512) : (magnitude + 0x7_FFFF + (magnitude >> 20 & 1) >> 20) - (120 << 3);
        return (byte)(code | BitConverter.SingleToUInt32Bits(value) >> 24 & 0x80);
    }

    private static void WriteQ8_0(ReadOnlySpan<float> source, Span<byte> block)
    {
        var largest = 0f;
        foreach (var v in source)
            largest = Math.Max(largest, Math.Abs(v));
        var (d, inverse) = Step(largest / 127);
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        for (var j = 0; j < Small; j++)
            block[2 + j] = (byte)(sbyte)MathF.Round(source[j] * inverse, MidpointRounding.AwayFromZero);
    }

    private static void WriteFourBits(DType type, ReadOnlySpan<float> source, Span<byte> block)
    {
        float least = source[0], most = source[0];
        foreach (var v in source)
        {
            least = Math.Min(least, v);
            most = Math.Max(most, v);
        }
        // Q4_0: −8 steps reach the element of largest magnitude (the first such), whatever its sign.
        var zero = type == DType.Q4_0;
        var extreme = Math.Abs(least) > Math.Abs(most) || (Math.Abs(least) == Math.Abs(most) && IsFirst(source, least, most)) ? least : most;
        var (d, inverse) = Step(zero ? extreme / -8 : (most - least) / 15);
        BinaryPrimitives.WriteHalfLittleEndian(block, (Half)d);
        if (!zero)
            BinaryPrimitives.WriteHalfLittleEndian(block[2..], (Half)least);
        var quants = block[(zero ? 2 : 4)..];
        for (var j = 0; j < 16; j++)
            quants[j] = (byte)(Four(source[j]) | Four(source[j + 16]) << 4);

        int Four(float v) => Math.Clamp((int)(zero ? v * inverse + 8.5f : (v - least) * inverse + 0.5f), 0, 15);
    }

    private static bool IsFirst(ReadOnlySpan<float> source, float a, float b) => source.IndexOf(a) < source.IndexOf(b);

    private static (float Step, float Inverse) Step(float step) => (step, step == 0 ? 0 : 1 / step);
}
