using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>NCCL under its own names, as far as it is used. Results are ncclResult_t: 0 is success.</summary>
internal static unsafe partial class Nccl
{
    /// <summary>What the library is called in declarations; resolved to the platform's file.</summary>
    public const string Library = "nccl";

    public const int ncclFloat32 = 7, ncclBfloat16 = 9, ncclSum = 0, ncclInProgress = 7;

    static Nccl() => CudaLibraries.Register();

    [LibraryImport(Library)] public static partial byte* ncclGetErrorString(int result);
    [LibraryImport(Library)] public static partial int ncclCommInitAll(nint* comms, int devices, int* ordinals);
    [LibraryImport(Library)] public static partial int ncclCommDestroy(nint comm);
    [LibraryImport(Library)] public static partial int ncclCommAbort(nint comm);
    [LibraryImport(Library)] public static partial int ncclCommGetAsyncError(nint comm, out int result);
    [LibraryImport(Library)] public static partial int ncclGroupStart();
    [LibraryImport(Library)] public static partial int ncclGroupEnd();
    [LibraryImport(Library)] public static partial int ncclAllReduce(nint send, nint receive, nuint count, int type, int operation, nint comm, nint stream);
    [LibraryImport(Library)] public static partial int ncclAllGather(nint send, nint receive, nuint sendCount, int type, nint comm, nint stream);

    /// <exception cref="CudaException">The call failed.</exception>
    public static void Check(int result, string operation)
    {
        if (result != 0)
            throw new CudaException($"{operation}: {Marshal.PtrToStringUTF8((nint)ncclGetErrorString(result))}");
    }
}
