using System.Threading.Channels;
using Trimtab.Engine;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>What is asked, as the model reads it.</summary>
/// <param name="Prompt">Token ids with image rows, and pixels.</param>
/// <param name="TokenIds">Token ids with one image token for each image.</param>
/// <param name="Pair">Makes the prompts with blank images and without any, for sample-level steering; null where there are no images.</param>
/// <param name="Raw">Whether the caller wrote the prompt as the model reads it, and so perhaps the beginning of the answer.</param>
internal sealed record Question(Prompt Prompt, int[] TokenIds, Func<PromptPair>? Pair, bool Raw = false);

/// <summary>A piece of one choice.</summary>
/// <param name="Choice">Its index.</param>
/// <param name="Update">The piece.</param>
internal readonly record struct AnswerPart(int Choice, GenerationUpdate Update);

/// <summary>
/// The answers to one request, running. Made by <see cref="SteeredModel.AskAsync"/> alone, which is where its steering is decided.
/// </summary>
internal sealed class Answer : IDisposable
{
    private readonly Channel<AnswerPart> _parts = Channel.CreateUnbounded<AnswerPart>(new() { SingleReader = true });
    private readonly CancellationTokenSource _stop;
    private readonly Sequence?[] _ended;
    private readonly SteeredModel _model;
    private readonly long _start;
    private Task _pumps = Task.CompletedTask;
    private int _tokens;
    private Exception? _failure;
    private bool _told;

    internal Answer(SteeredModel model, Exchange exchange, string id, Question question, AnswerSettings settings)
    {
        (_model, Caller, Id, Question, Settings, _start) = (model, exchange.Caller, id, question, settings, exchange.Started);
        _stop = CancellationTokenSource.CreateLinkedTokenSource(exchange.Cancel);
        _ended = new Sequence[settings.Count];
        Created = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
    }

    /// <summary>Name of the model that answers.</summary>
    public string ModelName => _model.Options.ModelName;

    /// <summary>What tells one state of the model from another.</summary>
    public string SystemFingerprint => $"fp_{_model.Model.Network.Fingerprint.AsSpan(0, Math.Min(12, _model.Model.Network.Fingerprint.Length))}";

    /// <summary>Who asked.</summary>
    public Caller Caller { get; }

    /// <summary>Id of the response.</summary>
    public string Id { get; }

    /// <summary>When, in seconds since 1970.</summary>
    public long Created { get; }

    /// <summary>What was asked.</summary>
    public Question Question { get; }

    /// <summary>How.</summary>
    public AnswerSettings Settings { get; }

    /// <summary>How it is steered.</summary>
    public required SteeringDecision Decision { get; init; }

    /// <summary>The vectors that steer or observe, or null.</summary>
    public required SteeringOptions? Steering { get; init; }

    /// <summary>The policy that decided.</summary>
    public required Policy Policy { get; init; }

    /// <summary>For sample-level steering: the prompt's ids without images.</summary>
    public int[]? TextAloneIds { get; init; }

    /// <summary>Its trace, or null where nobody wants one; owned.</summary>
    public AnswerTrace? Trace { get; init; }

    /// <summary>Ended sequences by choice.</summary>
    public IReadOnlyList<Sequence?> Ended => _ended;

    /// <summary>Tokens that have come so far, of all choices.</summary>
    public int Tokens => Volatile.Read(ref _tokens);

    /// <summary>Tokens drawn, of all choices that have ended.</summary>
    public int CompletionTokens => _ended.Sum(sequence => sequence?.Generated.Count ?? 0);

    /// <summary>Prompt tokens that the cache had.</summary>
    public int CachedTokens => _ended[0]?.CachedTokens ?? 0;

    /// <summary>What the first choice that failed failed by, or null.</summary>
    public Exception? Failure => Volatile.Read(ref _failure);

