using Trimtab.Engine;
using Trimtab.Evaluation;
using Trimtab.Imaging;
using Trimtab.Steering;
using Trimtab.Tests.Checkpoints;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Evaluation;

public class ExtractionTests
{
    private static readonly string[] Prompts = [.. Enumerable.Range(0, 9).Select(i => string.Concat(Enumerable.Repeat($"in the rain {i} ", 1 + i % 4)))];

    private CheckpointFiles _files = null!;
    private VisionLanguageModel _model = null!;

    [OneTimeSetUp]
    public void Make()
    {
        _files = new();
        _model = VisionLanguageModel.Open(TinyModel.WriteLlava(_files.At("llava")), new() { Threads = 2 });
    }

    [OneTimeTearDown]
    public void Remove()
    {
        _model.Dispose();
        _files.Dispose();
    }

    [Test]
    public async Task Vectors_of_the_fixtures_agree([Values("llava-gqa", "llava-llama3")] string name, [Values("blank", "noise")] string kind)
    {
        using var fixture = Fixture.Open(name);
        var cmrm = fixture.Json.GetProperty("cmrm");
        var template = cmrm.GetProperty("template_text").GetString()!.Replace("{img}", cmrm.GetProperty("image_tag").GetString(), StringComparison.Ordinal);
        string[] anchors = [.. cmrm.GetProperty("anchors").EnumerateArray().Select(a => template.Replace("{q}", a.GetString(), StringComparison.Ordinal))];
        var file = ExtractionImages.Parse(Shared.Path("fixtures", "expected", $"{name}.{kind}.png"));
        foreach (var method in (ShiftMethod[])[ShiftMethod.Mean, ShiftMethod.Pc, ShiftMethod.UnitPc])
        {
            var result = await Extraction.RunAsync(fixture.Model, anchors, new() { Method = method, Raw = true, Images = file });
            var expected = fixture.Tensor($"cmrm.{kind}.{Extraction.Name(method)}").Chunk(fixture.Width).ToArray();
            for (var layer = 0; layer < expected.Length; layer++)
                Assert.That(Distance(result.Layers[layer].Vector, expected[layer]) / Length(expected[layer]), Is.LessThan(1e-3), $"{method}, layer {layer + 1}");
            var explained = cmrm.GetProperty(kind).GetProperty("explained").EnumerateArray().Select(e => e.GetDouble());
            Assert.That(result.Layers.Select(l => l.Explained), Is.EqualTo(explained).Within(1e-4));
        }
        if (kind == "blank")
        {
            var made = await Extraction.RunAsync(fixture.Model, anchors, new() { Raw = true });
            Assert.That(made.Vectors.Hash, Is.EqualTo((await Extraction.RunAsync(fixture.Model, anchors, new() { Raw = true, Images = file })).Vectors.Hash));
        }
    }

    [Test]
    public async Task Vectors_are_the_mean_of_what_each_anchor_shows_alone()
    {
        var result = await Extraction.RunAsync(_model, Prompts, new() { Images = ExtractionImages.Noise(7) });
        var extraction = new ShiftExtraction(3, 48);
        for (var i = 0; i < Prompts.Length; i++)
            extraction.Add(Difference(_model.Chat(Prompts[i], [Image.Noise(28, 28, (7UL << 32) + (ulong)i)]), _model.Chat(Prompts[i])));
        Assert.That(result.Layers.Select(l => l.Vector), Is.EqualTo(extraction.Compute(ShiftMethod.Mean)));
        Assert.That(result.Vectors.Metadata["method"], Is.EqualTo("mean"));
        Assert.That(result.Vectors.Metadata["anchors"], Is.EqualTo("9"));
        Assert.That(result.Vectors.Metadata["anchors.sha256"], Is.EqualTo(Anchors.Hash(Prompts)));
        Assert.That(result.Vectors.Metadata[ShiftVectors.FingerprintKey], Is.EqualTo(_model.Network.Fingerprint));
        Assert.That(result.Vectors.Projections, Has.Count.EqualTo(3));
        for (var layer = 0; layer < 3; layer++)
        {
            // The mean's projection on its own direction is its length.
            Assert.That(result.Vectors.Projections![layer].Mean, Is.EqualTo(result.Layers[layer].Norm).Within(1e-5));
            Assert.That(result.Vectors.Projections[layer].Sigma, Is.GreaterThan(0));
        }
    }

