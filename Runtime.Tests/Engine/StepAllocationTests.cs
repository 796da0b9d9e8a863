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

    /// <summary>Greedy and drawn, steered and not, with penalties, over the border of a page and of a chunk of attention. The tokens' texts are not asked for.</summary>
    [Test]
    public void A_decode_step_allocates_nothing([Values] Activations activations, [Values] Model.KvType kv)
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-step-").FullName;
        try
        {
            using var device = new CpuDevice(2, activations);
            using var model = VisionLanguageModel.Open(TinyModel.WriteGguf(Path.Combine(folder, "tiny.gguf"), DType.Q8_0), new() { Device = device });
            using var engine = new Trimtab.Engine.Engine(model.Network, new() { KvType = kv, ContextLength = 500 });
            var spec = model.Network.Spec.Text;
            var vectors = ShiftVectors.Create([.. Enumerable.Range(0, spec.Layers).Select(_ => new float[spec.HiddenSize])]);
            for (var i = 0; i < 4; i++)
                engine.Add(new(new([.. Enumerable.Repeat(5, 190 + i)]), new()
                {
                    MaxTokens = 200,
                    IgnoreEos = true,
                    Steering = i % 2 == 0 ? null : new(vectors),
                    Sampling = new() { Temperature = i / 2, TopP = 0.9f, TopK = 20, RepetitionPenalty = i == 3 ? 1.1f : 1, Seed = (ulong)i },
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
