using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Causal attention over the paged cache. An item is a few tokens that follow each other in the step, for a few key heads and
/// some of the query heads of each; of its tokens those that follow each other in their sequence too make a tile. Where that
/// makes too few items (few tokens, few heads, many positions), each chunk of positions is an item, and
/// <see cref="MergeAttentionWork"/> folds the chunks: to the same bits, as a tile folds the same chunks in the same order.
/// </summary>
internal unsafe struct PagedAttentionWork : IWork
{
    public WorkerPool Pool;
    public Heads Heads;
    public KvLayer Cache;
    public int Window, Tokens, Sequences, PageColumns;
    public float* Output;
    public float* Qkv;
    public byte* Keys;
    public byte* Values;

    /// <summary>Of an 8-bit cache: [rows, 2 · key heads], of keys, then of values.</summary>
    public float* Scales;
    public int* Sequence;
    public int* Position;
    public int* Pages;

    /// <summary>[2, Tokens], or null: see <see cref="TokenMap.Span"/>.</summary>
    public int* Span;

    /// <summary>[Tokens, query heads, Chunks, export]; used where there are several chunks.</summary>
    public float* Exports;

    // Tokens, key heads, and query heads of each, an item.
    private int tokenStep, keyStep, queryStep;

    /// <summary>Items that the positions are divided into.</summary>
    public int Chunks { get; private set; }

    private readonly int Group => Heads.Query / Heads.KeyValue;

    private readonly int TokenSteps => (Tokens + tokenStep - 1) / tokenStep;

    private readonly int KeySteps => (Heads.KeyValue + keyStep - 1) / keyStep;

    private readonly int QuerySteps => (Group + queryStep - 1) / queryStep;

    public readonly int Items => checked(TokenSteps * KeySteps * QuerySteps * Chunks);

    /// <summary>Floats that <see cref="Exports"/> may need for these tokens once their sequences fill their pages; 0 where chunks are not apart.</summary>
    public long ExportFloats { get; private set; }

    /// <summary>Divides the op: enough items for all workers, else such that what an item reads is used often and lies together.</summary>
    /// <param name="longest">Positions that some token sees at most.</param>
    public void Divide(long longest)
    {
        var wanted = Pool.Threads == 1 ? 1 : 3 * Pool.Threads;
        Chunks = 1;
        queryStep = Group;
        keyStep = 1;
        tokenStep = Math.Clamp((int)((long)Tokens * Heads.KeyValue / wanted), 1, Math.Max(1, AttentionTile.Rows / Group));
        // Heads of one position lie beside each other: with few tokens, a row of the cache is worth finishing.
        while (keyStep < Heads.KeyValue && 2 * keyStep * tokenStep * Group <= AttentionTile.Rows && Items >= 2 * wanted)
            keyStep *= 2;
        ExportFloats = 0;
        if (Pool.Threads > 1 && Items < 2 * wanted)
        {
            var capacity = ChunksOf((long)PageColumns * Cache.PageSize);
            Chunks = Math.Max(1, Math.Min(ChunksOf(longest), capacity));
            // Chunks are of equal cost; then an item may have a position's heads together.
            while (keyStep < Heads.KeyValue && 2 * keyStep * AttentionTile.RoundUp(tokenStep * Group) <= AttentionTile.Rows && (long)TokenSteps * Chunks >= 2 * Pool.Threads)
                keyStep = Math.Min(2 * keyStep, Heads.KeyValue);
            ExportFloats = (long)Tokens * Heads.Query * capacity * AttentionTile.ExportSize(Heads.Dimension);
        }
        while (queryStep > 1 && Items < Pool.Threads)
            queryStep = (queryStep + 1) / 2;
    }

    private static int ChunksOf(long positions) => (int)((positions + AttentionTile.Chunk - 1) / AttentionTile.Chunk);

    /// <summary>Where the export of a token's query head for a chunk lies.</summary>
    public readonly float* Export(int token, int query, int chunk) =>
        Exports + (((long)token * Heads.Query + query) * Chunks + chunk) * AttentionTile.ExportSize(Heads.Dimension);

