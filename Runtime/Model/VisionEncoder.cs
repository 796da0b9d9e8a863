using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// The vision transformer and the projector: pixels to image features in the decoder's width. It stops at the selected
/// feature layer, whose output is taken before any further norm (LLaVA-1.5, arXiv 2310.03744, section 3.1: the
/// penultimate layer's grid features).
/// </summary>
public sealed class VisionEncoder : IDisposable
{
    private const int MaxImages = 8; // images a pass: enough to fill the machine, little enough to bound the activations

    private readonly Device _device;
    private readonly VisionWeights _weights;
    private readonly Heads _heads;
    private Workspace? _workspace;

    internal VisionEncoder(Device device, VisionSpec spec, ProjectorSpec projector, VisionWeights weights)
    {
        (_device, _weights, Spec, Projector) = (device, weights, spec, projector);
        var dimension = spec.HiddenSize / spec.Heads;
        _heads = new(spec.Heads, spec.Heads, dimension, 1 / MathF.Sqrt(dimension));
    }

    /// <summary>What the transformer is.</summary>
    public VisionSpec Spec { get; }

    /// <summary>What the projector is.</summary>
    public ProjectorSpec Projector { get; }

    /// <summary>Floats of one image's normalised pixels, C · H · W.</summary>
    public int PixelCount => 3 * Spec.ImageSize * Spec.ImageSize;

    /// <summary>Encodes images.</summary>
    /// <param name="pixels">[n, 3 · H · W] normalised, channel planes.</param>
    /// <param name="output">[n · Features, D]: receives the projected features, image by image.</param>
    /// <param name="features">[n · Features, W] receives the selected layer's output before the projector, or empty.</param>
    public void Forward(ReadOnlySpan<float> pixels, Tensor output, Span<float> features = default)
    {
        var images = pixels.Length / PixelCount;
        if (images * PixelCount != pixels.Length || output.Rows != images * Spec.Features || output.Columns != Projector.OutputSize)
            throw new ArgumentException(
                $"expected pixels of n × {PixelCount} floats and an output of [n × {Spec.Features}, {Projector.OutputSize}], " +
                $"got {pixels.Length} floats and [{output.Rows}, {output.Columns}]");
        for (var first = 0; first < images; first += MaxImages)
        {
            var n = Math.Min(MaxImages, images - first);
            var rows = n * Spec.Features;
            Run(pixels.Slice(first * PixelCount, n * PixelCount), n, output.Slice(first * Spec.Features, rows),
                features.IsEmpty ? default : features.Slice(first * Spec.Features * Spec.HiddenSize, rows * Spec.HiddenSize));
        }
    }

    private void Run(ReadOnlySpan<float> pixels, int images, Tensor output, Span<float> features)
    {
        if (_workspace is null || _workspace.Images < images)
        {
            _workspace?.Dispose();
            _workspace = new(_device, Spec, Projector, images);
        }
        var w = _workspace.Slice(images);
        _device.Upload(pixels, w.Pixels);
        _device.Patches(w.X, w.Pixels, _weights.Patches);
        if (Spec.PreNorm)
            _device.Norm(w.X, w.X, _weights.PreNorm);
        var layers = _weights.Layers;
        if (layers.Length > 0)
            _device.Norm(w.H, w.X, layers[0].Norm1);
        for (var l = 0; l < layers.Length; l++)
        {
            var layer = layers[l];
            _device.Linear(w.Qkv, w.H, layer.Qkv, layer.QkvBias, Epilogue.None);
            _device.AttendFull(w.Attended, w.Qkv, Spec.Rows, _heads);
            _device.Linear(w.Delta, w.Attended, layer.Output, layer.OutputBias, Epilogue.None);
            _device.ResidualNorm(w.X, w.Delta, w.H, layer.Norm2, default);
            _device.Linear(w.Mlp, w.H, layer.Fc1, layer.Fc1Bias, Spec.Activation);
            _device.Linear(w.Delta, w.Mlp, layer.Fc2, layer.Fc2Bias, Epilogue.None);
            // The last layer's norm output is not used: only x, the layer's own output, is.
            _device.ResidualNorm(w.X, w.Delta, w.H, layers[Math.Min(l + 1, layers.Length - 1)].Norm1, default);
        }
        _device.TakeRows(w.Features, w.X, w.FeatureRows.Reshape(1, w.FeatureRows.Rows));
        if (!features.IsEmpty)
            _device.Download(w.Features, features);
        _device.Linear(w.Projected, w.Features, _weights.Projector1, _weights.Projector1Bias, Projector.Activation);
        _device.Linear(output, w.Projected, _weights.Projector2, _weights.Projector2Bias, Epilogue.None);
    }

