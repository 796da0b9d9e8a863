using System.Globalization;
using System.Text;

namespace Trimtab.Evaluation;

/// <summary>A point of a curve, with its interval where it has one, and what a reader is told on pointing at it.</summary>
internal sealed record ChartPoint(double X, double Y, double? Low, double? High, string Note);

/// <summary>A curve, or a cloud. The style picks colour and marker together, so that neither is needed alone.</summary>
internal sealed record ChartSeries(string Name, int Style, IReadOnlyList<ChartPoint> Points);

/// <summary>An axis: what it shows, its range and where its numbers stand.</summary>
internal sealed record ChartAxis(string Label, double Min, double Max, IReadOnlyList<double> Ticks, Func<double, string> Format)
{
    /// <summary>0 … 100 %.</summary>
    public static ChartAxis Rate(string label) => new(label, 0, 1, [0, 0.25, 0.5, 0.75, 1], v => (v * 100).ToString("0", CultureInfo.InvariantCulture) + "%");

    /// <summary>An axis whose numbers are round and whose range holds the values.</summary>
    public static ChartAxis Around(string label, IEnumerable<double> values, bool zero = true)
    {
        double min = zero ? 0 : double.PositiveInfinity, max = zero ? 0 : double.NegativeInfinity;
        foreach (var value in values)
            (min, max) = (Math.Min(min, value), Math.Max(max, value));
        if (!(max > min))
            (min, max) = double.IsFinite(min) ? (min - (zero ? 0 : 0.5), min + (zero ? 1 : 0.5)) : (0, 1);
        var rough = (max - min) / 4;
        var power = Math.Pow(10, Math.Floor(Math.Log10(rough)));
        var step = power * (rough / power) switch { <= 1 => 1, <= 2 => 2, <= 2.5 => 2.5, <= 5 => 5, _ => 10 };
        long first = (long)Math.Floor(min / step + 1e-9), last = (long)Math.Ceiling(max / step - 1e-9);
        var ticks = new List<double>();
        for (var i = first; i <= last; i++)
            ticks.Add(i * step);
        return new(label, ticks[0], ticks[^1], ticks, v => v.ToString("G4", CultureInfo.InvariantCulture).Replace('-', '−'));
    }

    /// <summary>An axis with a number at each of these values, as long as they are few.</summary>
    public static ChartAxis At(string label, IReadOnlyList<double> values)
    {
        var pad = values.Count > 1 ? 0 : 0.5;
        return new(label, values.Min() - pad, values.Max() + pad, values, v => v.ToString("G4", CultureInfo.InvariantCulture));
    }
}

/// <summary>Two rates of a group of bars, such as one condition without and with steering.</summary>
internal sealed record ChartBar(string Name, int Style, double Value, double Low, double High, string Text);

/// <summary>Draws charts as inline SVG, styled by the page's style sheet, each with a title and a description for those who do not see it.</summary>
internal static class ReportChart
{
    private const double Width = 400, Height = 270, Left = 58, Right = 14, Top = 10, Bottom = 44;

    /// <summary>Number of styles that the style sheet tells apart.</summary>
    public const int Styles = 8;

    /// <summary>Curves with their interval bands.</summary>
    public static void Lines(ReportHtml html, string title, string description, ChartAxis x, ChartAxis y, IReadOnlyList<ChartSeries> series, bool markers = true)
    {
        Open(html, title, description, Width, Height);
        Frame(html, x, y);
        foreach (var one in series)
        {
            var band = one.Points.Where(p => p.Low is not null && p.High is not null).ToArray();
            if (band.Length > 1)
                html.Write($"<path class=\"band s{one.Style}\" d=\"{Path(band.Select(p => (X(x, p.X), Y(y, p.High!.Value))).Concat(band.Reverse().Select(p => (X(x, p.X), Y(y, p.Low!.Value)))))}Z\"/>");
            else if (band.Length == 1)
                html.Write($"<path class=\"line s{one.Style}\" d=\"{Path([(X(x, band[0].X), Y(y, band[0].High!.Value)), (X(x, band[0].X), Y(y, band[0].Low!.Value))])}\"/>");
        }
        foreach (var one in series)
        {
            html.Write($"<path class=\"line s{one.Style}\" d=\"{Path(one.Points.Select(p => (X(x, p.X), Y(y, p.Y))))}\"/>");
            foreach (var point in one.Points)
                html.Write($"<path class=\"mark s{one.Style}\" d=\"{Marker(one.Style, X(x, point.X), Y(y, point.Y), markers ? 4.2 : 2.2)}\"><title>{point.Note}</title></path>");
        }
        html.Write($"</svg>");
    }

