namespace Trimtab.Kernels.Cpu;

/// <summary>Which storage forms are computed as they are, and their panels' making.</summary>
internal static unsafe class LinearForms
{
    /// <summary>Whether panels of a form can hold rows of so many columns.</summary>
    public static bool Computes(DType type, int columns) => columns > 0 && columns % type.BlockSize() == 0 && type is DType.F32 or
        DType.F16 or DType.BF16 or DType.Q8_0 or DType.Q4_0 or DType.Q4_1 or DType.Q4_K or DType.Q6_K;

    /// <summary>Bytes of a panel.</summary>
    public static long PanelBytes(DType form, int columns) => form switch
    {
        DType.F32 => Panels.Bytes<FormF32>(columns),
        DType.F16 => Panels.Bytes<FormF16>(columns),
        DType.BF16 => Panels.Bytes<FormBF16>(columns),
        DType.Q8_0 => Panels.Bytes<FormQ8_0>(columns),
        DType.Q4_0 => Panels.Bytes<FormQ4_0>(columns),
        DType.Q4_1 => Panels.Bytes<FormQ4_1>(columns),
        DType.Q4_K => Panels.Bytes<FormQ4_K>(columns),
        DType.Q6_K => Panels.Bytes<FormQ6_K>(columns),
        _ => throw Unknown(form),
    };

    /// <summary>Writes a panel from its rows' first bytes.</summary>
    public static void Pack(in Panel panel, int columns, byte** rows)
    {
        switch (panel.Form)
        {
            case DType.F32: Pack<FormF32>(panel, columns, rows); break;
            case DType.F16: Pack<FormF16>(panel, columns, rows); break;
            case DType.BF16: Pack<FormBF16>(panel, columns, rows); break;
            case DType.Q8_0: Pack<FormQ8_0>(panel, columns, rows); break;
            case DType.Q4_0: Pack<FormQ4_0>(panel, columns, rows); break;
            case DType.Q4_1: Pack<FormQ4_1>(panel, columns, rows); break;
            case DType.Q4_K: Pack<FormQ4_K>(panel, columns, rows); break;
            case DType.Q6_K: Pack<FormQ6_K>(panel, columns, rows); break;
            default: throw Unknown(panel.Form);
        }
    }

    public static NotSupportedException Unknown(DType form) => new($"{form} weights are not computed as they are; convert them first");

    private static void Pack<TForm>(in Panel panel, int columns, byte** rows) where TForm : struct, IForm
    {
        var chunk = (byte*)panel.Data;
        for (var k = 0; k < columns; k += Panels.Chunk, chunk += Panels.ChunkBytes<TForm>(Panels.Chunk))
        {
            TForm.Pack(rows, Math.Min(Panels.Chunk, columns - k), chunk);
            for (var r = 0; r < panel.Rows; r++)
                rows[r] += panel.Form.RowBytes(Panels.Chunk);
        }
    }
}
