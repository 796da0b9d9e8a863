using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Unicode;

namespace Trimtab.Evaluation;

/// <summary>The answers themselves: data for the page's script, and the controls that search it.</summary>
internal static class ReportAnswers
{
    /// <summary>The filters and the place where the script puts the questions it finds.</summary>
    public static void Section(ReportHtml html)
    {
        html.Write($"""
            <p class="lead">The same question under every condition and strength, side by side. What models say is shown as they said it: it can be offensive, wrong or harmful.</p>
            <noscript><p>The answers are shown by a script; without it, read answers.jsonl beside this page.</p></noscript>
            <form id="filters" hidden="hidden" aria-label="Filter the answers">
            <label class="field search"><span>Search in questions, answers and ids</span><input type="search" id="search" autocomplete="off" spellcheck="false"/></label>
            <label class="field"><span>Data set</span><select id="pick-dataset"><option value="">all</option></select></label>
            <label class="field"><span>Category</span><select id="pick-category"><option value="">all</option></select></label>
            <label class="field"><span>Outcome, in what is shown</span><select id="pick-outcome"><option value="">any</option><option value="changed">steering changes the verdict</option><option value="unsafe">unsafe</option><option value="refused">refused</option><option value="wrong">wrong</option><option value="right">right</option><option value="unjudged">not judged</option></select></label>
            <fieldset id="pick-condition"><legend>Conditions</legend></fieldset>
            <fieldset id="pick-column"><legend>Steering</legend></fieldset>
            </form>
            <div class="pager"><output></output><button type="button" data-step="-1">Previous</button><button type="button" data-step="1">Next</button></div>
            <div id="questions"></div>
            <div class="pager"><output aria-live="off"></output><button type="button" data-step="-1">Previous</button><button type="button" data-step="1">Next</button></div>
            """);
    }

    /// <summary>
    /// Writes the answers as JSON, question by question. Texts stand once, in "texts", and are named by their place there: the
    /// same refusal a thousand times costs little. No "&lt;" is left in it, so no text can end the element that it stands in.
    /// </summary>
    public static void WriteData(Stream stream, ReportView view, IReadOnlyList<Answer> answers)
    {
        var texts = new Dictionary<string, int>();
        var datasets = answers.Select(a => a.Dataset).Distinct().ToList();
        var conditions = view.Conditions.Concat(answers.Select(a => a.Condition)).Distinct().ToList();
        var columns = answers.Select(Column).Distinct().OrderBy(c => c.Setting is null ? -1 : Place(c.Setting)).ThenBy(c => c.Alpha).ToList();
        var columnOf = columns.Select((c, i) => (c, i)).ToDictionary(p => p.c, p => p.i);
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Encoder = JavaScriptEncoder.Create(UnicodeRanges.All), SkipValidation = false });
        json.WriteStartObject();
        Strings("datasets", datasets);
        Strings("conditions", conditions);
        json.WriteStartArray("columns");
        foreach (var (setting, alpha) in columns)
        {
            json.WriteStartObject();
            json.WriteString("label", Wellformed(view.Describe(setting, alpha)));
            json.WriteString("setting", Wellformed(setting is null ? "" : view.Describe(setting)));
            json.WriteBoolean("shown", setting is null || setting == view.Main && alpha == view.Alpha);
            json.WriteString("level", Wellformed(setting?.Level ?? "none"));
            json.WriteNumber("alpha", alpha);
            json.WriteString("layers", Wellformed(setting?.Layers ?? "all"));
            json.WriteString("scope", Wellformed(setting?.Scope ?? "all"));
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteStartArray("questions");
        foreach (var question in answers.GroupBy(a => (a.Dataset, a.Id)))
        {
            var first = question.First();
            var image = question.FirstOrDefault(a => a.Condition == "image" && a.Image is not null)?.Image;
            json.WriteStartObject();
            json.WriteNumber("dataset", datasets.IndexOf(first.Dataset));
            json.WriteString("id", Wellformed(first.Id));
            Optional("category", question.Select(a => a.Category).FirstOrDefault(c => c is not null));
            json.WriteNumber("prompt", Text(first.Prompt));
            Optional("image", image);
            Optional("kind", first.Kind);
            Optional("expected", first.Expected);
            json.WriteStartArray("answers");
            foreach (var answer in question)
            {
                json.WriteStartObject();
                json.WriteNumber("condition", conditions.IndexOf(answer.Condition));
                json.WriteNumber("column", columnOf[Column(answer)]);
                json.WriteNumber("text", Text(answer.Text));
                Verdict("refused", answer.Refused);
                Verdict("unsafe", answer.Unsafe);
                Verdict("effective", answer.Effective);
                Verdict("correct", answer.Correct);
                if (answer.Prompt != first.Prompt)
                    json.WriteNumber("prompt", Text(answer.Prompt));
                if (answer.Image != image)
                    Optional("image", answer.Image);
                if (answer.Finish == "length")
                    json.WriteBoolean("cut", true);
                if (answer.Verdicts.Count > 0)
                {
                    json.WriteStartObject("verdicts");
                    foreach (var (judge, verdict) in answer.Verdicts)
                        json.WriteString(Wellformed(judge), Wellformed(verdict));
                    json.WriteEndObject();
                }
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
        json.WriteEndArray();
        Strings("texts", texts.Keys);
        json.WriteEndObject();

        int Text(string text)
        {
            if (!texts.TryGetValue(text, out var index))
                texts.Add(text, index = texts.Count);
            return index;
        }

        void Strings(string name, IEnumerable<string> values)
        {
            json.WriteStartArray(name);
            foreach (var value in values)
                json.WriteStringValue(Wellformed(value));
            json.WriteEndArray();
        }

        void Optional(string name, string? value)
        {
            if (value is not null)
                json.WriteString(name, Wellformed(value));
        }

        void Verdict(string name, bool? value)
        {
            if (value is { } given)
                json.WriteBoolean(name, given);
        }

        int Place(ReportSetting setting)
        {
            for (var i = 0; i < view.Settings.Count; i++)
                if (view.Settings[i] == setting)
                    return i;
            return view.Settings.Count;
        }
    }

    private static (ReportSetting? Setting, float Alpha) Column(Answer answer)
        => answer.Alpha == 0 || answer.Level == "none" ? (null, 0) : (new(answer.Level, answer.Layers, answer.Scope), answer.Alpha);

    // A lone surrogate is no text that JSON could hold.
    private static string Wellformed(string text)
    {
        for (var i = 0; i < text.Length; i++)
            if (char.IsSurrogate(text[i]))
                return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text));
        return text;
    }
}
