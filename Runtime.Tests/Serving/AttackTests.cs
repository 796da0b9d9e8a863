using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Server.Serving;
using Trimtab.Tests.Text;

namespace Trimtab.Tests.Serving;

/// <summary>What a stranger may try: costly, malformed and huge requests. They cost him his answer, nobody else's, and leave nothing behind.</summary>
[NonParallelizable]
public class AttackTests
{
    private Served _served = null!;
    private string _audit = null!;

    [OneTimeSetUp]
    public async Task Start()
    {
        _audit = Path.Combine(Directory.CreateTempSubdirectory("trimtab-attack-").FullName, "audit.jsonl");
        _served = await Served.StartAsync(audit: _audit, options: new() { MaxBody = 8 << 20, MaxTokens = 32, MaxMemory = 64 << 20 }, engine: new() { MaxSequences = 4, MaxWaiting = 16 });
    }

    [OneTimeTearDown]
    public async Task Stop()
    {
        await _served.DisposeAsync();
        AuditLog.Verify(_audit);
    }

    /// <summary>After each test everything is back, and nothing failed inside.</summary>
    [TearDown]
    public async Task Idle()
    {
        for (var tries = 0; tries < 400 && (_served.Server.Requests > 0 || _served.Model.Model.Statistics is not { Running: 0, Waiting: 0 } || _served.Server.Memory.Used > 0); tries++)
            await Task.Delay(50);
        Assert.Multiple(() =>
        {
            Assert.That((_served.Server.Requests, _served.Server.Memory.Used), Is.EqualTo((0, 0L)));
            Assert.That(_served.Model.Model.Statistics, Is.EqualTo(_served.Model.Model.Statistics with { Running = 0, Waiting = 0, UsedPages = 0 }));
            Assert.That(_served.Log, Is.Empty);
        });
    }

    private static JsonObject Constrained(string schema, string path = "/v1/chat/completions")
    {
        var request = Served.Ask(images: 0, tokens: 32);
        request["logit_bias"] = new JsonObject();
        if (path == "/v1/responses")
        {
            request = new() { ["model"] = "demo", ["input"] = "hi", ["max_output_tokens"] = 32, ["logit_bias"] = new JsonObject(), ["text"] = new JsonObject { ["format"] = new JsonObject { ["type"] = "json_schema", ["name"] = "n", ["schema"] = JsonNode.Parse(schema) } } };
        }
        else
            request["response_format"] = new JsonObject { ["type"] = "json_schema", ["json_schema"] = new JsonObject { ["name"] = "n", ["schema"] = JsonNode.Parse(schema) } };
        return request;
    }

