using System.Globalization;
using System.Text;

namespace Trimtab.Model;

/// <summary>A tensor that a model's forward pass reads.</summary>
/// <param name="Role">Its name in this runtime, the same for every checkpoint format; see <see cref="TensorNames"/>.</param>
/// <param name="Name">Its name in the checkpoint.</param>
/// <param name="Shape">Outermost dimension first: [rows, columns] for a projection, [D] for a norm, [D, 3, P, P] for the patches.</param>
/// <param name="Optional">Whether the model is complete without it.</param>
public sealed record ExpectedTensor(string Role, string Name, long[] Shape, bool Optional = false)
{
    /// <summary>
    /// Where one tensor plays several roles with rows one after another (fused projections, stacked experts): each role and its rows,
    /// of the shape's last dimension.
    /// </summary>
    public IReadOnlyList<(string Role, int Rows)>? Parts { get; init; }
}

/// <summary>How a checkpoint file names its tensors; found by <see cref="TensorNames.Detect(IEnumerable{string})"/>.</summary>
/// <param name="Form">Which of the forms.</param>
/// <param name="Text">Hugging Face: what comes before "layers.0.…" of the decoder.</param>
/// <param name="Head">Hugging Face: the output projection's whole name.</param>
/// <param name="Vision">Hugging Face: what comes before "encoder.layers.0.…" of the vision tower.</param>
/// <param name="Projector">Hugging Face: what comes before "linear_1.weight".</param>
/// <param name="SwappedMlp">mmproj files of old converters, which call the MLP's first matrix ffn_down and its second ffn_up.</param>
public sealed record Layout(
    LayoutForm Form, string Text = "model.", string Head = "lm_head.weight", string Vision = "vision_tower.vision_model.",
    string Projector = "multi_modal_projector.", bool SwappedMlp = false)
{
    /// <summary>Whether q, k and v of the decoder are one tensor (Phi-3).</summary>
    public bool FusedQkv { get; init; }

    /// <summary>Whether gate and up are one tensor (Phi-3).</summary>
    public bool FusedGateUp { get; init; }

    /// <summary>Whether experts have Mixtral's first names: block_sparse_moe, w1, w2, w3.</summary>
    public bool NumberedExperts { get; init; }

    /// <summary>Hugging Face: the whole name of the row at the end of each row of an any-resolution image.</summary>
    public string Newline { get; init; } = "model.image_newline";
}

/// <summary>Forms of tensor names.</summary>
public enum LayoutForm
{
    /// <summary>Hugging Face: one checkpoint with text, vision and projector. Prefixes differ between versions.</summary>
    HuggingFace,
    /// <summary>A GGUF file's language model: text only.</summary>
    Gguf,
    /// <summary>An mmproj file: vision and projector only.</summary>
    GgufVision,
}

/// <summary>A checkpoint whose tensors are not those of the model that its configuration describes. The message lists them all.</summary>
public sealed class MismatchedTensorsException(
    string message, IReadOnlyList<string> missing, IReadOnlyList<string> surplus, IReadOnlyList<string> misshapen) : Exception(message)
{
    /// <summary>Names expected and not there.</summary>
    public IReadOnlyList<string> Missing { get; } = missing;

    /// <summary>Names there that the model has no use for.</summary>
    public IReadOnlyList<string> Surplus { get; } = surplus;

    /// <summary>Names whose shape is another than expected.</summary>
    public IReadOnlyList<string> Misshapen { get; } = misshapen;
}

/// <summary>
/// From a spec to the tensors of its checkpoint, as data. The roles, each with ".bias" appended for its bias:
/// <list type="bullet">
/// <item>text.embed, text.norm, text.head (not of tied models),</item>
/// <item>text.layers.{i}.{attn_norm, q, k, v, o, mlp_norm, gate, up, down}, i from 0; q_norm, k_norm, attn_post_norm, mlp_post_norm; for a
/// mixture router and experts.{e}.{gate, up, down} instead of an MLP,</item>
/// <item>vision.{patch, patch.second (frame, where it is a tensor of its own), class, position, pre_norm, post_norm, newline},</item>
/// <item>vision.layers.{i}.{norm1, q, k, v, o, norm2, fc1, fc2}, those up to the feature layer; gate and up for fc1 where it is gated,</item>
/// <item>projector.{norm, linear1, linear2}, and the same of deepstack.{k}.</item>
/// </list>
/// </summary>
public static partial class TensorNames
{
    private static readonly string[] TextPrefixes =
        ["model.language_model.", "language_model.model.", "model.", "language_model.", "model.language_model.model.", "model.text_model.", ""];

    private static readonly string[] VisionPrefixes =
    [
        "model.vision_tower.vision_model.", "vision_tower.vision_model.", "model.vision_tower.", "vision_tower.",
        "model.vision_model.", "vision_model.", "model.visual.", "visual.",
    ];

