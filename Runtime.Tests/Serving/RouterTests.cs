using System.Collections.Concurrent;
using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Trimtab.Server.Routing;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>trimtab route: where requests go, and what becomes of them when a replica fails.</summary>
[NonParallelizable]
public class RouterTests
{
    private static byte[]? Key(string body, string path = "/v1/chat/completions") => PromptPrefix.Key(path, Encoding.UTF8.GetBytes(body), 32);

    [TestCase("""{"model":"m","messages":[{"role":"user","content":"Hello"}],"steering":{"alpha":2}}""", true)]
    [TestCase("""{"seed":3,"messages":[{"content":"Hello","role":"user"}],"model":"m"}""", true)]
    [TestCase("""{"model":"m","messages":[{"role":"user","content":"Hello"},{"role":"assistant","content":"Hi"},{"role":"user","content":"More"}]}""", true)]
    [TestCase("""{"model":"n","messages":[{"role":"user","content":"Hello"}]}""", false)]
    [TestCase("""{"model":"m","messages":[{"role":"user","content":"Hullo"}]}""", false)]
    [TestCase("""{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hello"}]}""", false)]
    public void A_key_is_of_the_beginning_alone(string body, bool same)
        => Assert.That(Key(body), same ? Is.EqualTo(Key("""{"model":"m","messages":[{"role":"user","content":"Hello"}]}""")) : Is.Not.EqualTo(Key("""{"model":"m","messages":[{"role":"user","content":"Hello"}]}""")));

    [Test]
    public void A_key_is_of_the_first_images_or_of_the_texts_beginning()
    {
        string Ask(string image, string text) => $$$"""{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"{{{text}}}"},{"type":"image_url","image_url":{"url":"data:{{{image}}}"}}]}]}""";
        string Long(string end) => $$"""{"model":"m","messages":[{"role":"user","content":"{{new string('x', 40)}}{{end}}"}]}""";
        Assert.Multiple(() =>
        {
            Assert.That(Key(Ask("a", "What is this?")), Is.EqualTo(Key(Ask("a", "Who is it?"))));
            Assert.That(Key(Ask("a", "What is this?")), Is.Not.EqualTo(Key(Ask("b", "What is this?"))));
            Assert.That(Key(Long("one")), Is.EqualTo(Key(Long("two"))));
            Assert.That(Key("""{"model":"m","prompt":"one"}""", "/v1/completions"), Is.Not.EqualTo(Key("""{"model":"m","prompt":[1,2]}""", "/v1/completions")));
            Assert.That(Key("""{"model":"m","instructions":"a","input":"b"}""", "/v1/responses"), Is.Not.EqualTo(Key("""{"model":"m","instructions":"c","input":"b"}""", "/v1/responses")));
            Assert.That(Key("""{"model":"m"}""", "/tokenize"), Is.Null);
            foreach (var damaged in new[] { "", "{", "[]", """{"messages":[1]}""", """{"messages":[{"role":"user","content":[1,{"image_url":2}]}]}""", """{"messages":{"role":1}}""", """{"messages":[{"role":"\ud800","content":3}]}""" })
                Assert.DoesNotThrow(() => Key(damaged), damaged);
        });
    }

    [Test]
    public void A_replica_that_comes_or_goes_moves_its_share_alone()
    {
        var keys = Enumerable.Range(0, 4000).Select(i => BitConverter.GetBytes(i)).ToList();
        Replica[] four = [.. Enumerable.Range(0, 4).Select(i => Ready($"http://10.0.0.{i}:8080"))];
        List<string> Owners(IReadOnlyList<Replica> replicas) => [.. keys.Select(key => Replica.Order(replicas, key, 16)[0].Url)];
        var (three, all) = (Owners(four[..3]), Owners(four));
        Assert.Multiple(() =>
        {
            foreach (var share in all.CountBy(url => url))
                Assert.That(share.Value, Is.EqualTo(1000).Within(150), share.Key);
            for (var i = 0; i < keys.Count; i++)
                Assert.That(all[i] == three[i] || all[i] == four[3].Url, Is.True, "a key moved between replicas that stayed");
        });
    }

    [Test]
    public void A_prompt_that_everybody_asks_spills_over()
    {
        Replica[] replicas = [.. Enumerable.Range(0, 3).Select(i => Ready($"http://10.0.0.{i}:8080"))];
        byte[] key = [1, 2, 3];
        var order = Replica.Order(replicas, key, 4).ToList();
        var went = new List<int>();
        for (var i = 0; i < 60; i++)
        {
            var replica = Replica.Order(replicas, key, 4)[0];
            replica.Enter();
            went.Add(order.IndexOf(replica));
        }
        Assert.Multiple(() =>
        {
            Assert.That(went[..4], Is.All.Zero, "its own has little to do");
            Assert.That(replicas.Select(replica => replica.Open), Is.All.InRange(10, 26));
        });
    }

