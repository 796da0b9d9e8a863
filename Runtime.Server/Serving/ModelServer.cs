using System.Collections.Concurrent;
using System.Diagnostics;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Hosting;

namespace Trimtab.Server.Serving;

/// <summary>Who may use a route.</summary>
internal enum Access
{
    /// <summary>Everybody, key or not.</summary>
    Open,
    /// <summary>Everybody with a key, without counting as a request.</summary>
    Key,
    /// <summary>Everybody with a key, or everybody where the server has none.</summary>
    Caller,
    /// <summary>Admin keys alone.</summary>
    Admin,
}

/// <summary>The HTTP server of a steered model.</summary>
internal sealed class ModelServer : IAsyncDisposable
{
    private static readonly string[] Look = ["GET", "HEAD"];
    private readonly WebApplication _app;
    private readonly SteeredModel _model;
    private readonly ApiKeys? _keys;
    private readonly ImageSource _images;
    private readonly MemoryBudget _memory;
    private readonly TextWriter _log;
    private readonly ConcurrentDictionary<string, int> _open = new();
    private int _all;
    private volatile bool _draining;

    private ModelServer(WebApplication app, SteeredModel model, ApiKeys? keys, TextWriter log)
        => (_app, _model, _keys, _log, _images, _memory) = (app, model, keys, log, new(model.Options), new(model.Options.MaxMemory));

    /// <summary>Where it listens.</summary>
    public string Url { get; private set; } = "";

    /// <summary>Whether it takes no new requests because it is about to end.</summary>
    public bool Draining => _draining;

    /// <summary>Starts a server.</summary>
    /// <param name="model">The model; stays the caller's.</param>
    /// <param name="keys">API keys, or null for none.</param>
    /// <param name="log">Is told of failures.</param>
    /// <param name="cancel">Stops starting.</param>
    public static async Task<ModelServer> StartAsync(SteeredModel model, ApiKeys? keys, TextWriter log, CancellationToken cancel = default)
    {
        var options = model.Options;
        var builder = HttpHost.Builder(options.Host, options.Port, options.MaxBody, options.MaxRequests, options.DrainTime);
        Telemetry.Add(builder, "trimtab", ServingMetrics.Name, ServingMetrics.Name);
        var app = builder.Build();
        var server = new ModelServer(app, model, keys, log);
        app.Lifetime.ApplicationStopping.Register(() => server._draining = true);
        app.UseRouting();
        server.Map();
        app.MapPrometheusScrapingEndpoint("/metrics").Add(endpoint =>
        {
            var scrape = endpoint.RequestDelegate!;
            endpoint.RequestDelegate = server.Guard(options.ProtectMetrics ? Access.Key : Access.Open, exchange => scrape(exchange.Context));
        });
        app.MapFallback("{**path}", server.Guard(Access.Open, exchange => throw new ApiException(404, $"there is no {exchange.Context.Request.Method} {exchange.Context.Request.Path}", null, "not_found")));
        await app.StartAsync(cancel).ConfigureAwait(false);
        server.Url = app.Url();
        return server;
    }

    /// <summary>Waits until it is told to end (SIGTERM, SIGINT or <see cref="StopAsync"/>) and its answers have.</summary>
    public Task WaitAsync() => _app.WaitForShutdownAsync();

    /// <summary>Takes no more requests, and waits for those that run, at most for the drain's time.</summary>
    public Task StopAsync() => _app.StopAsync();

    /// <summary>Requests that run.</summary>
    public int Requests => Volatile.Read(ref _all);

    /// <summary>Memory that they hold before the engine has them.</summary>
    public MemoryBudget Memory => _memory;

    private void Map()
    {
        _app.MapPost("/v1/chat/completions", Guard(Access.Caller, ChatCompletions.RunAsync));
        _app.MapPost("/v1/completions", Guard(Access.Caller, Completions.RunAsync));
        _app.MapPost("/v1/responses", Guard(Access.Caller, Responses.RunAsync));
        _app.MapPost("/tokenize", Guard(Access.Caller, ModelRoutes.TokenizeAsync));
        _app.MapPost("/detokenize", Guard(Access.Caller, ModelRoutes.DetokenizeAsync));
        _app.MapGet("/v1/models", Guard(Access.Caller, ModelRoutes.ModelsAsync));
        _app.MapGet("/v1/models/{*name}", Guard(Access.Caller, ModelRoutes.ModelAsync));
        _app.MapGet("/v1/steering/vectors", Guard(Access.Caller, ModelRoutes.VectorsAsync));
        _app.MapMethods("/health", Look, Guard(Access.Open, exchange => exchange.SendAsync(new("ok"), Wire.Readable.Health)));
        _app.MapMethods("/ready", Look, Guard(Access.Open, ReadyAsync));
        _app.MapPost("/admin/vectors/reload", Guard(Access.Admin, AdminRoutes.ReloadAsync));
        _app.MapPut("/admin/vectors/{name}", Guard(Access.Admin, AdminRoutes.PutAsync));
        _app.MapDelete("/admin/vectors/{name}", Guard(Access.Admin, AdminRoutes.DeleteAsync));
        _app.MapPut("/admin/policy", Guard(Access.Admin, AdminRoutes.PolicyAsync));
        foreach (var (path, file, type) in new[] { ("/", "index.html", "text/html"), ("/page.css", "page.css", "text/css"), ("/page.js", "page.js", "text/javascript") })
            _app.MapGet(path, Guard(Access.Open, exchange => PageAsync(exchange, file, type)));
    }

