using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

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
    private readonly WebApplication _app;
    private readonly SteeredModel _model;
    private readonly ApiKeys? _keys;
    private readonly ImageSource _images;
    private readonly TextWriter _log;
    private readonly ConcurrentDictionary<string, int> _open = new();
    private int _all;
    private volatile bool _draining;

    private ModelServer(WebApplication app, SteeredModel model, ApiKeys? keys, TextWriter log)
        => (_app, _model, _keys, _log, _images) = (app, model, keys, log, new(model.Options));

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
        // No arguments, environment or appsettings.json of the folder it runs in: what it does is what its options say.
        var builder = WebApplication.CreateEmptyBuilder(new() { ApplicationName = "trimtab" });
        builder.Logging.ClearProviders();
        builder.Services.AddRoutingCore();
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = options.DrainTime);
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = options.MaxBody;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(15);
            kestrel.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(120);
            kestrel.Limits.MaxConcurrentConnections = 4L * options.MaxRequests + 64;
            kestrel.Listen(options.Host, options.Port);
        });
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
        app.MapFallback(server.Guard(Access.Open, exchange => throw new ApiException(404, $"there is no {exchange.Context.Request.Method} {exchange.Context.Request.Path}", null, "not_found")));
        await app.StartAsync(cancel).ConfigureAwait(false);
        server.Url = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First();
        return server;
    }

    /// <summary>Waits until it is told to end (SIGTERM, SIGINT or <see cref="StopAsync"/>) and its answers have.</summary>
    public Task WaitAsync() => _app.WaitForShutdownAsync();

    /// <summary>Takes no more requests, and waits for those that run, at most for the drain's time.</summary>
    public Task StopAsync() => _app.StopAsync();

    /// <summary>Requests that run.</summary>
    public int Requests => Volatile.Read(ref _all);

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
        _app.MapGet("/health", Guard(Access.Open, exchange => exchange.SendAsync(new("ok"), Wire.Readable.Health)));
        _app.MapGet("/ready", Guard(Access.Open, ReadyAsync));
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
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        await page.CopyToAsync(response.Body, exchange.Cancel).ConfigureAwait(false);
    }

    /// <summary>What stands before every route: who asks, how many ask, and how errors leave.</summary>
    private RequestDelegate Guard(Access access, Func<Exchange, Task> run) => async context =>
    {
        context.Response.Headers.XContentTypeOptions = "nosniff";
        Caller? counted = null;
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
            await run(new(context, caller, _model, _images)).ConfigureAwait(false);
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

    /// <summary>Sends OpenAI's error object, in a stream that has begun as its last event. What went wrong inside stays inside.</summary>
    private async Task FailAsync(HttpContext context, Exception error)
    {
        var refusal = error switch
        {
            ApiException api => api,
            Engine.EngineBusyException busy => new(429, busy.Message, null, "engine_busy") { RetryAfter = busy.RetryAfter },
            Microsoft.AspNetCore.Http.BadHttpRequestException { StatusCode: 413 } => new(413, $"the body is longer than {_model.Options.MaxBody} bytes", null, "body_too_large"),
            Microsoft.AspNetCore.Http.BadHttpRequestException bad => new(bad.StatusCode, "the request is not valid HTTP, or came too slowly"),
            OperationCanceledException => new(503, "the answer was cancelled", null, "cancelled") { RetryAfter = TimeSpan.FromSeconds(1) },
            _ => new ApiException(500, "the server failed; its log says why", null, "internal"),
        };
        if (refusal.Code == "internal")
            await _log.WriteLineAsync($"trimtab: {context.Request.Method} {context.Request.Path} failed: {error}").ConfigureAwait(false);
        try
        {
            if (context.Response.HasStarted && context.Response.ContentType?.StartsWith("text/event-stream", StringComparison.Ordinal) == true)
                await new EventStream(context, _model.Options.WriteTime).SendAsync(null, refusal.Body, Wire.Readable.ErrorBody).ConfigureAwait(false);
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
