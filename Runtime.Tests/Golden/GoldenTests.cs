using System.Text.Json;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Steering;
using Trimtab.Tests.Cuda;

namespace Trimtab.Tests.Golden;

/// <summary>
/// The whole path against values that independent implementations computed from the same files, in float32 arithmetic.
/// </summary>
[TestFixtureSource(nameof(Fixtures))]
public class GoldenTests(string name, string? form, string device)
{
    private static readonly string[] Names =
    [
        "llava-gqa", "llava-576", "llava-llama3", "text-llama", "text-mistral-window", "text-qwen2", "text-qwen3", "text-qwen3-moe",
        "text-mixtral", "text-phi3", "text-gemma2", "text-gemma3", "llava-siglip-qwen2", "llava-next-mistral", "llava-onevision",
        "idefics3-smolvlm", "gemma3", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"
    ];

    /// <summary>Every fixture on every device, and on the CPU those that lie beside them, in the same form.</summary>
    private static IEnumerable<TestFixtureData> Fixtures()
    {
        foreach (var device in new[] { "cpu", "2 × cpu", "cuda" })
        {
            foreach (var name in Names)
                yield return new(name, null, device);
            yield return new("llava-gqa", "llava-gqa-gguf", device);
        }
        foreach (var name in new[] { "llava-gqa", "text-qwen2" })
            yield return new(name, null, "cuda, cuBLASLt");
        foreach (var name in new[] { "llava-gqa", "text-qwen3-moe" })
            yield return new(name, null, "2 × cuda");
        yield return new("idefics3-smolvlm", null, "3 × cpu"); // one key head
        if (Shared.Exists)
            foreach (var found in Directory.GetDirectories(Shared.Path("fixtures", "models")).Select(folder => Path.GetFileName(folder)).Order(StringComparer.Ordinal))
                if (!Names.Contains(found) && File.Exists(Shared.Path("fixtures", "expected", found + ".json")))
                    yield return new(found, null, "cpu");
    }

    // The fixtures promise 1e-5 between implementations; float32 sums of other orders stay within ten times that.
    private const float LogitTolerance = 1e-4f;

    private Fixture _fixture = null!;

    [OneTimeSetUp]
    public void Open() => _fixture = Fixture.OpenOn(device, name, form);

    [OneTimeTearDown]
    public void Close() => _fixture?.Dispose();

    [Test]
    public void Prompts_become_the_expected_tokens()
    {
        foreach (var element in _fixture.Cases.Where(c => !c.TryGetProperty("grid_thw", out _)))
            Assert.That(_fixture.Prompt(element).Tokens, Is.EqualTo(Fixture.Ints(element, "input_ids")), Id(element));
    }

    [Test]
    public void Pixels_agree()
    {
        foreach (var element in ImageCases())
        {
            if (!_fixture.Has(Id(element) + ".pixel_values") || element.TryGetProperty("grid_thw", out _))
                continue;
            // A level of 255 is 0.015 after normalisation; JPEG decoders may differ by a level or two.
            var tolerance = Fixture.ImagesOf(element).Any(file => file.EndsWith(".jpg", StringComparison.Ordinal)) ? 0.05f : 1e-5f;
            Near(_fixture.Prompt(element).Images.SelectMany(image => image.Pixels).ToArray(), _fixture.Tensor(Id(element) + ".pixel_values"), tolerance, Id(element) + " pixels");
        }
    }

    [Test]
    public void Vision_features_and_image_embeddings_agree()
    {
        foreach (var element in ImageCases())
        {
            var (vision, device) = (_fixture.Model.Network.Vision!, _fixture.Model.Network.Device);
            List<float> all = [], embeddings = [];
            foreach (var image in _fixture.ReferencePrompt(element).Images)
            {
                Tensor[] outputs = [.. Enumerable.Range(0, 1 + vision.Spec.Deepstack.Length).Select(_ => device.Allocate(device.ActivationType, image.Rows, _fixture.Width))];
                var features = vision.Spec.Division == Model.ImageDivision.AnyResolution ? [] : new float[image.Rows * vision.Spec.FeatureSize];
                vision.Forward(image.Pixels, image.Grid, outputs[0], outputs.AsSpan(1), features);
                var rows = new float[image.Rows * _fixture.Width];
                device.Download(outputs[0], rows);
                foreach (var output in outputs)
                    output.Storage!.Dispose();
                all.AddRange(features);
                embeddings.AddRange(rows);
            }
            if (_fixture.Has(Id(element) + ".vision_features"))
                Near(all.ToArray(), _fixture.Tensor(Id(element) + ".vision_features"), 2e-4f, Id(element) + " features");
            if (_fixture.Has(Id(element) + ".image_embeds"))
                Near(embeddings.ToArray(), _fixture.Tensor(Id(element) + ".image_embeds"), 2e-4f, Id(element) + " embeddings");
        }
    }

