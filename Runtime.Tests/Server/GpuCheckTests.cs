using System.Text.Json;
using Trimtab.Kernels.Cuda;
using Trimtab.Server;
using Trimtab.Tests.Cuda;

namespace Trimtab.Tests.Server;

/// <summary>trimtab gpu-check, small, on the emulated device: that everything it compares agrees, and that every figure comes out.</summary>
public class GpuCheckTests
{
    [Test]
    public void Everything_runs_and_agrees()
    {
        EmulatedCuda.Require();
        using var output = new StringWriter();
        using var error = new StringWriter();
        var file = Path.GetTempFileName();
        try
        {
            var code = CommandLine.RunAsync(["gpu-check", "--quick", "--json", file], output, error).GetAwaiter().GetResult();
            Assert.That(code, Is.Zero, $"{error}\n{output}");
            using var report = JsonDocument.Parse(File.ReadAllText(file));
            var root = report.RootElement;
            List<JsonElement> All(string name) => [.. root.GetProperty(name).EnumerateArray()];
            Assert.That(root.GetProperty("passed").GetBoolean());
            Assert.That(All("ops").Select(o => o.GetProperty("op").GetString()!.Split(',')[0]).Distinct(), Is.SupersetOf(new[]
            {
                "Linear", "Norm", "ResidualNorm", "RopeStore", "AttendPaged", "AttendFull", "Embed", "Patches", "BatchInvariant",
            }));
            // In floats every token is the CPU's, steered or not, with an image or not, as graphs or op by op, on one GPU or two.
            var answers = All("answers").Where(a => a.GetProperty("what").GetString()!.Contains("F32", StringComparison.Ordinal)).ToList();
            Assert.That(answers, Has.Count.EqualTo(CudaDevice.Count > 1 ? 13 : 9));
            Assert.That(answers.TrueForAll(a => a.GetProperty("agreed").GetInt32() == a.GetProperty("tokens").GetInt32()));
            var figures = All("figures").Select(f => f.GetProperty("name").GetString()!).ToList();
            foreach (var part in new[] { "memory", "prefill", "share of its matrices", "steered", "tax, 1 sequence", "tax, 4 sequences, 4 vectors", "images", "without graphs", "without programmatic dependent launch", "3 sequences" })
                Assert.That(figures, Has.Some.Contains(part));
            Assert.That(All("products").Count, Is.EqualTo(8));
            Assert.That(output.ToString(), Does.Contain("**Everything agrees**").And.Contain("| figure | value |").And.Contain("compute-sanitizer --tool racecheck"));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Test]
    public void Bad_options_are_wrong_usage()
    {
        using var error = new StringWriter();
        Assert.That(CommandLine.RunAsync(["gpu-check", "--synthetic", "9b-x"], TextWriter.Null, error).GetAwaiter().GetResult(), Is.EqualTo(2));
        Assert.That(error.ToString(), Does.Contain("--synthetic"));
    }
}
