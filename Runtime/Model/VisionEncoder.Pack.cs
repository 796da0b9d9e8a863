using Trimtab.Kernels;

namespace Trimtab.Model;

// The whole image and the squares of a grid, packed as one image's rows (LLaVA-NeXT, January 2024; LLaVA-OneVision, arXiv 2408.03326).
public sealed partial class VisionEncoder
{
    private Tensor _projected, _packRows, _packShares;

    /// <summary>Encodes one image's squares, and packs: the whole image's rows, then the grid's without padding, each row of it with a newline.</summary>
    private void Pack(ReadOnlySpan<float> pixels, ImageGrid grid, Tensor output)
    {
        int squares = Spec.Squares(grid), features = Spec.Features, newline = squares * features;
        Ensure(ref _projected, _device.ActivationType, newline + 1, Projector.OutputSize);
        for (var first = 0; first < squares; first += MaxImages)
        {
            var n = Math.Min(MaxImages, squares - first);
            Squares(pixels.Slice(first * PixelCount, n * PixelCount), n, _projected.Slice(first * features, n * features), default);
        }
        _device.Copy(_projected.Slice(newline, 1), _weights.Newline);
        var (rows, shares) = Packed(grid, newline);
        Ensure(ref _packRows, DType.I32, rows.Length, 1);
        var terms = shares is null ? 1 : 4;
        var index = _packRows.Slice(0, rows.Length).Reshape(terms, rows.Length / terms);
        _device.Upload(rows, index);
        if (shares is null)
        {
            _device.TakeRows(output, _projected, index);
            return;
        }
        Ensure(ref _packShares, DType.F32, shares.Length, 1);
        var weights = _packShares.Slice(0, shares.Length).Reshape(terms, shares.Length / terms);
        _device.Upload(shares, weights);
        _device.BlendRows(output, _projected, index, weights);
    }

    /// <summary>Rows of the squares' features that each row of the image is; with shares where they are interpolated: both [4, rows] then.</summary>
    private (int[] Rows, float[]? Shares) Packed(ImageGrid grid, int newline)
    {
        var rows = new List<int>(Enumerable.Range(0, Spec.Features));
        if (grid.Rows == 0)
            return ([.. rows, newline], null);
        var (kept, across) = Spec.Kept(grid, out var down);
        if (down is not var (height, width))
        {
            for (var y = kept.First; y < kept.First + kept.Count; y++)
            {
                for (var x = across.First; x < across.First + across.Count; x++)
                    rows.Add(Place(y, x));
                rows.Add(newline);
            }
            return ([.. rows], null);
        }
        // Bilinear, corners not aligned, as torch's interpolate to a size.
        var total = Spec.Features + height * (width + 1);
        var (corners, shares) = (new int[4 * total], new float[4 * total]);
        for (var i = 0; i < total; i++)
        {
            var (y, x) = i < Spec.Features ? (0, width) : Math.DivRem(i - Spec.Features, width + 1);
            if (x == width)
            {
                (corners[i], shares[i]) = (i < Spec.Features ? i : newline, 1);
                continue;
            }
            var (top, bottom, dy) = Between(y, kept.Count, height);
            var (left, right, dx) = Between(x, across.Count, width);
            var ends = ((int, int, float)[])[(top, left, (1 - dy) * (1 - dx)), (top, right, (1 - dy) * dx), (bottom, left, dy * (1 - dx)), (bottom, right, dy * dx)];
            for (var corner = 0; corner < 4; corner++)
                (corners[corner * total + i], shares[corner * total + i]) = (Place(kept.First + ends[corner].Item1, across.First + ends[corner].Item2), ends[corner].Item3);
        }
        return (corners, shares);

        int Place(int y, int x) =>
            (1 + y / Spec.Side * grid.Columns + x / Spec.Side) * Spec.Features + y % Spec.Side * Spec.Side + x % Spec.Side;

        static (int Low, int High, float Part) Between(int place, int from, int to)
        {
            var at = Math.Max(0, ((float)from / to) * (place + 0.5f) - 0.5f);
            var low = Math.Min((int)at, from - 1);
            return (low, Math.Min(low + 1, from - 1), at - low);
        }
    }

    private void Ensure(ref Tensor tensor, DType type, int rows, int columns)
    {
        if (!tensor.IsNone && tensor.Rows >= rows)
            return;
        tensor.Storage?.Dispose();
        tensor = default;
        tensor = _device.Allocate(type, rows, columns);
    }
}
