using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab.Server.Benchmarks;

/// <summary>Runs a plan's measurements through the engine, as any request runs, on token ids drawn at random.</summary>
internal sealed class BenchSession : IDisposable
{
    private const int StepTokens = 512;

    private readonly Network _network;
    private readonly Tokenizer _tokenizer;
    private readonly BenchPlan _plan;
    private readonly Engine.Engine _engine;
    private readonly ShiftVectors[] _vectors;
    private readonly float[] _pixels = [], _row = [];
    private readonly Tensor _features;
    private readonly Tensor[] _added = [];
    private readonly ProfilingDevice? _profile;
    private IReadOnlyList<ProfileStage> _stages = [];

    /// <summary>Prompt tokens that were not computed because a cache had them: none, or a prefill's speed is none.</summary>
    internal long CachedTokens => _engine.Statistics.CachedPromptTokens;

    /// <param name="network">The model; the caller keeps it.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    /// <param name="plan">What is measured.</param>
    /// <param name="arithmetic">What is multiplied with the decoder's matrices.</param>
    /// <param name="sight">What is multiplied with the vision tower's.</param>
    /// <param name="profile">The network's device where its ops are profiled, or null.</param>
    public BenchSession(Network network, Tokenizer tokenizer, BenchPlan plan, Arithmetic arithmetic, Arithmetic sight, ProfilingDevice? profile = null)
    {
        _profile = profile;
        (_network, _tokenizer, _plan) = (network, tokenizer, plan);
        var (text, most) = (network.Spec.Text, plan.Batches.Max());
        var context = 1 + Math.Max(plan.Prompt, plan.Generate == 0 ? 0 : plan.Depth + 1 + Limit(most));
        _engine = new(network, new()
        {
            ContextLength = context,
            CachePositions = (plan.Generate == 0 ? 1 : most) * KvCache.PagesFor(context) * KvCache.PageSize,
            MaxSequences = most,
            KvType = plan.Kv,
            PrefixCache = false, // every repetition computes the same prompts
            MaxBatchTokens = Math.Max(StepTokens, 2 * most),
        });
        var random = new Random(1);
        float[] Vector() => [.. Enumerable.Range(0, text.HiddenSize).Select(_ => (random.NextSingle() - 0.5f) / 16)];
        _vectors = [.. Enumerable.Range(0, plan.Steered).Select(_ => ShiftVectors.Create([.. Enumerable.Range(0, text.Layers).Select(_ => Vector())]))];

        foreach (var steered in plan.Steered > 0 ? (int[])[0, plan.Steered] : [0])
        {
            if (plan.Prompt > 0)
                Add(new("prefill", plan.Prompt, 1, 0, Math.Min(steered, 1), Cost.Prefill(network, plan.Prompt, StepTokens, arithmetic)));
            if (plan.Generate > 0)
                foreach (var batch in plan.Batches)
                    Add(new("decode", plan.Generate, batch, plan.Depth, Math.Min(steered, batch), Cost.Decode(network, plan.Depth + 1, plan.Generate, batch, arithmetic, plan.Kv)));
        }
        if (!plan.Image || network.Vision is not { } vision)
            return;
        _pixels = new float[vision.Spec.PixelCount(vision.Spec.Typical)];
        for (var i = 0; i < _pixels.Length; i++)
            _pixels[i] = random.NextSingle() * 4 - 2;
        Tensor Rows() => network.Device.Allocate(network.Device.ActivationType, vision.Spec.FeatureRows(vision.Spec.Typical), text.HiddenSize);
        _features = Rows();
        _row = new float[_features.Columns];
        _added = [.. vision.Spec.Deepstack.Select(_ => Rows())];
        Add(new("image", _features.Rows, 1, 0, 0, Cost.Image(vision, sight)));

        void Add(Measurement measurement) => Measurements.Add(measurement);
    }

    /// <summary>What is measured: the unsteered first, then the same steered, then the image.</summary>
    public List<Measurement> Measurements { get; } = [];

