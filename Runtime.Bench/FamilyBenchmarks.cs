using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Running;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Bench;

/// <summary>A layer's mixture in the sizes of Qwen3-30B-A3B, with 32 of its 128 experts: 2048 wide, experts of 768, 8 a token.</summary>
public class ExpertsBenchmarks : IDisposable, IWorkload
{
    private const int Width = 2048, Inner = 768, Count = 32, Used = 8;
    private readonly CpuDevice device = new();
    private Tensor input, output, scores;
    private ExpertWeights experts;

    /// <summary>Tokens in the step.</summary>
    [Params(1, 8, 512)]
    public int Tokens { get; set; }

    [GlobalSetup]
    public unsafe void Setup()
    {
        var random = new Random(1);
        Weight Packed(int rows, int columns)
        {
            var bytes = new byte[DType.Q8_0.RowBytes(columns) * rows];
            Blocks.Quantize(DType.Q8_0, Noise(rows * columns), bytes);
            fixed (byte* data = bytes)
                return device.Pack(new WeightData(DType.Q8_0, rows, columns, (nint)data));
        }
        float[] Noise(int count) => [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];
        Tensor Filled(int columns)
        {
            var tensor = device.Allocate(DType.F32, Tokens, columns);
            device.Upload(Noise(Tokens * columns), tensor);
            return tensor;
        }
        (input, output, scores) = (Filled(Width), Filled(Width), Filled(Count));
        experts = new([.. Enumerable.Range(0, Count).Select(_ => Packed(2 * Inner, Width))], [.. Enumerable.Range(0, Count).Select(_ => Packed(Width, Inner))],
            Used, true, Epilogue.SiluGate);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Experts() => device.Experts(output, input, scores, experts);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark)
    {
        double tokens = (int)benchmark.Parameters[nameof(Tokens)];
        // Experts that some token uses, were they drawn evenly.
        var touched = Count * (1 - Math.Pow(1 - (double)Used / Count, tokens));
        var bytes = DType.Q8_0.RowBytes(Width) * 2 * Inner + DType.Q8_0.RowBytes(Inner) * Width;
        return new(touched * bytes + 8 * tokens * Width, tokens * Used * 2.0 * 3 * Width * Inner);
    }
}

/// <summary>Gemma 3's pooling: 4096 patches 1152 wide to 256 rows.</summary>
public class BlendRowsBenchmarks : IDisposable, IWorkload
{
    private const int Rows = 256, Terms = 16, Width = 1152;
    private readonly CpuDevice device = new();
    private Tensor input, output, rows, weights;

    [GlobalSetup]
    public void Setup()
    {
        input = device.Allocate(DType.F32, Rows * Terms, Width);
        output = device.Allocate(DType.F32, Rows, Width);
        rows = device.Allocate(DType.I32, Terms, Rows);
        weights = device.Allocate(DType.F32, Terms, Rows);
        device.Upload([.. Enumerable.Range(0, Rows * Terms)], rows);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void BlendRows() => device.BlendRows(output, input, rows, weights);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark) => new(4.0 * Rows * (Terms + 1) * Width, 2.0 * Rows * Terms * Width);
}
