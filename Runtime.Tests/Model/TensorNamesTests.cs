using Trimtab.Kernels;
using Trimtab.Model;

namespace Trimtab.Tests;

public class TensorNamesTests
{
    private static readonly ModelSpec Spec = new("LlavaForConditionalGeneration",
        new("llama", 64, 96, 2, 4, 2, 16, 100, 1e-5f, Epilogue.SiluGate, true, false, false, false, [0, 0], new(RopeKind.Default, 10000, 16, 2048), 1, [2]),
        new("clip_vision_model", 32, 48, 4, 3, 2, 28, 14, 1e-5f, Epilogue.QuickGelu, true, true, true),
        new(32, 80, 64, Epilogue.Gelu, true), 5, DType.F16);

    private static readonly Layout[] Layouts =
    [
        new(LayoutForm.HuggingFace, "language_model.model.", "language_model.lm_head.weight"),
        new(LayoutForm.HuggingFace, "model.language_model.", "lm_head.weight", "model.vision_tower.vision_model.", "model.multi_modal_projector."),
        new(LayoutForm.HuggingFace, "model.language_model.", "lm_head.weight", "model.vision_tower.", "model.multi_modal_projector."),
        new(LayoutForm.Gguf),
        new(LayoutForm.GgufVision),
    ];

    private static Dictionary<string, long[]> File(ModelSpec spec, Layout layout) =>
        TensorNames.Expect(spec, layout).Where(e => !e.Optional).ToDictionary(e => e.Name, e => e.Shape);

    [TestCase("llava-gqa")]
    [TestCase("llava-576")]
    [TestCase("llava-llama3")]
    [TestCase("text-llama")]
    [TestCase("text-mistral-window")]
    [TestCase("text-qwen2")]
    public void Finds_every_tensor_of_a_fixture_and_no_other(string model)
    {
        var folder = Shared.Path("fixtures", "models", model);
        var spec = HuggingFaceConfig.Parse(System.IO.File.ReadAllBytes(Path.Combine(folder, "config.json")), folder);
        var tensors = ConfigHeaders.Safetensors(folder);
        var expected = TensorNames.Expect(spec, TensorNames.Detect(tensors));
        Assert.DoesNotThrow(() => TensorNames.Check(expected, tensors, model));
        Assert.That(expected.Count(e => tensors.ContainsKey(e.Name)), Is.GreaterThan(tensors.Count * 2 / 3));
    }

    [TestCase("llava-gqa-gguf/model-bf16.gguf")]
    [TestCase("llava-gqa-gguf/mmproj-bf16.gguf")]
    [TestCase("../../models/SmolLM2-135M-Instruct.Q4_1.gguf")]
    public void Finds_every_tensor_of_a_gguf_and_no_other(string path)
    {
        var file = ConfigHeaders.Gguf(Shared.Path("fixtures", "models", path));
        var layout = TensorNames.Detect(file.Shapes);
        ModelSpec spec;
        if (layout.Form == LayoutForm.Gguf)
            spec = GgufConfig.Parse(file.Metadata, file.Shape, path);
        else
        {
            var vision = GgufConfig.ParseVision(file.Metadata, file.Shape, path, 64);
            spec = Spec with { Vision = vision.Vision, Projector = vision.Projector };
        }
        var expected = TensorNames.Expect(spec, layout);
        Assert.DoesNotThrow(() => TensorNames.Check(expected, file.Shapes, path));
        Assert.That(expected.Count(e => file.Shapes.ContainsKey(e.Name)), Is.EqualTo(file.Shapes.Count));
    }

    [Test]
    public void Recognises_each_layout_by_its_names()
    {
        using (Assert.EnterMultipleScope())
        {
            foreach (var layout in Layouts)
                Assert.That(TensorNames.Detect(File(Spec, layout)), Is.EqualTo(layout));
            var plain = new Layout(LayoutForm.HuggingFace);
            Assert.That(TensorNames.Detect(File(Spec with { Vision = null, Projector = null }, plain)), Is.EqualTo(plain));
            Assert.That(TensorNames.Detect(["embed_tokens.weight", "norm.weight", "layers.0.input_layernorm.weight"]).Text, Is.Empty);
            Assert.That(TensorNames.Detect(["something.else"]).Form, Is.EqualTo(LayoutForm.HuggingFace));
            Assert.That(TensorNames.Detect(Array.Empty<string>()).Text, Is.EqualTo("model."));
        }
    }

    [Test]
    public void Recognises_a_layout_although_tensors_are_missing()
    {
        var layout = Layouts[0];
        var tensors = File(Spec, layout);
        foreach (var name in new[] { "language_model.model.embed_tokens.weight", "language_model.lm_head.weight", "multi_modal_projector.linear_1.weight" })
            tensors.Remove(name);
        Assert.That(TensorNames.Detect(tensors), Is.EqualTo(layout));
    }