    /// <summary>Frees weights and activations.</summary>
    public void Dispose()
    {
        _workspace?.Dispose();
        _weights.Dispose();
    }

    /// <summary>Activations of up to n images.</summary>
    private sealed record Workspace(
        int Images,
        int[] Selected,     // row of X that each feature row is
        Tensor Pixels,      // F32 [n, 3 H W]
        Tensor X,           // [n S, W]
        Tensor H,           // [n S, W]
        Tensor Delta,       // [n S, W]
        Tensor Qkv,         // [n S, 3 W]
        Tensor Attended,    // [n S, W]
        Tensor Mlp,         // [n S, I]
        Tensor FeatureRows, // I32 [n F, 1]
        Tensor Features,    // [n F, W]
        Tensor Projected)   // [n F, P]
        : IDisposable
    {
        public Workspace(Device device, VisionSpec spec, ProjectorSpec projector, int n)
            : this(
                n,
                SelectRows(spec, n),
                device.Allocate(DType.F32, n, 3 * spec.ImageSize * spec.ImageSize),
                device.Allocate(device.ActivationType, n * spec.Rows, spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Rows, spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Rows, spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Rows, 3 * spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Rows, spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Rows, spec.IntermediateSize),
                device.Allocate(DType.I32, n * spec.Features, 1),
                device.Allocate(device.ActivationType, n * spec.Features, spec.HiddenSize),
                device.Allocate(device.ActivationType, n * spec.Features, projector.HiddenSize))
            => device.Upload(Selected, FeatureRows.Reshape(1, Selected.Length));

        private static int[] SelectRows(VisionSpec spec, int n)
        {
            var skip = spec.Rows - spec.Features;
            var rows = new int[n * spec.Features];
            for (var i = 0; i < rows.Length; i++)
                rows[i] = i / spec.Features * spec.Rows + skip + i % spec.Features;
            return rows;
        }

        public Workspace Slice(int n)
        {
            if (n == Images)
                return this;
            Tensor Part(Tensor t) => t.Slice(0, t.Rows / Images * n);
            return new(n, Selected, Part(Pixels), Part(X), Part(H), Part(Delta), Part(Qkv), Part(Attended), Part(Mlp),
                Part(FeatureRows), Part(Features), Part(Projected));
        }

        public void Dispose()
        {
            foreach (var tensor in (ReadOnlySpan<Tensor>)[Pixels, X, H, Delta, Qkv, Attended, Mlp, FeatureRows, Features, Projected])
                tensor.Storage!.Dispose();
        }
    }
}

/// <summary>One vision layer's weights.</summary>
internal sealed record VisionLayer(
    NormWeights Norm1, Weight Qkv /* [3 W, W] */, Tensor QkvBias, Weight Output /* [W, W] */, Tensor OutputBias,
    NormWeights Norm2, Weight Fc1 /* [I, W] */, Tensor Fc1Bias, Weight Fc2 /* [W, I] */, Tensor Fc2Bias);

/// <summary>A vision encoder's weights, the projector's included.</summary>
internal sealed record VisionWeights(
    PatchWeights Patches, NormWeights PreNorm, VisionLayer[] Layers,
    Weight Projector1 /* [P, W] */, Tensor Projector1Bias, Weight Projector2 /* [D, P] */, Tensor Projector2Bias) : IDisposable
{
    public void Dispose()
    {
        foreach (var l in Layers)
        {
            foreach (var weight in (ReadOnlySpan<Weight>)[l.Qkv, l.Output, l.Fc1, l.Fc2])
                weight.Dispose();
            foreach (var tensor in (ReadOnlySpan<Tensor>)[
                l.Norm1.Weight, l.Norm1.Bias, l.Norm2.Weight, l.Norm2.Bias, l.QkvBias, l.OutputBias, l.Fc1Bias, l.Fc2Bias])
                tensor.Storage?.Dispose();
        }
        foreach (var weight in (ReadOnlySpan<Weight>)[Patches.Projection, Projector1, Projector2])
            weight.Dispose();
        foreach (var tensor in (ReadOnlySpan<Tensor>)[
            Patches.Bias, Patches.ClassToken, Patches.Positions, PreNorm.Weight, PreNorm.Bias, Projector1Bias, Projector2Bias])
            tensor.Storage?.Dispose();
    }
}
