using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Steering;
using Trimtab.Tests.Checkpoints;

namespace Trimtab.Tests.Steering;

public class ShiftExtractionTests
{
    [Test]
    public void Agrees_with_the_fixtures([Values("llava-gqa", "llava-llama3")] string model, [Values("blank", "noise")] string image)
    {
        using var file = Checkpoint.Open(Shared.Path("fixtures", "expected", $"{model}.safetensors"));
        using var json = JsonDocument.Parse(File.ReadAllText(Shared.Path("fixtures", "expected", $"{model}.json")));
        var shape = file.Tensors[$"cmrm.{image}.d"].Shape;
        var extraction = new ShiftExtraction((int)shape[1], (int)shape[2]);
        foreach (var difference in SafetensorsTests.Floats(file, $"cmrm.{image}.d").Chunk((int)(shape[1] * shape[2])))
            extraction.Add(difference);
        Assert.That(extraction.Count, Is.EqualTo(shape[0]));
        foreach (var (method, name) in new[] { (ShiftMethod.Mean, "mean"), (ShiftMethod.Pc, "pc"), (ShiftMethod.UnitPc, "unit_pc") })
        {
            var expected = SafetensorsTests.Floats(file, $"cmrm.{image}.{name}").Chunk((int)shape[2]).ToArray();
            var actual = extraction.Compute(method);
            for (var layer = 0; layer < expected.Length; layer++)
                Assert.That(Distance(actual[layer], expected[layer]) / Length(expected[layer]), Is.LessThan(1e-4), $"{name}, layer {layer + 1}");
        }
        var explained = json.RootElement.GetProperty("cmrm").GetProperty(image).GetProperty("explained").EnumerateArray().Select(value => value.GetDouble()).ToArray();
        Assert.That(extraction.Explained(), Is.EqualTo(explained).Within(1e-5));
    }

    [Test]
    public void Finds_a_direction_planted_in_noise_with_few_and_with_many_anchors([Values(2, 7, 40, 150)] int anchors, [Values(3, 64)] int width)
    {
        var random = new Random(anchors);
        var planted = Enumerable.Range(0, width).Select(_ => random.NextDouble() - 0.5).ToArray();
        var length = Math.Sqrt(planted.Sum(value => value * value));
        var extraction = new ShiftExtraction(2, width);
        for (var i = 0; i < anchors; i++)
        {
            var along = 3 - i % 5;
            var row = planted.Select(value => (float)(along * value / length + 1e-4 * random.NextDouble())).ToArray();
            extraction.Add([.. row, .. row.Select(value => -value)]);
        }
        var unit = extraction.Compute(ShiftMethod.UnitPc);
        Assert.That(Math.Abs(unit[0].Zip(planted, (a, b) => a * b / length).Sum()), Is.EqualTo(1).Within(1e-5));
        Assert.That(unit[1], Is.EqualTo(unit[0].Select(value => -value)), "the sign follows the mean");
        Assert.That(Length(unit[0]), Is.EqualTo(1).Within(1e-6));
        var mean = extraction.Compute(ShiftMethod.Mean)[0];
        var projection = mean.Zip(unit[0], (a, b) => (double)a * b).Sum();
        Assert.That(projection, Is.GreaterThan(0));
        Assert.That(extraction.Compute(ShiftMethod.Pc)[0], Is.EqualTo(unit[0].Select(value => (float)(value * projection))).Within(1e-5));
        Assert.That(extraction.Explained()[0], Is.InRange(0.999, 1.0));
    }

    [Test]
    public void Close_eigenvalues_are_told_apart()
    {
        // Variances 1 and 1 - 1e-5 along two axes: a power iteration would need a million steps.
        var extraction = new ShiftExtraction(1, 3);
        foreach (var (x, y) in new[] { (1f, 0f), (-1f, 0f), (0f, 0.999995f), (0f, -0.999995f) })
            extraction.Add([y + 0.25f, x + 0.5f, 0]);
        Assert.That(extraction.Compute(ShiftMethod.UnitPc)[0], Is.EqualTo(new[] { 0f, 1, 0 }).Within(1e-6));
        Assert.That(extraction.Compute(ShiftMethod.Pc)[0], Is.EqualTo(new[] { 0f, 0.5f, 0 }).Within(1e-6));
        Assert.That(extraction.Explained()[0], Is.EqualTo(0.5).Within(1e-5));
    }

