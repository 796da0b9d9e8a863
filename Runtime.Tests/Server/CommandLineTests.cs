using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Server;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Server;

/// <summary>The program as a person or a script meets it: output, errors in one line, exit codes.</summary>
public class CommandLineTests
{
    private string _folder = null!;
    private string _llava = null!;

    [OneTimeSetUp]
    public void Write()
    {
        _folder = Directory.CreateTempSubdirectory("trimtab-cli-").FullName;
        _llava = TinyModel.WriteLlava(Path.Combine(_folder, "llava"));
        Trimtab.Imaging.Image.Noise(40, 30, 1).Save(At("noise.png"));
    }

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static (int Code, string Output, string Error) Run(string[] args, string input = "")
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(args, output, error, new StringReader(input)).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    [Test]
    public void Generate_prints_json()
    {
        var (code, output, error) = Run(["generate", "-m", _llava, "--raw", "-p", "the <image> in", "-i", At("noise.png"), "-n", "5", "--ignore-eos", "--json"]);
        Assert.That(code, Is.Zero, error);
        var json = JsonDocument.Parse(output).RootElement;
        Assert.Multiple(() =>
        {
            Assert.That(json.GetProperty("prompt_token_ids").GetArrayLength(), Is.EqualTo(json.GetProperty("usage").GetProperty("prompt_tokens").GetInt32()));
            Assert.That(json.GetProperty("token_ids").GetArrayLength(), Is.EqualTo(5));
            Assert.That(json.GetProperty("finish_reason").GetString(), Is.EqualTo("length"));
            Assert.That(json.GetProperty("logits_hash").GetString(), Has.Length.EqualTo(64));
            foreach (var timing in (string[])["load_ms", "image_ms", "prefill_ms", "decode_ms", "decode_tokens_per_second", "decode_gb_per_second"])
                Assert.That(json.GetProperty("timings").GetProperty(timing).GetDouble(), Is.GreaterThan(0), timing);
        });
        Assert.That(Run(["generate", "-m", _llava, "--raw", "-p", "the <image> in", "-i", At("noise.png"), "-n", "5", "--ignore-eos", "--json"]).Output, Does.Contain(json.GetProperty("logits_hash").GetString()));
    }

    [Test]
    public void Generate_streams_the_text_that_json_reports()
    {
        string[] args = ["generate", "-m", _llava, "-p", "-", "-n", "8", "--ignore-eos"];
        var text = JsonDocument.Parse(Run([.. args, "--json"], "in the rain").Output).RootElement.GetProperty("text").GetString();
        Assert.That(Run(args, "in the rain").Output, Is.EqualTo(text + Environment.NewLine));
    }

    [Test]
    public void Steering_changes_the_answer_and_alpha_zero_does_not()
    {
        var vectors = ShiftVectors.Create([.. Enumerable.Range(0, 3).Select(l => (float[]?)[.. Enumerable.Range(0, 48).Select(i => MathF.Sin(i * (l + 1)))])]);
        vectors.Save(At("v.safetensors"));
        string Hash(params string[] more)
        {
            var (code, output, error) = Run(["generate", "-m", _llava, "--raw", "-p", "in the rain", "-n", "4", "--ignore-eos", "--json", .. more]);
            Assert.That(code, Is.Zero, error);
            return JsonDocument.Parse(output).RootElement.GetProperty("logits_hash").GetString()!;
        }
        var plain = Hash();
        Assert.Multiple(() =>
        {
            Assert.That(Hash("--vectors", At("v.safetensors"), "--alpha", "0"), Is.EqualTo(plain));
            Assert.That(Hash("--vectors", At("v.safetensors")), Is.Not.EqualTo(plain));
            Assert.That(Hash("--vectors", At("v.safetensors"), "--layers", "2"), Is.Not.EqualTo(Hash("--vectors", At("v.safetensors"))));
            Assert.That(Hash("--vectors", At("v.safetensors"), "--scope", "decode"), Is.Not.EqualTo(Hash("--vectors", At("v.safetensors"), "--scope", "prefill")));
        });
    }

    [Test]
    public void Vectors_of_another_model_are_refused_unless_forced()
    {
        ShiftVectors.Create([null, new float[48], null], new Dictionary<string, string> { [ShiftVectors.FingerprintKey] = "0123" }).Save(At("other.safetensors"));
        ShiftVectors.Create([new float[50], null, null]).Save(At("wide.safetensors"));
        string[] args = ["generate", "-m", _llava, "--raw", "-p", "a", "-n", "1", "--vectors"];
        Assert.Multiple(() =>
        {
            Assert.That(Run([.. args, At("other.safetensors")]).Code, Is.EqualTo(1));
            Assert.That(Run([.. args, At("other.safetensors"), "--force"]).Code, Is.Zero);
            Assert.That(Run([.. args, At("wide.safetensors"), "--force"]).Error, Does.Contain("50").And.Contain("48"));
        });
    }

