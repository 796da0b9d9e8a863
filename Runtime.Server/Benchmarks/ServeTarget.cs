using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;

namespace Trimtab.Server.Benchmarks;

/// <summary>One answer, as its client saw it.</summary>
/// <param name="FirstToken">Seconds from sending to the first text.</param>
/// <param name="Gaps">Seconds between pieces of text.</param>
/// <param name="Seconds">From sending to the end.</param>
/// <param name="PromptTokens">As the server counts.</param>
/// <param name="CachedTokens">Prompt tokens that the server says it had already; 0 where it says nothing.</param>
/// <param name="Tokens">Tokens of the answer, as the server counts.</param>
/// <param name="Error">Why there is no answer, or null.</param>
internal sealed record ServeAnswer(double FirstToken, IReadOnlyList<double> Gaps, double Seconds, int PromptTokens, int CachedTokens, int Tokens, string? Error);

/// <summary>One run against one server.</summary>
/// <param name="Clients">Clients that ask one after another; 0: requests arrive at <paramref name="Rate"/>.</param>
/// <param name="Rate">Requests a second, Poisson; 0 with clients.</param>
/// <param name="Seconds">From the first request to the last answer's end.</param>
/// <param name="Answers">One for each request.</param>
internal sealed record ServeRun(int Clients, double Rate, double Seconds, IReadOnlyList<ServeAnswer> Answers)
{
    /// <summary>Generated tokens a second over the whole run.</summary>
    public double Throughput => Answers.Sum(answer => answer.Tokens) / Seconds;

    /// <summary>Answers that failed.</summary>
    public int Errors => Answers.Count(answer => answer.Error is not null);
}

/// <summary>A server that speaks OpenAI's chat completions.</summary>
internal sealed class ServeTarget : IDisposable
{
    private readonly HttpClient _client;
    private readonly Uri _chat, _models, _vectors;
    private string? _model;

    /// <param name="name">What its rows are called.</param>
    /// <param name="endpoint">Such as http://127.0.0.1:8080/v1.</param>
    /// <param name="key">Its API key, or null.</param>
    public ServeTarget(string name, Uri endpoint, string? key)
    {
        Name = name;
        var root = endpoint.AbsoluteUri.TrimEnd('/');
        (_chat, _models, _vectors) = (new(root + "/chat/completions"), new(root + "/models"), new(root + "/steering/vectors"));
        // Every client has a connection of its own, kept open; a proxy in between would be measured too.
        _client = new(new SocketsHttpHandler { MaxConnectionsPerServer = 4096, UseProxy = false, PooledConnectionIdleTimeout = TimeSpan.FromMinutes(5) })
        {
            Timeout = Timeout.InfiniteTimeSpan,
        };
        if (key is not null)
            _client.DefaultRequestHeaders.Authorization = new("Bearer", key);
    }

    /// <summary>What its rows are called.</summary>
    public string Name { get; }

    /// <summary>Its runs in order.</summary>
    public List<ServeRun> Runs { get; } = [];

    /// <summary>Asks what its model is called.</summary>
    /// <exception cref="UsageException">There is no such server.</exception>
    public async Task OpenAsync(CancellationToken cancel)
    {
        try
        {
            using var reply = JsonDocument.Parse(await _client.GetStringAsync(_models, cancel).ConfigureAwait(false));
            _model = reply.RootElement.GetProperty("data")[0].GetProperty("id").GetString();
        }
        catch (Exception error) when (error is HttpRequestException or JsonException or KeyNotFoundException or InvalidOperationException or IndexOutOfRangeException)
        {
            throw new UsageException($"--target {Name}: {_models} does not answer with a list of models: {error.Message}");
        }
    }

    /// <summary>Name of the vectors that its answers are steered by, or null: it gets the prompts alone.</summary>
    public string? Vectors { get; private set; }

    /// <summary>Asks which vectors it has.</summary>
    /// <param name="name">Those that are wanted; null for the first.</param>
    /// <param name="cancel">Stops it.</param>
    /// <exception cref="UsageException">It has vectors, but not those.</exception>
    public async Task OpenVectorsAsync(string? name, CancellationToken cancel)
    {
        using var response = await _client.GetAsync(_vectors, cancel).ConfigureAwait(false);
        if (!response.IsSuccessStatusCode)
            return;
        try
        {
            using var reply = JsonDocument.Parse(await response.Content.ReadAsStringAsync(cancel).ConfigureAwait(false));
            var names = reply.RootElement.GetProperty("data").EnumerateArray().Select(set => set.GetProperty("name").GetString()!).ToList();
            Vectors = name is null || names.Contains(name) ? name ?? names.FirstOrDefault() : throw new UsageException($"--vectors {name}: {Name} has {(names.Count == 0 ? "none" : string.Join(", ", names))}");
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            // Whatever it lists there are no vectors.
        }
    }

