using Trimtab.Model;

namespace Trimtab.Tests;

public class RopeTests
{
    private static readonly int[] Positions = [0, 1, 2, 17, 255, 256, 1000, 4095];

    /// <summary>Compares frequencies and rows with frequencies computed in another way, in double.</summary>
    private static void Check(RopeSpec spec, Func<int, double> frequency, double scale = 1, int length = 0)
    {
        var rope = new Rope(spec);
        var half = spec.Dimension / 2;
        var row = new float[spec.Dimension];
        using (Assert.EnterMultipleScope())
            foreach (var position in Positions)
            {
                rope.Fill(position, length, row);
                for (var i = 0; i < half; i++)
                {
                    // A float's rounding of frequency and angle, a few steps of it.
                    var angle = position * frequency(i);
                    var tolerance = 1e-6 + 5e-7 * angle;
                    Assert.That(row[i], Is.EqualTo(scale * Math.Cos(angle)).Within(tolerance), $"cos {position} {i}");
                    Assert.That(row[half + i], Is.EqualTo(scale * Math.Sin(angle)).Within(tolerance), $"sin {position} {i}");
                }
            }
    }

    private static double Plain(double theta, int i, int dimension) => Math.Exp(-Math.Log(theta) * 2 * i / dimension);

    [TestCase(10000.0, 128)]
    [TestCase(500000.0, 16)]
    [TestCase(1000000.0, 80)]
    [TestCase(10000.0, 2)]
    public void Turns_by_geometric_frequencies(double theta, int dimension) =>
        Check(new(RopeKind.Default, theta, dimension, 4096), i => Plain(theta, i, dimension));

    [Test]
    public void Rounds_as_float_arithmetic_does()
    {
        // What float32 gives for θ = 10,000 and R = 64: inverse frequencies and products rounded to float, then the cosine.
        var rope = new Rope(new(RopeKind.Default, 10000, 64, 4096));
        var row = new float[64];
        rope.Fill(3999, 4000, row);
        for (var i = 0; i < 32; i++)
        {
            var frequency = 1f / (float)Math.Pow(10000, i / 32.0);
            Assert.That(rope.InverseFrequencies[i], Is.EqualTo(frequency));
            Assert.That(row[i], Is.EqualTo((float)Math.Cos(3999f * frequency)).Within(1e-7));
        }
    }

    [Test]
    public void Interpolates_positions_linearly() =>
        Check(new(RopeKind.Linear, 10000, 32, 4096, 4), i => Plain(10000, i, 32) / 4);

    [TestCase(100)]
    [TestCase(2048)]
    [TestCase(2049)]
    [TestCase(4096)]
    [TestCase(10000)]
    public void Stretches_the_base_with_the_length(int length)
    {
        // The lowest frequency is divided by the factor's excess, the highest stays; those between are a geometric row.
        const double Factor = 4, Max = 2048;
        var stretch = length <= Max ? 1 : Factor * length / Max - Factor + 1;
        Check(new(RopeKind.Dynamic, 10000, 32, (int)Max, Factor), i => Plain(10000, i, 32) * Math.Pow(stretch, -i / 15.0), length: length);
    }

    [Test]
    public void Forgets_a_longer_sequence_when_a_shorter_one_comes()
    {
        var rope = new Rope(new(RopeKind.Dynamic, 10000, 32, 64, 2));
        var (before, between, after) = (new float[32], new float[32], new float[32]);
        rope.Fill(50, 51, before);
        rope.Fill(50, 200, between);
        rope.Fill(50, 51, after);
        Assert.That(after, Is.EqualTo(before));
        Assert.That(between, Is.Not.EqualTo(before));
    }

    [TestCase(500000.0, 32, 8.0, 64)]
    [TestCase(500000.0, 128, 8.0, 8192)]
    [TestCase(10000.0, 64, 32.0, 256)]
    public void Interpolates_by_wavelength_as_llama_3(double theta, int dimension, double factor, int original)
    {
        const double Low = 1, High = 4;
        Check(new(RopeKind.Llama3, theta, dimension, 131072, factor, original, Low, High), i =>
        {
            var f = Plain(theta, i, dimension);
            var turns = original * f / (2 * Math.PI);
            // How much of the frequency stays: all above High turns, 1/factor below Low, a line between.
            var share = Math.Clamp((turns - Low) / (High - Low), 0, 1);
            return f * (share + (1 - share) / factor);
        });
    }

    [TestCase(10000.0, 128, 16.0, 4096, true)]
    [TestCase(1000000.0, 128, 4.0, 32768, true)]
    [TestCase(10000.0, 64, 8.0, 2048, false)]
    [TestCase(150000.0, 64, 32.0, 4096, false)]
    public void Mixes_by_parts_as_yarn(double theta, int dimension, double factor, int original, bool truncate)
    {
        // Pair i turns original · f / 2π times: 32 turns at ramp's start, one at its end, in units of pairs.
        double Pair(double turns) => dimension / 2.0 * (Math.Log(original) - Math.Log(turns * Math.Tau)) / Math.Log(theta);
        var (low, high) = (Pair(32), Pair(1));
        if (truncate)
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        low = Math.Max(low, 0);
        Check(new(RopeKind.Yarn, theta, dimension, (int)(original * factor), factor, original, Truncate: truncate), i =>
        {
            var ramp = Math.Clamp((i - low) / (high - low), 0, 1);
            return Plain(theta, i, dimension) * (1 - ramp + ramp / factor);
        }, 1 + 0.1 * Math.Log(factor));
    }