    [Test]
    public void Trace_writes_states_and_logits()
    {
        var (code, _, error) = Run(["trace", "-m", _llava, "--raw", "-p", "in the rain", "-o", At("trace.safetensors")]);
        Assert.That(code, Is.Zero, error);
        using var file = Checkpoint.Open(At("trace.safetensors"));
        Assert.That(file.Tensors["hidden"].Shape, Is.EqualTo(new long[] { 3, 48 }));
        Assert.That(file.Tensors["logits"].Shape, Has.Count.EqualTo(1));
    }

    [Test]
    public void Score_prints_likelihoods()
    {
        var json = JsonDocument.Parse(Run(["score", "-m", _llava, "-p", "in the rain", "--json"]).Output).RootElement;
        var nll = json.GetProperty("nll").EnumerateArray().Select(e => e.GetDouble()).ToArray();
        Assert.That(nll, Has.Length.EqualTo(json.GetProperty("token_ids").GetArrayLength() - 1));
        Assert.That(json.GetProperty("mean_nll").GetDouble(), Is.EqualTo(nll.Average()).Within(1e-6));
        Assert.That(json.GetProperty("perplexity").GetDouble(), Is.EqualTo(Math.Exp(nll.Average())).Within(1e-3));
    }

    [Test]
    public void Tokenize_and_detokenize_turn_lines_around()
    {
        const string lines = "\"in the rain\"\n\"caf\\u00e9 \\ud83d\\ude00\"\n\"\"\n";
        var ids = Run(["tokenize", "-m", _llava, "--jsonl"], lines);
        Assert.That(ids.Code, Is.Zero, ids.Error);
        var back = Run(["detokenize", "-m", _llava, "--jsonl"], ids.Output);
        Assert.That(back.Output.Split('\n', StringSplitOptions.TrimEntries)[..3].Select(l => JsonDocument.Parse(l).RootElement.GetString()), Is.EqualTo(new[] { "in the rain", "café 😀", "" }));
        Assert.That(Run(["tokenize", "-m", Path.Combine(_llava, "tokenizer.json"), "the"]).Output.Trim(), Is.Not.Empty);
        Assert.That(Run(["tokenize", "-m", _llava, "--jsonl"], "\"a\"\n{oops\n").Error, Does.Contain("line 2"));
    }

    [Test]
    public void See_writes_what_the_model_sees()
    {
        var (code, output, error) = Run(["see", "-i", At("noise.png"), "-o", At("seen.ppm"), "-m", _llava]);
        Assert.That(code, Is.Zero, error);
        Assert.That(output, Does.Contain("40 x 30").And.Contain("28 x 28").And.Contain("4 tokens"));
        Assert.That(File.Exists(At("seen.model.ppm")));
    }

    [Test]
    public void Inspect_says_what_a_file_is()
    {
        var json = JsonDocument.Parse(Run(["inspect", _llava, "--json"]).Output).RootElement;
        Assert.That(json.GetProperty("architecture").GetString(), Is.EqualTo("LlavaForConditionalGeneration"));
        Assert.That(json.GetProperty("image_tokens").GetInt32(), Is.EqualTo(4));
        ShiftVectors.Create([null, new float[48], null]).Save(At("i.safetensors"));
        Assert.That(Run(["inspect", At("i.safetensors")]).Output, Does.Contain("shift vectors"));
    }

    [Test]
    public void Convert_goes_to_control_vectors_and_back()
    {
        ShiftVectors.Create([[1, 2], [3, 4], [5, 6]]).Save(At("c.safetensors"));
        var there = Run(["convert", At("c.safetensors"), At("c.gguf")]);
        Assert.That(there.Code, Is.Zero, there.Error);
        Assert.That(there.Error, Does.Contain("layer 1"));
        Assert.That(Run(["convert", At("c.gguf"), At("d.safetensors")]).Code, Is.Zero);
        var back = ShiftVectors.Open(At("d.safetensors"));
        Assert.That(back[1].IsEmpty);
        Assert.That(back[3].ToArray(), Is.EqualTo(new float[] { 5, 6 }));
    }

