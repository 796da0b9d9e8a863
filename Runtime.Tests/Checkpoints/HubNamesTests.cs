using Trimtab.Checkpoints;

namespace Trimtab.Tests.Checkpoints;

/// <summary>Names, patterns and the environment.</summary>
public class HubNamesTests
{
    [TestCase("*.gguf", "a.gguf", true)]
    [TestCase("*.gguf", "sub/a.gguf", true)]
    [TestCase("*.gguf", "a.gguf2", false)]
    [TestCase("a*b*c", "aXbYbZc", true)]
    [TestCase("a*b*c", "aXbYbZ", false)]
    [TestCase("?.json", "a.json", true)]
    [TestCase("?.json", ".json", false)]
    [TestCase("q[4-6]*", "q5_k", true)]
    [TestCase("q[!4-6]*", "q5_k", false)]
    [TestCase("q[!4-6]*", "q8_0", true)]
    [TestCase("a[]]b", "a]b", true)]
    [TestCase("a[b", "a[b", true)]
    [TestCase("a[-]b", "a-b", true)]
    [TestCase("sub/", "sub/deep/a.json", true)]
    [TestCase("", "a", false)]
    [TestCase("**", "", true)]
    [TestCase("*.GGUF", "a.gguf", false)]
    public void Patterns_match_as_fnmatch_does(string pattern, string name, bool matches) => Assert.That(HubNames.Matches(pattern, name), Is.EqualTo(matches));

    [Test, CancelAfter(5000)]
    public void Patterns_full_of_stars_take_no_time()
        => Assert.That(HubNames.Matches(string.Concat(Enumerable.Repeat("*a", 200)) + "b", new string('a', 1000)), Is.False);

    [TestCase("llava-hf/llava-1.5-7b-hf", true)]
    [TestCase("a/b", true)]
    [TestCase("A_1/b.c-d", true)]
    [TestCase("name", false)]
    [TestCase("a/b/c", false)]
    [TestCase("./b", false)]
    [TestCase("../b", false)]
    [TestCase("a/..", false)]
    [TestCase("a/b--c", false)]
    [TestCase("a/b..c", false)]
    [TestCase("a/b.git", false)]
    [TestCase("-a/b", false)]
    [TestCase("/b", false)]
    [TestCase("a/", false)]
    [TestCase("a/b c", false)]
    [TestCase("a/ü", false)]
    [TestCase("", false)]
    public void Repositories_are_named_by_the_hubs_rules(string name, bool valid) => Assert.That(HubCache.IsName(name), Is.EqualTo(valid));

    [TestCase("model-00001-of-00002.safetensors", true)]
    [TestCase("model.safetensors.index.json", true)]
    [TestCase("a/b.GGUF", true)]
    [TestCase("chat_template.jinja", true)]
    [TestCase("merges.txt", true)]
    [TestCase("vocab.txt", true)]
    [TestCase("tokenizer.model", true)]
    [TestCase("README.md", true)]
    [TestCase("LICENSE", true)]
    [TestCase("LICENSE.txt", true)]
    [TestCase("pytorch_model.bin", false)]
    [TestCase("consolidated.00.pth", false)]
    [TestCase("readme.pt", false)]
    [TestCase("x.pt", false)]
    [TestCase("x.json.pkl", false)]
    [TestCase("requirements.txt", false)]
    [TestCase("modeling_x.py", false)]
    [TestCase("image.png", false)]
    [TestCase(".gitattributes", false)]
    public void Files_of_a_model_are_fetched_and_code_is_not(string name, bool fetched) => Assert.That(HubNames.IsFetched(name), Is.EqualTo(fetched));

    [Test]
    public void The_environment_is_read_as_the_hubs_own_tools_read_it()
    {
        var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        Assert.Multiple(() =>
        {
            Assert.That(Read().Cache, Is.EqualTo(Path.Combine(home, ".cache", "huggingface", "hub")));
            Assert.That(Read().Endpoint, Is.EqualTo(new Uri("https://huggingface.co")));
            Assert.That(Read("XDG_CACHE_HOME=/x").Cache, Is.EqualTo(Path.GetFullPath("/x/huggingface/hub")));
            Assert.That(Read("XDG_CACHE_HOME=/x", "HF_HOME=~/h").Cache, Is.EqualTo(Path.Combine(home, "h", "hub")));
            Assert.That(Read("HF_HOME=/h", "HUGGINGFACE_HUB_CACHE=/c").Cache, Is.EqualTo(Path.GetFullPath("/c")));
            Assert.That(Read("HUGGINGFACE_HUB_CACHE=/c", "HF_HUB_CACHE=/d", "HF_HOME=").Cache, Is.EqualTo(Path.GetFullPath("/d")));
            Assert.That(Read("HF_ENDPOINT=http://127.0.0.1:8/hf/").Endpoint, Is.EqualTo(new Uri("http://127.0.0.1:8/hf")));
            Assert.That(Read("HF_HUB_OFFLINE=1").Offline, Is.True);
            Assert.That(Read("HF_HUB_OFFLINE=0").Offline, Is.False);
            Assert.That(Read("HF_HUB_DOWNLOAD_TIMEOUT=7").Timeout, Is.EqualTo(TimeSpan.FromSeconds(7)));
            Assert.That(Read("HF_TOKEN= a ", "HUGGING_FACE_HUB_TOKEN=b").Token, Is.EqualTo("a"));
            Assert.That(Read("HF_TOKEN= ", "HUGGING_FACE_HUB_TOKEN=b").Token, Is.EqualTo("b"));
            Assert.That(Read("HF_TOKEN=a", "HF_HUB_DISABLE_IMPLICIT_TOKEN=1").Token, Is.Null);
            Assert.That(Read("HF_TOKEN=hf_secret").ToString(), Does.Not.Contain("hf_secret"));
            Assert.That(() => Read("HF_ENDPOINT=ftp://x"), Throws.TypeOf<HubException>().With.Message.Contains("HF_ENDPOINT"));
            Assert.That(() => Read("HF_TOKEN=a\nX-Evil: 1"), Throws.TypeOf<HubException>().With.Message.Contains("HF_TOKEN").And.Message.Not.Contains("Evil"));
        });
    }

    [Test]
    public void The_token_is_read_from_its_file()
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-hub-").FullName;
        File.WriteAllText(Path.Combine(folder, "token"), "hf_file\n");
        Assert.That(Read($"HF_HOME={folder}").Token, Is.EqualTo("hf_file"));
        Assert.That(Read($"HF_TOKEN_PATH={folder}/token").Token, Is.EqualTo("hf_file"));
        Assert.That(Read($"HF_TOKEN_PATH={folder}/none").Token, Is.Null);
        Assert.That(() => HubOptions.ReadToken(Path.Combine(folder, "none")), Throws.TypeOf<HubException>().With.Message.Contains("none"));
        Directory.Delete(folder, true);
    }

    // Without HF_HOME the token of whoever runs the tests would be read.
    private static HubOptions Read(params string[] variables)
    {
        var set = variables.Select(v => v.Split('=', 2)).ToDictionary(v => v[0], v => v[1]);
        if (!variables.Any(v => v.StartsWith("HF_HOME", StringComparison.Ordinal)))
            set.TryAdd("HF_TOKEN_PATH", "/nowhere/token");
        return HubOptions.FromEnvironment(name => set.GetValueOrDefault(name));
    }
}
