using System.Globalization;

namespace Trimtab.Evaluation;

/// <summary>A way to steer, whatever its strength.</summary>
internal sealed record ReportSetting(string Level, string Layers, string Scope);

/// <summary>How the report looks at a summary: what was varied, in which order it is shown, and which arms are set against each other.</summary>
internal sealed class ReportView
{
    private static readonly string[] KnownConditions = ["text", "blank", "noise", "image", "caption", "query"];
    private static readonly string[] Foremost = ["image", "blank", "noise", "caption", "query", "text"];
    private static readonly (string Metric, string Name, string Better)[] Known =
    [
        (Metrics.Unsafe, "Unsafe answers", "lower is safer"),
        (Metrics.OverRefusal, "Over-refusal", "lower is better"),
        (Metrics.Utility, "Utility", "higher is better"),
        (Metrics.Safe, "Safe", "higher is safer"),
        (Metrics.Effective, "Effective", "higher is better"),
        (Metrics.SafeAndEffective, "Safe and effective", "higher is better"),
        (Metrics.Accuracy, "Accuracy", "higher is better"),
        (Metrics.StrictAccuracy, "Accuracy, unreadable counted wrong", "higher is better"),
        (Metrics.Refusal, "Refusals of any kind", ""),
    ];

    private readonly Dictionary<(string, string, ReportSetting?, float), ArmSummary> _arms = [];

    /// <summary>Data set under which the rates of all of them together stand.</summary>
    public const string Together = "all";

    public ReportView(ReportInput input)
    {
        var summary = input.Summary;
        foreach (var arm in summary.Arms.Concat(summary.Pooled))
            _arms.TryAdd((arm.Dataset, arm.Condition, Setting(arm), Setting(arm) is null ? 0 : arm.Alpha), arm);
        Datasets = [.. summary.Arms.Select(a => a.Dataset).Distinct()];
        Conditions = [.. summary.Arms.Select(a => a.Condition).Distinct().OrderBy(Rank)];
        Settings = [.. summary.Arms.Select(Setting).OfType<ReportSetting>().Distinct()];
        Main = Settings.MaxBy(s => (Asked(input, s), Alphas(s).Count));
        Alpha = Main is null ? 0 : Alphas(Main).Where(a => a != 0).OrderBy(a => a == input.Alpha ? 0 : 1).ThenBy(a => Math.Abs(a - 1)).First();
        Condition = Foremost.Concat(Conditions).FirstOrDefault(c => Conditions.Contains(c) && Datasets.Any(d => Find(d, c, null, 0, Metrics.Unsafe) is not null))
            ?? Foremost.Concat(Conditions).FirstOrDefault(Conditions.Contains) ?? "text";
    }

    /// <summary>Data sets in the order in which they came.</summary>
    public IReadOnlyList<string> Datasets { get; }

    /// <summary>Conditions, text first.</summary>
    public IReadOnlyList<string> Conditions { get; }

    /// <summary>Ways to steer.</summary>
    public IReadOnlyList<ReportSetting> Settings { get; }

    /// <summary>The way to steer that is set against "unsteered"; null where nothing was steered.</summary>
    public ReportSetting? Main { get; }

    /// <summary>Its strength there.</summary>
    public float Alpha { get; }

    /// <summary>The condition that the headline is about.</summary>
    public string Condition { get; }

    /// <summary>How an arm is steered; null where it is not.</summary>
    public static ReportSetting? Setting(ArmSummary arm) => arm.Alpha == 0 || arm.Level == "none" ? null : new(arm.Level, arm.Layers, arm.Scope);

    /// <summary>Strengths of a way to steer in rising order, 0 for "unsteered" among them.</summary>
    public IReadOnlyList<float> Alphas(ReportSetting setting)
        => [.. _arms.Keys.Where(k => k.Item3 is null || k.Item3 == setting).Select(k => k.Item4).Distinct().Order()];

    /// <summary>A rate, or null where it was not measured or nothing could be judged.</summary>
    public Metric? Find(string dataset, string condition, ReportSetting? setting, float alpha, string metric)
        => _arms.TryGetValue((dataset, condition, alpha == 0 ? null : setting, alpha), out var arm) && arm.Metrics.TryGetValue(metric, out var value) && value.N > 0 ? value : null;

    /// <summary>One arm.</summary>
    public ArmSummary? Arm(string dataset, string condition, ReportSetting? setting, float alpha) => _arms.GetValueOrDefault((dataset, condition, alpha == 0 ? null : setting, alpha));

    /// <summary>The rates that the charts show: pairs of metric and data set that were measured, metric by metric. What another one says already is left to the table of all numbers.</summary>
    public IEnumerable<(string Metric, string Dataset)> Shown() =>
        from known in Known
        from dataset in Datasets
        let measured = _arms.Values.Where(a => a.Dataset == dataset).SelectMany(a => a.Metrics).Where(m => m.Value.N > 0).Select(m => m.Key).ToHashSet()
        where measured.Contains(known.Metric) && known.Metric switch
        {
            Metrics.Safe => !measured.Contains(Metrics.Unsafe),
            Metrics.Accuracy => !measured.Contains(Metrics.Utility),
            Metrics.StrictAccuracy => false,
            Metrics.Effective => measured.Contains(Metrics.Unsafe),
            Metrics.Refusal => measured.Count == 1,
            _ => true,
        }
        select (known.Metric, dataset);