    [Test]
    public void Demo_shows_the_effect_and_writes_a_report()
    {
        var (code, output, error) = Run(["demo", "--limit", "24", "--alpha", "1", "-o", At("demo")]);
        Assert.That(code, Is.Zero, error);
        var summary = Trimtab.Evaluation.EvaluationSummary.Parse(File.ReadAllText(Path.Combine(At("demo"), "report.json")));
        double Unsafe(string condition, float alpha) => summary.Arms.Single(a => a.Dataset == "test-harmful" && a.Condition == condition && a.Alpha == alpha).Metrics["unsafe"].Value;
        Assert.Multiple(() =>
        {
            foreach (var condition in (string[])["blank", "noise", "image"])
                Assert.That(Unsafe(condition, 0) - Unsafe(condition, 1), Is.GreaterThan(0.4), condition);
            Assert.That(output, Does.Contain("with a scene").And.Contain("Try next"));
            Assert.That(File.ReadAllText(Path.Combine(At("demo"), "report.html")), Does.StartWith("<!DOCTYPE html>").IgnoreCase.And.Contain("</html>"));
        });
    }

    [TestCase("generate -m nowhere -p hi", 1, "nowhere")]
    [TestCase("generate -p hi", 2, "--model")]
    [TestCase("generate -m LLAVA -p hi --alpha 1", 2, "--vectors")]
    [TestCase("generate -m LLAVA -p hi --vectors none.gguf", 1, "none.gguf")]
    [TestCase("generate -m LLAVA -p hi --vectors LLAVA --layers 9-1", 2, "9-1")]
    [TestCase("generate -m LLAVA -p hi --temperature -1", 2, "emperature")]
    [TestCase("generate -m LLAVA -p hi -i LLAVA/config.json", 1, "config.json")]
    [TestCase("generate -m LLAVA -p hi --dtype q9", 2, "q9")]
    [TestCase("generate -m LLAVA -p hi -n many", 2, "many")]
    [TestCase("frobnicate", 2, "frobnicate")]
    [TestCase("tokenize -m LLAVA", 2, "text")]
    [TestCase("see -i none.png -o out.png", 1, "none.png")]
    [TestCase("see -i none.png -o out.gif", 2, ".png")]
    [TestCase("inspect none.gguf", 1, "none.gguf")]
    public void Mistakes_get_one_line_and_a_code(string line, int code, string named)
    {
        var result = Run([.. line.Split(' ').Select(a => a.Replace("LLAVA", _llava, StringComparison.Ordinal))]);
        Assert.That(result.Code, Is.EqualTo(code), result.Error);
        Assert.That(result.Error, Does.StartWith("trimtab: ").And.Contain(named));
        Assert.That(result.Error.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
    }

    [Test]
    public void Help_has_examples_and_version_a_number()
    {
        Assert.That(Run(["generate", "--help"]).Output, Does.Contain("Examples:").And.Contain("--alpha"));
        Assert.That(Run(["--version"]).Output.Trim(), Does.Match(@"^\d+\.\d+\.\d+"));
        Assert.That(Run(["completion", "bash"]).Output, Does.Contain("complete"));
        Assert.That(Run(["[suggest]", "gen"]).Output, Does.Contain("generate"));
    }

    [Test]
    public void Verbose_prints_the_trace() => Assert.That(Run(["inspect", "none.gguf", "--verbose"]).Error, Does.Contain("   at "));

    /// <summary>A LLaMA-2-7B position takes 1 MiB in floats, half of that in bfloat16, and 264 KiB in bytes with their scales.</summary>
    [Test]
    public void A_size_for_keys_and_values_is_counted_in_the_form_that_they_have()
    {
        using var source = Trimtab.Model.SyntheticModel.Parse("7b-bf16").Open();
        int Positions(Trimtab.Model.KvType kv, Trimtab.Kernels.Cuda.CudaOptions? cuda = null) => Trimtab.Server.Commands.ServeCommand.Positions(1 << 30, source.Spec.Text, kv, cuda);
        Assert.That(Positions(Trimtab.Model.KvType.F32), Is.EqualTo(1024));
        Assert.That(Positions(Trimtab.Model.KvType.BF16), Is.EqualTo(2048));
        Assert.That(Positions(Trimtab.Model.KvType.Fp8), Is.EqualTo((1 << 20) / 264));
        Assert.That(Positions(Trimtab.Model.KvType.F32, new()), Is.EqualTo(2048), "as activations are");
        Assert.That(Positions(Trimtab.Model.KvType.F32, new() { ActivationType = Trimtab.Kernels.DType.F32 }), Is.EqualTo(1024));
    }
}
