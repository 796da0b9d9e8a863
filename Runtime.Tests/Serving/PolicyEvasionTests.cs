using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Checkpoints;
using Trimtab.Server.Serving;
using Trimtab.Steering;

namespace Trimtab.Tests.Serving;

/// <summary>Ways round a policy that demands steering: none of them may yield an unsteered answer to a request with an image.</summary>
[NonParallelizable]
public class PolicyEvasionTests
{
    private const string Key = """{"keys":[{"id":"boss","sha256":"HASH","admin":true}]}""";
    private Served _served = null!;

    [OneTimeSetUp]
    public async Task Start() => _served = await Served.StartAsync(Served.Strict);

    [OneTimeTearDown]
    public async Task Stop()
    {
        Assert.That(_served.Log, Is.Empty, "no request may fail inside the server");
        await _served.DisposeAsync();
    }

    [TestCase("""{"mode":"off"}""", 403)]
    [TestCase("""{"mode":"sample"}""", 403)]
    [TestCase("""{"alpha":0}""", 403)]
    [TestCase("""{"alpha":-1}""", 403)]
    [TestCase("""{"alpha":1e-30}""", 403)]
    [TestCase("""{"alpha":1e-300}""", 403)]
    [TestCase("""{"alpha":0.999}""", 403)]
    [TestCase("""{"alpha":9}""", 403)]
    [TestCase("""{"alpha":1e999}""", 400)]
    [TestCase("""{"alpha":"1"}""", 400)]
    [TestCase("""{"alpha":"NaN"}""", 400)]
    [TestCase("""{"alpha":[1]}""", 400)]
    [TestCase("""{"scope":"decode"}""", 403)]
    [TestCase("""{"scope":"none"}""", 400)]
    [TestCase("""{"scope":"Prefill"}""", 400)]
    [TestCase("""{"layers":"1"}""", 403)]
    [TestCase("""{"layers":""}""", 400)]
    [TestCase("""{"layers":"0"}""", 400)]
    [TestCase("""{"layers":"99"}""", 400)]
    [TestCase("""{"layers":"2-1"}""", 400)]
    [TestCase("""{"layers":[]}""", 400)]
    [TestCase("""{"vectors":"none"}""", 403)]
    [TestCase("""{"vectors":""}""", 403)]
    [TestCase("""{"enabled":false}""", 400)]
    [TestCase("""{"Alpha":0}""", 400)]
    [TestCase("\"off\"", 400)]
    [TestCase("false", 400)]
    public async Task A_weaker_steering_is_refused(string steering, int status)
    {
        foreach (var stream in new[] { false, true })
        {
            var request = Served.Ask(steering: steering);
            request["stream"] = stream;
            var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
            Assert.That(code, Is.EqualTo(status), body.ToString());
            Assert.That(body.GetProperty("error").GetProperty("param").GetString(), Does.StartWith("steering"));
        }
    }

    [TestCase("{}")]
    [TestCase("null")]
    [TestCase("""{"alpha":null,"mode":null}""")]
    [TestCase("""{"alpha":1}""")]
    [TestCase("""{"alpha":2,"scope":"all","layers":"all"}""")]
    [TestCase("""{"mode":"dataset","layers":"1-4"}""")]
    public async Task What_does_not_weaken_is_steered(string steering)
    {
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", Served.Ask(steering: steering));
        Assert.That(code, Is.EqualTo(200), body.ToString());
        await _served.AssertSteeredAsync(body.GetProperty("steering_receipt"), Served.ImageFile());
    }

    [Test]
    public async Task A_field_that_is_there_twice_is_refused()
    {
        var text = Served.Ask().ToJsonString();
        foreach (var more in new[] { "\"steering\":{\"alpha\":1,\"alpha\":0}", "\"steering\":{},\"steering\":{\"mode\":\"off\"}", "\"steering\":{\"alpha\":1,\"\\u0061lpha\":0}", "\"messages\":[]" })
            Assert.That((await _served.PostAsync("/v1/chat/completions", text[..^1] + "," + more + "}")).Status, Is.EqualTo(400), more);
    }

