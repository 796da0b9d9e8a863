namespace Trimtab.Kernels.Cuda;

/// <summary>
/// Memory of a GPU. Disposal queues the release behind the work that was queued before it. The finaliser of one that was forgotten only
/// leaves its address with the device, which frees it when it next allocates: on a thread that has the context, between two ops.
/// </summary>
internal sealed class CudaStorage : Storage
{
    private readonly CudaDevice _device;

    public CudaStorage(CudaDevice device, nint pointer, long bytes) => (_device, Pointer, Bytes) = (device, pointer, bytes);

    ~CudaStorage() => Dispose(false);

    public override long Bytes { get; }

    /// <summary>The first byte's device address; 0 after disposal.</summary>
    public nint Pointer { get; private set; }

    /// <summary>Whose it is.</summary>
    public CudaDevice Device => _device;

    protected override void Dispose(bool disposing)
    {
        var pointer = Pointer;
        Pointer = 0;
        if (pointer == 0)
            return;
        if (disposing)
            _device.Free(pointer);
        else
            _device.Forget(pointer);
    }
}

/// <summary>Addresses of tensors in a GPU's memory; the one place that checks whose they are and how far they reach.</summary>
internal static class CudaTensors
{
    /// <summary>The first element's device address.</summary>
    public static nint At(this Tensor t)
    {
        if (t.Storage is not CudaStorage storage)
            throw new ArgumentException($"expected a tensor in GPU memory, got {t.Describe()}");
        ObjectDisposedException.ThrowIf(storage.Pointer == 0, storage);
        long size = t.Type.BlockBytes(), start = t.Offset * size;
        if (start < 0 || t.Rows < 0 || t.Columns < 0 || start + t.Count * size > storage.Bytes)
            throw new ArgumentException($"{t.Describe()} at element {t.Offset} reaches beyond its storage of {storage.Bytes} bytes");
        return storage.Pointer + (nint)start;
    }

    /// <summary>The address, or 0 for no tensor.</summary>
    public static nint AtOrNone(this Tensor t) => t.IsNone ? 0 : t.At();

    /// <summary>The address of a tensor that must be of a type.</summary>
    public static nint At(this Tensor t, DType type) =>
        t.Type == type ? t.At() : throw new ArgumentException($"expected a {type} tensor in GPU memory, got {t.Describe()}");

    /// <summary>Type and shape, for messages.</summary>
    public static string Describe(this Tensor t) =>
        t.IsNone ? "none" : $"{t.Type} [{t.Rows}, {t.Columns}]{(t.Storage is CudaStorage ? "" : " of another device")}";
}
