using System.Text.Json;
using Trimtab.Evaluation;
using Trimtab.Imaging;
using Trimtab.Server;
using Trimtab.Steering;
using Trimtab.Tests.Evaluation;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Server;

/// <summary>extract, calibrate and what generate makes of their files.</summary>
public class ExtractCommandTests
{
    private string _folder = null!;
    private string _llava = null!;

    [OneTimeSetUp]
    public void Write()
    {
        _folder = Directory.CreateTempSubdirectory("trimtab-extract-").FullName;
        _llava = TinyModel.WriteLlava(At("llava"));
        RefusingModel.Teach(_llava);
        Image.Noise(40, 30, 1).Save(At("noise.png"));
        File.WriteAllText(At("anchors.txt"), "in the rain\nthe answer\non a train\nan\n");
        File.WriteAllText(At("raw.jsonl"), "{\"goal\": \"A <image>\\nin the rain\"}\n{\"goal\": \"<image>\\nthe\"}\n");
    }

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(args, output, error, TextReader.Null).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    [Test]
    public void Extract_writes_vectors_and_says_how_good_they_are([Values("mean", "pc", "pc_sigma", "unit_pc", "sequential")] string method)
    {
        var target = At($"{method}.safetensors");
        var (code, output, error) = Run("extract", "-m", _llava, "--anchors", At("anchors.txt"), "--method", method, "-o", target, "--json");
        Assert.That(code, Is.Zero, error);
        var json = JsonDocument.Parse(output).RootElement;
        var vectors = ShiftVectors.Open(target);
        Assert.Multiple(() =>
        {
            Assert.That(json.GetProperty("vectors").GetString(), Is.EqualTo(vectors.Hash));
            Assert.That(json.GetProperty("anchors").GetInt32(), Is.EqualTo(4));
            Assert.That(vectors.Metadata["method"], Is.EqualTo(method));
            Assert.That(vectors.Metadata["images"], Is.EqualTo("blank"));
            Assert.That(vectors.Projections, Has.Count.EqualTo(3));
            Assert.That(json.GetProperty("layers").GetArrayLength(), Is.EqualTo(3));
            foreach (var layer in json.GetProperty("layers").EnumerateArray())
            {
                Assert.That(layer.GetProperty("norm").GetDouble(), Is.GreaterThan(0));
                Assert.That(layer.GetProperty("explained").GetDouble(), Is.InRange(0.3, 1));
                Assert.That(layer.GetProperty("split_half_cosine").GetDouble(), Is.InRange(-1, 1));
            }
            Assert.That(File.Exists(target + ".partial"), Is.False);
        });
        Assert.That(Run("generate", "-m", _llava, "-p", "the", "-i", At("noise.png"), "-n", "1", "--vectors", target).Code, Is.Zero);
    }

    [Test]
    public void Extract_takes_raw_json_lines_noise_limits_and_control_vectors()
    {
        string[] args = ["extract", "-m", _llava, "--anchors", At("raw.jsonl"), "--field", "goal", "--raw", "--image", "noise", "--seed", "5"];
        var (code, output, error) = Run([.. args, "-o", At("raw.gguf")]);
        Assert.That(code, Is.Zero, error);
        Assert.That(error, Does.Contain("layer 1"));
        Assert.That(output, Does.Contain("norm").And.Contain("2 anchors"));
        var vectors = ShiftVectors.Open(At("raw.gguf"));
        Assert.That(vectors.Metadata["images"], Is.EqualTo("noise"));
        Assert.That(vectors.Metadata["seed"], Is.EqualTo("5"));
        Assert.That(vectors.Projections, Has.Count.EqualTo(3), "of all layers, those without a place too");
        Assert.That(Run([.. args, "--limit", "1", "-o", At("one.safetensors"), "--json"]).Output, Does.Contain("\"split_half_cosine\":null"));
        Assert.That(ShiftVectors.Open(At("one.safetensors")).Metadata["anchors"], Is.EqualTo("1"));
    }

