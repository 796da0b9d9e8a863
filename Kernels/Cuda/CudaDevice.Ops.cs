using System.Numerics;

namespace Trimtab.Kernels.Cuda;

public sealed unsafe partial class CudaDevice
{
    private const int SplitPositions = 256; // attend.cu, SPLIT
    private const int SplitRows = 16;       // tokens up to which attention is divided by positions
    private const int SplitTokens = 128;    // tokens a launch of divided attention: bounds its scratch memory
    private const int TileTokens = 16;      // attend_tile.cu, TOKENS
    private const int TileKeys = 32;        // attend_tile.cu, KEYS
    private const int MmaTokens = 64;       // attend_mma.cu, TOKENS and KEYS

    /// <summary>Whether ops tell their shapes to the exceptions that they may cause; a text for each launch costs a microsecond.</summary>
    internal static bool Describing { get; } = Environment.GetEnvironmentVariable("TRIMTAB_CUDA_DESCRIBE") is { Length: > 0 };

    /// <inheritdoc/>
    public override void Norm(Tensor output, Tensor input, in NormWeights norm)
    {
        Contract.Norm(ActivationType, output, input, norm);
        Norm(nameof(Norm), input, new() { Output = output.At(), X = input.At() }, norm);
    }

    /// <inheritdoc/>
    public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        Contract.ResidualNorm(ActivationType, x, delta, output, norm, junction);
        var p = new NormParameters { Output = output.At(), X = x.At(), Delta = delta.At(), Status = _status.Pointer };
        if (junction.Layer > 0)
        {
            (p.Layer, p.Layers) = (junction.Layer, junction.Layers);
            if (!junction.SteerSlot.IsNone)
            {
                (p.SteerSlot, p.SteerScale) = (junction.SteerSlot.At(), junction.SteerScale.At());
                if (!junction.Vectors.IsNone)
                    (p.Vectors, p.VectorRows) = (junction.Vectors.At(), junction.Vectors.Rows);
                if (!junction.ProductSlot.IsNone && !junction.Products.IsNone)
                    (p.ProductSlot, p.Products, p.ProductRows) = (junction.ProductSlot.At(), junction.Products.At(), junction.Products.Rows);
            }
            if (!junction.CaptureSlot.IsNone)
            {
                p.CaptureSlot = junction.CaptureSlot.At();
                if (!junction.Captures.IsNone)
                    (p.Captures, p.CaptureRows) = (junction.Captures.At(), junction.Captures.Rows);
            }
            if (!junction.Added.IsNone)
                (p.Rows, p.Added, p.AddedRows) = (junction.Rows.At(), junction.Added.At(), junction.Added.Rows);
        }
        Norm(nameof(ResidualNorm), x, p, norm);
    }

    private void Norm(string op, Tensor x, NormParameters p, in NormWeights norm)
    {
        Enter();
        p.Weight = norm.Weight.At();
        p.Bias = norm.Bias.AtOrNone();
        p.Epsilon = norm.Epsilon;
        p.Centered = norm.Centered ? 1 : 0;
        p.Columns = x.Columns;
        Launch(op, Kernel("norm.cu", "norm_rows"), (x.Rows, 1, 1), 256, sizeof(float) * (long)x.Columns, p);
    }

    /// <inheritdoc/>
    public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        Contract.RopeStore(ActivationType, qkv, rotary, cache, tokens, heads);
        Enter();
        Launch(nameof(RopeStore), Kernel("rope.cu", "rope_store"), (qkv.Rows, heads.Query + 2 * heads.KeyValue, 1), 128, 2 * sizeof(float) * heads.Dimension,
            new RopeParameters
            {
                Qkv = qkv.At(),
                Rotary = rotary.At(),
                StoreRow = tokens.StoreRow.At(),
                Status = _status.Pointer,
                Cache = Of(cache, heads),
                Query = heads.Query,
                Rotated = rotary.Columns,
                QueryNorm = heads.QueryNorm.AtOrNone(),
                KeyNorm = heads.KeyNorm.AtOrNone(),
                NormEpsilon = heads.NormEpsilon,
            });
    }

    private Cache Of(in KvLayer cache, in Heads heads) => new()
    {
        Keys = cache.Keys.At(),
        Values = cache.Values.At(),
        Scales = cache.Scales.AtOrNone(),
        Kind = cache.Keys.Type switch { DType.U8 => 2, DType.F8E4M3 => 3, var type => type == ActivationType ? 0 : 1 },
        Rows = cache.Keys.Rows,
        KeyValue = heads.KeyValue,
        Dimension = heads.Dimension,
    };

    /// <inheritdoc/>
    public override void AttendPaged(Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        Contract.AttendPaged(ActivationType, output, qkv, cache, tokens, heads, window);
        Enter();
        var p = new AttendParameters
        {
            Output = output.At(),
            Qkv = qkv.At(),
            Sequence = tokens.Sequence.At(),
            Position = tokens.Position.At(),
            Pages = tokens.Pages.At(),
            Status = _status.Pointer,
            Cache = Of(cache, heads),
            Tokens = qkv.Rows,
            Query = heads.Query,
            Sequences = tokens.Pages.Rows,
            PageColumns = tokens.Pages.Columns,
            PageSize = cache.PageSize,
            Window = window,
            Scale = heads.Scale,
            SoftCap = heads.SoftCap,
        };
        if (!tokens.Span.IsNone)
            (p.SpanFirst, p.SpanLast) = (tokens.Span.Slice(0, 1).At(), tokens.Span.Slice(1, 1).At());
        if (qkv.Rows > SplitRows && !_options.BatchInvariant)
        {
            if (HasTensorCores(heads))
                Launch(nameof(AttendPaged), Kernel("attend_mma.cu", heads.Dimension <= 64 ? "attend_mma_64" : "attend_mma_128"),
                    ((qkv.Rows + MmaTokens - 1) / MmaTokens, heads.Query, 1), 128, MmaShared(heads), p);
            else
                Launch(nameof(AttendPaged), Kernel("attend_tile.cu", "attend_tile"), ((qkv.Rows + TileTokens - 1) / TileTokens, heads.Query, 1), 128, TileShared(heads), p);
            return;
        }
        // How long the contexts are lies in device memory; the page table says how long they can be, and blocks beyond a context return.
        p.Splits = (int)Math.Max(1, ((long)p.PageColumns * p.PageSize + SplitPositions - 1) / SplitPositions);
        long group = heads.Query / heads.KeyValue, part = (long)heads.Query * p.Splits * (heads.Dimension + 2);
        if (p.Splits > 1)
            p.Partial = Scratch(0, Math.Min(SplitTokens, qkv.Rows) * part * sizeof(float));
        var element = ActivationType.BlockBytes();
        for (var first = 0; first < qkv.Rows; first += SplitTokens)
        {
            var count = Math.Min(SplitTokens, qkv.Rows - first);
            var some = p with
            {
                Output = p.Output + (nint)((long)first * output.Columns * element),
                Qkv = p.Qkv + (nint)((long)first * qkv.Columns * element),
                Sequence = p.Sequence + first * sizeof(int),
                Position = p.Position + first * sizeof(int),
                SpanFirst = p.SpanFirst == 0 ? 0 : p.SpanFirst + first * sizeof(int),
                SpanLast = p.SpanLast == 0 ? 0 : p.SpanLast + first * sizeof(int),
                Tokens = count,
            };
            Launch(nameof(AttendPaged), Kernel("attend.cu", "attend_split"), (p.Splits, heads.KeyValue, count), SplitPositions,
                sizeof(float) * group * (heads.Dimension + SplitPositions), some);
            if (p.Splits > 1)
                Launch(nameof(AttendPaged), Kernel("attend.cu", "attend_merge"), (heads.Query, count, 1), 128, 0, some);
        }
    }

    /// <inheritdoc/>
    public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads)
    {
        Contract.AttendFull(ActivationType, output, qkv, length, heads);
        Enter();
        var p = new AttendParameters
        {
            Output = output.At(),
            Qkv = qkv.At(),
            Status = _status.Pointer,
            Cache = new() { KeyValue = heads.KeyValue, Dimension = heads.Dimension },
            Tokens = qkv.Rows,
            Query = heads.Query,
            Length = length,
            Scale = heads.Scale,
            SoftCap = heads.SoftCap,
        };
        if (HasTensorCores(heads))
            Launch(nameof(AttendFull), Kernel("attend_mma.cu", heads.Dimension <= 64 ? "attend_full_mma_64" : "attend_full_mma_128"),
                ((length + MmaTokens - 1) / MmaTokens, heads.Query, qkv.Rows / length), 128, MmaShared(heads), p);
        else
            Launch(nameof(AttendFull), Kernel("attend_tile.cu", "attend_full"), ((length + TileTokens - 1) / TileTokens, heads.Query, qkv.Rows / length), 128, TileShared(heads), p);
    }

    /// <summary>Whether attention of many tokens goes through tensor cores: bfloat16, and heads that the registers are cut for.</summary>
    private bool HasTensorCores(in Heads heads) => ActivationType == DType.BF16 && heads.Dimension <= 128;

    private static long MmaShared(in Heads heads) => 3L * MmaTokens * ((heads.Dimension <= 64 ? 64 : 128) + 8) * sizeof(ushort);

    private static long TileShared(in Heads heads) => sizeof(float) * (2L * TileTokens * heads.Dimension + TileKeys * (heads.Dimension + 1) + TileTokens * (TileKeys + 1));

    /// <inheritdoc/>
    public override void TakeRows(Tensor output, Tensor input, Tensor rows)
    {
        Contract.TakeRows(ActivationType, output, input, rows);
        Enter();
        Launch(nameof(TakeRows), Kernel("rows.cu", "take_rows"), (output.Rows, 1, 1), 128, 0, new TakeParameters
        {
            Output = output.At(),
            Input = input.At(),
            Rows = rows.At(),
            Status = _status.Pointer,
            Columns = input.Columns,
            InputRows = input.Rows,
        });
    }

    /// <inheritdoc/>
    public override void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        Contract.BlendRows(ActivationType, output, input, rows, weights);
        Enter();
        Launch(nameof(BlendRows), Kernel("rows.cu", "blend_rows"), (output.Rows, 1, 1), 128, 0, new BlendParameters
        {
            Output = output.At(),
            Input = input.At(),
            Rows = rows.At(),
            Weights = weights.At(),
            Status = _status.Pointer,
            Columns = input.Columns,
            InputRows = input.Rows,
            Terms = rows.Rows,
            Count = output.Rows,
        });
    }

    /// <inheritdoc/>
    public override bool Draws => true;

    /// <inheritdoc/>
    public override void Draw(Tensor tokens, Tensor logits, in DrawMap map)
    {
        Contract.Draw(ActivationType, tokens, logits, map);
        Enter();
        int rows = logits.Rows, vocabulary = logits.Columns;
        if (rows == 0)
            return;
        var count = (long)rows * vocabulary;
        var memory = Scratch(4, count * (sizeof(ulong) + sizeof(float)) + rows * sizeof(float));
        var p = new DrawParameters
        {
            Tokens = tokens.At(),
            Logits = logits.At(),
            Numbers = map.Numbers.At(),
            Settings = map.Settings.At(),
            Edits = map.Edits.At(),
            Weights = memory,
            Scores = memory + (nint)(count * sizeof(ulong)),
            Highest = memory + (nint)(count * (sizeof(ulong) + sizeof(float))),
            Status = _status.Pointer,
            Vocabulary = vocabulary,
            EditRows = map.Edits.Rows,
            Shift = 61 - BitOperations.Log2((uint)vocabulary), // so that all weights together stay below 2^62
        };
        Launch(nameof(Draw), Kernel("draw.cu", "draw_scores"), (rows, 1, 1), 1024, 0, p);
        Launch(nameof(Draw), Kernel("draw.cu", "draw_weights"), ((vocabulary + 1023) / 1024, rows, 1), 256, 0, p);
        Launch(nameof(Draw), Kernel("draw.cu", "draw_tokens"), (rows, 1, 1), 1024, 0, p);
    }

    /// <inheritdoc/>
    public override void SoftCap(Tensor x, float cap)
    {
        Contract.Expect(nameof(SoftCap), nameof(x), x, ActivationType, x.Rows, x.Columns);
        Enter();
        Launch(nameof(SoftCap), Kernel("rows.cu", "soft_cap"), ((int)Math.Min((x.Count + 255) / 256, 1 << 16), 1, 1), 256, 0,
            new CapParameters { X = x.At(), Count = x.Count, Cap = cap });
    }
}
