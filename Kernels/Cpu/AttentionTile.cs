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

    // Zero-padded copies of the block's keys and values, where a head is no whole number of vectors.
    private readonly float* keyCopy, valueCopy;

    /// <summary>Per row: the positions [Low, High) that it sees.</summary>
    public readonly int* Low, High;

    /// <summary>Per position of a block: where its head begins in keys and values, in elements.</summary>
    public readonly long* Place;

    /// <summary>Lays a tile out in a worker's scratch.</summary>
    public AttentionTile(WorkerPool pool, int worker, int rows, int dimension)
    {
        this.rows = rows;
        this.dimension = dimension;
        padded = (dimension + Width - 1) / Width * Width;
        var copied = padded == dimension ? 0 : Block * (long)padded;
        var floats = rows * (2L * padded + Scores + 2) + 2 * copied;
        // Vectors first, so that they lie on their natural borders.
        query = (float*)pool.Scratch(worker, (nuint)(floats * 4 + rows * 8L + Block * 8));
        sums = query + (long)rows * padded;
        keyCopy = sums + (long)rows * padded;
        valueCopy = keyCopy + copied;
        scores = valueCopy + copied;
        Place = (long*)(scores + (long)rows * Scores);
        maximum = (float*)(Place + Block);
        total = maximum + rows;
        Low = (int*)(total + rows);
        High = Low + rows;
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
    /// Adds what rows [0, count) see of positions [from, to), all in the block that begins at <paramref name="block"/>; each
    /// position is seen by some row. <see cref="Place"/> is filled from from − block on.
    /// </summary>
    public readonly void Add(float* keys, float* values, int block, int from, int to, int count)
    {
        if (Lanes512.IsSupported)
            Add<Lanes512>(keys, values, block, from, to, count);
        else if (Lanes256.IsSupported)
            Add<Lanes256>(keys, values, block, from, to, count);
        else
            Add<Lanes128>(keys, values, block, from, to, count);
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

    private readonly void Add<T>(float* keys, float* values, int block, int from, int to, int count) where T : struct, ILanes<T>
    {
        if (padded != dimension)
        {
            Copy(keys, values, from - block, to - block);
            keys = keyCopy;
            values = valueCopy;
        }
        for (int r = 0, step; r < count; r += step)
        {
            var pair = T.IsWide && r + 1 < count;
            step = pair ? 2 : 1;
            int a0 = Math.Max(Low[r], from) - block, b0 = Math.Min(High[r], to) - block, a1 = a0, b1 = b0;
            if (pair)
                (a1, b1) = (Math.Max(Low[r + 1], from) - block, Math.Min(High[r + 1], to) - block);
            // Both rows' scores of what either sees; whichever sees nothing here has an empty or inverted range.
            int any = Math.Max(Math.Min(a0, a1), 0), end = Math.Max(b0, b1);
            if (any >= end)
                continue;
            var score = scores + (long)r * Scores;
            var sum = sums + (long)r * padded;
            if (!pair)
            {
                Score<T>(query + (long)r * padded, keys, any, end, score);
                Soften<T>(r, a0, b0);
                Weigh<T>(score, values, a0, b0, sum);
                continue;
            }
            ScorePair<T>(query + (long)r * padded, keys, any, end, score);
            if (a0 < b0)
                Soften<T>(r, a0, b0);
            if (a1 < b1)
                Soften<T>(r + 1, a1, b1);
            int both = Math.Max(a0, a1), split = Math.Min(b0, b1);
            if (both >= split)
            {
                Weigh<T>(score, values, a0, b0, sum);
                Weigh<T>(score + Scores, values, a1, b1, sum + padded);
                continue;
            }
            Weigh<T>(score, values, a0, both, sum);
            Weigh<T>(score + Scores, values, a1, both, sum + padded);
            WeighPair<T>(score, values, both, split, sum);
            Weigh<T>(score, values, split, b0, sum);
            Weigh<T>(score + Scores, values, split, b1, sum + padded);
        }
    }

    private readonly void Copy(float* keys, float* values, int from, int to)
    {
        for (var j = from; j < to; j++)
        {
            Span<float> key = new(keyCopy + j * (long)padded, padded), value = new(valueCopy + j * (long)padded, padded);
            new ReadOnlySpan<float>(keys + Place[j], dimension).CopyTo(key);
            new ReadOnlySpan<float>(values + Place[j], dimension).CopyTo(value);
            key[dimension..].Clear();
            value[dimension..].Clear();
            Place[j] = j * (long)padded;
        }
    }

    /// <summary>score[j] = q · key[j]: products in one vector of partial sums, element i in lane i % width, folded at the end.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Score<T>(float* q, float* keys, int from, int to, float* score) where T : struct, ILanes<T>
    {
        for (var j = from; j < to; j += 4)
        {
            float* k0 = keys + Place[j], k1 = keys + Place[Math.Min(j + 1, to - 1)];
            float* k2 = keys + Place[Math.Min(j + 2, to - 1)], k3 = keys + Place[Math.Min(j + 3, to - 1)];
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
    private readonly void ScorePair<T>(float* q, float* keys, int from, int to, float* score) where T : struct, ILanes<T>
    {
        var p = q + padded;
        for (var j = from; j < to; j += 4)
        {
            float* k0 = keys + Place[j], k1 = keys + Place[Math.Min(j + 1, to - 1)];
            float* k2 = keys + Place[Math.Min(j + 2, to - 1)], k3 = keys + Place[Math.Min(j + 3, to - 1)];
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
    private readonly void Weigh<T>(float* weight, float* values, int from, int to, float* sum) where T : struct, ILanes<T>
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
                var v = values + Place[j] + i;
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
                s = T.MultiplyAdd(T.Broadcast(weight[j]), T.Load(values + Place[j] + i), s);
            T.Store(s, sum + i);
        }
    }

    /// <summary><see cref="Weigh"/> for two rows that follow each other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void WeighPair<T>(float* weight, float* values, int from, int to, float* sum) where T : struct, ILanes<T>
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
                var p = values + Place[j] + i;
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
                var v = T.Load(values + Place[j] + i);
                s = T.MultiplyAdd(T.Broadcast(weight[j]), v, s);
                t = T.MultiplyAdd(T.Broadcast(weight[Scores + j]), v, t);
            }
            T.Store(s, sum + i);
            T.Store(t, next + i);
        }
    }
}
