using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>Zeroed native memory on a 64-byte boundary: one cache line, one AVX-512 register.</summary>
internal sealed unsafe class CpuStorage : Storage
{
    private const nuint Alignment = 64;

    /// <exception cref="OutOfMemoryException">There is no room; the message names the size.</exception>
    public CpuStorage(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        Bytes = bytes;
        try
        {
            Pointer = (byte*)NativeMemory.AlignedAlloc((nuint)Math.Max(bytes, 1), Alignment);
        }
        catch (OutOfMemoryException e)
        {
            throw new OutOfMemoryException($"no room for {bytes} bytes", e);
        }
        NativeMemory.Clear(Pointer, (nuint)bytes);
        GC.AddMemoryPressure(Math.Max(bytes, 1));
    }

    ~CpuStorage() => Dispose(false);

    public override long Bytes { get; }

    /// <summary>The first byte; null after disposal.</summary>
    public byte* Pointer { get; private set; }

    protected override void Dispose(bool disposing)
    {
        if (Pointer is null)
            return;
        NativeMemory.AlignedFree(Pointer);
        Pointer = null;
        GC.RemoveMemoryPressure(Math.Max(Bytes, 1));
    }
}

/// <summary>Addresses of tensors in CPU memory; the one place that checks whose they are and of what type.</summary>
internal static unsafe class CpuTensors
{
    /// <summary>The first element of an F32 tensor.</summary>
    public static float* F32(this Tensor t) => (float*)At(t, DType.F32);

    /// <summary>The first element of an I32 tensor.</summary>
    public static int* I32(this Tensor t) => (int*)At(t, DType.I32);

    private static byte* At(Tensor t, DType type)
    {
        if (t.Storage is not CpuStorage storage || t.Type != type)
            throw new ArgumentException($"expected a {type} tensor in CPU memory, got {Describe(t)}");
        ObjectDisposedException.ThrowIf(storage.Pointer is null, storage);
        long size = type.BlockBytes(), start = t.Offset * size;
        if (start < 0 || t.Rows < 0 || t.Columns < 0 || start + t.Count * size > storage.Bytes)
            throw new ArgumentException($"{Describe(t)} at element {t.Offset} reaches beyond its storage of {storage.Bytes} bytes");
        return storage.Pointer + start;
    }

    private static string Describe(Tensor t) =>
        t.IsNone ? "none" : $"{t.Type} [{t.Rows}, {t.Columns}]{(t.Storage is CpuStorage ? "" : " of another device")}";
}
