using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Tests.Kernels;

public class SamplingTests
{
    [TestCase(0u, 0u, 0u, 0u, 0u, 0u, 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u)]
    [TestCase(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu)]
    [TestCase(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u, 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u)]
    public void Philox_gives_the_published_answers(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1, uint x0, uint x1, uint x2, uint x3) =>
        Assert.That(Philox.Block(c0, c1, c2, c3, k0, k1), Is.EqualTo((x0, x1, x2, x3)));

    [Test]
    public void Uniform_numbers_lie_in_the_unit_interval_and_spread_evenly()
    {
        var buckets = new int[16];
        for (var i = 0ul; i < 16_000; i++)
            buckets[(int)(Philox.Uniform(42, i) * 16)]++;
        Assert.That(buckets, Is.All.InRange(850, 1150));
    }

    [Test]
    public void Distributions_equal_the_golden_ones()
    {
        using var json = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", "sampling.json")));
        var tensors = Tensors(Shared.Path("fixtures", "expected", "sampling.safetensors"));
        var index = 0;
        foreach (var c in json.RootElement.GetProperty("cases").EnumerateArray())
        {
            var (logits, expected) = (tensors.Single(t => IsFor(t.Key, index) && t.Key.Contains("logits")).Value, tensors.Single(t => IsFor(t.Key, index) && t.Key.Contains("prob")).Value);
            float F(string name) => c.GetProperty(name).GetSingle();
            int[] Ids(string name) => c.GetProperty(name).EnumerateArray().Select(e => e.GetInt32()).ToArray();
            var sampler = new Sampler(new SamplingOptions
            {
                Temperature = F("temperature"), TopK = c.GetProperty("top_k").GetInt32(), TopP = F("top_p"), MinP = F("min_p"), RepetitionPenalty = F("repetition_penalty"),
                PresencePenalty = F("presence_penalty"), FrequencyPenalty = F("frequency_penalty"),
                LogitBias = c.GetProperty("logit_bias").EnumerateObject().ToDictionary(b => int.Parse(b.Name), b => b.Value.GetSingle()),
            }, logits.Length);
            sampler.Prompt(Ids("prompt"));
            sampler.Generated(Ids("generated"));
            var probabilities = new double[logits.Length];
            sampler.Distribution(logits, probabilities);
            for (var i = 0; i < logits.Length; i++)
                Assert.That(probabilities[i], Is.EqualTo(expected[i]).Within(1e-5), $"case {index}, token {i}");
            index++;
        }
        Assert.That(index, Is.EqualTo(24));
    }

    private static bool IsFor(string name, int index) => new string(name.Where(char.IsAsciiDigit).ToArray()) == index.ToString();