    /// <summary>Runs a measurement once untimed, so that code is compiled and memory touched, and hashes its logits.</summary>
    public void Warm(Measurement measurement)
    {
        if (measurement.Test == "image")
        {
            Encode();
            var rows = new float[_features.Count];
            _network.Device.Download(_features, rows);
            measurement.Hash = Convert.ToHexStringLower(SHA256.HashData(System.Runtime.InteropServices.MemoryMarshal.AsBytes(rows.AsSpan())));
            return;
        }
        var sequences = Sequences(measurement, measurement.Test == "prefill" ? 1 : measurement.Tokens, hash: true);
        sequences.ForEach(_engine.Add);
        while (_engine.Busy)
            Step(sequences);
        measurement.Hash = sequences.Count == 1
            ? sequences[0].LogitsHash!
            : Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(string.Concat(sequences.Select(s => s.LogitsHash)))));
    }

    /// <summary>Runs a measurement once and notes its time.</summary>
    public void Run(Measurement measurement)
    {
        measurement.Seconds.Add(measurement.Test switch
        {
            "prefill" => Prefill(measurement),
            "decode" => Decode(measurement),
            _ => Encode(),
        });
        if (_profile is not null)
            measurement.Add(_stages);
    }

    private long Begin()
    {
        _profile?.Reset();
        return Stopwatch.GetTimestamp();
    }

    private double End(long start)
    {
        var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _stages = _profile?.Stages ?? [];
        return seconds;
    }

    private double Prefill(Measurement measurement)
    {
        var sequences = Sequences(measurement, 0);
        var start = Begin();
        sequences.ForEach(_engine.Add);
        while (_engine.Busy)
            Step(sequences);
        return End(start);
    }

    /// <summary>Times as many steps as tokens are asked for, each with one token of every sequence, after the prompts are done.</summary>
    private double Decode(Measurement measurement)
    {
        var sequences = Sequences(measurement, Limit(measurement.Batch));
        sequences.ForEach(_engine.Add);
        while (sequences.Any(sequence => sequence.Generated.Count == 0))
            Step(sequences);
        var start = Begin();
        for (var i = 0; i < measurement.Tokens; i++)
            _engine.Step();
        var seconds = End(start);
        sequences.ForEach(sequence => sequence.Cancel());
        Step(sequences);
        return seconds;
    }

    private double Encode()
    {
        var start = Begin();
        _network.Vision!.Forward(_pixels, _network.Vision.Spec.Typical, _features, _added);
        _network.Device.Download(_features.Slice(0, 1), _row); // waits: ops only enqueue
        return End(start);
    }

    private void Step(List<Sequence> sequences)
    {
        _engine.Step();
        if (sequences.Find(sequence => sequence.Error is not null) is { } failed)
            throw failed.Error!;
    }

    /// <summary>Tokens that a sequence may generate: those timed, and those that come while the others' prompts are not done.</summary>
    private int Limit(int batch)
    {
        var step = Math.Max(StepTokens, 2 * batch);
        return _plan.Generate + 2 + batch * (_plan.Depth + 1) / (step - batch);
    }

    private List<Sequence> Sequences(Measurement measurement, int tokens, bool hash = false) =>
    [
        .. Enumerable.Range(0, measurement.Batch).Select(i => new Sequence(
            new(Tokens(i, measurement.Test == "prefill" ? measurement.Tokens : measurement.Depth + 1)),
            new()
            {
                MaxTokens = tokens,
                IgnoreEos = true,
                HashLogits = hash || _plan.HashLogits,
                Sampling = (_plan.Sampling ?? new()) with { Seed = (ulong)i },
                Steering = measurement.Steered == 0 ? null : new(_vectors[i % measurement.Steered], _plan.Alpha),
            },
            _tokenizer, _network.Spec.Text.VocabularySize)),
    ];

    private int[] Tokens(int seed, int count)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(_network.Spec.Text.VocabularySize))];
    }

    public void Dispose()
    {
        _engine.Dispose();
        _features.Storage?.Dispose();
        foreach (var tensor in _added)
            tensor.Storage!.Dispose();
    }
}
