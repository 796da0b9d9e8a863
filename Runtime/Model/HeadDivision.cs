using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// How attention is divided among a device's ranks: each has some key heads with all of their query heads, or, of fewer key heads than ranks, some
/// query heads with a copy of their key head.
/// </summary>
/// <param name="Qkv">Of (H + 2 KV) · d: rows of q, k, v together, and columns of their outputs.</param>
/// <param name="Queries">Of H · d: what attention gives, and columns of the output projection.</param>
/// <param name="Keys">Of KV · d: keys and values in the cache.</param>
/// <param name="Scales">Of 2 · KV: the scales of bytes in the cache.</param>
internal sealed record HeadDivision(Division Qkv, Division Queries, Division Keys, Division Scales)
{
    /// <param name="ranks">The device's.</param>
    /// <param name="heads">H.</param>
    /// <param name="keyValueHeads">KV.</param>
    /// <param name="dimension">d.</param>
    /// <exception cref="UnsupportedModelException">The heads are not to be divided so.</exception>
    public static HeadDivision Of(int ranks, int heads, int keyValueHeads, int dimension)
    {
        Division query, key;
        if (ranks == 1)
        {
            (query, key) = (Division.Whole(heads), Division.Whole(keyValueHeads));
        }
        else if (keyValueHeads >= ranks)
        {
            key = Division.Even(keyValueHeads, ranks);
            query = key.Times(heads / keyValueHeads);
        }
        else if (ranks % keyValueHeads == 0 && heads >= ranks)
        {
            var (group, copies) = (heads / keyValueHeads, ranks / keyValueHeads);
            var within = Division.Even(group, copies);
            key = Division.Of(keyValueHeads, [.. Enumerable.Range(0, ranks).Select(r => (r / copies, 1))]);
            query = Division.Of(heads, [.. Enumerable.Range(0, ranks).Select(r => (r / copies * group + within[r % copies][0].First, within[r % copies][0].Count))]);
        }
        else
            throw new UnsupportedModelException(
                $"{heads} query and {keyValueHeads} key heads are not divided among {ranks} devices; expected at most {keyValueHeads} of them, or a multiple of that up to {heads}");
        Division queries = query.Times(dimension), keys = key.Times(dimension);
        return new(Division.Join(queries, keys, keys), queries, keys, Division.Join(key, key));
    }

    /// <summary>Of a decoder.</summary>
    public static HeadDivision Of(Device device, TextSpec spec) => Of(device.Ranks, spec.Heads, spec.KeyValueHeads, spec.HeadDimension);
}
