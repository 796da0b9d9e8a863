namespace Trimtab.Model;

// The decoder's tensors.
public static partial class TensorNames
{
    private static void ExpectText(List<ExpectedTensor> tensors, TextSpec text, Layout layout)
    {
        var gguf = layout.Form == LayoutForm.Gguf;
        long d = text.HiddenSize;
        tensors.Add(new("text.embed", gguf ? "token_embd.weight" : layout.Text + "embed_tokens.weight", [text.VocabularySize, d]));
        for (var layer = 0; layer < text.Layers; layer++)
            ExpectLayer(tensors, text, layout, layer);
        tensors.Add(new("text.norm", gguf ? "output_norm.weight" : layout.Text + "norm.weight", [d]));
        if (!text.TieEmbeddings)
            tensors.Add(new("text.head", gguf ? "output.weight" : layout.Head, [text.VocabularySize, d]));
    }

    private static void ExpectLayer(List<ExpectedTensor> tensors, TextSpec text, Layout layout, int layer)
    {
        int d = text.HiddenSize, size = text.HeadDimension, q = text.Heads * size, kv = text.KeyValueHeads * size, i = text.IntermediateSize;
        var gguf = layout.Form == LayoutForm.Gguf;
        var (role, prefix) = ($"text.layers.{layer}.", gguf ? $"blk.{layer}." : $"{layout.Text}layers.{layer}.");

        Single("attn_norm", "input_layernorm", "attn_norm", false, d);
        if (layout.FusedQkv)
            Fused([("q", q), ("k", kv), ("v", kv)], "self_attn.qkv_proj", "attn_qkv", text.QkvBias);
        else
        {
            Single("q", "self_attn.q_proj", "attn_q", text.QkvBias, q, d);
            Single("k", "self_attn.k_proj", "attn_k", text.QkvBias, kv, d);
            Single("v", "self_attn.v_proj", "attn_v", text.QkvBias, kv, d);
        }
        if (text.QkNorm)
        {
            Single("q_norm", "self_attn.q_norm", "attn_q_norm", false, size);
            Single("k_norm", "self_attn.k_norm", "attn_k_norm", false, size);
        }
        Single("o", "self_attn.o_proj", "attn_output", text.OutputBias, d, q);
        // Gemma's names say where a norm stands; the others' of the MLP's says what it follows.
        if (text.PostNorms)
        {
            Single("attn_post_norm", "post_attention_layernorm", "post_attention_norm", false, d);
            Single("mlp_post_norm", "post_feedforward_layernorm", "post_ffw_norm", false, d);
        }
        Single("mlp_norm", text.PostNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm", "ffn_norm", false, d);
        if (text.Mixture is { } mixture && mixture.Layers[layer])
        {
            ExpectExperts(tensors, mixture, d, layout, role, prefix);
            return;
        }
        if (layout.FusedGateUp)
            Fused([("gate", i), ("up", i)], "mlp.gate_up_proj", "ffn_up", text.MlpBias);
        else
        {
            Single("gate", "mlp.gate_proj", "ffn_gate", text.MlpBias, i, d);
            Single("up", "mlp.up_proj", "ffn_up", text.MlpBias, i, d);
        }
        Single("down", "mlp.down_proj", "ffn_down", text.MlpBias, d, i);

        void Single(string name, string huggingFace, string other, bool bias, params ReadOnlySpan<long> shape) =>
            Add(tensors, role + name, prefix + (gguf ? other : huggingFace), shape.ToArray(), bias);

        void Fused((string Role, int Rows)[] parts, string huggingFace, string other, bool bias)
        {
            var name = prefix + (gguf ? other : huggingFace);
            AddFused(tensors, Array.ConvertAll(parts, p => (role + p.Role, p.Rows)), name, d, bias);
        }
    }

    private static void ExpectExperts(List<ExpectedTensor> tensors, MixtureSpec mixture, int d, Layout layout, string role, string prefix)
    {
        var (experts, i) = (mixture.Experts, mixture.IntermediateSize);
        string Of(int expert, string part) => $"{role}experts.{expert}.{part}";
        if (layout.Form == LayoutForm.Gguf)
        {
            tensors.Add(new(role + "router", prefix + "ffn_gate_inp.weight", [experts, d]));
            foreach (var (part, rows, columns) in (ReadOnlySpan<(string, int, int)>)[("gate", i, d), ("up", i, d), ("down", d, i)])
                tensors.Add(new(role + "experts." + part, $"{prefix}ffn_{part}_exps.weight", [experts, rows, columns])
                {
                    Parts = [.. Enumerable.Range(0, experts).Select(e => (Of(e, part), rows))],
                });
            return;
        }
        var block = prefix + (layout.NumberedExperts ? "block_sparse_moe." : "mlp.");
        tensors.Add(new(role + "router", block + "gate.weight", [experts, d]));
        for (var e = 0; e < experts; e++)
            foreach (var (part, number, rows, columns) in (ReadOnlySpan<(string, string, int, int)>)[("gate", "w1", i, d), ("up", "w3", i, d), ("down", "w2", d, i)])
                tensors.Add(new(Of(e, part), $"{block}experts.{e}.{(layout.NumberedExperts ? number : part + "_proj")}.weight", [rows, columns]));
    }

    /// <summary>A tensor of several roles' rows, and its bias.</summary>
    private static void AddFused(List<ExpectedTensor> tensors, (string Role, int Rows)[] parts, string name, long columns, bool bias)
    {
        long rows = parts.Sum(p => (long)p.Rows);
        tensors.Add(new(parts[0].Role, name + ".weight", [rows, columns]) { Parts = parts });
        if (bias)
            tensors.Add(new(parts[0].Role + ".bias", name + ".bias", [rows]) { Parts = Array.ConvertAll(parts, p => (p.Role + ".bias", p.Rows)) });
    }
}
