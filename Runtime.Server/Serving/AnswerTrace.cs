using System.Diagnostics;
using Trimtab.Engine;

namespace Trimtab.Server.Serving;

/// <summary>
/// The trace of one request's answers: a span by OpenTelemetry's conventions for generative AI, beneath the HTTP request's own, with spans
/// for each answer's time in the queue, in prefill and in decode. It tells counts and settings, never what was asked or answered.
/// </summary>
internal sealed class AnswerTrace : IDisposable
{
    private static readonly ActivitySource Source = new(ServingMetrics.Name);
    private readonly Activity _activity;
    private readonly long _start;
    private DateTime _submitted;
    private long _firstToken;
    private Exception? _error;

    private AnswerTrace(Activity activity, long start) => (_activity, _start) = (activity, start);

    /// <summary>Begins a trace, or returns null where nobody wants one.</summary>
    public static AnswerTrace? Start(string model, Exchange exchange, string id, Question question, AnswerSettings settings)
    {
        // Internal: the model runs in this process.
        if (Source.StartActivity($"{settings.Operation} {model}", ActivityKind.Internal) is not { } activity)
            return null;
        var sampling = settings.Sampling;
        activity.SetTag("gen_ai.operation.name", settings.Operation);
        activity.SetTag("gen_ai.provider.name", "trimtab");
        activity.SetTag("gen_ai.request.model", model);
        activity.SetTag("gen_ai.response.model", model);
        activity.SetTag("gen_ai.response.id", id);
        activity.SetTag("gen_ai.output.type", settings.Format is null ? "text" : "json");
        activity.SetTag("gen_ai.request.max_tokens", settings.MaxTokens);
        activity.SetTag("gen_ai.request.temperature", (double)sampling.Temperature);
        activity.SetTag("gen_ai.request.top_p", (double)sampling.TopP);
        if (sampling.TopK > 0)
            activity.SetTag("gen_ai.request.top_k", (double)sampling.TopK);
        activity.SetTag("gen_ai.request.seed", unchecked((long)sampling.Seed));
        if (settings.Count != 1)
            activity.SetTag("gen_ai.request.choice.count", settings.Count);
        activity.SetTag("gen_ai.usage.input_tokens", question.Prompt.Tokens.Length);
        activity.SetTag("trimtab.caller", exchange.Caller.Id);
        activity.SetTag("trimtab.images", question.Prompt.Images.Count);
        activity.SetTag("trimtab.stream", settings.Stream);
        return new(activity, exchange.Started);
    }

    /// <summary>Tells how the answers are steered.</summary>
    public void Decided(Policy policy, SteeringDecision decision)
    {
        _activity.SetTag("trimtab.policy.version", policy.Version);
        _activity.SetTag("trimtab.steering.mode", SteeringRequest.Word(decision.Mode));
        if (decision.Mode == SteeringMode.Off)
            return;
        _activity.SetTag("trimtab.steering.vectors", decision.Set?.Name);
        _activity.SetTag("trimtab.steering.vectors_hash", decision.Set?.Vectors.Hash);
        _activity.SetTag("trimtab.steering.alpha", (double)decision.Alpha);
        _activity.SetTag("trimtab.steering.scope", SteeringRequest.Word(decision.Scope));
        _activity.SetTag("trimtab.steering.layers", decision.Layers?.ToString() ?? "all");
        if (decision.RaisedFrom is { } from)
            _activity.SetTag("trimtab.steering.raised_from", (double)from);
    }

    /// <summary>The engine gets the answers' sequences now.</summary>
    public void Submitted() => _submitted = DateTime.UtcNow;

    /// <summary>A token came; any thread may say so.</summary>
    public void Token() => Interlocked.CompareExchange(ref _firstToken, Stopwatch.GetTimestamp(), 0);

    /// <summary>Something went wrong; the first failure counts. Any thread may say so.</summary>
    public void Fail(Exception error) => Interlocked.CompareExchange(ref _error, error, null);

    /// <summary>Tells how the answers ended.</summary>
    /// <param name="sequences">The choices; null for those that had not ended when nobody waited for them any more.</param>
    public void End(IReadOnlyList<Sequence?> sequences)
    {
        for (var choice = 0; choice < sequences.Count; choice++)
        {
            if (sequences[choice] is { } sequence)
                Stages(sequence, choice);
        }
        var ended = sequences.OfType<Sequence>().ToList();
        if (ended.Count < sequences.Count)
            Fail(new OperationCanceledException());
        if (_firstToken > 0)
            _activity.SetTag("trimtab.time_to_first_token", Stopwatch.GetElapsedTime(_start, _firstToken).TotalSeconds);
        if (ended.Count == 0)
            return;
        _activity.SetTag("gen_ai.response.finish_reasons", ended.Select(sequence => Answer.FinishWord(sequence.Finish)).ToArray());
        _activity.SetTag("gen_ai.usage.output_tokens", ended.Sum(sequence => sequence.Generated.Count));
        _activity.SetTag("gen_ai.usage.cache_read.input_tokens", ended[0].CachedTokens);
        _activity.SetTag("trimtab.queue_time", ended.Max(sequence => sequence.QueueTime).TotalSeconds);
        if (ended.Any(sequence => sequence.Telemetry?.Drifted == true))
            _activity.SetTag("trimtab.drifted", true);
    }

    /// <summary>The engine's own times, told once they are known: nothing is traced while it computes.</summary>
    private void Stages(Sequence sequence, int choice)
    {
        var time = _submitted;
        Stage("queue", sequence.QueueTime);
        Stage("prefill", sequence.PrefillTime, ("trimtab.cached_tokens", sequence.CachedTokens), ("trimtab.image_time", sequence.ImageTime.TotalSeconds));
        Stage("decode", sequence.DecodeTime, ("trimtab.tokens", sequence.Generated.Count));

        void Stage(string name, TimeSpan length, params ReadOnlySpan<(string Key, object Value)> tags)
        {
            using var stage = Source.StartActivity(name, ActivityKind.Internal, _activity.Context, startTime: time);
            time += length;
            if (stage is null)
                return;
            stage.SetTag("trimtab.choice", choice);
            foreach (var (key, value) in tags)
                stage.SetTag(key, value);
            stage.SetEndTime(time);
        }
    }

    /// <summary>Ends it.</summary>
    public void Dispose()
    {
        if (_activity.IsStopped)
            return;
        if (_error is not null)
        {
            var type = _error is ApiException api ? api.Code ?? $"{api.Status}" : _error is OperationCanceledException ? "cancelled" : _error.GetType().FullName!;
            _activity.SetTag("error.type", type);
            _activity.SetStatus(ActivityStatusCode.Error);
        }
        _activity.Dispose();
    }
}
