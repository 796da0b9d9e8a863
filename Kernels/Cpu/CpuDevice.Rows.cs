using System.Numerics;

namespace Trimtab.Kernels.Cpu;

// What only some model families need.
public sealed unsafe partial class CpuDevice
{
    /// <inheritdoc/>
    public override void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        Contract.BlendRows(DType.F32, output, input, rows, weights);
        var work = new BlendWork
        {
            Output = output.F32(),
            Input = input.F32(),
            Rows = rows.I32(),
            Weights = weights.F32(),
            Columns = input.Columns,
            InputRows = input.Rows,
            Terms = rows.Rows,
            Count = output.Rows,
        };
        Pool.Run(output.Rows, work, Grain / Math.Max(1, input.Columns * rows.Rows));
        Hold(output, input, rows, weights);
    }

    /// <inheritdoc/>
    public override void SoftCap(Tensor x, float cap)
    {
        Contract.Expect(nameof(SoftCap), nameof(x), x, DType.F32, x.Rows, x.Columns);
        var pieces = (int)((x.Count + CapWork.Piece - 1) / CapWork.Piece);
        Pool.Run(pieces, new CapWork { X = x.F32(), Count = x.Count, Cap = cap });
        Hold(x);
    }

    /// <inheritdoc/>
    public override void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        Contract.Experts(DType.F32, output, input, scores, weights);
        int tokens = input.Rows, width = input.Columns, count = weights.GateUp.Length, inner = weights.Down[0].Columns;
        if (tokens == 0)
            return;
        // Of each token the experts it uses and their weights; then what one expert's tokens need: which they are, rows in, between and out.
        long used = (long)tokens * weights.Used, rows = (long)tokens * (2 * width + inner);
        var memory = AtLeast(ref _experts, sizeof(float) * (rows + 2 * used + tokens + count));
        float* gathered = (float*)memory, middle = gathered + (long)tokens * width, result = middle + (long)tokens * inner;
        float* weight = result + (long)tokens * width, share = weight + used;
        int* expert = (int*)(share + count), token = expert + used;
        float* source = input.F32(), target = output.F32();
        for (var t = 0; t < tokens; t++)
            Route(scores.F32() + (long)t * count, count, weights.Used, weights.Normalised, expert + (long)t * weights.Used, weight + (long)t * weights.Used, share);
        new Span<float>(target, checked(tokens * width)).Clear();
        for (var e = 0; e < count; e++)
        {
            var n = 0;
            for (var i = 0L; i < used; i++)
                if (expert[i] == e)
                    token[n++] = (int)i;
            if (n == 0)
                continue;
            for (var i = 0; i < n; i++)
                new ReadOnlySpan<float>(source + (long)(token[i] / weights.Used) * width, width).CopyTo(new Span<float>(gathered + (long)i * width, width));
            Linear(middle, gathered, Packed(nameof(Experts), weights.GateUp[e]), null, n, weights.Activation);
            Linear(result, middle, Packed(nameof(Experts), weights.Down[e]), null, n, Epilogue.None);
            for (var i = 0; i < n; i++)
                AddScaled(target + (long)(token[i] / weights.Used) * width, result + (long)i * width, weight[token[i]], width);
        }
        Hold(output, input, scores);
    }

    /// <summary>The experts of a token, highest score first, and their weights: shares of all, or of those used.</summary>
    private static void Route(float* scores, int count, int used, bool normalised, int* expert, float* weight, float* share)
    {
        var highest = float.NegativeInfinity;
        for (var e = 0; e < count; e++)
            highest = MathF.Max(highest, scores[e]);
        var total = 0f;
        for (var e = 0; e < count; e++)
            total += share[e] = MathF.Exp(scores[e] - highest);
        var taken = 0f;
        for (var k = 0; k < used; k++)
        {
            var best = -1;
            for (var e = 0; e < count; e++)
                if (share[e] >= 0 && (best < 0 || share[e] > share[best]))
                    best = e;
            if (best < 0)
                throw new ArgumentException($"{nameof(Experts)}: a router's score is no number");
            expert[k] = best;
            taken += weight[k] = share[best];
            share[best] = -1;
        }
        for (var k = 0; k < used; k++)
            weight[k] /= normalised ? taken : total;
    }

    /// <summary>target += factor · source; each product is rounded, so that every instruction set gives the same bits.</summary>
    private static void AddScaled(float* target, float* source, float factor, int count)
    {
        var i = 0;
        for (; i <= count - Vector<float>.Count; i += Vector<float>.Count)
            (Vector.Load(target + i) + Vector.Load(source + i) * factor).Store(target + i);
        for (; i < count; i++)
            target[i] += factor * source[i];
    }

    private struct BlendWork : IWork
    {
        public float* Output, Input, Weights;
        public int* Rows;
        public int Columns, InputRows, Terms, Count;

        public readonly void Run(int first, int end, int worker)
        {
            for (var i = first; i < end; i++)
            {
                var target = Output + (long)i * Columns;
                new Span<float>(target, Columns).Clear();
                for (var g = 0; g < Terms; g++)
                {
                    var row = Contract.Index(nameof(BlendRows), "row", Rows[(long)g * Count + i], InputRows);
                    AddScaled(target, Input + (long)row * Columns, Weights[(long)g * Count + i], Columns);
                }
            }
        }
    }

    private struct CapWork : IWork
    {
        public const int Piece = 4096;

        public float* X;
        public long Count;
        public float Cap;

        public readonly void Run(int first, int end, int worker)
        {
            for (var i = (long)first * Piece; i < Math.Min((long)end * Piece, Count); i++)
                X[i] = Cap * MathF.Tanh(X[i] / Cap);
        }
    }
}
