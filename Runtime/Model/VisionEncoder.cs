using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// The vision transformer and the projector: pixels to image features in the decoder's width. It stops at the selected feature layer, whose
/// output is taken before any further norm unless the family has one there (LLaVA-1.5, arXiv 2310.03744, section 3.1: the penultimate layer's
/// grid features). What differs between families is in the <see cref="VisionSpec"/> and the weights.
/// </summary>
public sealed partial class VisionEncoder : IDisposable
{
    private const int MaxImages = 8; // squares a pass: enough to fill the machine, little enough to bound the activations

    private readonly Device _device;
    private readonly VisionWeights _weights;
    private readonly Heads _heads;
    private VisionWorkspace? _workspace;
    private Tensor _shares;

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

    /// <summary>Floats of one square's normalised pixels, C · H · W.</summary>
    public int PixelCount => 3 * Spec.ImageSize * Spec.ImageSize;

    /// <summary>Encodes images of one square each.</summary>
    /// <param name="pixels">[n, 3 · H · W] normalised, channel planes.</param>
    /// <param name="output">[n · Features, D]: receives the projected features, image by image.</param>
    /// <param name="features">[n · Features, feature size] receives what the projector reads, or empty.</param>
    public void Forward(ReadOnlySpan<float> pixels, Tensor output, Span<float> features = default) => Forward(pixels, default, output, default, features);

    /// <summary>Encodes images that are divided alike.</summary>
    /// <param name="pixels">Of each image: squares [3 · H · W], the whole image's before those of its grid; or native patches in the merger's order.</param>
    /// <param name="grid">How each of them is divided.</param>
    /// <param name="output">[n · rows, D]: receives the projected features, image by image; see <see cref="VisionSpec.FeatureRows"/>.</param>
    /// <param name="added">One tensor of the same shape for each layer of <see cref="VisionSpec.Deepstack"/>: receives theirs.</param>
    /// <param name="features">Receives what the projector reads, [n · rows, feature size], or empty; not of any-resolution images.</param>
    public void Forward(ReadOnlySpan<float> pixels, ImageGrid grid, Tensor output, ReadOnlySpan<Tensor> added = default, Span<float> features = default)
    {
        int count = checked((int)Spec.PixelCount(grid)), rows = Spec.FeatureRows(grid), images = pixels.Length / count;
        if (images * count != pixels.Length || output.Rows != images * rows || output.Columns != Projector.OutputSize || added.Length != Spec.Deepstack.Length)
            throw new ArgumentException(
                $"expected pixels of n × {count} floats, an output of [n × {rows}, {Projector.OutputSize}] and {Spec.Deepstack.Length} more, " +
                $"got {pixels.Length} floats, [{output.Rows}, {output.Columns}] and {added.Length}");
        var step = Spec.Division is ImageDivision.Whole or ImageDivision.Tiles ? MaxImages : 1;
        for (var first = 0; first < images; first += step)
        {
            var n = Math.Min(step, images - first);
            var input = pixels.Slice(first * count, n * count);
            var target = output.Slice(first * rows, n * rows);
            var taken = features.IsEmpty ? default : features.Slice(first * rows * Spec.FeatureSize, n * rows * Spec.FeatureSize);
            if (Spec.Division == ImageDivision.Native)
                Native(input, grid, target, added, first * rows, taken);
            else if (Spec.Division == ImageDivision.AnyResolution)
                Pack(input, grid, target);
            else
                Squares(input, n, target, taken);
        }
    }

    /// <summary>Encodes squares.</summary>
    private void Squares(ReadOnlySpan<float> pixels, int n, Tensor output, Span<float> features)
    {
        int rows = n * Spec.Rows, count = n * Spec.Features;
        var w = Workspace(rows, count);
        var (x, pixelRows) = (w.X.Slice(0, rows), w.Pixels.Slice(0, n));
        _device.Upload(pixels, pixelRows);
        _device.Patches(x, pixelRows, _weights.Patches);
        if (Spec.PreNorm)
            _device.Norm(x, x, _weights.PreNorm);
        Layers(w, rows, default, default, default, 0);
        var merged = w.Merged.Slice(0, count);
        var source = Spec.PostNorm ? w.H.Slice(0, rows) : w.Slab.IsNone ? x : w.Slab;
        var index = Selected(n, w.Slab.IsNone ? rows : w.Rows);
        if (Spec.Pooled)
            _device.BlendRows(merged, source, w.Fill(w.Index, index, Spec.Merge * Spec.Merge), Shares(index.Length));
        else
            _device.TakeRows(merged.Reshape(index.Length, Spec.HiddenSize), source, w.Fill(w.Index, index, 1));
        if (!features.IsEmpty)
            _device.Download(merged, features);
        Project(_weights.Projector, merged, w, output);
    }

