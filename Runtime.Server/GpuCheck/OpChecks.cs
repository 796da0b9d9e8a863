using Trimtab.Kernels;

namespace Trimtab.Server.GpuCheck;

/// <summary>An op at one shape, run on any device, and how far a GPU's outputs may be from the double reference's.</summary>
/// <param name="Op">The op.</param>
/// <param name="Shape">Its shape, for people.</param>
/// <param name="Tolerance">Most difference, relative to magnitudes above 1.</param>
/// <param name="Run">Computes all outputs.</param>
internal sealed record OpCheck(string Op, string Shape, double Tolerance, Func<Device, float[][]> Run)
{
    /// <summary>The largest difference; infinite where an output is not a number.</summary>
    public double Difference(Device device, Device reference)
    {
        var (actual, expected) = (Run(device), Run(reference));
        var worst = 0.0;
        for (var i = 0; i < expected.Length; i++)
            for (var j = 0; j < expected[i].Length; j++)
                if (!actual[i][j].Equals(expected[i][j]))
                {
                    var difference = Math.Abs(actual[i][j] - (double)expected[i][j]) / Math.Max(1, Math.Abs(expected[i][j]));
                    if (!(difference <= worst))
                        worst = double.IsNaN(difference) ? double.PositiveInfinity : difference;
                }
        return worst;
    }
}

/// <summary>Every op of the waist at small and odd shapes, and the matrices of a 7B model.</summary>
internal static class OpChecks
{
    private const double BFloat16 = 1 / 250.0, Floats = 1e-4;

    /// <summary>The checks of a device with these activations.</summary>
    /// <param name="activations">BF16 or F32.</param>
    /// <param name="large">Whether matrices of a 7B model are among them.</param>
    public static IEnumerable<OpCheck> All(DType activations, bool large)
    {
        var rounded = activations == DType.BF16;
        var tolerance = rounded ? BFloat16 : Floats;
        foreach (var type in new[] { DType.BF16, DType.F16, DType.F32, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K, DType.I4G128 })
            foreach (var (rows, columns, tokens) in new[] { (66, 256, 1), (66, 512, 4), (66, 256, 8), (66, 512, 33), (130, 768, 131) })
                yield return Linear(type, rows, columns, tokens, Epilogue.None, rounded, tolerance);
        foreach (var epilogue in Enum.GetValues<Epilogue>())
            foreach (var tokens in new[] { 3, 40 })
                yield return Linear(DType.BF16, 64, 136, tokens, epilogue, rounded, tolerance);
        if (large)
            foreach (var (rows, columns) in new[] { (12288, 4096), (4096, 11008) })
                foreach (var tokens in new[] { 1, 8, 64, 512 })
                    yield return Linear(DType.BF16, rows, columns, tokens, Epilogue.None, rounded, tolerance);
        yield return Norm(257, false, tolerance);
        yield return Norm(large ? 4096 : 64, true, tolerance);
        yield return Steered(257, tolerance);
        if (large)
            yield return Steered(4096, tolerance);
        yield return RopeStore(64, tolerance);
        yield return RopeStore(128, tolerance);
        foreach (var dimension in new[] { 64, 128 })
            foreach (var tokens in new[] { 1, 16, 75 })
            {
                yield return Attend(tokens, dimension, 0, DType.BF16, 1.5 * tolerance);
                yield return Attend(tokens, dimension, 24, DType.U8, 1.5 * tolerance);
                yield return Attend(tokens, dimension, 0, DType.F8E4M3, 1.5 * tolerance);
            }
        yield return AttendFull(40, 64, 1.5 * tolerance);
        yield return Rows(tolerance);
        yield return Patches(2 * tolerance); // rounded before positions are added, and after
    }

    private static OpCheck Linear(DType type, int rows, int columns, int tokens, Epilogue epilogue, bool rounded, double tolerance)
        => new(nameof(Device.Linear), $"{type} [{rows}, {columns}] of {tokens}, {epilogue}", tolerance, device =>
        {
            var gated = epilogue.IsGated();
            var outputs = gated ? rows / 2 : rows;
            var (form, bytes) = (type, Weights(type, rows, columns));
            // Tensor cores see weights of other forms rounded to bfloat16; up to eight tokens nothing rounds them.
            if (device is Trimtab.Kernels.Reference.ReferenceDevice && rounded && tokens > 8 && type != DType.BF16)
            {
                var values = new float[rows * columns];
                Blocks.Dequantize(type, bytes, values);
                (form, bytes) = (DType.BF16, new byte[2 * values.Length]);
                Blocks.Quantize(DType.BF16, values, bytes);
            }
            using var memory = new Memory(device);
            using var weight = Pack(device, form, bytes, rows, columns);
            var output = memory.Put(device.ActivationType, new float[tokens * outputs], outputs);
            device.Linear(output, memory.Put(device.ActivationType, Noise(tokens * columns, columns, 1 / MathF.Sqrt(columns)), columns), weight, memory.Put(DType.F32, Noise(rows, 7), rows), epilogue);
            return [memory.Get(output)];
        });

