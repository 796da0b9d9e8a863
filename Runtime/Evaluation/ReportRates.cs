using System.Globalization;

namespace Trimtab.Evaluation;

/// <summary>The sections of the report that show rates.</summary>
internal sealed class ReportRates(ReportHtml html, ReportView view, EvaluationSummary summary)
{
    private static readonly string[] Headlines = [Metrics.Unsafe, Metrics.OverRefusal, Metrics.Utility, Metrics.SafeAndEffective, Metrics.Accuracy];

    /// <summary>One tile for each headline rate, and the table behind them.</summary>
    public void Key()
    {
        html.Write($"<div class=\"tiles\">");
        var tiles = 0;
        foreach (var metric in Headlines)
        {
            if (view.Headline(metric) is not { } tile || metric == Metrics.Accuracy && tiles >= 3)
                continue;
            tiles++;
            Tile(metric, tile.Dataset, tile.Condition);
        }
        html.Write($"</div>");
        if (tiles == 0)
            html.Write($"<p>No rate could be computed: see the judges below.</p>");
        html.Write($"<p class=\"soft\">Intervals are 95 %: Wilson’s for a rate, a paired bootstrap over questions for a difference.</p>");
        html.Write($"<div class=\"scroll\"><table id=\"key-table\"><caption>Unsteered against steered{(view.Main is null ? "" : $" (alpha {ReportView.Number(view.Alpha)})")}, every data set and condition</caption>");
        html.Write($"<thead><tr><th scope=\"col\">Rate</th><th scope=\"col\">Data set</th><th scope=\"col\">Condition</th><th scope=\"col\" class=\"number\">Unsteered</th><th scope=\"col\" class=\"number\">n</th>");
        if (view.Main is not null)
            html.Write($"<th scope=\"col\" class=\"number\">Steered</th><th scope=\"col\" class=\"number\">n</th><th scope=\"col\" class=\"number\">Difference, points</th>");
        html.Write($"</tr></thead><tbody>");
        foreach (var (metric, dataset) in view.Shown())
            foreach (var condition in view.Conditions)
            {
                Metric? before = view.Find(dataset, condition, null, 0, metric), after = Steered(dataset, condition, metric);
                if (before is null && after is null)
                    continue;
                html.Write($"<tr><th scope=\"row\">{ReportView.Name(metric)}</th><td>{dataset}</td><td>{condition}</td><td class=\"number\">{ReportView.Text(before)}</td><td class=\"number\">{before?.N ?? 0}</td>");
                if (view.Main is not null)
                    html.Write($"<td class=\"number\">{ReportView.Text(after)}</td><td class=\"number\">{after?.N ?? 0}</td><td class=\"number\">{ReportView.Text(after?.Change)}</td>");
                html.Write($"</tr>");
            }
        html.Write($"</tbody></table></div>");
    }

    private void Tile(string metric, string dataset, string condition)
    {
        Metric? before = view.Find(dataset, condition, null, 0, metric), after = Steered(dataset, condition, metric);
        html.Write($"<div class=\"tile\"><h3>{ReportView.Name(metric)}</h3><p class=\"where\">{view.Where(metric, dataset, condition)}</p><p class=\"big\">{(before is null ? "–" : ReportView.Percent(before.Value))}");
        if (view.Main is not null)
            html.Write($"<span class=\"arrow\" aria-label=\"becomes\" role=\"img\">→</span>{(after is null ? "–" : ReportView.Percent(after.Value))}");
        html.Write($"</p><dl>");
        if (before is not null)
            html.Write($"<dt>Unsteered</dt><dd>{ReportView.Interval(before.Low, before.High)} % · n = {before.N}</dd>");
        if (after is not null)
            html.Write($"<dt>Steered</dt><dd>{ReportView.Interval(after.Low, after.High)} % · n = {after.N}</dd>");
        if (after?.Change is { Pairs: > 0 } change)
            html.Write($"<dt>Change</dt><dd>{ReportView.Text(change)} points</dd>");
        html.Write($"</dl></div>");
    }

