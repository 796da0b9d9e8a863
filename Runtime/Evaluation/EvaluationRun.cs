using System.Diagnostics;
using System.Text;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Steering;

namespace Trimtab.Evaluation;

/// <summary>How far an evaluation is.</summary>
/// <param name="Done">Answers so far, with those of earlier runs.</param>
/// <param name="Total">Answers in all.</param>
/// <param name="Resumed">Answers of earlier runs.</param>
/// <param name="Tokens">Tokens generated in this run.</param>
/// <param name="Elapsed">Time of this run.</param>
public sealed record EvaluationProgress(int Done, int Total, int Resumed, long Tokens, TimeSpan Elapsed)
{
    /// <summary>Answers a second in this run.</summary>
    public double Rate => Elapsed > TimeSpan.Zero ? (Done - Resumed) / Elapsed.TotalSeconds : 0;

    /// <summary>Time left at that rate, or null before the first answer.</summary>
    public TimeSpan? Left => Rate > 0 ? TimeSpan.FromSeconds((Total - Done) / Rate) : null;
}

/// <summary>
/// Asks a model every question under every condition and steering, judges the answers, and sums them up. Files in its folder:
/// answers.jsonl (grows line by line), run.json (settings), report.json, report.md. A run that was ended goes on where it stopped.
/// </summary>
/// <param name="model">The model; the caller keeps it.</param>
/// <param name="settings">What to ask, and how.</param>
/// <param name="judges">In order of precedence.</param>
/// <param name="folder">Where the files go.</param>
public sealed class EvaluationRun(VisionLanguageModel model, EvaluationSettings settings, IReadOnlyList<IJudge> judges, string folder)
{
    /// <summary>One steering of the sweep.</summary>
    private sealed record Steered(string Level, float Alpha, LayerSet? Layers, SteeringScope Scope);

    /// <summary>One answer to be had.</summary>
    private sealed record Item(Question Question, string Condition, string Text, string? ImageFile, Steered Steering);

    private readonly List<string> _notes = [];
    private readonly SortedDictionary<string, IReadOnlyList<string>> _missing = new(StringComparer.Ordinal);
    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, (int Count, string First)> _skipped = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Image> _meaningless = [];

    /// <summary>What was found while planning, for a person: conditions that cannot be offered, missing images.</summary>
    public IReadOnlyList<string> Notes => _notes;

    private string AnswersPath => Path.Combine(folder, "answers.jsonl");

    /// <summary>Runs what is still to do and writes the report.</summary>
    /// <param name="restart">Forget an earlier run's answers.</param>
    /// <param name="planned">Is told the notes before the first question is asked.</param>
    /// <param name="progress">Is told of every answer.</param>
    /// <param name="cancel">Stops it; finished answers are kept.</param>
    /// <exception cref="ArgumentException">A setting cannot be meant, or differs from that of the run to be resumed.</exception>
    /// <exception cref="InvalidDataException">A data set's file, or an earlier run's, is damaged.</exception>
    /// <exception cref="JudgeException">A judge cannot be reached; the run can be resumed.</exception>
    public async Task<EvaluationSummary> RunAsync(
        bool restart = false, Action<IReadOnlyList<string>>? planned = null, IProgress<EvaluationProgress>? progress = null, CancellationToken cancel = default)
    {
        settings.Validate(model);
        var fields = settings.Fields(model, judges);
        var items = Plan();
        planned?.Invoke(_notes);
        Directory.CreateDirectory(folder);
        using var answers = OpenAnswers(fields, restart);
        var open = items.Where(item => !answers.Has(Key(item))).ToList();
        var (resumed, tokens, start) = (items.Count - open.Count, 0L, Stopwatch.GetTimestamp());
        progress?.Report(new(resumed, items.Count, resumed, 0, TimeSpan.Zero));
        var done = resumed;
        await Parallel.ForEachAsync(open, new ParallelOptions { MaxDegreeOfParallelism = settings.Parallel, CancellationToken = cancel }, async (item, stop) =>
        {
            if (await AnswerAsync(item, stop).ConfigureAwait(false) is not { } answer)
                return;
            answer = await JudgeAsync(item.Question, answer, stop).ConfigureAwait(false);
            answers.Append(answer);
            lock (_lock)
                progress?.Report(new(++done, items.Count, resumed, tokens += answer.TokenIds.Length, Stopwatch.GetElapsedTime(start)));
        }).ConfigureAwait(false);
        var keys = items.Select(Key).ToHashSet(StringComparer.Ordinal);
        var summary = EvaluationSummary.Summarize(answers.Answers.Where(answer => keys.Contains(answer.Key)), settings.Seed) with
        {
            Notes = [.. _notes, .. _skipped.Select(skip => $"{skip.Key}: {skip.Value.Count} questions were skipped: {skip.Value.First}")],
            MissingImages = _missing,
        };
        RunFile.Whole(Path.Combine(folder, "report.json"), Encoding.UTF8.GetBytes(summary.ToJson()));
        RunFile.Whole(Path.Combine(folder, "report.md"), Encoding.UTF8.GetBytes(SummaryMarkdown.Write(summary, fields)));
        return summary;
    }

