using System.Numerics;

namespace Trimtab.Imaging;

/// <summary>How an image is resized; the values are those of Pillow and of a checkpoint's preprocessor_config.json.</summary>
public enum Resampling
{
    /// <summary>The nearest pixel.</summary>
    Nearest = 0,
    /// <summary>A windowed sinc over three pixels either side.</summary>
    Lanczos = 1,
    /// <summary>A triangle over one pixel either side.</summary>
    Bilinear = 2,
    /// <summary>Keys' cubic with a = -0.5 over two pixels either side.</summary>
    Bicubic = 3,
    /// <summary>The mean of the pixels covered.</summary>
    Box = 4,
    /// <summary>A Hamming-windowed sinc over one pixel either side.</summary>
    Hamming = 5,
}

/// <summary>
/// One axis of a resize: an image of <paramref name="Length"/> pixels lies at <paramref name="Offset"/> on a canvas of
/// <paramref name="Canvas"/> pixels, the canvas is resized to <paramref name="Target"/> pixels, and of those
/// <paramref name="Count"/> from <paramref name="First"/> are wanted.
/// </summary>
internal readonly record struct ResizeAxis(int Length, int Canvas, int Offset, int Target, int First, int Count);

/// <summary>
/// Resizes as Pillow 13 does, to the bit: filters widened by the scale when shrinking (antialiasing), weights quantised to 22 bits after
/// the point, one axis after the other, rounded and clipped to 8 bits after each.
/// </summary>
/// <remarks>
/// Only the wanted window is computed, and what of the canvas the image does not cover (padding, of one colour) enters as the sum of its
/// weights, so that neither a panorama's padding to a square nor what a crop throws away takes memory or time.
/// </remarks>
internal static class Resampler
{
    private const int PrecisionBits = 32 - 8 - 2;
    private const int HalfUnit = 1 << (PrecisionBits - 1);

    /// <summary>The wanted window, [vertical.Count, horizontal.Count, 3].</summary>
    /// <param name="image">The source.</param>
    /// <param name="horizontal">The rows' axis.</param>
    /// <param name="vertical">The columns' axis.</param>
    /// <param name="filter">The filter.</param>
    /// <param name="padding">The canvas' colour where the image does not cover it, RGB.</param>
    internal static Image Resize(Image image, ResizeAxis horizontal, ResizeAxis vertical, Resampling filter, ReadOnlySpan<byte> padding)
    {
        var output = new byte[3 * horizontal.Count * vertical.Count];
        if (filter == Resampling.Nearest)
            PickNearest(image, horizontal, vertical, padding, output);
        else if (ColumnsFirst(horizontal, vertical))
            ConvolveColumnsFirst(image, new(horizontal, filter), new(vertical, filter), padding, output);
        else
            ConvolveRowsFirst(image, new(horizontal, filter), new(vertical, filter), padding, output);
        return new(horizontal.Count, vertical.Count, output);
    }

    private static void PickNearest(Image image, ResizeAxis horizontal, ResizeAxis vertical, ReadOnlySpan<byte> padding, Span<byte> output)
    {
        var (columns, rows) = (Nearest(horizontal), Nearest(vertical));
        var at = 0;
        foreach (var y in rows)
            foreach (var x in columns)
            {
                var inside = (uint)x < (uint)image.Width && (uint)y < (uint)image.Height;
                (inside ? image.Pixels.AsSpan(3 * (y * image.Width + x), 3) : padding).CopyTo(output[at..]);
                at += 3;
            }
    }

    // The image's pixel for each wanted one. Pillow adds up the steps, so their rounding errors too belong to the result.
    private static int[] Nearest(ResizeAxis axis)
    {
        var picked = new int[axis.Count];
        var step = (double)axis.Canvas / axis.Target;
        var position = step * 0.5;
        for (var i = 0; i < axis.First + axis.Count; i++, position += step)
            if (i >= axis.First)
                picked[i - axis.First] = (int)position - axis.Offset;
        return picked;
    }

    // Pillow's order, found by trial: along the rows first, unless the height loses more than twice what the width loses (in tall images).
    // Before version 13 it was rows first always, which differs by some levels there.
    private static bool ColumnsFirst(ResizeAxis horizontal, ResizeAxis vertical) =>
        vertical.Target < vertical.Canvas && vertical.Canvas - vertical.Target > 2L * (horizontal.Canvas - horizontal.Target);

