using System.Buffers.Binary;
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
                Matrix(_matrixType, (at + "q", q), (at + "k", k), (at + "v", null)),
                spec.QkvBias ? Vector((at + "q.bias", q), (at + "k.bias", k), (at + "v.bias", null)) : default,
                Matrix(_matrixType, at + "o"),
                spec.OutputBias ? Vector(at + "o.bias") : default,
                TextNorm(at + "mlp_norm", spec),
                mixture is not null ? null : new(
                    Matrix(_matrixType, (at + "gate", null), (at + "up", null)),
                    spec.MlpBias ? Vector((at + "gate.bias", null), (at + "up.bias", null)) : default,
                    Matrix(_matrixType, at + "down"),
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
        var head = spec.TieEmbeddings ? embedding : Matrix(_matrixType, "text.head");
        return new(_device, spec, new(embedding, layers, norm, head));
    }

    private ExpertWeights Experts(MixtureSpec mixture, string at, Epilogue activation)
    {
        var (gateUp, down) = (new Weight[mixture.Experts], new Weight[mixture.Experts]);
        for (var e = 0; e < mixture.Experts; e++)
        {
            gateUp[e] = Matrix(_matrixType, ($"{at}experts.{e}.gate", null), ($"{at}experts.{e}.up", null));
            down[e] = Matrix(_matrixType, $"{at}experts.{e}.down");
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

    private Tensor Vector(string role) => Upload(Floats(role));

    private Tensor Vector(params ReadOnlySpan<(string Role, int[]? Order)> parts)
    {
        var all = new List<float>();
        foreach (var (role, order) in parts)
        {
            var values = Floats(role);
            all.AddRange(order is null ? values : Array.ConvertAll(order, row => values[row]));
        }
        return Upload(CollectionsMarshal.AsSpan(all));
    }

    private Tensor Upload(ReadOnlySpan<float> values)
    {
        var tensor = _device.Allocate(DType.F32, 1, values.Length);
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

    private Weight Matrix(DType? type, params ReadOnlySpan<(string Role, int[]? Order)> parts)
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
            return _device.Pack(data);
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
        _read += part.Bytes;
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
