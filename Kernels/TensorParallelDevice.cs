using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Trimtab.Kernels;

/// <summary>
/// Several devices that divide each layer among them (tensor parallelism; Megatron-LM, arXiv 1909.08053, section 3). A model says which
/// weights and activations are divided (<see cref="Division"/>): a weight that is divided by its rows gives each rank some of the outputs, one that is
/// divided by its columns gives each a share of every sum, which are added up right after the product, before <see cref="ResidualNorm"/> or whatever
/// comes next. Outputs of divided rows that go to a tensor that is not divided (logits) are gathered. All else (residual stream, norms, steering, logits) every rank computes alike, so that all of them have the same bits.
/// </summary>
public sealed unsafe class TensorParallelDevice : Device
{
    private readonly Device[] _ranks;
    private readonly Communicator _communicator;
    private readonly Tensor[] _sums, _shares;
    private Tensor _columns; // [T, N], divided: of a product whose outputs every rank is to have
    private readonly ConditionalWeakTable<Weight[], ExpertWeights[]> _experts = [];

    /// <summary>Joins devices.</summary>
    /// <param name="ranks">Devices of one kind; it owns them from here on.</param>
    /// <param name="communicator">What adds up their sums; owned too.</param>
    public TensorParallelDevice(IReadOnlyList<Device> ranks, Communicator communicator)
    {
        ArgumentNullException.ThrowIfNull(communicator);
        if (ranks is not { Count: >= 1 })
            throw new ArgumentException("tensor parallelism needs at least one device", nameof(ranks));
        // Each rank draws tokens and routes to experts by its own arithmetic: other processors would not sum in the same order.
        if (ranks.FirstOrDefault(rank => rank.Name != ranks[0].Name) is { } other)
            throw new ArgumentException($"tensor parallelism needs devices of one kind, got '{ranks[0].Name}' and '{other.Name}'", nameof(ranks));
        (_ranks, _communicator, _sums, _shares) = ([.. ranks], communicator, new Tensor[ranks.Count], new Tensor[ranks.Count]);
        Name = $"{ranks.Count} × {ranks[0].Name}";
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override int Ranks => _ranks.Length;

    /// <inheritdoc/>
    public override DType ActivationType => _ranks[0].ActivationType;

    /// <inheritdoc/>
    public override Abilities Abilities => _ranks[0].Abilities;

    /// <inheritdoc/>
    public override bool Draws => _ranks[0].Draws;

    /// <inheritdoc/>
    public override bool Computes(DType type, int columns) => _ranks[0].Computes(type, columns);

    /// <inheritdoc/>
    public override DType Prefers(DType type) => _ranks[0].Prefers(type);

    /// <inheritdoc/>
    public override bool Caches(DType type) => _ranks[0].Caches(type);

    /// <inheritdoc/>
    public override void Spread(int items, Action<int> work) => _ranks[0].Spread(items, work);

    /// <inheritdoc/>
    public override void Replay(long key, Action record) => _communicator.Replay(key, record);

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, int columns) => Allocate(type, rows, Division.Whole(columns));

    /// <inheritdoc/>
    public override Tensor Allocate(DType type, int rows, Division columns)
    {
        Expect(columns);
        var parts = new Storage[_ranks.Length];
        try
        {
            for (var r = 0; r < parts.Length; r++)
                parts[r] = _ranks[r].Allocate(type, rows, columns.Ranks == 1 ? columns.Count : columns.CountOf(r)).Storage!;
        }
        catch
        {
            foreach (var part in parts)
                part?.Dispose();
            throw;
        }
        return new(new DividedStorage(parts, columns), type, 0, rows, columns.Count);
    }

    /// <inheritdoc/>
    public override Weight Pack(params ReadOnlySpan<WeightData> parts)
    {
        CheckParts(parts);
        return PackDivided(Division.Whole(parts[0].Columns), byColumns: true, parts);
    }

    /// <inheritdoc/>
    public override Weight PackDivided(Division division, bool byColumns, params ReadOnlySpan<WeightData> parts)
    {
        CheckParts(parts);
        Expect(division);
        var rows = 0;
        foreach (var part in parts)
            rows += part.Rows;
        if (division.Count != (byColumns ? parts[0].Columns : rows))
            throw new ArgumentException($"Pack: a division of {division.Count} {(byColumns ? "columns" : "rows")} for a weight [{rows}, {parts[0].Columns}]");
        var packed = new Weight[_ranks.Length];
        try
        {
            for (var r = 0; r < packed.Length; r++)
                packed[r] = division.Ranks == 1 ? _ranks[r].Pack(parts) : byColumns ? PackColumns(r, division[r][0], parts) : _ranks[r].Pack(RowsOf(division[r], parts));
        }
        catch
        {
            foreach (var weight in packed)
                weight?.Dispose();
            throw;
        }
        return new DividedWeight(packed, rows, parts[0].Columns, division, byColumns);
    }