    private static OpCheck Norm(int columns, bool centred, double tolerance) => new(nameof(Device.Norm), $"[5, {columns}]{(centred ? ", centred" : "")}", tolerance, device =>
    {
        using var memory = new Memory(device);
        var x = memory.Put(device.ActivationType, Noise(5 * columns, 1), columns);
        device.Norm(x, x, new(memory.Put(DType.F32, Noise(columns, 2), columns), centred ? memory.Put(DType.F32, Noise(columns, 3), columns) : default, 1e-5f, centred));
        return [memory.Get(x)];
    });

    /// <summary>Tokens with different vectors, without any, captured and observed, in one launch.</summary>
    private static OpCheck Steered(int columns, double tolerance) => new(nameof(Device.ResidualNorm), $"[5, {columns}], steered, captured, observed", tolerance, device =>
    {
        const int Tokens = 5, Layers = 3;
        using var memory = new Memory(device);
        Tensor x = memory.Put(device.ActivationType, Noise(Tokens * columns, 1), columns), output = memory.Put(device.ActivationType, new float[Tokens * columns], columns);
        Tensor captures = memory.Put(DType.F32, new float[2 * Layers * columns], columns), products = memory.Put(DType.F32, new float[4 * Layers], 2 * Layers);
        device.ResidualNorm(x, memory.Put(device.ActivationType, Noise(Tokens * columns, 2), columns), output, new(memory.Put(DType.F32, Noise(columns, 5), columns), default, 1e-5f, false), new(
            2, Layers, memory.Integers(0, -1, 1, -1, 0), memory.Put(DType.F32, [1, 9, -2, 9, 0.5f], Tokens), memory.Put(DType.F32, Noise(2 * Layers * columns, 3), columns),
            memory.Integers(-1, 0, 1, -1, -1), captures, memory.Integers(0, -1, 1, -1, -1), products));
        return [memory.Get(x), memory.Get(output), memory.Get(captures), memory.Get(products)];
    });

    private static OpCheck RopeStore(int dimension, double tolerance) => new(nameof(Device.RopeStore), $"3 tokens, 4 heads of {dimension}", tolerance, device =>
    {
        var heads = new Heads(4, 2, dimension, 1);
        using var memory = new Memory(device);
        var qkv = memory.Put(device.ActivationType, Noise(3 * heads.Columns, 1), heads.Columns);
        var cache = new KvLayer(memory.Put(device.ActivationType, new float[16 * dimension], 2 * dimension), memory.Put(device.ActivationType, new float[16 * dimension], 2 * dimension), 4);
        device.RopeStore(qkv, memory.Put(DType.F32, Noise(3 * dimension, 2), dimension), cache, new(default, default, memory.Integers(7, 0, 2), default), heads);
        return [memory.Get(qkv), memory.Get(cache.Keys), memory.Get(cache.Values)];
    });

    /// <summary>Pages out of order, and noise where no page is.</summary>
    private static OpCheck Attend(int tokens, int dimension, int window, DType stored, double tolerance)
        => new(nameof(Device.AttendPaged), $"{tokens} tokens at 300, heads of {dimension}, {stored}{(window > 0 ? $", window {window}" : "")}", tolerance, device =>
        {
            const int Before = 300, Positions = 384;
            var heads = new Heads(4, 2, dimension, 1 / MathF.Sqrt(dimension));
            var width = 2 * dimension;
            using var memory = new Memory(device);
            float[] keys = Noise(Positions * width, 2), values = Noise(Positions * width, 3);
            if (stored == DType.U8)
                (keys, values) = (Array.ConvertAll(keys, v => MathF.Round(128 + 60 * v)), Array.ConvertAll(values, v => MathF.Round(128 + 60 * v)));
            else if (stored == DType.F8E4M3)
                (keys, values) = (Fp8(keys), Fp8(values));
            var scaled = stored is DType.U8 or DType.F8E4M3;
            var type = scaled ? stored : device.ActivationType;
            var cache = new KvLayer(memory.Put(type, keys, width), memory.Put(type, values, width), 16, scaled ? memory.Put(DType.F32, Noise(Positions * 4, 4, 0.01f), 4) : default);
            var output = memory.Put(device.ActivationType, new float[tokens * 4 * dimension], 4 * dimension);
            device.AttendPaged(output, memory.Put(device.ActivationType, Noise(tokens * heads.Columns, 1), heads.Columns), cache, new(
                memory.Integers(new int[tokens]), memory.Integers([.. Enumerable.Range(Before, tokens)]), default, memory.Integers([.. Enumerable.Range(0, 24).Reverse()])), heads, window);
            return [memory.Get(output)];
        });

    /// <summary>Numbers of up to 448 that E4M3 holds.</summary>
    private static float[] Fp8(float[] noise)
    {
        var bytes = new byte[noise.Length];
        Blocks.Quantize(DType.F8E4M3, Array.ConvertAll(noise, v => 200 * v), bytes);
        Blocks.Dequantize(DType.F8E4M3, bytes, noise);
        return noise;
    }

