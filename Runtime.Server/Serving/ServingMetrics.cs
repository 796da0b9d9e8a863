using System.Diagnostics;
using System.Diagnostics.Metrics;
using Trimtab.Engine;

namespace Trimtab.Server.Serving;

/// <summary>What a server counts, under the meter <see cref="Name"/>.</summary>
internal sealed class ServingMetrics : IDisposable
{
    /// <summary>Name of the meter and of the source of traces.</summary>
    public const string Name = "Trimtab";

    private static readonly double[] Seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
    private readonly Meter _meter = new(Name);
    private readonly Histogram<double> _firstToken, _nextToken, _queue;
    private readonly Counter<long> _requests, _answers, _refused, _raised, _drifted, _abandoned;

    /// <param name="model">Whose engine is observed.</param>
    public ServingMetrics(SteeredModel model)
    {
        var advice = new InstrumentAdvice<double> { HistogramBucketBoundaries = Seconds };
        _firstToken = _meter.CreateHistogram("trimtab.time_to_first_token", "s", "Time from a request's start to its first token.", advice: advice);
        _nextToken = _meter.CreateHistogram("trimtab.inter_token_time", "s", "Time between two tokens of an answer.", advice: advice);
        _queue = _meter.CreateHistogram("trimtab.queue_time", "s", "Time until the engine admitted a sequence.", advice: advice);
        _requests = _meter.CreateCounter<long>("trimtab.requests", description: "Requests that were let through, by steering mode, vectors, and whether they have images.");
        _answers = _meter.CreateCounter<long>("trimtab.answers", description: "Answers that ended, by reason.");
        _refused = _meter.CreateCounter<long>("trimtab.refusals", description: "Requests that were refused or failed, by code.");
        _raised = _meter.CreateCounter<long>("trimtab.floor_raises", description: "Requests whose alpha was raised to the policy's floor.");
        _drifted = _meter.CreateCounter<long>("trimtab.drifted", description: "Answers whose prompt lies far outside the vectors' anchors.");
        _abandoned = _meter.CreateCounter<long>("trimtab.abandoned", description: "Requests whose client went away before the end.");
        Observe("trimtab.engine.waiting", "Sequences that wait.", s => s.Waiting);
        Observe("trimtab.engine.running", "Sequences that run.", s => s.Running);
        Observe("trimtab.engine.batch_tokens", "Tokens in the last step.", s => s.BatchTokens);
        Observe("trimtab.engine.batch_sequences", "Sequences in the last step.", s => s.BatchSequences);
        Observe("trimtab.kv.pages", "Pages of the KV cache.", s => s.Pages);
        Observe("trimtab.kv.used_pages", "Pages that running sequences hold.", s => s.UsedPages);
        Observe("trimtab.kv.cached_pages", "Pages kept for later prompts.", s => s.CachedPages);
        Count("trimtab.prompt_tokens", "Prompt tokens of admitted sequences.", s => s.PromptTokens);
        Count("trimtab.cached_prompt_tokens", "Prompt tokens that the cache had.", s => s.CachedPromptTokens);
        Count("trimtab.generated_tokens", "Tokens drawn.", s => s.GeneratedTokens);
        Count("trimtab.engine.steps", "Steps run.", s => s.Steps);
        Count("trimtab.engine.preempted", "Times that a sequence gave up its pages.", s => s.Preempted);
        Count("trimtab.engine.refused", "Submissions refused because the queue was full.", s => s.Refused);
        Count("trimtab.engine.expired", "Sequences that ended at their deadline.", s => s.Expired);
        Count("trimtab.images.encoded", "Images that went through the vision encoder.", s => s.ImageEncodes);
        Count("trimtab.images.cached", "Images whose features were still there.", s => s.ImageHits);

        void Observe(string name, string text, Func<EngineStatistics, long> read)
            => _meter.CreateObservableGauge(name, () => read(model.Model.Statistics), description: text);
        void Count(string name, string text, Func<EngineStatistics, long> read)
            => _meter.CreateObservableCounter(name, () => read(model.Model.Statistics), description: text);
    }

    /// <summary>A token came.</summary>
    /// <param name="since">Time stamp of the token before, or of the request's start.</param>
    /// <param name="first">Whether it is the answer's first.</param>
    public void Token(long since, bool first) => (first ? _firstToken : _nextToken).Record(Stopwatch.GetElapsedTime(since).TotalSeconds);

    /// <summary>A request was refused, or failed.</summary>
    public void Refused(string code) => _refused.Add(1, new KeyValuePair<string, object?>("code", code));

    /// <summary>A request was let through.</summary>
    public void Asked(bool images, SteeringDecision decision, int count)
    {
        _requests.Add(1, new("images", images), new("mode", SteeringRequest.Word(decision.Mode)), new("vectors", decision.Set?.Name ?? ""), new("choices", count));
        if (decision.RaisedFrom is not null)
            _raised.Add(1);
    }

    /// <summary>An answer ended.</summary>
    public void Ended(Sequence sequence)
    {
        _answers.Add(1, new KeyValuePair<string, object?>("finish", sequence.Finish.ToString().ToLowerInvariant()));
        _queue.Record(sequence.QueueTime.TotalSeconds);
        if (sequence.Telemetry?.Drifted == true)
            _drifted.Add(1);
    }

    /// <summary>A client went away.</summary>
    public void Abandoned() => _abandoned.Add(1);

    /// <inheritdoc/>
    public void Dispose() => _meter.Dispose();
}
