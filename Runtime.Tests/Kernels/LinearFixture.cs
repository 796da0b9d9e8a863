using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Tests.Cuda;

namespace Trimtab.Tests.Kernels;

/// <summary>A device, a weight of random parts on it and the same weight as floats.</summary>
internal sealed unsafe class LinearFixture : IDisposable
{
    public static readonly DType[] Forms = [DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K, DType.Q6_K, DType.F8E4M3, DType.I4G32, DType.I4G64, DType.I4G128];

    public readonly Device Device;
    public readonly Weight Weight;
    private readonly bool _isShared;
    public readonly float[] Values;
    public readonly int Columns;

    public LinearFixture(int columns, (DType Type, int Rows)[] parts, int threads = 1, string lanes = "", int seed = 1, bool shuffle = false,
        Activations activations = Activations.F32, byte? fill = null)
    {
        var random = new Random(seed);
        Columns = columns;
        // Kernels of a CUDA device are compiled once for all tests: it is shared, and summing in one order for any batch or in the fastest ones.
        _isShared = lanes.StartsWith("CUDA", StringComparison.Ordinal);
        Device = _isShared ? EmulatedCuda.Get(batchInvariant: lanes == "CUDA exact", blocking: true) : new CpuDevice(threads, Kernels(lanes), activations);
        foreach (var (type, _) in parts)
            if (!Device.Computes(type, columns))
                Assert.Ignore($"{Device.Name} does not compute {type}");
        var data = new List<WeightData>();
        var values = new List<float>();
        foreach (var (type, rows) in parts)
        {
            var bytes = BlocksData.Random(type, rows, columns, random, fill);
            var memory = (byte*)System.Runtime.InteropServices.NativeMemory.Alloc((nuint)bytes.Length);
            bytes.CopyTo(new Span<byte>(memory, bytes.Length));
            var order = shuffle ? Enumerable.Range(0, rows).OrderBy(_ => random.Next()).ToArray() : null;
            float[]? scales = type == DType.F8E4M3 ? Floats(rows, seed) : null;
            data.Add(new WeightData(type, rows, columns, (nint)memory, order, scales));
            var part = new float[rows * columns];
            Blocks.Dequantize(type, bytes, part);
            for (var r = 0; r < rows; r++)
                foreach (var value in part.AsSpan((order?[r] ?? r) * columns, columns))
                    values.Add(value * data[^1].ScaleOf(order?[r] ?? r));
        }
        Values = [.. values];
        Weight = Device.Pack([.. data]);
        foreach (var part in data) // packing is done with it: nothing may read it again
            System.Runtime.InteropServices.NativeMemory.Free((void*)part.Data);
    }

    public static LinearKernels Kernels(string lanes)
    {
        switch (lanes)
        {
            case "emitted" when EmittedDot.Instance is { } emitted: return new LinearKernels<Lanes512>(emitted);
            case "AVX-512" when Lanes512.IsSupported: return new LinearKernels<Lanes512>();
            case "AVX2" when Lanes256.IsSupported: return new LinearKernels<Lanes256>();
            case "portable": return new LinearKernels<Lanes128>();
            case "": return LinearKernels.Best();
        }
        Assert.Ignore($"this machine has no {lanes}");
        throw new InvalidOperationException();
    }

    /// <summary>A tensor of the values with NaN before and after it in memory.</summary>
    public Tensor Tensor(int rows, int columns, ReadOnlySpan<float> values)
    {
        var tensor = Poisoned(rows, columns);
        Device.Upload(values, tensor);
        return tensor;
    }

    /// <summary>A tensor full of NaN, with more of it before and after.</summary>
    public Tensor Poisoned(int rows, int columns)
    {
        var guarded = Device.Allocate(DType.F32, 1, rows * columns + 2 * 37);
        Device.Upload(Enumerable.Repeat(float.NaN, rows * columns + 2 * 37).ToArray(), guarded);
        return guarded with { Offset = 37, Rows = rows, Columns = columns };
    }

    /// <summary>The values, after a look at what surrounds them.</summary>
    public float[] Read(Tensor tensor)
    {
        var all = new float[tensor.Count + 2 * 37];
        Device.Download(tensor with { Offset = 0, Rows = 1, Columns = all.Length }, all);
        Assert.That(all[..37].Concat(all[^37..]).All(float.IsNaN), "written outside the output");
        return all[37..^37];
    }

    public float[] Linear(float[] input, float[]? bias, Epilogue epilogue)
    {
        var tokens = input.Length / Columns;
        var gated = epilogue.IsGated();
        var output = Poisoned(tokens, gated ? Weight.Rows / 2 : Weight.Rows);
        Device.Linear(output, Tensor(tokens, Columns, input), Weight, bias is null ? default : Tensor(1, Weight.Rows, bias), epilogue);
        return Read(output);
    }

    public static float[] Floats(int count, int seed, float range = 2)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() - 0.5f) * range)];
    }

    public void Dispose()
    {
        Weight.Dispose();
        if (!_isShared)
            Device.Dispose();
    }
}
