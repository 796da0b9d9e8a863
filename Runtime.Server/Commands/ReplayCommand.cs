using System.CommandLine;
using System.Text.Json;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Server.Serving;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>replay: makes the answer of a receipt again and says whether it is the same.</summary>
internal static class ReplayCommand
{
    /// <summary>The command.</summary>
    public static Command Create(Terminal terminal)
    {
        var file = new Argument<string>("RECEIPT") { Description = "A receipt, or a whole answer with one in it." };
        var path = new Option<string?>("--model", "-m") { Description = "The model; by default the demo model.", HelpName = "PATH" };
        var mmproj = new Option<string?>("--mmproj") { Description = "The vision file of a GGUF model.", HelpName = "FILE" };
        var images = new Option<string[]>("--image", "-i") { Description = "The request's images in order; receipts hold their hashes alone.", HelpName = "FILE", AllowMultipleArgumentsPerToken = true };
        var vectors = new Option<string?>("--vectors") { Description = "The vectors that steered; by default the demo's.", HelpName = "FILE" };
        var (dtype, activations, kv) = (ModelArguments.Dtype(), ModelArguments.ActivationsOption(), ModelArguments.KvOption());
        var context = new Option<int>("--context") { Description = "Positions that prompt and answer may take together, as the server had it.", HelpName = "N" };
        var (device, tensorParallel) = (ModelArguments.DeviceOption(), ModelArguments.TensorParallelOption());
        var threads = new Option<int>("--threads", "-t") { Description = "CPU threads; 0 for one per core.", HelpName = "N" };
        var command = new Command("replay", "Makes the answer of a receipt again, and says whether it is the same, token for token. Exit code 0: it is; 1: it is not.")
        {
            file, path, mmproj, images, vectors, dtype, activations, kv, context, device, tensorParallel, threads,
        };
        command.SetAction(async (parse, cancel) =>
        {
            var receipt = Read(parse.GetRequiredValue(file));
            var source = parse.GetValue(path) ?? DemoCommand.Find();
            using var model = terminal.WithProgress("Loading the model", progress => VisionLanguageModel.Open(source, new()
            {
                MmprojPath = parse.GetValue(mmproj),
                // As the receipt has it, unless the command says otherwise.
                WeightType = parse.GetResult(dtype) is { Implicit: false } ? ModelArguments.Read(parse, dtype) : Parse<Kernels.DType>(receipt.Model.Dtype),
                Activations = (parse.GetResult(activations) is { Implicit: false } ? null : Parse<Kernels.Activations>(receipt.Model.Activations)) ?? ModelArguments.ReadActivations(parse, activations),
                Threads = ModelArguments.Range(parse, threads, 1024),
                Cuda = ModelArguments.ReadDevice(parse, device, activations, tensorParallel),
                Engine = new() { ContextLength = ModelArguments.Range(parse, context, 1 << 20), KvType = (parse.GetResult(kv) is { Implicit: false } ? null : Parse<Trimtab.Model.KvType>(receipt.Model.Kv)) ?? ModelArguments.ReadKv(parse, kv) },
                HashWeights = receipt.Model.WeightsHash is not null,
                Progress = progress,
            }, cancel));
            if (model.Network.Fingerprint != receipt.Model.Fingerprint)
                throw new InvalidDataException($"the receipt is of a model with the fingerprint {receipt.Model.Fingerprint}; {source} has {model.Network.Fingerprint}");
            if (model.WeightsHash != receipt.Model.WeightsHash)
                terminal.Note($"the weights are not those of the receipt to the byte: their files have the hash {model.WeightsHash}, the receipt's {receipt.Model.WeightsHash}");
            var shift = receipt.Steering.Mode != "dataset" ? null
                : ShiftVectors.Open(parse.GetValue(vectors) ?? (parse.GetValue(path) is null ? Path.Combine(source, "cmrm.safetensors") : throw new UsageException($"the answer was steered by '{receipt.Steering.Vectors}'; name their file by --vectors")));
            var sequence = await RunAsync(model, receipt, [.. (parse.GetValue(images) ?? []).Select(image => Image.Open(image))], shift, cancel).ConfigureAwait(false);
            return Tell(terminal.Output, receipt, sequence, model);
        });
        return command;
    }

    private static T? Parse<T>(string? word) where T : struct, Enum
        => word is null ? null : Enum.TryParse<T>(word, out var value) && Enum.IsDefined(value) ? value : throw new InvalidDataException($"the receipt's model has '{word}', which is no {typeof(T).Name}");