    [Test]
    public void Replicas_that_are_all_slow_are_asked_and_dead_ones_are_not()
    {
        Replica[] replicas = [.. Enumerable.Range(0, 3).Select(i => Ready($"http://10.0.0.{i}:8080"))];
        foreach (var replica in replicas[..2])
            for (var i = 0; i < 2; i++)
                replica.Miss("it does not answer in time", slow: true);
        Assert.That(Replica.Order(replicas, [1], 4), Is.EqualTo(replicas[2..]));
        replicas[2].Fail("it takes no connection");
        Assert.That(Replica.Order(replicas, [1], 4), Is.EquivalentTo(replicas[..2]));
        replicas[0].Fail("it takes no connection");
        Assert.That(Replica.Order(replicas, [1], 4), Is.EqualTo(replicas[1..2]));
    }

    private static Replica Ready(string url)
    {
        var replica = new Replica(url);
        replica.Succeed();
        return replica;
    }

    [Test]
    public async Task Questions_about_one_image_share_a_replica_whatever_steers_them()
    {
        await using var one = await Served.StartAsync();
        await using var two = await Served.StartAsync();
        await using var three = await Served.StartAsync();
        Served[] replicas = [one, two, three];
        await using var router = await Router.StartAsync(Options(replicas.Select(replica => replica.Server.Url)), TextWriter.Null);
        using var http = new HttpClient { BaseAddress = new(router.Url) };
        for (var image = 0; image < 6; image++)
        {
            var before = Tokens();
            foreach (var (text, alpha) in new[] { ("How many shapes do you see?", "1"), ("What is in the picture?", "0.5"), ("Describe it.", "2") })
            {
                var request = Served.Ask(text, 0, $$"""{"alpha":{{alpha}}}""");
                request["messages"]![0]!["content"]!.AsArray().Insert(0, new JsonObject { ["type"] = "image_url", ["image_url"] = new JsonObject { ["url"] = Served.ImageUrl(image) } });
                var (status, body) = await PostAsync(http, request);
                Assert.That(status, Is.EqualTo(200), body);
            }
            Assert.That(Tokens().Zip(before, (now, then) => now - then).Count(grown => grown > 0), Is.EqualTo(1), $"image {image}");
        }
        Assert.That(Tokens(), Has.Some.GreaterThan(0));
        Assert.That(await http.GetStringAsync("/v1/models"), Does.Contain("demo"));
        Assert.That(await http.GetStringAsync("/"), Does.Contain("<html"));
        Assert.That(await http.GetStringAsync("/metrics"), Does.Contain("trimtab_router_requests"));

        List<long> Tokens() => [.. replicas.Select(replica => replica.Model.Model.Statistics.PromptTokens)];
    }

