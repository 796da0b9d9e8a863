using System.Text;

namespace Trimtab.Tests.Serving;

/// <summary>What a collector gets of a server that runs as a process, told where to by OpenTelemetry's environment variables alone.</summary>
[NonParallelizable]
[Platform(Exclude = "Win")]
public class TelemetryTests
{
    private const string Trace = "0af7651916cd43dd8448eb211c80319c", Caller = "b7ad6b7169203331";

    [Test]
    public async Task Requests_are_exported_as_spans_and_metrics()
    {
        await using var collector = await Collector.StartAsync();
        var policy = Path.Combine(Directory.CreateTempSubdirectory("trimtab-telemetry-").FullName, "policy.json");
        await File.WriteAllTextAsync(policy, Served.Strict.Replace("\"alpha\",", "\"alpha\",\"force\",", StringComparison.Ordinal));
        using var serve = await ServedProcess.ServeAsync(
            new Dictionary<string, string> { ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Url, ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf", ["OTEL_SERVICE_NAME"] = "steered" },
            "--policy", policy);
        using var http = new HttpClient { BaseAddress = new(serve.Url) };
        var request = Served.Ask(steering: """{"alpha":1.5}""", tokens: 5);
        request["n"] = 2;
        request["ignore_eos"] = true;
        Assert.That(await AskAsync(request), Is.EqualTo(200));
        Assert.That(await AskAsync(Served.Ask(steering: """{"alpha":0.5}""")), Is.EqualTo(403));
        Assert.That(await http.GetStringAsync("/health"), Is.Not.Empty);
        serve.Terminate();
        var (code, errors) = await serve.EndAsync();
        Assert.That(code, Is.Zero, errors);

        var spans = collector.Spans.ToList();
        var request1 = spans.Single(s => s.Parent == Caller && s.Tags.GetValueOrDefault("http.response.status_code") is 200L);
        var answer = spans.Single(s => s.Parent == request1.Id);
        var stages = spans.Where(s => s.Parent == answer.Id).ToLookup(s => s.Name);
        var refused = spans.Single(s => s.Name == "chat demo" && s.Failed);
        Assert.Multiple(() =>
        {
            Assert.That(spans.Select(s => s.Trace), Is.All.EqualTo(Trace), "the caller's trace goes on, and probes are not traced");
            Assert.That(request1.Name, Is.EqualTo("POST /v1/chat/completions"));
            Assert.That(answer.Name, Is.EqualTo("chat demo"));
            Assert.That(answer.Tags["gen_ai.operation.name"], Is.EqualTo("chat"));
            Assert.That(answer.Tags["gen_ai.request.model"], Is.EqualTo("demo"));
            Assert.That(answer.Tags["gen_ai.request.choice.count"], Is.EqualTo(2));
            Assert.That(answer.Tags["gen_ai.usage.output_tokens"], Is.EqualTo(10));
            Assert.That(answer.Tags["gen_ai.usage.input_tokens"], Is.GreaterThan(16L));
            Assert.That(answer.Tags, Contains.Key("gen_ai.usage.cache_read.input_tokens"));
            Assert.That(answer.Tags["gen_ai.response.finish_reasons"], Is.EqualTo(new[] { "length", "length" }));
            Assert.That(answer.Tags["trimtab.steering.mode"], Is.EqualTo("dataset"));
            Assert.That(answer.Tags["trimtab.steering.vectors"], Is.EqualTo("cmrm"));
            Assert.That(answer.Tags["trimtab.steering.alpha"], Is.EqualTo(1.5));
            Assert.That(answer.Tags["trimtab.policy.version"], Is.EqualTo("strict"));
            Assert.That(answer.Tags["trimtab.time_to_first_token"], Is.GreaterThan(0.0));
            Assert.That(answer.Tags, Contains.Key("trimtab.queue_time"));
            foreach (var name in new[] { "queue", "prefill", "decode" })
                Assert.That(stages[name].Select(s => s.Tags["trimtab.choice"]), Is.EquivalentTo(new[] { 0L, 1L }), name);
            foreach (var choice in new[] { 0L, 1L })
            {
                CollectedSpan Stage(string name) => stages[name].Single(s => choice.Equals(s.Tags["trimtab.choice"]));
                Assert.That(Stage("queue").Start, Is.GreaterThanOrEqualTo(answer.Start));
                Assert.That(Stage("prefill").Start, Is.EqualTo(Stage("queue").End));
                Assert.That(Stage("decode").Start, Is.EqualTo(Stage("prefill").End));
            }
            Assert.That(answer.Failed, Is.False);
            Assert.That(refused.Tags["error.type"], Is.EqualTo("below_floor"));
            Assert.That(collector.Services.Keys, Is.EqualTo(new[] { "steered" }));
            foreach (var metric in new[] { "trimtab.time_to_first_token", "trimtab.queue_time", "trimtab.requests", "trimtab.refusals", "trimtab.generated_tokens", "trimtab.kv.pages" })
                Assert.That(collector.Metrics.Keys, Contains.Item(metric));
            // Prompts and answers are nobody's business but the caller's.
            Assert.That(spans.SelectMany(s => s.Tags.Values).OfType<string>(), Has.None.Contains("shapes"));
        });

        async Task<int> AskAsync(System.Text.Json.Nodes.JsonObject body)
        {
            using var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json") };
            message.Headers.Add("traceparent", $"00-{Trace}-{Caller}-01");
            using var response = await http.SendAsync(message);
            return (int)response.StatusCode;
        }
    }
}
