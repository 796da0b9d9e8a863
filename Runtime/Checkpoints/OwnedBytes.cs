using System.Runtime.InteropServices;

namespace Trimtab.Checkpoints;

/// <summary>Native memory of a tensor that comes from no file as it is.</summary>
internal sealed unsafe class OwnedBytes : SafeBuffer
{
    /// <summary>Takes memory, aligned for any instruction.</summary>
    public OwnedBytes(long bytes) : base(ownsHandle: true)
    {
        SetHandle((nint)NativeMemory.AlignedAlloc(checked((nuint)Math.Max(bytes, 1)), 64));
        Initialize((ulong)bytes);
    }

    /// <summary>The first byte.</summary>
    public byte* Data => (byte*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMemory.AlignedFree((void*)handle);
        return true;
    }
}
