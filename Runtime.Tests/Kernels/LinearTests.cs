using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

public class LinearTests
{
    private static readonly DType[] Forms = LinearFixture.Forms;
    private static readonly Epilogue[] Epilogues = Enum.GetValues<Epilogue>();

    [Test]
    public void Agrees_with_double_precision_at_odd_sizes([ValueSource(nameof(Forms))] DType type, [Values("AVX-512", "AVX2", "portable", "CUDA")] string lanes)
    {
        int[] widths = type.BlockSize() switch { 1 => [1, 2, 7, 8, 9, 31, 255, 256, 257, 577], 32 => [32, 64, 256, 288, 576], 64 => [64, 192, 704], 128 => [128, 384, 896], _ => [256, 512, 768] };
        foreach (var columns in widths)
            foreach (var rows in new[] { 1, 15, 16, 17, 31, 48, 100 })
            {
                using var f = new LinearFixture(columns, [(type, rows)], lanes: lanes, seed: rows + columns);
                foreach (var tokens in rows == 17 ? new[] { 1, 2, 3, 5, 7, 8, 9, 17, 33 } : [1, 4])
                {
                    var input = LinearFixture.Floats(tokens * columns, tokens);
                    var bias = rows % 2 == 0 ? null : LinearFixture.Floats(rows, 3);
                    Check(f, input, bias, Epilogue.None, f.Linear(input, bias, Epilogue.None));
                }
            }
    }

    [Test]
    public void Epilogues_agree_with_double_precision([ValueSource(nameof(Epilogues))] Epilogue epilogue, [Values("AVX-512", "AVX2", "portable", "CUDA")] string lanes)
    {
        // 2 · 24 rows: the values begin in the middle of a panel; 2 · 16: they do not; two parts of 20: panels of their own.
        (DType, int)[][] parts = [[(DType.F32, 48)], [(DType.F16, 32)], [(DType.BF16, 20), (DType.Q8_0, 20)], [(DType.Q4_0, 2)]];
        foreach (var part in parts)
        {
            using var f = new LinearFixture(96, part, lanes: lanes);
            var input = LinearFixture.Floats(5 * 96, 9, 12);
            var bias = LinearFixture.Floats(f.Weight.Rows, 4);
            Check(f, input, bias, epilogue, f.Linear(input, bias, epilogue));
            Check(f, input, null, epilogue, f.Linear(input, null, epilogue));
        }
    }

