using Trimtab.Kernels;
using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>How one answer is generated.</summary>
public sealed record GenerationOptions
{
    /// <summary>Most tokens to generate; 0 only computes the prompt.</summary>
    public int MaxTokens { get; init; } = 256;

    /// <summary>How tokens are drawn; greedy by default.</summary>
    public SamplingOptions Sampling { get; init; } = new();

    /// <summary>Texts that end the answer and are not part of it.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    /// <summary>Goes on after an end-of-sequence token.</summary>
    public bool IgnoreEos { get; init; }

    /// <summary>Whether special tokens are left out of the text.</summary>
    public bool SkipSpecial { get; init; } = true;

    /// <summary>The CMRM edit, or null for none.</summary>
    public SteeringOptions? Steering { get; init; }

    /// <summary>
    /// Keeps where the steered tokens lie along the steering vectors (<see cref="Sequence.Telemetry"/>). With an alpha of 0 the vectors are
    /// observed and change nothing.
    /// </summary>
    public TelemetryDetail Telemetry { get; init; }

    /// <summary>Only sequences of one group share keys, values and image features; null is a group like others. Changes no result.</summary>
    public string? CacheGroup { get; init; }

    /// <summary>When the answer ends, finished or not, with <see cref="FinishReason.Deadline"/>; null for never.</summary>
    public DateTimeOffset? Deadline { get; init; }

    /// <summary>Makes the constraint that one sequence's tokens keep to, for each sequence one of its own; null for none.</summary>
    public Func<TokenConstraint>? Constraint { get; init; }

    /// <summary>Keeps the prompt's last-token states and logits (<see cref="Sequence.States"/>, <see cref="Sequence.Logits"/>).</summary>
    public bool Capture { get; init; }

    /// <summary>Computes the negative log-likelihood of every prompt token after the first.</summary>
    public bool Score { get; init; }

    /// <summary>Hashes the logits that tokens were drawn from.</summary>
    public bool HashLogits { get; init; }
}

/// <summary>Why an answer ended.</summary>
public enum FinishReason
{
    /// <summary>It has not.</summary>
    None,
    /// <summary>An end-of-sequence token, a stop text, or a constraint that is complete.</summary>
    Stop,
    /// <summary>The token limit or the context's end.</summary>
    Length,
    /// <summary>The caller cancelled.</summary>
    Cancelled,
    /// <summary>The deadline came.</summary>
    Deadline,
    /// <summary>An error; see <see cref="Sequence.Error"/>.</summary>
    Error,
}
