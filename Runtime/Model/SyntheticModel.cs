using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// A model of known sizes whose weights are made up: to measure a speed without a download. It is a GGUF model in memory, metadata and
/// all, so that it runs through the same loader and forward pass as a file, and can be saved for other programs to run.
/// </summary>
public sealed class SyntheticModel
{
    private const string Llava = "llava-";

    /// <summary>Decoders: LLaMA-like models in their published sizes, and a tiny one for tests.</summary>
    private static readonly Dictionary<string, Sizes> Decoders = new()
    {
        ["tiny"] = new(256, 512, 2, 4, 2, 512, 512, 10_000, false),
        ["135m"] = new(576, 1536, 30, 9, 3, 49_152, 8192, 100_000, true),      // SmolLM2
        ["1.1b"] = new(2048, 5632, 22, 32, 4, 32_000, 2048, 10_000, false),    // TinyLlama
        ["7b"] = new(4096, 11_008, 32, 32, 32, 32_000, 4096, 10_000, false),   // Llama 2, Vicuna 1.5
        ["8b"] = new(4096, 14_336, 32, 32, 8, 128_256, 8192, 500_000, false),  // Llama 3
        ["13b"] = new(5120, 13_824, 40, 40, 40, 32_000, 4096, 10_000, false),  // Llama 2, Vicuna 1.5
    };

    /// <summary>Forms of the decoder's matrices, and GGUF's number for a file of them.</summary>
    private static readonly Dictionary<string, (DType Type, uint FileType)> Forms = new()
    {
        ["f32"] = (DType.F32, 0), ["f16"] = (DType.F16, 1), ["bf16"] = (DType.BF16, 32), ["q8_0"] = (DType.Q8_0, 7), ["q4_0"] = (DType.Q4_0, 2),
        ["q4_1"] = (DType.Q4_1, 3), ["q4_k"] = (DType.Q4_K, 14), ["q4_k_m"] = (DType.Q4_K, 15), ["q6_k"] = (DType.Q6_K, 18),
    };

    private readonly int _seed;
    private readonly ModelSpec _spec;
    private readonly string _form;
    private readonly Dictionary<string, object> _metadata, _visionMetadata = [];

    private SyntheticModel(string name, Sizes sizes, string form, Tower? tower, int seed)
    {
        (Name, _form, _seed) = (name, form, seed);
        _metadata = Describe(name, sizes, Forms[form].FileType);
        _spec = GgufConfig.Parse(_metadata, tensor => tensor switch
        {
            "token_embd.weight" => [sizes.Vocabulary, sizes.Hidden],
            "output.weight" when !sizes.Tied => [sizes.Vocabulary, sizes.Hidden],
            _ => null,
        }, name);
        if (tower is null)
            return;
        _visionMetadata = Describe(name, tower);
        var vision = GgufConfig.ParseVision(_visionMetadata, tensor => tensor switch
        {
            "mm.0.weight" => [sizes.Hidden, tower.Hidden],
            "mm.2.weight" => [sizes.Hidden, sizes.Hidden],
            "v.class_embd" or "v.pre_ln.weight" or "mm.0.bias" => [1],
            _ => null,
        }, name, sizes.Hidden);
        _spec = _spec with { Vision = vision.Vision, Projector = vision.Projector };
    }

    /// <summary>What it was asked for as.</summary>
    public string Name { get; }

    /// <summary>A GGUF file's metadata, with a vocabulary of bytes and names that stand for nothing.</summary>
    public IReadOnlyDictionary<string, object> Metadata => _metadata;

    /// <summary>What can be asked for, for messages.</summary>
    public static string Known => $"[{Llava}]SIZE-FORM with a size of {string.Join(", ", Decoders.Keys)} and a form of {string.Join(", ", Forms.Keys)}";

