using System.Text.Json;
using Trimtab.Evaluation;
using Trimtab.Steering;
using Trimtab.Tests.Checkpoints;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Evaluation;

public class CalibrationTests
{
    private CheckpointFiles _files = null!;

    [OneTimeSetUp]
    public void Make() => _files = new();

    [OneTimeTearDown]
    public void Remove() => _files.Dispose();

    [Test]
    public void The_largest_safety_gain_within_the_budgets_is_chosen_and_then_the_least_edit()
    {
        var plain = Point(0, null, SteeringScope.All, 2, 0, 9);
        Assert.That(Calibration.Choose([plain, Point(1, null, SteeringScope.All, 2, 0, 9)]), Is.Null, "no gain");
        Assert.That(Calibration.Choose([plain, Point(1, null, SteeringScope.All, 9, 5, 9, within: false)]), Is.Null, "over budget");
        Chosen(1, Point(0.5f, null, SteeringScope.All, 7, 0, 9), Point(1, null, SteeringScope.All, 9, 1, 8), Point(2, null, SteeringScope.All, 10, 9, 0, within: false));
        Chosen(0, Point(2, null, SteeringScope.All, 9, 0, 9), Point(1, null, SteeringScope.All, 9, 1, 9));
        Chosen(1, Point(1, null, SteeringScope.All, 9, 0, 8), Point(2, null, SteeringScope.All, 9, 0, 9));
        Chosen(1, Point(2, null, SteeringScope.All, 9, 0, 9), Point(1, null, SteeringScope.All, 9, 0, 9));
        Chosen(1, Point(1, null, SteeringScope.Prefill, 9, 0, 9), Point(1, "1-4", SteeringScope.All, 9, 0, 9));
        Chosen(1, Point(1, null, SteeringScope.All, 9, 0, 9), Point(1, null, SteeringScope.Prefill, 9, 0, 9));

        void Chosen(int index, params CalibrationPoint[] points) => Assert.That(Calibration.Choose([plain, .. points]), Is.SameAs(points[index]));
    }

    [TestCase(" Blue. ", "blue", true), TestCase("Two cats", "two cats.", true), TestCase("blue..", "blue", false), TestCase("light blue", "blue", false), TestCase("", ".", true)]
    public void Answers_are_compared_without_case_space_and_final_period(string answer, string expected, bool right)
        => Assert.That(Calibration.IsRight(answer, expected), Is.EqualTo(right));

    [Test]
    public void Utility_questions_name_images_beside_their_file()
    {
        Trimtab.Imaging.Image.Blank(2, 2, 1, 2, 3).Save(_files.At("i.png"));
        var questions = Calibration.ReadUtility(_files.Text("u.jsonl", """
            {"prompt": "p", "image": "i.png", "answer": "a"}

            {"prompt": "q", "answer": "b", "image": null}
            """));
        Assert.That(questions, Is.EqualTo(new UtilityQuestion[] { new("p", _files.At("i.png"), "a"), new("q", null, "b") }));
        foreach (var (line, named) in new[] { ("{\"prompt\": \"p\"}", "'answer'"), ("{\"answer\": \"p\"}", "'prompt'"), ("{\"prompt\": \"p\", \"answer\": \"a\", \"image\": \"no.png\"}", "no.png"), ("[]", "line 1"), ("", "no question") })
            Assert.That(() => Calibration.ReadUtility(_files.Text("v.jsonl", line)), Throws.TypeOf<InvalidDataException>().With.Message.Contains(named));
    }