    [Test]
    public async Task Anchors_tell_where_steered_states_lie_and_a_stranger_drifts()
    {
        var result = await Extraction.RunAsync(_model, Prompts, new() { Images = ExtractionImages.Noise(7) });
        var (vectors, states) = (result.Vectors, result.Vectors.StateProjections!);
        Assert.That((states.Alpha, states.Layers), Is.EqualTo((1f, (LayerSet?)null)));
        async Task<ShiftTelemetry> Seen(Prompt prompt, float alpha = 1, ShiftVectors? by = null) =>
            (await _model.RunAsync(prompt, new() { MaxTokens = 0, Steering = new(by ?? vectors, alpha, SteeringScope.Prefill), Telemetry = TelemetryDetail.Summary })).Telemetry!;
        var own = new List<ShiftTelemetry>();
        for (var i = 0; i < Prompts.Length; i++)
            own.Add(await Seen(_model.Chat(Prompts[i], [Image.Noise(28, 28, (7UL << 32) + (ulong)i)])));
        for (var layer = 0; layer < 3; layer++)
        {
            double[] values = [.. own.Select(t => (double)t.PromptBefore[layer])];
            var mean = values.Average();
            Assert.That(states.Values[layer].Mean, Is.EqualTo(mean).Within(1e-5), $"mean of layer {layer + 1}");
            Assert.That(states.Values[layer].Sigma, Is.EqualTo(Math.Sqrt(values.Average(v => (v - mean) * (v - mean)))).Within(1e-4), $"sigma of layer {layer + 1}");
            // The z-scores of the anchors themselves have mean 0 and deviation 1.
            Assert.That(own.Average(t => t.Drift![layer]), Is.Zero.Within(1e-3));
            Assert.That(own.Average(t => t.Drift![layer] * t.Drift![layer]), Is.EqualTo(1).Within(1e-2));
        }
        Assert.That(own.Select(t => t.Drifted), Is.All.False);
        // Another alpha moves the states of all layers above the first: nothing to compare with.
        Assert.That((await Seen(_model.Chat(Prompts[0], [Image.Noise(28, 28, 1)]), 2)).Drift, Is.Null);
        var narrow = vectors.With(new StateProjections([.. states.Values.Select(s => new Projection(s.Mean - 9 * s.Sigma, s.Sigma))], 1, null));
        Assert.That((await Seen(_model.Chat(Prompts[0], [Image.Noise(28, 28, 7UL << 32)]), by: narrow)).Drifted, Is.True);
    }

    [Test]
    public async Task A_raw_anchor_loses_its_placeholder_and_one_line_break()
    {
        var raw = await Extraction.RunAsync(_model, ["A: <image>\n\nthe rain B:"], new() { Raw = true });
        Assert.That(raw.Layers.SelectMany(l => l.Vector), Is.EqualTo(Difference(_model.Raw("A: <image>\n\nthe rain B:", [_model.BlankImage()]), _model.Raw("A: \nthe rain B:"))));
    }

    [TestCase(0, TestName = "Sequential_vectors_equal_a_plain_loop_with_every_anchor_kept")]
    [TestCase(160, TestName = "Sequential_vectors_equal_a_plain_loop_with_few_anchors_kept")]
    [TestCase(96, TestName = "Sequential_vectors_equal_a_plain_loop_with_no_anchor_kept")]
    public async Task Sequential(int positions)
    {
        using var model = VisionLanguageModel.Open(_files.At("llava"), new() { Threads = 2, Engine = positions == 0 ? new() : new() { ContextLength = 96, CachePositions = positions } });
        var result = await Extraction.RunAsync(model, Prompts, new() { Method = ShiftMethod.Sequential });
        var directions = new float[]?[3];
        for (var layer = 0; layer < 3; layer++)
        {
            var steering = layer == 0 ? null : new SteeringOptions(ShiftVectors.Create(directions), 1, SteeringScope.Prefill);
            var sum = new double[48];
            foreach (var prompt in Prompts)
            {
                var (with, alone) = (States(model.Chat(prompt, [_model.BlankImage()]), steering), States(model.Chat(prompt), null));
                for (var j = 0; j < 48; j++)
                    sum[j] += with[layer * 48 + j] - alone[layer * 48 + j];
            }
            directions[layer] = Array.ConvertAll(sum, value => (float)(value / Prompts.Length));
        }
        Assert.That(result.Layers.Select(l => l.Vector), Is.EqualTo(directions));
        Assert.That(result.Layers[1].Vector, Is.Not.EqualTo((await Extraction.RunAsync(model, Prompts)).Layers[1].Vector));
        // Nothing is kept after the run: the whole cache is free for a prompt as long as the context.
        await model.RunAsync(model.Raw("the"), new() { MaxTokens = 90, IgnoreEos = true });

        float[] States(Prompt prompt, SteeringOptions? steering) => Outcome.Run(model, [(prompt, new() { MaxTokens = 0, Capture = true, Steering = steering })])[0].Sequence.States!;
    }

