namespace Trimtab.Kernels;

/// <summary>
/// How the columns of an activation, and with them rows or columns of weights, are divided among the ranks of a device (tensor
/// parallelism; Megatron-LM, arXiv 1909.08053, section 3). A rank has one or more ranges of the whole, and what two ranks have may overlap. With one
/// rank nothing is divided: on a device of several, each then has all of it.
/// </summary>
public sealed class Division
{
    private readonly (int First, int Count)[][] _ranks;

    private Division(int count, (int, int)[][] ranks) => (Count, _ranks) = (count, ranks);

    /// <summary>Columns of the whole.</summary>
    public int Count { get; }

    /// <summary>Ranks that divide it.</summary>
    public int Ranks => _ranks.Length;

    /// <summary>The ranges of a rank, which lie one after another there.</summary>
    public ReadOnlySpan<(int First, int Count)> this[int rank] => _ranks[rank];

    /// <summary>Columns of a rank.</summary>
    public int CountOf(int rank)
    {
        var count = 0;
        foreach (var (_, n) in _ranks[rank])
            count += n;
        return count;
    }

    /// <summary>What is not divided.</summary>
    public static Division Whole(int count) => new(count, [[(0, count)]]);

    /// <summary>One range a rank.</summary>
    /// <exception cref="ArgumentException">A range is empty or reaches beyond the whole.</exception>
    public static Division Of(int count, params (int First, int Count)[] ranks)
    {
        foreach (var (first, n) in ranks)
            if (first < 0 || n <= 0 || first > count - n)
                throw new ArgumentException($"a rank's columns [{first}, {first + n}) of {count}");
        return new(count, Array.ConvertAll(ranks, range => new[] { range }));
    }

    /// <summary>As evenly as whole units allow.</summary>
    /// <param name="count">Columns.</param>
    /// <param name="ranks">Ranks.</param>
    /// <param name="unit">Columns that stay together; a divisor of <paramref name="count"/>.</param>
    /// <exception cref="ArgumentException">There are fewer units than ranks, or they do not make up the whole.</exception>
    public static Division Even(int count, int ranks, int unit = 1)
    {
        if (count % unit != 0 || count / unit < ranks)
            throw new ArgumentException($"{count} columns in units of {unit} among {ranks} ranks");
        var units = (long)(count / unit);
        return Of(count, [.. Enumerable.Range(0, ranks).Select(r => ((int)(units * r / ranks) * unit, (int)(units * (r + 1) / ranks - units * r / ranks) * unit))]);
    }

    /// <summary>Each column becomes <paramref name="factor"/>: heads to the elements of heads.</summary>
    public Division Times(int factor) => new(Count * factor, Array.ConvertAll(_ranks, ranges => Array.ConvertAll(ranges, r => (r.First * factor, r.Count * factor))));

    /// <summary>The same ranks' shares of one thing after another.</summary>
    public static Division Join(params ReadOnlySpan<Division> parts)
    {
        var (count, ranks) = (0, Array.ConvertAll(new int[parts[0].Ranks], _ => new List<(int, int)>()));
        foreach (var part in parts)
        {
            for (var r = 0; r < ranks.Length; r++)
                foreach (var (first, n) in part[r])
                    ranks[r].Add((count + first, n));
            count += part.Count;
        }
        return new(count, Array.ConvertAll(ranks, ranges => ranges.ToArray()));
    }
}
