using System.Diagnostics;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>
/// The one loop: each <see cref="Step"/> admits what fits, mixes one token of every decoding sequence with chunks of
/// prefilling ones into a batch, runs it, and draws. Sequences that begin alike share pages of the KV cache, whatever they are steered by:
/// only positions that were steered belong to their edit. What is in a batch or in the cache changes no sequence's result. Not thread-safe:
/// one thread owns it (<see cref="EngineLoop"/>).
/// </summary>
public sealed partial class Engine : IDisposable
{
    private readonly Network _network;
    private readonly KvCache _cache;
    private readonly PagePool _pool;
    private readonly Identities _identities = new();
    private readonly Batch _batch;
    private readonly Step _step;
    private readonly SteeringBank _bank;
    private readonly FeatureStore _features;
    private readonly LinkedList<Sequence> _waiting = new();
    private readonly List<Sequence> _running = []; // the oldest first
    private readonly List<(Sequence Sequence, int LogitsRow, int Position)> _sampled = [];
    private readonly List<(Sequence Sequence, int LogitsRow)> _choosing = []; // by the host
    private readonly List<Sequence> _drawing = [];
    private readonly Action<int> _choose;
    private readonly List<(Sequence Sequence, int Slot)> _captured = [];
    private readonly List<(Sequence Sequence, bool IsPrompt, bool IsSteered)> _observed = [];
    private readonly HashSet<int> _endIds;
    private readonly float[] _logits; // [maxSamples, V]
    private readonly float[] _drawn; // [maxSamples]: tokens that the device drew, or -1; all are numbers that a float holds
    private readonly float[] _products; // [maxSequences, 2 L]
    private readonly EngineOptions _options;
    private readonly Lock _lock = new();
    private EngineStatistics _counts, _statistics;
    private static int created;
    private readonly int _id = Interlocked.Increment(ref created);
    private readonly Action _forward;
    private long _arrivals;

    /// <summary>Makes an engine over a loaded network.</summary>
    /// <param name="network">The model; the caller keeps it.</param>
    /// <param name="options">Capacities.</param>
    /// <param name="endIds">Further tokens that end an answer, beside the model's own.</param>
    public Engine(Network network, EngineOptions? options = null, IEnumerable<int>? endIds = null)
    {
        ArgumentNullException.ThrowIfNull(network);
        _options = options ??= new();
        _network = network;
        var text = network.Spec.Text;
        ContextLength = options.ContextLength > 0 ? options.ContextLength : Math.Min(text.Rope.Reach, 4096);
        if (options.MaxBatchTokens < 1 || options.MaxSequences < 1)
            throw new ArgumentException($"{options.MaxBatchTokens} tokens and {options.MaxSequences} sequences a step: expected at least 1 of each");
        if (options.PrefillChunk < 0 || options.CachedImages < 0 || options.MaxWaiting < 0)
            throw new ArgumentException($"a prefill chunk of {options.PrefillChunk}, {options.CachedImages} cached images, {options.MaxWaiting} waiting: expected 0 or more of each");
        var samples = options.MaxSequences + 64;
        // What is seen whole is computed in one step.
        var whole = text.SeesWholePrompts ? ContextLength : text.SeesWholeImages ? Math.Min(network.Vision?.Spec.Features ?? 0, ContextLength) : 0;
        _batch = new(Math.Max(options.MaxBatchTokens, options.MaxSequences + whole), options.MaxSequences, KvCache.PagesFor(ContextLength), samples);
        _cache = new(network.Device, text, options.CachePositions > 0 ? options.CachePositions : 4 * ContextLength, options.KvType);
        _pool = new(_cache.Pages);
        _step = new(network.Device, network.Decoder, _batch, maxCaptures: options.MaxSequences); // a prompt has one last token
        _bank = new(network.Device, text.Layers, text.HiddenSize);
        _features = new(network.Device, ContextLength + options.CachedImages * (network.Vision?.Spec.Features ?? 0), text.HiddenSize, 1 + text.AddedLayers);
        _forward = () =>
        {
            _network.Decoder.Forward(_step, _cache, _features.Features, _bank.Vectors);
            if (_batch.Draws > 0)
                _network.Device.Draw(_step.Drawn, _step.Logits, _step.Draws);
        };
        _logits = new float[samples * text.VocabularySize];
        _drawn = new float[samples];
        _products = new float[options.MaxSequences * 2 * text.Layers];
        _endIds = [.. text.EosIds, .. endIds ?? []];
        _choose = i => _choosing[i].Sequence.Choose(_logits.AsSpan(_choosing[i].LogitsRow * text.VocabularySize, text.VocabularySize), _endIds);
    }