    [Test]
    public async Task Every_choice_and_both_forms_are_steered()
    {
        var request = Served.Ask();
        request["n"] = 3;
        request["temperature"] = 1;
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That(code, Is.EqualTo(200), body.ToString());
        Assert.That(body.GetProperty("steering_receipts").GetArrayLength(), Is.EqualTo(3));
        foreach (var receipt in body.GetProperty("steering_receipts").EnumerateArray())
            await _served.AssertSteeredAsync(receipt, Served.ImageFile());
        var receipts = (await _served.StreamAsync("/v1/chat/completions", request)).Where(c => c.TryGetProperty("steering_receipt", out _)).ToList();
        Assert.That(receipts, Has.Count.EqualTo(3));
        foreach (var chunk in receipts)
            await _served.AssertSteeredAsync(chunk.GetProperty("steering_receipt"), Served.ImageFile());
    }

    [Test]
    public async Task An_image_of_an_earlier_turn_counts()
    {
        var request = Served.Ask();
        request["messages"]!.AsArray().Add(new JsonObject { ["role"] = "assistant", ["content"] = "two" });
        request["messages"]!.AsArray().Add(new JsonObject { ["role"] = "user", ["content"] = "And now?" });
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That(code, Is.EqualTo(200), body.ToString());
        await _served.AssertSteeredAsync(body.GetProperty("steering_receipt"), Served.ImageFile());
        request["steering"] = JsonNode.Parse("""{"mode":"off"}""");
        Assert.That((await _served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(403));
    }

    [Test]
    public async Task An_image_by_another_door_is_steered_or_refused()
    {
        var image = Served.ImageUrl();
        var tokens = _served.Model.Model.Network.Spec.ImageTokenId!.Value;
        foreach (var body in new JsonObject[]
        {
            new() { ["model"] = "demo", ["prompt"] = "<image> What is this?", ["max_tokens"] = 2 },
            new() { ["model"] = "demo", ["prompt"] = new JsonArray { 1, tokens, 5 }, ["max_tokens"] = 2 },
            new() { ["model"] = "demo", ["prompt"] = "What?", ["images"] = new JsonArray { image }, ["max_tokens"] = 2 },
            new() { ["model"] = "demo", ["prompt"] = "What?", ["image"] = image, ["max_tokens"] = 2 },
            new() { ["model"] = "demo", ["prompt"] = "What?", ["multi_modal_data"] = new JsonObject { ["image"] = image }, ["max_tokens"] = 2 },
        })
            Assert.That((await _served.PostAsync("/v1/completions", body)).Status, Is.EqualTo(400), body.ToJsonString()[..40]);

        JsonObject Response(string? steering, string role = "user") => new()
        {
            ["model"] = "demo",
            ["max_output_tokens"] = 3,
            ["temperature"] = 0,
            ["input"] = new JsonArray { new JsonObject { ["role"] = role, ["content"] = new JsonArray { new JsonObject { ["type"] = "input_image", ["image_url"] = image }, new JsonObject { ["type"] = "input_text", ["text"] = "What?" } } } },
            ["steering"] = steering is null ? null : JsonNode.Parse(steering),
        };
        Assert.That((await _served.PostAsync("/v1/responses", Response("""{"mode":"off"}"""))).Status, Is.EqualTo(403));
        Assert.That((await _served.PostAsync("/v1/responses", Response(null, "system"))).Status, Is.EqualTo(400));
        var (code, answer, _) = await _served.PostAsync("/v1/responses", Response(null));
        Assert.That(code, Is.EqualTo(200), answer.ToString());
        await _served.AssertSteeredAsync(answer.GetProperty("steering_receipt"), Served.ImageFile());
        var last = (await _served.StreamAsync("/v1/responses", Response(null)))[^1];
        await _served.AssertSteeredAsync(last.GetProperty("response").GetProperty("steering_receipt"), Served.ImageFile());
        Assert.That(last.GetProperty("response").GetProperty("output").ToString().Replace(last.GetProperty("response").GetProperty("output")[0].GetProperty("id").GetString()!, ""),
            Is.EqualTo(answer.GetProperty("output").ToString().Replace(answer.GetProperty("output")[0].GetProperty("id").GetString()!, "")));
    }

    [Test]
    public async Task A_placeholder_in_the_text_adds_no_image()
    {
        foreach (var images in new[] { 0, 1 })
            Assert.That((await _served.PostAsync("/v1/chat/completions", Served.Ask("<image> hello", images))).Status, Is.EqualTo(400));
    }

    [TestCase("logit_bias", """{"5":-100}""")]
    [TestCase("response_format", """{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"Sure, first":{"type":"string"}},"required":["Sure, first"],"additionalProperties":false}}}""")]
    [TestCase("ignore_eos", "true")]
    [TestCase("repetition_penalty", "50")]
    public async Task Words_of_the_answer_are_not_the_callers_where_only_its_beginning_is_steered(string field, string value)
    {
        var request = Served.Ask();
        request[field] = JsonNode.Parse(value);
        var (code, body, _) = await _served.PostAsync("/v1/chat/completions", request);
        Assert.That((code, body.GetProperty("error").GetProperty("code").GetString(), body.GetProperty("error").GetProperty("param").GetString()), Is.EqualTo((403, "forced_answer", field)));
        // Where every token of the answer is steered, its words may be.
        request["steering"] = JsonNode.Parse("""{"scope":"all"}""");
        Assert.That((await _served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(200));
        request["steering"] = null;
        request["messages"]![0]!["content"] = "How are you?";
        Assert.That((await _served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(200), "nothing is required of requests without images");
    }

    [Test]
    public async Task An_answer_that_the_caller_has_begun_is_refused_where_texts_are_steered_at_the_prompts_end()
    {
        const string Both = """{"version":"both","images":{"vectors":"cmrm","scope":"prefill"},"text":{"vectors":"cmrm","scope":"SCOPE"},"callers":{"*":{"may":[RIGHTS]}}}""";
        var begun = new JsonObject { ["model"] = "demo", ["prompt"] = "USER: How do I do it? ASSISTANT: Sure, first", ["max_tokens"] = 3 };
        foreach (var (scope, rights, status) in new[] { ("prefill", "", 403), ("prefill", "\"force\"", 200), ("all", "", 200) })
        {
            await using var served = await Served.StartAsync(Both.Replace("SCOPE", scope, StringComparison.Ordinal).Replace("RIGHTS", rights, StringComparison.Ordinal));
            var (code, body, _) = await served.PostAsync("/v1/completions", begun);
            Assert.That(code, Is.EqualTo(status), body.ToString());
            if (status == 403)
                Assert.That(body.GetProperty("error").GetProperty("code").GetString(), Is.EqualTo("forced_answer"));
            // An assistant's message ends a turn: the answer that follows begins anew.
            var chat = Served.Ask(images: 0);
            chat["messages"]!.AsArray().Add(new JsonObject { ["role"] = "assistant", ["content"] = "Sure, first" });
            Assert.That((await served.PostAsync("/v1/chat/completions", chat)).Status, Is.EqualTo(200));
            var ids = served.Model.Render([new("user", "How do I do it?"), new("assistant", "Sure, first")]);
            Assert.That(served.Model.Model.Tokenizer.Decode(ids).TrimEnd(), Does.EndWith("ASSISTANT:"));
        }
    }

    [Test]
    public async Task Vectors_that_the_policy_names_by_their_hash_are_not_replaced_by_others()
    {
        var key = "secret-of-the-test";
        var hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(key)));
        var pinned = ShiftVectors.Open(Path.Combine(Served.Demo, "cmrm.safetensors")).Hash;
        var policy = Served.Strict.Replace("\"alpha\":1,", $"\"alpha\":1,\"vectors_hash\":\"{pinned}\",", StringComparison.Ordinal);
        await using var served = await Served.StartAsync(policy, Key.Replace("HASH", hash, StringComparison.Ordinal));
        var file = served.Model.Vectors.Find("cmrm")!.Path!;
        var other = await File.ReadAllBytesAsync(file);
        var last = BitConverter.ToSingle(other, other.Length - 4);
        BitConverter.TryWriteBytes(other.AsSpan(other.Length - 4), last + 1);

        async Task<int> Put(string name)
        {
            using var message = new HttpRequestMessage(HttpMethod.Put, $"/admin/vectors/{name}") { Content = new ByteArrayContent(other) };
            message.Headers.Authorization = new("Bearer", key);
            return (int)(await served.Http.SendAsync(message)).StatusCode;
        }

        Assert.That(await Put("cmrm"), Is.EqualTo(422));
        await File.WriteAllBytesAsync(file, other);
        Assert.That((await served.PostAsync("/admin/vectors/reload", "", key)).Status, Is.EqualTo(422));
        Assert.That(served.Model.Vectors.Find("cmrm")!.Vectors.Hash, Is.EqualTo(pinned));
        var (code, body, _) = await served.PostAsync("/v1/chat/completions", Served.Ask(), key);
        Assert.That((code, body.GetProperty("steering_receipt").GetProperty("steering").GetProperty("vectors_hash").GetString()), Is.EqualTo((200, pinned)));
        // The way to others: under a name of their own, then a policy that names them.
        Assert.That(await Put("next"), Is.EqualTo(200));
        var next = served.Model.Vectors.Find("next")!.Vectors.Hash;
        var change = policy.Replace("\"cmrm\"", "\"next\"", StringComparison.Ordinal).Replace(pinned, next, StringComparison.Ordinal);
        Assert.That((await served.PostAsync("/admin/policy", change, key, HttpMethod.Put)).Status, Is.EqualTo(200));
        (code, body, _) = await served.PostAsync("/v1/chat/completions", Served.Ask(), key);
        Assert.That((code, body.GetProperty("steering_receipt").GetProperty("steering").GetProperty("vectors_hash").GetString()), Is.EqualTo((200, next)));
    }

    [Test]
    public async Task Vectors_weaker_than_the_policy_demands_are_taken_by_nobody()
    {
        var key = "secret-of-the-test";
        var hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(key)));
        var norm = VectorCatalog.Norm(ShiftVectors.Open(Path.Combine(Served.Demo, "cmrm.safetensors")), null);
        string Demanding(float floor) => Served.Strict.Replace("\"alpha\":1,", FormattableString.Invariant($"\"alpha\":1,\"norm_floor\":{floor},\"alternatives\":[\"other\"],"), StringComparison.Ordinal);
        await Assert.ThrowsAsync<InvalidCheckpointException>(() => Served.StartAsync(Demanding(norm * 1.01f)));
        await using var served = await Served.StartAsync(Demanding(norm * 0.9f), Key.Replace("HASH", hash, StringComparison.Ordinal));
        var good = await File.ReadAllBytesAsync(served.Model.Vectors.Find("cmrm")!.Path!);
        var weak = good.ToArray();
        foreach (ref var value in System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(weak.AsSpan(8 + (int)BitConverter.ToInt64(weak))))
            value *= 0.8f;

