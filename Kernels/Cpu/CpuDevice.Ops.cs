namespace Trimtab.Kernels.Cpu;

public sealed unsafe partial class CpuDevice
{
    // Elements that are worth a worker of their own: some microseconds of work, as long as waking one may take.
    private const int Grain = 16 * 1024;

    /// <inheritdoc/>
    public override void Norm(Tensor output, Tensor input, in NormWeights norm)
    {
        Contract.Norm(DType.F32, output, input, norm);
        Norm(new NormWork { Input = input.F32(), Output = output.F32() }, input, norm);
        Hold(output, input);
    }

    /// <inheritdoc/>
    public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        Contract.ResidualNorm(DType.F32, x, delta, output, norm, junction);
        var work = new NormWork { Input = x.F32(), Delta = delta.F32(), Output = output.F32() };
        if (junction.Layer > 0)
        {
            work.Junction = junction;
            if (!junction.SteerSlot.IsNone)
            {
                work.SteerSlot = junction.SteerSlot.I32();
                work.SteerScale = junction.SteerScale.F32();
                work.Vectors = junction.Vectors.IsNone ? null : junction.Vectors.F32();
                if (!junction.ProductSlot.IsNone && !junction.Products.IsNone)
                {
                    work.ProductSlot = junction.ProductSlot.I32();
                    work.Products = junction.Products.F32();
                }
            }
            if (!junction.Added.IsNone)
            {
                work.Rows = junction.Rows.I32();
                work.Added = junction.Added.F32();
            }
            if (!junction.CaptureSlot.IsNone)
            {
                work.CaptureSlot = junction.CaptureSlot.I32();
                work.Captures = junction.Captures.IsNone ? null : junction.Captures.F32();
            }
        }
        Norm(work, x, norm);
        Hold(x, delta, output, junction.SteerSlot, junction.SteerScale, junction.CaptureSlot);
        Hold(junction.Vectors, junction.Captures, junction.ProductSlot, junction.Products, junction.Rows, junction.Added);
    }

    private void Norm(NormWork work, Tensor x, in NormWeights norm)
    {
        work.Columns = x.Columns;
        work.Weight = norm.Weight.F32();
        work.Bias = norm.Bias.IsNone ? null : norm.Bias.F32();
        work.Epsilon = norm.Epsilon;
        work.Centered = norm.Centered;
        Pool.Run(x.Rows, work, Grain / Math.Max(1, x.Columns));
        Hold(norm.Weight, norm.Bias);
    }

    /// <inheritdoc/>
    public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        Contract.RopeStore(DType.F32, qkv, rotary, cache, tokens, heads);
        var work = new RopeWork
        {
            Heads = heads,
            Rotated = rotary.Columns,
            Qkv = qkv.F32(),
            Rotary = rotary.F32(),
            Type = cache.Keys.Type,
            Keys = cache.Keys.At(),
            Values = cache.Values.At(),
            Scales = cache.Scales.IsNone ? null : cache.Scales.F32(),
            StoreRow = tokens.StoreRow.I32(),
            CacheRows = cache.Keys.Rows,
            QueryNorm = heads.QueryNorm.IsNone ? null : heads.QueryNorm.F32(),
            KeyNorm = heads.KeyNorm.IsNone ? null : heads.KeyNorm.F32(),
        };
        Pool.Run(qkv.Rows, work, Grain / Math.Max(1, qkv.Columns));
        Hold(qkv, rotary, cache.Keys, cache.Values, tokens.StoreRow, cache.Scales);
        Hold(heads.QueryNorm, heads.KeyNorm);
    }

    /// <inheritdoc/>
    public override void AttendPaged(
        Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        Contract.AttendPaged(DType.F32, output, qkv, cache, tokens, heads, window);
        var work = new PagedAttentionWork
        {
            Pool = Pool,
            Heads = heads,
            Cache = cache,
            Window = window,
            Tokens = qkv.Rows,
            Sequences = tokens.Pages.Rows,
            PageColumns = tokens.Pages.Columns,
            Output = output.F32(),
            Qkv = qkv.F32(),
            Keys = cache.Keys.At(),
            Values = cache.Values.At(),
            Scales = cache.Scales.IsNone ? null : cache.Scales.F32(),
            Sequence = tokens.Sequence.I32(),
            Position = tokens.Position.I32(),
            Pages = tokens.Pages.I32(),
            Span = tokens.Span.IsNone ? null : tokens.Span.I32(),
        };
        // Positions are what the cost depends on; reading them is nothing beside it.
        long keys = 0, longest = 0;
        for (var t = 0; t < qkv.Rows; t++)
        {
            var (low, high) = work.Seen(t);
            keys += high - low;
            longest = Math.Max(longest, high);
        }
        work.Divide(longest);
        if (work.ExportFloats > 0)
            work.Exports = (float*)AtLeast(ref _exports, work.ExportFloats * sizeof(float));
        Pool.Share(work.Items, work, keys * heads.Query * heads.Dimension < Grain ? work.Items : 1);
        if (work.Chunks > 1)
            Pool.Run(qkv.Rows * heads.Query, new MergeAttentionWork { Attention = work });
        Hold(output, qkv, cache.Keys, cache.Values, tokens.Sequence, tokens.Position);
        Hold(tokens.Pages, cache.Scales, tokens.Span);
    }

    /// <inheritdoc/>
    public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads)
    {
        Contract.AttendFull(DType.F32, output, qkv, length, heads);
        var work = new FullAttentionWork
        {
            Pool = Pool,
            Heads = heads,
            Length = length,
            Runs = qkv.Rows / length,
            Output = output.F32(),
            Qkv = qkv.F32(),
        };
        var small = (long)qkv.Rows * length * heads.Query * heads.Dimension < Grain;
        Pool.Share(work.Items, work, small ? work.Items : 1);
        Hold(output, qkv);
    }

    /// <inheritdoc/>
    public override void TakeRows(Tensor output, Tensor input, Tensor rows)
    {
        Contract.TakeRows(DType.F32, output, input, rows);
        float* target = output.F32(), source = input.F32();
        var row = rows.I32();
        var columns = input.Columns;
        for (var i = 0; i < output.Rows; i++)
        {
            var r = Contract.Index(nameof(TakeRows), "row", row[i], input.Rows);
            new ReadOnlySpan<float>(source + (long)r * columns, columns).CopyTo(new Span<float>(target + (long)i * columns, columns));
        }
        Hold(output, input, rows);
    }

    /// <summary>Keeps storages that the caller no longer uses from being finalised while kernels have their addresses.</summary>
    private static void Hold(Tensor a, Tensor b = default, Tensor c = default, Tensor d = default, Tensor e = default, Tensor f = default)
    {
        GC.KeepAlive(a.Storage);
        GC.KeepAlive(b.Storage);
        GC.KeepAlive(c.Storage);
        GC.KeepAlive(d.Storage);
        GC.KeepAlive(e.Storage);
        GC.KeepAlive(f.Storage);
    }
}
