using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Trimtab.Server.Serving;
using Yarp.ReverseProxy.Forwarder;

namespace Trimtab.Server.Routing;

/// <summary>
/// Replicas behind one address. A request goes to the replica that its prompt's beginning belongs to (<see cref="PromptPrefix"/>), which has
/// its keys and values; what a replica does not begin to answer is tried on the next. YARP carries bytes; where they go is decided here.
/// </summary>
internal sealed class Router : IAsyncDisposable
{
    /// <summary>Name of the meter.</summary>
    public const string Name = "Trimtab.Router";

    private readonly WebApplication _app;
    private readonly RouteOptions _options;
    private readonly TextWriter _log;
    private readonly IHttpForwarder _forwarder;
    private readonly HttpMessageInvoker _client;
    private readonly ForwarderRequestConfig _config;
    private readonly RetryBudget _budget;
    private readonly MemoryBudget _memory;
    private readonly ReplicaSet _replicas;
    private readonly Meter _meter = new(Name);
    private readonly Counter<long> _requests, _retries;
    private int _open;
    private volatile bool _draining;

    private Router(WebApplication app, RouteOptions options, TextWriter log)
    {
        (_app, _options, _log, _budget, _memory) = (app, options, log, new(options.RetryBudget), new(options.MaxMemory));
        _forwarder = app.Services.GetRequiredService<IHttpForwarder>();
        _client = new(Handler());
        _replicas = new(options, log);
        _config = new() { ActivityTimeout = options.AnswerTime, Version = HttpVersion.Version11, VersionPolicy = HttpVersionPolicy.RequestVersionExact };
        _requests = _meter.CreateCounter<long>("trimtab.router.requests", description: "Requests by the replica that they went to and the status that it gave; 0 for none.");
        _retries = _meter.CreateCounter<long>("trimtab.router.retries", description: "Requests that went on to a further replica, by the one that failed them.");
        _meter.CreateObservableGauge("trimtab.router.ready", () => _replicas.All.Select(replica => new Measurement<int>(replica.Ready ? 1 : 0, Tag(replica))), description: "Whether a replica takes requests.");
        _meter.CreateObservableGauge("trimtab.router.open", () => _replicas.All.Select(replica => new Measurement<int>(replica.Open, Tag(replica))), description: "Requests that a replica has now.");
    }

    /// <summary>Where it listens.</summary>
    public string Url { get; private set; } = "";

    /// <summary>The replicas of this moment.</summary>
    public IReadOnlyList<Replica> Replicas => _replicas.All;