    [Test]
    public void Gives_every_layout_the_same_roles()
    {
        var roles = TensorNames.Expect(Spec, Layouts[0]).Select(e => (e.Role, string.Join(',', e.Shape))).Order().ToList();
        Assert.That(TensorNames.Expect(Spec, Layouts[1]).Select(e => (e.Role, string.Join(',', e.Shape))).Order(), Is.EqualTo(roles));
        var gguf = TensorNames.Expect(Spec, Layouts[3]).Concat(TensorNames.Expect(Spec, Layouts[4]));
        Assert.That(gguf.Select(e => (e.Role, string.Join(',', e.Shape))).Order(), Is.EqualTo(roles));
        Assert.That(roles.Select(r => r.Role), Is.SupersetOf(new[]
        {
            "text.embed", "text.norm", "text.head", "text.layers.1.attn_norm", "text.layers.1.q", "text.layers.1.k.bias", "text.layers.1.v", "text.layers.1.o",
            "text.layers.1.mlp_norm", "text.layers.1.gate", "text.layers.1.up", "text.layers.1.down", "vision.patch", "vision.patch.bias", "vision.class", "vision.position",
            "vision.pre_norm", "vision.pre_norm.bias", "vision.layers.2.norm1", "vision.layers.2.norm1.bias", "vision.layers.2.q", "vision.layers.2.k.bias", "vision.layers.2.v",
            "vision.layers.2.o", "vision.layers.2.norm2", "vision.layers.2.fc1", "vision.layers.2.fc2.bias", "projector.linear1", "projector.linear2.bias",
        }));
        Assert.That(roles.Select(r => r.Role), Has.No.Member("text.layers.0.o.bias").And.No.Member("text.layers.0.gate.bias").And.No.Member("vision.layers.3.q"));
    }

    [Test]
    public void Lists_all_that_is_wrong_in_one_error()
    {
        var tensors = File(Spec, Layouts[0]);
        tensors.Remove("language_model.model.norm.weight");
        tensors.Remove("vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias");
        tensors["language_model.model.layers.1.self_attn.k_proj.weight"] = [64, 64];
        tensors["language_model.model.layers.0.self_attn.o_proj.bias"] = [64];
        tensors["language_model.model.layers.2.input_layernorm.weight"] = [64];
        var error = Assert.Throws<MismatchedTensorsException>(() => TensorNames.Check(TensorNames.Expect(Spec, Layouts[0]), tensors, "model.safetensors"))!;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(error.Missing, Is.EqualTo(new[] { "language_model.model.norm.weight", "vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias" }));
            Assert.That(error.Misshapen, Is.EqualTo(new[] { "language_model.model.layers.1.self_attn.k_proj.weight" }));
            Assert.That(error.Surplus, Is.EqualTo(new[] { "language_model.model.layers.0.self_attn.o_proj.bias", "language_model.model.layers.2.input_layernorm.weight" }));
            Assert.That(error.Message, Does.Contain("model.safetensors").And.Contain("norm.weight [64]").And.Contain("[64, 64]; expected [32, 64]"));
            foreach (var name in error.Missing.Concat(error.Misshapen).Concat(error.Surplus))
                Assert.That(error.Message, Does.Contain(name));
        }
    }

    [Test]
    public void Ignores_buffers_and_parts_that_no_forward_pass_reads()
    {
        var tensors = File(Spec, Layouts[1]);
        foreach (var name in new[]
        {
            "model.language_model.layers.0.self_attn.rotary_emb.inv_freq", "model.language_model.rotary_emb.inv_freq", "model.vision_tower.vision_model.embeddings.position_ids",
            "model.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight", "model.vision_tower.vision_model.post_layernorm.bias", "visual_projection.weight",
            "text_model.embeddings.token_embedding.weight", "logit_scale", "model.language_model.layers.0.self_attn.masked_bias",
        })
            tensors.Add(name, [1]);
        Assert.DoesNotThrow(() => TensorNames.Check(TensorNames.Expect(Spec, Layouts[1]), tensors, "f"));
        tensors.Add("model.vision_tower.vision_model.encoder.layers.2.mlp.fc3.weight", [1]);
        Assert.Throws<MismatchedTensorsException>(() => TensorNames.Check(TensorNames.Expect(Spec, Layouts[1]), tensors, "f"));

        var gguf = File(Spec, Layouts[4]);
        gguf.Add("v.post_ln.weight", [32]);
        gguf.Add("v.blk.3.ln1.weight", [32]);
        Assert.DoesNotThrow(() => TensorNames.Check(TensorNames.Expect(Spec, Layouts[4]), gguf, "f"));
        var text = File(Spec, Layouts[3]);
        text.Add("rope_freqs.weight", [8]);
        Assert.DoesNotThrow(() => TensorNames.Check(TensorNames.Expect(Spec, Layouts[3]), text, "f"));
    }

    [Test]
    public void Ignores_a_tied_models_stored_head_and_wants_an_untied_ones()
    {
        var tied = Spec with { Text = Spec.Text with { TieEmbeddings = true } };
        var tensors = File(Spec, Layouts[0]);
        Assert.DoesNotThrow(() => TensorNames.Check(TensorNames.Expect(tied, Layouts[0]), tensors, "f"));
        tensors.Remove("language_model.lm_head.weight");
        Assert.DoesNotThrow(() => TensorNames.Check(TensorNames.Expect(tied, TensorNames.Detect(tensors)), tensors, "f"));
        var error = Assert.Throws<MismatchedTensorsException>(() => TensorNames.Check(TensorNames.Expect(Spec, TensorNames.Detect(tensors)), tensors, "f"))!;
        Assert.That(error.Missing, Is.EqualTo(new[] { "language_model.lm_head.weight" }));
    }

    [Test]
    public void Sees_through_the_swapped_names_of_old_vision_files()
    {
        var old = new Layout(LayoutForm.GgufVision, SwappedMlp: true);
        var tensors = File(Spec, old);
        Assert.That(tensors["v.blk.0.ffn_down.weight"], Is.EqualTo(new long[] { 48, 32 }));
        Assert.That(TensorNames.Detect(tensors), Is.EqualTo(old));
        Assert.That(TensorNames.Expect(Spec, old).Single(e => e.Role == "vision.layers.1.fc1").Name, Is.EqualTo("v.blk.1.ffn_down.weight"));
        Assert.That(TensorNames.Expect(Spec, old).Single(e => e.Role == "vision.layers.1.fc2.bias").Name, Is.EqualTo("v.blk.1.ffn_up.bias"));
    }
}