    [Test]
    public async Task A_stopped_run_goes_on_to_the_same_bytes([Values(ShiftMethod.Mean, ShiftMethod.Sequential)] ShiftMethod method, [Values(1, 5, 13, 20)] int stopAfter)
    {
        if (method == ShiftMethod.Mean && stopAfter > Prompts.Length)
            return;
        var partial = _files.At($"{method}{stopAfter}.partial");
        using var stop = new CancellationTokenSource();
        var options = new ExtractionOptions { Method = method, PartialPath = partial, Progress = new Report(p => { if (p.Done == stopAfter) stop.Cancel(); }) };
        await Assert.CatchAsync<OperationCanceledException>(() => Extraction.RunAsync(_model, Prompts, options, stop.Token));
        // A kill can leave half a record.
        using (var file = new FileStream(partial, FileMode.Append))
            file.Write(new byte[77]);
        var resumed = await Extraction.RunAsync(_model, Prompts, options with { Progress = null });
        var whole = await Extraction.RunAsync(_model, Prompts, new() { Method = method });
        Assert.That(resumed.Resumed, Is.EqualTo(stopAfter));
        Assert.That(whole.Resumed, Is.Zero);
        resumed.Vectors.Save(_files.At("resumed.safetensors"));
        whole.Vectors.Save(_files.At("whole.safetensors"));
        Assert.That(File.ReadAllBytes(_files.At("resumed.safetensors")), Is.EqualTo(File.ReadAllBytes(_files.At("whole.safetensors"))));
        Assert.That((await Extraction.RunAsync(_model, Prompts, options with { Progress = null })).Vectors.Hash, Is.EqualTo(whole.Vectors.Hash), "a finished file needs no model");
    }

    [Test]
    public async Task A_partial_file_of_something_else_is_begun_anew()
    {
        var partial = _files.Text("else.partial", "of something else, or torn");
        var first = await Extraction.RunAsync(_model, Prompts, new() { PartialPath = partial });
        Assert.That(first.Discarded && first.Resumed == 0);
        Assert.That((await Extraction.RunAsync(_model, Prompts, new() { PartialPath = partial, Method = ShiftMethod.Pc })).Resumed, Is.EqualTo(9), "another method needs the same measurements");
        foreach (var options in (ExtractionOptions[])[new() { Images = ExtractionImages.Noise(1) }, new() { Method = ShiftMethod.Sequential }])
            Assert.That((await Extraction.RunAsync(_model, Prompts, options with { PartialPath = partial })).Discarded);
        Assert.That((await Extraction.RunAsync(_model, Prompts[1..], new() { PartialPath = partial })).Discarded);
    }

    [Test]
    public void Images_are_one_or_another_for_each_anchor()
    {
        Directory.CreateDirectory(_files.At("photos"));
        Image.Noise(5, 4, 1).Save(_files.At("photos/b.png"));
        Image.Noise(7, 4, 2).Save(_files.At("photos/a.png"));
        File.WriteAllText(_files.At("photos/notes.txt"), "no image");
        var folder = ExtractionImages.Parse(_files.At("photos"));
        Assert.That(Enumerable.Range(0, 4).Select(i => folder.Of(i, (9, 9)).Width), Is.EqualTo(new[] { 7, 5, 7, 5 }));
        Assert.That(ExtractionImages.Parse(_files.At("photos/b.png")).Of(3, (9, 9)).Width, Is.EqualTo(5));
        Assert.That(ExtractionImages.Parse("blank").Of(3, (9, 8)).Pixels, Is.EqualTo(Enumerable.Repeat((byte)255, 9 * 8 * 3)));
        var noise = ExtractionImages.Parse("noise", 3);
        Assert.That(noise.Of(1, (9, 8)).Pixels, Is.EqualTo(ExtractionImages.Noise(3).Of(1, (9, 8)).Pixels).And.Not.EqualTo(noise.Of(2, (9, 8)).Pixels));
        Assert.That(ExtractionImages.Noise(4).Of(1, (9, 8)).Pixels, Is.Not.EqualTo(noise.Of(1, (9, 8)).Pixels));
        Directory.CreateDirectory(_files.At("empty"));
        Assert.That(() => ExtractionImages.Parse(_files.At("empty")), Throws.TypeOf<FileNotFoundException>().With.Message.Contains(".png"));
        Assert.That(() => ExtractionImages.Parse("nothing"), Throws.TypeOf<FileNotFoundException>().With.Message.Contains("nothing"));
    }

