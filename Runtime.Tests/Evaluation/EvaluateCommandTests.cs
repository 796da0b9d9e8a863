using System.Diagnostics;
using System.Text.Json;
using Trimtab.Evaluation;
using Trimtab.Imaging;
using Trimtab.Server;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Evaluation;

/// <summary>The command as a person meets it: files, resuming, refusals.</summary>
public class EvaluateCommandTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Make()
    {
        _folder = Directory.CreateTempSubdirectory("trimtab-evaluate-").FullName;
        TinyModel.WriteLlava(At("llava"));
        Directory.CreateDirectory(At("images"));
        Image.Noise(40, 30, 1).Save(At("images/a.png"));
        File.WriteAllText(At("images/broken.png"), "no image");
        File.WriteAllLines(At("vlsafe.jsonl"), Enumerable.Range(0, 6).Select(i =>
            $$$"""{"id": "v{{{i}}}", "query": "in the rain {{{i}}}", "image_path": "{{{(i < 4 ? "a.png" : $"gone{i}.png")}}}", "caption": "A cat.", "metadata": {"source": "x"}}"""));
        File.WriteAllLines(At("many.jsonl"), Enumerable.Range(0, 40).Select(i => $$"""{"id": "q{{i}}", "prompt": "the answer {{i}}", "answer": "x", "image": "images/a.png", "category": "c{{i % 2}}", "kind": "utility"}"""));
        File.WriteAllText(At("fig.csv"), "dataset,category_id,task_id,category_name,question,instruction\nF,1,1,Fraud,the rain?,Steps to rain.\n");
        ShiftVectors.Create([.. Enumerable.Range(0, 3).Select(l => (float[]?)[.. Enumerable.Range(0, 48).Select(i => MathF.Sin(i * (l + 1)))])]).Save(At("v.safetensors"));
    }

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private (int Code, string Output, string Error) Run(params string[] args)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(["evaluate", "-m", At("llava"), "-t", "2", .. args], output, error, TextReader.Null).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    private static List<string> Lines(string folder) => [.. File.ReadLines(Path.Combine(folder, "answers.jsonl")).Order(StringComparer.Ordinal)];

    [Test]
    public void A_sweep_leaves_every_answer_and_a_report()
    {
        var (code, output, error) = Run("-d", $"vlsafe:{At("vlsafe.jsonl")}", $"figstep:{At("fig.csv")}", "--images", At("images"), "--conditions", "text,blank,noise,image,caption,query",
            "--vectors", At("v.safetensors"), "--alpha", "0,1,2", "--layers", "all,1-2", "--scope", "prefill", "-n", "3", "-o", At("sweep"));
        Assert.That(code, Is.Zero, error);
        var answers = AnswerFile.Read(At("sweep/answers.jsonl"));
        // VLSafe: text, blank, noise, caption of 6, image of 4; FigStep: text, blank, noise, image, query. Unsteered, and 2 alphas × 2 layer sets.
        Assert.That(answers, Has.Count.EqualTo((4 * 6 + 4 + 5) * 5));
        Assert.That(answers.Select(a => a.Key).Distinct().Count(), Is.EqualTo(answers.Count));
        Assert.That(answers.Select(a => (a.Level, a.Alpha, a.Layers, a.Scope)).Distinct(), Is.EquivalentTo(new[]
        {
            ("none", 0f, "all", "all"), ("dataset", 1f, "all", "prefill"), ("dataset", 2f, "all", "prefill"), ("dataset", 1f, "1-2", "prefill"), ("dataset", 2f, "1-2", "prefill"),
        }));
        Assert.That(answers.Select(a => a.LogitsHash), Has.All.Length.EqualTo(64));
        Assert.That(answers.Where(a => a.Dataset == "vlsafe").All(a => a.Unsafe == !a.Refused));
        Assert.That(answers.Where(a => a.Id == "v0" && a.Condition == "text").Select(a => a.LogitsHash).Distinct().Count(), Is.EqualTo(5));
        Assert.That(error, Does.Contain("gone4.png, gone5.png").And.Contain("no condition caption").And.Contain("no condition query"));
        Assert.That(error.Split("gone4.png"), Has.Length.EqualTo(2));
        var summary = EvaluationSummary.Parse(File.ReadAllText(At("sweep/report.json")));
        Assert.That(summary.MissingImages["vlsafe"], Is.EqualTo(new[] { "gone4.png", "gone5.png" }));
        Assert.That(summary.Answers, Is.EqualTo(answers.Count));
        Assert.That(summary.ToJson(), Is.EqualTo((EvaluationSummary.Summarize(answers) with { Notes = summary.Notes, MissingImages = summary.MissingImages }).ToJson()));
        Assert.That(File.ReadAllText(At("sweep/report.md")), Does.Contain("| blank |"));
        Assert.That(output, Does.Contain("figstep").And.Contain("report.md"));
        var run = JsonDocument.Parse(File.ReadAllText(At("sweep/run.json"))).RootElement;
        Assert.That(run.GetProperty("settings").GetProperty("alpha").GetString(), Is.EqualTo("0,1,2"));
        Assert.That(run.GetProperty("settings").GetProperty("vectors").GetString(), Is.EqualTo(ShiftVectors.Open(At("v.safetensors")).Hash));
        Assert.That(File.Exists(At("sweep/images/figstep-F_1_1.png")));

        // Answers are those that the model gives alone.
        using var model = VisionLanguageModel.Open(At("llava"), new() { Threads = 1 });
        var alone = model.RunAsync(model.Chat("in the rain 2", [Image.Open(At("images/a.png"))]), new() { MaxTokens = 3, Steering = new(ShiftVectors.Open(At("v.safetensors")), 2, SteeringScope.Prefill, LayerSet.Parse("1-2")) }).Result;
        Assert.That(answers.Single(a => a is { Id: "v2", Condition: "image", Alpha: 2, Layers: "1-2" }).TokenIds, Is.EqualTo(alone.Generated));
    }

    [Test]
    public void Sample_level_steers_by_the_requests_own_shift()
    {
        var (code, _, error) = Run("-d", $"vlsafe:{At("vlsafe.jsonl")}", "--limit", "2", "--conditions", "blank", "--level", "sample", "--alpha", "0,1", "-n", "2", "-o", At("sample"));
        Assert.That(code, Is.Zero, error);
        var answers = AnswerFile.Read(At("sample/answers.jsonl"));
        Assert.That(answers.Select(a => a.Level), Is.EquivalentTo(new[] { "none", "none", "sample", "sample" }));
        Assert.That(answers.Select(a => a.LogitsHash).Distinct().Count(), Is.EqualTo(4));
    }

    [Test]
    public void A_killed_run_goes_on_to_the_same_answers()
    {
        string[] Arguments(string folder) => ["-d", $"demo:{At("many.jsonl")}", "--conditions", "text,image", "--vectors", At("v.safetensors"), "--alpha", "0,1", "-n", "24", "--parallel", "2", "-o", folder];
        var (killed, whole) = (At("killed"), At("whole"));
        using (var process = Process.Start(new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "trimtab.dll"), "evaluate", "-m", At("llava"), "-t", "1", .. Arguments(killed)])
        {
            RedirectStandardError = true, RedirectStandardOutput = true,
        })!)
        {
            var file = new FileInfo(Path.Combine(killed, "answers.jsonl"));
            for (var wait = Stopwatch.StartNew(); wait.Elapsed.TotalSeconds < 60 && !process.HasExited && (!file.Exists || file.Length < 4000); file.Refresh())
                Thread.Sleep(2);
            process.Kill(); // SIGKILL
            process.WaitForExit();
            Assert.That(process.ExitCode, Is.Not.Zero, process.StandardError.ReadToEnd());
        }
        var before = AnswerFile.Read(Path.Combine(killed, "answers.jsonl")).Count;
        Assert.That(before, Is.InRange(1, 159));
        File.AppendAllText(Path.Combine(killed, "answers.jsonl"), "{\"dataset\": \"ma"); // what a torn write leaves
        var resumed = Run(Arguments(killed));
        Assert.That(resumed.Code, Is.Zero, resumed.Error);
        Assert.That(Run(Arguments(whole)).Code, Is.Zero);
        Assert.That(Lines(killed), Has.Count.EqualTo(160));
        Assert.That(Lines(killed), Is.EqualTo(Lines(whole)));
        Assert.That(File.ReadAllText(Path.Combine(killed, "report.json")), Is.EqualTo(File.ReadAllText(Path.Combine(whole, "report.json"))));
        // Nothing is asked again.
        var stamp = File.ReadAllBytes(Path.Combine(killed, "answers.jsonl"));
        Assert.That(Run(Arguments(killed)).Code, Is.Zero);
        Assert.That(File.ReadAllBytes(Path.Combine(killed, "answers.jsonl")), Is.EqualTo(stamp));
    }

    [Test]
    public void Another_setting_is_refused_by_name_until_restarted()
    {
        string[] args = ["-d", $"demo:{At("many.jsonl")}", "--limit", "2", "--conditions", "text", "-o", At("other")];
        Assert.That(Run([.. args, "-n", "2"]).Code, Is.Zero);
        var refused = Run([.. args, "-n", "3"]);
        Assert.That(refused.Code, Is.EqualTo(1));
        Assert.That(refused.Error, Does.Contain("max-tokens was '2' and is '3'").And.Contain("--restart"));
        Assert.That(Run([.. args, "-n", "3", "--restart"]).Code, Is.Zero);
        Assert.That(AnswerFile.Read(At("other/answers.jsonl")), Has.Count.EqualTo(2));
        Assert.That(AnswerFile.Read(At("other/answers.jsonl")).Select(a => a.TokenIds.Length), Has.All.LessThanOrEqualTo(3));
    }

    [Test]
    public void An_interrupted_run_says_how_to_go_on()
    {
        using var model = VisionLanguageModel.Open(At("llava"), new() { Threads = 1 });
        var settings = new EvaluationSettings { Datasets = [Dataset.Parse($"demo:{At("many.jsonl")}")], Conditions = ["text"], MaxTokens = 4, Parallel = 1 };
        using var stop = new CancellationTokenSource();
        var run = new EvaluationRun(model, settings, [new ExactJudge()], At("stopped"));
        Assert.That(async () => await run.RunAsync(progress: new Counter(done => { if (done == 5) stop.Cancel(); }), cancel: stop.Token), Throws.InstanceOf<OperationCanceledException>());
        var before = AnswerFile.Read(At("stopped/answers.jsonl"));
        Assert.That(before, Has.Count.InRange(5, 6));
        var summary = new EvaluationRun(model, settings, [new ExactJudge()], At("stopped")).RunAsync().Result;
        Assert.That(summary.Answers, Is.EqualTo(40));
        Assert.That(AnswerFile.Read(At("stopped/answers.jsonl")).Take(before.Count).Select(a => a.Key), Is.EqualTo(before.Select(a => a.Key)));
    }

    [Test]
    public void What_cannot_be_asked_is_skipped_and_counted()
    {
        File.WriteAllLines(At("odd.jsonl"),
        [
            """{"id": "good", "prompt": "the <image> rain", "image": "images/a.png", "kind": "utility", "answer": "x"}""",
            """{"id": "broken", "prompt": "the rain", "image": "images/broken.png"}""",
            $$"""{"id": "long", "prompt": "{{new string('x', 3000)}}", "image": "images/a.png"}""",
        ]);
        var (code, _, error) = Run("-d", $"jsonl:{At("odd.jsonl")}", "--conditions", "image", "-n", "2", "-o", At("odd"));
        Assert.That(code, Is.Zero, error);
        var summary = EvaluationSummary.Parse(File.ReadAllText(At("odd/report.json")));
        Assert.That(summary.Answers, Is.EqualTo(1));
        Assert.That(summary.Notes.Single(), Does.Contain("2 questions were skipped"));
    }

    [Test]
    public async Task A_model_judge_decides_and_agreement_is_reported()
    {
        await using var server = new ModelJudgeTests.Stub((200, ModelJudgeTests.Stub.Completion("Safety: safe")), (200, ModelJudgeTests.Stub.Completion("who knows")), (200, ModelJudgeTests.Stub.Completion("Safety: unsafe")));
        var (code, _, error) = Run("-d", $"vlsafe:{At("vlsafe.jsonl")}", "--limit", "4", "--conditions", "text", "-n", "2", "--parallel", "1", "--judge", $"refusal,openai:{server.Url}#m", "-o", At("judged"));
        Assert.That(code, Is.Zero, error);
        var answers = AnswerFile.Read(At("judged/answers.jsonl"));
        Assert.That(answers.Select(a => a.Unsafe), Is.EqualTo(new bool?[] { false, null, true, true }));
        var summary = EvaluationSummary.Parse(File.ReadAllText(At("judged/report.json")));
        Assert.That(summary.Arms[0].Metrics["unsafe"], Has.Property("N").EqualTo(3).And.Property("Unjudged").EqualTo(1));
        Assert.That(summary.Agreements.Single().N, Is.EqualTo(3));
        Assert.That(summary.Unparsed.Single().Value, Is.EqualTo(1));
        Assert.That(Run("-d", $"vlsafe:{At("vlsafe.jsonl")}", "--limit", "1", "--conditions", "text", "-n", "2", "--judge", "self", "-o", At("self")).Code, Is.Zero);
        Assert.That(AnswerFile.Read(At("self/answers.jsonl")).Single().Verdicts.Keys, Is.EqualTo(new[] { "self" }));
    }

    [TestCase("-d vlsafe", 2, "NAME:FILE")]
    [TestCase("-d nothing:x", 2, "no data set")]
    [TestCase("-d vlsafe:none.jsonl", 1, "none.jsonl")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --conditions fog", 2, "conditions")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --alpha 1", 2, "vectors")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --alpha x", 2, "alpha 'x'")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --level none", 2, "level")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --layers 1-2", 2, "--vectors")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --vectors AT/v.safetensors --layers 9", 2, "1-3")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --judge oracle", 2, "oracle")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --judge openai:x", 2, "openai:URL#model")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --limit 0", 2, "limit")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --images AT/nowhere", 1, "nowhere")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl vlsafe:AT/vlsafe.jsonl", 2, "two data sets")]
    [TestCase("-d vlsafe:AT/vlsafe.jsonl --map prompt=x", 2, "--map")]
    [TestCase("-d jsonl:AT/vlsafe.jsonl --map colour=x", 2, "ROLE=FIELD")]
    public void Mistakes_get_one_line_and_a_code(string line, int code, string named)
    {
        var result = Run([.. line.Split(' ').Select(a => a.Replace("AT", _folder, StringComparison.Ordinal)), "-o", At("mistake")]);
        Assert.That(result.Code, Is.EqualTo(code), result.Error);
        Assert.That(result.Error, Does.StartWith("trimtab: ").And.Contain(named));
        Assert.That(result.Error.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
        Assert.That(Directory.Exists(At("mistake")), Is.False);
    }

    [Test]
    public void Layer_sets_are_separated_by_semicolons_or_by_commas_beside_all()
    {
        string Sets(string text) => string.Join(" | ", EvaluateCommand(text));
        static IEnumerable<string> EvaluateCommand(string text) => Trimtab.Server.Commands.EvaluateCommand.LayerSets(text).Select(set => set?.ToString() ?? "all");
        Assert.That(Sets("all,1-16;20,24-28"), Is.EqualTo("all | 1-16 | 20,24-28"));
        Assert.That(Sets("1,2;3"), Is.EqualTo("1-2 | 3"));
    }

    [Test]
    public void A_torn_line_is_dropped_and_a_damaged_one_named()
    {
        var (path, line) = (At("torn.jsonl"), Answers.Of("d", "1").ToLine());
        File.WriteAllText(path, $"{line}\n{{\"half");
        using (var file = new AnswerFile(path))
            file.Append(Answers.Of("d", "2"));
        Assert.That(AnswerFile.Read(path).Select(a => a.Id), Is.EqualTo(new[] { "1", "2" }));
        File.WriteAllText(path, $"{line}\nbad\n{line}\n");
        Assert.That(() => new AnswerFile(path), Throws.InstanceOf<InvalidDataException>().With.Message.Contains("line 2"));
        using var first = new AnswerFile(At("locked.jsonl"));
        Assert.That(() => new AnswerFile(At("locked.jsonl")), Throws.InstanceOf<IOException>());
    }

    private sealed class Counter(Action<int> action) : IProgress<EvaluationProgress>
    {
        public void Report(EvaluationProgress value) => action(value.Done);
    }
}
