using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// The CUDA driver API under its own names, as far as it is used. Handles are numbers here; <see cref="CudaHandle"/> owns them.
/// <see cref="CudaLibraries"/> finds the library; a machine without one gets a <see cref="DllNotFoundException"/> at the first call.
/// </summary>
internal static unsafe partial class Driver
{
    /// <summary>What the library is called in declarations; resolved to the platform's file.</summary>
    public const string Library = "cuda";

    public const uint CU_STREAM_NON_BLOCKING = 1, CU_EVENT_DEFAULT = 0, CU_EVENT_DISABLE_TIMING = 2, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1;
    public const int CU_MEMPOOL_ATTR_RELEASE_THRESHOLD = 4;
    public const nint CU_LAUNCH_PARAM_BUFFER_POINTER = 1, CU_LAUNCH_PARAM_BUFFER_SIZE = 2;
    public const int CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6;

    static Driver() => CudaLibraries.Register();

    [LibraryImport(Library)] public static partial CUresult cuInit(uint flags);
    [LibraryImport(Library)] public static partial CUresult cuDriverGetVersion(out int version);
    [LibraryImport(Library)] public static partial CUresult cuGetErrorName(CUresult error, out byte* name);
    [LibraryImport(Library)] public static partial CUresult cuGetErrorString(CUresult error, out byte* text);

    [LibraryImport(Library)] public static partial CUresult cuDeviceGetCount(out int count);
    [LibraryImport(Library)] public static partial CUresult cuDeviceGet(out int device, int ordinal);
    [LibraryImport(Library)] public static partial CUresult cuDeviceGetName(byte* name, int length, int device);
    [LibraryImport(Library)] public static partial CUresult cuDeviceGetAttribute(out int value, CUdevice_attribute attribute, int device);
    [LibraryImport(Library)] public static partial CUresult cuDeviceGetPCIBusId(byte* id, int length, int device);
    [LibraryImport(Library, EntryPoint = "cuDeviceTotalMem_v2")] public static partial CUresult cuDeviceTotalMem(out nuint bytes, int device);
    [LibraryImport(Library)] public static partial CUresult cuDevicePrimaryCtxRetain(out nint context, int device);
    [LibraryImport(Library, EntryPoint = "cuDevicePrimaryCtxRelease_v2")] public static partial CUresult cuDevicePrimaryCtxRelease(int device);
    [LibraryImport(Library)] public static partial CUresult cuCtxSetCurrent(nint context);
    [LibraryImport(Library)] public static partial CUresult cuCtxSynchronize();

    [LibraryImport(Library)] public static partial CUresult cuModuleLoadData(out nint module, byte* image);
    [LibraryImport(Library)] public static partial CUresult cuModuleUnload(nint module);
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)] public static partial CUresult cuModuleGetFunction(out nint function, nint module, string name);
    [LibraryImport(Library)] public static partial CUresult cuFuncGetAttribute(out int value, CUfunction_attribute attribute, nint function);
    [LibraryImport(Library)] public static partial CUresult cuFuncSetAttribute(nint function, CUfunction_attribute attribute, int value);
    [LibraryImport(Library)] public static partial CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(out int blocks, nint function, int blockSize, nuint dynamicShared);
    [LibraryImport(Library)] public static partial CUresult cuLaunchKernelEx(CUlaunchConfig* config, nint function, nint* parameters, nint* extra);

    [LibraryImport(Library, EntryPoint = "cuMemGetInfo_v2")] public static partial CUresult cuMemGetInfo(out nuint free, out nuint total);
    [LibraryImport(Library)] public static partial CUresult cuDeviceGetDefaultMemPool(out nint pool, int device);
    [LibraryImport(Library)] public static partial CUresult cuMemPoolSetAttribute(nint pool, int attribute, void* value);
    [LibraryImport(Library)] public static partial CUresult cuMemAllocAsync(out nint pointer, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CUresult cuMemFreeAsync(nint pointer, nint stream);
    [LibraryImport(Library)] public static partial CUresult cuMemHostAlloc(out nint pointer, nuint bytes, uint flags);
    [LibraryImport(Library)] public static partial CUresult cuMemFreeHost(nint pointer);
    [LibraryImport(Library, EntryPoint = "cuMemcpyHtoDAsync_v2")] public static partial CUresult cuMemcpyHtoDAsync(nint target, void* source, nuint bytes, nint stream);
    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoHAsync_v2")] public static partial CUresult cuMemcpyDtoHAsync(void* target, nint source, nuint bytes, nint stream);
    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoDAsync_v2")] public static partial CUresult cuMemcpyDtoDAsync(nint target, nint source, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CUresult cuMemsetD8Async(nint target, byte value, nuint bytes, nint stream);

    [LibraryImport(Library)] public static partial CUresult cuStreamCreate(out nint stream, uint flags);
    [LibraryImport(Library, EntryPoint = "cuStreamDestroy_v2")] public static partial CUresult cuStreamDestroy(nint stream);
    [LibraryImport(Library)] public static partial CUresult cuStreamSynchronize(nint stream);
    [LibraryImport(Library)] public static partial CUresult cuStreamQuery(nint stream);
    [LibraryImport(Library)] public static partial CUresult cuStreamWaitEvent(nint stream, nint evt, uint flags);
    [LibraryImport(Library)] public static partial CUresult cuEventCreate(out nint evt, uint flags);
    [LibraryImport(Library, EntryPoint = "cuEventDestroy_v2")] public static partial CUresult cuEventDestroy(nint evt);
    [LibraryImport(Library)] public static partial CUresult cuEventRecord(nint evt, nint stream);
    [LibraryImport(Library)] public static partial CUresult cuEventSynchronize(nint evt);
    [LibraryImport(Library)] public static partial CUresult cuEventQuery(nint evt);
    [LibraryImport(Library)] public static partial CUresult cuEventElapsedTime(out float milliseconds, nint start, nint end);

    [LibraryImport(Library, EntryPoint = "cuStreamBeginCapture_v2")] public static partial CUresult cuStreamBeginCapture(nint stream, uint mode);
    [LibraryImport(Library)] public static partial CUresult cuStreamEndCapture(nint stream, out nint graph);
    [LibraryImport(Library)] public static partial CUresult cuGraphInstantiateWithFlags(out nint graphExec, nint graph, ulong flags);
    [LibraryImport(Library, EntryPoint = "cuGraphExecUpdate_v2")] public static partial CUresult cuGraphExecUpdate(nint graphExec, nint graph, CUgraphExecUpdateResultInfo* info);
    [LibraryImport(Library)] public static partial CUresult cuGraphLaunch(nint graphExec, nint stream);
    [LibraryImport(Library)] public static partial CUresult cuGraphExecDestroy(nint graphExec);
    [LibraryImport(Library)] public static partial CUresult cuGraphDestroy(nint graph);
}
