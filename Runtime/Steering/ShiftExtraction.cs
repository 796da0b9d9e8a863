using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Trimtab.Steering;

/// <summary>How the differences of an anchor set become one vector a layer.</summary>
public enum ShiftMethod
{
    /// <summary>The mean difference.</summary>
    Mean,
    /// <summary>The first principal component, as long as the mean's projection on it.</summary>
    Pc,
    /// <summary>The first principal component, of unit length.</summary>
    UnitPc,
}

/// <summary>
/// Extracts dataset-level shift vectors from an anchor set, as CMRM does ("Unraveling and Mitigating Safety Alignment Degradation of
/// Vision-Language Models", arXiv 2410.09047, dataset-level extraction: the mean, or the first principal component, of the shifts
/// d_l = h_l(text, meaningless image) − h_l(text) at the last token). For every layer l, with d_i the difference of anchor i:
/// <list type="bullet">
/// <item><see cref="ShiftMethod.Mean"/>: m = mean_i d_i.</item>
/// <item><see cref="ShiftMethod.UnitPc"/>: u, the unit direction of the largest variance of d_i − m, with u · m ≥ 0.</item>
/// <item><see cref="ShiftMethod.Pc"/>: u · mean_i(d_i · u).</item>
/// </list>
/// Where these do not define u: without variance (one anchor, or all equal) u is m's own direction, so that Pc equals Mean, and u is 0
/// where m is 0; where several directions share the largest variance, u is the share in them of one anchor, the one with the most;
/// where m · u vanishes (below 1e-12 |m|), u's largest element is positive. All arithmetic is in double and in one order: equal input
/// gives equal bits. Differences are kept, as float: N · L · D · 4 bytes. Not safe for use from several threads at once.
/// </summary>
/// <param name="layers">L: decoder layers.</param>
/// <param name="hiddenSize">D: width of the residual stream.</param>
/// <exception cref="ArgumentOutOfRangeException">A size is below 1.</exception>
public sealed class ShiftExtraction(int layers, int hiddenSize)
{
    private readonly List<float[]> _differences = []; // N of [L, D]
    private (float[] Unit, float[] Scaled, double Explained)[]? _components; // [L], until the next Add

    /// <summary>L: decoder layers.</summary>
    public int Layers { get; } = layers >= 1 ? layers : throw new ArgumentOutOfRangeException(nameof(layers), layers, "at least one layer");

    /// <summary>D: width of the residual stream.</summary>
    public int HiddenSize { get; } = hiddenSize >= 1
        ? hiddenSize
        : throw new ArgumentOutOfRangeException(nameof(hiddenSize), hiddenSize, "at least one element");

    /// <summary>N: anchors added.</summary>
    public int Count => _differences.Count;

    /// <summary>Adds one anchor's differences; they are copied.</summary>
    /// <param name="difference">d, [L, D].</param>
    /// <exception cref="ArgumentException">The size is not L · D, or a value is NaN or infinite.</exception>
    public void Add(ReadOnlySpan<float> difference)
    {
        if (difference.Length != (long)Layers * HiddenSize)
            throw new ArgumentException($"{difference.Length} values; expected {Layers} layers of {HiddenSize}");
        for (var i = 0; i < difference.Length; i++)
        {
            if (!float.IsFinite(difference[i]))
                throw new ArgumentException(string.Create(CultureInfo.InvariantCulture,
                    $"the difference of layer {i / HiddenSize + 1} holds {difference[i]} at element {i % HiddenSize}"));
        }
        _differences.Add(difference.ToArray());
        _components = null;
    }

