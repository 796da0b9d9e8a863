using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

// Mixtures of experts. The host never knows which experts are used, so that a step with them is a graph as any other.
public sealed unsafe partial class CudaDevice
{
    private readonly ConditionalWeakTable<Weight[], ExpertMatrices> _experts = [];

    /// <inheritdoc/>
    public override void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        Contract.Experts(ActivationType, output, input, scores, weights);
        Enter();
        if (input.Rows == 0)
            return;
        int columns = input.Columns, inner = weights.Down[0].Columns, count = weights.GateUp.Length, element = ActivationType.BlockBytes();
        ExpertMatrices gateUp = Matrices(weights.GateUp), down = Matrices(weights.Down);
        // An expert has at most one row of each token.
        int slots = checked(input.Rows * weights.Used), tile = BlockTokens(input.Rows), tiles = (slots + Math.Min(count, slots) * (tile - 1)) / tile;

        long at = 0;
        long Room(long bytes) => (at += (bytes + 15) / 16 * 16) - (bytes + 15) / 16 * 16;
        long share = Room(4L * slots), expert = Room(4L * slots), place = Room(4L * slots), table = Room((long)tiles * sizeof(Tile));
        long gathered = Room((long)slots * columns * element), middle = Room((long)slots * inner * element);
        long sums = gateUp.IsApart ? Room(2L * slots * inner * element) : 0;
        var memory = Scratch(3, at);

        var p = new ExpertsParameters
        {
            Output = output.At(),
            Input = input.At(),
            Scores = scores.At(),
            Gathered = memory + (nint)gathered,
            Results = memory + (nint)gathered, // read by the first matrices before the second ones write
            Share = memory + (nint)share,
            Expert = memory + (nint)expert,
            Place = memory + (nint)place,
            Tiles = memory + (nint)table,
            Status = _status.Pointer,
            Tokens = input.Rows,
            Columns = columns,
            Experts = count,
            Used = weights.Used,
            Normalised = weights.Normalised ? 1 : 0,
            TileTokens = tile,
            TileCount = tiles,
        };
        Launch(nameof(Experts), Kernel("experts.cu", "experts_route"), (input.Rows, 1, 1), 32, 8L * count, p);
        Launch(nameof(Experts), Kernel("experts.cu", "experts_place"), (count, 1, 1), 256, 4L * count, p);
        Launch(nameof(Experts), Kernel("experts.cu", "experts_gather"), (slots, 1, 1), 128, 0, p);
        var target = gateUp.IsApart ? sums : middle;
        Multiply(gateUp, memory + (nint)target, p.Gathered, p.Tiles, slots, tile, tiles, gateUp.IsApart ? Epilogue.None : weights.Activation);
        if (gateUp.IsApart)
            Gate(memory + (nint)middle, memory + (nint)sums, slots, inner, weights.Activation);
        Multiply(down, p.Results, memory + (nint)middle, p.Tiles, slots, tile, tiles, Epilogue.None);
        Launch(nameof(Experts), Kernel("experts.cu", "experts_combine"), (input.Rows, 1, 1), 128, 0, p);
    }

    private void Multiply(ExpertMatrices matrices, nint output, nint input, nint table, int slots, int tile, int tiles, Epilogue epilogue)
    {
        var gated = epilogue.IsGated();
        foreach (var part in matrices.Parts)
        {
            Part(part.Type, new()
            {
                Output = output,
                Input = input,
                Tiles = table,
                Experts = part.Table.Pointer,
                ElementStride = CudaForms.ElementStride(part.Type, matrices.Columns),
                ScaleStride = CudaForms.ScaleStride(part.Type, matrices.Columns),
                Tokens = slots,
                Columns = matrices.Columns,
                Rows = gated ? part.Rows / 2 : part.Rows,
                FirstRow = part.FirstRow,
                OutputColumns = gated ? matrices.Rows / 2 : matrices.Rows,
                Gate = gated ? part.Rows / 2 : 0,
                Epilogue = (int)epilogue,
            }, tile, tiles);
        }
    }

    /// <summary>Where the experts' rows lie, as a table on the device; made at the first use of the weights.</summary>
    private ExpertMatrices Matrices(Weight[] weights)
    {
        if (_experts.TryGetValue(weights, out var known) && known.AreOf(weights))
            return known;
        var tables = new Dictionary<(DType Type, int FirstRow, int Rows), ExpertRows[]>();
        for (var e = 0; e < weights.Length; e++)
        {
            foreach (var part in Packed(nameof(Experts), weights[e]).Parts)
            {
                var key = (part.Type, part.FirstRow, part.Rows);
                if (!tables.TryGetValue(key, out var rows))
                    tables.Add(key, rows = new ExpertRows[weights.Length]);
                rows[e] = new() { Elements = part.Elements.Pointer, Scales = part.Scales?.Pointer ?? 0 };
            }
        }
        var parts = new List<ExpertPart>();
        foreach (var ((type, first, count), rows) in tables)
        {
            var table = Take((long)rows.Length * sizeof(ExpertRows), "a table of experts", zeroed: false);
            Send(MemoryMarshal.AsBytes<ExpertRows>(rows), table.Pointer, copy: true);
            parts.Add(new(type, first, count, table));
        }
        var made = new ExpertMatrices([.. weights], parts);
        _experts.AddOrUpdate(weights, made);
        return made;
    }

    /// <summary>Rows of one form that some of the experts have at the same place.</summary>
    private sealed record ExpertPart(DType Type, int FirstRow, int Rows, CudaStorage Table);

    /// <summary>One matrix of every expert, as launches; its tables go when the array of weights does.</summary>
    private sealed class ExpertMatrices(Weight[] of, List<ExpertPart> parts)
    {
        public IReadOnlyList<ExpertPart> Parts { get; } = parts;

        public int Rows { get; } = of[0].Rows;

        public int Columns { get; } = of[0].Columns;

        /// <summary>Whether an expert's gates and values are of different forms: they are multiplied apart and meet afterwards.</summary>
        public bool IsApart { get; } = parts.Exists(p => p.Rows != of[0].Rows);

        /// <summary>Whether the tables still tell where these lie.</summary>
        public bool AreOf(Weight[] weights)
        {
            for (var e = 0; e < weights.Length; e++)
                if (weights[e] != of[e] || ((CudaWeight)of[e]).IsDisposed)
                    return false;
            return true;
        }
    }
}