        async Task<int> Put(string name, byte[] bytes)
        {
            using var message = new HttpRequestMessage(HttpMethod.Put, $"/admin/vectors/{name}") { Content = new ByteArrayContent(bytes) };
            message.Headers.Authorization = new("Bearer", key);
            return (int)(await served.Http.SendAsync(message)).StatusCode;
        }

        Assert.That(await Put("cmrm", weak), Is.EqualTo(422));
        var ask = Served.Ask(steering: """{"vectors":"other"}""");
        // A name that may be chosen holds what an admin put there; where it is too weak, nobody is steered by it.
        Assert.That(await Put("other", weak), Is.EqualTo(200));
        var (code, body, _) = await served.PostAsync("/v1/chat/completions", ask, key);
        Assert.That((code, body.GetProperty("error").GetProperty("code").GetString()), Is.EqualTo((503, "steering_unavailable")), body.ToString());
        Assert.That(await Put("other", good), Is.EqualTo(200));
        Assert.That((await served.PostAsync("/v1/chat/completions", ask, key)).Status, Is.EqualTo(200));
    }

    [Test]
    public async Task Metrics_need_a_key_where_they_are_protected()
    {
        var hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes("secret")));
        await using var served = await Served.StartAsync(Served.Strict, Key.Replace("HASH", hash, StringComparison.Ordinal), new() { ProtectMetrics = true });
        Assert.That((await served.PostAsync("/metrics", "", null, HttpMethod.Get)).Status, Is.EqualTo(401));
        using var message = new HttpRequestMessage(HttpMethod.Get, "/metrics");
        message.Headers.Authorization = new("Bearer", "secret");
        using var response = await served.Http.SendAsync(message);
        Assert.That(await response.Content.ReadAsStringAsync(), Does.Contain("trimtab_"));
    }

    [Test]
    public async Task A_floor_raises_where_the_policy_says_so()
    {
        await using var served = await Served.StartAsync(Served.Strict.Replace("\"scope\":\"prefill\"", "\"scope\":\"prefill\",\"below_floor\":\"raise\"", StringComparison.Ordinal));
        var (code, body, _) = await served.PostAsync("/v1/chat/completions", Served.Ask(steering: """{"alpha":0.25}"""));
        Assert.That(code, Is.EqualTo(200), body.ToString());
        var steering = body.GetProperty("steering_receipt").GetProperty("steering");
        Assert.That((steering.GetProperty("alpha").GetSingle(), steering.GetProperty("raised_from").GetSingle()), Is.EqualTo((1f, 0.25f)));
        await served.AssertSteeredAsync(body.GetProperty("steering_receipt"), Served.ImageFile());
    }

    [Test]
    public async Task Vectors_that_go_or_turn_to_garbage_take_no_answer_with_them()
    {
        var key = "secret-of-the-test";
        var hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(key)));
        await using var served = await Served.StartAsync(Served.Strict, Key.Replace("HASH", hash, StringComparison.Ordinal));
        var file = served.Model.Vectors.Find("cmrm")!.Path!;
        var good = await File.ReadAllBytesAsync(file);
        var request = Served.Ask();

        async Task<int> Put(byte[] bytes)
        {
            using var message = new HttpRequestMessage(HttpMethod.Put, "/admin/vectors/cmrm") { Content = new ByteArrayContent(bytes) };
            message.Headers.Authorization = new("Bearer", key);
            return (int)(await served.Http.SendAsync(message)).StatusCode;
        }

        async Task Steered()
        {
            var (code, body, _) = await served.PostAsync("/v1/chat/completions", request, key);
            Assert.That(code, Is.EqualTo(200), body.ToString());
            await served.AssertSteeredAsync(body.GetProperty("steering_receipt"), Served.ImageFile());
        }

        Assert.That((await served.PostAsync("/v1/chat/completions", request)).Status, Is.EqualTo(401));
        Assert.That((await served.PostAsync("/v1/chat/completions", request, "wrong")).Status, Is.EqualTo(401));
        await Steered();
        var nan = good.ToArray();
        BitConverter.TryWriteBytes(nan.AsSpan(nan.Length - 4), float.NaN);
        var zero = good.ToArray();
        var data = 8 + (int)BitConverter.ToInt64(good);
        zero.AsSpan(data).Clear();
        foreach (var bytes in new[] { [], Encoding.UTF8.GetBytes("garbage"), good[..^7], nan, zero })
        {
            await File.WriteAllBytesAsync(file, bytes);
            Assert.That((await served.PostAsync("/admin/vectors/reload", "", key)).Status, Is.EqualTo(422));
            Assert.That(await Put(bytes), Is.EqualTo(422));
            await Steered();
        }
        Assert.That(await Put(good), Is.EqualTo(200));
        await Steered();
        Assert.That((await served.PostAsync("/admin/vectors/cmrm", "", key, HttpMethod.Delete)).Status, Is.EqualTo(200));
        var (gone, answer, headers) = await served.PostAsync("/v1/chat/completions", request, key);
        Assert.That(gone, Is.EqualTo(503), answer.ToString());
        Assert.That(headers.RetryAfter, Is.Not.Null);
        Assert.That((int)(await served.Http.GetAsync("/ready")).StatusCode, Is.EqualTo(503));
        Assert.That(served.Log, Is.Empty);
    }

    [Test]
    public async Task A_policy_that_demands_what_is_not_there_keeps_the_server_from_starting()
    {
        await Assert.ThrowsAsync<InvalidCheckpointException>(() => Served.StartAsync(Served.Strict.Replace("cmrm", "others", StringComparison.Ordinal)));
        await Assert.ThrowsAsync<InvalidCheckpointException>(() => Served.StartAsync(Served.Strict.Replace("\"alpha\":1,", $"\"alpha\":1,\"vectors_hash\":\"{new string('0', 64)}\",", StringComparison.Ordinal)));
        await Assert.ThrowsAsync<InvalidDataException>(() => Served.StartAsync(Served.Strict.Replace("\"alpha\":1,", "\"alpha\":1,\"alpha_floor\":0,", StringComparison.Ordinal)));
    }
}
