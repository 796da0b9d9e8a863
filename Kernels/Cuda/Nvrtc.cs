using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>NVRTC, the compiler that comes as a library, under its own names. Results are nvrtcResult: 0 is success.</summary>
internal static unsafe partial class Nvrtc
{
    /// <summary>What the library is called in declarations; resolved to the platform's file.</summary>
    public const string Library = "nvrtc";

    static Nvrtc() => CudaLibraries.Register();

    [LibraryImport(Library)] public static partial int nvrtcVersion(out int major, out int minor);
    [LibraryImport(Library)] public static partial byte* nvrtcGetErrorString(int result);
    [LibraryImport(Library)] public static partial int nvrtcGetNumSupportedArchs(out int count);
    [LibraryImport(Library)] public static partial int nvrtcGetSupportedArchs(int* architectures);
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int nvrtcCreateProgram(out nint program, string source, string name, int headers, byte** headerTexts, byte** headerNames);
    [LibraryImport(Library)] public static partial int nvrtcDestroyProgram(ref nint program);
    [LibraryImport(Library)] public static partial int nvrtcCompileProgram(nint program, int options, byte** texts);
    [LibraryImport(Library)] public static partial int nvrtcGetPTXSize(nint program, out nuint bytes);
    [LibraryImport(Library)] public static partial int nvrtcGetPTX(nint program, byte* ptx);
    [LibraryImport(Library)] public static partial int nvrtcGetCUBINSize(nint program, out nuint bytes);
    [LibraryImport(Library)] public static partial int nvrtcGetCUBIN(nint program, byte* cubin);
    [LibraryImport(Library)] public static partial int nvrtcGetProgramLogSize(nint program, out nuint bytes);
    [LibraryImport(Library)] public static partial int nvrtcGetProgramLog(nint program, byte* log);
}
