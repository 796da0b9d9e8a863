using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Tests.Golden;
using Trimtab.Tests.Kernels;

namespace Trimtab.Tests.Cuda;

/// <summary>Tokens that the device draws are those of the <see cref="Sampler"/>, which is the definition.</summary>
public class DrawTests
{
    private static Device Gpu(DType activations = DType.F32) => EmulatedCuda.Get(activations, blocking: true);

    private static int[] Draw(Device device, float[] logits, int vocabulary, params Sampler?[] samplers)
    {
        var (numbers, settings, edits) = (new float[samplers.Length * DrawMap.NumberColumns], new int[samplers.Length * DrawMap.SettingColumns], new List<int>());
        for (var r = 0; r < samplers.Length; r++)
        {
            numbers[r * DrawMap.NumberColumns] = -1;
            if (samplers[r] is not { } sampler)
                continue;
            var own = new int[sampler.Edits * DrawMap.EditColumns];
            sampler.Describe(numbers.AsSpan(r * DrawMap.NumberColumns), settings.AsSpan(r * DrawMap.SettingColumns), own, edits.Count / DrawMap.EditColumns);
            edits.AddRange(own);
        }
        var tokens = device.Integers(new int[samplers.Length]);
        device.Draw(tokens, device.Activations(logits, vocabulary), new(
            device.Floats(numbers, DrawMap.NumberColumns), device.Table(settings, DrawMap.SettingColumns), device.Table([.. edits, 0, 0], DrawMap.EditColumns)));
        return Array.ConvertAll(device.Get(tokens), t => (int)t);
    }

    /// <summary>Options of all kinds, with scores that are equal, forbidden, or far apart, after a prompt and an answer.</summary>
    private static Sampler Random(Random random, int vocabulary)
    {
        T Of<T>(params T[] choices) => choices[random.Next(choices.Length)];
        var sampler = new Sampler(new()
        {
            Temperature = Of(0, 1e-3f, 0.7f, 1, 1, 2.5f, 1e4f), TopK = Of(0, 0, 1, 2, 40, vocabulary), TopP = Of(1, 1, 0.05f, 0.5f, 0.9f, 0.999f), MinP = Of(0, 0, 0.02f, 0.3f, 1),
            RepetitionPenalty = Of(1, 1, 1.3f, 0.8f), PresencePenalty = Of(0, 0, 0.5f, -1), FrequencyPenalty = Of(0, 0, 0.2f),
            LogitBias = Of(null, new Dictionary<int, float> { [0] = 2, [vocabulary - 1] = float.NegativeInfinity, [vocabulary / 2] = -0.25f }),
            Seed = (ulong)random.NextInt64(),
        }, vocabulary);
        sampler.Prompt([.. Enumerable.Range(0, 5).Select(_ => random.Next(vocabulary))]);
        sampler.Generated([.. Enumerable.Range(0, random.Next(6)).Select(_ => random.Next(vocabulary))]);
        return sampler;
    }

