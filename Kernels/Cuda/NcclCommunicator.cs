namespace Trimtab.Kernels.Cuda;

/// <summary>GPUs of one machine that add up their sums by NCCL, each on its own stream behind its own kernels, so that steps can be graphs.</summary>
internal sealed unsafe class NcclCommunicator : Communicator
{
    private readonly CudaDevice[] _ranks;
    private readonly CudaGraphs _graphs;
    private readonly nint[] _comms;

    /// <exception cref="CudaException">There is no NCCL, or it refuses these GPUs.</exception>
    public NcclCommunicator(CudaDevice[] ranks)
    {
        (_ranks, _graphs, _comms) = (ranks, new(ranks), new nint[ranks.Length]);
        int[] ordinals = Array.ConvertAll(ranks, rank => rank.Ordinal);
        try
        {
            fixed (nint* comms = _comms)
            fixed (int* devices = ordinals)
                Nccl.Check(Nccl.ncclCommInitAll(comms, ordinals.Length, devices), $"ncclCommInitAll of GPUs {string.Join(", ", ordinals)}");
        }
        catch (DllNotFoundException e)
        {
            throw new CudaException(e.Message, e);
        }
        CudaDevice.Leave();
    }

    /// <inheritdoc/>
    public override void AllReduce(ReadOnlySpan<Tensor> sums)
    {
        if (sums[0].Count == 0)
            return;
        var type = sums[0].Type switch
        {
            DType.F32 => Nccl.ncclFloat32,
            DType.BF16 => Nccl.ncclBfloat16,
            var other => throw new ArgumentException($"AllReduce of {other}"),
        };
        // One thread speaks for all ranks: NCCL has to know all of a collective's calls before it begins the first.
        Nccl.Check(Nccl.ncclGroupStart(), "ncclGroupStart");
        var failed = 0;
        for (var r = 0; r < _ranks.Length && failed == 0; r++)
            failed = Nccl.ncclAllReduce(sums[r].At(), sums[r].At(), (nuint)sums[r].Count, type, Nccl.ncclSum, _comms[r], _ranks[r].QueueOf("AllReduce"));
        var ended = Nccl.ncclGroupEnd();
        CudaDevice.Leave();
        Nccl.Check(failed, "ncclAllReduce");
        Nccl.Check(ended, "ncclGroupEnd");
    }

    /// <inheritdoc/>
    public override void Replay(long key, Action record) => _graphs.Replay(key, record);

    /// <summary>
    /// Asks instead of waiting: a collective of which one rank failed never ends on the others. When one failed, the others' are ended, and nothing can
    /// be computed together any more.
    /// </summary>
    /// <exception cref="CudaException">A GPU, or what is between them, failed.</exception>
    public override void Wait()
    {
        var spin = new SpinWait();
        try
        {
            for (var r = 0; r < _ranks.Length;)
            {
                if (_ranks[r].IsIdle())
                {
                    r++;
                    continue;
                }
                for (var other = 0; other < _ranks.Length; other++)
                {
                    if (_comms[other] == 0)
                        throw new CudaException("the GPUs' NCCL communicator was ended by an earlier failure");
                    Nccl.Check(Nccl.ncclCommGetAsyncError(_comms[other], out var result), "ncclCommGetAsyncError");
                    if (result != Nccl.ncclInProgress)
                        Nccl.Check(result, $"NCCL, rank {other}");
                    if (other != r)
                        _ = _ranks[other].IsIdle();
                }
                spin.SpinOnce(sleep1Threshold: -1);
            }
        }
        catch (CudaException)
        {
            End(abort: true);
            throw;
        }
    }

    private void End(bool abort)
    {
        foreach (ref var comm in _comms.AsSpan())
        {
            if (comm != 0)
                _ = abort ? Nccl.ncclCommAbort(comm) : Nccl.ncclCommDestroy(comm);
            comm = 0;
        }
        CudaDevice.Leave();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        _graphs.Dispose();
        End(abort: false);
    }
}
