using System.Security.Cryptography;
using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>Rows of a checkpoint's tensor that play a role: all of them, or a part.</summary>
/// <param name="File">The checkpoint.</param>
/// <param name="Info">The tensor.</param>
/// <param name="First">First row.</param>
/// <param name="Rows">Number of rows.</param>
/// <param name="Columns">Elements a row; 1 for a vector.</param>
internal readonly record struct TensorPart(Checkpoint File, TensorInfo Info, int First, int Rows, int Columns)
{
    /// <summary>Bytes before the first row.</summary>
    public long Offset => Info.Type.RowBytes(Columns) * First;

    /// <summary>Bytes of the rows.</summary>
    public long Bytes => Info.Type.RowBytes(Columns) * Rows;
}

/// <summary>The opened checkpoint files of a model, and what they say the model is.</summary>
public sealed class ModelSource : IDisposable
{
    private readonly List<Checkpoint> _files = [];

    private ModelSource(ModelSpec spec) => Spec = spec;

    /// <summary>What the model is.</summary>
    public ModelSpec Spec { get; }

    /// <summary>The checkpoint files.</summary>
    public IReadOnlyList<Checkpoint> Files => _files;

    /// <summary>What a GGUF's vision file says, or null.</summary>
    public GgufVision? VisionFile { get; private init; }

    /// <summary>Order of rotary rows, for checkpoints that store them interleaved; see <see cref="GgufConfig.HalvesRowOrder"/>.</summary>
    internal Func<int, int, int[]>? RotaryRowOrder { get; private init; }

    /// <summary>Opens a Hugging Face folder.</summary>
    /// <exception cref="UnsupportedModelException">The config asks for something that is not computed here.</exception>
    public static ModelSource OpenFolder(string folder)
    {
        var config = Path.Combine(folder, "config.json");
        var generation = Path.Combine(folder, "generation_config.json");
        var spec = HuggingFaceConfig.Parse(
            File.ReadAllBytes(config), config, File.Exists(generation) ? File.ReadAllBytes(generation) : default);
        var checkpoint = Checkpoint.Open(folder);
        if (spec.Quantization is { } form)
        {
            try
            {
                checkpoint = QuantizedCheckpoint.Of(checkpoint, form);
            }
            catch
            {
                checkpoint.Dispose();
                throw;
            }
        }
        var source = new ModelSource(spec);
        source._files.Add(checkpoint);
        return source;
    }

    /// <summary>Opens a GGUF model and, when there is one, its vision file.</summary>
    /// <param name="path">The model's file.</param>
    /// <param name="mmproj">The vision file, or null for a language model alone.</param>
    public static ModelSource OpenGguf(string path, string? mmproj)
    {
        var model = OpenGgufFile(path);
        GgufCheckpoint? vision = null;
        try
        {
            var spec = GgufConfig.Parse(model.Metadata, name => Shape(model, name), path, name =>
            {
                using var mapped = model.Map(name);
                return mapped.ToFloats();
            });
            GgufVision? parsed = null;
            if (mmproj is not null)
            {
                vision = OpenGgufFile(mmproj);
                parsed = GgufConfig.ParseVision(vision.Metadata, name => Shape(vision, name), mmproj, spec.Text.HiddenSize);
                spec = spec with
                {
                    Vision = parsed.Vision, Projector = parsed.Projector,
                    Text = spec.Text with { SeesWholeImages = parsed.Vision.Pooled && spec.Text.Family == "gemma3_text", AddedLayers = parsed.Vision.Deepstack.Length },
                    Markers = parsed.Vision.Division == ImageDivision.Tiles ? new(null, null, true) : null,
                };
            }
            var source = new ModelSource(spec)
            {
                VisionFile = parsed,
                RotaryRowOrder = spec.Architecture == "llama" ? GgufConfig.HalvesRowOrder : null,
            };
            source._files.Add(model);
            if (vision is not null)
                source._files.Add(vision);
            return source;
        }
        catch
        {
            model.Dispose();
            vision?.Dispose();
            throw;
        }
    }

    /// <summary>
    /// What the files hold, to the byte: SHA-256 over the SHA-256 of each 4 MiB of each file, in order. Unlike <see cref="Network.Fingerprint"/> it tells a
    /// quantised copy, or weights that were trained on, from the original.
    /// </summary>
    public string Hash()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var file in _files)
            file.Hash(hash);
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>Checkpoints that were opened, or made, elsewhere.</summary>
    /// <param name="spec">What the model is.</param>
    /// <param name="rotaryRowOrder">See <see cref="RotaryRowOrder"/>.</param>
    /// <param name="files">The checkpoints; owned from here on.</param>
    internal static ModelSource Of(ModelSpec spec, Func<int, int, int[]>? rotaryRowOrder, params IEnumerable<Checkpoint> files)
    {
        var source = new ModelSource(spec) { RotaryRowOrder = rotaryRowOrder };
        source._files.AddRange(files);
        return source;
    }

    /// <summary>The checkpoint tensor that plays each role; every mismatch of all files in one error.</summary>
    /// <exception cref="MismatchedTensorsException">Tensors are missing, surplus or of another shape.</exception>
    internal Dictionary<string, TensorPart> Roles()
    {
        var roles = new Dictionary<string, TensorPart>();
        foreach (var file in _files)
        {
            var shapes = file.Tensors.ToDictionary(t => t.Key, t => t.Value.Shape.ToArray());
            var expected = TensorNames.Expect(Spec, TensorNames.Detect(shapes));
            TensorNames.Check(expected, shapes, file.Path);
            foreach (var tensor in expected)
            {
                if (!file.Tensors.TryGetValue(tensor.Name, out var info))
                    continue;
                if (tensor.Parts is not { } parts)
                {
                    var rows = checked((int)tensor.Shape[0]);
                    roles[tensor.Role] = new(file, info, 0, rows, checked((int)(info.Elements / rows)));
                    continue;
                }
                var first = 0;
                foreach (var (role, rows) in parts)
                {
                    roles[role] = new(file, info, first, rows, tensor.Shape.Length == 1 ? 1 : checked((int)tensor.Shape[^1]));
                    first = checked(first + rows);
                }
            }
        }
        return roles;
    }

    private static GgufCheckpoint OpenGgufFile(string path)
        => Checkpoint.Open(path) as GgufCheckpoint ?? throw new InvalidCheckpointException($"{path}: expected a GGUF file");

    private static long[]? Shape(Checkpoint file, string name)
        => file.Tensors.TryGetValue(name, out var info) ? [.. info.Shape] : null;

    /// <summary>Closes the files.</summary>
    public void Dispose()
    {
        foreach (var file in _files)
            file.Dispose();
    }
}
