using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>Keys and values of one head as a tile reads them; where rows begin is the tile's <see cref="AttentionTile.Place"/>.</summary>
/// <param name="Type">F32, BF16, or U8 with a scale: (element − 128) · scale.</param>
/// <param name="Keys">The head's first key column.</param>
/// <param name="Values">The head's first value column.</param>
/// <param name="KeyScales">U8: the head's key scale; its rows begin at <see cref="AttentionTile.ScalePlace"/>.</param>
/// <param name="ValueScales">The same of values.</param>
internal readonly unsafe record struct TileSource(DType Type, nint Keys, nint Values, nint KeyScales = 0, nint ValueScales = 0);

/// <summary>
/// A few query rows that attend to the same keys, block by block with an online softmax (arXiv 1805.02867). Keys of a block are
/// turned so that positions lie in lanes; then scores need no sums over lanes. Blocks begin at multiples of <see cref="Block"/>
/// positions, a row's own range of positions decides what of a block counts, and rows share loads but no sums: what a row gets
/// does not depend on the rows beside it. Every <see cref="Chunk"/> positions a row's sums are closed (<see cref="Close"/>), so
/// that chunks can be computed apart and folded in their order to the same bits (arXiv 2311.01282).
/// </summary>
internal unsafe struct AttentionTile
{
    /// <summary>Positions a block: keys and values of 64 columns, with as many query rows, lie in a first-level cache.</summary>
    public const int Block = 32;

    /// <summary>Query rows that a tile should have: so often are keys used that have once been read and turned.</summary>
    public const int Rows = 64;

    /// <summary>Positions whose sums are closed together: some microseconds of work, a few per cent of it for closing.</summary>
    public const int Chunk = 256;

    /// <summary>Rows that a kernel takes at a time; heads begin at multiples of it.</summary>
    public const int Group = 4;

    // Scores are summed over so many columns at a time: shorter chains, smaller errors.
    private const int Segment = 16;

    private const int Width = LanesSums.Width;

    private readonly int dimension, padded;
    private readonly float softCap;

    // Per row: query times scale [padded]; of the chunk sums of values [padded] and of weights [Width]; the same of the chunks
    // that are closed; scores of the block [Block]; maxima of the chunk and of the closed ones.
    private readonly float* query, sums, totals, closedSums, closedTotals, scores, maximum, closedMaximum;

    // Of the block: keys by column [padded, Block]; keys and values as rows of floats [Block, padded], zero-padded.
    private readonly float* turned, keyRows, valueRows;
    private readonly long* rowPlace;

    /// <summary>Per row: the positions [Low, High) that it sees.</summary>
    public readonly int* Low, High;

    /// <summary>Per position of a block: where its row begins in keys and values, in elements.</summary>
    public readonly long* Place;

    /// <summary>Per position of a block: where its row of scales begins.</summary>
    public readonly long* ScalePlace;

    /// <summary>Lays a tile out in a worker's scratch.</summary>
    public AttentionTile(WorkerPool pool, int worker, int rows, int dimension, float softCap)
    {
        this.dimension = dimension;
        this.softCap = softCap;
        padded = Padded(dimension);
        rows = RoundUp(rows);
        long row = padded, block = (long)Block * padded;
        var floats = rows * (3 * row + 2 * Width + Block + 2) + 3 * block;
        // Vectors first, so that they lie on their natural borders.
        query = (float*)pool.Scratch(worker, (nuint)(floats * 4 + rows * 8L + 3 * Block * 8));
        sums = query + rows * row;
        closedSums = sums + rows * row;
        totals = closedSums + rows * row;
        closedTotals = totals + rows * (long)Width;
        scores = closedTotals + rows * (long)Width;
        turned = scores + rows * (long)Block;
        keyRows = turned + block;
        valueRows = keyRows + block;
        Place = (long*)(valueRows + block);
        ScalePlace = Place + Block;
        rowPlace = ScalePlace + Block;
        maximum = (float*)(rowPlace + Block);
        closedMaximum = maximum + rows;
        Low = (int*)(closedMaximum + rows);
        High = Low + rows;
        for (var j = 0; j < Block; j++)
            rowPlace[j] = j * row;
    }