    /// <summary>The transformer's layers over w.X; afterwards it holds the last one's output, and w.H that normed where there is a norm.</summary>
    private void Layers(VisionWorkspace w, int rows, TokenMap whole, TokenMap windows, ReadOnlySpan<Tensor> added, int first)
    {
        Tensor x = w.X.Slice(0, rows), h = w.H.Slice(0, rows), delta = w.Delta.Slice(0, rows), qkv = w.Qkv.Slice(0, rows);
        Tensor attended = w.Attended.Slice(0, rows), mlp = w.Mlp.Slice(0, rows);
        var layers = _weights.Layers;
        Keep(w, x, 0);
        if (layers.Length > 0 && Spec.PositionSide > 0)
            _device.ResidualNorm(x, delta, h, layers[0].Norm1, default); // positions are the first thing added
        else if (layers.Length > 0)
            _device.Norm(h, x, layers[0].Norm1);
        for (var l = 0; l < layers.Length; l++)
        {
            var layer = layers[l];
            _device.Linear(qkv, h, layer.Qkv, layer.QkvBias, Epilogue.None);
            if (Spec.Division == ImageDivision.Native)
            {
                var map = Spec.Window > 0 && !Spec.FullLayers.Contains(l) ? windows : whole;
                _device.RopeStore(qkv, w.Rotary.Slice(0, rows), w.Cache, map, _heads);
                _device.AttendPaged(attended, qkv, w.Cache, map, _heads, 0);
            }
            else
                _device.AttendFull(attended, qkv, Spec.Rows, _heads);
            _device.Linear(delta, attended, layer.Output, layer.OutputBias, Epilogue.None);
            _device.ResidualNorm(x, delta, h, layer.Norm2, default);
            _device.Linear(mlp, h, layer.Fc1, layer.Fc1Bias, Spec.Activation);
            _device.Linear(delta, mlp, layer.Fc2, layer.Fc2Bias, Epilogue.None);
            // Where nothing follows the last layer, the norm's output is not used: only x, the layer's own, is.
            _device.ResidualNorm(x, delta, h, l + 1 < layers.Length ? layers[l + 1].Norm1 : Spec.PostNorm ? _weights.PostNorm : layers[l].Norm1, default);
            Keep(w, x, l + 1);
            if (Array.IndexOf(Spec.Deepstack, l) is >= 0 and var level)
                Project(_weights.Deepstack[level], x.Reshape(rows / Spec.Merge / Spec.Merge, Spec.FeatureSize), w,
                    added[level].Slice(first, rows / Spec.Merge / Spec.Merge));
        }
    }

    /// <summary>Puts a layer's output aside where it is one of several feature layers.</summary>
    private void Keep(VisionWorkspace w, Tensor x, int layers)
    {
        if (!w.Slab.IsNone && Array.IndexOf(Spec.FeatureLayers!, layers) is >= 0 and var place)
            _device.Copy(w.Slab.Slice(place * w.Rows, x.Rows), x);
    }

    private void Project(ProjectorWeights weights, Tensor merged, VisionWorkspace w, Tensor output)
    {
        if (!weights.Norm.Weight.IsNone)
        {
            var normed = w.Merged.Slice(0, merged.Rows);
            _device.Norm(normed, merged, weights.Norm);
            merged = normed;
        }
        if (weights.Linear2 is null)
        {
            _device.Linear(output, merged, weights.Linear1, weights.Bias1, Epilogue.None);
            return;
        }
        var hidden = w.Hidden.Slice(0, merged.Rows);
        _device.Linear(hidden, merged, weights.Linear1, weights.Bias1, Projector.Activation);
        _device.Linear(output, hidden, weights.Linear2, weights.Bias2, Epilogue.None);
    }

    private VisionWorkspace Workspace(int rows, int features)
    {
        if (_workspace is null || _workspace.Rows < rows || _workspace.Features < features)
        {
            _workspace?.Dispose();
            _workspace = null;
            _workspace = new(_device, Spec, Projector, _weights, rows, features);
        }
        return _workspace;
    }

    /// <summary>
    /// The rows of x that each feature of n squares is made of: without class tokens; of each feature its patches one after another, of each
    /// patch the feature layers. Pooled features list all first patches first.
    /// </summary>
    private int[] Selected(int n, int layerRows)
    {
        int merge = Spec.Merge, layers = Spec.FeatureLayers?.Length ?? 1, parts = merge * merge * layers;
        int side = Spec.ImageSize / Spec.PatchSize, skip = merge == 1 ? Spec.Rows - Spec.Features : Spec.ClassToken ? 1 : 0;
        var rows = new int[n * Spec.Features * parts];
        for (var f = 0; f < n * Spec.Features; f++)
        {
            var (square, cell) = Math.DivRem(f, Spec.Features);
            for (var part = 0; part < parts; part++)
            {
                var (patch, layer) = Math.DivRem(part, layers);
                var within = merge == 1 ? cell : (cell / Spec.Side * merge + patch / merge) * side + cell % Spec.Side * merge + patch % merge;
                rows[Spec.Pooled ? part * n * Spec.Features + f : f * parts + part] = layer * layerRows + square * Spec.Rows + skip + within;
            }
        }
        return rows;
    }

    /// <summary>F32 [G, F]: equal shares of pooled patches.</summary>
    private Tensor Shares(int count)
    {
        var parts = Spec.Merge * Spec.Merge;
        if (_shares.Count < count)
        {
            _shares.Storage?.Dispose();
            _shares = _device.Allocate(DType.F32, count, 1);
            var shares = new float[count];
            Array.Fill(shares, 1f / parts);
            _device.Upload(shares, _shares);
        }
        return _shares.Slice(0, count).Reshape(parts, count / parts);
    }

    /// <summary>Frees weights and activations.</summary>
    public void Dispose()
    {
        _workspace?.Dispose();
        foreach (var tensor in (ReadOnlySpan<Tensor>)[_shares, _projected, _packRows, _packShares])
            tensor.Storage?.Dispose();
        _weights.Dispose();
    }
}