    [Test]
    public void Anchors_that_cannot_run_are_refused_by_number_before_any_runs()
    {
        Refuses("2", "0 image placeholders", true, "<image>\na", "b");
        Refuses("1", "2 image placeholders", true, "<image><image> a");
        Refuses("2", "2 image placeholders", false, "a", "b <image>");
        Refuses("3", "context holds", false, "a", "b", new string('x', 600));
        Assert.That(() => Extraction.RunAsync(_model, []), Throws.ArgumentException);
        Assert.That(() => Extraction.RunAsync(_model, ["a"], new() { Method = ShiftMethod.PcSigma }), Throws.ArgumentException.With.Message.Contains("2 anchors"));

        void Refuses(string number, string reason, bool raw, params string[] anchors)
            => Assert.That(() => Extraction.RunAsync(_model, anchors, new() { Raw = raw }), Throws.ArgumentException.With.Message.StartsWith($"anchor {number}: ").And.Message.Contains(reason));
    }

    [Test]
    public async Task A_requests_own_shift_is_the_difference_of_its_two_forms()
    {
        List<Trimtab.Text.ChatMessage> messages = [new("system", "a"), new("user", "in the rain", 2)];
        var v = await _model.SampleShiftAsync(_model.ChatPair(messages));
        var alone = Difference(_model.Chat(messages, [_model.BlankImage(), _model.BlankImage()]), _model.Chat([messages[0], messages[1] with { Images = 0 }]));
        Assert.That(Enumerable.Range(1, 3).SelectMany(layer => v[layer].ToArray()), Is.EqualTo(alone));
        var raw = await _model.SampleShiftAsync(_model.RawPair("<image>\r\nthe <image> rain"));
        Assert.That(raw[3].ToArray(), Is.EqualTo(Difference(_model.Raw("<image>\r\nthe <image> rain", [_model.BlankImage(), _model.BlankImage()]), _model.Raw("the  rain"))[96..]));
        Assert.That(() => _model.RawPair("no image"), Throws.ArgumentException.With.Message.Contains("no image"));
        Assert.That(() => _model.ChatPair([new("user", "text")]), Throws.ArgumentException);
    }

    [TestCase("llava-gqa"), TestCase("llava-llama3")]
    public async Task Sample_level_shifts_of_the_fixtures_agree(string name)
    {
        using var fixture = Fixture.Open(name);
        var prompt = fixture.Case(fixture.Json.GetProperty("cmrm").GetProperty("sample").GetProperty("case").GetString()!).GetProperty("prompt").GetString()!;
        var v = await fixture.Model.SampleShiftAsync(fixture.Model.RawPair(prompt));
        var expected = fixture.Tensor("cmrm.sample.img0");
        for (var layer = 1; layer <= fixture.Layers; layer++)
            Assert.That(Distance(v[layer].ToArray(), expected[((layer - 1) * fixture.Width)..(layer * fixture.Width)]), Is.LessThan(1e-3 * Length(v[layer].ToArray())));
    }

    private float[] Difference(Prompt with, Prompt alone)
    {
        var options = new GenerationOptions { MaxTokens = 0, Capture = true };
        var outcomes = Outcome.Run(_model, [(with, options), (alone, options)]);
        return [.. outcomes[0].Sequence.States!.Zip(outcomes[1].Sequence.States!, (a, b) => a - b)];
    }

    private static double Length(float[] values) => Math.Sqrt(values.Sum(value => (double)value * value));

    private static double Distance(float[] left, float[] right) => Math.Sqrt(left.Zip(right, (a, b) => Math.Pow((double)a - b, 2)).Sum());

    private sealed class Report(Action<StepProgress> action) : IProgress<StepProgress>
    {
        void IProgress<StepProgress>.Report(StepProgress value) => action(value);
    }
}
