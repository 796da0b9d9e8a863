using System.Numerics;
using System.Runtime.Intrinsics;

namespace Trimtab.Kernels;

/// <summary>
/// Chooses the tokens of one sequence. Holds what the penalties need to know of it: which tokens its prompt has, and how often each was generated.
/// Memory in the size of the vocabulary is taken by the first draw that needs it, so that sequences which wait hold none; later draws allocate
/// nothing (but the list of <see cref="SamplingOptions.TopLogProbs"/>). Not for use by two threads at once.
/// </summary>
public sealed class Sampler
{
    /// <summary>Weights that are summed together; the arrays' lengths are multiples of it.</summary>
    private const int Block = 64;

    /// <summary>Tokens are put into buckets by how far their score lies below the largest: 32 a factor of e.</summary>
    private const int Buckets = 1024, BucketsANat = 32;

    /// <summary>Copies of a bucket's count, taken in turn: additions to one would wait for each other.</summary>
    private const int Turns = 4;

    private readonly SamplingOptions _options;
    private readonly KeyValuePair<int, float>[] _bias;
    private readonly int _vocabulary;

    /// <summary>[V, rounded up to blocks]: the logits, then changed by bias and penalties; the rest is −∞.</summary>
    private float[] _scores = [];

    /// <summary>As long as <see cref="_scores"/>: exp((score − largest) / temperature), 0 where a filter drops the token.</summary>
    private double[] _weights = [];

    /// <summary>[V]: the candidates as a heap, the taken ones at its end.</summary>
    private int[] _candidates = [];

    /// <summary>As long as <see cref="_scores"/>: each token's bucket.</summary>
    private int[] _bucketOf = [];

    /// <summary>[buckets, turns]: tokens, or their weight.</summary>
    private double[] _buckets = [];

    /// <summary>[V]: how often each token was generated; with penalties.</summary>
    private int[] _counts = [];

    /// <summary>[V]: whether a token is in <see cref="_seenList"/>; with penalties.</summary>
    private bool[] _seen = [];
    private readonly List<int> _seenList = [];
    private readonly bool _penalised;
    private ulong _position;

