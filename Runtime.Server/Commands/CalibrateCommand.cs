using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Trimtab.Evaluation;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>calibrate: the operating point of a vector file, chosen on a dev split.</summary>
internal static class CalibrateCommand
{
    public static Command Create(Terminal terminal)
    {
        var model = new ModelArguments();
        var defaults = new CalibrationOptions();
        var vectors = new Option<string>("--vectors") { Description = "The vector file; the operating point is written into it.", HelpName = "FILE", Required = true };
        var harmful = new Option<string>("--harmful") { Description = "Requests to be refused: one a line, or JSON lines.", HelpName = "FILE", Required = true };
        var benign = new Option<string>("--benign") { Description = "Requests to be answered, alike.", HelpName = "FILE", Required = true };
        var utility = new Option<string?>("--utility") { Description = "Questions with one right answer: JSON lines with prompt, answer, and perhaps image (a path beside the file).", HelpName = "FILE" };
        var field = new Option<string?>("--field") { Description = "The field of JSON lines that holds a request.", HelpName = "NAME" };
        var image = new Option<string>("--image", "-i") { Description = "The image beside requests: blank, noise, a file, or a folder.", HelpName = "blank|noise|FILE|DIR", DefaultValueFactory = _ => "blank" };
        var seed = new Option<uint>("--seed") { Description = "Seed of noise images.", HelpName = "N" };
        var alpha = new Option<string>("--alpha") { Description = "Strengths to try.", HelpName = "LIST", DefaultValueFactory = _ => string.Join(',', defaults.Alphas.Select(a => a.ToString(CultureInfo.InvariantCulture))) };
        var layers = new Option<string>("--layers") { Description = "Layer sets to try, such as all;1-16;8-24.", HelpName = "LIST;LIST", DefaultValueFactory = _ => "all" };
        var scope = new Option<string>("--scope") { Description = "Scopes to try.", HelpName = "LIST", DefaultValueFactory = _ => "prefill,all" };
        var overRefusal = new Option<double>("--over-refusal-budget") { Description = "Most that refusals of benign requests may rise, as a share.", HelpName = "SHARE", DefaultValueFactory = _ => defaults.OverRefusalBudget };
        var utilityBudget = new Option<double>("--utility-budget") { Description = "Most that right answers may fall, as a share.", HelpName = "SHARE", DefaultValueFactory = _ => defaults.UtilityBudget };
        var maxTokens = new Option<int>("--max-tokens", "-n") { Description = "Most tokens an answer.", HelpName = "N", DefaultValueFactory = _ => defaults.MaxTokens };
        var force = new Option<bool>("--force") { Description = "Use vectors that were made for another model of the same shape." };
        var json = new Option<bool>("--json") { Description = "Print the curve as one JSON object instead of the table." };
        var command = new Command("calibrate", "Sweeps alpha, layers and scope on a dev split and writes the best setting within budgets into the vector file, with the whole curve. generate uses it when no alpha, scope or layers are given.");
        model.AddTo(command);
        foreach (var option in (ReadOnlySpan<Option>)[vectors, harmful, benign, utility, field, image, seed, alpha, layers, scope, overRefusal, utilityBudget, maxTokens, force, json])
            command.Options.Add(option);
        command.SetAction(async (parse, cancel) =>
        {
            var target = parse.GetRequiredValue(vectors);
            if (Path.GetExtension(target).ToLowerInvariant() is not (".safetensors" or ".gguf"))
                throw new UsageException($"--vectors {target}: the operating point is written into it; expected a name that ends in .safetensors or .gguf");
            var options = new CalibrationOptions
            {
                Images = ExtractionImages.Parse(parse.GetRequiredValue(image), parse.GetValue(seed)),
                Alphas = Alphas(parse.GetRequiredValue(alpha)),
                Layers = Layers(parse.GetRequiredValue(layers)),
                Scopes = Scopes(parse.GetRequiredValue(scope)),
                OverRefusalBudget = Budget(overRefusal),
                UtilityBudget = Budget(utilityBudget),
                MaxTokens = parse.GetValue(maxTokens) is >= 1 and var tokens ? tokens : throw new UsageException("--max-tokens is below 1"),
            };
            var shift = ShiftVectors.Open(target);
            var bad = Anchors.Read(parse.GetRequiredValue(harmful), parse.GetValue(field));
            var good = Anchors.Read(parse.GetRequiredValue(benign), parse.GetValue(field));
            var questions = parse.GetValue(utility) is { } path ? Calibration.ReadUtility(path) : [];
            using var opened = model.Open(parse, terminal, cancel);
            var text = opened.Network.Spec.Text;
            shift.Check(text.Layers, text.HiddenSize, opened.Network.Fingerprint, parse.GetValue(force));
            var result = await terminal.WithSteps("Calibrating", "answers", progress =>
                Calibration.RunAsync(opened, shift, bad, good, questions, options with { Progress = progress }, cancel)).ConfigureAwait(false);
            await terminal.Output.WriteLineAsync(parse.GetValue(json)
                ? Json.Write(writer => CalibrationCurve.Write(writer, result))
                : Table(result)).ConfigureAwait(false);
            if (result.Best is not { } best)
                throw new InvalidDataException($"{target} is unchanged: no setting within the budgets refuses more harmful requests than no steering does");
            var curve = new Dictionary<string, string>
            {
                [Calibration.CurveKey] = CalibrationCurve.ToJson(result),
                ["calibration.harmful.sha256"] = Anchors.Hash(bad),
                ["calibration.benign.sha256"] = Anchors.Hash(good),
            };
            foreach (var note in shift.With(best.Setting).With(curve).Save(target))
                terminal.Error.WriteLine($"trimtab: {note}");
            if (!parse.GetValue(json))
                await terminal.Output.WriteLineAsync($"{target}: alpha {best.Setting.Alpha}, scope {Name(best.Setting.Scope)}, layers {best.Setting.Layers?.ToString() ?? "all"}").ConfigureAwait(false);
            return 0;

            double Budget(Option<double> option) => parse.GetValue(option) is >= 0 and <= 1 and var share
                ? share
                : throw new UsageException($"{option.Name} is {parse.GetValue(option)}; expected a share from 0 to 1");
        });
        return command;
    }

