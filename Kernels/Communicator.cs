namespace Trimtab.Kernels;

/// <summary>What the ranks of a <see cref="TensorParallelDevice"/> do together.</summary>
public abstract class Communicator : IDisposable
{
    /// <summary>Replaces each rank's tensor by the sum of all of them, which is the same to the bit on each. Queued behind each rank's own work.</summary>
    /// <param name="sums">One tensor a rank, of one type and shape.</param>
    public abstract void AllReduce(ReadOnlySpan<Tensor> sums);

    /// <summary>Gives every rank the columns of all: whole[t] = the ranks' rows t one after another.</summary>
    /// <param name="shares">[T, N / ranks] of each rank.</param>
    /// <param name="wholes">[T, N] of each rank.</param>
    public abstract void AllGather(ReadOnlySpan<Tensor> shares, ReadOnlySpan<Tensor> wholes);

    /// <summary>Runs a step on all ranks: see <see cref="Device.Replay"/>.</summary>
    public virtual void Replay(long key, Action record)
    {
        ArgumentNullException.ThrowIfNull(record);
        record();
    }

    /// <summary>Waits until every rank has done its work, so that one that failed does not leave the others waiting for it.</summary>
    public virtual void Wait()
    {
    }

    /// <summary>Gives everything back.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what connects the ranks, not the ranks.</summary>
    protected abstract void Dispose(bool disposing);
}
