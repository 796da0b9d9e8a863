using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>Activations of a vision encoder's pass, allocated at capacity and seen in slices.</summary>
internal sealed class VisionWorkspace : IDisposable
{
    private readonly List<Tensor> _owned = [];
    private readonly Device _device;

    /// <param name="device">Where it lives.</param>
    /// <param name="spec">The tower.</param>
    /// <param name="projector">Its projector.</param>
    /// <param name="weights">Its weights.</param>
    /// <param name="rows">Rows inside the transformer at most, S.</param>
    /// <param name="features">Feature rows at most, F.</param>
    public VisionWorkspace(Device device, VisionSpec spec, ProjectorSpec projector, VisionWeights weights, int rows, int features)
    {
        (_device, Rows, Features) = (device, rows, features);
        DType type = device.ActivationType;
        int width = spec.HiddenSize, layers = spec.FeatureLayers?.Length ?? 1;
        X = Own(type, rows, width);
        H = Own(type, rows, width);
        Delta = Own(type, rows, width);
        Qkv = Own(type, rows, weights.Heads.Qkv);
        Attended = Own(type, rows, weights.Heads.Queries);
        Mlp = Own(type, rows, weights.Inner);
        if (layers > 1)
            Slab = Own(type, layers * rows, width);
        Index = Own(DType.I32, features * layers * spec.Merge * spec.Merge, 1);
        Merged = Own(type, features, spec.FeatureSize);
        if (projector.HiddenSize > 0)
            Hidden = Own(type, features, projector.HiddenSize);
        if (spec.Division != ImageDivision.Native)
        {
            Pixels = Own(DType.F32, rows / spec.Rows, 3 * spec.ImageSize * spec.ImageSize);
            return;
        }
        Pixels = Own(type, rows, spec.PatchFloats);
        Rotary = Own(DType.F32, rows, width / spec.Heads);
        Numbers = Own(DType.I32, rows, 1);
        Zeros = Own(DType.I32, rows, 1);
        Span = Own(DType.I32, 2 * rows, 1);
        Pages = Own(DType.I32, KvCache.PagesFor(rows), 1);
        device.Upload([.. Enumerable.Range(0, Pages.Rows)], Pages);
        device.Upload([.. Enumerable.Range(0, rows)], Numbers);
        // Each window begins a page: of one cell, most of it may stay empty.
        var cachePages = KvCache.PagesFor(rows) + (spec.Window > 0 ? features : 0);
        Cache = new(Own(type, cachePages * KvCache.PageSize, weights.Heads.Keys), Own(type, cachePages * KvCache.PageSize, weights.Heads.Keys), KvCache.PageSize);
        if (spec.Window > 0)
        {
            WindowMap = Own(DType.I32, 3 * rows, 1);
            WindowSpan = Own(DType.I32, 2 * rows, 1);
            WindowPages = Own(DType.I32, features * KvCache.PagesFor(spec.Window * spec.Window * spec.Merge * spec.Merge), 1);
        }
        if (spec.PositionSide == 0)
            return;
        PositionRows = Own(DType.I32, 4 * rows, 1);
        PositionWeights = Own(DType.F32, 4 * rows, 1);
    }

    public int Rows { get; }

    public int Features { get; }

    public Tensor Pixels { get; }   // F32 [n, 3 · H · W]; native: [S, C · T · P · P]
    public Tensor X { get; }        // [S, W]
    public Tensor H { get; }        // [S, W]
    public Tensor Delta { get; }    // [S, W]
    public Tensor Qkv { get; }      // [S, 3 W]
    public Tensor Attended { get; } // [S, W]
    public Tensor Mlp { get; }      // [S, I]
    public Tensor Slab { get; }     // [layers · S, W]: outputs of several feature layers, or none
    public Tensor Index { get; }    // I32 [F · rows a feature, 1]
    public Tensor Merged { get; }   // [F, feature size]
    public Tensor Hidden { get; }   // [F, P], or none

    // Of native images.
    public Tensor Rotary { get; }          // F32 [S, d]
    public Tensor Numbers { get; }         // I32 [S, 1]: 0, 1, 2, …
    public Tensor Zeros { get; }           // I32 [S, 1]
    public Tensor Span { get; }            // I32 [2 S, 1]
    public Tensor Pages { get; }           // I32 [pages, 1]: 0, 1, 2, …
    public Tensor WindowMap { get; }       // I32 [3 S, 1]: sequences, positions and store rows of windows, or none
    public Tensor WindowSpan { get; }      // I32 [2 S, 1], or none
    public Tensor WindowPages { get; }     // I32 [windows · pages, 1], or none
    public KvLayer Cache { get; }
    public Tensor PositionRows { get; }    // I32 [4 S, 1], or none
    public Tensor PositionWeights { get; } // F32 [4 S, 1], or none

    /// <summary>The first rows of a column of integers as a matrix, filled.</summary>
    public Tensor Fill(Tensor column, int[] values, int rows)
    {
        var matrix = column.Slice(0, values.Length).Reshape(rows, values.Length / rows);
        _device.Upload(values, matrix);
        return matrix;
    }

    private Tensor Own(DType type, int rows, int columns) => Own(type, rows, Division.Whole(columns));

    private Tensor Own(DType type, int rows, Division columns)
    {
        var tensor = _device.Allocate(type, rows, columns);
        _owned.Add(tensor);
        return tensor;
    }

    public void Dispose()
    {
        foreach (var tensor in _owned)
            tensor.Storage!.Dispose();
    }
}
