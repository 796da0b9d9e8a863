namespace Trimtab.Kernels.Cpu;

public sealed unsafe partial class CpuDevice
{
    /// <inheritdoc/>
    public override bool Computes(DType type, int columns) => LinearForms.Computes(type, columns);

    /// <inheritdoc/>
    public override DType Prefers(DType type) => type == DType.F16 && _activations == Activations.Auto && _linear.HasBF16 ? DType.BF16 : type;

    /// <inheritdoc/>
    public override Weight Pack(params ReadOnlySpan<WeightData> parts)
    {
        CheckParts(parts);
        return new CpuWeight(Pool, parts);
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var packed = Packed(nameof(Linear), weight);
        Contract.Linear(output, input, packed, bias, epilogue);
        Linear(output.F32(), input.F32(), packed, bias.IsNone ? null : bias.F32(), input.Rows, epilogue);
        KeepAlive(output, input, bias);
    }

    private void Linear(float* output, float* input, CpuWeight weight, float* bias, int tokens, Epilogue epilogue)
    {
        if (tokens == 0)
            return;
        var gated = epilogue.IsGated();
        // Gate and value rows do not lie in the same lanes of their panels: take the sums first.
        var apart = gated && !weight.IsGated;
        var sums = apart ? Temporary((long)tokens * weight.Rows) : output;
        var outputs = gated && !apart ? weight.Rows / 2 : weight.Rows;
        var job = new LinearJob(weight, (nint)input, (nint)sums, (nint)bias, tokens, outputs, apart ? Epilogue.None : epilogue, (nint)_scratch.Pointer);
        if (_activations == Activations.Auto && _linear.HasBF16 && weight.Has(DType.BF16))
            job = job with { Pairs = (nint)AtLeast(ref _pairs, tokens * (long)job.PairStride) };
        if (_activations != Activations.F32 && weight.IsQuantized)
        {
            var layout = _linear.Layout(weight);
            job = job with { Layout = layout, Rows = (nint)AtLeast(ref _rows, tokens * (long)layout.Stride) };
        }
        _linear.Linear(Pool, job);
        if (apart)
            _linear.Gate(sums, output, tokens, weight.Rows / 2, epilogue);
    }

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows) => Embed(output, table, features, rows, 1);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
    {
        var packed = Packed(nameof(Embed), table);
        if (output.Columns != packed.Columns || rows.Count != output.Rows || (!features.IsNone && features.Columns != packed.Columns))
            throw new ArgumentException(
                $"Embed: output {output.Describe()} of rows {rows.Describe()}, table [{packed.Rows}, {packed.Columns}] and features {features.Describe()}");
        var order = rows.I32();
        var available = features.IsNone ? 0 : features.Rows;
        for (var t = 0; t < output.Rows; t++)
            if (order[t] >= packed.Rows || -1 - order[t] >= available)
                throw new ArgumentOutOfRangeException(nameof(rows), order[t], $"Embed: row {t} is neither in the table's {packed.Rows} nor in the features' {available}");
        Pool.Run(output.Rows, new EmbedWork(
            _linear, packed, (nint)output.F32(), features.IsNone ? 0 : (nint)features.F32(), (nint)order, (nint)_scratch.Pointer, scale));
        KeepAlive(output, features, rows);
    }

    /// <inheritdoc/>
    public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights)
    {
        var packed = Packed(nameof(Patches), weights.Projection);
        int size = weights.ImageSize, patch = weights.PatchSize, images = pixels.Rows, width = packed.Rows;
        if (patch <= 0 || size < patch)
            throw new ArgumentException($"Patches: patches of {patch} pixels in images of {size}");
        var area = (long)patch * patch;
        var channels = packed.Columns / area;
        var side = size / patch;
        var first = weights.ClassToken.IsNone ? 0 : 1;
        var length = (long)side * side + first;
        if (channels * area != packed.Columns || pixels.Columns != channels * size * size || output.Columns != width || output.Rows != images * length)
            throw new ArgumentException(
                $"Patches: output {output.Describe()} of pixels {pixels.Describe()}, projection [{width}, {packed.Columns}], patches of {patch} in images of {size}");
        Row(weights.Bias, "bias", 1);
        Row(weights.ClassToken, "class token", 1);
        Row(weights.Positions, "positions", length);
        if (images == 0)
            return;

        float* y = output.F32(), x = pixels.F32(), positions = weights.Positions.IsNone ? null : weights.Positions.F32();
        var bias = weights.Bias.IsNone ? null : weights.Bias.F32();
        var columns = Temporary((long)side * side * packed.Columns);
        for (var image = 0; image < images; image++, y += length * width, x += pixels.Columns)
        {
            Pool.Run(side, new ColumnsWork((nint)x, (nint)columns, size, patch, (int)channels));
            Linear(y + first * width, columns, packed, bias, side * side, Epilogue.None);
            if (first == 1)
                new ReadOnlySpan<float>(weights.ClassToken.F32(), width).CopyTo(new Span<float>(y, width));
            if (positions is not null)
                Pool.Run((int)length, new AddWork((nint)y, (nint)positions, width));
        }
        KeepAlive(output, pixels, weights.Bias);
        KeepAlive(weights.ClassToken, weights.Positions, default);

        void Row(Tensor tensor, string name, long rows)
        {
            if (!tensor.IsNone && tensor.Count != rows * width)
                throw new ArgumentException($"Patches: {name} {tensor.Describe()}, expected [{rows}, {width}]");
        }
    }

    private static CpuWeight Packed(string operation, Weight weight)
    {
        if (weight is not CpuWeight packed)
            throw new ArgumentException($"{operation}: expected a weight packed by the CPU, got {weight?.GetType().Name ?? "none"}");
        ObjectDisposedException.ThrowIf(packed.IsDisposed, packed);
        return packed;
    }

    /// <summary>Addresses do not keep memory alive; a caller may have let go of its last reference in the very call.</summary>
    private static void KeepAlive(Tensor a, Tensor b, Tensor c)
    {
        GC.KeepAlive(a.Storage);
        GC.KeepAlive(b.Storage);
        GC.KeepAlive(c.Storage);
    }

    private readonly struct EmbedWork(LinearKernels kernels, CpuWeight table, nint output, nint features, nint rows, nint scratch, float scale) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            var width = table.Columns;
            for (var t = first; t < end; t++)
            {
                var row = ((int*)rows)[t];
                var target = (float*)output + (long)t * width;
                if (row >= 0)
                {
                    kernels.Row(table, row, target, (byte*)scratch + (long)worker * LinearKernels.ScratchBytes);
                    for (var i = 0; scale != 1 && i < width; i++)
                        target[i] *= scale;
                }
                else
                    new ReadOnlySpan<float>((float*)features + (-1L - row) * width, width).CopyTo(new Span<float>(target, width));
            }
        }
    }

    /// <summary>Rows of patches: a patch's pixels one after another, in channel, y, x order.</summary>
    private readonly struct ColumnsWork(nint pixels, nint columns, int size, int patch, int channels) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            var side = size / patch;
            var target = (float*)columns + (long)first * side * channels * patch * patch;
            for (var row = first; row < end; row++)
                for (var column = 0; column < side; column++)
                    for (var c = 0; c < channels; c++)
                        for (var y = 0; y < patch; y++, target += patch)
                            new ReadOnlySpan<float>((float*)pixels + ((long)c * size + row * patch + y) * size + column * patch, patch)
                                .CopyTo(new Span<float>(target, patch));
        }
    }

    private readonly struct AddWork(nint target, nint addend, int width) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            float* y = (float*)target, a = (float*)addend;
            for (var i = (long)first * width; i < (long)end * width; i++)
                y[i] += a[i];
        }
    }
}
