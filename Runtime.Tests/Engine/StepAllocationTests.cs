using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Engine;

public class StepAllocationTests
{
    private readonly record struct CountWork(long[] Bytes) : IWork
    {
        public void Run(int first, int end, int worker) => Bytes[worker] = GC.GetAllocatedBytesForCurrentThread();
    }

    /// <summary>
    /// As served: greedy and drawn, steered and observed and not, with penalties and biases, logits hashed, over the border of a page and of a chunk of
    /// attention. The tokens' texts are not asked for.
    /// </summary>
    [Test]
    public void A_decode_step_allocates_nothing([Values] Activations activations, [Values(Model.KvType.F32, Model.KvType.BF16, Model.KvType.Int8)] Model.KvType kv)
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-step-").FullName;
        try
        {
            using var device = new CpuDevice(2, activations);
            using var model = VisionLanguageModel.Open(TinyModel.WriteGguf(Path.Combine(folder, "tiny.gguf"), DType.Q8_0), new() { Device = device });
            using var engine = new Trimtab.Engine.Engine(model.Network, new() { KvType = kv, ContextLength = 500 });
            var spec = model.Network.Spec.Text;
            var vectors = ShiftVectors.Create([.. Enumerable.Range(0, spec.Layers).Select(layer => (float[]?)[.. Enumerable.Repeat(0.01f * (layer + 1), spec.HiddenSize)])]);
            for (var i = 0; i < 4; i++)
                engine.Add(new(new([.. Enumerable.Repeat(5, 190 + i)]), new()
                {
                    MaxTokens = 200,
                    IgnoreEos = true,
                    HashLogits = true,
                    Steering = i == 0 ? null : new(vectors, i - 1),
                    Telemetry = i == 2 ? TelemetryDetail.None : TelemetryDetail.Summary,
                    Sampling = new()
                    {
                        Temperature = i / 2, TopP = 0.9f, TopK = 20, Seed = (ulong)i,
                        RepetitionPenalty = i == 3 ? 1.1f : 1, LogitBias = i == 1 ? new Dictionary<int, float> { [3] = -1, [7] = 1 } : null,
                    },
                }, model.Tokenizer, spec.VocabularySize));
            for (var i = 0; i < 10; i++)
                engine.Step();
            var (before, after) = (new long[2], new long[2]);
            device.Pool.Run(2, new CountWork(before));
            for (var i = 0; i < 100; i++)
                engine.Step();
            device.Pool.Run(2, new CountWork(after));
            Assert.That(after.Zip(before, (a, b) => a - b), Is.All.Zero);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