    /// <summary>Reads a receipt, by itself or in an answer.</summary>
    internal static Receipt Read(string file)
    {
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(file));
            var root = json.RootElement;
            if (root.ValueKind == JsonValueKind.Object && root.TryGetProperty("steering_receipt", out var inner))
                root = inner;
            return root.Deserialize(Wire.Readable.Receipt) ?? throw new JsonException("it is null");
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or NotSupportedException)
        {
            throw new InvalidDataException($"{file}: is no receipt: {error.Message}", error);
        }
    }

    /// <summary>Makes the answer again.</summary>
    internal static async Task<Sequence> RunAsync(VisionLanguageModel model, Receipt receipt, IReadOnlyList<Image> images, ShiftVectors? vectors, CancellationToken cancel)
    {
        if (receipt.Version is not (1 or Receipt.Current))
            throw new InvalidDataException($"the receipt has the form {receipt.Version}; expected {Receipt.Current}");
        if (images.Count != receipt.Prompt.Images.Count)
            throw new UsageException($"the request had {receipt.Prompt.Images.Count} images, and {images.Count} are given; name them by --image, in order");
        var prompt = model.Files.Expand([.. receipt.Prompt.TokenIds], images);
        for (var i = 0; i < images.Count; i++)
        {
            if (prompt.Images[i].Content.ToString() != receipt.Prompt.Images[i])
                throw new InvalidDataException($"image {i + 1} is another than the request's: the model would see {prompt.Images[i].Content}, and saw {receipt.Prompt.Images[i]}");
        }
        if (Receipt.HashOf<int>(prompt.Tokens) != receipt.Prompt.TokenIdsHash)
            throw new InvalidDataException("the receipt's prompt does not fit its own hash");
        var steering = await SteeringAsync(model, receipt, images.Count, vectors, cancel).ConfigureAwait(false);
        return await model.RunAsync(prompt, new()
        {
            // An answer that its deadline cut short is made as far as it came.
            MaxTokens = receipt.Answer.FinishReason == "length" ? receipt.Answer.TokenIds.Count : receipt.Sampling.MaxTokens,
            Sampling = receipt.Sampling.Sampling(),
            Stop = receipt.Sampling.Stop,
            IgnoreEos = receipt.Sampling.IgnoreEos,
            Steering = steering,
            Constraint = ResponseFormat.Read(receipt.Sampling.ResponseFormat, model.Tokenizer)?.Begin,
            HashLogits = true,
        }, cancel).ConfigureAwait(false);
    }

    private static async Task<SteeringOptions?> SteeringAsync(VisionLanguageModel model, Receipt receipt, int images, ShiftVectors? vectors, CancellationToken cancel)
    {
        var steering = receipt.Steering;
        if (steering.Mode == "off")
            return null;
        if (steering.Mode == "sample")
        {
            var blanks = Enumerable.Repeat(model.BlankImage(), images).ToArray();
            var pair = new PromptPair(model.Files.Expand([.. receipt.Prompt.TokenIds], blanks), model.Files.Expand([.. receipt.Prompt.TextAloneIds ?? []], []));
            vectors = await model.SampleShiftAsync(pair, cancel: cancel).ConfigureAwait(false);
        }
        if (vectors!.Hash != steering.VectorsHash)
            throw new InvalidDataException($"the vectors have the hash {vectors.Hash}; those that steered have {steering.VectorsHash}");
        var scope = SteeringRequest.ReadScope(steering.Scope) ?? throw new InvalidDataException($"the receipt's scope is '{steering.Scope}'");
        return new(vectors, steering.Alpha, scope, steering.Layers is null or "all" ? null : LayerSet.Parse(steering.Layers));
    }

    private static int Tell(TextWriter output, Receipt receipt, Sequence sequence, VisionLanguageModel model)
    {
        var (was, now) = (receipt.Answer.TokenIds, sequence.Generated);
        var same = was.Zip(now).TakeWhile(pair => pair.First == pair.Second).Count();
        if (same == was.Count && was.Count == now.Count)
        {
            var logits = receipt.Version != Receipt.Current ? "the receipt's hash of logits is of an older form"
                : sequence.LogitsHash == receipt.Answer.LogitsHash ? "so are the logits, bit for bit"
                : $"the logits differ in rounding (made on {receipt.Model.Device}; this is {model.Network.Device.Name})";
            output.WriteLine($"reproduced: {was.Count} tokens are the same; {logits}");
            return 0;
        }
        output.WriteLine($"not reproduced: tokens differ from number {same + 1} on (the receipt has {was.Count}, this run {now.Count})");
        return 1;
    }
}