    /// <summary>A sampler at the start of a sequence.</summary>
    /// <param name="options">How to choose; checked here.</param>
    /// <param name="vocabulary">Number of logits V.</param>
    /// <exception cref="ArgumentOutOfRangeException">An option is out of its range, or biases a token beyond the vocabulary.</exception>
    public Sampler(SamplingOptions options, int vocabulary)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(vocabulary);
        options.Validate();
        _options = options;
        _vocabulary = vocabulary;
        _bias = options.LogitBias?.ToArray() ?? [];
        foreach (var (token, _) in _bias)
            if (token >= vocabulary)
                throw new ArgumentOutOfRangeException(nameof(options), token, $"{nameof(SamplingOptions.LogitBias)} has the token {token}; the vocabulary has {vocabulary}");
        _penalised = options.RepetitionPenalty != 1 || options.PresencePenalty != 0 || options.FrequencyPenalty != 0;
    }

    /// <summary>Tells which tokens the prompt has, for the repetition penalty. Ids outside the vocabulary (image slots) are passed over.</summary>
    public void Prompt(ReadOnlySpan<int> ids)
    {
        foreach (var id in ids)
            See(id);
    }

    /// <summary>Tells of tokens that were generated without this sampler (a resumed sequence): they count as if drawn here, positions included.</summary>
    /// <exception cref="ArgumentOutOfRangeException">An id is outside the vocabulary.</exception>
    public void Generated(ReadOnlySpan<int> ids)
    {
        foreach (var id in ids)
        {
            if ((uint)id >= (uint)_vocabulary)
                throw new ArgumentOutOfRangeException(nameof(ids), id, $"token {id} is outside the vocabulary of {_vocabulary}");
            Count(id);
        }
    }

    /// <summary>Rows of <see cref="DrawMap.Edits"/> that its next draw needs.</summary>
    public int Edits => _bias.Length + _seenList.Count;

    /// <summary>Writes what a device needs to draw the next token; tell of the token by <see cref="Generated"/>.</summary>
    /// <param name="numbers">A row of <see cref="DrawMap.Numbers"/>.</param>
    /// <param name="settings">A row of <see cref="DrawMap.Settings"/>.</param>
    /// <param name="edits"><see cref="Edits"/> rows of <see cref="DrawMap.Edits"/>.</param>
    /// <param name="first">The first of them.</param>
    public void Describe(Span<float> numbers, Span<int> settings, Span<int> edits, int first)
    {
        (numbers[0], numbers[1], numbers[2]) = (_options.Temperature, _options.TopP, _options.MinP);
        (numbers[3], numbers[4], numbers[5]) = (_options.RepetitionPenalty, _options.PresencePenalty, _options.FrequencyPenalty);
        (settings[0], settings[1], settings[2]) = (_options.TopK, (int)_options.Seed, (int)(_options.Seed >> 32));
        (settings[3], settings[4]) = ((int)_position, (int)(_position >> 32));
        (settings[5], settings[6], settings[7]) = (first, _bias.Length, _seenList.Count);
        var at = 0;
        foreach (var (token, bias) in _bias)
            (edits[at++], edits[at++]) = (token, BitConverter.SingleToInt32Bits(bias));
        foreach (var token in _seenList)
            (edits[at++], edits[at++]) = (token, _counts[token]);
    }

    private void See(int id)
    {
        if (!_penalised || (uint)id >= (uint)_vocabulary)
            return;
        if (_seen.Length == 0)
        {
            (_seen, _counts) = (new bool[_vocabulary], new int[_vocabulary]);
            _seenList.EnsureCapacity(_vocabulary);
        }
        if (_seen[id])
            return;
        _seen[id] = true;
        _seenList.Add(id);
    }

    private void Count(int id)
    {
        _position++;
        See(id);
        if (_penalised)
            _counts[id]++;
    }

    /// <summary>Chooses the next token and records it as generated.</summary>
    /// <param name="logits">[V]: the model's, unchanged; −∞ forbids a token.</param>
    /// <param name="logProb">Whether <see cref="Sampled.LogProb"/> is wanted; it is also given with <see cref="SamplingOptions.TopLogProbs"/>.</param>
    /// <exception cref="ArgumentException">A logit is NaN or +∞, there are not V of them, or no token is allowed.</exception>
    /// <param name="mask">Forbids tokens; the probabilities that are reported do not know it.</param>
    public Sampled Next(ReadOnlySpan<float> logits, bool logProb = false, LogitsMask? mask = null)
    {
        var largest = Load(logits);
        var normaliser = 0.0;
        (int, float)[]? top = null;
        if (logProb || _options.TopLogProbs > 0)
        {
            normaliser = largest + Math.Log(Mass(largest));
            if (_options.TopLogProbs > 0)
                top = Top(logits, normaliser);
        }
        mask?.Invoke(_scores.AsSpan(0, _vocabulary));
        var best = Adjust(mask is null ? largest : null);
        var token = _options.Temperature == 0 ? best : Draw(best);
        Count(token);
        return new Sampled(token, logProb || top is not null ? (float)(logits[token] - normaliser) : float.NaN, top);
    }

    /// <summary>The probabilities that <see cref="Next"/> would draw from now; records nothing.</summary>
    /// <param name="logits">[V], as for <see cref="Next"/>.</param>
    /// <param name="probabilities">[V]: receives them; they sum to 1. Greedy: 1 at the chosen token.</param>
    /// <exception cref="ArgumentException">As for <see cref="Next"/>, or the lengths differ.</exception>
    public void Distribution(ReadOnlySpan<float> logits, Span<double> probabilities)
    {
        if (probabilities.Length != _vocabulary)
            throw new ArgumentException($"{probabilities.Length} probabilities; the vocabulary has {_vocabulary}", nameof(probabilities));
        var best = Adjust(Load(logits));
        if (_options.Temperature == 0)
        {
            probabilities.Clear();
            probabilities[best] = 1;
            return;
        }
        var total = Filter(_scores[best]);
        for (var i = 0; i < probabilities.Length; i++)
            probabilities[i] = _weights[i] / total;
    }

    /// <summary>Copies the logits, checks them, and returns the largest.</summary>
    private float Load(ReadOnlySpan<float> logits)
    {
        if (logits.Length != _vocabulary)
            throw new ArgumentException($"{logits.Length} logits; the vocabulary has {_vocabulary}", nameof(logits));
        var width = Vector<float>.Count;
        if (_scores.Length == 0)
        {
            _scores = new float[(_vocabulary + Block - 1) / Block * Block];
            Array.Fill(_scores, float.NegativeInfinity);
        }
        Vector<float> infinity = new(float.PositiveInfinity), highest = new(float.NegativeInfinity);
        var i = 0;
        for (; i <= logits.Length - width; i += width)
        {
            var part = new Vector<float>(logits[i..]);
            if (!Vector.LessThanAll(part, infinity)) // so it is for NaN
                break;
            highest = Vector.Max(highest, part);
            part.CopyTo(_scores, i);
        }
        var largest = float.NegativeInfinity;
        for (var lane = 0; lane < width; lane++)
            largest = MathF.Max(largest, highest[lane]);
        for (; i < logits.Length; i++)
        {
            var logit = logits[i];
            if (!(logit < float.PositiveInfinity))
                throw new ArgumentException($"the logit of token {i} is {logit}; expected a finite number or minus infinity", nameof(logits));
            largest = MathF.Max(largest, logit);
            _scores[i] = logit;
        }
        return float.IsFinite(largest) ? largest : throw new ArgumentException("all logits are minus infinity: no token is allowed", nameof(logits));
    }

    /// <summary>Applies bias and penalties, and returns the id of the largest score, the lowest of equal ones.</summary>
    /// <param name="largest">The largest score so far, if it is known.</param>
    private int Adjust(float? largest)
    {
        if (largest is { } known && _bias.Length == 0 && !_penalised)
            return First(known);
        foreach (var (token, bias) in _bias)
            _scores[token] += bias;
        if (_options.RepetitionPenalty != 1)
            foreach (var token in _seenList)
                _scores[token] = _scores[token] > 0 ? _scores[token] / _options.RepetitionPenalty : _scores[token] * _options.RepetitionPenalty;
        if (_options.PresencePenalty != 0 || _options.FrequencyPenalty != 0)
            foreach (var token in _seenList)
                if (_counts[token] > 0)
                    _scores[token] -= _options.PresencePenalty + _options.FrequencyPenalty * _counts[token];
        var best = First(Largest());
        if (!float.IsFinite(_scores[best]))
            throw new ArgumentException($"after {nameof(SamplingOptions.LogitBias)} and penalties no token has a finite score");
        return best;
    }

    private float Largest()
    {
        var width = Vector<float>.Count;
        var highest = new Vector<float>(_scores);
        for (var i = width; i < _scores.Length; i += width)
            highest = Vector.Max(highest, new Vector<float>(_scores, i));
        var largest = highest[0];
        for (var lane = 1; lane < width; lane++)
            largest = MathF.Max(largest, highest[lane]);
        return largest;
    }

    /// <summary>The lowest id of a score. What lies past the vocabulary is −∞.</summary>
    private int First(float largest)
    {
        var width = Vector<float>.Count;
        var all = new Vector<float>(largest);
        for (var i = 0; i < _scores.Length; i += width)
            if (Vector.EqualsAny(new Vector<float>(_scores, i), all))
                return i + _scores.AsSpan(i, width).IndexOf(largest);
        return 0;
    }

    /// <summary>Fills the weights with exp((score − largest) / temperature) and returns their sum, taken in the order of ids.</summary>
    private double Exponentials(float largest, double temperature)
    {
        if (_weights.Length == 0)
            _weights = new double[_scores.Length];
        var (shift, scale) = (Vector512.Create((double)largest), Vector512.Create(1 / temperature));
        for (var i = 0; i < _scores.Length; i += 16)
        {
            var (low, high) = Vector512.Widen(Vector512.Create(_scores.AsSpan(i, 16)));
            Vector512.Exp((low - shift) * scale).CopyTo(_weights, i);
            Vector512.Exp((high - shift) * scale).CopyTo(_weights, i + 8);
        }
        return Sum();
    }

    /// <summary>The sum of exp(score − largest). Likelihoods that are told need no more than single precision of it.</summary>
    private double Mass(float largest)
    {
        var (total, shift) = (0.0, Vector512.Create(largest));
        for (var first = 0; first < _scores.Length; first += Block)
        {
            var sum = Vector512.Exp(Vector512.Create(_scores.AsSpan(first, 16)) - shift);
            for (var i = first + 16; i < first + Block; i += 16)
                sum += Vector512.Exp(Vector512.Create(_scores.AsSpan(i, 16)) - shift);
            total += Vector512.Sum(sum);
        }
        return total;
    }

    private double Sum()
    {
        var total = 0.0;
        for (var first = 0; first < _weights.Length; first += Block)
            total += SumOf(first);
        return total;
    }

    /// <summary>The sum of a block, in eight lanes on every machine: one lane would wait for each addition before the next.</summary>
    private double SumOf(int first)
    {
        Vector256<double> low = default, high = default;
        for (var i = first; i < first + Block; i += 8)
        {
            low += Vector256.Create(_weights.AsSpan(i, 4));
            high += Vector256.Create(_weights.AsSpan(i + 4, 4));
        }
        var sum = low + high;
        return sum[0] + sum[2] + (sum[1] + sum[3]);
    }

    /// <summary>Makes the weights, sets those of dropped tokens to 0, and returns the sum of the rest.</summary>
    private double Filter(float largest)
    {
        var total = Exponentials(largest, _options.Temperature);
        if (_options.MinP > 0)
        {
            // The largest weight is exp(0) = 1.
            var least = new Vector<double>(_options.MinP);
            for (var i = 0; i < _weights.Length; i += Vector<double>.Count)
            {
                var part = new Vector<double>(_weights, i);
                Vector.ConditionalSelect(Vector.GreaterThanOrEqual(part, least), part, default).CopyTo(_weights, i);
            }
            total = Sum();
        }
        var byRank = _options.TopK > 0 && _options.TopK < _vocabulary;
        if (!byRank && _options.TopP >= 1)
            return total;

        // Which tokens are kept is decided in one bucket: those before it stay, those behind it go, and only its own are put in order.
        var edge = Bucket(largest, byRank, total, out var before);
        var count = Keep(edge, byRank ? 0 : edge);
        var heap = _candidates.AsSpan(0, count);
        for (var i = count / 2 - 1; i >= 0; i--)
            SiftDown(heap, i);
        if (byRank)
        {
            var kept = 0.0;
            var last = float.PositiveInfinity;
            for (var taken = 0; heap.Length > 0 && (taken < _options.TopK || _scores[heap[0]] == last); taken++)
            {
                var token = Take(ref heap);
                kept += _weights[token];
                last = _scores[token];
            }
            foreach (var token in heap)
                _weights[token] = 0;
            if (_options.TopP >= 1)
                return Sum();
            var reached = 0.0;
            for (var i = count - 1; i >= heap.Length; i--)
            {
                var token = _candidates[i];
                if (reached >= _options.TopP * kept)
                    _weights[token] = 0;
                reached += _weights[token];
            }
            return Sum();
        }
        for (var reached = before; heap.Length > 0 && reached < _options.TopP * total;)
            reached += _weights[Take(ref heap)];
        foreach (var token in heap)
            _weights[token] = 0;
        return Sum();
    }

    /// <summary>Puts the tokens into buckets. Equal scores share one, and a larger score is never in a later one.</summary>
    /// <param name="largest">The largest score.</param>
    /// <param name="byRank">Whether so many tokens are kept, or tokens of so much weight.</param>
    /// <param name="total">All weight.</param>
    /// <param name="before">The weight in the buckets before the one that is returned, if tokens are kept by weight.</param>
    /// <returns>The bucket of the last token that is kept.</returns>
    private int Bucket(float largest, bool byRank, double total, out double before)
    {
        if (_buckets.Length == 0)
            (_candidates, _bucketOf, _buckets) = (new int[_vocabulary], new int[_scores.Length], new double[Buckets * Turns]);
        Array.Clear(_buckets);
        var width = Vector<float>.Count;
        // Capped, or 0 times it were no number.
        Vector<float> shift = new(largest), scale = new(MathF.Min(BucketsANat / _options.Temperature, 1e30f)), last = new(Buckets - 1);
        for (var i = 0; i < _scores.Length; i += width)
            Vector.ConvertToInt32(Vector.Min((shift - new Vector<float>(_scores, i)) * scale, last)).CopyTo(_bucketOf, i);
        // Tokens without a weight come last in any order, so that counting them changes nothing.
        if (byRank)
        {
            for (var i = 0; i < _vocabulary; i++)
                _buckets[_bucketOf[i] * Turns + i % Turns]++;
        }
        else
        {
            for (var i = 0; i < _vocabulary; i++)
                _buckets[_bucketOf[i] * Turns + i % Turns] += _weights[i];
        }
        var most = byRank ? _options.TopK : _options.TopP * total;
        var edge = 0;
        for (before = 0; edge < Buckets - 1; edge++)
        {
            var turns = _buckets.AsSpan(edge * Turns, Turns);
            var sum = turns[0] + turns[1] + (turns[2] + turns[3]);
            if (before + sum >= most)
                break;
            before += sum;
        }
        return edge;
    }

    /// <summary>Drops the tokens behind a bucket, and lists those from a first bucket on as candidates.</summary>
    /// <returns>How many are listed.</returns>
    private int Keep(int edge, int first)
    {
        var (count, width) = (0, Vector<int>.Count);
        Vector<int> last = new(edge), earliest = new(first);
        for (var block = 0; block < _vocabulary; block += width)
        {
            var buckets = new Vector<int>(_bucketOf, block);
            var kept = Vector.LessThanOrEqual(buckets, last);
            Vector.Widen(kept, out var low, out var high);
            (Vector.AsVectorDouble(low) & new Vector<double>(_weights, block)).CopyTo(_weights, block);
            (Vector.AsVectorDouble(high) & new Vector<double>(_weights, block + width / 2)).CopyTo(_weights, block + width / 2);
            if ((kept & Vector.GreaterThanOrEqual(buckets, earliest)) == Vector<int>.Zero)
                continue;
            for (var i = block; i < Math.Min(block + width, _vocabulary); i++)
            {
                if (_bucketOf[i] >= first && _weights[i] > 0)
                    _candidates[count++] = i;
            }
        }
        return count;
    }

    private bool Before(int a, int b) => _scores[a] != _scores[b] ? _scores[a] > _scores[b] : a < b;

    /// <summary>Moves the heap's best token behind its end.</summary>
    private int Take(ref Span<int> heap)
    {
        var token = heap[0];
        (heap[0], heap[^1]) = (heap[^1], token);
        heap = heap[..^1];
        SiftDown(heap, 0);
        return token;
    }

    private void SiftDown(Span<int> heap, int i)
    {
        while (true)
        {
            var child = 2 * i + 1;
            if (child >= heap.Length)
                return;
            if (child + 1 < heap.Length && Before(heap[child + 1], heap[child]))
                child++;
            if (!Before(heap[child], heap[i]))
                return;
            (heap[i], heap[child]) = (heap[child], heap[i]);
            i = child;
        }
    }

    /// <summary>Inverts the cumulative distribution, taken in the order of ids, at this position's uniform number.</summary>
    private int Draw(int best)
    {
        var target = Filter(_scores[best]) * Philox.Uniform(_options.Seed, _position);
        var reached = 0.0;
        for (var first = 0; first < _weights.Length; first += Block)
        {
            var (before, sum) = (reached, SumOf(first));
            reached += sum;
            if (reached <= target)
                continue;
            for (var i = first; i < first + Block; i++)
            {
                before += _weights[i];
                if (_weights[i] > 0 && before > target)
                    return i;
            }
        }
        // Rounding: the number fell on the very end.
        var last = _vocabulary - 1;
        while (_weights[last] == 0)
            last--;
        return last;
    }

    /// <summary>The tokens of the largest logits by insertion into a short list: V comparisons, nearly all of them against its last entry, many at once.</summary>
    private (int, float)[] Top(ReadOnlySpan<float> logits, double normaliser)
    {
        var top = new (int Token, float LogProb)[Math.Min(_options.TopLogProbs, _vocabulary)];
        var count = 0;
        var width = Vector<float>.Count;
        for (var i = 0; i < logits.Length; i++)
        {
            if (count == top.Length)
            {
                var least = logits[top[^1].Token];
                while (i + width <= logits.Length && Vector.LessThanOrEqualAll(new Vector<float>(logits[i..]), new(least)))
                    i += width;
                if (i == logits.Length)
                    break;
                if (logits[i] <= least)
                    continue;
            }
            var at = count < top.Length ? count++ : count - 1;
            for (; at > 0 && logits[i] > logits[top[at - 1].Token]; at--)
                top[at] = top[at - 1];
            top[at].Token = i;
        }
        foreach (ref var entry in top.AsSpan())
            entry.LogProb = (float)(logits[entry.Token] - normaliser);
        return top;
    }
}