    private static readonly string[] ProjectorPrefixes = ["model.multi_modal_projector.", "multi_modal_projector.", "model.connector.", "connector."];

    private static readonly string[] Heads = ["lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight",
        "model.language_model.lm_head.weight"];

    /// <summary>Buffers and heads of other uses, at the end of a name, that no forward pass here reads.</summary>
    private static readonly string[] IgnoredEnds =
        ["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "masked_bias", "position_ids", "post_layernorm.weight", "post_layernorm.bias",
            "visual_projection.weight", "text_projection.weight", "k_scale", "v_scale" /* of an 8-bit cache, which here has its own */];

    private static readonly string[] IgnoredStarts = ["text_model.", "model.text_model.", "v.post_ln."];

    private static readonly string[] Ignored = ["logit_scale", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

    /// <summary>Recognises the form of a file's names. Names of no known form count as a plain Hugging Face decoder.</summary>
    public static Layout Detect(IEnumerable<string> names)
    {
        ArgumentNullException.ThrowIfNull(names);
        var all = names as IReadOnlyCollection<string> ?? [.. names];
        if (all.Any(n => n.StartsWith("v.", StringComparison.Ordinal) || n.StartsWith("mm.", StringComparison.Ordinal)))
            return new(LayoutForm.GgufVision) { FusedQkv = Has(".attn_qkv.weight"), Newline = Newline() };
        if (all.Any(n => n.StartsWith("blk.", StringComparison.Ordinal) || n.StartsWith("token_embd.", StringComparison.Ordinal)))
            return new(LayoutForm.Gguf) { FusedQkv = Has(".attn_qkv.weight"), FusedGateUp = Has(".ffn_up.weight") && !Has(".ffn_gate.weight") };

        // A prefix holds if any of its tensors is there, so that one missing tensor does not hide the form.
        string? Find(string[] prefixes, params string[] anchors) => prefixes.FirstOrDefault(prefix => all.Any(name =>
            name.StartsWith(prefix, StringComparison.Ordinal) && anchors.Any(anchor => name.AsSpan(prefix.Length).StartsWith(anchor))));
        var text = Find(TextPrefixes, "layers.", "embed_tokens.", "norm.weight");
        var hub = text?.StartsWith("language_model.", StringComparison.Ordinal) is true;
        var head = Heads.FirstOrDefault(all.Contains) ?? (hub ? "language_model.lm_head.weight" : "lm_head.weight");
        var nested = text?.StartsWith("model.language_model.", StringComparison.Ordinal) is true ? "model." : "";
        return new(LayoutForm.HuggingFace, text ?? "model.", head,
            Find(VisionPrefixes, "embeddings.", "encoder.", "pre_layrnorm.", "patch_embed.", "blocks.") ?? nested + "vision_tower.vision_model.",
            Find(ProjectorPrefixes, "linear.", "linear_1.", "linear_2.", "mm_", "modality_projection.") ?? nested + "multi_modal_projector.")
        {
            FusedQkv = Has(".self_attn.qkv_proj.weight"),
            FusedGateUp = Has(".mlp.gate_up_proj.weight"),
            NumberedExperts = Has(".block_sparse_moe.gate.weight"),
            Newline = Newline(),
        };

        string Newline() => all.FirstOrDefault(name => name.EndsWith("image_newline", StringComparison.Ordinal)) ?? "model.image_newline";

        bool Has(string end) => all.Any(name => name.EndsWith(end, StringComparison.Ordinal));
    }

    /// <summary>The same with shapes at hand, outermost dimension first: sees the swapped MLP names of old mmproj files.</summary>
    public static Layout Detect(IReadOnlyDictionary<string, long[]> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        var layout = Detect(tensors.Keys);
        // ffn_down is [D, I] when its name is right.
        return layout.Form == LayoutForm.GgufVision
            && tensors.TryGetValue("v.blk.0.ffn_down.weight", out var down) && tensors.TryGetValue("v.blk.0.attn_q.weight", out var q)
            && down is [var rows, var columns] && q is [_, var hidden] && columns == hidden && rows != hidden
            ? layout with { SwappedMlp = true } : layout;
    }

    /// <summary>The tensors that a model of this spec reads from a file of this layout.</summary>
    public static IReadOnlyList<ExpectedTensor> Expect(ModelSpec spec, Layout layout)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(layout);
        var tensors = new List<ExpectedTensor>();
        if (layout.Form != LayoutForm.GgufVision)
            ExpectText(tensors, spec.Text, layout);
        if (layout.Form != LayoutForm.Gguf && spec is { Vision: { } vision, Projector: { } projector })
        {
            if (layout.Form == LayoutForm.GgufVision && vision.Division == ImageDivision.Native)
                ExpectNativeMmproj(tensors, vision, projector, layout);
            else if (layout.Form == LayoutForm.GgufVision)
                ExpectMmproj(tensors, vision, projector, layout);
            else if (vision.Division == ImageDivision.Native)
                ExpectNative(tensors, vision, projector, layout);
            else
                ExpectTower(tensors, vision, projector, layout);
        }
        return tensors;
    }

