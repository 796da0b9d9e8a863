using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class AttendFullTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    private static float[] Run(Device device, Heads heads, float[] qkv, int length)
    {
        var width = heads.Query * heads.Dimension;
        var output = device.Activations(new float[qkv.Length / heads.Columns * width], width);
        device.AttendFull(output, device.Activations(qkv, heads.Columns), length, heads);
        return device.Get(output);
    }

    [Test]
    public void Is_the_oracles_at_odd_sizes([Values(1, 2, 3, 5, 17, 33, 65)] int length, [Values(1, 15, 16, 20, 64, 72, 80)] int dimension)
    {
        foreach (var heads in (Heads[])[new(3, 3, dimension, 0.2f), new(4, 2, dimension, 0.2f), new(3, 1, dimension, 0.2f)])
            foreach (var runs in (int[])[1, 3])
            {
                var qkv = Noise(runs * length * heads.Columns, length, 2);
                var expected = Run(Oracle, heads, qkv, length);
                var first = Run(_devices[1], heads, qkv, length);
                Close(first, expected, 1e-5, $"{heads}");
                foreach (var device in _exact[1..])
                    Same(Run(device, heads, qkv, length), first, device.Name);
            }
    }

    [Test]
    public void An_image_does_not_know_its_batch()
    {
        var heads = new Heads(4, 4, 64, 0.125f);
        const int Length = 50;
        var qkv = Noise(3 * Length * heads.Columns, 8);
        foreach (var device in _devices[1..])
        {
            var together = Run(device, heads, qkv, Length);
            for (var image = 0; image < 3; image++)
                Same(Run(device, heads, Rows(qkv, Length * heads.Columns, image), Length), Rows(together, Length * 256, image), $"image {image}");
        }
    }

    [Test]
    public void Ragged_runs_are_refused()
    {
        var heads = new Heads(1, 1, 4, 1);
        foreach (var device in _devices)
        {
            Assert.That(() => Run(device, heads, new float[5 * 12], 2), Throws.ArgumentException.With.Message.Contains("5 rows"));
            Assert.That(() => Run(device, heads, new float[5 * 12], 0), Throws.ArgumentException);
        }
    }
}
