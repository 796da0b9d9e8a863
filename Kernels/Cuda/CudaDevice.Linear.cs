namespace Trimtab.Kernels.Cuda;

public sealed unsafe partial class CudaDevice
{
    private const int MmaRows = 128, MmaStages = 3; // linear_mma.cu, ROWS and STAGES

    /// <summary>
    /// Up to here a weight row is read once by a warp of linear.cu. Each token costs it some 16 instructions for every 16 bytes of
    /// bfloat16 weights, so that beyond 8 tokens they, and not memory, would be what it waits for.
    /// </summary>
    private int SkinnyTokens => ActivationType == DType.BF16 ? 8 : 16;

    /// <inheritdoc/>
    public override bool Computes(DType type, int columns) => CudaForms.Number(type) >= 0 && columns > 0 && columns % type.BlockSize() == 0;

    /// <inheritdoc/>
    public override Weight Pack(params ReadOnlySpan<WeightData> parts)
    {
        CheckParts(parts);
        var packed = new List<CudaPart>();
        for (int i = 0, first = 0; i < parts.Length;)
        {
            var (type, columns, rows, end) = (parts[i].Type, parts[i].Columns, 0, i);
            for (; end < parts.Length && parts[end].Type == type; end++)
                rows += parts[end].Rows;
            var (elementStride, scaleStride) = (CudaForms.ElementStride(type, columns), CudaForms.ScaleStride(type, columns));
            var elements = Take((long)rows * elementStride, $"a {type} weight [{rows}, {columns}]", zeroed: false);
            var scales = scaleStride == 0 ? null : Take((long)rows * scaleStride, $"the scales of a {type} weight [{rows}, {columns}]", zeroed: false);
            packed.Add(new(type, first, rows, elements, scales));
            for (var row = 0; i < end; row += parts[i].Rows, i++)
                Send(parts[i], elements.Pointer + (nint)((long)row * elementStride), scales is null ? 0 : scales.Pointer + (nint)((long)row * scaleStride));
            first += rows;
        }
        return new CudaWeight([.. packed], parts[0].Columns);
    }

    /// <summary>Packs a part's rows in staging memory, as many at a time as it holds, and sends them.</summary>
    private void Send(WeightData part, nint elements, nint scales)
    {
        int elementStride = CudaForms.ElementStride(part.Type, part.Columns), scaleStride = CudaForms.ScaleStride(part.Type, part.Columns);
        var rowBytes = (int)part.Type.RowBytes(part.Columns);
        var many = StagingBytes / 2 / (elementStride + scaleStride + 128);
        if (many == 0)
            throw new NotSupportedException($"Pack: rows of {part.Columns} columns");
        for (var first = 0; first < part.Rows; first += many)
        {
            var (begin, count) = (first, Math.Min(many, part.Rows - first));
            Span<byte> e = Stage(count * elementStride), s = scaleStride == 0 ? [] : Stage(count * scaleStride);
            e.Clear();
            fixed (byte* pe = e, ps = s)
            {
                nint te = (nint)pe, ts = (nint)ps;
                Parallel.For(0, count, row =>
                {
                    var source = (byte*)part.Data + (long)(part.RowOrder?[begin + row] ?? begin + row) * rowBytes;
                    CudaForms.Pack(part.Type, new(source, rowBytes), new((byte*)te + (long)row * elementStride, elementStride),
                        new((byte*)ts + (long)row * scaleStride, scaleStride));
                });
            }
            Send(e, elements + (nint)((long)first * elementStride));
            if (scaleStride > 0)
                Send(s, scales + (nint)((long)first * scaleStride));
        }
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var packed = Packed(nameof(Linear), weight);
        var gated = epilogue is Epilogue.SiluGate or Epilogue.GeluTanhGate;
        if (input.Columns != packed.Columns || output.Rows != input.Rows || output.Columns * (gated ? 2L : 1) != packed.Rows)
            throw new ArgumentException(
                $"Linear: output {output.Describe()} of input {input.Describe()} and weight [{packed.Rows}, {packed.Columns}]{(gated ? ", gated" : "")}");
        if (!bias.IsNone && bias.Count != packed.Rows)
            throw new ArgumentException($"Linear: bias {bias.Describe()} of a weight with {packed.Rows} rows");
        Linear(output.At(ActivationType), input.At(ActivationType), packed, bias.IsNone ? 0 : bias.At(DType.F32), input.Rows, epilogue);
    }

