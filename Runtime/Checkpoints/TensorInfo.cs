using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>Where a tensor lies and how it is stored.</summary>
/// <param name="Name">The checkpoint's name for it.</param>
/// <param name="Type">How its elements are stored.</param>
/// <param name="Shape">Dimensions, outermost first as PyTorch counts (GGUF's <c>ne</c> reversed); empty for a scalar.</param>
/// <param name="File">Full path of the file that holds it.</param>
/// <param name="Offset">Its first byte in that file; no alignment is promised.</param>
/// <param name="Bytes">Its size, which equals shape × type; 0 for a tensor without elements.</param>
public sealed record TensorInfo(string Name, DType Type, IReadOnlyList<long> Shape, string File, long Offset, long Bytes)
{
    /// <summary>How many elements it has.</summary>
    public long Elements => Shape.Aggregate(1L, (product, dimension) => product * dimension);

    /// <summary>
    /// The product of <paramref name="shape"/>, or null where a dimension is negative or the product of those that are not zero
    /// overflows a long (so that no part of the product overflows later either).
    /// </summary>
    internal static long? Count(IReadOnlyList<long> shape)
    {
        var product = 1L;
        var empty = false;
        foreach (var dimension in shape)
        {
            if (dimension < 0 || (dimension > 0 && product > long.MaxValue / dimension))
                return null;
            empty |= dimension == 0;
            product *= dimension == 0 ? 1 : dimension;
        }
        return empty ? 0 : product;
    }

    /// <summary>Shape for a message.</summary>
    internal static string Show(IReadOnlyList<long> shape) =>
        shape.Count <= 8 ? $"[{string.Join(", ", shape)}]" : $"[{string.Join(", ", shape.Take(8))}, … {shape.Count} dimensions]";

    /// <summary>The first tensor that begins before the one before it ends, or null where none do; zero-size tensors lie anywhere.</summary>
    internal static (string Name, string Under)? Overlap(IEnumerable<(string Name, long Offset, long Bytes)> tensors)
    {
        (string Name, long End) last = ("", long.MinValue);
        foreach (var (name, offset, bytes) in tensors.Where(tensor => tensor.Bytes > 0).OrderBy(tensor => tensor.Offset))
        {
            if (offset < last.End)
                return (name, last.Name);
            last = (name, offset + bytes);
        }
        return null;
    }
}
