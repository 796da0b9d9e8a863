using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Running;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Bench;

/// <summary>What steering and capture cost inside the residual norm.</summary>
public class ResidualNormBenchmarks : IDisposable, IWorkload
{
    private const int Columns = 4096, Layers = 32;
    private readonly CpuDevice device = new();
    private Tensor x, delta, output;
    private NormWeights norm;
    private Junction plain, steered, captured;

    /// <summary>Tokens in the step.</summary>
    [Params(1, 16, 512)]
    public int Tokens { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        x = device.Allocate(DType.F32, Tokens, Columns);
        delta = device.Allocate(DType.F32, Tokens, Columns);
        output = device.Allocate(DType.F32, Tokens, Columns);
        norm = new NormWeights(device.Allocate(DType.F32, 1, Columns), default, 1e-5f, false);
        var none = device.Allocate(DType.I32, 1, Tokens);
        device.Upload(Enumerable.Repeat(-1, Tokens).ToArray(), none);
        var vectors = device.Allocate(DType.F32, Layers, Columns);
        plain = new Junction(7, Layers, none, device.Allocate(DType.F32, 1, Tokens), vectors, none, vectors);
        steered = plain with { SteerSlot = device.Allocate(DType.I32, 1, Tokens) };
        captured = steered with { CaptureSlot = LastOnly() };
    }

    [GlobalCleanup]
    public void Dispose()
    {
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark(Baseline = true)]
    public void Unsteered() => device.ResidualNorm(x, delta, output, norm, plain);

    [Benchmark]
    public void EveryTokenSteered() => device.ResidualNorm(x, delta, output, norm, steered);

    [Benchmark]
    public void EveryTokenSteeredLastCaptured() => device.ResidualNorm(x, delta, output, norm, captured);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark)
    {
        // x read and written, delta read, the norm written; a steered row adds and multiplies once more. One vector serves all rows.
        var elements = (double)Columns * (int)benchmark.Parameters[nameof(Tokens)];
        var steered = benchmark.Descriptor.WorkloadMethod.Name != nameof(Unsteered);
        return new(4 * (4 * elements + Columns), (steered ? 7 : 5) * elements);
    }

    private Tensor LastOnly()
    {
        var slots = Enumerable.Repeat(-1, Tokens).ToArray();
        slots[^1] = 0;
        var tensor = device.Allocate(DType.I32, 1, Tokens);
        device.Upload(slots, tensor);
        return tensor;
    }
}

/// <summary>Attention of a decoder: a prompt's chunk, and single tokens of several sequences.</summary>
public class AttendPagedBenchmarks : IDisposable, IWorkload
{
    private const int PageSize = 16;
    private readonly CpuDevice device = new();
    private Tensor output, qkv;
    private KvLayer cache;
    private TokenMap tokens;
    private Heads heads;

    /// <summary>Query heads, key heads and dimension: LLaVA-1.5 7B, Llama-3 8B, SmolLM2 135M.</summary>
    [Params("32/32/128", "32/8/128", "9/3/64")]
    public string Form { get; set; } = "";

    /// <summary>Tokens of one sequence that ends at the context's end, or one token of each of several sequences.</summary>
    [Params("prefill 512", "decode 1", "decode 8")]
    public string Step { get; set; } = "";

    /// <summary>Positions of a sequence, the step's included.</summary>
    [Params(512, 2048)]
    public int Context { get; set; }