    private void Linear(nint output, nint input, CudaWeight weight, nint bias, int tokens, Epilogue epilogue)
    {
        Enter();
        if (tokens == 0)
            return;
        var gated = epilogue is Epilogue.SiluGate or Epilogue.GeluTanhGate;
        // Gates and values of different forms are multiplied apart and meet afterwards.
        var apart = gated && weight.Parts.Count > 1;
        var sums = apart ? Scratch(0, (long)tokens * weight.Rows * ActivationType.BlockBytes()) : output;
        foreach (var part in weight.Parts)
        {
            Part(part.Type, new()
            {
                Output = sums,
                Input = input,
                Elements = part.Elements.Pointer,
                Scales = part.Scales?.Pointer ?? 0,
                Bias = bias,
                ElementStride = CudaForms.ElementStride(part.Type, weight.Columns),
                ScaleStride = CudaForms.ScaleStride(part.Type, weight.Columns),
                Tokens = tokens,
                Columns = weight.Columns,
                Rows = gated && !apart ? part.Rows / 2 : part.Rows,
                FirstRow = part.FirstRow,
                OutputColumns = gated && !apart ? weight.Rows / 2 : weight.Rows,
                Gate = gated && !apart ? part.Rows / 2 : 0,
                Epilogue = (int)(apart ? Epilogue.None : epilogue),
            });
        }
        if (apart)
        {
            var columns = weight.Rows / 2;
            Launch("Linear, gate", Kernel("rows.cu", "gate"), ((columns + 255) / 256, tokens, 1), 256, 0,
                new GateParameters { Output = output, Sums = sums, Columns = columns, Epilogue = (int)epilogue });
        }
    }

    private void Part(DType type, LinearParameters p)
    {
        if (p.Tokens <= SkinnyTokens || _options.BatchInvariant)
        {
            var most = p.Tokens switch { 1 => 1, 2 => 2, <= 4 => 4, <= 8 => 8, _ => SkinnyTokens };
            Launch(Op(type, p), Kernel("linear.cu", $"linear_{(p.Gate == 0 ? "" : "gated_")}{most}", type), ((p.Rows + 7) / 8, (p.Tokens + most - 1) / most, 1), 256, 0, p);
        }
        else if (Product(type, p))
        {
        }
        else if (ActivationType == DType.F32)
        {
            Launch(Op(type, p), Kernel("linear_tile.cu", p.Gate == 0 ? "linear_tile_plain" : "linear_tile_gated", type),
                ((p.Rows + 63) / 64, (p.Tokens + 63) / 64, 1), 256, 0, p);
        }
        else
        {
            TensorCores(type, p);
        }
    }

    private void TensorCores(DType type, LinearParameters p)
    {
        var tile = p.Tokens switch { <= 32 => 32, <= 64 => 64, _ => 128 };
        var tiles = (p.Tokens + tile - 1) / tile;
        (p.Splits, p.Depth) = Split(tiles * ((p.Rows + p.Gate + MmaRows - 1) / MmaRows), p.Columns);
        // Sums of some of the columns cannot be gated: gates and values are rows like others, and meet when they are whole.
        var (gate, rows) = p.Splits > 1 ? (0, p.Rows + p.Gate) : (p.Gate, p.Rows);
        var partial = p.Splits > 1 ? Scratch(PartialScratch, (long)p.Splits * p.Tokens * rows * sizeof(float)) : 0;
        var tileRows = gate == 0 ? MmaRows : MmaRows / 2;
        Launch(Op(type, p), Kernel("linear_mma.cu", $"linear_mma_{(gate == 0 ? "" : "gated_")}{tile}", type),
            (tiles, (rows + tileRows - 1) / tileRows, p.Splits), 256, MmaStages * (tile + MmaRows) * 64 * 2, p with { Rows = rows, Gate = gate, Partial = partial });
        if (p.Splits > 1)
            Merge(p with { Rows = rows, Partial = partial });
    }

