using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>CUresult: what a driver call answers. Only the values that are acted on have names here; the driver names the rest.</summary>
internal enum CUresult
{
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
}

/// <summary>CUdevice_attribute, those that are asked for.</summary>
internal enum CUdevice_attribute
{
    MAX_SHARED_MEMORY_PER_BLOCK = 8,
    CLOCK_RATE = 13,
    MULTIPROCESSOR_COUNT = 16,
    MEMORY_CLOCK_RATE = 36,
    GLOBAL_MEMORY_BUS_WIDTH = 37,
    L2_CACHE_SIZE = 38,
    COMPUTE_CAPABILITY_MAJOR = 75,
    COMPUTE_CAPABILITY_MINOR = 76,
    MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
    MEMORY_POOLS_SUPPORTED = 115,
}

/// <summary>CUfunction_attribute.</summary>
internal enum CUfunction_attribute
{
    MAX_THREADS_PER_BLOCK = 0,
    SHARED_SIZE_BYTES = 1,
    LOCAL_SIZE_BYTES = 3,
    NUM_REGS = 4,
    BINARY_VERSION = 6,
    MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
}

/// <summary>CUlaunchConfig.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CUlaunchConfig
{
    public uint gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    public nint hStream;
    public nint attrs;
    public uint numAttrs;
}

/// <summary>CUlaunchAttribute: a number, and a union of 64 bytes, of which the attributes that are used take an int.</summary>
[StructLayout(LayoutKind.Explicit, Size = 72)]
internal struct CUlaunchAttribute
{
    [FieldOffset(0)] public int id;
    [FieldOffset(8)] public int value;
}

/// <summary>CUgraphExecUpdateResultInfo.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CUgraphExecUpdateResultInfo
{
    public int result;
    public nint errorNode, errorFromNode;
}
