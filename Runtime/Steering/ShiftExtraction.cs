using System.Globalization;

namespace Trimtab.Steering;

/// <summary>How the differences of an anchor set become one vector a layer.</summary>
public enum ShiftMethod
{
    /// <summary>The mean difference.</summary>
    Mean,
    /// <summary>The first principal component, as long as the mean's projection on it.</summary>
    Pc,
    /// <summary>The first principal component, as long as the standard deviation of the differences' projections on it.</summary>
    PcSigma,
    /// <summary>The first principal component, of unit length.</summary>
    UnitPc,
    /// <summary>The mean of differences that were measured while the layers below were already steered by their own means.</summary>
    Sequential,
}

/// <summary>One layer's vector, and what the anchors say of it.</summary>
/// <param name="Vector">v, [D].</param>
/// <param name="Norm">|v|.</param>
/// <param name="Explained">Share of the differences' variance along their first principal component, 0 … 1; 0 without variance.</param>
/// <param name="Cosine">Cosine between the mean difference and that component; NaN where either is 0.</param>
/// <param name="SplitHalf">
/// Cosine between the same method's vectors of the anchors of even and of odd index: near 1 where there are anchors enough. NaN for one anchor.
/// </param>
/// <param name="ProjectionMean">Mean over the anchors of d · v/|v|; 0 where v is 0.</param>
/// <param name="ProjectionSigma">Population standard deviation of the same.</param>
public sealed record LayerShift(
    float[] Vector, double Norm, double Explained, double Cosine, double SplitHalf, double ProjectionMean, double ProjectionSigma);

/// <summary>Reads the difference [D] of an anchor, counted from 0, at a decoder layer, counted from 0.</summary>
internal delegate void DifferenceReader(int anchor, int layer, Span<float> difference);

/// <summary>
/// Extracts dataset-level shift vectors from an anchor set, as CMRM does ("Unraveling and Mitigating Safety Alignment Degradation of
/// Vision-Language Models", arXiv 2410.09047, dataset-level extraction: the mean, or the first principal component, of the shifts
/// d_l = h_l(text, meaningless image) − h_l(text) at the last token). For every layer l, with d_i the difference of anchor i:
/// <list type="bullet">
/// <item><see cref="ShiftMethod.Mean"/> (and Sequential): m = mean_i d_i.</item>
/// <item><see cref="ShiftMethod.UnitPc"/>: u, the unit direction of the largest variance of d_i − m, with u · m ≥ 0.</item>
/// <item><see cref="ShiftMethod.Pc"/>: u · mean_i(d_i · u).</item>
/// <item><see cref="ShiftMethod.PcSigma"/>: u · σ_i(d_i · u), σ the population's standard deviation (divided by N); 0 without variance.</item>
/// </list>
/// Where these do not define u: without variance (one anchor, or all equal) u is m's own direction, so that Pc equals Mean, and u is 0
/// where m is 0; where several directions share the largest variance, u is the share in them of one anchor, the one with the most (of a
/// fixed pseudo-random vector where there are more than 256 anchors of a width above 256); where m · u vanishes (below 1e-12 |m|), u's
/// largest element is positive. All arithmetic is in double and in one order: equal input gives equal bits.
/// Differences are kept as float, N · L · D · 4 bytes, or read from where the caller keeps them; a layer at a time is worked on, N · D · 12
/// bytes. Not safe for use from several threads at once.
/// </summary>
public sealed class ShiftExtraction
{
    private readonly List<float[]> _differences = []; // N of [L, D], where no reader has them
    private readonly DifferenceReader _read;
    private readonly int _readable;
    private Principal[]? _components; // [L], until the next Add

