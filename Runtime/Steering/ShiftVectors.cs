using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Trimtab.Checkpoints;

namespace Trimtab.Steering;

/// <summary>
/// Dataset-level shift vectors of CMRM (arXiv 2410.09047): for a decoder layer l, v_l is the mean shift (or its first principal
/// component) that an image causes in the residual stream at that layer's output, last token. Steering subtracts alpha · v_l.
/// All values are finite; the vectors of all layers have one width.
/// </summary>
public sealed partial class ShiftVectors
{
    /// <summary>Metadata key: fingerprint of the model that the vectors were measured on.</summary>
    public const string FingerprintKey = "model.fingerprint";

    /// <summary>Metadata key: number of decoder layers of that model, in decimal.</summary>
    public const string LayersKey = "model.layers";

    /// <summary>More layers than any model has; keeps a file from sizing memory by a layer's number.</summary>
    internal const int MostLayers = 10_000;

    private readonly float[]?[] _directions; // [Layers] of [HiddenSize]
    private readonly string _source;

    /// <param name="directions">v of layers 1 …, owned from here on; null where a layer is not steered.</param>
    /// <param name="metadata">Owned from here on.</param>
    /// <param name="source">The file, or what the vectors are, for messages.</param>
    internal ShiftVectors(float[]?[] directions, Dictionary<string, string> metadata, string source)
    {
        (_directions, Metadata, _source) = (directions, metadata, source);
        HiddenSize = directions.First(direction => direction is not null)!.Length;
        Projections = ReadProjections(ProjectionMeansKey, ProjectionSigmasKey);
        StateProjections = ReadStateProjections();
        OperatingPoint = ReadOperatingPoint();
    }

    /// <summary>
    /// Decoder layers counted, steered or not: of the model where the metadata has <see cref="LayersKey"/>, else up to the last steered one.
    /// </summary>
    public int Layers => _directions.Length;

    /// <summary>Width of the residual stream.</summary>
    public int HiddenSize { get; }

