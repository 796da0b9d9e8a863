using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>safetensors' names of element types.</summary>
internal static class SafetensorsTypes
{
    /// <summary>Bits of an element and the type that reads it (null: known to the format, not read here); null for a name the format lacks.</summary>
    public static (int Bits, DType? Type)? Find(string name) => name switch
    {
        "F64" => (64, DType.F64),
        "F32" => (32, DType.F32),
        "F16" => (16, DType.F16),
        "BF16" => (16, DType.BF16),
        "F8_E4M3" => (8, DType.F8E4M3),
        "F8_E5M2" => (8, DType.F8E5M2),
        "I64" => (64, DType.I64),
        "I32" => (32, DType.I32),
        "U8" => (8, DType.U8),
        "BOOL" or "I8" or "F8_E8M0" or "F8_E4M3FNUZ" or "F8_E5M2FNUZ" => (8, null),
        "I16" or "U16" => (16, null),
        "U32" => (32, null),
        "U64" or "C64" => (64, null),
        "F6_E2M3" or "F6_E3M2" => (6, null),
        "F4" => (4, null),
        _ => null,
    };

    /// <summary>The format's name of a type, or null where it has none.</summary>
    public static string? Name(DType type) => type switch
    {
        DType.F8E4M3 => "F8_E4M3",
        DType.F8E5M2 => "F8_E5M2",
        DType.F64 or DType.F32 or DType.F16 or DType.BF16 or DType.I64 or DType.I32 or DType.U8 => type.ToString(),
        _ => null,
    };
}
