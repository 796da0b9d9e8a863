namespace Trimtab.Kernels;

/// <summary>
/// How the elements of a tensor are stored. The quantised forms are GGUF's block formats and the int4 groups of AWQ and GPTQ: a block of
/// <see cref="DTypes.BlockSize"/> consecutive elements of one row shares its scales.
/// </summary>
public enum DType
{
    /// <summary>IEEE 754 binary32.</summary>
    F32,
    /// <summary>IEEE 754 binary64; activations of the reference device.</summary>
    F64,
    /// <summary>IEEE 754 binary16.</summary>
    F16,
    /// <summary>The upper half of a binary32.</summary>
    BF16,
    /// <summary>8-bit float, 4 exponent and 3 mantissa bits, no infinities (OCP FP8 E4M3).</summary>
    F8E4M3,
    /// <summary>8-bit float, 5 exponent and 2 mantissa bits (OCP FP8 E5M2).</summary>
    F8E5M2,
    /// <summary>32-bit signed integer: token rows, slots, positions.</summary>
    I32,
    /// <summary>64-bit signed integer.</summary>
    I64,
    /// <summary>8-bit unsigned integer.</summary>
    U8,
    /// <summary>32 elements: f16 scale, 4-bit values with offset 8.</summary>
    Q4_0,
    /// <summary>32 elements: f16 scale and minimum, 4-bit values.</summary>
    Q4_1,
    /// <summary>32 elements: f16 scale, 5-bit values with offset 16.</summary>
    Q5_0,
    /// <summary>32 elements: f16 scale and minimum, 5-bit values.</summary>
    Q5_1,
    /// <summary>32 elements: f16 scale, 8-bit values.</summary>
    Q8_0,
    /// <summary>256 elements: 2-bit values in 16 sub-blocks with 4-bit scales and minimums.</summary>
    Q2_K,
    /// <summary>256 elements: 3-bit values in 16 sub-blocks with 6-bit scales.</summary>
    Q3_K,
    /// <summary>256 elements: 4-bit values in 8 sub-blocks with 6-bit scales and minimums.</summary>
    Q4_K,
    /// <summary>256 elements: 5-bit values in 8 sub-blocks with 6-bit scales and minimums.</summary>
    Q5_K,
    /// <summary>256 elements: 6-bit values in 16 sub-blocks with 8-bit scales.</summary>
    Q6_K,
    /// <summary>32 elements: f16 scale, 4-bit indices into a fixed non-linear table.</summary>
    IQ4_NL,
    /// <summary>256 elements: 4-bit indices into the same table in 8 sub-blocks with 6-bit scales.</summary>
    IQ4_XS,
    /// <summary>32 elements: a power-of-two scale (E8M0), 4-bit floats E2M1 (OCP Microscaling MXFP4).</summary>
    MXFP4,
    /// <summary>256 elements: f16 scale, 2-bit values −1, 0, 1 (and 2).</summary>
    TQ2_0,
    /// <summary>32 elements: f16 scale, f16 zero point, 4-bit values q that stand for (q − zero) · scale, as AWQ and GPTQ have them.</summary>
    I4G32,
    /// <summary>The same of 64 elements.</summary>
    I4G64,
    /// <summary>The same of 128 elements.</summary>
    I4G128,
}

/// <summary>Sizes of the storage forms.</summary>
public static class DTypes
{
    /// <summary>Elements that one block holds; 1 for plain types.</summary>
    public static int BlockSize(this DType type) => type switch
    {
        DType.Q4_0 or DType.Q4_1 or DType.Q5_0 or DType.Q5_1 or DType.Q8_0 or DType.IQ4_NL or DType.MXFP4 or DType.I4G32 => 32,
        DType.I4G64 => 64,
        DType.I4G128 => 128,
        DType.Q2_K or DType.Q3_K or DType.Q4_K or DType.Q5_K or DType.Q6_K or DType.IQ4_XS or DType.TQ2_0 => 256,
        _ => 1,
    };

    /// <summary>Bytes of one block; the element size for plain types.</summary>
    public static int BlockBytes(this DType type) => type switch
    {
        DType.F32 or DType.I32 => 4,
        DType.F64 or DType.I64 => 8,
        DType.F16 or DType.BF16 => 2,
        DType.F8E4M3 or DType.F8E5M2 or DType.U8 => 1,
        DType.Q4_0 or DType.IQ4_NL => 18,
        DType.Q4_1 or DType.I4G32 => 20,
        DType.Q5_0 => 22,
        DType.Q5_1 => 24,
        DType.Q8_0 => 34,
        DType.Q2_K => 84,
        DType.Q3_K => 110,
        DType.Q4_K => 144,
        DType.Q5_K => 176,
        DType.Q6_K => 210,
        DType.IQ4_XS => 136,
        DType.MXFP4 => 17,
        DType.TQ2_0 => 66,
        DType.I4G64 => 36,
        DType.I4G128 => 68,
        _ => throw new ArgumentOutOfRangeException(nameof(type), type, null),
    };

    /// <summary>Whether rows are stored as blocks with shared scales.</summary>
    public static bool IsQuantized(this DType type) => type.BlockSize() > 1;

    /// <summary>Bytes of a row of <paramref name="columns"/> elements.</summary>
    /// <exception cref="ArgumentException">The row is no whole number of blocks.</exception>
    /// <exception cref="OverflowException">The row is larger than a long can count.</exception>
    public static long RowBytes(this DType type, long columns)
    {
        var block = type.BlockSize();
        if (columns % block != 0)
            throw new ArgumentException($"a row of {columns} elements is not a whole number of {type} blocks of {block}");
        return checked(columns / block * type.BlockBytes());
    }
}
