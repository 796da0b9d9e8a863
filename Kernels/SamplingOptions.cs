namespace Trimtab.Kernels;

/// <summary>How the next token is chosen from the logits. The steps apply in this order: <see cref="LogitBias"/>, <see cref="RepetitionPenalty"/>,
/// <see cref="PresencePenalty"/> and <see cref="FrequencyPenalty"/>, <see cref="Temperature"/>, <see cref="MinP"/>, <see cref="TopK"/>, <see cref="TopP"/>.
/// The default is greedy.</summary>
public sealed record SamplingOptions
{
    /// <summary>Divides the logits, ≥ 0. 0 is greedy: the largest logit after bias and penalties, the lower id of equal ones.</summary>
    public float Temperature { get; init; }

    /// <summary>Keeps the k largest logits, and those equal to the k-th. 0 keeps all.</summary>
    public int TopK { get; init; }

    /// <summary>Keeps the smallest set of tokens whose probability, among those left by the steps before, reaches this, in (0, 1]; of equal ones
    /// the lower ids (nucleus sampling, arXiv 1904.09751). 1 keeps all.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Keeps tokens at least this times as probable as the most probable one, in [0, 1] (arXiv 2407.01082). 0 keeps all.</summary>
    public float MinP { get; init; }

    /// <summary>Divides the positive and multiplies the negative logits of tokens in the prompt or the generated text, &gt; 0 (CTRL, arXiv
    /// 1909.05858, as Hugging Face has it). 1 changes nothing.</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Subtracted from the logit of each token generated so far, in [−2, 2] (OpenAI).</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Subtracted as many times as the token was generated, in [−2, 2] (OpenAI).</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Added to the logits of these token ids; −∞ forbids a token.</summary>
    public IReadOnlyDictionary<int, float>? LogitBias { get; init; }

    /// <summary>The key of the random numbers: a token depends on seed, position and logits alone, never on the batch.</summary>
    public ulong Seed { get; init; }

    /// <summary>How many of the most probable tokens are reported with each sampled one, 0 to 100.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>Checks every field.</summary>
    /// <exception cref="ArgumentOutOfRangeException">A field is out of its range: the message names both.</exception>
    public void Validate()
    {
        Check(nameof(Temperature), Temperature, float.IsFinite(Temperature) && Temperature >= 0, "a finite number, 0 or more");
        Check(nameof(TopK), TopK, TopK >= 0, "0 (all) or more");
        Check(nameof(TopP), TopP, TopP is > 0 and <= 1, "above 0 and at most 1");
        Check(nameof(MinP), MinP, MinP is >= 0 and <= 1, "from 0 to 1");
        Check(nameof(RepetitionPenalty), RepetitionPenalty, float.IsFinite(RepetitionPenalty) && RepetitionPenalty > 0, "a finite number above 0");
        Check(nameof(PresencePenalty), PresencePenalty, PresencePenalty is >= -2 and <= 2, "from -2 to 2");
        Check(nameof(FrequencyPenalty), FrequencyPenalty, FrequencyPenalty is >= -2 and <= 2, "from -2 to 2");
        Check(nameof(TopLogProbs), TopLogProbs, TopLogProbs is >= 0 and <= 100, "from 0 to 100");
        foreach (var (token, bias) in LogitBias ?? new Dictionary<int, float>())
        {
            Check(nameof(LogitBias), token, token >= 0, "token ids of 0 or more");
            Check($"{nameof(LogitBias)}[{token}]", bias, !float.IsNaN(bias) && bias < float.PositiveInfinity, "a finite number or minus infinity");
        }
    }

    private static void Check<T>(string field, T value, bool valid, string range)
    {
        if (!valid)
            throw new ArgumentOutOfRangeException(field, value, $"{field} is {value}; it must be {range}");
    }
}

/// <summary>A chosen token.</summary>
/// <param name="Token">Its id.</param>
/// <param name="LogProb">Natural logarithm of its probability under the softmax of the raw logits: what the model says, before bias, penalties,
/// temperature and filters. NaN if it was not asked for.</param>
/// <param name="Top">The most probable tokens by the same measure, best first, of equal ones the lower id; null if none were asked for.</param>
public readonly record struct Sampled(int Token, float LogProb, (int Token, float LogProb)[]? Top);
