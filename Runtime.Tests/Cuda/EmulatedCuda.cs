using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

/// <summary>
/// CUDA devices of the tests: on a driver that runs the same kernels on this machine's processor (CudaEmulator/), or, with TRIMTAB_TEST_GPU
/// set, on a GPU. Tests that need one are skipped where neither is to be had.
/// </summary>
internal static unsafe class EmulatedCuda
{
    private const string LibraryFile = "libcuda-emulated.so";

    private static readonly Lazy<(string? Folder, string? Missing)> Prepared = new(Prepare);
    private static readonly Dictionary<CudaOptions, Device> Shared = [];

    /// <summary>The NVRTC that the caller named, before the emulated one took its place.</summary>
    public static readonly string? NamedNvrtc = Environment.GetEnvironmentVariable(CudaLibraries.NvrtcVariable);

    /// <summary>Whether the devices are a GPU's.</summary>
    public static bool IsReal => Environment.GetEnvironmentVariable("TRIMTAB_TEST_GPU") is { Length: > 0 };

    /// <summary>Where the emulated driver and the kernels compiled for it are kept.</summary>
    public static string Folder
    {
        get
        {
            Require();
            return Prepared.Value.Folder!;
        }
    }

    /// <summary>What kernels are compiled for.</summary>
    public static string Architecture => "sm_90a";

    /// <summary>Skips the running test where there is no device.</summary>
    public static void Require()
    {
        if (Prepared.Value.Missing is { } missing)
            Assert.Ignore(missing);
    }

    /// <summary>A device of the caller's own.</summary>
    public static CudaDevice Open(CudaOptions? options = null) => (CudaDevice)OpenAny(options ?? new() { ActivationType = DType.F32 });

    private static Device OpenAny(CudaOptions options) => CudaDevice.Open(options with { CacheFolder = Path.Combine(Folder, "kernels") });

    /// <summary>Has devices that are opened from now on see another GPU and driver, until what is returned is disposed.</summary>
    public static IDisposable Pretend(int capability, int version = 12040)
    {
        Pretending(capability, version);
        return new Restored();
    }

    private static void Pretending(int capability, int version) => ((delegate* unmanaged<int, int, void>)Export("emulator_pretend"))(capability, version);

    /// <summary>Kernels that have run so far and were launched not to wait for the end of the one before.</summary>
    public static int DependentLaunches => ((delegate* unmanaged<int>)Export("emulator_dependent_launches"))();

    private static nint Export(string name)
    {
        if (IsReal)
            Assert.Ignore("only the emulated driver says");
        return NativeLibrary.GetExport(NativeLibrary.Load(Path.Combine(Folder, LibraryFile)), name);
    }

    private sealed class Restored : IDisposable
    {
        public void Dispose() => Pretending(90, 12040);
    }

    /// <summary>A device that tests share, for what they share is only compiled kernels.</summary>
    public static CudaDevice Get(DType activations = DType.F32, bool batchInvariant = false, bool blocking = false, bool cublas = false)
    {
        // Where cuBLASLt is tested, it multiplies all that the kernels of few tokens do not; elsewhere nothing, so that both are tested at every size.
        var options = new CudaOptions { ActivationType = activations, BatchInvariant = batchInvariant, Blocking = blocking, UseCublas = cublas, CublasTokens = 1 };
        return (CudaDevice)Get(options);
    }

    /// <summary>Devices that divide layers, in floats; shared by tests as well.</summary>
    public static Device Parallel(int ranks, bool batchInvariant = false)
    {
        Require();
        if (CudaDevice.Count < ranks)
            Assert.Ignore($"{ranks} GPUs are needed");
        return Get(new CudaOptions { ActivationType = DType.F32, TensorParallel = ranks, BatchInvariant = batchInvariant, UseCublas = false });
    }

    private static Device Get(CudaOptions options)
    {
        lock (Shared)
            return Shared.TryGetValue(options, out var device) ? device : Shared[options] = OpenAny(options);
    }

    private static (string?, string?) Prepare()
    {
        if (IsReal)
            return (Path.Combine(Path.GetTempPath(), "trimtab-test-gpu"), CudaDevice.Count > 0 ? null : "TRIMTAB_TEST_GPU is set, and the driver sees no GPU");
        if (!OperatingSystem.IsLinux())
            return (null, "the emulated CUDA driver needs Linux");
        var assembly = typeof(EmulatedCuda).Assembly;
        var files = assembly.GetManifestResourceNames().Where(n => n.StartsWith("CudaEmulator/", StringComparison.Ordinal)).Order(StringComparer.Ordinal)
            .ToDictionary(n => n["CudaEmulator/".Length..], Read);
        var hash = SHA256.HashData([.. files.SelectMany(f => f.Value)]);
        var folder = Path.Combine(Path.GetTempPath(), $"trimtab-emulator-{Environment.UserName}-{Convert.ToHexStringLower(hash)[..16]}");
        var library = Path.Combine(folder, LibraryFile);
        if (!File.Exists(library))
        {
            Directory.CreateDirectory(folder);
            foreach (var (name, bytes) in files)
                File.WriteAllBytes(Path.Combine(folder, name), bytes);
            var beside = $"{library}.{Environment.ProcessId}";
            // Kernels that were compiled against another kernel.h are found by this number, which is part of their key.
            var version = BitConverter.ToUInt16(hash) + 100;
            string[] arguments =
            [
                "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", $"-DEMULATOR_FOLDER=\"{folder}\"", $"-DEMULATOR_VERSION={version}",
                "-o", beside, .. files.Keys.Where(f => f.EndsWith(".cpp", StringComparison.Ordinal)).Select(f => Path.Combine(folder, f)), "-ldl", "-lpthread",
            ];
            try
            {
                using var compiler = Process.Start(new ProcessStartInfo("g++", arguments) { RedirectStandardError = true })!;
                var log = compiler.StandardError.ReadToEnd();
                compiler.WaitForExit();
                if (compiler.ExitCode != 0)
                    throw new InvalidOperationException($"the emulated CUDA driver does not compile:\n{log}");
            }
            catch (System.ComponentModel.Win32Exception)
            {
                return (null, "the emulated CUDA driver is compiled by g++, which is not here");
            }
            File.Move(beside, library, overwrite: true);
        }
        Environment.SetEnvironmentVariable(CudaLibraries.DriverVariable, library);
        Environment.SetEnvironmentVariable(CudaLibraries.NvrtcVariable, library);
        Environment.SetEnvironmentVariable(CudaLibraries.CublasVariable, library);
        Environment.SetEnvironmentVariable(CudaLibraries.NcclVariable, library);
        Environment.SetEnvironmentVariable("TRIMTAB_CUDA_CACHE", Path.Combine(folder, "kernels"));
        return (folder, null);

        byte[] Read(string name)
        {
            using var stream = assembly.GetManifestResourceStream(name)!;
            var bytes = new byte[stream.Length];
            stream.ReadExactly(bytes);
            return bytes;
        }
    }
}
