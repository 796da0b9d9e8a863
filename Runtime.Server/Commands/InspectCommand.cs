using System.CommandLine;
using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>inspect: what a checkpoint or a vector file is, from its headers alone.</summary>
internal static class InspectCommand
{
    public static Command Create(Terminal terminal)
    {
        var path = new Argument<string?>("path") { Description = "A model (Hugging Face folder or .gguf) or a vector file.", Arity = ArgumentArity.ZeroOrOne };
        var model = new Option<string?>("--model", "-m") { Description = "The same, as an option.", HelpName = "PATH" };
        var mmproj = new Option<string?>("--mmproj") { Description = "The vision file of a GGUF model.", HelpName = "FILE" };
        var json = new Option<bool>("--json") { Description = "Print one JSON object." };
        var command = new Command("inspect", "Says what a checkpoint is: architecture, parameters, dtypes, memory, tokenizer, template; or what a vector file holds.") { path, model, mmproj, json };
        command.SetAction(parse =>
        {
            var target = parse.GetValue(path) ?? parse.GetValue(model) ?? throw new UsageException("inspect needs a model or a vector file");
            var facts = IsVectorFile(target) ? Vectors(target) : Model(target, parse.GetValue(mmproj));
            if (parse.GetValue(json))
                terminal.Output.WriteLine(Json.Write(writer => Write(writer, facts)));
            else
                Print(terminal.Output, facts);
            return 0;
        });
        return command;
    }

    private static bool IsVectorFile(string path)
    {
        if (!File.Exists(path) || Path.GetExtension(path).ToLowerInvariant() is not (".safetensors" or ".gguf"))
            return false;
        using var file = Checkpoint.Open(path);
        return file.Tensors.Count > 0 && file.Tensors.Keys.All(name => name.StartsWith("direction.", StringComparison.Ordinal));
    }

    private static List<(string Name, object Value)> Vectors(string path)
    {
        var vectors = ShiftVectors.Open(path);
        var facts = new List<(string, object)>
        {
            ("file", path),
            ("kind", "shift vectors"),
            ("layers", vectors.Layers),
            ("hidden_size", vectors.HiddenSize),
            ("steered_layers", new LayerSet(Enumerable.Range(1, vectors.Layers).Where(l => !vectors[l].IsEmpty)).ToString()),
            ("norms", string.Join(' ', Enumerable.Range(1, vectors.Layers).Select(l => Norm(vectors[l]).ToString("G4")))),
            ("hash", vectors.Hash),
        };
        facts.AddRange(vectors.Metadata.OrderBy(m => m.Key, StringComparer.Ordinal).Select(m => ("metadata." + m.Key, (object)m.Value)));
        return facts;
    }

    private static double Norm(ReadOnlySpan<float> vector)
    {
        var sum = 0.0;
        foreach (var value in vector)
            sum += (double)value * value;
        return Math.Sqrt(sum);
    }

