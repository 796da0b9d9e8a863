using Trimtab.Kernels;

namespace Trimtab.Model;

// Images in nearly their own size (Qwen2-VL, arXiv 2409.12191; windows: Qwen2.5-VL, arXiv 2502.13923).
public sealed partial class VisionEncoder
{
    private const double RotaryTheta = 10000;

    /// <summary>Encodes one native image: the same attention as the decoder's, over a cache of its own, with a span that is the image or a window.</summary>
    private void Native(ReadOnlySpan<float> pixels, ImageGrid grid, Tensor output, ReadOnlySpan<Tensor> added, int first, Span<float> features)
    {
        int rows = grid.Rows * grid.Columns, merge = Spec.Merge, parts = merge * merge, count = rows / parts;
        var w = Workspace(rows, count);
        var (order, starts) = Windows(grid);
        var (x, patches) = (w.X.Slice(0, rows), w.Pixels.Slice(0, rows));
        _device.Upload(order is null ? pixels : Ordered(pixels, order, parts * Spec.PatchFloats), patches);
        _device.Linear(x, patches, _weights.Patches.Projection, _weights.Patches.Bias, Epilogue.None);

        var places = Places(grid, order);
        _device.Upload(Angles(places), w.Rotary.Slice(0, rows));
        if (Spec.PositionSide > 0)
        {
            var (corners, shares) = Corners(places, grid);
            var weights = w.PositionWeights.Slice(0, 4 * rows).Reshape(4, rows);
            _device.Upload(shares, weights);
            _device.BlendRows(w.Delta.Slice(0, rows), _weights.Patches.Positions, w.Fill(w.PositionRows, corners, 4), weights);
        }
        var numbers = w.Numbers.Slice(0, rows).Reshape(1, rows);
        int[] span = [.. Enumerable.Repeat(0, rows), .. Enumerable.Repeat(rows - 1, rows)];
        var map = new TokenMap(w.Zeros.Slice(0, rows).Reshape(1, rows), numbers, numbers, w.Pages.Reshape(1, w.Pages.Rows), w.Fill(w.Span, span, 2));
        Layers(w, rows, map, starts is null ? map : WindowMap(w, starts, rows), added, first);

        var merged = (Spec.PostNorm ? w.H : w.X).Slice(0, rows).Reshape(count, Spec.FeatureSize);
        if (order is not null)
        {
            // Back from the windows' order to the image's.
            var back = new int[count];
            for (var i = 0; i < count; i++)
                back[order[i]] = i;
            _device.TakeRows(w.Merged.Slice(0, count), merged, w.Fill(w.Index, back, 1));
            merged = w.Merged.Slice(0, count);
        }
        if (!features.IsEmpty)
            _device.Download(merged, features);
        Project(_weights.Projector, merged, w, output);
    }

    /// <summary>The merged cell at each place of the windows' order, and where the windows begin (in rows; the end last); null without windows.</summary>
    private (int[]? Order, List<int>? Starts) Windows(ImageGrid grid)
    {
        if (Spec.Window == 0)
            return (null, null);
        int height = grid.Rows / Spec.Merge, width = grid.Columns / Spec.Merge, side = Spec.Window, parts = Spec.Merge * Spec.Merge;
        var (order, starts) = (new List<int>(height * width), new List<int>());
        for (var top = 0; top < height; top += side)
            for (var left = 0; left < width; left += side)
            {
                starts.Add(order.Count * parts);
                for (var y = top; y < Math.Min(top + side, height); y++)
                    for (var x = left; x < Math.Min(left + side, width); x++)
                        order.Add(y * width + x);
            }
        starts.Add(order.Count * parts);
        return ([.. order], starts);
    }

    private static float[] Ordered(ReadOnlySpan<float> source, int[] order, int size)
    {
        var target = new float[source.Length];
        for (var i = 0; i < order.Length; i++)
            source.Slice(order[i] * size, size).CopyTo(target.AsSpan(i * size));
        return target;
    }

