using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

/// <summary>Ops and options that only some model families need, on every device against the oracle, at odd sizes.</summary>
[TestFixture("cpu")]
[TestFixture("cuda")]
public class FamilyOpsTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    private static unsafe Weight Packed(Device device, float[] values, int columns)
    {
        fixed (float* data = values)
            return device.Pack(new WeightData(DType.F32, values.Length / columns, columns, (nint)data));
    }

    private static unsafe Weight Packed(Device device, float[] gate, float[] up, int columns)
    {
        fixed (float* a = gate, b = up)
            return device.Pack(new(DType.F32, gate.Length / columns, columns, (nint)a), new(DType.F32, up.Length / columns, columns, (nint)b));
    }

    [Test]
    public void Heads_are_normed_before_they_are_rotated([Values(1, 5)] int tokens, [Values(16, 20, 33, 64, 128)] int dimension, [Values(DType.F32, DType.BF16)] DType type)
    {
        var rotated = dimension / 4 * 2;
        float[] Run(Device device)
        {
            var heads = new Heads(4, 2, dimension, 1, 0, device.Floats(Noise(dimension, 5), dimension), device.Floats(Noise(dimension, 6), dimension), 1e-6f);
            var stored = type == DType.F32 ? device.ActivationType : type;
            var cache = new KvLayer(device.Of(stored, new float[8 * 2 * dimension], 2 * dimension), device.Of(stored, new float[8 * 2 * dimension], 2 * dimension), 4);
            var qkv = device.Activations(Noise(tokens * heads.Columns, 1), heads.Columns);
            device.RopeStore(qkv, device.Floats(Noise(tokens * rotated, 2), rotated), cache,
                new TokenMap(default, default, device.Integers([.. Enumerable.Range(0, tokens).Select(t => 7 - t)]), default), heads);
            return [.. device.Get(qkv), .. device.Get(cache.Keys), .. device.Get(cache.Values)];
        }
        var expected = Run(Oracle);
        foreach (var device in _devices[1..])
        {
            Close(Run(device), expected, type == DType.BF16 ? 8e-3 : 3e-6, device.Name);
            Same(Run(device), Run(_devices[1]), device.Name);
        }
    }

    [Test]
    public void Embedded_tokens_are_scaled_and_features_not([Values(1, 7, 64, 257)] int columns)
    {
        float[] table = Noise(5 * columns, 1), features = Noise(2 * columns, 2);
        float[] Run(Device device, float scale)
        {
            using var weight = Packed(device, table, columns);
            var output = device.Activations(new float[4 * columns], columns);
            device.Embed(output, weight, device.Activations(features, columns), device.Integers(4, -2, 0, -1), scale);
            return device.Get(output);
        }
        foreach (var device in _devices)
        {
            Close(Run(device, 9.5f), Run(Oracle, 9.5f), 1e-6, device.Name);
            Same(Run(device, 1)[columns..(2 * columns)], Run(device, 3)[columns..(2 * columns)], "features");
        }
    }

    [Test]
    public void Rows_are_blended([Values(1, 4, 16)] int terms, [Values(1, 7, 64, 257)] int columns, [Values(1, 9)] int count)
    {
        int[] rows = [.. Enumerable.Range(0, terms * count).Select(i => i * 5 % 11)];
        float[] Run(Device device)
        {
            var output = device.Activations(Noise(count * columns, 3), columns);
            device.BlendRows(output, device.Activations(Noise(11 * columns, 1), columns), device.Table(rows, count), device.Floats(Noise(terms * count, 2), count));
            return device.Get(output);
        }
        foreach (var device in _devices[1..])
        {
            Close(Run(device), Run(Oracle), 3e-6, device.Name);
            Same(Run(device), Run(_devices[1]), device.Name);
        }
        foreach (var device in _devices)
            Assert.That(() => device.BlendRows(device.Activations(new float[2], 2), device.Activations(new float[4], 2), device.Integers(2), device.Floats([1], 1)),
                Throws.ArgumentException.With.Message.EqualTo("BlendRows: row 2 of 2"));
    }

    [Test]
    public void Logits_are_capped([Values(1, 7, 5000)] int columns, [Values(1f, 30f)] float cap)
    {
        float[] Run(Device device)
        {
            var x = device.Activations(Noise(3 * columns, 1, 40), columns);
            device.SoftCap(x, cap);
            return device.Get(x);
        }
        foreach (var device in _devices[1..])
            Close(Run(device), Run(Oracle), 2e-6, device.Name);
    }

    [Test]
    public void Rows_of_features_are_added_at_a_junction([Values(1, 7, 64, 257)] int columns)
    {
        float[] Run(Device device)
        {
            Tensor x = device.Activations(Noise(5 * columns, 1), columns), output = device.Activations(new float[5 * columns], columns);
            var captures = device.Floats(new float[2 * columns], columns);
            device.ResidualNorm(x, device.Activations(Noise(5 * columns, 2), columns), output, new(device.Floats(Noise(columns, 3), columns), default, 1e-6f, false),
                new Junction(2, 2, device.Integers(-1, -1, 0, -1, -1), device.Floats([0, 0, 2, 0, 0], 5), device.Floats(Noise(2 * columns, 4), columns),
                    device.Integers(-1, 0, -1, -1, -1), captures, Rows: device.Integers(7, -3, 0, -1, -1), Added: device.Activations(Noise(3 * columns, 5), columns)));
            return [.. device.Get(x), .. device.Get(output), .. device.Get(captures)];
        }
        foreach (var device in _devices[1..])
        {
            Close(Run(device), Run(Oracle), 5e-6, device.Name);
            Same(Run(device), Run(_devices[1]), device.Name);
        }
    }

    /// <summary>Experts of which some are used by no token, with shares and with sums of 1; a token's result does not depend on the others.</summary>
    [Test]
    public void Experts_are_the_oracles(
        [Values(1, 2, 17)] int tokens, [Values(1, 3)] int used, [Values] bool normalised, [Values(Epilogue.SiluGate, Epilogue.GeluTanhGate)] Epilogue activation)
    {
        const int count = 7, width = 33, inner = 20;
        float[] input = Noise(tokens * width, 1), scores = Noise(tokens * count, 2, 3);
        float[] Run(Device device, int first, int tokens)
        {
            Weight[] gateUp = [.. Enumerable.Range(0, count).Select(e => Packed(device, Noise(inner * width, 10 + e), Noise(inner * width, 40 + e), width))];
            Weight[] down = [.. Enumerable.Range(0, count).Select(e => Packed(device, Noise(width * inner, 70 + e), inner))];
            var output = device.Activations(Noise(tokens * width, 3), width);
            device.Experts(output, device.Activations(input[(first * width)..((first + tokens) * width)], width),
                device.Activations(scores[(first * count)..((first + tokens) * count)], count), new(gateUp, down, used, normalised, activation));
            return device.Get(output);
        }
        var expected = Run(Oracle, 0, tokens);
        foreach (var device in _devices[1..])
        {
            var actual = Run(device, 0, tokens);
            Close(actual, expected, 5e-5, device.Name);
            for (var t = 0; t < tokens && _exact.Contains(device); t++)
                Same(Run(device, t, 1), Rows(actual, width, t), $"token {t} alone");
        }
    }

    [Test]
    public void Experts_of_equal_scores_are_taken_in_their_order()
    {
        foreach (var device in _devices)
        {
            Weight[] up = [.. Enumerable.Range(0, 3).Select(e => Packed(device, [1], [e + 1f], 1))], down = [.. Enumerable.Range(0, 3).Select(_ => Packed(device, [1], 1))];
            var output = device.Activations([0], 1);
            device.Experts(output, device.Activations([1], 1), device.Activations([2, 2, 2], 3), new(up, down, 1, true, Epilogue.SiluGate));
            Assert.That(device.Get(output)[0], Is.EqualTo(1 / (1 + MathF.Exp(-1))).Within(1e-6));
            Assert.That(() => device.Experts(output, device.Activations([1], 1), device.Activations([2, 2, 2], 3), new(up, down, 4, true, Epilogue.SiluGate)),
                Throws.ArgumentException.With.Message.Contains("4 of 3 experts"));
        }
    }

    [Test]
    public void A_device_that_lacks_an_op_says_so()
    {
        using Device device = new Plain();
        Assert.That(device.Abilities, Is.EqualTo(Abilities.None));
        Assert.That(() => device.SoftCap(default, 1), Throws.InstanceOf<NotSupportedException>().With.Message.Contains("plain").And.Message.Contains("SoftCap"));
        Assert.That(() => device.Embed(default, null!, default, default, 2), Throws.InstanceOf<NotSupportedException>().With.Message.Contains("EmbeddingScale"));
    }

    /// <summary>A device of the first families only.</summary>
    private sealed class Plain : Device
    {
        public override string Name => "plain";
        public override DType ActivationType => DType.F32;
        public override Tensor Allocate(DType type, int rows, int columns) => default;
        public override Weight Pack(params ReadOnlySpan<WeightData> parts) => null!;
        public override bool Computes(DType type, int columns) => true;
        public override void Upload(ReadOnlySpan<float> source, Tensor target) { }
        public override void Upload(ReadOnlySpan<int> source, Tensor target) { }
        public override void Download(Tensor source, Span<float> target) { }
        public override void Copy(Tensor target, Tensor source) { }
        public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows) { }
        public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights) { }
        public override void Norm(Tensor output, Tensor input, in NormWeights norm) { }
        public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction) { }
        public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue) { }
        public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads) { }
        public override void AttendPaged(Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window) { }
        public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads) { }
        public override void TakeRows(Tensor output, Tensor input, Tensor rows) { }
        protected override void Dispose(bool disposing) { }
    }
}
