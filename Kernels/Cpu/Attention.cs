namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Causal attention over the paged cache. An item is a few tokens that follow each other in the step, for some query heads of
/// one key head; of its tokens those that follow each other in their sequence too make a tile.
/// </summary>
internal unsafe struct PagedAttentionWork : IWork
{
    public WorkerPool Pool;
    public Heads Heads;
    public KvLayer Cache;
    public int Window, Tokens, Sequences, PageColumns;
    public float* Output;
    public float* Qkv;
    public float* Keys;
    public float* Values;
    public int* Sequence;
    public int* Position;
    public int* Pages;

    /// <summary>Tokens an item, and query heads (of one group) an item.</summary>
    public int TokenStep, HeadStep;

    /// <summary>Number of items of one key head a token step.</summary>
    public readonly int Splits => (Heads.Query / Heads.KeyValue + HeadStep - 1) / HeadStep;

    public readonly int Items => (Tokens + TokenStep - 1) / TokenStep * Heads.KeyValue * Splits;

    /// <summary>Divides the op: enough items for all workers, big enough to use what they read.</summary>
    public void Divide()
    {
        var group = Heads.Query / Heads.KeyValue;
        HeadStep = group;
        var wanted = Pool.Threads == 1 ? 1 : 4 * Pool.Threads;
        TokenStep = Math.Clamp((int)((long)Tokens * Heads.KeyValue / wanted), 1, Math.Max(1, AttentionTile.Rows / group));
        while (HeadStep > 1 && Items < Pool.Threads)
            HeadStep = (HeadStep + 1) / 2;
    }

    public readonly void Run(int first, int end, int worker)
    {
        for (var item = first; item < end; item++)
        {
            // Last tokens first: in a prompt they see the most keys, and big items should not be what all wait for.
            var step = (Tokens + TokenStep - 1) / TokenStep - 1 - item / (Heads.KeyValue * Splits);
            var head = item / Splits % Heads.KeyValue;
            var group = Heads.Query / Heads.KeyValue;
            var firstHead = item % Splits * HeadStep;
            var tile = new AttentionTile(Pool, worker, TokenStep * HeadStep, Heads.Dimension);
            int last = Math.Min((step + 1) * TokenStep, Tokens), run;
            for (var t = step * TokenStep; t < last; t += run)
            {
                run = 1;
                while (t + run < last && Sequence[t + run] == Sequence[t] && Position[t + run] == Position[t] + run)
                    run++;
                Attend(tile, t, run, head, head * group + firstHead, Math.Min(HeadStep, group - firstHead));
            }
        }
    }

    private readonly void Attend(in AttentionTile tile, int token, int count, int head, int firstQuery, int queries)
    {
        const string Op = nameof(Device.AttendPaged);
        var sequence = Contract.Index(Op, "sequence", Sequence[token], Sequences);
        Contract.Index(Op, "position", Position[token], int.MaxValue - count);
        int columns = Heads.Columns, outputs = Heads.Query * Heads.Dimension;
        for (var i = 0; i < count; i++)
            for (var h = 0; h < queries; h++)
            {
                var position = Position[token] + i;
                var low = Window > 0 ? Math.Max(0, position + 1 - Window) : 0;
                tile.Begin(i * queries + h, Qkv + (long)(token + i) * columns + (long)(firstQuery + h) * Heads.Dimension, Heads.Scale, low, position + 1);
            }
        var pages = new ReadOnlySpan<int>(Pages + (long)sequence * PageColumns, PageColumns);
        int rows = count * queries, end = tile.High[rows - 1], width = Heads.KeyValue * Heads.Dimension;
        for (var from = tile.Low[0]; from < end;)
        {
            int block = from - from % AttentionTile.Block, to = Math.Min(block + AttentionTile.Block, end);
            for (var p = from; p < to;)
            {
                var row = (long)Contract.CacheRow(Cache, pages, sequence, p);
                for (var stop = (int)Math.Min(to, p + (long)(Cache.PageSize - p % Cache.PageSize)); p < stop; p++)
                    tile.Place[p - block] = row++ * width + head * Heads.Dimension;
            }
            tile.Add(Keys, Values, block, from, to, rows);
            from = to;
        }
        for (var i = 0; i < count; i++)
            for (var h = 0; h < queries; h++)
                tile.End(i * queries + h, Output + (long)(token + i) * outputs + (long)(firstQuery + h) * Heads.Dimension);
    }
}

/// <summary>Attention of every row to every row of its run. An item is a few rows of a run, for one key head's query heads.</summary>
internal unsafe struct FullAttentionWork : IWork
{
    public WorkerPool Pool;
    public Heads Heads;
    public int Length, Runs;
    public float* Output;
    public float* Qkv;

    private readonly int Group => Heads.Query / Heads.KeyValue;

    /// <summary>Rows of the run an item.</summary>
    private readonly int Step => Math.Max(1, AttentionTile.Rows / Group);

    private readonly int Steps => (Length + Step - 1) / Step;

    public readonly int Items => checked(Runs * Steps * Heads.KeyValue);

    public readonly void Run(int first, int end, int worker)
    {
        int columns = Heads.Columns, outputs = Heads.Query * Heads.Dimension;
        var tile = new AttentionTile(Pool, worker, Step * Group, Heads.Dimension);
        for (var item = first; item < end; item++)
        {
            int head = item / Steps % Heads.KeyValue, token = item % Steps * Step, count = Math.Min(Step, Length - token);
            var start = (long)(item / Steps / Heads.KeyValue) * Length;
            for (var r = 0; r < count * Group; r++)
                tile.Begin(r, Qkv + (start + token + r / Group) * columns + (long)(head * Group + r % Group) * Heads.Dimension, Heads.Scale, 0, Length);
            var keys = Qkv + start * columns + (long)(Heads.Query + head) * Heads.Dimension;
            for (var block = 0; block < Length; block += AttentionTile.Block)
            {
                var to = Math.Min(block + AttentionTile.Block, Length);
                for (var p = block; p < to; p++)
                    tile.Place[p - block] = (long)p * columns;
                tile.Add(keys, keys + (long)Heads.KeyValue * Heads.Dimension, block, block, to, count * Group);
            }
            for (var r = 0; r < count * Group; r++)
                tile.End(r, Output + (start + token + r / Group) * outputs + (long)(head * Group + r % Group) * Heads.Dimension);
        }
    }
}