    /// <summary>Starts a router, once every replica has been asked whether it is ready.</summary>
    /// <param name="options">What it is told.</param>
    /// <param name="log">Is told of replicas that come and go.</param>
    /// <param name="cancel">Stops starting.</param>
    public static async Task<Router> StartAsync(RouteOptions options, TextWriter log, CancellationToken cancel = default)
    {
        var builder = HttpHost.Builder(options.Host, options.Port, options.MaxBody, options.MaxRequests, options.DrainTime);
        builder.Services.AddHttpForwarder();
        Telemetry.Add(builder, "trimtab-router", Name, "Yarp.ReverseProxy");
        var app = builder.Build();
        var router = new Router(app, options, log);
        try
        {
            app.Lifetime.ApplicationStopping.Register(() => router._draining = true);
            app.UseRouting();
            app.MapGet("/health", router.Guard(context => Exchange.SendAsync(context, new("ok"), Wire.Readable.Health, 200)));
            app.MapGet("/ready", router.Guard(router.ReadyAsync));
            app.MapPrometheusScrapingEndpoint("/metrics").Add(endpoint => endpoint.RequestDelegate = router.Guard(endpoint.RequestDelegate!));
            app.MapFallback("/admin/{**rest}", router.Guard(_ => throw new ApiException(404, "a change goes to one replica alone: ask each of them, not the router", null, "not_found")));
            app.MapFallback("{**path}", router.Guard(router.ForwardAsync));
            await router._replicas.StartAsync(cancel).ConfigureAwait(false);
            await app.StartAsync(cancel).ConfigureAwait(false);
            router.Url = app.Url();
            return router;
        }
        catch
        {
            await router.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Waits until it is told to end and its requests have.</summary>
    public Task WaitAsync() => _app.WaitForShutdownAsync();

    /// <summary>Takes no more requests, and waits for those that run, at most for the drain's time.</summary>
    public Task StopAsync() => _app.StopAsync();

    private Task ReadyAsync(HttpContext context)
    {
        var reason = _draining ? "the router is about to end" : _replicas.All.Any(replica => replica.Ready || replica.Slow) ? null : NoneReady();
        return Exchange.SendAsync(context, new(reason is null ? "ready" : "not_ready", reason), Wire.Readable.Health, reason is null ? 200 : 503);
    }

    private async Task ForwardAsync(HttpContext context)
    {
        _budget.Earn();
        // Kept until the answer begins: a replica that fails before it leaves the request whole for the next.
        using var memory = _memory.Open();
        var body = await Exchange.ReadBytesAsync(context, _options.MaxBody, _options.BodyTime, memory).ConfigureAwait(false);
        context.Request.Headers.Remove("Expect"); // the body is here
        var key = PromptPrefix.Key(context.Request.Path, body, _options.Prefix);
        var candidates = Replica.Order(_replicas.All, key, _options.Spill);
        var attempts = Math.Min(_options.Attempts, candidates.Count);
        for (var attempt = 0; attempt < attempts; attempt++)
        {
            var (replica, last) = (candidates[attempt], attempt + 1 == attempts);
            var outcome = new Outcome(() => !last && _budget.TrySpend());
            if (body.Count > 0)
                context.Request.Body = new MemoryStream(body.Array!, body.Offset, body.Count, writable: false);
            replica.Enter();
            ForwarderError error;
            try
            {
                error = await _forwarder.SendAsync(context, replica.Url, _client, _config, outcome, context.RequestAborted).ConfigureAwait(false);
            }
            finally
            {
                replica.Leave();
            }
            _requests.Add(1, Tag(replica), new("status", outcome.Status));
            var failed = IsReplicas(error, context.GetForwarderErrorFeature()?.Exception);
            if (failed && error == ForwarderError.Request)
                _replicas.Fail(replica, "it takes no connection, or broke it");
            // What has begun to be told cannot be told again; a client that is gone wants nothing.
            if (error == ForwarderError.None && !outcome.Again || context.Response.HasStarted || context.RequestAborted.IsCancellationRequested)
                return;
            context.Response.Clear();
            if (error == ForwarderError.Request && !failed)
                throw new ApiException(400, "the request cannot be sent on: its head has what HTTP does not allow");
            if (!outcome.Again && (last || !failed || !_budget.TrySpend()))
                break;
            _retries.Add(1, Tag(replica));
        }
        if (context.RequestAborted.IsCancellationRequested)
            return;
        throw candidates.Count == 0
            ? new ApiException(503, NoneReady(), null, "no_replica") { RetryAfter = _options.Probe }
            : new ApiException(503, "no replica answered", null, "no_replica") { RetryAfter = TimeSpan.FromSeconds(1) };
    }

    /// <summary>
    /// Whether it is the replica that failed, so that another may do better. One that takes too long is not tried again: another would take as long.
    /// A request that cannot be sent at all is the caller's, and must not make replicas look dead.
    /// </summary>
    private static bool IsReplicas(ForwarderError error, Exception? exception) => error switch
    {
        ForwarderError.RequestBodyDestination or ForwarderError.ResponseHeaders or ForwarderError.ResponseBodyDestination => true,
        ForwarderError.Request => exception is HttpRequestException { HttpRequestError: not HttpRequestError.Unknown } or { InnerException: IOException or SocketException } or IOException,
        _ => false,
    };

    private string NoneReady()
        => _replicas.All.Count == 0 ? "there is no replica" : $"no replica is ready: {string.Join("; ", _replicas.All.Select(replica => replica.Reason).Distinct())}";

    private RequestDelegate Guard(RequestDelegate run) => async context =>
    {
        var open = Interlocked.Increment(ref _open);
        try
        {
            if (Loopback.Is(_options.Host))
                Loopback.CheckHost(context, "start it with another --host for other names");
            if (open > _options.MaxRequests)
                throw new ApiException(429, $"the router has {_options.MaxRequests} requests open and takes no more", null, "too_many_requests") { RetryAfter = TimeSpan.FromSeconds(2) };
            await run(context).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // Nobody is there to be told.
        }
        catch (Exception error)
        {
            await Exchange.RefuseAsync(context, await HttpHost.RefusalAsync(context, error, _options.MaxBody, _log).ConfigureAwait(false)).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _open);
        }
    };

    private static KeyValuePair<string, object?> Tag(Replica replica) => new("replica", replica.Url);

    private static SocketsHttpHandler Handler() => new()
    {
        UseProxy = false,
        UseCookies = false,
        AllowAutoRedirect = false,
        AutomaticDecompression = DecompressionMethods.None,
        ConnectTimeout = TimeSpan.FromSeconds(3),
        PooledConnectionIdleTimeout = TimeSpan.FromSeconds(60),
        ActivityHeadersPropagator = new ReverseProxyPropagator(DistributedContextPropagator.Current),
        ConnectCallback = async (context, cancel) =>
        {
            var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            try
            {
                // A machine that is gone says nothing: the system asks, and ends the connection after about 25 s.
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
                socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 10);
                socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 5);
                socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 3);
                await socket.ConnectAsync(context.DnsEndPoint, cancel).ConfigureAwait(false);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        },
    };

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _replicas.DisposeAsync().ConfigureAwait(false);
        await _app.DisposeAsync().ConfigureAwait(false);
        _client.Dispose();
        _meter.Dispose();
    }

    /// <summary>Looks at what a replica says before any of it goes to the client.</summary>
    /// <param name="another">Whether another replica may be tried.</param>
    private sealed class Outcome(Func<bool> another) : HttpTransformer
    {
        /// <summary>The replica's status, or 0.</summary>
        public int Status { get; private set; }

        /// <summary>Whether the replica could not answer, and another may.</summary>
        public bool Again { get; private set; }

        public override async ValueTask<bool> TransformResponseAsync(HttpContext context, HttpResponseMessage? response, CancellationToken cancel)
        {
            Status = (int?)response?.StatusCode ?? 0;
            Again = Status is 429 or 502 or 503 or 504 && another();
            return !Again && await base.TransformResponseAsync(context, response, cancel).ConfigureAwait(false);
        }
    }
}
