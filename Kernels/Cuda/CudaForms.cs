using System.Buffers.Binary;

namespace Trimtab.Kernels.Cuda;

/// <summary>How the kernels want weight rows (Source/forms.cuh): elements and scales apart, each row on 16 bytes.</summary>
internal static class CudaForms
{
    private static readonly DType[] Order = [DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K, DType.F8E4M3, DType.Q6_K, DType.I4G128];

    /// <summary>
    /// The forms that are computed as they are, and smaller int4 groups by the kernels of those of 128. Others are converted when a model is
    /// loaded (to Q8_0 from blocks, BF16 from F8E5M2).
    /// </summary>
    public static ReadOnlySpan<DType> All => Order;

    /// <summary>The macro FORM of a form; −1 for none.</summary>
    public static int Number(DType type) => Array.IndexOf(Order, type is DType.I4G32 or DType.I4G64 ? DType.I4G128 : type);

    /// <summary>Bytes of a row's elements.</summary>
    public static int ElementStride(DType type, int columns) => type switch
    {
        DType.F32 => (columns + 7) / 8 * 32,
        DType.F16 or DType.BF16 => (columns + 7) / 8 * 16,
        DType.Q8_0 => columns,
        DType.F8E4M3 => (columns + 15) / 16 * 16,
        DType.Q6_K => columns / 4 * 3,
        _ => columns / 2,
    };

    /// <summary>Bytes of a row's scales.</summary>
    public static int ScaleStride(DType type, int columns) => type switch
    {
        DType.Q8_0 or DType.Q4_0 => columns / 32 * 2,
        DType.Q4_1 => columns / 32 * 4,
        DType.Q4_K => columns / 256 * 16,
        DType.Q6_K => columns / 256 * 18,
        DType.F8E4M3 => sizeof(float),
        DType.I4G32 or DType.I4G64 or DType.I4G128 => columns / type.BlockSize() * 4,
        _ => 0,
    };

    /// <summary>Rearranges a row. The targets are zeroed; <paramref name="scale"/> is an F8E4M3 row's.</summary>
    public static void Pack(DType type, ReadOnlySpan<byte> row, Span<byte> elements, Span<byte> scales, float scale)
    {
        var block = type.BlockBytes();
        switch (type)
        {
            case DType.Q8_0:
            case DType.Q4_0:
            case DType.Q4_1:
            case DType.I4G32 or DType.I4G64 or DType.I4G128:
                int head = type is DType.Q8_0 or DType.Q4_0 ? 2 : 4, body = block - head;
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
            case DType.Q6_K:
                for (var i = 0; i * block < row.Length; i++)
                {
                    var source = row.Slice(i * block, block);
                    source.Slice(192, 16).CopyTo(scales[(16 * i)..]);
                    source[208..].CopyTo(scales[(scales.Length / 18 * 16 + 2 * i)..]);
                    UnpairSix(source, elements.Slice(128 * i, 128), elements.Slice(elements.Length / 3 * 2 + 64 * i, 64));
                }
                break;
            case DType.F8E4M3:
                row.CopyTo(elements);
                BinaryPrimitives.WriteSingleLittleEndian(scales, scale);
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

    /// <summary>
    /// GGUF's Q6_K has of each half of 128 the low bits of elements l and l + 64 in one byte, and two high bits of four elements 32 apart in another.
    /// A lane wants 32 neighbours: low bits as above, high bits of each half of them in a word.
    /// </summary>
    private static void UnpairSix(ReadOnlySpan<byte> source, Span<byte> low, Span<byte> high)
    {
        low.Clear();
        high.Clear();
        for (var e = 0; e < 256; e++)
        {
            var (half, l, quarter) = (e / 128, e % 32, e % 128 / 32);
            var bits = source[64 * half + 32 * (quarter % 2) + l] >> 4 * (quarter / 2) & 15;
            var top = source[128 + 32 * half + l] >> 2 * quarter & 3;
            low[e / 32 * 16 + e % 16] |= (byte)(bits << e / 16 % 2 * 4);
            high[e / 16 * 4 + e % 16 / 4] |= (byte)(top << e % 4 * 2);
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