    [Test]
    public async Task Extract_goes_on_from_a_partial_file()
    {
        var target = At("resumed.safetensors");
        using (var stop = new CancellationTokenSource())
        using (var model = VisionLanguageModel.Open(_llava))
        {
            var options = new ExtractionOptions { PartialPath = target + ".partial", Progress = new Stop(stop, 2) };
            await Assert.CatchAsync<OperationCanceledException>(() => Extraction.RunAsync(model, Anchors.Read(At("anchors.txt")), options, stop.Token));
        }
        string[] args = ["extract", "-m", _llava, "--anchors", At("anchors.txt"), "-o"];
        Assert.That(Run([.. args, target]).Error, Does.Contain("went on from 2"));
        Run([.. args, At("whole.safetensors")]);
        Assert.That(File.ReadAllBytes(target), Is.EqualTo(File.ReadAllBytes(At("whole.safetensors"))));
    }

    private sealed class Stop(CancellationTokenSource stop, int after) : IProgress<StepProgress>
    {
        void IProgress<StepProgress>.Report(StepProgress value)
        {
            if (value.Done == after)
                stop.Cancel();
        }
    }

    [Test]
    public void Calibrate_writes_the_operating_point_that_generate_uses()
    {
        var target = At("calibrated.safetensors");
        RefusingModel.Vectors(_llava, new Dictionary<string, string> { ["method"] = "mean" }).Save(target);
        File.WriteAllText(At("utility.jsonl"), "{\"prompt\": \"in\", \"answer\": \"on\", \"image\": \"noise.png\"}");
        string[] args = ["calibrate", "-m", _llava, "--vectors", target, "--harmful", At("anchors.txt"), "--benign", At("anchors.txt"), "--utility", At("utility.jsonl"), "--alpha", "0,0.5,1", "--layers", "1-2;all", "--scope", "prefill", "-n", "1"];
        var before = File.ReadAllBytes(target);
        var none = Run(args);
        Assert.That(none.Code, Is.EqualTo(1));
        Assert.That(none.Error, Does.Contain("unchanged").And.Contain("budgets"));
        Assert.That(File.ReadAllBytes(target), Is.EqualTo(before));

        var (code, output, error) = Run([.. args, "--over-refusal-budget", "1"]);
        Assert.That(code, Is.Zero, error);
        Assert.That(output, Does.Contain("<- chosen").And.Contain("alpha 0.5, scope prefill, layers all"));
        var vectors = ShiftVectors.Open(target);
        Assert.That(vectors.OperatingPoint, Is.EqualTo(new OperatingPoint(0.5f, SteeringScope.Prefill, null)));
        var curve = JsonDocument.Parse(vectors.Metadata[Calibration.CurveKey]).RootElement.GetProperty("points");
        Assert.That(curve.GetArrayLength(), Is.EqualTo(5));
        Assert.That(curve.EnumerateArray().Single(p => p.GetProperty("chosen").GetBoolean()).GetProperty("refused").EnumerateArray().Select(v => v.GetDouble()).Take(2), Is.EqualTo(new[] { 4.0, 4 }));

        string[] generate = ["generate", "-m", _llava, "-p", "in the rain", "-i", At("noise.png"), "-n", "1", "--json", "--vectors", target];
        var steered = Run(generate);
        Assert.That(steered.Error, Does.Contain("calibrated").And.Contain("alpha 0.5").And.Contain("prefill"));
        var steering = JsonDocument.Parse(steered.Output).RootElement.GetProperty("steering");
        Assert.That(steering.GetProperty("calibrated").GetBoolean());
        Assert.That(steering.GetProperty("alpha").GetDouble(), Is.EqualTo(0.5));
        Assert.That(JsonDocument.Parse(steered.Output).RootElement.GetProperty("text").GetString(), Is.EqualTo("I cannot help with that."));
        var given = Run([.. generate, "--alpha", "0"]);
        Assert.That(given.Error, Is.Empty);
        steering = JsonDocument.Parse(given.Output).RootElement.GetProperty("steering");
        Assert.That(steering.GetProperty("calibrated").GetBoolean(), Is.False);
        Assert.That(steering.GetProperty("scope").GetString(), Is.EqualTo("all"));
    }

