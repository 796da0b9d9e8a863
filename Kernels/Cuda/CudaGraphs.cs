using static Trimtab.Kernels.Cuda.Driver;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// Steps as graphs, on one GPU or on several that divide their layers: each has a graph of its own then, all captured in one run of the step, and
/// launched one after another.
/// </summary>
internal sealed unsafe class CudaGraphs(params CudaDevice[] devices) : IDisposable
{
    /// <summary>Steps that are kept; the one that was used least recently makes room for another.</summary>
    public const int Most = 256;

    private readonly Dictionary<long, Recorded> _steps = [];
    private long _replays;

    private sealed class Recorded(int devices)
    {
        public readonly CudaGraphExec?[] Executables = new CudaGraphExec?[devices];
        public readonly int[] Generations = new int[devices];
        public long Used;
    }

    /// <summary>Steps that ran as graphs, and those that had to be captured for them.</summary>
    public (long Replayed, long Captured) Counts { get; private set; }

    /// <summary>See <see cref="CudaDevice.Replay"/>.</summary>
    public void Replay(long key, Action record)
    {
        ArgumentNullException.ThrowIfNull(record);
        if (!devices[0].Graphs)
        {
            record();
            return;
        }
        if (!_steps.TryGetValue(key, out var recorded))
        {
            if (_steps.Count >= Most)
                Evict();
            _steps.Add(key, new(devices.Length) { Used = ++_replays });
            record();
            return;
        }
        recorded.Used = ++_replays;
        var captured = true;
        for (var d = 0; d < devices.Length; d++)
            captured &= recorded.Executables[d] is not null && recorded.Generations[d] == devices[d].Generation;
        if (!captured)
            Capture(recorded, record);
        Counts = (Counts.Replayed + 1, Counts.Captured);
        for (var d = 0; d < devices.Length; d++)
            cuGraphLaunch(recorded.Executables[d]!.Value, devices[d].QueueOf("a captured step")).Check("cuGraphLaunch");
    }

    private void Capture(Recorded recorded, Action record)
    {
        var graphs = new nint[devices.Length];
        var begun = 0;
        try
        {
            for (; begun < devices.Length; begun++)
                devices[begun].BeginCapture();
            record();
            for (var d = 0; d < devices.Length; d++)
                graphs[d] = devices[d].EndCapture();
            for (var d = 0; d < devices.Length; d++)
                Instantiate(recorded, d, graphs[d]);
            Counts = (Counts.Replayed, Counts.Captured + 1);
        }
        finally
        {
            for (var d = 0; d < begun; d++)
            {
                devices[d].AbandonCapture();
                if (graphs[d] != 0)
                    _ = cuGraphDestroy(graphs[d]);
            }
        }
    }

    private void Instantiate(Recorded recorded, int d, nint graph)
    {
        devices[d].Enter();
        ref var executable = ref recorded.Executables[d];
        CUgraphExecUpdateResultInfo info;
        if (executable is { } old && cuGraphExecUpdate(old.Value, graph, &info) != CUresult.CUDA_SUCCESS)
        {
            old.Dispose();
            executable = null;
        }
        if (executable is null)
        {
            cuGraphInstantiateWithFlags(out var made, graph, 0).Check("cuGraphInstantiateWithFlags");
            executable = new(made);
        }
        recorded.Generations[d] = devices[d].Generation;
    }

    private void Evict()
    {
        var (key, oldest) = _steps.MinBy(step => step.Value.Used);
        _steps.Remove(key);
        // It may still run, and on several GPUs no part of it ends alone.
        for (var d = 0; d < devices.Length; d++)
            if (oldest.Executables[d] is not null)
                cuStreamSynchronize(devices[d].QueueOf()).Check("cuStreamSynchronize");
        Release(oldest);
    }

    /// <summary>Gives all graphs back, when they have run.</summary>
    public void Forget()
    {
        while (_steps.Count > 0)
            Evict();
    }

    private void Release(Recorded recorded)
    {
        for (var d = 0; d < devices.Length; d++)
        {
            devices[d].Enter();
            recorded.Executables[d]?.Dispose();
        }
    }

    /// <summary>Gives the graphs back, which must not run any more.</summary>
    public void Dispose()
    {
        foreach (var recorded in _steps.Values)
            Release(recorded);
        _steps.Clear();
    }
}