    /// <summary>Three servers as processes under load, one of which is killed as a crash would.</summary>
    [Test]
    [Platform(Exclude = "Win")]
    public async Task No_request_is_lost_with_its_replica_unless_its_stream_had_begun()
    {
        var replicas = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => ServedProcess.ServeAsync()));
        try
        {
            await using var router = await Router.StartAsync(Options(replicas.Select(replica => replica.Url)), TextWriter.Null);
            using var http = new HttpClient { BaseAddress = new(router.Url), Timeout = TimeSpan.FromMinutes(2) };
            var (lost, done, asked) = (new ConcurrentQueue<string>(), new ConcurrentQueue<int>(), 0);
            var victim = router.Replicas.Single(replica => replica.Url == replicas[1].Url);
            using var killed = new CancellationTokenSource();
            var clients = Enumerable.Range(0, 12).Select(client => Task.Run(async () =>
            {
                // A few requests more once it is dead.
                for (var rest = 3; rest > 0; rest -= killed.IsCancellationRequested ? 1 : 0)
                    await AskAsync(Interlocked.Increment(ref asked), stream: client % 4 == 0);
            })).ToList();
            // Three of the twelve clients stream: with four requests one of the victim's at least is not streamed.
            while (victim.Open < 4 || done.IsEmpty)
                await Task.Delay(5);
            replicas[1].Kill();
            await killed.CancelAsync();
            await Task.WhenAll(clients);
            Assert.Multiple(() =>
            {
                Assert.That(lost, Is.Empty);
                Assert.That(victim.Ready, Is.False);
                Assert.That(done, Has.Count.GreaterThanOrEqualTo(36));
            });

            async Task AskAsync(int number, bool stream)
            {
                var request = Served.Ask($"Question {number}: how are you?", 0, tokens: 120);
                (request["stream"], request["ignore_eos"]) = (stream, true);
                var begun = false;
                try
                {
                    using var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") };
                    using var response = await http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead);
                    begun = stream && response.IsSuccessStatusCode;
                    var text = await response.Content.ReadAsStringAsync();
                    if (!response.IsSuccessStatusCode || !text.Contains(stream ? "[DONE]" : "\"finish_reason\":\"length\""))
                        lost.Enqueue($"{number}: HTTP {(int)response.StatusCode} {text}");
                    done.Enqueue(number);
                }
                catch (Exception error) when (error is HttpRequestException or IOException)
                {
                    if (!begun)
                        lost.Enqueue($"{number}: {error.Message}");
                    done.Enqueue(number);
                }
            }
        }
        finally
        {
            foreach (var replica in replicas)
                replica.Dispose();
        }
    }

    [Test]
    public async Task What_a_replica_refuses_goes_to_the_next_within_the_budget()
    {
        await using var busy = await Stub.StartAsync(context => RefuseAsync(context, 429));
        await using var ending = await Stub.StartAsync(context => RefuseAsync(context, 503));
        await using var good = await Stub.StartAsync(context => context.Response.WriteAsync("good"));
        await using (var router = await Router.StartAsync(Options([busy.Url, ending.Url, good.Url]), TextWriter.Null))
        {
            using var http = new HttpClient { BaseAddress = new(router.Url) };
            for (var i = 0; i < 20; i++)
                Assert.That(await PostAsync(http, Served.Ask($"Question {i}", 0)), Is.EqualTo((200, "good")));
            Assert.That(busy.Asked + ending.Asked, Is.GreaterThan(0));
        }
        var before = busy.Asked + ending.Asked;
        await using (var router = await Router.StartAsync(Options([busy.Url, ending.Url]) with { RetryBudget = 2 }, TextWriter.Null))
        {
            using var http = new HttpClient { BaseAddress = new(router.Url) };
            for (var i = 0; i < 20; i++)
            {
                var (status, body) = await PostAsync(http, Served.Ask($"Question {i}", 0));
                Assert.That((status, body), Is.AnyOf((429, "refused"), (503, "refused")), "the last replica's own answer");
            }
            // Two saved up, and a fifth of one for each of the twenty.
            Assert.That(busy.Asked + ending.Asked - before, Is.InRange(20 + 4, 20 + 6));
        }

        static Task RefuseAsync(HttpContext context, int status)
        {
            context.Response.StatusCode = status;
            return context.Response.WriteAsync("refused");
        }
    }

    [Test]
    public async Task A_replica_that_breaks_off_before_it_answers_is_not_the_end()
    {
        await using var broken = await Stub.StartAsync(context =>
        {
            context.Abort();
            return Task.CompletedTask;
        });
        var begun = new TaskCompletionSource();
        await using var half = await Stub.StartAsync(async context =>
        {
            context.Response.ContentLength = 1000;
            await context.Response.WriteAsync("half");
            await context.Response.Body.FlushAsync();
            await begun.Task;
            context.Abort();
        });
        await using var good = await Stub.StartAsync(context => context.Response.WriteAsync("good"));
        await using var router = await Router.StartAsync(Options([broken.Url, good.Url]), TextWriter.Null);
        using var http = new HttpClient { BaseAddress = new(router.Url) };
        for (var i = 0; i < 20; i++)
            Assert.That(await PostAsync(http, Served.Ask($"Question {i}", 0)), Is.EqualTo((200, "good")));
        // What has begun is cut off, not begun again: the client would read it twice.
        await using var second = await Router.StartAsync(Options([half.Url]), TextWriter.Null);
        using var other = new HttpClient { BaseAddress = new(second.Url) };
        using var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent("{}", Encoding.UTF8, "application/json") };
        using var response = await other.SendAsync(message, HttpCompletionOption.ResponseHeadersRead);
        begun.SetResult();
        Assert.That(() => response.Content.ReadAsStringAsync(), Throws.InstanceOf<HttpRequestException>());
        Assert.That(half.Asked, Is.EqualTo(1));
    }

    [Test]
    public async Task A_router_says_what_it_cannot_do()
    {
        await using var ending = await Stub.StartAsync(context => context.Response.WriteAsync("good"), ready: 503);
        await using var router = await Router.StartAsync(Options([ending.Url]) with { MaxBody = 1 << 20 }, TextWriter.Null);
        using var http = new HttpClient { BaseAddress = new(router.Url) };
        var (status, body) = await PostAsync(http, Served.Ask("Question", 0));
        Assert.That((status, JsonDocument.Parse(body).RootElement.GetProperty("error").GetProperty("code").GetString()), Is.EqualTo((503, "no_replica")));
        Assert.That(body, Does.Contain("it answers /ready with HTTP 503"));
        Assert.That((int)(await http.GetAsync("/ready")).StatusCode, Is.EqualTo(503));
        Assert.That((int)(await http.GetAsync("/health")).StatusCode, Is.EqualTo(200));
        Assert.That((int)(await http.PutAsync("/admin/policy", new StringContent("{}"))).StatusCode, Is.EqualTo(404));
        Assert.That((await PostAsync(http, new JsonObject { ["model"] = new string('x', 2 << 20) })).Status, Is.EqualTo(413));
        using var foreign = new HttpRequestMessage(HttpMethod.Get, "/v1/models") { Headers = { Host = "evil.example" } };
        Assert.That((int)(await http.SendAsync(foreign)).StatusCode, Is.EqualTo(421));
        Assert.That(ending.Asked, Is.Zero);
    }

    [Test]
    public async Task A_request_that_cannot_be_sent_on_makes_no_replica_look_dead()
    {
        await using var good = await Stub.StartAsync(context => context.Response.WriteAsync("good"));
        await using var router = await Router.StartAsync(Options([good.Url]) with { Probe = TimeSpan.FromMinutes(10) }, TextWriter.Null);
        using var client = new System.Net.Sockets.TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, new Uri(router.Url).Port);
        await client.GetStream().WriteAsync(Encoding.UTF8.GetBytes("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Name: böse\r\nConnection: close\r\n\r\n"));
        using var reader = new StreamReader(client.GetStream());
        Assert.That(await reader.ReadToEndAsync(), Does.StartWith("HTTP/1.1 400"));
        Assert.That(router.Replicas.Single().Ready, Is.True);
        using var http = new HttpClient { BaseAddress = new(router.Url) };
        Assert.That((await PostAsync(http, Served.Ask("Question", 0))).Body, Is.EqualTo("good"));
    }

    [Test]
    public async Task Replicas_behind_a_name_are_found_and_come_back()
    {
        var ready = 503;
        await using var stub = await Stub.StartAsync(context => context.Response.WriteAsync("good"), readiness: () => Volatile.Read(ref ready));
        await using var router = await Router.StartAsync(Options([]) with { Discover = [new(stub.Url.Replace("127.0.0.1", "localhost"))] }, TextWriter.Null);
        Assert.That(router.Replicas.Select(replica => replica.Url), Contains.Item(stub.Url));
        using var http = new HttpClient { BaseAddress = new(router.Url) };
        Assert.That((await PostAsync(http, Served.Ask("Question", 0))).Status, Is.EqualTo(503));
        Volatile.Write(ref ready, 200);
        while (!router.Replicas.Any(replica => replica.Ready))
            await Task.Delay(20);
        Assert.That((await PostAsync(http, Served.Ask("Question", 0))).Status, Is.EqualTo(200));
    }

    private static RouteOptions Options(IEnumerable<string> replicas) => new() { Replicas = [.. replicas.Select(url => new Uri(url))], Probe = TimeSpan.FromMilliseconds(500) };

    private static async Task<(int Status, string Body)> PostAsync(HttpClient http, JsonObject body)
    {
        using var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json") };
        message.Headers.ExpectContinue = true;
        using var response = await http.SendAsync(message);
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync());
    }

    /// <summary>A replica that does what the test says.</summary>
    private sealed class Stub : IAsyncDisposable
    {
        private WebApplication _app = null!;
        private int _asked;

        public string Url => _app.Url();

        public int Asked => Volatile.Read(ref _asked);

        public static async Task<Stub> StartAsync(RequestDelegate answer, int ready = 200, Func<int>? readiness = null)
        {
            var stub = new Stub();
            stub._app = await LocalServer.StartAsync(async context =>
            {
                if (context.Request.Path == "/ready")
                {
                    context.Response.StatusCode = readiness?.Invoke() ?? ready;
                    return;
                }
                Interlocked.Increment(ref stub._asked);
                await context.Request.Body.CopyToAsync(Stream.Null);
                await answer(context);
            });
            return stub;
        }

        public ValueTask DisposeAsync() => _app.DisposeAsync();
    }
}
