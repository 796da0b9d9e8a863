using System.Globalization;
using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Exporters;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Trimtab.Kernels;

namespace Trimtab.Bench;

/// <summary>
/// Kernels beside this machine's measured roofline. They run inside this process, so that no project is generated, restored and built for
/// them; kernels carry no state that one case could leave to the next.
/// </summary>
internal sealed class KernelConfig : ManualConfig
{
    /// <param name="roofline">The machine's limits; null for no columns of them.</param>
    /// <param name="job">default, short or dry: how long each case is measured.</param>
    public KernelConfig(Roofline? roofline, string job)
    {
        AddJob((job switch { "dry" => Job.Dry, "short" => Job.ShortRun, _ => Job.Default }).WithToolchain(InProcessEmitToolchain.Instance));
        AddLogger(ConsoleLogger.Default);
        AddExporter(MarkdownExporter.GitHub);
        AddColumnProvider(DefaultColumnProviders.Instance);
        if (roofline is not null)
            AddColumn(
                new WorkloadColumn("GB/s", "Bytes of weights and activations a second, as if no cache helped", (work, seconds) => work.Bytes / seconds / 1e9),
                new WorkloadColumn("GFLOP/s", "Arithmetic operations a second; a multiply-add is two", (work, seconds) => work.Operations / seconds / 1e9),
                new WorkloadColumn("Roofline %",
                    $"Of the least time that this machine's limits allow: {roofline.ReadBytesPerSecond / 1e9:F1} GB/s read, {roofline.FloatOpsPerSecond / 1e9:F1} GFLOP/s, "
                    + $"{roofline.BF16OpsPerSecond / 1e9:F1} of BF16, {roofline.Int8OpsPerSecond / 1e9:F1} GOP/s of int8; above 100 where data lies in a cache",
                    (work, seconds) => 100 * roofline.Seconds(work.Bytes, work.Operations, work.Arithmetic) / seconds));
        WithOptions(ConfigOptions.JoinSummary);
    }

    private sealed class WorkloadColumn(string name, string legend, Func<Workload, double, double> value) : IColumn
    {
        public string Id => $"{nameof(WorkloadColumn)}.{name}";

        public string ColumnName => name;

        public bool AlwaysShow => true;

        public ColumnCategory Category => ColumnCategory.Custom;

        public int PriorityInCategory => 0;

        public bool IsNumeric => true;

        public UnitType UnitType => UnitType.Dimensionless;

        public string Legend => legend;

        public string GetValue(Summary summary, BenchmarkCase benchmarkCase)
            => Workload.Of(benchmarkCase) is { } work && Workload.Seconds(summary, benchmarkCase) is { } seconds
                ? value(work, seconds).ToString("F2", CultureInfo.InvariantCulture)
                : "-";

        public string GetValue(Summary summary, BenchmarkCase benchmarkCase, SummaryStyle style) => GetValue(summary, benchmarkCase);

        public bool IsAvailable(Summary summary) => true;

        public bool IsDefault(Summary summary, BenchmarkCase benchmarkCase) => false;
    }
}
