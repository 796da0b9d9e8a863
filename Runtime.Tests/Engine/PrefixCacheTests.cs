using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Engine;

/// <summary>Keys and values are shared where they are equal, and nowhere else; whether they are changes no bit of a result.</summary>
[TestFixture("cpu")]
[TestFixture("2 × cpu")]
[TestFixture("cuda")]
public class PrefixCacheTests(string device)
{
    private string _folder = null!;
    private VisionLanguageModel _model = null!;

    [OneTimeSetUp]
    public void Open()
    {
        _folder = Directory.CreateTempSubdirectory("trimtab-prefix-").FullName;
        _model = VisionLanguageModel.Open(TinyModel.WriteLlava(Path.Combine(_folder, "llava")), new() { Threads = 2, Device = Fixture.DeviceOf(device, batchInvariant: true) });
    }

    [OneTimeTearDown]
    public void Close()
    {
        _model?.Dispose();
        Directory.Delete(_folder, true);
    }

    private Trimtab.Engine.Engine Engine(EngineOptions? options = null) => new(_model.Network, options);

    private SteeringOptions Steering(int seed, float alpha, SteeringScope scope = SteeringScope.Prefill, LayerSet? layers = null)
    {
        var (random, spec) = (new Random(seed), _model.Network.Spec.Text);
        return new(ShiftVectors.Create([.. Enumerable.Range(0, spec.Layers).Select(_ => (float[]?)[.. Enumerable.Range(0, spec.HiddenSize).Select(_ => random.NextSingle() - 0.5f)])]), alpha, scope, layers);
    }

    private Prompt Text(string tail = "") => _model.Raw("the answer in the rain " + string.Concat(Enumerable.Repeat("on the one ", 6)) + tail);

    private Prompt Picture(int seed, string tail = "") => _model.Raw($"the {TinyModel.ImageToken} in the rain {tail}", [Image.Noise(40, 40, (ulong)seed)]);

    private Sequence Sequence(Prompt prompt, SteeringOptions? steering = null, int tokens = 6, int seed = 0) => new(prompt,
        new() { MaxTokens = tokens, IgnoreEos = true, Capture = true, HashLogits = true, Steering = steering, Sampling = new() { Temperature = 1, Seed = (ulong)seed } },
        _model.Tokenizer, _model.Network.Spec.Text.VocabularySize);

    private static Sequence[] Run(Trimtab.Engine.Engine engine, params Sequence[] sequences)
    {
        foreach (var sequence in sequences)
            engine.Add(sequence);
        while (engine.Step())
        {
        }
        foreach (var sequence in sequences)
            Assert.That(sequence.Finish, Is.EqualTo(FinishReason.Length), sequence.Error?.ToString());
        return sequences;
    }

    /// <summary>Equal to a run of its own without any cache.</summary>
    private void AssertAsAlone(Sequence sequence, KvType kv = KvType.F32)
    {
        using var engine = Engine(new() { PrefixCache = false, KvType = kv });
        var alone = Run(engine, new Sequence(sequence.Prompt, sequence.Options, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize))[0];
        Assert.Multiple(() =>
        {
            Assert.That(alone.CachedTokens, Is.Zero);
            Assert.That(sequence.Generated, Is.EqualTo(alone.Generated));
            Assert.That(sequence.LogitsHash, Is.EqualTo(alone.LogitsHash));
            Assert.That(sequence.States, Is.EqualTo(alone.States));
        });
    }

    [Test]
    public void The_same_prompt_under_other_edits_shares_all_but_the_last_position([Values] SteeringScope scope, [Values] bool image)
    {
        using var engine = Engine();
        var prompt = image ? Picture(1) : Text();
        SteeringOptions first = Steering(1, 1, scope), other = Steering(2, 1, scope);
        Run(engine, Sequence(prompt, first));
        foreach (var steering in (SteeringOptions?[])[null, first with { Alpha = 2 }, first with { Layers = new([1]) }, other, first])
        {
            var sequence = Run(engine, Sequence(prompt, steering))[0];
            Assert.That(sequence.CachedTokens, Is.EqualTo(prompt.Tokens.Length - 1));
            AssertAsAlone(sequence);
        }
    }

