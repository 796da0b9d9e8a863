using System.CommandLine;
using System.Globalization;
using Trimtab.Evaluation;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>evaluate: benchmarks under conditions and steerings, judged and summed up.</summary>
internal static class EvaluateCommand
{
    private static readonly Option<string[]> Data = new("--data", "-d")
    {
        Description = $"A data set as NAME:FILE, or ALIAS=NAME:FILE; NAME is one of {string.Join(", ", Dataset.Formats)}.",
        HelpName = "NAME:FILE",
        Required = true,
        AllowMultipleArgumentsPerToken = true,
    };

    private static readonly Option<string[]> Map = new("--map") { Description = $"Fields of jsonl and csv files by role: {string.Join(", ", Dataset.Roles)}.", HelpName = "ROLE=FIELD,…", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<string?> Images = new("--images") { Description = "Folder of the data sets' images; by default beside each file.", HelpName = "DIR" };
    private static readonly Option<string> Conditions = new("--conditions")
    {
        Description = "What stands beside the text: nothing (text), a white image (blank), noise, the data set's image (image), its caption as text (caption), its image with a neutral query (query).",
        HelpName = "LIST",
        DefaultValueFactory = _ => "text,blank,image",
    };

    private static readonly Option<string?> Vectors = new("--vectors") { Description = "Shift vectors for the level of the data set.", HelpName = "FILE" };
    private static readonly Option<string?> Alpha = new("--alpha") { Description = "Strengths, 0 for unsteered; by default 0 and the vectors' operating point, else 1.", HelpName = "LIST" };
    private static readonly Option<string?> Layers = new("--layers")
    {
        Description = "Sets of steered layers, separated by ';', or by ',' where 'all' is among them: all;1-16;20,24-28.",
        HelpName = "SETS",
    };

    private static readonly Option<string?> Scope = new("--scope") { Description = "Steered tokens: all, prefill, decode; several separated by commas.", HelpName = "LIST" };
    private static readonly Option<string> Level = new("--level") { Description = "Steer by the vectors (dataset), by each request's own shift (sample), or both.", HelpName = "LIST", DefaultValueFactory = _ => "dataset" };
    private static readonly Option<bool> Force = new("--force") { Description = "Use vectors that were made for another model of the same shape." };
    private static readonly Option<string[]> Judge = new("--judge")
    {
        Description = "refusal, choice, exact, self, openai:URL#model; several separated by commas. By default refusal,choice,exact.",
        HelpName = "LIST",
        AllowMultipleArgumentsPerToken = true,
    };

    private static readonly Option<string?> JudgeCache = new("--judge-cache") { Description = "Folder of the judges' replies; by default judge-cache in the output folder.", HelpName = "DIR" };
    private static readonly Option<int?> Limit = new("--limit") { Description = "Only the first N questions of each data set.", HelpName = "N" };
    private static readonly Option<int> MaxTokens = new("--max-tokens", "-n") { Description = "Most tokens of an answer.", HelpName = "N", DefaultValueFactory = _ => 256 };
    private static readonly Option<ulong> Seed = new("--seed") { Description = "Seed of the noise image and of the bootstrap; answers are greedy.", HelpName = "N" };
    private static readonly Option<int> Parallel = new("--parallel") { Description = "Answers at the same time; changes none of them.", HelpName = "N", DefaultValueFactory = _ => 32 };
    private static readonly Option<bool> Restart = new("--restart") { Description = "Forget the answers that are in the output folder." };
    private static readonly Option<string> Out = new("--out", "-o") { Description = "Folder for answers.jsonl, run.json, report.json, report.md and report.html; a run that was ended goes on there.", HelpName = "DIR", Required = true };

    public static Command Create(Terminal terminal)
    {
        var model = new ModelArguments();
        var command = new Command("evaluate", "Asks benchmarks' questions with and without images, unsteered and steered; judges the answers and sums them up.");
        model.AddTo(command);
        foreach (var option in (ReadOnlySpan<Option>)[Data, Map, Images, Conditions, Vectors, Alpha, Layers, Scope, Level, Force, Judge, JudgeCache, Limit, MaxTokens, Seed, Parallel, Restart, Out])
            command.Options.Add(option);
        command.SetAction((parse, cancel) => RunAsync(parse, model, terminal, cancel));
        return command;
    }

    private static async Task<int> RunAsync(ParseResult parse, ModelArguments model, Terminal terminal, CancellationToken cancel)
    {
        var settings = Read(parse, terminal);
        var judges = (parse.GetValue(Judge) ?? []).SelectMany(Judges).DefaultIfEmpty("refusal,choice,exact").SelectMany(Judges).Distinct().ToList();
        var (folder, limit) = (parse.GetRequiredValue(Out), settings.Limit);
        if (limit < 1)
            throw new UsageException($"--limit is {limit}; expected at least 1");
        var cache = parse.GetValue(JudgeCache) ?? Path.Combine(folder, "judge-cache");
        foreach (var judge in judges)
            Make(judge, null, cache); // what is misspelt is told before a model is loaded
        foreach (var set in settings.Datasets)
            set.Read(limit);
        using var opened = model.Open(parse, terminal, cancel);
        var text = opened.Network.Spec.Text;
        settings.Vectors?.Check(text.Layers, text.HiddenSize, opened.Network.Fingerprint, parse.GetValue(Force));
        try
        {
            settings.Validate(opened);
        }
        catch (ArgumentException error)
        {
            throw new UsageException($"--{error.Message}");
        }
        var run = new EvaluationRun(opened, settings, [.. judges.Select(judge => Make(judge, opened, cache)!)], folder);
        var progress = new EvaluateProgress(terminal);
        try
        {
            var summary = await run.RunAsync(parse.GetValue(Restart), notes =>
            {
                foreach (var note in notes)
                    terminal.Error.WriteLine($"trimtab: {note}");
            }, progress, cancel).ConfigureAwait(false);
            progress.End();
            Print(summary, terminal.Output);
            await EvaluationPage.WriteAsync(opened, settings, summary, AnswerFile.Read(Path.Combine(folder, "answers.jsonl")), folder, $"trimtab {string.Join(' ', parse.Tokens.Select(token => token.Value.Contains(' ') ? $"\"{token.Value}\"" : token.Value))}", cancel).ConfigureAwait(false);
            await terminal.Output.WriteLineAsync($"{Path.Combine(folder, "report.html")}, report.md, report.json, answers.jsonl").ConfigureAwait(false);
            return 0;
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            progress.End();
            await terminal.Error.WriteLineAsync($"trimtab: interrupted; {progress.Last?.Done ?? 0} of {progress.Last?.Total ?? 0} answers are in {folder}, and the same command goes on from there").ConfigureAwait(false);
            return 130;
        }
        catch (JudgeException error)
        {
            progress.End();
            throw new JudgeException($"{error.Message}; {progress.Last?.Done ?? 0} of {progress.Last?.Total ?? 0} answers are in {folder}, and the same command goes on from there", error);
        }
    }

    private static EvaluationSettings Read(ParseResult parse, Terminal terminal)
    {
        try
        {
            var map = Mapping((parse.GetValue(Map) ?? []).SelectMany(List));
            List<Dataset> sets = [.. (parse.GetValue(Data) ?? []).Select(set => Dataset.Parse(set, map))];
            if (map.Count > 0 && sets.All(set => set.Map is null))
                throw new UsageException("--map is for jsonl:FILE and csv:FILE; there is none among --data");
            var vectors = parse.GetValue(Vectors) is { } file ? ShiftVectors.Open(file) : null;
            var levels = List(parse.GetRequiredValue(Level)).ToList();
            var (alphas, layers, scopes) = (parse.GetValue(Alpha), parse.GetValue(Layers), parse.GetValue(Scope));
            if (vectors is null && !levels.Contains("sample") && (layers ?? scopes) is not null)
                throw new UsageException($"{(layers is null ? "--scope" : "--layers")} needs --vectors");
            if (alphas is null && vectors?.Metadata.TryGetValue("alpha", out var point) == true)
            {
                // The operating point that a calibration wrote into the file.
                alphas = $"0,{point}";
                layers ??= vectors.Metadata.GetValueOrDefault("layers");
                scopes ??= vectors.Metadata.GetValueOrDefault("scope");
                terminal.Error.WriteLine($"trimtab: no --alpha: the vectors' operating point is used (alpha {point}, layers {layers ?? "all"}, scope {scopes ?? "all"})");
            }
            alphas ??= vectors is not null || levels.Contains("sample") ? "0,1" : "0";
            return new()
            {
                Datasets = sets,
                Images = parse.GetValue(Images) is { } images ? Directory.Exists(images) ? images : throw new DirectoryNotFoundException($"--images {images}: no such folder") : null,
                Conditions = [.. List(parse.GetRequiredValue(Conditions))],
                Vectors = vectors,
                Alphas = [.. List(alphas).Select(Number)],
                Layers = [.. LayerSets(layers ?? "all")],
                Scopes = [.. List(scopes ?? "all").Select(ScopeOf)],
                Levels = levels,
                Limit = parse.GetValue(Limit),
                MaxTokens = parse.GetValue(MaxTokens),
                Seed = parse.GetValue(Seed),
                Parallel = parse.GetValue(Parallel),
            };
        }
        catch (FormatException error)
        {
            throw new UsageException($"--{error.Message}");
        }
    }

    /// <summary>A judge by its name; null for the model as its own judge before there is a model.</summary>
    private static IJudge? Make(string name, VisionLanguageModel? model, string cache) => name switch
    {
        "refusal" => new PhraseJudge(),
        "choice" => new ChoiceJudge(),
        "exact" => new ExactJudge(),
        "self" => model is null ? null : SelfJudge.Create(model, cache),
        _ when name.StartsWith(OpenAIJudge.Prefix, StringComparison.Ordinal) => OpenAIJudge.Create(name, cache),
        _ => throw new UsageException($"--judge {name}: expected refusal, choice, exact, self or openai:URL#model"),
    };

    private static IEnumerable<string> Judges(string list)
    {
        // A URL may hold commas: a judge behind one takes all of its argument from there on.
        var url = list.IndexOf(OpenAIJudge.Prefix, StringComparison.Ordinal);
        return url < 0 ? List(list) : [.. List(list[..url]), list[url..].Trim()];
    }

    private static IEnumerable<string> List(string text) => text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private static Dictionary<string, string> Mapping(IEnumerable<string> pairs)
    {
        var map = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var pair in pairs)
        {
            var equals = pair.IndexOf('=');
            if (equals <= 0 || equals == pair.Length - 1 || !Dataset.Roles.Contains(pair[..equals]) || !map.TryAdd(pair[..equals], pair[(equals + 1)..]))
                throw new FormatException($"map '{pair}': expected ROLE=FIELD, each role once, of {string.Join(", ", Dataset.Roles)}");
        }
        return map;
    }

    private static float Number(string text)
        => float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var value) && float.IsFinite(value)
            ? value + 0 // −0 is 0
            : throw new FormatException($"alpha '{text}': expected finite numbers separated by commas");

    private static SteeringScope ScopeOf(string text) => text switch
    {
        "all" => SteeringScope.All,
        "prefill" => SteeringScope.Prefill,
        "decode" => SteeringScope.Decode,
        _ => throw new FormatException($"scope '{text}': expected all, prefill or decode"),
    };

    /// <summary>"all;1-16;20,24" or "all,1-16": null for all layers.</summary>
    internal static IEnumerable<LayerSet?> LayerSets(string text)
    {
        foreach (var piece in text.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!List(piece).Contains("all"))
            {
                yield return LayerSet.Parse(piece);
                continue;
            }
            foreach (var part in List(piece))
                yield return part == "all" ? null : LayerSet.Parse(part);
        }
    }

    private static void Print(EvaluationSummary summary, TextWriter output)
    {
        var metrics = Metrics.All.Where(metric => summary.Arms.Any(arm => arm.Metrics.ContainsKey(metric))).ToList();
        List<string[]> rows = [["data", "condition", "steering", "n", .. metrics.Select(metric => metric.Replace('_', ' '))]];
        rows.AddRange(summary.Arms.Select(arm => (string[])
        [
            arm.Dataset, arm.Condition,
            arm.Level == "none" ? "none" : $"{arm.Level} {arm.Alpha}{(arm.Layers == "all" ? "" : $" layers {arm.Layers}")}{(arm.Scope == "all" ? "" : $" {arm.Scope}")}",
            $"{arm.Answers}",
            .. metrics.Select(metric => arm.Metrics.TryGetValue(metric, out var rate) ? $"{100 * rate.Value:F1} [{100 * rate.Low:F1}, {100 * rate.High:F1}]" : ""),
        ]));
        var widths = rows[0].Select((_, column) => rows.Max(row => row[column].Length)).ToArray();
        foreach (var row in rows)
            output.WriteLine(string.Join("  ", row.Select((cell, column) => cell.PadRight(widths[column]))).TrimEnd());
    }
}
