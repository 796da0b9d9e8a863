using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Trimtab.Server.Benchmarks;

/// <summary>What a figure was measured on: without it, it says nothing.</summary>
/// <param name="Cpu">The processor's name.</param>
/// <param name="Processors">Logical processors that the program may use.</param>
/// <param name="System">Operating system.</param>
/// <param name="DotNet">The runtime.</param>
/// <param name="Version">Of this program, with the commit after a plus sign where it was built in a repository.</param>
internal sealed record Machine(string Cpu, int Processors, string System, string DotNet, string Version)
{
    public static Machine Here { get; } = new(
        Field("/proc/cpuinfo", "model name") ?? Environment.GetEnvironmentVariable("PROCESSOR_IDENTIFIER") ?? RuntimeInformation.ProcessArchitecture.ToString(),
        Environment.ProcessorCount,
        RuntimeInformation.OSDescription,
        RuntimeInformation.FrameworkDescription,
        typeof(Machine).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown");

    /// <summary>As the object "machine" of a report.</summary>
    /// <param name="writer">The report.</param>
    /// <param name="device">What a model ran on, or null where it is not known.</param>
    public void Write(Utf8JsonWriter writer, string? device = null)
    {
        writer.WriteStartObject("machine");
        writer.WriteString("cpu", Cpu);
        writer.WriteNumber("processors", Processors);
        if (device is not null)
            writer.WriteString("device", device);
        writer.WriteString("system", System);
        writer.WriteString("dotnet", DotNet);
        writer.WriteString("version", Version);
        writer.WriteEndObject();
    }

    /// <summary>Most memory that this process has had resident so far, in bytes.</summary>
    public static long PeakMemory()
    {
        if (Field("/proc/self/status", "VmHWM") is { } text && long.TryParse(text.Split(' ')[0], out var kilobytes))
            return kilobytes * 1024;
        using var process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64;
    }

    private static string? Field(string file, string name)
        => File.Exists(file)
            ? File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))?.Split(':', 2)[^1].Trim()
            : null;
}
