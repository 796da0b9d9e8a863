using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using static Trimtab.Kernels.Cuda.Driver;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// An NVIDIA GPU, from compute capability 8.0 on. Ops queue kernels on one stream and return; <see cref="Download"/> waits. Numbers that lie
/// in device memory are checked by the kernels that read them, and a bad one is thrown at the next wait. One thread at a time may call.
/// </summary>
public sealed unsafe partial class CudaDevice : Device
{
    private const int StagingBytes = 8 << 20;

    private static int created;
    [ThreadStatic] private static int entered;

    private readonly int _id = Interlocked.Increment(ref created);
    private readonly int _device;
    private readonly nint _context;
    private readonly CudaStream _stream;
    private readonly PinnedMemory _staging;
    private readonly CudaStorage _status;
    private readonly CudaCompiler _compiler;
    private readonly CudaOptions _options;
    private readonly Dictionary<string, CudaModule> _modules = [];
    private readonly Dictionary<(string File, string Name, DType? Form), nint> _kernels = [];
    private readonly HashSet<nint> _storages = [];
    private readonly ConcurrentQueue<nint> _forgotten = new();
    private readonly CudaStorage?[] _scratch = new CudaStorage?[7];
    private readonly int _sharedLimit, _multiprocessors;
    private int _staged; // bytes of the staging memory that copies under way read
    private bool _disposed;

    /// <summary>Opens a GPU.</summary>
    /// <exception cref="CudaException">There is none, or the driver refuses; the message says what is missing.</exception>
    /// <exception cref="ArgumentException">The options ask for several; see <see cref="Open"/>.</exception>
    public CudaDevice(CudaOptions? options = null)
    {
        if (options is { TensorParallel: not 1 })
            throw new ArgumentException($"a CudaDevice is one GPU; {nameof(CudaDevice)}.{nameof(Open)} opens {options.TensorParallel}", nameof(options));
        _options = options ??= new();
        _graphs = new(this);
        if (options.ActivationType is not (DType.F32 or DType.BF16))
            throw new NotSupportedException($"a GPU's activations are BF16 or F32, not {options.ActivationType}");
        try
        {
            cuInit(0).Check("cuInit");
            cuDeviceGetCount(out var count).Check("cuDeviceGetCount");
            if ((uint)options.Ordinal >= (uint)count)
                throw new CudaException($"there is no GPU {options.Ordinal}: the driver sees {count}");
            cuDeviceGet(out _device, options.Ordinal).Check("cuDeviceGet");
            int major = Attribute(CUdevice_attribute.COMPUTE_CAPABILITY_MAJOR), minor = Attribute(CUdevice_attribute.COMPUTE_CAPABILITY_MINOR);
            var name = stackalloc byte[256];
            cuDeviceGetName(name, 256, _device).Check("cuDeviceGetName");
            cuDeviceTotalMem(out var total, _device).Check("cuDeviceTotalMem");
            var model = Encoding.UTF8.GetString(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(name));
            Name = $"{model}, sm_{10 * major + minor}, {total / (double)(1 << 30):F0} GB, {(options.ActivationType == DType.F32 ? "F32" : "BF16")} activations";
            if (major < 8)
                throw new CudaException($"{model} has compute capability {major}.{minor}; the kernels need 8.0 or later (Ampere)");
            cuDevicePrimaryCtxRetain(out _context, _device).Check("cuDevicePrimaryCtxRetain");
            Enter();
            _sharedLimit = Attribute(CUdevice_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
            _multiprocessors = Attribute(CUdevice_attribute.MULTIPROCESSOR_COUNT);
            var folder = options.CacheFolder ?? CudaCompiler.DefaultFolder;
            _compiler = CudaCompiler.For(major, minor, folder.Length == 0 ? null : folder);
            cuDriverGetVersion(out var version).Check("cuDriverGetVersion");
            _launchesProgrammatically = version >= 12030 && _compiler.Capability >= 90;
            _programmaticLaunch = options.ProgrammaticLaunch && _launchesProgrammatically;
        }
        catch (DllNotFoundException e)
        {
            throw new CudaException(e.Message, e);
        }
        // What is freed stays with the process: the next allocation of a step's size costs nothing.
        if (cuDeviceGetDefaultMemPool(out var pool, _device) == CUresult.CUDA_SUCCESS)
        {
            var threshold = ulong.MaxValue;
            cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold).Check("cuMemPoolSetAttribute");
        }
        _stream = CudaStream.Create();
        _staging = PinnedMemory.Allocate(StagingBytes);
        _status = Take(sizeof(Status), "the status word");
    }

