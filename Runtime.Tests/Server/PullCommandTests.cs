using Trimtab.Server;
using Trimtab.Tests.Checkpoints;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Server;

/// <summary>pull as a person or a script meets it.</summary>
[NonParallelizable]
public class PullCommandTests
{
    private static readonly string[] Names =
        ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

    private Dictionary<string, string?> _before = null!;
    private string _folder = null!;
    private HubServer _server = null!;

    [SetUp]
    public void Start()
    {
        _before = Names.ToDictionary(name => name, Environment.GetEnvironmentVariable);
        foreach (var name in Names)
            Environment.SetEnvironmentVariable(name, null);
        _folder = Directory.CreateTempSubdirectory("trimtab-pull-").FullName;
        _server = new();
        Environment.SetEnvironmentVariable("HF_HOME", _folder);
        Environment.SetEnvironmentVariable("HF_ENDPOINT", _server.Endpoint.ToString());
        var model = TinyModel.WriteLlava(Path.Combine(_folder, "llava"));
        foreach (var file in Directory.GetFiles(model))
            _server.Files[Path.GetFileName(file)] = File.ReadAllBytes(file);
        _server.Files["pytorch_model.bin"] = [1, 2, 3];
    }

    [TearDown]
    public void Stop()
    {
        _server.Dispose();
        foreach (var (name, value) in _before)
            Environment.SetEnvironmentVariable(name, value);
        Directory.Delete(_folder, true);
    }

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(args, output, error, TextReader.Null).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    [Test]
    public void Prints_the_folder_of_a_model_that_runs_by_folder_and_by_name()
    {
        var (code, output, error) = Run("pull", "org/name");
        Assert.That(code, Is.Zero, error);
        Assert.That(error, Does.StartWith("trimtab: skipped 'pytorch_model.bin'"));
        Assert.That(output.TrimEnd(), Is.EqualTo(Path.Combine(_folder, "hub", "models--org--name", "snapshots", HubServer.Commit)));
        var answers = new[] { output.TrimEnd(), "org/name", Path.Combine(_folder, "llava") }
            .Select(model => Run("generate", "-m", model, "-p", "in the rain", "-n", "4", "--ignore-eos")).ToArray();
        Assert.That(answers.Select(a => a.Code), Has.All.Zero, answers[1].Error);
        Assert.That(answers.Select(a => a.Output).Distinct().Count(), Is.EqualTo(1));
        Assert.That(Run("tokenize", "-m", "org/name", "the").Code, Is.Zero);
        Assert.That(Run("inspect", "org/name").Output, Does.Contain("LlavaForConditionalGeneration"));
    }

    [Test]
    public void A_path_that_exists_wins_over_a_name_in_the_cache()
    {
        Assert.That(Run("pull", "org/name").Code, Is.Zero);
        var here = Directory.GetCurrentDirectory();
        try
        {
            Directory.SetCurrentDirectory(_folder);
            Directory.CreateDirectory("org/name");
            Assert.That(Run("inspect", "org/name").Error, Does.Contain("config.json"));
        }
        finally
        {
            Directory.SetCurrentDirectory(here);
        }
    }

    [Test]
    public void Options_reach_the_hub()
    {
        File.WriteAllText(Path.Combine(_folder, "my-token"), "hf_mine\n");
        var target = Path.Combine(_folder, "plain");
        var (code, output, error) = Run("pull", "--dir", target, "--token-file", Path.Combine(_folder, "my-token"), "--revision", HubServer.Commit, "--file", "*.json", "config*", "org/name");
        Assert.That(code, Is.Zero, error);
        Assert.That(output.TrimEnd(), Is.EqualTo(target));
        Assert.That(Directory.GetFiles(target).Select(Path.GetExtension).Distinct(), Is.EqualTo(new[] { ".json" }));
        Assert.That(_server.Requests.Select(r => r.Authorization), Has.All.EqualTo("Bearer hf_mine"));
    }

    [Test]
    public void Offline_the_cache_answers()
    {
        Assert.That(Run("pull", "org/name").Code, Is.Zero);
        _server.Dispose();
        Environment.SetEnvironmentVariable("HF_HUB_OFFLINE", "1");
        Assert.That(Run("pull", "org/name").Output, Does.Contain(HubServer.Commit));
        Assert.That(Run("pull", "org/other").Error, Does.Contain("HF_HUB_OFFLINE").And.Contain("org/other"));
    }

    [TestCase("pull", 2, "ORG/NAME")]
    [TestCase("pull --file *.json", 2, "ORG/NAME")]
    [TestCase("pull name", 2, "ORG/NAME")]
    [TestCase("pull ../name", 2, "ORG/NAME")]
    [TestCase("pull org/name --revision v9", 1, "v9")]
    [TestCase("pull org/name --file *.gguf", 1, "*.gguf")]
    [TestCase("pull org/nothing", 1, "org/nothing")]
    [TestCase("pull org/name --token-file none", 1, "none")]
    [TestCase("inspect org/nothing", 1, "pull")]
    public void Mistakes_get_one_line_and_a_code(string line, int code, string named)
    {
        var result = Run(line.Split(' '));
        Assert.That(result.Code, Is.EqualTo(code), result.Error);
        Assert.That(result.Error, Does.StartWith("trimtab: ").And.Contain(named));
        Assert.That(result.Error.TrimEnd().Split('\n'), Has.Length.EqualTo(1));
        Assert.That(result.Output, Is.Empty);
    }
}