    /// <summary>Positions a sequence may reach.</summary>
    public int ContextLength { get; }

    /// <summary>What it has done and holds, as of the end of the last step; may be asked from any thread.</summary>
    public EngineStatistics Statistics
    {
        get
        {
            lock (_lock)
                return _statistics;
        }
    }

    /// <summary>Sequences that may be open at a time; see <see cref="EngineOptions.MaxWaiting"/>.</summary>
    internal int MaxOpen => _options.MaxWaiting == 0 ? int.MaxValue : _options.MaxSequences + _options.MaxWaiting;

    /// <summary>Pages, feature rows and steering slots that no sequence holds: all of them where none runs.</summary>
    internal (int Pages, int FeatureRows, int SteeringUses) Unheld => (_pool.Free + _pool.Idle, _features.FreeRows, _bank.Uses);

    /// <summary>Whether any sequence waits or runs.</summary>
    public bool Busy => _waiting.Count + _running.Count > 0;

    /// <summary>Queues a sequence.</summary>
    /// <exception cref="ArgumentException">Its prompt is empty, too long, or does not fit the model; its steering does not; it can never have pages enough.</exception>
    public void Add(Sequence sequence)
    {
        ArgumentNullException.ThrowIfNull(sequence);
        Check(sequence);
        sequence.Arrival = ++_arrivals;
        if (sequence.Submitted == 0)
            sequence.Submitted = Stopwatch.GetTimestamp();
        _waiting.AddLast(sequence);
    }

    /// <summary>Refuses what cannot run here, before anything is computed.</summary>
    public void Check(Sequence sequence)
    {
        ArgumentNullException.ThrowIfNull(sequence);
        var (tokens, images) = (sequence.Prompt.Tokens, sequence.Prompt.Images);
        var spec = _network.Spec;
        if (tokens.Length == 0)
            throw new ArgumentException("the prompt has no tokens");
        if (tokens.Length > ContextLength)
            throw new ArgumentException($"the prompt has {tokens.Length} tokens (images included); the context holds {ContextLength}");
        var positions = Math.Min(sequence.Limit, ContextLength);
        if (KvCache.PagesFor(positions) > _cache.Pages)
            throw new ArgumentException($"prompt and answer may take {positions} positions; the KV cache has room for {_cache.Pages * KvCache.PageSize}");
        if (images.Count > 0 && _network.Vision is null)
            throw new ArgumentException("the prompt has images, but the model has no vision encoder");
        foreach (var image in images)
        {
            var (rows, pixels) = (_network.Vision!.Spec.FeatureRows(image.Grid), _network.Vision.Spec.PixelCount(image.Grid));
            if (image.Rows != rows || image.Pixels.Length != pixels || image.Start < 0 || image.Start > tokens.Length - image.Rows)
                throw new ArgumentException(
                    $"an image of {image.Rows} rows and {image.Pixels.Length} pixel values at position {image.Start} does not fit: " +
                    $"expected {rows} rows and {pixels} values inside {tokens.Length} tokens");
        }
        for (var i = 0; i < tokens.Length; i++)
        {
            if ((uint)tokens[i] >= spec.Text.VocabularySize && !images.Any(image => i >= image.Start && i < image.Start + image.Rows))
                throw new ArgumentException($"token {tokens[i]} at position {i} is outside the model's vocabulary of {spec.Text.VocabularySize}");
        }
        if (sequence.Options.Steering is { } steering)
        {
            steering.Validate(spec.Text.Layers);
            steering.Vectors.Check(spec.Text.Layers, spec.Text.HiddenSize, null);
        }
        if (sequence.Options.Score && images.Count > 0)
            throw new ArgumentException("a prompt with images has no likelihood: image rows are not tokens");
        if (sequence.Options.Score && spec.Text.SeesWholePrompts)
            throw new ArgumentException("a prompt of this model has no likelihood: its positions see those after them");
    }

