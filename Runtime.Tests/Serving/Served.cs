using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Server.Commands;
using Trimtab.Server.Serving;
using Trimtab.Steering;

namespace Trimtab.Tests.Serving;

/// <summary>A server of the demo model inside the test, on a free port.</summary>
internal sealed class Served : IAsyncDisposable
{
    /// <summary>Steers images with alpha 1 or more, and lets everybody choose whatever does not weaken that.</summary>
    public const string Strict = """
        {"version":"strict","images":{"vectors":"cmrm","alpha":1,"alpha_ceiling":8,"scope":"prefill"},"callers":{"*":{"may":["alpha","scope","layers","vectors"]}}}
        """;

    private readonly StringWriter _log = new();

    public static string Demo => Path.Combine(AppContext.BaseDirectory, "demo-vlm");

    public required SteeredModel Model { get; init; }
    public required ModelServer Server { get; init; }
    public required HttpClient Http { get; init; }
    public string Folder { get; } = Directory.CreateTempSubdirectory("trimtab-served-").FullName;

    /// <summary>What the server told of failures.</summary>
    public string Log => _log.ToString();

    public static async Task<Served> StartAsync(string? policy = null, string? keys = null, ServeOptions? options = null, EngineOptions? engine = null, string? audit = null)
    {
        var model = VisionLanguageModel.Open(Demo, new() { Threads = 1, Engine = engine ?? new() });
        var spec = model.Network.Spec.Text;
        var catalog = new VectorCatalog(spec.Layers, spec.HiddenSize, model.Network.Fingerprint);
        var copy = Path.Combine(Directory.CreateTempSubdirectory("trimtab-vectors-").FullName, "cmrm.safetensors");
        File.Copy(Path.Combine(Demo, "cmrm.safetensors"), copy);
        catalog.Put(catalog.Read("cmrm", copy));
        var rules = policy is null ? PolicyFile.Open(catalog.Find("cmrm"), SteeringScope.Prefill) : PolicyFile.Parse(Encoding.UTF8.GetBytes(policy), "policy", spec.Layers);
        var steered = new SteeredModel(model, catalog, rules, (options ?? new()) with { Port = 0, ModelName = "demo" }, audit is null ? null : AuditLog.Open(audit));
        ApiKeys? opened = null;
        if (keys is not null)
        {
            var file = Path.Combine(Path.GetDirectoryName(copy)!, "keys.json");
            await File.WriteAllTextAsync(file, keys);
            opened = ApiKeys.Open(file);
        }
        var log = new StringWriter();
        var server = await ModelServer.StartAsync(steered, opened, log);
        return new(log) { Model = steered, Server = server, Http = new() { BaseAddress = new(server.Url), Timeout = TimeSpan.FromMinutes(2) } };
    }

    private Served(StringWriter log) => _log = log;

    /// <summary>An image of the demo's test set as a data: URL.</summary>
    public static string ImageUrl(int number = 0) => "data:image/png;base64," + Convert.ToBase64String(File.ReadAllBytes(ImageFile(number)));

    public static string ImageFile(int number = 0) => Path.Combine(Demo, "data", "images", $"test-scene-{number:00}.png");

    /// <summary>A chat request about images.</summary>
    public static JsonObject Ask(string text = "How many shapes do you see?", int images = 1, string? steering = null, int tokens = 4)
    {
        var content = new JsonArray { new JsonObject { ["type"] = "text", ["text"] = text } };
        for (var i = 0; i < images; i++)
            content.Add(new JsonObject { ["type"] = "image_url", ["image_url"] = new JsonObject { ["url"] = ImageUrl(i) } });
        var request = new JsonObject
        {
            ["model"] = "demo",
            ["messages"] = new JsonArray { new JsonObject { ["role"] = "user", ["content"] = content } },
            ["max_tokens"] = tokens,
            ["temperature"] = 0,
        };
        if (steering is not null)
            request["steering"] = JsonNode.Parse(steering);
        return request;
    }

    public Task<(int Status, JsonElement Body, HttpResponseHeaders Headers)> PostAsync(string path, JsonNode body, string? key = null) => PostAsync(path, body.ToJsonString(), key);

    public async Task<(int Status, JsonElement Body, HttpResponseHeaders Headers)> PostAsync(string path, string body, string? key = null, HttpMethod? method = null)
    {
        using var request = new HttpRequestMessage(method ?? HttpMethod.Post, path) { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        if (key is not null)
            request.Headers.Authorization = new("Bearer", key);
        using var response = await Http.SendAsync(request);
        var text = await response.Content.ReadAsStringAsync();
        return ((int)response.StatusCode, text.Length > 0 ? JsonDocument.Parse(text).RootElement : default, response.Headers);
    }

    /// <summary>Sends a streamed request and reads its events.</summary>
    public async Task<List<JsonElement>> StreamAsync(string path, JsonObject body)
    {
        body["stream"] = true;
        using var response = await Http.PostAsync(path, new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json"));
        var text = await response.Content.ReadAsStringAsync();
        Assert.That((int)response.StatusCode, Is.EqualTo(200), text);
        return [.. text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(e => e[(e.IndexOf("data: ", StringComparison.Ordinal) + 6)..])
            .Where(data => data != "[DONE]").Select(data => JsonDocument.Parse(data).RootElement)];
    }

    /// <summary>Whether an answer was steered: the same made again without steering has other logits.</summary>
    public async Task AssertSteeredAsync(JsonElement receipt, params string[] images)
    {
        var read = receipt.Deserialize(Wire.Readable.Receipt)!;
        Assert.That(read.Steering.Mode, Is.Not.EqualTo("off"));
        var plain = await ReplayCommand.RunAsync(Model.Model, read with { Steering = new("off", null, null, 0, null, null, null) }, [.. images.Select(image => Image.Open(image))], null, default);
        Assert.That(plain.LogitsHash, Is.Not.EqualTo(read.Answer.LogitsHash), "the answer is the unsteered one");
    }

    public async ValueTask DisposeAsync()
    {
        Http.Dispose();
        await Server.StopAsync();
        await Server.DisposeAsync();
        Model.Dispose();
        Directory.Delete(Folder, true);
    }
}