    /// <summary>How many GPUs the driver sees; 0 where there is no driver.</summary>
    public static int Count
    {
        get
        {
            try
            {
                return cuInit(0) == CUresult.CUDA_SUCCESS && cuDeviceGetCount(out var count) == CUresult.CUDA_SUCCESS ? count : 0;
            }
            catch (DllNotFoundException)
            {
                return 0;
            }
        }
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <summary>Which GPU, as the driver counts them.</summary>
    internal int Ordinal => _options.Ordinal;

    /// <summary>Opens a GPU or, where <see cref="CudaOptions.TensorParallel"/> says so, several that divide each layer.</summary>
    /// <exception cref="CudaException">There are not so many, or NCCL is missing; the message says what.</exception>
    public static Device Open(CudaOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.TensorParallel < 1)
            throw new ArgumentOutOfRangeException(nameof(options), $"{nameof(options.TensorParallel)} is {options.TensorParallel}; expected at least 1");
        if (options.TensorParallel == 1)
            return new CudaDevice(options);
        var ranks = new List<CudaDevice>();
        NcclCommunicator? communicator = null;
        try
        {
            for (var r = 0; r < options.TensorParallel; r++)
                ranks.Add(new(options with { Ordinal = options.Ordinal + r, TensorParallel = 1 }));
            return new TensorParallelDevice(ranks, communicator = new([.. ranks]));
        }
        catch
        {
            communicator?.Dispose();
            foreach (var rank in ranks)
                rank.Dispose();
            throw;
        }
    }

    /// <summary>What a report says of the GPU beside its name: driver, processors, and, where NVML is, clocks, temperature and power of this moment.</summary>
    public IReadOnlyList<(string Name, string Value)> Facts
    {
        get
        {
            Enter();
            cuDriverGetVersion(out var version).Check("cuDriverGetVersion");
            cuMemGetInfo(out var free, out var total).Check("cuMemGetInfo");
            List<(string, string)> facts =
            [
                ("driver's CUDA version", $"{version / 1000}.{version % 1000 / 10}"), ("multiprocessors", $"{_multiprocessors}"),
                ("memory, free of total", $"{free >> 20} of {total >> 20} MiB"), ("kernels compiled for", _compiler.Architecture), ("long prompts are multiplied by", Products),
                ("programmatic dependent launch", ProgrammaticLaunch ? "on" : _launchesProgrammatically ? "off" : "not to be had"),
            ];
            var bus = stackalloc byte[32];
            if (cuDeviceGetPCIBusId(bus, 32, _device) == CUresult.CUDA_SUCCESS)
                facts.AddRange(Nvml.Facts(bus));
            return facts;
        }
    }

    /// <inheritdoc/>
    public override DType ActivationType => _options.ActivationType;

    /// <inheritdoc/>
    public override Abilities Abilities => Abilities.All;

    /// <inheritdoc/>
    public override bool Caches(DType type) => type == ActivationType || type is DType.BF16 or DType.U8 or DType.F8E4M3;