    private static void Add(List<ExpectedTensor> tensors, string role, string name, long[] shape, bool bias)
    {
        tensors.Add(new(role, name + ".weight", shape));
        if (bias)
            tensors.Add(new(role + ".bias", name + ".bias", [shape[0]]));
    }

    /// <summary>
    /// Compares what is expected with what a file has. Not surplus: rotary_emb.inv_freq, masked_bias and position_ids buffers, the
    /// vision tower's layers after the feature layer, its post_layernorm where it is not used, its pooling head and CLIP's other parts, the output projection of tied
    /// models, and rope_freqs.weight and LongRoPE's factors of GGUF files, which belong to the spec's RoPE.
    /// </summary>
    /// <param name="expected">From <see cref="Expect"/>.</param>
    /// <param name="tensors">The file's (or all shards') tensors: name to shape, outermost dimension first.</param>
    /// <param name="file">The file, for errors.</param>
    /// <exception cref="MismatchedTensorsException">Any is missing, surplus or misshapen; it lists them all.</exception>
    public static void Check(IReadOnlyList<ExpectedTensor> expected, IReadOnlyDictionary<string, long[]> tensors, string file)
    {
        ArgumentNullException.ThrowIfNull(expected);
        ArgumentNullException.ThrowIfNull(tensors);
        var known = expected.ToDictionary(e => e.Name);
        var missing = expected.Where(e => !e.Optional && !tensors.ContainsKey(e.Name)).ToList();
        var misshapen = expected.Where(e => tensors.TryGetValue(e.Name, out var shape) && !shape.AsSpan().SequenceEqual(e.Shape)).ToList();
        var ignorable = Ignorable(expected);
        var surplus = tensors.Keys.Where(n => !known.ContainsKey(n) && !ignorable(n)).Order(StringComparer.Ordinal).ToList();
        if (missing.Count + misshapen.Count + surplus.Count == 0)
            return;

        var message = new StringBuilder($"{file}: the tensors are not those of the model that its configuration describes: ")
            .Append($"{missing.Count} missing, {misshapen.Count} misshapen, {surplus.Count} surplus");
        foreach (var e in missing)
            message.Append($"\n  missing: {e.Name} {Shown(e.Shape)}");
        foreach (var e in misshapen)
            message.Append($"\n  misshapen: {e.Name} {Shown(tensors[e.Name])}; expected {Shown(e.Shape)}");
        foreach (var name in surplus)
            message.Append($"\n  surplus: {name} {Shown(tensors[name])}");
        throw new MismatchedTensorsException(message.ToString(), [.. missing.Select(e => e.Name)], surplus,
            [.. misshapen.Select(e => e.Name)]);

        static string Shown(long[] shape) => $"[{string.Join(", ", shape)}]";
    }

    private static Func<string, bool> Ignorable(IReadOnlyList<ExpectedTensor> expected)
    {
        const string Role = "vision.layers.0.norm1", Layer = "0.";
        var tied = expected.All(e => e.Role != "text.head");
        var used = expected.Count(e => e.Role.StartsWith("vision.layers.", StringComparison.Ordinal) && e.Role.EndsWith(".norm1",
            StringComparison.Ordinal));
        // What comes before a layer's number: of towers of which no layer is used, what stands before it in all of them.
        var norm = expected.FirstOrDefault(e => e.Role == Role)?.Name;
        const string Position = "embeddings.position_embedding.weight";
        var position = expected.FirstOrDefault(e => e.Role == "vision.position")?.Name;
        var blocks = norm is not null ? norm[..norm.LastIndexOf(Layer, StringComparison.Ordinal)]
            : position is null ? null
            : position.EndsWith(Position, StringComparison.Ordinal) ? position[..^Position.Length] + "encoder.layers." : "v.blk.";
        return name => Ignored.Contains(name) || tied && Heads.Contains(name)
            || Array.Exists(IgnoredStarts, s => name.StartsWith(s, StringComparison.Ordinal))
            || name.Contains("vision_model.head.", StringComparison.Ordinal) // SigLIP's pooling
            || Array.Exists(IgnoredEnds, e => name == e || name.EndsWith("." + e, StringComparison.Ordinal))
            || Unused(name);

        bool Unused(string name) => blocks is not null && name.StartsWith(blocks, StringComparison.Ordinal)
            && name.AsSpan(blocks.Length) is var rest && rest.IndexOf('.') is > 0 and var dot
            && int.TryParse(rest[..dot], NumberStyles.None, CultureInfo.InvariantCulture, out var layer) && layer >= used;
    }
}
