namespace Trimtab.Evaluation;

/// <summary>The sections that look inside the model: where the last token's states lie, and how far an image moves them.</summary>
internal static class ReportStates
{
    /// <summary>Points drawn of each group: more would hide each other, and the components change little.</summary>
    public const int PointsPerGroup = 200;

    private static readonly int[] Styles = [0, 3, 1, 2, 4, 5, 6, 7];

    /// <summary>Checks that all samples are [L, D] of one shape.</summary>
    public static void Check(IReadOnlyList<StatesSample> samples)
    {
        foreach (var sample in samples)
        {
            if (sample.Layers < 1 || sample.States.Length == 0 || sample.States.Length % sample.Layers != 0)
                throw new ArgumentException($"{sample.States.Length} states of group '{sample.Group}' are not [{sample.Layers}, D].", nameof(samples));
            if (sample.Layers != samples[0].Layers || sample.States.Length != samples[0].States.Length)
                throw new ArgumentException($"States of group '{sample.Group}' are of another shape than those before.", nameof(samples));
        }
    }

    /// <summary>The first two principal components of each layer's states.</summary>
    public static void Planes(ReportHtml html, IReadOnlyList<StatesSample> all)
    {
        var finite = all.Where(s => !s.States.Any(v => !float.IsFinite(v))).ToArray();
        var names = all.Select(s => s.Group).Distinct().ToArray();
        var samples = names.SelectMany(name => Spread(finite.Where(s => s.Group == name).ToArray())).ToArray();
        var groups = Array.ConvertAll(samples, s => Array.IndexOf(names, s.Group));
        html.Write($"<p class=\"lead\">Each point is the last prompt token’s state of one prompt, seen along the two directions in which the states of a layer vary most; the large marks are the groups’ centres. An image moves the states away from where text alone puts them; steering is to bring them back.</p>");
        ReportChart.Legend(html, names.Select((n, i) => ($"{n} ({groups.Count(g => g == i)} of {all.Count(s => s.Group == n)})", Styles[i % Styles.Length])));
        if (finite.Length < all.Count)
            html.Write($"<p>{all.Count - finite.Length} samples hold values that are not finite; they are left out.</p>");
        if (samples.Length < 2)
        {
            html.Write($"<p>Too few samples to compare.</p>");
            return;
        }
        int layers = samples[0].Layers, dimensions = samples[0].States.Length / layers;
        var planes = new ReportPca.Plane[layers];
        Parallel.For(0, layers, layer =>
        {
            var rows = new double[samples.Length * dimensions];
            for (var i = 0; i < samples.Length; i++)
                for (var d = 0; d < dimensions; d++)
                    rows[i * dimensions + d] = samples[i].States[layer * dimensions + d];
            planes[layer] = ReportPca.Project(rows, dimensions, groups);
        });
        html.Write($"<div data-switch=\"layer\" data-label=\"Layer\" data-start=\"{layers - 1}\">");
        for (var layer = 0; layer < layers; layer++)
        {
            var plane = planes[layer];
            var series = names.Select((name, g) => new ChartSeries(name, Styles[g % Styles.Length],
                [.. Enumerable.Range(0, samples.Length).Where(i => groups[i] == g).Select(i => new ChartPoint(plane.X[i], plane.Y[i], null, null, ""))])).ToArray();
            html.Write($"<figure class=\"plane\" data-name=\"{layer + 1} of {layers}\"><figcaption>Layer {layer + 1}</figcaption>");
            ReportChart.Scatter(html, $"Principal components of the last token’s states, layer {layer + 1}", Centres(series),
                ChartAxis.Around($"component 1 ({ReportView.Percent(plane.ShareX)} of the variance)", plane.X, zero: false),
                ChartAxis.Around($"component 2 ({ReportView.Percent(plane.ShareY)})", plane.Y, zero: false), series);
            html.Write($"</figure>");
        }
        html.Write($"</div><details><summary>Table of the groups’ centres</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\" class=\"number\">Layer</th><th scope=\"col\" class=\"number\">Component 1</th><th scope=\"col\" class=\"number\">Component 2</th>");
        foreach (var name in names)
            html.Write($"<th scope=\"col\" class=\"number\">{name}</th>");
        html.Write($"</tr></thead><tbody>");
        for (var layer = 0; layer < layers; layer++)
        {
            html.Write($"<tr><th scope=\"row\" class=\"number\">{layer + 1}</th><td class=\"number\">{ReportView.Percent(planes[layer].ShareX)}</td><td class=\"number\">{ReportView.Percent(planes[layer].ShareY)}</td>");
            for (var g = 0; g < names.Length; g++)
                html.Write($"<td class=\"number\">{Centre(planes[layer], g)}</td>");
            html.Write($"</tr>");
        }
        html.Write($"</tbody></table></div></details>");

        string Centre(ReportPca.Plane plane, int group)
        {
            var members = Enumerable.Range(0, groups.Length).Where(i => groups[i] == group).ToArray();
            return members.Length == 0 ? "–" : $"{Signed(members.Average(i => plane.X[i]))}, {Signed(members.Average(i => plane.Y[i]))}";
        }
    }