    /// <summary>
    /// Reads what a model is to be: <c>7b-q4_0</c>, <c>llava-7b-f16</c> (with the tower of CLIP ViT-L/14 at 336 pixels, up to LLaVA's feature
    /// layer, in F16 where the decoder is quantised). <c>q4_k_m</c> mixes Q4_K with Q6_K as llama.cpp's files of that name do.
    /// </summary>
    /// <param name="spec">Size and form.</param>
    /// <param name="seed">Of its weights.</param>
    /// <exception cref="FormatException">It is no such text, or the form's blocks do not divide the size's rows.</exception>
    public static SyntheticModel Parse(string spec, int seed = 1)
    {
        ArgumentNullException.ThrowIfNull(spec);
        var name = spec.ToLowerInvariant();
        var sees = name.StartsWith(Llava, StringComparison.Ordinal);
        var (size, form) = (sees ? name[Llava.Length..] : name).Split('-') is [var first, var second] ? (first, second) : ("", "");
        if (!Decoders.TryGetValue(size, out var sizes) || !Forms.TryGetValue(form, out var stored))
            throw new FormatException($"'{spec}' names no synthetic model; expected {Known}");
        foreach (var columns in (ReadOnlySpan<int>)[sizes.Hidden, sizes.Mlp])
            if (columns % stored.Type.BlockSize() != 0)
                throw new FormatException($"'{spec}': rows of {columns} do not divide into {stored.Type}'s blocks of {stored.Type.BlockSize()}");
        var tower = !sees ? null : size == "tiny" ? new Tower(64, 128, 2, 2, 28) : new Tower(1024, 4096, 23, 16, 336);
        return new(name, sizes, form, tower, seed);
    }

    /// <summary>The model as an opened checkpoint. Weights are made while they are loaded.</summary>
    public ModelSource Open()
    {
        var files = new List<Checkpoint> { new SyntheticCheckpoint($"synthetic {Name}", Tensors(LayoutForm.Gguf), _seed) };
        if (_spec.Vision is not null)
            files.Add(new SyntheticCheckpoint($"synthetic {Name} (vision)", Tensors(LayoutForm.GgufVision), _seed));
        return ModelSource.Of(_spec, GgufConfig.HalvesRowOrder, files);
    }

    /// <summary>Writes the same weights as a GGUF file, and a vision tower as mmproj-NAME beside it.</summary>
    /// <param name="path">The .gguf file.</param>
    /// <returns>The files written.</returns>
    /// <exception cref="IOException">A file cannot be written.</exception>
    public IReadOnlyList<string> Write(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        using var source = Open();
        List<string> paths = [path];
        GgufWriter.Write(path, [.. _metadata], Streamed(source.Files[0]));
        if (source.Files.Count > 1)
        {
            paths.Add(Path.Combine(Path.GetDirectoryName(path) ?? "", "mmproj-" + Path.GetFileName(path)));
            GgufWriter.Write(paths[1], [.. _visionMetadata], Streamed(source.Files[1]));
        }
        return paths;
    }

    private static List<TensorData> Streamed(Checkpoint checkpoint) =>
    [
        .. checkpoint.Tensors.Values.Select(info => new TensorData(info.Name, info.Type, info.Shape, stream =>
        {
            using var tensor = checkpoint.Map(info.Name);
            Copy(tensor, stream);
        })),
    ];

    private static unsafe void Copy(MappedTensor tensor, Stream stream)
    {
        for (var at = 0L; at < tensor.Bytes; at += 1 << 24)
            stream.Write(new ReadOnlySpan<byte>(tensor.Data + at, (int)Math.Min(1 << 24, tensor.Bytes - at)));
    }

    private List<TensorInfo> Tensors(LayoutForm layout)
    {
        var tensors = new List<TensorInfo>();
        foreach (var expected in TensorNames.Expect(_spec, new(layout)).Where(e => !e.Optional))
        {
            var type = TypeOf(expected);
            var bytes = type.RowBytes(expected.Shape[^1]) * expected.Shape.SkipLast(1).Aggregate(1L, (a, b) => a * b);
            tensors.Add(new(expected.Name, type, expected.Shape, Name, 0, bytes));
        }
        return tensors;
    }

    private DType TypeOf(ExpectedTensor tensor)
    {
        var (role, type) = (tensor.Role, Forms[_form].Type);
        if (tensor.Shape.Length == 1 || role == "vision.position")
            return DType.F32;
        if (!role.StartsWith("text.", StringComparison.Ordinal))
            return type.IsQuantized() ? DType.F16 : type;
        if (_form != "q4_k_m")
            return type;
        if (role == "text.head" || role == "text.embed" && _spec.Text.TieEmbeddings)
            return DType.Q6_K;
        // More bits for v and down in the first and last eighth of the layers, and in every third between.
        if (role.Split('.') is not ["text", "layers", var number, "v" or "down"])
            return type;
        int layer = int.Parse(number), eighth = _spec.Text.Layers / 8;
        return layer < eighth || layer >= 7 * _spec.Text.Layers / 8 || (layer - eighth) % 3 == 2 ? DType.Q6_K : type;
    }