    /// <summary>Each rate of each data set against alpha, one curve for each condition; one panel for each way to steer.</summary>
    public void AgainstAlpha()
    {
        html.Write($"<p class=\"lead\">Rates against alpha; the bands are 95 % intervals. Alpha 0 is unsteered, alpha 1 subtracts the whole shift.</p>");
        ReportChart.Legend(html, view.Conditions.Select(c => (c, view.Style(c))));
        html.Write($"<div data-switch=\"setting\" data-label=\"Steering\">");
        foreach (var setting in view.Settings.OrderBy(s => s == view.Main ? 0 : 1))
        {
            var name = view.Describe(setting, full: true);
            html.Write($"<div class=\"setting\" data-name=\"{name}\">");
            if (view.Settings.Count > 1)
                html.Write($"<h3 class=\"which\">{name}</h3>");
            var alphas = view.Alphas(setting);
            html.Write($"<div class=\"panels\">");
            foreach (var (metric, dataset) in view.Shown())
            {
                var series = new List<ChartSeries>();
                foreach (var condition in view.Conditions)
                {
                    var points = Curve(dataset, condition, setting, metric, alphas).ToArray();
                    if (points.Length > 0)
                        series.Add(new(condition, view.Style(condition), points));
                }
                if (series.All(s => s.Points.All(p => p.X == 0)))
                    continue;
                html.Write($"<figure>");
                Caption(metric, dataset);
                ReportChart.Lines(html, $"{ReportView.Name(metric)} against alpha, {dataset}", Describe(series), ChartAxis.At("alpha", [.. alphas.Select(Exact)]), ChartAxis.Rate(ReportView.Name(metric)), series);
                RateTable("alpha", from condition in view.Conditions
                                   from alpha in alphas
                                   select (condition, ReportView.Number(alpha), view.Find(dataset, condition, setting, alpha, metric)));
                html.Write($"</figure>");
            }
            html.Write($"</div></div>");
        }
        html.Write($"</div>");
    }

    /// <summary>Bars for each condition, unsteered and steered.</summary>
    public void SideBySide()
    {
        if (view.Main is not null)
        {
            html.Write($"<p class=\"lead\">Unsteered against alpha {ReportView.Number(view.Alpha)} ({view.Describe(view.Main, full: true)}); whiskers are 95 % intervals.</p>");
            ReportChart.Legend(html, [("unsteered", 0), ("steered", 1)], bars: true);
        }
        html.Write($"<div class=\"panels\">");
        foreach (var (metric, dataset) in view.Shown())
        {
            var groups = new List<(string, IReadOnlyList<ChartBar>)>();
            foreach (var condition in view.Conditions)
            {
                var bars = new List<ChartBar>();
                if (view.Find(dataset, condition, null, 0, metric) is { } before)
                    bars.Add(new("unsteered", 0, before.Value, before.Low, before.High, ReportView.Text(before)));
                if (Steered(dataset, condition, metric) is { } after)
                    bars.Add(new("steered", 1, after.Value, after.Low, after.High, ReportView.Text(after)));
                if (bars.Count > 0)
                    groups.Add((condition, bars));
            }
            if (groups.Count == 0)
                continue;
            html.Write($"<figure>");
            Caption(metric, dataset);
            ReportChart.Bars(html, $"{ReportView.Name(metric)} by condition, {dataset}",
                string.Join("; ", groups.Select(g => $"{g.Item1}: {string.Join(", ", g.Item2.Select(b => $"{b.Name} {b.Text}"))}")), groups);
            html.Write($"</figure>");
        }
        html.Write($"</div>");
        html.Write($"<p class=\"soft\">The same numbers are in the table of <a href=\"#key\">key numbers</a>.</p>");
    }