    /// <summary>The last page of a prompt that another one begins with is copied, scales included. The CPU has no eight-bit floats and says what it has.</summary>
    [Test]
    public void Rounded_keys_and_values_are_shared_too([Values(KvType.BF16, KvType.Int8, KvType.Fp8)] KvType kv)
    {
        if (kv == KvType.Fp8 && device.EndsWith("cpu", StringComparison.Ordinal))
        {
            Assert.That(() => Engine(new() { KvType = kv }), Throws.TypeOf<NotSupportedException>().With.Message.Contains("keeps no Fp8 keys and values; it keeps F32, BF16, Int8"));
            return;
        }
        using var engine = Engine(new() { KvType = kv });
        Run(engine, Sequence(Text(), Steering(1, 1)));
        foreach (var steering in (SteeringOptions?[])[null, Steering(2, 1)])
        {
            var sequence = Run(engine, Sequence(Text(), steering))[0];
            Assert.That(sequence.CachedTokens, Is.EqualTo(sequence.Prompt.Tokens.Length - 1));
            AssertAsAlone(sequence, kv);
        }
    }

    [Test]
    public void Images_of_equal_size_never_share_and_equal_ones_do()
    {
        using var engine = Engine();
        var (first, other, again) = (Run(engine, Sequence(Picture(1)))[0], Run(engine, Sequence(Picture(2)))[0], Run(engine, Sequence(Picture(1, "again")))[0]);
        var start = first.Prompt.Images[0].Start;
        Assert.Multiple(() =>
        {
            Assert.That(other.CachedTokens, Is.EqualTo(start));
            Assert.That(again.CachedTokens, Is.GreaterThanOrEqualTo(start + first.Prompt.Images[0].Rows));
            Assert.That(engine.Statistics.ImageEncodes, Is.EqualTo(2));
        });
        foreach (var sequence in (Sequence[])[first, other, again])
            AssertAsAlone(sequence);
    }

    [Test]
    public void Groups_share_nothing_with_each_other()
    {
        using var engine = Engine();
        Sequence Of(string? group) => new(Picture(1), new() { MaxTokens = 6, IgnoreEos = true, Capture = true, HashLogits = true, CacheGroup = group }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize);
        var prompt = Picture(1).Tokens.Length;
        foreach (var (group, cached, encoded) in new[] { (null, 0, 1), ("a", 0, 2), ("b", 0, 3), ("a", prompt - 1, 3), (null, prompt - 1, 3), ("b", prompt - 1, 3) })
        {
            var sequence = Run(engine, Of(group))[0];
            Assert.That((sequence.CachedTokens, engine.Statistics.ImageEncodes), Is.EqualTo((cached, encoded)), group);
            AssertAsAlone(sequence);
        }
    }

    [Test]
    public void Features_of_an_image_serve_prompts_that_share_nothing_before_it()
    {
        using var engine = Engine();
        Run(engine, Sequence(Picture(1)));
        var later = Run(engine, Sequence(_model.Raw($"on {TinyModel.ImageToken} one {TinyModel.ImageToken}", [Image.Noise(40, 40, 1), Image.Noise(40, 40, 1)])))[0];
        Assert.That((engine.Statistics.ImageEncodes, engine.Statistics.ImageHits), Is.EqualTo((1, 2)));
        AssertAsAlone(later);
    }

    /// <summary>What an unsteered turn may use of the one before: everything up to the first steered position.</summary>
    [TestCase(null, 20), TestCase(SteeringScope.All, -1), TestCase(SteeringScope.Prefill, -1), TestCase(SteeringScope.Decode, 0)]
    public void An_answer_serves_the_next_turn_as_far_as_it_was_not_steered(SteeringScope? scope, int beyondPrompt)
    {
        using var engine = Engine();
        var prompt = Text();
        var answer = Run(engine, Sequence(prompt, scope is { } s ? Steering(3, 1, s) : null, tokens: 21, seed: 7))[0];
        var later = Run(engine, Sequence(new([.. prompt.Tokens, .. answer.Generated, 5, 6, 7])))[0];
        Assert.That(later.CachedTokens, Is.EqualTo(prompt.Tokens.Length + beyondPrompt));
        AssertAsAlone(later);
    }

    [Test]
    public void A_steered_answer_is_taken_up_by_the_same_edit()
    {
        // After preemption a sequence finds its own answer again; another sequence with the same edit has the same positions.
        using var engine = Engine();
        var steering = Steering(6, 1, SteeringScope.All);
        var (first, second) = (Run(engine, Sequence(Text(), steering, tokens: 40))[0], Run(engine, Sequence(Text(), steering, tokens: 40))[0]);
        Assert.That(second.Generated, Is.EqualTo(first.Generated));
        AssertAsAlone(second);
    }

