namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Causal attention over the paged cache. An item is a few tokens that follow each other in the step, for a few key heads and
/// some of the query heads of each; of its tokens those that follow each other in their sequence too make a tile.
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

    // Tokens, key heads, and query heads of each, an item.
    private int tokenStep, keyStep, queryStep;

    private readonly int Group => Heads.Query / Heads.KeyValue;

    private readonly int TokenSteps => (Tokens + tokenStep - 1) / tokenStep;

    private readonly int KeySteps => (Heads.KeyValue + keyStep - 1) / keyStep;

    private readonly int QuerySteps => (Group + queryStep - 1) / queryStep;

    public readonly int Items => TokenSteps * KeySteps * QuerySteps;

    /// <summary>Divides the op: enough items for all workers, else such that what an item reads is used often and lies together.</summary>
    public void Divide()
    {
        var wanted = Pool.Threads == 1 ? 1 : 3 * Pool.Threads;
        queryStep = Group;
        keyStep = 1;
        tokenStep = Math.Clamp((int)((long)Tokens * Heads.KeyValue / wanted), 1, Math.Max(1, AttentionTile.Rows / Group));
        // Heads of one position lie beside each other: with few tokens, a row of the cache is worth finishing.
        while (keyStep < Heads.KeyValue && 2 * keyStep * tokenStep * Group <= AttentionTile.Rows && Items >= 2 * wanted)
            keyStep *= 2;
        while (queryStep > 1 && Items < Pool.Threads)
            queryStep = (queryStep + 1) / 2;
    }

    public readonly void Run(int first, int end, int worker)
    {
        for (var item = first; item < end; item++)
        {
            // Last tokens first: in a prompt they see the most keys, and big items should not be what all wait for.
            var step = TokenSteps - 1 - item / (KeySteps * QuerySteps);
            int key = item / QuerySteps % KeySteps * keyStep, query = item % QuerySteps * queryStep;
            var tile = new AttentionTile(Pool, worker, tokenStep * keyStep * queryStep, Heads.Dimension);
            int last = Math.Min((step + 1) * tokenStep, Tokens), run;
            for (var t = step * tokenStep; t < last; t += run)
            {
                run = 1;
                while (t + run < last && Sequence[t + run] == Sequence[t] && Position[t + run] == Position[t] + run)
                    run++;
                Attend(tile, t, run, key, Math.Min(keyStep, Heads.KeyValue - key), query, Math.Min(queryStep, Group - query));
            }
        }
    }

    private readonly void Attend(in AttentionTile tile, int token, int count, int firstKey, int keyHeads, int firstQuery, int queries)
    {
        const string Op = nameof(Device.AttendPaged);
        var sequence = Contract.Index(Op, "sequence", Sequence[token], Sequences);
        var position = Contract.Index(Op, "position", Position[token], int.MaxValue - count);
        // Rows of the tile: by key head, then token, then query head.
        int dimension = Heads.Dimension, rows = count * queries;
        for (var r = 0; r < rows * keyHeads; r++)
        {
            var i = r % rows / queries;
            var low = Window > 0 ? Math.Max(0, position + i + 1 - Window) : 0;
            tile.Begin(r, Qkv + (long)(token + i) * Heads.Columns + QueryColumn(r, rows, firstKey, firstQuery, queries), Heads.Scale, low, position + i + 1);
        }
        var pages = new ReadOnlySpan<int>(Pages + (long)sequence * PageColumns, PageColumns);
        int end = position + count, width = Heads.KeyValue * dimension;
        for (var from = tile.Low[0]; from < end;)
        {
            int block = from - from % AttentionTile.Block, to = (int)Math.Min(block + (long)AttentionTile.Block, end);
            for (var p = from; p < to;)
            {
                var row = (long)Contract.CacheRow(Cache, pages, sequence, p);
                for (var stop = (int)Math.Min(to, p + (long)(Cache.PageSize - p % Cache.PageSize)); p < stop; p++)
                    tile.Place[p - block] = row++ * width;
            }
            for (var k = 0; k < keyHeads; k++)
            {
                var column = (firstKey + k) * dimension;
                tile.Add(Keys + column, Values + column, block, from, to, k * rows, (k + 1) * rows);
            }
            from = to;
        }
        for (var r = 0; r < rows * keyHeads; r++)
            tile.End(r, Output + (long)(token + r % rows / queries) * Heads.Query * dimension + QueryColumn(r, rows, firstKey, firstQuery, queries));
    }

    /// <summary>Where a row of a tile has its query head among the step's columns.</summary>
    private readonly int QueryColumn(int row, int rowsPerKey, int firstKey, int firstQuery, int queries) =>
        ((firstKey + row / rowsPerKey) * Group + firstQuery + row % queries) * Heads.Dimension;
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
                tile.Add(keys, keys + (long)Heads.KeyValue * Heads.Dimension, block, block, to, 0, count * Group);
            }
            for (var r = 0; r < count * Group; r++)
                tile.End(r, Output + (start + token + r / Group) * outputs + (long)(head * Group + r % Group) * Heads.Dimension);
        }
    }
}