    /// <summary>Columns of a head, rounded up to whole vectors.</summary>
    public static int Padded(int dimension) => (dimension + Width - 1) / Width * Width;

    /// <summary>Rows that so many take in a tile.</summary>
    public static int RoundUp(int rows) => (rows + Group - 1) / Group * Group;

    /// <summary>Floats of a row's <see cref="Export"/>.</summary>
    public static int ExportSize(int dimension) => Padded(dimension) + 2 * Width;

    /// <summary>Takes in a row's query and the range that it sees; sums start at nothing.</summary>
    public readonly void Begin(int row, float* source, float scale, int low, int high)
    {
        var q = query + (long)row * padded;
        var i = 0;
        for (; i <= dimension - Vector<float>.Count; i += Vector<float>.Count)
            (Vector.Load(source + i) * scale).Store(q + i);
        for (; i < padded; i++)
            q[i] = i < dimension ? source[i] * scale : 0;
        Low[row] = low;
        High[row] = high;
        closedMaximum[row] = float.NegativeInfinity;
        Open(row);
    }

    /// <summary>Makes row numbers [from, to), which round a head's rows up, rows that see nothing.</summary>
    public readonly void Fill(int from, int to)
    {
        for (var row = from; row < to; row++)
        {
            new Span<float>(query + (long)row * padded, padded).Clear();
            Low[row] = High[row] = 0;
            closedMaximum[row] = float.NegativeInfinity;
            Open(row);
        }
    }

    private readonly void Open(int row)
    {
        new Span<float>(sums + (long)row * padded, padded).Clear();
        new Span<float>(totals + (long)row * Width, Width).Clear();
        maximum[row] = float.NegativeInfinity;
    }

    /// <summary>Folds a row's sums into those of the chunks before, and starts it at nothing again.</summary>
    public readonly void Close(int row)
    {
        Fold(closedSums + (long)row * padded, closedTotals + (long)row * Width, closedMaximum + row,
            sums + (long)row * padded, totals + (long)row * Width, maximum[row], padded);
        Open(row);
    }

    /// <summary>Copies a row's sums out instead: maximum, sums of weights, sums of values.</summary>
    public readonly void Export(int row, float* target)
    {
        target[0] = maximum[row];
        new ReadOnlySpan<float>(totals + (long)row * Width, Width).CopyTo(new Span<float>(target + Width, Width));
        new ReadOnlySpan<float>(sums + (long)row * padded, padded).CopyTo(new Span<float>(target + 2 * Width, padded));
    }

    /// <summary>Folds exports, which lie one after another, in their order; the attention of their row.</summary>
    public static void Merge(float* exports, int count, int dimension, float* target)
    {
        int padded = Padded(dimension), size = ExportSize(dimension);
        for (var i = 1; i < count; i++)
        {
            var part = exports + (long)i * size;
            Fold(exports + 2 * Width, exports + Width, exports, part + 2 * Width, part + Width, part[0], padded);
        }
        Divide(exports + 2 * Width, exports + Width, dimension, target);
    }

    /// <summary>The attention of a row whose chunks are closed.</summary>
    public readonly void End(int row, float* target) => Divide(closedSums + (long)row * padded, closedTotals + (long)row * Width, dimension, target);

    private static void Divide(float* sum, float* total, int dimension, float* target)
    {
        var all = Lanes512.IsSupported ? LanesSums.Sum(Lanes512.Load(total)) : Lanes256.IsSupported ? LanesSums.Sum(Lanes256.Load(total)) : LanesSums.Sum(Lanes128.Load(total));
        var i = 0;
        for (; i <= dimension - Vector<float>.Count; i += Vector<float>.Count)
            (Vector.Load(sum + i) / all).Store(target + i);
        for (; i < dimension; i++)
            target[i] = sum[i] / all;
    }

