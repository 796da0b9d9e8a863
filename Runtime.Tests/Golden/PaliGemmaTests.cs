using Trimtab.Checkpoints;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab.Tests.Golden;

/// <summary>
/// PaliGemma (arXiv 2407.07726), whose prompts see themselves whole: against a decoder in double precision, written here from the paper and Gemma's
/// config, that knows nothing of caches, batches or pages.
/// </summary>
public class PaliGemmaTests
{
    private const int Layers = 3, Width = 32, Heads = 4, Size = 8, Mlp = 48;

    private string _folder = null!;
    private VisionLanguageModel _model = null!;
    private Dictionary<string, (float[] Values, int Columns)> _weights = null!;

    [OneTimeSetUp]
    public void Open()
    {
        _folder = TinyModel.Write(Directory.CreateTempSubdirectory("trimtab-paligemma-").FullName, $$"""
            {
              "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "image_token_index": $I, "projection_dim": {{Width}}, "bos_token_id": 0,
              "eos_token_id": 1,
              "text_config": { "model_type": "gemma", "hidden_size": {{Width}}, "intermediate_size": {{Mlp}}, "num_hidden_layers": {{Layers}}, "num_attention_heads": {{Heads}},
                "num_key_value_heads": 1, "head_dim": {{Size}}, "vocab_size": $V, "max_position_embeddings": 512 },
              "vision_config": { "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 28, "patch_size": 14 }
            }
            """);
        _model = VisionLanguageModel.Open(_folder, new() { WeightType = DType.F32, Threads = 2 });
        using var file = Checkpoint.Open(Path.Combine(_folder, "model.safetensors"));
        _weights = file.Tensors.ToDictionary(t => t.Key, t =>
        {
            using var mapped = file.Map(t.Key);
            return (mapped.ToFloats(), (int)t.Value.Shape[^1]);
        });
    }

    [OneTimeTearDown]
    public void Close()
    {
        _model.Dispose();
        Directory.Delete(_folder, true);
    }

    [TestCase(0f), TestCase(1f), TestCase(-2f)]
    public void States_and_logits_agree_with_double_precision(float alpha)
    {
        var (prompt, vectors) = (Question("<image>what is on the left", 3), Vectors());
        var options = new GenerationOptions { MaxTokens = 4, IgnoreEos = true, Capture = true, Steering = alpha == 0 ? null : new(ShiftVectors.Create(vectors), alpha) };
        var outcome = Outcome.Run(_model, [(prompt, options)])[0];
        var tokens = prompt.Tokens.ToList();
        for (var step = 0; step < 4; step++)
        {
            var (states, logits) = Reference(tokens, prompt, vectors, alpha);
            if (step == 0)
                Near(outcome.Sequence.States!, states, 2e-4, "states");
            Near(outcome.Logits[step], logits, 5e-4, $"logits of step {step}");
            tokens.Add(outcome.Tokens[step]);
        }
    }

    /// <summary>The beginning of one prompt is no beginning of another: only the same prompt under the same steering shares pages.</summary>
    [Test]
    public void Batches_pages_and_steering_change_no_bit()
    {
        var vectors = ShiftVectors.Create(Vectors());
        List<(Prompt, GenerationOptions)> requests = [];
        foreach (var text in (string[])["<image>what is on the left of the picture", "<image>what is on the left of the road", "what is on the left of the picture"])
            foreach (var alpha in (float[])[0, 1, 1, -1])
                requests.Add((Question(text, text[0] == '<' ? 3 : 0), new()
                {
                    MaxTokens = 20, IgnoreEos = true, Capture = true, Steering = alpha == 0 ? null : new(vectors, alpha),
                }));
        List<Outcome> alone = [.. requests.Select(request => Outcome.Run(_model, [request], new() { PrefixCache = false })[0])];
        foreach (var options in (EngineOptions[])[new(), new() { MaxBatchTokens = 5, MaxSequences = 3 }, new() { MaxBatchTokens = 40, PrefillChunk = 3, MaxSequences = 2, ContextLength = 64, CachePositions = 96 }])
        {
            var together = Outcome.Run(_model, requests, options);
            for (var i = 0; i < requests.Count; i++)
            {
                Assert.That(together[i].Sequence.States, Is.EqualTo(alone[i].Sequence.States), $"states of {i}");
                for (var step = 0; step < 20; step++)
                    Assert.That(together[i].Logits[step], Is.EqualTo(alone[i].Logits[step]), $"logits of {i} at step {step}");
            }
            Assert.That(together[2].Sequence.CachedTokens, options.MaxBatchTokens == 5 ? Is.AtLeast(16) : Is.AtLeast(0));
            Assert.That(together[4].Sequence.CachedTokens, Is.Zero, "another prompt with the same image");
        }
    }

    [Test]
    public void Prompts_have_the_processors_form()
    {
        int Id(string token) => _model.Tokenizer.IdOf(token)!.Value;
        int[] image = [.. Enumerable.Repeat(Id("<image>"), 4)], question = _model.Tokenizer.Encode("what\n", addSpecial: false);
        Assert.That(Question("<image>what", 1).Tokens, Is.EqualTo((int[])[.. image, Id("<s>"), .. question]));
        Assert.That(Question("<image><s>what", 1).Tokens, Is.EqualTo((int[])[.. image, Id("<s>"), .. question]));
        Assert.That(Question("what", 0).Tokens, Is.EqualTo((int[])[Id("<s>"), .. question]));
        Assert.That(_model.Chat([new("user", "what", 1)], [Image.Noise(9, 9, 1)]).Tokens, Is.EqualTo(Question("<image>what", 1).Tokens));
        Assert.That(() => _model.Chat([new("user", "what"), new("assistant", "this"), new("user", "and")]), Throws.InstanceOf<ChatTemplateException>().With.Message.Contains("no conversation"));
    }