    private static Dictionary<string, float[]> Tensors(string path)
    {
        var bytes = File.ReadAllBytes(path);
        var start = 8 + (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        using var header = JsonDocument.Parse(bytes.AsMemory(8, start - 8));
        return header.RootElement.EnumerateObject().Where(t => t.Name != "__metadata__").ToDictionary(t => t.Name, t =>
        {
            var offsets = t.Value.GetProperty("data_offsets");
            var data = bytes.AsSpan(start + offsets[0].GetInt32(), offsets[1].GetInt32() - offsets[0].GetInt32());
            return t.Value.GetProperty("dtype").GetString() == "F64"
                ? MemoryMarshal.Cast<byte, double>(data).ToArray().Select(d => (float)d).ToArray() : MemoryMarshal.Cast<byte, float>(data).ToArray();
        });
    }

    /// <summary>The definition, by sorting everything, in the order that <see cref="SamplingOptions"/> gives.</summary>
    private static double[] Naive(float[] logits, SamplingOptions o)
    {
        var largest = logits.Max();
        var p = logits.Select(l => Math.Exp(((double)l - largest) / o.Temperature)).ToArray();
        p = p.Select(w => w < o.MinP ? 0 : w).ToArray();
        if (o.TopK > 0 && o.TopK < p.Length)
        {
            var last = logits.OrderDescending().ElementAt(o.TopK - 1);
            p = p.Select((w, i) => logits[i] < last ? 0 : w).ToArray();
        }
        if (o.TopP < 1)
        {
            var (total, reached) = (p.Sum(), 0.0);
            foreach (var i in Enumerable.Range(0, p.Length).OrderByDescending(i => logits[i]).ThenBy(i => i))
            {
                var drop = reached >= o.TopP * total;
                reached += p[i];
                p[i] = drop ? 0 : p[i];
            }
        }
        return p.Select(w => w / p.Sum()).ToArray();
    }

    [Test]
    public void Filters_equal_their_definition_at_odd_sizes_and_with_ties()
    {
        var random = new Random(3);
        for (var trial = 0; trial < 700; trial++)
        {
            var logits = Enumerable.Range(0, trial < 600 ? random.Next(1, 70) : random.Next(500, 4000)).Select(_ => trial % 2 == 0 ? random.Next(-3, 4) : (float)(random.NextDouble() * 12 - 6)).ToArray();
            var options = new SamplingOptions
            {
                Temperature = 0.1f + random.NextSingle() * 2, TopK = random.Next(3) * random.Next(20), TopP = random.Next(2) == 0 ? 1 : 0.05f + 0.9f * random.NextSingle(),
                MinP = random.Next(2) * random.NextSingle() * 0.5f,
            };
            var probabilities = new double[logits.Length];
            new Sampler(options, logits.Length).Distribution(logits, probabilities);
            var expected = Naive(logits, options);
            for (var i = 0; i < logits.Length; i++)
                Assert.That(probabilities[i], Is.EqualTo(expected[i]).Within(1e-9), $"trial {trial}: {options}, token {i}");
        }
    }

    [TestCase(1f, 0, 1f, 0f)]
    [TestCase(0.7f, 12, 0.9f, 0.02f)]
    [TestCase(1.6f, 0, 0.95f, 0f)]
    public void Draws_follow_the_distribution(float temperature, int topK, float topP, float minP)
    {
        const int vocabulary = 33, draws = 30_000;
        var random = new Random(8);
        var logits = Enumerable.Range(0, vocabulary).Select(_ => (float)(random.NextDouble() * 6)).ToArray();
        var options = new SamplingOptions { Temperature = temperature, TopK = topK, TopP = topP, MinP = minP, Seed = 0x1234_5678_9abc_def0 };
        var probabilities = new double[vocabulary];
        var sampler = new Sampler(options, vocabulary);
        sampler.Distribution(logits, probabilities);
        var counts = new int[vocabulary];
        for (var i = 0; i < draws; i++)
            counts[sampler.Next(logits).Token]++;
        var chiSquare = 0.0;
        var freedom = -1;
        for (var i = 0; i < vocabulary; i++)
        {
            if (probabilities[i] == 0)
                Assert.That(counts[i], Is.Zero, "a dropped token was drawn");
            else
            {
                freedom++;
                chiSquare += Math.Pow(counts[i] - draws * probabilities[i], 2) / (draws * probabilities[i]);
            }
        }
        // Four standard deviations above the mean of the chi-square distribution.
        Assert.That(chiSquare, Is.LessThan(freedom + 4 * Math.Sqrt(2 * freedom)));
    }

    [Test]
    public void A_draw_depends_on_seed_and_position_alone()
    {
        var random = new Random(1);
        var logits = Enumerable.Range(0, 50).Select(_ => random.NextSingle()).ToArray();
        var options = new SamplingOptions { Temperature = 1, Seed = 77 };
        var whole = new Sampler(options, 50);
        var tokens = Enumerable.Range(0, 20).Select(_ => whole.Next(logits).Token).ToArray();
        var resumed = new Sampler(options, 50);
        resumed.Generated(tokens.AsSpan(0, 12));
        Assert.That(Enumerable.Range(0, 8).Select(_ => resumed.Next(logits).Token), Is.EqualTo(tokens[12..]));
        var other = new Sampler(options with { Seed = 78 }, 50);
        Assert.That(Enumerable.Range(0, 20).Select(_ => other.Next(logits).Token), Is.Not.EqualTo(tokens));
    }

    [Test]
    public void Greedy_takes_the_lowest_id_of_the_largest_after_bias_and_penalties()
    {
        Assert.That(new Sampler(new(), 4).Next([1, 3, 3, 2]).Token, Is.EqualTo(1));
        Assert.That(new Sampler(new() { LogitBias = new Dictionary<int, float> { [3] = 2, [1] = float.NegativeInfinity } }, 4).Next([1, 3, 3, 2]).Token, Is.EqualTo(3));
        var repetition = new Sampler(new() { RepetitionPenalty = 2 }, 3);
        repetition.Prompt([1, 500, -1]);
        Assert.That(new[] { 0, 0 }.Select(_ => repetition.Next([1.6f, 3, -9]).Token), Is.EqualTo(new[] { 0, 1 }));
        var frequency = new Sampler(new() { FrequencyPenalty = 1 }, 2);
        frequency.Prompt([0, 0, 0]);
        Assert.That(Enumerable.Range(0, 4).Select(_ => frequency.Next([2.5f, 1]).Token), Is.EqualTo(new[] { 0, 0, 1, 0 }));
        var presence = new Sampler(new() { PresencePenalty = 1 }, 2);
        Assert.That(Enumerable.Range(0, 4).Select(_ => presence.Next([2.5f, 1.7f]).Token), Is.EqualTo(new[] { 0, 1, 0, 0 }));
    }

    [Test]
    public void Log_probabilities_are_those_of_the_raw_logits()
    {
        float[] logits = [1, 4, 4, 2, float.NegativeInfinity];
        var sampled = new Sampler(new() { Temperature = 0.1f, TopK = 1, TopLogProbs = 3, LogitBias = new Dictionary<int, float> { [3] = 100 } }, 5).Next(logits);
        var normaliser = Math.Log(logits.Sum(l => Math.Exp(l)));
        Assert.That(sampled.Token, Is.EqualTo(3));
        Assert.That(sampled.LogProb, Is.EqualTo(2 - normaliser).Within(1e-6));
        Assert.That(sampled.Top!.Select(t => t.Token), Is.EqualTo(new[] { 1, 2, 3 }));
        Assert.That(sampled.Top![0].LogProb, Is.EqualTo(4 - normaliser).Within(1e-6));
        Assert.That(new Sampler(new(), 5).Next(logits).LogProb, Is.NaN);
        Assert.That(new Sampler(new(), 5).Next(logits, logProb: true).LogProb, Is.EqualTo(4 - normaliser).Within(1e-6));
    }

    [Test]
    public void A_large_vocabulary_takes_no_memory_a_step()
    {
        var random = new Random(2);
        var logits = Enumerable.Range(0, 50_001).Select(_ => random.NextSingle() * 10).ToArray();
        var sampler = new Sampler(new() { Temperature = 0.8f, TopK = 50, TopP = 0.9f, RepetitionPenalty = 1.1f }, logits.Length);
        sampler.Prompt([1, 2, 3]);
        for (var i = 0; i < 10; i++)
            sampler.Next(logits, logProb: true);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 5; i++)
            sampler.Next(logits, logProb: true);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(200));
    }

    [Test]
    public void Extreme_logits_and_temperatures_still_make_a_distribution()
    {
        var probabilities = new double[4];
        foreach (var temperature in (float[])[1e-30f, 1e-3f, 1, 1e30f])
        {
            new Sampler(new() { Temperature = temperature }, 4).Distribution([-3e38f, 3e38f, float.NegativeInfinity, 0], probabilities);
            Assert.That(probabilities.Sum(), Is.EqualTo(1).Within(1e-12));
            Assert.That(probabilities[2], Is.Zero);
        }
    }

    [Test]
    public void A_sampler_that_has_not_drawn_takes_no_memory_of_the_vocabularys_size()
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        var sampler = new Sampler(new() { Temperature = 1, TopK = 20, TopP = 0.9f }, 1_000_000);
        sampler.Prompt([1, 2, 3]);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(4096));
    }

    [Test]
    public void Bad_logits_are_refused_by_name()
    {
        Assert.That(() => new Sampler(new(), 3).Next([1, float.NaN, 2]), Throws.ArgumentException.With.Message.Contains("token 1 is NaN"));
        Assert.That(() => new Sampler(new(), 2).Next([1, float.PositiveInfinity]), Throws.ArgumentException.With.Message.Contains("token 1"));
        Assert.That(() => new Sampler(new(), 2).Next([1]), Throws.ArgumentException.With.Message.Contains("vocabulary has 2"));
        Assert.That(() => new Sampler(new(), 1).Next([float.NegativeInfinity]), Throws.ArgumentException);
    }

    [Test]
    public void Bad_options_are_refused_by_field_and_range()
    {
        (SamplingOptions Options, string Field)[] bad =
        [
            (new() { Temperature = -1 }, "Temperature"), (new() { Temperature = float.NaN }, "Temperature"), (new() { TopK = -1 }, "TopK"), (new() { TopP = 0 }, "TopP"), (new() { TopP = 1.1f }, "TopP"),
            (new() { MinP = -0.1f }, "MinP"), (new() { RepetitionPenalty = 0 }, "RepetitionPenalty"), (new() { PresencePenalty = 3 }, "PresencePenalty"), (new() { FrequencyPenalty = float.NaN }, "FrequencyPenalty"),
            (new() { TopLogProbs = 101 }, "TopLogProbs"), (new() { LogitBias = new Dictionary<int, float> { [-1] = 0 } }, "LogitBias"), (new() { LogitBias = new Dictionary<int, float> { [1] = float.NaN } }, "LogitBias"),
        ];
        foreach (var (options, field) in bad)
            Assert.That(options.Validate, Throws.InstanceOf<ArgumentOutOfRangeException>().With.Message.Contains(field), field);
        Assert.That(() => new Sampler(new() { LogitBias = new Dictionary<int, float> { [5] = 1 } }, 5), Throws.InstanceOf<ArgumentOutOfRangeException>().With.Message.Contains("LogitBias"));
    }
}
