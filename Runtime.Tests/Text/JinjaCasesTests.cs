using System.Text.Json;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

/// <summary>jinja-cases.json: our templates and what Jinja2 itself makes of them (jinja-cases.py writes it).</summary>
public class JinjaCasesTests
{
    private sealed class Clock(DateTimeOffset now) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => now;

        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;
    }

    private static string Find()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (Path.Combine(folder.FullName, "Text", "jinja-cases.json") is var path && File.Exists(path))
                return path;
        throw new FileNotFoundException("jinja-cases.json lies in Runtime.Tests/Text");
    }

    [Test]
    public void Every_case_renders_as_Jinja_renders_it()
    {
        using var json = JsonDocument.Parse(File.ReadAllBytes(Find()));
        var root = json.RootElement;
        var variables = root.GetProperty("context").EnumerateObject().Where(v => v.Name != "messages").ToDictionary(v => v.Name, v => (object?)v.Value);
        var options = new ChatTemplateOptions { Clock = new Clock(DateTimeOffset.Parse(root.GetProperty("clock").GetString() + "Z")) };
        var messages = root.GetProperty("context").GetProperty("messages");
        var wrong = new List<string>();
        var count = 0;
        foreach (var c in root.GetProperty("cases").EnumerateArray())
        {
            count++;
            var template = c[0].GetString()!;
            var expected = c[1].GetString() ?? "! " + c[2].GetString();
            string actual;
            try
            {
                actual = ChatTemplate.Parse(template, "case", options).Render(messages, false, variables);
            }
            catch (ChatTemplateException error)
            {
                actual = "! " + error.Reason;
            }
            if (expected.StartsWith("! ", StringComparison.Ordinal) ? !actual.StartsWith("! ", StringComparison.Ordinal) : actual != expected)
                wrong.Add($"{JsonSerializer.Serialize(template)}\n  expected {JsonSerializer.Serialize(expected)}\n  but was  {JsonSerializer.Serialize(actual)}");
        }
        Assert.That(count, Is.GreaterThan(2000));
        Assert.That(wrong, Is.Empty, $"{wrong.Count} of {count}:\n" + string.Join('\n', wrong.Take(400)));
    }
}
