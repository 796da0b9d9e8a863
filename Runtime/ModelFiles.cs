using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Model;
using Trimtab.Text;

namespace Trimtab;

/// <summary>
/// What stands beside a model's weights: tokenizer, chat template, image processor. Opening it reads no weights, so it is
/// also what tokenizing, inspecting and seeing use.
/// </summary>
public sealed partial class ModelFiles
{
    private ModelFiles(string path, ModelSpec spec, Tokenizer tokenizer, ChatTemplate? template, ImageProcessor? processor)
        => (Path, Spec, Tokenizer, Template, Processor) = (path, spec, tokenizer, template, processor);

    /// <summary>The folder or file that was opened.</summary>
    public string Path { get; }

    /// <summary>What the model is.</summary>
    public ModelSpec Spec { get; }

    /// <summary>Its tokenizer.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>Its chat template; Vicuna 1.1 for a LLaVA that brings none, a question alone for PaliGemma; null for another model that brings none.</summary>
    public ChatTemplate? Template { get; }

    /// <summary>Its image processor, or null for a language model alone.</summary>
    public ImageProcessor? Processor { get; }

    /// <summary>The text that stands for an image in a prompt.</summary>
    public string ImagePlaceholder
    {
        get
        {
            const string Start = "<|vision_start|>", End = "<|vision_end|>"; // which Qwen's templates write around it
            return Spec.Vision?.Division == ImageDivision.Native && Tokenizer.IdOf(Start) is not null && Tokenizer.IdOf(End) is not null
                ? Start + ImageToken + End : ImageToken;
        }
    }

    /// <summary>The token in <see cref="ImagePlaceholder"/> that stands for the image.</summary>
    internal string ImageToken => Tokenizer.TokenOf((Spec.Markers?.Begin ?? Spec.ImageTokenId) ?? -1) ?? "<image>";

    /// <summary>Opens what stands beside the weights.</summary>
    /// <param name="path">
    /// A Hugging Face folder, a .safetensors file in one, or a .gguf file; where there is nothing by that name, ORG/NAME in the
    /// cache of Hugging Face's tools.
    /// </param>
    /// <param name="mmproj">The vision file of a GGUF model; null looks for *mmproj*.gguf beside it.</param>
    /// <exception cref="FileNotFoundException">There is nothing to open.</exception>
    public static ModelFiles Open(string path, string? mmproj = null)
    {
        path = Locate(path);
        if (FindGguf(path) is not { } gguf)
            return OpenFolder(path, Folder(path));
        using var source = ModelSource.OpenGguf(gguf, mmproj ?? FindMmproj(gguf));
        return OpenGguf(path, gguf, source);
    }

