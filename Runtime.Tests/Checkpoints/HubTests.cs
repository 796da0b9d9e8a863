using System.Net;
using System.Text;
using Trimtab.Checkpoints;

namespace Trimtab.Tests.Checkpoints;

/// <summary>Fetching from a hub that works: the cache's layout, which files, folders, the cache alone, several at once.</summary>
public class HubTests
{
    private string _cache = null!;
    private HubServer _server = null!;
    private HubOptions _options = null!;

    [SetUp]
    public void Start()
    {
        _cache = Directory.CreateTempSubdirectory("trimtab-hub-").FullName;
        _server = new();
        _options = new() { Cache = _cache, Endpoint = _server.Endpoint, Token = "hf_secret", RetryDelay = TimeSpan.FromMilliseconds(1) };
        _server.Files["config.json"] = Encoding.UTF8.GetBytes("{}");
        _server.Files["model.safetensors"] = Noise(300_000);
        _server.Files["sub/a file#1.json"] = Encoding.UTF8.GetBytes("[1]");
        _server.Files["pytorch_model.bin"] = Noise(1000);
        _server.Files["empty.json"] = [];
    }

    [TearDown]
    public void Stop()
    {
        _server.Dispose();
        Directory.Delete(_cache, true);
    }

    private static byte[] Noise(int length)
    {
        var bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        return bytes;
    }

    private string Repository => Path.Combine(_cache, "models--org--name");

    private Task<HubSnapshot> Pull(HubOptions? options = null, params string[] files) => Hub.PullAsync(new("org/name") { Files = files }, options ?? _options);

    [TestCase(true)]
    [TestCase(false)]
    public async Task Fills_the_cache_as_the_hubs_own_tools_do(bool tellsBlobs)
    {
        _server.TellsBlobs = tellsBlobs;
        var snapshot = await Pull();
        Assert.That(snapshot.Folder, Is.EqualTo(Path.Combine(Repository, "snapshots", HubServer.Commit)));
        Assert.That(File.ReadAllText(Path.Combine(Repository, "refs", "main")), Is.EqualTo(HubServer.Commit));
        Assert.That(snapshot.Files, Is.EqualTo(new[] { "config.json", "empty.json", "model.safetensors", "sub/a file#1.json" }));
        foreach (var name in snapshot.Files)
        {
            var (file, tag) = (Path.Combine(snapshot.Folder, name), HubServer.Tag(name, _server.Files[name]));
            Assert.That(File.ReadAllBytes(file), Is.EqualTo(_server.Files[name]), name);
            var up = name.Contains('/') ? "../../../blobs" : "../../blobs";
            Assert.That(new FileInfo(file).LinkTarget?.Replace('\\', '/'), Is.EqualTo($"{up}/{tag}"), name);
        }
        Assert.That(Directory.GetFiles(Path.Combine(Repository, "blobs")).Select(Path.GetExtension), Has.All.Empty, "nothing is left half done");
        Assert.That(snapshot.Notes.Single(), Does.Contain("'pytorch_model.bin'").And.Contain("pickles"));
        Assert.That(_server.Requests.Where(r => r.Path.Contains(".bin", StringComparison.Ordinal)), Is.Empty);
    }

    [Test]
    public async Task The_token_goes_to_the_hub_and_not_where_it_redirects()
    {
        await Pull();
        Assert.That(_server.Requests.Where(r => r.Host == "hub").Select(r => r.Authorization), Is.Not.Empty.And.All.EqualTo("Bearer hf_secret"));
        Assert.That(_server.Requests.Where(r => r.Host == "cdn").Select(r => r.Authorization), Is.Not.Empty.And.All.Null);
    }

    [Test]
    public async Task A_host_that_sends_us_back_does_not_get_the_token()
    {
        var detour = true;
        _server.Instead = (request, context) =>
        {
            if (request.Host != "cdn" || !detour)
                return false;
            detour = false;
            HubServer.Refuse(context, 302, ("Location", $"{_server.Endpoint}org/name/resolve/{HubServer.Commit}/model.safetensors"));
            return true;
        };
        await Pull(null, "model.safetensors");
        Assert.That(_server.Bodies.Select(r => (r.Host, r.Authorization is null)), Is.EqualTo(new[] { ("hub", false), ("cdn", true), ("hub", true), ("cdn", true) }));
    }

    [Test]
    public async Task What_is_there_is_not_fetched_again()
    {
        await Pull();
        var before = _server.Bodies.Count();
        var snapshot = await Pull();
        Assert.That(_server.Bodies.Count(), Is.EqualTo(before));
        File.Delete(Path.Combine(snapshot.Folder, "config.json")); // the blob is still there
        await Pull();
        Assert.That(_server.Bodies.Count(), Is.EqualTo(before));
        Assert.That(File.ReadAllText(Path.Combine(snapshot.Folder, "config.json")), Is.EqualTo("{}"));
    }

    [Test]
    public async Task Patterns_choose_files()
    {
        _server.Files["q4.gguf"] = Noise(10);
        _server.Files["q8.gguf"] = Noise(20);
        var snapshot = await Pull(null, "q4*", "nothing*");
        Assert.That(snapshot.Files, Is.EqualTo(new[] { "q4.gguf" }));
        Assert.That(snapshot.Notes.Single(), Does.Contain("'nothing*'"));
        Assert.That(async () => await Pull(null, "*q5*"), Throws.TypeOf<HubException>().With.Message.Contains("*q5*").And.Message.Contains("q4.gguf"));
        Assert.That(async () => await Pull(null, "*.bin"), Throws.TypeOf<HubException>().With.Message.Contains("pytorch_model.bin"));
    }

