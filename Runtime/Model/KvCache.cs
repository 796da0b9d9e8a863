using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>In what form keys and values are kept.</summary>
public enum KvType
{
    /// <summary>As activations are: exact.</summary>
    F32,
    /// <summary>bfloat16: half the memory.</summary>
    BF16,
    /// <summary>Eight bits and a scale for each head of a position: a quarter of the memory.</summary>
    Int8,
    /// <summary>Eight-bit floats (E4M3) and a scale for each head of a position: as many bytes as <see cref="Int8"/>, on a GPU alone.</summary>
    Fp8,
}

/// <summary>
/// Keys and values of every decoder layer in pages of <see cref="PageSize"/> positions. A sequence owns a list of page
/// numbers (the engine's <c>PagePool</c> deals them out); position p lies in row page[p / PageSize] · PageSize + p % PageSize of each layer.
/// </summary>
public sealed class KvCache : IDisposable
{
    /// <summary>Positions a page: small enough that little of a last page is wasted, one SIMD register of keys.</summary>
    public const int PageSize = 16;

    private readonly Device _device;
    private readonly KvLayer[] _layers;

    /// <summary>Allocates room for <paramref name="positions"/> positions of all sequences together.</summary>
    /// <param name="device">Where the cache lives.</param>
    /// <param name="spec">The decoder.</param>
    /// <param name="positions">Capacity in positions, rounded up to whole pages.</param>
    /// <param name="type">Form of keys and values.</param>
    /// <exception cref="NotSupportedException">The device does not attend to that form.</exception>
    public KvCache(Device device, TextSpec spec, int positions, KvType type = KvType.F32)
    {
        (_device, Pages) = (device, (positions + PageSize - 1) / PageSize);
        var stored = Stored(device.ActivationType, type);
        if (!device.Caches(stored))
            throw new NotSupportedException($"the device ({device.Name}) keeps no {type} keys and values; it keeps {string.Join(", ", Enum.GetValues<KvType>().Where(t => device.Caches(Stored(device.ActivationType, t))))}");
        var (heads, rows) = (HeadDivision.Of(device, spec), Pages * PageSize);
        _layers = new KvLayer[spec.Layers];
        for (var layer = 0; layer < spec.Layers; layer++)
        {
            _layers[layer] = new(
                device.Allocate(stored, rows, heads.Keys),
                device.Allocate(stored, rows, heads.Keys),
                PageSize,
                HasScales(type) ? device.Allocate(DType.F32, rows, heads.Scales) : default);
        }
    }

    /// <summary>Number of pages.</summary>
    public int Pages { get; }

    /// <summary>Bytes that one position of one layer takes.</summary>
    /// <param name="activations">The device's <see cref="Device.ActivationType"/>.</param>
    /// <param name="spec">The decoder.</param>
    /// <param name="type">Form of keys and values.</param>
    public static int PositionBytes(DType activations, TextSpec spec, KvType type)
        => 2 * spec.KeyValueHeads * (spec.HeadDimension * Stored(activations, type).BlockBytes() + (HasScales(type) ? sizeof(float) : 0));

    private static bool HasScales(KvType type) => type is KvType.Int8 or KvType.Fp8;

    private static DType Stored(DType activations, KvType type) => type switch
    {
        KvType.BF16 => DType.BF16,
        KvType.Int8 => DType.U8,
        KvType.Fp8 => DType.F8E4M3,
        _ => activations,
    };

    /// <summary>The pages that <paramref name="positions"/> positions need.</summary>
    public static int PagesFor(int positions) => (positions + PageSize - 1) / PageSize;

    /// <summary>Keys and values of a layer, 0-based.</summary>
    public KvLayer this[int layer] => _layers[layer];

    /// <summary>Copies all layers' keys and values of a page to another.</summary>
    public void CopyPage(int from, int to)
    {
        foreach (var layer in _layers)
        {
            Copy(layer.Keys);
            Copy(layer.Values);
            if (!layer.Scales.IsNone)
                Copy(layer.Scales);
        }

        void Copy(Tensor rows) => _device.Copy(rows.Slice(to * PageSize, PageSize), rows.Slice(from * PageSize, PageSize));
    }

    /// <summary>Frees the memory.</summary>
    public void Dispose()
    {
        foreach (var layer in _layers)
        {
            layer.Keys.Storage!.Dispose();
            layer.Values.Storage!.Dispose();
            layer.Scales.Storage?.Dispose();
        }
    }
}