    /// <summary>Opens the weights too.</summary>
    /// <param name="path">See <see cref="Open"/>.</param>
    /// <param name="mmproj">See <see cref="Open"/>.</param>
    /// <param name="weights">The opened checkpoint files.</param>
    public static ModelFiles OpenWithWeights(string path, string? mmproj, out ModelSource weights)
    {
        path = Locate(path);
        var gguf = FindGguf(path);
        weights = gguf is null ? ModelSource.OpenFolder(Folder(path)) : ModelSource.OpenGguf(gguf, mmproj ?? FindMmproj(gguf));
        try
        {
            return gguf is null ? OpenFolder(path, Folder(path)) : OpenGguf(path, gguf, weights);
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    /// <summary>Opens a tokenizer alone: a tokenizer.json, a folder that holds one, or a GGUF file.</summary>
    public static Tokenizer OpenTokenizer(string path)
    {
        path = Locate(path);
        var gguf = FindGguf(path);
        if (gguf is null)
            return Tokenizer.Open(File.Exists(path) && !IsTokenizer(path) ? Folder(path) : path);
        using var checkpoint = (GgufCheckpoint)Checkpoint.Open(gguf);
        return Tokenizer.FromGguf(checkpoint.Metadata, gguf);
    }

    /// <summary>Renders a conversation with the answer to come.</summary>
    /// <exception cref="InvalidOperationException">The model has no chat template.</exception>
    /// <exception cref="ChatTemplateException">The template refuses the conversation.</exception>
    public string Render(IReadOnlyList<ChatMessage> messages)
    {
        if (Template is null)
            throw new InvalidOperationException($"{Path} has no chat template; give the whole prompt as it stands (raw)");
        var variables = new Dictionary<string, object?>();
        if (Tokenizer.BosId is { } bos)
            variables["bos_token"] = Tokenizer.TokenOf(bos);
        if (Tokenizer.EosId is { } eos)
            variables["eos_token"] = Tokenizer.TokenOf(eos);
        return Template.Render(messages, true, variables, Spec.Text.SeesWholePrompts ? ImagePlaceholder : ImagePlaceholder + "\n");
    }

    /// <summary>Token ids of a prompt's text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="rendered">From a chat template: a begin-of-sequence token that the template wrote is not added twice.</param>
    public int[] Encode(string text, bool rendered)
    {
        ArgumentNullException.ThrowIfNull(text);
        var hasBos = rendered && Tokenizer.BosId is { } bos && Tokenizer.TokenOf(bos) is { Length: > 0 } token
            && text.StartsWith(token, StringComparison.Ordinal);
        if (Spec is { Markers: { Begin: { } begin, End: { } end }, ImageTokenId: { } row }
            && (Tokenizer.TokenOf(begin), Tokenizer.TokenOf(row), Tokenizer.TokenOf(end)) is ({ } b, { } r, { } e))
            text = text.Replace(b, $"\n\n{b}{r}{e}\n\n", StringComparison.Ordinal); // as Gemma 3's processor writes it
        if (Spec.Text.SeesWholePrompts && Tokenizer.BosId is { } begins && Tokenizer.TokenOf(begins) is { } mark)
        {
            // PaliGemma's processor: images, the beginning, the text, and a line break that ends it.
            var after = text.LastIndexOf(ImageToken, StringComparison.Ordinal) is >= 0 and var last ? last + ImageToken.Length : 0;
            text = text.AsSpan(after).StartsWith(mark) ? text + "\n" : $"{text[..after]}{mark}{text[after..]}\n";
            hasBos = true;
        }
        if (Spec.ImageTokenId is not { } image || Tokenizer.TokenOf(image) is not null)
            return Tokenizer.Encode(text, addSpecial: !hasBos);
        // The vocabulary has no image token: the placeholder splits the text.
        var ids = new List<int>();
        var parts = text.Split(ImageToken);
        for (var i = 0; i < parts.Length; i++)
        {
            if (i > 0)
                ids.Add(image);
            if (i == 0 || parts[i].Length > 0)
                ids.AddRange(Tokenizer.Encode(parts[i], addSpecial: i == 0 && !hasBos));
        }
        return [.. ids];
    }

    private static ModelFiles OpenFolder(string path, string folder)
    {
        var config = System.IO.Path.Combine(folder, "config.json");
        if (!File.Exists(config))
            throw new FileNotFoundException($"{path}: expected a folder with config.json and model.safetensors, or a .gguf file", config);
        var generation = System.IO.Path.Combine(folder, "generation_config.json");
        var spec = HuggingFaceConfig.Parse(
            File.ReadAllBytes(config), config, File.Exists(generation) ? File.ReadAllBytes(generation) : default);
        ImageProcessor? processor = null;
        if (spec.Vision is { } vision)
        {
            var file = System.IO.Path.Combine(folder, "preprocessor_config.json");
            // transformers 5 writes it into the processor's own file.
            if (!File.Exists(file) && System.IO.Path.Combine(folder, "processor_config.json") is var joint && File.Exists(joint)
                && File.ReadAllText(joint).Contains("\"image_processor\"", StringComparison.Ordinal))
                file = joint;
            processor = File.Exists(file) ? ImageProcessor.Open(file) : Assumed(vision);
            CheckProcessor(processor, vision, file, config);
        }
        var template = ChatTemplate.Find(folder) ?? (IsLlava(spec) ? ChatTemplate.Vicuna11 : spec.Text.SeesWholePrompts ? ChatTemplate.OneQuestion : null);
        return new(path, spec, Tokenizer.Open(folder), template, processor);
    }

    private static ModelFiles OpenGguf(string path, string gguf, ModelSource source)
    {
        var metadata = ((GgufCheckpoint)source.Files[0]).Metadata;
        var tokenizer = Tokenizer.FromGguf(metadata, gguf);
        var spec = source.Spec;
        ImageProcessor? processor = null;
        if (spec.Vision is { } vision && source.VisionFile is { } file)
        {
            // GGUF files name no image token; the vocabulary may have one.
            spec = spec with { ImageTokenId = spec.ImageTokenId ?? tokenizer.IdOf(vision.Division == ImageDivision.Native ? "<|image_pad|>" : "<image>") ?? spec.Text.VocabularySize };
            if (spec.Text.SeesWholeImages)
            {
                int Token(string name) => tokenizer.IdOf(name) ?? throw new UnsupportedModelException($"{gguf}: the vocabulary has no {name}, which Gemma 3's images need");
                spec = spec with { ImageTokenId = Token("<image_soft_token>"), Markers = new(Token("<start_of_image>"), Token("<end_of_image>"), false) };
            }
            double[] mean = [.. file.Mean.Select(x => (double)x)], std = [.. file.Std.Select(x => (double)x)];
            var assumed = Assumed(vision).Options;
            processor = new(assumed with { Mean = mean, Std = std, LongestEdge = vision.Division == ImageDivision.Tiles ? file.LongestEdge : null });
        }
        var template = metadata.TryGetValue("tokenizer.chat_template", out var text) && text is string jinja
            ? ChatTemplate.Parse(jinja, $"{gguf}: tokenizer.chat_template")
            : IsLlava(spec) ? ChatTemplate.Vicuna11 : null;
        return new(path, spec, tokenizer, template, processor);
    }

    /// <summary>Whether it may have been trained on Vicuna's form of a conversation: LLaVA's first two, which brought no template.</summary>
    private static bool IsLlava(ModelSpec spec) =>
        spec.Vision is { Merge: 1, Division: ImageDivision.Whole or ImageDivision.AnyResolution, MaxSquares: 0 } && !spec.Text.SeesWholePrompts;

    private static bool IsTokenizer(string path) => path.EndsWith("tokenizer.json", StringComparison.Ordinal);

    // What lies at the path always wins over a model of that name in the cache.
    private static string Locate(string path) => File.Exists(path) || Directory.Exists(path) ? path : HubCache.Find(path) ?? path;

    private static string Folder(string path)
        => Directory.Exists(path) ? path
        : File.Exists(path) ? System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!
        : throw new FileNotFoundException($"{path}: no such file or folder{(HubCache.IsName(path) ? ", nor a model in the cache (see: pull)" : "")}", path);

    private static string? FindGguf(string path)
    {
        if (File.Exists(path))
            return path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) ? path : null;
        if (!Directory.Exists(path) || File.Exists(System.IO.Path.Combine(path, "config.json")) || File.Exists(System.IO.Path.Combine(path, "tokenizer.json")))
            return null;
        var files = Directory.GetFiles(path, "*.gguf").Where(f => !IsMmproj(f)).ToArray();
        return files.Length switch
        {
            0 => null,
            1 => files[0],
            _ => throw new FileNotFoundException(
                $"{path} holds {files.Length} GGUF models ({string.Join(", ", files.Select(System.IO.Path.GetFileName))}); name one of them", path),
        };
    }

    private static string? FindMmproj(string gguf)
    {
        var folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(gguf))!;
        var files = Directory.GetFiles(folder, "*.gguf").Where(IsMmproj).ToArray();
        return files.Length <= 1
            ? files.FirstOrDefault()
            : throw new FileNotFoundException(
                $"beside {gguf} are {files.Length} vision files ({string.Join(", ", files.Select(System.IO.Path.GetFileName))}); name one of them (--mmproj)", folder);
    }

    private static bool IsMmproj(string path) => System.IO.Path.GetFileName(path).Contains("mmproj", StringComparison.OrdinalIgnoreCase);
}
