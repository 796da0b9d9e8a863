namespace Trimtab.Model;

// The vision tower's and the projector's tensors.
public static partial class TensorNames
{
    /// <summary>Roles of a vision layer in Hugging Face's form of CLIP and SigLIP, and in mmproj files.</summary>
    private static readonly (string Role, string HuggingFace, string Gguf)[] VisionLayer =
    [
        ("norm1", "layer_norm1", "ln1"), ("q", "self_attn.q_proj", "attn_q"), ("k", "self_attn.k_proj", "attn_k"),
        ("v", "self_attn.v_proj", "attn_v"), ("o", "self_attn.out_proj", "attn_out"), ("norm2", "layer_norm2", "ln2"),
        ("fc1", "mlp.fc1", "ffn_up"), ("fc2", "mlp.fc2", "ffn_down"),
    ];

    /// <summary>CLIP's and SigLIP's names.</summary>
    private static void ExpectTower(List<ExpectedTensor> tensors, VisionSpec vision, ProjectorSpec projector, Layout layout)
    {
        long d = vision.HiddenSize;
        var patch = layout.Vision + "embeddings.patch_embedding";
        tensors.Add(new("vision.patch", patch + ".weight", [d, 3, vision.PatchSize, vision.PatchSize]));
        tensors.Add(new("vision.patch.bias", patch + ".bias", [d], Optional: true));
        if (vision.ClassToken)
            tensors.Add(new("vision.class", layout.Vision + "embeddings.class_embedding", [d]));
        tensors.Add(new("vision.position", layout.Vision + "embeddings.position_embedding.weight", [vision.Rows, d]));
        if (vision.PreNorm) // Hugging Face's spelling
            Add(tensors, "vision.pre_norm", layout.Vision + "pre_layrnorm", [d], bias: true);
        if (vision.PostNorm)
            Add(tensors, "vision.post_norm", layout.Vision + "post_layernorm", [d], bias: true);
        for (var layer = 0; layer < vision.UsedLayers; layer++)
            foreach (var (role, name, _) in VisionLayer)
                Add(tensors, $"vision.layers.{layer}.{role}", $"{layout.Vision}encoder.layers.{layer}.{name}", Shape(role, vision), bias: true);
        if (vision.Division == ImageDivision.AnyResolution)
            tensors.Add(new("vision.newline", layout.Newline, [projector.OutputSize]));

        if (projector.Transposed) // Gemma 3's
        {
            tensors.Add(new("projector.norm", layout.Projector + "mm_soft_emb_norm.weight", [projector.InputSize]));
            tensors.Add(new("projector.linear1", layout.Projector + "mm_input_projection_weight", [projector.InputSize, projector.OutputSize]));
        }
        else if (projector.HiddenSize == 0) // Idefics 3's, PaliGemma's
            Add(tensors, "projector.linear1", layout.Projector + (vision.Division == ImageDivision.Tiles ? "modality_projection.proj" : "linear"), [projector.OutputSize, projector.InputSize], projector.Bias);
        else
        {
            Add(tensors, "projector.linear1", layout.Projector + "linear_1", [projector.HiddenSize, projector.InputSize], projector.Bias);
            Add(tensors, "projector.linear2", layout.Projector + "linear_2", [projector.OutputSize, projector.HiddenSize], projector.Bias);
        }
    }

    /// <summary>Qwen2-VL's names and those of its followers.</summary>
    private static void ExpectNative(List<ExpectedTensor> tensors, VisionSpec vision, ProjectorSpec projector, Layout layout)
    {
        int d = vision.HiddenSize, i = vision.IntermediateSize;
        var (at, third, biased) = (layout.Vision, vision.Deepstack.Length > 0, !vision.RmsNorms);
        tensors.Add(new("vision.patch", at + "patch_embed.proj.weight", [d, 3, vision.TemporalPatch, vision.PatchSize, vision.PatchSize]));
        tensors.Add(new("vision.patch.bias", at + "patch_embed.proj.bias", [d], Optional: true));
        if (vision.PositionSide > 0)
            tensors.Add(new("vision.position", at + "pos_embed.weight", [(long)vision.PositionSide * vision.PositionSide, d]));
        for (var layer = 0; layer < vision.UsedLayers; layer++)
        {
            var (role, block) = ($"vision.layers.{layer}.", $"{at}blocks.{layer}.");
            Add(tensors, role + "norm1", block + "norm1", [d], biased);
            AddFused(tensors, [(role + "q", d), (role + "k", d), (role + "v", d)], block + "attn.qkv", d, bias: true);
            Add(tensors, role + "o", block + "attn.proj", [d, d], bias: true);
            Add(tensors, role + "norm2", block + "norm2", [d], biased);
            if (vision.IsGated)
            {
                Add(tensors, role + "gate", block + "mlp.gate_proj", [i, d], bias: true);
                Add(tensors, role + "up", block + "mlp.up_proj", [i, d], bias: true);
                Add(tensors, role + "fc2", block + "mlp.down_proj", [d, i], bias: true);
                continue;
            }
            Add(tensors, role + "fc1", block + (third ? "mlp.linear_fc1" : "mlp.fc1"), [i, d], bias: true);
            Add(tensors, role + "fc2", block + (third ? "mlp.linear_fc2" : "mlp.fc2"), [d, i], bias: true);
        }
        Add(tensors, "vision.post_norm", at + (third ? "merger.norm" : "merger.ln_q"), [d], biased);
        Merger("projector", at + "merger.");
        for (var k = 0; k < vision.Deepstack.Length; k++)
        {
            var list = $"{at}deepstack_merger_list.{k}.";
            Add(tensors, $"deepstack.{k}.norm", list + "norm", [projector.InputSize], bias: true);
            Merger($"deepstack.{k}", list);
        }

        void Merger(string role, string name)
        {
            Add(tensors, role + ".linear1", name + (third ? "linear_fc1" : "mlp.0"), [projector.HiddenSize, projector.InputSize], bias: true);
            Add(tensors, role + ".linear2", name + (third ? "linear_fc2" : "mlp.2"), [projector.OutputSize, projector.HiddenSize], bias: true);
        }
    }