    [Test]
    public void States_logits_and_greedy_tokens_agree()
    {
        foreach (var element in _fixture.Cases)
        {
            var expected = Fixture.Ints(element, "greedy");
            var outcome = _fixture.Run(_fixture.ReferencePrompt(element), new() { MaxTokens = expected.Length, IgnoreEos = true, Capture = true });
            Near(outcome.Sequence.States!, _fixture.Tensor(Id(element) + ".hidden"), LogitTolerance, Id(element) + " hidden");
            NearLogits(outcome, Id(element) + ".logits");
            SameTokens(outcome.Tokens, expected, element);
            if (element.TryGetProperty("greedy_text", out var text) && outcome.Tokens.AsSpan().SequenceEqual(expected))
                Assert.That(_fixture.Model.Tokenizer.Decode(outcome.Tokens, skipSpecial: false), Is.EqualTo(text.GetString()), Id(element));
        }
    }

    [Test]
    public void Steered_states_logits_and_greedy_tokens_agree()
    {
        foreach (var element in _fixture.Json.GetProperty("steering").EnumerateArray())
        {
            var expected = Fixture.Ints(element, "greedy");
            var @case = _fixture.Case(element.GetProperty("case").GetString()!);
            if (_fixture.Model.Network.Spec.Text.Rope.Sections is not null && Fixture.ImagesOf(@case).Length == 0)
                continue; // see GivenPositionsTests
            var prompt = _fixture.ReferencePrompt(@case);
            var outcome = _fixture.Run(prompt, new()
            {
                MaxTokens = expected.Length,
                IgnoreEos = true,
                Capture = true,
                Steering = _fixture.Steering(element),
            });
            Near(outcome.Sequence.States!, _fixture.Tensor(Id(element) + ".hidden"), LogitTolerance, Id(element) + " hidden");
            NearLogits(outcome, Id(element) + ".logits");
            SameTokens(outcome.Tokens, expected, element);
        }
    }

    [Test]
    public void Shift_vectors_of_an_anchor_set_agree()
    {
        if (!_fixture.Json.TryGetProperty("cmrm", out var cmrm))
            Assert.Ignore("this fixture has no anchors");
        foreach (var kind in (string[])["blank", "noise"])
        {
            var image = Trimtab.Imaging.Image.Open(Shared.Path("fixtures", "expected", $"{name}.{kind}.png"));
            var extraction = new ShiftExtraction(_fixture.Layers, _fixture.Width);
            var expected = _fixture.Tensor($"cmrm.{kind}.d");
            var n = 0;
            foreach (var anchor in cmrm.GetProperty("anchors").EnumerateArray())
            {
                var template = cmrm.GetProperty("template_text").GetString()!.Replace("{q}", anchor.GetString(), StringComparison.Ordinal);
                var with = _fixture.Model.Raw(template.Replace("{img}", cmrm.GetProperty("image_tag").GetString(), StringComparison.Ordinal), [image]);
                var without = _fixture.Model.Raw(template.Replace("{img}", "", StringComparison.Ordinal));
                var difference = Difference(with, without);
                Near(difference, expected.AsSpan(n * difference.Length, difference.Length), LogitTolerance, $"{kind} anchor {n}");
                extraction.Add(difference);
                n++;
            }
            Relative(extraction.Compute(ShiftMethod.Mean).SelectMany(v => v).ToArray(), _fixture.Tensor($"cmrm.{kind}.mean"), $"{kind} mean");
            Relative(extraction.Compute(ShiftMethod.Pc).SelectMany(v => v).ToArray(), _fixture.Tensor($"cmrm.{kind}.pc"), $"{kind} pc");
            Relative(extraction.Compute(ShiftMethod.UnitPc).SelectMany(v => v).ToArray(), _fixture.Tensor($"cmrm.{kind}.unit_pc"), $"{kind} unit_pc");
        }
    }