    [TestCase("/v1/chat/completions")]
    [TestCase("/v1/responses")]
    public async Task A_schema_of_exponentially_many_readings_costs_one_answer(string path)
    {
        var request = Constrained(JsonSchemaGrammarTests.Ambiguous, path);
        request["logit_bias"]![$"{_served.Model.Encode("a[[[")[^1]}"] = 100;
        var (code, body, _) = await _served.PostAsync(path, request);
        Assert.That((code, body.GetProperty("error").GetProperty("code").GetString()), Is.EqualTo((400, "invalid_json_schema")), body.ToString());
        // A stream that has begun tells it in its interface's own form.
        var last = (await _served.StreamAsync(path, request))[^1];
        if (path == "/v1/responses")
            Assert.That((last.GetProperty("type").GetString(), last.GetProperty("code").GetString(), last.GetProperty("sequence_number").GetInt32() > 0), Is.EqualTo(("error", "invalid_json_schema", true)));
        else
            Assert.That(last.GetProperty("error").GetProperty("code").GetString(), Is.EqualTo("invalid_json_schema"));
        Assert.That((await _served.PostAsync("/v1/chat/completions", Served.Ask())).Status, Is.EqualTo(200));
    }

    [Test]
    public async Task What_does_not_fit_is_refused_before_an_image_is_decoded()
    {
        // Whole headers, and no pixels: whoever decodes them says so.
        var cut = "data:image/png;base64," + Convert.ToBase64String(File.ReadAllBytes(Served.ImageFile())[..60]);
        JsonObject Ask(string text)
        {
            var request = Served.Ask(text);
            request["messages"]![0]!["content"]![1]!["image_url"]!["url"] = cut;
            return request;
        }

        async Task<string?> Code(JsonObject request) => (await _served.PostAsync("/v1/chat/completions", request)).Body.GetProperty("error").GetProperty("code").GetString();
        Assert.That(await Code(Ask("short")), Is.EqualTo("invalid_image"));
        // The text alone leaves room, but not for the image's rows.
        var one = _served.Model.Render([new("user", "a", 1)]).Length;
        var words = string.Concat(Enumerable.Repeat("a ", (_served.Model.Model.ContextLength - one - 2) / (_served.Model.Encode("a a ").Length - _served.Model.Encode("a ").Length)));
        Assert.That(_served.Model.Render([new("user", words, 1)]), Has.Length.LessThanOrEqualTo(_served.Model.Model.ContextLength));
        Assert.That(await Code(Ask(words)), Is.EqualTo("context_length_exceeded"));
        Assert.That(await Code(Ask(new string('a', 5 << 20))), Is.EqualTo("context_length_exceeded"), "too long to be made tokens of");
        // Where the engine is full.
        var busy = Enumerable.Range(0, 20).Select(i =>
        {
            var request = Served.Ask($"{i}", 0, tokens: 32);
            (request["n"], request["ignore_eos"]) = (4, true);
            return _served.PostAsync("/v1/chat/completions", request);
        }).ToList();
        var codes = new HashSet<string?>();
        while (busy.Exists(task => !task.IsCompleted))
            codes.Add(await Code(Ask("short")));
        Assert.That(codes, Does.Contain("engine_busy"));
        Assert.That((await Task.WhenAll(busy)).Select(answer => answer.Status), Is.All.AnyOf(200, 429));
    }

    [Test]
    public async Task Bodies_that_together_take_too_much_memory_get_429_before_they_are_read()
    {
        // Each declares 7 MiB, counts eightfold, and never comes.
        var clients = new List<TcpClient>();
        try
        {
            var first = new List<string>();
            for (var i = 0; i < 12; i++)
            {
                var client = new TcpClient();
                clients.Add(client);
                await client.ConnectAsync(IPAddress.Loopback, new Uri(_served.Server.Url).Port);
                await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes($"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {7 << 20}\r\n\r\n{{"));
            }
            while (_served.Server.Memory.Used < 50 << 20)
                await Task.Delay(10);
            Assert.That(_served.Server.Memory.Used, Is.LessThanOrEqualTo(64 << 20));
            var refused = clients.Count(client =>
            {
                var head = new byte[64];
                client.ReceiveTimeout = 500;
                try
                {
                    return Encoding.ASCII.GetString(head, 0, client.GetStream().Read(head)).StartsWith("HTTP/1.1 429", StringComparison.Ordinal);
                }
                catch (IOException)
                {
                    return false;
                }
            });
            Assert.That(refused, Is.EqualTo(3), "nine bodies of 7 MiB fit into 64 MiB");
            // Small ones still find room.
            Assert.That((await _served.PostAsync("/v1/chat/completions", Served.Ask(images: 0))).Status, Is.EqualTo(200));
        }
        finally
        {
            clients.ForEach(client => client.Dispose());
        }
    }

    [Test]
    public void A_share_is_refused_where_others_hold_too_much_and_never_to_one_alone()
    {
        var budget = new MemoryBudget(100);
        using (var one = budget.Open())
        {
            one.Take(80);
            one.Take(80);
            using var other = budget.Open();
            Assert.That(Assert.Throws<ApiException>(() => other.Take(1))!.Status, Is.EqualTo(429));
            one.Keep(99);
            other.Take(1);
            Assert.That(() => other.Take(1), Throws.TypeOf<ApiException>());
            Assert.That(budget.Used, Is.EqualTo(100));
        }
        Assert.That(budget.Used, Is.Zero);
    }

    /// <summary>Values in the place of others: wrong kinds, extremes, texts of every sort.</summary>
    private static JsonNode? Odd(Random random) => random.Next(18) switch
    {
        0 => null,
        1 => JsonNode.Parse("1e400"),
        2 => JsonNode.Parse("-0"),
        3 => long.MaxValue,
        4 => -1,
        5 => 0.5,
        6 => true,
        7 => "",
        8 => "\0\ud83d\ude00\u202e<image><s></s>\u2028",
        9 => new string('x', random.Next(2000)),
        10 => new JsonArray(),
        11 => new JsonObject(),
        12 => new JsonArray("a", 1, null, new JsonObject { ["type"] = "text", ["text"] = "b" }),
        13 => JsonNode.Parse(string.Concat(Enumerable.Repeat("[", 40)) + string.Concat(Enumerable.Repeat("]", 40))),
        14 => "data:image/" + (random.Next(3) switch { 0 => "png", 1 => "gif;charset=x", _ => "*" }) + ";base64," + Convert.ToBase64String(RandomBytes(random, random.Next(200))),
        15 => "sample",
        16 => "1-4",
        _ => random.Next(100),
    };

    private static byte[] RandomBytes(Random random, int count)
    {
        var bytes = new byte[count];
        random.NextBytes(bytes);
        // Half of them begin as images do.
        byte[][] heads = [[0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52], "GIF89a"u8.ToArray(), "BM"u8.ToArray(), [0xFF, 0xD8, 0xFF, 0xC0], "RIFF\x10\0\0\0WEBPVP8X"u8.ToArray()];
        var head = heads[random.Next(heads.Length)];
        if (random.Next(2) == 0 && count >= head.Length)
            head.CopyTo(bytes, 0);
        return bytes;
    }

    private static void Damage(JsonNode root, Random random)
    {
        var all = new List<JsonNode>();
        Visit(root);
        var node = all[random.Next(all.Count)];
        if (node is JsonArray list)
        {
            if (list.Count > 0 && random.Next(2) == 0)
                list[random.Next(list.Count)] = Odd(random);
            else
                list.Add(Odd(random));
            return;
        }
        var fields = node.AsObject();
        string[] names = ["steering", "n", "stop", "seed", "logprobs", "top_logprobs", "logit_bias", "response_format", "text", "stream", "stream_options", "max_tokens", "temperature", "role", "content", "type", "input", "prompt", "tokens", "unheard_of", "", "layers", "alpha", "mode", "url", "schema"];
        var name = fields.Count > 0 && random.Next(3) > 0 ? fields.ElementAt(random.Next(fields.Count)).Key : names[random.Next(names.Length)];
        if (random.Next(6) == 0)
            fields.Remove(name);
        else
            fields[name] = Odd(random);

        void Visit(JsonNode? at)
        {
            if (at is JsonObject or JsonArray)
                all.Add(at);
            foreach (var inner in at switch { JsonObject o => o.Select(p => p.Value), JsonArray a => a, _ => [] })
                Visit(inner);
        }
    }

    [Test]
    public async Task Requests_of_odd_values_are_answered_or_refused_by_name()
    {
        var random = new Random(20261125);
        var image = Served.Ask(steering: """{"vectors":"cmrm","alpha":1.5,"layers":"1-4","scope":"all"}""");
        (image["logit_bias"], image["stop"], image["seed"]) = (new JsonObject { ["7"] = -1 }, new JsonArray("x"), 5);
        (string Path, JsonNode Body)[] good =
        [
            ("/v1/chat/completions", image),
            ("/v1/chat/completions", Constrained("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","y"]}},"required":["a"]}""")),
            ("/v1/completions", new JsonObject { ["model"] = "demo", ["prompt"] = "How are you?", ["max_tokens"] = 4, ["logprobs"] = 2, ["n"] = 2 }),
            ("/v1/responses", new JsonObject { ["model"] = "demo", ["instructions"] = "Be brief.", ["input"] = new JsonArray(new JsonObject { ["role"] = "user", ["content"] = new JsonArray(new JsonObject { ["type"] = "input_text", ["text"] = "hi" }, new JsonObject { ["type"] = "input_image", ["image_url"] = Served.ImageUrl() }) }) }),
            ("/tokenize", Served.Ask()),
            ("/detokenize", new JsonObject { ["tokens"] = new JsonArray(1, 2, 3) }),
        ];
        var answered = 0;
        foreach (var (path, body) in good)
            if (path != "/tokenize")
                Assert.That((await _served.PostAsync(path, body)).Status, Is.EqualTo(200), $"{path}");
        for (var i = 0; i < 900; i++)
        {
            var (path, whole) = good[i % good.Length];
            var body = whole.DeepClone();
            for (var n = random.Next(1, 4); n > 0; n--)
                Damage(body, random);
            using var response = await _served.Http.PostAsync(path, new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json"));
            var text = await response.Content.ReadAsStringAsync();
            Assert.That((int)response.StatusCode, Is.AnyOf(200, 400, 403, 404, 503), $"{i}: {path} {body.ToJsonString()}");
            if (response.IsSuccessStatusCode)
                answered++;
            else
            {
                var error = JsonDocument.Parse(text).RootElement.GetProperty("error");
                Assert.That(error.GetProperty("message").GetString(), Is.Not.Empty.And.Not.Contain(AppContext.BaseDirectory), body.ToJsonString());
            }
        }
        Assert.That(answered, Is.InRange(50, 850), "damage is neither always fatal nor never");
    }

    [Test]
    public async Task Other_forms_of_bodies_are_not_taken()
    {
        var random = new Random(3);
        using var form = new MultipartFormDataContent { { new StringContent("demo"), "model" }, { new ByteArrayContent(RandomBytes(random, 500)), "image", "a.png" } };
        Assert.That((int)(await _served.Http.PostAsync("/v1/chat/completions", form)).StatusCode, Is.EqualTo(415));
        foreach (var type in new[] { "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain; x=application/json", "application/jsonp", "application/json-patch+json" })
        {
            using var content = new ByteArrayContent(Encoding.UTF8.GetBytes(Served.Ask(images: 0).ToJsonString()));
            content.Headers.TryAddWithoutValidation("Content-Type", type);
            Assert.That((int)(await _served.Http.PostAsync("/v1/chat/completions", content)).StatusCode, Is.EqualTo(415), type);
        }
    }

    [TestCase("/foo.txt", "GET", 404)]
    [TestCase("/v1/chat/completions", "GET", 404)]
    [TestCase("/admin/vectors/a", "PUT", 403)]
    [TestCase("/%61dmin/vectors/a", "PUT", 403)]
    public async Task Every_refusal_has_the_form_of_an_error(string path, string method, int status)
    {
        var (code, body, _) = await _served.PostAsync(path, "", method: new(method));
        Assert.That((code, body.GetProperty("error").GetProperty("message").GetString()), Is.EqualTo((status, body.GetProperty("error").GetProperty("message").GetString())));
    }

    /// <summary>Requests whose end is told in two ways, one of which a server behind another might believe.</summary>
    [TestCase("Content-Length: 4\r\nContent-Length: 44\r\n")]
    [TestCase("Content-Length: 4, 44\r\n")]
    [TestCase("Content-Length: +4\r\n")]
    [TestCase("Transfer-Encoding: xchunked\r\n")]
    [TestCase("Transfer-Encoding : chunked\r\n")]
    [TestCase("X: a\r\n Transfer-Encoding: chunked\r\n")]
    [TestCase("X: a\nTransfer-Encoding: chunked\r\n")]
    [TestCase("X: a\0b\r\n")]
    [TestCase("Host: other\r\n")]
    public async Task A_request_of_two_readings_is_refused_and_ends_its_connection(string head)
    {
        var answer = await RawAsync($"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // Of a connection that ends with something unread the answer may be lost.
        Assert.That(answer, Is.Empty.Or.StartWith("HTTP/1.1 4"));
        Assert.That(answer, Does.Not.Contain("\"object\":\"list\""));
    }

    [Test]
    public async Task Long_heads_are_refused()
    {
        // A connection that is closed on what was not read is reset, and an answer that the client had not taken yet is lost with it.
        Assert.That(await RawAsync($"GET /{new string('a', 20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n"), Is.Empty.Or.StartsWith("HTTP/1.1 414"));
        Assert.That(await RawAsync($"GET /health HTTP/1.1\r\nHost: localhost\r\n{string.Concat(Enumerable.Range(0, 200).Select(i => $"X-{i}: a\r\n"))}\r\n"), Is.Empty.Or.StartsWith("HTTP/1.1 431"));
        Assert.That(await RawAsync($"GET /health HTTP/1.1\r\nHost: localhost\r\nX: {new string('a', 60_000)}\r\n\r\n"), Is.Empty.Or.StartsWith("HTTP/1.1 431"));
    }

    private async Task<string> RawAsync(string request)
    {
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, new Uri(_served.Server.Url).Port);
        var stream = client.GetStream();
        await stream.WriteAsync(Encoding.Latin1.GetBytes(request));
        client.Client.Shutdown(SocketShutdown.Send);
        using var answer = new MemoryStream();
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        try
        {
            await stream.CopyToAsync(answer, limit.Token);
        }
        catch (IOException)
        {
            // Cut off with something unread.
        }
        return Encoding.Latin1.GetString(answer.ToArray());
    }

    [Test]
    public async Task An_answer_that_its_reader_left_is_in_the_log()
    {
        var request = Served.Ask(images: 0, tokens: 32);
        (request["stream"], request["ignore_eos"], request["n"]) = (true, true, 4);
        string id;
        using (var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") })
        using (var response = await _served.Http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead))
            id = response.Headers.GetValues("X-Request-Id").Single();
        await Idle();
        string[] lines = [.. File.ReadLines(_audit).Where(line => line.Contains(id, StringComparison.Ordinal))];
        Assert.That(lines.Count(line => line.Contains("\"what\":\"asked\"", StringComparison.Ordinal)), Is.EqualTo(1));
        // Those that had ended meanwhile are answered.
        Assert.That(lines.Count(line => line.Contains("\"what\":\"abandoned\"", StringComparison.Ordinal)) is 1 || lines.Length == 5, string.Join('\n', lines));
    }
}
