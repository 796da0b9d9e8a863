using System.Runtime.InteropServices;
using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Running;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Bench;

/// <summary>Linear layers of SmolLM2-135M and LLaMA-7B: a token alone (bandwidth) and a chunk of a prompt (arithmetic).</summary>
public unsafe class LinearBenchmarks : IDisposable, IWorkload
{
    private CpuDevice device = null!;
    private Weight weight = null!;
    private Tensor input, output;

    [Params(DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K, DType.Q6_K)]
    public DType Form { get; set; }

    [Params(Activations.Auto, Activations.F32)]
    public Activations Activations { get; set; }

    [Params("576x576", "1536x576", "576x1536", "49152x576", "4096x4096", "11008x4096", "4096x11008")]
    public string Shape { get; set; } = "";

    [Params(1, 8, 256)]
    public int Tokens { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        int[] shape = [.. Shape.Split('x').Select(int.Parse)];
        device = new CpuDevice(0, Activations);
        // Rows of super-blocks of 256 do not fit every shape: the nearest that does.
        var columns = shape[1] / Form.BlockSize() * Form.BlockSize();
        var bytes = (nuint)(shape[0] * Form.RowBytes(columns));
        var data = NativeMemory.AllocZeroed(bytes); // zeros take as long as any weight
        weight = device.Pack(new WeightData(Form, shape[0], columns, (nint)data));
        NativeMemory.Free(data);
        input = device.Allocate(DType.F32, Tokens, columns);
        output = device.Allocate(DType.F32, Tokens, shape[0]);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        weight.Dispose();
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Linear() => device.Linear(output, input, weight, default, Epilogue.None);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark)
    {
        var (form, tokens) = ((DType)benchmark.Parameters[nameof(Form)], (int)benchmark.Parameters[nameof(Tokens)]);
        int[] shape = [.. ((string)benchmark.Parameters[nameof(Shape)]).Split('x').Select(int.Parse)];
        var columns = shape[1] / form.BlockSize() * form.BlockSize();
        return new(
            (double)shape[0] * form.RowBytes(columns) + 4.0 * tokens * (columns + shape[0]),
            2.0 * tokens * shape[0] * columns, ((Activations)benchmark.Parameters[nameof(Activations)]).Arithmetic(form));
    }
}