    /// <summary>The shift's norm, and its projection before and after steering, for each layer.</summary>
    public static void Shift(ReportHtml html, IReadOnlyList<LayerProjection> shift)
    {
        html.Write($"<p class=\"lead\">How long each layer’s shift vector v is, and how far along it the states really move when an image is attached: without steering, and with it. A cure that fits brings the projection to zero.</p><div class=\"panels\">");
        Figure("Norm of the shift vector", "norm of v", [("norm", 2, s => s.Norm)]);
        Figure("Projection of the image’s shift on v", "projection", [("unsteered", 3, s => s.Before), ("steered", 1, s => s.After)]);
        html.Write($"</div><details><summary>Table</summary><div class=\"scroll\"><table id=\"shift-table\"><thead><tr><th scope=\"col\" class=\"number\">Layer</th><th scope=\"col\" class=\"number\">Norm of v</th><th scope=\"col\" class=\"number\">Projection unsteered</th><th scope=\"col\" class=\"number\">Projection steered</th></tr></thead><tbody>");
        foreach (var one in shift)
            html.Write($"<tr><th scope=\"row\" class=\"number\">{one.Layer}</th><td class=\"number\">{Signed(one.Norm)}</td><td class=\"number\">{Signed(one.Before)}</td><td class=\"number\">{Signed(one.After)}</td></tr>");
        html.Write($"</tbody></table></div></details>");

        void Figure(string title, string axis, (string Name, int Style, Func<LayerProjection, double> Value)[] curves)
        {
            var series = curves.Select(c => new ChartSeries(c.Name, c.Style, [.. shift.Where(s => double.IsFinite(c.Value(s)))
                .Select(s => new ChartPoint(s.Layer, c.Value(s), null, null, $"layer {s.Layer}, {c.Name}: {Signed(c.Value(s))}"))])).ToArray();
            if (series.All(s => s.Points.Count == 0))
                return;
            html.Write($"<figure><figcaption>{title}</figcaption>");
            ReportChart.Lines(html, title + " by layer", string.Join("; ", series.Where(s => s.Points.Count > 0).Select(s => $"{s.Name}: from {Signed(s.Points[0].Y)} to {Signed(s.Points[^1].Y)}")) + ". The numbers are in the table below.",
                ChartAxis.At("layer", [.. shift.Select(s => (double)s.Layer)]), ChartAxis.Around(axis, series.SelectMany(s => s.Points).Select(p => p.Y)), series, markers: shift.Count <= 16);
            if (series.Length > 1)
                ReportChart.Legend(html, series.Select(s => (s.Name, s.Style)));
            html.Write($"</figure>");
        }
    }

    // Evenly spaced, so that the picture does not depend on a random draw.
    private static IEnumerable<StatesSample> Spread(StatesSample[] samples)
        => samples.Length <= PointsPerGroup ? samples : Enumerable.Range(0, PointsPerGroup).Select(i => samples[(int)((long)i * samples.Length / PointsPerGroup)]);

    private static string Centres(IEnumerable<ChartSeries> series)
        => "Centres: " + string.Join("; ", series.Where(s => s.Points.Count > 0).Select(s => $"{s.Name} at {Signed(s.Points.Average(p => p.X))}, {Signed(s.Points.Average(p => p.Y))}")) + ".";

    private static string Signed(double value) => double.IsFinite(value) ? value.ToString("G4", System.Globalization.CultureInfo.InvariantCulture).Replace('-', '−') : "–";
}
