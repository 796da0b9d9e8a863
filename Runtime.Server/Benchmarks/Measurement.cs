using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Server.Benchmarks;

/// <summary>What is measured.</summary>
/// <param name="Prompt">Tokens of the prompt that is prefilled; 0: none.</param>
/// <param name="Generate">Tokens that each sequence decodes; 0: none.</param>
/// <param name="Batches">Sequences that decode together, a measurement each.</param>
/// <param name="Depth">Positions that each sequence holds before decoding is timed.</param>
/// <param name="Image">Whether the vision tower is measured.</param>
/// <param name="Steered">Distinct shift vectors; 0: steering is not measured.</param>
/// <param name="Alpha">Their strength.</param>
/// <param name="Repetitions">How often each is measured, in turn.</param>
/// <param name="Kv">Form of keys and values.</param>
/// <param name="Sampling">How tokens are drawn; null for the most likely.</param>
/// <param name="HashLogits">Whether their logits are hashed in timed runs too.</param>
internal sealed record BenchPlan(
    int Prompt, int Generate, IReadOnlyList<int> Batches, int Depth, bool Image, int Steered, float Alpha, int Repetitions, KvType Kv = KvType.F32,
    SamplingOptions? Sampling = null, bool HashLogits = false);

/// <summary>One thing that is measured, and how long it took each time.</summary>
/// <param name="Test">prefill, decode or image.</param>
/// <param name="Tokens">Tokens a sequence; feature rows of the image.</param>
/// <param name="Batch">Sequences.</param>
/// <param name="Depth">Positions before.</param>
/// <param name="Steered">Distinct shift vectors in the batch; 0: unsteered.</param>
/// <param name="Cost">What one repetition asks of the machine.</param>
internal sealed record Measurement(string Test, int Tokens, int Batch, int Depth, int Steered, Cost Cost)
{
    /// <summary>Seconds of each repetition.</summary>
    public List<double> Seconds { get; } = [];

    /// <summary>Tokens a second of each repetition.</summary>
    public IEnumerable<double> Rates => Seconds.Select(seconds => Tokens * Batch / seconds);

    /// <summary>What ops took in all repetitions together, where they are profiled.</summary>
    public List<ProfileStage> Profile { get; } = [];

    /// <summary>Adds a repetition's stages.</summary>
    public void Add(IReadOnlyList<ProfileStage> stages)
    {
        foreach (var stage in stages)
        {
            var i = Profile.FindIndex(known => known.Name == stage.Name);
            if (i < 0)
                Profile.Add(stage);
            else
                Profile[i] = new(stage.Name, Profile[i].Calls + stage.Calls, Profile[i].Seconds + stage.Seconds);
        }
    }

    /// <summary>SHA-256 of the logits that were drawn from, in hexadecimal; of several sequences, of their hashes.</summary>
    public string Hash { get; set; } = "";

    /// <summary>Name for people: test, tokens, batch, steering.</summary>
    public string Name => $"{Test} {Tokens}"
        + (Batch > 1 ? $" × {Batch}" : "") + (Depth > 0 ? $" at {Depth}" : "")
        + (Steered > 0 ? $", {Steered} vector{(Steered == 1 ? "" : "s")}" : "");

    /// <summary>Share of the time that the roofline allows at least.</summary>
    public double Share(Roofline roofline) => roofline.Seconds(Cost.Bytes, Cost.Operations, Cost.Arithmetic) / Spread.Of(Seconds).Median;
}

