using System.Net;
using System.Text;
using System.Text.Json;
using Trimtab.Server;
using Trimtab.Server.Benchmarks;

namespace Trimtab.Tests.Server;

/// <summary>trimtab bench serve against servers of the test's own: what is asked, and that the figures are what the answers say.</summary>
public class BenchServeTests
{
    /// <summary>Answers every chat request with a few streamed words; remembers the requests.</summary>
    private sealed class StubServer : IDisposable
    {
        private readonly HttpListener _listener = new();
        private readonly string? _vectors;
        private int _asked;

        public StubServer(Func<int, string[]> answer, string? vectors = null)
        {
            _vectors = vectors;
            for (var tries = 0; ; tries++)
            {
                var port = Random.Shared.Next(20000, 60000);
                try
                {
                    _listener.Prefixes.Clear();
                    _listener.Prefixes.Add($"http://127.0.0.1:{port}/");
                    _listener.Start();
                    Url = $"http://127.0.0.1:{port}/v1";
                    break;
                }
                catch (HttpListenerException) when (tries < 20)
                {
                }
            }
            _ = Task.Run(async () =>
            {
                while (_listener.IsListening)
                {
                    var context = await _listener.GetContextAsync();
                    _ = Task.Run(() => Answer(context, answer));
                }
            });
        }

        public string Url { get; }

        public List<JsonElement> Bodies { get; } = [];

        private void Answer(HttpListenerContext context, Func<int, string[]> answer)
        {
            using var response = context.Response;
            if (context.Request.Url!.AbsolutePath.EndsWith("/steering/vectors", StringComparison.Ordinal))
            {
                if (_vectors is null)
                    response.StatusCode = 404;
                else
                    response.OutputStream.Write(Encoding.UTF8.GetBytes($$"""{"data":[{"name":"{{_vectors}}"}]}"""));
                return;
            }
            if (context.Request.HttpMethod == "GET")
            {
                response.OutputStream.Write("""{"object":"list","data":[{"id":"stub-model"}]}"""u8);
                return;
            }
            using var reader = new StreamReader(context.Request.InputStream);
            int index;
            lock (Bodies)
            {
                Bodies.Add(JsonDocument.Parse(reader.ReadToEnd()).RootElement);
                index = _asked++;
            }
            var lines = answer(index);
            // The listener mixes up connections that are kept.
            (response.SendChunked, response.KeepAlive) = (lines.Length > 0, false);
            if (lines.Length == 0)
            {
                response.StatusCode = 429;
                return;
            }
            foreach (var line in lines)
            {
                response.OutputStream.Write(Encoding.UTF8.GetBytes($"data: {line}\n\n"));
                response.OutputStream.Flush();
            }
        }

        public void Dispose() => _listener.Close();
    }

    private static string Delta(string text) => $$$"""{"choices":[{"delta":{"content":"{{{text}}}"}}]}""";

    private static string Usage(int prompt, int cached, int tokens)
        => $$$"""{"choices":[],"usage":{"prompt_tokens":{{{prompt}}},"completion_tokens":{{{tokens}}},"prompt_tokens_details":{"cached_tokens":{{{cached}}} } } }""";

    private static string[] Good(int _) => ["""{"choices":[{"delta":{"role":"assistant"}}]}""", Delta("one"), Delta(" two"), Delta(" three"), Usage(10, 4, 3), "[DONE]"];

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(["bench", "serve", .. args], output, error).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    private static string Prompt(JsonElement body) => body.GetProperty("messages")[0].GetProperty("content").EnumerateArray().Last().GetProperty("text").GetString()!;

    [Test]
    public void Both_servers_get_the_same_requests_and_their_answers_are_counted()
    {
        using var first = new StubServer(Good, "cmrm");
        using var second = new StubServer(Good, "cmrm");
        var (code, output, error) = Run("--target", $"a={first.Url}", "--target", $"b={second.Url}", "-c", "1,4", "-n", "8", "--prefix", "5", "--prefixes", "2", "--words", "7",
            "-r", "2", "--alpha", "0.5,1", "--body", """{"ignore_eos":true}""", "--json", "-");
        Assert.That(code, Is.Zero, error);
        var results = JsonDocument.Parse(output).RootElement.GetProperty("results").EnumerateArray().ToList();
        Assert.That(results.Select(r => (r.GetProperty("server").GetString(), r.GetProperty("clients").GetInt32())), Is.EqualTo(new[] { ("a", 1), ("b", 1), ("a", 4), ("b", 4) }));
        Assert.Multiple(() =>
        {
            foreach (var result in results)
            {
                Assert.That(result.GetProperty("tokens").GetInt32(), Is.EqualTo(2 * 8 * 3));
                Assert.That(result.GetProperty("prompt_tokens").GetInt32(), Is.EqualTo(2 * 8 * 10));
                Assert.That(result.GetProperty("cached_tokens").GetInt32(), Is.EqualTo(2 * 8 * 4));
                Assert.That(result.GetProperty("errors").GetInt32(), Is.Zero);
                Assert.That(result.GetProperty("tokens_per_second").GetArrayLength(), Is.EqualTo(2));
                Assert.That(result.GetProperty("ratios").GetArrayLength(), Is.EqualTo(result.GetProperty("server").GetString() == "b" ? 2 : 0));
            }
            // One untimed request, then two runs of eight for each number of clients.
            Assert.That(first.Bodies, Has.Count.EqualTo(1 + 2 * 2 * 8));
            Assert.That(first.Bodies.Select(b => b.GetRawText()).Order(), Is.EqualTo(second.Bodies.Select(b => b.GetRawText()).Order()));
            var prompts = first.Bodies.Select(Prompt).ToList();
            Assert.That(prompts, Is.Unique);
            Assert.That(prompts.Select(p => p.Split(' ').Length), Is.All.EqualTo(12));
            // Two groups in each of four runs, and the untimed one's.
            Assert.That(prompts.Select(p => string.Join(' ', p.Split(' ')[..5])).Distinct().Count(), Is.EqualTo(4 * 2 + 1));
            Assert.That(first.Bodies.Select(b => b.GetProperty("steering").GetProperty("alpha").GetSingle()).Distinct(), Is.EquivalentTo(new[] { 0.5f, 1f }));
            Assert.That(first.Bodies.All(b => b.GetProperty("ignore_eos").GetBoolean() && b.GetProperty("model").GetString() == "stub-model"), Is.True);
        });
    }

