using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>How far loading has come.</summary>
/// <param name="Bytes">Checkpoint bytes read so far.</param>
/// <param name="TotalBytes">Bytes to read.</param>
/// <param name="Tensor">The tensor that was read last.</param>
public readonly record struct LoadProgress(long Bytes, long TotalBytes, string Tensor);

/// <summary>
/// Moves tensors from mapped checkpoints onto a device. Each tensor is mapped, packed and unmapped before the next, so
/// that a checkpoint never stands in memory beside its packed copy.
/// </summary>
internal sealed partial class WeightLoader
{
    private readonly Device _device;
    private readonly Dictionary<string, TensorPart> _roles;
    private readonly DType? _matrixType;
    private readonly IProgress<LoadProgress>? _progress;
    private readonly CancellationToken _cancel;
    private readonly long _total;
    private readonly SortedDictionary<string, string> _notes = new(StringComparer.Ordinal);
    private readonly IncrementalHash _fingerprint = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private long _read;

    /// <param name="device">Where the weights go.</param>
    /// <param name="roles">The checkpoint tensor that plays each role of <see cref="TensorNames"/>.</param>
    /// <param name="matrixType">Form that the decoder's matrices are converted to, or null for their own.</param>
    /// <param name="progress">Is told of every tensor.</param>
    /// <param name="cancel">Stops between tensors.</param>
    public WeightLoader(
        Device device, Dictionary<string, TensorPart> roles, DType? matrixType,
        IProgress<LoadProgress>? progress, CancellationToken cancel)
    {
        (_device, _roles, _matrixType, _progress, _cancel) = (device, roles, matrixType, progress, cancel);
        _total = roles.Values.Sum(r => r.Bytes);
    }

    /// <summary>What was done to the weights that a user should know: conversions, one line a form.</summary>
    public IReadOnlyList<string> Notes => [.. _notes.Values];

    /// <summary>Row order of query and key rows in the checkpoint, or null where they are in the halves convention.</summary>
    public Func<int, int, int[]>? RotaryRowOrder { get; init; }

    /// <summary>
    /// Names the decoder independently of storage form: SHA-256 over its sizes and its norm weights rounded to bfloat16,
    /// which conversions and quantisations leave alone.
    /// </summary>
    public string Fingerprint(TextSpec spec)
    {
        Span<byte> sizes = stackalloc byte[12];
        BinaryPrimitives.WriteInt32LittleEndian(sizes, spec.Layers);
        BinaryPrimitives.WriteInt32LittleEndian(sizes[4..], spec.HiddenSize);
        BinaryPrimitives.WriteInt32LittleEndian(sizes[8..], spec.VocabularySize);
        _fingerprint.AppendData(sizes);
        return Convert.ToHexStringLower(_fingerprint.GetHashAndReset());
    }

    public Decoder Decoder(TextSpec spec)
    {
        var embedding = Matrix(_matrixType, "text.embed");
        var layers = new DecoderLayer[spec.Layers];
        var heads = HeadDivision.Of(_device, spec);
        if (Cut(heads.Queries, _matrixType, "text.layers.{0}.o", spec.Layers) is var (o, block))
            throw new UnsupportedModelException(
                $"{o}: {_device.Ranks} devices cannot divide its {heads.Queries.Count} columns between heads, whose borders lie within blocks of {block}; load it as BF16 or Q8_0, or use another number of devices");
        var inner = Between(spec.IntermediateSize, _matrixType, "text.layers.{0}.down", spec.Layers);
        var gateUp = Division.Join(inner, inner);
        for (var l = 0; l < layers.Length; l++)
        {
            var at = $"text.layers.{l}.";
            int[]? Order(int heads) => RotaryRowOrder?.Invoke(heads, spec.HeadDimension);
            var (q, k) = (Order(spec.Heads), Order(spec.KeyValueHeads));
            var mixture = spec.Mixture is { } m && m.Layers[l] ? m : null;
            layers[l] = new(
                TextNorm(at + "attn_norm", spec),
                Model.Decoder.HeadsOf(spec) with
                {
                    QueryNorm = spec.QkNorm ? TextNorm(at + "q_norm", spec).Weight : default,
                    KeyNorm = spec.QkNorm ? TextNorm(at + "k_norm", spec).Weight : default,
                    NormEpsilon = spec.NormEpsilon,
                },
                Matrix(_matrixType, heads.Qkv, false, (at + "q", q), (at + "k", k), (at + "v", null)),
                spec.QkvBias ? Vector(heads.Qkv, (at + "q.bias", q), (at + "k.bias", k), (at + "v.bias", null)) : default,
                Matrix(_matrixType, heads.Queries, true, (at + "o", null)),
                spec.OutputBias ? Vector(at + "o.bias") : default,
                TextNorm(at + "mlp_norm", spec),
                mixture is not null ? null : new(
                    Matrix(_matrixType, gateUp, false, (at + "gate", null), (at + "up", null)),
                    spec.MlpBias ? Vector(gateUp, (at + "gate.bias", null), (at + "up.bias", null)) : default,
                    Matrix(_matrixType, inner, true, (at + "down", null)),
                    spec.MlpBias ? Vector(at + "down.bias") : default))
            {
                AttentionPostNorm = spec.PostNorms ? TextNorm(at + "attn_post_norm", spec) : default,
                MlpPostNorm = spec.PostNorms ? TextNorm(at + "mlp_post_norm", spec) : default,
                // A router decides by small differences: it is kept as it is.
                Router = mixture is null ? null : Matrix(null, at + "router"),
                Experts = mixture is null ? default : Experts(mixture, at, spec.Activation),
            };
        }
        var norm = TextNorm("text.norm", spec);
        // Ranks divide the vocabulary where that gives them equal shares; a table that is the embedding too they also have whole.
        var vocabulary = spec.VocabularySize % _device.Ranks == 0 ? Division.Even(spec.VocabularySize, _device.Ranks) : Division.Whole(spec.VocabularySize);
        var head = spec.TieEmbeddings && vocabulary.Ranks == 1 ? embedding : Matrix(_matrixType, vocabulary, false, (spec.TieEmbeddings ? "text.embed" : "text.head", null));
        return new(_device, spec, new(embedding, layers, norm, head), inner);
    }

