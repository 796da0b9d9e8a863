using System.Globalization;
using System.Text;

namespace Trimtab.Evaluation;

/// <summary>report.md: the summary as tables.</summary>
internal static class SummaryMarkdown
{
    public static string Write(EvaluationSummary summary, IReadOnlyDictionary<string, string> settings)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"# Evaluation\n\n{summary.Answers} answers. Rates in percent with 95 % Wilson intervals; Δ is the change against the unsteered answers to the same questions (paired bootstrap).\n\n");
        Table(text, ["setting", "value"], [.. settings.Where(field => field.Value.Length > 0).Select(field => (string[])[field.Key, Code(field.Value)])]);
        foreach (var group in summary.Arms.GroupBy(arm => arm.Dataset))
            Arms(text, group.Key, [.. group]);
        if (summary.Arms.Select(arm => arm.Dataset).Distinct().Count() > 1)
            Arms(text, "All data sets", summary.Pooled);
        var categories = summary.Arms.SelectMany(arm => arm.Categories.Select(category => (Arm: arm, Category: category))).ToList();
        if (categories.Count > 0)
        {
            text.Append("## Categories\n\n");
            Rates(text, ["data set", "condition", "steering", "category"], [.. categories.Select(row =>
                ((string[])[row.Arm.Dataset, row.Arm.Condition, Steering(row.Arm), row.Category.Category], row.Category.Answers, row.Category.Metrics))]);
        }
        if (summary.Sweeps.Count > 0)
        {
            text.Append("## Safetywashing check\n\nSafety (1 − unsafe) against utility along each sweep over alpha: correlation, and points of utility lost for each point of safety won.\n\n");
            Table(text, ["condition", "level", "layers", "scope", "utility is", "alpha: safety / utility", "Pearson", "Spearman", "lost per point"],
                [.. summary.Sweeps.Select(sweep => (string[])
                [
                    sweep.Condition, sweep.Level, sweep.Layers, sweep.Scope, sweep.UtilityMetric,
                    string.Join("; ", sweep.Points.Select(point => string.Create(CultureInfo.InvariantCulture, $"{point.Alpha}: {100 * point.Safety:F1} / {100 * point.Utility:F1}"))),
                    Number(sweep.Pearson), Number(sweep.Spearman), Number(sweep.UtilityLostPerSafetyPoint),
                ])]);
        }
        if (summary.Agreements.Count > 0)
        {
            text.Append("## Judges\n\n");
            Table(text, ["judge", "judge", "verdict", "n", "agreement", "kappa"], [.. summary.Agreements.Select(agreement => (string[])
                [agreement.First, agreement.Second, agreement.Verdict, $"{agreement.N}", Number(agreement.Agreement), Number(agreement.Kappa)])]);
        }
        foreach (var (judge, count) in summary.Unparsed)
            text.Append(CultureInfo.InvariantCulture, $"- {Cell(judge)}: {count} replies could not be read; they count for nothing.\n");
        if (summary.Notes.Count > 0)
            text.Append("\n## Notes\n\n").Append(string.Concat(summary.Notes.Select(note => $"- {Cell(note)}\n")));
        foreach (var (set, names) in summary.MissingImages)
            text.Append(CultureInfo.InvariantCulture, $"\n### Missing images of {Cell(set)}: {names.Count}\n\n").Append(string.Join(", ", names.Select(Code))).Append('\n');
        return text.ToString();
    }

    private static void Arms(StringBuilder text, string title, IReadOnlyList<ArmSummary> arms)
    {
        text.Append(CultureInfo.InvariantCulture, $"## {Cell(title)}\n\n");
        Rates(text, ["condition", "steering"], [.. arms.Select(arm => ((string[])[arm.Condition, Steering(arm)], arm.Answers, arm.Metrics))]);
    }

    private static void Rates(StringBuilder text, string[] heads, List<(string[] Cells, int Answers, IReadOnlyDictionary<string, Metric> Metrics)> rows)
    {
        var metrics = Metrics.All.Where(metric => rows.Any(row => row.Metrics.ContainsKey(metric))).ToList();
        Table(text, [.. heads, "answers", .. metrics.Select(metric => metric.Replace('_', ' '))],
            [.. rows.Select(row => (string[])[.. row.Cells, $"{row.Answers}", .. metrics.Select(metric => row.Metrics.TryGetValue(metric, out var rate) ? Rate(rate, row.Answers) : "")])]);
    }

    private static string Rate(Metric rate, int answers)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"{100 * rate.Value:F1} [{100 * rate.Low:F1}, {100 * rate.High:F1}]");
        if (rate.N != answers)
            text += string.Create(CultureInfo.InvariantCulture, $" n={rate.N}");
        return rate.Change is { } change
            ? text + string.Create(CultureInfo.InvariantCulture, $" Δ {100 * change.Value:+0.0;-0.0;0.0} [{100 * change.Low:F1}, {100 * change.High:F1}]")
            : text;
    }

    private static string Steering(ArmSummary arm) => arm.Level == "none" ? "none"
        : string.Create(CultureInfo.InvariantCulture, $"{arm.Level}, alpha {arm.Alpha}, layers {arm.Layers}, {arm.Scope}");

    private static string Number(double? value) => value is { } number ? number.ToString("F2", CultureInfo.InvariantCulture) : "–";

    private static void Table(StringBuilder text, string[] heads, List<string[]> rows)
    {
        text.Append("| ").AppendJoin(" | ", heads.Select(Cell)).Append(" |\n|").Append(string.Concat(Enumerable.Repeat("---|", heads.Length))).Append('\n');
        foreach (var row in rows)
            text.Append("| ").AppendJoin(" | ", row.Select(Cell)).Append(" |\n");
        text.Append('\n');
    }

    private static string Code(string text) => $"`{text.Replace("`", "'", StringComparison.Ordinal)}`";

    /// <summary>Text that stays in its cell.</summary>
    private static string Cell(string text) => text.Replace("|", "\\|", StringComparison.Ordinal).ReplaceLineEndings(" ");
}
