using System.Diagnostics;
using System.Runtime.InteropServices;
using Trimtab.Model;
using Trimtab.Steering;

namespace Trimtab.Engine;

// A step's batch: what is planned, filled in, and delivered.
public sealed partial class Engine
{
    /// <summary>One token of each decoding sequence, then chunks of the prefilling ones within the budget, the oldest first.</summary>
    private void Plan()
    {
        foreach (var sequence in _running)
            sequence.Planned = 0;
        var decoding = 0;
        for (var i = 0; i < _running.Count; i++)
        {
            var sequence = _running[i];
            if (sequence.InPrefill || !Reserve(sequence, sequence.Computed + 1))
                continue; // the youngest without a page waits for one
            sequence.Planned = 1;
            decoding++;
        }
        var left = Math.Max(_options.MaxBatchTokens, decoding) - decoding;
        if (decoding > 0 && _options.PrefillChunk > 0)
            left = Math.Min(left, _options.PrefillChunk);
        var (scores, capacity) = (_batch.MaxSamples - _running.Count, _batch.MaxTokens - decoding);
        for (var i = 0; i < _running.Count && left > 0; i++)
        {
            var sequence = _running[i];
            if (!sequence.InPrefill)
                continue;
            var count = Math.Min(left, sequence.Length - sequence.Computed);
            if (sequence.Options.Score)
                count = Math.Min(count, scores);
            if (_network.Spec.Text.SeesAhead)
                count = Whole(sequence, count, capacity);
            if (count > 0 && !Reserve(sequence, sequence.Computed + count))
            {
                count = Math.Min(count, sequence.Held.Count * KvCache.PageSize - sequence.Computed);
                if (_network.Spec.Text.SeesAhead)
                    count = Whole(sequence, count, 0);
            }
            sequence.Planned = count;
            capacity -= count;
            left -= count;
            scores -= sequence.Options.Score ? count : 0;
        }
    }

    /// <summary>
    /// A number of prompt tokens that divides nothing that is seen whole: less, or, where an image (or the prompt) comes first, all of its rows if they fit
    /// the batch.
    /// </summary>
    private int Whole(Sequence sequence, int count, int capacity)
    {
        if (_network.Spec.Text.SeesWholePrompts)
            return Undivided(0, sequence.Prompt.Tokens.Length) ?? count;
        foreach (var image in sequence.Prompt.Images)
            if (Undivided(image.Start, image.Start + image.Rows) is { } less)
                return less;
        return count;

        int? Undivided(int start, int end)
        {
            var (computed, next) = (sequence.Computed, sequence.Computed + count);
            if (next <= start || next >= end || end <= computed)
                return null;
            return start > computed ? start - computed : end - computed <= capacity ? end - computed : 0;
        }
    }

    private void Fill()
    {
        _batch.Clear();
        _sampled.Clear();
        _captured.Clear();
        _observed.Clear();
        foreach (var sequence in _running)
        {
            if (!sequence.InPrefill && sequence.Planned > 0)
                Append(sequence);
        }
        foreach (var sequence in _running)
        {
            if (sequence.InPrefill && sequence.Planned > 0)
                Append(sequence);
        }
    }

