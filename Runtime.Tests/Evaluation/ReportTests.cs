using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using System.Xml;
using System.Xml.Linq;
using Trimtab.Evaluation;

namespace Trimtab.Tests.Evaluation;

/// <summary>The page says what the answers say, and nothing in an answer becomes part of the page.</summary>
public class ReportTests
{
    private const string Hostile = "<script>alert(1)</script></script><!-- <svg onload='x'> & \"quoted\" \u2028\u2029 ]]> \u0001\u007F 日本 😀 {{x}}";
    private string _path = "";

    [SetUp]
    public void Folder() => _path = Path.Combine(Directory.CreateTempSubdirectory("report").FullName, "report.html");

    [TearDown]
    public void Clean() => Directory.Delete(Path.GetDirectoryName(_path)!, recursive: true);

    [Test]
    public void Numbers_of_the_page_are_those_of_the_jsonl()
    {
        var lines = ReportSample.Answers(12, ("dataset", "all", "prefill"), ("sample", "1-2", "all")).ConvertAll(a => a.ToLine());
        var page = Write(ReportSample.Input(lines.ConvertAll(Answer.Parse)) with { Summary = EvaluationSummary.Summarize(lines.Select(Answer.Parse)) });
        var expected = lines.ConvertAll(Answer.Parse).GroupBy(a => (a.Dataset, a.Condition, a.Level, ReportView.Number(a.Alpha), a.Layers, a.Scope))
            .SelectMany(g => ReportSample.Rates([.. g]).Select(r => (Key: (g.Key, r.Name), r.Rate))).ToDictionary(p => p.Key, p => p.Rate);
        var seen = 0;
        foreach (var row in Rows(page, "numbers-table").Where(r => Cell(r, 0) != "all" && Cell(r, 6) is "unsafe" or "refusal" or "over_refusal" or "utility"))
        {
            var rate = expected[((Cell(row, 0), Cell(row, 1), Cell(row, 2), Cell(row, 3), Cell(row, 4), Cell(row, 5)), Cell(row, 6))];
            Assert.That((Cell(row, 7), Cell(row, 8), Cell(row, 9)), Is.EqualTo(($"{rate.Successes}", $"{rate.N}", $"{rate.Unjudged}")));
            foreach (var (column, value) in ((int, double)[])[(10, rate.Value), (11, rate.Low), (12, rate.High)])
            {
                Assert.That(double.Parse(Cells(row)[column].Element("data")!.Attribute("value")!.Value, CultureInfo.InvariantCulture), Is.EqualTo(value).Within(1e-9));
                Assert.That(Cell(row, column), Is.EqualTo((value * 100).ToString("0.0", CultureInfo.InvariantCulture) + "\u202F%"));
            }
            seen++;
        }
        Assert.That(seen, Is.EqualTo(expected.Count));
    }

    [Test]
    public void Answers_in_the_page_give_the_same_rates_again()
    {
        var answers = ReportSample.Answers(10, ("dataset", "all", "prefill"), ("sample", "1-2", "all"));
        Write(ReportSample.Input(answers));
        using var data = Data();
        var again = new Dictionary<(string, string, string, string, string, string), List<Answer>>();
        var texts = Strings(data, "texts");
        foreach (var question in data.RootElement.GetProperty("questions").EnumerateArray())
            foreach (var answer in question.GetProperty("answers").EnumerateArray())
            {
                var column = data.RootElement.GetProperty("columns")[answer.GetProperty("column").GetInt32()];
                var one = new Answer
                {
                    Dataset = Strings(data, "datasets")[question.GetProperty("dataset").GetInt32()], Id = question.GetProperty("id").GetString()!,
                    Condition = Strings(data, "conditions")[answer.GetProperty("condition").GetInt32()], Kind = question.GetProperty("kind").GetString(),
                    Level = column.GetProperty("level").GetString()!, Alpha = column.GetProperty("alpha").GetSingle(), Layers = column.GetProperty("layers").GetString()!,
                    Scope = column.GetProperty("scope").GetString()!, Prompt = texts[question.GetProperty("prompt").GetInt32()], Text = texts[answer.GetProperty("text").GetInt32()],
                    Refused = Given(answer, "refused"), Unsafe = Given(answer, "unsafe"), Effective = Given(answer, "effective"), Correct = Given(answer, "correct"),
                };
                var key = (one.Dataset, one.Condition, one.Level, ReportView.Number(one.Alpha), one.Layers, one.Scope);
                (again.TryGetValue(key, out var arm) ? arm : again[key] = []).Add(one);
            }
        Assert.That(again.Values.Sum(a => a.Count), Is.EqualTo(answers.Count));
        foreach (var arm in answers.GroupBy(a => (a.Dataset, a.Condition, a.Level, ReportView.Number(a.Alpha), a.Layers, a.Scope)))
        {
            Assert.That(ReportSample.Rates(again[arm.Key]), Is.EqualTo(ReportSample.Rates([.. arm])));
            Assert.That(again[arm.Key].Select(a => (a.Id, a.Prompt, a.Text)), Is.EqualTo(arm.Select(a => (a.Id, a.Prompt, a.Text))));
        }
    }

