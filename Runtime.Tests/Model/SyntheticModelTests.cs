using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests;

/// <summary>Models whose weights are made up: their sizes, and that any weight is a number of a sane size.</summary>
public class SyntheticModelTests
{
    [TestCase("7b-q4_0", 6_738_415_616L, DType.Q4_0)]
    [TestCase("1.1B-Q8_0", 1_100_048_384L, DType.Q8_0)]
    [TestCase("135m-bf16", 134_515_008L, DType.BF16)]
    [TestCase("8b-q4_k", 8_030_261_248L, DType.Q4_K)]
    [TestCase("13b-f16", 13_015_864_320L, DType.F16)]
    public void Sizes_are_those_of_the_published_models(string spec, long parameters, DType type)
    {
        using var source = SyntheticModel.Parse(spec).Open();
        var tensors = source.Files[0].Tensors.Values;
        Assert.That(tensors.Sum(t => t.Elements), Is.EqualTo(parameters));
        Assert.That(tensors.Where(t => t.Shape.Count == 2).Select(t => t.Type), Is.All.EqualTo(type));
        Assert.That(source.Roles(), Is.Not.Empty);
    }

    [Test]
    public void Llava_has_the_tower_of_clip_large()
    {
        using var source = SyntheticModel.Parse("llava-7b-q4_0").Open();
        var vision = source.Spec.Vision!;
        Assert.That((vision.Features, vision.HiddenSize, vision.UsedLayers, vision.Activation), Is.EqualTo((576, 1024, 23, Epilogue.QuickGelu)));
        Assert.That(source.Files[1].Tensors.Values.Where(t => t.Type != DType.F32).Select(t => t.Type), Is.All.EqualTo(DType.F16));
        Assert.That(source.Spec.Projector!.OutputSize, Is.EqualTo(4096));
    }

    [Test]
    public void Q4_k_m_mixes_forms_as_llama_cpp_does()
    {
        using var source = SyntheticModel.Parse("1.1b-q4_k_m").Open();
        var tensors = source.Files[0].Tensors;
        Assert.Multiple(() =>
        {
            Assert.That(tensors["output.weight"].Type, Is.EqualTo(DType.Q6_K));
            Assert.That(tensors["token_embd.weight"].Type, Is.EqualTo(DType.Q4_K));
            Assert.That(Enumerable.Range(0, 22).Where(l => tensors[$"blk.{l}.ffn_down.weight"].Type == DType.Q6_K), Is.EqualTo(new[] { 0, 1, 4, 7, 10, 13, 16, 19, 20, 21 }));
            Assert.That(tensors["blk.0.attn_q.weight"].Type, Is.EqualTo(DType.Q4_K));
        });
    }

    [TestCase("f32")]
    [TestCase("f16")]
    [TestCase("bf16")]
    [TestCase("q8_0")]
    [TestCase("q4_0")]
    [TestCase("q4_1")]
    [TestCase("q4_k")]
    [TestCase("q6_k")]
    public void Weights_have_no_mean_and_the_deviation_of_a_trained_matrix(string form)
    {
        using var source = SyntheticModel.Parse("1.1b-" + form).Open();
        using var tensor = source.Files[0].Map("blk.3.attn_q.weight");
        var values = new float[2048 * 2048];
        Blocks.Dequantize(tensor.Info.Type, tensor.Span, values);
        var mean = values.Average(v => (double)v);
        var deviation = Math.Sqrt(values.Average(v => (v - mean) * (v - mean)));
        Assert.That(values, Is.All.Matches<float>(float.IsFinite));
        Assert.That(deviation * Math.Sqrt(2048), Is.InRange(0.6, 1.6));
        Assert.That(Math.Abs(mean), Is.LessThan(deviation / 20));
    }

    [Test]
    public void Weights_depend_on_the_seed_and_the_name_alone()
    {
        byte[] Bytes(int seed, string name)
        {
            using var source = SyntheticModel.Parse("tiny-q4_0", seed).Open();
            using var tensor = source.Files[0].Map(name);
            return tensor.Span.ToArray();
        }
        var first = Bytes(1, "blk.0.attn_q.weight");
        Assert.Multiple(() =>
        {
            Assert.That(Bytes(1, "blk.0.attn_q.weight"), Is.EqualTo(first));
            Assert.That(Bytes(2, "blk.0.attn_q.weight"), Is.Not.EqualTo(first));
            Assert.That(Bytes(1, "blk.1.attn_q.weight"), Is.Not.EqualTo(first));
        });
    }

    [TestCase("")]
    [TestCase("7b")]
    [TestCase("7b-q4_0-x")]
    [TestCase("-q4_0")]
    [TestCase("llava-q4_0")]
    [TestCase("7b-iq1_s")]
    [TestCase("135m-q6_k")]
    public void Other_names_are_refused(string spec)
        => Assert.That(() => SyntheticModel.Parse(spec), Throws.TypeOf<FormatException>().With.Message.Contains($"'{spec}'"));

    /// <summary>Weights and activations of half a unit of BF16 at most, 2^-9, or of 0.58 of that on average; two layers have eight matrices one after another.</summary>
    [Test]
    public void F16_weights_are_rounded_to_BF16_only_where_that_is_asked_for_and_multiplied()
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-f16-");
        var path = Path.Combine(folder.FullName, "tiny.gguf");
        SyntheticModel.Parse("tiny-f16").Write(path);
        float[] Logits(Activations activations, out string notes)
        {
            using var model = VisionLanguageModel.Open(path, new() { Activations = activations });
            notes = string.Join('\n', model.Network.Notes);
            return Outcome.Run(model, [(model.Raw("What is the capital of France?"), new() { MaxTokens = 1 })])[0].Logits[0];
        }
        var exact = Logits(Activations.F32, out var kept);
        var rounded = Logits(Activations.Auto, out var made);
        folder.Delete(true);
        var multiplied = Trimtab.Kernels.Cpu.EmittedDot.Instance?.HasBF16 == true;
        var error = Math.Sqrt(exact.Zip(rounded, (e, r) => Math.Pow((double)e - r, 2)).Sum() / exact.Sum(e => (double)e * e));
        TestContext.Out.WriteLine($"relative deviation {error:G3}");
        Assert.Multiple(() =>
        {
            Assert.That(kept, Does.Not.Contain("BF16"));
            Assert.That(made, multiplied ? Does.Contain("F16 weights were rounded to BF16") : Does.Not.Contain("BF16"));
            Assert.That(error, multiplied ? Is.InRange(1e-5, 0.58 / 256 * Math.Sqrt(2 * 8)) : Is.Zero);
        });
    }
}
