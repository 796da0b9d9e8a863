using System.Runtime.InteropServices;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Kernels.Reference;
using Trimtab.Tests.Cuda;

namespace Trimtab.Tests.Kernels;

/// <summary>Devices and tensors of the op tests: the same numbers on the CPU and on the oracle.</summary>
internal static class ReferenceDevicePair
{
    /// <summary>CPU devices by number of threads, 1 to 3; index 0 is the oracle.</summary>
    public static readonly Device[] Devices = [new ReferenceDevice(), new CpuDevice(1), new CpuDevice(2), new CpuDevice(3)];

    public static Device Oracle => Devices[0];

    /// <summary>
    /// Devices to test, the oracle first: "cpu", with 1 to 3 threads; "cuda", summing in one order for any batch, in the fastest ones, and by cuBLASLt.
    /// </summary>
    public static Device[] All(string kind) => kind == "cpu"
        ? Devices
        : [Oracle, EmulatedCuda.Get(batchInvariant: true, blocking: true), EmulatedCuda.Get(blocking: true), EmulatedCuda.Get(blocking: true, cublas: true)];

    /// <summary>Those of them that promise the same bits in any batch.</summary>
    public static Device[] Exact(string kind) => kind == "cpu" ? Devices[1..] : All(kind)[1..2];

    public static float[] Noise(int count, int seed, float size = 1)
    {
        var random = new Random(seed);
        var values = new float[count];
        for (var i = 0; i < count; i++)
            values[i] = size * (float)(2 * random.NextDouble() - 1 + 0.5 * Math.Sin(i));
        return values;
    }

    /// <summary>A tensor in the device's activation type.</summary>
    public static Tensor Activations(this Device device, float[] values, int columns) => Put(device, device.ActivationType, values, columns);

    public static Tensor Floats(this Device device, float[] values, int columns) => Put(device, DType.F32, values, columns);

    /// <summary>A tensor of any type that the device has; the values are of that type already.</summary>
    public static Tensor Of(this Device device, DType type, float[] values, int columns) => Put(device, type, values, columns);

    public static Tensor Integers(this Device device, params int[] values) => device.Table(values, values.Length);

    public static Tensor Table(this Device device, int[] values, int columns)
    {
        var tensor = device.Allocate(DType.I32, columns == 0 ? 0 : values.Length / columns, columns);
        device.Upload(values, tensor);
        return tensor;
    }

    public static float[] Get(this Device device, Tensor tensor)
    {
        var values = new float[tensor.Count];
        device.Download(tensor, values);
        return values;
    }

    public static float[] Rows(float[] values, int columns, params IEnumerable<int> rows) =>
        [.. rows.SelectMany(r => values[(r * columns)..((r + 1) * columns)])];

    /// <summary>Fails where a number is further from the oracle's than the tolerance, relative to 1 or to the number.</summary>
    public static void Close(float[] actual, float[] expected, double tolerance, string what)
    {
        Assert.That(actual, Has.Length.EqualTo(expected.Length), what);
        for (var i = 0; i < actual.Length; i++)
            if (!(Math.Abs(actual[i] - expected[i]) <= tolerance * Math.Max(1, Math.Abs(expected[i]))) && !actual[i].Equals(expected[i]))
                Assert.Fail($"{what}: element {i} is {actual[i]}, expected {expected[i]}");
    }

    public static void Same(float[] actual, float[] expected, string what) =>
        Assert.That(MemoryMarshal.Cast<float, int>(actual).SequenceEqual(MemoryMarshal.Cast<float, int>(expected)), what + ": not the same bits");

    private static Tensor Put(Device device, DType type, float[] values, int columns)
    {
        var tensor = device.Allocate(type, columns == 0 ? 0 : values.Length / columns, columns);
        device.Upload(values, tensor);
        return tensor;
    }
}
