using Trimtab.Bench;

namespace Trimtab.Tests.Server;

/// <summary>Runtime.Bench's compare mode.</summary>
public class ResultComparisonTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Create() => _folder = Directory.CreateTempSubdirectory("trimtab-compare-").FullName;

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string Write(string name, string json)
    {
        var path = Path.Combine(_folder, name);
        File.WriteAllText(path, json);
        return path;
    }

    private static string Compare(string before, string after)
    {
        using var output = new StringWriter();
        ResultComparison.Print(before, after, output);
        return output.ToString();
    }

    [Test]
    public void Kernels_are_compared_by_speed()
    {
        var before = Write("a.json", """{ "machine": { "cpu": "X" }, "kernels": [ { "name": "one", "median_us": 10 }, { "name": "two", "median_us": 10 }, { "name": "gone", "median_us": 1 } ] }""");
        var after = Write("b.json", """{ "machine": { "cpu": "Y" }, "kernels": [ { "name": "one", "median_us": 5 }, { "name": "two", "median_us": 20 } ] }""");
        var lines = Compare(before, after).Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        Assert.That(lines, Has.Length.EqualTo(6));
        Assert.Multiple(() =>
        {
            Assert.That(lines[0], Does.Contain("X / Y"));
            Assert.That(lines[2], Does.StartWith("two").And.EndsWith("0.500"));
            Assert.That(lines[3], Does.StartWith("one").And.EndsWith("2.000"));
            Assert.That(lines[4], Does.Contain("2 in common").And.Contain("median ratio 1.250").And.EndsWith("1.000"));
            Assert.That(lines[5], Does.StartWith("1 only in " + before));
        });
    }

    [Test]
    public void Whole_models_are_compared_by_rate()
    {
        static string Json(double rate) => $$"""
            { "machine": { "cpu": "X" }, "results": [ { "test": "decode", "tokens": 64, "batch": 8, "depth": 0, "steered": 0, "tokens_per_second": {{rate}} } ] }
            """;
        Assert.That(Compare(Write("c.json", Json(10)), Write("d.json", Json(12))), Does.Contain("decode 64, batch 8").And.Contain("1.200"));
    }

    [TestCase("nonsense")]
    [TestCase("{}")]
    [TestCase("""{ "machine": { "cpu": "X" }, "kernels": [ { "name": "one", "median_us": 0 } ] }""")]
    [TestCase("""{ "machine": { "cpu": "X" }, "kernels": [ { "name": "other", "median_us": 1 } ] }""")]
    public void Files_that_cannot_be_compared_are_refused(string json)
    {
        var good = Write("good.json", """{ "machine": { "cpu": "X" }, "kernels": [ { "name": "one", "median_us": 10 } ] }""");
        Assert.That(() => Compare(good, Write("bad.json", json)), Throws.TypeOf<InvalidDataException>().With.Message.Contains("bad.json"));
    }
}
