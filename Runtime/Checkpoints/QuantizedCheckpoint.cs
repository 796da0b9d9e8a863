using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>How a Hugging Face checkpoint's matrices are quantised.</summary>
public enum QuantizationMethod
{
    /// <summary>GPTQ (arXiv 2210.17323) as AutoGPTQ and its followers store it.</summary>
    Gptq,
    /// <summary>AWQ (arXiv 2306.00978) in its "gemm" layout.</summary>
    Awq,
    /// <summary>FP8 E4M3 with a scale a tensor or a row (compressed-tensors, and its forerunner's "fp8").</summary>
    Fp8,
}

/// <summary>A quantised checkpoint's form.</summary>
/// <param name="Method">Which.</param>
/// <param name="GroupSize">Input features that share a scale and a zero; 0 for all of a row.</param>
/// <param name="Symmetric">Whether all zeros are 8.</param>
/// <param name="ActOrder">Whether groups are not consecutive (desc_act): g_idx says which group a feature is in.</param>
/// <param name="ZeroOffset">Added to stored zeros: 1 in GPTQ's first format.</param>
public sealed record QuantizationForm(QuantizationMethod Method, int GroupSize = 0, bool Symmetric = false, bool ActOrder = false, int ZeroOffset = 0)
{
    /// <summary>
    /// The form of GGUF or of plain floats that its matrices become, for any device. Q4_0: exact. Q4_1: codes and scales are exact, and each value is off by the rounding of
    /// scale · zero to binary16, at most 1/128 of the scale. Q8_0: off by half a 127th of the largest of 32 values. BF16: off by 1/256 of itself.
    /// </summary>
    public DType Target => Method == QuantizationMethod.Fp8 ? DType.BF16 : ActOrder ? DType.Q8_0 : Symmetric ? DType.Q4_0 : DType.Q4_1;

    /// <summary>
    /// The form that keeps what is stored: E4M3 with its scales, or int4 groups; <see cref="Target"/> where that keeps it in as few bits, or where nothing does.
    /// A group larger than the form's is several with one scale.
    /// </summary>
    /// <param name="columns">Input features: the group where <see cref="GroupSize"/> is 0.</param>
    public DType Exact(int columns) => Method == QuantizationMethod.Fp8 ? DType.F8E4M3 : ActOrder ? Target : (GroupSize == 0 ? columns : GroupSize) switch
    {
        var group when group % 128 == 0 => DType.I4G128,
        _ when Symmetric => DType.Q4_0,
        var group => group % 64 == 0 ? DType.I4G64 : DType.I4G32,
    };

    /// <summary>What computing its matrices in a form costs, for people.</summary>
    /// <param name="type"><see cref="Target"/>, or what <see cref="Exact"/> says.</param>
    public string Note(DType type) => $"{Method.ToString().ToUpperInvariant()} weights are computed as {type}: " + type switch
    {
        DType.F8E4M3 => "exact, a scale a row",
        DType.Q4_0 or DType.I4G32 or DType.I4G64 or DType.I4G128 => "exact",
        DType.Q4_1 => "codes and scales exact, offsets rounded to binary16 (at most 1/128 of a step)",
        DType.Q8_0 => "requantised (at most 1/254 of the largest of 32 neighbours)",
        _ => "rounded to 8 bits of mantissa (at most 1/256 of a value)",
    };
}

/// <summary>
/// A checkpoint of quantised matrices seen as one of native ones: X.qweight with its scales and zeros, or X.weight with X.weight_scale, is the
/// matrix X.weight [out, in] of <see cref="QuantizationForm.Target"/>, made when it is mapped. Everything else is as stored.
/// </summary>
public sealed unsafe class QuantizedCheckpoint : Checkpoint
{
    private const int Codes = 8; // four bits each, in a 32-bit word

    private readonly QuantizationForm _form;
    private readonly Dictionary<string, string> _made; // matrix → name without its ending

    private readonly Checkpoint _inner;

