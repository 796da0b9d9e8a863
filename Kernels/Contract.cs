namespace Trimtab.Kernels;

/// <summary>
/// What every device checks at the door of an op: types and shapes, so that a kernel behind it can trust its addresses.
/// Numbers that lie in device memory (rows, slots, pages) are checked where they are read.
/// </summary>
internal static class Contract
{
    public static void Norm(DType type, Tensor output, Tensor input, in NormWeights norm, string op = nameof(Device.Norm))
    {
        Expect(op, nameof(input), input, type, input.Rows, input.Columns);
        Expect(op, nameof(output), output, type, input.Rows, input.Columns);
        Expect(op, "weight", norm.Weight, DType.F32, 1, input.Columns);
        if (!norm.Bias.IsNone)
            Expect(op, "bias", norm.Bias, DType.F32, 1, input.Columns);
    }

    public static void ResidualNorm(DType type, Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        const string Op = nameof(Device.ResidualNorm);
        Norm(type, output, x, norm, Op);
        Expect(Op, nameof(delta), delta, type, x.Rows, x.Columns);
        if (junction.Layer == 0)
            return;
        if (junction.Layer < 0 || junction.Layer > junction.Layers)
            throw new ArgumentException($"{Op}: layer {junction.Layer} of {junction.Layers}");
        if (!junction.SteerSlot.IsNone)
        {
            Expect(Op, "steer slots", junction.SteerSlot, DType.I32, 1, x.Rows);
            Expect(Op, "steer scales", junction.SteerScale, DType.F32, 1, x.Rows);
            if (!junction.Vectors.IsNone)
                Expect(Op, "vectors", junction.Vectors, DType.F32, junction.Vectors.Rows, x.Columns);
        }
        if (!junction.CaptureSlot.IsNone)
        {
            Expect(Op, "capture slots", junction.CaptureSlot, DType.I32, 1, x.Rows);
            if (!junction.Captures.IsNone)
                Expect(Op, "captures", junction.Captures, DType.F32, junction.Captures.Rows, x.Columns);
        }
        if (!junction.ProductSlot.IsNone)
        {
            Expect(Op, "product slots", junction.ProductSlot, DType.I32, 1, x.Rows);
            if (!junction.Products.IsNone)
                Expect(Op, "products", junction.Products, DType.F32, junction.Products.Rows, 2 * junction.Layers);
        }
        if (!junction.Added.IsNone)
        {
            Expect(Op, "added", junction.Added, type, junction.Added.Rows, x.Columns);
            Expect(Op, "rows", junction.Rows, DType.I32, 1, x.Rows);
        }
    }

    public static void Copy(Tensor target, Tensor source)
    {
        if (target.Type != source.Type || target.Rows != source.Rows || target.Columns != source.Columns)
            throw new ArgumentException(
                $"{nameof(Device.Copy)}: {source.Type} [{source.Rows}, {source.Columns}] to {target.Type} [{target.Rows}, {target.Columns}]; expected equal types and shapes");
    }

    /// <summary>The row of a slot's vector at this junction, or −1 for a negative slot.</summary>
    /// <exception cref="ArgumentException">There is no such slot.</exception>
    public static int SlotRow(in Junction junction, int slot, int rows, string name)
    {
        if (slot < 0)
            return -1;
        var row = (long)slot * junction.Layers + junction.Layer - 1;
        return row < rows ? (int)row : throw new ArgumentException(
            $"{nameof(Device.ResidualNorm)}: {name} slot {slot} of {rows / junction.Layers} ({rows} rows for {junction.Layers} layers)");
    }

    public static void RopeStore(DType type, Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        const string Op = nameof(Device.RopeStore);
        Attention(Op, type, qkv, heads);
        Cache(Op, type, cache, heads);
        Expect(Op, nameof(rotary), rotary, DType.F32, qkv.Rows, rotary.Columns);
        if (rotary.Columns % 2 != 0 || rotary.Columns > heads.Dimension)
            throw new ArgumentException($"{Op}: {rotary.Columns} rotary columns; expected an even number up to {heads.Dimension}");
        Expect(Op, "store rows", tokens.StoreRow, DType.I32, 1, qkv.Rows);
        if (heads.QueryNorm.IsNone && heads.KeyNorm.IsNone)
            return;
        Expect(Op, "query norm", heads.QueryNorm, DType.F32, 1, heads.Dimension);
        Expect(Op, "key norm", heads.KeyNorm, DType.F32, 1, heads.Dimension);
    }