    private static void Fold(float* sum, float* total, float* highest, float* partSum, float* partTotal, float partHighest, int padded)
    {
        if (float.IsNegativeInfinity(partHighest))
            return;
        if (float.IsNegativeInfinity(*highest))
        {
            *highest = partHighest;
            new ReadOnlySpan<float>(partSum, padded).CopyTo(new Span<float>(sum, padded));
            new ReadOnlySpan<float>(partTotal, Width).CopyTo(new Span<float>(total, Width));
        }
        else if (Lanes512.IsSupported)
            Fold<Lanes512>(sum, total, highest, partSum, partTotal, partHighest, padded);
        else if (Lanes256.IsSupported)
            Fold<Lanes256>(sum, total, highest, partSum, partTotal, partHighest, padded);
        else
            Fold<Lanes128>(sum, total, highest, partSum, partTotal, partHighest, padded);
    }

    private static void Fold<T>(float* sum, float* total, float* highest, float* partSum, float* partTotal, float partHighest, int padded)
        where T : struct, ILanes<T>
    {
        var after = MathF.Max(*highest, partHighest);
        T old = LanesMath.Exp(T.Broadcast(*highest - after)), part = LanesMath.Exp(T.Broadcast(partHighest - after));
        *highest = after;
        T.Store(T.MultiplyAdd(T.Load(partTotal), part, T.Load(total) * old), total);
        for (var i = 0; i < padded; i += Width)
            T.Store(T.MultiplyAdd(T.Load(partSum + i), part, T.Load(sum + i) * old), sum + i);
    }

    /// <summary>
    /// Adds what rows [first, end) see of positions [from, to), all in the block that begins at <paramref name="block"/>; each
    /// position is seen by some row. <paramref name="first"/> is a multiple of <see cref="Group"/>, and so many rows can be
    /// written as round the others up. <see cref="Place"/> is filled from from − block on.
    /// </summary>
    public readonly void Add(in TileSource source, int block, int from, int to, int first, int end)
    {
        if (Lanes512.IsSupported)
            Add<Lanes512>(source, block, from, to, first, end);
        else if (Lanes256.IsSupported)
            Add<Lanes256>(source, block, from, to, first, end);
        else
            Add<Lanes128>(source, block, from, to, first, end);
    }

    private readonly void Add<T>(in TileSource source, int block, int from, int to, int first, int end) where T : struct, ILanes<T>
    {
        float* keys = (float*)source.Keys, values = (float*)source.Values;
        long* keyPlace = Place, valuePlace = Place;
        int low = from - block, high = to - block;
        if (source.Type != DType.F32 || dimension % 4 != 0)
        {
            Read<T>(source.Type, (byte*)source.Keys, (float*)source.KeyScales, keyRows, low, high);
            keys = keyRows;
            keyPlace = rowPlace;
        }
        // Rows of values are often a multiple of 4 KiB apart, where they push each other out of the first cache.
        if (source.Type != DType.F32 || padded != dimension || end - first > 8)
        {
            Read<T>(source.Type, (byte*)source.Values, (float*)source.ValueScales, valueRows, low, high);
            values = valueRows;
            valuePlace = rowPlace;
        }
        for (var j = low - low % Width; j < high; j += Width)
            Turn(keys, keyPlace, j, low, high);
        for (var r = first; r < end; r += Group)
        {
            if (T.IsWide && r + 1 < end)
                ScoreGroup<T>(query + (long)r * padded, scores + (long)r * Block);
            else
                for (var i = r; i < Math.Min(r + Group, end); i++)
                    Score<T>(query + (long)i * padded, scores + (long)i * Block);
        }
        for (var r = first; r < RoundUp(end); r++)
        {
            int a = Math.Max(Low[r] - block, low), b = Math.Min(High[r] - block, high);
            if (a < b)
                Soften<T>(r, a, b);
            else
                new Span<float>(scores + (long)r * Block, Block).Clear();
        }
        // A position that a row does not see has weight 0 there.
        for (var r = first; r < end; r += Group)
        {
            if (T.IsWide && r + 1 < end)
                WeighGroup<T>(scores + (long)r * Block, values, valuePlace, low, high, sums + (long)r * padded);
            else
                for (var i = r; i < Math.Min(r + Group, end); i++)
                    Weigh<T>(scores + (long)i * Block, values, valuePlace, low, high, sums + (long)i * padded);
        }
    }

