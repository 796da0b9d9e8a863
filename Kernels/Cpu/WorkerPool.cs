namespace Trimtab.Kernels.Cpu;

/// <summary>Work that a <see cref="WorkerPool"/> divides: items [first, end) go to one worker.</summary>
internal interface IWork
{
    /// <summary>Does items [first, end).</summary>
    void Run(int first, int end, int worker);
}

/// <summary>A fixed set of threads that runs divided work.</summary>
internal sealed class WorkerPool(int threads) : IDisposable
{
    /// <summary>Workers, the calling thread included.</summary>
    public int Threads { get; } = threads;

    /// <summary>Runs all items and returns when they are done.</summary>
    public void Run<TWork>(int items, TWork work) where TWork : struct, IWork => work.Run(0, items, 0);

    public void Dispose() { }
}
