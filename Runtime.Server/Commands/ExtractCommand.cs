using System.CommandLine;
using System.Text.Json;
using Trimtab.Evaluation;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>extract: shift vectors from an anchor set.</summary>
internal static class ExtractCommand
{
    private static readonly Dictionary<string, ShiftMethod> Methods = Enum.GetValues<ShiftMethod>().ToDictionary(Extraction.Name);

    public static Command Create(Terminal terminal)
    {
        var model = new ModelArguments();
        var anchors = new Option<string>("--anchors") { Description = "The anchor prompts: one a line, or JSON lines with a prompt, question, text or instruction.", HelpName = "FILE", Required = true };
        var field = new Option<string?>("--field") { Description = "The field of JSON lines that holds the prompt.", HelpName = "NAME" };
        var image = new Option<string>("--image", "-i") { Description = "The image beside the anchors: blank (white), noise (by --seed), a file, or a folder whose images are taken in turn.", HelpName = "blank|noise|FILE|DIR", DefaultValueFactory = _ => "blank" };
        var method = new Option<string>("--method") { Description = "mean; first principal component as long as the mean on it (pc), as the deviation on it (pc_sigma), or 1 (unit_pc); sequential measures each layer's mean with the layers below steered.", DefaultValueFactory = _ => "mean" };
        var raw = new Option<bool>("--raw") { Description = "Take each anchor as it stands; it has one <image>, which the text-only form leaves out with the line break behind it." };
        var limit = new Option<int?>("--limit") { Description = "Use the first N anchors.", HelpName = "N" };
        var seed = new Option<uint>("--seed") { Description = "Seed of noise images.", HelpName = "N" };
        var file = new Option<string>("--out", "-o") { Description = "The vector file: .safetensors, or .gguf (llama.cpp's control vectors, which have no place for layer 1).", HelpName = "FILE", Required = true };
        var json = new Option<bool>("--json") { Description = "Print one JSON object instead of the table." };
        method.AcceptOnlyFromAmong([.. Methods.Keys]);
        var command = new Command("extract", "Extracts shift vectors: at every layer, last-token states with an image less those without, over an anchor set. A stopped run goes on when it is started again.");
        model.AddTo(command);
        foreach (var option in (ReadOnlySpan<Option>)[anchors, field, image, method, raw, limit, seed, file, json])
            command.Options.Add(option);
        command.SetAction(async (parse, cancel) =>
        {
            var target = parse.GetRequiredValue(file);
            if (Path.GetExtension(target).ToLowerInvariant() is not (".safetensors" or ".gguf"))
                throw new UsageException($"--out {target}: expected a name that ends in .safetensors or .gguf");
            if (Path.GetDirectoryName(Path.GetFullPath(target)) is { } folder && !Directory.Exists(folder))
                throw new DirectoryNotFoundException($"{target}: there is no folder {folder}");
            if (parse.GetValue(limit) is < 1 and var few)
                throw new UsageException($"--limit is {few}; expected 1 or more");
            var prompts = Anchors.Read(parse.GetRequiredValue(anchors), parse.GetValue(field), parse.GetValue(limit) ?? int.MaxValue);
            var images = ExtractionImages.Parse(parse.GetRequiredValue(image), parse.GetValue(seed));
            var partial = target + ".partial";
            using var opened = model.Open(parse, terminal, cancel);
            ExtractionResult result;
            try
            {
                result = await terminal.WithSteps("Extracting", "measurements", progress => Extraction.RunAsync(opened, prompts, new()
                {
                    Method = Methods[parse.GetRequiredValue(method)],
                    Images = images,
                    Raw = parse.GetValue(raw),
                    PartialPath = partial,
                    Progress = progress,
                }, cancel)).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                await terminal.Error.WriteLineAsync($"trimtab: what was measured is kept in {partial}; the same command goes on from it").ConfigureAwait(false);
                throw;
            }
            if (result.Discarded)
                terminal.Error.WriteLine($"trimtab: {partial} was of another extraction and was begun anew");
            if (result.Resumed > 0)
                terminal.Error.WriteLine($"trimtab: went on from {result.Resumed} measurements in {partial}");
            foreach (var note in result.Vectors.Save(target))
                terminal.Error.WriteLine($"trimtab: {note}");
            File.Delete(partial);
            await terminal.Output.WriteLineAsync(parse.GetValue(json) ? Json.Write(writer => Write(writer, target, result)) : Table(target, result)).ConfigureAwait(false);
            return 0;
        });
        return command;
    }

    private static string Table(string target, ExtractionResult result)
    {
        var lines = new List<string> { "layer      norm  1st component  cos(mean, component)  cos(halves)" };
        for (var i = 0; i < result.Layers.Count; i++)
        {
            var layer = result.Layers[i];
            lines.Add($"{i + 1,5}{layer.Norm,10:G5}{layer.Explained,14:P1}{Cosine(layer.Cosine),22}{Cosine(layer.SplitHalf),13}");
        }
        lines.Add($"{target}: {result.Vectors.Metadata["method"]} of {result.Anchors} anchors, image {result.Vectors.Metadata["images"]}");
        var halves = result.Layers.Select(layer => layer.SplitHalf).Where(double.IsFinite).ToArray();
        if (halves.Length > 0 && halves.Average() < 0.9)
            lines.Add($"halves of the anchors agree to {halves.Average():F2} only; more anchors would give a steadier vector");
        return string.Join(Environment.NewLine, lines);

        static string Cosine(double value) => double.IsFinite(value) ? value.ToString("F4") : "-";
    }

    private static void Write(Utf8JsonWriter writer, string target, ExtractionResult result)
    {
        writer.WriteStartObject();
        writer.WriteString("file", target);
        writer.WriteString("vectors", result.Vectors.Hash);
        writer.WriteNumber("anchors", result.Anchors);
        writer.WriteNumber("resumed", result.Resumed);
        writer.WriteStartObject("metadata");
        foreach (var (key, value) in result.Vectors.Metadata.Where(m => !m.Key.StartsWith("stats.", StringComparison.Ordinal)))
            writer.WriteString(key, value);
        writer.WriteEndObject();
        writer.WriteStartArray("layers");
        for (var i = 0; i < result.Layers.Count; i++)
        {
            var layer = result.Layers[i];
            writer.WriteStartObject();
            writer.WriteNumber("layer", i + 1);
            Number("norm", layer.Norm);
            Number("explained", layer.Explained);
            Number("cosine_mean_component", layer.Cosine);
            Number("split_half_cosine", layer.SplitHalf);
            Number("projection_mean", layer.ProjectionMean);
            Number("projection_sigma", layer.ProjectionSigma);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();

        void Number(string name, double value)
        {
            if (double.IsFinite(value))
                writer.WriteNumber(name, value);
            else
                writer.WriteNull(name);
        }
    }
}
