namespace Trimtab.Kernels.Cpu;

/// <summary>
/// The processor, by SIMD kernels of the widest instruction set it has, and a pool of threads. Activations are F32. Calls return
/// when the work is done; one thread at a time may call. Nothing is allocated on the managed heap by an operation.
/// </summary>
public sealed unsafe partial class CpuDevice : Device
{
    private readonly LinearKernels _linear;
    private readonly CpuStorage _scratch;
    private readonly Activations _activations;
    private CpuStorage? _temporary, _rows, _pairs, _exports, _experts;

    /// <summary>Starts the device.</summary>
    /// <param name="threads">Threads that work, the caller's included; 0 for one a processor.</param>
    /// <param name="activations">How activations are multiplied with quantised weights.</param>
    public CpuDevice(int threads = 0, Activations activations = Activations.F32) : this(threads, LinearKernels.Best(), activations)
    {
    }

    internal CpuDevice(int threads, LinearKernels linear, Activations activations = Activations.F32)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(threads);
        _linear = linear;
        _activations = activations;
        Pool = new WorkerPool(threads > 0 ? threads : Environment.ProcessorCount);
        _scratch = new CpuStorage((long)Pool.Threads * LinearKernels.ScratchBytes);
    }

    /// <inheritdoc/>
    public override string Name => $"CPU, {_linear.Name}, {Pool.Threads} thread{(Pool.Threads == 1 ? "" : "s")}";

    /// <inheritdoc/>
    public override DType ActivationType => DType.F32;

    /// <inheritdoc/>
    public override Abilities Abilities => Abilities.All;

    /// <inheritdoc/>
    public override bool Caches(DType type) => type is DType.F32 or DType.BF16 or DType.U8;

    /// <summary>The threads.</summary>
    internal WorkerPool Pool { get; }

    private readonly struct SpreadWork(Action<int> work) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var i = first; i < end; i++)
                work(i);
        }
    }

    /// <inheritdoc/>
    public override void Spread(int items, Action<int> work)
    {
        ArgumentNullException.ThrowIfNull(work);
        Pool.Share(items, new SpreadWork(work));
    }

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, int columns)
    {
        if (rows < 0 || columns < 0)
            throw new ArgumentOutOfRangeException(nameof(rows), $"a tensor cannot be [{rows}, {columns}]");
        if (type.IsQuantized())
            throw new NotSupportedException($"{type} is a form of weights, not of tensors");
        return new Tensor(new CpuStorage(checked((long)rows * columns * type.BlockBytes())), type, 0, rows, columns);
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor target)
    {
        CheckCount(nameof(Upload), source.Length, target);
        if (target.Type == DType.F32)
            source.CopyTo(new Span<float>(target.At(), source.Length));
        else if (target.Type == DType.U8)
            for (var i = 0; i < source.Length; i++)
                target.At()[i] = (byte)source[i];
        else
            Blocks.Quantize(target.Type, source, Bytes(target));
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<int> source, Tensor target)
    {
        CheckCount(nameof(Upload), source.Length, target);
        source.CopyTo(new Span<int>(target.I32(), source.Length));
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> target)
    {
        CheckCount(nameof(Download), target.Length, source);
        if (source.Type == DType.F32)
            new ReadOnlySpan<float>(source.At(), target.Length).CopyTo(target);
        else if (source.Type == DType.I32)
            for (var i = 0; i < target.Length; i++)
                target[i] = source.I32()[i];
        else if (source.Type == DType.U8)
            for (var i = 0; i < target.Length; i++)
                target[i] = source.At()[i];
        else
            Blocks.Dequantize(source.Type, Bytes(source), target);
    }

    /// <inheritdoc/>
    public override void Copy(Tensor target, Tensor source)
    {
        Contract.Copy(target, source);
        Bytes(source).CopyTo(Bytes(target));
        Hold(target, source);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        Pool.Dispose();
        _scratch.Dispose();
        _temporary?.Dispose();
        _rows?.Dispose();
        _pairs?.Dispose();
        _exports?.Dispose();
        _experts?.Dispose();
    }

    /// <summary>Memory for the duration of one operation; what was in it is lost.</summary>
    private float* Temporary(long floats) => (float*)AtLeast(ref _temporary, checked(floats * sizeof(float)));

    private static byte* AtLeast(ref CpuStorage? storage, long bytes)
    {
        if (storage is null || storage.Bytes < bytes)
        {
            storage?.Dispose();
            storage = null;
            storage = new CpuStorage(bytes);
        }
        return storage.Pointer;
    }

    private static Span<byte> Bytes(Tensor tensor) => new(tensor.At(), checked((int)(tensor.Count * tensor.Type.BlockBytes())));

    private static void CheckCount(string operation, int count, Tensor tensor)
    {
        if (count != tensor.Count)
            throw new ArgumentException($"{operation}: {count} values for {tensor.Describe()}");
    }
}
