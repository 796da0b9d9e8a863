using Trimtab.Evaluation;

namespace Trimtab.Tests.Evaluation;

/// <summary>The plane that states are drawn in is that of their two largest variances.</summary>
public class ReportPcaTests
{
    [TestCase(40, 6, TestName = "Finds_the_plane_with_more_rows_than_columns")]
    [TestCase(9, 50, TestName = "Finds_the_plane_with_more_columns_than_rows")]
    [TestCase(3, 2, TestName = "Finds_the_plane_of_three_points")]
    public void Finds_the_plane(int n, int dimensions)
    {
        var rows = Rows(n, dimensions, seed: 3);
        var groups = Enumerable.Range(0, n).Select(i => i % 2).ToArray();
        var plane = ReportPca.Project([.. rows.SelectMany(r => r)], dimensions, groups);
        var (values, total) = Eigenvalues(rows);
        Assert.That(plane.X.Sum(x => x * x), Is.EqualTo(values[0]).Within(1e-8 * values[0]));
        Assert.That(plane.Y.Sum(y => y * y), Is.EqualTo(values[1]).Within(1e-8 * values[0]));
        Assert.That(plane.ShareX, Is.EqualTo(values[0] / total).Within(1e-9));
        Assert.That(plane.ShareY, Is.EqualTo(values[1] / total).Within(1e-9));
        Assert.That(plane.X.Zip(plane.Y, (x, y) => x * y).Sum(), Is.EqualTo(0).Within(1e-7 * values[0]));
        Assert.That(Mean(plane.X, groups, 1), Is.GreaterThanOrEqualTo(Mean(plane.X, groups, 0)), "the first component points from group 0 to group 1");
    }

    [Test]
    public void Points_in_a_plane_keep_their_distances()
    {
        var random = new Random(5);
        var flat = Enumerable.Range(0, 30).Select(_ => (X: random.NextDouble() * 9, Y: random.NextDouble() * 4)).ToArray();
        // Two orthonormal directions in five dimensions.
        var rows = flat.SelectMany(p => new[] { p.X * 0.6 + 7, p.Y, p.X * 0.8 - 2, 0, 1 }).ToArray();
        var plane = ReportPca.Project(rows, 5, new int[30]);
        Assert.That(plane.ShareX + plane.ShareY, Is.EqualTo(1).Within(1e-9));
        for (var i = 1; i < 30; i++)
            Assert.That(Math.Pow(plane.X[i] - plane.X[0], 2) + Math.Pow(plane.Y[i] - plane.Y[0], 2),
                Is.EqualTo(Math.Pow(flat[i].X - flat[0].X, 2) + Math.Pow(flat[i].Y - flat[0].Y, 2)).Within(1e-7));
    }

    [Test]
    public void The_same_states_give_the_same_picture()
    {
        var rows = Rows(25, 40, seed: 9).SelectMany(r => r).ToArray();
        var groups = Enumerable.Range(0, 25).Select(i => i % 3).ToArray();
        ReportPca.Plane first = ReportPca.Project([.. rows], 40, groups), second = ReportPca.Project([.. rows], 40, groups);
        Assert.That(second.X, Is.EqualTo(first.X));
        Assert.That(second.Y, Is.EqualTo(first.Y));
    }

    [Test]
    public void States_that_do_not_vary_lie_on_one_point()
    {
        var plane = ReportPca.Project([.. Enumerable.Repeat(3.5, 4 * 7)], 7, [0, 0, 1, 1]);
        Assert.That(plane.X.Concat(plane.Y).Append(plane.ShareX).Append(plane.ShareY), Is.All.Zero);
        plane = ReportPca.Project([1, 2, 3], 3, [0]);
        Assert.That(plane.X, Is.EqualTo(new[] { 0.0 }));
        plane = ReportPca.Project([5, 1, 3], 1, [0, 1, 0]);
        Assert.That(plane.X, Is.EqualTo(new[] { -2.0, 2, 0 }).Within(1e-12), "turned to point from group 0 to group 1");
        Assert.That(plane.Y, Is.All.EqualTo(0).Within(1e-12));
    }

    [Test]
    public void Values_that_do_not_fit_the_shape_are_refused()
        => Assert.That(() => ReportPca.Project(new double[7], 2, [0, 0, 0]), Throws.ArgumentException);

    private static double Mean(double[] axis, int[] groups, int group) => axis.Where((_, i) => groups[i] == group).Average();

    private static double[][] Rows(int n, int dimensions, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, n).Select(_ => Enumerable.Range(0, dimensions).Select(d => (random.NextDouble() - 0.5) * (1 + 8.0 / (d + 1)) + d).ToArray())];
    }

    /// <summary>All eigenvalues of the scatter matrix, by Jacobi's method on the whole of it.</summary>
    private static (double[] Values, double Total) Eigenvalues(double[][] rows)
    {
        var n = rows[0].Length;
        var mean = Enumerable.Range(0, n).Select(d => rows.Average(r => r[d])).ToArray();
        var a = new double[n, n];
        for (var i = 0; i < n; i++)
            for (var j = 0; j < n; j++)
                a[i, j] = rows.Sum(r => (r[i] - mean[i]) * (r[j] - mean[j]));
        for (var sweep = 0; sweep < 60; sweep++)
            for (var p = 0; p < n; p++)
                for (var q = p + 1; q < n; q++)
                {
                    if (Math.Abs(a[p, q]) < 1e-14)
                        continue;
                    var theta = 0.5 * Math.Atan2(2 * a[p, q], a[p, p] - a[q, q]);
                    double c = Math.Cos(theta), s = Math.Sin(theta);
                    for (var i = 0; i < n; i++)
                        (a[i, p], a[i, q]) = (c * a[i, p] + s * a[i, q], c * a[i, q] - s * a[i, p]);
                    for (var i = 0; i < n; i++)
                        (a[p, i], a[q, i]) = (c * a[p, i] + s * a[q, i], c * a[q, i] - s * a[p, i]);
                }
        var values = Enumerable.Range(0, n).Select(i => a[i, i]).OrderDescending().ToArray();
        return (values, values.Sum());
    }
}
