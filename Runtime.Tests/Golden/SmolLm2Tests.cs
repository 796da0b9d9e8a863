using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Steering;

namespace Trimtab.Tests.Golden;

/// <summary>A real language model (SmolLM2-135M-Instruct, Q4_1 with a Q8_0 tied embedding) in its own block arithmetic.</summary>
public class SmolLm2Tests
{
    private VisionLanguageModel _model = null!, _int8 = null!;
    private JsonElement _expected;
    private Checkpoint _tensors = null!;

    [OneTimeSetUp]
    public void Open()
    {
        var path = Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf");
        _model = VisionLanguageModel.Open(path);
        _int8 = VisionLanguageModel.Open(path, new() { Activations = Activations.Int8 });
        _expected = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", "smollm2.json"))).RootElement;
        _tensors = Checkpoint.Open(Shared.Path("fixtures", "expected", "smollm2.safetensors"));
    }

    [OneTimeTearDown]
    public void Close()
    {
        _model?.Dispose();
        _int8?.Dispose();
        _tensors?.Dispose();
    }

    [Test]
    public void Greedy_text_agrees_up_to_the_first_small_margin([Values] Activations activations)
    {
        // In eight bits a logit is off by 0.3 or so (see below), the margin between two by √2 times that: 1 is some 2.4 deviations.
        var (model, least) = activations == Activations.F32 ? (_model, 0.05) : (_int8, 1);
        foreach (var element in Cases().Where(c => !c.TryGetProperty("alpha", out _)))
        {
            var prompt = model.Raw(element.GetProperty("prompt").GetString()!);
            var (ids, greedy) = (Fixture.Ints(element, "input_ids"), Fixture.Ints(element, "greedy"));
            Assert.That(prompt.Tokens, Is.EqualTo(ids));
            var tokens = Outcome.Run(model, [(prompt, new() { MaxTokens = greedy.Length, IgnoreEos = true })])[0].Tokens;
            var margins = element.GetProperty("margins").EnumerateArray().Select(m => m.GetDouble()).ToArray();
            var sure = Array.FindIndex(margins, m => m < least);
            sure = sure < 0 ? greedy.Length : sure;
            Assert.That(tokens.Take(sure), Is.EqualTo(greedy.Take(sure)), element.GetProperty("id").GetString());
        }
    }

    [Test]
    public void Logits_and_states_agree()
    {
        foreach (var id in (string[])["q0", "q1", "q2", "q3"])
        {
            var prompt = _model.Raw(Case(id).GetProperty("prompt").GetString()!);
            var outcome = Outcome.Run(_model, [(prompt, new() { MaxTokens = 1, Capture = true })])[0];
            Near(outcome.Logits[0], Tensor(id + ".logits"), id + ".logits");
            if (_tensors.Tensors.ContainsKey(id + ".hidden"))
                Near(outcome.Sequence.States!, Tensor(id + ".hidden"), id + ".hidden");
        }
    }

    [TestCase(1f), TestCase(-2f)]
    public void Steered_logits_agree(float alpha)
    {
        var flat = Tensor("vectors");
        var vectors = ShiftVectors.Create([.. Enumerable.Range(0, 30).Select(l => (float[]?)flat[(l * 576)..((l + 1) * 576)])]);
        var prompt = _model.Raw(Case("q0").GetProperty("prompt").GetString()!);
        var outcome = Outcome.Run(_model, [(prompt, new() { MaxTokens = 1, Steering = new(vectors, alpha) })])[0];
        Near(outcome.Logits[0], Tensor($"q0.steer{alpha:F1}.logits"), $"q0 alpha {alpha}");
    }

    [Test]
    public async Task Likelihood_agrees_within_one_percent()
    {
        var nll = _expected.GetProperty("nll");
        var sequence = await _model.RunAsync(_model.Raw(nll.GetProperty("text").GetString()!), new() { MaxTokens = 0, Score = true });
        Assert.That(sequence.Prompt.Tokens, Is.EqualTo(Fixture.Ints(nll, "ids")));
        TestContext.Out.WriteLine($"mean nll {sequence.Nll!.Average():F6}, expected {nll.GetProperty("mean").GetDouble():F6}");
        Assert.That(sequence.Nll!.Average(), Is.EqualTo(nll.GetProperty("mean").GetDouble()).Within(1).Percent);
    }

    [Test]
    public async Task Activations_in_eight_bits_change_the_likelihood_by_half_a_percent_at_most()
    {
        var text = _expected.GetProperty("nll").GetProperty("text").GetString()!;
        var mean = new double[2];
        foreach (var (i, model) in new[] { _model, _int8 }.Index())
            mean[i] = (await model.RunAsync(model.Raw(text), new() { MaxTokens = 0, Score = true })).Nll!.Average();
        TestContext.Out.WriteLine($"mean nll {mean[0]:F6}, in eight bits {mean[1]:F6}");
        Assert.That(mean[1], Is.EqualTo(mean[0]).Within(0.5).Percent);
    }