    /// <summary>Starts every choice and waits until there is something of one, so that what refuses to run does so before anything is sent.</summary>
    internal async Task StartAsync(VisionLanguageModel model, GenerationOptions options)
    {
        Trace?.Submitted();
        _pumps = Task.WhenAll(Enumerable.Range(0, Settings.Count).Select(choice => PumpAsync(model, options, choice)));
        _ = _pumps.ContinueWith(_ => _parts.Writer.TryComplete(), CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        await _parts.Reader.WaitToReadAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>The pieces of all choices as they come.</summary>
    public async IAsyncEnumerable<AnswerPart> ReadAsync()
    {
        while (await _parts.Reader.WaitToReadAsync(CancellationToken.None).ConfigureAwait(false))
        {
            while (_parts.Reader.TryRead(out var part))
                yield return part;
        }
        Tell();
    }

    /// <summary>Tells once how it ended.</summary>
    private void Tell()
    {
        if (_told)
            return;
        _told = true;
        _model.End(this);
    }

    /// <summary>Why a choice ended, in OpenAI's words.</summary>
    public static string FinishWord(FinishReason reason) => reason == FinishReason.Stop ? "stop" : "length";

    /// <summary>The receipt of a choice that has ended.</summary>
    public Receipt Receipt(int choice)
    {
        var sequence = _ended[choice] ?? throw new InvalidOperationException($"choice {choice} has not ended");
        var ids = sequence.Generated.ToArray();
        return new()
        {
            Id = Id,
            Choice = choice,
            Created = Created,
            Model = ReceiptModel.Of(_model.Options.ModelName, _model.Model),
            Policy = new(Policy.Version, Policy.Hash, Caller.Id),
            Steering = Decision.Mode == SteeringMode.Off
                ? new("off", null, null, 0, null, null, null)
                : new(SteeringRequest.Word(Decision.Mode), Decision.Set?.Name, Steering!.Vectors.Hash, Decision.Alpha, SteeringRequest.Word(Decision.Scope), Decision.Layers?.ToString() ?? "all", Decision.RaisedFrom),
            Prompt = new(Question.TokenIds, Serving.Receipt.HashOf<int>(Question.Prompt.Tokens), [.. Question.Prompt.Images.Select(image => image.Content.ToString())], TextAloneIds),
            Sampling = ReceiptSampling.Of(sequence.Options, Settings.Format?.Source),
            Answer = new(ids, Serving.Receipt.HashOf<int>(ids), sequence.LogitsHash, FinishWord(sequence.Finish)),
            Telemetry = ReceiptTelemetry.Of(sequence.Telemetry),
        };
    }

    private async Task PumpAsync(VisionLanguageModel model, GenerationOptions options, int choice)
    {
        try
        {
            if (choice > 0)
                options = options with { Sampling = options.Sampling with { Seed = unchecked(options.Sampling.Seed + (ulong)choice) } };
            long last = 0;
            await foreach (var update in model.GenerateAsync(Question.Prompt, options, _stop.Token).ConfigureAwait(false))
            {
                if (update.Finish == FinishReason.None)
                {
                    _model.Metrics.Token(last == 0 ? _start : last, first: last == 0);
                    Trace?.Token();
                    Interlocked.Increment(ref _tokens);
                }
                else
                    _ended[choice] = update.Sequence;
                last = System.Diagnostics.Stopwatch.GetTimestamp();
                _parts.Writer.TryWrite(new(choice, update));
            }
        }
        catch (Exception error)
        {
            Interlocked.CompareExchange(ref _failure, error, null);
            Trace?.Fail(error);
            _parts.Writer.TryComplete(error);
            await _stop.CancelAsync().ConfigureAwait(false); // the others are no answer without this one
        }
    }

    /// <summary>Stops what still runs.</summary>
    public void Dispose()
    {
        _stop.Cancel();
        _ = _pumps.ContinueWith(_ => _stop.Dispose(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        try
        {
            Tell();
        }
        catch (ApiException)
        {
            // The log cannot be written. Nobody waits for this answer any more; the next is refused.
        }
        Trace?.End(_ended);
        Trace?.Dispose();
    }
}
