using Trimtab.Model;

namespace Trimtab.Engine;

/// <summary>Capacities of an engine.</summary>
public sealed record EngineOptions
{
    /// <summary>Positions a sequence may reach, prompt and answer together; 0: the model's own limit, at most 4096.</summary>
    public int ContextLength { get; init; }

    /// <summary>
    /// Positions of all sequences together, those kept for later prompts included; 0: four contexts. Where it is less than a context, a
    /// sequence that may not fit alone is refused.
    /// </summary>
    public int CachePositions { get; init; }

    /// <summary>Sequences in one step.</summary>
    public int MaxSequences { get; init; } = 32;

    /// <summary>Tokens in one step: decode tokens first, prefill chunks fill the rest.</summary>
    public int MaxBatchTokens { get; init; } = 512;

    /// <summary>Prompt tokens in one step while other sequences decode: what a long prompt delays their next token by; 0: no limit but the step's.</summary>
    public int PrefillChunk { get; init; }

    /// <summary>Sequences that may be submitted beyond those that run; one more is refused with <see cref="EngineBusyException"/>. 0: no limit.</summary>
    public int MaxWaiting { get; init; }

    /// <summary>Images whose features stay on the device for later prompts, least recently used first out; at least a context's images have room.</summary>
    public int CachedImages { get; init; } = 16;

    /// <summary>In what form keys and values are kept.</summary>
    public KvType KvType { get; init; }

    /// <summary>Whether keys and values of ended sequences serve later ones that begin alike. Changes no result.</summary>
    public bool PrefixCache { get; init; } = true;
}

/// <summary>The engine's queue is full: nothing was queued, and a later try may succeed.</summary>
public sealed class EngineBusyException : Exception
{
    /// <summary>An engine that has no room for another sequence.</summary>
    /// <param name="waiting">Sequences that wait or run.</param>
    /// <param name="retryAfter">See <see cref="RetryAfter"/>.</param>
    public EngineBusyException(int waiting, TimeSpan retryAfter)
        : base($"the engine is busy with {waiting} requests and takes no more; try again in {retryAfter.TotalSeconds:F0} s")
        => RetryAfter = retryAfter;

    /// <summary>When half of the queue will have been served at the present pace, 1 to 60 seconds.</summary>
    public TimeSpan RetryAfter { get; }
}
