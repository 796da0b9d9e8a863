namespace Trimtab.Kernels.Reference;

/// <summary>Managed memory of the reference device: doubles, or integers.</summary>
internal sealed class ReferenceStorage : Storage
{
    public ReferenceStorage(DType type, long count)
    {
        Bytes = count * type.BlockBytes();
        if (count > Array.MaxLength)
            throw new OutOfMemoryException($"no room for {count} elements of {type}");
        if (type == DType.I32)
            Integers = new int[count];
        else
            Values = new double[count];
    }

    public override long Bytes { get; }

    /// <summary>Elements of tensors of numbers, rounded to what their type holds.</summary>
    public double[] Values { get; private set; } = [];

    public int[] Integers { get; private set; } = [];

    protected override void Dispose(bool disposing)
    {
        Values = [];
        Integers = [];
    }
}

/// <summary>Weights as doubles, a row an array.</summary>
internal sealed class ReferenceWeight(double[][] values, int columns) : Weight
{
    public double[][] Values { get; private set; } = values;

    public override int Rows { get; } = values.Length;

    public override int Columns { get; } = columns;

    public override long Bytes => (long)Rows * Columns * sizeof(double);

    protected override void Dispose(bool disposing) => Values = [];
}

/// <summary>Elements of the reference device's tensors.</summary>
internal static class ReferenceTensors
{
    /// <summary>All elements of a tensor of numbers.</summary>
    public static Span<double> Values(this Tensor t)
    {
        if (t.Storage is not ReferenceStorage storage || t.Type is not (DType.F64 or DType.F32 or DType.BF16 or DType.U8 or DType.F8E4M3))
            throw new ArgumentException($"expected a tensor of numbers of the reference device, got {t.Type} [{t.Rows}, {t.Columns}]");
        return storage.Values.AsSpan(checked((int)t.Offset), checked((int)t.Count));
    }

    /// <summary>A row of a tensor of numbers.</summary>
    public static Span<double> Row(this Tensor t, int row) => t.Slice(row, 1).Values();

    /// <summary>All elements of an I32 tensor.</summary>
    public static Span<int> Integers(this Tensor t)
    {
        if (t.Storage is not ReferenceStorage storage || t.Type != DType.I32)
            throw new ArgumentException($"expected an I32 tensor of the reference device, got {t.Type} [{t.Rows}, {t.Columns}]");
        return storage.Integers.AsSpan(checked((int)t.Offset), checked((int)t.Count));
    }

    public static ReferenceWeight OfReference(this Weight weight) => weight as ReferenceWeight
        ?? throw new ArgumentException($"a weight of the reference device was expected, got {weight?.GetType().Name ?? "none"}");
}