    /// <summary>v of a decoder layer, [HiddenSize]; empty where that layer is not steered.</summary>
    /// <param name="layer">Decoder layer, the first is 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">The layer is below 1.</exception>
    public ReadOnlySpan<float> this[int layer]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(layer, 1);
            return layer <= Layers ? _directions[layer - 1] : default;
        }
    }

    /// <summary>
    /// What is known of the vectors: method, images, anchors, <see cref="FingerprintKey"/>, <see cref="LayersKey"/>, …; of a llama.cpp
    /// control vector its <c>model_hint</c>. Empty where a file says nothing. A GGUF file has it under <c>trimtab.*</c> keys.
    /// </summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>SHA-256 of the steered layers' numbers and values, in hexadecimal: equal for vectors that steer alike.</summary>
    public string Hash => field ??= ComputeHash();

    /// <summary>Vectors for a model of as many layers as <paramref name="directions"/> has entries. Values are copied.</summary>
    /// <param name="directions">v of decoder layers 1 … L, each [hidden size]; null where a layer is not steered.</param>
    /// <param name="metadata">What is known of them; <see cref="LayersKey"/> is set to L.</param>
    /// <exception cref="ArgumentException">No layer has a vector, they differ in width, or hold NaN or infinity.</exception>
    /// <exception cref="InvalidCheckpointException">The metadata's statistics or operating point are none.</exception>
    public static ShiftVectors Create(IReadOnlyList<float[]?> directions, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(directions);
        if (directions.Count > MostLayers || directions.FirstOrDefault(direction => direction is not null) is not { Length: > 0 and var width })
            throw new ArgumentException($"{directions.Count} layers have no vector among them, or are more than {MostLayers}");
        for (var i = 0; i < directions.Count; i++)
        {
            if (directions[i] is { } direction && Fault(direction, width) is { } fault)
                throw new ArgumentException($"the vector of layer {i + 1} {fault}");
        }
        var known = new Dictionary<string, string>(metadata ?? new Dictionary<string, string>(), StringComparer.Ordinal)
        {
            [LayersKey] = directions.Count.ToString(CultureInfo.InvariantCulture),
        };
        return new([.. directions.Select(direction => (float[]?)direction?.Clone())], known, "these shift vectors");
    }

    /// <summary>
    /// Reads a vector file, told apart by content. safetensors: tensors <c>direction.1</c> … <c>direction.L</c> of [hidden size], decoder layer
    /// 1 first, F32, F16 or BF16; a layer without a tensor is not steered. GGUF: a llama.cpp control vector, whose <c>direction.N</c> is
    /// <em>added</em> after that program's layer N counted from 0, so that v of decoder layer N + 1 is −direction.N.
    /// </summary>
    /// <exception cref="InvalidCheckpointException">
    /// The file is no such file, holds NaN, infinity, other tensors or different widths, or its statistics or operating point are damaged.
    /// </exception>
    public static ShiftVectors Open(string path) => ShiftVectorsFile.Read(path);

    /// <summary>Writes a <c>.safetensors</c> or a <c>.gguf</c> file, whole or not at all.</summary>
    /// <returns>What the format could not hold, a sentence each; empty where the file holds everything.</returns>
    /// <exception cref="ArgumentException">The extension is neither, or a GGUF is asked for where layer 1 alone is steered.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public IReadOnlyList<string> Save(string path) => ShiftVectorsFile.Write(this, path);

    /// <summary>Refuses vectors that do not fit a model.</summary>
    /// <param name="layers">The model's decoder layers.</param>
    /// <param name="hiddenSize">The width of its residual stream.</param>
    /// <param name="fingerprint">Its fingerprint, compared where the vectors carry one; null: not compared.</param>
    /// <param name="force">Accept the vectors of a model with another fingerprint.</param>
    /// <exception cref="InvalidCheckpointException">Wrong width, wrong number of layers, a layer that the model lacks, or another model's fingerprint.</exception>
    public void Check(int layers, int hiddenSize, string? fingerprint, bool force = false)
    {
        if (HiddenSize != hiddenSize)
            throw new InvalidCheckpointException($"{_source}: vectors are {HiddenSize} wide; the model expects {hiddenSize}");
        var last = Array.FindLastIndex(_directions, direction => direction is not null) + 1;
        if (last > layers)
            throw new InvalidCheckpointException($"{_source}: steers decoder layer {last}; the model has {layers} layers");
        if (Metadata.ContainsKey(LayersKey) && Layers != layers)
            throw new InvalidCheckpointException($"{_source}: was made for a model of {Layers} layers; this one has {layers}");
        if (!force && fingerprint is not null && Metadata.TryGetValue(FingerprintKey, out var other) && other != fingerprint)
            throw new InvalidCheckpointException(
                $"{_source}: was made for another model, "
                + $"with fingerprint {InvalidCheckpointException.Quote(other)}; expected '{fingerprint}' (it can be forced)");
    }

    /// <summary>What keeps values from being a shift vector, or null.</summary>
    internal static string? Fault(ReadOnlySpan<float> values, int width)
    {
        if (values.Length != width)
            return $"is {values.Length} wide; expected {width} as the first";
        for (var i = 0; i < values.Length; i++)
        {
            if (!float.IsFinite(values[i]))
                return string.Create(CultureInfo.InvariantCulture, $"holds {values[i]} at element {i}; expected finite numbers");
        }
        return null;
    }

    private string ComputeHash()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> number = stackalloc byte[4];
        for (var layer = 1; layer <= Layers; layer++)
        {
            if (this[layer].IsEmpty)
                continue;
            BinaryPrimitives.WriteInt32LittleEndian(number, layer);
            hash.AppendData(number);
            hash.AppendData(MemoryMarshal.AsBytes(this[layer]));
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
