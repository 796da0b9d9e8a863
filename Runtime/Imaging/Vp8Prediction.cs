namespace Trimtab.Imaging;

/// <summary>How a block is predicted from its neighbours; whole blocks know the first four (RFC 6386, section 8).</summary>
internal enum Vp8Mode : byte
{
    Dc,
    TrueMotion,
    Vertical,
    Horizontal,
    RightDown,
    VerticalRight,
    LeftDown,
    VerticalLeft,
    HorizontalDown,
    HorizontalUp,
}

/// <summary>Samples of one component with a border of one sample above and at the left, where prediction finds its constants.</summary>
internal sealed class Vp8Plane
{
    internal readonly byte[] Data;
    internal readonly int Stride;

    internal Vp8Plane(int width, int height)
    {
        Stride = width + 1;
        Data = new byte[checked(Stride * (height + 1))];
        Data.AsSpan(0, Stride).Fill(127);
        for (var y = 1; y <= height; y++)
            Data[y * Stride] = 129;
    }

    /// <summary>Index of a sample.</summary>
    internal int At(int x, int y) => (y + 1) * Stride + x + 1;

    /// <summary>One row of samples.</summary>
    internal ReadOnlySpan<byte> Row(int y) => Data.AsSpan(At(0, y), Stride - 1);
}

/// <summary>Intra prediction (RFC 6386, section 12) and the inverse transforms that are added to it (section 14).</summary>
internal static class Vp8Prediction
{
    /// <summary>Predicts a whole block of luma (size 16) or chroma (size 8).</summary>
    internal static void Predict(Vp8Plane plane, Vp8Mode mode, int x, int y, int size)
    {
        var data = plane.Data.AsSpan();
        int stride = plane.Stride, at = plane.At(x, y);
        var above = data.Slice(at - stride, size);
        switch (mode)
        {
            case Vp8Mode.Dc:
                // At the image's edges the mean is that of the side which is there.
                int sum = 0, count = 0;
                for (var i = 0; i < size && y > 0; i++, count++)
                    sum += above[i];
                for (var i = 0; i < size && x > 0; i++, count++)
                    sum += data[at - 1 + i * stride];
                var mean = count == 0 ? 128 : (sum + count / 2) / count;
                for (var i = 0; i < size; i++)
                    data.Slice(at + i * stride, size).Fill((byte)mean);
                break;
            case Vp8Mode.TrueMotion:
                TrueMotion(data, at, stride, size);
                break;
            case Vp8Mode.Vertical:
                for (var i = 0; i < size; i++)
                    above.CopyTo(data[(at + i * stride)..]);
                break;
            default:
                for (var i = 0; i < size; i++)
                    data.Slice(at + i * stride, size).Fill(data[at + i * stride - 1]);
                break;
        }
    }

    private static void TrueMotion(Span<byte> data, int at, int stride, int size)
    {
        var corner = data[at - stride - 1];
        for (var i = 0; i < size; i++)
        {
            var row = data.Slice(at + i * stride, size);
            var above = data.Slice(at - stride, size);
            var base0 = data[at + i * stride - 1] - corner;
            for (var j = 0; j < row.Length; j++)
                row[j] = Clamp(base0 + above[j]);
        }
    }

