using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class NormTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    private static readonly int[] Widths = [1, 7, 15, 16, 17, 64, 100, 257, 1030];

    private static NormWeights Weights(Device device, int columns, bool centered, int seed = 5) => new(
        device.Floats(Noise(columns, seed), columns), centered ? device.Floats(Noise(columns, seed + 1), columns) : default, 1e-5f, centered);

    [Test]
    public void Is_the_oracles_at_odd_sizes([Values] bool centered, [Values(1, 2, 3, 5, 7, 17, 33)] int tokens)
    {
        foreach (var columns in Widths)
        {
            var values = Noise(tokens * columns, columns, 3);
            var expected = Run(Oracle, values, columns, centered);
            foreach (var device in _devices[1..])
                Close(Run(device, values, columns, centered), expected, 3e-6, $"{device.Name} D {columns}");
        }
    }

    [Test]
    public void A_row_does_not_know_its_batch([Values] bool centered)
    {
        const int Columns = 4096 + 13, Tokens = 40;
        var values = Noise(Tokens * Columns, 1);
        var together = Run(_exact[0], values, Columns, centered);
        foreach (var device in _exact[1..])
            Same(Run(device, values, Columns, centered), together, device.Name);
        for (var t = 0; t < Tokens; t += 13)
            Same(Run(_exact[0], Rows(values, Columns, t), Columns, centered), Rows(together, Columns, t), $"row {t} alone");
    }

    [Test]
    public void Output_may_be_the_input()
    {
        foreach (var device in _devices)
        {
            var values = Noise(3 * 50, 2);
            var x = device.Activations(values, 50);
            device.Norm(x, x, Weights(device, 50, true));
            Close(device.Get(x), Run(device, values, 50, true), 0, device.Name);
        }
    }

    [Test]
    public void Large_means_and_large_rows_lose_no_digits()
    {
        var values = Noise(8192, 3);
        for (var i = 0; i < values.Length; i++)
            values[i] += 50;
        foreach (var device in _devices[1..])
            Close(Run(device, values, 8192, true), Run(Oracle, values, 8192, true), 2e-4, device.Name);
        values[77] = 20000;
        foreach (var device in _devices[1..])
            Close(Run(device, values, 8192, false), Run(Oracle, values, 8192, false), 2e-6, device.Name);
    }

    [Test]
    public void Misshapen_arguments_are_named()
    {
        foreach (var device in _devices)
        {
            var x = device.Activations(new float[12], 4);
            Assert.That(() => device.Norm(x, x, Weights(device, 5, false)),
                Throws.ArgumentException.With.Message.EqualTo("Norm: weight is F32 [1, 5]; expected F32 [1, 4]"));
            Assert.That(() => device.Norm(x.Slice(0, 2), x, Weights(device, 4, false)), Throws.ArgumentException.With.Message.Contains("output"));
            Assert.That(() => device.Norm(x, device.Integers(1, 2, 3, 4), Weights(device, 4, false)), Throws.ArgumentException.With.Message.Contains("input"));
            Assert.That(() => device.Norm(default, x, Weights(device, 4, false)), Throws.ArgumentException.With.Message.Contains("none"));
        }
    }

    private static float[] Run(Device device, float[] values, int columns, bool centered)
    {
        var x = device.Activations(values, columns);
        var output = device.Activations(new float[values.Length], columns);
        device.Norm(output, x, Weights(device, columns, centered));
        Close(device.Get(x), values, 0, "the input is left alone");
        return device.Get(output);
    }
}
