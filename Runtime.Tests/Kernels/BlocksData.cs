using System.Buffers.Binary;
using Trimtab.Kernels;

namespace Trimtab.Tests.Kernels;

/// <summary>Random bytes of storage forms whose values are of the size of weights.</summary>
internal static class BlocksData
{
    public static readonly DType[] Readable =
    [
        DType.F32, DType.F64, DType.F16, DType.BF16, DType.F8E4M3, DType.F8E5M2, DType.Q4_0, DType.Q4_1, DType.Q5_0, DType.Q5_1, DType.Q8_0,
        DType.Q2_K, DType.Q3_K, DType.Q4_K, DType.Q5_K, DType.Q6_K, DType.IQ4_NL, DType.IQ4_XS, DType.MXFP4, DType.TQ2_0, DType.I4G32, DType.I4G64, DType.I4G128,
    ];

    /// <summary>Where a block's f16 scales lie.</summary>
    private static int[] Scales(DType type) => type switch
    {
        DType.Q4_0 or DType.Q5_0 or DType.Q8_0 or DType.IQ4_NL or DType.IQ4_XS or DType.I4G32 or DType.I4G64 or DType.I4G128 => [0],
        DType.Q4_1 or DType.Q5_1 or DType.Q4_K or DType.Q5_K => [0, 2],
        DType.Q2_K => [80, 82],
        DType.Q3_K => [108],
        DType.Q6_K => [208],
        DType.TQ2_0 => [64],
        _ => [],
    };

    /// <summary>Numbers that E4M3 holds: the nearest to a multiple of others.</summary>
    public static float[] Fp8(float[] values, float factor)
    {
        var bytes = new byte[values.Length];
        var result = new float[values.Length];
        Blocks.Quantize(DType.F8E4M3, Array.ConvertAll(values, v => factor * v), bytes);
        Blocks.Dequantize(DType.F8E4M3, bytes, result);
        return result;
    }

    public static byte[] Random(DType type, int rows, int columns, Random random, byte? fill = null)
    {
        var bytes = new byte[rows * type.RowBytes(columns)];
        if (type == DType.F8E4M3) // no NaN, and nothing beyond 1
            return Array.ConvertAll(bytes, _ => (byte)(random.Next(0x38) | random.Next(2) << 7));
        if (!type.IsQuantized())
        {
            var values = new float[rows * columns];
            for (var i = 0; i < values.Length; i++)
                values[i] = (random.NextSingle() - 0.5f) * (i % 7 == 0 ? 1e-5f : 0.5f); // some are f16 denormals
            Blocks.Quantize(type, values, bytes);
            return bytes;
        }
        random.NextBytes(bytes);
        if (fill is { } value) // all elements, and small scales, alike
            bytes.AsSpan().Fill(value);
        for (var block = 0; block < bytes.Length; block += type.BlockBytes())
            foreach (var at in Scales(type))
                BinaryPrimitives.WriteHalfLittleEndian(bytes.AsSpan(block + at), (Half)((random.NextSingle() - 0.3f) * 0.01f));
        for (var block = 0; type is DType.I4G32 or DType.I4G64 or DType.I4G128 && block < bytes.Length; block += type.BlockBytes())
            BinaryPrimitives.WriteHalfLittleEndian(bytes.AsSpan(block + 2), (Half)random.Next(17)); // GPTQ's zero points go to 16
        return bytes;
    }
}
