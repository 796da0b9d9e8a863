using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>ggml's numbers of element types, as GGUF's tensor table has them.</summary>
internal static class GgmlTypes
{
    /// <summary>The type that a number stands for, or null where this runtime has none.</summary>
    public static DType? Find(uint number) => number switch
    {
        0 => DType.F32,
        1 => DType.F16,
        2 => DType.Q4_0,
        3 => DType.Q4_1,
        6 => DType.Q5_0,
        7 => DType.Q5_1,
        8 => DType.Q8_0,
        10 => DType.Q2_K,
        11 => DType.Q3_K,
        12 => DType.Q4_K,
        13 => DType.Q5_K,
        14 => DType.Q6_K,
        20 => DType.IQ4_NL,
        23 => DType.IQ4_XS,
        26 => DType.I32,
        27 => DType.I64,
        28 => DType.F64,
        30 => DType.BF16,
        35 => DType.TQ2_0,
        39 => DType.MXFP4,
        _ => null,
    };

    /// <summary>Bytes of an element of the plain types that have no <see cref="DType"/>; they are refused only when used.</summary>
    public static int? OpaqueBytes(uint number) => number switch { 24 => 1, 25 => 2, _ => null };

    /// <summary>A number's name for messages.</summary>
    public static string Name(uint number) => Find(number)?.ToString() ?? number switch
    {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        29 => "IQ1_M",
        34 => "TQ1_0",
        _ => "unknown",
    };

    /// <summary>The number of a type, or null where GGUF has none.</summary>
    public static uint? Number(DType type)
    {
        for (var number = 0u; number <= 39; number++)
        {
            if (Find(number) == type)
                return number;
        }
        return null;
    }
}