    /// <summary>An extraction without anchors yet.</summary>
    /// <param name="layers">L: decoder layers.</param>
    /// <param name="hiddenSize">D: width of the residual stream.</param>
    /// <exception cref="ArgumentOutOfRangeException">A size is below 1.</exception>
    public ShiftExtraction(int layers, int hiddenSize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(layers, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(hiddenSize, 1);
        (Layers, HiddenSize) = (layers, hiddenSize);
        _read = (anchor, layer, difference) => _differences[anchor].AsSpan(layer * HiddenSize, HiddenSize).CopyTo(difference);
    }

    /// <summary>An extraction of differences that are kept elsewhere, such as in a file.</summary>
    internal ShiftExtraction(int layers, int hiddenSize, int count, DifferenceReader read) : this(layers, hiddenSize)
        => (_readable, _read) = (count, read);

    /// <summary>L: decoder layers.</summary>
    public int Layers { get; }

    /// <summary>D: width of the residual stream.</summary>
    public int HiddenSize { get; }

    /// <summary>N: anchors added.</summary>
    public int Count => _readable + _differences.Count;

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
        return [.. Enumerable.Range(0, Layers).Select(layer => Single(UsesMean(method) ? Mean(Rows(layer)) : Components[layer].Vector(method)))];
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

    /// <summary>Each layer's vector with what tells how good it is, [L].</summary>
    /// <param name="method">How vectors are made.</param>
    /// <param name="done">Is told of the number of finished layers.</param>
    /// <param name="cancel">Stops between layers.</param>
    /// <exception cref="InvalidOperationException">No anchor was added.</exception>
    public IReadOnlyList<LayerShift> Measure(ShiftMethod method, Action<int>? done = null, CancellationToken cancel = default)
    {
        RequireAnchors();
        var shifts = new List<LayerShift>(Layers);
        for (var layer = 0; layer < Layers; layer++)
        {
            cancel.ThrowIfCancellationRequested();
            shifts.Add(Measure(Rows(layer), method));
            done?.Invoke(layer + 1);
        }
        return shifts;
    }

    /// <summary>The mean difference of one layer, counted from 0.</summary>
    internal float[] MeanOf(int layer) => Single(Mean(Rows(layer)));

    private static LayerShift Measure(float[][] rows, ShiftMethod method)
    {
        var component = new Principal(rows);
        var vector = component.Vector(method);
        var norm = Length(vector);
        var projections = norm > 0 ? Projections(rows, Array.ConvertAll(vector, value => value / norm)) : new double[rows.Length];
        var half = double.NaN;
        if (rows.Length > 1)
        {
            var halves = (float[][][])[[.. rows.Where((_, i) => i % 2 == 0)], [.. rows.Where((_, i) => i % 2 == 1)]];
            // A half of one anchor has no variance, and no length by it; the direction is what is compared.
            var compared = method == ShiftMethod.PcSigma ? ShiftMethod.UnitPc : method;
            var vectors = Array.ConvertAll(halves, part => UsesMean(method) ? Mean(part) : new Principal(part).Vector(compared));
            half = Cosine(vectors[0], vectors[1]);
        }
        return new(Single(vector), norm, component.Explained, Cosine(component.Mean, component.Unit), half, projections.Average(), Sigma(projections));
    }

    private Principal[] Components => _components ??= [.. Enumerable.Range(0, Layers).Select(layer => new Principal(Rows(layer)))];

    private static bool UsesMean(ShiftMethod method) => method is ShiftMethod.Mean or ShiftMethod.Sequential;

    private void RequireAnchors()
    {
        if (Count == 0)
            throw new InvalidOperationException("no differences were added");
    }

    /// <summary>A layer's differences, [N] of [D].</summary>
    private float[][] Rows(int layer)
    {
        var rows = new float[Count][];
        for (var i = 0; i < rows.Length; i++)
            _read(i, layer, rows[i] = new float[HiddenSize]);
        return rows;
    }

    private static double[] Mean(float[][] rows)
    {
        var mean = new double[rows[0].Length];
        foreach (var row in rows)
        {
            for (var j = 0; j < mean.Length; j++)
                mean[j] += row[j];
        }
        for (var j = 0; j < mean.Length; j++)
            mean[j] /= rows.Length;
        return mean;
    }

    /// <summary>The differences less their mean, [N] of [D].</summary>
    private static double[][] Centred(float[][] rows)
    {
        // Less the first row before less the mean: equal rows then leave exact zeros, not the rounding of their mean.
        var centred = new double[rows.Length][];
        var mean = new double[rows[0].Length];
        for (var i = 0; i < rows.Length; i++)
        {
            centred[i] = new double[mean.Length];
            for (var j = 0; j < mean.Length; j++)
                mean[j] += centred[i][j] = (double)rows[i][j] - rows[0][j];
        }
        foreach (var row in centred)
        {
            for (var j = 0; j < row.Length; j++)
                row[j] -= mean[j] / rows.Length;
        }
        return centred;
    }

    private static double[] Projections(float[][] rows, double[] unit)
        => Array.ConvertAll(rows, row => PrincipalComponent.Dot(Array.ConvertAll(row, value => (double)value), unit));

    private static double Sigma(double[] values)
    {
        var mean = values.Average();
        return Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / values.Length);
    }

    private static double Length(double[] vector) => Math.Sqrt(PrincipalComponent.Dot(vector, vector));

    private static double Cosine(double[] left, double[] right)
    {
        var lengths = Length(left) * Length(right);
        return lengths > 0 ? Math.Clamp(PrincipalComponent.Dot(left, right) / lengths, -1, 1) : double.NaN;
    }

    private static float[] Single(double[] vector) => Array.ConvertAll(vector, value => (float)value);

    /// <summary>Mean and first principal component of one layer's differences.</summary>
    private sealed class Principal
    {
        public Principal(float[][] rows)
        {
            Mean = ShiftExtraction.Mean(rows);
            (var unit, Explained) = PrincipalComponent.Of(Centred(rows));
            var length = Length(Mean);
            Unit = unit ?? (length > 0 ? Array.ConvertAll(Mean, value => value / length) : new double[Mean.Length]);
            var projection = PrincipalComponent.Dot(Mean, Unit);
            if (Math.Abs(projection) > 1e-12 * length ? projection < 0 : Unit.MaxBy(Math.Abs) < 0)
                (Unit, projection) = (Array.ConvertAll(Unit, value => -value), -projection);
            (Projection, Deviation) = (projection, unit is null ? 0 : Sigma(Projections(rows, Unit)));
        }

        public double[] Mean { get; }
        public double[] Unit { get; }
        public double Explained { get; }
        private double Projection { get; }
        private double Deviation { get; }

        public double[] Vector(ShiftMethod method) => method switch
        {
            ShiftMethod.Mean or ShiftMethod.Sequential => Mean,
            ShiftMethod.Pc => Array.ConvertAll(Unit, value => Projection * value),
            ShiftMethod.PcSigma => Array.ConvertAll(Unit, value => Deviation * value),
            ShiftMethod.UnitPc => Unit,
            _ => throw new ArgumentOutOfRangeException(nameof(method), method, null),
        };
    }
}