    [Test]
    public async Task Without_links_files_are_copied()
    {
        var snapshot = await Pull(new() { Cache = _cache, Endpoint = _server.Endpoint, Links = false });
        Assert.That(Directory.GetFiles(snapshot.Folder, "*", SearchOption.AllDirectories).Count(f => new FileInfo(f).LinkTarget is null), Is.EqualTo(4));
        Assert.That(File.ReadAllBytes(Path.Combine(snapshot.Folder, "model.safetensors")), Is.EqualTo(_server.Files["model.safetensors"]));
    }

    [Test]
    public async Task Two_at_once_fetch_each_file_once()
    {
        _server.Instead = (request, _) =>
        {
            Thread.Sleep(request.Host == "cdn" ? 200 : 0);
            return false;
        };
        var both = await Task.WhenAll(Pull(), Pull());
        Assert.That(both[0].Folder, Is.EqualTo(both[1].Folder));
        Assert.That(_server.Requests.Count(r => r.Host == "cdn"), Is.EqualTo(1));
        Assert.That(_server.Bodies.Count(r => r.Path.EndsWith("config.json", StringComparison.Ordinal)), Is.EqualTo(1));
    }

    [Test]
    public async Task A_folder_gets_plain_files_and_keeps_those_that_are_right()
    {
        var request = new HubRequest("org/name") { Folder = Path.Combine(_cache, "plain") };
        var snapshot = await Hub.PullAsync(request, _options);
        Assert.That(snapshot.Folder, Is.EqualTo(request.Folder));
        Assert.That(File.ReadAllBytes(Path.Combine(request.Folder, "sub", "a file#1.json")), Is.EqualTo(_server.Files["sub/a file#1.json"]));
        Assert.That(Directory.Exists(Repository), Is.False);
        File.WriteAllText(Path.Combine(request.Folder, "config.json"), "[]"); // as long, and not the same
        var before = _server.Bodies.Count();
        await Hub.PullAsync(request, _options);
        Assert.That(_server.Bodies.Skip(before).Select(r => r.Path), Is.EqualTo(new[] { $"/org/name/resolve/{HubServer.Commit}/config.json" }));
        Assert.That(File.ReadAllText(Path.Combine(request.Folder, "config.json")), Is.EqualTo("{}"));
    }

    [Test]
    public async Task Offline_only_the_cache_is_asked()
    {
        var offline = _options with { Offline = true };
        Assert.That(async () => await Pull(offline), Throws.TypeOf<HubException>().With.Message.Contains("HF_HUB_OFFLINE").And.Message.Contains("org/name"));
        var fetched = await Pull();
        var requests = _server.Requests.Count;
        var found = await Pull(offline);
        Assert.That((found.Folder, found.Commit), Is.EqualTo((fetched.Folder, HubServer.Commit)));
        Assert.That(found.Files, Is.EqualTo(fetched.Files));
        Assert.That((await Hub.PullAsync(new("org/name") { Revision = HubServer.Commit }, offline)).Folder, Is.EqualTo(fetched.Folder));
        Assert.That(async () => await Pull(offline, "*.gguf"), Throws.TypeOf<HubException>().With.Message.Contains("*.gguf"));
        Assert.That(async () => await Hub.PullAsync(new("org/name") { Revision = "v2" }, offline), Throws.TypeOf<HubException>().With.Message.Contains("v2"));
        Assert.That(_server.Requests, Has.Count.EqualTo(requests));
    }

    [Test]
    public async Task A_commit_is_found_by_the_models_name()
    {
        Assert.That(HubCache.Find(_cache, "org/name"), Is.Null);
        await Hub.PullAsync(new("org/name") { Revision = HubServer.Commit }, _options);
        Assert.That(Directory.Exists(Path.Combine(Repository, "refs")), Is.False, "a commit needs no name");
        Assert.That(HubCache.Find(_cache, "org/name"), Does.EndWith(HubServer.Commit), "the only snapshot");
        Directory.CreateDirectory(Path.Combine(Repository, "snapshots", new string('b', 40)));
        Assert.That(HubCache.Find(_cache, "org/name"), Is.Null, "which of two?");
        await Pull();
        Assert.That(HubCache.Find(_cache, "org/name"), Does.EndWith(HubServer.Commit));
    }

    [Test]
    public void Space_is_asked_for_before_anything_is_fetched()
    {
        Assert.That(async () => await Pull(_options with { FreeSpace = _ => 299_999 }), Throws.TypeOf<HubException>().With.Message.Contains("0.3 MiB"));
        Assert.That(_server.Bodies, Is.Empty);
    }

    [Test]
    public async Task Progress_ends_at_all_bytes()
    {
        var seen = new List<HubProgress>();
        await Hub.PullAsync(new("org/name"), _options, new Seen(seen));
        Assert.That(seen[^1], Is.EqualTo(new HubProgress(300_005, 300_005)));
        Assert.That(seen.Select(p => p.Bytes), Is.Ordered);
    }

    [Test]
    public async Task A_server_without_HEAD_is_asked_with_GET()
    {
        _server.TellsBlobs = false;
        _server.Instead = (request, context) =>
        {
            if (request.Method != "HEAD")
                return false;
            HubServer.Refuse(context, (int)HttpStatusCode.MethodNotAllowed);
            return true;
        };
        Assert.That((await Pull()).Files, Has.Count.EqualTo(4));
    }

    private sealed class Seen(List<HubProgress> seen) : IProgress<HubProgress>
    {
        public void Report(HubProgress value) => seen.Add(value);
    }
}
