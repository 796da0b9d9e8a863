using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

/// <summary>Quantised weights times activations in eight bits.</summary>
public class IntegerLinearTests
{
    private static readonly DType[] Forms = [DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q4_K, DType.Q6_K];
    private static readonly Epilogue[] Epilogues = Enum.GetValues<Epilogue>();

    [Test]
    public void Is_the_product_with_activations_rounded_in_blocks_of_32(
        [ValueSource(nameof(Forms))] DType type, [Values("emitted", "AVX-512", "AVX2", "portable")] string lanes)
    {
        int[] widths = type.BlockSize() == 32 ? [32, 64, 256, 288, 576] : [256, 512, 768];
        foreach (var columns in widths)
            foreach (var rows in new[] { 1, 16, 17, 33, 48, 100 })
            {
                using var f = new LinearFixture(columns, [(type, rows)], lanes: lanes, seed: rows + columns, activations: Activations.Int8);
                foreach (var tokens in rows == 17 ? new[] { 1, 2, 3, 4, 5, 7, 8, 9, 17, 129, 130 } : [1, 6])
                {
                    var input = LinearFixture.Floats(tokens * columns, tokens);
                    for (var i = 0; i < input.Length; i += 101)
                        input[i] *= 40; // outliers, which cost their own block its digits
                    var bias = rows % 2 == 0 ? null : LinearFixture.Floats(rows, 3);
                    Check(f, input, bias, f.Linear(input, bias, Epilogue.None));
                }
            }
    }

    [Test]
    public void A_token_alone_is_bit_for_bit_the_same_in_any_batch_on_any_number_of_threads(
        [ValueSource(nameof(Forms))] DType type, [Values("emitted", "AVX-512", "AVX2", "portable")] string lanes)
    {
        const int Tokens = 35;
        var columns = type.BlockSize() == 256 ? 768 : 608;
        var input = LinearFixture.Floats(Tokens * columns, 2);
        var bias = LinearFixture.Floats(120, 4);
        float[][] expected = [];
        for (var threads = 1; threads <= 3; threads++)
        {
            using var f = new LinearFixture(columns, [(type, 120)], threads, lanes, activations: Activations.Int8);
            if (threads == 1)
                expected = [.. Epilogues.Select(e => f.Linear(input, bias, e))];
            foreach (var epilogue in Epilogues)
            {
                var whole = expected[(int)epilogue];
                var width = whole.Length / Tokens;
                foreach (var batch in threads == 1 ? new[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 33 } : [1, 2, 12, Tokens])
                    for (var t = 0; t < Tokens; t += batch)
                    {
                        var end = Math.Min(Tokens, t + batch);
                        var part = f.Linear(input[(t * columns)..(end * columns)], bias, epilogue);
                        Assert.That(part.AsSpan().SequenceEqual(whole.AsSpan(t * width, part.Length)), $"{epilogue}, tokens {t} to {end}, {threads} threads");
                    }
            }
        }
    }

    [Test]
    public void Every_instruction_set_gives_the_same_bits([ValueSource(nameof(Forms))] DType type)
    {
        var input = LinearFixture.Floats(9 * 512, 2);
        float[]? expected = null;
        foreach (var (lanes, here) in new[] { ("emitted", EmittedDot.Instance is not null), ("AVX-512", Lanes512.IsSupported), ("AVX2", Lanes256.IsSupported), ("portable", System.Runtime.Intrinsics.X86.Fma.IsSupported) })
        {
            if (!here) // without fused multiply-add, products are rounded once more
                continue;
            foreach (var tokens in new[] { 1, 9 })
            {
                using var f = new LinearFixture(512, [(type, 100)], lanes: lanes, activations: Activations.Int8);
                var actual = f.Linear(input[..(tokens * 512)], null, Epilogue.None);
                expected ??= f.Linear(input, null, Epilogue.None);
                Assert.That(actual.AsSpan().SequenceEqual(expected.AsSpan(0, actual.Length)), $"{lanes}, {tokens} tokens");
            }
        }
    }

    [Test]
    public void Parts_of_different_forms_follow_each_other([Values("emitted", "AVX-512", "AVX2", "portable")] string lanes, [Values(1, 2, 6)] int tokens)
    {
        // Panels pair up for the kernels; here a form has one, two or three of them, with floats between.
        using var f = new LinearFixture(256, [(DType.Q4_K, 33), (DType.Q6_K, 1), (DType.F16, 16), (DType.Q8_0, 17), (DType.Q4_1, 7)],
            lanes: lanes, shuffle: true, activations: Activations.Int8);
        var input = LinearFixture.Floats(tokens * 256, 2);
        Check(f, input, null, f.Linear(input, null, Epilogue.None), from: 34, to: 50);
    }

