namespace Trimtab.Kernels.Cuda;

/// <summary>What one rank has of an NCCL communicator.</summary>
internal sealed class NcclComm(nint value) : CudaHandle(value)
{
    /// <summary>Ends it, and what of it runs or waits on the GPU.</summary>
    public void Abort()
    {
        if (IsClosed)
            return;
        _ = Nccl.ncclCommAbort(Value);
        SetHandleAsInvalid();
    }

    protected override CUresult Free(nint value) => (CUresult)Nccl.ncclCommDestroy(value);
}

/// <summary>GPUs of one machine that add up their sums by NCCL, each on its own stream behind its own kernels, so that steps can be graphs.</summary>
internal sealed unsafe class NcclCommunicator : Communicator
{
    private readonly CudaDevice[] _ranks;
    private readonly CudaGraphs _graphs;
    private readonly NcclComm[] _comms;

    /// <exception cref="CudaException">There is no NCCL, or it refuses these GPUs.</exception>
    public NcclCommunicator(CudaDevice[] ranks)
    {
        (_ranks, _graphs) = (ranks, new(ranks));
        int[] ordinals = Array.ConvertAll(ranks, rank => rank.Ordinal);
        var comms = new nint[ranks.Length];
        try
        {
            fixed (nint* made = comms)
            fixed (int* devices = ordinals)
                Nccl.Check(Nccl.ncclCommInitAll(made, ordinals.Length, devices), $"ncclCommInitAll of GPUs {string.Join(", ", ordinals)}");
        }
        catch (DllNotFoundException e)
        {
            throw new CudaException(e.Message, e);
        }
        _comms = Array.ConvertAll(comms, comm => new NcclComm(comm));
        CudaDevice.Leave();
    }

    /// <inheritdoc/>
    public override void AllReduce(ReadOnlySpan<Tensor> sums)
    {
        if (sums[0].Count == 0)
            return;
        var type = TypeOf(sums[0]);
        Begin("AllReduce");
        var failed = 0;
        for (var r = 0; r < _ranks.Length && failed == 0; r++)
            failed = Nccl.ncclAllReduce(sums[r].At(), sums[r].At(), (nuint)sums[r].Count, type, Nccl.ncclSum, _comms[r].Value, _ranks[r].QueueOf("AllReduce"));
        End(failed, "ncclAllReduce");
    }

    /// <summary>A row a call, so that the columns of a row come to lie side by side; NCCL makes one launch of a group.</summary>
    public override void AllGather(ReadOnlySpan<Tensor> shares, ReadOnlySpan<Tensor> wholes)
    {
        if (shares[0].Count == 0)
            return;
        var type = TypeOf(shares[0]);
        Begin("AllGather");
        var failed = 0;
        for (var row = 0; row < shares[0].Rows; row++)
            for (var r = 0; r < _ranks.Length && failed == 0; r++)
                failed = Nccl.ncclAllGather(shares[r].Slice(row, 1).At(), wholes[r].Slice(row, 1).At(), (nuint)shares[r].Columns, type, _comms[r].Value, _ranks[r].QueueOf("AllGather"));
        End(failed, "ncclAllGather");
    }

    private static int TypeOf(Tensor t) => t.Type switch
    {
        DType.F32 => Nccl.ncclFloat32,
        DType.BF16 => Nccl.ncclBfloat16,
        var other => throw new ArgumentException($"{other} is not what ranks exchange"),
    };

    /// <summary>One thread speaks for all ranks: NCCL has to know all of a collective's calls before it begins the first.</summary>
    private void Begin(string op)
    {
        if (_comms[0].IsClosed)
            throw new CudaException($"{op}: the GPUs' NCCL communicator was ended by an earlier failure");
        Nccl.Check(Nccl.ncclGroupStart(), "ncclGroupStart");
    }

    private static void End(int failed, string op)
    {
        var ended = Nccl.ncclGroupEnd();
        CudaDevice.Leave();
        Nccl.Check(failed, op);
        Nccl.Check(ended, $"{op}, ncclGroupEnd");
    }

    /// <summary>Steps that ran as graphs, and those that had to be captured for them.</summary>
    internal (long Replayed, long Captured) GraphCounts => _graphs.Counts;

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
                    if (_comms[other].IsClosed)
                        break; // ended by an earlier failure, and nothing waits for it any more
                    Nccl.Check(Nccl.ncclCommGetAsyncError(_comms[other].Value, out var result), "ncclCommGetAsyncError");
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
            foreach (var comm in _comms)
                comm.Abort();
            CudaDevice.Leave();
            throw;
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        _graphs.Dispose();
        foreach (var comm in _comms)
            comm.Dispose();
        CudaDevice.Leave();
    }
}