    private Task ReadyAsync(Exchange exchange)
    {
        var reason = _draining ? "the server is about to end" : _model.ImagesRefused;
        return exchange.SendAsync(new(reason is null ? "ready" : "not_ready", reason), Wire.Readable.Health, reason is null ? 200 : 503);
    }

    private static async Task PageAsync(Exchange exchange, string file, string type)
    {
        using var page = typeof(ModelServer).Assembly.GetManifestResourceStream($"Trimtab.Server.Page.{file}")
            ?? throw new ApiException(404, "this build of the server has no page", null, "not_found");
        var response = exchange.Context.Response;
        response.ContentType = $"{type}; charset=utf-8";
        response.Headers.CacheControl = "no-cache";
        response.Headers.ContentSecurityPolicy =
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        await page.CopyToAsync(response.Body, exchange.Cancel).ConfigureAwait(false);
    }

    /// <summary>What stands before every route: who asks, how many ask, and how errors leave.</summary>
    private RequestDelegate Guard(Access access, Func<Exchange, Task> run) => async context =>
    {
        context.Response.Headers.XContentTypeOptions = "nosniff";
        var started = Stopwatch.GetTimestamp();
        Caller? counted = null;
        using var memory = _memory.Open();
        try
        {
            if (_keys is null && _model.Options.Loopback)
                Loopback.CheckHost(context, "start it with --api-keys for other names");
            var caller = access == Access.Open ? Caller.Anonymous : Authenticate(context, access);
            if (access is Access.Caller or Access.Admin)
            {
                Enter(caller);
                counted = caller;
            }
            await run(new(context, caller, _model, _images, memory, started)).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // Nobody is there to be told.
        }
        catch (Exception error)
        {
            await FailAsync(context, error).ConfigureAwait(false);
        }
        finally
        {
            if (counted is not null)
                Leave(counted);
        }
    };

    private Caller Authenticate(HttpContext context, Access access)
    {
        if (_keys is null)
        {
            return access == Access.Admin
                ? throw new ApiException(403, "the server has no keys, so nobody is its admin; start it with --api-keys", null, "no_admin")
                : Caller.Anonymous;
        }
        var header = context.Request.Headers.Authorization.ToString();
        if (!header.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase))
            throw new ApiException(401, "Authorization: is missing; expected Bearer and an API key", null, "missing_api_key");
        var caller = _keys.Find(header["Bearer ".Length..].Trim()) ?? throw new ApiException(401, "Authorization: there is no such API key", null, "invalid_api_key");
        return access == Access.Admin && !caller.Admin
            ? throw new ApiException(403, $"the key {caller.Id} is no admin's", null, "not_admin")
            : caller;
    }

    private void Enter(Caller caller)
    {
        if (_draining)
            throw new ApiException(503, "the server is about to end", null, "draining") { RetryAfter = TimeSpan.FromSeconds(5) };
        if (Interlocked.Increment(ref _all) > _model.Options.MaxRequests)
        {
            Interlocked.Decrement(ref _all);
            throw new ApiException(429, $"the server has {_model.Options.MaxRequests} requests open and takes no more", null, "too_many_requests") { RetryAfter = TimeSpan.FromSeconds(2) };
        }
        var own = _open.AddOrUpdate(caller.Id, 1, (_, count) => count + 1);
        if (caller.MaxRequests == 0 || own <= caller.MaxRequests)
            return;
        Leave(caller);
        throw new ApiException(429, $"the key {caller.Id} has {caller.MaxRequests} requests open and may have no more", null, "too_many_requests") { RetryAfter = TimeSpan.FromSeconds(1) };
    }

    private void Leave(Caller caller)
    {
        _open.AddOrUpdate(caller.Id, 0, (_, count) => count - 1);
        Interlocked.Decrement(ref _all);
    }

    /// <summary>Tells a failure: in a stream that has begun as its last event, else as OpenAI's error object.</summary>
    private async Task FailAsync(HttpContext context, Exception error)
    {
        var refusal = await HttpHost.RefusalAsync(context, error, _model.Options.MaxBody, _log).ConfigureAwait(false);
        _model.Metrics.Refused(refusal.Code ?? "invalid");
        try
        {
            if (context.Response.HasStarted && context.Features.Get<EventStream>() is { } stream)
                await stream.Failing(refusal.Body.Error).ConfigureAwait(false);
            else
                await Exchange.RefuseAsync(context, refusal).ConfigureAwait(false);
        }
        catch (Exception lost) when (lost is OperationCanceledException or IOException or InvalidOperationException)
        {
            context.Abort();
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync().ConfigureAwait(false);
        _images.Dispose();
    }
}
