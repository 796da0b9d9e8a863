using static Trimtab.Kernels.Cuda.Driver;

namespace Trimtab.Kernels.Cuda;

public sealed unsafe partial class CudaDevice
{
    private const int DefaultShared = 48 << 10;

    private readonly Dictionary<nint, int> _shared = []; // dynamic shared memory that a kernel was allowed, beyond the default
    private readonly CudaGraphs _graphs;
    private string _lastOp = "";
    private bool _capturing;
    private readonly bool _launchesProgrammatically; // the machine code waits (common.cuh), and captured graphs keep what a launch says (CUDA 12.3)
    private bool _programmaticLaunch;

    /// <summary>Changes when memory is freed that a graph may know.</summary>
    internal int Generation { get; private set; }

    /// <summary>Whether <see cref="Replay"/> captures steps; without, every step is launched op by op.</summary>
    public bool Graphs { get; set; } = true;

    /// <summary>
    /// Whether a kernel that follows another may start before that one has ended (<see cref="CudaOptions.ProgrammaticLaunch"/>); false where that is not
    /// to be had. A change forgets the graphs, which keep it as it was when they were captured.
    /// </summary>
    public bool ProgrammaticLaunch
    {
        get => _programmaticLaunch;
        set
        {
            Enter();
            _programmaticLaunch = value && _launchesProgrammatically;
            _graphs.Forget();
        }
    }

    /// <summary>Steps that ran as a captured graph, and graphs that had to be captured for them.</summary>
    public (long Replayed, long Captured) GraphCounts => _graphs.Counts;

    /// <summary>
    /// Runs a step. The first of its key runs as it is, which compiles its kernels and grows what grows; the second is captured, and from
    /// then on a step is one launch. The caller's key stands for all that the step's ops are told (shapes, tensors); what lies in the
    /// tensors may change. When memory was freed meanwhile, the graph is captured again.
    /// </summary>
    public override void Replay(long key, Action record) => _graphs.Replay(key, record);

    /// <summary>From here on ops are recorded instead of queued.</summary>
    internal void BeginCapture()
    {
        Enter();
        cuStreamBeginCapture(_stream.Value, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).Check("cuStreamBeginCapture");
        _capturing = true;
    }

    /// <summary>The graph of what was recorded; the caller's.</summary>
    internal nint EndCapture()
    {
        Enter();
        _capturing = false;
        cuStreamEndCapture(_stream.Value, out var graph).Check("cuStreamEndCapture");
        return graph;
    }

    /// <summary>Ends a recording that something threw out of; nothing where none is.</summary>
    internal void AbandonCapture()
    {
        if (!_capturing)
            return;
        Enter();
        _capturing = false;
        if (cuStreamEndCapture(_stream.Value, out var graph) == CUresult.CUDA_SUCCESS && graph != 0)
            _ = cuGraphDestroy(graph);
    }

    /// <summary>The stream, for what others queue on it.</summary>
    internal nint QueueOf(string? op = null)
    {
        Enter();
        _lastOp = op ?? _lastOp;
        return _stream.Value;
    }

    /// <summary>Whether all that was queued is done.</summary>
    /// <exception cref="CudaException">Some of it failed.</exception>
    internal bool IsIdle()
    {
        Enter();
        var result = cuStreamQuery(_stream.Value);
        if (result == CUresult.CUDA_ERROR_NOT_READY)
            return false;
        result.Check(_lastOp);
        return true;
    }

    /// <summary>A kernel, compiled and loaded at its first use.</summary>
    private nint Kernel(string file, string name, DType? form = null)
    {
        if (_kernels.TryGetValue((file, name, form), out var function))
            return function;
        if (_capturing)
            throw new InvalidOperationException($"a step that is being recorded meets a kernel that its first run did not: {name}");
        var program = form is { } f ? $"{file} {f}" : file;
        if (!_modules.TryGetValue(program, out var module))
        {
            List<string> defines = ActivationType == DType.BF16 ? ["ACT_BF16"] : [];
            if (form is { } type)
                defines.Add($"FORM={CudaForms.Number(type)}");
            byte[] image;
            try
            {
                image = _compiler.Compile(file, CudaSources.Text(file), [.. defines]);
            }
            catch (DllNotFoundException e)
            {
                throw new CudaException(e.Message, e);
            }
            nint loaded;
            fixed (byte* p = image)
                cuModuleLoadData(out loaded, p).Check($"cuModuleLoadData of {program}");
            _modules.Add(program, module = new(loaded));
        }
        cuModuleGetFunction(out function, module.Value, name).Check($"cuModuleGetFunction {name} of {program}");
        _kernels.Add((file, name, form), function);
        return function;
    }

    /// <summary>Queues a kernel.</summary>
    /// <param name="op">The op and its shapes, for messages.</param>
    /// <param name="kernel">From <see cref="Kernel"/>.</param>
    /// <param name="grid">Blocks.</param>
    /// <param name="threads">Threads a block.</param>
    /// <param name="shared">Bytes of dynamic shared memory.</param>
    /// <param name="parameters">The kernel's struct.</param>
    private void Launch<T>(string op, nint kernel, (int X, int Y, int Z) grid, int threads, long shared, T parameters) where T : unmanaged
    {
        if (grid.X == 0 || grid.Y == 0 || grid.Z == 0)
            return;
        if (shared > DefaultShared)
        {
            if (shared > _sharedLimit)
                throw new NotSupportedException($"{op} needs {shared} bytes of shared memory; this GPU's blocks have {_sharedLimit}");
            if (_shared.GetValueOrDefault(kernel) < shared)
            {
                cuFuncSetAttribute(kernel, CUfunction_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared).Check("cuFuncSetAttribute");
                _shared[kernel] = (int)shared;
            }
        }
        // Nothing is won behind a copy, a memset, memory that is taken or given back, or a library's call: none of them lets the next kernel start
        // early. What they leave has to be there when a kernel starts, since weights are fetched before any wait; so that the attribute is for
        // kernels that follow one of this project's, and the first of a row of such kernels starts when all before it has ended.
        var follows = _programmaticLaunch && _stream.EndsInKernel;
        var attribute = new CUlaunchAttribute { id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value = 1 };
        var config = new CUlaunchConfig
        {
            gridDimX = (uint)grid.X,
            gridDimY = (uint)grid.Y,
            gridDimZ = (uint)grid.Z,
            blockDimX = (uint)threads,
            blockDimY = 1,
            blockDimZ = 1,
            sharedMemBytes = (uint)shared,
            hStream = _stream.Value,
            attrs = (nint)(&attribute),
            numAttrs = follows ? 1u : 0,
        };
        var size = (nuint)sizeof(T);
        var extra = stackalloc nint[] { CU_LAUNCH_PARAM_BUFFER_POINTER, (nint)(&parameters), CU_LAUNCH_PARAM_BUFFER_SIZE, (nint)(&size), 0 };
        _lastOp = op;
        var result = cuLaunchKernelEx(&config, kernel, null, extra);
        if (result != CUresult.CUDA_SUCCESS)
            throw CudaException.Of(result, $"{op}: grid ({grid.X}, {grid.Y}, {grid.Z}) of {threads} threads, {shared} bytes shared");
        _stream.EndsInKernel = true;
        if (_options.Blocking && !_capturing)
            Wait();
    }
}