    /// <summary>One vector a layer, [L] of [D].</summary>
    /// <exception cref="InvalidOperationException">No anchor was added.</exception>
    public float[][] Compute(ShiftMethod method)
    {
        RequireAnchors();
        return [.. Enumerable.Range(0, Layers).Select(layer => method switch
        {
            ShiftMethod.Mean => Array.ConvertAll(Mean(layer), value => (float)value),
            ShiftMethod.Pc => (float[])Components[layer].Scaled.Clone(),
            ShiftMethod.UnitPc => (float[])Components[layer].Unit.Clone(),
            _ => throw new ArgumentOutOfRangeException(nameof(method), method, null),
        })];
    }

    /// <summary>
    /// The share of each layer's variance that lies along its first principal component, [L], 0 … 1; 0 where there is no variance.
    /// </summary>
    /// <exception cref="InvalidOperationException">No anchor was added.</exception>
    public double[] Explained()
    {
        RequireAnchors();
        return [.. Components.Select(component => component.Explained)];
    }

    private (float[] Unit, float[] Scaled, double Explained)[] Components =>
        _components ??= [.. Enumerable.Range(0, Layers).Select(Component)];

    private void RequireAnchors()
    {
        if (Count == 0)
            throw new InvalidOperationException("no differences were added");
    }

    private ReadOnlySpan<float> Row(int anchor, int layer) => _differences[anchor].AsSpan(layer * HiddenSize, HiddenSize);

    private double[] Mean(int layer)
    {
        var mean = new double[HiddenSize];
        for (var i = 0; i < Count; i++)
        {
            var row = Row(i, layer);
            for (var j = 0; j < mean.Length; j++)
                mean[j] += row[j];
        }
        for (var j = 0; j < mean.Length; j++)
            mean[j] /= Count;
        return mean;
    }

    private (float[] Unit, float[] Scaled, double Explained) Component(int layer)
    {
        var mean = Mean(layer);
        var (unit, explained) = Principal(Centred(layer));
        var length = Math.Sqrt(Dot(mean, mean));
        if (unit is null)
            unit = length > 0 ? Array.ConvertAll(mean, value => value / length) : new double[HiddenSize];
        var projection = Dot(mean, unit);
        var positive = Math.Abs(projection) > 1e-12 * length ? projection > 0 : unit.MaxBy(Math.Abs) >= 0;
        var sign = positive ? 1.0 : -1.0;
        return (Array.ConvertAll(unit, value => (float)(sign * value)), Array.ConvertAll(unit, value => (float)(projection * value)), explained);
    }

    /// <summary>The differences less their mean, [N] of [D].</summary>
    private double[][] Centred(int layer)
    {
        // Less the first row before less the mean: equal rows then leave exact zeros, not the rounding of their mean.
        var rows = new double[Count][];
        var mean = new double[HiddenSize];
        var first = Row(0, layer);
        for (var i = 0; i < rows.Length; i++)
        {
            var row = Row(i, layer);
            rows[i] = new double[HiddenSize];
            for (var j = 0; j < mean.Length; j++)
                mean[j] += rows[i][j] = (double)row[j] - first[j];
        }
        foreach (var row in rows)
        {
            for (var j = 0; j < mean.Length; j++)
                row[j] -= mean[j] / rows.Length;
        }
        return rows;
    }

    /// <summary>The unit direction of the rows' largest variance and its share of the whole; null and 0 where there is none.</summary>
    private static (double[]? Unit, double Explained) Principal(double[][] rows)
    {
        var width = rows[0].Length;
        // X Xᵀ and Xᵀ X have the same largest eigenvalue: the smaller of the two is solved.
        var wide = rows.Length <= width;
        var side = wide ? rows : [.. Enumerable.Range(0, width).Select(j => Array.ConvertAll(rows, row => row[j]))];
        var scale = side.Max(row => row.Max(Math.Abs));
        if (scale == 0)
            return (null, 0);
        foreach (var row in side)
        {
            for (var j = 0; j < row.Length; j++)
                row[j] /= scale; // squares neither vanish nor overflow
        }
        var gram = SquareOf(side);
        var trace = Normalise(gram);
        var vector = LargestEigenvector(gram);
        if (wide)
        {
            var direction = new double[width];
            for (var i = 0; i < rows.Length; i++)
            {
                for (var j = 0; j < width; j++)
                    direction[j] += vector[i] * rows[i][j];
            }
            vector = direction;
        }
        var length = Math.Sqrt(Dot(vector, vector));
        vector = Array.ConvertAll(vector, value => value / length);
        // wide: |Xᵀ a|² for a unit a is the eigenvalue itself.
        var largest = wide ? length * length : Rayleigh(side, vector);
        return (vector, Math.Clamp(largest / trace, 0, 1));
    }

