using System.Runtime.InteropServices;
using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>A tensor to be written.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">How its elements are stored.</param>
/// <param name="Shape">Dimensions, outermost first; empty for a scalar.</param>
/// <param name="Write">Writes exactly <see cref="Bytes"/> bytes, little-endian, so that data larger than memory can be streamed.</param>
public sealed record TensorData(string Name, DType Type, IReadOnlyList<long> Shape, Action<Stream> Write)
{
    /// <summary>Size of the data: shape × type.</summary>
    /// <exception cref="ArgumentException">The shape is impossible, or its rows are no whole number of blocks.</exception>
    public long Bytes
    {
        get
        {
            if (TensorInfo.Count(Shape) is not { } elements || elements / Type.BlockSize() > long.MaxValue / Type.BlockBytes())
                throw new ArgumentException($"tensor '{Name}' has the impossible shape {TensorInfo.Show(Shape)}");
            if (Shape.Count > 0)
                Type.RowBytes(Shape[^1]);
            else if (Type.IsQuantized())
                throw new ArgumentException($"tensor '{Name}' is a scalar, which {Type} cannot hold");
            return elements / Type.BlockSize() * Type.BlockBytes();
        }
    }

    /// <summary>Bytes in memory.</summary>
    public static TensorData Of(string name, DType type, IReadOnlyList<long> shape, ReadOnlyMemory<byte> data) =>
        new(name, type, shape, stream => stream.Write(data.Span));

    /// <summary>Values in memory, as F32.</summary>
    public static TensorData Of(string name, IReadOnlyList<long> shape, ReadOnlyMemory<float> values) =>
        new(name, DType.F32, shape, stream => stream.Write(MemoryMarshal.AsBytes(values.Span)));

    /// <summary>Writes the data and holds it to its size.</summary>
    internal void WriteTo(Stream stream)
    {
        var start = stream.Position;
        Write(stream);
        if (stream.Position - start != Bytes)
            throw new ArgumentException(
                $"tensor '{Name}' wrote {stream.Position - start} bytes; its shape {TensorInfo.Show(Shape)} of {Type} takes {Bytes}");
    }
}
