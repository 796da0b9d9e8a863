using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Tests.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Cuda;

/// <summary>
/// The ops with bfloat16 activations, as a GPU runs them: inputs are of that type, so the oracle sees the same numbers; an output is
/// rounded once, to 1 part in 256, and inside sums are floats.
/// </summary>
public class BFloat16Tests
{
    private const double Rounding = 1 / 250.0;

    private static DType[] Forms => [.. CudaForms.All, DType.I4G32, DType.I4G64];

    private static Device Gpu => EmulatedCuda.Get(DType.BF16, blocking: true);

    private static Device GpuWithCublas => EmulatedCuda.Get(DType.BF16, blocking: true, cublas: true);

    private static float[] Rounded(float[] values)
    {
        var bytes = new byte[2 * values.Length];
        var result = new float[values.Length];
        Blocks.Quantize(DType.BF16, values, bytes);
        Blocks.Dequantize(DType.BF16, bytes, result);
        return result;
    }

    private static unsafe Weight Pack(Device device, DType type, byte[] bytes, int rows, int columns)
    {
        fixed (byte* p = bytes)
            return device.Pack(new WeightData(type, rows, columns, (nint)p));
    }

    private static float[] Linear(Device device, DType type, byte[] bytes, int rows, int columns, float[] input, float[]? bias, Epilogue epilogue)
    {
        using var weight = Pack(device, type, bytes, rows, columns);
        var outputs = epilogue.IsGated() ? rows / 2 : rows;
        var output = device.Activations(new float[input.Length / columns * outputs], outputs);
        device.Linear(output, device.Activations(input, columns), weight, bias is null ? default : device.Floats(bias, rows), epilogue);
        return device.Get(output);
    }

    private static byte[] AsBFloat16(DType type, byte[] bytes, int count)
    {
        var values = new float[count];
        Blocks.Dequantize(type, bytes, values);
        var result = new byte[2 * count];
        Blocks.Quantize(DType.BF16, values, result);
        return result;
    }

    /// <summary>
    /// Every way through: a warp a row up to 8 tokens, from then on tensor cores, with tiles of each size cut off at every edge, columns
    /// shared among blocks and not; and cuBLASLt.
    /// </summary>
    [Test]
    public void Linear_is_the_oracles([ValueSource(nameof(Forms))] DType type)
    {
        int[] widths = type.BlockSize() switch { 1 => [1, 9, 64, 136, 777], 32 => [32, 96, 544], 64 => [64, 576], 128 => [128, 384], _ => [256, 512] };
        foreach (var columns in widths)
            foreach (var (rows, tokens) in new[] { (1, 1), (18, 3), (66, 8), (34, 9), (1, 17), (66, 33), (130, 70), (258, 131) })
                foreach (var epilogue in rows % 2 == 0 ? new[] { Epilogue.None, Epilogue.SiluGate } : [Epilogue.Gelu])
                {
                    var bytes = BlocksData.Random(type, rows, columns, new Random(columns + rows));
                    var input = Rounded(Noise(tokens * columns, columns));
                    var bias = tokens % 2 == 0 ? null : Noise(rows, 7);
                    // Tensor cores see weights of other forms rounded to bfloat16.
                    var expected = tokens > 8 && type != DType.BF16
                        ? Linear(Oracle, DType.BF16, AsBFloat16(type, bytes, rows * columns), rows, columns, input, bias, epilogue)
                        : Linear(Oracle, type, bytes, rows, columns, input, bias, epilogue);
                    foreach (var device in tokens > 8 ? new[] { Gpu, GpuWithCublas } : [Gpu])
                        Close(Linear(device, type, bytes, rows, columns, input, bias, epilogue), expected, Rounding, $"{type} [{rows}, {columns}] of {tokens} tokens, {epilogue}, {(device == Gpu ? "own" : "cuBLASLt")}");
                }
    }

    [Test]
    public void Residual_norm_steers_before_it_rounds([Values(7, 64, 257)] int columns)
    {
        const int Tokens = 5, Layers = 3;
        float[] x = Rounded(Noise(Tokens * columns, 1, 2)), delta = Rounded(Noise(Tokens * columns, 2)), vectors = Noise(2 * Layers * columns, 3);
        (float[] X, float[] Output, float[] Captures, float[] Products) Run(Device device)
        {
            Tensor tx = device.Activations(x, columns), output = device.Activations(new float[x.Length], columns);
            Tensor captures = device.Floats(new float[2 * Layers * columns], columns), products = device.Floats(new float[4 * Layers], 2 * Layers);
            device.ResidualNorm(tx, device.Activations(delta, columns), output, new(device.Floats(Noise(columns, 5), columns), default, 1e-5f, false), new(
                2, Layers, device.Integers(0, -1, 1, -1, 0), device.Floats([1, 9, -2, 9, 0.5f], Tokens), device.Floats(vectors, columns),
                device.Integers(-1, 0, 1, -1, -1), captures, device.Integers(0, -1, 1, -1, -1), products));
            return (device.Get(tx), device.Get(output), device.Get(captures), device.Get(products));
        }
        var (actual, expected) = (Run(Gpu), Run(Oracle));
        Close(actual.X, expected.X, Rounding, "x");
        Close(actual.Output, expected.Output, Rounding, "output");
        // What is captured and multiplied has not been rounded.
        Close(actual.Captures, expected.Captures, 1e-6, "captures");
        Close(actual.Products, expected.Products, 1e-4, "products");
    }