    private static List<(string Name, object Value)> Model(string path, string? mmproj)
    {
        var files = ModelFiles.OpenWithWeights(path, mmproj, out var source);
        using var _ = source;
        var (spec, text) = (files.Spec, files.Spec.Text);
        var tensors = source.Files.SelectMany(file => file.Tensors.Values).ToList();
        long Elements(TensorInfo tensor) => tensor.Shape.Aggregate(1L, (a, b) => a * b);
        var bytes = tensors.Sum(t => t.Bytes);
        var perToken = 2L * text.Layers * text.KeyValueHeads * text.HeadDimension * sizeof(float);
        var context = Math.Min(text.Rope.Reach, 4096);
        var facts = new List<(string, object)>
        {
            ("path", path),
            ("architecture", spec.Architecture),
            ("family", spec.Description),
            ("supported", Supported(spec)),
            ("parameters", tensors.Sum(Elements)),
            ("tensors", tensors.Count),
            ("dtypes", string.Join(", ", tensors.GroupBy(t => t.Type).OrderByDescending(g => g.Sum(t => t.Bytes)).Select(g => $"{g.Key} {g.Sum(Elements)}"))),
            ("decoder", $"{text.Family}, {text.Layers} layers, hidden {text.HiddenSize}, mlp {text.IntermediateSize}, {text.Heads} heads of {text.HeadDimension}, {text.KeyValueHeads} key/value heads"),
            ("vocabulary", text.VocabularySize),
            ("context", text.Rope.Reach),
            ("rope", $"{text.Rope.Kind.ToString().ToLowerInvariant()}, theta {text.Rope.Theta}"),
        };
        if (spec.Quantization is { } form)
        {
            facts.Add(("quantised", form.Note(form.Target)));
            if (form.Exact(spec.Text.HiddenSize) is var exact && exact != form.Target)
                facts.Add(("quantised_on_gpu", form.Note(exact)));
        }
        if (text.Windows.Any(w => w > 0))
            facts.Add(("sliding_window", text.Windows.Max()));
        if (spec.Vision is { } vision)
        {
            facts.Add(("vision", $"{vision.Family}, {vision.UsedLayers} of {vision.Layers} layers, hidden {vision.HiddenSize}, image {vision.ImageSize}, patch {vision.PatchSize}"));
            facts.Add(("image_tokens", files.Processor is { Size: var size } ? files.ImageTokens(size.Width, size.Height) : vision.Features));
        }
        facts.AddRange(
        [
            ("weight_bytes", bytes),
            ("kv_bytes_per_token", perToken),
            ("memory_by_dtype", string.Join(", ", ((DType[])[DType.F32, DType.BF16, DType.Q8_0, DType.Q4_0]).Select(type => $"{type} {Size(As(type))}"))),
            ("memory_estimate", $"{Size(bytes)} of weights + {Size(perToken * context)} of keys and values at {context} positions"),
            ("tokenizer", $"{files.Tokenizer.VocabularySize} tokens, bos {Token(files.Tokenizer.BosId)}, eos {Token(files.Tokenizer.EosId)}"),
            ("chat_template", files.Template?.Name ?? "none"),
        ]);
        return facts;

        // Matrices of the decoder in another form; the rest as stored.
        long As(DType type) => tensors.Sum(t => t.Shape.Count < 2 || spec.Vision is not null && !IsDecoders(t.Name) && type.IsQuantized()
            ? t.Bytes : Elements(t) / type.BlockSize() * type.BlockBytes());

        string Token(int? id) => id is { } value ? $"{value} {files.Tokenizer.TokenOf(value)}" : "none";
    }

    private static bool IsDecoders(string tensor) => tensor.StartsWith("blk.", StringComparison.Ordinal) || tensor.Contains("language_model", StringComparison.Ordinal)
        || tensor.Contains("text_model", StringComparison.Ordinal) || tensor.Contains("model.layers.", StringComparison.Ordinal)
        || tensor.Contains("embed_tokens", StringComparison.Ordinal) || tensor.Contains("lm_head", StringComparison.Ordinal)
        || tensor.StartsWith("token_embd", StringComparison.Ordinal) || tensor.StartsWith("output", StringComparison.Ordinal);

    /// <summary>What can be done with it, and what a device must compute for it.</summary>
    private static string Supported(ModelSpec spec) => "text" + (spec.Vision is null ? "" : ", images") + ", steering at every layer's output"
        + (spec.Needs == 0 ? "" : $"; a device that computes {spec.Needs}");

    private static string Size(long bytes) => bytes switch
    {
        >= 1L << 30 => $"{bytes / (double)(1L << 30):F2} GiB",
        >= 1L << 20 => $"{bytes / (double)(1L << 20):F2} MiB",
        _ => $"{bytes / 1024.0:F1} KiB",
    };

    private static void Print(TextWriter output, List<(string Name, object Value)> facts)
    {
        var width = facts.Max(f => f.Name.Length);
        foreach (var (name, value) in facts)
            output.WriteLine($"{name.PadRight(width)}  {value}");
    }

    private static void Write(Utf8JsonWriter writer, List<(string Name, object Value)> facts)
    {
        writer.WriteStartObject();
        foreach (var (name, value) in facts)
        {
            if (value is int or long)
                writer.WriteNumber(name, Convert.ToInt64(value));
            else
                writer.WriteString(name, (string)value);
        }
        writer.WriteEndObject();
    }
}
