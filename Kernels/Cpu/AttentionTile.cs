using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// A few query rows that attend to the same keys, block by block with an online softmax (arXiv 1805.02867). Blocks begin at
/// multiples of <see cref="Block"/> positions, a row's own range of positions decides what of a block it sees, and rows share
/// loads but no sums: what a row gets does not depend on the rows beside it.
/// </summary>
internal unsafe struct AttentionTile
{
    /// <summary>Positions a block: keys and values of 128 columns fill a first-level cache between them.</summary>
    public const int Block = 32;

    /// <summary>Query rows that a tile should have: so often are keys used that have once been read.</summary>
    public const int Rows = 32;

    // Scores are computed four keys at a time, which may reach three past the block.
    private const int Scores = Block + 16;

    private const int Width = LanesSums.Width;

    private readonly int rows, dimension, padded;

    // Per row: query times scale [padded], sums of values [padded], scores of the block [Scores], maximum and sum so far.
    private readonly float* query, sums, scores, maximum, total;

    // The block's keys and values copied together, zero-padded, and where they lie there; see Copies.
    private readonly float* keyCopy, valueCopy;
    private readonly long* copyPlace;

    /// <summary>Per row: the positions [Low, High) that it sees.</summary>
    public readonly int* Low, High;

    /// <summary>Per position of a block: where its row begins in keys and values, in elements.</summary>
    public readonly long* Place;

    /// <summary>Lays a tile out in a worker's scratch.</summary>
    public AttentionTile(WorkerPool pool, int worker, int rows, int dimension)
    {
        this.rows = rows;
        this.dimension = dimension;
        padded = (dimension + Width - 1) / Width * Width;
        var copied = Block * (long)padded;
        var floats = rows * (2L * padded + Scores + 2) + 2 * copied;
        // Vectors first, so that they lie on their natural borders.
        query = (float*)pool.Scratch(worker, (nuint)(floats * 4 + rows * 8L + 2 * Block * 8));
        sums = query + (long)rows * padded;
        keyCopy = sums + (long)rows * padded;
        valueCopy = keyCopy + copied;
        scores = valueCopy + copied;
        Place = (long*)(scores + (long)rows * Scores);
        copyPlace = Place + Block;
        maximum = (float*)(copyPlace + Block);
        total = maximum + rows;
        Low = (int*)(total + rows);
        High = Low + rows;
        for (var j = 0; j < Block; j++)
            copyPlace[j] = j * (long)padded;
    }

    /// <summary>Takes in a row's query and the range that it sees; sums start at nothing.</summary>
    public readonly void Begin(int row, float* source, float scale, int low, int high)
    {
        var q = query + (long)row * padded;
        var i = 0;
        for (; i <= dimension - Vector<float>.Count; i += Vector<float>.Count)
            (Vector.Load(source + i) * scale).Store(q + i);
        for (; i < padded; i++)
            q[i] = i < dimension ? source[i] * scale : 0;
        new Span<float>(sums + (long)row * padded, padded).Clear();
        maximum[row] = float.NegativeInfinity;
        total[row] = 0;
        Low[row] = low;
        High[row] = high;
    }

    /// <summary>
    /// Adds what rows [first, end) see of positions [from, to), all in the block that begins at <paramref name="block"/>; each
    /// position is seen by some row. <see cref="Place"/> is filled from from − block on.
    /// </summary>
    public readonly void Add(float* keys, float* values, int block, int from, int to, int first, int end)
    {
        if (Lanes512.IsSupported)
            Add<Lanes512>(keys, values, block, from, to, first, end);
        else if (Lanes256.IsSupported)
            Add<Lanes256>(keys, values, block, from, to, first, end);
        else
            Add<Lanes128>(keys, values, block, from, to, first, end);
    }

    /// <summary>The attention of a row.</summary>
    public readonly void End(int row, float* target)
    {
        var sum = sums + (long)row * padded;
        var i = 0;
        for (; i <= dimension - Vector<float>.Count; i += Vector<float>.Count)
            (Vector.Load(sum + i) / total[row]).Store(target + i);
        for (; i < dimension; i++)
            target[i] = sum[i] / total[row];
    }

