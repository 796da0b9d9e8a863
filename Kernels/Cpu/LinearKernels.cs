using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>What a linear operation works on, checked.</summary>
internal unsafe readonly record struct LinearJob(
    CpuWeight Weight, nint Input, nint Output, nint Bias, int Tokens, int Outputs, Epilogue Epilogue, nint Scratch)
{
    /// <summary>The tokens in eight bits, or 0: quantised panels are multiplied with floats.</summary>
    public nint Rows { get; init; }

    /// <summary>Their shape.</summary>
    public ActivationRows Layout { get; init; }

    /// <summary>The tokens in BF16, or 0: BF16 panels are multiplied with floats.</summary>
    public nint Pairs { get; init; }

    /// <summary>Bytes from one of them to the next: whole pairs, and no power of two.</summary>
    public nint PairStride => (2 * Weight.Columns + 63 & ~63 | 64) + 128;
}

/// <summary>The linear kernels of one instruction set.</summary>
internal abstract unsafe class LinearKernels
{
    /// <summary>Tokens for which a chunk of weights is unpacked once.</summary>
    protected const int Tile = 128;

    /// <summary>Panels whose sums are taken side by side, so that a tile's activations are reused while they are in the cache.</summary>
    protected const int Together = 4;

    /// <summary>Tokens for which elements are unpacked in registers, each time anew: they wait for memory anyway.</summary>
    protected const int Few = 2;

    /// <summary>Bytes of a chunk as floats, or of two as integers.</summary>
    protected const int UnpackedBytes = 18 * 1024;

    /// <summary>Scratch of a worker: unpacked chunks, sums of the panels and of one that only fills a pair, biases, a row's tail.</summary>
    public const int ScratchBytes = UnpackedBytes + ((Together + 1) * Tile + Together + 1) * 16 * sizeof(float);

    /// <summary>The widest instruction set that this machine has.</summary>
    public static LinearKernels Best() =>
        Lanes512.IsSupported ? new LinearKernels<Lanes512>(EmittedDot.Instance) : Lanes256.IsSupported ? new LinearKernels<Lanes256>() : new LinearKernels<Lanes128>();

    /// <summary>Instruction set, for people.</summary>
    public abstract string Name { get; }

    /// <summary>Whether tokens in BF16 are multiplied with BF16 panels.</summary>
    public abstract bool HasBF16 { get; }

    /// <summary>Shape of tokens in eight bits for a weight.</summary>
    public abstract ActivationRows Layout(CpuWeight weight);

    /// <summary>Weight times activations, epilogue included.</summary>
    public abstract void Linear(WorkerPool pool, in LinearJob job);

    /// <summary>output[i] = gate(sums[i]) · sums[i + outputs], for sums that were taken without an epilogue.</summary>
    public abstract void Gate(float* sums, float* output, int tokens, int outputs, Epilogue epilogue);

    /// <summary>Makes one row of a weight into floats.</summary>
    public abstract void Row(CpuWeight weight, int row, float* target, byte* scratch);
}

/// <inheritdoc/>
/// <param name="emitted">Kernels in machine code that replace those for several tokens in eight bits, of AVX-512 only.</param>
internal sealed unsafe class LinearKernels<T>(EmittedDot? emitted = null) : LinearKernels where T : struct, ILanes<T>
{
    public override string Name => emitted is null ? T.Name : T.Name + " VNNI";

    // Elements that are worth waking a worker for.
    private const int Grain = 16 * 1024;

    public override bool HasBF16 => emitted?.HasBF16 == true;

    public override ActivationRows Layout(CpuWeight weight) =>
        new(weight.Columns, !T.HasDot && weight.Has(DType.Q8_0) && emitted is null);