    public static void AttendPaged(
        DType type, Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        const string Op = nameof(Device.AttendPaged);
        Attention(Op, type, qkv, heads);
        Cache(Op, type, cache, heads);
        Expect(Op, nameof(output), output, type, qkv.Rows, heads.Query * heads.Dimension);
        Expect(Op, "sequences", tokens.Sequence, DType.I32, 1, qkv.Rows);
        Expect(Op, "positions", tokens.Position, DType.I32, 1, qkv.Rows);
        Expect(Op, "pages", tokens.Pages, DType.I32, tokens.Pages.Rows, tokens.Pages.Columns);
        if (window < 0)
            throw new ArgumentException($"{Op}: window {window}");
        if (!tokens.Span.IsNone)
            Expect(Op, "span", tokens.Span, DType.I32, 2, qkv.Rows);
    }

    /// <summary>Checks a span that was read from device memory: it holds its token's position.</summary>
    /// <exception cref="ArgumentException">It does not.</exception>
    public static void Span(int first, int position, int last)
    {
        if (first < 0 || first > position || last < position)
            throw new ArgumentException($"{nameof(Device.AttendPaged)}: a span of positions {first} to {last} around position {position}");
    }

    /// <summary>The cache row of a position.</summary>
    /// <exception cref="ArgumentException">The sequence has no such page, or the cache has not.</exception>
    public static int CacheRow(in KvLayer cache, ReadOnlySpan<int> pages, int sequence, int position)
    {
        var index = position / cache.PageSize;
        var page = (uint)index < (uint)pages.Length ? pages[index] : -1;
        if ((uint)page >= (uint)(cache.Keys.Rows / cache.PageSize))
            throw new ArgumentException($"{nameof(Device.AttendPaged)}: position {position} of sequence {sequence} is in its page {index}, "
                + $"which is {page}; the cache has {cache.Keys.Rows / cache.PageSize} pages and the table {pages.Length} columns");
        return page * cache.PageSize + position % cache.PageSize;
    }

    public static void AttendFull(DType type, Tensor output, Tensor qkv, int length, in Heads heads)
    {
        const string Op = nameof(Device.AttendFull);
        Attention(Op, type, qkv, heads);
        Expect(Op, nameof(output), output, type, qkv.Rows, heads.Query * heads.Dimension);
        if (length <= 0 || qkv.Rows % length != 0)
            throw new ArgumentException($"{Op}: {qkv.Rows} rows are not a whole number of runs of {length}");
    }

    public static void TakeRows(DType type, Tensor output, Tensor input, Tensor rows)
    {
        const string Op = nameof(Device.TakeRows);
        Expect(Op, nameof(input), input, type, input.Rows, input.Columns);
        Expect(Op, nameof(output), output, type, output.Rows, input.Columns);
        Expect(Op, nameof(rows), rows, DType.I32, 1, output.Rows);
    }

    public static void BlendRows(DType type, Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        const string Op = nameof(Device.BlendRows);
        Expect(Op, nameof(input), input, type, input.Rows, input.Columns);
        Expect(Op, nameof(output), output, type, output.Rows, input.Columns);
        Expect(Op, nameof(rows), rows, DType.I32, rows.Rows, output.Rows);
        Expect(Op, nameof(weights), weights, DType.F32, rows.Rows, output.Rows);
    }

