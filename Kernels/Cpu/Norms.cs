using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// A norm over rows [T, D], with the residual add, the capture and the steering before it where there are any: each row is
/// read and written while it lies in the first cache.
/// </summary>
internal unsafe struct NormWork : IWork
{
    public int Columns;
    public float* Output;

    /// <summary>Rows that are normed; written when there is a delta.</summary>
    public float* Input;

    /// <summary>Null for a plain norm.</summary>
    public float* Delta;
    public float* Weight;
    public float* Bias;
    public float Epsilon;
    public bool Centered;
    public Junction Junction;

    /// <summary>Per token; null for no steering.</summary>
    public int* SteerSlot;
    public float* SteerScale;
    public float* Vectors;

    /// <summary>Per token; null for no capture.</summary>
    public int* CaptureSlot;
    public float* Captures;

    /// <summary>Per token; null for no products.</summary>
    public int* ProductSlot;
    public float* Products;

    /// <summary>Per token; null for no addition.</summary>
    public int* Rows;
    public float* Added;

    public readonly void Run(int first, int end, int worker)
    {
        for (var t = first; t < end; t++)
        {
            var row = new NormRow { Columns = Columns, X = Input + (long)t * Columns, Delta = Delta == null ? null : Delta + (long)t * Columns };
            if (CaptureSlot != null && Contract.SlotRow(Junction, CaptureSlot[t], Junction.Captures.Rows, "capture") is >= 0 and var capture)
                row.Capture = Captures + (long)capture * Columns;
            if (SteerSlot != null && Contract.SlotRow(Junction, SteerSlot[t], Junction.Vectors.Rows, "steer") is >= 0 and var steer)
            {
                row.Vector = Vectors + (long)steer * Columns;
                row.Scale = SteerScale[t];
                if (ProductSlot != null && ProductSlot[t] >= 0)
                    row.Products = Products + (long)Contract.Index(nameof(Device.ResidualNorm), "product slot", ProductSlot[t], Junction.Products.Rows) * 2 * Junction.Layers + 2 * (Junction.Layer - 1);
            }
            if (Rows != null && Rows[t] < 0)
                row.Added = Added + (long)Contract.Index(nameof(Device.ResidualNorm), "feature", -1 - Rows[t], Junction.Added.Rows) * Columns;
            var output = Output + (long)t * Columns;
            if (Lanes512.IsSupported)
                row.Run<Lanes512>(output, Weight, Bias, Epsilon, Centered);
            else if (Lanes256.IsSupported)
                row.Run<Lanes256>(output, Weight, Bias, Epsilon, Centered);
            else
                row.Run<Lanes128>(output, Weight, Bias, Epsilon, Centered);
        }
    }
}

/// <summary>One row of <see cref="NormWork"/>.</summary>
internal unsafe ref struct NormRow
{
    private const int Width = LanesSums.Width;

    public int Columns;
    public float* X, Delta, Capture, Vector, Added;

    /// <summary>Receives h · v before and after the edit; null for no products.</summary>
    public float* Products;
    public float Scale;

    /// <summary>
    /// The sums run in four accumulators of lanes, element i in lane i % 16 of accumulator i / 16 % 4: a fixed order, and short
    /// chains (16 terms a lane at D = 1024), so f32 sums stay exact to a few units.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public readonly void Run<T>(float* output, float* weight, float* bias, float epsilon, bool centered) where T : struct, ILanes<T>
    {
        T s0 = T.Broadcast(0), s1 = s0, s2 = s0, s3 = s0, before = s0, after = s0;
        var whole = Columns - Columns % (4 * Width);
        for (var i = 0; i < whole; i += 4 * Width)
        {
            T a = Edit(i, Width, ref before, ref after), b = Edit(i + Width, Width, ref before, ref after);
            T c = Edit(i + 2 * Width, Width, ref before, ref after), d = Edit(i + 3 * Width, Width, ref before, ref after);
            s0 = centered ? s0 + a : T.MultiplyAdd(a, a, s0);
            s1 = centered ? s1 + b : T.MultiplyAdd(b, b, s1);
            s2 = centered ? s2 + c : T.MultiplyAdd(c, c, s2);
            s3 = centered ? s3 + d : T.MultiplyAdd(d, d, s3);
        }
        for (var i = whole; i < Columns; i += Width)
        {
            var a = Edit(i, Columns - i, ref before, ref after);
            s0 = centered ? s0 + a : T.MultiplyAdd(a, a, s0);
        }
        var sum = LanesSums.Sum(s0 + s1 + (s2 + s3));
        if (Products != null)
            (Products[0], Products[1]) = (LanesSums.Sum(before), LanesSums.Sum(after));
        var mean = 0f;
        if (centered)
        {
            mean = sum / Columns;
            sum = SquaredDistance<T>(mean);
        }
        T m = T.Broadcast(mean), r = T.Broadcast(1f / MathF.Sqrt(sum / Columns + epsilon));
        for (var i = 0; i < Columns; i += Width)
        {
            var n = Columns - i;
            var y = (LanesSums.Load<T>(X + i, n) - m) * r * LanesSums.Load<T>(weight + i, n);
            if (bias != null)
                y += LanesSums.Load<T>(bias + i, n);
            LanesSums.Store(y, output + i, n);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private readonly float SquaredDistance<T>(float mean) where T : struct, ILanes<T>
    {
        T m = T.Broadcast(mean), s0 = T.Broadcast(0), s1 = s0;
        for (var i = 0; i < Columns; i += 2 * Width)
        {
            // Lanes past the end count as the mean: no distance.
            T a = LanesSums.Load<T>(X + i, Columns - i, mean) - m;
            T b = Columns - i > Width ? LanesSums.Load<T>(X + i + Width, Columns - i - Width, mean) - m : T.Broadcast(0);
            s0 = T.MultiplyAdd(a, a, s0);
            s1 = T.MultiplyAdd(b, b, s1);
        }
        return LanesSums.Sum(s0 + s1);
    }

    /// <summary>Adds, captures and steers some elements, and stores them where that changed them; lanes past the end are 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private readonly T Edit<T>(int i, int count, ref T before, ref T after) where T : struct, ILanes<T>
    {
        var x = LanesSums.Load<T>(X + i, count);
        if (Delta == null)
            return x;
        x += LanesSums.Load<T>(Delta + i, count);
        if (Capture != null)
            LanesSums.Store(x, Capture + i, count);
        // Two roundings, as the definition has them: every instruction set gives the same bits.
        if (Vector != null)
        {
            var v = LanesSums.Load<T>(Vector + i, count);
            if (Products != null)
                before = T.MultiplyAdd(x, v, before);
            x -= T.Broadcast(Scale) * v;
            if (Products != null)
                after = T.MultiplyAdd(x, v, after);
        }
        if (Added != null)
            x += LanesSums.Load<T>(Added + i, count);
        LanesSums.Store(x, X + i, count);
        return x;
    }
}