    private static void ConvolveColumnsFirst(Image image, Weights horizontal, Weights vertical, ReadOnlySpan<byte> padding, Span<byte> output)
    {
        var stride = 3 * horizontal.Starts.Length;
        var sums = new int[3 * image.Width];
        var row = new byte[sums.Length];
        var planes = new int[sums.Length];
        Span<byte> resizedPadding = stackalloc byte[3];
        for (var i = 0; i < vertical.Starts.Length; i++)
        {
            for (var channel = 0; channel < 3; channel++)
                resizedPadding[channel] = Round(HalfUnit + vertical.Sum(i) * padding[channel]);
            for (var x = 0; x < sums.Length; x++)
                sums[x] = HalfUnit + vertical.Outside[i] * padding[x % 3];
            for (var y = vertical.Starts[i]; y < vertical.End(i); y++)
                Accumulate(image.Pixels.AsSpan(y * row.Length, row.Length), vertical.Of(i)[y - vertical.Starts[i]], sums);
            for (var x = 0; x < row.Length; x++)
                row[x] = Round(sums[x]);
            ResizeRow(row, planes, horizontal, resizedPadding, output.Slice(i * stride, stride));
        }
    }

    private static void ConvolveRowsFirst(Image image, Weights horizontal, Weights vertical, ReadOnlySpan<byte> padding, Span<byte> output)
    {
        var (columns, rows) = (horizontal.Starts.Length, vertical.Starts.Length);
        var stride = 3 * columns;
        // A row of nothing but padding, resized; then each resized row of the image in turn.
        var resized = new byte[stride];
        for (var i = 0; i < columns; i++)
            for (var channel = 0; channel < 3; channel++)
                resized[3 * i + channel] = Round(HalfUnit + horizontal.Sum(i) * padding[channel]);
        var sums = new int[rows * stride];
        for (var i = 0; i < rows; i++)
            for (var x = 0; x < stride; x++)
                sums[i * stride + x] = HalfUnit + vertical.Outside[i] * resized[x];

        // Each row of the image is resized once. Starts and ends never decrease, so the wanted rows that one row of the image counts for are neighbours.
        var planes = new int[3 * image.Width];
        var first = 0;
        for (var y = vertical.Starts[0]; y < image.Height; y++)
        {
            while (first < rows && vertical.End(first) <= y)
                first++;
            if (first == rows)
                break;
            if (vertical.Starts[first] > y)
                continue;
            ResizeRow(image.Pixels.AsSpan(3 * y * image.Width, 3 * image.Width), planes, horizontal, padding, resized);
            for (var i = first; i < rows && vertical.Starts[i] <= y; i++)
                Accumulate(resized, vertical.Of(i)[y - vertical.Starts[i]], sums.AsSpan(i * stride, stride));
        }
        for (var i = 0; i < sums.Length; i++)
            output[i] = Round(sums[i]);
    }

    private static void ResizeRow(ReadOnlySpan<byte> row, int[] planes, Weights weights, ReadOnlySpan<byte> padding, Span<byte> output)
    {
        var width = row.Length / 3;
        for (var x = 0; x < width; x++)
            (planes[x], planes[width + x], planes[2 * width + x]) = (row[3 * x], row[3 * x + 1], row[3 * x + 2]);
        for (var i = 0; i < weights.Starts.Length; i++)
        {
            var taps = weights.Of(i);
            for (var channel = 0; channel < 3; channel++)
                output[3 * i + channel] = Round(HalfUnit + weights.Outside[i] * padding[channel]
                    + Dot(taps, planes.AsSpan(channel * width + weights.Starts[i], taps.Length)));
        }
    }

    private static int Dot(ReadOnlySpan<int> weights, ReadOnlySpan<int> values)
    {
        var (sum, i) = (0, 0);
        if (weights.Length >= Vector<int>.Count)
        {
            var sums = Vector<int>.Zero;
            for (; i <= weights.Length - Vector<int>.Count; i += Vector<int>.Count)
                sums += new Vector<int>(weights[i..]) * new Vector<int>(values[i..]);
            sum = Vector.Sum(sums);
        }
        for (; i < weights.Length; i++)
            sum += weights[i] * values[i];
        return sum;
    }