    /// <summary>Form of keys and values.</summary>
    [Params(DType.F32, DType.BF16, DType.U8)]
    public DType Cache { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        var form = Form.Split('/').Select(int.Parse).ToArray();
        heads = new Heads(form[0], form[1], form[2], 1 / MathF.Sqrt(form[2]));
        var count = int.Parse(Step.Split(' ')[1]);
        var sequences = Step.StartsWith("decode", StringComparison.Ordinal) ? count : 1;
        var pages = Enumerable.Range(0, sequences * Context / PageSize).ToArray();
        new Random(1).Shuffle(pages);
        int rows = pages.Length * PageSize, width = heads.KeyValue * heads.Dimension;
        cache = new KvLayer(Noise(rows, width, Cache), Noise(rows, width, Cache), PageSize, Cache == DType.U8 ? Noise(rows, 2 * heads.KeyValue) : default);
        qkv = Noise(count, heads.Columns);
        output = device.Allocate(DType.F32, count, heads.Query * heads.Dimension);
        tokens = new TokenMap(
            Integers(1, [.. Enumerable.Range(0, count).Select(t => sequences == 1 ? 0 : t)]),
            Integers(1, [.. Enumerable.Range(0, count).Select(t => sequences == 1 ? Context - count + t : Context - 1)]),
            default, Integers(sequences, pages));
    }

    [GlobalCleanup]
    public void Dispose()
    {
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void AttendPaged() => device.AttendPaged(output, qkv, cache, tokens, heads, 0);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark)
    {
        int[] form = [.. ((string)benchmark.Parameters[nameof(Form)]).Split('/').Select(int.Parse)];
        var step = ((string)benchmark.Parameters[nameof(Step)]).Split(' ');
        double count = int.Parse(step[1]), context = (int)benchmark.Parameters[nameof(Context)];
        // Positions that the step's tokens see, together; and those that are in the cache.
        var (seen, held) = step[0] == "decode" ? (count * context, count * context) : (count * (context - (count - 1) / 2), context);
        var type = (DType)benchmark.Parameters[nameof(Cache)];
        var position = 2.0 * form[1] * (form[2] * type.BlockBytes() + (type == DType.U8 ? sizeof(float) : 0));
        return new(held * position + 4 * 2 * count * form[0] * form[2], 4 * seen * form[0] * form[2]);
    }

    private Tensor Integers(int rows, int[] values)
    {
        var tensor = device.Allocate(DType.I32, rows, values.Length / rows);
        device.Upload(values, tensor);
        return tensor;
    }

    private Tensor Noise(int rows, int columns, DType type = DType.F32)
    {
        var random = new Random(2);
        var tensor = device.Allocate(type, rows, columns);
        device.Upload(Enumerable.Range(0, rows * columns).Select(_ => type == DType.U8 ? random.Next(1, 256) : random.NextSingle() - 0.5f).ToArray(), tensor);
        return tensor;
    }
}

/// <summary>Attention of CLIP ViT-L/14 at 336 pixels: 577 rows, 16 heads of 64.</summary>
public class AttendFullBenchmarks : IDisposable, IWorkload
{
    private readonly CpuDevice device = new();
    private readonly Heads heads = new(16, 16, 64, 0.125f);
    private Tensor output, qkv;

    /// <summary>Images in the batch.</summary>
    [Params(1, 4)]
    public int Images { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        qkv = device.Allocate(DType.F32, 577 * Images, heads.Columns);
        output = device.Allocate(DType.F32, 577 * Images, 1024);
        var random = new Random(3);
        device.Upload(Enumerable.Range(0, (int)qkv.Count).Select(_ => random.NextSingle() - 0.5f).ToArray(), qkv);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void AttendFull() => device.AttendFull(output, qkv, 577, heads);

    /// <inheritdoc/>
    public static Workload Of(BenchmarkCase benchmark)
    {
        double images = (int)benchmark.Parameters[nameof(Images)];
        return new(4 * images * 577 * 4 * 1024, images * 4 * 577 * 577 * 1024);
    }
}

/// <summary>What it costs to hand an op to the workers: the threads of the machine, no work.</summary>
public class WorkerPoolBenchmarks : IDisposable
{
    private readonly WorkerPool pool = new(0);

    private readonly struct Nothing : IWork
    {
        public void Run(int first, int end, int worker)
        {
        }
    }

    [GlobalCleanup]
    public void Dispose()
    {
        pool.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Run() => pool.Run(pool.Threads, new Nothing());

    [Benchmark]
    public void Share() => pool.Share(2 * pool.Threads, new Nothing());
}
