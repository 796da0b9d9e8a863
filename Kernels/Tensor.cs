namespace Trimtab.Kernels;

/// <summary>Memory of one device. What is behind it is the device's own affair.</summary>
public abstract class Storage : IDisposable
{
    /// <summary>Size in bytes.</summary>
    public abstract long Bytes { get; }

    /// <summary>Gives the memory back. Tensors over it must not be used again.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the memory.</summary>
    protected abstract void Dispose(bool disposing);
}

/// <summary>
/// A row-major matrix view [Rows, Columns] over device memory; vectors are [1, N]. The default value is "no tensor".
/// </summary>
/// <param name="Storage">The memory, or null for no tensor.</param>
/// <param name="Type">The element type.</param>
/// <param name="Offset">First element, counted in elements from the start of the storage.</param>
/// <param name="Rows">Number of rows.</param>
/// <param name="Columns">Elements a row; rows follow each other without a gap.</param>
public readonly record struct Tensor(Storage? Storage, DType Type, long Offset, int Rows, int Columns)
{
    /// <summary>Whether this is no tensor at all (an absent bias, say).</summary>
    public bool IsNone => Storage is null;

    /// <summary>Number of elements.</summary>
    public long Count => (long)Rows * Columns;

    /// <summary>The view of rows [first, first + count).</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is outside the tensor.</exception>
    public Tensor Slice(int first, int count)
    {
        if (first < 0 || count < 0 || first > Rows - count)
            throw new ArgumentOutOfRangeException(nameof(first), $"rows [{first}, {first + (long)count}) of a tensor with {Rows} rows");
        return this with { Offset = Offset + (long)first * Columns, Rows = count };
    }

    /// <summary>The same elements as a matrix of another shape.</summary>
    /// <exception cref="ArgumentException">The element counts differ.</exception>
    public Tensor Reshape(int rows, int columns)
    {
        if ((long)rows * columns != Count)
            throw new ArgumentException($"[{Rows}, {Columns}] cannot be seen as [{rows}, {columns}]");
        return this with { Rows = rows, Columns = columns };
    }
}

/// <summary>
/// Rows of a weight matrix in host memory as a checkpoint stores them: what <see cref="Device.Pack"/> reads.
/// </summary>
/// <param name="Type">Storage form of the rows.</param>
/// <param name="Rows">Output features.</param>
/// <param name="Columns">Input features.</param>
/// <param name="Data">Address of the first row; valid only during the call that it is given to.</param>
/// <param name="RowOrder">Source row of each packed row, or null for the order as stored.</param>
/// <param name="Scales">Of F8E4M3 rows: the factor of each, or none for 1.</param>
public readonly record struct WeightData(DType Type, int Rows, int Columns, nint Data, int[]? RowOrder = null, ReadOnlyMemory<float> Scales = default)
{
    /// <summary>The factor of a stored row.</summary>
    public float ScaleOf(int row) => Scales.IsEmpty ? 1 : Scales.Span[row];
}

/// <summary>A weight matrix [Rows, Columns] in a device's own packed layout.</summary>
public abstract class Weight : IDisposable
{
    /// <summary>Output features: the rows of all its parts together.</summary>
    public abstract int Rows { get; }

    /// <summary>Input features.</summary>
    public abstract int Columns { get; }

    /// <summary>Bytes it takes on the device, padding included.</summary>
    public abstract long Bytes { get; }

    /// <summary>Gives the memory back.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the memory.</summary>
    protected abstract void Dispose(bool disposing);
}
