using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// The decoder's forward pass, written once for prefill, decode and mixed batches, and for every device. What differs
/// between families is in the <see cref="TextSpec"/> and the weights.
/// </summary>
public sealed class Decoder : IDisposable
{
    private readonly Device _device;
    private readonly DecoderWeights _weights;

    internal Decoder(Device device, TextSpec spec, DecoderWeights weights)
    {
        _device = device;
        _weights = weights;
        Spec = spec;
        Rope = new(spec.Rope);
        Heads = new(spec.Heads, spec.KeyValueHeads, spec.HeadDimension, 1 / MathF.Sqrt(spec.HeadDimension));
    }

    /// <summary>What it is.</summary>
    public TextSpec Spec { get; }

    /// <summary>Its positions.</summary>
    public Rope Rope { get; }

    /// <summary>Its head layout.</summary>
    public Heads Heads { get; }

    /// <summary>Bytes that one token's decode reads of the weights.</summary>
    public long WeightBytes => _weights.Bytes;

    /// <summary>Runs one step: keys and values go to the cache, logits of the sampled rows to <see cref="Step.Logits"/>.</summary>
    /// <param name="step">The uploaded batch and its activations.</param>
    /// <param name="cache">Keys and values.</param>
    /// <param name="features">[I, D] image features that negative rows refer to, or none.</param>
    /// <param name="vectors">F32 [slots · L, D] steering vectors, or none when no token is steered.</param>
    internal void Forward(Step step, KvCache cache, Tensor features, Tensor vectors)
    {
        var (x, h, delta, qkv, attended, gated) = (step.X, step.H, step.Delta, step.Qkv, step.Attended, step.Gated);
        var layers = _weights.Layers;
        _device.Embed(x, _weights.Embedding, features, step.Rows);
        _device.Norm(h, x, layers[0].AttentionNorm);
        for (var l = 0; l < layers.Length; l++)
        {
            var layer = layers[l];
            _device.Linear(qkv, h, layer.Qkv, layer.QkvBias, Epilogue.None);
            _device.RopeStore(qkv, step.Rotary, cache[l], step.Map, Heads);
            _device.AttendPaged(attended, qkv, cache[l], step.Map, Heads, Spec.Windows[l]);
            _device.Linear(delta, attended, layer.Output, layer.OutputBias, Epilogue.None);
            _device.ResidualNorm(x, delta, h, layer.MlpNorm, default);
            _device.Linear(gated, h, layer.GateUp, layer.GateUpBias, Spec.Activation);
            _device.Linear(delta, gated, layer.Down, layer.DownBias, Epilogue.None);
            var next = l + 1 < layers.Length ? layers[l + 1].AttentionNorm : _weights.FinalNorm;
            _device.ResidualNorm(x, delta, h, next, new(
                l + 1, layers.Length, step.SteerSlot, step.SteerScale, vectors, step.CaptureSlot, step.Captures,
                step.ProductSlot, step.Products));
        }
        if (step.Samples == 0)
            return;
        _device.TakeRows(step.Taken, h, step.SampleRow);
        _device.Linear(step.Logits, step.Taken, _weights.Head, default, Epilogue.None);
    }

    /// <summary>Frees the weights.</summary>
    public void Dispose() => _weights.Dispose();
}

/// <summary>One decoder layer's weights.</summary>
internal sealed record DecoderLayer(
    NormWeights AttentionNorm, // [D]
    Weight Qkv,                // [(H + 2 KV) d, D]
    Tensor QkvBias,            // [1, (H + 2 KV) d] or none
    Weight Output,             // [D, H d]
    Tensor OutputBias,         // [1, D] or none
    NormWeights MlpNorm,       // [D]
    Weight GateUp,             // [2 I, D]
    Tensor GateUpBias,         // [1, 2 I] or none
    Weight Down,               // [D, I]
    Tensor DownBias);          // [1, D] or none

/// <summary>A decoder's weights; the head is the embedding where they are tied.</summary>
internal sealed record DecoderWeights(Weight Embedding, DecoderLayer[] Layers, NormWeights FinalNorm, Weight Head) : IDisposable
{
    /// <summary>Bytes of all matrices that a token reads: the embedding table counts only as the head.</summary>
    public long Bytes => Head.Bytes + Layers.Sum(l => l.Qkv.Bytes + l.Output.Bytes + l.GateUp.Bytes + l.Down.Bytes);

    public void Dispose()
    {
        foreach (var l in Layers)
        {
            foreach (var weight in (ReadOnlySpan<Weight>)[l.Qkv, l.Output, l.GateUp, l.Down])
                weight.Dispose();
            foreach (var tensor in (ReadOnlySpan<Tensor>)[l.AttentionNorm.Weight, l.MlpNorm.Weight, l.QkvBias, l.OutputBias, l.GateUpBias, l.DownBias])
                tensor.Storage?.Dispose();
        }
        FinalNorm.Weight.Storage?.Dispose();
        Head.Dispose();
        Embedding.Dispose();
    }
}