    [Test]
    public void Attention_is_the_oracles([Values(1, 16, 40, 75)] int tokens, [Values(20, 64, 128)] int dimension, [Values(0, 24)] int window, [Values(DType.BF16, DType.U8, DType.F8E4M3)] DType type)
    {
        var heads = new Heads(4, 2, dimension, 1 / MathF.Sqrt(dimension));
        var width = 2 * dimension;
        const int Before = 300, Rows = 384;
        var qkv = Rounded(Noise(tokens * heads.Columns, 1));
        float[] keys = Rounded(Noise(Rows * width, 2)), values = Rounded(Noise(Rows * width, 3)), scales = Noise(Rows * 4, 4, 0.01f);
        if (type == DType.U8)
            (keys, values) = (Array.ConvertAll(keys, v => MathF.Round(128 + 60 * v)), Array.ConvertAll(values, v => MathF.Round(128 + 60 * v)));
        else if (type == DType.F8E4M3)
            (keys, values) = (BlocksData.Fp8(keys, 60), BlocksData.Fp8(values, 60));
        float[] Run(Device device)
        {
            var stored = type == DType.BF16 && device == Oracle ? DType.F64 : type;
            var cache = new KvLayer(device.Of(stored, keys, width), device.Of(stored, values, width), 16, type == DType.BF16 ? default : device.Floats(scales, 4));
            var output = device.Activations(new float[tokens * 4 * dimension], 4 * dimension);
            device.AttendPaged(output, device.Activations(qkv, heads.Columns), cache, new(
                device.Integers(new int[tokens]), device.Integers([.. Enumerable.Range(Before, tokens)]), default, device.Integers([.. Enumerable.Range(0, 24).Reverse()])), heads, window);
            return device.Get(output);
        }
        Close(Run(Gpu), Run(Oracle), 1.5 * Rounding, "paged"); // the weights of values are rounded too
        float[] Full(Device device)
        {
            var output = device.Activations(new float[tokens * 4 * dimension], 4 * dimension);
            device.AttendFull(output, device.Activations(qkv, heads.Columns), tokens, heads);
            return device.Get(output);
        }
        Close(Full(Gpu), Full(Oracle), 1.5 * Rounding, "full");
    }

    /// <summary>Capped scores, and stretches that tokens see all of, in tensor cores and in the few tokens' kernel.</summary>
    [Test]
    public void Capped_scores_and_stretches_are_the_oracles([Values(9, 75)] int tokens, [Values(64, 128, 256)] int dimension, [Values(0, 24)] int window)
    {
        const int Before = 300;
        var heads = new Heads(4, 2, dimension, 2 / MathF.Sqrt(dimension), 5);
        var width = 2 * dimension;
        float[] qkv = Rounded(Noise(tokens * heads.Columns, 1)), keys = Rounded(Noise(384 * width, 2)), values = Rounded(Noise(384 * width, 3));
        int[] first = [.. Enumerable.Range(Before, tokens).Select(p => p is >= 304 and < 370 ? 304 : p)], last = [.. Enumerable.Range(Before, tokens).Select(p => p is >= 304 and < 370 ? 369 : p)];
        float[] Run(Device device)
        {
            var output = device.Activations(new float[tokens * 4 * dimension], 4 * dimension);
            device.AttendPaged(output, device.Activations(qkv, heads.Columns), new(device.Activations(keys, width), device.Activations(values, width), 16), new(
                device.Integers(new int[tokens]), device.Integers([.. Enumerable.Range(Before, tokens)]), default, device.Integers([.. Enumerable.Range(0, 24).Reverse()]),
                device.Table([.. first, .. last], tokens)), heads, window);
            return device.Get(output);
        }
        Close(Run(Gpu), Run(Oracle), 1.5 * Rounding, "stretches");
    }