    /// <summary>Rows [from, to) of the block as floats, one after another.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Read<T>(DType type, byte* source, float* scales, float* target, int from, int to) where T : struct, ILanes<T>
    {
        for (var j = from; j < to; j++)
        {
            var row = target + rowPlace[j];
            var i = 0;
            if (type == DType.F32)
            {
                var s = (float*)source + Place[j];
                for (; i <= dimension - Width; i += Width)
                    T.Store(T.Load(s + i), row + i);
                for (; i < dimension; i++)
                    row[i] = s[i];
            }
            else if (type == DType.BF16)
            {
                var s = (ushort*)source + Place[j];
                for (; i <= dimension - Width; i += Width)
                    T.Store(T.ShiftLeft(T.LoadHalves(s + i), 16), row + i);
                for (; i < dimension; i++)
                    row[i] = BitConverter.Int32BitsToSingle(s[i] << 16);
            }
            else
            {
                var s = source + Place[j];
                var scale = scales[ScalePlace[j]];
                for (; i <= dimension - Width; i += Width)
                    T.Store((T.ToFloat(T.LoadBytes(s + i)) - T.Broadcast(128)) * T.Broadcast(scale), row + i);
                for (; i < dimension; i++)
                    row[i] = (s[i] - 128) * scale;
            }
            for (; i < padded; i++)
                row[i] = 0;
        }
    }

