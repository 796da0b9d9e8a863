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
        if (part.Type == DType.F8E4M3)
            RefuseNaN(part);
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
                    var from = part.RowOrder?[begin + row] ?? begin + row;
                    var source = (byte*)part.Data + (long)from * rowBytes;
                    CudaForms.Pack(part.Type, new(source, rowBytes), new((byte*)te + (long)row * elementStride, elementStride),
                        new((byte*)ts + (long)row * scaleStride, scaleStride), part.ScaleOf(from));
                });
            }
            Send(e, elements + (nint)((long)first * elementStride));
            if (scaleStride > 0)
                Send(s, scales + (nint)((long)first * scaleStride));
        }
    }

    /// <summary>The kernels read all other codes of E4M3 as they are, and would take its NaN for 480.</summary>
    private static void RefuseNaN(WeightData part)
    {
        for (var row = 0; row < part.Rows; row++)
            if (new ReadOnlySpan<byte>((byte*)part.Data + (long)row * part.Columns, part.Columns).IndexOfAny((byte)0x7F, (byte)0xFF) is >= 0 and var column)
                throw new ArgumentException($"Pack: element {column} of row {row} of an F8E4M3 weight [{part.Rows}, {part.Columns}] is no number");
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var packed = Packed(nameof(Linear), weight);
        Contract.Linear(output, input, packed, bias, epilogue);
        Linear(output.At(ActivationType), input.At(ActivationType), packed, bias.IsNone ? 0 : bias.At(DType.F32), input.Rows, epilogue);
    }

    private void Linear(nint output, nint input, CudaWeight weight, nint bias, int tokens, Epilogue epilogue)
    {
        Enter();
        if (tokens == 0)
            return;
        var gated = epilogue.IsGated();
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
            Gate(output, sums, tokens, weight.Rows / 2, epilogue);
    }

    private void Gate(nint output, nint sums, int tokens, int columns, Epilogue epilogue)
        => Launch("Linear, gate", Kernel("rows.cu", "gate"), ((columns + 255) / 256, tokens, 1), 256, 0,
            new GateParameters { Output = output, Sums = sums, Columns = columns, Epilogue = (int)epilogue });

    /// <summary>Tokens that a block multiplies: the fewest in which a weight is read once for all, or the tiles of many.</summary>
    private int BlockTokens(int tokens) => tokens switch
    {
        1 or 2 => tokens,
        <= 4 => 4,
        <= 8 => 8,
        _ when tokens <= SkinnyTokens || _options.BatchInvariant => SkinnyTokens,
        _ when ActivationType == DType.F32 => 64,
        <= 32 => 32,
        <= 64 => 64,
        _ => 128,
    };

    private void Part(DType type, LinearParameters p)
    {
        var tile = BlockTokens(p.Tokens);
        if (tile <= SkinnyTokens || !Product(type, p))
            Part(type, p, tile, (p.Tokens + tile - 1) / tile);
    }

    private void Part(DType type, LinearParameters p, int tile, int tiles)
    {
        if (tile <= SkinnyTokens)
        {
            Launch(Op(type, p), Kernel("linear.cu", $"linear_{(p.Gate == 0 ? "" : "gated_")}{tile}", type), ((p.Rows + 7) / 8, tiles, 1), 256, 0, p);
        }
        else if (ActivationType == DType.F32)
        {
            Launch(Op(type, p), Kernel("linear_tile.cu", p.Gate == 0 ? "linear_tile_plain" : "linear_tile_gated", type), ((p.Rows + 63) / 64, tiles, 1), 256, 0, p);
        }
        else
        {
            TensorCores(type, p, tile, tiles);
        }
    }

    private void TensorCores(DType type, LinearParameters p, int tile, int tiles)
    {
        // Blocks of experts are many, and which of them have tokens lies in device memory.
        (p.Splits, p.Depth) = p.Tiles != 0 ? (1, p.Columns) : Split(tiles * ((p.Rows + p.Gate + MmaRows - 1) / MmaRows), p.Columns);
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
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows) => Embed(output, table, features, rows, 1);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
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
                Scale = scale,
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