    private static OpCheck AttendFull(int tokens, int dimension, double tolerance) => new(nameof(Device.AttendFull), $"2 images of {tokens}, heads of {dimension}", tolerance, device =>
    {
        var heads = new Heads(4, 4, dimension, 1 / MathF.Sqrt(dimension));
        using var memory = new Memory(device);
        var output = memory.Put(device.ActivationType, new float[2 * tokens * 4 * dimension], 4 * dimension);
        device.AttendFull(output, memory.Put(device.ActivationType, Noise(2 * tokens * heads.Columns, 1), heads.Columns), tokens, heads);
        return [memory.Get(output)];
    });

    private static OpCheck Rows(double tolerance) => new($"{nameof(Device.Embed)}, {nameof(Device.TakeRows)}", "4 tokens of 96", tolerance, device =>
    {
        using var memory = new Memory(device);
        using var table = Pack(device, DType.Q8_0, Weights(DType.Q8_0, 9, 96), 9, 96);
        Tensor output = memory.Put(device.ActivationType, new float[4 * 96], 96), taken = memory.Put(device.ActivationType, new float[2 * 96], 96);
        device.Embed(output, table, memory.Put(device.ActivationType, Noise(3 * 96, 4), 96), memory.Integers(8, -1, 0, -3));
        device.TakeRows(taken, output, memory.Integers(3, 0));
        return [memory.Get(output), memory.Get(taken)];
    });

    private static OpCheck Patches(double tolerance) => new(nameof(Device.Patches), "2 images of 28 pixels, patches of 14", tolerance, device =>
    {
        const int Size = 28, Patch = 14, Width = 40, Columns = 3 * Patch * Patch, Length = 5;
        using var memory = new Memory(device);
        using var projection = Pack(device, DType.BF16, Weights(DType.BF16, Width, Columns), Width, Columns);
        var output = memory.Put(device.ActivationType, new float[2 * Length * Width], Width);
        device.Patches(output, memory.Put(DType.F32, Noise(2 * 3 * Size * Size, 1, 0.05f), 3 * Size * Size), new(
            projection, memory.Put(DType.F32, Noise(Width, 2), Width), memory.Put(DType.F32, Noise(Width, 3), Width), memory.Put(DType.F32, Noise(Length * Width, 4), Width), Size, Patch));
        return [memory.Get(output)];
    });

    /// <summary>Numbers that bfloat16 holds, so that every device sees the same.</summary>
    public static float[] Noise(int count, int seed, float size = 1)
    {
        var random = new Random(seed);
        var values = new float[count];
        for (var i = 0; i < count; i++)
            values[i] = size * (2 * random.NextSingle() - 1);
        var bytes = new byte[2 * count];
        Blocks.Quantize(DType.BF16, values, bytes);
        Blocks.Dequantize(DType.BF16, bytes, values);
        return values;
    }

    /// <summary>Weights in a form, as a checkpoint stores them.</summary>
    public static byte[] Weights(DType type, int rows, int columns)
    {
        var bytes = new byte[rows * type.RowBytes(columns)];
        if (type is not (DType.Q4_K or DType.I4G128))
        {
            Blocks.Quantize(type, Noise(rows * columns, rows), bytes);
            return bytes;
        }
        // Any bytes are six-bit scales and nibbles; the two halves before them scale those, or are a group's scale and zero point.
        new Random(rows).NextBytes(bytes);
        for (var i = 0; i < bytes.Length; i += type.BlockBytes())
            for (var half = 0; half < 2; half++)
                BitConverter.TryWriteBytes(bytes.AsSpan(i + 2 * half), (Half)(half == 0 ? 0.004f : type == DType.Q4_K ? 0.03f : 8));
        return bytes;
    }

    public static unsafe Weight Pack(Device device, DType type, byte[] bytes, int rows, int columns)
    {
        fixed (byte* p = bytes)
            return device.Pack(new WeightData(type, rows, columns, (nint)p));
    }

    /// <summary>Tensors of one check, given back at its end.</summary>
    internal sealed class Memory(Device device) : IDisposable
    {
        private readonly List<Tensor> _tensors = [];

        public Tensor Put(DType type, float[] values, int columns)
        {
            var tensor = device.Allocate(type, values.Length / columns, columns);
            _tensors.Add(tensor);
            device.Upload(values, tensor);
            return tensor;
        }

        public Tensor Integers(params int[] values)
        {
            var tensor = device.Allocate(DType.I32, 1, values.Length);
            _tensors.Add(tensor);
            device.Upload(values, tensor);
            return tensor;
        }

        public float[] Get(Tensor tensor)
        {
            var values = new float[tensor.Count];
            device.Download(tensor, values);
            return values;
        }

        public void Dispose() => _tensors.ForEach(tensor => tensor.Storage!.Dispose());
    }
}