    [Test]
    public void One_anchor_or_equal_ones_give_the_mean()
    {
        foreach (var anchors in new[] { 1, 7 })
        {
            var extraction = new ShiftExtraction(2, 2);
            for (var i = 0; i < anchors; i++)
                extraction.Add([0.3f, -0.4f, 0, 0]);
            Assert.That(extraction.Compute(ShiftMethod.Mean)[0], Is.EqualTo(new[] { 0.3f, -0.4f }));
            Assert.That(extraction.Compute(ShiftMethod.Pc)[0], Is.EqualTo(new[] { 0.3f, -0.4f }).Within(1e-7));
            Assert.That(extraction.Compute(ShiftMethod.UnitPc)[0], Is.EqualTo(new[] { 0.6f, -0.8f }).Within(1e-6));
            Assert.That(extraction.Compute(ShiftMethod.UnitPc)[1], Is.EqualTo(new[] { 0f, 0 }));
            Assert.That(extraction.Explained(), Is.EqualTo(new[] { 0.0, 0 }));
        }
    }

    [Test]
    public void A_mean_at_right_angles_leaves_a_defined_sign_and_no_length()
    {
        foreach (var sign in new[] { 1f, -1 })
        {
            var extraction = new ShiftExtraction(1, 2);
            extraction.Add([1, -2 * sign]);
            extraction.Add([1, 2 * sign]);
            Assert.That(extraction.Compute(ShiftMethod.UnitPc)[0], Is.EqualTo(new[] { 0f, 1 }).Within(1e-7));
            Assert.That(extraction.Compute(ShiftMethod.Pc)[0], Is.EqualTo(new[] { 0f, 0 }).Within(1e-7));
            Assert.That(extraction.Explained()[0], Is.EqualTo(1).Within(1e-12));
        }
    }

    [Test]
    public void Equal_eigenvalues_give_a_unit_vector_and_the_same_bits_every_time()
    {
        static float[] Vector()
        {
            var extraction = new ShiftExtraction(1, 5);
            for (var i = 0; i < 4; i++)
            {
                var row = new float[5];
                row[i] = 1;
                extraction.Add(row);
            }
            Assert.That(extraction.Explained()[0], Is.EqualTo(1 / 3.0).Within(1e-9));
            return extraction.Compute(ShiftMethod.UnitPc)[0];
        }
        var first = Vector();
        Assert.That(Length(first), Is.EqualTo(1).Within(1e-6));
        Assert.That(Vector(), Is.EqualTo(first));
    }

    [Test]
    public void Extreme_scales_neither_vanish_nor_overflow([Values(1e-40f, 1e-20f, 1e38f)] float scale)
    {
        var extraction = new ShiftExtraction(1, 2);
        extraction.Add([scale, 0]);
        extraction.Add([2 * scale, 0]);
        extraction.Add([3 * scale, scale / 10]);
        Assert.That(extraction.Compute(ShiftMethod.UnitPc)[0][0], Is.EqualTo(1).Within(0.01));
        Assert.That(extraction.Compute(ShiftMethod.Pc)[0][0] / scale, Is.EqualTo(2).Within(0.02));
    }