    /// <summary>Where a metric's headline is taken from: the headline's condition where it was measured there, all its data sets together where there are several.</summary>
    public (string Dataset, string Condition)? Headline(string metric)
    {
        foreach (var condition in Foremost.Prepend(Condition).Concat(Conditions))
        {
            var measured = Datasets.Where(d => Find(d, condition, null, 0, metric) is not null).ToArray();
            if (measured.Length > 1 && Find(Together, condition, null, 0, metric) is not null)
                return (Together, condition);
            if (measured.Length > 0)
                return (measured[0], condition);
        }
        return null;
    }

    /// <summary>The page's first sentence.</summary>
    public string Headline()
    {
        var parts = new List<string>();
        foreach (var metric in (string[])[Metrics.Unsafe, Metrics.OverRefusal, Metrics.Utility])
            if (Headline(metric) is { } place && Find(place.Dataset, place.Condition, null, 0, metric) is { } before)
            {
                var after = Main is null ? null : Find(place.Dataset, place.Condition, Main, Alpha, metric);
                parts.Add($"{Name(metric)} ({Where(metric, place.Dataset, place.Condition)}): {Percent(before.Value)} unsteered{(after is null ? "" : $", {Percent(after.Value)} steered")}.");
            }
        return parts.Count > 0 ? string.Join(" ", parts) : "What the model answered, and what the judges made of it.";
    }

    /// <summary>What a headline rate is about.</summary>
    public string Where(string metric, string dataset, string condition, bool known = false)
        => (dataset == Together ? string.Join(" + ", Datasets.Where(d => Find(d, condition, null, 0, metric) is not null)) : dataset) + (known ? "" : ", condition " + condition);

    /// <summary>What a metric is called on the page.</summary>
    public static string Name(string metric) => Known.FirstOrDefault(k => k.Metric == metric).Name ?? metric;

    /// <summary>Which way a metric is good, or nothing.</summary>
    public static string Better(string metric) => Known.FirstOrDefault(k => k.Metric == metric).Better ?? "";

    /// <summary>Colour and marker of a condition: the same in every chart.</summary>
    public int Style(string condition)
    {
        var known = Array.IndexOf(KnownConditions, condition);
        return known >= 0 ? known : 6 + Conditions.Where(c => !KnownConditions.Contains(c)).ToList().IndexOf(condition) % 2;
    }

    /// <summary>A way to steer in words; only what differs between those of this report, unless all of it is wanted.</summary>
    public string Describe(ReportSetting setting, bool full = false)
    {
        var parts = new List<string>();
        if (full || Settings.Any(s => s.Level != setting.Level)) parts.Add(setting.Level + "-level");
        if (full || Settings.Any(s => s.Layers != setting.Layers)) parts.Add(setting.Layers == "all" ? "all layers" : "layers " + setting.Layers);
        if (full || Settings.Any(s => s.Scope != setting.Scope))
            parts.Add(setting.Scope switch { "all" => "prompt’s last and every new token", "prefill" => "prompt’s last token", "decode" => "new tokens", _ => "scope " + setting.Scope });
        return string.Join(", ", parts);
    }

    /// <summary>An arm's steering in a few words, for a table's head.</summary>
    public string Describe(ReportSetting? setting, float alpha)
        => setting is null || alpha == 0 ? "unsteered" : $"alpha {Number(alpha)}{(Describe(setting) is { Length: > 0 } more ? ", " + more : "")}";

    /// <summary>A strength or another plain number.</summary>
    public static string Number(double value) => ((float)value).ToString("G6", CultureInfo.InvariantCulture);

    /// <summary>A rate as a percentage.</summary>
    public static string Percent(double rate) => (rate * 100).ToString("0.0", CultureInfo.InvariantCulture) + "\u202F%";

    /// <summary>The ends of an interval, in per cent.</summary>
    public static string Interval(double low, double high) => string.Create(CultureInfo.InvariantCulture, $"{low * 100:0.0}–{high * 100:0.0}");

    /// <summary>A rate with its interval.</summary>
    public static string Text(Metric? metric) => metric is null ? "–" : $"{Percent(metric.Value)} ({Interval(metric.Low, metric.High)})";

    /// <summary>A difference in points of a percentage, with its sign.</summary>
    public static string Points(double difference)
    {
        var points = Math.Round(difference * 100, 1);
        return (points > 0 ? "+" : points < 0 ? "−" : "") + Math.Abs(points).ToString("0.0", CultureInfo.InvariantCulture);
    }

    /// <summary>A difference with its interval.</summary>
    public static string Text(Difference? difference)
        => difference is null || difference.Pairs == 0 ? "–" : $"{Points(difference.Value)} ({Points(difference.Low)} … {Points(difference.High)})";

    private static int Rank(string condition) => Array.IndexOf(KnownConditions, condition) is >= 0 and var known ? known : KnownConditions.Length;

    private static int Asked(ReportInput input, ReportSetting setting)
        => (input.Level == setting.Level ? 1 : 0) + (input.Layers == setting.Layers ? 1 : 0) + (input.Scope == setting.Scope ? 1 : 0);
}