    [Test]
    public void Key_numbers_compare_unsteered_with_steered()
    {
        var answers = ReportSample.Answers(20, ("dataset", "all", "prefill"));
        var page = Write(ReportSample.Input(answers));
        Metric Unsafe(float alpha) => ReportSample.Rate(answers.Where(a => a.Dataset == "demo-harmful" && a.Condition == "image" && a.Alpha == alpha).Select(a => a.Unsafe));
        var row = Rows(page, "key-table").Single(r => Cell(r, 0) == "Unsafe answers" && Cell(r, 2) == "image");
        Assert.That(Cell(row, 3), Does.StartWith($"{Unsafe(0).Value * 100:0.0}\u202F% ({Unsafe(0).Low * 100:0.0}–"));
        Assert.That(Cell(row, 5), Does.StartWith($"{Unsafe(1).Value * 100:0.0}\u202F% ({Unsafe(1).Low * 100:0.0}–"));
        var tile = page.Descendants().First(e => (string?)e.Attribute("class") == "big").Value;
        Assert.That(tile, Is.EqualTo($"{Unsafe(0).Value * 100:0.0}\u202F%→{Unsafe(1).Value * 100:0.0}\u202F%"));
    }

    [Test]
    public void The_asked_operating_point_is_the_one_that_is_compared()
    {
        var input = ReportSample.Input(ReportSample.Answers(5, ("dataset", "all", "prefill"), ("sample", "1-2", "all")));
        var view = new ReportView(input with { Level = "sample", Alpha = 0.5f });
        Assert.That((view.Main!.Level, view.Main.Layers, view.Alpha), Is.EqualTo(("sample", "1-2", 0.5f)));
        view = new ReportView(input);
        Assert.That((view.Main!.Level, view.Alpha, view.Condition), Is.EqualTo(("dataset", 1f, "image")));
    }

    [Test]
    public void Untrusted_text_stays_text()
    {
        var answers = ReportSample.Answers(2, ("dataset", "all", "prefill")).ConvertAll(a => a with
        {
            Dataset = a.Dataset + Hostile, Category = Hostile, Prompt = Hostile, Text = Hostile + a.Text + "\uD800", Image = Hostile, Verdicts = new Dictionary<string, string> { [Hostile] = Hostile },
            Layers = a.Layers + Hostile, Condition = a.Condition + Hostile,
        });
        var page = Write(ReportSample.Input(answers) with { Model = Hostile, Fingerprint = Hostile, Vectors = Hostile, Method = Hostile, Date = Hostile, Command = Hostile, Facts = [new(Hostile, Hostile)], Methods = [Hostile],
            States = [.. ReportSample.States(3, 2, 4).Select(s => s with { Group = s.Group + Hostile })] });
        var text = File.ReadAllText(_path);
        Assert.That(Regex.Count(text, "<script"), Is.EqualTo(2));
        Assert.That(Regex.Count(text, "</script"), Is.EqualTo(2));
        Assert.That(text, Does.Not.Contain("<svg onload").And.Not.Contain("\u0001").And.Not.Contain("<!-- "));
        Assert.That(page.Descendants("h1").Single().Value, Is.EqualTo(Hostile.Replace('\u0001', '\uFFFD').Replace('\u007F', '\uFFFD')));
        var json = Block("application/json");
        Assert.That(json, Does.Not.Contain("<").And.Not.Contain(">").And.Not.Contain("\u2028").And.Not.Contain("\u2029"));
        using var data = Data();
        Assert.That(Strings(data, "texts"), Has.Some.EqualTo(Hostile));
        Assert.That(Strings(data, "texts"), Has.Some.EndsWith("\uFFFD"));
    }