    [Test]
    public void Bad_differences_are_refused()
    {
        var extraction = new ShiftExtraction(2, 2);
        Assert.That(() => extraction.Add(new float[3]), Throws.ArgumentException);
        Assert.That(() => extraction.Add([1, 2, float.NaN, 4]), Throws.ArgumentException.With.Message.Contains("layer 2").And.Message.Contains("element 0"));
        Assert.That(() => extraction.Compute(ShiftMethod.Mean), Throws.InvalidOperationException);
        Assert.That(() => extraction.Explained(), Throws.InvalidOperationException);
        Assert.That(() => new ShiftExtraction(0, 2), Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void A_component_as_long_as_its_deviation_keeps_the_populations()
    {
        var extraction = new ShiftExtraction(1, 2);
        foreach (var along in new[] { -1f, -3, -8 })
            extraction.Add([along, 0.5f]);
        // Projections −1, −3, −8: mean −4, variance (9 + 1 + 16) / 3; the sign follows the mean.
        Assert.That(extraction.Compute(ShiftMethod.PcSigma)[0], Is.EqualTo(new[] { -(float)Math.Sqrt(26 / 3.0), 0 }).Within(1e-6));
        Assert.That(extraction.Compute(ShiftMethod.Sequential), Is.EqualTo(extraction.Compute(ShiftMethod.Mean)));
        var shift = extraction.Measure(ShiftMethod.Pc)[0];
        Assert.That(shift.Norm, Is.EqualTo(4).Within(1e-9));
        Assert.That(shift.Explained, Is.EqualTo(1).Within(1e-9));
        Assert.That(shift.Cosine, Is.EqualTo(4 / Math.Sqrt(16.25)).Within(1e-9));
        Assert.That(shift.ProjectionMean, Is.EqualTo(4).Within(1e-9));
        Assert.That(shift.ProjectionSigma, Is.EqualTo(Math.Sqrt(26 / 3.0)).Within(1e-9));
        // Even anchors −1 and −8 vary along x; the odd one alone is its own mean.
        Assert.That(shift.SplitHalf, Is.EqualTo(3 / Math.Sqrt(9.25)).Within(1e-9));
    }

    [Test]
    public void One_anchor_has_no_halves_and_no_deviation()
    {
        var extraction = new ShiftExtraction(2, 2);
        extraction.Add([3, 4, 0, 0]);
        var shifts = extraction.Measure(ShiftMethod.Mean);
        Assert.That(shifts[0].SplitHalf, Is.NaN);
        Assert.That((shifts[0].ProjectionMean, shifts[0].ProjectionSigma, shifts[0].Cosine), Is.EqualTo((5.0, 0.0, 1.0)));
        Assert.That((shifts[1].Norm, shifts[1].ProjectionMean), Is.EqualTo((0.0, 0.0)));
        Assert.That(shifts[1].Cosine, Is.NaN);
        Assert.That(extraction.Compute(ShiftMethod.PcSigma)[0], Is.EqualTo(new float[2]));
    }

    [TestCase(300, 310, 1.0), TestCase(310, 300, 1.0), TestCase(300, 300, 1e-20), TestCase(300, 300, 1e18)]
    public void Large_sets_agree_with_what_power_iteration_finds(int anchors, int width, double scale)
    {
        // Both sides above 256: Lanczos. Two strong directions, the weaker 0.8 of the stronger, in uniform noise.
        var random = new Random(anchors);
        var rows = new double[anchors][];
        for (var i = 0; i < anchors; i++)
        {
            rows[i] = [.. Enumerable.Range(0, width).Select(_ => random.NextDouble() - 0.5)];
            rows[i][3] += 20 * Math.Sin(i);
            rows[i][7] += 16 * Math.Cos(1.7 * i);
        }
        var extraction = new ShiftExtraction(1, width);
        foreach (var row in rows)
            extraction.Add(Array.ConvertAll(row, value => (float)(scale * value)));
        var unit = extraction.Compute(ShiftMethod.UnitPc)[0];
        for (var j = 0; j < width; j++)
        {
            var mean = rows.Average(row => row[j]);
            foreach (var row in rows)
                row[j] -= mean;
        }
        var expected = new double[width];
        Array.Fill(expected, 1);
        for (var step = 0; step < 200; step++)
        {
            var next = new double[width];
            foreach (var row in rows)
            {
                var projection = row.Zip(expected, (a, b) => a * b).Sum();
                for (var j = 0; j < width; j++)
                    next[j] += projection * row[j];
            }
            var length = Math.Sqrt(next.Sum(value => value * value));
            expected = Array.ConvertAll(next, value => value / length);
        }
        Assert.That(Math.Abs(unit.Zip(expected, (a, b) => a * b).Sum()), Is.EqualTo(1).Within(1e-6));
        var share = rows.Sum(row => Math.Pow(row.Zip(expected, (a, b) => a * b).Sum(), 2)) / rows.Sum(row => row.Sum(value => value * value));
        Assert.That(extraction.Explained()[0], Is.EqualTo(share).Within(1e-6));
    }

    private static double Length(float[] values) => Math.Sqrt(values.Sum(value => (double)value * value));

    private static double Distance(float[] left, float[] right) => Math.Sqrt(left.Zip(right, (a, b) => Math.Pow((double)a - b, 2)).Sum());
}
