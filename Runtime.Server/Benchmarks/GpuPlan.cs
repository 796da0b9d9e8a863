using System.Globalization;
using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Server.Benchmarks;

/// <summary>A GPU's data sheet.</summary>
/// <param name="Name">As it is sold.</param>
/// <param name="Bandwidth">Bytes a second from its memory.</param>
/// <param name="Flops">Dense bfloat16 operations a second with float sums.</param>
/// <param name="Memory">Bytes.</param>
/// <param name="Link">Bytes a second to another one, in one direction: NVLink, else PCIe 4.0 x16.</param>
internal sealed record GpuSheet(string Name, double Bandwidth, double Flops, double Memory, double Link)
{
    public static readonly GpuSheet[] All =
    [
        new("H100 SXM", 3.35e12, 989e12, 80e9, 450e9), new("A100 SXM 80 GB", 2.039e12, 312e12, 80e9, 300e9), new("L40S", 0.864e12, 362e12, 48e9, 32e9),
        new("RTX 4090", 1.008e12, 165e12, 24e9, 32e9),
    ];
}

/// <summary>Launches of one kind in a step.</summary>
/// <param name="Op">The op, and of a matrix which.</param>
/// <param name="Launches">How many.</param>
/// <param name="Bytes">Bytes that all of them move.</param>
/// <param name="Flops">Operations of all of them.</param>
/// <param name="Exchanged">Bytes that go to another GPU.</param>
internal sealed record PlannedOp(string Op, int Launches, double Bytes, double Flops, double Exchanged = 0)
{
    /// <summary>What the data sheet allows: the slowest of memory, arithmetic and link; a collective begins and ends with waiting for each other.</summary>
    public double Seconds(GpuSheet gpu) => Math.Max(Math.Max(Bytes / gpu.Bandwidth, Flops / gpu.Flops), Exchanged / gpu.Link) + (Exchanged > 0 ? Launches * GpuPlan.Meeting : 0);
}

/// <summary>
/// A step of the CUDA device on paper: the launches, what each must move and compute at least, and what a data sheet allows for it. A real
/// run is held against it. bfloat16 activations.
/// </summary>
internal sealed class GpuPlan
{
    /// <summary>From one kernel's end to the next one's start inside a graph: an assumption, not a measurement.</summary>
    public const double Gap = 1e-6;

    /// <summary>What a collective takes beyond its bytes: an assumption too.</summary>
    public const double Meeting = 8e-6;

    private const int Activation = 2;

    private readonly TextSpec _spec;
    private readonly double _perWeight, _perKey;
    private readonly int _tokens, _context, _ranks;

    /// <param name="spec">The decoder.</param>
    /// <param name="form">Form of its matrices.</param>
    /// <param name="tokens">Tokens in the step: sequences that decode, or a prompt's length.</param>
    /// <param name="context">Positions that a decoding token looks at; 0 for a prompt, whose tokens look at those before them.</param>
    /// <param name="ranks">GPUs that divide each layer.</param>
    /// <param name="kv">Form of keys and values.</param>
    public GpuPlan(TextSpec spec, DType form, int tokens, int context, int ranks = 1, KvType kv = KvType.BF16)
    {
        (_spec, _perWeight, _tokens, _context, _ranks) = (spec, (double)form.BlockBytes() / form.BlockSize(), tokens, context, ranks);
        _perKey = KvCache.PositionBytes(DType.BF16, spec, kv) / (2.0 * spec.KeyValueHeads * spec.HeadDimension);
    }

