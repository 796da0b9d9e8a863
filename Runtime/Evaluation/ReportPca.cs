using System.Numerics.Tensors;

namespace Trimtab.Evaluation;

/// <summary>
/// Principal components for drawing: the two directions along which a set of states varies most. Everything is computed in
/// double precision from a fixed start, so the same states give the same picture.
/// </summary>
internal static class ReportPca
{
    /// <summary>Size of the iterated subspace: more directions than wanted, so that close eigenvalues do not slow the iteration down.</summary>
    private const int Block = 8;

    /// <summary>The states seen along their two main directions.</summary>
    /// <param name="X">Coordinates along the first component, one for each state.</param>
    /// <param name="Y">Coordinates along the second component.</param>
    /// <param name="ShareX">Share of the total variance along the first; 0 … 1, 0 where nothing varies.</param>
    /// <param name="ShareY">The same along the second.</param>
    public sealed record Plane(double[] X, double[] Y, double ShareX, double ShareY);

    /// <summary>Centres the rows and projects them.</summary>
    /// <param name="rows">N rows of D finite values, [N, D]; overwritten by the centred rows.</param>
    /// <param name="dimensions">D.</param>
    /// <param name="groups">Group of each row: the first component points from group 0 to group 1, the second from group 0 to the last one, so that the picture does not flip from layer to layer.</param>
    public static Plane Project(double[] rows, int dimensions, ReadOnlySpan<int> groups)
    {
        var n = groups.Length;
        if (dimensions < 1 || rows.Length != (long)n * dimensions)
            throw new ArgumentException($"{rows.Length} values are not {n} rows of {dimensions}.", nameof(rows));
        Centre(rows, n, dimensions);
        // The smaller of X·Xᵀ and Xᵀ·X has the same non-zero eigenvalues as the larger one.
        var byRows = n <= dimensions;
        var matrix = byRows ? Gram(rows, n, dimensions) : Gram(Transpose(rows, n, dimensions), dimensions, n);
        var size = byRows ? n : dimensions;
        var trace = 0.0;
        for (var i = 0; i < size; i++)
            trace += matrix[i * size + i];
        var (values, vectors) = Leading(matrix, size);
        var axes = new double[2][];
        for (var c = 0; c < 2; c++)
        {
            axes[c] = new double[n];
            if (c >= values.Length || !(trace > 0))
                continue;
            for (var i = 0; i < n; i++)
                axes[c][i] = byRows
                    ? Math.Sqrt(Math.Max(0, values[c])) * vectors[c][i]
                    : TensorPrimitives.Dot<double>(rows.AsSpan(i * dimensions, dimensions), vectors[c]);
        }
        var last = 0;
        foreach (var group in groups)
            last = Math.Max(last, group);
        Orient(axes[0], groups, Math.Min(1, last));
        Orient(axes[1], groups, last);
        return new(axes[0], axes[1], Share(0), Share(1));

        double Share(int c) => c < values.Length && trace > 0 ? Math.Clamp(values[c] / trace, 0, 1) : 0;
    }

    private static void Centre(double[] rows, int n, int dimensions)
    {
        var mean = new double[dimensions];
        for (var i = 0; i < n; i++)
            TensorPrimitives.Add(mean, rows.AsSpan(i * dimensions, dimensions), mean);
        TensorPrimitives.Divide(mean, (double)Math.Max(1, n), mean);
        for (var i = 0; i < n; i++)
            TensorPrimitives.Subtract(rows.AsSpan(i * dimensions, dimensions), mean, rows.AsSpan(i * dimensions, dimensions));
    }

    private static double[] Transpose(double[] rows, int n, int dimensions)
    {
        var columns = new double[rows.Length];
        for (var i = 0; i < n; i++)
            for (var d = 0; d < dimensions; d++)
                columns[d * n + i] = rows[i * dimensions + d];
        return columns;
    }

    /// <summary>All dot products of n rows, [n, n].</summary>
    private static double[] Gram(double[] rows, int n, int dimensions)
    {
        var products = new double[n * n];
        for (var i = 0; i < n; i++)
            for (var j = 0; j <= i; j++)
                products[i * n + j] = products[j * n + i] =
                    TensorPrimitives.Dot<double>(rows.AsSpan(i * dimensions, dimensions), rows.AsSpan(j * dimensions, dimensions));
        return products;
    }

    /// <summary>The leading eigenpairs of a symmetric positive semi-definite matrix by subspace iteration with Rayleigh–Ritz steps.</summary>
    private static (double[] Values, double[][] Vectors) Leading(double[] matrix, int size)
    {
        var k = Math.Min(Block, size);
        var basis = new double[k][];
        var state = 0x9E3779B97F4A7C15UL;
        for (var c = 0; c < k; c++)
        {
            basis[c] = new double[size];
            foreach (ref var value in basis[c].AsSpan())
            {
                state = state * 6364136223846793005UL + 1442695040888963407UL;
                value = (state >> 11) * (1.0 / (1UL << 53)) - 0.5;
            }
        }
        Orthonormalise(basis);
        var values = new double[k];
        for (var iteration = 0; iteration < 1000; iteration++)
        {
            var image = Array.ConvertAll(basis, q => Multiply(matrix, size, q));
            var (ritz, turn) = Jacobi(basis, image);
            basis = Combine(basis, turn);
            image = Combine(image, turn);
            values = ritz;
            var error = 0.0;
            for (var c = 0; c < Math.Min(2, k); c++)
            {
                var residual = 0.0;
                for (var i = 0; i < size; i++)
                    residual += (image[c][i] - values[c] * basis[c][i]) * (image[c][i] - values[c] * basis[c][i]);
                error = Math.Max(error, Math.Sqrt(residual));
            }
            if (!(error > 1e-11 * values[0]))
                break;
            basis = image;
            Orthonormalise(basis);
        }
        return (values, basis);
    }

