using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Zeroed native memory on a 64-byte boundary: one cache line, one AVX-512 register. Large sizes come from the system untouched, so
/// zeroing them costs nothing, and ask for pages of 2 MB: a stream of weights then stumbles over fewer page borders.
/// </summary>
internal sealed unsafe partial class CpuStorage : Storage
{
    private const int Line = 64, HugePage = 2 << 20;

    private void* _allocation;

    /// <exception cref="OutOfMemoryException">There is no room; the message names the size.</exception>
    public CpuStorage(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        Bytes = bytes;
        var alignment = bytes >= 2 * HugePage ? HugePage : Line;
        try
        {
            _allocation = NativeMemory.AllocZeroed(checked((nuint)bytes + (nuint)alignment));
        }
        catch (Exception e) when (e is OutOfMemoryException or OverflowException)
        {
            throw new OutOfMemoryException($"there is no room for {bytes} bytes", e);
        }
        Pointer = (byte*)((nuint)_allocation + (nuint)alignment - 1 & ~((nuint)alignment - 1));
        if (alignment == HugePage && OperatingSystem.IsLinux())
            Advise(Pointer, (nuint)bytes & ~(nuint)(HugePage - 1), 14); // MADV_HUGEPAGE; pages stay small where it is refused
    }

    ~CpuStorage() => Dispose(false);

    public override long Bytes { get; }

    /// <summary>The first byte; null after disposal.</summary>
    public byte* Pointer { get; private set; }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(byte* address, nuint length, int advice);

    protected override void Dispose(bool disposing)
    {
        NativeMemory.Free(_allocation);
        _allocation = Pointer = null;
    }
}

/// <summary>Addresses of tensors in CPU memory; the one place that checks whose they are and of what type.</summary>
internal static unsafe class CpuTensors
{
    /// <summary>The first element of an F32 tensor.</summary>
    public static float* F32(this Tensor t) => (float*)At(t, DType.F32);

    /// <summary>The first element of an I32 tensor.</summary>
    public static int* I32(this Tensor t) => (int*)At(t, DType.I32);

    private static byte* At(Tensor t, DType type) =>
        t.Type == type ? t.At() : throw new ArgumentException($"expected a {type} tensor in CPU memory, got {t.Describe()}");

    /// <summary>The first byte of a tensor of whatever type.</summary>
    public static byte* At(this Tensor t)
    {
        if (t.Storage is not CpuStorage storage)
            throw new ArgumentException($"expected a tensor in CPU memory, got {t.Describe()}");
        ObjectDisposedException.ThrowIf(storage.Pointer is null, storage);
        long size = t.Type.BlockBytes(), start = t.Offset * size;
        if (start < 0 || t.Rows < 0 || t.Columns < 0 || start + t.Count * size > storage.Bytes)
            throw new ArgumentException($"{t.Describe()} at element {t.Offset} reaches beyond its storage of {storage.Bytes} bytes");
        return storage.Pointer + start;
    }

    /// <summary>Type and shape, for messages.</summary>
    public static string Describe(this Tensor t) =>
        t.IsNone ? "none" : $"{t.Type} [{t.Rows}, {t.Columns}]{(t.Storage is CpuStorage ? "" : " of another device")}";
}