    /// <summary>Curves through labelled points in the plane of two measures: what one costs in the other.</summary>
    public static void Tradeoff(ReportHtml html, string title, string description, ChartAxis x, ChartAxis y, IReadOnlyList<ChartSeries> series, Func<ChartPoint, string> label)
    {
        Open(html, title, description, Width, Height);
        Frame(html, x, y);
        foreach (var one in series)
        {
            html.Write($"<path class=\"line s{one.Style}\" d=\"{Path(one.Points.Select(p => (X(x, p.X), Y(y, p.Y))))}\"/>");
            foreach (var point in one.Points)
                html.Write($"<path class=\"mark s{one.Style}\" d=\"{Marker(one.Style, X(x, point.X), Y(y, point.Y), 4.2)}\"><title>{point.Note}</title></path>");
        }
        // A label that would lie on another one is left to the tooltip; the ends of the paths come first.
        var taken = new List<(double X, double Y)>();
        foreach (var point in series.SelectMany(s => s.Points.TakeLast(1)).Concat(series.SelectMany(s => s.Points.Take(1))).Concat(series.SelectMany(s => s.Points)))
        {
            double px = X(x, point.X), py = Y(y, point.Y);
            var atEdge = px > Width - Right - 34;
            (double X, double Y) place = (px + (atEdge ? -8 : -2), py < Top + 20 ? py + 17 : atEdge ? py + 4 : py - 9);
            if (taken.Any(t => Math.Abs(t.X - place.X) < 48 && Math.Abs(t.Y - place.Y) < 13))
                continue;
            taken.Add(place);
            html.Write($"<text class=\"note{(atEdge ? " end" : "")}\" x=\"{place.X}\" y=\"{place.Y}\">{label(point)}</text>");
        }
        html.Write($"</svg>");
    }

    /// <summary>Clouds of points; each cloud's centre is drawn large.</summary>
    public static void Scatter(ReportHtml html, string title, string description, ChartAxis x, ChartAxis y, IReadOnlyList<ChartSeries> series)
    {
        Open(html, title, description, Width, Height);
        Frame(html, x, y);
        // One path a cloud: thousands of points stay a small page.
        foreach (var one in series)
        {
            var path = new StringBuilder();
            foreach (var point in one.Points)
                path.Append(Marker(one.Style, X(x, point.X), Y(y, point.Y), 2.6));
            html.Write($"<path class=\"cloud s{one.Style}\" d=\"{path.ToString()}\"/>");
        }
        foreach (var one in series.Where(s => s.Points.Count > 0))
            html.Write($"<path class=\"centre s{one.Style}\" d=\"{Marker(one.Style, X(x, one.Points.Average(p => p.X)), Y(y, one.Points.Average(p => p.Y)), 7)}\"><title>{one.Name}: centre of {one.Points.Count}</title></path>");
        html.Write($"</svg>");
    }

    /// <summary>Groups of horizontal bars from 0 to 100 % with interval whiskers and their numbers at the right.</summary>
    public static void Bars(ReportHtml html, string title, string description, IReadOnlyList<(string Name, IReadOnlyList<ChartBar> Bars)> groups)
    {
        const double bar = 13, gap = 16, right = 126, top = 4;
        var left = 14 + 6.6 * groups.Max(g => Math.Clamp(g.Name.Length, 4, 14));
        var scale = Width - left - right;
        var height = top + groups.Sum(g => g.Bars.Count * (bar + 4) + gap) + 20;
        Open(html, title, description, Width, height);
        foreach (var tick in (double[])[0, 0.25, 0.5, 0.75, 1])
        {
            html.Write($"<path class=\"{(tick == 0 ? "axis" : "grid")}\" d=\"M{left + tick * scale} {top}V{height - 22}\"/>");
            if (tick * 4 % 2 == 0)
                html.Write($"<text class=\"tick middle\" x=\"{left + tick * scale}\" y=\"{height - 7}\">{ChartAxis.Rate("").Format(tick)}</text>");
        }
        var y = top + gap / 2;
        foreach (var (name, bars) in groups)
        {
            html.Write($"<text class=\"name end\" x=\"{left - 8}\" y=\"{y + bars.Count * (bar + 4) / 2 + 2}\"><title>{name}</title>{Shorten(name, 14)}</text>");
            foreach (var one in bars)
            {
                var middle = y + bar / 2;
                html.Write($"<g><title>{name}, {one.Name}: {one.Text}</title><rect class=\"bar s{one.Style}\" x=\"{left}\" y=\"{y}\" width=\"{Math.Max(0, one.Value) * scale}\" height=\"{bar}\" rx=\"2\"/>");
                html.Write($"<path class=\"whisker\" d=\"M{left + one.Low * scale} {middle}H{left + one.High * scale}M{left + one.Low * scale} {middle - 3.5}v7M{left + one.High * scale} {middle - 3.5}v7\"/>");
                html.Write($"<text class=\"value\" x=\"{Width - right + 10}\" y=\"{middle + 4}\">{one.Text}</text></g>");
                y += bar + 4;
            }
            y += gap;
        }
        html.Write($"</svg>");
    }

    /// <summary>The names of the styles, with the markers that the charts use.</summary>
    public static void Legend(ReportHtml html, IEnumerable<(string Name, int Style)> entries, bool bars = false)
    {
        html.Write($"<ul class=\"legend\">");
        foreach (var (name, style) in entries)
        {
            html.Write($"<li><svg width=\"26\" height=\"14\" viewBox=\"0 0 26 14\" aria-hidden=\"true\">");
            if (bars)
                html.Write($"<rect class=\"bar s{style}\" x=\"2\" y=\"1\" width=\"22\" height=\"12\" rx=\"2\"/>");
            else
                html.Write($"<path class=\"line s{style}\" d=\"M1 7H25\"/><path class=\"mark s{style}\" d=\"{Marker(style, 13, 7, 4.2)}\"/>");
            html.Write($"</svg>{name}</li>");
        }
        html.Write($"</ul>");
    }

