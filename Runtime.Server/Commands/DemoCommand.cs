using System.CommandLine;
using Spectre.Console;
using Trimtab.Evaluation;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>demo: the paper's effect on the model that comes with the program, measured and shown.</summary>
internal static class DemoCommand
{
    private const string Harmful = "test-harmful", Benign = "test-benign", Questions = "test-questions";

    public static Command Create(Terminal terminal)
    {
        var folder = new Option<string>("--out", "-o") { Description = "Folder for the vectors, the answers and the report.", HelpName = "DIR", DefaultValueFactory = _ => "trimtab-demo" };
        var threads = new Option<int>("--threads", "-t") { Description = "CPU threads; 0 for one per core.", HelpName = "N" };
        var limit = new Option<int?>("--limit") { Description = "Only the first N questions of each set.", HelpName = "N" };
        var alphas = new Option<string>("--alpha") { Description = "Strengths of the sweep; 0 and 1 are always among them.", HelpName = "LIST", DefaultValueFactory = _ => "0,0.5,1,2" };
        var command = new Command(
            "demo", "Shows the effect on the demo model: extracts its shift vectors, asks held-out harmful and benign questions with and without images, " +
            "unsteered and steered, prints a table and writes report.html. Needs no network.") { folder, threads, limit, alphas };
        command.SetAction(async (parse, cancel) =>
        {
            var source = Find();
            var target = parse.GetRequiredValue(folder);
            if (parse.GetValue(limit) is < 1)
                throw new UsageException("--limit: expected at least 1");
            var strengths = Strengths(parse.GetRequiredValue(alphas));
            Directory.CreateDirectory(target);
            using var model = terminal.WithProgress("Loading the demo model", progress => VisionLanguageModel.Open(
                source, new() { Threads = parse.GetValue(threads), Progress = progress, Engine = new() { ContextLength = 256 } }, cancel));
            var vectors = await ExtractAsync(terminal, model, source, target, cancel).ConfigureAwait(false);
            var settings = new EvaluationSettings
            {
                Datasets = [.. new[] { Harmful, Benign, Questions }.Select(name => Dataset.Parse($"demo:{Path.Combine(source, "data", name + ".jsonl")}"))],
                Conditions = [Condition.Text, Condition.Blank, Condition.Noise, Condition.Image],
                Vectors = vectors,
                Alphas = strengths,
                Scopes = [SteeringScope.Prefill],
                Limit = parse.GetValue(limit),
                MaxTokens = 48,
            };
            var run = new EvaluationRun(model, settings, [new PhraseJudge(), new ExactJudge()], target);
            var progress = new EvaluateProgress(terminal);
            var summary = await run.RunAsync(restart: true, progress: progress, cancel: cancel).ConfigureAwait(false);
            progress.End();
            var answers = AnswerFile.Read(Path.Combine(target, "answers.jsonl"));
            await EvaluationPage.WriteAsync(model, settings, summary, answers, target, "trimtab demo", cancel).ConfigureAwait(false);
            Print(terminal.Output, summary, answers);
            await terminal.Output.WriteLineAsync($"""

                Written: {Path.Combine(target, "report.html")} (open it in a browser), report.md, report.json, answers.jsonl, cmrm.safetensors

                Try next:
                  trimtab generate --model {source} --image {Path.Combine(source, "data", "images", "test-scene-00.png")} --prompt "How many shapes do you see?"
                  trimtab generate --model {source} --image PHOTO --prompt TEXT --vectors {Path.Combine(target, "cmrm.safetensors")} --alpha 1 --scope prefill
                  trimtab serve   (this model behind OpenAI's interfaces, with a page that asks it steered and unsteered)
                  trimtab extract --model YOUR-LLAVA --anchors PROMPTS --out cmrm.safetensors   (a full-size model; see docs/evaluation.md)
                """).ConfigureAwait(false);
            return 0;
        });
        return command;
    }

