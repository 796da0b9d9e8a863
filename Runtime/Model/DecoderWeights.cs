using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>One decoder layer's weights: an <see cref="Mlp"/>, or a <see cref="Router"/> with <see cref="Experts"/>.</summary>
internal sealed record DecoderLayer(
    NormWeights AttentionNorm, // [D]
    Heads Heads,               // with the norms of query and key heads, [d] each, where there are
    Weight Qkv,                // [(H + 2 KV) d, D]
    Tensor QkvBias,            // [1, (H + 2 KV) d] or none
    Weight Output,             // [D, H d]
    Tensor OutputBias,         // [1, D] or none
    NormWeights MlpNorm,       // [D]
    DecoderMlp? Mlp)
{
    /// <summary>[D] each, where <see cref="TextSpec.PostNorms"/>.</summary>
    public NormWeights AttentionPostNorm { get; init; }

    public NormWeights MlpPostNorm { get; init; }

    /// <summary>[E, D].</summary>
    public Weight? Router { get; init; }

    public ExpertWeights Experts { get; init; }

    /// <summary>Bytes of the matrices that a token reads: of the experts those that it uses.</summary>
    public long Bytes => Qkv.Bytes + Output.Bytes + (Mlp is { } mlp
        ? mlp.GateUp.Bytes + mlp.Down.Bytes
        : Router!.Bytes + Experts.Used * (Experts.GateUp[0].Bytes + Experts.Down[0].Bytes));

    /// <summary>Every matrix and tensor that the layer owns.</summary>
    public IEnumerable<IDisposable?> Owned =>
    [
        Qkv, Output, Mlp?.GateUp, Mlp?.Down, Router, .. Experts.GateUp ?? [], .. Experts.Down ?? [],
        AttentionNorm.Weight.Storage, MlpNorm.Weight.Storage, AttentionPostNorm.Weight.Storage, MlpPostNorm.Weight.Storage,
        Heads.QueryNorm.Storage, Heads.KeyNorm.Storage, QkvBias.Storage, OutputBias.Storage, Mlp?.GateUpBias.Storage, Mlp?.DownBias.Storage,
    ];
}

/// <summary>A gated MLP's weights.</summary>
internal sealed record DecoderMlp(
    Weight GateUp,     // [2 I, D]
    Tensor GateUpBias, // [1, 2 I] or none
    Weight Down,       // [D, I]
    Tensor DownBias);  // [1, D] or none

/// <summary>A decoder's weights; the head is the embedding where they are tied.</summary>
internal sealed record DecoderWeights(Weight Embedding, DecoderLayer[] Layers, NormWeights FinalNorm, Weight Head) : IDisposable
{
    /// <summary>Bytes of all matrices that a token reads: the embedding table counts only as the head.</summary>
    public long Bytes => Head.Bytes + Layers.Sum(l => l.Bytes);

    public void Dispose()
    {
        foreach (var owned in Layers.SelectMany(l => l.Owned))
            owned?.Dispose();
        FinalNorm.Weight.Storage?.Dispose();
        Head.Dispose();
        Embedding.Dispose();
    }
}
