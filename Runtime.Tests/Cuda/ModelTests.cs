using System.Diagnostics;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Kernels.Reference;
using Trimtab.Server;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Cuda;

/// <summary>Whole models of random weights on a CUDA device, and the program's way to it.</summary>
public class ModelTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Write()
    {
        EmulatedCuda.Require();
        _folder = Directory.CreateTempSubdirectory("trimtab-cuda-").FullName;
    }

    [OneTimeTearDown]
    public void Delete()
    {
        if (_folder is not null)
            Directory.Delete(_folder, true);
    }

    private string Llava => Path.Combine(_folder, "llava") is var folder && Directory.Exists(folder) ? folder : TinyModel.WriteLlava(folder);

    [TestCase(DType.F32), TestCase(DType.F16), TestCase(DType.BF16), TestCase(DType.Q8_0), TestCase(DType.Q4_0), TestCase(DType.Q4_1), TestCase(DType.Q4_K)]
    [TestCase(DType.Q6_K), TestCase(DType.Q5_K), TestCase(DType.IQ4_NL)]
    public void Every_weight_format_agrees_with_double_precision(DType type)
    {
        var path = TinyModel.WriteGguf(Path.Combine(_folder, type + ".gguf"), type);
        using var reference = new ReferenceDevice();
        using var expected = VisionLanguageModel.Open(path, new() { Device = reference });
        using var actual = VisionLanguageModel.Open(path, new() { Device = EmulatedCuda.Get() });
        var options = new GenerationOptions { MaxTokens = 2, IgnoreEos = true };
        var (a, b) = (Outcome.Run(actual, [(actual.Raw("the answer in the rain"), options)])[0], Outcome.Run(expected, [(expected.Raw("the answer in the rain"), options)])[0]);
        var spread = b.Logits[0].Max() - b.Logits[0].Min();
        var converted = actual.Network.Notes.Count > 0;
        Assert.That(a.Logits[0].Zip(b.Logits[0], (x, y) => Math.Abs((double)x - y)).Max() / spread, Is.LessThan(converted ? 0.03 : 2e-5));
        Assert.That(converted, Is.EqualTo(CudaForms.Number(type) < 0));
    }

    /// <summary>In bfloat16 throughout, some percent of the logits' spread is what rounding leaves; steering moves them by far more.</summary>
    [Test]
    public void A_steered_answer_about_an_image_agrees_in_bfloat16_as_far_as_that_goes([Values(Model.KvType.F32, Model.KvType.Int8, Model.KvType.Fp8)] Model.KvType kv)
    {
        using var expected = VisionLanguageModel.Open(Llava, new() { Threads = 1 });
        using var actual = VisionLanguageModel.Open(Llava, new() { Device = EmulatedCuda.Get(DType.BF16), WeightType = DType.BF16, Engine = new() { KvType = kv } });
        var image = Image.Noise(50, 40, 3);
        var plain = new GenerationOptions { MaxTokens = 1, IgnoreEos = true };
        var steered = plain with { Steering = new(ShiftVectors.Create([.. Enumerable.Range(1, 3).Select(l => (float[]?)EmulatedNoise(48, l))]), 1) };
        float[] Logits(VisionLanguageModel model, GenerationOptions options)
        {
            var engine = model.Options.Engine;
            return Outcome.Run(model, [(model.Raw($"the {TinyModel.ImageToken} in the rain on the one", [image]), options)], engine)[0].Logits[0];
        }
        var (want, got, unsteered) = (Logits(expected, steered), Logits(actual, steered), Logits(expected, plain));
        var spread = want.Max() - want.Min();
        var error = Rms(got, want) / spread;
        TestContext.Out.WriteLine($"rms deviation {error:P2} of the logits' spread; steering moves them by {Rms(unsteered, want) / spread:P2}");
        Assert.That(error, Is.LessThan(0.02));
        Assert.That(Rms(unsteered, want) / spread, Is.GreaterThan(5 * error));
    }

    private static float[] EmulatedNoise(int count, int seed) => Kernels.ReferenceDevicePair.Noise(count, seed);

    private static double Rms(float[] a, float[] b) => Math.Sqrt(a.Zip(b, (x, y) => ((double)x - y) * (x - y)).Average());

    [Test]
    public void The_program_answers_on_the_gpu_as_on_the_cpu()
    {
        var image = Path.Combine(_folder, "noise.png");
        Image.Noise(40, 30, 1).Save(image);
        string Run(params string[] more)
        {
            using StringWriter output = new(), error = new();
            var code = CommandLine.RunAsync(["generate", "-m", Llava, "--image", image, "--prompt", "in the rain", "--max-tokens", "8", "--temperature", "0", "--activations", "f32", .. more], output, error).GetAwaiter().GetResult();
            Assert.That(code, Is.Zero, error.ToString());
            return output.ToString();
        }
        Assert.That(Run("--device", "cuda"), Is.EqualTo(Run()));
    }

    [Test]
    public async Task Without_a_driver_the_program_says_so()
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "trimtab.dll"), "generate", "-m", Llava, "--prompt", "x", "--device", "cuda"])
        { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment[CudaLibraries.DriverVariable] = "/nowhere/libcuda.so.1";
        using var program = Process.Start(start)!;
        var error = await program.StandardError.ReadToEndAsync();
        await program.WaitForExitAsync();
        Assert.That(program.ExitCode, Is.EqualTo(1));
        Assert.That(error, Does.Contain("no CUDA driver was found (tried /nowhere/libcuda.so.1)").And.Contain("no NVIDIA GPU"));
    }
}
