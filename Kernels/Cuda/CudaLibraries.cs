using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>Finds the files behind <see cref="Driver"/>, <see cref="Nvrtc"/>, <see cref="CublasLt"/>, <see cref="Nccl"/> and <see cref="Nvml"/>.</summary>
internal static class CudaLibraries
{
    /// <summary>Names a driver to load in place of the system's: the tests' emulated one, say.</summary>
    public const string DriverVariable = "TRIMTAB_CUDA_DRIVER";

    /// <summary>Names an NVRTC to load in place of the system's.</summary>
    public const string NvrtcVariable = "TRIMTAB_NVRTC";

    /// <summary>Names a cuBLASLt to load in place of the system's.</summary>
    public const string CublasVariable = "TRIMTAB_CUBLASLT";

    /// <summary>Names an NCCL to load in place of the system's.</summary>
    public const string NcclVariable = "TRIMTAB_NCCL";

    private static string Variable(string library) => library switch
    {
        Driver.Library => DriverVariable,
        Nvrtc.Library => NvrtcVariable,
        CublasLt.Library => CublasVariable,
        Nccl.Library => NcclVariable,
        _ => "TRIMTAB_NVML",
    };

    /// <summary>The files tried for a library, in order.</summary>
    public static IEnumerable<string> Candidates(string library, bool windows, Func<string, string?> environment)
    {
        if (environment(Variable(library)) is { Length: > 0 } named)
            return [named];
        if (library == Driver.Library)
            return windows ? ["nvcuda.dll"] : ["libcuda.so.1", "libcuda.so"];
        if (library == Nvml.Library)
            return windows ? ["nvml.dll"] : ["libnvidia-ml.so.1"];
        if (library == Nccl.Library)
            return windows ? ["nccl.dll"] : ["libnccl.so.2", "libnccl.so"];
        // Of the toolkit's folder only what it says itself; the loader searches the system's own.
        string[] names = (library, windows) switch
        {
            (Nvrtc.Library, true) => ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"],
            (Nvrtc.Library, false) => ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            (_, true) => ["cublasLt64_13.dll", "cublasLt64_12.dll"],
            _ => ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        };
        var home = environment("CUDA_PATH") ?? environment("CUDA_HOME") ?? (windows ? null : "/usr/local/cuda");
        return home is null ? names : [.. names, .. names.Select(name => Path.Combine(home, windows ? "bin" : "lib64", name))];
    }

    /// <summary>What is to be said where a library is missing.</summary>
    public static string Missing(string library) => library switch
    {
        Driver.Library => $"no CUDA driver was found (tried {Tried(library)}): this machine has no NVIDIA GPU, or its driver is not installed",
        Nvrtc.Library => $"no NVRTC was found (tried {Tried(library)}): install the CUDA toolkit's NVRTC, version 12 or 13, or name the file in {NvrtcVariable}",
        Nccl.Library => $"no NCCL was found (tried {Tried(library)}): install NCCL 2, which adds up what several GPUs compute, or name the file in {NcclVariable}",
        Nvml.Library => $"no NVML was found (tried {Tried(library)})",
        _ => $"no cuBLASLt was found (tried {Tried(library)}): install CUDA's cuBLAS, version 12 or 13, or name the file in {CublasVariable}",
    };

    private static string Tried(string library) =>
        string.Join(", ", Candidates(library, OperatingSystem.IsWindows(), Environment.GetEnvironmentVariable));

    static CudaLibraries() => NativeLibrary.SetDllImportResolver(typeof(CudaLibraries).Assembly, Resolve);

    /// <summary>Has the declarations resolved here. To be called before the first of them is.</summary>
    public static void Register() => RuntimeHelpers.RunClassConstructor(typeof(CudaLibraries).TypeHandle);

    private static nint Resolve(string library, Assembly assembly, DllImportSearchPath? path)
    {
        if (library is not (Driver.Library or Nvrtc.Library or CublasLt.Library or Nccl.Library or Nvml.Library))
            return 0;
        foreach (var candidate in Candidates(library, OperatingSystem.IsWindows(), Environment.GetEnvironmentVariable))
        {
            // NVRTC loads a second file by name, from wherever the loader looks, not from its own folder: it is found if it is loaded already.
            if (library == Nvrtc.Library && Path.GetDirectoryName(candidate) is { Length: > 0 } folder && Directory.Exists(folder))
                foreach (var builtins in Directory.GetFiles(folder, "*nvrtc-builtins*"))
                    NativeLibrary.TryLoad(builtins, out _);
            if (NativeLibrary.TryLoad(candidate, out var handle))
                return handle;
        }
        throw new DllNotFoundException(Missing(library));
    }
}
