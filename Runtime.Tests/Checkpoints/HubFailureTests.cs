using System.Net;
using System.Text;
using Trimtab.Checkpoints;

namespace Trimtab.Tests.Checkpoints;

/// <summary>Fetching from hubs that break, lie, refuse or attack.</summary>
public class HubFailureTests
{
    private static readonly byte[] Weights = [.. Enumerable.Range(0, 400_000).Select(i => (byte)(i * 31 >> 3))];

    private string _cache = null!;
    private HubServer _server = null!;
    private HubOptions _options = null!;

    [SetUp]
    public void Start()
    {
        _cache = Directory.CreateTempSubdirectory("trimtab-hub-").FullName;
        _server = new();
        _options = new() { Cache = _cache, Endpoint = _server.Endpoint, RetryDelay = TimeSpan.FromMilliseconds(1) };
        _server.Files["model.safetensors"] = Weights;
    }

    [TearDown]
    public void Stop()
    {
        _server.Dispose();
        Directory.Delete(_cache, true);
    }

    private string Incomplete => Path.Combine(_cache, "models--org--name", "blobs", HubServer.Sha256(Weights) + ".incomplete");

    private IEnumerable<string?> Ranges => _server.Requests.Where(r => r.Host == "cdn").Select(r => r.Range);

    private async Task<byte[]> Pull(CancellationToken cancel = default)
        => await File.ReadAllBytesAsync(Path.Combine((await Hub.PullAsync(new("org/name"), _options, null, cancel)).Folder, "model.safetensors"), CancellationToken.None);

    private void OnCdn(Func<HttpListenerContext, int, bool> answer)
    {
        var count = 0;
        _server.Instead = (request, context) => request.Host == "cdn" && answer(context, Interlocked.Increment(ref count));
    }

    private HubException Fails(HubOptions? options = null)
    {
        var failure = Assert.Throws<HubException>(() => Hub.PullAsync(new("org/name"), options ?? _options).GetAwaiter().GetResult())!;
        Assert.That(HubCache.Find(_cache, "org/name", "main"), Is.Null, "what failed has no name");
        Assert.That(failure.Message.Any(char.IsControl), Is.False);
        return failure;
    }

    [Test]
    public async Task Broken_connections_are_gone_on_from_where_they_broke()
    {
        OnCdn((context, count) =>
        {
            if (count <= 7) // more often than a failure without progress would be tried
                HubServer.Break(context, Weights, 50_000);
            return count <= 7;
        });
        Assert.That(await Pull(), Is.EqualTo(Weights));
        Assert.That(Ranges.First(), Is.Null);
        Assert.That(Ranges.Skip(1), Has.Some.Match("^bytes=[1-9][0-9]*-$"));
    }

    [Test]
    public async Task An_interrupted_run_is_gone_on_from_by_the_next()
    {
        using var cancel = new CancellationTokenSource();
        OnCdn((context, count) =>
        {
            if (count > 1)
                return false;
            context.Response.ContentLength64 = Weights.Length;
            context.Response.OutputStream.Write(Weights, 0, 150_000);
            context.Response.OutputStream.Flush();
            SpinWait.SpinUntil(() => File.Exists(Incomplete) && HubTransfer.Length(Incomplete) >= 100_000, 10_000);
            cancel.Cancel();
            return true;
        });
        Assert.That(async () => await Pull(cancel.Token), Throws.InstanceOf<OperationCanceledException>());
        var kept = new FileInfo(Incomplete).Length;
        Assert.That(kept, Is.InRange(100_000, 150_000));
        Assert.That(await Pull(), Is.EqualTo(Weights));
        Assert.That(Ranges.Last(), Is.EqualTo($"bytes={kept}-"));
    }

