using System.Globalization;
using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Steering;
using Trimtab.Tests.Cuda;
using Trimtab.Tests.Kernels;
using EngineOfModel = Trimtab.Engine.Engine;

namespace Trimtab.Tests.Golden;

/// <summary>A model of the golden fixtures with what independent implementations computed from it.</summary>
internal sealed class Fixture : IDisposable
{
    private readonly Checkpoint _tensors;

    private Fixture(string name, string modelPath, ModelOptions options)
    {
        Name = name;
        Json = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", name + ".json"))).RootElement;
        _tensors = Checkpoint.Open(Shared.Path("fixtures", "expected", name + ".safetensors"));
        Model = VisionLanguageModel.Open(modelPath, options);
    }

    public string Name { get; }

    public JsonElement Json { get; }

    public VisionLanguageModel Model { get; }

    public int Vocabulary => Model.Network.Spec.Text.VocabularySize;

    public int Layers => Model.Network.Spec.Text.Layers;

    public int Width => Model.Network.Spec.Text.HiddenSize;

    /// <summary>Opens a fixture; <paramref name="form"/> is another form of the same weights, such as "llava-gqa-gguf".</summary>
    public static Fixture Open(string name, string? form = null, ModelOptions? options = null)
    {
        var path = Shared.Path("fixtures", "models", form ?? name);
        if (form is not null)
            path = System.IO.Path.Combine(path, "model-bf16.gguf");
        return new(name, path, options ?? new() { WeightType = DType.F32 });
    }

    /// <summary>The same on a kind of device, "cpu" or "cuda", or "2 × " so many of them; on CUDA, if it is so wished, with the same bits in any batch.</summary>
    public static Fixture OpenOn(string device, string name, string? form = null, bool batchInvariant = false)
        => Open(name, form, device == "cpu" ? null : new() { WeightType = DType.F32, Device = DeviceOf(device, batchInvariant) });

    /// <summary>A device that tests share: "cuda", "cuda, cuBLASLt", or "2 × cuda" and "2 × cpu", which divide layers; null for "cpu".</summary>
    public static Device? DeviceOf(string device, bool batchInvariant = false) => device.Split(" × ") switch
    {
        ["cpu"] => null,
        [var ranks, "cpu"] => HostCommunicator.Cpus(int.Parse(ranks, CultureInfo.InvariantCulture)),
        [var ranks, "cuda"] => EmulatedCuda.Parallel(int.Parse(ranks, CultureInfo.InvariantCulture), batchInvariant),
        _ => EmulatedCuda.Get(batchInvariant: batchInvariant, cublas: device == "cuda, cuBLASLt"),
    };

    public bool Has(string tensor) => _tensors.Tensors.ContainsKey(tensor);

    public float[] Tensor(string name)
    {
        using var mapped = _tensors.Map(name);
        return mapped.ToFloats();
    }

    public IEnumerable<JsonElement> Cases => Json.GetProperty("cases").EnumerateArray();

    public JsonElement Case(string id) => Cases.Single(c => c.GetProperty("id").GetString() == id);

    public static int[] Ints(JsonElement element, string name) => [.. element.GetProperty(name).EnumerateArray().Select(e => e.GetInt32())];

    /// <summary>A case's image file; of a case of several images, its list of them.</summary>
    public static string[] ImagesOf(JsonElement element) =>
        element.TryGetProperty("images", out var list) ? [.. list.EnumerateArray().Select(file => file.GetString()!)]
        : element.GetProperty("image").GetString() is { } file ? [file] : [];

    public static Image LoadImage(string file) => Image.Open(Shared.Path("fixtures", "images", file));

    /// <summary>A case's prompt by our own path: text, tokenizer, image file; where an image case is given by token ids, from those.</summary>
    public Prompt Prompt(JsonElement element)
    {
        var text = element.GetProperty("prompt").GetString()!;
        if (ImagesOf(element) is not { Length: > 0 } files)
            return Model.Raw(text);
        var (ids, image) = (Ints(element, "input_ids"), Model.Network.Spec.ImageTokenId!.Value);
        // Idefics 3's is made of pieces, under a vocabulary whose <image> is another token than the model's.
        if (text.Contains(Model.Files.ImagePlaceholder, StringComparison.Ordinal) && (Model.Tokenizer.IdOf("<image>") ?? image) == image)
            return Model.Raw(text, [.. files.Select(LoadImage)]);
        return Model.Files.Expand([.. ids.Where((id, i) => id != image || i == 0 || ids[i - 1] != image)], [.. files.Select(LoadImage)]);
    }

    /// <summary>A case's prompt with the reference's pixel values where it has them, so that what follows compares exactly.</summary>
    public Prompt ReferencePrompt(JsonElement element)
    {
        var tensor = element.GetProperty("id").GetString() + ".pixel_values";
        if (!Has(tensor))
            return Prompt(element);
        var pixels = Tensor(tensor);
        if (element.TryGetProperty("grid_thw", out _)) // made with bounds on the pixels that no file of the fixture has
        {
            var (ids, thw) = (Ints(element, "input_ids"), Ints(element, "grid_thw"));
            var (start, grid) = (Array.IndexOf(ids, Model.Network.Spec.ImageTokenId!.Value), new Model.ImageGrid(thw[1], thw[2]));
            return new(ids, [new(start, Model.Network.Spec.Vision!.FeatureRows(grid), pixels, grid)]);
        }
        var prompt = Prompt(element);
        var first = 0;
        return prompt with { Images = [.. prompt.Images.Select(image => image with { Pixels = pixels[first..(first += image.Pixels.Length)] })] };
    }

    public SteeringOptions Steering(JsonElement element)
    {
        var flat = Tensor("vectors");
        return new(
            ShiftVectors.Create([.. Enumerable.Range(0, Layers).Select(l => (float[]?)flat[(l * Width)..((l + 1) * Width)])]),
            element.GetProperty("alpha").GetSingle(),
            Enum.Parse<SteeringScope>(element.GetProperty("scope").GetString()!, true),
            element.GetProperty("layers").ValueKind == JsonValueKind.Null ? null : new(Ints(element, "layers")));
    }

    public List<Outcome> Run(params IEnumerable<(Prompt Prompt, GenerationOptions Options)> requests) => Outcome.Run(Model, requests);

    public Outcome Run(Prompt prompt, GenerationOptions options) => Run((prompt, options))[0];

    public void Dispose()
    {
        Model.Dispose();
        _tensors.Dispose();
    }
}

/// <summary>A finished sequence and the logits of each of its draws.</summary>
internal sealed record Outcome(Sequence Sequence, List<float[]> Logits)
{
    public int[] Tokens => [.. Sequence.Generated];

    /// <summary>Runs prompts together in an engine of their own and returns what came out of each.</summary>
    public static List<Outcome> Run(
        VisionLanguageModel model, IEnumerable<(Prompt Prompt, GenerationOptions Options)> requests, EngineOptions? options = null)
    {
        using var engine = new EngineOfModel(model.Network, options, model.Tokenizer.EndIds);
        var outcomes = new List<Outcome>();
        foreach (var (prompt, generation) in requests)
        {
            var logits = new List<float[]>();
            var sequence = new Sequence(prompt, generation, model.Tokenizer, model.Network.Spec.Text.VocabularySize) { OnLogits = row => logits.Add(row.ToArray()) };
            outcomes.Add(new(sequence, logits));
            engine.Add(sequence);
        }
        while (engine.Busy)
            engine.Step();
        foreach (var outcome in outcomes)
            Assert.That(outcome.Sequence.Error, Is.Null);
        return outcomes;
    }
}