/// <summary>What work asks of a machine.</summary>
/// <param name="WeightBytes">Bytes of weights read, once for every step.</param>
/// <param name="Bytes">All bytes read from memory: weights, keys and values.</param>
/// <param name="Operations">Arithmetic, a multiply-add counting as two.</param>
/// <param name="Arithmetic">What is multiplied with the weights.</param>
internal sealed record Cost(double WeightBytes, double Bytes, double Operations, Arithmetic Arithmetic)
{
    /// <summary>One prompt of <paramref name="tokens"/>, in steps of at most <paramref name="step"/> tokens; logits of its last token.</summary>
    public static Cost Prefill(Network network, int tokens, int step, Arithmetic arithmetic)
    {
        var text = network.Spec.Text;
        var weights = (double)network.Decoder.WeightBytes * ((tokens + step - 1) / step);
        return new(weights, weights, Linear(text) * tokens + Head(text) + Attention(text, 0, tokens), arithmetic);
    }

    /// <summary><paramref name="steps"/> tokens of each of several sequences that hold <paramref name="depth"/> positions.</summary>
    public static Cost Decode(Network network, int depth, int steps, int batch, Arithmetic arithmetic, KvType kv = KvType.F32)
    {
        var text = network.Spec.Text;
        var attention = Attention(text, depth, steps);
        var weights = (double)network.Decoder.WeightBytes * steps;
        // All query heads' 4 · d operations a position and layer read that position's keys and values once.
        var cache = attention / (4.0 * text.Heads * text.HeadDimension) * KvCache.PositionBytes(network.Device.ActivationType, text, kv);
        return new(weights, weights + batch * cache, batch * (steps * (Linear(text) + Head(text)) + attention), arithmetic);
    }

    /// <summary>One image through tower and projector.</summary>
    public static Cost Image(VisionEncoder encoder, Arithmetic arithmetic)
    {
        var (vision, projector) = (encoder.Spec, encoder.Projector);
        double rows = vision.Rows, width = vision.HiddenSize;
        var matrices = vision.Activation.IsGated() ? 3 : 2;
        var layer = rows * (4 * width * width + matrices * width * vision.IntermediateSize) + 2 * rows * rows * width;
        var patches = vision.Patches * width * 3 * vision.TemporalPatch * vision.PatchSize * vision.PatchSize;
        var projection = vision.Features * (projector.HiddenSize == 0 ? (double)projector.InputSize * projector.OutputSize
            : (double)projector.HiddenSize * (projector.InputSize + projector.OutputSize));
        return new(0, 0, 2 * (vision.UsedLayers * layer + patches + projection), arithmetic);
    }

    private static double Linear(TextSpec text)
    {
        // Of a mixture the experts that a token uses.
        double Mlp(int layer) => text.Mixture is { } m && m.Layers[layer] ? 3.0 * m.Used * m.IntermediateSize + m.Experts : 3.0 * text.IntermediateSize;
        return 2.0 * text.HiddenSize * Enumerable.Range(0, text.Layers).Sum(l => 2.0 * (text.Heads + text.KeyValueHeads) * text.HeadDimension + Mlp(l));
    }

    private static double Head(TextSpec text) => 2.0 * text.VocabularySize * text.HiddenSize;

    /// <summary>Scores and weighted values of positions [first, first + count), each with those up to its own or its window.</summary>
    private static double Attention(TextSpec text, int first, int count)
    {
        double Seen(int positions, int window)
            => window == 0 || positions <= window ? positions * (positions + 1.0) / 2 : window * (window + 1.0) / 2 + (positions - window) * (double)window;
        return text.Windows.Sum(window => Seen(first + count, window) - Seen(first, window)) * 4 * text.Heads * text.HeadDimension;
    }
}

/// <summary>Middle and spread of repeated measurements.</summary>
/// <param name="Median">The middle.</param>
/// <param name="Least">The smallest.</param>
/// <param name="Most">The largest.</param>
/// <param name="Deviation">Median absolute deviation from the median.</param>
internal sealed record Spread(double Median, double Least, double Most, double Deviation)
{
    public static Spread Of(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        var median = Middle(sorted);
        return new(median, sorted[0], sorted[^1], Middle([.. sorted.Select(value => Math.Abs(value - median)).Order()]));
    }

    private static double Middle(double[] sorted) => (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
}
