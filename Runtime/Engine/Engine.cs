using System.Diagnostics;
using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Engine;

/// <summary>
/// The one loop: each <see cref="Step"/> admits what fits, mixes one token of every decoding sequence with chunks of
/// prefilling ones into a batch, runs it, and draws. What is in a batch changes no sequence's result. Not thread-safe:
/// one thread owns it (<see cref="EngineLoop"/>).
/// </summary>
public sealed class Engine : IDisposable
{
    private readonly Network _network;
    private readonly KvCache _cache;
    private readonly Batch _batch;
    private readonly Step _step;
    private readonly SteeringBank _bank;
    private readonly FeatureStore _features;
    private readonly Queue<Sequence> _waiting = new();
    private readonly List<Sequence> _running = [];
    private readonly List<Sequence> _kept = []; // ended, their pages for a sequence that goes on from them
    private readonly List<(Sequence Sequence, int LogitsRow, int Position)> _sampled = [];
    private readonly List<(Sequence Sequence, int Slot)> _captured = [];
    private readonly HashSet<int> _endIds;
    private readonly float[] _logits; // [maxSamples, V]
    private readonly int _budget;

    /// <summary>Makes an engine over a loaded network.</summary>
    /// <param name="network">The model; the caller keeps it.</param>
    /// <param name="options">Capacities.</param>
    /// <param name="endIds">Further tokens that end an answer, beside the model's own.</param>
    public Engine(Network network, EngineOptions? options = null, IEnumerable<int>? endIds = null)
    {
        ArgumentNullException.ThrowIfNull(network);
        options ??= new();
        _network = network;
        var text = network.Spec.Text;
        ContextLength = options.ContextLength > 0 ? options.ContextLength : Math.Min(text.Rope.MaxPositions, 4096);
        if (options.MaxBatchTokens < 1 || options.MaxSequences < 1)
            throw new ArgumentException($"{options.MaxBatchTokens} tokens and {options.MaxSequences} sequences a step: expected at least 1 of each");
        var positions = Math.Max(ContextLength, options.CachePositions > 0 ? options.CachePositions : 4 * ContextLength);
        _budget = options.MaxBatchTokens;
        var samples = options.MaxSequences + 64;
        _batch = new(Math.Max(_budget, options.MaxSequences), options.MaxSequences, KvCache.PagesFor(ContextLength), samples);
        _cache = new(network.Device, text, positions, options.KvType);
        _step = new(network.Device, text, network.Decoder.Rope, _batch, maxCaptures: options.MaxSequences); // a prompt has one last token
        _bank = new(network.Device, text.Layers, text.HiddenSize);
        _features = new(network.Device, ContextLength, text.HiddenSize);
        _logits = new float[samples * text.VocabularySize];
        _endIds = [.. text.EosIds, .. endIds ?? []];
    }

    /// <summary>Positions a sequence may reach.</summary>
    public int ContextLength { get; }

    /// <summary>What it has done and holds, as of the end of the last step; may be asked from any thread.</summary>
    public EngineStatistics Statistics { get; }

    /// <summary>Pages that ended sequences may keep (<see cref="Sequence.Keep"/>).</summary>
    internal int KeepPages => _cache.Pages - KvCache.PagesFor(ContextLength);

    /// <summary>Whether any sequence waits or runs.</summary>
    public bool Busy => _waiting.Count + _running.Count > 0;