    [Test]
    public void Sample_level_steering_agrees()
    {
        if (!_fixture.Json.TryGetProperty("cmrm", out var cmrm))
            Assert.Ignore("this fixture has no anchors");
        var sample = cmrm.GetProperty("sample");
        var (imageCase, textCase) = (_fixture.Case(sample.GetProperty("case").GetString()!), _fixture.Case(sample.GetProperty("text_case").GetString()!));
        var blank = Trimtab.Imaging.Image.Open(Shared.Path("fixtures", "expected", name + ".blank.png"));
        var v = Difference(_fixture.Model.Raw(imageCase.GetProperty("prompt").GetString()!, [blank]), _fixture.Prompt(textCase));
        Near(v, _fixture.Tensor("cmrm.sample.img0"), LogitTolerance, "sample vector");
        var vectors = ShiftVectors.Create([.. Enumerable.Range(0, _fixture.Layers).Select(l => (float[]?)v[(l * _fixture.Width)..((l + 1) * _fixture.Width)])]);
        var expected = Fixture.Ints(sample, "greedy");
        var outcome = _fixture.Run(_fixture.ReferencePrompt(imageCase), new()
        {
            MaxTokens = expected.Length,
            IgnoreEos = true,
            Steering = new(vectors, sample.GetProperty("alpha").GetSingle()),
        });
        NearLogits(outcome, "cmrm.sample.logits");
        SameTokens(outcome.Tokens, expected, sample);
    }

    private float[] Difference(Prompt with, Prompt without)
    {
        var outcomes = _fixture.Run((with, Capture), (without, Capture));
        return [.. outcomes[0].Sequence.States!.Zip(outcomes[1].Sequence.States!, (a, b) => a - b)];
    }

    private static GenerationOptions Capture => new() { MaxTokens = 0, Capture = true };

    private static string Id(JsonElement element) => element.GetProperty("id").GetString()!;

    private IEnumerable<JsonElement> ImageCases() => _fixture.Cases.Where(c => Fixture.ImagesOf(c).Length > 0);

    private void NearLogits(Outcome outcome, string tensor)
    {
        var expected = _fixture.Tensor(tensor);
        for (var step = 0; step < expected.Length / _fixture.Vocabulary; step++)
            Near(outcome.Logits[step], expected.AsSpan(step * _fixture.Vocabulary, _fixture.Vocabulary), LogitTolerance, $"{tensor} step {step}");
    }

    /// <summary>Equal tokens; where two candidates are closer than the arithmetic resolves, equal up to there is all that is defined.</summary>
    private static void SameTokens(int[] actual, int[] expected, JsonElement element)
    {
        if (element.GetProperty("min_margin").GetDouble() > 1e-4)
            Assert.That(actual, Is.EqualTo(expected), element.ToString()[..Math.Min(60, element.ToString().Length)]);
        else
            Assert.That(actual[0], Is.EqualTo(expected[0]));
    }

    private void Near(ReadOnlySpan<float> actual, ReadOnlySpan<float> expected, float tolerance, string what)
    {
        Assert.That(actual.Length, Is.EqualTo(expected.Length), what);
        var worst = 0f;
        for (var i = 0; i < actual.Length; i++)
        {
            Assert.That(float.IsFinite(actual[i]), what);
            worst = Math.Max(worst, Math.Abs(actual[i] - expected[i]));
        }
        TestContext.Out.WriteLine($"{device} {name}{(form is null ? "" : " gguf")} {what}: largest deviation {worst:G3}");
        Assert.That(worst, Is.LessThanOrEqualTo(tolerance), what);
    }

    private static void Relative(float[] actual, float[] expected, string what)
    {
        var scale = expected.Max(Math.Abs);
        Assert.That(actual.Zip(expected, (a, e) => Math.Abs(a - e)).Max() / scale, Is.LessThan(1e-3f), what);
    }
}