    private static Dictionary<string, object> Describe(string name, Sizes sizes, uint fileType)
    {
        var (tokens, merges) = Vocabulary(sizes.Vocabulary);
        return new()
        {
            ["general.architecture"] = "llama",
            ["general.name"] = $"synthetic {name}",
            ["general.file_type"] = fileType,
            ["llama.vocab_size"] = (uint)sizes.Vocabulary,
            ["llama.context_length"] = (uint)sizes.Context,
            ["llama.embedding_length"] = (uint)sizes.Hidden,
            ["llama.block_count"] = (uint)sizes.Layers,
            ["llama.feed_forward_length"] = (uint)sizes.Mlp,
            ["llama.rope.dimension_count"] = (uint)(sizes.Hidden / sizes.Heads),
            ["llama.rope.freq_base"] = sizes.Theta,
            ["llama.attention.head_count"] = (uint)sizes.Heads,
            ["llama.attention.head_count_kv"] = (uint)sizes.KeyValueHeads,
            ["llama.attention.layer_norm_rms_epsilon"] = 1e-5f,
            ["tokenizer.ggml.model"] = "gpt2",
            ["tokenizer.ggml.pre"] = "gpt-2",
            ["tokenizer.ggml.tokens"] = tokens,
            ["tokenizer.ggml.token_type"] = Array.ConvertAll(tokens, token => token is "<s>" or "</s>" ? 3 : token.StartsWith("<unused", StringComparison.Ordinal) ? 5 : 1),
            ["tokenizer.ggml.merges"] = merges,
            ["tokenizer.ggml.bos_token_id"] = 0u,
            ["tokenizer.ggml.eos_token_id"] = 1u,
            ["tokenizer.ggml.add_bos_token"] = false,
        };
    }

    private static Dictionary<string, object> Describe(string name, Tower tower) => new()
    {
        ["general.architecture"] = "clip",
        ["general.name"] = $"synthetic {name}",
        ["general.file_type"] = 1u,
        ["clip.has_vision_encoder"] = true,
        ["clip.projector_type"] = "mlp",
        ["clip.use_gelu"] = false, // CLIP's own, quick GELU
        ["clip.vision.image_size"] = (uint)tower.Image,
        ["clip.vision.patch_size"] = 14u,
        ["clip.vision.embedding_length"] = (uint)tower.Hidden,
        ["clip.vision.feed_forward_length"] = (uint)tower.Mlp,
        ["clip.vision.projection_dim"] = (uint)tower.Hidden,
        ["clip.vision.block_count"] = (uint)tower.Layers,
        ["clip.vision.feature_layer"] = new[] { tower.Layers }, // all of them: programs differ in what they do without this
        ["clip.vision.attention.head_count"] = (uint)tower.Heads,
        ["clip.vision.attention.layer_norm_epsilon"] = 1e-5f,
        ["clip.vision.image_mean"] = new[] { 0.48145466f, 0.4578275f, 0.40821073f },
        ["clip.vision.image_std"] = new[] { 0.26862954f, 0.26130258f, 0.27577711f },
    };

    /// <summary>Two specials, GPT-2's symbols of the 256 bytes, one merge (some programs want any), and unused names up to the size.</summary>
    private static (string[] Tokens, string[] Merges) Vocabulary(int size)
    {
        var tokens = new List<string>(size) { "<s>", "</s>" };
        var beyond = 0;
        for (var b = 0; b < 256; b++)
            tokens.Add(((char)(b is >= 33 and <= 126 or >= 161 and <= 172 or >= 174 ? b : 256 + beyond++)).ToString());
        tokens.Add("th");
        while (tokens.Count < size)
            tokens.Add($"<unused{tokens.Count}>");
        return ([.. tokens], ["t h"]);
    }

    private sealed record Sizes(int Hidden, int Mlp, int Layers, int Heads, int KeyValueHeads, int Vocabulary, int Context, float Theta, bool Tied);

    private sealed record Tower(int Hidden, int Mlp, int Layers, int Heads, int Image);
}
