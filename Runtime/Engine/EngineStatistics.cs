namespace Trimtab.Engine;

/// <summary>What an engine has done and holds, as of the end of its last step. Counts only grow; all times are in seconds.</summary>
public readonly record struct EngineStatistics
{
    /// <summary>Sequences that wait to be admitted, preempted ones among them.</summary>
    public int Waiting { get; init; }

    /// <summary>Sequences that are admitted.</summary>
    public int Running { get; init; }

    /// <summary>Sequences that ended by themselves: a stop or the length.</summary>
    public long Done { get; init; }

    /// <summary>Sequences that their callers cancelled.</summary>
    public long Cancelled { get; init; }

    /// <summary>Sequences that ended at their deadline.</summary>
    public long Expired { get; init; }

    /// <summary>Sequences that ended with an error.</summary>
    public long Failed { get; init; }

    /// <summary>Submissions refused because the queue was full.</summary>
    public long Refused { get; init; }

    /// <summary>Times that a sequence gave up its pages to an older one.</summary>
    public long Preempted { get; init; }

    /// <summary>Prompt tokens of admitted sequences, image rows included.</summary>
    public long PromptTokens { get; init; }

    /// <summary>Those among <see cref="PromptTokens"/> whose keys and values the cache already had.</summary>
    public long CachedPromptTokens { get; init; }

    /// <summary>Tokens drawn.</summary>
    public long GeneratedTokens { get; init; }

    /// <summary>Steps run.</summary>
    public long Steps { get; init; }

    /// <summary>Tokens in the last step.</summary>
    public int BatchTokens { get; init; }

    /// <summary>Sequences in the last step.</summary>
    public int BatchSequences { get; init; }

    /// <summary>Pages of the KV cache, 16 positions each.</summary>
    public int Pages { get; init; }

    /// <summary>Pages that running sequences hold.</summary>
    public int UsedPages { get; init; }

    /// <summary>Pages that no running sequence holds, kept for later prompts; the others are empty.</summary>
    public int CachedPages { get; init; }

    /// <summary>Images that went through the vision encoder.</summary>
    public long ImageEncodes { get; init; }

    /// <summary>Images whose features were still there.</summary>
    public long ImageHits { get; init; }

    /// <summary>Steps, all included.</summary>
    public double StepSeconds { get; init; }

    /// <summary>Of <see cref="StepSeconds"/>: image encoding.</summary>
    public double ImageSeconds { get; init; }

    /// <summary>Of <see cref="StepSeconds"/>: admission, pages and the batch, image encoding excluded.</summary>
    public double SchedulingSeconds { get; init; }

    /// <summary>Of <see cref="StepSeconds"/>: masks, drawing tokens, their text, and callers' callbacks.</summary>
    public double SamplingSeconds { get; init; }
}