    [Test]
    public void A_token_alone_is_bit_for_bit_the_same_in_any_batch_on_any_number_of_threads(
        [ValueSource(nameof(Forms))] DType type, [Values("AVX-512", "AVX2", "portable", "CUDA exact")] string lanes)
    {
        const int Tokens = 35;
        var columns = type.BlockSize() switch { 1 => 607, 32 => 608, 64 => 704, _ => 768 };
        var input = LinearFixture.Floats(Tokens * columns, 2);
        var bias = LinearFixture.Floats(120, 4);
        float[][] expected = [];
        for (var threads = 1; threads <= 3; threads++)
        {
            using var f = new LinearFixture(columns, [(type, 120)], threads, lanes);
            if (threads == 1)
                expected = [.. Epilogues.Select(e => f.Linear(input, bias, e))];
            foreach (var epilogue in Epilogues)
            {
                var whole = expected[(int)epilogue];
                var width = whole.Length / Tokens;
                foreach (var batch in threads == 1 ? new[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17, 33 } : [1, 2, 12, Tokens])
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
    public void Batches_larger_than_a_tile_are_the_same_bit_for_bit([Values("AVX-512", "AVX2", "portable", "CUDA exact")] string lanes)
    {
        using var f = new LinearFixture(320, [(DType.Q4_1, 90), (DType.Q8_0, 6)], 2, lanes);
        var input = LinearFixture.Floats(300 * 320, 2);
        foreach (var epilogue in new[] { Epilogue.None, Epilogue.SiluGate })
        {
            var whole = f.Linear(input, null, epilogue);
            var width = whole.Length / 300;
            for (var t = 0; t < 300; t += 7)
                Assert.That(f.Linear(input[(t * 320)..((t + 1) * 320)], null, epilogue).AsSpan().SequenceEqual(whole.AsSpan(t * width, width)));
        }
    }

    [Test]
    public void Parts_of_different_forms_follow_each_other_in_the_order_given([Values] bool shuffle, [Values("", "CUDA")] string lanes)
    {
        using var f = new LinearFixture(256, [(DType.Q4_K, 33), (lanes == "CUDA" ? DType.Q8_0 : DType.Q6_K, 1), (DType.F16, 16), (DType.Q4_K, 7)], shuffle: shuffle, lanes: lanes);
        Assert.That((f.Weight.Rows, f.Weight.Columns), Is.EqualTo((57, 256)));
        var input = LinearFixture.Floats(6 * 256, 2);
        Check(f, input, null, Epilogue.None, f.Linear(input, null, Epilogue.None));
    }

    [TestCase(DType.F32, 1.0), TestCase(DType.F16, 1.0), TestCase(DType.BF16, 1.0), TestCase(DType.Q8_0, 1.0), TestCase(DType.Q4_0, 1.0),
     TestCase(DType.Q4_1, 1.0), TestCase(DType.Q4_K, 1.06), TestCase(DType.Q6_K, 1.02)]
    public void A_packed_weight_is_no_larger_than_its_source_but_for_scales(DType type, double factor)
    {
        using var f = new LinearFixture(1024, [(type, 64)]);
        Assert.That(f.Weight.Bytes, Is.LessThanOrEqualTo(factor * 64 * type.RowBytes(1024)));
    }

    [Test]
    public void Weights_and_activations_that_are_not_finite_stay_so_in_their_own_rows()
    {
        using var f = new LinearFixture(16, [(DType.F16, 3)]);
        var data = new Half[3 * 16];
        (data[0], data[17], data[34]) = (Half.PositiveInfinity, Half.NaN, Half.Epsilon);
        unsafe
        {
            fixed (Half* p = data)
            {
                using var weight = f.Device.Pack(new WeightData(DType.F16, 3, 16, (nint)p));
                var output = f.Device.Allocate(DType.F32, 1, 3);
                f.Device.Linear(output, f.Tensor(1, 16, Enumerable.Repeat(1f, 16).ToArray()), weight, default, Epilogue.None);
                var actual = new float[3];
                f.Device.Download(output, actual);
                Assert.That(actual, Is.EqualTo(new[] { float.PositiveInfinity, float.NaN, (float)Half.Epsilon }));
            }
        }
    }

    [Test]
    public void Nothing_is_allocated_after_the_first_call([Values(1, 40)] int tokens)
    {
        using var f = new LinearFixture(256, [(DType.Q4_K, 40), (DType.Q6_K, 8)]);
        Tensor input = f.Device.Allocate(DType.F32, tokens, 256), output = f.Device.Allocate(DType.F32, tokens, 24), wide = f.Device.Allocate(DType.F32, tokens, 48);
        for (var i = 0; i < 3; i++)
            Run();
        var before = GC.GetAllocatedBytesForCurrentThread();
        Run();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);

        void Run()
        {
            f.Device.Linear(output, input, f.Weight, default, Epilogue.SiluGate);
            f.Device.Linear(wide, input, f.Weight, default, Epilogue.Gelu);
        }
    }

    [Test]
    public void Shapes_that_do_not_fit_are_refused_with_the_shapes()
    {
        using var f = new LinearFixture(64, [(DType.Q8_0, 6)]);
        Tensor Make(int rows, int columns, DType type = DType.F32) => f.Device.Allocate(type, rows, columns);
        void Refused(Tensor output, Tensor input, Tensor bias, Epilogue epilogue, string part) => Assert.That(
            () => f.Device.Linear(output, input, f.Weight, bias, epilogue), Throws.ArgumentException.With.Message.Contains("Linear").Or.Message.Contains("expected")
                .And.Message.Contains(part));

        Refused(Make(2, 6), Make(2, 63), default, Epilogue.None, "[2, 63]");
        Refused(Make(3, 6), Make(2, 64), default, Epilogue.None, "[3, 6]");
        Refused(Make(2, 3), Make(2, 64), default, Epilogue.None, "[6, 64]");
        Refused(Make(2, 6), Make(2, 64), default, Epilogue.SiluGate, "gated");
        Refused(Make(2, 6), Make(2, 64), Make(1, 5), Epilogue.None, "[1, 5]");
        Refused(Make(2, 6), Make(2, 64, DType.I32), default, Epilogue.None, "I32 [2, 64]");
        Assert.DoesNotThrow(() => f.Device.Linear(Make(0, 6), Make(0, 64), f.Weight, default, Epilogue.None));
        f.Weight.Dispose();
        Assert.That(() => f.Device.Linear(Make(2, 6), Make(2, 64), f.Weight, default, Epilogue.None), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public unsafe void Parts_that_cannot_be_packed_are_refused()
    {
        using var device = new CpuDevice(1);
        var data = stackalloc byte[4096];
        WeightData Part(DType type, int rows, int columns, int[]? order = null) => new(type, rows, columns, (nint)data, order);
        Assert.That(() => device.Pack(), Throws.ArgumentException);
        Assert.That(() => device.Pack(Part(DType.F32, 2, 8), Part(DType.F32, 2, 16)), Throws.ArgumentException.With.Message.Contains("8 and 16"));
        Assert.That(() => device.Pack(Part(DType.Q2_K, 2, 256)), Throws.TypeOf<NotSupportedException>().With.Message.Contains("Q2_K"));
        Assert.That(() => device.Pack(Part(DType.Q4_K, 2, 128)), Throws.TypeOf<NotSupportedException>().With.Message.Contains("128"));
        Assert.That(() => device.Pack(Part(DType.F32, 0, 8)), Throws.ArgumentException);
        Assert.That(() => device.Pack(Part(DType.F32, 2, 8, [0])), Throws.ArgumentException);
        Assert.That(() => device.Pack(Part(DType.F32, 2, 8, [0, 2])), Throws.ArgumentException);
        Assert.That(device.Computes(DType.Q4_K, 512) && device.Computes(DType.F32, 1) && !device.Computes(DType.Q4_1, 33) && !device.Computes(DType.F8E4M3, 32));
    }

    /// <summary>The definition, in double precision; the tolerance is the rounding of sums of so many terms.</summary>
    private static void Check(LinearFixture f, float[] input, float[]? bias, Epilogue epilogue, float[] actual)
    {
        int k = f.Columns, rows = f.Weight.Rows, tokens = input.Length / k;
        var gated = epilogue.IsGated();
        var outputs = gated ? rows / 2 : rows;
        for (var t = 0; t < tokens; t++)
            for (var n = 0; n < outputs; n++)
            {
                var (sum, error) = Sum(n);
                var (y, slope) = (Apply(epilogue, sum), epilogue == Epilogue.None ? 1 : 1.2);
                var tolerance = slope * error + (epilogue == Epilogue.None ? 0 : 4e-7 * (Math.Abs(sum) + 0.1));
                if (gated)
                {
                    var (value, valueError) = Sum(n + outputs);
                    tolerance = tolerance * (Math.Abs(value) + valueError) + Math.Abs(y) * valueError;
                    y *= value;
                }
                Assert.That(Math.Abs(actual[t * outputs + n] - y), Is.LessThanOrEqualTo(tolerance + Math.Abs(y) * 1e-7), $"{epilogue} {actual[t * outputs + n]}, expected {y}");

                (double, double) Sum(int row)
                {
                    double s = bias?[row] ?? 0, size = Math.Abs(s), largest = 0, activations = 0;
                    for (var i = 0; i < k; i++)
                    {
                        var (w, x) = (f.Values[row * k + i], input[t * k + i]);
                        s += (double)w * x;
                        size += Math.Abs((double)w * x);
                        largest = Math.Max(largest, Math.Abs(w));
                        activations += Math.Abs(x);
                    }
                    // Half the products of a chunk are in a chain; an element's own rounding is one of its block's largest.
                    return (s, 6e-8 * ((Math.Min(k, 256) / 2 + k / 256 + 4) * size + 4 * largest * activations) + 1e-37);
                }
            }
    }

    private static double Apply(Epilogue epilogue, double x) => epilogue switch
    {
        Epilogue.Gelu => x * LinearLanesTests.NormalCdf(x),
        Epilogue.GeluTanh or Epilogue.GeluTanhGate => 0.5 * x * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
        Epilogue.QuickGelu => x / (1 + Math.Exp(-1.702 * x)),
        Epilogue.Silu or Epilogue.SiluGate => x / (1 + Math.Exp(-x)),
        _ => x,
    };
}