    /// <summary>Queues a sequence.</summary>
    /// <exception cref="ArgumentException">Its prompt is empty, too long, or does not fit the model; its steering does not.</exception>
    public void Add(Sequence sequence)
    {
        ArgumentNullException.ThrowIfNull(sequence);
        Check(sequence);
        _waiting.Enqueue(sequence);
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
        if (images.Count > 0 && _network.Vision is null)
            throw new ArgumentException("the prompt has images, but the model has no vision encoder");
        foreach (var image in images)
        {
            if (image.Rows != _network.Vision!.Spec.Features || image.Pixels.Length != _network.Vision.PixelCount
                || image.Start < 0 || image.Start > tokens.Length - image.Rows)
                throw new ArgumentException(
                    $"an image of {image.Rows} rows and {image.Pixels.Length} pixel values at position {image.Start} does not fit: " +
                    $"expected {_network.Vision.Spec.Features} rows and {_network.Vision.PixelCount} values inside {tokens.Length} tokens");
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
    }

    /// <summary>Runs one step.</summary>
    /// <returns>Whether there was anything to do.</returns>
    public bool Step()
    {
        Retire();
        Admit();
        if (_running.Count == 0)
            return false;
        Fill();
        _step.Upload(_batch);
        _network.Decoder.Forward(_step, _cache, _features.Features, _bank.Vectors);
        Deliver();
        Retire();
        return true;
    }

    /// <summary>Ends every sequence with an error and frees what they held.</summary>
    public void Fail(Exception error)
    {
        while (_waiting.TryDequeue(out var sequence))
            sequence.End(FinishReason.Error, error);
        foreach (var sequence in _running)
            sequence.End(FinishReason.Error, error);
        Retire();
        _kept.ForEach(Free);
        _kept.Clear();
    }

    /// <summary>Removes what has ended or was cancelled.</summary>
    private void Retire()
    {
        for (var i = _kept.Count - 1; i >= 0; i--)
        {
            if (!_kept[i].Cancelled)
                continue;
            Free(_kept[i]);
            _kept.RemoveAt(i);
        }
        for (var i = _running.Count - 1; i >= 0; i--)
        {
            var sequence = _running[i];
            if (sequence.Cancelled)
                sequence.End(FinishReason.Cancelled);
            if (sequence.Finish == FinishReason.None)
                continue;
            _features.Return(sequence.FeatureRow, sequence.FeatureCount);
            if (sequence.SteerSlot >= 0)
                _bank.Release(sequence.SteerSlot);
            _running.RemoveAt(i);
            if (sequence.Keep && sequence.Finish == FinishReason.Length && !sequence.Cancelled && CanKeep(sequence))
                _kept.Add(sequence);
            else
                Free(sequence);
        }
    }

    private void Free(Sequence sequence)
    {
        Array.ForEach(sequence.Pages, _cache.Return);
        sequence.Pages = [];
    }

    /// <summary>What is kept leaves room for the longest sequence, so that whatever waits is admitted in the end.</summary>
    private bool CanKeep(Sequence sequence) => _kept.Sum(kept => kept.Pages.Length) + sequence.Pages.Length <= KeepPages;

    /// <summary>
    /// Hands a sequence the keys and values of the one that it goes on from, if they are still kept, so that only the prompt's last
    /// position is computed again: the one position that its steering changes.
    /// </summary>
    private bool GoOn(Sequence sequence, int pages)
    {
        if (sequence.After is not { } earlier || !ReferenceEquals(earlier.Prompt, sequence.Prompt) || earlier.Pages.Length < pages
            || earlier.Tokens.Count > 0 || Row(sequence, sequence.Prompt.Tokens.Length - 1) < 0 || !_kept.Remove(earlier))
            return false;
        (sequence.Pages, earlier.Pages) = (earlier.Pages, []);
        sequence.Computed = sequence.Prompt.Tokens.Length - 1;
        return true;
    }

    /// <summary>Moves waiting sequences to the running ones while slots, pages and feature rows last, first come first.</summary>
    private void Admit()
    {
        while (_waiting.TryPeek(out var sequence))
        {
            if (sequence.Cancelled)
            {
                _waiting.Dequeue().End(FinishReason.Cancelled);
                continue;
            }
            if (_running.Count == _batch.MaxSequences)
                return;
            var pages = KvCache.PagesFor(Math.Min(sequence.Limit, ContextLength));
            var goesOn = GoOn(sequence, pages);
            if (!goesOn && !Reserve(sequence, pages))
                return;
            _waiting.Dequeue();
            sequence.After = null; // else every pass would hold on to all before it
            // A step allocates nothing.
            var most = Math.Min(sequence.Limit, ContextLength);
            sequence.Tokens.EnsureCapacity(most - sequence.Prompt.Tokens.Length);
            _network.Decoder.Rope.Reserve(most);
            if (sequence.Options.Steering is { } steering)
                sequence.SteerSlot = _bank.Acquire(steering);
            _running.Add(sequence);
            if (!goesOn)
                Encode(sequence);
            sequence.PrefillStart = Stopwatch.GetTimestamp();
        }
    }

    private bool Reserve(Sequence sequence, int pages)
    {
        var rows = sequence.Prompt.Images.Sum(image => image.Rows);
        if (pages > _cache.FreePages)
            return false;
        var first = rows == 0 ? 0 : _features.Take(rows);
        if (first < 0)
            return false;
        (sequence.FeatureRow, sequence.FeatureCount) = (first, rows);
        sequence.Pages = new int[pages];
        for (var i = 0; i < pages; i++)
            sequence.Pages[i] = _cache.Take();
        return true;
    }

    private void Encode(Sequence sequence)
    {
        var images = sequence.Prompt.Images;
        if (images.Count == 0)
            return;
        var start = Stopwatch.GetTimestamp();
        var pixels = new float[images.Count * _network.Vision!.PixelCount];
        for (var i = 0; i < images.Count; i++)
            images[i].Pixels.CopyTo(pixels, i * _network.Vision.PixelCount);
        _network.Vision.Forward(pixels, _features.Features.Slice(sequence.FeatureRow, sequence.FeatureCount));
        sequence.ImageTime = Stopwatch.GetElapsedTime(start);
    }

    /// <summary>One token of each decoding sequence, then chunks of the prefilling ones within the budget.</summary>
    private void Fill()
    {
        _batch.Clear();
        _sampled.Clear();
        _captured.Clear();
        foreach (var sequence in _running)
        {
            if (!sequence.InPrefill)
                Append(sequence, 1);
        }
        foreach (var sequence in _running)
        {
            var left = Math.Max(_budget, _batch.Sequences) - _batch.Tokens;
            if (left > 0 && sequence.InPrefill)
                Append(sequence, left);
        }
    }

    private void Append(Sequence sequence, int budget)
    {
        var prompt = sequence.Prompt.Tokens.Length;
        var count = Math.Min(budget, sequence.Length - sequence.Computed);
        if (sequence.Options.Score && sequence.InPrefill)
            count = Math.Min(count, _batch.MaxSamples - _batch.Samples - _running.Count);
        if (count <= 0)
            return;
        _batch.AddSequence(sequence.Pages);
        for (var position = sequence.Computed; position < sequence.Computed + count; position++)
        {
            var last = position == prompt - 1;
            var generated = position >= prompt;
            var steering = sequence.Options.Steering;
            var steered = steering is not null && steering.Scope switch
            {
                Steering.SteeringScope.Prefill => last,
                Steering.SteeringScope.Decode => generated,
                _ => last || generated,
            };
            var token = _batch.AddToken(
                Row(sequence, position), position, generated ? position + 1 : prompt,
                steered ? sequence.SteerSlot : -1, steered ? steering!.Alpha : 0);
            if (last && sequence.Options.Capture)
                _captured.Add((sequence, _batch.Capture(token)));
            if (last || generated || sequence.Options.Score)
                _sampled.Add((sequence, _batch.Sample(token), position));
        }
        sequence.Computed += count;
    }

    private static int Row(Sequence sequence, int position)
    {
        var prompt = sequence.Prompt;
        if (position >= prompt.Tokens.Length)
            return sequence.Tokens[position - prompt.Tokens.Length];
        var row = sequence.FeatureRow;
        for (var i = 0; i < prompt.Images.Count; i++)
        {
            var image = prompt.Images[i];
            if (position >= image.Start && position < image.Start + image.Rows)
                return -1 - (row + position - image.Start);
            row += image.Rows;
        }
        return prompt.Tokens[position];
    }

    /// <summary>Hands captures, likelihoods and drawn tokens to their sequences.</summary>
    private void Deliver()
    {
        var (text, vocabulary) = (_network.Spec.Text, _network.Spec.Text.VocabularySize);
        foreach (var (sequence, slot) in _captured)
        {
            sequence.States = new float[text.Layers * text.HiddenSize];
            _network.Device.Download(_step.Captures.Slice(slot * text.Layers, text.Layers), sequence.States);
        }
        if (_batch.Samples > 0)
            _network.Device.Download(_step.Logits, _logits.AsSpan(0, _batch.Samples * vocabulary));
        foreach (var (sequence, row, position) in _sampled)
        {
            var logits = _logits.AsSpan(row * vocabulary, vocabulary);
            try
            {
                Take(sequence, logits, position);
            }
            catch (Exception error) when (error is not OutOfMemoryException)
            {
                // A caller's callback or unusable logits end one answer, not the others in the batch.
                sequence.End(FinishReason.Error, error);
            }
        }
        foreach (var sequence in _running)
        {
            if (sequence.InPrefill || sequence.FeatureCount == 0)
                continue;
            _features.Return(sequence.FeatureRow, sequence.FeatureCount);
            sequence.FeatureCount = 0;
        }
    }

    private void Take(Sequence sequence, ReadOnlySpan<float> logits, int position)
    {
        var prompt = sequence.Prompt.Tokens.Length;
        if (position < prompt - 1)
        {
            sequence.Nll![position] = NegativeLogLikelihood(logits, sequence.Prompt.Tokens[position + 1]);
            return;
        }
        if (position == prompt - 1 && sequence.Options.Capture)
            sequence.Logits = logits.ToArray();
        if (sequence.Length >= Math.Min(sequence.Limit, ContextLength))
        {
            if (sequence.FirstToken == 0)
                sequence.FirstToken = sequence.LastToken = Stopwatch.GetTimestamp();
            sequence.End(FinishReason.Length);
            return;
        }
        sequence.Draw(logits, _endIds);
        if (sequence.Length >= ContextLength)
            sequence.End(FinishReason.Length);
    }

    private static float NegativeLogLikelihood(ReadOnlySpan<float> logits, int token)
    {
        var max = System.Numerics.Tensors.TensorPrimitives.Max(logits);
        var sum = 0.0;
        foreach (var logit in logits)
            sum += Math.Exp(logit - max);
        return (float)(Math.Log(sum) + max - logits[token]);
    }

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