    [Test]
    public void Forks_that_arrive_together_compute_their_prompt_once()
    {
        using var engine = Engine();
        var prompt = Picture(3, string.Concat(Enumerable.Repeat("on the one ", 8)));
        var forks = Run(engine, [.. Enumerable.Range(0, 4).Select(i => Sequence(prompt, seed: i))]);
        Assert.Multiple(() =>
        {
            Assert.That(forks[0].CachedTokens, Is.Zero);
            Assert.That(forks.Skip(1).Select(f => f.CachedTokens), Is.All.EqualTo(prompt.Tokens.Length - 1));
            Assert.That(engine.Statistics.ImageEncodes, Is.EqualTo(1));
        });
        foreach (var fork in forks)
            AssertAsAlone(fork);
    }

    [Test]
    public void Sequences_that_outgrow_the_cache_give_way_and_come_back_unchanged()
    {
        using var engine = Engine(new() { ContextLength = 160, CachePositions = 224, MaxBatchTokens = 24 });
        var sequences = Run(engine, [.. Enumerable.Range(0, 6).Select(i => Sequence(i % 2 == 0 ? Text($"{i}") : Picture(i), i % 3 == 0 ? null : Steering(i, 1, SteeringScope.All), tokens: 60, seed: i))]);
        Assert.That(engine.Statistics.Preempted, Is.GreaterThan(0));
        foreach (var sequence in sequences)
            AssertAsAlone(sequence);
        Assert.That(engine.Unheld.Pages, Is.EqualTo(engine.Statistics.Pages));
    }

    [Test]
    public void A_long_prompt_delays_others_by_no_more_than_its_chunk()
    {
        using var engine = Engine(new() { PrefillChunk = 7 });
        var first = Sequence(Text(), tokens: 40);
        engine.Add(first);
        while (first.Generated.Count == 0)
            engine.Step();
        engine.Add(Sequence(Picture(9, string.Concat(Enumerable.Repeat("in the rain ", 20))), tokens: 2));
        for (var before = first.Generated.Count; engine.Busy && first.Finish == FinishReason.None; before = first.Generated.Count)
        {
            engine.Step();
            Assert.That(first.Generated.Count, Is.EqualTo(before + 1), "every step brings a token");
            Assert.That(engine.Statistics.BatchTokens, Is.LessThanOrEqualTo(8));
        }
    }

    [Test]
    public void While_others_decode_a_step_encodes_one_prompts_images()
    {
        using var engine = Engine();
        var first = Sequence(Text(), tokens: 40);
        engine.Add(first);
        while (first.Generated.Count == 0)
            engine.Step();
        Sequence[] pictures = [.. Enumerable.Range(0, 3).Select(i => Sequence(Picture(20 + i)))];
        foreach (var picture in pictures)
            engine.Add(picture);
        for (var encodes = 0; encodes < 3; encodes++)
        {
            engine.Step();
            Assert.That(engine.Statistics.ImageEncodes, Is.EqualTo(encodes + 1));
        }
        while (engine.Step())
        {
        }
        foreach (var picture in pictures)
            AssertAsAlone(picture);
    }

    [Test]
    public void While_others_decode_a_prompts_images_are_encoded_one_a_step()
    {
        using var engine = Engine();
        var first = Sequence(Text(), tokens: 40);
        engine.Add(first);
        while (first.Generated.Count == 0)
            engine.Step();
        // One of them twice: three to encode.
        var many = Sequence(_model.Raw(string.Concat(Enumerable.Repeat($"the {TinyModel.ImageToken} ", 4)), [.. new ulong[] { 31, 32, 31, 33 }.Select(seed => Image.Noise(40, 40, seed))]));
        engine.Add(many);
        for (var encodes = 1; encodes <= 3; encodes++)
        {
            var before = first.Generated.Count;
            engine.Step();
            Assert.That((engine.Statistics.ImageEncodes, first.Generated.Count), Is.EqualTo((encodes, before + 1)));
        }
        while (engine.Step())
        {
        }
        Assert.That((engine.Statistics.ImageEncodes, engine.Statistics.ImageHits), Is.EqualTo((3, 1)));
        AssertAsAlone(many);
    }

    [Test]
    public void What_can_never_fit_is_refused_at_once()
    {
        using var engine = Engine(new() { ContextLength = 160, CachePositions = 64 });
        Assert.That(() => engine.Add(Sequence(Text(), tokens: 100)), Throws.ArgumentException.With.Message.Contains("the KV cache has room for 64"));
    }