    private static string Op(DType type, in LinearParameters p) => Describing ? $"Linear {type} [{p.Rows}, {p.Columns}] of {p.Tokens} tokens" : nameof(Linear);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows)
    {
        var packed = Packed(nameof(Embed), table);
        Contract.Expect(nameof(Embed), nameof(output), output, ActivationType, output.Rows, packed.Columns);
        Contract.Expect(nameof(Embed), nameof(rows), rows, DType.I32, 1, output.Rows);
        if (!features.IsNone)
            Contract.Expect(nameof(Embed), nameof(features), features, ActivationType, features.Rows, packed.Columns);
        Enter();
        foreach (var part in packed.Parts)
        {
            Launch(nameof(Embed), Kernel("embed.cu", "embed", part.Type), (output.Rows, 1, 1), 128, 0, new EmbedParameters
            {
                Output = output.At(),
                Features = features.AtOrNone(),
                Rows = rows.At(),
                Elements = part.Elements.Pointer,
                Scales = part.Scales?.Pointer ?? 0,
                Status = _status.Pointer,
                ElementStride = CudaForms.ElementStride(part.Type, packed.Columns),
                ScaleStride = CudaForms.ScaleStride(part.Type, packed.Columns),
                Columns = packed.Columns,
                FirstRow = part.FirstRow,
                TableRows = part.Rows,
                AllRows = packed.Rows,
                FeatureRows = features.IsNone ? 0 : features.Rows,
            });
        }
    }

    /// <inheritdoc/>
    public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights)
    {
        var packed = Packed(nameof(Patches), weights.Projection);
        int size = weights.ImageSize, patch = weights.PatchSize, width = packed.Rows;
        if (patch <= 0 || size < patch)
            throw new ArgumentException($"Patches: patches of {patch} pixels in images of {size}");
        var channels = packed.Columns / ((long)patch * patch);
        if (channels * patch * patch != packed.Columns)
            throw new ArgumentException($"Patches: patches of {patch} in images of {size}, projection of {packed.Columns} columns");
        var side = size / patch;
        var length = side * side + (weights.ClassToken.IsNone ? 0 : 1);
        Contract.Expect(nameof(Patches), nameof(pixels), pixels, DType.F32, pixels.Rows, checked((int)(channels * size * size)));
        Contract.Expect(nameof(Patches), nameof(output), output, ActivationType, pixels.Rows * length, width);
        Contract.Expect(nameof(Patches), "positions", weights.Positions, DType.F32, length, width);
        if (!weights.Bias.IsNone)
            Contract.Expect(nameof(Patches), "bias", weights.Bias, DType.F32, 1, width);
        if (!weights.ClassToken.IsNone)
            Contract.Expect(nameof(Patches), "class token", weights.ClassToken, DType.F32, 1, width);
        Enter();
        if (pixels.Rows == 0)
            return;
        var count = pixels.Rows * side * side;
        var element = ActivationType.BlockBytes();
        nint columns = Scratch(1, (long)count * packed.Columns * element), projected = Scratch(2, (long)count * width * element);
        var p = new PatchParameters
        {
            Output = columns,
            Pixels = pixels.At(),
            Projected = projected,
            ClassToken = weights.ClassToken.AtOrNone(),
            Positions = weights.Positions.At(),
            Size = size,
            Patch = patch,
            Side = side,
            Channels = (int)channels,
            Width = width,
            Length = length,
        };
        Launch(nameof(Patches), Kernel("rows.cu", "patch_columns"), (count, 1, 1), 128, 0, p);
        Linear(projected, columns, packed, weights.Bias.AtOrNone(), count, Epilogue.None);
        p.Output = output.At();
        Launch(nameof(Patches), Kernel("rows.cu", "patch_place"), (pixels.Rows * length, 1, 1), 128, 0, p);
    }

    private static CudaWeight Packed(string operation, Weight weight)
    {
        if (weight is not CudaWeight packed)
            throw new ArgumentException($"{operation}: expected a weight packed by the GPU, got {weight?.GetType().Name ?? "none"}");
        ObjectDisposedException.ThrowIf(packed.IsDisposed, packed);
        return packed;
    }
}
