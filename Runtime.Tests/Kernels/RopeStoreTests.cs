using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class RopeStoreTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

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
            var first = Run(_devices[1], heads, qkv, rotary, rotated, rows, 24);
            foreach (var device in _devices[1..])
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

    /// <summary>Stored numbers as the definition rounds them; a rotated one that lies between two may come out as either.</summary>
    [Test]
    public void Rounded_caches_are_the_oracles([Values(1, 5)] int tokens, [Values(1, 20, 33, 64, 128)] int dimension, [Values(DType.BF16, DType.U8, DType.F8E4M3)] DType type)
    {
        if (!_devices[1].Caches(type))
            Assert.Ignore($"{_devices[1].Name} keeps no {type}");
        var heads = new Heads(4, 2, dimension, 1);
        int width = 2 * dimension, rotated = dimension / 4 * 2;
        var qkv = Noise(tokens * heads.Columns, 1);
        qkv.AsSpan(4 * dimension, dimension).Clear(); // a key of zeros has the scale 0
        for (var i = 6 * dimension; i < 7 * dimension; i++)
            qkv[i] *= MathF.Pow(2, -(i % 16)); // and a value has numbers of every size
        int[] rows = [.. Enumerable.Range(0, tokens).Select(t => (t * 7 + 3) % 24)];
        (float[] Keys, float[] Values, float[] Scales) Run(Device device)
        {
            var fill = Enumerable.Repeat(72f, 24 * width).ToArray();
            var cache = new KvLayer(device.Of(type, fill, width), device.Of(type, fill, width), 4, device.Floats(new float[24 * 4], 4));
            var angles = rotated == 0 ? device.Allocate(DType.F32, tokens, 0) : device.Floats(Noise(tokens * rotated, 2), rotated);
            device.RopeStore(device.Activations(qkv, heads.Columns), angles, cache, new TokenMap(default, default, device.Integers(rows), default), heads);
            return (device.Get(cache.Keys), device.Get(cache.Values), device.Get(cache.Scales));
        }
        var expected = Run(Oracle);
        // E4M3 has four bits: neighbours are an eighth apart, and the smallest 2^-9.
        var step = type switch { DType.U8 => 1, DType.BF16 => 1 / 128f, _ => 1 / 8f };
        foreach (var device in _devices[1..])
        {
            var actual = Run(device);
            Close(actual.Scales, expected.Scales, 1e-6, "scales");
            for (var i = 0; i < actual.Keys.Length; i++)
                Assert.That(Math.Abs(actual.Keys[i] - expected.Keys[i]), Is.LessThanOrEqualTo(step * (type == DType.U8 ? 1 : Math.Max(1, Math.Abs(expected.Keys[i])))), $"key {i}");
            for (var i = 0; i < actual.Values.Length; i++)
                Assert.That(Math.Abs(actual.Values[i] - expected.Values[i]), Is.LessThanOrEqualTo(type switch { DType.U8 => 1, DType.BF16 => 0, _ => Math.Max(step * Math.Abs(expected.Values[i]), 1 / 512f) }), $"value {i}");
            Assert.That(actual.Values.Zip(expected.Values, (a, e) => a == e ? 0 : 1).Sum(), Is.LessThanOrEqualTo(actual.Values.Length / 50), "values that differ");
            Assert.That(actual.Keys.Zip(expected.Keys, (a, e) => a == e ? 0 : 1).Sum(), Is.LessThanOrEqualTo(actual.Keys.Length / 50), "keys that differ");
        }
    }

    /// <summary>Every number of E4M3, what lies in the middle between two, and what lies next to that, under a scale of 1.</summary>
    [Test]
    public void Eight_bit_floats_are_rounded_to_nearest_even()
    {
        if (!_devices[1].Caches(DType.F8E4M3))
            Assert.Ignore($"{_devices[1].Name} keeps no F8E4M3");
        var codes = new float[127];
        Blocks.Dequantize(DType.F8E4M3, [.. Enumerable.Range(0, 127).Select(i => (byte)i)], codes);
        float[] middles = [.. codes.Zip(codes[1..], (a, b) => (a + b) / 2)];
        foreach (var values in new[] { codes, middles, Array.ConvertAll(middles, MathF.BitDecrement), Array.ConvertAll(middles, v => -MathF.BitIncrement(v)) })
        {
            float[] value = [448, 0, .. values];
            var heads = new Heads(1, 1, value.Length, 1);
            var bytes = new byte[value.Length];
            var expected = new float[value.Length];
            Blocks.Quantize(DType.F8E4M3, value, bytes);
            Blocks.Dequantize(DType.F8E4M3, bytes, expected);
            foreach (var device in _devices)
            {
                var cache = new KvLayer(device.Of(DType.F8E4M3, new float[value.Length], value.Length), device.Of(DType.F8E4M3, new float[value.Length], value.Length), 1, device.Floats(new float[2], 2));
                device.RopeStore(device.Activations([.. new float[2 * value.Length], .. value], heads.Columns), device.Allocate(DType.F32, 1, 0), cache, new TokenMap(default, default, device.Integers(0), default), heads);
                Assert.That(device.Get(cache.Scales), Is.EqualTo(new float[] { 0, 1 }));
                Assert.That(device.Get(cache.Values), Is.EqualTo(expected), device.Name);
            }
        }
    }

    [Test]
    public void Bad_rows_and_angles_are_refused()
    {
        var heads = new Heads(2, 1, 8, 1);
        var qkv = new float[heads.Columns];
        foreach (var device in _devices)
        {
            Assert.That(() => Run(device, heads, qkv, new float[8], 8, [12], 12), Throws.ArgumentException.With.Message.Contains("store row 12 of 12"));
            Assert.That(() => Run(device, heads, qkv, new float[8], 8, [-1], 12), Throws.ArgumentException);
            Assert.That(() => Run(device, heads, qkv, new float[10], 10, [1], 12), Throws.ArgumentException.With.Message.Contains("10 rotary columns"));
            Assert.That(() => Run(device, heads, qkv, new float[7], 7, [1], 12), Throws.ArgumentException.With.Message.Contains("7 rotary columns"));
            Assert.That(() => Run(device, new Heads(3, 2, 8, 1), new float[56], new float[8], 8, [1], 12), Throws.ArgumentException.With.Message.Contains("multiple"));
        }
    }
}