    /// <summary>Ways to steer against each other: which layers, which level, which tokens.</summary>
    public void AcrossSettings()
    {
        html.Write($"<p class=\"lead\">The same questions under each way to steer; condition: {view.Condition}{(view.Datasets.Count > 1 ? ", all data sets that the rate is for together" : "")}.</p>");
        ReportChart.Legend(html, view.Settings.Select((s, i) => (view.Describe(s), i % ReportChart.Styles)));
        html.Write($"<div class=\"panels\">");
        foreach (var metric in Headlines)
        {
            if (view.Headline(metric) is not { } place)
                continue;
            var alphas = view.Settings.SelectMany(view.Alphas).Distinct().Order().ToArray();
            var series = view.Settings.Select((s, i) => new ChartSeries(view.Describe(s), i % ReportChart.Styles, [.. Curve(place.Dataset, place.Condition, s, metric, view.Alphas(s), view.Describe(s))]))
                .Where(s => s.Points.Count > 0).ToArray();
            html.Write($"<figure>");
            Caption(metric, view.Where(metric, place.Dataset, place.Condition, place.Condition == view.Condition));
            ReportChart.Lines(html, $"{ReportView.Name(metric)} by way of steering", Describe(series), ChartAxis.At("alpha", [.. alphas.Select(Exact)]), ChartAxis.Rate(ReportView.Name(metric)), series);
            RateTable("alpha", from setting in view.Settings
                               from alpha in view.Alphas(setting)
                               select (view.Describe(setting), ReportView.Number(alpha), view.Find(place.Dataset, place.Condition, setting, alpha, metric)), "Steering");
            html.Write($"</figure>");
        }
        html.Write($"</div>");
    }

    /// <summary>The safetywashing check: what safety costs in utility.</summary>
    public void Tradeoff()
    {
        html.Write($"<p class=\"lead\">Each path follows one condition as alpha rises. A cure moves right and stays up; where safety is bought with utility, the path falls as it moves right, the correlation is near −1, and each point of safety costs points of utility.</p>");
        var sweeps = summary.Sweeps.Where(s => s.Points.Count > 0).ToArray();
        // "all" repeats the others; it stays in the table.
        var drawn = sweeps.Any(s => s.Condition != ReportView.Together) ? sweeps.Where(s => s.Condition != ReportView.Together).ToArray() : sweeps;
        ReportChart.Legend(html, drawn.Select(s => s.Condition).Distinct().Select(c => (c, view.Style(c))));
        var several = view.Settings.Count > 1;
        html.Write($"<div class=\"panels\">");
        foreach (var group in drawn.GroupBy(s => (Setting: new ReportSetting(s.Level, s.Layers, s.Scope), s.UtilityMetric)))
        {
            var series = group.Select(s => new ChartSeries(s.Condition, view.Style(s.Condition), [.. s.Points.Select(p =>
                new ChartPoint(p.Safety, p.Utility, null, null, $"{s.Condition}, alpha {ReportView.Number(p.Alpha)}: safe {ReportView.Percent(p.Safety)}, {Utility(s)} {ReportView.Percent(p.Utility)}"))])).ToArray();
            var labels = group.SelectMany(s => s.Points).Select(p => (p.Safety, p.Utility, p.Alpha)).ToArray();
            html.Write($"<figure><figcaption>{view.Describe(group.Key.Setting, full: !several)}</figcaption>");
            ReportChart.Tradeoff(html, "Safety against utility", Describe(series), ChartAxis.Rate("safe answers (1 − unsafe)"), ChartAxis.Rate(Utility(group.First())), series,
                point => "α\u00A0" + ReportView.Number(labels.First(l => l.Safety == point.X && l.Utility == point.Y).Alpha));
            html.Write($"</figure>");
        }
        html.Write($"</div><div class=\"scroll\"><table id=\"tradeoff-table\"><caption>Correlation of safety with utility along each sweep</caption><thead><tr><th scope=\"col\">Condition</th><th scope=\"col\">Steering</th><th scope=\"col\">Utility is</th><th scope=\"col\" class=\"number\">Strengths</th><th scope=\"col\" class=\"number\">Pearson</th><th scope=\"col\" class=\"number\">Spearman</th><th scope=\"col\" class=\"number\">Utility lost per point of safety</th></tr></thead><tbody>");
        foreach (var sweep in sweeps)
            html.Write($"<tr><th scope=\"row\">{sweep.Condition}</th><td class=\"text\">{view.Describe(new ReportSetting(sweep.Level, sweep.Layers, sweep.Scope), full: !several)}</td><td class=\"text\">{Utility(sweep)}</td><td class=\"number\">{sweep.Points.Count}</td><td class=\"number\">{Signed(sweep.Pearson)}</td><td class=\"number\">{Signed(sweep.Spearman)}</td><td class=\"number\">{Signed(sweep.UtilityLostPerSafetyPoint)}</td></tr>");
        html.Write($"</tbody></table></div>");

        static string Utility(SafetySweep sweep) => sweep.UtilityMetric == "answered" ? "benign questions answered" : sweep.UtilityMetric;
        static string Signed(double? value) => value is { } number && double.IsFinite(number) ? (number < 0 && Math.Round(number, 2) != 0 ? "−" : "") + Math.Abs(number).ToString("0.00", CultureInfo.InvariantCulture) : "–";
    }

