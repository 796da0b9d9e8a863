using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Zeroed native memory on a 64-byte boundary: one cache line, one AVX-512 register. Large sizes come from the system untouched, so
/// zeroing them costs nothing, and ask for pages of 2 MB: a stream of weights then stumbles over fewer page borders. Middling sizes,
/// a small model's matrices, lie beside each other in such pages (<see cref="CpuArena"/>).
/// </summary>
internal sealed unsafe partial class CpuStorage : Storage
{
    private const int Line = 64, HugePage = 2 << 20;

    private void* _allocation;
    private CpuArena? _arena;

    /// <exception cref="OutOfMemoryException">There is no room; the message names the size.</exception>
    public CpuStorage(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        Bytes = bytes;
        if (bytes is >= CpuArena.Least and < 2 * HugePage)
        {
            Pointer = CpuArena.Take(bytes, out _arena);
            return;
        }
        _allocation = Allocate(bytes, bytes >= 2 * HugePage ? HugePage : Line, out var pointer);
        Pointer = pointer;
    }

    ~CpuStorage() => Dispose(false);

    /// <summary>Zeroed memory on a boundary; from 2 MB on in pages of that size where they are to be had.</summary>
    /// <returns>What is to be freed.</returns>
    public static void* Allocate(long bytes, int alignment, out byte* pointer)
    {
        void* allocation;
        try
        {
            allocation = NativeMemory.AllocZeroed(checked((nuint)bytes + (nuint)alignment));
        }
        catch (Exception e) when (e is OutOfMemoryException or OverflowException)
        {
            throw new OutOfMemoryException($"there is no room for {bytes} bytes", e);
        }
        pointer = (byte*)((nuint)allocation + (nuint)alignment - 1 & ~((nuint)alignment - 1));
        if (alignment == HugePage && OperatingSystem.IsLinux())
            Advise(pointer, (nuint)bytes & ~(nuint)(HugePage - 1), 14); // MADV_HUGEPAGE; pages stay small where it is refused
        return allocation;
    }

    public override long Bytes { get; }

    /// <summary>The first byte; null after disposal.</summary>
    public byte* Pointer { get; private set; }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(byte* address, nuint length, int advice);

    protected override void Dispose(bool disposing)
    {
        NativeMemory.Free(_allocation);
        _allocation = Pointer = null;
        _arena?.Give();
        _arena = null;
    }
}

/// <summary>
/// Memory in pages of 2 MB that storages take pieces of, one after another; it goes back when it is full and its last piece has
/// been given back. Nothing is taken twice, so all of it is zero.
/// </summary>
internal sealed unsafe class CpuArena
{
    /// <summary>Bytes from which on a storage takes a piece.</summary>
    public const int Least = 64 << 10;

    private const int Size = 32 << 20, Line = 64, HugePage = 2 << 20;

    private static readonly Lock Gate = new();
    private static CpuArena? current;

    private readonly void* _allocation;
    private readonly byte* _begin;
    private long _taken;
    private int _pieces;

    private CpuArena() => _allocation = CpuStorage.Allocate(Size, HugePage, out _begin);

    /// <summary>A piece, and the arena that it is to be given back to.</summary>
    public static byte* Take(long bytes, out CpuArena arena)
    {
        lock (Gate)
        {
            var size = (bytes + Line - 1) / Line * Line;
            if (current is null || current._taken + size > Size)
            {
                var full = current;
                current = new();
                current._pieces++; // its own, while others may be taken
                full?.Drop();
            }
            arena = current;
            var piece = arena._begin + arena._taken;
            arena._taken += size;
            arena._pieces++;
            return piece;
        }
    }

    /// <summary>Gives a piece back.</summary>
    public void Give()
    {
        lock (Gate)
            Drop();
    }

    private void Drop()
    {
        if (--_pieces == 0)
            NativeMemory.Free(_allocation);
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