    [Test]
    public void A_prompt_has_no_likelihood() =>
        Assert.That(() => Outcome.Run(_model, [(Question("what", 0), new() { MaxTokens = 0, Score = true })]), Throws.ArgumentException.With.Message.Contains("likelihood"));

    private Prompt Question(string text, int seed) => _model.Raw(text, seed == 0 ? [] : [Image.Noise(40, 30, (ulong)seed)]);

    private static float[][] Vectors()
    {
        var random = new Random(5);
        return [.. Enumerable.Range(0, Layers).Select(_ => Enumerable.Range(0, Width).Select(_ => random.NextSingle() * 2 - 1).ToArray())];
    }

    /// <summary>The last prompt token's state at each layer's output before its edit, and the logits that follow the last token.</summary>
    private (double[] States, double[] Logits) Reference(List<int> tokens, Prompt prompt, float[][] vectors, double alpha)
    {
        const string At = "model.";
        var (n, asked, image) = (tokens.Count, prompt.Tokens.Length, prompt.Images[0]);
        var device = _model.Network.Device;
        var rows = device.Allocate(DType.F32, image.Rows, Width);
        _model.Network.Vision!.Forward(image.Pixels, image.Grid, rows);
        var features = new float[image.Rows * Width];
        device.Download(rows, features);
        rows.Storage!.Dispose();
        var x = tokens.Select((token, p) => Enumerable.Range(0, Width).Select(i => p >= image.Start && p < image.Start + image.Rows
            ? features[(p - image.Start) * Width + i] : Math.Sqrt(Width) * _weights[At + "embed_tokens.weight"].Values[token * Width + i]).ToArray()).ToArray();
        var states = new List<double>();
        for (var l = 0; l < Layers; l++)
        {
            var layer = $"{At}layers.{l}.";
            var h = Array.ConvertAll(x, row => Norm(row, layer + "input_layernorm.weight"));
            double[][] q = Array.ConvertAll(h, row => Times(layer + "self_attn.q_proj.weight", row)), k = Array.ConvertAll(h, row => Times(layer + "self_attn.k_proj.weight", row)),
                v = Array.ConvertAll(h, row => Times(layer + "self_attn.v_proj.weight", row));
            for (var p = 0; p < n; p++)
            {
                var attended = new double[Heads * Size];
                for (var head = 0; head < Heads; head++)
                {
                    var weights = new double[n];
                    for (var other = 0; other < n; other++)
                        if (other <= p || p < asked && other < asked)
                            weights[other] = Math.Exp(Turned(q[p], head * Size, p).Zip(Turned(k[other], 0, other), (a, b) => a * b).Sum() / Math.Sqrt(Size));
                    var sum = weights.Sum();
                    for (var i = 0; i < Size; i++)
                        attended[head * Size + i] = Enumerable.Range(0, n).Sum(other => weights[other] / sum * v[other][i]);
                }
                Add(x[p], Times(layer + "self_attn.o_proj.weight", attended));
            }
            for (var p = 0; p < n; p++)
            {
                var row = Norm(x[p], layer + "post_attention_layernorm.weight");
                double[] gate = Times(layer + "mlp.gate_proj.weight", row), up = Times(layer + "mlp.up_proj.weight", row);
                Add(x[p], Times(layer + "mlp.down_proj.weight", [.. gate.Zip(up, (g, u) => 0.5 * g * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (g + 0.044715 * g * g * g))) * u)]));
                if (p == asked - 1)
                    states.AddRange(x[p]);
                if (p >= asked - 1)
                    Add(x[p], [.. vectors[l].Select(value => -alpha * value)]);
            }
        }
        return ([.. states], Times(At + "embed_tokens.weight", Norm(x[^1], At + "norm.weight")));
    }

    private static double[] Turned(double[] row, int first, int position)
    {
        var turned = new double[Size];
        for (var i = 0; i < Size / 2; i++)
        {
            var angle = position * Math.Pow(10000, -2.0 * i / Size);
            turned[i] = row[first + i] * Math.Cos(angle) - row[first + Size / 2 + i] * Math.Sin(angle);
            turned[Size / 2 + i] = row[first + Size / 2 + i] * Math.Cos(angle) + row[first + i] * Math.Sin(angle);
        }
        return turned;
    }

    private double[] Norm(double[] row, string weight)
    {
        var scale = 1 / Math.Sqrt(row.Sum(value => value * value) / row.Length + 1e-6);
        return [.. row.Select((value, i) => value * scale * (1.0 + _weights[weight].Values[i]))];
    }

    private double[] Times(string weight, double[] row)
    {
        var (values, columns) = _weights[weight];
        return [.. Enumerable.Range(0, values.Length / columns).Select(r => Enumerable.Range(0, columns).Sum(c => values[r * columns + c] * row[c]))];
    }

    private static void Add(double[] row, double[] delta)
    {
        for (var i = 0; i < row.Length; i++)
            row[i] += delta[i];
    }

    private static void Near(float[] actual, double[] expected, double tolerance, string what)
    {
        Assert.That(actual, Has.Length.EqualTo(expected.Length), what);
        Assert.That(actual.Zip(expected, (a, e) => Math.Abs(a - e)).Max(), Is.LessThan(tolerance), what);
    }
}
