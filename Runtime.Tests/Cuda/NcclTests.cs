using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Server;
using Trimtab.Steering;
using Trimtab.Tests.Golden;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Cuda;

/// <summary>Several GPUs that divide layers, and NCCL between them.</summary>
public class NcclTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Write()
    {
        EmulatedCuda.Require();
        if (CudaDevice.Count < 2)
            Assert.Ignore("two GPUs are needed");
        _folder = TinyModel.WriteLlava(Directory.CreateTempSubdirectory("trimtab-nccl-").FullName);
    }

    [OneTimeTearDown]
    public void Delete()
    {
        if (_folder is not null)
            Directory.Delete(_folder, true);
    }

    private static CudaDevice[] Open(DType activations) =>
        [.. Enumerable.Range(0, 2).Select(ordinal => EmulatedCuda.Open(new() { Ordinal = ordinal, ActivationType = activations, UseCublas = false }))];

    [Test]
    public void Sums_and_rows_are_the_same_on_every_rank([Values(DType.F32, DType.BF16)] DType type)
    {
        var ranks = Open(type);
        using var communicator = new NcclCommunicator(ranks);
        try
        {
            float[][] values = [[.. Noise(3 * 37, 1).Select(x => MathF.Round(x, 1))], [.. Noise(3 * 37, 2).Select(x => MathF.Round(x, 1))]];
            Tensor[] sums = [.. ranks.Select((rank, r) => rank.Activations(values[r], 37))], wholes = [.. ranks.Select(rank => rank.Allocate(type, 3, 74))];
            var rounded = ranks.Select((rank, r) => rank.Get(sums[r])).ToArray();
            communicator.AllGather(sums, wholes);
            communicator.AllReduce(sums);
            communicator.Wait();
            for (var r = 0; r < 2; r++)
            {
                Close(ranks[r].Get(sums[r]), [.. rounded[0].Zip(rounded[1], (a, b) => a + b)], type == DType.F32 ? 0 : 0.004, $"sums of rank {r}");
                for (var row = 0; row < 3; row++)
                    Assert.That(ranks[r].Get(wholes[r].Slice(row, 1)), Is.EqualTo(rounded.SelectMany(of => of[(37 * row)..(37 * row + 37)])), $"row {row} of rank {r}");
            }
            Same(ranks[0].Get(sums[0]), ranks[1].Get(sums[1]), "ranks");
        }
        finally
        {
            foreach (var rank in ranks)
                rank.Dispose();
        }
    }

    /// <summary>The decoding steps are graphs on both, with the collectives in them, and give what one GPU gives; so does the second, other request.</summary>
    [Test]
    public void Steered_answers_are_those_of_one_gpu_and_their_steps_are_graphs()
    {
        var ranks = Open(DType.F32);
        var communicator = new NcclCommunicator(ranks);
        using var device = new TensorParallelDevice(ranks, communicator);
        using var several = VisionLanguageModel.Open(_folder, new() { Device = device });
        using var one = VisionLanguageModel.Open(_folder, new() { Device = EmulatedCuda.Get() });
        for (var request = 0; request < 2; request++)
        {
            var options = new GenerationOptions
            {
                MaxTokens = 9,
                IgnoreEos = true,
                Capture = true,
                Steering = new(ShiftVectors.Create([.. Enumerable.Range(1, 3).Select(l => (float[]?)Noise(48, l + request, 0.3f))]), 1, SteeringScope.All),
            };
            Outcome Run(VisionLanguageModel model) => Outcome.Run(model, [(model.Raw($"the {TinyModel.ImageToken} in the rain", [Image.Noise(50, 40, (ulong)request)]), options)])[0];
            var (actual, expected) = (Run(several), Run(one));
            Assert.That(actual.Tokens, Is.EqualTo(expected.Tokens));
            Close(actual.Sequence.States!, expected.Sequence.States!, 2e-5, "states");
            for (var step = 0; step < 9; step++)
                Close(actual.Logits[step], expected.Logits[step], 1e-4, $"logits of step {step}");
        }
        Assert.That(communicator.GraphCounts.Replayed, Is.GreaterThan(6));
        Assert.That(ranks[0].GraphCounts.Replayed, Is.Zero);
    }

    /// <summary>Tokens are drawn on every GPU from the same bits; four bytes a sequence come back, from the first.</summary>
    [Test]
    public void Drawn_tokens_are_those_of_one_gpu_in_bfloat16()
    {
        using var device = CudaDevice.Open(new() { TensorParallel = 2, UseCublas = false, CacheFolder = Path.Combine(EmulatedCuda.Folder, "kernels") });
        using var model = VisionLanguageModel.Open(_folder, new() { Device = device, WeightType = DType.BF16, Engine = new() { KvType = Model.KvType.Int8 } });
        Assert.That(device.Name, Does.StartWith("2 × ").And.Contain("BF16"));
        var answers = Enumerable.Range(0, 2).Select(_ => model.GenerateAsync(model.Raw("the answer in the rain"), new() { MaxTokens = 8, IgnoreEos = true, Sampling = new() { Temperature = 1, Seed = 5 } })
            .ToBlockingEnumerable().Last().Sequence.Generated.ToArray()).ToArray();
        Assert.That(answers[0], Has.Length.EqualTo(8));
        Assert.That(answers[1], Is.EqualTo(answers[0]));
    }

    [Test]
    public void The_program_divides_layers_as_it_is_told()
    {
        string Run(params string[] more)
        {
            using StringWriter output = new(), error = new();
            var code = CommandLine.RunAsync(["generate", "-m", _folder, "--prompt", "in the rain", "--max-tokens", "5", "--temperature", "0", "--activations", "f32", .. more], output, error).GetAwaiter().GetResult();
            return code == 0 ? output.ToString() : $"{code}: {error}";
        }
        Assert.That(Run("--device", "cuda", "--tensor-parallel", "2"), Is.EqualTo(Run()));
        Assert.That(Run("--tensor-parallel", "2"), Does.StartWith("2: ").And.Contain("--device cuda"));
        Assert.That(Run("--device", "cuda", "--tensor-parallel", "7"), Does.StartWith("1: ").And.Contain("there is no GPU"));
    }

    // What a real GPU would not come back from.

    [Test]
    public void A_rank_that_fails_does_not_leave_the_others_waiting()
    {
        if (EmulatedCuda.IsReal)
            Assert.Ignore("what is wrong here would cost the GPU its context");
        var ranks = Open(DType.F32);
        using var communicator = new NcclCommunicator(ranks);
        try
        {
            Tensor[] sums = [.. ranks.Select(rank => rank.Allocate(DType.F32, 1, 8))];
            // A copy on the second GPU of memory that is the first one's.
            Driver.cuMemcpyDtoDAsync(sums[1].At(), sums[0].At(), 4, ranks[1].QueueOf("a wrong copy")).Check("copy");
            communicator.AllReduce(sums);
            Assert.That(communicator.Wait, Throws.TypeOf<CudaException>().With.Message.Contains("not within allocations").Or.With.Message.Contains("never end"));
            Assert.That(() => communicator.AllReduce(sums), Throws.TypeOf<CudaException>().With.Message.Contains("earlier failure"));
        }
        finally
        {
            foreach (var rank in ranks)
                rank.Dispose();
        }
    }

    [Test]
    public void Calls_that_would_wait_for_ever_are_errors_of_the_emulated_library()
    {
        if (EmulatedCuda.IsReal)
            Assert.Ignore("these calls are wrong on purpose");
        var ranks = Open(DType.F32);
        try
        {
            Tensor[] sums = [.. ranks.Select(rank => rank.Allocate(DType.F32, 1, 8))];
            unsafe
            {
                var comms = stackalloc nint[2];
                var ordinals = stackalloc int[] { 0, 1 };
                Nccl.Check(Nccl.ncclCommInitAll(comms, 2, ordinals), "init");
                int Sum(int rank, nuint count) => Nccl.ncclAllReduce(sums[rank].At(), sums[rank].At(), count, Nccl.ncclFloat32, Nccl.ncclSum, comms[rank], ranks[rank].QueueOf("sum"));
                Assert.That(Sum(0, 8), Is.Not.Zero, "outside a group");
                _ = Nccl.ncclGroupStart();
                Assert.That(Sum(0, 8), Is.Zero);
                Assert.That(Nccl.ncclGroupEnd(), Is.Not.Zero, "one rank of two");
                _ = Driver.cuStreamSynchronize(ranks[0].QueueOf());
                _ = Nccl.ncclGroupStart();
                Assert.That((Sum(0, 8), Sum(1, 4)), Is.EqualTo((0, 0)));
                Assert.That(Nccl.ncclGroupEnd(), Is.Zero);
                Assert.That(() => ranks[0].Wait(), Throws.TypeOf<CudaException>().With.Message.Contains("disagree"));
                Assert.That(Nccl.ncclAllReduce(0, 0, 1, Nccl.ncclFloat32, Nccl.ncclSum, comms[0], ranks[1].QueueOf()), Is.Not.Zero, "a stream of another GPU");
                ordinals[1] = 0;
                Assert.That(Nccl.ncclCommInitAll(comms, 2, ordinals), Is.Not.Zero, "one GPU twice");
            }
        }
        finally
        {
            foreach (var rank in ranks)
                rank.Dispose();
        }
    }
}