    /// <summary>The first characters of a name that is too long for its place.</summary>
    public static string Shorten(string text, int length)
    {
        if (text.Length <= length)
            return text;
        var end = char.IsHighSurrogate(text[length - 2]) ? length - 2 : length - 1;
        return text[..end] + "…";
    }

    private static void Open(ReportHtml html, string title, string description, double width, double height)
    {
        string id = html.NextId("chart"), more = html.NextId("chart");
        html.Write($"<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id} {more}\"><title id=\"{id}\">{title}</title><desc id=\"{more}\">{description}</desc>");
    }

    private static void Frame(ReportHtml html, ChartAxis x, ChartAxis y)
    {
        foreach (var tick in y.Ticks)
        {
            html.Write($"<path class=\"{(tick == y.Min ? "axis" : "grid")}\" d=\"M{Left} {Y(y, tick)}H{Width - Right}\"/>");
            html.Write($"<text class=\"tick end\" x=\"{Left - 6}\" y=\"{Y(y, tick) + 4}\">{y.Format(tick)}</text>");
        }
        var written = double.NegativeInfinity;
        foreach (var tick in x.Ticks)
        {
            var at = X(x, tick);
            html.Write($"<path class=\"axis\" d=\"M{at} {Height - Bottom}v4\"/>");
            var text = x.Format(tick);
            if (at - written < 6 + 7.0 * text.Length)
                continue;
            written = at;
            html.Write($"<text class=\"tick middle\" x=\"{at}\" y=\"{Height - Bottom + 17}\">{text}</text>");
        }
        html.Write($"<text class=\"label middle\" x=\"{(Left + Width - Right) / 2}\" y=\"{Height - 6}\">{x.Label}</text>");
        html.Write($"<text class=\"label middle\" transform=\"translate(11 {(Top + Height - Bottom) / 2}) rotate(-90)\">{y.Label}</text>");
    }

    private static double X(ChartAxis axis, double value) => Left + (Width - Left - Right) * Unit(axis, value);

    private static double Y(ChartAxis axis, double value) => Height - Bottom - (Height - Top - Bottom) * Unit(axis, value);

    private static double Unit(ChartAxis axis, double value) => Math.Clamp((value - axis.Min) / (axis.Max - axis.Min), 0, 1);

    private static string Path(IEnumerable<(double X, double Y)> points)
    {
        var path = new StringBuilder();
        foreach (var (x, y) in points)
            path.Append(path.Length == 0 ? 'M' : 'L').Append(CultureInfo.InvariantCulture, $"{x:0.##} {y:0.##}");
        return path.ToString();
    }

    /// <summary>A closed shape around a point: disc, square, triangle, diamond, and their kin, of about equal area.</summary>
    private static string Marker(int style, double x, double y, double r)
    {
        FormattableString shape = style switch
        {
            1 => $"M{x - r * .88:0.#} {y - r * .88:0.#}h{r * 1.76:0.#}v{r * 1.76:0.#}h{-r * 1.76:0.#}z",
            2 => $"M{x:0.#} {y - r * 1.2:0.#}l{r * 1.15:0.#} {r * 2:0.#}h{-r * 2.3:0.#}z",
            3 => $"M{x:0.#} {y - r * 1.3:0.#}l{r * 1.3:0.#} {r * 1.3:0.#}l{-r * 1.3:0.#} {r * 1.3:0.#}l{-r * 1.3:0.#} {-r * 1.3:0.#}z",
            4 => $"M{x:0.#} {y + r * 1.2:0.#}l{r * 1.15:0.#} {-r * 2:0.#}h{-r * 2.3:0.#}z",
            5 => $"M{x - r * .4:0.#} {y - r * 1.2:0.#}h{r * .8:0.#}v{r * .8:0.#}h{r * .8:0.#}v{r * .8:0.#}h{-r * .8:0.#}v{r * .8:0.#}h{-r * .8:0.#}v{-r * .8:0.#}h{-r * .8:0.#}v{-r * .8:0.#}h{r * .8:0.#}z",
            6 => $"M{x - r * 1.3:0.#} {y - r * .6:0.#}h{r * 2.6:0.#}v{r * 1.2:0.#}h{-r * 2.6:0.#}z",
            7 => $"M{x - r * .6:0.#} {y - r * 1.3:0.#}h{r * 1.2:0.#}v{r * 2.6:0.#}h{-r * 1.2:0.#}z",
            _ => $"M{x - r:0.#} {y:0.#}a{r:0.#} {r:0.#} 0 1 0 {r * 2:0.#} 0a{r:0.#} {r:0.#} 0 1 0 {-r * 2:0.#} 0z",
        };
        return shape.ToString(CultureInfo.InvariantCulture);
    }
}
