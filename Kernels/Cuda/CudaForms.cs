using System.Buffers.Binary;

namespace Trimtab.Kernels.Cuda;

/// <summary>How the kernels want weight rows (Source/forms.cuh): elements and scales apart, each row on 16 bytes.</summary>
internal static class CudaForms
{
    private static readonly DType[] Order = [DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K];

    /// <summary>The forms that are computed as they are. Others are converted when a model is loaded (to Q8_0 from blocks, BF16 from FP8).</summary>
    public static ReadOnlySpan<DType> All => Order;

    /// <summary>The macro FORM of a form; −1 for none.</summary>
    public static int Number(DType type) => Array.IndexOf(Order, type);

    /// <summary>Bytes of a row's elements.</summary>
    public static int ElementStride(DType type, int columns) => type switch
    {
        DType.F32 => (columns + 7) / 8 * 32,
        DType.F16 or DType.BF16 => (columns + 7) / 8 * 16,
        DType.Q8_0 => columns,
        _ => columns / 2,
    };

    /// <summary>Bytes of a row's scales.</summary>
    public static int ScaleStride(DType type, int columns) => type switch
    {
        DType.Q8_0 or DType.Q4_0 => columns / 32 * 2,
        DType.Q4_1 => columns / 32 * 4,
        DType.Q4_K => columns / 256 * 16,
        _ => 0,
    };

    /// <summary>Rearranges a row. The targets are zeroed.</summary>
    public static void Pack(DType type, ReadOnlySpan<byte> row, Span<byte> elements, Span<byte> scales)
    {
        var block = type.BlockBytes();
        switch (type)
        {
            case DType.Q8_0:
            case DType.Q4_0:
            case DType.Q4_1:
                int head = type == DType.Q4_1 ? 4 : 2, body = block - head;
                for (var i = 0; i * block < row.Length; i++)
                {
                    row.Slice(i * block, head).CopyTo(scales[(i * head)..]);
                    row.Slice(i * block + head, body).CopyTo(elements[(i * body)..]);
                }
                break;
            case DType.Q4_K:
                for (var i = 0; i * block < row.Length; i++)
                {
                    row.Slice(i * block, 16).CopyTo(scales[(16 * i)..]);
                    Unpair(row.Slice(i * block + 16, 128), elements[(128 * i)..]);
                }
                break;
            default:
                row.CopyTo(elements);
                break;
        }
    }

    /// <summary>
    /// GGUF has the elements of two sub-blocks of 32 in the low and high nibbles of 32 bytes; a lane wants one sub-block in 16 bytes, first
    /// half low, second half high.
    /// </summary>
    private static void Unpair(ReadOnlySpan<byte> source, Span<byte> target)
    {
        for (var pair = 0; pair < 4; pair++)
        {
            for (var i = 0; i < 16; i++)
            {
                byte a = source[32 * pair + i], b = source[32 * pair + i + 16];
                target[32 * pair + i] = (byte)(a & 15 | (b & 15) << 4);
                target[32 * pair + 16 + i] = (byte)(a >> 4 | b & 0xF0);
            }
        }
    }
}

/// <summary>Rows of one form, one after another.</summary>
/// <param name="Type">The form.</param>
/// <param name="FirstRow">The first row's number in the whole weight.</param>
/// <param name="Rows">How many.</param>
/// <param name="Elements">Rows of <see cref="CudaForms.ElementStride"/> bytes.</param>
/// <param name="Scales">Rows of <see cref="CudaForms.ScaleStride"/> bytes, or none.</param>
internal sealed record CudaPart(DType Type, int FirstRow, int Rows, CudaStorage Elements, CudaStorage? Scales);

/// <summary>A weight as the kernels read it: parts of different forms, neighbours of one form joined.</summary>
internal sealed class CudaWeight(CudaPart[] parts, int columns) : Weight
{
    public IReadOnlyList<CudaPart> Parts { get; private set; } = parts;

    public override int Rows { get; } = parts.Sum(p => p.Rows);

    public override int Columns { get; } = columns;

    public override long Bytes { get; } = parts.Sum(p => p.Elements.Bytes + (p.Scales?.Bytes ?? 0));

    public bool IsDisposed => Parts.Count == 0;

    protected override void Dispose(bool disposing)
    {
        foreach (var part in Parts)
        {
            part.Elements.Dispose();
            part.Scales?.Dispose();
        }
        Parts = [];
    }
}