    [Test]
    public void The_page_asks_nothing_of_the_network_and_its_policy_says_so()
    {
        var page = Write(ReportSample.Input(ReportSample.Answers(3, ("dataset", "all", "prefill"))));
        var text = File.ReadAllText(_path);
        Assert.That(page.Descendants().Attributes().Where(a => a.Name == "src" || a.Name == "href").Select(a => a.Value), Is.All.StartsWith("#"));
        Assert.That(page.Descendants().Select(e => e.Name.LocalName), Has.None.AnyOf("link", "img", "iframe", "object", "embed", "base"));
        Assert.That(text, Does.Not.Contain("@import").And.Not.Contain("url(").And.Not.Contain("http://").And.Not.Contain("https://"));
        Assert.That(page.Descendants().Attributes().Select(a => a.Name.LocalName), Has.None.StartsWith("on").And.None.EqualTo("style"));
        var policy = page.Descendants("meta").Single(m => m.Attribute("http-equiv") is not null).Attribute("content")!.Value;
        Assert.That(policy, Does.Contain("default-src 'none'"));
        foreach (var block in (string[])[Regex.Match(text, "<style>(.*?)</style>", RegexOptions.Singleline).Groups[1].Value, Regex.Match(text, "<script>(.*?)</script>", RegexOptions.Singleline).Groups[1].Value])
            Assert.That(policy, Does.Contain(Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(block)))));
    }

    [Test]
    public void Charts_have_titles_labels_have_targets_and_ids_are_unique()
    {
        var page = Write(ReportSample.Input(ReportSample.Answers(6, ("dataset", "all", "prefill"), ("dataset", "4", "prefill"))));
        var ids = page.Descendants().Attributes("id").Select(a => a.Value).ToArray();
        Assert.That(ids, Is.Unique);
        var charts = page.Descendants("svg").Where(s => (string?)s.Attribute("class") == "chart").ToArray();
        Assert.That(charts, Has.Length.GreaterThan(15));
        foreach (var chart in charts)
        {
            Assert.That(chart.Attribute("aria-labelledby")!.Value.Split(' '), Is.SubsetOf(ids));
            Assert.That(chart.Elements().Take(2).Select(e => e.Name.LocalName), Is.EqualTo(new[] { "title", "desc" }));
            Assert.That(chart.Element("desc")!.Value, Is.Not.Empty);
        }
        Assert.That(page.Descendants("a").Select(a => a.Attribute("href")!.Value[1..]).Distinct(), Is.SubsetOf(ids));
        Assert.That(page.Descendants("section").Select(s => s.Attribute("aria-labelledby")!.Value), Is.SubsetOf(ids));
        Assert.That(page.Descendants("th").Where(t => t.Attribute("scope") is null), Is.Empty);
        Assert.That(page.Descendants("input").Concat(page.Descendants("select")).Where(e => e.Parent!.Name != "label"), Is.Empty);
    }

    [Test]
    public void Drawings_stay_inside_their_frames()
    {
        var page = Write(ReportSample.Input(ReportSample.Answers(6, ("dataset", "all", "prefill"))) with
        {
            Shift = [new(1, 1e-9, -3, 4), new(2, double.NaN, double.PositiveInfinity, 0), new(3, 1e30, -2e30, 5)],
        });
        var text = File.ReadAllText(_path);
        Assert.That(Regex.Count(text, @"\sd=""[^""]*(NaN|Infinity|∞|E[+-])"), Is.Zero);
        foreach (var chart in page.Descendants("svg").Where(s => (string?)s.Attribute("class") == "chart"))
        {
            var height = double.Parse(chart.Attribute("viewBox")!.Value.Split(' ')[3], CultureInfo.InvariantCulture);
            foreach (Match move in chart.Descendants("path").SelectMany(p => Regex.Matches(p.Attribute("d")!.Value, @"[ML](-?[\d.]+) (-?[\d.]+)")))
            {
                Assert.That(double.Parse(move.Groups[1].Value, CultureInfo.InvariantCulture), Is.InRange(0, 400));
                Assert.That(double.Parse(move.Groups[2].Value, CultureInfo.InvariantCulture), Is.InRange(-1, height));
            }
        }
    }

    [Test]
    public void An_evaluation_without_answers_or_steering_has_a_page_too()
    {
        Write(ReportSample.Input([]) with { States = [], Shift = [], Command = null, Summary = new() });
        var page = Write(ReportSample.Input([.. ReportSample.Answers(3, ("dataset", "all", "prefill")).Where(a => a.Alpha == 0)]));
        Assert.That(page.Descendants("section").Select(s => s.Attribute("id")!.Value), Has.None.EqualTo("alpha").And.Some.EqualTo("key"));
        page = Write(ReportSample.Input([.. ReportSample.Answers(3, ("dataset", "all", "prefill")).Select(a => a with { Refused = null, Unsafe = null, Correct = null })]));
        Assert.That(page.Descendants().Count(e => (string?)e.Attribute("class") == "tile"), Is.Zero, "nothing was judged");
    }

    [Test]
    public void States_that_are_not_finite_are_left_out_and_said_to_be()
    {
        var states = ReportSample.States(5, 2, 6).ToArray();
        states[3].States[7] = float.NaN;
        var page = Write(ReportSample.Input([]) with { Summary = new(), States = states });
        Assert.That(page.Descendants("p").Select(p => p.Value), Has.Some.StartsWith("1 samples hold values that are not finite"));
        Assert.That(page.Descendants("figure").Count(f => (string?)f.Attribute("class") == "plane"), Is.EqualTo(2));
        foreach (var one in states)
            one.States.AsSpan().Fill(float.PositiveInfinity);
        Write(ReportSample.Input([]) with { Summary = new(), States = states });
    }

    [Test]
    public void A_page_that_cannot_be_made_leaves_the_old_one()
    {
        File.WriteAllText(_path, "old");
        var input = ReportSample.Input([]);
        Assert.That(() => Report.WriteHtml(_path, input with { States = [new() { Group = "text", Layers = 3, States = new float[4] }] }), Throws.ArgumentException);
        Assert.That(() => Report.WriteHtml(_path, input with { States = [new() { Group = "text", Layers = 2, States = new float[4] }, new() { Group = "text", Layers = 2, States = new float[8] }] }), Throws.ArgumentException);
        Assert.That(() => Report.WriteHtml(_path, input with { Summary = null! }), Throws.Exception);
        Assert.That(File.ReadAllText(_path), Is.EqualTo("old"));
        Assert.That(Directory.GetFiles(Path.GetDirectoryName(_path)!), Has.Length.EqualTo(1));
    }

    [Test]
    public void Colours_can_be_told_from_the_page_in_light_and_dark()
    {
        using var stream = typeof(Report).Assembly.GetManifestResourceStream("Trimtab.Evaluation.Report.report.css")!;
        var blocks = Regex.Matches(new StreamReader(stream).ReadToEnd(), @":root \{(.*?)\}", RegexOptions.Singleline).Select(m => m.Groups[1].Value).ToArray();
        Assert.That(blocks, Has.Length.EqualTo(3), "light, dark, print");
        foreach (var block in blocks)
        {
            var colours = Regex.Matches(block, @"--([\w-]+): (#[0-9a-f]{3,6});").ToDictionary(m => m.Groups[1].Value, m => Luminance(m.Groups[2].Value));
            foreach (var text in (string[])["ink", "soft", "accent"])
                Assert.That(Contrast(colours[text], colours["page"]), Is.GreaterThan(4.5), text);
            Assert.That(Contrast(colours["soft"], colours["panel"]), Is.GreaterThan(4.5));
            foreach (var badge in (string[])["bad", "good", "info"])
                Assert.That(Contrast(colours[badge], colours[badge + "-back"]), Is.GreaterThan(4.5), badge);
            foreach (var mark in colours.Keys.Where(k => Regex.IsMatch(k, @"^c\d$|steered")))
                Assert.That(Contrast(colours[mark], colours["page"]), Is.GreaterThan(3), mark);
        }

        static double Contrast(double a, double b) => (Math.Max(a, b) + 0.05) / (Math.Min(a, b) + 0.05);

        // WCAG 2.1, relative luminance.
        static double Luminance(string colour)
        {
            var hex = colour.Length == 4 ? string.Concat(colour[1..].Select(c => $"{c}{c}")) : colour[1..];
            var parts = Convert.FromHexString(hex).Select(b => b / 255.0).Select(v => v <= 0.03928 ? v / 12.92 : Math.Pow((v + 0.055) / 1.055, 2.4)).ToArray();
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        }
    }

    private XDocument Write(ReportInput input)
    {
        Report.WriteHtml(_path, input);
        // The page is written so that it is XML too, but for its style sheet and its script: nothing is left open.
        var text = Regex.Replace(File.ReadAllText(_path), "<(style|script)>.*?</\\1>", "", RegexOptions.Singleline);
        using var reader = XmlReader.Create(new StringReader(text), new XmlReaderSettings { DtdProcessing = DtdProcessing.Ignore });
        return XDocument.Load(reader, LoadOptions.PreserveWhitespace);
    }

    private string Block(string type) => Regex.Match(File.ReadAllText(_path), $"<script type=\"{type}\"[^>]*>(.*?)</script>", RegexOptions.Singleline).Groups[1].Value;

    private JsonDocument Data() => JsonDocument.Parse(Block("application/json"));

    private static string[] Strings(JsonDocument data, string name) => [.. data.RootElement.GetProperty(name).EnumerateArray().Select(e => e.GetString()!)];

    private static bool? Given(JsonElement answer, string name) => answer.TryGetProperty(name, out var value) ? value.GetBoolean() : null;

    private static IEnumerable<XElement> Rows(XDocument page, string table)
        => page.Descendants("table").Single(t => (string?)t.Attribute("id") == table).Element("tbody")!.Elements("tr");

    private static XElement[] Cells(XElement row) => [.. row.Elements()];

    private static string Cell(XElement row, int index) => Cells(row)[index].Value;
}