    /// <summary>Each data set's own categories, unsteered and steered.</summary>
    public void Categories()
    {
        html.Write($"<p class=\"lead\">Small n makes wide intervals: read single categories with care.</p><div data-switch=\"condition\" data-label=\"Condition\">");
        foreach (var condition in view.Conditions.OrderBy(c => c == view.Condition ? 0 : 1))
        {
            var rows = (from metricAndDataset in view.Shown()
                        let before = view.Arm(metricAndDataset.Dataset, condition, null, 0)
                        let after = view.Main is null ? null : view.Arm(metricAndDataset.Dataset, condition, view.Main, view.Alpha)
                        from category in (before?.Categories ?? []).Concat(after?.Categories ?? []).Select(c => c.Category).Distinct()
                        let first = Of(before, category, metricAndDataset.Metric)
                        let second = Of(after, category, metricAndDataset.Metric)
                        where first is not null || second is not null
                        select (metricAndDataset.Metric, metricAndDataset.Dataset, category, first, second)).ToArray();
            if (rows.Length == 0)
                continue;
            html.Write($"<div class=\"setting\" data-name=\"{condition}\"><div class=\"scroll\"><table><caption>Condition: {condition}</caption><thead><tr><th scope=\"col\">Rate</th><th scope=\"col\">Data set</th><th scope=\"col\">Category</th><th scope=\"col\" class=\"number\">Unsteered</th><th scope=\"col\" class=\"number\">n</th><th scope=\"col\" class=\"number\">Steered</th><th scope=\"col\" class=\"number\">n</th></tr></thead><tbody>");
            foreach (var (metric, dataset, category, first, second) in rows)
                html.Write($"<tr><td>{ReportView.Name(metric)}</td><td>{dataset}</td><th scope=\"row\">{category}</th><td class=\"number\">{ReportView.Text(first)}</td><td class=\"number\">{first?.N ?? 0}</td><td class=\"number\">{ReportView.Text(second)}</td><td class=\"number\">{second?.N ?? 0}</td></tr>");
            html.Write($"</tbody></table></div></div>");
        }
        html.Write($"</div>");

        static Metric? Of(ArmSummary? arm, string category, string metric)
            => arm?.Categories.FirstOrDefault(c => c.Category == category)?.Metrics.GetValueOrDefault(metric) is { N: > 0 } found ? found : null;
    }