    private static void ExpectMmproj(List<ExpectedTensor> tensors, VisionSpec vision, ProjectorSpec projector, Layout layout)
    {
        long d = vision.HiddenSize;
        tensors.Add(new("vision.patch", "v.patch_embd.weight", [d, 3, vision.PatchSize, vision.PatchSize]));
        tensors.Add(new("vision.patch.bias", "v.patch_embd.bias", [d], Optional: true));
        if (vision.ClassToken)
            tensors.Add(new("vision.class", "v.class_embd", [d]));
        tensors.Add(new("vision.position", "v.position_embd.weight", [vision.Rows, d]));
        if (vision.PreNorm)
            Add(tensors, "vision.pre_norm", "v.pre_ln", [d], bias: true);
        if (vision.PostNorm)
            Add(tensors, "vision.post_norm", "v.post_ln", [d], bias: true);
        for (var layer = 0; layer < vision.UsedLayers; layer++)
            foreach (var (role, _, name) in VisionLayer)
            {
                var file = !layout.SwappedMlp ? name : role switch { "fc1" => "ffn_down", "fc2" => "ffn_up", _ => name };
                Add(tensors, $"vision.layers.{layer}.{role}", $"v.blk.{layer}.{file}", Shape(role, vision), bias: true);
            }

        if (vision.Division == ImageDivision.AnyResolution)
            tensors.Add(new("vision.newline", layout.Newline, [projector.OutputSize]));
        if (projector.Transposed)
        {
            tensors.Add(new("projector.norm", "mm.soft_emb_norm.weight", [projector.InputSize]));
            tensors.Add(new("projector.linear1", "mm.input_projection.weight", [projector.InputSize, projector.OutputSize]));
        }
        else if (projector.HiddenSize == 0)
            Add(tensors, "projector.linear1", "mm.model.fc", [projector.OutputSize, projector.InputSize], projector.Bias);
        else
        {
            Add(tensors, "projector.linear1", "mm.0", [projector.HiddenSize, projector.InputSize], projector.Bias);
            Add(tensors, "projector.linear2", "mm.2", [projector.OutputSize, projector.HiddenSize], projector.Bias);
        }
    }

    /// <summary>Qwen's towers in mmproj files, whose patches' two frames are two tensors.</summary>
    private static void ExpectNativeMmproj(List<ExpectedTensor> tensors, VisionSpec vision, ProjectorSpec projector, Layout layout)
    {
        int d = vision.HiddenSize, i = vision.IntermediateSize;
        var biased = !vision.RmsNorms;
        tensors.Add(new("vision.patch", "v.patch_embd.weight", [d, 3, vision.PatchSize, vision.PatchSize]));
        tensors.Add(new("vision.patch.second", "v.patch_embd.weight.1", [d, 3, vision.PatchSize, vision.PatchSize]));
        tensors.Add(new("vision.patch.bias", "v.patch_embd.bias", [d], Optional: true));
        if (vision.PositionSide > 0)
            tensors.Add(new("vision.position", "v.position_embd.weight", [(long)vision.PositionSide * vision.PositionSide, d]));
        for (var layer = 0; layer < vision.UsedLayers; layer++)
        {
            var (role, block) = ($"vision.layers.{layer}.", $"v.blk.{layer}.");
            Add(tensors, role + "norm1", block + "ln1", [d], biased);
            if (layout.FusedQkv)
                AddFused(tensors, [(role + "q", d), (role + "k", d), (role + "v", d)], block + "attn_qkv", d, bias: true);
            else
                foreach (var part in (ReadOnlySpan<string>)["q", "k", "v"])
                    Add(tensors, role + part, block + "attn_" + part, [d, d], bias: true);
            Add(tensors, role + "o", block + "attn_out", [d, d], bias: true);
            Add(tensors, role + "norm2", block + "ln2", [d], biased);
            if (vision.IsGated)
                Add(tensors, role + "gate", block + "ffn_gate", [i, d], bias: true);
            Add(tensors, role + (vision.IsGated ? "up" : "fc1"), block + "ffn_up", [i, d], bias: true);
            Add(tensors, role + "fc2", block + "ffn_down", [d, i], bias: true);
        }
        Add(tensors, "vision.post_norm", "v.post_ln", [d], biased);
        Add(tensors, "projector.linear1", "mm.0", [projector.HiddenSize, projector.InputSize], bias: true);
        Add(tensors, "projector.linear2", "mm.2", [projector.OutputSize, projector.HiddenSize], bias: true);
        for (var k = 0; k < vision.Deepstack.Length; k++)
        {
            var list = $"v.deepstack.{vision.Deepstack[k]}.";
            Add(tensors, $"deepstack.{k}.norm", list + "norm", [projector.InputSize], bias: true);
            Add(tensors, $"deepstack.{k}.linear1", list + "fc1", [projector.HiddenSize, projector.InputSize], bias: true);
            Add(tensors, $"deepstack.{k}.linear2", list + "fc2", [projector.OutputSize, projector.HiddenSize], bias: true);
        }
    }

    private static long[] Shape(string role, VisionSpec vision)
    {
        long d = vision.HiddenSize, i = vision.IntermediateSize;
        return role switch
        {
            "norm1" or "norm2" => [d],
            "fc1" => [i, d],
            "fc2" => [d, i],
            _ => [d, d],
        };
    }
}