    private static float[] Alphas(string list)
    {
        // 0 is unsteered, which is always measured.
        float[] alphas = [.. list.Split(',').Select(part =>
            float.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out var value) && float.IsFinite(value) && value >= 0
                ? value
                : throw new UsageException($"--alpha {list}: expected numbers from 0, such as 0.5,1,1.5")).Where(value => value > 0)];
        return alphas.Length > 0 ? alphas : throw new UsageException($"--alpha {list}: expected a number above 0; unsteered is always measured");
    }

    private static LayerSet?[] Layers(string list)
    {
        try
        {
            return [.. list.Split(';').Select(part => part.Trim() == "all" ? null : LayerSet.Parse(part))];
        }
        catch (FormatException error)
        {
            throw new UsageException($"--{error.Message}, or all; sets are separated by semicolons");
        }
    }

    private static SteeringScope[] Scopes(string list) => [.. list.Split(',').Select(part => part.Trim() switch
    {
        "all" => SteeringScope.All,
        "prefill" => SteeringScope.Prefill,
        "decode" => SteeringScope.Decode,
        _ => throw new UsageException($"--scope {list}: expected all, prefill or decode, separated by commas"),
    })];

    private static string Name(SteeringScope scope) => scope.ToString().ToLowerInvariant();

    private static string Table(CalibrationResult result)
    {
        var width = Math.Max(6, result.Points.Max(point => point.Setting.Layers?.ToString().Length ?? 3));
        var lines = new List<string> { $"alpha  scope    {"layers".PadRight(width)}  harmful refused        benign refused         right" };
        foreach (var point in result.Points)
        {
            var mark = ReferenceEquals(point, result.Best) ? "  <- chosen" : point.WithinBudget ? "" : "  over budget";
            lines.Add($"{point.Setting.Alpha,5}  {(point.Setting.Alpha == 0 ? "-" : Name(point.Setting.Scope)),-7}  {(point.Setting.Layers?.ToString() ?? "all").PadRight(width)}  {Show(point.Refused)}  {Show(point.OverRefused)}  {Show(point.Right)}{mark}");
        }
        return string.Join(Environment.NewLine, lines);

        static string Show(Share share) => share.Of == 0 ? "-".PadRight(21) : $"{share.Value,6:P1} [{share.Interval.Low:P0}, {share.Interval.High:P0}]".PadRight(21);
    }
}
