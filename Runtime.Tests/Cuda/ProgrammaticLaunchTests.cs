using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Tests.Golden;
using Trimtab.Tests.Kernels;

namespace Trimtab.Tests.Cuda;

/// <summary>
/// Which kernels are launched so that they may start before the one before has ended. That every kernel waits before it touches anything, the
/// emulated device finds in all tests, for it is of compute capability 9.0 and runs each block as far as its wait first (EmulatorTests).
/// </summary>
public class ProgrammaticLaunchTests
{
    /// <summary>Launches of that kind that an action makes.</summary>
    private static int Count(CudaDevice device, Action action)
    {
        device.Wait();
        var before = EmulatedCuda.DependentLaunches;
        action();
        device.Wait();
        return EmulatedCuda.DependentLaunches - before;
    }

    [Test]
    public void A_kernel_that_follows_a_kernel_is_launched_early_and_one_that_follows_anything_else_is_not()
    {
        using var device = EmulatedCuda.Open(new() { ActivationType = DType.F32, CublasTokens = 1 });
        Tensor x = device.Activations([3, 4], 2), y = device.Activations(new float[2], 2), row = device.Integers(0);
        void Kernel() => device.SoftCap(x, 30);
        Assert.That(device.ProgrammaticLaunch);
        Assert.That(Count(device, Kernel), Is.Zero);
        Assert.That(Count(device, () => { Kernel(); Kernel(); device.TakeRows(y, x, row); }), Is.EqualTo(2));
        foreach (var other in new Action[] { () => device.Copy(y, x), () => device.Upload([3f, 4], x), () => device.Allocate(DType.F32, 1, 1).Storage!.Dispose(), () => device.Get(y), device.Wait })
            Assert.That(Count(device, () => { Kernel(); other(); Kernel(); Kernel(); }), Is.EqualTo(1));
        // cuBLASLt's own kernels may or may not let others start early; what comes after them waits in the stream.
        using var weight = Weight(device, 20);
        Tensor input = device.Activations(new float[17 * 20], 20), output = device.Activations(new float[17 * 20], 20);
        Assert.That(device.Products, Does.StartWith("cuBLASLt"));
        device.Linear(output, input, weight, default, Epilogue.None);
        Assert.That(Count(device, () => { Kernel(); device.Linear(output, input, weight, default, Epilogue.None); Kernel(); }), Is.Zero);
    }

    private static unsafe Weight Weight(CudaDevice device, int size)
    {
        var values = ReferenceDevicePair.Noise(size * size, 1);
        fixed (float* p = values)
            return device.Pack(new WeightData(DType.F32, size, size, (nint)p));
    }

    [Test]
    public void It_is_off_where_it_is_switched_off_where_kernels_do_not_wait_and_where_graphs_would_lose_it()
    {
        int Launches(CudaDevice device)
        {
            using (device)
            {
                var x = device.Activations([3, 4], 2);
                var count = Count(device, () => { device.SoftCap(x, 30); device.SoftCap(x, 30); });
                Assert.That(count > 0, Is.EqualTo(device.ProgrammaticLaunch));
                Assert.That(device.Facts.Single(f => f.Name == "programmatic dependent launch").Value, Is.EqualTo(count > 0 ? "on" : "off").Or.EqualTo("not to be had"));
                return count;
            }
        }
        var options = new CudaOptions { ActivationType = DType.F32 };
        Assert.That(Launches(EmulatedCuda.Open(options)), Is.EqualTo(1));
        Assert.That(Launches(EmulatedCuda.Open(options with { ProgrammaticLaunch = false })), Is.Zero);
        using (EmulatedCuda.Pretend(80))
            Assert.That(Launches(EmulatedCuda.Open(options)), Is.Zero);
        using (EmulatedCuda.Pretend(90, 12020))
            Assert.That(Launches(EmulatedCuda.Open(options)), Is.Zero);
        Assert.That(new[] { "sm_80", "sm_90a", "compute_80", "compute_90", "sm_120" }.Select(a => new CudaCompiler(a, null).Capability), Is.EqualTo(new[] { 80, 90, 80, 90, 120 }));
    }

    [Test]
    public void Graphs_keep_it_and_are_captured_anew_when_it_is_switched()
    {
        using var device = EmulatedCuda.Open();
        var x = device.Activations([3, 4], 2);
        void Step()
        {
            for (var i = 0; i < 5; i++)
                device.SoftCap(x, 30);
        }
        int Replay() => Count(device, () => device.Replay(1, Step));
        Assert.That(new[] { Replay(), Replay(), Replay() }, Is.All.EqualTo(4)); // as it is, captured, replayed
        device.ProgrammaticLaunch = false;
        Assert.That(new[] { Replay(), Replay(), Replay() }, Is.All.Zero);
        device.ProgrammaticLaunch = true;
        Assert.That(new[] { Replay(), Replay(), Replay() }, Is.All.EqualTo(4));
        Assert.That(device.GraphCounts, Is.EqualTo((6L, 3L)));
    }

    [Test]
    public void A_models_answers_are_the_same_to_the_bit()
    {
        EmulatedCuda.Require();
        var folder = Directory.CreateTempSubdirectory("trimtab-pdl-").FullName;
        try
        {
            var path = TinyModel.WriteLlava(folder);
            using var device = EmulatedCuda.Open(new() { ActivationType = DType.BF16 });
            List<float[]> Logits(bool programmatic)
            {
                device.ProgrammaticLaunch = programmatic;
                using var model = VisionLanguageModel.Open(path, new() { Device = device, WeightType = DType.BF16 });
                return Outcome.Run(model, [(model.Raw("the answer in the rain"), new GenerationOptions { MaxTokens = 8, IgnoreEos = true })])[0].Logits;
            }
            var without = Logits(false);
            var before = EmulatedCuda.DependentLaunches;
            var with = Logits(true);
            Assert.That(EmulatedCuda.DependentLaunches - before, Is.GreaterThan(50));
            Assert.That(device.GraphCounts.Replayed, Is.GreaterThan(0));
            Assert.That(with.Zip(without).All(pair => pair.First.AsSpan().SequenceEqual(pair.Second)));
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