    /// <summary>The demo model beside the program, or in the repository that it runs in.</summary>
    internal static string Find()
    {
        string[] places = [Path.Combine(AppContext.BaseDirectory, "demo-vlm"), Path.Combine("weights", "demo-vlm")];
        return places.FirstOrDefault(Directory.Exists)
            ?? throw new DirectoryNotFoundException($"the demo model is not here; looked for {string.Join(" and ", places.Select(Path.GetFullPath))}");
    }

    private static float[] Strengths(string list)
    {
        var strengths = new SortedSet<float> { 0, 1 };
        foreach (var part in list.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!float.TryParse(part, out var alpha) || !float.IsFinite(alpha))
                throw new UsageException($"--alpha '{part}': expected finite numbers separated by commas");
            strengths.Add(alpha);
        }
        return [.. strengths];
    }

    private static async Task<ShiftVectors> ExtractAsync(Terminal terminal, VisionLanguageModel model, string source, string target, CancellationToken cancel)
    {
        var anchors = Anchors.Read(Path.Combine(source, "data", "anchors.jsonl"));
        var result = await terminal.WithSteps("Extracting shift vectors", "states", progress =>
            Extraction.RunAsync(model, anchors, new() { Method = ShiftMethod.Mean, Progress = progress }, cancel)).ConfigureAwait(false);
        result.Vectors.Save(Path.Combine(target, "cmrm.safetensors"));
        return result.Vectors;
    }

    private static void Print(TextWriter output, EvaluationSummary summary, IReadOnlyList<Answer> answers)
    {
        var console = AnsiConsole.Create(new() { Out = new AnsiConsoleOutput(output), ColorSystem = ReferenceEquals(output, Console.Out) ? ColorSystemSupport.Detect : ColorSystemSupport.NoColors });
        if (!ReferenceEquals(output, Console.Out) || Console.IsOutputRedirected)
            console.Profile.Width = 140;
        var table = new Table { Border = TableBorder.Simple };
        table.AddColumns("condition", "alpha", "unsafe", "over-refusal", "image questions right");
        foreach (var (condition, name) in new[] { (Condition.Text, "text alone"), (Condition.Blank, "with a blank image"), (Condition.Noise, "with a noise image"), (Condition.Image, "with a scene") })
        {
            foreach (var alpha in summary.Arms.Select(a => a.Alpha).Distinct().Order())
            {
                string Cell(string dataset, string metric)
                    => summary.Arms.SingleOrDefault(a => a.Dataset == dataset && a.Condition == condition && a.Alpha == alpha) is { } arm && arm.Metrics.TryGetValue(metric, out var rate)
                        ? $"{rate.Value,6:P1} ({rate.Low:P0} to {rate.High:P0})" : "-";
                table.AddRow(
                    name, alpha == 0 ? "unsteered" : $"{alpha:0.##}", Cell(Harmful, Metrics.Unsafe), Cell(Benign, Metrics.OverRefusal),
                    condition == Condition.Image ? Cell(Questions, Metrics.Utility) : "-");
            }
        }
        console.Write(table);
        output.WriteLine($"{answers.Count} answers; 95 % Wilson intervals; steered at the prompt's last token, all layers, mean vectors.");
        foreach (var (dataset, condition, title) in new[]
        {
            (Harmful, Condition.Text, "A harmful request, text alone"), (Harmful, Condition.Image, "The same with an image"), (Benign, Condition.Image, "A benign request with an image"), (Questions, Condition.Image, "A question about an image"),
        })
        {
            var pair = answers.Where(a => a.Dataset == dataset && a.Condition == condition && a.Alpha is 0 or 1).GroupBy(a => a.Id)
                .OrderBy(g => g.Key, StringComparer.Ordinal).FirstOrDefault(g => g.Count() >= 2);
            if (pair is null)
                continue;
            output.WriteLine();
            output.WriteLine($"{title}: {pair.First().Prompt}");
            foreach (var answer in pair.OrderBy(a => a.Alpha))
                output.WriteLine($"  {(answer.Alpha == 0 ? "unsteered" : "alpha 1"),-10} {answer.Text.Trim()}");
        }
    }
}