    [Test]
    public void Generate_steers_by_the_requests_own_shift()
    {
        Assert.That(Run("extract", "-m", _llava, "--anchors", At("anchors.txt"), "-o", At("cap.safetensors")).Code, Is.Zero);
        string Hash(params string[] more)
        {
            var (code, output, error) = Run(["generate", "-m", _llava, "-p", "in the rain", "-i", At("noise.png"), "-n", "3", "--ignore-eos", "--json", .. more]);
            Assert.That(code, Is.Zero, error);
            return JsonDocument.Parse(output).RootElement.GetProperty("logits_hash").GetString()!;
        }
        var own = Hash("--sample-level");
        Assert.That(own, Is.Not.EqualTo(Hash()));
        Assert.That(Hash("--sample-level", "--alpha", "0"), Is.EqualTo(Hash()));
        Assert.That(Hash("--sample-level", "--vectors", At("cap.safetensors"), "--cap", "1e6"), Is.EqualTo(own), "a cap that far binds nothing");
        Assert.That(Hash("--sample-level", "--vectors", At("cap.safetensors"), "--cap", "0"), Is.Not.EqualTo(own));
        var json = JsonDocument.Parse(Run("generate", "-m", _llava, "-p", "a", "-i", At("noise.png"), "-n", "1", "--json", "--sample-level").Output).RootElement;
        Assert.That(json.GetProperty("steering").GetProperty("level").GetString(), Is.EqualTo("sample"));
    }

    [TestCase("extract -m LLAVA --anchors none.txt -o v.safetensors", 1, "none.txt")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.npz", 2, ".safetensors")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o nowhere/v.gguf", 1, "nowhere")]
    [TestCase("extract -m LLAVA --anchors ANCHORS", 2, "--out")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.gguf --method median", 2, "median")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.gguf --limit 0", 2, "--limit")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.gguf --image none.png", 1, "none.png")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.gguf --image ANCHORS", 1, "anchors.txt")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o FOLDER/v.gguf --raw", 1, "anchor 1")]
    [TestCase("extract -m LLAVA --anchors ANCHORS -o v.gguf --field goal", 1, "line 1")]
    [TestCase("calibrate -m LLAVA --vectors none.safetensors --harmful ANCHORS --benign ANCHORS", 1, "none.safetensors")]
    [TestCase("calibrate -m LLAVA --vectors none.bin --harmful ANCHORS --benign ANCHORS", 2, ".gguf")]
    [TestCase("calibrate -m LLAVA --vectors v.gguf --harmful ANCHORS --benign ANCHORS --alpha 1,x", 2, "--alpha")]
    [TestCase("calibrate -m LLAVA --vectors v.gguf --harmful ANCHORS --benign ANCHORS --alpha 0", 2, "--alpha")]
    [TestCase("calibrate -m LLAVA --vectors v.gguf --harmful ANCHORS --benign ANCHORS --layers 1;0-2", 2, "--layers")]
    [TestCase("calibrate -m LLAVA --vectors v.gguf --harmful ANCHORS --benign ANCHORS --scope all,some", 2, "--scope")]
    [TestCase("calibrate -m LLAVA --vectors v.gguf --harmful ANCHORS --benign ANCHORS --utility-budget 2", 2, "--utility-budget")]
    [TestCase("generate -m LLAVA -p a --sample-level", 1, "no image")]
    [TestCase("generate -m LLAVA -p a --cap 1", 2, "--cap")]
    [TestCase("generate -m LLAVA -p a --sample-level --vectors v.gguf", 2, "--cap")]
    [TestCase("generate -m LLAVA -p a --sample-level --vectors v.gguf --cap -1", 2, "--cap")]
    public void Mistakes_get_one_line_and_a_code(string line, int code, string named)
    {
        var result = Run([.. line.Split(' ').Select(a => a.Replace("LLAVA", _llava, StringComparison.Ordinal).Replace("ANCHORS", At("anchors.txt"), StringComparison.Ordinal).Replace("FOLDER", _folder, StringComparison.Ordinal))]);
        Assert.That(result.Code, Is.EqualTo(code), result.Error);
        Assert.That(result.Error, Does.StartWith("trimtab: ").And.Contain(named));
        Assert.That(result.Error.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
    }
}
