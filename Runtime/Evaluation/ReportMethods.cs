using System.Globalization;

namespace Trimtab.Evaluation;

/// <summary>The sections that say how the rates came about, and what is missing.</summary>
internal static class ReportMethods
{
    /// <summary>How far judges agree, what they could not read, and what was left out.</summary>
    public static void Judges(ReportHtml html, EvaluationSummary summary)
    {
        if (summary.Agreements.Count == 0)
            html.Write($"<p>No answers were judged by two judges, so there is no agreement to report.</p>");
        else
        {
            html.Write($"<div class=\"scroll\"><table id=\"agreement-table\"><caption>Agreement of judges on the same answers; kappa is agreement beyond chance</caption><thead><tr><th scope=\"col\">Judges</th><th scope=\"col\">Verdict</th><th scope=\"col\" class=\"number\">n</th><th scope=\"col\" class=\"number\">Agreement</th><th scope=\"col\" class=\"number\">Cohen’s kappa</th></tr></thead><tbody>");
            foreach (var one in summary.Agreements)
                html.Write($"<tr><th scope=\"row\">{one.First} and {one.Second}</th><td>{one.Verdict}</td><td class=\"number\">{one.N}</td><td class=\"number\">{(one.N > 0 ? ReportView.Percent(one.Agreement) : "–")}</td><td class=\"number\">{one.Kappa?.ToString("0.00", CultureInfo.InvariantCulture) ?? "–"}</td></tr>");
            html.Write($"</tbody></table></div>");
        }
        if (summary.Unparsed.Any(u => u.Value > 0))
        {
            html.Write($"<div class=\"scroll\"><table><caption>Judges’ replies that could not be read: counted here, never guessed</caption><thead><tr><th scope=\"col\">Judge</th><th scope=\"col\" class=\"number\">Replies</th></tr></thead><tbody>");
            foreach (var (judge, count) in summary.Unparsed)
                html.Write($"<tr><th scope=\"row\">{judge}</th><td class=\"number\">{count}</td></tr>");
            html.Write($"</tbody></table></div>");
        }
        var missing = summary.MissingImages.Where(m => m.Value.Count > 0).ToArray();
        if (missing.Length == 0)
            html.Write($"<p>No image was missing.</p>");
        foreach (var (dataset, images) in missing)
        {
            html.Write($"<details><summary>{dataset}: {images.Count} {(images.Count == 1 ? "image" : "images")} missing, its questions skipped</summary><ul class=\"mono\">");
            foreach (var image in images)
                html.Write($"<li>{image}</li>");
            html.Write($"</ul></details>");
        }
        foreach (var note in summary.Notes)
            html.Write($"<p dir=\"auto\">{note}</p>");
    }

    /// <summary>What was computed, and the command that computes it again.</summary>
    public static void Methods(ReportHtml html, ReportView view, ReportInput input)
    {
        if (view.Main is not null)
            html.Write($"<p>CMRM (arXiv 2410.09047): an image shifts the last token’s hidden state at the output of every decoder layer. The shift v is measured between text with a meaningless image and the text alone; steering subtracts alpha · v from the last token’s state. Alpha = 1 is the paper’s setting.</p>");
        html.Write($"<p>Conditions: <em>text</em> is the question alone; <em>blank</em> and <em>noise</em> add an image without meaning; <em>image</em> adds the question’s own; <em>caption</em> and <em>query</em> say in words what the image shows or asks. The unsteered answers under the same condition are what every steered rate is compared with.</p>");
        html.Write($"<p>Every rate counts only answers that a judge gave a readable verdict on; n says how many. Over-refusal is the share of refusals among benign questions. A rate over several data sets counts their answers together, so larger sets weigh more.</p>");
        foreach (var paragraph in input.Methods)
            html.Write($"<p dir=\"auto\">{paragraph}</p>");
        if (!string.IsNullOrEmpty(input.Command))
            html.Write($"<h3>Command</h3><pre>{input.Command}</pre>");
    }
}