    /// <summary>Experts whose gates and values are of one form, and of two; few tokens, and tiles of many.</summary>
    [Test]
    public unsafe void Experts_are_the_oracles([Values(1, 5, 40)] int tokens, [Values(DType.BF16, DType.Q4_0, DType.I4G32)] DType gate, [Values(DType.BF16, DType.Q8_0)] DType up)
    {
        const int Count = 5, Width = 96, Inner = 64;
        // Tensor cores see weights as bfloat16: give them such.
        byte[] Weights(DType type, int rows, int columns, int seed)
        {
            var bytes = BlocksData.Random(type, rows, columns, new Random(seed));
            return tokens > 16 && type != DType.BF16 ? AsBFloat16(type, bytes, rows * columns) : bytes;
        }
        DType Form(DType type) => tokens > 16 ? DType.BF16 : type;
        float[] input = Rounded(Noise(tokens * Width, 1)), scores = Rounded(Noise(tokens * Count, 2, 3));
        float[] Run(Device device)
        {
            var (both, down) = (new Weight[Count], new Weight[Count]);
            for (var e = 0; e < Count; e++)
            {
                byte[] g = Weights(gate, Inner, Width, 10 + e), u = Weights(up, Inner, Width, 20 + e), d = Weights(DType.BF16, Width, Inner, 30 + e);
                var wide = e == 2 && tokens <= 16 ? AsBFloat16(gate, g, Inner * Width) : null; // one expert in another form than the others
                fixed (byte* pg = wide ?? g, pu = u, pd = d)
                {
                    both[e] = device.Pack(new(wide is null ? Form(gate) : DType.BF16, Inner, Width, (nint)pg), new(Form(up), Inner, Width, (nint)pu));
                    down[e] = device.Pack(new WeightData(DType.BF16, Width, Inner, (nint)pd));
                }
            }
            var output = device.Activations(new float[tokens * Width], Width);
            device.Experts(output, device.Activations(input, Width), device.Activations(scores, Count), new(both, down, 2, true, Epilogue.SiluGate));
            return device.Get(output);
        }
        float[] actual = Run(Gpu), expected = Run(Oracle);
        var size = expected.Max(Math.Abs);
        Close([.. actual.Select(v => v / size)], [.. expected.Select(v => v / size)], 4 * Rounding, "experts");
    }

    /// <summary>Tokens of several sequences side by side, decoding ones among chunks: every run of a tile walks over its own pages alone.</summary>
    [Test]
    public void Runs_of_sequences_share_a_tile_and_nothing_else([Values(0, 9)] int window)
    {
        var heads = new Heads(2, 1, 64, 0.125f);
        (int Before, int New)[] sequences = [(0, 5), (40, 1), (100, 1), (3, 70), (20, 1), (0, 12)];
        var (sequence, position, pages) = (new List<int>(), new List<int>(), new int[sequences.Length * 8]);
        for (var s = 0; s < sequences.Length; s++)
        {
            for (var page = 0; page < 8; page++)
                pages[s * 8 + page] = 16 * page < sequences[s].Before + sequences[s].New ? (s * 8 + page) * 5 % 48 : -3;
            for (var i = 0; i < sequences[s].New; i++)
            {
                sequence.Add(s);
                position.Add(sequences[s].Before + i);
            }
        }
        var held = pages.Where(p => p >= 0).ToHashSet();
        float[] Cache(int seed) => [.. Rounded(Noise(48 * 16 * 64, seed)).Select((v, i) => held.Contains(i / (16 * 64)) ? v : float.NaN)];
        float[] qkv = Rounded(Noise(sequence.Count * heads.Columns, 1)), keys = Cache(2), values = Cache(3);
        float[] Run(Device device)
        {
            var output = device.Activations(new float[sequence.Count * 128], 128);
            device.AttendPaged(output, device.Activations(qkv, heads.Columns), new(device.Activations(keys, 64), device.Activations(values, 64), 16),
                new(device.Integers([.. sequence]), device.Integers([.. position]), default, device.Table(pages, 8)), heads, window);
            return device.Get(output);
        }
        Close(Run(Gpu), Run(Oracle), 1.5 * Rounding, "runs"); // the weights of values are rounded too
    }

    [Test]
    public void Rotation_and_cache_are_the_oracles([Values(64, 20)] int dimension)
    {
        var heads = new Heads(4, 2, dimension, 1);
        var (qkv, rotary) = (Rounded(Noise(3 * heads.Columns, 1)), Noise(3 * dimension, 2));
        (float[], float[], float[]) Run(Device device)
        {
            var input = device.Activations(qkv, heads.Columns);
            var cache = new KvLayer(device.Activations(new float[8 * 2 * dimension], 2 * dimension), device.Activations(new float[8 * 2 * dimension], 2 * dimension), 4);
            device.RopeStore(input, device.Floats(rotary, dimension), cache, new(default, default, device.Integers(7, 0, 2), default), heads);
            return (device.Get(input), device.Get(cache.Keys), device.Get(cache.Values));
        }
        var (actual, expected) = (Run(Gpu), Run(Oracle));
        Close(actual.Item1, expected.Item1, Rounding, "qkv");
        Close(actual.Item2, expected.Item2, Rounding, "keys");
        Close(actual.Item3, expected.Item3, 0, "values");
    }
}
