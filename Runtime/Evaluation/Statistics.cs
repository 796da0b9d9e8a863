namespace Trimtab.Evaluation;

/// <summary>The intervals, differences and correlations that an evaluation reports.</summary>
public static class Statistics
{
    /// <summary>
    /// Wilson's score interval of a proportion (E. B. Wilson, 1927): unlike the textbook interval it holds at 0 of n and n of n.
    /// </summary>
    /// <param name="successes">How many of n; 0 … n.</param>
    /// <param name="n">Number of trials; (0, 1) is returned for none.</param>
    /// <param name="z">Normal quantile; 1.959964 gives 95 %.</param>
    /// <exception cref="ArgumentOutOfRangeException">More successes than trials, or negative numbers.</exception>
    public static (double Low, double High) Wilson(int successes, int n, double z = 1.959964)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(successes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(successes, n);
        ArgumentOutOfRangeException.ThrowIfNegative(z);
        if (n == 0) return (0, 1);
        double p = (double)successes / n, z2 = z * z, scale = 1 + z2 / n;
        var centre = (p + z2 / (2 * n)) / scale;
        var half = z / scale * Math.Sqrt(p * (1 - p) / n + z2 / (4.0 * n * n));
        return (successes == 0 ? 0 : Math.Max(0, centre - half), successes == n ? 1 : Math.Min(1, centre + half));
    }

    /// <summary>
    /// Mean of the pairs' differences (second − first) and its percentile interval by the paired bootstrap (Efron, 1979): whole
    /// pairs are drawn, so that what makes a question hard stays in both arms. The same seed gives the same interval.
    /// </summary>
    /// <param name="first">One value for each question, such as 0 or 1.</param>
    /// <param name="second">The same questions' values in the other arm.</param>
    /// <param name="seed">Seed of the draws.</param>
    /// <param name="draws">Number of bootstrap samples.</param>
    /// <param name="confidence">Coverage, such as 0.95.</param>
    /// <returns>NaN three times where there is no pair.</returns>
    /// <exception cref="ArgumentException">The arms differ in length.</exception>
    public static (double Difference, double Low, double High) PairedBootstrap(
        ReadOnlySpan<double> first, ReadOnlySpan<double> second, ulong seed = 0, int draws = 2000, double confidence = 0.95)
    {
        if (first.Length != second.Length) throw new ArgumentException($"The arms have {first.Length} and {second.Length} values; a pair needs both.", nameof(second));
        ArgumentOutOfRangeException.ThrowIfLessThan(draws, 1);
        if (!(confidence is > 0 and < 1)) throw new ArgumentOutOfRangeException(nameof(confidence), confidence, "Must be in 0 … 1.");
        var n = first.Length;
        if (n == 0) return (double.NaN, double.NaN, double.NaN);
        var differences = new double[n];
        var sum = 0.0;
        for (var i = 0; i < n; i++) sum += differences[i] = second[i] - first[i];
        var means = new double[draws];
        var state = seed;
        for (var d = 0; d < draws; d++)
        {
            var drawn = 0.0;
            for (var i = 0; i < n; i++) drawn += differences[(int)(((UInt128)Next(ref state) * (ulong)n) >> 64)];
            means[d] = drawn / n;
        }
        Array.Sort(means);
        var tail = (1 - confidence) / 2;
        return (sum / n, Quantile(means, tail), Quantile(means, 1 - tail));
    }

    /// <summary>Pearson's correlation; NaN with fewer than two points or where one side does not vary.</summary>
    /// <exception cref="ArgumentException">The sides differ in length.</exception>
    public static double Pearson(ReadOnlySpan<double> x, ReadOnlySpan<double> y)
    {
        if (x.Length != y.Length) throw new ArgumentException($"The sides have {x.Length} and {y.Length} values.", nameof(y));
        if (x.Length < 2) return double.NaN;
        double meanX = Mean(x), meanY = Mean(y), xy = 0, xx = 0, yy = 0;
        for (var i = 0; i < x.Length; i++)
        {
            double a = x[i] - meanX, b = y[i] - meanY;
            xy += a * b;
            xx += a * a;
            yy += b * b;
        }
        // Rounding leaves a trace in a side that is constant: that trace is no variation.
        var noise = 1e-24 * x.Length;
        if (xx <= noise * Math.Max(1, meanX * meanX) || yy <= noise * Math.Max(1, meanY * meanY)) return double.NaN;
        return Math.Clamp(xy / Math.Sqrt(xx) / Math.Sqrt(yy), -1, 1);
    }

    /// <summary>Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.</summary>
    /// <exception cref="ArgumentException">The sides differ in length.</exception>
    public static double Spearman(ReadOnlySpan<double> x, ReadOnlySpan<double> y) => Pearson(Ranks(x), Ranks(y));

    /// <summary>Cohen's kappa of two judges' yes/no verdicts on the same answers: agreement beyond chance. NaN where both always say the same one thing or nothing was judged.</summary>
    /// <exception cref="ArgumentException">The judges differ in length.</exception>
    public static double Kappa(ReadOnlySpan<bool> first, ReadOnlySpan<bool> second)
    {
        if (first.Length != second.Length) throw new ArgumentException($"The judges gave {first.Length} and {second.Length} verdicts.", nameof(second));
        double n = first.Length, same = 0, yesFirst = 0, yesSecond = 0;
        for (var i = 0; i < first.Length; i++)
        {
            if (first[i] == second[i]) same++;
            if (first[i]) yesFirst++;
            if (second[i]) yesSecond++;
        }
        var chance = (yesFirst * yesSecond + (n - yesFirst) * (n - yesSecond)) / (n * n);
        return n == 0 || chance >= 1 ? double.NaN : (same / n - chance) / (1 - chance);
    }

    static double Mean(ReadOnlySpan<double> values)
    {
        var sum = 0.0;
        foreach (var value in values) sum += value;
        return sum / values.Length;
    }

    static double[] Ranks(ReadOnlySpan<double> values)
    {
        var sorted = values.ToArray();
        var order = Enumerable.Range(0, sorted.Length).ToArray();
        Array.Sort(sorted, order);
        var ranks = new double[sorted.Length];
        for (int from = 0, to; from < sorted.Length; from = to)
        {
            for (to = from + 1; to < sorted.Length && sorted[to] == sorted[from]; to++) { }
            for (var i = from; i < to; i++) ranks[order[i]] = (from + to + 1) / 2.0;
        }
        return ranks;
    }

    static double Quantile(double[] sorted, double q)
    {
        var at = q * (sorted.Length - 1);
        var below = (int)at;
        return below + 1 < sorted.Length ? sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]) : sorted[below];
    }

    // SplitMix64: one addition and a mix for each draw, the same on every machine and version of .NET.
    static ulong Next(ref ulong state)
    {
        var z = state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