    [Test]
    public void A_deadline_ends_what_waits_and_what_runs()
    {
        using var engine = Engine();
        Sequence At(DateTimeOffset deadline) => new(Text(), new() { MaxTokens = 4, Deadline = deadline }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize);
        var (late, later) = (At(DateTimeOffset.UtcNow.AddSeconds(-1)), At(DateTimeOffset.UtcNow.AddHours(1)));
        engine.Add(late);
        engine.Add(later);
        while (engine.Step())
        {
        }
        Assert.That((late.Finish, late.Generated.Count), Is.EqualTo((FinishReason.Deadline, 0)));
        Assert.That(later.Finish, Is.EqualTo(FinishReason.Length).Or.EqualTo(FinishReason.Stop));
        Assert.That((engine.Statistics.Expired, engine.Statistics.Done), Is.EqualTo((1, 1)));
    }

    [Test]
    public void A_full_queue_refuses_and_says_when_to_come_again()
    {
        using var loop = new EngineLoop(Engine(new() { MaxSequences = 2, MaxWaiting = 3 }));
        var gate = new ManualResetEventSlim();
        Sequence Blocking() => new(Text(), new() { MaxTokens = 2, IgnoreEos = true }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize) { OnToken = (_, _) => gate.Wait() };
        for (var i = 0; i < 5; i++)
            loop.Submit(Blocking());
        var busy = Assert.Throws<EngineBusyException>(() => loop.Submit(Blocking()))!;
        Assert.That(busy.RetryAfter, Is.InRange(TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(60)));
        gate.Set();
        Assert.That(() => loop.Statistics.Done, Is.EqualTo(5).After(20_000, 20));
        Assert.That(() => loop.Submit(Blocking()), Throws.Nothing);
        Assert.That(loop.Statistics.Refused, Is.EqualTo(1));
    }

    [Test]
    public void Telemetry_is_where_the_captured_states_lie([Values] SteeringScope scope, [Values(0f, 1.5f)] float alpha)
    {
        using var engine = Engine();
        var (steering, text) = (Steering(8, alpha, scope, new([1, 3])), _model.Network.Spec.Text);
        var sequence = new Sequence(Picture(4), new() { MaxTokens = 5, IgnoreEos = true, Capture = true, Steering = steering, Telemetry = TelemetryDetail.Series }, _model.Tokenizer, text.VocabularySize);
        Run(engine, sequence);
        var telemetry = sequence.Telemetry!;
        Assert.That(telemetry.Tokens, Is.EqualTo(scope switch { SteeringScope.Prefill => 1, SteeringScope.Decode => 4, _ => 5 }));
        Assert.That(telemetry.Series, Has.Count.EqualTo(telemetry.Tokens * text.Layers * 2));
        for (var layer = 1; layer <= text.Layers; layer++)
        {
            float[] v = [.. steering.Vectors[layer]], h = sequence.States![((layer - 1) * text.HiddenSize)..(layer * text.HiddenSize)];
            var norm = Math.Sqrt(v.Sum(x => (double)x * x));
            var before = layer == 2 ? 0 : h.Zip(v, (x, y) => (double)x * y).Sum() / norm;
            var edited = scope == SteeringScope.Decode || layer == 2 ? before : before - alpha * norm;
            Assert.That(telemetry.PromptBefore[layer - 1], Is.EqualTo(before).Within(1e-4), $"layer {layer} before");
            Assert.That(telemetry.PromptAfter[layer - 1], Is.EqualTo(edited).Within(1e-4), $"layer {layer} after");
            if (layer != 2)
                Assert.That(telemetry.MeanBefore[layer - 1] - telemetry.MeanAfter[layer - 1], Is.EqualTo(alpha * norm).Within(1e-4), $"layer {layer} mean");
        }
        AssertAsAlone(sequence);
    }

    [Test]
    public void A_constraint_masks_draws_and_ends_the_answer()
    {
        using var engine = Engine();
        var sequence = new Sequence(Text(), new() { MaxTokens = 400, Constraint = () => new Countdown(7), Sampling = new() { Temperature = 1, TopLogProbs = 2 } }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize);
        engine.Add(sequence);
        while (engine.Step())
        {
        }
        Assert.That(sequence.Generated, Is.EqualTo(new[] { 7, 6, 5, 4, 3 }));
        Assert.That(sequence.Finish, Is.EqualTo(FinishReason.Stop));
    }