    private AnswerFile OpenAnswers(SortedDictionary<string, string> fields, bool restart)
    {
        var run = Path.Combine(folder, "run.json");
        if (restart)
            File.Delete(AnswersPath);
        else if (File.Exists(AnswersPath) && !File.Exists(run))
            throw new ArgumentException($"{AnswersPath} has answers of a run whose settings are not known (no run.json); --restart begins again");
        else if (RunFile.Difference(run, fields) is { } difference)
            throw new ArgumentException($"{folder} holds a run with other settings: {difference}; go on with the former, choose another folder, or begin again with --restart");
        RunFile.Write(run, fields, model, settings.Vectors);
        return new(AnswersPath);
    }

    private static string Key(Item item) => Blank(item).Key;

    private static Answer Blank(Item item) => new()
    {
        Dataset = item.Question.Dataset,
        Id = item.Question.Id,
        Category = item.Question.Category,
        Condition = item.Condition,
        Level = item.Steering.Level,
        Alpha = item.Steering.Alpha,
        Layers = item.Steering.Layers?.ToString() ?? "all",
        Scope = EvaluationSettings.Name(item.Steering.Scope),
        // Without its image a question whose harm stands there asks for nothing harmful.
        Kind = item.Question.HarmInImage && !Condition.ShowsImage(item.Condition) ? null : item.Question.Kind,
        Expected = item.Question.Expected ?? item.Question.Reference,
        Prompt = item.Text,
        Image = item.ImageFile is not null && Condition.ShowsImage(item.Condition) ? item.Question.Image ?? item.ImageFile : item.Question.Noise is { } noise && item.ImageFile is not null ? noise : null,
        Text = "",
    };

    private List<Item> Plan()
    {
        List<Steered> sweep = settings.Alphas.Contains(0) ? [new("none", 0, null, SteeringScope.All)] : [];
        foreach (var level in settings.Levels.Distinct())
            foreach (var layers in settings.Layers.Distinct())
                foreach (var scope in settings.Scopes.Distinct())
                    foreach (var alpha in settings.Alphas.Distinct().Where(alpha => alpha != 0))
                        sweep.Add(new(level, alpha, layers, scope));
        var items = new List<Item>();
        foreach (var set in settings.Datasets)
        {
            var questions = set.Read(settings.Limit);
            var missing = new List<string>();
            foreach (var condition in settings.Conditions.Distinct())
            {
                if (model.Files.Processor is null && condition is not (Condition.Text or Condition.Caption))
                {
                    _notes.Add($"{set.Name}: no condition {condition}: the model sees no images");
                    continue;
                }
                var asked = questions.Select(question => (Question: question, Text: Condition.TextOf(question, condition))).ToList();
                if (asked.Count(ask => ask.Text is null) is > 0 and var without)
                    _notes.Add($"{set.Name}: {(without == questions.Count ? "no condition" : $"{without} of {questions.Count} questions have no condition")} {condition}: the data set has no {(condition == Condition.Image ? "image" : condition)} for it");
                var there = new List<(Question Question, string Text, string? File)>();
                foreach (var (question, text) in asked.Where(ask => ask.Text is not null))
                {
                    var name = Condition.ShowsImage(condition) ? question.Image : condition == Condition.Noise ? question.Noise : null;
                    var file = name is not null && (question.Draw is null || !Condition.ShowsImage(condition)) ? Find(set, name) : null;
                    if (name is not null && file is null && (question.Draw is null || !Condition.ShowsImage(condition)))
                        missing.Add(name);
                    else
                        there.Add((question, text!, file ?? (question.Draw is not null && Condition.ShowsImage(condition) ? DrawnPath(question) : null)));
                }
                foreach (var steering in sweep)
                    items.AddRange(there.Select(ask => new Item(ask.Question, condition, ask.Text, ask.File, steering)));
            }
            if (missing.Count == 0)
                continue;
            _missing[set.Name] = [.. missing.Distinct().Order(StringComparer.Ordinal)];
            var names = _missing[set.Name];
            _notes.Add($"{set.Name}: {names.Count} images are missing and their questions skipped{(settings.Images is null ? " (--images names their folder)" : "")}: " +
                string.Join(", ", names.Take(20)) + (names.Count > 20 ? $", … (all {names.Count} are in report.json)" : ""));
        }
        return items;
    }