    private QuantizedCheckpoint(Checkpoint inner, QuantizationForm form, Dictionary<string, TensorInfo> tensors, Dictionary<string, string> made)
        : base(inner, tensors) => (_inner, _form, _made) = (inner, form, made);

    /// <summary>Sees a checkpoint so.</summary>
    /// <param name="inner">What was opened; closed with this.</param>
    /// <param name="form">Its form.</param>
    /// <exception cref="InvalidCheckpointException">A quantised matrix lacks a part, or its parts do not fit each other.</exception>
    public static QuantizedCheckpoint Of(Checkpoint inner, QuantizationForm form)
    {
        ArgumentNullException.ThrowIfNull(inner);
        ArgumentNullException.ThrowIfNull(form);
        var end = form.Method == QuantizationMethod.Fp8 ? ".weight" : ".qweight";
        var (tensors, made, parts) = (new Dictionary<string, TensorInfo>(), new Dictionary<string, string>(), new HashSet<string>());
        foreach (var (name, info) in inner.Tensors)
        {
            if (!name.EndsWith(end, StringComparison.Ordinal) || form.Method == QuantizationMethod.Fp8 && info.Type != DType.F8E4M3)
                continue;
            var stem = name[..^end.Length];
            var (rows, columns) = Shape(inner, stem, info, form);
            var matrix = stem + ".weight";
            made[matrix] = stem;
            tensors[matrix] = new(matrix, form.Target, [rows, columns], info.File, info.Offset, checked(form.Target.RowBytes(columns) * rows));
            foreach (var part in (ReadOnlySpan<string>)[".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_zero_point", ".input_scale", ".output_scale"])
                parts.Add(stem + part);
        }
        foreach (var (name, info) in inner.Tensors)
            if (!parts.Contains(name))
                tensors.TryAdd(name, info);
        return new(inner, form, tensors, made);
    }

    /// <summary>Rows and columns of a matrix, its parts checked against each other.</summary>
    private static (int Rows, int Columns) Shape(Checkpoint inner, string stem, TensorInfo weight, QuantizationForm form)
    {
        InvalidCheckpointException Wrong(string part, string expected) => new(
            $"{inner.Path}: {stem}.{part}: {(inner.Tensors.TryGetValue($"{stem}.{part}", out var t) ? $"{t.Type} {TensorInfo.Show(t.Shape)}" : "absent")}; expected {expected}");
        void Check(string part, bool good, string expected)
        {
            if (!good)
                throw Wrong(part, expected);
        }
        long[]? Of(string part, params ReadOnlySpan<DType> types) =>
            inner.Tensors.TryGetValue($"{stem}.{part}", out var t) && types.Contains(t.Type) ? [.. t.Shape] : null;

        if (form.Method == QuantizationMethod.Fp8)
        {
            Check("weight", weight.Shape is [> 0 and < int.MaxValue, > 0 and < int.MaxValue], "a matrix");
            var scale = Of("weight_scale", DType.F32, DType.F16, DType.BF16);
            var count = scale?.Aggregate(1L, (a, b) => a * b);
            Check("weight_scale", count == 1 || count == weight.Shape[0], $"one scale, or {weight.Shape[0]}");
            return ((int)weight.Shape[0], (int)weight.Shape[1]);
        }
        var awq = form.Method == QuantizationMethod.Awq;
        Check("qweight", weight.Type == DType.I32 && weight.Shape is [> 0 and < 1 << 24, > 0 and < 1 << 24], "a matrix of I32");
        var (rows, columns) = awq ? (weight.Shape[1] * Codes, weight.Shape[0]) : (weight.Shape[1], weight.Shape[0] * Codes);
        var group = form.GroupSize == 0 ? columns : form.GroupSize;
        Check("qweight", columns % 32 == 0 && columns % group == 0 && group % 32 == 0 && rows % Codes == 0,
            $"input features in whole groups of {group}, which are whole blocks of 32, and output features in whole words of {Codes}");
        Check("scales", Of("scales", DType.F16, DType.BF16, DType.F32) is [var g, var o] && g == columns / group && o == rows, $"[{columns / group}, {rows}]");
        Check("qzeros", Of("qzeros", DType.I32) is [var zg, var zo] && zg == columns / group && zo == rows / Codes, $"I32 [{columns / group}, {rows / Codes}]");
        if (form.ActOrder)
            Check("g_idx", Of("g_idx", DType.I32) is [var n] && n == columns, $"I32 [{columns}]");
        return (checked((int)rows), checked((int)columns));
    }

