using System.Numerics;

namespace Trimtab.Kernels;

/// <summary>
/// Chooses the tokens of one sequence. Holds what the penalties need to know of it: which tokens its prompt has, and how often each was generated.
/// Memory in the size of the vocabulary is taken by the first draw that needs it, so that sequences which wait hold none; later draws allocate
/// nothing (but the list of <see cref="SamplingOptions.TopLogProbs"/>). Not for use by two threads at once.
/// </summary>
public sealed class Sampler
{
    private readonly SamplingOptions _options;
    private readonly KeyValuePair<int, float>[] _bias;
    private readonly int _vocabulary;

    /// <summary>[V, rounded up to vectors]: the logits, then changed by bias and penalties; the rest is −∞.</summary>
    private float[] _scores = [];

    /// <summary>As long as <see cref="_scores"/>: exp((score − largest) / temperature), 0 where a filter drops the token.</summary>
    private double[] _weights = [];

    /// <summary>[V]: the candidates as a heap, the taken ones at its end.</summary>
    private int[] _candidates = [];

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
            normaliser = largest + Math.Log(Exponentials(largest, 1));
            if (_options.TopLogProbs > 0)
                top = Top(logits, normaliser);
        }
        mask?.Invoke(_scores.AsSpan(0, _vocabulary));
        var best = Adjust();
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
        Load(logits);
        var best = Adjust();
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
            _scores = new float[(_vocabulary + width - 1) / width * width];
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
    private int Adjust()
    {
        foreach (var (token, bias) in _bias)
            _scores[token] += bias;
        if (_options.RepetitionPenalty != 1)
            foreach (var token in _seenList)
                _scores[token] = _scores[token] > 0 ? _scores[token] / _options.RepetitionPenalty : _scores[token] * _options.RepetitionPenalty;
        if (_options.PresencePenalty != 0 || _options.FrequencyPenalty != 0)
            foreach (var token in _seenList)
                if (_counts[token] > 0)
                    _scores[token] -= _options.PresencePenalty + _options.FrequencyPenalty * _counts[token];
        var best = Best();
        if (!float.IsFinite(_scores[best]))
            throw new ArgumentException($"after {nameof(SamplingOptions.LogitBias)} and penalties no token has a finite score");
        return best;
    }

    /// <summary>The id of the largest score, the lowest of equal ones. What lies past the vocabulary is −∞.</summary>
    private int Best()
    {
        var width = Vector<float>.Count;
        var highest = new Vector<float>(_scores);
        for (var i = width; i < _scores.Length; i += width)
            highest = Vector.Max(highest, new Vector<float>(_scores, i));
        var largest = highest[0];
        for (var lane = 1; lane < width; lane++)
            largest = MathF.Max(largest, highest[lane]);
        var all = new Vector<float>(largest);
        for (var i = 0; i < _scores.Length; i += width)
            if (Vector.EqualsAny(new Vector<float>(_scores, i), all))
                return i + _scores.AsSpan(i, width).IndexOf(largest);
        return 0;
    }

    /// <summary>Fills the weights with exp((score − largest) / temperature) and returns their sum, taken in the order of ids.</summary>
    private double Exponentials(float largest, double temperature)
    {
        var width = Vector<float>.Count;
        if (_weights.Length == 0)
            _weights = new double[_scores.Length];
        var shift = new Vector<double>(largest);
        var divisor = new Vector<double>(temperature);
        for (var i = 0; i < _scores.Length; i += width)
        {
            Vector.Widen(new Vector<float>(_scores, i), out var low, out var high);
            Vector.Exp((low - shift) / divisor).CopyTo(_weights, i);
            Vector.Exp((high - shift) / divisor).CopyTo(_weights, i + width / 2);
        }
        return Sum();
    }

    private double Sum()
    {
        var total = 0.0;
        foreach (var weight in _weights)
            total += weight;
        return total;
    }

    /// <summary>Makes the weights, sets those of dropped tokens to 0, and returns the sum of the rest.</summary>
    private double Filter(float largest)
    {
        var total = Exponentials(largest, _options.Temperature);
        if (_options.MinP > 0)
        {
            // The largest weight is exp(0) = 1.
            for (var i = 0; i < _weights.Length; i++)
                if (_weights[i] < _options.MinP)
                    _weights[i] = 0;
            total = Sum();
        }
        var byRank = _options.TopK > 0 && _options.TopK < _vocabulary;
        if (!byRank && _options.TopP >= 1)
            return total;

        if (_candidates.Length == 0)
            _candidates = new int[_vocabulary];
        // A heap in O(V), and only as many taken from it as are kept: no sort of the whole vocabulary.
        var count = 0;
        for (var i = 0; i < _vocabulary; i++)
            if (_weights[i] > 0)
                _candidates[count++] = i;
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
        for (var reached = 0.0; heap.Length > 0 && reached < _options.TopP * total;)
            reached += _weights[Take(ref heap)];
        foreach (var token in heap)
            _weights[token] = 0;
        return Sum();
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
        var token = best;
        for (var i = 0; i < _vocabulary; i++)
        {
            if (_weights[i] == 0)
                continue;
            token = i;
            reached += _weights[i];
            if (reached > target)
                break;
        }
        return token;
    }

    /// <summary>The tokens of the largest logits by insertion into a short list: V comparisons, nearly all of them against its last entry.</summary>
    private (int, float)[] Top(ReadOnlySpan<float> logits, double normaliser)
    {
        var top = new (int Token, float LogProb)[Math.Min(_options.TopLogProbs, _vocabulary)];
        var count = 0;
        for (var i = 0; i < logits.Length; i++)
        {
            if (count == top.Length && logits[i] <= logits[top[^1].Token])
                continue;
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