    [TestCase(1000, 1, TestName = "A damaged beginning is found and fetched anew")]
    [TestCase(400_000, 1, TestName = "A damaged whole is found and fetched anew")]
    [TestCase(500_000, 1, TestName = "A beginning longer than the file is thrown away")]
    [TestCase(400_000, 0, TestName = "A whole that was not renamed is not fetched")]
    public async Task Beginnings(int length, int requests)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Incomplete)!);
        File.WriteAllBytes(Incomplete, requests == 0 ? Weights : new byte[length]);
        Assert.That(await Pull(), Is.EqualTo(Weights));
        Assert.That(Ranges.Count(), Is.GreaterThanOrEqualTo(requests));
        Assert.That(File.Exists(Incomplete), Is.False);
        if (requests == 0)
            Assert.That(Ranges, Is.Empty);
    }

    [Test]
    public async Task A_host_without_ranges_is_read_from_the_beginning()
    {
        OnCdn((context, count) =>
        {
            if (count == 1)
            {
                HubServer.Break(context, Weights, 200_000);
                return true;
            }
            context.Response.ContentLength64 = Weights.Length;
            context.Response.Close(Weights, true);
            return true;
        });
        Assert.That(await Pull(), Is.EqualTo(Weights));
    }

    [Test]
    public void A_host_without_ranges_that_always_breaks_is_given_up()
    {
        OnCdn((context, _) =>
        {
            context.Response.ContentLength64 = Weights.Length;
            context.Response.OutputStream.Write(Weights, 0, 100_000);
            context.Response.OutputStream.Flush();
            context.Response.Abort();
            return true;
        });
        Assert.That(Fails().Message, Does.Contain("gave up"));
        Assert.That(Ranges.Count(), Is.LessThan(40));
    }

    [Test]
    public void Another_content_is_refused()
    {
        OnCdn((context, _) =>
        {
            HubServer.Send(context, [.. Weights.Select((b, i) => i == 77 ? (byte)~b : b)]);
            return true;
        });
        Assert.That(Fails().Message, Does.Contain("checksum").And.Contain("model.safetensors"));
        Assert.That(Directory.GetFiles(Path.GetDirectoryName(Incomplete)!), Is.Empty);
        Assert.That(Ranges.Count(), Is.EqualTo(1), "what is wrong at once is not fetched twice");
    }

    [TestCase(399_999, "399999 of 400000")]
    [TestCase(400_001, "400001")]
    public void Another_length_is_refused(int length, string said)
    {
        OnCdn((context, _) =>
        {
            if (context.Request.Headers["Range"] is null)
                HubServer.Send(context, [.. Weights, 0], length);
            else
                HubServer.Refuse(context, 416);
            return true;
        });
        Assert.That(Fails().Message, Does.Contain(said).Or.Contain("does not go on"));
    }

    [Test]
    public async Task Busy_servers_are_asked_again_as_late_as_they_say()
    {
        var start = System.Diagnostics.Stopwatch.GetTimestamp();
        var (hub, cdn) = (0, 0);
        _server.Instead = (request, context) =>
        {
            var status = request.Host == "hub" ? Interlocked.Increment(ref hub) switch { 1 => 429, 2 => 500, 4 => 503, _ => 0 }
                : Interlocked.Increment(ref cdn) switch { 1 => 403, 2 => 502, _ => 0 }; // 403: the address's signature has run out
            if (status == 0)
                return false;
            HubServer.Refuse(context, status, status == 429 ? [("Retry-After", "1")] : []);
            return true;
        };
        Assert.That(await Pull(), Is.EqualTo(Weights));
        Assert.That(System.Diagnostics.Stopwatch.GetElapsedTime(start), Is.GreaterThan(TimeSpan.FromSeconds(1)));
    }

    [TestCase(500, null, "500")]
    [TestCase(429, "100000", "wait")]
    [TestCase(401, null, "HF_TOKEN")]
    [TestCase(403, null, "accept its licence")]
    [TestCase(404, null, "no repository org/name")]
    [TestCase(400, null, "400")]
    [TestCase(204, null, "204")]
    public void Refusals_say_what_to_do(int status, string? after, string said)
    {
        _server.Instead = (_, context) =>
        {
            HubServer.Refuse(context, status, after is null ? [] : [("Retry-After", after)]);
            return true;
        };
        Assert.That(Fails().Message, Does.Contain(said));
    }

    [Test]
    public void Gated_repositories_say_so_on_the_file()
    {
        _server.Instead = (request, context) =>
        {
            if (!request.Path.Contains("/resolve/", StringComparison.Ordinal))
                return false;
            HubServer.Refuse(context, 403, ("X-Error-Code", "GatedRepo"), ("X-Error-Message", "Access to model org/name is restricted."));
            return true;
        };
        Assert.That(Fails(_options with { Token = "hf_x" }).Message, Does.Contain("is gated").And.Contain($"{_server.Endpoint}org/name").And.Contain("HF_TOKEN").And.Contain("restricted").And.Not.Contain("hf_x"));
    }

    [Test]
    public void An_unknown_revision_or_repository_is_named()
    {
        Assert.That(async () => await Hub.PullAsync(new("org/name") { Revision = "v9" }, _options), Throws.TypeOf<HubException>().With.Message.Contains("'v9'"));
        Assert.That(async () => await Hub.PullAsync(new("org/other"), _options), Throws.TypeOf<HubException>().With.Message.Contains("org/other"));
        Assert.That(async () => await Hub.PullAsync(new("org/name") { Revision = "../x" }, _options), Throws.TypeOf<HubException>().With.Message.Contains("revision"));
    }

    [Test]
    public void A_hub_that_is_not_there_is_named()
    {
        _server.Dispose();
        Assert.That(Fails().Message, Does.Contain(_server.Endpoint.Authority).And.Contain("gave up"));
    }

    [Test]
    public void A_server_that_falls_silent_is_not_waited_for_for_ever()
    {
        OnCdn((context, _) =>
        {
            context.Response.ContentLength64 = Weights.Length;
            context.Response.OutputStream.Write(Weights, 0, 10);
            context.Response.OutputStream.Flush();
            return true;
        });
        Assert.That(Fails(_options with { Timeout = TimeSpan.FromMilliseconds(150) }).Message, Does.Contain("sent nothing"));
    }

    [TestCase("../../evil.json")]
    [TestCase("/etc/evil.json")]
    [TestCase("a/../evil.json")]
    [TestCase("a//evil.json")]
    [TestCase("./evil.json")]
    [TestCase("a\\evil.json")]
    [TestCase("C:evil.json")]
    [TestCase("evil\n.json")]
    [TestCase("\u001b[2Jevil.json")]
    [TestCase("evil\u0000.json")]
    [TestCase("sub./evil.json")]
    public void Names_that_leave_the_folder_are_refused(string name)
    {
        _server.Files[name] = [1];
        Assert.That(Fails().Message, Does.Contain("evil").And.Contain("nothing was fetched"));
        Assert.That(_server.Bodies, Is.Empty);
        Assert.That(Directory.GetFileSystemEntries(_cache), Is.Empty);
    }

    [Test]
    public void Names_that_are_too_long_are_refused()
    {
        _server.Files[new string('n', 300) + ".json"] = [1];
        Assert.That(Fails().Message, Does.Contain("no file system"));
        _server.Files.Clear();
        _server.Files[string.Concat(Enumerable.Repeat("a/", 600)) + "x.json"] = [1];
        Assert.That(Fails().Message, Does.Contain("longer than"));
    }

    [TestCase("", "JSON")]
    [TestCase("<html>", "JSON")]
    [TestCase("[]", "sha")]
    [TestCase("{\"sha\":\"main\",\"siblings\":[]}", "sha")]
    [TestCase("{\"sha\":\"../../0123456789abcdef0123456789abcdef0123\",\"siblings\":[]}", "sha")]
    [TestCase("{\"sha\":\"COMMIT\"}", "siblings")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[]}", "no files")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[7]}", "name")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"\\ud800.json\"}]}", "JSON")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"a.json\",\"size\":-1}]}", "size")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"a.json\",\"size\":1e300}]}", "size")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"a.json\",\"size\":9223372036854775807}]}", "size")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"a.json\",\"size\":1,\"lfs\":{\"size\":2}}]}", "large-file")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"a.json\"},{\"rfilename\":\"a.json\"}]}", "twice")]
    [TestCase("{\"sha\":\"COMMIT\",\"siblings\":[{\"rfilename\":\"gone.json\"}]}", "gone.json")]
    public void Listings_that_are_none_are_refused(string listing, string said)
    {
        _server.Listing = listing.Replace("COMMIT", HubServer.Commit, StringComparison.Ordinal);
        Assert.That(Fails().Message, Does.Contain(said));
    }

    [Test]
    public void Endless_listings_are_refused()
    {
        _server.Listing = new string(' ', HubListing.LongestJson + 1);
        Assert.That(Fails().Message, Does.Contain("longer"));
    }

    [TestCase("/org/name", "redirects")]
    [TestCase("file:///etc/passwd", "not followed")]
    public void Redirects_that_lead_nowhere_are_refused(string location, string said)
    {
        _server.Instead = (_, context) =>
        {
            HubServer.Refuse(context, 302, ("Location", location));
            return true;
        };
        Assert.That(Fails().Message, Does.Contain(said));
    }

    [Test]
    public void Another_commit_than_asked_for_is_refused()
    {
        _server.Instead = (request, context) =>
        {
            if (!request.Path.Contains("/resolve/", StringComparison.Ordinal))
                return false;
            HubServer.Refuse(context, 200, ("X-Repo-Commit", new string('f', 40)));
            return true;
        };
        Assert.That(Fails().Message, Does.Contain("commit"));
    }

    [Test]
    public void Tags_that_are_paths_are_refused()
    {
        _server.TellsBlobs = false;
        _server.Files["a.json"] = Encoding.UTF8.GetBytes("1");
        _server.Instead = (request, context) =>
        {
            if (request.Method != "HEAD" || !request.Path.EndsWith("a.json", StringComparison.Ordinal))
                return false;
            context.Response.Headers["ETag"] = "\"../../evil\"";
            HubServer.Send(context, [49]);
            return true;
        };
        Assert.That(Fails().Message, Does.Contain("ETag"));
    }
}
