namespace Trimtab.Evaluation;

/// <summary>Keeps many requests before the engine, so that it can batch them, and takes their results in order.</summary>
internal static class InFlight
{
    /// <summary>Requests at the same time: twice an engine's default batch, so that none waits for the next to be prepared.</summary>
    public const int Width = 64;

    /// <summary>Starts items first … count − 1 in order, <see cref="Width"/> at most at a time, and takes each result in that order.</summary>
    public static async Task RunAsync<T>(int first, int count, Func<int, CancellationToken, Task<T>> start, Action<int, T> take, CancellationToken cancel)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        var running = new Queue<Task<T>>();
        try
        {
            for (int next = first, taken = first; taken < count; taken++)
            {
                cancel.ThrowIfCancellationRequested();
                for (; next < count && running.Count < Width; next++)
                {
                    stop.Token.ThrowIfCancellationRequested();
                    running.Enqueue(start(next, stop.Token));
                }
                var head = await running.Peek().ConfigureAwait(false);
                _ = running.Dequeue();
                take(taken, head);
            }
        }
        catch
        {
            // What still runs is ended before the failure leaves, so that nothing uses the model after it.
            await stop.CancelAsync().ConfigureAwait(false);
            await Task.WhenAll(running).ContinueWith(static _ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default).ConfigureAwait(false);
            cancel.ThrowIfCancellationRequested();
            throw;
        }
    }
}