    [Test]
    public void A_server_without_vectors_gets_the_same_prompts_alone()
    {
        using var steers = new StubServer(Good, "cmrm");
        using var peer = new StubServer(Good);
        var (code, _, error) = Run("--target", $"a={steers.Url}", "--target", $"b={peer.Url}", "-c", "1", "-n", "8", "-r", "1", "--prefix", "3", "--prefixes", "2", "--alpha", "0.5,1");
        Assert.Multiple(() =>
        {
            Assert.That(code, Is.Zero, error);
            Assert.That(peer.Bodies.Select(Prompt), Is.EqualTo(steers.Bodies.Select(Prompt)));
            Assert.That(peer.Bodies.Any(body => body.TryGetProperty("steering", out _)), Is.False);
            Assert.That(steers.Bodies.Select(body => body.GetProperty("steering").GetProperty("vectors").GetString()), Is.All.EqualTo("cmrm"));
            // Every beginning under every alpha.
            foreach (var group in steers.Bodies.Skip(1).GroupBy(body => string.Join(' ', Prompt(body).Split(' ')[..3])))
                Assert.That(group.Select(body => body.GetProperty("steering").GetProperty("alpha").GetSingle()).Distinct(), Is.EquivalentTo(new[] { 0.5f, 1f }));
        });
        Assert.That(Run("--target", $"b={peer.Url}", "--alpha", "1").Error, Does.Contain("no server lists vectors"));
        Assert.That(Run("--target", $"a={steers.Url}", "--alpha", "1", "--vectors", "others").Error, Does.Contain("a has cmrm"));
    }

    [Test]
    public void Refused_and_broken_answers_are_errors_and_not_speed()
    {
        using var server = new StubServer(i => i == 0 ? Good(i) : (i % 3) switch { 0 => Good(i), 1 => [], _ => [Delta("half")] });
        var (code, output, error) = Run("--target", $"s={server.Url}", "-c", "2", "-n", "6", "-r", "1");
        Assert.Multiple(() =>
        {
            Assert.That(code, Is.EqualTo(1), error);
            Assert.That(output, Does.Contain("s: 2 × HTTP 429"));
            Assert.That(output, Does.Contain("s: 2 × cut off"));
        });
    }

    [Test]
    public void Arrivals_are_a_Poisson_process_of_the_rate()
    {
        var load = new ServeLoad(20_000, 0, 1, 1, 1, [], 0, [], null, 7);
        var times = load.Arrivals(50, 3);
        var gaps = times.Zip(times.Skip(1), (a, b) => b - a).ToList();
        var mean = gaps.Average();
        Assert.Multiple(() =>
        {
            Assert.That(gaps, Has.All.GreaterThanOrEqualTo(0));
            Assert.That(mean, Is.EqualTo(1 / 50.0).Within(3).Percent);
            // The standard deviation of exponential gaps is their mean.
            Assert.That(Math.Sqrt(gaps.Average(g => (g - mean) * (g - mean))), Is.EqualTo(1 / 50.0).Within(5).Percent);
            Assert.That(load.Arrivals(50, 3), Is.EqualTo(times));
            Assert.That(load.Arrivals(50, 4), Is.Not.EqualTo(times));
        });
    }

    [Test]
    public void Percentiles_are_nearest_ranks()
    {
        double[] sorted = [.. Enumerable.Range(1, 100).Select(i => (double)i)];
        Assert.Multiple(() =>
        {
            Assert.That(ServeReport.Percentile(sorted, .5), Is.EqualTo(50));
            Assert.That(ServeReport.Percentile(sorted, .99), Is.EqualTo(99));
            Assert.That(ServeReport.Percentile([4], .95), Is.EqualTo(4));
            Assert.That(ServeReport.Percentile([], .95), Is.Zero);
        });
    }

    [TestCase("--target", "nothing", "expected NAME=URL")]
    [TestCase("--target", "x=http://127.0.0.1:9/v1", "does not answer with a list of models")]
    public void Wrong_use_is_said(string option, string value, string message)
    {
        var (code, _, error) = Run(option, value);
        Assert.Multiple(() =>
        {
            Assert.That(code, Is.EqualTo(2));
            Assert.That(error, Does.Contain(message));
        });
    }
}
