using System.Globalization;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Steering;

/// <summary>The two file forms of <see cref="ShiftVectors"/>.</summary>
internal static class ShiftVectorsFile
{
    private const string Architecture = "controlvector";
    private const string TensorPrefix = "direction.";
    private const string ModelHint = "model_hint";

    /// <summary>Our metadata within a GGUF, which names its keys by who gave them.</summary>
    private const string GgufPrefix = "trimtab.";

    public static ShiftVectors Read(string path)
    {
        if (Directory.Exists(path))
            throw new InvalidCheckpointException($"{path}: is a folder; expected a vector file, .safetensors or .gguf");
        using var file = Checkpoint.Open(path);
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        var llamaCpp = file is GgufCheckpoint;
        if (file is GgufCheckpoint gguf)
        {
            var architecture = gguf.Metadata.GetValueOrDefault("general.architecture");
            if (architecture is not Architecture)
                throw new InvalidCheckpointException(
                    $"{path}: has general.architecture {Quote($"{architecture}")}; a vector file has '{Architecture}'");
            if (gguf.Metadata.GetValueOrDefault($"{Architecture}.{ModelHint}") is string hint)
                metadata.Add(ModelHint, hint);
            foreach (var (key, value) in gguf.Metadata)
            {
                if (value is string text && key.StartsWith(GgufPrefix, StringComparison.Ordinal))
                    metadata[key[GgufPrefix.Length..]] = text;
            }
        }
        else
            metadata = new(((SafetensorsCheckpoint)file).Metadata, StringComparer.Ordinal);

        var numbers = Layers(path, file, llamaCpp);
        var last = numbers.Keys.Max();
        var layers = last;
        if (metadata.TryGetValue(ShiftVectors.LayersKey, out var declared)
            && (!int.TryParse(declared, NumberStyles.None, CultureInfo.InvariantCulture, out layers)
                || layers < last || layers > ShiftVectors.MostLayers))
            throw new InvalidCheckpointException($"{path}: metadata {ShiftVectors.LayersKey} is {Quote(declared)}; "
                + $"expected the model's number of layers, {last} to {ShiftVectors.MostLayers}");

        var directions = new float[]?[layers];
        var width = -1;
        foreach (var (layer, info) in numbers)
        {
            if (info.Type is not (DType.F32 or DType.F16 or DType.BF16) || info.Shape is not [> 0])
                throw new InvalidCheckpointException(
                    $"{path}: tensor {info.Name} is {TensorInfo.Show(info.Shape)} of {info.Type}; expected [hidden size] of F32, F16 or BF16");
            using var tensor = file.Map(info.Name);
            var values = tensor.ToFloats();
            width = width < 0 ? values.Length : width;
            if (ShiftVectors.Fault(values, width) is { } fault)
                throw new InvalidCheckpointException($"{path}: tensor {info.Name} {fault}");
            directions[layer - 1] = llamaCpp ? Negated(values) : values;
        }
        return new(directions, metadata, path);
    }

    public static IReadOnlyList<string> Write(ShiftVectors vectors, string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var steered = Enumerable.Range(1, vectors.Layers).Where(layer => !vectors[layer].IsEmpty).ToList();
        switch (Path.GetExtension(path).ToLowerInvariant())
        {
            case ".safetensors":
                SafetensorsWriter.Write(path, [.. steered.Select(layer => Tensor(layer, vectors[layer].ToArray()))], vectors.Metadata);
                return [];
            case ".gguf":
                return WriteGguf(vectors, path, steered);
            default:
                throw new ArgumentException($"{path}: vectors are written as .safetensors or as .gguf, which the name's end chooses");
        }
    }

    private static IReadOnlyList<string> WriteGguf(ShiftVectors vectors, string path, List<int> steered)
    {
        var firstDropped = steered.Remove(1);
        if (steered.Count == 0)
            throw new ArgumentException($"{path}: layer 1 alone is steered, and a llama.cpp control vector has no place for layer 1");
        var metadata = new List<KeyValuePair<string, object>>
        {
            new("general.architecture", Architecture),
            new($"{Architecture}.{ModelHint}", vectors.Metadata.GetValueOrDefault(ModelHint) ?? "unknown"),
            // Their layers are those from their layer 1 on, as a vector for all of them has directions.
            new($"{Architecture}.layer_count", (uint)(vectors.Layers - 1)),
        };
        metadata.AddRange(vectors.Metadata.Where(pair => pair.Key != ModelHint)
            .Select(pair => KeyValuePair.Create(GgufPrefix + pair.Key, (object)pair.Value)));
        GgufWriter.Write(path, metadata, [.. steered.Select(layer => Tensor(layer - 1, Negated(vectors[layer].ToArray())))]);
        return firstDropped
            ? ["layer 1 cannot be written: a llama.cpp control vector begins after that program's layer 1 counted from 0, which is decoder layer 2"]
            : [];
    }

    /// <summary>Decoder layer → tensor. A tensor that is no layer's direction is refused: a misspelt one would silently not steer.</summary>
    private static SortedDictionary<int, TensorInfo> Layers(string path, Checkpoint file, bool llamaCpp)
    {
        foreach (var (name, type) in file.Unread)
            throw new InvalidCheckpointException($"{path}: tensor {Quote(name)} is stored as {type}; expected F32, F16 or BF16");
        var layers = new SortedDictionary<int, TensorInfo>();
        foreach (var (name, info) in file.Tensors)
        {
            if (!name.StartsWith(TensorPrefix, StringComparison.Ordinal)
                || !int.TryParse(name.AsSpan(TensorPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
                || number.ToString(CultureInfo.InvariantCulture) != name[TensorPrefix.Length..]
                || number < 1 || number > (llamaCpp ? ShiftVectors.MostLayers - 1 : ShiftVectors.MostLayers))
                throw new InvalidCheckpointException(
                    $"{path}: tensor {Quote(name)} is no layer's vector; expected {TensorPrefix}N with N from 1, a layer's number");
            layers.Add(llamaCpp ? number + 1 : number, info);
        }
        return layers.Count > 0 ? layers : throw new InvalidCheckpointException($"{path}: has no tensor {TensorPrefix}N, so no vectors");
    }

    private static TensorData Tensor(int number, float[] values) =>
        TensorData.Of(string.Create(CultureInfo.InvariantCulture, $"{TensorPrefix}{number}"), [values.Length], values);

    private static float[] Negated(float[] values) => Array.ConvertAll(values, value => -value);
}