    /// <summary>The step's launches on each GPU. Steered: every token by its own vector, with its projections observed.</summary>
    public IReadOnlyList<PlannedOp> Ops(bool steered)
    {
        var (l, d, t) = (_spec.Layers, _spec.HiddenSize, _tokens);
        // As evenly as HeadDivision divides; of an uneven division this is the mean.
        int queries = Math.Max(1, _spec.Heads / _ranks), keys = Math.Max(1, _spec.KeyValueHeads / _ranks), inner = _spec.IntermediateSize / _ranks;
        int qkv = (queries + 2 * keys) * _spec.HeadDimension, heads = queries * _spec.HeadDimension, kv = 2 * keys * _spec.HeadDimension;
        // A prompt's tokens see half of it on average; up to 64 tokens read a key together.
        double seen = _context > 0 ? _context : (t + 1) / 2.0, reads = _context > 0 ? t * seen : Math.Ceiling(t / 64.0) * seen;
        double row = (double)t * d * Activation;
        var samples = _context > 0 ? t : 1;
        List<PlannedOp> ops =
        [
            new("Embed", 1, 2 * row, 0),
            new("Norm", 1, 2 * row, 0),
            Matrix("Linear qkv", l, qkv, d, t),
            new("RopeStore", l, l * t * ((2.0 * qkv - kv) * Activation + kv * _perKey), 0),
            new("AttendPaged", _context > 0 ? 2 * l : l, l * (reads * kv * _perKey + 2.0 * t * heads * Activation), l * 4.0 * t * seen * heads),
            Matrix("Linear output", l, d, heads, t),
            new("ResidualNorm", l, l * 4 * row, 0),
            Matrix("Linear gate, up", l, 2 * inner, d, t, gated: true),
            Matrix("Linear down", l, d, inner, t),
            new("ResidualNorm, junction", l, l * (4 * row + (steered ? 4.0 * samples * d : 0)), 0),
            new("TakeRows", 1, 2.0 * samples * d * Activation, 0),
            Matrix("Linear head", 1, _spec.VocabularySize / _ranks, d, samples),
        ];
        if (_ranks == 1)
            return ops;
        // A ring sends every byte of a sum twice but for one rank's share, and each share of a row to all the others.
        var passed = (_ranks - 1.0) / _ranks;
        ops.Add(new("AllReduce", 2 * l, 2 * l * 4 * row, 0, 2 * l * 2 * passed * row));
        ops.Add(new("AllGather", 1, 2.0 * samples * _spec.VocabularySize * Activation, 0, passed * samples * _spec.VocabularySize * Activation));
        return ops;
    }

    private PlannedOp Matrix(string op, int launches, int rows, int columns, int tokens, bool gated = false)
        => new(op, launches, launches * ((double)rows * columns * _perWeight + (double)tokens * (columns + (gated ? rows / 2 : rows)) * Activation), launches * 2.0 * rows * columns * tokens);

    /// <summary>Seconds of a step: each op at its roofline, and a gap for each launch.</summary>
    public static double Seconds(IReadOnlyList<PlannedOp> ops, GpuSheet gpu) => ops.Sum(op => op.Seconds(gpu) + op.Launches * Gap);

    /// <summary>Writes the plan as Markdown tables.</summary>
    public void Write(TextWriter output, string model)
    {
        var (plain, steered) = (Ops(false), Ops(true));
        var kind = _context > 0 ? $"decoding, {_tokens} sequence{(_tokens == 1 ? "" : "s")} at context {_context}" : $"a prompt of {_tokens} tokens";
        output.WriteLine($"{model}: {kind}{(_ranks > 1 ? $", on each of {_ranks} GPUs" : "")}. Least time by each GPU's data sheet, plus {Gap * 1e6:0.#} µs between launches{(_ranks > 1 ? $" and {Meeting * 1e6:0.#} µs a collective" : "")} (assumed). Nothing here was measured.");
        output.WriteLine();
        output.WriteLine($"| op | launches | MB | GFLOP | {string.Join(" | ", GpuSheet.All.Select(g => $"{g.Name}, µs"))} |");
        output.WriteLine($"|---|---|---|---|{string.Concat(GpuSheet.All.Select(_ => "---|"))}");
        foreach (var op in plain)
            output.WriteLine(Row(op.Op, op.Launches, op.Bytes, op.Flops, op.Seconds));
        output.WriteLine(Row("step", plain.Sum(o => o.Launches), plain.Sum(o => o.Bytes), plain.Sum(o => o.Flops), g => Seconds(plain, g)));
        output.WriteLine();
        output.WriteLine("| GPU | tokens/s | steered | tax |");
        output.WriteLine("|---|---|---|---|");
        foreach (var gpu in GpuSheet.All)
        {
            var (without, with) = (Seconds(plain, gpu), Seconds(steered, gpu));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {gpu.Name} | {_tokens / without:F0} | {_tokens / with:F0} | {with / without - 1:P2} |"));
        }
    }

    private static string Row(string name, int launches, double bytes, double flops, Func<GpuSheet, double> seconds) => string.Create(CultureInfo.InvariantCulture,
        $"| {name} | {launches} | {bytes / 1e6:F1} | {flops / 1e9:F2} | {string.Join(" | ", GpuSheet.All.Select(g => (seconds(g) * 1e6).ToString("F1", CultureInfo.InvariantCulture)))} |");
}