    /// <summary>Predicts a 4×4 block of luma; <paramref name="right"/> are the four samples above and to the right.</summary>
    internal static void PredictSubblock(Vp8Plane plane, Vp8Mode mode, int at, ReadOnlySpan<byte> right)
    {
        var stride = plane.Stride;
        var data = plane.Data.AsSpan(at - stride - 1, 4 * stride + 5);
        var to = data[(stride + 1)..]; // [row × stride + column]
        int x = data[0], a = data[1], b = data[2], c = data[3], d = data[4], e = right[0], f = right[1], g = right[2], h = right[3];
        int i = data[stride], j = data[2 * stride], k = data[3 * stride], l = data[4 * stride];
        switch (mode)
        {
            case Vp8Mode.Dc:
                var mean = (byte)((a + b + c + d + i + j + k + l + 4) >> 3);
                Put(to, stride, mean, mean, mean, mean, mean, mean, mean, 0);
                break;
            case Vp8Mode.TrueMotion:
                TrueMotion(plane.Data, at, stride, 4);
                break;
            case Vp8Mode.Vertical:
                Span<byte> row = [Mean(x, a, b), Mean(a, b, c), Mean(b, c, d), Mean(c, d, e)];
                for (var y = 0; y < 4; y++)
                    row.CopyTo(to[(y * stride)..]);
                break;
            case Vp8Mode.Horizontal:
                to[..4].Fill(Mean(x, i, j));
                to.Slice(stride, 4).Fill(Mean(i, j, k));
                to.Slice(2 * stride, 4).Fill(Mean(j, k, l));
                to.Slice(3 * stride, 4).Fill(Mean(k, l, l));
                break;
            case Vp8Mode.RightDown: // each row is the one above, moved right
                Put(to, stride,
                    Mean(j, k, l), Mean(i, j, k), Mean(x, i, j), Mean(a, x, i), Mean(b, a, x), Mean(c, b, a), Mean(d, c, b), -1);
                break;
            case Vp8Mode.LeftDown: // each row is the one above, moved left
                Put(to, stride,
                    Mean(a, b, c), Mean(b, c, d), Mean(c, d, e), Mean(d, e, f), Mean(e, f, g), Mean(f, g, h), Mean(g, h, h), 1);
                break;
            case Vp8Mode.VerticalRight: // pairs of rows, moved right
                Rows(to, stride,
                    Mean(x, a), Mean(a, b), Mean(b, c), Mean(c, d),
                    Mean(i, x, a), Mean(x, a, b), Mean(a, b, c), Mean(b, c, d));
                Rows(to[(2 * stride)..], stride,
                    Mean(j, i, x), to[0], to[1], to[2],
                    Mean(k, j, i), to[stride], to[stride + 1], to[stride + 2]);
                break;
            case Vp8Mode.VerticalLeft:
                Rows(to, stride,
                    Mean(a, b), Mean(b, c), Mean(c, d), Mean(d, e),
                    Mean(a, b, c), Mean(b, c, d), Mean(c, d, e), Mean(d, e, f));
                Rows(to[(2 * stride)..], stride,
                    to[1], to[2], to[3], Mean(e, f, g),
                    to[stride + 1], to[stride + 2], to[stride + 3], Mean(f, g, h));
                break;
            case Vp8Mode.HorizontalDown: // each row is the one above, moved right by two
                Rows(to, stride,
                    Mean(i, x), Mean(i, x, a), Mean(x, a, b), Mean(a, b, c),
                    Mean(j, i), Mean(j, i, x), Mean(i, x), Mean(i, x, a));
                Rows(to[(2 * stride)..], stride,
                    Mean(k, j), Mean(k, j, i), Mean(j, i), Mean(j, i, x),
                    Mean(l, k), Mean(l, k, j), Mean(k, j), Mean(k, j, i));
                break;
            case Vp8Mode.HorizontalUp: // each row is the one above, moved left by two
                Rows(to, stride,
                    Mean(i, j), Mean(i, j, k), Mean(j, k), Mean(j, k, l),
                    Mean(j, k), Mean(j, k, l), Mean(k, l), Mean(k, l, l));
                Rows(to[(2 * stride)..], stride,
                    Mean(k, l), Mean(k, l, l), (byte)l, (byte)l,
                    (byte)l, (byte)l, (byte)l, (byte)l);
                break;
        }
    }

    /// <summary>Four rows as windows on seven samples: moving by one to the right (1), to the left from the fourth (−1), or not (0).</summary>
    private static void Put(Span<byte> to, int stride, byte s0, byte s1, byte s2, byte s3, byte s4, byte s5, byte s6, int step)
    {
        ReadOnlySpan<byte> samples = [s0, s1, s2, s3, s4, s5, s6];
        for (var y = 0; y < 4; y++)
            samples.Slice(step >= 0 ? y * step : 3 - y, 4).CopyTo(to[(y * stride)..]);
    }