    /// <summary>A quantised matrix in the form that keeps what is stored (<see cref="QuantizationForm.Exact"/>); null where that is how it is mapped anyway.</summary>
    /// <param name="name">The matrix; of any other tensor the answer is null too.</param>
    /// <param name="computes">Whether a form of so many columns is computed as it is: null where not.</param>
    /// <param name="scales">Of E4M3 the factor of each row; none otherwise.</param>
    public MappedTensor? MapExact(string name, Func<DType, int, bool> computes, out float[] scales)
    {
        scales = [];
        if (ExactOf(name, computes) is not { } type)
            return null;
        var (stem, rows, columns) = (_made[name], Tensors[name].Shape[0], Tensors[name].Shape[1]);
        if (_form.Method != QuantizationMethod.Fp8)
            return Make(Tensors[name] with { Type = type, Bytes = type.RowBytes(columns) * rows }, stem);
        using (var scale = _inner.Map(stem + ".weight_scale"))
            scales = scale.ToFloats();
        if (scales.Length == 1)
            scales = [.. Enumerable.Repeat(scales[0], (int)rows)];
        return _inner.Map(stem + ".weight");
    }

    /// <summary>The form in which <see cref="MapExact"/> gives a tensor, or null.</summary>
    public DType? ExactOf(string name, Func<DType, int, bool> computes)
        => _made.ContainsKey(name) && Tensors[name].Shape is [_, var columns] && _form.Exact((int)columns) is var type && type != _form.Target && computes(type, (int)columns) ? type : null;

    private protected override MappedTensor View(TensorInfo info) => _made.TryGetValue(info.Name, out var stem) ? Make(info, stem) : base.View(info);

