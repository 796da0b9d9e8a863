using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Trimtab.Steering;

/// <summary>
/// The direction of the largest variance of centred rows, in double and in one order of summation: every machine gives the same
/// bits. Small problems are solved through the smaller of X Xᵀ and Xᵀ X, large ones by Lanczos' iteration on X alone, which
/// makes no covariance matrix.
/// </summary>
internal static class PrincipalComponent
{
    /// <summary>Largest side of a matrix that is squared: at 256 a squaring takes milliseconds, at 4096 a minute.</summary>
    internal const int MostSquared = 256;

    /// <summary>Most steps of Lanczos' iteration; dozens are usual.</summary>
    private const int MostSteps = 400;

    /// <summary>The unit direction and its share of the whole variance; null and 0 where there is none.</summary>
    /// <param name="rows">[N] of [D], centred; scaled in place.</param>
    public static (double[]? Unit, double Explained) Of(double[][] rows)
    {
        var width = rows[0].Length;
        var scale = rows.Max(row => row.Max(Math.Abs));
        if (scale == 0)
            return (null, 0);
        foreach (var row in rows)
        {
            for (var j = 0; j < row.Length; j++)
                row[j] /= scale; // squares neither vanish nor overflow
        }
        // X Xᵀ and Xᵀ X have the same largest eigenvalue: the smaller of the two is solved.
        var wide = rows.Length <= width;
        if (Math.Min(rows.Length, width) > MostSquared)
            return Lanczos(rows);
        var side = wide ? rows : [.. Enumerable.Range(0, width).Select(j => Array.ConvertAll(rows, row => row[j]))];
        var gram = SquareOf(side);
        var trace = Normalise(gram);
        var vector = LargestEigenvector(gram);
        if (wide)
            vector = Transposed(rows, vector);
        var length = Math.Sqrt(Dot(vector, vector));
        vector = Array.ConvertAll(vector, value => value / length);
        // wide: |Xᵀ a|² for a unit a is the eigenvalue itself.
        var largest = wide ? length * length : Rayleigh(rows, vector);
        return (vector, Math.Clamp(largest / trace, 0, 1));
    }

    /// <summary>
    /// Lanczos' iteration on Xᵀ X with full reorthogonalisation (Golub, Van Loan, Matrix Computations, section 10.1), begun at a fixed
    /// pseudo-random vector, until the residual of the largest Ritz pair is below 1e-11 of its value. Memory: one row of D doubles a step.
    /// </summary>
    private static (double[] Unit, double Explained) Lanczos(double[][] rows)
    {
        var basis = new List<double[]>();
        var (diagonal, below) = (new List<double>(), new List<double>());
        var next = Start(rows[0].Length);
        for (var most = Math.Min(MostSteps, Math.Min(rows.Length, rows[0].Length));;)
        {
            var length = Math.Sqrt(Dot(next, next));
            var unit = Array.ConvertAll(next, value => value / length);
            basis.Add(unit);
            next = Transposed(rows, Array.ConvertAll(rows, row => Dot(row, unit)));
            diagonal.Add(Dot(next, unit));
            for (var pass = 0; pass < 2; pass++) // the second removes what rounding left of the first
            {
                foreach (var earlier in basis)
                    Add(next, -Dot(next, earlier), earlier);
            }
            below.Add(Math.Sqrt(Dot(next, next)));
            var ended = basis.Count >= most || below[^1] <= 1e-14 * diagonal.Max();
            if (!ended && basis.Count % 8 != 0)
                continue;
            var ritz = LargestOfTridiagonal(diagonal, below, out var value);
            if (!ended && below[^1] * Math.Abs(ritz[^1]) > 1e-11 * value)
                continue;
            var vector = new double[next.Length];
            for (var k = 0; k < basis.Count; k++)
                Add(vector, ritz[k], basis[k]);
            var size = Math.Sqrt(Dot(vector, vector));
            vector = Array.ConvertAll(vector, element => element / size);
            return (vector, Math.Clamp(Rayleigh(rows, vector) / rows.Sum(row => Dot(row, row)), 0, 1));
        }
    }

    /// <summary>Uniform in −1 … 1 by SplitMix64 from 0: at right angles to no direction that data has.</summary>
    private static double[] Start(int width)
    {
        var state = 0UL;
        var start = new double[width];
        for (var i = 0; i < width; i++)
        {
            var z = state += 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            start[i] = (long)(z ^ (z >> 31)) / 9223372036854775808.0;
        }
        return start;
    }

    private static double[] LargestOfTridiagonal(List<double> diagonal, List<double> below, out double value)
    {
        var matrix = new double[diagonal.Count][];
        for (var i = 0; i < matrix.Length; i++)
        {
            matrix[i] = new double[matrix.Length];
            matrix[i][i] = diagonal[i];
            if (i > 0)
                matrix[i][i - 1] = matrix[i - 1][i] = below[i - 1];
        }
        Normalise(matrix);
        var vector = LargestEigenvector(matrix);
        value = 0;
        for (var i = 0; i < vector.Length; i++)
            value += vector[i] * (diagonal[i] * vector[i] + (i > 0 ? 2 * below[i - 1] * vector[i - 1] : 0));
        return vector;
    }

    /// <summary>Xᵀ a.</summary>
    private static double[] Transposed(double[][] rows, double[] vector)
    {
        var sum = new double[rows[0].Length];
        for (var i = 0; i < rows.Length; i++)
            Add(sum, vector[i], rows[i]);
        return sum;
    }

    /// <summary>|X a|².</summary>
    private static double Rayleigh(double[][] rows, double[] vector)
    {
        var sum = 0.0;
        foreach (var row in rows)
        {
            var projection = Dot(row, vector);
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
    public static double Dot(ReadOnlySpan<double> left, ReadOnlySpan<double> right)
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

    /// <summary>target += scale · row.</summary>
    private static void Add(double[] target, double scale, double[] row)
    {
        var whole = row.Length & ~7;
        ref var a = ref MemoryMarshal.GetArrayDataReference(target);
        ref var b = ref MemoryMarshal.GetArrayDataReference(row);
        for (var i = 0; i < whole; i += 8)
            (Vector512.LoadUnsafe(ref a, (nuint)i) + Vector512.LoadUnsafe(ref b, (nuint)i) * scale).StoreUnsafe(ref a, (nuint)i);
        for (var i = whole; i < row.Length; i++)
            target[i] += scale * row[i];
    }
}