    // sums += weight x values
    private static void Accumulate(ReadOnlySpan<byte> values, int weight, Span<int> sums)
    {
        var i = 0;
        var step = Vector<int>.Count;
        for (; i <= values.Length - Vector<byte>.Count; i += Vector<byte>.Count)
        {
            Vector.Widen(new Vector<byte>(values[i..]), out var low, out var high);
            Vector.Widen(low, out var first, out var second);
            Vector.Widen(high, out var third, out var fourth);
            Add(first, sums[i..], weight);
            Add(second, sums[(i + step)..], weight);
            Add(third, sums[(i + 2 * step)..], weight);
            Add(fourth, sums[(i + 3 * step)..], weight);
        }
        for (; i < values.Length; i++)
            sums[i] += weight * values[i];

        static void Add(Vector<uint> values, Span<int> sums, int weight) =>
            (new Vector<int>(sums) + Vector.AsVectorInt32(values) * weight).CopyTo(sums);
    }

    private static byte Round(int sum) => (byte)Math.Clamp(sum >> PrecisionBits, 0, 255);

    /// <summary>The quantised weights of each wanted pixel of an axis, over the image's pixels.</summary>
    private sealed class Weights
    {
        /// <summary>The first of the image's pixels that counts, for each wanted pixel.</summary>
        internal readonly int[] Starts;

        /// <summary>The sum of the weights that fall on padding, for each wanted pixel.</summary>
        internal readonly int[] Outside;

        // Those of wanted pixel i are _taps[_ends[i] .. _ends[i + 1]].
        private readonly int[] _ends;
        private readonly int[] _taps;

        internal Weights(ResizeAxis axis, Resampling filter)
        {
            var scale = (double)axis.Canvas / axis.Target;
            var stretch = Math.Max(1, scale);
            var support = Support(filter) * stretch;
            var inverse = 1 / stretch;
            (Starts, Outside, _ends) = (new int[axis.Count], new int[axis.Count], new int[axis.Count + 1]);
            var taps = new List<int>((int)Math.Min(Array.MaxLength, axis.Count * (long)Math.Min(axis.Length, 2 * support + 2)));
            for (var i = 0; i < axis.Count; i++)
            {
                var centre = (axis.First + i + 0.5) * scale;
                var first = Math.Max(0, (int)(centre - support + 0.5));
                var last = Math.Min(axis.Canvas, (int)(centre + support + 0.5));
                var total = 0.0;
                for (var x = 0; x < last - first; x++)
                    total += Weight(filter, (x + first - centre + 0.5) * inverse);
                Starts[i] = Math.Clamp(first - axis.Offset, 0, axis.Length);
                for (var x = 0; x < last - first; x++)
                {
                    var weight = Weight(filter, (x + first - centre + 0.5) * inverse);
                    if (total != 0)
                        weight /= total;
                    var quantised = (int)(weight * (1 << PrecisionBits) + (weight < 0 ? -0.5 : 0.5));
                    if ((uint)(x + first - axis.Offset) < (uint)axis.Length)
                        taps.Add(quantised);
                    else
                        Outside[i] += quantised;
                }
                _ends[i + 1] = taps.Count;
            }
            _taps = [.. taps];
        }

        internal ReadOnlySpan<int> Of(int i) => _taps.AsSpan(_ends[i], _ends[i + 1] - _ends[i]);

        internal int End(int i) => Starts[i] + _ends[i + 1] - _ends[i];

        internal int Sum(int i)
        {
            var sum = Outside[i];
            foreach (var weight in Of(i))
                sum += weight;
            return sum;
        }

        private static double Support(Resampling filter) => filter switch
        {
            Resampling.Lanczos => 3,
            Resampling.Bicubic => 2,
            Resampling.Box => 0.5,
            _ => 1,
        };

        private static double Weight(Resampling filter, double x)
        {
            switch (filter)
            {
                case Resampling.Box:
                    return x is > -0.5 and <= 0.5 ? 1 : 0;
                case Resampling.Bilinear:
                    return Math.Max(0, 1 - Math.Abs(x));
                case Resampling.Hamming:
                    // Its constants are single in Pillow; a pixel in thousands shows it.
                    x = Math.Abs(x);
                    return x == 0 ? 1 : x >= 1 ? 0 : Math.Sin(x * Math.PI) / (x * Math.PI) * (0.54f + 0.46f * Math.Cos(x * Math.PI));
                case Resampling.Bicubic:
                    const double a = -0.5;
                    x = Math.Abs(x);
                    return x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
                default:
                    return x is >= -3 and < 3 ? Sinc(x) * Sinc(x / 3) : 0;
            }
        }

        private static double Sinc(double x) => x == 0 ? 1 : Math.Sin(x * Math.PI) / (x * Math.PI);
    }
}