    /// <summary>Shapes alone; the types of the tensors are told where their addresses are taken.</summary>
    public static void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        const string Op = nameof(Device.Linear);
        var gated = epilogue.IsGated();
        if (input.Columns != weight.Columns || output.Rows != input.Rows || output.Columns * (gated ? 2L : 1) != weight.Rows)
            throw new ArgumentException($"{Op}: output {Describe(output)} of input {Describe(input)} and weight [{weight.Rows}, {weight.Columns}]{(gated ? ", gated" : "")}");
        if (!bias.IsNone && bias.Count != weight.Rows)
            throw new ArgumentException($"{Op}: bias {Describe(bias)} of a weight with {weight.Rows} rows");
    }

    public static void Experts(DType type, Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        const string Op = nameof(Device.Experts);
        Expect(Op, nameof(input), input, type, input.Rows, input.Columns);
        Expect(Op, nameof(output), output, type, input.Rows, input.Columns);
        var count = weights.GateUp.Length;
        Expect(Op, nameof(scores), scores, type, input.Rows, count);
        if (weights.Used < 1 || weights.Used > count || weights.Down.Length != count)
            throw new ArgumentException($"{Op}: {weights.Used} of {count} experts, {weights.Down.Length} with a second matrix");
        if (!weights.Activation.IsGated())
            throw new ArgumentException($"{Op}: {weights.Activation}; expected a gated epilogue");
        for (var e = 0; e < count; e++)
        {
            Weight up = weights.GateUp[e], down = weights.Down[e];
            if (up.Columns != input.Columns || down.Rows != input.Columns || up.Rows != 2 * down.Columns || up.Rows != weights.GateUp[0].Rows)
                throw new ArgumentException($"{Op}: expert {e} is [{up.Rows}, {up.Columns}] and [{down.Rows}, {down.Columns}] in a width of {input.Columns}");
        }
    }

    public static void Draw(DType type, Tensor tokens, Tensor logits, in DrawMap map)
    {
        const string Op = nameof(Device.Draw);
        Expect(Op, nameof(logits), logits, type, logits.Rows, logits.Columns);
        Expect(Op, nameof(tokens), tokens, DType.I32, 1, logits.Rows);
        Expect(Op, "numbers", map.Numbers, DType.F32, logits.Rows, DrawMap.NumberColumns);
        Expect(Op, "settings", map.Settings, DType.I32, logits.Rows, DrawMap.SettingColumns);
        Expect(Op, "edits", map.Edits, DType.I32, map.Edits.Rows, DrawMap.EditColumns);
    }

    /// <summary>Checks a number that was read from device memory: 0 ≤ value &lt; count.</summary>
    /// <exception cref="ArgumentException">It is outside.</exception>
    public static int Index(string op, string name, int value, int count) =>
        (uint)value < (uint)count ? value : throw new ArgumentException($"{op}: {name} {value} of {count}");

    /// <exception cref="ArgumentException">The tensor is none, or of another type or shape.</exception>
    public static void Expect(string op, string name, Tensor tensor, DType type, int rows, int columns)
    {
        if (tensor.IsNone || tensor.Type != type || tensor.Rows != rows || tensor.Columns != columns)
            throw new ArgumentException($"{op}: {name} is {Describe(tensor)}; expected {type} [{rows}, {columns}]");
    }

    private static string Describe(Tensor t) => t.IsNone ? "none" : $"{t.Type} [{t.Rows}, {t.Columns}]";

    private static void Attention(string op, DType type, Tensor qkv, in Heads heads)
    {
        if (heads.KeyValue <= 0 || heads.Query <= 0 || heads.Dimension <= 0 || heads.Query % heads.KeyValue != 0)
            throw new ArgumentException($"{op}: {heads}; expected positive numbers, query heads a multiple of key heads");
        Expect(op, nameof(qkv), qkv, type, qkv.Rows, heads.Columns);
    }

    private static void Cache(string op, DType type, in KvLayer cache, in Heads heads)
    {
        if (cache.Keys.Type is DType.BF16 or DType.U8 or DType.F8E4M3)
            type = cache.Keys.Type;
        Expect(op, "keys", cache.Keys, type, cache.Keys.Rows, heads.KeyValue * heads.Dimension);
        Expect(op, "values", cache.Values, type, cache.Keys.Rows, heads.KeyValue * heads.Dimension);
        if (type is DType.U8 or DType.F8E4M3)
            Expect(op, "scales", cache.Scales, DType.F32, cache.Keys.Rows, 2 * heads.KeyValue);
        if (cache.PageSize <= 0)
            throw new ArgumentException($"{op}: page size {cache.PageSize}");
    }
}
