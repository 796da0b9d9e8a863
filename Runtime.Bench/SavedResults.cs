using System.Runtime.CompilerServices;
using System.Text.Json;
using BenchmarkDotNet.Reports;
using Trimtab.Kernels;

namespace Trimtab.Bench;

/// <summary>Results kept in the repository: small, and with what is needed to judge them.</summary>
internal static class SavedResults
{
    /// <summary>Writes results/NAME.json beside this source file.</summary>
    /// <returns>The file.</returns>
    public static string Write(string name, Roofline roofline, IReadOnlyList<Summary> summaries, [CallerFilePath] string source = "")
    {
        // A deterministic build names no folder of this machine: then the current one has to do.
        var folder = Path.Combine(Directory.Exists(Path.GetDirectoryName(source)) ? Path.GetDirectoryName(source)! : Environment.CurrentDirectory, "results");
        Directory.CreateDirectory(folder);
        var path = Path.Combine(folder, name + ".json");
        using var stream = File.Create(path);
        using var writer = new Utf8JsonWriter(stream, new() { Indented = true });
        var host = summaries[0].HostEnvironmentInfo;
        writer.WriteStartObject();
        writer.WriteStartObject("machine");
        writer.WriteString("cpu", host.CpuInfo.Value.ProcessorName);
        writer.WriteString("dotnet", host.RuntimeVersion);
        writer.WriteString("version", System.Diagnostics.FileVersionInfo.GetVersionInfo(typeof(Roofline).Assembly.Location).ProductVersion);
        writer.WriteNumber("threads", roofline.Threads);
        writer.WriteEndObject();
        writer.WriteStartObject("roofline");
        writer.WriteNumber("read_gb_per_second", Math.Round(roofline.ReadBytesPerSecond / 1e9, 2));
        writer.WriteNumber("f32_gflop_per_second", Math.Round(roofline.FloatOpsPerSecond / 1e9, 1));
        writer.WriteNumber("bf16_gflop_per_second", Math.Round(roofline.BF16OpsPerSecond / 1e9, 1));
        writer.WriteNumber("int8_gop_per_second", Math.Round(roofline.Int8OpsPerSecond / 1e9, 1));
        writer.WriteEndObject();
        writer.WriteStartArray("kernels");
        foreach (var (summary, report) in summaries.SelectMany(summary => summary.Reports.Select(report => (summary, report))))
        {
            if (Workload.Seconds(summary, report.BenchmarkCase) is not { } seconds)
                continue;
            var benchmark = report.BenchmarkCase;
            var statistics = report.ResultStatistics!;
            writer.WriteStartObject();
            writer.WriteString("name", $"{benchmark.Descriptor.Type.Name}.{benchmark.Descriptor.WorkloadMethodDisplayInfo} {benchmark.Parameters.DisplayInfo}".TrimEnd());
            writer.WriteNumber("median_us", Math.Round(seconds * 1e6, 3));
            writer.WriteNumber("least_us", Math.Round(statistics.Min / 1e3, 3));
            writer.WriteNumber("most_us", Math.Round(statistics.Max / 1e3, 3));
            if (Workload.Of(benchmark) is { } work)
            {
                writer.WriteNumber("gb_per_second", Math.Round(work.Bytes / seconds / 1e9, 3));
                writer.WriteNumber("gflop_per_second", Math.Round(work.Operations / seconds / 1e9, 3));
                writer.WriteNumber("roofline_share", Math.Round(roofline.Seconds(work.Bytes, work.Operations, work.Arithmetic) / seconds, 4));
            }
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();
        return path;
    }
}
