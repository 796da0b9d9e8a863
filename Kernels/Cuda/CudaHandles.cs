using Microsoft.Win32.SafeHandles;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// Owns a driver object. Only Dispose gives it back: a finaliser runs on a thread and at a time of its own, when the context may be
/// gone, so what was forgotten goes with the process.
/// </summary>
internal abstract class CudaHandle : SafeHandleZeroOrMinusOneIsInvalid
{
    private bool _disposing;

    protected CudaHandle(nint value) : base(ownsHandle: true) => SetHandle(value);

    /// <summary>The driver's handle.</summary>
    public nint Value
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return handle;
        }
    }

    protected override void Dispose(bool disposing)
    {
        _disposing = disposing;
        base.Dispose(disposing);
    }

    protected override bool ReleaseHandle() => !_disposing || Free(handle) == CUresult.CUDA_SUCCESS;

    protected abstract CUresult Free(nint value);
}

/// <summary>A loaded module.</summary>
internal sealed class CudaModule(nint value) : CudaHandle(value)
{
    protected override CUresult Free(nint value) => Driver.cuModuleUnload(value);
}

/// <summary>A stream, and whether what was queued on it last is a kernel of this project.</summary>
internal sealed class CudaStream(nint value) : CudaHandle(value)
{
    /// <summary>Whoever takes the handle queues something that is not, or may: only a launch of such a kernel says otherwise, when it has succeeded.</summary>
    public new nint Value
    {
        get
        {
            EndsInKernel = false;
            return base.Value;
        }
    }

    /// <summary>Whether the next thing to be queued follows a kernel of this project, with nothing between the two.</summary>
    public bool EndsInKernel { get; set; }

    public static CudaStream Create()
    {
        Driver.cuStreamCreate(out var value, Driver.CU_STREAM_NON_BLOCKING).Check("cuStreamCreate");
        return new(value);
    }

    protected override CUresult Free(nint value) => Driver.cuStreamDestroy(value);
}

/// <summary>An event.</summary>
internal sealed class CudaEvent(nint value) : CudaHandle(value)
{
    public static CudaEvent Create(bool timing = false)
    {
        Driver.cuEventCreate(out var value, timing ? Driver.CU_EVENT_DEFAULT : Driver.CU_EVENT_DISABLE_TIMING).Check("cuEventCreate");
        return new(value);
    }

    protected override CUresult Free(nint value) => Driver.cuEventDestroy(value);
}

/// <summary>A graph that can be launched.</summary>
internal sealed class CudaGraphExec(nint value) : CudaHandle(value)
{
    protected override CUresult Free(nint value) => Driver.cuGraphExecDestroy(value);
}

/// <summary>Host memory that the GPU reads and writes by itself.</summary>
internal sealed class PinnedMemory(nint value, long bytes) : CudaHandle(value)
{
    public long Bytes { get; } = bytes;

    public static PinnedMemory Allocate(long bytes)
    {
        Driver.cuMemHostAlloc(out var value, checked((nuint)bytes), 0).Check($"cuMemHostAlloc of {bytes} bytes");
        return new(value, bytes);
    }

    protected override CUresult Free(nint value) => Driver.cuMemFreeHost(value);
}