    private ExpertWeights Experts(MixtureSpec mixture, string at, Epilogue activation)
    {
        var (gateUp, down) = (new Weight[mixture.Experts], new Weight[mixture.Experts]);
        var inner = Between(mixture.IntermediateSize, _matrixType, at + "experts.{0}.down", mixture.Experts);
        for (var e = 0; e < mixture.Experts; e++)
        {
            gateUp[e] = Matrix(_matrixType, Division.Join(inner, inner), false, ($"{at}experts.{e}.gate", null), ($"{at}experts.{e}.up", null));
            down[e] = Matrix(_matrixType, inner, true, ($"{at}experts.{e}.down", null));
        }
        return new(gateUp, down, mixture.Used, mixture.Normalised, activation);
    }

    /// <summary>A norm of the decoder, which identifies it.</summary>
    private NormWeights TextNorm(string role, TextSpec spec)
    {
        var weight = Shifted(role, spec.NormOffset);
        var rounded = new byte[2 * weight.Length];
        Blocks.Quantize(DType.BF16, weight, rounded);
        _fingerprint.AppendData(rounded);
        return new(Upload(weight), default, spec.NormEpsilon, false);
    }

    private float[] Shifted(string role, float offset)
    {
        var weight = Floats(role);
        for (var i = 0; i < weight.Length && offset != 0; i++)
            weight[i] += offset;
        return weight;
    }

    /// <summary>The division of the columns between an MLP's matrices, at borders of the blocks of the second ones, whose columns they are.</summary>
    private Division Between(int size, DType? type, string role, int count, bool optional = false)
    {
        if (_device.Ranks == 1)
            return Division.Whole(size);
        var unit = Enumerable.Range(0, count).Max(i => BlockOf(Numbered(role, i), type));
        while (unit < 16 && size % (2 * unit) == 0)
            unit *= 2; // rows that begin on 32 bytes of bfloat16 are read 128 bits at a time
        if (size % unit == 0 && size / unit >= _device.Ranks)
            return Division.Even(size, _device.Ranks, unit);
        return optional ? Division.Whole(size)
            : throw new UnsupportedModelException($"{Name(Numbered(role, 0))}: {size} columns in blocks of {unit} are not divided among {_device.Ranks} devices");
    }

    /// <summary>The first of some matrices that has a block of columns on both sides of a border, and the block's length; null if none has.</summary>
    private (string Name, int Block)? Cut(Division columns, DType? type, string role, int count)
    {
        for (var i = 0; columns.Ranks > 1 && i < count; i++)
        {
            var block = BlockOf(Numbered(role, i), type);
            for (var r = 0; r < columns.Ranks; r++)
                if (columns[r][0].First % block != 0 || columns[r][0].Count % block != 0)
                    return (Name(Numbered(role, i)), block);
        }
        return null;
    }

    private int BlockOf(string role, DType? type)
        => !_roles.TryGetValue(role, out var part) ? 1
            : (type is null && part.File is QuantizedCheckpoint quantized && quantized.ExactOf(part.Info.Name, _device.Computes) is { } exact ? exact : Target(part.Info, type, part.Columns)).BlockSize();

    private string Name(string role) => _roles.TryGetValue(role, out var part) ? $"{part.File.Path}: {part.Info.Name}" : role;

    private static string Numbered(string role, int number) => string.Format(CultureInfo.InvariantCulture, role, number);

    private Tensor Vector(string role) => Upload(Floats(role));

    private Tensor Vector(params ReadOnlySpan<(string Role, int[]? Order)> parts) => Vector(null, parts);

    private Tensor Vector(Division? division, params ReadOnlySpan<(string Role, int[]? Order)> parts)
    {
        var all = new List<float>();
        foreach (var (role, order) in parts)
        {
            var values = Floats(role);
            all.AddRange(order is null ? values : Array.ConvertAll(order, row => values[row]));
        }
        return Upload(CollectionsMarshal.AsSpan(all), division);
    }