    /// <summary>Runs one step.</summary>
    /// <returns>Whether there was anything to do.</returns>
    public bool Step()
    {
        var start = Stopwatch.GetTimestamp();
        var encoding = _counts.ImageSeconds;
        Retire();
        Restart();
        Admit();
        if (_running.Count == 0)
        {
            Report();
            return false;
        }
        Plan();
        Fill();
        _counts = _counts with { SchedulingSeconds = _counts.SchedulingSeconds + Seconds(start) - (_counts.ImageSeconds - encoding) };
        _step.Upload(_batch);
        Forward();
        Deliver();
        Retire();
        _counts = _counts with
        {
            Steps = _counts.Steps + 1,
            BatchTokens = _batch.Tokens,
            BatchSequences = _batch.Sequences,
            StepSeconds = _counts.StepSeconds + Seconds(start),
        };
        Report();
        return true;
    }

    /// <summary>
    /// The forward pass. A step that only decodes comes again with the same shapes: the device may keep it as a graph. The key stands for
    /// all that is not data; tensors that are replaced (the bank's, as it grows) free their memory, which the device sees itself.
    /// </summary>
    private void Forward()
    {
        if (_batch.Tokens == _batch.Sequences && _batch.Tokens < 1 << 14)
            _network.Device.Replay((long)_id << 32 | (long)_batch.Tokens << 16 | (long)_batch.Samples << 2
                | (_batch.Draws > 0 ? 1L << 30 : 0) | (_features.Features.IsNone ? 0L : 1) | (_bank.Vectors.IsNone ? 0L : 2), _forward);
        else
            _forward();
    }

    /// <summary>Ends every sequence with an error and frees what they held.</summary>
    public void Fail(Exception error)
    {
        foreach (var sequence in _waiting)
        {
            sequence.End(FinishReason.Error, error);
            Release(sequence); // its admission may be what failed
        }
        ReturnFound();
        foreach (var sequence in _running)
            sequence.End(FinishReason.Error, error);
        Retire();
        // What a step that failed wrote is not known.
        _pool.Clear();
        _features.Clear();
        Report();
    }

    /// <summary>Removes what has ended, was cancelled, or is at its deadline.</summary>
    private void Retire()
    {
        var now = DateTimeOffset.UtcNow;
        for (var node = _waiting.First; node is not null;)
        {
            var (sequence, next) = (node.Value, node.Next);
            if (Ended(sequence, now))
            {
                _waiting.Remove(node);
                Count(sequence);
            }
            node = next;
        }
        for (var i = _running.Count - 1; i >= 0; i--)
        {
            var sequence = _running[i];
            if (!Ended(sequence, now))
                continue;
            _running.RemoveAt(i);
            Release(sequence);
            Count(sequence);
        }
    }

    private static bool Ended(Sequence sequence, DateTimeOffset now)
    {
        if (sequence.Cancelled)
            sequence.End(FinishReason.Cancelled);
        else if (sequence.Options.Deadline is { } deadline && now >= deadline)
            sequence.End(FinishReason.Deadline);
        return sequence.Finish != FinishReason.None;
    }

    /// <summary>Hands back all that a sequence holds; its keys and values stay for later prompts.</summary>
    private void Release(Sequence sequence)
    {
        if (sequence.Finish != FinishReason.Error)
            Publish(sequence, all: true);
        for (var i = sequence.Held.Count - 1; i >= 0; i--)
            _pool.Return(sequence.Held[i]);
        sequence.Held.Clear();
        sequence.PageNumbers.Clear();
        sequence.Published = sequence.Computed = 0;
        ReturnFeatures(sequence, ContextLength);
        if (sequence.SteerSlot >= 0)
            _bank.Release(sequence.SteerSlot);
        sequence.SteerSlot = -1;
    }

    private void Count(Sequence sequence) => _counts = sequence.Finish switch
    {
        FinishReason.Cancelled => _counts with { Cancelled = _counts.Cancelled + 1 },
        FinishReason.Deadline => _counts with { Expired = _counts.Expired + 1 },
        FinishReason.Error => _counts with { Failed = _counts.Failed + 1 },
        _ => _counts with { Done = _counts.Done + 1 },
    };

    private void Report()
    {
        lock (_lock)
        {
            _statistics = _counts with
            {
                Waiting = _waiting.Count,
                Running = _running.Count,
                Pages = _pool.Pages,
                UsedPages = _pool.Pages - _pool.Free - _pool.Idle,
                CachedPages = _pool.Idle,
            };
        }
    }

    private static double Seconds(long since) => Stopwatch.GetElapsedTime(since).TotalSeconds;

    /// <summary>Frees cache and activations; the network stays the caller's.</summary>
    public void Dispose()
    {
        Fail(new ObjectDisposedException(nameof(Engine)));
        _cache.Dispose();
        _step.Dispose();
        _bank.Dispose();
        _features.Dispose();
    }
}