    private void Append(Sequence sequence)
    {
        var (prompt, steering) = (sequence.Prompt.Tokens.Length, sequence.Options.Steering);
        _batch.AddSequence(CollectionsMarshal.AsSpan(sequence.PageNumbers));
        for (var (position, end) = (sequence.Computed, sequence.Computed + sequence.Planned); position < end; position++)
        {
            var steered = IsSteered(sequence, position);
            // A position that is computed again was observed before.
            var observed = sequence.Telemetry is not null && position >= sequence.Unobserved && (steered || position == prompt - 1);
            var token = _batch.AddToken(
                Row(sequence, position), position, sequence.IsLong ? sequence.Length : position >= prompt ? position + 1 : prompt,
                steered || observed ? sequence.SteerSlot : -1, steered ? steering!.Alpha : 0);
            if (sequence.Prompt.Images.Count > 0)
                Place(sequence, position, token);
            if (_network.Spec.Text.SeesWholePrompts && position < prompt)
                _batch.See(token, 0, prompt - 1);
            if (observed)
            {
                _batch.Observe(token);
                _observed.Add((sequence, position == prompt - 1, steered));
                sequence.Unobserved = position + 1;
            }
            if (position == prompt - 1 && sequence.Options.Capture && sequence.States is null)
                _captured.Add((sequence, _batch.Capture(token)));
            if (position != sequence.Length - 1 && !(sequence.Options.Score && position < prompt - 1))
                continue;
            var row = _batch.Sample(token);
            _sampled.Add((sequence, row, position));
            if (_network.Device.Draws && position == sequence.Length - 1 && sequence.IsDrawnUnseen && !(sequence.Options.Capture && position == prompt - 1)
                && sequence.Length < Math.Min(sequence.Limit, ContextLength))
                _batch.Draw(row, sequence.Sampler);
        }
        sequence.Computed += sequence.Planned;
    }

    /// <summary>
    /// What images do to a token's place: M-RoPE turns an image's rows by row and column, and what follows it by positions from its longer side on
    /// (arXiv 2409.12191, section 2.1); rows of an image may see all of it.
    /// </summary>
    private void Place(Sequence sequence, int position, int token)
    {
        var (text, vision, prompt) = (_network.Spec.Text, _network.Spec.Vision!, sequence.Prompt.Tokens.Length);
        var (at, latest) = (position, 0);
        var images = sequence.Prompt.Images;
        for (var i = 0; i < images.Count && position >= images[i].Start; i++)
        {
            var image = images[i];
            var (row, (rows, columns)) = (position - image.Start, vision.Extent(image.Grid));
            if (row < image.Rows)
            {
                if (text.SeesWholeImages)
                    _batch.See(token, image.Start, image.Start + image.Rows - 1);
                if (text.Rope.Sections is not null)
                    _batch.Turn(token, (at - row) * vision.TimeFactor, at - row + row / columns, at - row + row % columns);
                return;
            }
            latest = Math.Max(latest, (at - row) * vision.TimeFactor);
            at += Math.Max(rows, columns) - image.Rows;
        }
        // What is generated follows the largest place of all, which is an image's only where its place in time was multiplied.
        if (position >= prompt)
            at += Math.Max(0, latest + 1 - (at - position + prompt));
        if (text.Rope.Sections is not null)
            _batch.Turn(token, at, at, at);
    }

    /// <summary>Whether the edit applies at a position: of the prompt only at its last.</summary>
    private static bool IsSteered(Sequence sequence, int position)
    {
        var prompt = sequence.Prompt.Tokens.Length;
        return sequence.Options.Steering is { } steering && steering.Scope switch
        {
            SteeringScope.Prefill => position == prompt - 1,
            SteeringScope.Decode => position >= prompt,
            _ => position >= prompt - 1,
        };
    }

    private static int Row(Sequence sequence, int position)
    {
        var prompt = sequence.Prompt;
        if (position >= prompt.Tokens.Length)
            return sequence.Tokens[position - prompt.Tokens.Length];
        for (var i = 0; i < prompt.Images.Count; i++)
        {
            var image = prompt.Images[i];
            if (position >= image.Start && position < image.Start + image.Rows)
                return -1 - (sequence.FeatureRows[i] + position - image.Start);
        }
        return prompt.Tokens[position];
    }