    private readonly void Add<T>(float* keys, float* values, int block, int from, int to, int first, int end) where T : struct, ILanes<T>
    {
        var place = Place;
        if (Copies(end - first))
        {
            Copy(keys, values, from - block, to - block);
            keys = keyCopy;
            values = valueCopy;
            place = copyPlace;
        }
        // Keys, then values: half the block is in use at a time.
        for (int r = first, step; r < end; r += step)
        {
            step = T.IsWide && r + 1 < end ? 2 : 1;
            var (a, b) = Seen(r, block, from, to);
            if (step == 1)
                Score<T>(query + (long)r * padded, keys, place, a, b, scores + (long)r * Scores);
            else
            {
                // Whatever either row sees: a range without a gap, as positions of neighbours are neighbours.
                var (c, d) = Seen(r + 1, block, from, to);
                ScorePair<T>(query + (long)r * padded, keys, place, Math.Min(a, c), Math.Max(b, d), scores + (long)r * Scores);
            }
        }
        for (var r = first; r < end; r++)
        {
            var (a, b) = Seen(r, block, from, to);
            if (a < b)
                Soften<T>(r, a, b);
        }
        for (int r = first, step; r < end; r += step)
        {
            step = T.IsWide && r + 1 < end ? 2 : 1;
            var (a, b) = Seen(r, block, from, to);
            var score = scores + (long)r * Scores;
            var sum = sums + (long)r * padded;
            if (step == 1)
            {
                Weigh<T>(score, values, place, a, b, sum);
                continue;
            }
            var (c, d) = Seen(r + 1, block, from, to);
            // What both see goes together, in its place among what only one sees.
            int both = Math.Max(a, c), split = Math.Max(both, Math.Min(b, d));
            Weigh<T>(score, values, place, a, Math.Min(both, b), sum);
            Weigh<T>(score + Scores, values, place, c, Math.Min(both, d), sum + padded);
            WeighPair<T>(score, values, place, both, split, sum);
            Weigh<T>(score, values, place, split, b, sum);
            Weigh<T>(score + Scores, values, place, split, d, sum + padded);
        }
    }

    /// <summary>
    /// Whether that many rows work on copies. Heads that are no whole number of vectors always do. Others, when there is enough
    /// use to pay for it: rows of keys are often a multiple of 4 KiB apart, where they push each other out of the first cache.
    /// </summary>
    private readonly bool Copies(int rows) => rows >= 8 || padded != dimension;

    /// <summary>What a row sees of positions [from, to), counted from the block's begin; empty where the end is not past the begin.</summary>
    private readonly (int From, int To) Seen(int row, int block, int from, int to) =>
        (Math.Max(Low[row], from) - block, Math.Min(High[row], to) - block);

    private readonly void Copy(float* keys, float* values, int from, int to)
    {
        for (var j = from; j < to; j++)
        {
            Span<float> key = new(keyCopy + copyPlace[j], padded), value = new(valueCopy + copyPlace[j], padded);
            new ReadOnlySpan<float>(keys + Place[j], dimension).CopyTo(key);
            new ReadOnlySpan<float>(values + Place[j], dimension).CopyTo(value);
            key[dimension..].Clear();
            value[dimension..].Clear();
        }
    }

    /// <summary>score[j] = q · key[j]: products in one vector of partial sums, element i in lane i % width, folded at the end.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Score<T>(float* q, float* keys, long* place, int from, int to, float* score) where T : struct, ILanes<T>
    {
        for (var j = from; j < to; j += 4)
        {
            float* k0 = keys + place[j], k1 = keys + place[Math.Min(j + 1, to - 1)];
            float* k2 = keys + place[Math.Min(j + 2, to - 1)], k3 = keys + place[Math.Min(j + 3, to - 1)];
            T s0 = T.Broadcast(0), s1 = s0, s2 = s0, s3 = s0;
            for (var i = 0; i < padded; i += Width)
            {
                var a = T.Load(q + i);
                s0 = T.MultiplyAdd(a, T.Load(k0 + i), s0);
                s1 = T.MultiplyAdd(a, T.Load(k1 + i), s1);
                s2 = T.MultiplyAdd(a, T.Load(k2 + i), s2);
                s3 = T.MultiplyAdd(a, T.Load(k3 + i), s3);
            }
            LanesSums.Sums(s0, s1, s2, s3).Store(score + j);
        }
    }