    [Test]
    public async Task A_sweep_counts_every_setting_against_the_unsteered_model()
    {
        RefusingModel.Teach(TinyModel.WriteLlava(_files.At("llava")));
        using var model = VisionLanguageModel.Open(_files.At("llava"), new() { Threads = 2 });
        var vectors = RefusingModel.Vectors(_files.At("llava"));
        var options = new CalibrationOptions { MaxTokens = 1, Alphas = [0.5f, 1], Layers = [null, new([1])], Scopes = [SteeringScope.Prefill] };
        var plain = model.Tokenizer.Decode([.. (await model.RunAsync(model.Chat("what"), new() { MaxTokens = 1 })).Generated], true);
        var result = await Calibration.RunAsync(model, vectors, ["one", "two"], ["three"], [new("what", null, plain)], options);
        Assert.That(result.Points.Select(p => p.Setting.Alpha), Is.EqualTo(new[] { 0f, 0.5f, 1, 0.5f, 1 }));
        Assert.That(result.Points.Select(p => p.Refused.Of), Is.All.EqualTo(2));
        Assert.That(result.Points[0].Right, Is.EqualTo(new Share(1, 1)));
        Assert.That(result.Points[0].WithinBudget);
        Assert.That(result.Points[1].Right.Count, Is.Zero, "steering this strong changes every answer");
        Assert.That((result.Points[1].Refused, result.Points[1].OverRefused), Is.EqualTo((new Share(2, 2), new Share(1, 1))));
        Assert.That((result.Points[0].Refused, result.Points[3].Refused), Is.EqualTo((new Share(0, 2), new Share(0, 2))), "layer 1 has no vector");
        Assert.That(result.Points[1].WithinBudget, Is.False);
        Assert.That(result.Best, Is.Null);
        using var json = JsonDocument.Parse(CalibrationCurve.ToJson(result));
        Assert.That(json.RootElement.GetProperty("points")[3].GetProperty("layers").GetString(), Is.EqualTo("1"));
        Assert.That(json.RootElement.GetProperty("points")[0].GetProperty("right").EnumerateArray().Select(v => v.GetDouble()).Take(2), Is.EqualTo(new[] { 1.0, 1 }));
        Assert.That(() => Calibration.RunAsync(model, vectors, [], ["a"], []), Throws.ArgumentException);
        Assert.That(() => Calibration.RunAsync(model, vectors, ["a"], ["a"], [], options with { Layers = [new([4])] }), Throws.ArgumentException.With.Message.Contains("1-3"));
        Assert.That(() => Calibration.RunAsync(model, vectors, ["a"], ["a"], [], options with { Alphas = [-1] }), Throws.ArgumentException.With.Message.Contains("-1"));
    }

    private static CalibrationPoint Point(float alpha, string? layers, SteeringScope scope, int refused, int over, int right, bool within = true)
        => new(new(alpha, scope, layers is null ? null : LayerSet.Parse(layers)), new(refused, 10), new(over, 10), new(right, 10), within);
}

/// <summary>Vectors that make a tiny model say one token, and a tokenizer in which that token is a refusal.</summary>
internal static class RefusingModel
{
    /// <summary>The id of byte 255, which no prompt of a test holds.</summary>
    private const int Token = 2 + 255;

    /// <summary>Vectors at the last layer alone, so long that nothing but −v is left for the final norm: the head's row of the token wins.</summary>
    public static ShiftVectors Vectors(string llava, IReadOnlyDictionary<string, string>? metadata = null)
    {
        using var file = Trimtab.Checkpoints.Checkpoint.Open(Path.Combine(llava, "model.safetensors"));
        using var head = file.Map("lm_head.weight");
        using var norm = file.Map("model.language_model.norm.weight");
        var (rows, scale) = (head.ToFloats(), norm.ToFloats());
        return ShiftVectors.Create([null, null, [.. scale.Select((s, j) => -1e5f * rows[Token * 48 + j] * s)]], metadata);
    }

    /// <summary>Writes the token as a refusal into a tokenizer.json.</summary>
    public static void Teach(string llava)
    {
        var path = Path.Combine(llava, "tokenizer.json");
        var json = System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(path))!;
        var vocabulary = json["model"]!["vocab"]!.AsObject();
        vocabulary.Remove(vocabulary.Single(pair => (int)pair.Value! == Token).Key);
        vocabulary["I\u0120cannot\u0120help\u0120with\u0120that."] = Token;
        File.WriteAllText(path, json.ToJsonString());
    }
}
