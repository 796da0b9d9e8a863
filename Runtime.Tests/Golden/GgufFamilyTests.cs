using System.Text.RegularExpressions;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Tests.Cuda;

namespace Trimtab.Tests.Golden;

/// <summary>
/// The families' fixtures written again as GGUF files, under llama.cpp's names and with what its converters do to tensors (rows of llama's
/// queries and keys interleaved, Gemma's norms as 1 + w, experts stacked): the same expected values.
/// </summary>
public class GgufFamilyTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Make() => _folder = Directory.CreateTempSubdirectory("trimtab-gguf-").FullName;

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    [TestCase("text-qwen3", "qwen3")]
    [TestCase("text-qwen3-moe", "qwen3moe")]
    [TestCase("text-mixtral", "llama")]
    [TestCase("text-phi3", "phi3")]
    [TestCase("text-gemma2", "gemma2")]
    [TestCase("text-gemma3", "gemma3")]
    [TestCase("qwen2-vl", "qwen2vl")]
    [TestCase("llava-siglip-qwen2", "qwen2", "mlp")]
    [TestCase("idefics3-smolvlm", "llama", "idefics3")]
    [TestCase("gemma3", "gemma3", "gemma3")]
    [TestCase("llava-next-mistral", "llama", "mlp")]
    [TestCase("qwen2-vl", "qwen2vl", "qwen2vl_merger")]
    [TestCase("qwen2.5-vl", "qwen2vl", "qwen2.5vl_merger")]
    [TestCase("qwen3-vl", "qwen3vl", "qwen3vl_merger")]
    // Stacked experts and rows of queries and keys in another order, with an image, and norms of 1 + w: what a GGUF file adds to a family.
    [TestCase("text-mixtral", "llama", null, "cuda")]
    [TestCase("idefics3-smolvlm", "llama", "idefics3", "cuda")]
    [TestCase("gemma3", "gemma3", "gemma3", "cuda")]
    public void Agrees_as_gguf(string name, string architecture, string? projector = null, string device = "cpu")
    {
        using var fixture = Fixture.Open(name);
        var folder = Directory.CreateDirectory(Path.Combine(_folder, $"{name}-{projector}-{device}")).FullName;
        var path = Path.Combine(folder, name + ".gguf");
        var mmproj = projector is null ? null : Path.Combine(folder, "mmproj-" + name + ".gguf");
        Convert(name, fixture.Model.Network.Spec, architecture, path, mmproj, projector);
        using var model = VisionLanguageModel.Open(path, new() { WeightType = DType.F32, MmprojPath = mmproj, Device = device == "cuda" ? EmulatedCuda.Get() : null });
        Assert.That(model.Network.Fingerprint, Is.EqualTo(fixture.Model.Network.Fingerprint));
        using var windowed = projector == "qwen2.5vl_merger" ? Windowed(name) : null;
        foreach (var element in fixture.Cases.Where(c => projector is not null || Fixture.ImagesOf(c).Length == 0))
        {
            var id = element.GetProperty("id").GetString()!;
            if (projector is not null && fixture.Has(id + ".image_embeds"))
            {
                var prompt = fixture.ReferencePrompt(element);
                Near(Embeddings(model, prompt), windowed is null ? fixture.Tensor(id + ".image_embeds") : Embeddings(windowed, prompt), id + " embeddings", 2e-4f);
            }
            if (fixture.Model.Network.Spec.Vision is { TimeFactor: not 1 } && Fixture.ImagesOf(element).Length > 0)
                continue; // where a token stands is another matter in a GGUF file
            var outcome = Outcome.Run(model, [(fixture.ReferencePrompt(element), new() { MaxTokens = 2, IgnoreEos = true, Capture = true })])[0];
            Near(outcome.Sequence.States!, fixture.Tensor(id + ".hidden"), id);
            Near(outcome.Logits[0], fixture.Tensor(id + ".logits")[..fixture.Vocabulary], id);
        }
    }

    /// <summary>The fixture with the one size of windows that files of llama.cpp have, which say nothing of it.</summary>
    private VisionLanguageModel Windowed(string name)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_folder, name)).FullName;
        foreach (var file in Directory.GetFiles(Shared.Path("fixtures", "models", name)))
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        var config = Path.Combine(folder, "config.json");
        var text = Regex.Replace(File.ReadAllText(config), @"""window_size"": \d+", @"""window_size"": 112");
        File.SetAttributes(config, FileAttributes.Normal);
        File.WriteAllText(config, text);
        var model = VisionLanguageModel.Open(folder, new() { WeightType = DType.F32 });
        Assert.That(model.Network.Spec.Vision!.Window, Is.EqualTo(4));
        return model;
    }

    private static float[] Embeddings(VisionLanguageModel model, Trimtab.Engine.Prompt prompt)
    {
        var (vision, device, all) = (model.Network.Vision!, model.Network.Device, new List<float>());
        foreach (var image in prompt.Images)
        {
            Tensor[] outputs = [.. Enumerable.Range(0, 1 + vision.Spec.Deepstack.Length).Select(_ => device.Allocate(device.ActivationType, image.Rows, model.Network.Spec.Text.HiddenSize))];
            vision.Forward(image.Pixels, image.Grid, outputs[0], outputs.AsSpan(1));
            var rows = new float[image.Rows * model.Network.Spec.Text.HiddenSize];
            device.Download(outputs[0], rows);
            foreach (var output in outputs)
                output.Storage!.Dispose();
            all.AddRange(rows);
        }
        return [.. all];
    }

    private static void Near(float[] actual, float[] expected, string what, float tolerance = 1e-4f)
    {
        Assert.That(actual, Has.Length.EqualTo(expected.Length), what);
        Assert.That(actual.Zip(expected, (a, e) => Math.Abs(a - e)).Max(), Is.LessThan(tolerance), what);
    }

    private static readonly (string HuggingFace, string Gguf)[] Names =
    [
        (@"^.*embed_tokens\.", "token_embd."), (@"^.*lm_head\.", "output."), (@"^(?!.*layers).*model\.norm\.|^model\.text_model\.norm\.|^model\.language_model\.norm\.", "output_norm."),
        (@"^.*(?:model|text_model|language_model)\.layers\.(\d+)\.", "blk.$1."),
        (@"^.*encoder\.layers\.(\d+)\.", "v.blk.$1."), (@"^.*embeddings\.patch_embedding\.", "v.patch_embd."), (@"^.*embeddings\.position_embedding\.", "v.position_embd."),
        (@"^.*post_layernorm\.", "v.post_ln."), (@"^.*multi_modal_projector\.linear_1\.", "mm.0."), (@"^.*multi_modal_projector\.linear_2\.", "mm.2."),
        (@"^.*mm_input_projection_weight$", "mm.input_projection.weight"), (@"^.*mm_soft_emb_norm\.", "mm.soft_emb_norm."),
        (@"^.*modality_projection\.proj\.", "mm.model.fc."),
        (@"^.*embeddings\.class_embedding$", "v.class_embd"), (@"^.*pre_layrnorm\.", "v.pre_ln."), (@"^.*image_newline$", "model.image_newline"),
        (@"^.*visual\.blocks\.(\d+)\.", "v.blk.$1."), (@"^.*visual\.merger\.(?:ln_q|norm)\.", "v.post_ln."), (@"^.*visual\.merger\.mlp\.(\d)\.", "mm.$1."),
        (@"^.*visual\.merger\.linear_fc1\.", "mm.0."), (@"^.*visual\.merger\.linear_fc2\.", "mm.2."), (@"^.*visual\.deepstack_merger_list\.", "v.deepstack."),
        (@"^(v\.deepstack.*)linear_fc", "$1fc"), (@"^.*visual\.patch_embed\.proj\.", "v.patch_embd."), (@"^.*visual\.pos_embed\.", "v.position_embd."),
        (@"^(v\.blk.*)\.norm([12])\.", "$1.ln$2."), (@"^(v\.blk.*)attn\.qkv", "$1attn_qkv"), (@"^(v\.blk.*)attn\.proj", "$1attn_out"),
        (@"mlp\.linear_fc1", "ffn_up"), (@"mlp\.linear_fc2", "ffn_down"), ("layer_norm1", "ln1"), ("layer_norm2", "ln2"), (@"mlp\.fc1", "ffn_up"), (@"mlp\.fc2", "ffn_down"), (@"self_attn\.out_proj", "attn_out"),
        (@"self_attn\.qkv_proj", "attn_qkv"), (@"self_attn\.([qkv])_proj", "attn_$1"), (@"self_attn\.o_proj", "attn_output"), (@"self_attn\.([qk])_norm", "attn_$1_norm"),
        ("input_layernorm", "attn_norm"), ("pre_feedforward_layernorm", "ffn_norm"), ("post_feedforward_layernorm", "post_ffw_norm"),
        (@"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(?:gate_proj|w1)", "expert.$1.gate"), (@"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(?:up_proj|w3)", "expert.$1.up"),
        (@"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(?:down_proj|w2)", "expert.$1.down"), (@"(?:mlp|block_sparse_moe)\.gate\.", "ffn_gate_inp."),
        (@"mlp\.gate_up_proj", "ffn_up"), (@"mlp\.(gate|up|down)_proj", "ffn_$1"),
    ];

    private static void Convert(string name, ModelSpec spec, string architecture, string path, string? mmproj, string? projector)
    {
        using var source = Checkpoint.Open(Shared.Path("fixtures", "models", name));
        var (text, gemma) = (spec.Text, architecture.StartsWith("gemma", StringComparison.Ordinal));
        var (language, vision, experts) = (new List<TensorData>(), new List<TensorData>(), new SortedDictionary<string, List<(int Expert, long[] Shape, float[] Values)>>());
        foreach (var (full, info) in source.Tensors)
        {
            if (full.Contains(".visual.", StringComparison.Ordinal) && mmproj is null)
                continue;
            var gguf = Names.Aggregate(full, (n, rule) => Regex.Replace(n, rule.HuggingFace, rule.Gguf));
            gguf = gguf.Replace("post_attention_layernorm", gemma ? "post_attention_norm" : "ffn_norm", StringComparison.Ordinal);
            using var mapped = source.Map(full);
            var values = mapped.ToFloats();
            long[] shape = [.. info.Shape];
            if (gemma && (gguf.EndsWith("norm.weight", StringComparison.Ordinal)))
                values = Array.ConvertAll(values, v => v + 1);
            if (architecture == "llama" && Regex.Match(gguf, @"^blk\.\d+\.attn_([qk])\.weight$") is { Success: true } match)
            {
                var (order, columns, stored) = (GgufConfig.HalvesRowOrder(match.Groups[1].Value == "q" ? text.Heads : text.KeyValueHeads, text.HeadDimension), (int)shape[1], new float[values.Length]);
                for (var row = 0; row < order.Length; row++)
                    values.AsSpan(row * columns, columns).CopyTo(stored.AsSpan(order[row] * columns));
                values = stored;
            }
            if (Regex.Match(gguf, @"^(blk\.\d+\.)expert\.(\d+)\.(\w+)\.weight$") is { Success: true } expert)
            {
                var stack = $"{expert.Groups[1].Value}ffn_{expert.Groups[3].Value}_exps.weight";
                experts.TryAdd(stack, []);
                experts[stack].Add((int.Parse(expert.Groups[2].Value), shape, values));
                continue;
            }
            // The two frames of Qwen's patches are two tensors; before Qwen3-VL its towers' queries, keys and values are three.
            if (gguf == "v.patch_embd.weight" && shape is [var rows, 3, 2, var high, var wide])
            {
                var plane = (int)(high * wide);
                for (var frame = 0; frame < 2; frame++)
                    vision.Add(TensorData.Of(gguf + (frame == 0 ? "" : ".1"), [rows, 3, high, wide], values.Chunk(plane).Where((_, i) => i % 2 == frame).SelectMany(v => v).ToArray()));
                continue;
            }
            if (gguf.Contains(".attn_qkv.", StringComparison.Ordinal) && gguf[0] == 'v' && projector != "qwen3vl_merger")
            {
                for (var part = 0; part < 3; part++)
                    vision.Add(TensorData.Of(gguf.Replace("qkv", "qkv"[part..(part + 1)], StringComparison.Ordinal), [shape[0] / 3, .. shape[1..]], values.AsMemory(part * values.Length / 3, values.Length / 3)));
                continue;
            }
            if (Regex.Match(gguf, @"^v\.deepstack\.(\d+)(.*)$") is { Success: true } level)
                gguf = $"v.deepstack.{spec.Vision!.Deepstack[int.Parse(level.Groups[1].Value)]}{level.Groups[2].Value}";
            (gguf.StartsWith("v.", StringComparison.Ordinal) || gguf.EndsWith("image_newline", StringComparison.Ordinal) || gguf.StartsWith("mm.", StringComparison.Ordinal) ? vision : language).Add(TensorData.Of(gguf, shape, values));
        }
        foreach (var (stack, parts) in experts)
            language.Add(TensorData.Of(stack, [parts.Count, .. parts[0].Shape], parts.OrderBy(p => p.Expert).SelectMany(p => p.Values).ToArray()));

        string[] tokens = [.. Enumerable.Range(0, text.VocabularySize).Select(i => $"t{i}")];
        (tokens[0], tokens[1], tokens[2]) = ("a", "b", "ab");
        if (spec.ImageTokenId is { } image)
            tokens[image] = spec.Markers is { Begin: not null } ? "<image_soft_token>" : "<image>";
        if (spec.Markers is { Begin: { } begin, End: { } end })
            (tokens[begin], tokens[end]) = ("<start_of_image>", "<end_of_image>");
        var a = architecture + ".";
        List<KeyValuePair<string, object>> metadata =
        [
            new("general.architecture", architecture), new(a + "embedding_length", (uint)text.HiddenSize), new(a + "block_count", (uint)text.Layers),
            new(a + "feed_forward_length", (uint)text.IntermediateSize), new(a + "attention.head_count", (uint)text.Heads),
            new(a + "attention.head_count_kv", (uint)text.KeyValueHeads), new(a + "attention.key_length", (uint)text.HeadDimension),
            new(a + "attention.value_length", (uint)text.HeadDimension), new(a + "attention.layer_norm_rms_epsilon", text.NormEpsilon),
            new(a + "rope.dimension_count", (uint)text.Rope.Dimension), new(a + "rope.freq_base", (float)text.Rope.Theta), new(a + "context_length", 2048u),
            new("tokenizer.ggml.model", "gpt2"), new("tokenizer.ggml.pre", "gpt-2"), new("tokenizer.ggml.tokens", tokens),
            new("tokenizer.ggml.token_type", tokens.Select(t => t[0] == '<' ? 3 : 1).ToArray()), new("tokenizer.ggml.merges", new[] { "a b" }),
            new("tokenizer.ggml.bos_token_id", 0u), new("tokenizer.ggml.eos_token_id", 1u),
        ];
        if (text.Mixture is { } mixture)
            metadata.AddRange(
            [
                new(a + "expert_count", (uint)mixture.Experts), new(a + "expert_used_count", (uint)mixture.Used),
                new(a + "expert_feed_forward_length", (uint)mixture.IntermediateSize),
            ]);
        if (text.Windows.Max() is > 0 and var window)
            metadata.Add(new(a + "attention.sliding_window", (uint)window));
        if (text.AttentionSoftCap > 0)
            metadata.AddRange([new(a + "attn_logit_softcapping", text.AttentionSoftCap), new(a + "final_logit_softcapping", text.FinalSoftCap)]);
        if (text.Rope.Sections is { } sections)
            metadata.Add(new(a + "rope.dimension_sections", (int[])[.. sections, 0]));
        GgufWriter.Write(path, metadata, language);
        if (mmproj is null)
            return;
        var v = spec.Vision!;
        const string V = "clip.vision.";
        List<KeyValuePair<string, object>> more = projector switch
        {
            "qwen2vl_merger" => [],
            "qwen2.5vl_merger" => [new("clip.use_silu", true), new(V + "n_wa_pattern", (uint)(v.FullLayers[0] + 1))],
            "qwen3vl_merger" =>
            [
                new("clip.use_gelu", true), new(V + "spatial_merge_size", (uint)v.Merge),
                new(V + "is_deepstack_layers", Enumerable.Range(0, v.Layers).Select(l => v.Deepstack.Contains(l)).ToArray()),
            ],
            _ when v.Division == ImageDivision.AnyResolution =>
                [new(V + "mm_patch_merge_type", "spatial_unpad"), new(V + "image_grid_pinpoints", v.Pinpoints.SelectMany(p => (int[])[p.Width, p.Height]).ToArray())],
            _ => [new("clip.use_gelu", true)],
        };
        GgufWriter.Write(mmproj,
        [
            .. more, new("general.architecture", "clip"), new("clip.has_vision_encoder", true), new("clip.projector_type", projector!),
            new(V + "embedding_length", (uint)v.HiddenSize), new(V + "feed_forward_length", (uint)v.IntermediateSize), new(V + "block_count", (uint)v.UsedLayers),
            new(V + "image_size", (uint)v.ImageSize), new(V + "patch_size", (uint)v.PatchSize), new(V + "attention.head_count", (uint)v.Heads),
            new(V + "attention.layer_norm_epsilon", v.NormEpsilon), new(V + "image_mean", new[] { 0.5f, 0.5f, 0.5f }), new(V + "image_std", new[] { 0.5f, 0.5f, 0.5f }),
            new(V + "projector.scale_factor", (uint)v.Merge), new(V + "preproc_image_size", 112u),
        ], vision);
    }
}
