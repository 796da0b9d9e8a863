using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class ResidualNormTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    private const int Slots = 3, Layers = 4;

    /// <summary>What the op leaves behind.</summary>
    private sealed record Result(float[] X, float[] Output, float[] Captures);

    /// <summary>One call: steer and capture slots a token, or null for none of that kind.</summary>
    private sealed record Case(int Columns, float[] X, float[] Delta, bool Centered, int Layer, int[]? Steer, float[]? Scales, int[]? Capture)
    {
        public int Tokens => X.Length / Columns;

        public Case Only(params int[] rows) => this with
        {
            X = Rows(X, Columns, rows),
            Delta = Rows(Delta, Columns, rows),
            Steer = Steer is null ? null : [.. rows.Select(r => Steer[r])],
            Scales = Scales is null ? null : [.. rows.Select(r => Scales[r])],
            Capture = Capture is null ? null : [.. rows.Select(r => Capture[r])],
        };

        public Result Run(Device device)
        {
            Tensor x = device.Activations(X, Columns), delta = device.Activations(Delta, Columns);
            var output = device.Activations(new float[X.Length], Columns);
            var captures = device.Floats(new float[Slots * Layers * Columns], Columns);
            var junction = new Junction(Layer, Layers,
                Steer is null ? default : device.Integers(Steer), Steer is null ? default : device.Floats(Scales!, Tokens),
                Steer is null ? default : device.Floats(Noise(Slots * Layers * Columns, 9), Columns),
                Capture is null ? default : device.Integers(Capture), Capture is null ? default : captures);
            var norm = new NormWeights(
                device.Floats(Noise(Columns, 5), Columns), Centered ? device.Floats(Noise(Columns, 6), Columns) : default, 1e-6f, Centered);
            device.ResidualNorm(x, delta, output, norm, Layer == 0 ? default : junction);
            return new Result(device.Get(x), device.Get(output), device.Get(captures));
        }
    }

    private static Case Mixed(int tokens, int columns, bool centered, int layer) => new(
        columns, Noise(tokens * columns, 1, 2), Noise(tokens * columns, 2), centered, layer,
        [.. Enumerable.Range(0, tokens).Select(t => t % 4 - 1)], [.. Enumerable.Range(0, tokens).Select(t => 0.5f + t % 3)],
        [.. Enumerable.Range(0, tokens).Select(t => t is 2 or 4 ? t / 2 - 1 : -1 - t)]);

    /// <summary>Products of the steered tokens that ask for them, before and after the edit; others' rows stay as they were, and x and output are the same without.</summary>
    [Test]
    public void Products_are_the_dot_products_before_and_after_the_edit([Values(1, 7, 16, 64, 100, 257)] int columns, [Values(1, 4)] int layer)
    {
        const int Tokens = 9, Observed = 4;
        float[] x = Noise(Tokens * columns, 1, 2), delta = Noise(Tokens * columns, 2), vectors = Noise(Slots * Layers * columns, 9);
        int[] steer = [.. Enumerable.Range(0, Tokens).Select(t => t % 4 - 1)], product = [-1, 2, -1, 0, 3, -1, 1, -1, -1];
        float[] scales = [.. Enumerable.Range(0, Tokens).Select(t => t == 3 ? 0 : 0.5f + t % 3)];
        foreach (var device in _devices)
        {
            (float[] X, float[] Output, float[] Products) Run(bool observe)
            {
                Tensor tx = device.Activations(x, columns), td = device.Activations(delta, columns), output = device.Activations(new float[x.Length], columns);
                float[] before = [.. Enumerable.Repeat(1e6f, Observed * 2 * Layers)];
                var products = device.Floats(before, 2 * Layers);
                device.ResidualNorm(tx, td, output, new(device.Floats(Noise(columns, 5), columns), default, 1e-6f, false), new(
                    layer, Layers, device.Integers(steer), device.Floats(scales, Tokens), device.Floats(vectors, columns), default, default,
                    observe ? device.Integers(product) : default, observe ? products : default));
                return (device.Get(tx), device.Get(output), device.Get(products));
            }
            var (with, without) = (Run(true), Run(false));
            Assert.That(with.X, Is.EqualTo(without.X));
            Assert.That(with.Output, Is.EqualTo(without.Output));
            for (var row = 0; row < Observed; row++)
                for (var column = 0; column < 2 * Layers; column++)
                {
                    var t = Array.IndexOf(product, row);
                    var expected = 1e6;
                    if (steer[t] >= 0 && column / 2 == layer - 1)
                    {
                        double size = 0;
                        expected = 0;
                        for (var i = 0; i < columns; i++)
                        {
                            double v = vectors[(steer[t] * Layers + layer - 1) * columns + i], h = (double)x[t * columns + i] + delta[t * columns + i];
                            expected += (column % 2 == 0 ? h : h - scales[t] * v) * v;
                            size += Math.Abs(h * v);
                        }
                        Assert.That(with.Products[row * 2 * Layers + column], Is.EqualTo(expected).Within(1e-5 * (1 + size)), $"{device.Name}, row {row}, column {column}");
                    }
                    else
                    {
                        Assert.That(with.Products[row * 2 * Layers + column], Is.EqualTo(1e6f), $"{device.Name}, row {row}, column {column}");
                    }
                }
        }
    }

    [Test]
    public void Copies_are_the_rows_as_they_lie([Values(DType.F32, DType.BF16, DType.U8, DType.I32)] DType type)
    {
        foreach (var device in _devices)
        {
            var (source, target) = (device.Allocate(type, 5, 7), device.Allocate(type, 9, 7));
            int[] numbers = [.. Enumerable.Range(0, 35).Select(i => i * 7 % 200)];
            if (type == DType.I32)
                device.Upload(numbers, source);
            else
                device.Upload(Array.ConvertAll(numbers, n => (float)n), source);
            device.Copy(target.Slice(3, 2), source.Slice(1, 2));
            var copied = new float[63];
            device.Download(target, copied);
            Assert.That(copied, Is.EqualTo((float[])[.. new float[21], .. numbers[7..21].Select(n => (float)n), .. new float[28]]), device.Name);
            Assert.That(() => device.Copy(target, source), Throws.ArgumentException.With.Message.Contains("equal types and shapes"));
        }
    }

    [Test]
    public void Is_the_oracles_at_odd_sizes([Values] bool centered, [Values(1, 2, 3, 5, 7, 17, 33)] int tokens, [Values(0, 1, 4)] int layer)
    {
        foreach (var columns in (int[])[1, 7, 15, 16, 17, 64, 100, 257])
        {
            var all = Mixed(tokens, columns, centered, layer);
            var expected = all.Run(Oracle);
            foreach (var device in _devices[1..])
            {
                var actual = all.Run(device);
                Close(actual.X, expected.X, 1e-6, $"x, D {columns}");
                // One column's LayerNorm is 0 / √ε: whatever rounding left, many times enlarged.
                Close(actual.Output, expected.Output, columns < 7 ? 2e-3 : 2e-5, $"output, D {columns}");
                Close(actual.Captures, expected.Captures, 1e-6, $"captures, D {columns}");
            }
        }
    }

    [Test]
    public void Unsteered_tokens_are_untouched_bit_for_bit_beside_steered_ones()
    {
        var mixed = Mixed(17, 100, false, 2);
        foreach (var device in _devices[1..])
        {
            var steered = mixed.Run(device);
            var plain = (mixed with { Steer = null, Scales = null, Capture = null, Layer = 0 }).Run(device);
            for (var t = 0; t < 17; t++)
            {
                Assert.That(Rows(steered.X, 100, t).SequenceEqual(Rows(plain.X, 100, t)), Is.EqualTo(mixed.Steer![t] < 0), $"token {t}");
                if (mixed.Steer![t] >= 0)
                    continue;
                Same(Rows(steered.X, 100, t), Rows(plain.X, 100, t), $"x of token {t}");
                Same(Rows(steered.Output, 100, t), Rows(plain.Output, 100, t), $"output of token {t}");
            }
        }
    }

    [Test]
    public void Steers_by_exactly_scale_times_the_slots_vector_of_the_layer()
    {
        const int Columns = 37;
        var mixed = Mixed(9, Columns, false, 3);
        var vectors = Noise(Slots * Layers * Columns, 9);
        foreach (var device in _devices[1..])
        {
            var x = mixed.Run(device).X;
            for (var t = 0; t < 9; t++)
                for (var i = 0; i < Columns; i++)
                {
                    var h = mixed.X[t * Columns + i] + mixed.Delta[t * Columns + i];
                    if (mixed.Steer![t] >= 0)
                        h -= mixed.Scales![t] * vectors[(mixed.Steer[t] * Layers + 2) * Columns + i];
                    Assert.That(x[t * Columns + i], Is.EqualTo(h));
                }
        }
    }

    [Test]
    public void Captures_what_was_there_before_the_edit_and_nothing_else()
    {
        var mixed = Mixed(6, 50, true, 4);
        foreach (var device in _devices[1..])
        {
            var captures = mixed.Run(device).Captures;
            var plain = (mixed with { Layer = 0 }).Run(device).X;
            for (var row = 0; row < Slots * Layers; row++)
            {
                var token = row % Layers == 3 ? Array.IndexOf(mixed.Capture!, row / Layers) : -1;
                Same(Rows(captures, 50, row), token < 0 ? new float[50] : Rows(plain, 50, token), $"capture row {row}");
            }
        }
    }

    [Test]
    public void A_token_does_not_know_its_batch([Values] bool centered)
    {
        var mixed = Mixed(35, 1111, centered, 1);
        var together = mixed.Run(_exact[0]);
        foreach (var device in _exact)
        {
            Same(mixed.Run(device).Output, together.Output, device.Name);
            for (var t = 0; t < 35; t += 5)
            {
                var chunk = mixed.Only([.. Enumerable.Range(t, 5)]).Run(device);
                Same(chunk.Output, Rows(together.Output, 1111, Enumerable.Range(t, 5)), $"chunk at {t}");
                Same(chunk.X, Rows(together.X, 1111, Enumerable.Range(t, 5)), $"chunk at {t}");
                Same(mixed.Only(t).Run(device).Output, Rows(together.Output, 1111, t), $"token {t} alone");
            }
        }
    }

    [Test]
    public void Slots_and_layers_that_do_not_exist_are_refused()
    {
        var mixed = Mixed(3, 8, false, 2);
        foreach (var device in _devices)
        {
            Assert.That(() => (mixed with { Steer = [-1, Slots, 0] }).Run(device), Throws.ArgumentException.With.Message.Contains("steer slot 3 of 3"));
            Assert.That(() => (mixed with { Capture = [int.MaxValue, -1, 0] }).Run(device), Throws.ArgumentException.With.Message.Contains("capture slot"));
            Assert.That(() => (mixed with { Layer = Layers + 1 }).Run(device), Throws.ArgumentException.With.Message.Contains("layer 5 of 4"));
            Assert.That(() => (mixed with { Capture = [1, 2] }).Run(device), Throws.ArgumentException.With.Message.Contains("capture slots is I32 [1, 2]"));
        }
    }
}