    private static float[] Logits(Random random, int rows, int vocabulary, int kind)
    {
        var logits = new float[rows * vocabulary];
        for (var i = 0; i < logits.Length; i++)
            logits[i] = kind switch
            {
                0 => 8 * random.NextSingle() - 4,
                1 => random.Next(4) - 2, // many are equal, some are zeros of either sign
                2 => random.Next(3) == 0 ? float.NegativeInfinity : 30 * (random.NextSingle() - 0.8f),
                _ => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(8 * random.NextSingle() - 4) & 0xFFFF0000), // of a bfloat16
            };
        if (kind == 1)
            for (var i = 0; i < logits.Length; i += 3)
                logits[i] = -logits[i];
        return logits;
    }

    [Test]
    public void Tokens_are_the_samplers([Values(1, 2, 3, 33, 1024, 1025, 5003)] int vocabulary, [Values(0, 1, 2, 3)] int kind)
    {
        var random = new Random(vocabulary + 7 * kind);
        var rows = vocabulary > 2000 ? 40 : 60;
        var logits = Logits(random, rows, vocabulary, kind);
        for (var r = 0; kind == 2 && r < rows; r++)
            logits[r * vocabulary] = 1; // one at least is allowed
        Sampler[] samplers = [.. Enumerable.Range(0, rows).Select(_ => Random(random, vocabulary))];
        var actual = Draw(Gpu(kind == 3 ? DType.BF16 : DType.F32), logits, vocabulary, samplers);
        var drawn = new HashSet<int>();
        for (var r = 0; r < rows; r++)
        {
            int expected;
            try
            {
                expected = samplers[r].Next(logits.AsSpan(r * vocabulary, vocabulary)).Token;
            }
            catch (ArgumentException)
            {
                expected = -1; // its bias forbids the only token
            }
            Assert.That(actual[r], Is.EqualTo(expected), $"row {r}");
            drawn.Add(expected);
        }
        Assert.That(drawn, Has.Count.GreaterThan(vocabulary > 100 ? rows / 3 : 0));
    }

    /// <summary>One distribution at many positions: what is drawn has its frequencies, and each token is the sampler's.</summary>
    [Test]
    public void Draws_have_the_distributions_frequencies()
    {
        const int Rows = 600;
        float[] logits = [0, 1, 2, -1, 0.5f, -30];
        var options = new SamplingOptions { Temperature = 1, Seed = 7 };
        Sampler At(int position)
        {
            var sampler = new Sampler(options, logits.Length);
            sampler.Generated(new int[position]);
            return sampler;
        }
        var tokens = Draw(Gpu(), [.. Enumerable.Repeat(logits, Rows).SelectMany(l => l)], logits.Length, [.. Enumerable.Range(0, Rows).Select(At)]);
        Assert.That(tokens, Is.EqualTo(Enumerable.Range(0, Rows).Select(r => At(r).Next(logits).Token)));
        var sum = logits.Sum(l => Math.Exp(l));
        for (var i = 0; i < logits.Length; i++)
        {
            var p = Math.Exp(logits[i]) / sum;
            Assert.That(tokens.Count(t => t == i), Is.EqualTo(Rows * p).Within(4 * Math.Sqrt(Rows * p * (1 - p)) + 1), $"token {i}");
        }
    }

    [Test]
    public void A_row_does_not_know_its_batch()
    {
        const int Vocabulary = 777;
        Sampler[] Make() => [.. Enumerable.Range(0, 9).Select(i => Random(new Random(i), Vocabulary))];
        var logits = Logits(new Random(3), 9, Vocabulary, 0);
        var together = Draw(Gpu(), logits, Vocabulary, Make());
        for (var r = 0; r < 9; r++)
            Assert.That(Draw(Gpu(), logits[(r * Vocabulary)..((r + 1) * Vocabulary)], Vocabulary, Make()[r]), Is.EqualTo(new[] { together[r] }));
    }

    [Test]
    public void Rows_that_admit_no_token_say_so()
    {
        Sampler Plain(float temperature, params (int, float)[] bias) => new(new() { Temperature = temperature, LogitBias = bias.ToDictionary(b => b.Item1, b => b.Item2) }, 3);
        const float No = float.NegativeInfinity;
        var tokens = Draw(Gpu(),
            [1, float.NaN, 2, 1, float.PositiveInfinity, 2, No, No, No, 1, No, 2, 5, 6, 7, -0f, 0, No], 3,
            Plain(0), Plain(1), Plain(1), Plain(1, (0, No), (2, No)), null, Plain(0));
        Assert.That(tokens, Is.EqualTo(new[] { -1, -1, -1, -1, -1, 0 }));
    }

    [Test]
    public void Edits_that_are_not_there_are_refused()
    {
        var device = Gpu();
        void Run(int first, int token) => device.Draw(device.Integers(0), device.Activations([1, 2], 2), new(
            device.Floats([0, 1, 0, 1, 0, 0], 6), device.Table([0, 0, 0, 0, 0, first, 0, 1], 8), device.Table([token, 1], 2)));
        Assert.That(() => Run(0, 1), Throws.Nothing);
        Assert.That(() => Run(0, 2), Throws.ArgumentException.With.Message.Contains("Draw: edit 0 of 1"));
        Assert.That(() => Run(1, 1), Throws.ArgumentException.With.Message.Contains("Draw: edit 1 of 1"));
        Assert.That(() => device.Draw(device.Integers(0), device.Activations([1, 2], 2), new(device.Floats([0], 1), default, default)), Throws.ArgumentException.With.Message.Contains("numbers"));
        Assert.That(() => ReferenceDevicePair.Devices[1].Draw(default, default, default), Throws.TypeOf<NotSupportedException>());
    }

    /// <summary>
    /// Sequences whose logits nobody looks at, among others: the same tokens as with logits that are looked at, and one copy back a step; a row without
    /// a token ends its sequence with the sampler's words.
    /// </summary>
    [Test]
    public void An_engine_draws_the_same_tokens_on_the_device_and_on_the_host()
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-draw-").FullName;
        try
        {
            using var device = new ProfilingDevice(EmulatedCuda.Get(batchInvariant: true));
            using var model = VisionLanguageModel.Open(TinyModel.WriteGguf(Path.Combine(folder, "tiny.gguf"), DType.F32), new() { Device = device });
            var spec = model.Network.Spec.Text;
            SamplingOptions[] samplings =
            [
                new(), new() { Temperature = 1, Seed = 3 }, new() { Temperature = 0.8f, TopP = 0.9f, TopK = 20, Seed = 4 }, new() { Temperature = 1.5f, MinP = 0.05f, RepetitionPenalty = 1.2f, Seed = 5 },
                new() { PresencePenalty = 1, FrequencyPenalty = 0.5f }, new() { Temperature = 1, LogitBias = new Dictionary<int, float> { [3] = 5 }, Seed = 6 },
            ];
            (int[][] Tokens, long Downloads, long Draws, long Steps, Sequence Failed) Run(Func<int, bool> hashed)
            {
                using var engine = new Trimtab.Engine.Engine(model.Network, new() { ContextLength = 200 });
                Sequence Make(int i, SamplingOptions sampling) => new(new([.. Enumerable.Range(4, 9 + i)]),
                    new() { MaxTokens = 12, IgnoreEos = true, Sampling = sampling, HashLogits = hashed(i) }, model.Tokenizer, spec.VocabularySize);
                Sequence[] sequences = [.. samplings.Select((s, i) => Make(i, s))];
                var failed = Make(0, new() { LogitBias = Enumerable.Range(0, spec.VocabularySize).ToDictionary(t => t, _ => float.NegativeInfinity) });
                foreach (var sequence in sequences)
                    engine.Add(sequence);
                device.Reset();
                var steps = 0;
                for (; engine.Busy; steps++)
                    engine.Step();
                long Calls(string op) => device.Stages.Where(s => s.Name == op).Sum(s => s.Calls);
                var (downloads, draws) = (Calls("Download"), Calls("Draw"));
                engine.Add(failed);
                while (engine.Busy)
                    engine.Step();
                return ([.. sequences.Select(s => s.Generated.ToArray())], downloads, draws, steps, failed);
            }
            var (host, device1, mixed) = (Run(_ => true), Run(_ => false), Run(i => i % 2 == 0));
            Assert.That(device1.Tokens, Is.EqualTo(host.Tokens));
            Assert.That(mixed.Tokens, Is.EqualTo(host.Tokens));
            Assert.That(host.Draws, Is.Zero);
            Assert.That(device1.Draws, Is.Positive);
            Assert.That(device1.Downloads, Is.EqualTo(device1.Steps));
            foreach (var run in new[] { host, device1 })
                Assert.That(run.Failed.Error, Is.InstanceOf<ArgumentException>().With.Message.Contains("no token has a finite score"));
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