    /// <summary>Row and column of each patch of x.</summary>
    private (int Row, int Column)[] Places(ImageGrid grid, int[]? order)
    {
        int merge = Spec.Merge, parts = merge * merge, width = grid.Columns / merge;
        var places = new (int, int)[grid.Rows * grid.Columns];
        for (var i = 0; i < places.Length; i++)
        {
            var (place, part) = Math.DivRem(i, parts);
            var cell = order is null ? place : order[place];
            places[i] = (cell / width * merge + part / merge, cell % width * merge + part % merge);
        }
        return places;
    }

    /// <summary>[S, d]: cosines, then sines; the first half of a head's frequencies turns with the row, the second with the column.</summary>
    private float[] Angles((int Row, int Column)[] places)
    {
        int dimension = _heads.Dimension, quarter = dimension / 4;
        var angles = new float[places.Length * dimension];
        for (var i = 0; i < places.Length; i++)
            for (var f = 0; f < 2 * quarter; f++)
            {
                var frequency = 1 / (float)Math.Pow(RotaryTheta, 2f * (f % quarter) / (dimension / 2));
                var (sin, cos) = Math.SinCos((f < quarter ? places[i].Row : places[i].Column) * frequency);
                (angles[i * dimension + f], angles[i * dimension + 2 * quarter + f]) = ((float)cos, (float)sin);
            }
        return angles;
    }

    /// <summary>Of each patch the four entries of the table of positions around it, and their shares (bilinear); both [4, S].</summary>
    private (int[] Rows, float[] Shares) Corners((int Row, int Column)[] places, ImageGrid grid)
    {
        int side = Spec.PositionSide, n = places.Length;
        var (rows, shares) = (new int[4 * n], new float[4 * n]);
        for (var i = 0; i < n; i++)
        {
            var (y, x) = (Along(places[i].Row, grid.Rows), Along(places[i].Column, grid.Columns));
            int top = (int)y, left = (int)x, bottom = Math.Min(top + 1, side - 1), right = Math.Min(left + 1, side - 1);
            var (dy, dx) = (y - top, x - left);
            (rows[i], rows[n + i], rows[2 * n + i], rows[3 * n + i]) = (top * side + left, top * side + right, bottom * side + left, bottom * side + right);
            (shares[i], shares[n + i], shares[2 * n + i], shares[3 * n + i]) = ((1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx);
        }
        return (rows, shares);

        // As torch.linspace(0, side − 1, count) in float32: from the nearer end.
        float Along(int place, int count)
        {
            if (count == 1)
                return 0;
            var step = (side - 1f) / (count - 1);
            return place < count / 2 ? step * place : side - 1f - step * (count - 1 - place);
        }
    }

    /// <summary>Each window as a sequence of its own, which sees itself and nothing else.</summary>
    private static TokenMap WindowMap(VisionWorkspace w, List<int> starts, int rows)
    {
        int windows = starts.Count - 1, most = KvCache.PagesFor(Enumerable.Range(0, windows).Max(i => starts[i + 1] - starts[i])), page = 0;
        var (map, span, pages) = (new int[3 * rows], new int[2 * rows], new int[windows * most]);
        for (var i = 0; i < windows; i++)
        {
            var length = starts[i + 1] - starts[i];
            for (var p = 0; p < length; p++)
            {
                var row = starts[i] + p;
                (map[row], map[rows + row], map[2 * rows + row]) = (i, p, page * KvCache.PageSize + p);
                (span[row], span[rows + row]) = (0, length - 1);
            }
            for (var p = 0; p < KvCache.PagesFor(length); p++)
                pages[i * most + p] = page++;
        }
        var numbers = w.Fill(w.WindowMap, map, 3);
        return new(numbers.Slice(0, 1), numbers.Slice(1, 1), numbers.Slice(2, 1), w.Fill(w.WindowPages, pages, windows), w.Fill(w.WindowSpan, span, 2));
    }
}
