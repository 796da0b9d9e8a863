using System.Security.Cryptography;
using System.Text;
using Trimtab.Checkpoints;

namespace Trimtab.Evaluation;

/// <summary>
/// The page of an evaluation, report.html: one file that asks nothing of any other place, readable in dark, in light and on
/// paper. Charts are drawn here, as inline SVG; the page's small script only filters the answers and switches panels.
/// </summary>
public static class Report
{
    /// <summary>Writes the page, whole or not at all: what stood at <paramref name="path"/> stays until the new page is complete.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="input">What was found.</param>
    /// <exception cref="ArgumentException">States are not [L, D] of one shape.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static void WriteHtml(string path, ReportInput input)
    {
        ArgumentNullException.ThrowIfNull(input);
        ReportStates.Check(input.States);
        Replacement.Write(path, stream =>
        {
            using var writer = new StreamWriter(stream, new UTF8Encoding(false), 1 << 16, leaveOpen: true) { NewLine = "\n" };
            Write(writer, stream, input);
        });
    }

    private static void Write(StreamWriter writer, Stream stream, ReportInput input)
    {
        var html = new ReportHtml(writer);
        var view = new ReportView(input);
        string style = Resource("report.css"), script = Resource("report.js");
        // The policy holds the page to its promise: only this style, only this script, and no request at all.
        var policy = $"default-src 'none'; style-src 'sha256-{Hash(style)}'; script-src 'sha256-{Hash(script)}'; base-uri 'none'; form-action 'none'";
        html.Write($"""
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8"/>
            <meta name="viewport" content="width=device-width, initial-scale=1"/>
            <meta http-equiv="Content-Security-Policy" content="{policy}"/>
            <meta name="color-scheme" content="light dark"/>
            <meta name="generator" content="Trimtab"/>
            <title>{input.Model}: safety evaluation</title>
            <style>
            """);
        html.WriteRaw(style);
        html.Write($"</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the report</a>\n");
        var sections = Sections(html, view, input).ToArray();
        Header(html, view, input);
        html.Write($"\n<nav aria-label=\"Sections\"><ul>");
        foreach (var section in sections)
            html.Write($"<li><a href=\"#{section.Id}\">{section.Short}</a></li>");
        html.Write($"</ul></nav>\n<main id=\"main\">\n");
        foreach (var section in sections)
        {
            html.Write($"<section id=\"{section.Id}\" aria-labelledby=\"{section.Id}-title\">\n<h2 id=\"{section.Id}-title\">{section.Title}</h2>\n");
            section.Body();
            html.Write($"\n</section>\n");
        }
        html.Write($"</main>\n<footer><p>Written by Trimtab on {input.Date}. Everything on this page is in this file; it asks nothing of the network.</p></footer>\n");
        html.Write($"<script type=\"application/json\" id=\"answers-data\">");
        writer.Flush();
        ReportAnswers.WriteData(stream, view, input.Answers);
        html.Write($"</script>\n<script>");
        html.WriteRaw(script);
        html.Write($"</script>\n</body>\n</html>\n");
    }

    private static IEnumerable<(string Id, string Short, string Title, Action Body)> Sections(ReportHtml html, ReportView view, ReportInput input)
    {
        var rates = new ReportRates(html, view, input.Summary);
        yield return ("key", "Key numbers", "Key numbers", rates.Key);
        if (view.Main is not null)
            yield return ("alpha", "Alpha", "What each strength of steering does", rates.AgainstAlpha);
        yield return ("conditions", "Conditions", "Conditions side by side", rates.SideBySide);
        if (view.Settings.Count > 1)
            yield return ("layers", "Layers", "Layers and ways of steering", rates.AcrossSettings);
        if (input.Summary.Sweeps.Count > 0)
            yield return ("tradeoff", "Trade-off", "Safety against utility", rates.Tradeoff);
        if (input.States.Count > 0)
            yield return ("states", "States", "States of the last token", () => ReportStates.Planes(html, input.States));
        if (input.Shift.Count > 0)
            yield return ("shift", "Shift", "The image’s shift, layer by layer", () => ReportStates.Shift(html, input.Shift));
        if (input.Summary.Arms.Any(a => a.Categories.Count > 0))
            yield return ("categories", "Categories", "Categories", rates.Categories);
        yield return ("answers", "Answers", "The answers", () => ReportAnswers.Section(html));
        yield return ("judges", "Judges", "Judges and gaps", () => ReportMethods.Judges(html, input.Summary));
        yield return ("methods", "Methods", "Method, and how to repeat it", () => ReportMethods.Methods(html, view, input));
        yield return ("numbers", "All numbers", "All numbers", rates.All);
    }

    private static void Header(ReportHtml html, ReportView view, ReportInput input)
    {
        html.Write($"<header>\n<p class=\"soft\">Trimtab safety evaluation</p>\n<h1>{input.Model}</h1>\n<p class=\"lead\">{view.Headline()}</p>\n<dl class=\"facts\">");
        Fact("Date", input.Date);
        Fact("Answers", $"{input.Answers.Count:N0}");
        Fact(view.Datasets.Count == 1 ? "Data set" : "Data sets", string.Join(", ", view.Datasets));
        Fact("Conditions", string.Join(", ", view.Conditions));
        Fact("Model fingerprint", input.Fingerprint, code: true);
        Fact("Shift vectors", input.Vectors, code: true);
        Fact("Extraction", input.Method);
        if (view.Main is { } main)
            Fact("Compared with unsteered", $"alpha {ReportView.Number(view.Alpha)}; {view.Describe(main, full: true)}");
        foreach (var (name, value) in input.Facts)
            Fact(name, value);
        html.Write($"</dl>\n</header>");

        void Fact(string name, string? value, bool code = false)
        {
            if (string.IsNullOrEmpty(value))
                return;
            if (code) html.Write($"<div><dt>{name}</dt><dd class=\"mono\">{value}</dd></div>");
            else html.Write($"<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
    }

    private static string Hash(string text) => Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    private static string Resource(string name)
    {
        using var stream = typeof(Report).Assembly.GetManifestResourceStream("Trimtab.Evaluation.Report." + name)
            ?? throw new InvalidOperationException($"the assembly lacks its resource {name}");
        using var reader = new StreamReader(stream);
        // A checkout may have turned line ends; a browser turns them back before it hashes.
        return reader.ReadToEnd().Replace("\r\n", "\n", StringComparison.Ordinal);
    }
}
