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

    internal Decoder(Device device, TextSpec spec, DecoderWeights weights, Division inner)
    {
        _device = device;
        _weights = weights;
        Inner = inner;
        Spec = spec;
        Rope = new(spec.Rope);
        LocalRope = spec.LocalRope is { } local ? new(local) : null;
        Heads = HeadsOf(spec);
    }

    /// <summary>What it is.</summary>
    public TextSpec Spec { get; }

    /// <summary>Its positions.</summary>
    public Rope Rope { get; }

    /// <summary>Positions of layers with a window where they are others, or null.</summary>
    public Rope? LocalRope { get; }

    /// <summary>How the device's ranks divide what is between an MLP's matrices, [I].</summary>
    internal Division Inner { get; }

    /// <summary>Its head layout; a layer's own has its norms too.</summary>
    public Heads Heads { get; }

    internal static Heads HeadsOf(TextSpec spec) => new(
        spec.Heads, spec.KeyValueHeads, spec.HeadDimension, spec.QueryScale ?? 1 / MathF.Sqrt(spec.HeadDimension), spec.AttentionSoftCap);

    /// <summary>Bytes that one token's decode reads of the weights.</summary>
    public long WeightBytes => _weights.Bytes;

    /// <summary>Runs one step: keys and values go to the cache, logits of the sampled rows to <see cref="Step.Logits"/>.</summary>
    /// <param name="step">The uploaded batch and its activations.</param>
    /// <param name="cache">Keys and values.</param>
    /// <param name="features">
    /// [(1 + added layers) · I, D] image features that negative rows refer to, those that are added after the first layers behind them; or none.
    /// </param>
    /// <param name="vectors">F32 [slots · L, D] steering vectors, or none when no token is steered.</param>
    internal void Forward(Step step, KvCache cache, Tensor features, Tensor vectors)
    {
        var (x, h, delta, qkv, attended, gated) = (step.X, step.H, step.Delta, step.Qkv, step.Attended, step.Gated);
        var layers = _weights.Layers;
        var images = features.Rows / (1 + Spec.AddedLayers);
        _device.Embed(x, _weights.Embedding, features.IsNone ? default : features.Slice(0, images), step.Rows, Spec.EmbeddingScale);
        _device.Norm(h, x, layers[0].AttentionNorm);
        for (var l = 0; l < layers.Length; l++)
        {
            var layer = layers[l];
            _device.Linear(qkv, h, layer.Qkv, layer.QkvBias, Epilogue.None);
            _device.RopeStore(qkv, Spec.Windows[l] > 0 ? step.LocalRotary : step.Rotary, cache[l], step.Map, layer.Heads);
            _device.AttendPaged(attended, qkv, cache[l], step.Map, layer.Heads, Spec.Windows[l]);
            _device.Linear(delta, attended, layer.Output, layer.OutputBias, Epilogue.None);
            if (Spec.PostNorms)
                _device.Norm(delta, delta, layer.AttentionPostNorm);
            _device.ResidualNorm(x, delta, h, layer.MlpNorm, default);
            if (layer.Mlp is { } mlp)
            {
                _device.Linear(gated, h, mlp.GateUp, mlp.GateUpBias, Spec.Activation);
                _device.Linear(delta, gated, mlp.Down, mlp.DownBias, Epilogue.None);
            }
            else
            {
                _device.Linear(step.Scores, h, layer.Router!, default, Epilogue.None);
                _device.Experts(delta, h, step.Scores, layer.Experts);
            }
            if (Spec.PostNorms)
                _device.Norm(delta, delta, layer.MlpPostNorm);
            var next = l + 1 < layers.Length ? layers[l + 1].AttentionNorm : _weights.FinalNorm;
            _device.ResidualNorm(x, delta, h, next, new(
                l + 1, layers.Length, step.SteerSlot, step.SteerScale, vectors, step.CaptureSlot, step.Captures,
                step.ProductSlot, step.Products,
                step.Rows, l < Spec.AddedLayers && !features.IsNone ? features.Slice((l + 1) * images, images) : default));
        }
        if (step.Samples == 0)
            return;
        _device.TakeRows(step.Taken, h, step.SampleRow);
        _device.Linear(step.Logits, step.Taken, _weights.Head, default, Epilogue.None);
        if (Spec.FinalSoftCap > 0)
            _device.SoftCap(step.Logits, Spec.FinalSoftCap);
    }

    /// <summary>Frees the weights.</summary>
    public void Dispose() => _weights.Dispose();
}