    /// <summary>Kernel programs that had to be compiled since the start, because the folder did not hold them.</summary>
    public int CompiledPrograms => _compiler.Compiled;

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, int columns)
    {
        if (rows < 0 || columns < 0)
            throw new ArgumentOutOfRangeException(nameof(rows), $"a tensor cannot be [{rows}, {columns}]");
        if (type is not (DType.F32 or DType.F16 or DType.BF16 or DType.I32 or DType.U8 or DType.F8E4M3))
            throw new NotSupportedException($"a GPU has tensors of F32, F16, BF16, I32, U8 and F8E4M3, not of {type}");
        return new(Take(checked((long)rows * columns * type.BlockBytes()), $"{type} [{rows}, {columns}]"), type, 0, rows, columns);
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor target)
    {
        CheckCount(nameof(Upload), source.Length, target);
        var (address, size) = (target.At(), target.Type.BlockBytes());
        for (var done = 0; done < source.Length;)
        {
            var part = source.Slice(done, Math.Min(source.Length - done, StagingBytes / size));
            var bytes = Stage(part.Length * size);
            if (target.Type == DType.U8)
                for (var i = 0; i < part.Length; i++)
                    bytes[i] = (byte)part[i];
            else if (target.Type == DType.I32)
                throw new ArgumentException($"Upload: floats for {target.Describe()}");
            else
                Blocks.Quantize(target.Type, part, bytes);
            Send(bytes, address + (nint)((long)done * size));
            done += part.Length;
        }
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<int> source, Tensor target)
    {
        CheckCount(nameof(Upload), source.Length, target);
        Send(MemoryMarshal.AsBytes(source), target.At(DType.I32), copy: true);
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> target)
    {
        CheckCount(nameof(Download), target.Length, source);
        var (address, size) = (source.At(), source.Type.BlockBytes());
        Wait();
        for (var done = 0; done < target.Length;)
        {
            var part = target.Slice(done, Math.Min(target.Length - done, StagingBytes / size));
            var bytes = new ReadOnlySpan<byte>((void*)_staging.Value, part.Length * size);
            cuMemcpyDtoHAsync((void*)_staging.Value, address + (nint)((long)done * size), (nuint)bytes.Length, _stream.Value).Check(nameof(Download), (nuint)bytes.Length);
            cuStreamSynchronize(_stream.Value).Check(nameof(Download), (nuint)bytes.Length);
            if (source.Type == DType.I32)
                for (var i = 0; i < part.Length; i++)
                    part[i] = MemoryMarshal.Read<int>(bytes[(4 * i)..]);
            else if (source.Type == DType.U8)
                for (var i = 0; i < part.Length; i++)
                    part[i] = bytes[i];
            else
                Blocks.Dequantize(source.Type, bytes, part);
            done += part.Length;
        }
    }

    /// <inheritdoc/>
    public override void Copy(Tensor target, Tensor source)
    {
        Contract.Copy(target, source);
        Enter();
        if (source.Count > 0)
        {
            var bytes = (nuint)(source.Count * source.Type.BlockBytes());
            cuMemcpyDtoDAsync(target.At(), source.At(), bytes, _stream.Value).Check(nameof(Copy), bytes);
        }
    }

    /// <summary>Waits for all queued work.</summary>
    /// <exception cref="ArgumentException">A kernel met a row, slot or page that does not exist.</exception>
    public void Wait()
    {
        Enter();
        if (_capturing)
            throw new InvalidOperationException("a step that is being recorded cannot wait for the GPU");
        Status status;
        cuMemcpyDtoHAsync((void*)_staging.Value, _status.Pointer, (nuint)sizeof(Status), _stream.Value).Check("cuMemcpyDtoHAsync");
        // The copies under way read the staging memory from its start: the status lands there only after them, in the stream's order.
        cuStreamSynchronize(_stream.Value).Check(_lastOp);
        _staged = 0;
        status = *(Status*)_staging.Value;
        if (status.Code == 0)
            return;
        cuMemsetD8Async(_status.Pointer, 0, (nuint)sizeof(Status), _stream.Value).Check("cuMemsetD8Async");
        throw new ArgumentException(status.Message);
    }

    /// <summary>Memory, zeroed in the stream's order.</summary>
    internal CudaStorage Take(long bytes, string what, bool zeroed = true)
    {
        Enter();
        if (!_capturing)
            while (_forgotten.TryDequeue(out var forgotten))
                Free(forgotten);
        var size = (nuint)Math.Max(bytes, 1);
        var result = cuMemAllocAsync(out var pointer, size, _stream.Value);
        if (result == CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        {
            cuMemGetInfo(out var free, out var total).Check("cuMemGetInfo");
            throw new OutOfMemoryException($"the GPU has no room for {what}, {bytes} bytes: {free} of {total} are free");
        }
        result.Check($"cuMemAllocAsync of {bytes} bytes for {what}");
        if (zeroed)
            cuMemsetD8Async(pointer, 0, size, _stream.Value).Check("cuMemsetD8Async");
        var storage = new CudaStorage(this, pointer, bytes);
        lock (_storages)
            _storages.Add(pointer);
        return storage;
    }

    /// <summary>Has memory released at the next allocation; a finaliser may call it.</summary>
    internal void Forget(nint pointer) => _forgotten.Enqueue(pointer);

    /// <summary>Queues the release of memory.</summary>
    internal void Free(nint pointer)
    {
        lock (_storages)
            if (_disposed || !_storages.Remove(pointer))
                return;
        Enter();
        Generation++; // graphs may hold its address
        cuMemFreeAsync(pointer, _stream.Value).Check("cuMemFreeAsync");
    }

    /// <summary>Memory for the duration of one op, or of ops that follow each other; what was in it is lost.</summary>
    private nint Scratch(int slot, long bytes)
    {
        if (_scratch[slot] is not { } storage || storage.Bytes < bytes)
        {
            if (_capturing)
                throw new InvalidOperationException("a step that is being recorded needs more scratch memory than its first run did");
            _scratch[slot]?.Dispose();
            _scratch[slot] = null;
            _scratch[slot] = storage = Take(bytes, "scratch memory", zeroed: false);
        }
        return storage.Pointer;
    }

    /// <summary>Host memory that a copy to the device may read until the next wait.</summary>
    private Span<byte> Stage(int bytes)
    {
        Enter();
        if (_staged + bytes > StagingBytes)
        {
            cuStreamSynchronize(_stream.Value).Check("cuStreamSynchronize");
            _staged = 0;
        }
        var span = new Span<byte>((byte*)_staging.Value + _staged, bytes);
        _staged += (bytes + 63) / 64 * 64;
        return span;
    }

    /// <summary>Queues a copy of staged bytes, or of others that are staged first.</summary>
    private void Send(ReadOnlySpan<byte> bytes, nint target, bool copy = false)
    {
        while (bytes.Length > 0)
        {
            var part = bytes[..Math.Min(bytes.Length, StagingBytes)];
            if (copy)
            {
                var staged = Stage(part.Length);
                part.CopyTo(staged);
                part = staged;
            }
            if (_capturing)
                throw new InvalidOperationException("a step that is being recorded cannot upload");
            fixed (byte* p = part) // pinned memory, which no collection moves
                cuMemcpyHtoDAsync(target, p, (nuint)part.Length, _stream.Value).Check(nameof(Upload), (nuint)part.Length);
            target += part.Length;
            bytes = bytes[part.Length..];
        }
    }

    /// <summary>Makes the GPU's context the calling thread's.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Enter()
    {
        if (entered == _id)
            return;
        ObjectDisposedException.ThrowIf(_disposed, this);
        cuCtxSetCurrent(_context).Check("cuCtxSetCurrent");
        entered = _id;
    }

    /// <summary>Says that a library may have changed the calling thread's context.</summary>
    internal static void Leave() => entered = 0;

    private int Attribute(CUdevice_attribute attribute)
    {
        cuDeviceGetAttribute(out var value, attribute, _device).Check($"cuDeviceGetAttribute {attribute}");
        return value;
    }

    private static void CheckCount(string operation, int count, Tensor tensor)
    {
        if (count != tensor.Count)
            throw new ArgumentException($"{operation}: {count} values for {tensor.Describe()}");
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing || _disposed)
            return;
        Enter();
        _ = cuStreamSynchronize(_stream.Value); // whatever failed was said where it failed
        lock (_storages)
        {
            foreach (var pointer in _storages)
                _ = cuMemFreeAsync(pointer, _stream.Value);
            _storages.Clear();
            _disposed = true;
        }
        _graphs.Dispose();
        foreach (var module in _modules.Values)
            module.Dispose();
        foreach (var product in _products.Values)
            product.Dispose();
        _cublas?.Dispose();
        _staging.Dispose();
        _stream.Dispose();
        _ = cuDevicePrimaryCtxRelease(_device);
        entered = 0;
    }
}