    private static void Rows(Span<byte> to, int stride, byte a, byte b, byte c, byte d, byte e, byte f, byte g, byte h)
    {
        (to[0], to[1], to[2], to[3]) = (a, b, c, d);
        to = to[stride..];
        (to[0], to[1], to[2], to[3]) = (e, f, g, h);
    }

    private static byte Mean(int a, int b) => (byte)((a + b + 1) >> 1);

    private static byte Mean(int a, int b, int c) => (byte)((a + 2 * b + c + 2) >> 2);

    /// <summary>Inverse Walsh–Hadamard transform: the first coefficients of the 16 luma blocks, put at every 16th place.</summary>
    internal static void AddMeans(ReadOnlySpan<int> means, Span<int> coefficients)
    {
        Span<int> middle = stackalloc int[16];
        for (var i = 0; i < 4; i++)
        {
            int a0 = means[i] + means[12 + i], a1 = means[4 + i] + means[8 + i];
            int a2 = means[4 + i] - means[8 + i], a3 = means[i] - means[12 + i];
            (middle[i], middle[4 + i], middle[8 + i], middle[12 + i]) = (a0 + a1, a3 + a2, a0 - a1, a3 - a2);
        }
        for (var i = 0; i < 4; i++)
        {
            var row = middle.Slice(4 * i, 4);
            int a0 = row[0] + 3 + row[3], a1 = row[1] + row[2], a2 = row[1] - row[2], a3 = row[0] + 3 - row[3];
            var to = coefficients[(64 * i)..];
            (to[0], to[16], to[32], to[48]) = ((a0 + a1) >> 3, (a3 + a2) >> 3, (a0 - a1) >> 3, (a3 - a2) >> 3);
        }
    }

    /// <summary>Adds the inverse cosine transform of 16 coefficients to a 4×4 block.</summary>
    internal static void AddTransform(Span<int> coefficients, Span<byte> to, int stride)
    {
        var block = coefficients[..16];
        if (!block[1..].ContainsAnyExcept(0))
        {
            var mean = (block[0] + 4) >> 3;
            for (var y = 0; y < 4 && mean != 0; y++)
                foreach (ref var sample in to.Slice(y * stride, 4))
                    sample = Clamp(sample + mean);
            return;
        }
        for (var i = 0; i < 4; i++)
        {
            var column = block[i..];
            int a = column[0] + column[8], b = column[0] - column[8];
            int c = Sine(column[4]) - Cosine(column[12]), d = Cosine(column[4]) + Sine(column[12]);
            (column[0], column[4], column[8], column[12]) = (a + d, b + c, b - c, a - d);
        }
        for (var y = 0; y < 4; y++)
        {
            var row = block.Slice(4 * y, 4);
            int a = row[0] + 4 + row[2], b = row[0] + 4 - row[2];
            int c = Sine(row[1]) - Cosine(row[3]), d = Cosine(row[1]) + Sine(row[3]);
            var samples = to.Slice(y * stride, 4);
            samples[0] = Clamp(samples[0] + ((a + d) >> 3));
            samples[1] = Clamp(samples[1] + ((b + c) >> 3));
            samples[2] = Clamp(samples[2] + ((b - c) >> 3));
            samples[3] = Clamp(samples[3] + ((a - d) >> 3));
        }
    }

    /// <summary>√2·cos(π/8) and √2·sin(π/8) in 16-bit fixed point.</summary>
    private static int Cosine(int value) => value + ((value * 20091) >> 16);

    private static int Sine(int value) => (value * 35468) >> 16;

    private static byte Clamp(int value) => (byte)((uint)value <= 255 ? value : value < 0 ? 0 : 255);
}
