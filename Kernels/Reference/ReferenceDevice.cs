namespace Trimtab.Kernels.Reference;

/// <summary>
/// The oracle: every op in scalar double precision, written as its definition reads. It runs whole models, slowly.
/// Activations are F64, caches too unless they are to be BF16, U8 or F8E4M3; F32 tensors (norm weights, steering vectors, angles) hold doubles rounded to float.
/// </summary>
public sealed partial class ReferenceDevice : Device
{
    /// <inheritdoc/>
    public override string Name => "reference (scalar double precision)";

    /// <inheritdoc/>
    public override DType ActivationType => DType.F64;

    /// <inheritdoc/>
    public override Abilities Abilities => Abilities.All;

    /// <inheritdoc/>
    /// <exception cref="NotSupportedException">The type is none of F32, F64, I32, BF16, U8 and F8E4M3.</exception>
    public override Tensor Allocate(DType type, int rows, int columns)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(rows);
        ArgumentOutOfRangeException.ThrowIfNegative(columns);
        if (type is not (DType.F32 or DType.F64 or DType.I32 or DType.BF16 or DType.U8 or DType.F8E4M3))
            throw new NotSupportedException($"the reference device has tensors of F32, F64, I32, BF16, U8 and F8E4M3, not of {type}");
        return new Tensor(new ReferenceStorage(type, (long)rows * columns), type, 0, rows, columns);
    }

    /// <inheritdoc/>
    public override bool Computes(DType type, int columns) => true;

    /// <inheritdoc/>
    public override bool Caches(DType type) => type is DType.F64 or DType.BF16 or DType.U8 or DType.F8E4M3;

    /// <inheritdoc/>
    public override unsafe Weight Pack(params ReadOnlySpan<WeightData> parts)
    {
        var rows = new List<double[]>();
        var columns = parts.IsEmpty ? 0 : parts[0].Columns;
        foreach (var part in parts)
        {
            if (part.Columns != columns)
                throw new ArgumentException($"a part of {part.Columns} columns among parts of {columns}");
            if (part.RowOrder is { } order && (order.Length != part.Rows || order.Any(r => (uint)r >= (uint)part.Rows)))
                throw new ArgumentException($"the row order of a part with {part.Rows} rows does not say where each comes from");
            var bytes = part.Type.RowBytes(columns);
            var floats = new float[columns];
            for (var r = 0; r < part.Rows; r++)
            {
                var from = part.RowOrder?[r] ?? r;
                var source = (byte*)part.Data + from * bytes;
                Blocks.Dequantize(part.Type, new ReadOnlySpan<byte>(source, checked((int)bytes)), floats);
                var scale = part.ScaleOf(from);
                rows.Add(Array.ConvertAll(floats, v => (double)v * scale));
            }
        }
        return new ReferenceWeight([.. rows], columns);
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor target)
    {
        var values = target.Values();
        Count(source.Length, values.Length);
        for (var i = 0; i < values.Length; i++)
            values[i] = source[i];
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<int> source, Tensor target)
    {
        Count(source.Length, target.Integers().Length);
        source.CopyTo(target.Integers());
    }

    /// <inheritdoc/>
    public override void Copy(Tensor target, Tensor source)
    {
        Contract.Copy(target, source);
        if (source.Type == DType.I32)
            source.Integers().CopyTo(target.Integers());
        else
            source.Values().CopyTo(target.Values());
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> target)
    {
        Count(target.Length, source.Count);
        for (var i = 0; i < target.Length; i++)
            target[i] = source.Type == DType.I32 ? source.Integers()[i] : (float)source.Values()[i];
    }

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows) => Embed(output, table, features, rows, 1);

    /// <inheritdoc/>
    public override void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
    {
        Contract.Expect(nameof(Embed), nameof(output), output, DType.F64, output.Rows, table.Columns);
        Contract.Expect(nameof(Embed), nameof(rows), rows, DType.I32, 1, output.Rows);
        if (!features.IsNone)
            Contract.Expect(nameof(Embed), nameof(features), features, DType.F64, features.Rows, table.Columns);
        for (var t = 0; t < output.Rows; t++)
        {
            var row = rows.Integers()[t];
            if (row >= 0)
            {
                var source = table.OfReference().Values[Contract.Index(nameof(Embed), "row", row, table.Rows)];
                for (var i = 0; i < source.Length; i++)
                    output.Row(t)[i] = scale * source[i];
            }
            else
                features.Row(Contract.Index(nameof(Embed), "feature", -1 - row, features.Rows)).CopyTo(output.Row(t));
        }
    }

    /// <inheritdoc/>
    public override void Patches(Tensor output, Tensor pixels, in PatchWeights weights)
    {
        int size = weights.ImageSize, patch = weights.PatchSize, width = weights.Projection.Rows;
        if (patch <= 0 || size < patch || weights.Projection.Columns % (patch * patch) != 0)
            throw new ArgumentException($"{nameof(Patches)}: patches of {patch} in images of {size}, projection of {weights.Projection.Columns} columns");
        int channels = weights.Projection.Columns / (patch * patch), grid = size / patch, first = weights.ClassToken.IsNone ? 0 : 1;
        var length = grid * grid + first;
        Contract.Expect(nameof(Patches), nameof(pixels), pixels, DType.F32, pixels.Rows, channels * size * size);
        Contract.Expect(nameof(Patches), nameof(output), output, DType.F64, pixels.Rows * length, width);
        Contract.Expect(nameof(Patches), "positions", weights.Positions, DType.F32, length, width);
        if (!weights.Bias.IsNone)
            Contract.Expect(nameof(Patches), "bias", weights.Bias, DType.F32, 1, width);
        if (first == 1)
            Contract.Expect(nameof(Patches), "class token", weights.ClassToken, DType.F32, 1, width);
        var projection = weights.Projection.OfReference().Values;
        for (var image = 0; image < pixels.Rows; image++)
        {
            var pixel = pixels.Row(image);
            for (var s = 0; s < length; s++)
            {
                var row = output.Row(image * length + s);
                var position = weights.Positions.Row(s);
                for (var d = 0; d < width; d++)
                {
                    var sum = 0.0;
                    if (s < first)
                        sum = weights.ClassToken.Values()[d];
                    else
                    {
                        int top = (s - first) / grid * patch, left = (s - first) % grid * patch, column = 0;
                        for (var c = 0; c < channels; c++)
                            for (var y = 0; y < patch; y++)
                                for (var x = 0; x < patch; x++)
                                    sum += projection[d][column++] * pixel[(c * size + top + y) * size + left + x];
                        if (!weights.Bias.IsNone)
                            sum += weights.Bias.Values()[d];
                    }
                    row[d] = sum + position[d];
                }
            }
        }
    }

    /// <inheritdoc/>
    public override void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue)
    {
        var gated = epilogue.IsGated();
        var columns = gated ? weight.Rows / 2 : weight.Rows;
        if (gated && weight.Rows % 2 != 0)
            throw new ArgumentException($"{nameof(Linear)}: {weight.Rows} weight rows cannot be half gates, half values");
        Contract.Expect(nameof(Linear), nameof(input), input, DType.F64, input.Rows, weight.Columns);
        Contract.Expect(nameof(Linear), nameof(output), output, DType.F64, input.Rows, columns);
        if (!bias.IsNone)
            Contract.Expect(nameof(Linear), nameof(bias), bias, DType.F32, 1, weight.Rows);
        var values = weight.OfReference().Values;
        for (var t = 0; t < input.Rows; t++)
        {
            var y = output.Row(t);
            for (var n = 0; n < columns; n++)
                y[n] = gated
                    ? Activate(epilogue, Sum(input.Row(t), values, bias, n)) * Sum(input.Row(t), values, bias, columns + n)
                    : Activate(epilogue, Sum(input.Row(t), values, bias, n));
        }
    }

    /// <summary>The epilogue's function; a gated one's is its gate's.</summary>
    internal static double Activate(Epilogue epilogue, double x) => epilogue switch
    {
        Epilogue.None => x,
        Epilogue.Gelu => x * 0.5 * (1 + Erf(x / Math.Sqrt(2))),
        Epilogue.GeluTanh or Epilogue.GeluTanhGate => 0.5 * x * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
        Epilogue.QuickGelu => x / (1 + Math.Exp(-1.702 * x)),
        Epilogue.Silu or Epilogue.SiluGate => x / (1 + Math.Exp(-x)),
        _ => throw new ArgumentOutOfRangeException(nameof(epilogue), epilogue, null),
    };

    /// <summary>The error function by its series of positive terms, 2/√π · e^(−x²) · Σ 2^n x^(2n+1) / (2n+1)!! (DLMF 7.6.2).</summary>
    internal static double Erf(double x)
    {
        if (!(Math.Abs(x) < 6))
            return double.IsNaN(x) ? x : Math.Sign(x);
        double term = x, sum = x;
        for (var n = 1; Math.Abs(term) > 1e-18 * Math.Abs(sum); n++)
            sum += term *= 2 * x * x / (2 * n + 1);
        return 2 / Math.Sqrt(Math.PI) * Math.Exp(-x * x) * sum;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing) { }

    private static double Sum(ReadOnlySpan<double> input, double[][] weight, Tensor bias, int n)
    {
        var sum = 0.0;
        for (var k = 0; k < input.Length; k++)
            sum += input[k] * weight[n][k];
        return bias.IsNone ? sum : sum + bias.Values()[n];
    }

    private static void Count(long source, long target)
    {
        if (source != target)
            throw new ArgumentException($"{source} values for {target} elements");
    }
}