    /// <summary>The positions [Low, High) that a token sees.</summary>
    public readonly (int Low, int High) Seen(int token)
    {
        var position = Position[token];
        var low = Window > 0 ? Math.Max(0, position + 1 - Window) : 0;
        return Span == null ? (low, position + 1) : (Math.Min(low, Span[token]), Span[Tokens + token] + 1);
    }

    public readonly void Run(int first, int end, int worker)
    {
        var rows = keyStep * AttentionTile.RoundUp(tokenStep * queryStep);
        for (var item = first; item < end; item++)
        {
            // Last tokens first: in a prompt they see the most keys, and big items should not be what all wait for.
            int chunk = item % Chunks, rest = item / Chunks;
            var step = TokenSteps - 1 - rest / (KeySteps * QuerySteps);
            int key = rest / QuerySteps % KeySteps * keyStep, query = rest % QuerySteps * queryStep;
            var tile = new AttentionTile(Pool, worker, rows, Heads.Dimension, Heads.SoftCap);
            int last = Math.Min((step + 1) * tokenStep, Tokens), run;
            for (var t = step * tokenStep; t < last; t += run)
            {
                run = 1;
                while (t + run < last && Sequence[t + run] == Sequence[t] && Position[t + run] == Position[t] + run)
                    run++;
                Attend(tile, chunk, t, run, key, Math.Min(keyStep, Heads.KeyValue - key), query, Math.Min(queryStep, Group - query));
            }
        }
    }

    private readonly void Attend(in AttentionTile tile, int chunk, int token, int count, int firstKey, int keyHeads, int firstQuery, int queries)
    {
        const string Op = nameof(Device.AttendPaged);
        var sequence = Contract.Index(Op, "sequence", Sequence[token], Sequences);
        var position = Contract.Index(Op, "position", Position[token], int.MaxValue - count);
        var (from, end) = Seen(token);
        for (var t = 0; t < count && Span != null; t++)
            Contract.Span(Span[token + t], position + t, Span[Tokens + token + t]);
        for (var t = 1; t < count; t++)
        {
            // Windows and spans only move on: those of tokens that follow each other make one range.
            var (low, high) = Seen(token + t);
            (from, end) = (Math.Min(from, low), Math.Max(end, high));
        }
        if (Chunks > 1)
        {
            from = Math.Max(from, chunk * AttentionTile.Chunk);
            if (chunk + 1 < Chunks)
                end = Math.Min(end, (chunk + 1) * AttentionTile.Chunk);
            if (from >= end)
                return;
        }
        // Rows of the tile: by key head (rounded up), then token, then query head.
        int dimension = Heads.Dimension, rows = count * queries, stride = AttentionTile.RoundUp(rows);
        for (var k = 0; k < keyHeads; k++)
        {
            for (var r = 0; r < rows; r++)
            {
                var t = r / queries;
                var (low, high) = Seen(token + t);
                tile.Begin(k * stride + r, Qkv + (long)(token + t) * Heads.Columns + (long)Query(firstKey + k, firstQuery, r % queries) * dimension,
                    Heads.Scale, low, high);
            }
            tile.Fill(k * stride + rows, (k + 1) * stride);
        }
        var pages = new ReadOnlySpan<int>(Pages + (long)sequence * PageColumns, PageColumns);
        int width = Heads.KeyValue * dimension, size = Cache.Keys.Type.BlockBytes();
        while (from < end)
        {
            int block = from - from % AttentionTile.Block, to = (int)Math.Min(block + (long)AttentionTile.Block, end);
            for (var p = from; p < to;)
            {
                var row = (long)Contract.CacheRow(Cache, pages, sequence, p);
                for (var stop = (int)Math.Min(to, p + (long)(Cache.PageSize - p % Cache.PageSize)); p < stop; p++, row++)
                {
                    tile.Place[p - block] = row * width;
                    tile.ScalePlace[p - block] = row * 2 * Heads.KeyValue;
                }
            }
            if (Sse.IsSupported)
                Fetch(pages, sequence, to, (int)Math.Min(to + (long)AttentionTile.Block, end), (long)firstKey * dimension * size, keyHeads * dimension * size);
            for (var k = 0; k < keyHeads; k++)
            {
                var column = (long)(firstKey + k) * dimension * size;
                var source = new TileSource(Cache.Keys.Type, (nint)(Keys + column), (nint)(Values + column),
                    (nint)(Scales + firstKey + k), (nint)(Scales + Heads.KeyValue + firstKey + k));
                tile.Add(source, block, from, to, k * stride, k * stride + rows);
            }
            from = to;
            if (Chunks == 1 && (from == end || from % AttentionTile.Chunk == 0))
                for (var k = 0; k < keyHeads; k++)
                    for (var r = 0; r < rows; r++)
                        tile.Close(k * stride + r);
        }
        for (var k = 0; k < keyHeads; k++)
        {
            for (var r = 0; r < rows; r++)
            {
                int t = token + r / queries, query = Query(firstKey + k, firstQuery, r % queries);
                if (Chunks == 1)
                    tile.End(k * stride + r, Output + ((long)t * Heads.Query + query) * dimension);
                else
                    tile.Export(k * stride + r, Export(t, query, chunk));
            }
        }
    }

