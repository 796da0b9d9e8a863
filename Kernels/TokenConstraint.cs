namespace Trimtab.Kernels;

/// <summary>
/// What tokens may come next in one answer: a grammar, a schema, a list of choices. Holds the state of one sequence. An engine asks
/// <see cref="Mask"/> before each draw and tells the drawn token by <see cref="Accept"/>; the two never run at the same time, but not
/// always on the same thread. End-of-sequence tokens are the engine's: it forbids them while <see cref="MayEnd"/> is false.
/// </summary>
public abstract class TokenConstraint
{
    /// <summary>Sets the logits [V] of tokens that may not come next to −∞ and leaves the others as they are.</summary>
    public abstract void Mask(Span<float> logits);

    /// <summary>Takes a drawn token. End-of-sequence tokens are not told.</summary>
    /// <exception cref="ArgumentException">The token may not come next; the answer ends with this error.</exception>
    public abstract void Accept(int token);

    /// <summary>Whether nothing can follow what was accepted: the answer ends there.</summary>
    public abstract bool Complete { get; }

    /// <summary>Whether what was accepted may be all of the answer.</summary>
    public virtual bool MayEnd => Complete;
}

/// <summary>Sets the logits [V] of tokens that are not allowed to −∞.</summary>
public delegate void LogitsMask(Span<float> logits);
