using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>NVIDIA's management library under its own names, for reports alone: nothing depends on it. Results are nvmlReturn_t: 0 is success.</summary>
internal static unsafe partial class Nvml
{
    /// <summary>What the library is called in declarations; resolved to the platform's file.</summary>
    public const string Library = "nvml";

    private const int NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_TEMPERATURE_GPU = 0;

    static Nvml() => CudaLibraries.Register();

    [LibraryImport(Library)] private static partial int nvmlInit_v2();
    [LibraryImport(Library)] private static partial int nvmlShutdown();
    [LibraryImport(Library)] private static partial int nvmlSystemGetDriverVersion(byte* version, uint length);
    [LibraryImport(Library)] private static partial int nvmlDeviceGetHandleByPciBusId_v2(byte* id, out nint device);
    [LibraryImport(Library)] private static partial int nvmlDeviceGetClockInfo(nint device, int type, out uint megahertz);
    [LibraryImport(Library)] private static partial int nvmlDeviceGetTemperature(nint device, int sensor, out uint celsius);
    [LibraryImport(Library)] private static partial int nvmlDeviceGetPowerUsage(nint device, out uint milliwatts);

    /// <summary>What it says of a GPU at this moment; nothing where the library is missing.</summary>
    /// <param name="bus">Its PCI bus id.</param>
    public static List<(string Name, string Value)> Facts(byte* bus)
    {
        List<(string, string)> facts = [];
        try
        {
            if (nvmlInit_v2() != 0)
                return facts;
        }
        catch (DllNotFoundException)
        {
            return facts;
        }
        var version = stackalloc byte[96];
        if (nvmlSystemGetDriverVersion(version, 96) == 0)
            facts.Add(("driver", Marshal.PtrToStringUTF8((nint)version)!));
        if (nvmlDeviceGetHandleByPciBusId_v2(bus, out var device) == 0)
        {
            if (nvmlDeviceGetClockInfo(device, NVML_CLOCK_SM, out var sm) == 0 && nvmlDeviceGetClockInfo(device, NVML_CLOCK_MEM, out var memory) == 0)
                facts.Add(("clocks, processors and memory", $"{sm} and {memory} MHz"));
            if (nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, out var celsius) == 0)
                facts.Add(("temperature", $"{celsius} °C"));
            if (nvmlDeviceGetPowerUsage(device, out var power) == 0)
                facts.Add(("power", $"{power / 1000} W"));
        }
        _ = nvmlShutdown();
        return facts;
    }
}