    [Test]
    public void Extremes_of_weights_and_activations_do_not_overflow([ValueSource(nameof(Forms))] DType type, [Values("emitted", "AVX-512", "AVX2", "portable")] string lanes)
    {
        // All activations of one size and all elements of a weight the largest or the least: sums as large as they get.
        foreach (var bits in new byte[] { 0x00, 0xFF, 0x7F, 0x80 })
            foreach (var sign in new[] { 1f, -1 })
            {
                using var f = new LinearFixture(256, [(type, 16)], lanes: lanes, activations: Activations.Int8, fill: bits);
                foreach (var tokens in new[] { 1, 4 })
                {
                    var input = Enumerable.Repeat(sign * 3, tokens * 256).ToArray();
                    Check(f, input, null, f.Linear(input, null, Epilogue.None));
                }
            }
    }

    [Test]
    public void Activations_that_are_no_numbers_spoil_their_own_token_only(
        [Values(float.NaN, float.PositiveInfinity, float.NegativeInfinity)] float bad, [Values("emitted", "AVX-512", "AVX2", "portable")] string lanes)
    {
        foreach (var type in Forms)
        {
            using var f = new LinearFixture(256, [(type, 20)], lanes: lanes, activations: Activations.Int8);
            var input = LinearFixture.Floats(5 * 256, 7);
            var expected = f.Linear(input, null, Epilogue.None);
            input[2 * 256 + 77] = bad;
            var actual = f.Linear(input, null, Epilogue.None);
            for (var i = 0; i < actual.Length; i++)
                Assert.That(actual[i], i / 20 == 2 ? Is.NaN : Is.EqualTo(expected[i]), $"{type}, output {i}");
        }
    }

    [TestCase(0f), TestCase(1e-42f), TestCase(1e-35f), TestCase(1e-20f), TestCase(1e30f)]
    public void Activations_of_any_size_are_rounded_to_their_size(float size)
    {
        foreach (var lanes in new[] { "", "portable" })
        {
            using var f = new LinearFixture(64, [(DType.Q8_0, 20)], lanes: lanes, activations: Activations.Int8);
            var input = LinearFixture.Floats(3 * 64, 7, size);
            var actual = f.Linear(input, null, Epilogue.None);
            if (size < 1e-30f)
                Assert.That(actual, Is.All.Zero);
            else
                Check(f, input, null, actual);
        }
    }

    [Test]
    public void Nothing_is_allocated_after_the_first_call([Values(1, 40)] int tokens)
    {
        using var f = new LinearFixture(256, [(DType.Q4_K, 40), (DType.Q8_0, 8)], activations: Activations.Int8);
        Tensor input = f.Device.Allocate(DType.F32, tokens, 256), output = f.Device.Allocate(DType.F32, tokens, 48);
        for (var i = 0; i < 3; i++)
            f.Device.Linear(output, input, f.Weight, default, Epilogue.Gelu);
        var before = GC.GetAllocatedBytesForCurrentThread();
        f.Device.Linear(output, input, f.Weight, default, Epilogue.Gelu);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }

    /// <summary>
    /// Two bounds. Against activations rounded as defined (to 127ths of their block's largest) only sums of floats differ; against
    /// the activations themselves each element may be half a step off.
    /// </summary>
    private static void Check(LinearFixture f, float[] input, float[]? bias, float[] actual, int from = 0, int to = 0)
    {
        int k = f.Columns, rows = f.Weight.Rows;
        var rounded = new double[input.Length];
        var step = new double[input.Length];
        for (var b = 0; b < input.Length; b += 32)
        {
            var most = input.AsSpan(b, 32).ToArray().Max(Math.Abs);
            for (var i = b; i < b + 32; i++)
            {
                step[i] = most / 127.0;
                rounded[i] = most == 0 ? 0 : step[i] * Math.Round(input[i] * (127 / most));
            }
        }
        for (var t = 0; t < input.Length / k; t++)
            for (var n = 0; n < rows; n++)
            {
                if (n >= from && n < to) // a part in floats
                    continue;
                double exact = bias?[n] ?? 0, defined = exact, size = Math.Abs(exact), noise = 0, largest = 0, activations = 0;
                for (var i = 0; i < k; i++)
                {
                    double w = f.Values[n * k + i], x = input[t * k + i], q = rounded[t * k + i];
                    exact += w * x;
                    defined += w * q;
                    noise += Math.Abs(w) * step[t * k + i] / 2;
                    size += Math.Abs(w * q);
                    largest = Math.Max(largest, Math.Abs(w));
                    activations += Math.Abs(q);
                }
                // As many roundings as groups, of sums no larger than those of the sizes; an element's zero is taken apart from it.
                var tolerance = 6e-8 * ((2 * k / 16 + 6) * size + 16 * largest * activations) + 1e-37;
                var y = actual[t * rows + n];
                Assert.That(Math.Abs(y - defined), Is.LessThanOrEqualTo(tolerance), $"{y}, as defined {defined}, token {t}, row {n} of [{rows}, {k}]");
                Assert.That(Math.Abs(y - exact), Is.LessThanOrEqualTo(noise * 1.00001 + tolerance), $"{y}, exact {exact}");
            }
    }
}