    /// <summary>A fixed number of clients, each of which asks again as soon as it is answered.</summary>
    public async Task<ServeRun> ClosedAsync(ServeLoad load, int clients, int run, CancellationToken cancel)
    {
        var answers = new ServeAnswer[load.Requests];
        var next = -1;
        var start = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, clients).Select(_ => Task.Run(async () =>
        {
            for (int i; (i = Interlocked.Increment(ref next)) < answers.Length;)
                answers[i] = await AskAsync(load.Body(_model!, run, i, Vectors), cancel).ConfigureAwait(false);
        }, cancel))).ConfigureAwait(false);
        return Kept(new(clients, 0, Stopwatch.GetElapsedTime(start).TotalSeconds, answers));
    }

    /// <summary>Requests that come when they come, however many wait.</summary>
    public async Task<ServeRun> OpenLoopAsync(ServeLoad load, double rate, int run, CancellationToken cancel)
    {
        var times = load.Arrivals(rate, run);
        var start = Stopwatch.GetTimestamp();
        var answers = await Task.WhenAll(times.Select(async (time, i) =>
        {
            var body = load.Body(_model!, run, i, Vectors);
            var wait = TimeSpan.FromSeconds(time) - Stopwatch.GetElapsedTime(start);
            if (wait > TimeSpan.Zero)
                await Task.Delay(wait, cancel).ConfigureAwait(false);
            return await AskAsync(body, cancel).ConfigureAwait(false);
        })).ConfigureAwait(false);
        return Kept(new(0, rate, Stopwatch.GetElapsedTime(start).TotalSeconds, answers));
    }

    private ServeRun Kept(ServeRun run)
    {
        Runs.Add(run);
        return run;
    }

    private async Task<ServeAnswer> AskAsync(byte[] body, CancellationToken cancel)
    {
        var start = Stopwatch.GetTimestamp();
        try
        {
            using var response = await SendAsync(body, cancel).ConfigureAwait(false);
            if (response.StatusCode != HttpStatusCode.OK)
                return Failed($"HTTP {(int)response.StatusCode}");
            return await ReadAsync(response, start, cancel).ConfigureAwait(false);
        }
        catch (Exception error) when (error is HttpRequestException or IOException or JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return Failed(error.GetType().Name);
        }

        ServeAnswer Failed(string why) => new(0, [], Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 0, 0, why);
    }

    private async Task<HttpResponseMessage> SendAsync(byte[] body, CancellationToken cancel)
    {
        for (var again = false; ; again = true)
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, _chat) { Content = new ByteArrayContent(body) };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
            try
            {
                return await _client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel).ConfigureAwait(false);
            }
            catch (HttpRequestException) when (!again)
            {
                // Some servers close a kept connection just when it is used again: that is no failure of theirs.
            }
        }
    }

    /// <summary>Reads server-sent events to their end.</summary>
    private static async Task<ServeAnswer> ReadAsync(HttpResponseMessage response, long start, CancellationToken cancel)
    {
        using var stream = await response.Content.ReadAsStreamAsync(cancel).ConfigureAwait(false);
        using var reader = new StreamReader(stream);
        long last = 0;
        var (first, gaps, prompt, cached, tokens, done) = (0.0, new List<double>(), 0, 0, 0, false);
        while (await reader.ReadLineAsync(cancel).ConfigureAwait(false) is { } line)
        {
            if (!line.StartsWith("data:", StringComparison.Ordinal))
                continue;
            var data = line.AsMemory(5).Trim();
            if (data.Span is "[DONE]")
            {
                done = true;
                continue;
            }
            using var chunk = JsonDocument.Parse(data);
            if (chunk.RootElement.TryGetProperty("error", out _))
                throw new IOException("the stream ends with an error");
            if (chunk.RootElement.TryGetProperty("usage", out var usage) && usage.ValueKind == JsonValueKind.Object)
            {
                (prompt, tokens) = (usage.GetProperty("prompt_tokens").GetInt32(), usage.GetProperty("completion_tokens").GetInt32());
                if (usage.TryGetProperty("prompt_tokens_details", out var details) && details.ValueKind == JsonValueKind.Object && details.TryGetProperty("cached_tokens", out var hits))
                    cached = hits.GetInt32();
            }
            if (!HasText(chunk.RootElement))
                continue;
            var now = Stopwatch.GetTimestamp();
            if (last == 0)
                first = Stopwatch.GetElapsedTime(start, now).TotalSeconds;
            else
                gaps.Add(Stopwatch.GetElapsedTime(last, now).TotalSeconds);
            last = now;
        }
        var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        return done ? new(last == 0 ? seconds : first, gaps, seconds, prompt, cached, tokens, null) : new(0, [], seconds, 0, 0, 0, "cut off");
    }

    private static bool HasText(JsonElement chunk)
        => chunk.TryGetProperty("choices", out var choices) && choices.GetArrayLength() > 0 && choices[0].TryGetProperty("delta", out var delta)
            && delta.TryGetProperty("content", out var content) && content.ValueKind == JsonValueKind.String && content.GetString()!.Length > 0;

    public void Dispose() => _client.Dispose();
}
