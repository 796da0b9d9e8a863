using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Kernels.Reference;
using Trimtab.Steering;

namespace Trimtab.Tests.Golden;

/// <summary>Whole models of random weights: the CPU device against the double-precision reference device, and against itself in other batches.</summary>
public class TinyModelTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Write() => _folder = Directory.CreateTempSubdirectory("trimtab-tiny-").FullName;

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string Llava => Path.Combine(_folder, "llava") is var folder && Directory.Exists(folder) ? folder : TinyModel.WriteLlava(folder);

    private string Gguf(DType type) => Path.Combine(_folder, type + ".gguf") is var path && File.Exists(path) ? path : TinyModel.WriteGguf(path, type);

    [Test]
    public void A_steered_answer_about_an_image_agrees_with_double_precision()
    {
        using var reference = new ReferenceDevice();
        using var expected = VisionLanguageModel.Open(Llava, new() { Device = reference });
        using var actual = VisionLanguageModel.Open(Llava, new() { Threads = 2 });
        var image = Image.Noise(50, 40, 3);
        foreach (var options in (GenerationOptions[])[Options(null), Options(Vectors(actual, 1)), Options(Vectors(actual, -2)) with { MaxTokens = 1 }])
        {
            var (a, b) = (Outcome.Run(actual, [Request(actual, image, options)])[0], Outcome.Run(expected, [Request(expected, image, options)])[0]);
            Assert.That(a.Sequence.Prompt.Tokens, Has.Length.EqualTo(b.Sequence.Prompt.Tokens.Length));
            Assert.That(Worst(a.Sequence.States!, b.Sequence.States!), Is.LessThan(2e-4));
            Assert.That(Worst(a.Logits[0], b.Logits[0]), Is.LessThan(5e-4));
            Assert.That(a.Tokens, Is.EqualTo(b.Tokens));
        }
    }

    [TestCase(DType.F32), TestCase(DType.F16), TestCase(DType.BF16), TestCase(DType.Q8_0), TestCase(DType.Q4_0), TestCase(DType.Q4_1), TestCase(DType.Q4_K), TestCase(DType.Q6_K)]
    [TestCase(DType.Q5_0), TestCase(DType.Q5_1), TestCase(DType.Q2_K), TestCase(DType.Q3_K), TestCase(DType.Q5_K), TestCase(DType.IQ4_NL), TestCase(DType.IQ4_XS)]
    public void Every_weight_format_agrees_with_double_precision(DType type)
    {
        using var reference = new ReferenceDevice();
        using var expected = VisionLanguageModel.Open(Gguf(type), new() { Device = reference });
        using var actual = VisionLanguageModel.Open(Gguf(type), new() { Threads = 2 });
        using var int8 = VisionLanguageModel.Open(Gguf(type), new() { Threads = 2 });
        var options = Options(null) with { MaxTokens = 2 };
        var (a, b) = (Outcome.Run(actual, [(actual.Raw("the answer in the rain"), options)])[0], Outcome.Run(expected, [(expected.Raw("the answer in the rain"), options)])[0]);
        var spread = b.Logits[0].Max() - b.Logits[0].Min();
        var converted = actual.Network.Notes.Count > 0;
        Assert.That(Worst(a.Logits[0], b.Logits[0]) / spread, Is.LessThan(converted ? 0.03 : 2e-5));
        var eight = Outcome.Run(int8, [(int8.Raw("the answer in the rain"), options)])[0].Logits[0];
        Assert.That(Worst(eight, b.Logits[0]) / spread, Is.LessThan(converted || type.IsQuantized() ? 0.03 : 2e-5));
        Assert.That(converted, Is.EqualTo(type is not (DType.F32 or DType.F16 or DType.BF16 or DType.Q8_0 or DType.Q4_0 or DType.Q4_1 or DType.Q4_K or DType.Q6_K)));
    }

    [TestCase(DType.F32), TestCase(DType.F16), TestCase(DType.BF16), TestCase(DType.Q8_0), TestCase(DType.Q4_0), TestCase(DType.Q4_1), TestCase(DType.Q4_K), TestCase(DType.Q6_K)]
    public void Batch_and_chunks_change_no_bit(DType type)
    {
        foreach (var activations in Enum.GetValues<Activations>())
        {
            using var model = VisionLanguageModel.Open(Gguf(type), new() { Threads = 2, Activations = activations });
            Bits(model, i => (model.Raw(string.Concat(Enumerable.Repeat($"in the rain {i} on ", i + 1))), i));
        }
    }

    [Test]
    public void Batch_and_chunks_change_no_bit_of_answers_about_images()
    {
        using var model = VisionLanguageModel.Open(Llava, new() { Threads = 2 });
        Bits(model, i => (i % 3 == 1
            ? model.Raw($"in the rain {i}")
            : model.Raw($"{TinyModel.ImageToken} the {i} {TinyModel.ImageToken} one", [Image.Noise(30 + i, 44, (ulong)i), Image.Blank(20, 20, 255, (byte)i, 0)]), i));
    }

    /// <summary>Alone, in a batch of seven (steered differently, unsteered ones among them), and in chunks of five: equal to the last bit.</summary>
    private static void Bits(VisionLanguageModel model, Func<int, (Prompt, int)> make)
    {
        var requests = Enumerable.Range(0, 7).Select(i =>
        {
            var (prompt, seed) = make(i);
            var options = Options(i % 3 == 2 ? null : Vectors(model, 0.5f * i, seed, (SteeringScope)(i % 3), i % 2 == 0 ? null : new LayerSet([1, 2])));
            return (prompt, options with { Sampling = new() { Temperature = i % 2, Seed = (ulong)i, TopK = 20 }, Score = prompt.Images.Count == 0 && i == 4 });
        }).ToList();
        var together = Outcome.Run(model, requests);
        var chunked = Outcome.Run(model, requests, new() { MaxBatchTokens = 5, MaxSequences = 3 });
        for (var i = 0; i < requests.Count; i++)
        {
            var alone = Outcome.Run(model, [requests[i]])[0];
            foreach (var other in (Outcome[])[together[i], chunked[i]])
            {
                Assert.That(other.Tokens, Is.EqualTo(alone.Tokens), $"tokens of {i}");
                Assert.That(other.Sequence.States, Is.EqualTo(alone.Sequence.States), $"states of {i}");
                Assert.That(other.Sequence.Nll, Is.EqualTo(alone.Sequence.Nll), $"likelihoods of {i}");
                for (var step = 0; step < alone.Logits.Count; step++)
                    Assert.That(other.Logits[step].AsSpan().SequenceEqual(alone.Logits[step]), $"logits of {i} at step {step}");
            }
        }
    }

    [Test]
    public async Task Sequences_of_many_threads_share_batches_and_keep_their_answers()
    {
        using var model = VisionLanguageModel.Open(Llava, new() { Threads = 2 });
        var prompts = Enumerable.Range(0, 12).Select(i => model.Raw($"in the rain {i}")).ToList();
        var options = new GenerationOptions { MaxTokens = 12, IgnoreEos = true };
        var alone = prompts.Select(p => Outcome.Run(model, [(p, options)])[0].Tokens).ToList();
        var answers = await Task.WhenAll(prompts.Select(p => Task.Run(() => model.RunAsync(p, options))));
        Assert.That(answers.Select(a => a.Generated), Is.EqualTo(alone));
    }

    [Test]
    public async Task Cancelling_ends_an_answer_and_frees_its_place()
    {
        using var model = VisionLanguageModel.Open(Llava, new() { Engine = new() { ContextLength = 400, CachePositions = 400 } });
        using var cancel = new CancellationTokenSource();
        Sequence? sequence = null;
        await Assert.CatchAsync<OperationCanceledException>(async () =>
        {
            await foreach (var update in model.GenerateAsync(model.Raw("the"), new() { MaxTokens = 380, IgnoreEos = true }, cancel.Token))
            {
                sequence = update.Sequence;
                cancel.Cancel();
            }
        });
        // The cache holds one such sequence: the next can only run once the cancelled one's pages are back.
        var next = await model.RunAsync(model.Raw("the"), new() { MaxTokens = 380, IgnoreEos = true });
        Assert.That(next.Generated, Has.Count.EqualTo(380));
        Assert.That(sequence!.Finish, Is.EqualTo(FinishReason.Cancelled));
    }

    [Test]
    public void Prompts_that_cannot_run_are_refused()
    {
        using var model = VisionLanguageModel.Open(Llava, new() { Engine = new() { ContextLength = 32 } });
        Assert.Multiple(() =>
        {
            Assert.That(() => model.Raw("two <image> here"), Throws.ArgumentException.With.Message.Contains("1 image placeholders"));
            Assert.That(() => Outcome.Run(model, [(model.Raw(new string('x', 40)), new())], new() { ContextLength = 32 }), Throws.ArgumentException.With.Message.Contains("context holds 32"));
            Assert.That(() => Outcome.Run(model, [(new([]), new())]), Throws.ArgumentException.With.Message.Contains("no tokens"));
            Assert.That(() => Outcome.Run(model, [(new([5, 100_000]), new())]), Throws.ArgumentException.With.Message.Contains("100000"));
            Assert.That(() => new SteeringOptions(Vectors(model, 1).Vectors, float.NaN).Validate(3), Throws.ArgumentException.With.Message.Contains("alpha"));
            Assert.That(() => new SteeringOptions(Vectors(model, 1).Vectors, 1, Layers: new([4])).Validate(3), Throws.ArgumentException.With.Message.Contains("1-3"));
        });
    }

    [Test]
    public void Quantised_and_converted_copies_keep_the_fingerprint()
    {
        using var own = VisionLanguageModel.Open(Llava);
        using var other = VisionLanguageModel.Open(Llava, new() { WeightType = DType.BF16 });
        using var different = VisionLanguageModel.Open(TinyModel.WriteLlava(Path.Combine(_folder, "second"), seed: 2));
        Assert.That(other.Network.Fingerprint, Is.EqualTo(own.Network.Fingerprint));
        Assert.That(different.Network.Fingerprint, Is.Not.EqualTo(own.Network.Fingerprint));
    }

    [Test]
    public void Missing_and_misshapen_tensors_are_listed_together()
    {
        var folder = TinyModel.WriteLlava(Path.Combine(_folder, "broken"));
        var config = Path.Combine(folder, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"num_hidden_layers\": 3, \"num_attention_heads\": 4", "\"num_hidden_layers\": 4, \"num_attention_heads\": 4", StringComparison.Ordinal)
            .Replace("\"intermediate_size\": 80", "\"intermediate_size\": 96", StringComparison.Ordinal));
        Assert.That(() => VisionLanguageModel.Open(folder), Throws.InstanceOf<Model.MismatchedTensorsException>()
            .With.Message.Contains("model.language_model.layers.3.self_attn.q_proj.weight")
            .And.Message.Contains("mlp.down_proj.weight").And.Message.Contains("96"));
    }

    private static (Prompt, GenerationOptions) Request(VisionLanguageModel model, Image image, GenerationOptions options)
        => (model.Raw($"the {TinyModel.ImageToken} in the rain", [image]), options);

    private static GenerationOptions Options(SteeringOptions? steering) => new() { MaxTokens = 6, IgnoreEos = true, Capture = true, Steering = steering };

    private static SteeringOptions Vectors(VisionLanguageModel model, float alpha, int seed = 9, SteeringScope scope = SteeringScope.All, LayerSet? layers = null)
    {
        var random = new Random(seed);
        var spec = model.Network.Spec.Text;
        return new(ShiftVectors.Create([.. Enumerable.Range(0, spec.Layers).Select(_ => (float[]?)[.. Enumerable.Range(0, spec.HiddenSize).Select(_ => random.NextSingle() - 0.5f)])]), alpha, scope, layers);
    }

    private static double Worst(float[] a, float[] b) => a.Zip(b, (x, y) => Math.Abs((double)x - y)).Max();
}
