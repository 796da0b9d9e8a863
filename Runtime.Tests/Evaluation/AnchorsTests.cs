using Trimtab.Evaluation;
using Trimtab.Tests.Checkpoints;

namespace Trimtab.Tests.Evaluation;

public class AnchorsTests
{
    private CheckpointFiles _files = null!;

    [SetUp]
    public void Make() => _files = new();

    [TearDown]
    public void Remove() => _files.Dispose();

    [Test]
    public void A_line_is_a_prompt_and_blank_lines_are_none()
        => Assert.That(Anchors.Read(_files.Text("a.txt", "\uFEFFone\r\n\n  two \n \t\nthrée {\n")), Is.EqualTo(new[] { "one", "  two ", "thrée {" }));

    [Test]
    public void Json_lines_are_read_by_their_fields()
    {
        var path = _files.Text("a.txt", """
            {"id": 3, "prompt": "one\ntwo"}

            {"question": "q", "text": "t"}
            {"text": "t", "instruction": 5}
            {"instruction": "i"}
            """);
        Assert.That(Anchors.Read(path), Is.EqualTo(new[] { "one\ntwo", "q", "t", "i" }));
        Assert.That(Anchors.Read(path, limit: 2), Has.Count.EqualTo(2));
        Assert.That(Anchors.Read(_files.Text("b.jsonl", "{\"goal\": \"g\", \"prompt\": \"p\"}"), "goal"), Is.EqualTo(new[] { "g" }));
        Assert.That(Anchors.Read(_files.Text("c.txt", "{curly} is a plain line\n{\"prompt\": 1}")), Has.Count.EqualTo(2));
    }

    [Test]
    public void The_limit_reads_no_further() => Assert.That(Anchors.Read(_files.Text("a.jsonl", "{\"prompt\": \"p\"}\nbroken"), limit: 1), Has.Count.EqualTo(1));

    [TestCase("{\"prompt\": \"p\"}\n{oops", null, "line 2")]
    [TestCase("{\"prompt\": \"p\"}\n\n[1]", null, "line 3")]
    [TestCase("{\"other\": \"p\"}", null, "'question'")]
    [TestCase("{\"prompt\": \"p\"}", "goal", "'goal'")]
    [TestCase("{\"prompt\": 5}", null, "'prompt'")]
    [TestCase("{\"prompt\": \"  \"}", null, "'prompt'")]
    [TestCase("{\"prompt\": \"\\ud800\"}", null, "'prompt'")]
    [TestCase("\n \n", null, "no prompt")]
    [TestCase("", null, "no prompt")]
    public void Bad_files_are_refused_by_line(string content, string? field, string named)
    {
        var path = _files.Text("a.jsonl", content);
        Assert.That(() => Anchors.Read(path, field), Throws.TypeOf<InvalidDataException>().With.Message.Contains(named).And.Message.StartsWith(path));
    }

    [Test]
    public void What_is_no_text_is_refused()
    {
        Assert.That(() => Anchors.Read(_files.Bytes("a.txt", [0xFF, 0xFE, 0x41])), Throws.TypeOf<InvalidDataException>().With.Message.Contains("UTF-8"));
        Assert.That(() => Anchors.Read(_files.Folder), Throws.TypeOf<InvalidDataException>().With.Message.Contains("folder"));
        Assert.That(() => Anchors.Read(_files.At("none.txt")), Throws.InstanceOf<IOException>());
    }

    [Test]
    public void The_hash_tells_prompts_apart()
    {
        Assert.That(Anchors.Hash(Anchors.Read(_files.Text("a.txt", "a\n\nb"))), Is.EqualTo(Anchors.Hash(["a", "b"])).And.Length.EqualTo(64));
        Assert.That(new[] { Anchors.Hash(["ab"]), Anchors.Hash(["a", "b"]), Anchors.Hash(["b", "a"]), Anchors.Hash(["a", "b", ""]) }, Is.Unique);
    }
}