    [Test]
    public void Scales_attention_as_yarns_options_say()
    {
        var spec = new RopeSpec(RopeKind.Yarn, 10000, 64, 8192, 8, 1024);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(new Rope(spec).AttentionScale, Is.EqualTo(1.2079442f).Within(1e-6));
            Assert.That(new Rope(spec with { Factor = 1 }).AttentionScale, Is.EqualTo(1));
            Assert.That(new Rope(spec with { AttentionFactor = 1.5 }).AttentionScale, Is.EqualTo(1.5f));
            Assert.That(new Rope(spec with { MScale = 2, MScaleAllDimensions = 1 }).AttentionScale, Is.EqualTo(1.4158883f / 1.2079442f).Within(1e-6));
            Assert.That(new Rope(spec with { MScale = 1, MScaleAllDimensions = 1 }).AttentionScale, Is.EqualTo(1));
            Assert.That(new Rope(spec with { MScale = 2 }).AttentionScale, Is.EqualTo(1.2079442f).Within(1e-6));
            Assert.That(new Rope(spec with { Kind = RopeKind.Linear }).AttentionScale, Is.EqualTo(1));
        }
    }

    [Test]
    public void Divides_frequencies_as_a_gguf_says()
    {
        float[] divisors = [1, 1, 1.5f, 3, 8, 8, 8, 8];
        Check(new(RopeKind.Default, 500000, 16, 4096, Frequencies: divisors), i => Plain(500000, i, 16) / divisors[i]);
    }

    [Test]
    public void Finds_llama_3s_scaling_again_in_a_ggufs_divisors()
    {
        // llama.cpp's converter stores plain frequency / scaled frequency.
        var spec = new RopeSpec(RopeKind.Llama3, 500000, 32, 2048, 8, 64);
        var (scaled, plain) = (new Rope(spec), new Rope(spec with { Kind = RopeKind.Default }));
        var divisors = new float[16];
        for (var i = 0; i < 16; i++)
            divisors[i] = plain.InverseFrequencies[i] / scaled.InverseFrequencies[i];
        Assert.That(divisors, Has.Some.EqualTo(8f).And.Some.EqualTo(1f));
        var divided = new Rope(spec with { Kind = RopeKind.Default, Frequencies = divisors });
        for (var i = 0; i < 16; i++)
            Assert.That(divided.InverseFrequencies[i], Is.EqualTo(scaled.InverseFrequencies[i]).Within(0.0001).Percent);
    }

    [Test]
    public void Gives_the_same_row_from_many_threads_and_beyond_its_table()
    {
        var spec = new RopeSpec(RopeKind.Default, 10000, 16, 4096);
        var shared = new Rope(spec);
        Parallel.For(0, 4000, i =>
        {
            var position = i * 977 % 3001 + (i % 50 == 0 ? 1 << 18 : 0);
            var row = new float[16];
            shared.Fill(position, position + 1, row);
            for (var j = 0; j < 8; j++)
                if (row[j] != (float)Math.Cos(position * shared.InverseFrequencies[j]) || row[8 + j] != (float)Math.Sin(position * shared.InverseFrequencies[j]))
                    throw new InvalidOperationException($"position {position}, pair {j}");
        });
        var last = new float[16];
        shared.Fill(int.MaxValue, 0, last);
        Assert.That(last, Is.All.InRange(-1f, 1f));
    }

    [Test]
    public void Refuses_what_cannot_be_a_row()
    {
        var rope = new Rope(new(RopeKind.Default, 10000, 16, 4096));
        Assert.Throws<ArgumentOutOfRangeException>(() => rope.Fill(-1, 0, new float[16]));
        Assert.Throws<ArgumentException>(() => rope.Fill(0, 0, new float[15]));
        Assert.Throws<ArgumentException>(() => _ = new Rope(new(RopeKind.Default, 10000, 15, 4096)));
        Assert.Throws<ArgumentException>(() => _ = new Rope(new(RopeKind.Default, 10000, 16, 4096, Frequencies: [1])));
    }

    [Test]
    public void Turns_a_long_sequence_by_other_frequencies()
    {
        float[] brief = [1, 1.5f, 2, 4], lengthy = [1, 3, 9, 27];
        var spec = new RopeSpec(RopeKind.LongRope, 10000, 8, 4096, Factor: 32, OriginalPositions: 128, Frequencies: brief) { LongFrequencies = lengthy };
        var scale = Math.Sqrt(1 + Math.Log(32) / Math.Log(128));
        Check(spec, i => Plain(10000, i, 8) / brief[i], scale, length: 128);
        Check(spec, i => Plain(10000, i, 8) / lengthy[i], scale, length: 129);
        Check(spec with { AttentionFactor = 1.25 }, i => Plain(10000, i, 8) / lengthy[i], 1.25, length: 5000);
        Assert.That((new Rope(spec).IsLong(128), new Rope(spec).IsLong(129)), Is.EqualTo((false, true)));
        Assert.Throws<ArgumentException>(() => _ = new Rope(spec with { LongFrequencies = null }));
    }
}
