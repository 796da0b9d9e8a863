using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Imaging;
using Trimtab.Server.Commands;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>Answers, receipts, errors and faults of the server.</summary>
[NonParallelizable]
public class ServingTests
{
    private Served _served = null!;
    private string _audit = null!;

    [OneTimeSetUp]
    public async Task Start()
    {
        _audit = Path.Combine(Directory.CreateTempSubdirectory("trimtab-audit-").FullName, "audit.jsonl");
        _served = await Served.StartAsync(audit: _audit, options: new() { MaxBody = 4 << 20 });
    }

    [OneTimeTearDown]
    public async Task Stop()
    {
        Assert.That(_served.Log, Is.Empty, "no request may fail inside the server");
        await _served.DisposeAsync();
        Assert.That(AuditLog.Verify(_audit).Lines, Is.GreaterThan(0));
    }

    [Test]
    public async Task A_stream_says_what_the_whole_answer_says()
    {
        var request = Served.Ask(tokens: 12);
        request["seed"] = 7;
        request["temperature"] = 1;
        request["logprobs"] = true;
        request["top_logprobs"] = 2;
        var (code, whole, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That(code, Is.EqualTo(200), whole.ToString());
        request["stream_options"] = new JsonObject { ["include_usage"] = true };
        var chunks = await _served.StreamAsync("/v1/chat/completions", request);
        var choices = chunks.Where(c => c.GetProperty("choices").GetArrayLength() > 0).Select(c => c.GetProperty("choices")[0]).ToList();
        var text = string.Concat(choices.Select(c => c.GetProperty("delta").TryGetProperty("content", out var content) ? content.GetString() : ""));
        var receipts = (Whole: whole.GetProperty("steering_receipt"), Chunk: chunks.Single(c => c.TryGetProperty("steering_receipt", out _)).GetProperty("steering_receipt"));
        Assert.Multiple(() =>
        {
            Assert.That(text, Is.EqualTo(whole.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()));
            Assert.That(receipts.Chunk.GetProperty("answer").ToString(), Is.EqualTo(receipts.Whole.GetProperty("answer").ToString()));
            Assert.That(choices[^1].GetProperty("finish_reason").GetString(), Is.EqualTo(whole.GetProperty("choices")[0].GetProperty("finish_reason").GetString()));
            Assert.That(chunks[^1].GetProperty("usage").GetProperty("total_tokens").GetInt32(), Is.EqualTo(whole.GetProperty("usage").GetProperty("total_tokens").GetInt32()));
            Assert.That(BytesOf(whole.GetProperty("choices")[0]), Does.StartWith(text), "the bytes of the tokens are the text's, and perhaps an end's");
            Assert.That(choices.Where(c => c.TryGetProperty("logprobs", out _)).Sum(c => c.GetProperty("logprobs").GetProperty("content").GetArrayLength()),
                Is.EqualTo(whole.GetProperty("choices")[0].GetProperty("logprobs").GetProperty("content").GetArrayLength()));
        });
    }

    private static string BytesOf(JsonElement choice) => Encoding.UTF8.GetString([.. choice.GetProperty("logprobs").GetProperty("content").EnumerateArray()
        .Where(token => token.GetProperty("token").GetString() != "").SelectMany(token => token.GetProperty("bytes").EnumerateArray()).Select(value => value.GetByte())]);

    [TestCase(null)]
    [TestCase("""{"mode":"sample"}""")]
    [TestCase("""{"mode":"off"}""")]
    public async Task A_receipt_replays(string? steering)
    {
        var request = Served.Ask(steering: steering, tokens: 8);
        request["temperature"] = 0.9;
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That(code, Is.EqualTo(200), body.ToString());
        var file = Path.Combine(_served.Folder, "answer.json");
        await File.WriteAllTextAsync(file, body.ToString());
        var (exit, output) = await RunAsync("replay", file, "--image", Served.ImageFile(), "-t", "1");
        Assert.That((exit, output), Is.EqualTo((0, output)), output);
        Assert.That(output, Does.StartWith("reproduced").And.Contains("bit for bit"));
        Assert.That((await RunAsync("replay", file, "--image", Served.ImageFile(1))).Output, Does.Contain("image 1 is another"));
        Assert.That((await RunAsync("audit", "verify", _audit)).Exit, Is.Zero);
    }

    private static async Task<(int Exit, string Output)> RunAsync(params string[] args)
    {
        using var output = new StringWriter();
        var exit = await Trimtab.Server.CommandLine.RunAsync(args, output, output);
        return (exit, output.ToString());
    }

    [Test]
    public async Task An_audit_log_shows_what_was_changed()
    {
        var file = Path.Combine(_served.Folder, "log.jsonl");
        using (var log = AuditLog.Open(file))
        {
            for (var i = 0; i < 4; i++)
                log.Append("asked", writer => writer.WriteNumber("i", i));
        }
        var lines = await File.ReadAllLinesAsync(file);
        Assert.That(AuditLog.Verify(file).Lines, Is.EqualTo(4));
        foreach (var changed in new[] { [lines[0], lines[2], lines[3]], [lines[1], lines[0], lines[2], lines[3]], [lines[0], lines[1].Replace("\"i\":1", "\"i\":2", StringComparison.Ordinal), lines[2], lines[3]], new[] { lines[0], lines[0], lines[1] } })
        {
            await File.WriteAllLinesAsync(file, changed);
            Assert.Throws<InvalidDataException>(() => AuditLog.Verify(file));
        }
    }

    [Test]
    public async Task Json_keeps_to_its_schema()
    {
        var request = Served.Ask(images: 0, tokens: 200);
        request["response_format"] = JsonNode.Parse("""{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object","properties":{"count":{"type":"integer","minimum":0,"maximum":9},"kind":{"enum":["a","b"]}},"required":["count","kind"],"additionalProperties":false}}}""");
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That(code, Is.EqualTo(200), body.ToString());
        var answer = JsonDocument.Parse(body.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!).RootElement;
        Assert.That(answer.GetProperty("count").GetInt32(), Is.InRange(0, 9));
        request["response_format"] = JsonNode.Parse("""{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","patternProperties":{}}}}""");
        Assert.That((await _served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(400));
    }

    [TestCase("""{"model":"demo","messages":[{"role":"user","content":"hi"}],"tools":[{}]}""", 400, "tools")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":"hi"}],"temperatur":1}""", 400, "temperatur")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":"hi"}],"temperature":"1"}""", 400, "temperature")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":"hi"}],"n":0}""", 400, "n")]
    [TestCase("""{"model":"other","messages":[{"role":"user","content":"hi"}]}""", 404, "model")]
    [TestCase("""{"model":"demo","messages":[]}""", 400, "messages")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://127.0.0.1/a.png"}}]}]}""", 400, "messages[0].content[0].image_url")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]}""", 400, "messages[0].content[0].image_url")]
    [TestCase("""{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}""", 400, "messages[0].content[0].image_url")]
    [TestCase("{", 400, null)]
    [TestCase("[]", 400, null)]
    [TestCase("", 400, null)]
    public async Task An_error_names_the_field(string body, int status, string? param)
    {
        var (code, answer, _) = await _served.PostAsync("/v1/chat/completions", body);
        Assert.That((code, answer.GetProperty("error").GetProperty("param").GetString()), Is.EqualTo((status, param)), answer.ToString());
    }

    [Test]
    public async Task Bodies_and_images_that_are_too_large_are_refused()
    {
        using (var huge = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent($"{{\"model\":\"{new string('x', 5 << 20)}\"}}", Encoding.UTF8, "application/json") })
        {
            huge.Headers.ExpectContinue = true; // else the connection may end while the body is on its way
            Assert.That((int)(await _served.Http.SendAsync(huge)).StatusCode, Is.EqualTo(413));
        }
        var bomb = Served.Ask();
        bomb["messages"]![0]!["content"]![1]!["image_url"]!["url"] = "data:image/png;base64," + Convert.ToBase64String(Bomb());
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", bomb);
        Assert.That(code, Is.EqualTo(400), body.ToString());
        var deep = string.Concat(Enumerable.Repeat("[", 10_000));
        Assert.That((await _served.PostAsync("/v1/chat/completions", deep)).Status, Is.EqualTo(400));
        foreach (var steering in new[] { null, """{"mode":"sample"}""" })
        {
            var longPrompt = Served.Ask(string.Concat(Enumerable.Repeat("shapes ", 3000)), 1, steering);
            Assert.That((await _served.PostAsync("/v1/chat/completions", longPrompt)).Body.GetProperty("error").GetProperty("code").GetString(), Is.EqualTo("context_length_exceeded"));
        }
    }

    /// <summary>A PNG that says it has 60000 × 60000 pixels.</summary>
    private static byte[] Bomb()
    {
        byte[] chunk = [(byte)'I', (byte)'H', (byte)'D', (byte)'R', 0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60, 8, 2, 0, 0, 0];
        var crc = uint.MaxValue;
        foreach (var value in chunk)
        {
            crc ^= value;
            for (var bit = 0; bit < 8; bit++)
                crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
        }
        crc = ~crc;
        return [0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10, 0, 0, 0, 13, .. chunk, (byte)(crc >> 24), (byte)(crc >> 16), (byte)(crc >> 8), (byte)crc];
    }

    [Test]
    public async Task A_client_that_goes_away_ends_its_answer()
    {
        var request = Served.Ask(images: 0, tokens: 900);
        request["stream"] = true;
        request["ignore_eos"] = true;
        using (var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") })
        using (var response = await _served.Http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead))
        {
            var stream = await response.Content.ReadAsStreamAsync();
            await stream.ReadExactlyAsync(new byte[64]);
        }
        for (var tries = 0; tries < 200 && (_served.Server.Requests > 0 || _served.Model.Model.Statistics.Running > 0); tries++)
            await Task.Delay(50);
        Assert.That((_served.Server.Requests, _served.Model.Model.Statistics.Running), Is.EqualTo((0, 0)));
    }

    [Test]
    public async Task A_client_that_reads_nothing_stalls_nobody_and_is_cut_off()
    {
        await using var served = await Served.StartAsync(options: new() { WriteTime = TimeSpan.FromSeconds(1) });
        // Some megabytes an answer, which no buffer on the way takes in.
        var request = Served.Ask(images: 0, tokens: 400);
        (request["stream"], request["ignore_eos"], request["n"], request["logprobs"], request["top_logprobs"]) = (true, true, 16, true, 20);
        var body = Encoding.UTF8.GetBytes(request.ToJsonString());
        var slow = new List<System.Net.Sockets.TcpClient>();
        try
        {
            for (var i = 0; i < 3; i++)
            {
                var client = new System.Net.Sockets.TcpClient { ReceiveBufferSize = 4096 };
                slow.Add(client);
                await client.ConnectAsync(IPAddress.Loopback, new Uri(served.Server.Url).Port);
                await client.GetStream().WriteAsync((byte[])[.. Encoding.ASCII.GetBytes($"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n"), .. body]);
            }
            while (served.Server.Requests < 3)
                await Task.Delay(10);
            for (var i = 0; i < 5; i++)
                Assert.That((await served.PostAsync("/v1/chat/completions", Served.Ask($"Question {i}", 0))).Status, Is.EqualTo(200));
            while (served.Server.Requests > 0 || served.Model.Model.Statistics.Running > 0)
                await Task.Delay(50);
            foreach (var client in slow)
            {
                // What was under way still comes, then the end.
                var got = new MemoryStream();
                try
                {
                    await client.GetStream().CopyToAsync(got);
                }
                catch (IOException)
                {
                }
                Assert.That(Encoding.UTF8.GetString(got.ToArray()), Does.Not.Contain("[DONE]"));
            }
        }
        finally
        {
            slow.ForEach(client => client.Dispose());
        }
        Assert.That(served.Log, Is.Empty);
    }

    [Test]
    public async Task Overload_is_refused_with_a_time_to_try_again()
    {
        await using var served = await Served.StartAsync(options: new() { MaxRequests = 40 }, engine: new() { MaxSequences = 1, MaxWaiting = 2 });
        var request = Served.Ask(images: 0, tokens: 100);
        request["ignore_eos"] = true;
        var answers = await Task.WhenAll(Enumerable.Range(0, 60).Select(_ => served.PostAsync("/v1/chat/completions", request)));
        Assert.Multiple(() =>
        {
            Assert.That(answers.Select(a => a.Status), Is.All.AnyOf(200, 429));
            Assert.That(answers.Count(a => a.Status == 200), Is.GreaterThan(0));
            Assert.That(answers.Where(a => a.Status == 429).Select(a => a.Headers.RetryAfter), Is.Not.Empty.And.All.Not.Null);
            Assert.That(answers.Where(a => a.Status == 429).Select(a => a.Body.GetProperty("error").GetProperty("code").GetString()), Is.All.AnyOf("engine_busy", "too_many_requests"));
        });
        Assert.That((await served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(200));
        Assert.That(served.Log, Is.Empty);
    }

    [Test]
    public async Task Random_damage_to_a_request_never_fails_the_server()
    {
        var random = new Random(5);
        var good = Encoding.UTF8.GetBytes(Served.Ask(steering: """{"alpha":1.5,"layers":"1-4"}""", tokens: 1).ToJsonString());
        var url = Served.ImageUrl();
        for (var i = 0; i < 300; i++)
        {
            var bytes = good.ToArray();
            for (var n = random.Next(1, 4); n > 0; n--)
            {
                // Half of the damage outside the image, which is most of the request.
                var at = random.Next(2) == 0 ? random.Next(bytes.Length) : random.Next(2) == 0 ? random.Next(150) : bytes.Length - 1 - random.Next(150);
                bytes[at] = (byte)random.Next(256);
            }
            using var content = new ByteArrayContent(random.Next(10) == 0 ? bytes[..random.Next(bytes.Length)] : bytes);
            content.Headers.ContentType = new("application/json");
            using var response = await _served.Http.PostAsync("/v1/chat/completions", content);
            Assert.That((int)response.StatusCode, Is.AnyOf(200, 400, 403, 404), $"damage {i}");
        }
        for (var i = 0; i < 300; i++)
        {
            var damaged = url.ToCharArray();
            for (var n = random.Next(1, 4); n > 0; n--)
                damaged[random.Next(random.Next(2) == 0 ? 40 : damaged.Length)] = (char)random.Next(32, 127);
            try
            {
                ImageDecoder.Decode(ImageSource.FromData("data:" + new string(damaged)[5..], "url").Span, "url", 1 << 20);
            }
            catch (Exception error) when (error is ApiException or InvalidImageException)
            {
            }
        }
        Assert.That(_served.Log, Is.Empty);
    }

    [Test]
    public async Task Tokens_models_metrics_and_hosts()
    {
        var (_, tokens, _) = await _served.PostAsync("/tokenize", """{"prompt":"How many shapes?"}""");
        var ids = tokens.GetProperty("tokens").ToString();
        Assert.That((await _served.PostAsync("/detokenize", $"{{\"tokens\":{ids}}}")).Body.GetProperty("prompt").GetString(), Does.Contain("How many shapes?"));
        Assert.That(await _served.Http.GetStringAsync("/v1/models"), Does.Contain("\"demo\""));
        Assert.That(await _served.Http.GetStringAsync("/v1/steering/vectors"), Does.Contain("\"cmrm\""));
        Assert.That(await _served.Http.GetStringAsync("/metrics"), Does.Contain("trimtab_"));
        Assert.That((int)(await _served.Http.GetAsync("/ready")).StatusCode, Is.EqualTo(200));
        Assert.That((await _served.PostAsync("/admin/vectors/reload", "")).Status, Is.EqualTo(403));
        using var foreign = new HttpRequestMessage(HttpMethod.Get, "/v1/models") { Headers = { Host = "evil.example" } };
        Assert.That((int)(await _served.Http.SendAsync(foreign)).StatusCode, Is.EqualTo(421));
        using var form = await _served.Http.PostAsync("/v1/chat/completions", new StringContent(Served.Ask(images: 0).ToJsonString(), Encoding.UTF8, "text/plain"));
        Assert.That((int)form.StatusCode, Is.EqualTo(415));
        Assert.That(ImageSource.IsPublic(IPAddress.Parse("8.8.8.8")), Is.True);
        foreach (var address in new[] { "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "fc00::1" })
            Assert.That(ImageSource.IsPublic(IPAddress.Parse(address)), Is.False, address);
    }
}