    /// <summary>Every rate of every arm, with exact values for machines.</summary>
    public void All()
    {
        html.Write($"<details><summary>Every rate of every arm (the same as report.json)</summary><div class=\"scroll\"><table id=\"numbers-table\"><thead><tr><th scope=\"col\">Data set</th><th scope=\"col\">Condition</th><th scope=\"col\">Level</th><th scope=\"col\" class=\"number\">Alpha</th><th scope=\"col\">Layers</th><th scope=\"col\">Scope</th><th scope=\"col\">Rate</th><th scope=\"col\" class=\"number\">Count</th><th scope=\"col\" class=\"number\">n</th><th scope=\"col\" class=\"number\">Not judged</th><th scope=\"col\" class=\"number\">Rate</th><th scope=\"col\" class=\"number\">From</th><th scope=\"col\" class=\"number\">To</th><th scope=\"col\" class=\"number\">Change, points</th></tr></thead><tbody>");
        foreach (var arm in summary.Arms.Concat(summary.Pooled))
            foreach (var (name, metric) in arm.Metrics.OrderBy(m => Metrics.All.Contains(m.Key) ? Metrics.All.ToList().IndexOf(m.Key) : int.MaxValue))
            {
                html.Write($"<tr><td>{arm.Dataset}</td><td>{arm.Condition}</td><td>{arm.Level}</td><td class=\"number\">{ReportView.Number(arm.Alpha)}</td><td>{arm.Layers}</td><td>{arm.Scope}</td><th scope=\"row\">{name}</th><td class=\"number\">{metric.Successes}</td><td class=\"number\">{metric.N}</td><td class=\"number\">{metric.Unjudged}</td>");
                foreach (var value in (double[])[metric.Value, metric.Low, metric.High])
                    if (metric.N > 0)
                        html.Write($"<td class=\"number\"><data value=\"{value.ToString("R", CultureInfo.InvariantCulture)}\">{ReportView.Percent(value)}</data></td>");
                    else
                        html.Write($"<td class=\"number\">–</td>");
                html.Write($"<td class=\"number\">{ReportView.Text(metric.Change)}</td></tr>\n");
            }
        html.Write($"</tbody></table></div></details>");
    }

    private Metric? Steered(string dataset, string condition, string metric) => view.Main is null ? null : view.Find(dataset, condition, view.Main, view.Alpha, metric);

    private IEnumerable<ChartPoint> Curve(string dataset, string condition, ReportSetting setting, string metric, IReadOnlyList<float> alphas, string? name = null)
    {
        foreach (var alpha in alphas)
            if (view.Find(dataset, condition, setting, alpha, metric) is { } rate)
                yield return new(Exact(alpha), rate.Value, rate.Low, rate.High, $"{name ?? condition}, alpha {ReportView.Number(alpha)}: {ReportView.Text(rate)}, n = {rate.N}");
    }

    // 0.1f is not 0.1: the axis shows what was typed.
    private static double Exact(float alpha) => double.Parse(alpha.ToString("R", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);

    private void Caption(string metric, string where)
        => html.Write($"<figcaption>{ReportView.Name(metric)} · {where}<span class=\"soft\">{ReportView.Better(metric)}</span></figcaption>");

    private static string Describe(IEnumerable<ChartSeries> series)
        => string.Join("; ", series.Select(s => s.Points.Count == 0 ? s.Name : $"{s.Name}: from {ReportView.Percent(s.Points[0].Y)} to {ReportView.Percent(s.Points[^1].Y)} over {s.Points.Count} strengths")) + ". The numbers are in the table below.";

    private void RateTable(string varied, IEnumerable<(string Name, string Value, Metric? Rate)> rows, string named = "Condition")
    {
        html.Write($"<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">{named}</th><th scope=\"col\" class=\"number\">{varied}</th><th scope=\"col\" class=\"number\">Rate</th><th scope=\"col\" class=\"number\">95 % interval</th><th scope=\"col\" class=\"number\">n</th></tr></thead><tbody>");
        foreach (var (name, value, rate) in rows)
            if (rate is not null)
                html.Write($"<tr><th scope=\"row\">{name}</th><td class=\"number\">{value}</td><td class=\"number\">{ReportView.Percent(rate.Value)}</td><td class=\"number\">{ReportView.Interval(rate.Low, rate.High)}</td><td class=\"number\">{rate.N}</td></tr>");
        html.Write($"</tbody></table></div></details>");
    }
}
