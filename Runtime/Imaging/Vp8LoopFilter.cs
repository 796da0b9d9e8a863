namespace Trimtab.Imaging;

/// <summary>The deblocking filters of VP8 (RFC 6386, section 15), run over a whole frame after its reconstruction.</summary>
internal static class Vp8LoopFilter
{
    /// <summary>Filters all macroblocks in order; the simple kind touches luma alone.</summary>
    internal static void Apply(Vp8Plane luma, Vp8Plane[] chroma, ReadOnlySpan<Vp8Filter> filters, int wide, bool simple)
    {
        for (var i = 0; i < filters.Length; i++)
        {
            var filter = filters[i];
            if (filter.Limit == 0)
                continue;
            Block(luma, i % wide, i / wide, 16, filter, simple);
            if (simple)
                continue;
            foreach (var plane in chroma)
                Block(plane, i % wide, i / wide, 8, filter, false);
        }
    }

    /// <summary>One macroblock of a plane: left edge, inner columns, upper edge, inner rows.</summary>
    private static void Block(Vp8Plane plane, int x, int y, int size, Vp8Filter filter, bool simple)
    {
        int at = plane.At(x * size, y * size), stride = plane.Stride;
        if (x > 0)
            Edge(plane.Data, at, 1, stride, size, filter.Limit + 4, filter, true, simple);
        for (var i = 4; filter.Inner && i < size; i += 4)
            Edge(plane.Data, at + i, 1, stride, size, filter.Limit, filter, false, simple);
        if (y > 0)
            Edge(plane.Data, at, stride, 1, size, filter.Limit + 4, filter, true, simple);
        for (var i = 4; filter.Inner && i < size; i += 4)
            Edge(plane.Data, at + i * stride, stride, 1, size, filter.Limit, filter, false, simple);
    }

    /// <summary>An edge of so many samples, <paramref name="along"/> apart, filtered in steps of <paramref name="across"/>.</summary>
    private static void Edge(
        byte[] plane, int at, int across, int along, int length, int limit, Vp8Filter filter, bool outer, bool simple)
    {
        var reach = simple ? 2 : 4;
        limit = 2 * limit + 1;
        for (var i = 0; i < length; i++, at += along)
        {
            // Samples at 0 … reach − 1 before the edge, the rest after.
            var s = plane.AsSpan(at - reach * across, (2 * reach - 1) * across + 1);
            int q = reach * across;
            int p1 = s[q - 2 * across], p0 = s[q - across], q0 = s[q], q1 = s[q + across];
            if (4 * Math.Abs(p0 - q0) + Math.Abs(p1 - q1) > limit)
                continue;
            if (simple)
            {
                Two(s, q, across, p1, p0, q0, q1);
                continue;
            }
            int p3 = s[0], p2 = s[across], q2 = s[q + 2 * across], q3 = s[q + 3 * across], interior = filter.Interior;
            if (Math.Abs(p3 - p2) > interior || Math.Abs(p2 - p1) > interior || Math.Abs(p1 - p0) > interior
                || Math.Abs(q3 - q2) > interior || Math.Abs(q2 - q1) > interior || Math.Abs(q1 - q0) > interior)
                continue;
            if (Math.Abs(p1 - p0) > filter.HighVariance || Math.Abs(q1 - q0) > filter.HighVariance)
                Two(s, q, across, p1, p0, q0, q1);
            else if (outer)
            {
                var a = Signed(3 * (q0 - p0) + Signed(p1 - q1));
                int a1 = (27 * a + 63) >> 7, a2 = (18 * a + 63) >> 7, a3 = (9 * a + 63) >> 7;
                s[across] = Clamp(p2 + a3);
                s[q - 2 * across] = Clamp(p1 + a2);
                s[q - across] = Clamp(p0 + a1);
                s[q] = Clamp(q0 - a1);
                s[q + across] = Clamp(q1 - a2);
                s[q + 2 * across] = Clamp(q2 - a3);
            }
            else
            {
                var a = 3 * (q0 - p0);
                int a1 = Signed(a + 4) >> 3, a2 = Signed(a + 3) >> 3, a3 = (a1 + 1) >> 1;
                s[q - 2 * across] = Clamp(p1 + a3);
                s[q - across] = Clamp(p0 + a2);
                s[q] = Clamp(q0 - a1);
                s[q + across] = Clamp(q1 - a3);
            }
        }
    }

    private static void Two(Span<byte> s, int q, int across, int p1, int p0, int q0, int q1)
    {
        var a = 3 * (q0 - p0) + Signed(p1 - q1);
        s[q - across] = Clamp(p0 + (Signed(a + 3) >> 3));
        s[q] = Clamp(q0 - (Signed(a + 4) >> 3));
    }

    private static int Signed(int value) => Math.Clamp(value, -128, 127);

    private static byte Clamp(int value) => (byte)((uint)value <= 255 ? value : value < 0 ? 0 : 255);
}