    /// <summary>Sixteen keys from <paramref name="first"/> on by column; those outside [from, to) become copies of one inside.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Turn(float* keys, long* place, int first, int from, int to)
    {
        var row = stackalloc float*[Width];
        for (var j = 0; j < Width; j++)
            row[j] = keys + place[Math.Clamp(first + j, from, to - 1)];
        var target = turned + first;
        if (Lanes512.IsSupported)
        {
            for (var i = 0; i < dimension; i += 4, target += 4 * Block)
            {
                // Four columns of four keys a register quarter; then four times four are turned in each quarter.
                Vector512<float> a = Four(row[0], row[4], row[8], row[12], i), b = Four(row[1], row[5], row[9], row[13], i);
                Vector512<float> c = Four(row[2], row[6], row[10], row[14], i), d = Four(row[3], row[7], row[11], row[15], i);
                Vector512<float> ab = Avx512F.UnpackLow(a, b), cd = Avx512F.UnpackLow(c, d);
                Avx512F.Shuffle(ab, cd, 0x44).Store(target);
                Avx512F.Shuffle(ab, cd, 0xEE).Store(target + Block);
                ab = Avx512F.UnpackHigh(a, b);
                cd = Avx512F.UnpackHigh(c, d);
                Avx512F.Shuffle(ab, cd, 0x44).Store(target + 2 * Block);
                Avx512F.Shuffle(ab, cd, 0xEE).Store(target + 3 * Block);
            }
        }
        else if (Avx.IsSupported)
        {
            for (var i = 0; i < dimension; i += 4, target += 4 * Block)
            {
                for (var j = 0; j < Width; j += 8)
                {
                    Vector256<float> a = Two(row[j], row[j + 4], i), b = Two(row[j + 1], row[j + 5], i);
                    Vector256<float> c = Two(row[j + 2], row[j + 6], i), d = Two(row[j + 3], row[j + 7], i);
                    Vector256<float> ab = Avx.UnpackLow(a, b), cd = Avx.UnpackLow(c, d);
                    Avx.Shuffle(ab, cd, 0x44).Store(target + j);
                    Avx.Shuffle(ab, cd, 0xEE).Store(target + j + Block);
                    ab = Avx.UnpackHigh(a, b);
                    cd = Avx.UnpackHigh(c, d);
                    Avx.Shuffle(ab, cd, 0x44).Store(target + j + 2 * Block);
                    Avx.Shuffle(ab, cd, 0xEE).Store(target + j + 3 * Block);
                }
            }
        }
        else
        {
            for (var i = 0; i < dimension; i++, target += Block)
                for (var j = 0; j < Width; j++)
                    target[j] = row[j][i];
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Two(float* a, float* b, int i) => Vector256.Create(Vector128.Load(a + i), Vector128.Load(b + i));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Four(float* a, float* b, float* c, float* d, int i) => Vector512.Create(Two(a, b, i), Two(c, d, i));

    /// <summary>score[j] = q · key j: summed over segments of columns, each in the columns' order.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Score<T>(float* q, float* score) where T : struct, ILanes<T>
    {
        var key = turned;
        for (var i = 0; i < dimension;)
        {
            var first = i == 0;
            T s0 = T.Broadcast(0), s1 = s0;
            for (var stop = Math.Min(i + Segment, dimension); i < stop; i++, key += Block)
            {
                var a = T.Broadcast(q[i]);
                s0 = T.MultiplyAdd(a, T.Load(key), s0);
                s1 = T.MultiplyAdd(a, T.Load(key + Width), s1);
            }
            T.Store(first ? s0 : T.Load(score) + s0, score);
            T.Store(first ? s1 : T.Load(score + Width) + s1, score + Width);
        }
    }

    /// <summary><see cref="Score"/> of four rows that follow each other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void ScoreGroup<T>(float* q, float* score) where T : struct, ILanes<T>
    {
        float* key = turned, q1 = q + padded, q2 = q1 + padded, q3 = q2 + padded;
        for (var i = 0; i < dimension;)
        {
            var first = i == 0;
            T a0 = T.Broadcast(0), a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
            for (var stop = Math.Min(i + Segment, dimension); i < stop; i++, key += Block)
            {
                T k0 = T.Load(key), k1 = T.Load(key + Width);
                var x = T.Broadcast(q[i]);
                a0 = T.MultiplyAdd(x, k0, a0);
                a1 = T.MultiplyAdd(x, k1, a1);
                x = T.Broadcast(q1[i]);
                b0 = T.MultiplyAdd(x, k0, b0);
                b1 = T.MultiplyAdd(x, k1, b1);
                x = T.Broadcast(q2[i]);
                c0 = T.MultiplyAdd(x, k0, c0);
                c1 = T.MultiplyAdd(x, k1, c1);
                x = T.Broadcast(q3[i]);
                d0 = T.MultiplyAdd(x, k0, d0);
                d1 = T.MultiplyAdd(x, k1, d1);
            }
            if (!first)
            {
                a0 = T.Load(score) + a0;
                a1 = T.Load(score + Width) + a1;
                b0 = T.Load(score + Block) + b0;
                b1 = T.Load(score + Block + Width) + b1;
                c0 = T.Load(score + 2 * Block) + c0;
                c1 = T.Load(score + 2 * Block + Width) + c1;
                d0 = T.Load(score + 3 * Block) + d0;
                d1 = T.Load(score + 3 * Block + Width) + d1;
            }
            T.Store(a0, score);
            T.Store(a1, score + Width);
            T.Store(b0, score + Block);
            T.Store(b1, score + Block + Width);
            T.Store(c0, score + 2 * Block);
            T.Store(c1, score + 2 * Block + Width);
            T.Store(d0, score + 3 * Block);
            T.Store(d1, score + 3 * Block + Width);
        }
    }

    /// <summary>
    /// Makes a row's scores [from, to) of the block weights e^(score − maximum), the others 0, and brings its sums to the new
    /// maximum. Always over the whole block, so that a score's lane is its position's.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Soften<T>(int row, int from, int to) where T : struct, ILanes<T>
    {
        float* score = scores + (long)row * Block, total = totals + (long)row * Width;
        if (softCap > 0)
            for (var j = 0; j < Block; j += Width)
                T.Store(LanesMath.SoftCap(T.Load(score + j), softCap), score + j);
        for (var j = 0; j < from; j++)
            score[j] = float.NegativeInfinity;
        for (var j = to; j < Block; j++)
            score[j] = float.NegativeInfinity;
        T s0 = T.Load(score), s1 = T.Load(score + Width), all = T.Load(total);
        float before = maximum[row], after = MathF.Max(before, LanesSums.Highest(T.Max(s0, s1)));
        if (after > before)
        {
            maximum[row] = after;
            var factor = LanesMath.Exp(T.Broadcast(before - after));
            all *= factor;
            var sum = sums + (long)row * padded;
            for (var i = 0; i < padded; i += Width)
                T.Store(T.Load(sum + i) * factor, sum + i);
        }
        var shift = T.Broadcast(after);
        s0 = LanesMath.Exp(s0 - shift);
        s1 = LanesMath.Exp(s1 - shift);
        T.Store(s0, score);
        T.Store(s1, score + Width);
        T.Store(all + (s0 + s1), total);
    }

    /// <summary>sum += Σ weight[j] · value[j] over [from, to), in this order for every element.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void Weigh<T>(float* weight, float* values, long* place, int from, int to, float* sum) where T : struct, ILanes<T>
    {
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

    /// <summary><see cref="Weigh"/> of four rows that follow each other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly void WeighGroup<T>(float* weight, float* values, long* place, int from, int to, float* sum) where T : struct, ILanes<T>
    {
        float* sumB = sum + padded, sumC = sumB + padded, sumD = sumC + padded;
        var i = 0;
        for (; i <= padded - 4 * Width; i += 4 * Width)
        {
            T a0 = T.Load(sum + i), a1 = T.Load(sum + i + Width), a2 = T.Load(sum + i + 2 * Width), a3 = T.Load(sum + i + 3 * Width);
            T b0 = T.Load(sumB + i), b1 = T.Load(sumB + i + Width), b2 = T.Load(sumB + i + 2 * Width), b3 = T.Load(sumB + i + 3 * Width);
            T c0 = T.Load(sumC + i), c1 = T.Load(sumC + i + Width), c2 = T.Load(sumC + i + 2 * Width), c3 = T.Load(sumC + i + 3 * Width);
            T d0 = T.Load(sumD + i), d1 = T.Load(sumD + i + Width), d2 = T.Load(sumD + i + 2 * Width), d3 = T.Load(sumD + i + 3 * Width);
            for (var j = from; j < to; j++)
            {
                var p = values + place[j] + i;
                T a = T.Broadcast(weight[j]), b = T.Broadcast(weight[Block + j]);
                T c = T.Broadcast(weight[2 * Block + j]), d = T.Broadcast(weight[3 * Block + j]);
                var v = T.Load(p);
                a0 = T.MultiplyAdd(a, v, a0);
                b0 = T.MultiplyAdd(b, v, b0);
                c0 = T.MultiplyAdd(c, v, c0);
                d0 = T.MultiplyAdd(d, v, d0);
                v = T.Load(p + Width);
                a1 = T.MultiplyAdd(a, v, a1);
                b1 = T.MultiplyAdd(b, v, b1);
                c1 = T.MultiplyAdd(c, v, c1);
                d1 = T.MultiplyAdd(d, v, d1);
                v = T.Load(p + 2 * Width);
                a2 = T.MultiplyAdd(a, v, a2);
                b2 = T.MultiplyAdd(b, v, b2);
                c2 = T.MultiplyAdd(c, v, c2);
                d2 = T.MultiplyAdd(d, v, d2);
                v = T.Load(p + 3 * Width);
                a3 = T.MultiplyAdd(a, v, a3);
                b3 = T.MultiplyAdd(b, v, b3);
                c3 = T.MultiplyAdd(c, v, c3);
                d3 = T.MultiplyAdd(d, v, d3);
            }
            Store(sum + i, a0, a1, a2, a3);
            Store(sumB + i, b0, b1, b2, b3);
            Store(sumC + i, c0, c1, c2, c3);
            Store(sumD + i, d0, d1, d2, d3);
        }
        for (; i < padded; i += Width)
        {
            T a = T.Load(sum + i), b = T.Load(sumB + i), c = T.Load(sumC + i), d = T.Load(sumD + i);
            for (var j = from; j < to; j++)
            {
                var v = T.Load(values + place[j] + i);
                a = T.MultiplyAdd(T.Broadcast(weight[j]), v, a);
                b = T.MultiplyAdd(T.Broadcast(weight[Block + j]), v, b);
                c = T.MultiplyAdd(T.Broadcast(weight[2 * Block + j]), v, c);
                d = T.MultiplyAdd(T.Broadcast(weight[3 * Block + j]), v, d);
            }
            T.Store(a, sum + i);
            T.Store(b, sumB + i);
            T.Store(c, sumC + i);
            T.Store(d, sumD + i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store<T>(float* target, T a, T b, T c, T d) where T : struct, ILanes<T>
    {
        T.Store(a, target);
        T.Store(b, target + Width);
        T.Store(c, target + 2 * Width);
        T.Store(d, target + 3 * Width);
    }
}