    private static WeightData[] RowsOf(ReadOnlySpan<(int First, int Count)> ranges, ReadOnlySpan<WeightData> parts)
    {
        var taken = new List<WeightData>();
        foreach (var (first, count) in ranges)
        {
            var at = 0;
            foreach (var part in parts)
            {
                int begin = Math.Max(first, at) - at, end = Math.Min(first + count, at + part.Rows) - at;
                at += part.Rows;
                if (begin >= end)
                    continue;
                var order = part.RowOrder is { } all ? Array.ConvertAll(all[begin..end], row => row - begin) : null; // rows change places within a head
                taken.Add(part with
                {
                    Rows = end - begin,
                    Data = part.Data + (nint)(part.Type.RowBytes(part.Columns) * begin),
                    RowOrder = order,
                    Scales = part.Scales.IsEmpty ? default : part.Scales[begin..end],
                });
            }
        }
        return [.. taken];
    }

    private Weight PackColumns(int rank, (int First, int Count) range, ReadOnlySpan<WeightData> parts)
    {
        var (copies, taken) = (new List<nint>(), new WeightData[parts.Length]);
        try
        {
            for (var i = 0; i < parts.Length; i++)
            {
                var part = parts[i];
                var block = part.Type.BlockSize();
                if (range.First % block != 0 || range.Count % block != 0)
                    throw new ArgumentException($"Pack: columns [{range.First}, {range.First + range.Count}) of {part.Type}, whose blocks have {block}");
                long from = part.Type.RowBytes(part.Columns), bytes = part.Type.RowBytes(range.Count), offset = part.Type.RowBytes(range.First);
                var copy = (nint)NativeMemory.AlignedAlloc(checked((nuint)(bytes * part.Rows)), 64);
                copies.Add(copy);
                Parallel.For(0, part.Rows, row => Buffer.MemoryCopy((byte*)part.Data + from * row + offset, (byte*)copy + bytes * row, bytes, bytes));
                taken[i] = part with { Columns = range.Count, Data = copy };
            }
            return _ranks[rank].Pack(taken);
        }
        finally
        {
            foreach (var copy in copies)
                NativeMemory.AlignedFree((void*)copy);
        }
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor target)
    {
        var division = StorageOf(target).Division;
        if (division.Ranks > 1 && source.Length != target.Count)
            throw new ArgumentException($"Upload: {source.Length} values for [{target.Rows}, {target.Columns}]");
        for (var r = 0; r < _ranks.Length; r++)
        {
            var part = At(target, r);
            if (division.Ranks == 1)
            {
                _ranks[r].Upload(source, part);
                continue;
            }
            var (values, at) = (new float[part.Count], 0);
            for (var row = 0; row < target.Rows; row++)
            {
                foreach (var (first, count) in division[r])
                {
                    source.Slice(row * target.Columns + first, count).CopyTo(values.AsSpan(at));
                    at += count;
                }
            }
            _ranks[r].Upload(values, part);
        }
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<int> source, Tensor target)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Upload(source, At(target, r)); // integers are never divided: a rank would say that the counts differ
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> target)
    {
        var division = StorageOf(source).Division;
        _communicator.Wait();
        if (division.Ranks == 1)
        {
            _ranks[0].Download(At(source, 0), target);
            return;
        }
        if (target.Length != source.Count)
            throw new ArgumentException($"Download: {target.Length} values for [{source.Rows}, {source.Columns}]");
        for (var r = 0; r < _ranks.Length; r++)
        {
            var part = At(source, r);
            var (values, at) = (new float[part.Count], 0);
            _ranks[r].Download(part, values);
            for (var row = 0; row < source.Rows; row++)
            {
                foreach (var (first, count) in division[r])
                {
                    values.AsSpan(at, count).CopyTo(target[(row * source.Columns + first)..]);
                    at += count;
                }
            }
        }
    }

    /// <inheritdoc/>
    public override void Copy(Tensor target, Tensor source)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Copy(At(target, r), At(source, r));
    }

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows) => Embed(output, table, features, rows, 1);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Embed(At(output, r), At(table, r), At(features, r), At(rows, r), scale);
    }

    /// <inheritdoc/>
    public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Patches(At(output, r), At(pixels, r), weights with
            {
                Projection = At(weights.Projection, r),
                Bias = At(weights.Bias, r),
                ClassToken = At(weights.ClassToken, r),
                Positions = At(weights.Positions, r),
            });
    }

    /// <inheritdoc/>
    public override void Norm(Tensor output, Tensor input, in NormWeights norm)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Norm(At(output, r), At(input, r), At(norm, r));
    }

    /// <inheritdoc/>
    public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].ResidualNorm(At(x, r), At(delta, r), At(output, r), At(norm, r), junction with
            {
                SteerSlot = At(junction.SteerSlot, r),
                SteerScale = At(junction.SteerScale, r),
                Vectors = At(junction.Vectors, r),
                CaptureSlot = At(junction.CaptureSlot, r),
                Captures = At(junction.Captures, r),
                ProductSlot = At(junction.ProductSlot, r),
                Products = At(junction.Products, r),
                Rows = At(junction.Rows, r),
                Added = At(junction.Added, r),
            });
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var shares = Divided(weight).Sums;
        if (shares && epilogue != Epilogue.None)
            throw new ArgumentException($"Linear: {epilogue} of sums that the ranks have shares of");
        if (Divided(weight).Outputs is { } outputs && StorageOf(output).Division.Ranks == 1)
        {
            Gathered(output, input, weight, bias, epilogue, outputs);
            return;
        }
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Linear(At(output, r), At(input, r), At(weight, r), shares && r > 0 ? default : At(bias, r), epilogue);
        if (shares)
            AllReduce(output);
    }

    /// <summary>A product whose rows are divided, to a tensor that is not: the logits of a divided vocabulary.</summary>
    private void Gathered(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue, Division outputs)
    {
        if (_columns.IsNone || _columns.Rows < output.Rows || _columns.Columns != output.Columns)
        {
            _columns.Storage?.Dispose();
            _columns = default;
            _columns = Allocate(ActivationType, output.Rows, outputs);
        }
        var columns = _columns.Slice(0, output.Rows);
        Linear(columns, input, weight, bias, epilogue);
        for (var r = 0; r < _ranks.Length; r++)
            (_shares[r], _sums[r]) = (At(columns, r), At(output, r));
        _communicator.AllGather(_shares, _sums);
    }

    private void AllReduce(Tensor sums)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _sums[r] = At(sums, r);
        _communicator.AllReduce(_sums);
    }

    /// <inheritdoc/>
    public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        for (var r = 0; r < _ranks.Length; r++)
        {
            var (layer, part) = (At(cache, r), At(qkv, r));
            _ranks[r].RopeStore(part, At(rotary, r), layer, At(tokens, r), At(heads, part, layer.Keys.Columns / heads.Dimension, r));
        }
    }

    /// <inheritdoc/>
    public override void AttendPaged(Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        for (var r = 0; r < _ranks.Length; r++)
        {
            var (layer, part) = (At(cache, r), At(qkv, r));
            _ranks[r].AttendPaged(At(output, r), part, layer, At(tokens, r), At(heads, part, layer.Keys.Columns / heads.Dimension, r), window);
        }
    }

    /// <inheritdoc/>
    public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads)
    {
        for (var r = 0; r < _ranks.Length; r++)
        {
            Tensor part = At(qkv, r), result = At(output, r);
            _ranks[r].AttendFull(result, part, length, At(heads, part, (part.Columns - result.Columns) / (2 * heads.Dimension), r));
        }
    }

    /// <inheritdoc/>
    public override void TakeRows(Tensor output, Tensor input, Tensor rows)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].TakeRows(At(output, r), At(input, r), At(rows, r));
    }

    /// <inheritdoc/>
    public override void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].BlendRows(At(output, r), At(input, r), At(rows, r), At(weights, r));
    }

    /// <inheritdoc/>
    public override void SoftCap(Tensor x, float cap)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].SoftCap(At(x, r), cap);
    }

    /// <inheritdoc/>
    public override void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        if (!_experts.TryGetValue(weights.GateUp, out var ranks))
        {
            var all = weights;
            ranks = [.. Enumerable.Range(0, _ranks.Length).Select(r => all with
            {
                GateUp = Array.ConvertAll(all.GateUp, weight => At(weight, r)),
                Down = Array.ConvertAll(all.Down, weight => At(weight, r)),
            })];
            _experts.Add(weights.GateUp, ranks);
        }
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Experts(At(output, r), At(input, r), At(scores, r), ranks[r]);
        if (Divided(weights.Down[0]).Sums)
            AllReduce(output);
    }

    /// <inheritdoc/>
    public override void Draw(Tensor tokens, Tensor logits, in DrawMap map)
    {
        for (var r = 0; r < _ranks.Length; r++)
            _ranks[r].Draw(At(tokens, r), At(logits, r), new(At(map.Numbers, r), At(map.Settings, r), At(map.Edits, r)));
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        _columns.Storage?.Dispose();
        _communicator.Dispose();
        foreach (var rank in _ranks)
            rank.Dispose();
    }

    private void Expect(Division division)
    {
        ArgumentNullException.ThrowIfNull(division);
        if (division.Ranks != 1 && division.Ranks != _ranks.Length)
            throw new ArgumentException($"a division among {division.Ranks} ranks; the device has {_ranks.Length}");
    }

    private static DividedStorage StorageOf(Tensor t) =>
        t.Storage as DividedStorage ?? throw new ArgumentException($"expected a tensor of a tensor-parallel device, got {t.Type} [{t.Rows}, {t.Columns}] of another");

    private static DividedWeight Divided(Weight weight) =>
        weight as DividedWeight ?? throw new ArgumentException($"expected a weight packed by a tensor-parallel device, got {weight?.GetType().Name ?? "none"}");

    private static Weight At(Weight weight, int rank) => Divided(weight).Parts[rank];

    /// <summary>What a rank has of a tensor; none of none.</summary>
    private static Tensor At(Tensor t, int rank)
    {
        if (t.IsNone)
            return default;
        var storage = StorageOf(t);
        if (storage.Division.Ranks == 1)
            return t with { Storage = storage.Parts[rank] };
        if (t.Columns != storage.Division.Count)
            throw new ArgumentException($"[{t.Rows}, {t.Columns}] of a tensor whose {storage.Division.Count} columns are divided");
        var columns = storage.Division.CountOf(rank);
        return new(storage.Parts[rank], t.Type, t.Offset / t.Columns * columns, t.Rows, columns);
    }

    private static NormWeights At(in NormWeights norm, int rank) => norm with { Weight = At(norm.Weight, rank), Bias = At(norm.Bias, rank) };

    private static KvLayer At(in KvLayer cache, int rank) =>
        cache with { Keys = At(cache.Keys, rank), Values = At(cache.Values, rank), Scales = At(cache.Scales, rank) };

    private static TokenMap At(in TokenMap tokens, int rank) =>
        new(At(tokens.Sequence, rank), At(tokens.Position, rank), At(tokens.StoreRow, rank), At(tokens.Pages, rank), At(tokens.Span, rank));

    private static Heads At(in Heads heads, Tensor qkv, int keyValue, int rank) => heads with
    {
        Query = qkv.Columns / heads.Dimension - 2 * keyValue,
        KeyValue = keyValue,
        QueryNorm = At(heads.QueryNorm, rank),
        KeyNorm = At(heads.KeyNorm, rank),
    };

    /// <summary>Memory on every rank.</summary>
    private sealed class DividedStorage(Storage[] parts, Division division) : Storage
    {
        public Storage[] Parts => parts;

        public Division Division => division;

        public override long Bytes => parts.Sum(part => part.Bytes);

        protected override void Dispose(bool disposing)
        {
            if (!disposing)
                return; // what was forgotten, the ranks' own storages see to
            foreach (var part in parts)
                part.Dispose();
        }
    }

    /// <summary>A weight on every rank: all of it, some of its rows, or some of its columns.</summary>
    private sealed class DividedWeight(Weight[] parts, int rows, int columns, Division division, bool byColumns) : Weight
    {
        public Weight[] Parts => parts;

        /// <summary>Whether a rank's outputs are shares of the sums.</summary>
        public bool Sums { get; } = byColumns && division.Ranks > 1;

        /// <summary>Which outputs each rank has, or null where each has all.</summary>
        public Division? Outputs { get; } = byColumns || division.Ranks == 1 ? null : division;

        public override int Rows => rows;

        public override int Columns => columns;

        public override long Bytes => parts.Sum(part => part.Bytes);

        protected override void Dispose(bool disposing)
        {
            if (!disposing)
                return;
            foreach (var part in parts)
                part.Dispose();
        }
    }
}