    /// <summary>Asks for what the next block reads: rows of a few heads are too short for the processor to see a stream in them.</summary>
    private readonly void Fetch(ReadOnlySpan<int> pages, int sequence, int from, int to, long column, int bytes)
    {
        var width = (long)Heads.KeyValue * Heads.Dimension * Cache.Keys.Type.BlockBytes();
        for (var p = from; p < to;)
        {
            var at = Contract.CacheRow(Cache, pages, sequence, p) * width + column;
            for (var stop = (int)Math.Min(to, p + (long)(Cache.PageSize - p % Cache.PageSize)); p < stop; p++, at += width)
            {
                for (var i = 0; i < bytes; i += 64)
                {
                    Sse.Prefetch1(Keys + at + i);
                    Sse.Prefetch1(Values + at + i);
                }
            }
        }
    }

    private readonly int Query(int key, int first, int i) => key * Group + first + i;
}

/// <summary>Folds the chunks of <see cref="PagedAttentionWork"/>. An item is a query head of a token.</summary>
internal unsafe struct MergeAttentionWork : IWork
{
    public PagedAttentionWork Attention;

    public readonly void Run(int first, int end, int worker)
    {
        int heads = Attention.Heads.Query, dimension = Attention.Heads.Dimension;
        for (var item = first; item < end; item++)
        {
            var (from, to) = Attention.Seen(item / heads);
            int low = from / AttentionTile.Chunk, high = Math.Min((to - 1) / AttentionTile.Chunk, Attention.Chunks - 1);
            AttentionTile.Merge(Attention.Export(item / heads, item % heads, low), high - low + 1, dimension, Attention.Output + (long)item * dimension);
        }
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
        var tile = new AttentionTile(Pool, worker, Step * Group, Heads.Dimension, Heads.SoftCap);
        for (var item = first; item < end; item++)
        {
            int head = item / Steps % Heads.KeyValue, token = item % Steps * Step, rows = Math.Min(Step, Length - token) * Group;
            var start = (long)(item / Steps / Heads.KeyValue) * Length;
            for (var r = 0; r < rows; r++)
                tile.Begin(r, Qkv + (start + token + r / Group) * columns + (long)(head * Group + r % Group) * Heads.Dimension, Heads.Scale, 0, Length);
            tile.Fill(rows, AttentionTile.RoundUp(rows));
            var keys = Qkv + start * columns + (long)(Heads.Query + head) * Heads.Dimension;
            var source = new TileSource(DType.F32, (nint)keys, (nint)(keys + (long)Heads.KeyValue * Heads.Dimension));
            for (var block = 0; block < Length; block += AttentionTile.Block)
            {
                var to = Math.Min(block + AttentionTile.Block, Length);
                for (var p = block; p < to; p++)
                    tile.Place[p - block] = (long)p * columns;
                tile.Add(source, block, block, to, 0, rows);
            }
            for (var r = 0; r < rows; r++)
            {
                tile.Close(r);
                tile.End(r, Output + (start + token + r / Group) * outputs + (long)(head * Group + r % Group) * Heads.Dimension);
            }
        }
    }
}