    private static double[] Multiply(double[] matrix, int size, double[] vector)
    {
        var product = new double[size];
        for (var i = 0; i < size; i++)
            product[i] = TensorPrimitives.Dot<double>(matrix.AsSpan(i * size, size), vector);
        return product;
    }

    /// <summary>Gram–Schmidt, each vector twice; one that depends on those before it becomes zero.</summary>
    private static void Orthonormalise(double[][] basis)
    {
        for (var c = 0; c < basis.Length; c++)
        {
            var before = TensorPrimitives.Norm<double>(basis[c]);
            for (var pass = 0; pass < 2; pass++)
                for (var other = 0; other < c; other++)
                    TensorPrimitives.MultiplyAdd(basis[other], -TensorPrimitives.Dot<double>(basis[c], basis[other]), basis[c], basis[c]);
            var norm = TensorPrimitives.Norm<double>(basis[c]);
            TensorPrimitives.Multiply(basis[c], norm > 1e-13 * before ? 1 / norm : 0, basis[c]);
        }
    }

    private static double[][] Combine(double[][] vectors, double[,] turn)
    {
        var combined = new double[vectors.Length][];
        for (var c = 0; c < vectors.Length; c++)
        {
            combined[c] = new double[vectors[0].Length];
            for (var j = 0; j < vectors.Length; j++)
                TensorPrimitives.MultiplyAdd(vectors[j], turn[j, c], combined[c], combined[c]);
        }
        return combined;
    }

    /// <summary>Eigenpairs of the small matrix basisᵀ·image by Jacobi's rotations, the largest value first.</summary>
    private static (double[] Values, double[,] Turn) Jacobi(double[][] basis, double[][] image)
    {
        var k = basis.Length;
        var a = new double[k, k];
        var turn = new double[k, k];
        for (var i = 0; i < k; i++)
        {
            turn[i, i] = 1;
            for (var j = 0; j <= i; j++)
                a[i, j] = a[j, i] = TensorPrimitives.Dot<double>(basis[i], image[j]);
        }
        for (var sweep = 0; sweep < 30; sweep++)
            for (var p = 0; p < k; p++)
                for (var q = p + 1; q < k; q++)
                {
                    if (a[p, q] == 0)
                        continue;
                    var angle = 0.5 * Math.Atan2(2 * a[p, q], a[p, p] - a[q, q]);
                    double cosine = Math.Cos(angle), sine = Math.Sin(angle);
                    for (var i = 0; i < k; i++)
                        (a[i, p], a[i, q]) = (cosine * a[i, p] + sine * a[i, q], cosine * a[i, q] - sine * a[i, p]);
                    for (var i = 0; i < k; i++)
                    {
                        (a[p, i], a[q, i]) = (cosine * a[p, i] + sine * a[q, i], cosine * a[q, i] - sine * a[p, i]);
                        (turn[i, p], turn[i, q]) = (cosine * turn[i, p] + sine * turn[i, q], cosine * turn[i, q] - sine * turn[i, p]);
                    }
                    a[p, q] = a[q, p] = 0;
                }
        var order = Enumerable.Range(0, k).OrderByDescending(i => a[i, i]).ToArray();
        var sorted = new double[k, k];
        for (var i = 0; i < k; i++)
            for (var c = 0; c < k; c++)
                sorted[i, c] = turn[i, order[c]];
        return (Array.ConvertAll(order, i => a[i, i]), sorted);
    }

    /// <summary>Turns an axis so that it points from group 0 to another one, or where that says nothing, so that its largest coordinate is positive.</summary>
    private static void Orient(double[] axis, ReadOnlySpan<int> groups, int other)
    {
        double first = 0, second = 0, largest = 0;
        int firstCount = 0, secondCount = 0;
        for (var i = 0; i < axis.Length; i++)
        {
            if (groups[i] == 0) (first, firstCount) = (first + axis[i], firstCount + 1);
            if (groups[i] == other) (second, secondCount) = (second + axis[i], secondCount + 1);
            if (Math.Abs(axis[i]) > Math.Abs(largest)) largest = axis[i];
        }
        var direction = other > 0 && firstCount > 0 && secondCount > 0 ? second / secondCount - first / firstCount : 0;
        if (Math.Abs(direction) <= 1e-9 * Math.Abs(largest)) direction = largest;
        if (direction < 0)
            TensorPrimitives.Negate(axis, axis);
    }
}