    private Tensor Upload(ReadOnlySpan<float> values, Division? division = null)
    {
        var tensor = _device.Allocate(DType.F32, 1, division ?? Division.Whole(values.Length));
        _device.Upload(values, tensor);
        return tensor;
    }

    private float[] Floats(string role)
    {
        var part = _roles[role];
        using var mapped = part.File.Map(part.Info.Name);
        var values = new float[(long)part.Rows * part.Columns];
        Blocks.Dequantize(part.Info.Type, mapped.Span.Slice((int)part.Offset, (int)part.Bytes), values);
        Done(part);
        return values;
    }

    private Weight Matrix(DType? type, string role) => Matrix(type, (role, null));

    private Weight Matrix(DType? type, params ReadOnlySpan<(string Role, int[]? Order)> parts) => Matrix(type, null, false, parts);

    private Weight Matrix(DType? type, Division? division, bool byColumns, params ReadOnlySpan<(string Role, int[]? Order)> parts)
    {
        var open = new List<IDisposable>();
        try
        {
            var data = new WeightData[parts.Length];
            for (var i = 0; i < parts.Length; i++)
            {
                _cancel.ThrowIfCancellationRequested();
                var part = _roles[parts[i].Role];
                if (type is null && part.File is QuantizedCheckpoint quantized && quantized.MapExact(part.Info.Name, _device.Computes, out var scales) is { } stored)
                {
                    open.Add(stored);
                    data[i] = new(stored.Info.Type, part.Rows, part.Columns, stored.Address + (nint)(stored.Info.Type.RowBytes(part.Columns) * part.First), parts[i].Order,
                        scales.Length == 0 ? default(ReadOnlyMemory<float>) : scales.AsMemory(part.First, part.Rows));
                    continue;
                }
                var mapped = part.File.Map(part.Info.Name);
                open.Add(mapped);
                data[i] = new(part.Info.Type, part.Rows, part.Columns, mapped.Address + (nint)part.Offset, parts[i].Order);
                var target = Target(part.Info, type, part.Columns);
                if (target != part.Info.Type)
                {
                    var converted = Converted.From(data[i], target);
                    open.Add(converted);
                    data[i] = data[i] with { Type = target, Data = converted.Address };
                }
            }
            return division is null ? _device.Pack(data) : _device.PackDivided(division, byColumns, data);
        }
        catch (ArgumentException e)
        {
            var first = _roles[parts[0].Role];
            throw new InvalidCheckpointException($"{first.File.Path}: {first.Info.Name}{(parts.Length > 1 ? " or one that is packed with it" : "")}: {e.Message}", e);
        }
        finally
        {
            foreach (var part in open)
                part.Dispose();
            foreach (var (role, _) in parts)
                Done(_roles[role]);
        }
    }

    /// <summary>The form a matrix is packed in: as asked for where its rows divide into blocks, else the nearest that the device computes.</summary>
    private DType Target(TensorInfo info, DType? asked, int columns)
    {
        var target = asked is { } type && _device.Computes(type, columns) ? type : _device.Prefers(info.Type);
        if (target != info.Type && asked is null)
            _notes.TryAdd(info.Type.ToString(), $"{info.Type} weights were rounded to {target} (first: {info.Name}); with --activations f32 they are kept");
        if (_device.Computes(target, columns))
            return target;
        // Eight bits hold what five or six did with a twentieth of their step as error.
        var nearest = target.IsQuantized() && _device.Computes(DType.Q8_0, columns) ? DType.Q8_0
            : target is DType.F8E4M3 or DType.F8E5M2 ? DType.BF16 : DType.F32;
        _notes.TryAdd(target.ToString(), $"{target} weights were converted to {nearest} (first: {info.Name})");
        return nearest;
    }

    private void Done(TensorPart part)
    {
        _read = Math.Min(_read + part.Bytes, _total);
        _progress?.Report(new(_read, _total, part.Info.Name));
    }

    /// <summary>A matrix converted to another form, in native memory until it is packed.</summary>
    private sealed unsafe class Converted(void* memory) : IDisposable
    {
        private void* _memory = memory;

        public nint Address => (nint)_memory;

        public static Converted From(WeightData source, DType type)
        {
            var (fromBytes, toBytes) = (source.Type.RowBytes(source.Columns), type.RowBytes(source.Columns));
            var result = new Converted(NativeMemory.AlignedAlloc(checked((nuint)(toBytes * source.Rows)), 64));
            Parallel.For(0, source.Rows, () => new float[source.Columns], (row, _, values) =>
            {
                Blocks.Dequantize(source.Type, new((byte*)source.Data + row * fromBytes, (int)fromBytes), values);
                Blocks.Quantize(type, values, new((byte*)result._memory + row * toBytes, (int)toBytes));
                return values;
            }, _ => { });
            return result;
        }

        public void Dispose()
        {
            NativeMemory.AlignedFree(_memory);
            _memory = null;
        }
    }
}
