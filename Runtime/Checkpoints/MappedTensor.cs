using System.IO.MemoryMappedFiles;
using System.Runtime.CompilerServices;
using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>
/// One tensor's bytes, mapped from its file. They are read-only, may lie at any alignment, and stay readable until this is disposed,
/// even after the checkpoint is; disposing unmaps them, so that weights which have been packed do not stay resident twice.
/// </summary>
public sealed unsafe class MappedTensor : IDisposable
{
    private readonly IDisposable? _memory; // null where there are no bytes
    private readonly byte* _data;
    private bool _disposed;

    internal MappedTensor(TensorInfo info, MemoryMappedViewAccessor? view)
    {
        Info = info;
        _memory = view;
        // The handle is not locked by AcquirePointer: its finalizer must be able to unmap a tensor that nobody disposed.
        if (view is not null)
            _data = (byte*)view.SafeMemoryMappedViewHandle.DangerousGetHandle() + view.PointerOffset;
    }

    /// <summary>Bytes that come from no file.</summary>
    /// <param name="info">What they are.</param>
    /// <param name="memory">Owner of the memory, disposed with this.</param>
    /// <param name="data">First byte.</param>
    internal MappedTensor(TensorInfo info, IDisposable memory, byte* data)
    {
        (Info, _memory) = (info, memory);
        _data = data;
    }

    /// <summary>What is mapped.</summary>
    public TensorInfo Info { get; }

    /// <summary>First byte; null where the tensor has no elements.</summary>
    /// <exception cref="ObjectDisposedException">The tensor was unmapped.</exception>
    public byte* Data
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _data;
        }
    }

    /// <summary><see cref="Data"/> as a number.</summary>
    /// <exception cref="ObjectDisposedException">The tensor was unmapped.</exception>
    public nint Address => (nint)Data;

    /// <summary>How many bytes are mapped.</summary>
    public long Bytes => Info.Bytes;

    /// <summary>All bytes.</summary>
    /// <exception cref="InvalidOperationException">There are more than a span can count (2 GiB): use <see cref="Data"/>.</exception>
    /// <exception cref="ObjectDisposedException">The tensor was unmapped.</exception>
    public ReadOnlySpan<byte> Span => Bytes <= int.MaxValue
        ? new ReadOnlySpan<byte>(Data, (int)Bytes)
        : throw new InvalidOperationException($"tensor '{Info.Name}' has {Bytes} bytes, more than a span can count");

    /// <summary>The values as float32, outermost dimension slowest, for tensors that are small beside the model (norms, biases, vectors).</summary>
    /// <exception cref="InvalidCheckpointException">The type is not F32, F16, BF16 or F64, or there are too many elements for an array.</exception>
    /// <exception cref="ObjectDisposedException">The tensor was unmapped.</exception>
    public float[] ToFloats()
    {
        var data = Data;
        if (Info.Type is not (DType.F32 or DType.F16 or DType.BF16 or DType.F64))
            throw new InvalidCheckpointException(
                $"{Info.File}: tensor {InvalidCheckpointException.Quote(Info.Name)} is stored as {Info.Type}; expected F32, F16, BF16 or F64");
        var count = Bytes / Info.Type.BlockBytes();
        if (count > Array.MaxLength)
            throw new InvalidCheckpointException(
                $"{Info.File}: tensor {InvalidCheckpointException.Quote(Info.Name)} has {count} elements, too many for one array");
        var values = new float[count];
        switch (Info.Type)
        {
            case DType.F32:
                for (var i = 0; i < values.Length; i++)
                    values[i] = Unsafe.ReadUnaligned<float>(data + 4L * i);
                break;
            case DType.F16:
                for (var i = 0; i < values.Length; i++)
                    values[i] = (float)Unsafe.ReadUnaligned<Half>(data + 2L * i);
                break;
            case DType.BF16:
                for (var i = 0; i < values.Length; i++)
                    values[i] = BitConverter.UInt32BitsToSingle((uint)Unsafe.ReadUnaligned<ushort>(data + 2L * i) << 16);
                break;
            default:
                for (var i = 0; i < values.Length; i++)
                    values[i] = (float)Unsafe.ReadUnaligned<double>(data + 8L * i);
                break;
        }
        return values;
    }

    /// <summary>Unmaps the bytes.</summary>
    public void Dispose()
    {
        _disposed = true;
        _memory?.Dispose();
    }
}