    public override void Linear(WorkerPool pool, in LinearJob job)
    {
        var panels = job.Weight.Panel.Length;
        if (job.Rows != 0)
            pool.Run(job.Tokens, new QuantizeWork(job), Grain / job.Weight.Columns);
        if (job.Pairs != 0)
            pool.Run(job.Tokens, new HalveWork(job), Grain / job.Weight.Columns);
        pool.Run(job.Epilogue.IsGated() ? panels / 2 : panels, new Work(job, emitted));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override void Gate(float* sums, float* output, int tokens, int outputs, Epilogue epilogue)
    {
        var lanes = stackalloc float[32];
        for (var t = 0; t < tokens; t++)
            for (var i = 0; i < outputs; i += 16)
            {
                var row = sums + (long)t * 2 * outputs + i;
                var count = Math.Min(16, outputs - i);
                new Span<float>(row, count).CopyTo(new Span<float>(lanes, 16));
                new Span<float>(row + outputs, count).CopyTo(new Span<float>(lanes + 16, 16));
                T.Store(Apply(epilogue, T.Load(lanes)) * T.Load(lanes + 16), lanes);
                new Span<float>(lanes, count).CopyTo(new Span<float>(output + (long)t * outputs + i, count));
            }
    }

    public override void Row(CpuWeight weight, int row, float* target, byte* scratch)
    {
        var panel = weight.Of(row);
        var chunk = (byte*)panel.Data;
        for (var k = 0; k < weight.Columns; k += Panels.Chunk)
        {
            var columns = Math.Min(Panels.Chunk, weight.Columns - k);
            chunk += Unpack(panel.Form, chunk, columns, (float*)scratch);
            var lane = (float*)scratch + (row - panel.First);
            for (var j = 0; j < columns; j++)
                target[k + j] = lane[16 * j];
        }
    }

    /// <summary>Adds a chunk's products to the sums of some tokens; returns the chunk's bytes.</summary>
    private static int Accumulate(DType form, byte* chunk, int columns, float* x, nint stride, int tokens, float* sums, bool first, float* scratch) => form switch
    {
        DType.F32 => Accumulate<FormF32>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.F16 => Accumulate<FormF16>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.BF16 => Accumulate<FormBF16>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.Q8_0 => Accumulate<FormQ8_0>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.Q4_0 => Accumulate<FormQ4_0>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.Q4_1 => Accumulate<FormQ4_1>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.Q4_K => Accumulate<FormQ4_K>(chunk, columns, x, stride, tokens, sums, first, scratch),
        DType.Q6_K => Accumulate<FormQ6_K>(chunk, columns, x, stride, tokens, sums, first, scratch),
        _ => throw LinearForms.Unknown(form),
    };

    private static int Accumulate<TForm>(byte* chunk, int columns, float* x, nint stride, int tokens, float* sums, bool first, float* scratch)
        where TForm : struct, IForm
    {
        var bytes = Panels.ChunkBytes<TForm>(columns);
        if (tokens == 1)
            LinearDot<T>.One<TForm>(chunk, columns, x, sums, first);
        else if (tokens == 2)
            LinearDot<T>.Two<TForm>(chunk, columns, x, stride, sums, first);
        else
        {
            // From three tokens on it pays to make the elements into floats once, in the nearest cache.
            if (typeof(TForm) == typeof(FormF32))
                scratch = (float*)chunk;
            else
                LinearDot<T>.Unpack<TForm>(chunk, columns, scratch);
            for (; T.IsWide && tokens >= 8; tokens -= 8, x += 8 * stride, sums += 8 * 16)
                LinearDot<T>.Eight(scratch, columns, x, stride, sums, first);
            for (; tokens >= 3; tokens -= 3, x += 3 * stride, sums += 3 * 16)
                LinearDot<T>.Three(scratch, columns, x, stride, sums, first);
            if (tokens == 2)
                LinearDot<T>.Two<FormF32>((byte*)scratch, columns, x, stride, sums, first);
            else if (tokens == 1)
                LinearDot<T>.One<FormF32>((byte*)scratch, columns, x, sums, first);
        }
        return bytes;
    }

    /// <summary>Adds the products of a BF16 chunk, or of the same chunk of two panels, to the sums of some tokens in BF16; returns the chunk's bytes.</summary>
    private static int Accumulate(byte* chunk, byte* chunk2, int columns, nint stride, byte* x, int tokens, int k, float* sums, float* sums2, EmittedDot emitted)
    {
        EmittedJob job = new() { Panel = chunk, Panel2 = chunk2, Stride = stride, Count = (columns + 1) / 2, Continues = k };
        for (x += 2 * k; tokens > 0;)
        {
            var n = EmittedDot.Next(tokens, EmittedDot.BF16Tokens);
            job.X = x;
            job.Total = sums;
            job.Total2 = sums2;
            emitted.Run(DType.BF16, n, chunk2 is not null, &job);
            tokens -= n;
            x += n * stride;
            sums += 16 * n;
            sums2 += 16 * n;
        }
        return Panels.ChunkBytes<FormBF16>(columns);
    }

    /// <summary>
    /// Adds the products of a chunk, or of the same chunk of two panels of one form, to the sums of some tokens in eight bits;
    /// returns the chunk's bytes, or 0 if the form has no integers. Emitted kernels take several whole chunks, too.
    /// </summary>
    private static int Accumulate(
        DType form, byte* chunk, byte* chunk2, int columns, in ActivationRows layout, byte* x, int tokens, int k, float* sums, float* sums2, byte* scratch,
        EmittedDot? emitted) => form switch
    {
        DType.Q8_0 when T.HasDot || !layout.Wide => Accumulate<FormQ8_0>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        DType.Q8_0 => Accumulate<FormQ8_0Wide>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        DType.Q4_0 => Accumulate<FormQ4_0>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        DType.Q4_1 => Accumulate<FormQ4_1>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        DType.Q4_K => Accumulate<FormQ4_K>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        DType.Q6_K => Accumulate<FormQ6_K>(form, chunk, chunk2, columns, layout, x, tokens, k, sums, sums2, scratch, emitted),
        _ => 0,
    };

    private static int Accumulate<TForm>(
        DType form, byte* chunk, byte* chunk2, int columns, in ActivationRows layout, byte* x, int tokens, int k, float* sums, float* sums2, byte* scratch,
        EmittedDot? emitted) where TForm : struct, IIntegerForm
    {
        var chunks = Math.Max(columns / Panels.Chunk, 1);
        var bytes = columns > Panels.Chunk ? chunks * Panels.ChunkBytes<TForm>(Panels.Chunk) : Panels.ChunkBytes<TForm>(columns);
        if (emitted is not null)
        {
            EmittedJob job = new()
            {
                Panel = chunk, Panel2 = chunk2, Stride = layout.Stride, Block = layout.Columns, Count = Math.Min(columns, Panels.Chunk) / ActivationRows.Block, Continues = k,
            };
            for (x += k; tokens > 0;)
            {
                var n = EmittedDot.Next(tokens, EmittedDot.IntegerTokens);
                job.X = x;
                job.Total = sums;
                job.Total2 = sums2;
                job.Chunks = chunks;
                emitted.Run(form, n, chunk2 is not null, &job);
                tokens -= n;
                x += n * layout.Stride;
                sums += 16 * n;
                sums2 += 16 * n;
            }
            return bytes;
        }
        if (tokens <= Few)
        {
            for (var t = 0; t < tokens; t++, x += layout.Stride, sums += 16, sums2 += 16)
            {
                IntegerDot<T>.One<TForm>(chunk, columns, layout, x, k, sums);
                if (chunk2 is not null)
                    IntegerDot<T>.One<TForm>(chunk2, columns, layout, x, k, sums2);
            }
            return bytes;
        }
        IntegerDot<T>.Unpack<TForm>(chunk, columns, scratch);
        if (chunk2 is not null)
            IntegerDot<T>.Unpack<TForm>(chunk2, columns, scratch + IntegerDot<T>.UnpackedBytes);
        if (T.IsWide)
            for (var t = 0; t < tokens; t += 4, x += 4 * layout.Stride, sums += 4 * 16, sums2 += 4 * 16)
                IntegerDot<T>.Four<TForm>(scratch, columns, layout, x, tokens - t, k, sums, sums2);
        else
            for (var t = 0; t < tokens; t += 2, x += 2 * layout.Stride, sums += 2 * 16, sums2 += 2 * 16)
            {
                IntegerDot<T>.Two<TForm>(scratch, columns, layout, x, tokens - t, k, sums);
                if (chunk2 is not null)
                    IntegerDot<T>.Two<TForm>(scratch + IntegerDot<T>.UnpackedBytes, columns, layout, x, tokens - t, k, sums2);
            }
        return bytes;
    }

    private static int Unpack(DType form, byte* chunk, int columns, float* target) => form switch
    {
        DType.F32 => Unpack<FormF32>(chunk, columns, target),
        DType.F16 => Unpack<FormF16>(chunk, columns, target),
        DType.BF16 => Unpack<FormBF16>(chunk, columns, target),
        DType.Q8_0 => Unpack<FormQ8_0>(chunk, columns, target),
        DType.Q4_0 => Unpack<FormQ4_0>(chunk, columns, target),
        DType.Q4_1 => Unpack<FormQ4_1>(chunk, columns, target),
        DType.Q4_K => Unpack<FormQ4_K>(chunk, columns, target),
        DType.Q6_K => Unpack<FormQ6_K>(chunk, columns, target),
        _ => throw LinearForms.Unknown(form),
    };

    private static int Unpack<TForm>(byte* chunk, int columns, float* target) where TForm : struct, IForm
    {
        LinearDot<T>.Unpack<TForm>(chunk, columns, target);
        return Panels.ChunkBytes<TForm>(columns);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Apply(Epilogue epilogue, T x)
    {
        switch (epilogue)
        {
            case Epilogue.Gelu: return x * LanesMath.NormalCdf(x);
            case Epilogue.GeluTanh or Epilogue.GeluTanhGate:
                // (1 + tanh u) / 2 = sigmoid(2u), u = √(2/π) · (x + 0.044715 x³).
                return x * LanesMath.Sigmoid(x * T.MultiplyAdd(x * x, T.Broadcast(0.0713548162f), T.Broadcast(1.5957691216f)));
            case Epilogue.QuickGelu: return x * LanesMath.Sigmoid(x * T.Broadcast(1.702f));
            case Epilogue.Silu or Epilogue.SiluGate: return x * LanesMath.Sigmoid(x);
            default: return x;
        }
    }

    /// <summary>Items are tokens.</summary>
    private readonly struct QuantizeWork(LinearJob job) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var t = first; t < end; t++)
                ActivationRows<T>.Quantize(job.Layout, (float*)job.Input + (long)t * job.Layout.Columns, (byte*)job.Rows + t * job.Layout.Stride);
        }
    }

    /// <summary>Items are tokens.</summary>
    private readonly struct HalveWork(LinearJob job) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var t = first; t < end; t++)
                ActivationRows<T>.Halve(job.Weight.Columns, (float*)job.Input + (long)t * job.Weight.Columns, (ushort*)(job.Pairs + t * job.PairStride));
        }
    }

    /// <summary>Items are panels, or pairs of a gate and a value panel.</summary>
    private readonly struct Work(LinearJob job, EmittedDot? emitted) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            var scratch = (float*)(job.Scratch + worker * ScratchBytes);
            var sums = scratch + UnpackedBytes / sizeof(float);
            var biases = sums + (Together + 1) * Tile * 16;
            var gated = job.Epilogue.IsGated();
            // One or two tokens read weights as fast as they come: one panel after another, a single stream. Two share long rows of activations,
            // which do not stay in the nearest cache beside them (Q4_0 of 5632 columns: 34 GB/s for 28; of 2048 columns 33 for 36).
            var step = job.Tokens > Few ? gated ? Together / 2 : Together : gated || job.Weight.Columns <= 4096 ? 1 : 2;
            for (var item = first; item < end; item += step)
            {
                var items = Math.Min(step, end - item);
                for (var t = 0; t < job.Tokens; t += Tile)
                {
                    var tokens = Math.Min(Tile, job.Tokens - t);
                    Sums(item, items, gated, t, tokens, sums, scratch);
                    Store(item, items, gated, t, tokens, sums, biases);
                }
            }
        }

        /// <summary>Sums of panels (the gates first, then the values) and a tile of tokens.</summary>
        private void Sums(int item, int items, bool gated, int t, int tokens, float* sums, float* scratch)
        {
            var weight = job.Weight;
            var panels = gated ? 2 * items : items;
            var next = stackalloc byte*[Together];
            for (var i = 0; i < panels; i++)
                next[i] = (byte*)Panel(i).Data;
            // Emitted kernels take all whole chunks of a panel at once where the tokens' rows are not worth keeping near.
            var whole = emitted is not null && tokens <= Few && (job.Rows != 0 || job.Pairs != 0) && !weight.Has(DType.F32) && !weight.Has(DType.F16)
                && (job.Pairs != 0 || !weight.Has(DType.BF16)) ? weight.Columns / Panels.Chunk * Panels.Chunk : Panels.Chunk;
            for (int k = 0, columns; k < weight.Columns; k += columns)
            {
                columns = weight.Columns - k < Panels.Chunk ? weight.Columns - k : whole;
                for (var i = 0; i < panels; i++)
                {
                    var form = Panel(i).Form;
                    var y = sums + i * Tile * 16;
                    if (job.Pairs != 0 && form == DType.BF16)
                    {
                        var two = i + 1 < panels && Panel(i + 1).Form == form;
                        var bytes = Accumulate(next[i], two ? next[i + 1] : null, columns, job.PairStride, (byte*)job.Pairs + t * job.PairStride, tokens, k, y, y + Tile * 16, emitted!);
                        next[i] += bytes;
                        if (two)
                            next[++i] += bytes;
                        continue;
                    }
                    if (job.Rows != 0)
                    {
                        var two = i + 1 < panels && Panel(i + 1).Form == form;
                        var bytes = Accumulate(
                            form, next[i], two ? next[i + 1] : null, columns, job.Layout, (byte*)job.Rows + t * job.Layout.Stride, tokens, k, y, two ? y + Tile * 16 : sums + Together * Tile * 16,
                            (byte*)scratch, emitted);
                        if (bytes != 0)
                        {
                            next[i] += bytes;
                            if (two)
                                next[++i] += bytes;
                            continue;
                        }
                    }
                    next[i] += Accumulate(form, next[i], columns, (float*)job.Input + (long)t * weight.Columns + k, weight.Columns, tokens, y, k == 0, scratch);
                }
            }

            ref readonly Panel Panel(int i) => ref weight.Panel[i < items ? item + i : item + i - items + weight.Panel.Length / 2];
        }

        /// <summary>Stores sums token by token: neighbouring panels' outputs lie side by side, those of two tokens pages apart.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Store(int item, int items, bool gated, int t, int tokens, float* sums, float* biases)
        {
            var tail = biases + Together * 16;
            var panels = job.Weight.Panel;
            for (var p = 0; p < items; p++)
            {
                Bias(panels[item + p].First, panels[item + p].Rows, biases + 16 * p);
                if (gated)
                    Bias(job.Outputs + panels[item + p].First, panels[item + p].Rows, biases + 16 * (items + p));
            }
            var row = (float*)job.Output + (long)t * job.Outputs;
            for (var i = 0; i < tokens; i++, row += job.Outputs, sums += 16)
                for (var p = 0; p < items; p++)
                {
                    ref readonly var panel = ref panels[item + p];
                    var y = Apply(job.Epilogue, T.Load(sums + p * Tile * 16) + T.Load(biases + 16 * p));
                    if (gated)
                        y *= T.Load(sums + (items + p) * Tile * 16) + T.Load(biases + 16 * (items + p));
                    if (panel.Rows == Panels.Rows)
                    {
                        T.Store(y, row + panel.First);
                        continue;
                    }
                    T.Store(y, tail);
                    new ReadOnlySpan<float>(tail, panel.Rows).CopyTo(new Span<float>(row + panel.First, panel.Rows));
                }
        }

        private void Bias(int first, int rows, float* target)
        {
            new Span<float>(target, Panels.Rows).Clear();
            if (job.Bias != 0)
                new ReadOnlySpan<float>((float*)job.Bias + first, rows).CopyTo(new Span<float>(target, rows));
        }
    }
}
