using System.Diagnostics;

namespace Trimtab.Kernels;

/// <summary>One kind of work and what it took.</summary>
/// <param name="Name">The op; of a matrix product with the matrix's shape.</param>
/// <param name="Calls">How often.</param>
/// <param name="Seconds">How long in all.</param>
public readonly record struct ProfileStage(string Name, long Calls, double Seconds);

/// <summary>
/// Hands every op to another device and adds up the time until the call returns: on a CPU, that of the work. A clock is read
/// twice an op (some 50 ns), and nothing is allocated once every kind of op has been seen.
/// </summary>
/// <param name="device">Does the work; stays the caller's.</param>
public sealed class ProfilingDevice(Device device) : Device
{
    private readonly List<Stage> _stages = [];

    private sealed record Stage(string Op, int Rows, int Columns)
    {
        public long Calls, Ticks;
    }

    /// <inheritdoc/>
    public override string Name => device.Name;

    /// <inheritdoc/>
    public override DType ActivationType => device.ActivationType;

    /// <inheritdoc/>
    public override Abilities Abilities => device.Abilities;

    /// <summary>What was done since the last <see cref="Reset"/>, in the order of first use.</summary>
    public IReadOnlyList<ProfileStage> Stages =>
    [
        .. _stages.Where(s => s.Calls > 0).Select(s => new ProfileStage(
            s.Rows == 0 ? s.Op : $"{s.Op} {s.Columns} → {s.Rows}", s.Calls, (double)s.Ticks / Stopwatch.Frequency)),
    ];

    /// <summary>Forgets what was done so far.</summary>
    public void Reset()
    {
        foreach (var stage in _stages)
            stage.Calls = stage.Ticks = 0;
    }

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, int columns) => device.Allocate(type, rows, columns);

    /// <inheritdoc/>
    public override Weight Pack(params ReadOnlySpan<WeightData> parts) => device.Pack(parts);

    /// <inheritdoc/>
    public override int Ranks => device.Ranks;

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, Division columns) => device.Allocate(type, rows, columns);

    /// <inheritdoc/>
    public override Weight PackDivided(Division division, bool byColumns, params ReadOnlySpan<WeightData> parts) => device.PackDivided(division, byColumns, parts);

    /// <inheritdoc/>
    public override bool Computes(DType type, int columns) => device.Computes(type, columns);

    /// <inheritdoc/>
    public override DType Prefers(DType type) => device.Prefers(type);

    /// <inheritdoc/>
    public override bool Caches(DType type) => device.Caches(type);

    /// <inheritdoc/>
    public override void Spread(int items, Action<int> work)
    {
        var start = Stopwatch.GetTimestamp();
        device.Spread(items, work);
        Add(nameof(Spread), start);
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor target)
    {
        var start = Stopwatch.GetTimestamp();
        device.Upload(source, target);
        Add(nameof(Upload), start);
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<int> source, Tensor target)
    {
        var start = Stopwatch.GetTimestamp();
        device.Upload(source, target);
        Add(nameof(Upload), start);
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> target)
    {
        var start = Stopwatch.GetTimestamp();
        device.Download(source, target);
        Add(nameof(Download), start);
    }

    /// <inheritdoc/>
    public override void Copy(Tensor target, Tensor source)
    {
        var start = Stopwatch.GetTimestamp();
        device.Copy(target, source);
        Add(nameof(Copy), start);
    }

    /// <inheritdoc/>
    public override void Replay(long key, Action record) => device.Replay(key, record);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows)
    {
        var start = Stopwatch.GetTimestamp();
        device.Embed(output, table, features, rows);
        Add(nameof(Embed), start);
    }

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
    {
        var start = Stopwatch.GetTimestamp();
        device.Embed(output, table, features, rows, scale);
        Add(nameof(Embed), start);
    }

    /// <inheritdoc/>
    public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights)
    {
        var start = Stopwatch.GetTimestamp();
        device.Patches(output, pixels, weights);
        Add(nameof(Patches), start);
    }

    /// <inheritdoc/>
    public override void Norm(Tensor output, Tensor input, in NormWeights norm)
    {
        var start = Stopwatch.GetTimestamp();
        device.Norm(output, input, norm);
        Add(nameof(Norm), start);
    }

    /// <inheritdoc/>
    public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        var start = Stopwatch.GetTimestamp();
        device.ResidualNorm(x, delta, output, norm, junction);
        Add(junction.Layer > 0 ? "ResidualNorm, junction" : nameof(ResidualNorm), start);
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var start = Stopwatch.GetTimestamp();
        device.Linear(output, input, weight, bias, epilogue);
        Add(nameof(Linear), start, weight.Rows, weight.Columns);
    }

    /// <inheritdoc/>
    public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        var start = Stopwatch.GetTimestamp();
        device.RopeStore(qkv, rotary, cache, tokens, heads);
        Add(nameof(RopeStore), start);
    }

    /// <inheritdoc/>
    public override void AttendPaged(Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        var start = Stopwatch.GetTimestamp();
        device.AttendPaged(output, qkv, cache, tokens, heads, window);
        Add(nameof(AttendPaged), start);
    }

    /// <inheritdoc/>
    public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads)
    {
        var start = Stopwatch.GetTimestamp();
        device.AttendFull(output, qkv, length, heads);
        Add(nameof(AttendFull), start);
    }

    /// <inheritdoc/>
    public override void TakeRows(Tensor output, Tensor input, Tensor rows)
    {
        var start = Stopwatch.GetTimestamp();
        device.TakeRows(output, input, rows);
        Add(nameof(TakeRows), start);
    }

    /// <inheritdoc/>
    public override void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        var start = Stopwatch.GetTimestamp();
        device.BlendRows(output, input, rows, weights);
        Add(nameof(BlendRows), start);
    }

    /// <inheritdoc/>
    public override void SoftCap(Tensor x, float cap)
    {
        var start = Stopwatch.GetTimestamp();
        device.SoftCap(x, cap);
        Add(nameof(SoftCap), start);
    }

    /// <inheritdoc/>
    public override void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        var start = Stopwatch.GetTimestamp();
        device.Experts(output, input, scores, weights);
        Add(nameof(Experts), start);
    }

    /// <inheritdoc/>
    public override bool Draws => device.Draws;

    /// <inheritdoc/>
    public override void Draw(Tensor tokens, Tensor logits, in DrawMap map)
    {
        var start = Stopwatch.GetTimestamp();
        device.Draw(tokens, logits, map);
        Add(nameof(Draw), start);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
    }

    private void Add(string op, long start, int rows = 0, int columns = 0)
    {
        var ticks = Stopwatch.GetTimestamp() - start;
        Stage? found = null;
        foreach (var stage in _stages)
            if (ReferenceEquals(stage.Op, op) && stage.Rows == rows && stage.Columns == columns)
                found = stage;
        if (found is null)
            _stages.Add(found = new(op, rows, columns));
        found.Calls++;
        found.Ticks += ticks;
    }
}