    private string DrawnPath(Question question)
        => Path.Combine("images", $"{question.Dataset}-{string.Concat(question.Id.Select(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' ? c : '_'))}.png");

    private string? Find(Dataset set, string name)
    {
        var beside = Path.GetDirectoryName(Path.GetFullPath(set.Path))!;
        string[] places = settings.Images is { } images
            ? [Path.Combine(images, name), Path.Combine(images, set.Name, name), Path.Combine(images, Path.GetFileName(name)), Path.Combine(beside, name)]
            : [Path.Combine(beside, name)];
        return places.FirstOrDefault(File.Exists);
    }

    private async Task<Answer?> AnswerAsync(Item item, CancellationToken cancel)
    {
        var answer = Blank(item);
        try
        {
            IReadOnlyList<Image> images = ImageOf(item) is { } image ? [image] : [];
            var options = new GenerationOptions
            {
                MaxTokens = settings.MaxTokens,
                HashLogits = true,
                Steering = item.Steering.Level == "none" ? null : new(
                    item.Steering.Level == "sample" ? await model.SampleShiftAsync(model.ChatPair([new("user", SelfJudge.Literal(model, item.Text), 1)]), cancel: cancel).ConfigureAwait(false) : settings.Vectors!,
                    item.Steering.Alpha, item.Steering.Scope, item.Steering.Layers),
            };
            var (text, sequence) = (new StringBuilder(), (Sequence?)null);
            await foreach (var update in model.GenerateAsync(PromptOf(item.Text, images), options, cancel).ConfigureAwait(false))
            {
                text.Append(update.Text);
                sequence = update.Sequence;
            }
            cancel.ThrowIfCancellationRequested();
            return answer with
            {
                Text = text.ToString(),
                TokenIds = [.. sequence!.Generated],
                PromptTokens = sequence.Prompt.Tokens.Length,
                LogitsHash = sequence.LogitsHash,
                Finish = sequence.Finish == FinishReason.Stop ? "stop" : "length",
            };
        }
        catch (Exception error) when (error is ArgumentException or InvalidImageException or IOException)
        {
            // One question that does not fit the context, or whose image cannot be read, does not end the others.
            var place = $"{item.Question.Dataset} ({item.Condition})";
            lock (_lock)
            {
                var (count, first) = _skipped.GetValueOrDefault(place, (0, $"{item.Question.Id}: {error.Message}"));
                _skipped[place] = (count + 1, string.CompareOrdinal(first, $"{item.Question.Id}: {error.Message}") <= 0 ? first : $"{item.Question.Id}: {error.Message}");
            }
            return null;
        }
    }

    private Prompt PromptOf(string text, IReadOnlyList<Image> images)
    {
        var plain = SelfJudge.Literal(model, text);
        if (model.Files.Template is not null)
            return model.Chat(plain, images);
        return model.Raw(string.Concat(Enumerable.Repeat(model.Files.ImagePlaceholder + "\n", images.Count)) + plain, images);
    }

    private Image? ImageOf(Item item)
    {
        if (item.Condition is Condition.Text or Condition.Caption)
            return null;
        if (Condition.ShowsImage(item.Condition) && item.Question.Draw is { } draw)
        {
            var drawn = draw();
            var path = Path.Combine(folder, item.ImageFile!);
            if (!File.Exists(path))
            {
                Directory.CreateDirectory(Path.GetDirectoryName(path)!);
                drawn.Save(path);
            }
            return drawn;
        }
        if (item.ImageFile is { } file)
            return Image.Open(file);
        lock (_lock)
        {
            if (_meaningless.TryGetValue(item.Condition, out var made))
                return made;
            var (width, height) = model.Files.Processor!.Size;
            return _meaningless[item.Condition] = item.Condition == Condition.Blank
                ? Image.Blank(width, height, 255, 255, 255)
                : Image.Noise(width, height, settings.Seed);
        }
    }

    private async Task<Answer> JudgeAsync(Question question, Answer answer, CancellationToken cancel)
    {
        var verdicts = new SortedDictionary<string, string>(StringComparer.Ordinal);
        // A judge that understands is believed before one that looks at words; and where its reply cannot be read, nothing stands in for it.
        var understood = judges.Any(judge => judge.Understands);
        foreach (var judge in judges.OrderBy(judge => !judge.Understands))
        {
            if (await judge.JudgeAsync(question, answer, cancel).ConfigureAwait(false) is not { } said)
                continue;
            verdicts[judge.Name] = said.Verdict;
            answer = answer with
            {
                Refused = answer.Refused ?? said.Refused,
                Unsafe = answer.Unsafe ?? (judge.Understands || !understood ? said.Unsafe : null),
                Effective = answer.Effective ?? said.Effective,
                Correct = answer.Correct ?? said.Correct,
            };
        }
        return answer with { Verdicts = verdicts };
    }
}
