using System.Diagnostics;
using System.IO.Hashing;
using System.Runtime.ExceptionServices;
using System.Security.Cryptography;
using System.Runtime.InteropServices;
using Trimtab.Kernels;
using Trimtab.Text;

namespace Trimtab.Engine;

/// <summary>Looks at the logits [V] that a token is about to be drawn from.</summary>
public delegate void LogitsObserver(ReadOnlySpan<float> logits);

/// <summary>
/// One prompt and its growing answer inside the engine: tokens, pages, sampler, steering. Owned by the engine's thread
/// from <see cref="Engine.Add"/> until <see cref="Finish"/> is set.
/// </summary>
public sealed class Sequence
{
    private readonly StreamDecoder _text;
    private readonly StopStrings _stops;
    private readonly IncrementalHash? _hash;
    private readonly byte[] _digest = new byte[16]; // of one token's logits
    private readonly TokenConstraint? _constraint;
    private readonly LogitsMask? _mask;
    private IReadOnlySet<int> _endIds = new HashSet<int>();
    private Sampled _chosen;
    private ExceptionDispatchInfo? _failure;
    private volatile bool _cancelled;

    /// <summary>Makes a sequence that waits to be added to an engine.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="options">How to go on from it.</param>
    /// <param name="tokenizer">Turns tokens into text.</param>
    /// <param name="vocabulary">V: columns of the logits.</param>
    public Sequence(Prompt prompt, GenerationOptions options, Tokenizer tokenizer, int vocabulary)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(tokenizer);
        if (options.MaxTokens < 0)
            throw new ArgumentException($"max tokens is {options.MaxTokens}; expected 0 or more");
        (Prompt, Options) = (prompt, options);
        Sampler = new(options.Sampling, vocabulary);
        Sampler.Prompt(Array.FindAll(prompt.Tokens, token => token < vocabulary)); // an image token may lie outside
        _text = tokenizer.Stream(options.SkipSpecial);
        _stops = new(options.Stop);
        _hash = options.HashLogits ? IncrementalHash.CreateHash(HashAlgorithmName.SHA256) : null;
        _constraint = options.Constraint?.Invoke();
        _mask = _constraint is null ? null : Mask;
        if (options.Score)
            Nll = new float[Math.Max(0, prompt.Tokens.Length - 1)];
    }

    /// <summary>What it began with.</summary>
    public Prompt Prompt { get; }

    /// <summary>How it goes on.</summary>
    public GenerationOptions Options { get; }

    /// <summary>Tokens drawn so far, an end-of-sequence token included.</summary>
    public IReadOnlyList<int> Generated => Tokens;

    /// <summary>Why it ended; None while it runs.</summary>
    public FinishReason Finish { get; private set; }

    /// <summary>What went wrong, when <see cref="Finish"/> is Error.</summary>
    public Exception? Error { get; private set; }

    /// <summary>[L, D] residual stream of the prompt's last token at each decoder layer's output, before the edit; with <see cref="GenerationOptions.Capture"/>.</summary>
    public float[]? States { get; internal set; }

    /// <summary>[V] logits after the prompt; with <see cref="GenerationOptions.Capture"/>.</summary>
    public float[]? Logits { get; internal set; }

    /// <summary>[prompt − 1] negative log-likelihood in nats of each prompt token after the first; with <see cref="GenerationOptions.Score"/>.</summary>
    public float[]? Nll { get; }

    /// <summary>
    /// SHA-256 of the XXH128 of each token's logits, hexadecimal: it tells whether a run is the same to the bit, at a tenth of what SHA-256 of all
    /// logits would cost. With <see cref="GenerationOptions.HashLogits"/>, once finished.
    /// </summary>
    public string? LogitsHash { get; private set; }

    /// <summary>Where its steered tokens lie along the steering vectors; with <see cref="GenerationOptions.Telemetry"/> and steering.</summary>
    public ShiftTelemetry? Telemetry { get; internal set; }

    /// <summary>Prompt tokens whose keys and values the cache had when it was first admitted.</summary>
    public int CachedTokens { get; internal set; }

    /// <summary>Time from its submission to its first admission.</summary>
    public TimeSpan QueueTime { get; internal set; }

    /// <summary>Time spent encoding its images.</summary>
    public TimeSpan ImageTime { get; internal set; }

    /// <summary>Time from the first prefill step to the first token (or to the end of the prompt).</summary>
    public TimeSpan PrefillTime => Elapsed(PrefillStart, FirstToken);

    /// <summary>Time from the first token to the last.</summary>
    public TimeSpan DecodeTime => Elapsed(FirstToken, LastToken);

    /// <summary>Is told, on the engine's thread, of each token and of the text that it completes.</summary>
    public Action<Sampled, string>? OnToken { get; init; }

    /// <summary>Is told, on the engine's thread, of the end, with the last text that was held back. If it throws, the sequence has ended with that error.</summary>
    public Action<Sequence, string>? OnFinish { get; init; }

    /// <summary>Is shown, on the engine's thread, the logits that each token is drawn from.</summary>
    public LogitsObserver? OnLogits { get; init; }

    /// <summary>Is told, on the engine's thread, of the end, after everyone else.</summary>
    internal Action? Ended { get; set; }

    internal Sampler Sampler { get; }
    internal List<int> Tokens { get; } = [];
    internal long Arrival { get; set; }      // number in the engine's queue: the smaller the older
    internal long Submitted { get; set; }    // timestamp
    internal int Computed { get; set; }      // positions whose keys and values are in the cache
    internal int Planned { get; set; }       // positions of the step at hand
    internal int Unobserved { get; set; }    // first position that telemetry has not seen
    internal List<Page> Held { get; } = [];  // pages in order
    internal List<int> PageNumbers { get; } = []; // their numbers
    internal bool IsLong { get; set; }       // LongRoPE turns all of its positions as a long sequence's
    internal int Published { get; set; }     // of them, those whose contents the pool knows
    internal List<PositionKey> PositionKeys { get; } = [];
    internal long Root { get; set; }         // of its pages
    internal long Edit { get; set; }         // number of its steering
    internal long[] ImageNumbers { get; set; } = [];
    internal int[] FeatureRows { get; set; } = []; // first row of each image's features while it holds them, else −1
    internal int Encoded { get; set; }       // images that were encoded for it before its admission
    internal int SteerSlot { get; set; } = -1;
    internal long PrefillStart { get; set; }
    internal long FirstToken { get; set; }
    internal long LastToken { get; set; }
    internal bool Cancelled => _cancelled;

    internal int Length => Prompt.Tokens.Length + Tokens.Count;
    internal int Limit => Prompt.Tokens.Length + Options.MaxTokens;

    /// <summary>Whether more than the last drawn token is to be computed: the prompt, or all of it again.</summary>
    internal bool InPrefill => Tokens.Count == 0 || Length - Computed > 1;

    /// <summary>Whether anything depends on the text: a listener or a stop text.</summary>
    private bool IsHeard => OnToken is not null || OnFinish is not null || Options.Stop.Count > 0;

    /// <summary>Whether nobody looks at the logits that its tokens are drawn from: a device may draw them.</summary>
    internal bool IsDrawnUnseen => OnLogits is null && _hash is null && _constraint is null && Options.Sampling.TopLogProbs == 0;

    /// <summary>Asks the engine to end it before its next step.</summary>
    public void Cancel() => _cancelled = true;

    /// <summary>Chooses the next token. Touches nothing but this sequence, so that those of a batch are chosen on several threads at once.</summary>
    internal void Choose(ReadOnlySpan<float> logits, IReadOnlySet<int> endIds)
    {
        try
        {
            if (_hash is not null)
            {
                XxHash128.Hash(MemoryMarshal.AsBytes(logits), _digest);
                _hash.AppendData(_digest);
            }
            _endIds = endIds;
            _chosen = Sampler.Next(logits, mask: _mask);
            _failure = null;
        }
        catch (Exception error)
        {
            _failure = ExceptionDispatchInfo.Capture(error);
        }
    }

    /// <summary>Takes a token that the device drew as the chosen one.</summary>
    internal void Choose(int token)
    {
        Sampler.Generated([token]);
        (_chosen, _failure) = (new(token, float.NaN, null), null);
    }

    /// <summary>Takes the chosen token, and tells its listener.</summary>
    internal void Draw(IReadOnlySet<int> endIds)
    {
        _failure?.Throw();
        var sampled = _chosen;
        Tokens.Add(sampled.Token);
        LastToken = Stopwatch.GetTimestamp();
        if (FirstToken == 0)
            FirstToken = LastToken;
        if (endIds.Contains(sampled.Token) && !Options.IgnoreEos)
        {
            OnToken?.Invoke(sampled, "");
            End(FinishReason.Stop);
            return;
        }
        _constraint?.Accept(sampled.Token);
        var stopped = false;
        if (IsHeard)
        {
            var text = _stops.Append(_text.Append(sampled.Token), out stopped);
            OnToken?.Invoke(sampled, text);
        }
        if (stopped)
            End(FinishReason.Stop, flush: false);
        else if (_constraint is { Complete: true })
            End(FinishReason.Stop);
        else if (Length >= Limit)
            End(FinishReason.Length);
    }

    private void Mask(Span<float> scores)
    {
        _constraint!.Mask(scores);
        if (_constraint.MayEnd)
            return;
        foreach (var id in _endIds)
        {
            if ((uint)id < (uint)scores.Length)
                scores[id] = float.NegativeInfinity;
        }
    }

    /// <summary>Ends it.</summary>
    internal void End(FinishReason reason, Exception? error = null, bool flush = true)
    {
        if (Finish != FinishReason.None)
            return;
        (Finish, Error) = (reason, error);
        if (_hash is not null)
            LogitsHash = Convert.ToHexStringLower(_hash.GetHashAndReset());
        var rest = "";
        if (flush && reason is FinishReason.Stop or FinishReason.Length)
        {
            rest = _stops.Append(_text.Flush(), out var stopped);
            if (!stopped)
                rest += _stops.Flush();
        }
        try
        {
            OnFinish?.Invoke(this, rest);
        }
        catch (Exception failure) when (failure is not OutOfMemoryException)
        {
            // Its listener's failure is its own: the engine is about to end the others, or goes on with them.
            (Finish, Error) = (FinishReason.Error, error ?? failure);
        }
        finally
        {
            Ended?.Invoke();
        }
    }

    private static TimeSpan Elapsed(long from, long to) => from == 0 || to == 0 ? default : Stopwatch.GetElapsedTime(from, to);
}
