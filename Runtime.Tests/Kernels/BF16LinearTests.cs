using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

/// <summary>BF16 weights times activations rounded to BF16, where the processor multiplies that.</summary>
public class BF16LinearTests
{
    [OneTimeSetUp]
    public void Machine()
    {
        if (EmittedDot.Instance?.HasBF16 != true)
            Assert.Ignore("this machine has no vdpbf16ps");
    }

    [Test]
    public void Is_the_product_with_rounded_activations_at_odd_sizes()
    {
        foreach (var columns in new[] { 1, 2, 7, 8, 31, 32, 33, 255, 256, 257, 577 })
            foreach (var rows in new[] { 1, 16, 17, 33, 100 })
            {
                using var f = new LinearFixture(columns, [(DType.BF16, rows)], seed: rows + columns, activations: Activations.Auto);
                foreach (var tokens in rows == 17 ? new[] { 1, 2, 3, 5, 11, 12, 13, 25, 129 } : [1, 4])
                {
                    var input = LinearFixture.Floats(tokens * columns, tokens);
                    var bias = rows % 2 == 0 ? null : LinearFixture.Floats(rows, 3);
                    Check(f, input, bias, f.Linear(input, bias, Epilogue.None));
                }
            }
    }

    [Test]
    public void A_token_alone_is_bit_for_bit_the_same_in_any_batch_on_any_number_of_threads()
    {
        const int Tokens = 35;
        var input = LinearFixture.Floats(Tokens * 607, 2);
        float[] whole = [];
        foreach (var epilogue in new[] { Epilogue.None, Epilogue.SiluGate })
            for (var threads = 1; threads <= 3; threads++)
            {
                using var f = new LinearFixture(607, [(DType.BF16, 120)], threads, activations: Activations.Auto);
                if (threads == 1)
                    whole = f.Linear(input, null, epilogue);
                var width = whole.Length / Tokens;
                for (var batch = 1; batch <= Tokens; batch += batch < 14 ? 1 : 7)
                    for (var t = 0; t < Tokens; t += batch)
                    {
                        var part = f.Linear(input[(t * 607)..(Math.Min(Tokens, t + batch) * 607)], null, epilogue);
                        Assert.That(part.AsSpan().SequenceEqual(whole.AsSpan(t * width, part.Length)), $"{epilogue}, token {t}, batches of {batch}, {threads} threads");
                    }
            }
    }

    [Test]
    public void Rounds_to_even_and_keeps_what_is_no_number()
    {
        // Halfway cases up and down, the largest float (its BF16 is infinite), infinities, NaN with bits that rounding would carry away.
        uint[] bits = [0x3F808000, 0x3F818000, 0x3F808001, 0xBF817FFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FFFFFFF, 0x00000000];
        uint[] expected = [0x3F80, 0x3F82, 0x3F81, 0xBF81, 0x7F80, 0x7F80, 0xFF80, 0x7FFF, 0];
        foreach (var length in new[] { bits.Length, 41 }) // one by one, and in vectors
        {
            var x = Enumerable.Range(0, length).Select(i => BitConverter.UInt32BitsToSingle(bits[i % bits.Length])).ToArray();
            var row = new ushort[length + 1];
            Array.Fill(row, (ushort)0xAAAA);
            unsafe
            {
                fixed (float* source = x)
                fixed (ushort* target = row)
                    ActivationRows<Lanes512>.Halve(length, source, target);
            }
            for (var i = 0; i < length; i++)
                Assert.That(row[i], Is.EqualTo(expected[i % bits.Length]), $"{bits[i % bits.Length]:X8}");
            Assert.That(row[length], Is.Zero, "an odd row ends with a zero");
        }
    }

    [Test]
    public void A_token_that_is_no_number_spoils_itself_only()
    {
        using var f = new LinearFixture(64, [(DType.BF16, 20), (DType.Q8_0, 20)], activations: Activations.Auto);
        var input = LinearFixture.Floats(5 * 64, 7);
        var expected = f.Linear(input, null, Epilogue.None);
        input[2 * 64 + 33] = float.NaN;
        var actual = f.Linear(input, null, Epilogue.None);
        for (var i = 0; i < actual.Length; i++)
            Assert.That(actual[i], i / 40 == 2 ? Is.NaN : Is.EqualTo(expected[i]), $"output {i}");
    }

    /// <summary>Against activations rounded to BF16, only sums of floats differ: one rounding a product and one a sum.</summary>
    private static void Check(LinearFixture f, float[] input, float[]? bias, float[] actual)
    {
        int k = f.Columns, rows = f.Weight.Rows;
        for (var t = 0; t < input.Length / k; t++)
            for (var n = 0; n < rows; n++)
            {
                double exact = bias?[n] ?? 0, size = Math.Abs(exact);
                for (var i = 0; i < k; i++)
                {
                    var bits = BitConverter.SingleToUInt32Bits(input[t * k + i]);
                    double product = (double)f.Values[n * k + i] * BitConverter.UInt32BitsToSingle(bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000);
                    exact += product;
                    size += Math.Abs(product);
                }
                Assert.That(Math.Abs(actual[t * rows + n] - exact), Is.LessThanOrEqualTo(6e-8 * (2 * k + 2) * size + 1e-35), $"token {t}, row {n} of [{rows}, {k}]");
            }
    }
}