    /// <summary><see cref="Score"/> of two rows that follow each other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void ScorePair<T>(float* q, float* keys, long* place, int from, int to, float* score) where T : struct, ILanes<T>
    {
        var p = q + padded;
        for (var j = from; j < to; j += 4)
        {
            float* k0 = keys + place[j], k1 = keys + place[Math.Min(j + 1, to - 1)];
            float* k2 = keys + place[Math.Min(j + 2, to - 1)], k3 = keys + place[Math.Min(j + 3, to - 1)];
            T s0 = T.Broadcast(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
            for (var i = 0; i < padded; i += Width)
            {
                T a = T.Load(q + i), b = T.Load(p + i);
                var k = T.Load(k0 + i);
                s0 = T.MultiplyAdd(a, k, s0);
                t0 = T.MultiplyAdd(b, k, t0);
                k = T.Load(k1 + i);
                s1 = T.MultiplyAdd(a, k, s1);
                t1 = T.MultiplyAdd(b, k, t1);
                k = T.Load(k2 + i);
                s2 = T.MultiplyAdd(a, k, s2);
                t2 = T.MultiplyAdd(b, k, t2);
                k = T.Load(k3 + i);
                s3 = T.MultiplyAdd(a, k, s3);
                t3 = T.MultiplyAdd(b, k, t3);
            }
            LanesSums.Sums(s0, s1, s2, s3).Store(score + j);
            LanesSums.Sums(t0, t1, t2, t3).Store(score + Scores + j);
        }
    }

    /// <summary>
    /// Makes a row's scores [from, to) of the block weights e^(score − maximum), the others 0, and brings its sums to the new
    /// maximum. Always over the whole block, so that a score's lane is its position's.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Soften<T>(int row, int from, int to) where T : struct, ILanes<T>
    {
        var score = scores + (long)row * Scores;
        new Span<float>(score, from).Fill(float.NegativeInfinity);
        new Span<float>(score + to, Block - to).Fill(float.NegativeInfinity);
        var highest = T.Load(score);
        for (var j = Width; j < Block; j += Width)
            highest = T.Max(highest, T.Load(score + j));
        float before = maximum[row], after = MathF.Max(before, LanesSums.Highest(highest));
        if (after > before)
        {
            maximum[row] = after;
            var factor = LanesMath.Exp(T.Broadcast(before - after));
            total[row] *= LanesSums.First(factor);
            var sum = sums + (long)row * padded;
            for (var i = 0; i < padded; i += Width)
                T.Store(T.Load(sum + i) * factor, sum + i);
        }
        T shift = T.Broadcast(after), all = T.Broadcast(0);
        for (var j = 0; j < Block; j += Width)
        {
            var weight = LanesMath.Exp(T.Load(score + j) - shift);
            T.Store(weight, score + j);
            all += weight;
        }
        total[row] += LanesSums.Sum(all);
    }

    /// <summary>sum += Σ weight[j] · value[j] over [from, to), in this order for every element.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Weigh<T>(float* weight, float* values, long* place, int from, int to, float* sum) where T : struct, ILanes<T>
    {
        if (from >= to)
            return;
        var i = 0;
        for (; i <= padded - 4 * Width; i += 4 * Width)
        {
            T s0 = T.Load(sum + i), s1 = T.Load(sum + i + Width), s2 = T.Load(sum + i + 2 * Width), s3 = T.Load(sum + i + 3 * Width);
            for (var j = from; j < to; j++)
            {
                var w = T.Broadcast(weight[j]);
                var v = values + place[j] + i;
                s0 = T.MultiplyAdd(w, T.Load(v), s0);
                s1 = T.MultiplyAdd(w, T.Load(v + Width), s1);
                s2 = T.MultiplyAdd(w, T.Load(v + 2 * Width), s2);
                s3 = T.MultiplyAdd(w, T.Load(v + 3 * Width), s3);
            }
            T.Store(s0, sum + i);
            T.Store(s1, sum + i + Width);
            T.Store(s2, sum + i + 2 * Width);
            T.Store(s3, sum + i + 3 * Width);
        }
        for (; i < padded; i += Width)
        {
            var s = T.Load(sum + i);
            for (var j = from; j < to; j++)
                s = T.MultiplyAdd(T.Broadcast(weight[j]), T.Load(values + place[j] + i), s);
            T.Store(s, sum + i);
        }
    }

    /// <summary><see cref="Weigh"/> for two rows that follow each other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void WeighPair<T>(float* weight, float* values, long* place, int from, int to, float* sum) where T : struct, ILanes<T>
    {
        var i = 0;
        var next = sum + padded;
        for (; i <= padded - 4 * Width; i += 4 * Width)
        {
            T s0 = T.Load(sum + i), s1 = T.Load(sum + i + Width), s2 = T.Load(sum + i + 2 * Width), s3 = T.Load(sum + i + 3 * Width);
            T t0 = T.Load(next + i), t1 = T.Load(next + i + Width), t2 = T.Load(next + i + 2 * Width), t3 = T.Load(next + i + 3 * Width);
            for (var j = from; j < to; j++)
            {
                T w = T.Broadcast(weight[j]), u = T.Broadcast(weight[Scores + j]);
                var p = values + place[j] + i;
                var v = T.Load(p);
                s0 = T.MultiplyAdd(w, v, s0);
                t0 = T.MultiplyAdd(u, v, t0);
                v = T.Load(p + Width);
                s1 = T.MultiplyAdd(w, v, s1);
                t1 = T.MultiplyAdd(u, v, t1);
                v = T.Load(p + 2 * Width);
                s2 = T.MultiplyAdd(w, v, s2);
                t2 = T.MultiplyAdd(u, v, t2);
                v = T.Load(p + 3 * Width);
                s3 = T.MultiplyAdd(w, v, s3);
                t3 = T.MultiplyAdd(u, v, t3);
            }
            T.Store(s0, sum + i);
            T.Store(s1, sum + i + Width);
            T.Store(s2, sum + i + 2 * Width);
            T.Store(s3, sum + i + 3 * Width);
            T.Store(t0, next + i);
            T.Store(t1, next + i + Width);
            T.Store(t2, next + i + 2 * Width);
            T.Store(t3, next + i + 3 * Width);
        }
        for (; i < padded; i += Width)
        {
            T s = T.Load(sum + i), t = T.Load(next + i);
            for (var j = from; j < to; j++)
            {
                var v = T.Load(values + place[j] + i);
                s = T.MultiplyAdd(T.Broadcast(weight[j]), v, s);
                t = T.MultiplyAdd(T.Broadcast(weight[Scores + j]), v, t);
            }
            T.Store(s, sum + i);
            T.Store(t, next + i);
        }
    }
}