    private static double Rayleigh(double[][] side, double[] vector)
    {
        var sum = 0.0;
        for (var i = 0; i < side[0].Length; i++)
        {
            var projection = 0.0;
            for (var j = 0; j < vector.Length; j++)
                projection += side[j][i] * vector[j];
            sum += projection * projection;
        }
        return sum;
    }

    /// <summary>
    /// A unit eigenvector to the largest eigenvalue of a positive semidefinite matrix of trace 1. Squaring it again and again leaves
    /// the projection on the space of that eigenvalue, whatever the gap to the next: k squarings do the work of 2^k power iterations
    /// and cannot begin at right angles to the answer. A gap below 2^-60 is none in double, so 64 are enough; a few are usual.
    /// </summary>
    private static double[] LargestEigenvector(double[][] gram)
    {
        var power = gram;
        for (var step = 0; step < 64; step++)
        {
            var next = SquareOf(power);
            Normalise(next);
            var change = 0.0;
            for (var i = 0; i < next.Length; i++)
            {
                for (var j = 0; j < next.Length; j++)
                    change = Math.Max(change, Math.Abs(next[i][j] - power[i][j]));
            }
            power = next;
            if (change < 1e-15)
                break;
        }
        // Each column of a projection lies in its space; the longest has the largest element on the diagonal and loses least by rounding.
        var longest = power.Select((row, i) => (Diagonal: row[i], Row: row)).MaxBy(pair => pair.Diagonal).Row;
        var length = Math.Sqrt(Dot(longest, longest));
        return Array.ConvertAll(longest, value => value / length);
    }

    /// <summary>rows · rowsᵀ, which for a symmetric matrix is its square.</summary>
    private static double[][] SquareOf(double[][] rows)
    {
        var square = new double[rows.Length][];
        for (var i = 0; i < rows.Length; i++)
            square[i] = new double[rows.Length];
        for (var i = 0; i < rows.Length; i++)
        {
            for (var j = 0; j <= i; j++)
                square[i][j] = square[j][i] = Dot(rows[i], rows[j]);
        }
        return square;
    }

    /// <summary>Divides a matrix by its trace, which is returned.</summary>
    private static double Normalise(double[][] matrix)
    {
        var trace = 0.0;
        for (var i = 0; i < matrix.Length; i++)
            trace += matrix[i][i];
        foreach (var row in matrix)
        {
            for (var j = 0; j < row.Length; j++)
                row[j] /= trace;
        }
        return trace;
    }

    /// <summary>Sums in eight columns whatever the machine's width, so that every machine gives the same bits.</summary>
    private static double Dot(ReadOnlySpan<double> left, ReadOnlySpan<double> right)
    {
        var sums = Vector512<double>.Zero;
        var whole = left.Length & ~7;
        ref var a = ref MemoryMarshal.GetReference(left);
        ref var b = ref MemoryMarshal.GetReference(right);
        for (var i = 0; i < whole; i += 8)
            sums += Vector512.LoadUnsafe(ref a, (nuint)i) * Vector512.LoadUnsafe(ref b, (nuint)i);
        var sum = 0.0;
        for (var i = 0; i < 8; i++)
            sum += sums[i];
        for (var i = whole; i < left.Length; i++)
            sum += left[i] * right[i];
        return sum;
    }
}
