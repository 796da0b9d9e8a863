namespace Trimtab.Checkpoints;

/// <summary>A model could not be fetched from a hub. The message is one line and says what to do where something can be done.</summary>
public sealed class HubException(string message, Exception? inner = null) : Exception(InvalidCheckpointException.OneLine(message), inner);

/// <summary>A failure that another try may cure: a broken connection, a server that is busy or down.</summary>
/// <param name="message">What happened.</param>
/// <param name="after">How long the server asks to wait (Retry-After, RFC 9110 §10.2.3), or null.</param>
/// <param name="inner">The cause, or null.</param>
internal sealed class HubTransientException(string message, TimeSpan? after = null, Exception? inner = null) : Exception(message, inner)
{
    public TimeSpan? After { get; } = after;
}

/// <summary>How often something is tried again, and how long is waited before: twice as long each time, with some chance in it.</summary>
/// <param name="delay">The first wait.</param>
internal sealed class HubRetry(TimeSpan delay)
{
    private const int MostTries = 5;
    private static readonly TimeSpan Longest = TimeSpan.FromMinutes(5);
    private int _tries;

    /// <summary>There was progress: earlier failures no longer count.</summary>
    public void Reset() => _tries = 0;

    /// <summary>Waits before the next try.</summary>
    /// <exception cref="HubException">There were enough tries, or the server asks for a longer wait than anyone sits through.</exception>
    public async Task WaitAsync(HubTransientException failure, CancellationToken cancel)
    {
        if (++_tries == MostTries)
            throw new HubException($"{failure.Message}; gave up after {MostTries} tries", failure);
        if (failure.After > Longest)
            throw new HubException($"{failure.Message} and asks to wait {failure.After.Value.TotalMinutes:F0} minutes; try again then", failure);
        var wait = failure.After ?? delay * (1 << (_tries - 1));
        await Task.Delay(wait + delay * (Random.Shared.NextDouble() / 2), cancel).ConfigureAwait(false);
    }

    /// <summary>Runs something until it succeeds, fails for good or was tried often enough.</summary>
    public async Task<T> RunAsync<T>(Func<Task<T>> run, CancellationToken cancel)
    {
        while (true)
        {
            try
            {
                return await run().ConfigureAwait(false);
            }
            catch (HubTransientException failure)
            {
                await WaitAsync(failure, cancel).ConfigureAwait(false);
            }
        }
    }
}
