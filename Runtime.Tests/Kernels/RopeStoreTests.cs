using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

public class RopeStoreTests
{
    private sealed record Result(float[] Qkv, float[] Keys, float[] Values);

    private static Result Run(Device device, Heads heads, float[] qkv, float[] rotary, int rotated, int[] rows, int cacheRows)
    {
        var width = heads.KeyValue * heads.Dimension;
        var noise = Noise(cacheRows * width, 3, 1e6f);
        var input = device.Activations(qkv, heads.Columns);
        var cache = new KvLayer(device.Activations(noise, width), device.Activations(noise, width), 4);
        var angles = rotated == 0 ? device.Allocate(DType.F32, rows.Length, 0) : device.Floats(rotary, rotated);
        device.RopeStore(input, angles, cache, new TokenMap(default, default, device.Integers(rows), default), heads);
        return new(device.Get(input), device.Get(cache.Keys), device.Get(cache.Values));
    }

    [Test]
    public void Is_the_oracles_at_odd_sizes([Values(1, 2, 5, 17)] int tokens, [Values(16, 20, 64, 80, 96, 128)] int dimension, [Values(0, 1, 2)] int form)
    {
        var heads = form switch { 0 => new Heads(3, 3, dimension, 1), 1 => new Heads(4, 2, dimension, 1), _ => new Heads(5, 1, dimension, 1) };
        foreach (var rotated in (int[])[dimension, dimension / 2, 6, 0])
        {
            var qkv = Noise(tokens * heads.Columns, 1);
            var rotary = Noise(tokens * rotated, 2);
            int[] rows = [.. Enumerable.Range(0, tokens).Select(t => (t * 7 + 3) % 24)];
            var expected = Run(Oracle, heads, qkv, rotary, rotated, rows, 24);
            var first = Run(Devices[1], heads, qkv, rotary, rotated, rows, 24);
            foreach (var device in Devices[1..])
            {
                var actual = Run(device, heads, qkv, rotary, rotated, rows, 24);
                Close(actual.Qkv, expected.Qkv, 1e-6, $"qkv, {rotated} rotated");
                Close(actual.Keys, expected.Keys, 1e-6, $"keys, {rotated} rotated");
                Close(actual.Values, expected.Values, 0, $"values, {rotated} rotated");
                Same(actual.Keys, first.Keys, device.Name);
                Same(actual.Qkv, first.Qkv, device.Name);
            }
        }
    }

    [Test]
    public void Bad_rows_and_angles_are_refused()
    {
        var heads = new Heads(2, 1, 8, 1);
        var qkv = new float[heads.Columns];
        foreach (var device in Devices)
        {
            Assert.That(() => Run(device, heads, qkv, new float[8], 8, [12], 12), Throws.ArgumentException.With.Message.Contains("store row 12 of 12"));
            Assert.That(() => Run(device, heads, qkv, new float[8], 8, [-1], 12), Throws.ArgumentException);
            Assert.That(() => Run(device, heads, qkv, new float[10], 10, [1], 12), Throws.ArgumentException.With.Message.Contains("10 rotary columns"));
            Assert.That(() => Run(device, heads, qkv, new float[7], 7, [1], 12), Throws.ArgumentException.With.Message.Contains("7 rotary columns"));
            Assert.That(() => Run(device, new Heads(3, 2, 8, 1), new float[56], new float[8], 8, [1], 12), Throws.ArgumentException.With.Message.Contains("multiple"));
        }
    }
}
