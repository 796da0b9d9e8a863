using System.CommandLine;
using System.Diagnostics;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Kernels.Reference;
using Trimtab.Model;
using Trimtab.Server.GpuCheck;

namespace Trimtab.Server.Commands;

/// <summary>gpu-check: whether a GPU computes what the CPU does, and how fast; what docs/gpu-session.md begins with.</summary>
internal static class GpuCheckCommand
{
    public static Command Create(Terminal terminal)
    {
        var model = new Option<string?>("--model", "-m") { Description = "The model whose answers are compared with the CPU's; by default the demo model.", HelpName = "PATH" };
        var synthetic = new Option<string?>("--synthetic") { Description = "The model that is measured; by default llava-7b-bf16.", HelpName = "SPEC" };
        var quick = new Option<bool>("--quick") { Description = "Small shapes, a tiny model, each figure once: to see that everything runs." };
        var checksOnly = new Option<bool>("--checks-only") { Description = "Compare, and measure nothing: to be run under compute-sanitizer." };
        var json = new Option<string?>("--json") { Description = "Write the report as JSON; - for the output, in place of the Markdown.", HelpName = "FILE" };
        var command = new Command(
            "gpu-check", "Compares every op and a whole model, steered and unsteered, on the first NVIDIA GPU with the CPU; then measures the figures that the design has targets for. " +
            "Prints a report for docs/gpu-log.md. Exit code 1 where anything differs; a target that is missed is no error.") { model, synthetic, quick, checksOnly, json };
        command.SetAction(async (parse, cancel) =>
        {
            var small = parse.GetValue(quick);
            SyntheticModel measured;
            try
            {
                measured = SyntheticModel.Parse(parse.GetValue(synthetic) ?? (small ? "llava-tiny-bf16" : "llava-7b-bf16"));
            }
            catch (FormatException error)
            {
                throw new UsageException($"--synthetic: {error.Message}");
            }
            var clock = Stopwatch.StartNew();
            void Say(string text) => terminal.Error.WriteLine($"{clock.Elapsed.TotalSeconds,6:F1} s  {text}");
            using var device = new CudaDevice();
            Say(device.Name);
            var report = new GpuReport(device.Name, device.Facts);
            Ops(report, device, large: !small, Say, cancel);
            using (var floats = new CudaDevice(new() { ActivationType = DType.F32 }))
                Ops(report, floats, large: false, Say, cancel);
            Alone(report, Say);
            report.Answers.AddRange(await ModelCheck.RunAsync(parse.GetValue(model) ?? DemoCommand.Find(), small ? 5 : 48, Say, cancel).ConfigureAwait(false));
            if (!parse.GetValue(checksOnly))
            {
                var measurements = new GpuMeasurements(device, measured, small, Say, cancel);
                measurements.Run();
                report.Figures.AddRange(measurements.Figures);
                report.Products.AddRange(measurements.Products);
                report.FactsAfter.AddRange(device.Facts);
            }
            report.Seconds = clock.Elapsed.TotalSeconds;
            await terminal.ReportAsync(parse.GetValue(json), report.Write, report.Print, cancel).ConfigureAwait(false);
            return report.Passed ? 0 : 1;
        });
        return command;
    }

    private static void Ops(GpuReport report, CudaDevice device, bool large, Action<string> say, CancellationToken cancel)
    {
        using var reference = new ReferenceDevice();
        var last = "";
        foreach (var check in OpChecks.All(device.ActivationType, large))
        {
            cancel.ThrowIfCancellationRequested();
            if (check.Op != last)
                say($"{last = check.Op}, {device.ActivationType} activations");
            double difference;
            var error = "";
            try
            {
                difference = check.Difference(device, reference);
            }
            catch (Exception exception) when (exception is CudaException or ArgumentException or NotSupportedException or InvalidOperationException)
            {
                (difference, error) = (double.PositiveInfinity, exception.Message);
            }
            report.Ops.Add(new(check.Op, $"{check.Shape}, {device.ActivationType} activations", difference, check.Tolerance, error));
        }
    }

    /// <summary>BatchInvariant promises a token the same bits alone and among others.</summary>
    private static void Alone(GpuReport report, Action<string> say)
    {
        say("BatchInvariant");
        const int Tokens = 40, Columns = 512, Rows = 66;
        using var device = new CudaDevice(new() { BatchInvariant = true });
        using var weight = OpChecks.Pack(device, DType.Q8_0, OpChecks.Weights(DType.Q8_0, Rows, Columns), Rows, Columns);
        using var memory = new OpChecks.Memory(device);
        var input = memory.Put(DType.BF16, OpChecks.Noise(Tokens * Columns, 1), Columns);
        var output = memory.Put(DType.BF16, new float[Tokens * Rows], Rows);
        device.Linear(output, input, weight, default, Epilogue.None);
        var together = memory.Get(output);
        var different = 0;
        for (var token = 0; token < Tokens; token++)
        {
            device.Linear(output.Slice(token, 1), input.Slice(token, 1), weight, default, Epilogue.None);
            different += memory.Get(output.Slice(token, 1)).AsSpan().SequenceEqual(together.AsSpan(token * Rows, Rows)) ? 0 : 1;
        }
        report.Ops.Add(new("BatchInvariant", $"{Tokens} tokens alone and together: tokens with other bits", different, 0, ""));
    }
}