    [TestCase(Model.KvType.BF16), TestCase(Model.KvType.Int8)]
    public async Task A_rounded_cache_changes_the_likelihood_by_half_a_percent_at_most(Model.KvType kv)
    {
        var text = _expected.GetProperty("nll").GetProperty("text").GetString()!;
        using var model = VisionLanguageModel.Open(Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf"), new() { Engine = new() { KvType = kv } });
        var exact = (await _model.RunAsync(_model.Raw(text), new() { MaxTokens = 0, Score = true })).Nll!.Average();
        var rounded = (await model.RunAsync(model.Raw(text), new() { MaxTokens = 0, Score = true })).Nll!.Average();
        TestContext.Out.WriteLine($"mean nll {exact:F6}, with {kv} keys and values {rounded:F6} ({rounded / exact - 1:+0.000 %;-0.000 %})");
        Assert.That(rounded, Is.EqualTo(exact).Within(0.5).Percent);
    }

    /// <summary>What the CPU does not keep, on the device that defines it; the figures are in docs/cuda.md.</summary>
    [Explicit("minutes in scalar double precision"), Test]
    public async Task Eight_bits_a_key_change_the_likelihood_by_a_percent_at_most()
    {
        var text = _expected.GetProperty("nll").GetProperty("text").GetString()!;
        using var device = new Trimtab.Kernels.Reference.ReferenceDevice();
        var mean = new Dictionary<Model.KvType, double>();
        foreach (var kv in (Model.KvType[])[Model.KvType.F32, Model.KvType.Int8, Model.KvType.Fp8])
        {
            using var model = VisionLanguageModel.Open(Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf"), new() { Device = device, Engine = new() { KvType = kv, ContextLength = 512 } });
            mean[kv] = (await model.RunAsync(model.Raw(text), new() { MaxTokens = 0, Score = true })).Nll!.Average();
            TestContext.Out.WriteLine($"mean nll with {kv} keys and values {mean[kv]:F6} ({mean[kv] / mean[Model.KvType.F32] - 1:+0.000 %;-0.000 %})");
        }
        Assert.That(mean.Values, Is.All.EqualTo(mean[Model.KvType.F32]).Within(1).Percent);
    }

    /// <summary>
    /// Over four prompts together: what one of them gets is a draw. A change of 1e-5 in one op flips roundings, after thirty layers all of
    /// them, and moves the first prompt's deviation between 0.04 and 0.07 (so does AVX2 in place of AVX-512).
    /// </summary>
    [Test]
    public void Activations_in_eight_bits_move_logits_little()
    {
        var squares = new List<double>();
        foreach (var id in (string[])["q0", "q1", "q2", "q3"])
        {
            var prompt = _int8.Raw(Case(id).GetProperty("prompt").GetString()!);
            var (actual, expected) = (Outcome.Run(_int8, [(prompt, new() { MaxTokens = 1 })])[0].Logits[0], Tensor(id + ".logits"));
            var error = Math.Sqrt(actual.Zip(expected, (a, e) => Math.Pow((double)a - e, 2)).Average());
            var scale = Math.Sqrt(expected.Average(e => (double)e * e));
            TestContext.Out.WriteLine($"smollm2 {id}: rms deviation {error:G3} at {scale:G3}, largest {actual.Zip(expected, (a, e) => Math.Abs(a - e)).Max():G3}");
            squares.Add(error / scale * (error / scale));
        }
        // Steps of 1/127 of a block's largest element, 2.5 deviations or so, are wrong by 0.6 % of a deviation; 120 layers add up in quadrature.
        Assert.That(Math.Sqrt(squares.Average()), Is.LessThan(0.006 * Math.Sqrt(120)));
    }

    [Test]
    public async Task It_talks()
    {
        var text = "";
        await foreach (var update in _model.GenerateAsync(_model.Chat("What is the capital of France?"), new() { MaxTokens = 24 }))
            text += update.Text;
        Assert.That(text, Is.EqualTo("The capital of France is Paris."));
    }

    private IEnumerable<JsonElement> Cases() => _expected.GetProperty("cases").EnumerateArray();

    private JsonElement Case(string id) => Cases().First(c => c.GetProperty("id").GetString() == id);

    private float[] Tensor(string name)
    {
        using var mapped = _tensors.Map(name);
        return mapped.ToFloats();
    }

    /// <summary>Deviation against the spread of the expected values: the reference dequantised to float32, we compute in blocks.</summary>
    private static void Near(float[] actual, float[] expected, string what)
    {
        var scale = Math.Sqrt(expected.Average(e => (double)e * e));
        var worst = actual.Zip(expected, (a, e) => Math.Abs((double)a - e)).Max();
        TestContext.Out.WriteLine($"smollm2 {what}: largest deviation {worst:G3} at rms {scale:G3}");
        Assert.That(worst / scale, Is.LessThan(0.02), what);
    }
}