    /// <summary>Allows one token at a time, down to 3.</summary>
    private sealed class Countdown(int next) : TokenConstraint
    {
        private int _next = next;

        public override bool Complete => _next < 3;

        public override void Mask(Span<float> logits)
        {
            var kept = logits[_next];
            logits.Fill(float.NegativeInfinity);
            logits[_next] = kept;
        }

        public override void Accept(int token) => Assert.That(token, Is.EqualTo(_next--));
    }

    [Test]
    public void Random_requests_end_once_and_give_everything_back()
    {
        var count = device switch { "cpu" => 2000, _ => 150 };
        var random = new Random(20261125);
        using var engine = Engine(new() { ContextLength = 160, CachePositions = 400, MaxBatchTokens = 40, MaxSequences = 6, PrefillChunk = 16, CachedImages = 2 });
        var prompts = Enumerable.Range(0, 12).Select(i => i % 3 == 0 ? Picture(i / 3, $"{i}") : Text($"{i % 5}")).ToArray();
        SteeringOptions?[] steerings = [null, null, Steering(1, 1), Steering(1, .5f, SteeringScope.All), Steering(2, 1, SteeringScope.Decode), Steering(2, 1, SteeringScope.All, new([2]))];
        var (sequences, ends) = (new List<Sequence>(), new Dictionary<Sequence, int>());
        for (var i = 0; i < count; i++)
        {
            var options = new GenerationOptions
            {
                MaxTokens = random.Next(0, 24),
                HashLogits = true,
                IgnoreEos = random.Next(2) == 0,
                Steering = steerings[random.Next(steerings.Length)],
                Telemetry = (TelemetryDetail)random.Next(3),
                Deadline = random.Next(40) == 0 ? DateTimeOffset.UtcNow.AddMilliseconds(random.Next(40)) : null,
                Sampling = new() { Temperature = 1, Seed = (ulong)random.Next(50) },
            };
            var throws = random.Next(50) == 0;
            Sequence sequence = null!;
            sequence = new(prompts[random.Next(prompts.Length)], options, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize)
            {
                OnToken = (_, _) => _ = throws ? throw new InvalidOperationException("the reader is gone") : 0,
                OnFinish = (ended, _) => ends[ended] = ends.GetValueOrDefault(ended) + 1,
            };
            sequences.Add(sequence);
            engine.Add(sequence);
            for (var steps = random.Next(3); steps > 0; steps--)
                engine.Step();
            if (random.Next(12) == 0)
                sequences[random.Next(sequences.Count)].Cancel();
        }
        while (engine.Step())
        {
        }
        var spread = sequences.GroupBy(s => s.Finish).ToDictionary(g => g.Key, g => g.Count());
        Assert.Multiple(() =>
        {
            Assert.That(ends.Values, Is.All.EqualTo(1));
            Assert.That(ends, Has.Count.EqualTo(count));
            Assert.That(spread, Does.Not.ContainKey(FinishReason.None));
            Assert.That(engine.Unheld.Pages, Is.EqualTo(engine.Statistics.Pages));
            Assert.That(engine.Unheld.SteeringUses, Is.Zero);
            Assert.That(engine.Unheld.FeatureRows, Is.EqualTo(160 + 2 * _model.Network.Vision!.Spec.Features));
            var counts = engine.Statistics;
            Assert.That(counts.Done + counts.Cancelled + counts.Expired + counts.Failed, Is.EqualTo(count));
            Assert.That((counts.Cancelled > 0, counts.Failed > 0, counts.CachedPromptTokens > 0), Is.EqualTo((true, true, true)));
        });
        // Equal requests have equal answers, and those are what they are alone.
        foreach (var group in sequences.Where(s => s.Finish is FinishReason.Stop or FinishReason.Length)
            .GroupBy(s => (s.Prompt, s.Options.Steering, s.Options.MaxTokens, s.Options.IgnoreEos, s.Options.Sampling.Seed)))
            Assert.That(group.Select(s => s.LogitsHash).Distinct().Count(), Is.EqualTo(1));
        foreach (var sequence in sequences.Where(s => s.Finish == FinishReason.Length && s.Generated.Count > 0).Take(device == "cpu" ? 60 : 5))
        {
            using var alone = Engine(new() { PrefixCache = false });
            var own = Run(alone, new Sequence(sequence.Prompt, sequence.Options with { Deadline = null }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize))[0];
            Assert.That(own.LogitsHash, Is.EqualTo(sequence.LogitsHash));
        }
    }
}
