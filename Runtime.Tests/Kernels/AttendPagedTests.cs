using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class AttendPagedTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    /// <summary>A step of tokens over a cache whose unused rows hold what must not be read.</summary>
    private sealed class Step
    {
        private readonly Heads heads;
        private readonly int pageSize, window, pageColumns;
        private readonly float[] keys, values, scales, qkv;
        private readonly DType? type;
        private readonly int[] pages, sequence, position;

        /// <param name="heads">Head layout.</param>
        /// <param name="pageSize">Positions a page.</param>
        /// <param name="window">Sliding window or 0.</param>
        /// <param name="unused">What unused rows hold.</param>
        /// <param name="sequences">Of each sequence the positions before the step and the tokens in it.</param>
        public Step(Heads heads, int pageSize, int window, float unused, params (int Before, int New)[] sequences)
            : this(null, heads, pageSize, window, unused, sequences)
        {
        }

        /// <param name="type">Type of keys and values, or null for the activations'.</param>
        public Step(DType? type, Heads heads, int pageSize, int window, float unused, params (int Before, int New)[] sequences)
        {
            this.type = type;
            (this.heads, this.pageSize, this.window) = (heads, pageSize, window);
            int width = heads.KeyValue * heads.Dimension, seed = 0;
            pageColumns = sequences.Max(s => (s.Before + s.New + pageSize - 1) / pageSize) + 1;
            // Twice the pages that are needed, in no order: no sequence has neighbours.
            var random = new Random(1);
            var free = new Stack<int>(Enumerable.Range(0, 2 * pageColumns * sequences.Length).OrderBy(_ => random.Next()));
            var rows = free.Count * pageSize;
            keys = new float[rows * width];
            values = new float[rows * width];
            scales = new float[rows * 2 * heads.KeyValue];
            Array.Fill(keys, type == DType.U8 ? 255 : unused);
            Array.Fill(values, type == DType.U8 ? 255 : unused);
            Array.Fill(scales, unused);
            pages = new int[sequences.Length * pageColumns];
            Array.Fill(pages, -7);
            List<int> sequence = [], position = [];
            for (var s = 0; s < sequences.Length; s++)
            {
                var (before, count) = sequences[s];
                for (var p = 0; p < before + count; p++)
                {
                    ref var page = ref pages[s * pageColumns + p / pageSize];
                    if (p % pageSize == 0)
                        page = free.Pop();
                    // Pages behind every window are given back, so that nobody may look at them.
                    if (window > 0 && p < (before + 1 - window) / pageSize * pageSize)
                        page = -9;
                    else
                    {
                        var row = (page * pageSize + p % pageSize) * width;
                        Stored(Noise(width, ++seed, 2)).CopyTo(keys, row);
                        Stored(Noise(width, ++seed, 2)).CopyTo(values, row);
                        for (var i = 0; i < 2 * heads.KeyValue; i++)
                            scales[row / width * 2 * heads.KeyValue + i] = 0.02f + 0.001f * ((seed + i) % 9);
                    }
                    if (p < before)
                        continue;
                    sequence.Add(s);
                    position.Add(p);
                }
            }
            this.sequence = [.. sequence];
            this.position = [.. position];
            qkv = Noise(Tokens * heads.Columns, 77, 2);
        }

        private float[] Stored(float[] noise) => type switch
        {
            DType.BF16 => Array.ConvertAll(noise, v => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000)),
            DType.U8 => Array.ConvertAll(noise, v => Math.Clamp(MathF.Round(128 + 50 * v), 1, 255)),
            DType.F8E4M3 => BlocksData.Fp8(noise, 50),
            _ => noise,
        };

        public int Tokens => sequence.Length;

        /// <summary>Of a sequence and a position in it the first and the last position of its stretch; null: no stretches.</summary>
        public Func<int, int, (int First, int Last)>? Spans { get; init; }

        public int Width => heads.Query * heads.Dimension;

        /// <summary>The output of some of the tokens, computed by themselves.</summary>
        public float[] Run(Device device, params int[] tokens)
        {
            if (tokens.Length == 0)
                tokens = [.. Enumerable.Range(0, Tokens)];
            var width = heads.KeyValue * heads.Dimension;
            var stored = type ?? device.ActivationType;
            var cache = new KvLayer(device.Of(stored, keys, width), device.Of(stored, values, width), pageSize,
                type is DType.U8 or DType.F8E4M3 ? device.Floats(scales, 2 * heads.KeyValue) : default);
            var map = new TokenMap(device.Integers([.. tokens.Select(t => sequence[t])]), device.Integers([.. tokens.Select(t => position[t])]),
                default, device.Table(pages, pageColumns));
            if (Spans is not null)
            {
                var spans = tokens.Select(t => Spans(sequence[t], position[t])).ToList();
                map = map with { Span = device.Table([.. spans.Select(s => s.First), .. spans.Select(s => s.Last)], tokens.Length) };
            }
            var output = device.Activations(new float[tokens.Length * Width], Width);
            device.AttendPaged(output, device.Activations(Rows(qkv, heads.Columns, tokens), heads.Columns), cache, map, heads, window);
            return device.Get(output);
        }

        public void Check(string kind, string what)
        {
            var expected = Run(Oracle);
            var exact = ReferenceDevicePair.Exact(kind);
            var first = Run(exact[0]);
            foreach (var device in ReferenceDevicePair.All(kind)[1..])
                if (exact.Contains(device))
                    Same(Run(device), first, $"{what}, {device.Name}");
                else
                    Close(Run(device), expected, 2e-5, $"{what}, {device.Name}");
            Close(first, expected, 2e-5, what);
        }
    }

    private static Heads Form(int form, int dimension) => form switch
    {
        0 => new(3, 3, dimension, 1 / MathF.Sqrt(dimension)),
        1 => new(6, 2, dimension, 1 / MathF.Sqrt(dimension)),
        _ => new(5, 1, dimension, 1 / MathF.Sqrt(dimension)),
    };

    [Test]
    public void Is_the_oracles([Values(16, 20, 64, 80, 128)] int dimension, [Values(1, 4, 16)] int pageSize, [Values(0, 1, 5, 24)] int window)
    {
        for (var form = 0; form < 3; form++)
            foreach (var unused in (float[])[float.NaN, 1e30f])
                new Step(Form(form, dimension), pageSize, window, unused, (0, 7), (31, 1), (13, 5), (64, 3), (15, 17), (0, 1))
                    .Check(kind, $"{Form(form, dimension)}");
    }

    [Test]
    public void Is_the_oracles_for_any_number_of_tokens([Values(1, 2, 3, 5, 7, 17, 33)] int tokens, [Values(0, 1, 2)] int form)
    {
        foreach (var dimension in (int[])[1, 33, 64, 72])
            foreach (var before in (int[])[0, 1, 14, 15, 16, 31, 32, 33, 100])
                new Step(Form(form, dimension), 16, 0, float.NaN, (before, tokens)).Check(kind, $"{dimension} wide after {before}");
    }

    [Test]
    public void Many_query_heads_share_a_key_head()
    {
        new Step(new Heads(71, 1, 64, 0.125f), 16, 0, float.NaN, (0, 9), (40, 1)).Check(kind, "MQA");
        new Step(new Heads(2, 2, 300, 0.05f), 16, 0, float.NaN, (0, 9), (40, 1)).Check(kind, "wide heads");
    }

    [Test]
    public void A_token_does_not_know_its_batch([Values(0, 1, 2)] int form, [Values(0, 24)] int window, [Values(20, 64)] int dimension)
    {
        var step = new Step(Form(form, dimension), 16, window, float.NaN, (0, 37), (31, 1), (60, 1), (10, 12), (0, 1), (100, 1), (5, 9));
        var together = step.Run(_exact[0]);
        foreach (var device in _exact)
        {
            for (var t = 0; t < step.Tokens; t++)
                Same(step.Run(device, t), Rows(together, step.Width, t), $"token {t} alone");
            for (var t = 0; t < step.Tokens; t += 5)
            {
                int[] chunk = [.. Enumerable.Range(t, Math.Min(5, step.Tokens - t))];
                Same(step.Run(device, chunk), Rows(together, step.Width, chunk), $"chunk at {t}");
            }
            int[] shuffled = [.. Enumerable.Range(0, step.Tokens).OrderBy(t => t * 29 % 31)];
            Same(step.Run(device, shuffled), Rows(together, step.Width, shuffled), "shuffled");
        }
    }

    [Test]
    public void Capped_scores_are_the_oracles([Values(16, 20, 64)] int dimension, [Values(0.7f, 50)] float cap, [Values(0, 24)] int window)
    {
        for (var form = 0; form < 3; form++)
            new Step(Form(form, dimension) with { SoftCap = cap, Scale = 2 }, 16, window, float.NaN, (0, 7), (31, 1), (13, 5), (300, 17), (0, 1)).Check(kind, $"cap {cap}");
    }

    /// <summary>Stretches of all lengths, over the borders of blocks and chunks, wider than the window and outside it; tokens outside any.</summary>
    [Test]
    public void Spans_are_the_oracles_and_change_with_no_batch([Values(16, 72)] int dimension, [Values(0, 1, 24)] int window, [Values(null, DType.BF16)] DType? type)
    {
        (int Before, int New)[] sequences = [(0, 40), (250, 20), (3, 1), (0, 300), (30, 33)];
        for (var form = 0; form < 3; form++)
        {
            var step = new Step(type, Form(form, dimension), 16, window, float.NaN, sequences)
            {
                Spans = (s, p) => s switch
                {
                    0 when p is >= 3 and < 36 => (3, 35),
                    1 => (250, 269),
                    3 when p < 280 => (p / 40 * 40, p / 40 * 40 + 39),
                    _ => (p, p),
                },
            };
            step.Check(kind, $"spans, form {form}");
            var together = step.Run(_exact[0]);
            foreach (var device in _exact)
                for (var t = 0; t < step.Tokens; t += 7)
                    Same(step.Run(device, t), Rows(together, step.Width, t), $"token {t} alone");
        }
    }

    [Test]
    public void Spans_without_their_token_are_refused()
    {
        foreach (var device in _devices)
        {
            var cache = new KvLayer(device.Activations(new float[12 * 8], 8), device.Activations(new float[12 * 8], 8), 4);
            void Run(int first, int last) => device.AttendPaged(
                device.Activations(new float[16], 16), device.Activations(new float[32], 32), cache,
                new TokenMap(device.Integers(0), device.Integers(5), default, device.Integers(0, 1, 2), device.Table([first, last], 1)), new Heads(2, 1, 8, 1), 0);
            Assert.That(() => Run(4, 6), Throws.Nothing);
            foreach (var (first, last) in ((int, int)[])[(6, 7), (3, 4), (-1, 6)])
                Assert.That(() => Run(first, last), Throws.ArgumentException.With.Message.Contains("around position 5"));
            Assert.That(() => Run(4, 12), Throws.ArgumentException.With.Message.Contains("position 12 of sequence 0"));
        }
    }

    [Test]
    public void Large_scores_neither_overflow_nor_vanish()
    {
        // Scores of some hundreds: only their differences may meet the exponential.
        new Step(new Heads(2, 1, 64, 4), 16, 0, float.NaN, (0, 50)).Check(kind, "sharp");
        new Step(new Heads(2, 1, 64, 1e-4f), 16, 0, float.NaN, (0, 50)).Check(kind, "flat");
    }

    [Test]
    public void Long_contexts_hold_their_digits() =>
        new Step(new Heads(2, 1, 64, 0.125f), 16, 0, float.NaN, (3000, 2)).Check(kind, "long");

    private void IgnoreUnlessCached(DType? type)
    {
        if (type is { } t && !_devices[1].Caches(t))
            Assert.Ignore($"{_devices[1].Name} keeps no {t}");
    }

    [Test]
    public void Rounded_caches_are_the_oracles([Values(DType.BF16, DType.U8, DType.F8E4M3)] DType type, [Values(1, 20, 33, 64, 72, 128)] int dimension, [Values(0, 24)] int window)
    {
        IgnoreUnlessCached(type);
        for (var form = 0; form < 3; form++)
            foreach (var unused in (float[])[float.NaN, 1e30f])
                new Step(type, Form(form, dimension), 16, window, unused, (0, 7), (31, 1), (13, 5), (64, 3), (300, 17), (0, 1), (255, 2))
                    .Check(kind, $"{type}, {Form(form, dimension)}");
    }

    [Test]
    public void Chunks_of_positions_change_no_bit(
        [Values(null, DType.BF16, DType.U8, DType.F8E4M3)] DType? type, [Values(0, 1, 2)] int form, [Values(0, 24, 300)] int window, [Values(20, 64)] int dimension)
    {
        IgnoreUnlessCached(type);
        const int chunk = Trimtab.Kernels.Cpu.AttentionTile.Chunk;
        // One token of each, on three threads: positions are divided. Forty together, on one: they are not.
        var step = new Step(type, Form(form, dimension), 16, window, float.NaN,
            (chunk - 2, 1), (chunk - 1, 1), (chunk, 1), (2 * chunk + 30, 1), (3 * chunk - 20, 40), (5, 1));
        step.Check(kind, "all");
        var together = step.Run(_exact[0]);
        foreach (var device in _exact)
            for (var t = 0; t < step.Tokens; t++)
                Same(step.Run(device, t), Rows(together, step.Width, t), $"token {t} alone");
    }

    [Test]
    public void A_call_allocates_nothing()
    {
        var device = _devices[2];
        var heads = Form(1, 64);
        var cache = new KvLayer(device.Activations(new float[64 * 128], 128), device.Activations(new float[64 * 128], 128), 16);
        var map = new TokenMap(device.Integers(0, 0), device.Integers(40, 41), device.Integers(40, 41), device.Integers(0, 1, 2, 3));
        Tensor qkv = device.Activations(new float[2 * heads.Columns], heads.Columns), output = device.Activations(new float[2 * 384], 384);
        var rotary = device.Floats(new float[128], 64);
        var weight = device.Floats(new float[384], 384);
        void Once()
        {
            device.RopeStore(qkv, rotary, cache, map, heads);
            device.AttendPaged(output, qkv, cache, map, heads, 0);
            device.AttendFull(output, qkv, 2, heads);
            device.ResidualNorm(output, output, output, new NormWeights(weight, default, 1e-5f, false), default);
        }
        Once();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 100; i++)
            Once();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }

    [Test]
    public void Pages_and_sequences_that_are_not_there_are_refused()
    {
        foreach (var device in _devices)
        {
            var heads = new Heads(2, 1, 8, 1);
            var cache = new KvLayer(device.Activations(new float[12 * 8], 8), device.Activations(new float[12 * 8], 8), 4);
            var output = device.Activations(new float[16], 16);
            void Run(int sequence, int position, int window, params int[] pages) => device.AttendPaged(
                output, device.Activations(new float[32], 32), cache,
                new TokenMap(device.Integers(sequence), device.Integers(position), default, device.Integers(pages)), heads, window);
            Assert.That(() => Run(0, 3, 0, 2), Throws.Nothing);
            Assert.That(() => Run(0, 4, 0, 2), Throws.ArgumentException.With.Message.Contains("position 4 of sequence 0"));
            Assert.That(() => Run(0, 0, 0, 3), Throws.ArgumentException.With.Message.Contains("has 3 pages"));
            Assert.That(() => Run(0, 0, 0, -1), Throws.ArgumentException);
            Assert.That(() => Run(0, 7, 4, -1, 1), Throws.Nothing);
            Assert.That(() => Run(0, 7, 5, -1, 1), Throws.ArgumentException);
            Assert.That(() => Run(1, 0, 0, 0), Throws.ArgumentException.With.Message.Contains("sequence 1 of 1"));
            Assert.That(() => Run(0, -1, 0, 0), Throws.ArgumentException.With.Message.Contains("position -1"));
            Assert.That(() => Run(0, int.MaxValue, 0, 0), Throws.ArgumentException);
            Assert.That(() => Run(0, 0, -1, 0), Throws.ArgumentException.With.Message.Contains("window -1"));
        }
    }
}