    private MappedTensor Make(TensorInfo info, string stem)
    {
        var memory = new OwnedBytes(info.Bytes);
        try
        {
            if (_form.Method == QuantizationMethod.Fp8)
                Scale(stem, info, memory.Data);
            else
                Group(stem, info, memory.Data);
            return new(info, memory, memory.Data);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    /// <summary>value = code · scale.</summary>
    private void Scale(string stem, TensorInfo info, byte* target)
    {
        using MappedTensor weight = _inner.Map(stem + ".weight"), scale = _inner.Map(stem + ".weight_scale");
        var (scales, columns) = (scale.ToFloats(), (int)info.Shape[1]);
        var (source, bytes) = ((nint)weight.Data, info.Type.RowBytes(columns));
        Parallel.For(0, (int)info.Shape[0], () => new float[columns], (row, _, values) =>
        {
            Blocks.Dequantize(DType.F8E4M3, new((byte*)source + (long)row * columns, columns), values);
            var factor = scales[scales.Length == 1 ? 0 : row];
            for (var i = 0; i < columns; i++)
                values[i] *= factor;
            Blocks.Quantize(info.Type, values, new(target + row * bytes, (int)bytes));
            return values;
        }, _ => { });
    }

    /// <summary>value = (code − zero) · scale, codes and zeros of four bits.</summary>
    private void Group(string stem, TensorInfo info, byte* target)
    {
        using MappedTensor weight = _inner.Map(stem + ".qweight"), zero = _inner.Map(stem + ".qzeros"), scale = _inner.Map(stem + ".scales");
        int rows = (int)info.Shape[0], columns = (int)info.Shape[1], size = _form.GroupSize == 0 ? columns : _form.GroupSize;
        var (codes, zeros, scales, bytes) = ((nint)weight.Data, (nint)zero.Data, scale.ToFloats(), info.Type.RowBytes(columns));
        var groups = Groups(stem, columns, size);
        var symmetric = 0x11111111u * (uint)(8 - _form.ZeroOffset);
        if (_form.Symmetric && new ReadOnlySpan<uint>(zero.Data, columns / size * (rows / Codes)).ContainsAnyExcept(symmetric))
            throw new InvalidCheckpointException($"{_inner.Path}: {stem}.qzeros: zeros other than 8 in a checkpoint that says it is symmetric");
        int block = info.Type.BlockSize(), blockBytes = info.Type.BlockBytes();
        Parallel.For(0, rows, () => new float[columns], (row, _, values) =>
        {
            var at = target + row * bytes;
            if (_form.ActOrder)
            {
                for (var i = 0; i < columns; i++)
                    values[i] = (Code((uint*)codes, i, row, rows, columns) - Zero((uint*)zeros, groups[i], row, rows)) * scales[groups[i] * rows + row];
                Blocks.Quantize(info.Type, values, new(at, (int)bytes));
                return values;
            }
            for (var first = 0; first < columns; first += block, at += blockBytes)
            {
                var group = first / size;
                var (step, offset) = (scales[group * rows + row], Zero((uint*)zeros, group, row, rows));
                *(Half*)at = (Half)step;
                if (info.Type != DType.Q4_0)
                    ((Half*)at)[1] = info.Type == DType.Q4_1 ? (Half)(-step * offset) : (Half)offset;
                var elements = at + blockBytes - block / 2;
                for (var i = 0; i < block; i += 32)
                    for (var j = first + i; j < first + i + 16; j++)
                        *elements++ = (byte)(Code((uint*)codes, j, row, rows, columns) | Code((uint*)codes, j + 16, row, rows, columns) << 4);
            }
            return values;
        }, _ => { });
    }

    /// <summary>The group of each input feature, where they are not consecutive; and a check that they are where they should be.</summary>
    private int[] Groups(string stem, int columns, int size)
    {
        if (!Tensors.ContainsKey(stem + ".g_idx") && !_inner.Tensors.ContainsKey(stem + ".g_idx"))
            return [];
        using var mapped = _inner.Map(stem + ".g_idx");
        if (mapped.Info.Type != DType.I32 || mapped.Info.Elements != columns)
            throw new InvalidCheckpointException($"{_inner.Path}: {stem}.g_idx: {mapped.Info.Type} {TensorInfo.Show(mapped.Info.Shape)}; expected I32 [{columns}]");
        int[] groups = [.. new ReadOnlySpan<int>(mapped.Data, columns)];
        for (var i = 0; i < columns; i++)
            if ((uint)groups[i] >= (uint)(columns / size) || !_form.ActOrder && groups[i] != i / size)
                throw new InvalidCheckpointException($"{_inner.Path}: {stem}.g_idx: feature {i} in group {groups[i]}; expected "
                    + (_form.ActOrder ? $"one of {columns / size}" : $"{i / size}, as desc_act is false"));
        return groups;
    }

    /// <summary>GPTQ packs input features into a word, AWQ output features in the order 0 2 4 6 1 3 5 7.</summary>
    private int Code(uint* words, int column, int row, int rows, int columns) => _form.Method == QuantizationMethod.Awq
        ? Nibble(words[(long)column * (rows / Codes) + row / Codes], Place(row % Codes))
        : Nibble(words[(long)(column / Codes) * rows + row], column % Codes);

    private int Zero(uint* words, int group, int row, int rows) => _form.ZeroOffset + Nibble(
        words[(long)group * (rows / Codes) + row / Codes], _form.Method == QuantizationMethod.Awq ? Place(row % Codes) : row % Codes);

    private static int Place(int column) => column / 2 + column % 2 * 4;

    private static int Nibble(uint word, int place) => (int)(word >> 4 * place & 15);
}