    /// <summary>Hands captures, projections, likelihoods and drawn tokens to their sequences.</summary>
    private void Deliver()
    {
        var (text, vocabulary) = (_network.Spec.Text, _network.Spec.Text.VocabularySize);
        foreach (var (sequence, slot) in _captured)
        {
            sequence.States = new float[text.Layers * text.HiddenSize];
            _network.Device.Download(_step.Captures.Slice(slot * text.Layers, text.Layers), sequence.States);
        }
        if (_observed.Count > 0)
            _network.Device.Download(_step.Products.Slice(0, _observed.Count), _products.AsSpan(0, _observed.Count * 2 * text.Layers));
        for (var i = 0; i < _observed.Count; i++)
            _observed[i].Sequence.Telemetry!.Add(_products.AsSpan(i * 2 * text.Layers, 2 * text.Layers), _observed[i].IsPrompt, _observed[i].IsSteered);
        DownloadLogits(vocabulary);
        var start = Stopwatch.GetTimestamp();
        _choosing.Clear();
        _drawing.Clear();
        foreach (var (sequence, row, position) in _sampled)
        {
            try
            {
                if (_drawn[row] >= 0)
                    sequence.Choose((int)_drawn[row]);
                else if (Take(sequence, _logits.AsSpan(row * vocabulary, vocabulary), position))
                    _choosing.Add((sequence, row));
                else
                    continue;
                _drawing.Add(sequence);
            }
            catch (Exception error) when (error is not OutOfMemoryException)
            {
                // A caller's callback or unusable logits end one answer, not the others in the batch.
                sequence.End(FinishReason.Error, error);
            }
        }
        _network.Device.Spread(_choosing.Count, _choose);
        foreach (var sequence in _drawing)
        {
            try
            {
                sequence.Draw(_endIds);
                _counts = _counts with { GeneratedTokens = _counts.GeneratedTokens + 1 };
                if (sequence.Length >= ContextLength)
                    sequence.End(FinishReason.Length);
            }
            catch (Exception error) when (error is not OutOfMemoryException)
            {
                sequence.End(FinishReason.Error, error);
            }
        }
        _counts = _counts with { SamplingSeconds = _counts.SamplingSeconds + Seconds(start) };
        foreach (var sequence in _running)
        {
            ReturnFeatures(sequence, sequence.Computed);
            Publish(sequence, all: false);
        }
    }

    /// <summary>
    /// Fetches the tokens that the device drew, and the logits that somebody looks at: rows of a sequence that shows, hashes, masks or keeps them, and
    /// rows from which the device could draw nothing, so that the sampler says why.
    /// </summary>
    private void DownloadLogits(int vocabulary)
    {
        var samples = _batch.Samples;
        if (samples == 0)
            return;
        if (_batch.Draws > 0)
            _network.Device.Download(_step.Drawn, _drawn.AsSpan(0, samples));
        else
            _drawn.AsSpan(0, samples).Fill(-1);
        for (int first = 0, end; first < samples; first = end + 1)
        {
            for (end = first; end < samples && _drawn[end] < 0; end++)
            {
            }
            if (end > first)
                _network.Device.Download(_step.Logits.Slice(first, end - first), _logits.AsSpan(first * vocabulary, (end - first) * vocabulary));
        }
    }

    /// <summary>Hands logits to their sequence.</summary>
    /// <returns>Whether its next token is drawn from them.</returns>
    private bool Take(Sequence sequence, ReadOnlySpan<float> logits, int position)
    {
        var prompt = sequence.Prompt.Tokens.Length;
        if (position < prompt - 1)
        {
            sequence.Nll![position] = NegativeLogLikelihood(logits, sequence.Prompt.Tokens[position + 1]);
            return false;
        }
        if (position == prompt - 1 && sequence.Options.Capture)
            sequence.Logits = logits.ToArray();
        if (sequence.Length >= Math.Min(sequence.Limit, ContextLength))
        {
            if (sequence.FirstToken == 0)
                sequence.FirstToken = sequence.LastToken = Stopwatch.GetTimestamp();
            sequence.End(FinishReason.Length);
            return false;
        }
        sequence.OnLogits?.Invoke(logits);
        return true;
    }

    private static float NegativeLogLikelihood(ReadOnlySpan<float> logits, int token)
    {
        var max = System.Numerics.Tensors.TensorPrimitives.Max(logits);
        var sum = 0.0;
        foreach (var logit in logits)
            sum += Math.Exp(logit - max);
        return (float)(Math.Log(sum) + max - logits[token]);
    }
}
