using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Trimtab.Server.Serving;

/// <summary>What the server of a model and the router before several are alike in: how they listen, what a connection may cost, how failures are told.</summary>
internal static class HttpHost
{
    /// <summary>A builder that listens and does nothing else.</summary>
    /// <param name="host">IP address or localhost.</param>
    /// <param name="port">Port; 0 for any that is free.</param>
    /// <param name="maxBody">Longest body in bytes.</param>
    /// <param name="maxRequests">Most requests at a time.</param>
    /// <param name="drain">Longest time from SIGTERM to the end.</param>
    public static WebApplicationBuilder Builder(string host, int port, long maxBody, int maxRequests, TimeSpan drain)
    {
        // A line ends with CR LF: what ends with LF alone another server may read otherwise.
        AppContext.SetSwitch("Microsoft.AspNetCore.Server.Kestrel.DisableHttp1LineFeedTerminators", true);
        // No arguments, environment or appsettings.json of the folder it runs in: what it does is what its options say.
        var builder = WebApplication.CreateEmptyBuilder(new() { ApplicationName = "trimtab" });
        builder.Logging.ClearProviders();
        builder.Services.AddRoutingCore();
        builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = drain);
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = maxBody;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(15);
            kestrel.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(120);
            // Counts only while something waits to be taken: a stream's pauses between tokens do not.
            kestrel.Limits.MinResponseDataRate = new(16 << 10, TimeSpan.FromSeconds(30));
            kestrel.Limits.MaxConcurrentConnections = 4L * maxRequests + 64;
            kestrel.Listen(host, port);
        });
        return builder;
    }

    /// <summary>Where a server listens that has started.</summary>
    public static string Url(this WebApplication app) => app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First();

    /// <summary>What a caller is told of a failure. What went wrong inside stays inside: the log alone has it.</summary>
    public static async Task<ApiException> RefusalAsync(HttpContext context, Exception error, long maxBody, TextWriter log)
    {
        switch (error)
        {
            case ApiException api:
                return api;
            case Engine.EngineBusyException busy:
                return new(429, busy.Message, null, "engine_busy") { RetryAfter = busy.RetryAfter };
            case Text.ConstraintTooCostlyException costly:
                return ApiException.Invalid("response_format", costly.Message, "invalid_json_schema");
            case Microsoft.AspNetCore.Http.BadHttpRequestException { StatusCode: 413 }:
                return TooLong(maxBody);
            case Microsoft.AspNetCore.Http.BadHttpRequestException bad:
                return new(bad.StatusCode, "the request is not valid HTTP, or came too slowly");
            case OperationCanceledException:
                return new(503, "the answer was cancelled", null, "cancelled") { RetryAfter = TimeSpan.FromSeconds(1) };
            default:
                await log.WriteLineAsync($"trimtab: {context.Request.Method} {context.Request.Path} failed: {error}").ConfigureAwait(false);
                return new(500, "the server failed; its log says why", null, "internal");
        }
    }

    /// <summary>A body above the limit.</summary>
    public static ApiException TooLong(long maxBody) => new(413, $"the body is longer than {maxBody} bytes", null, "body_too_large");
}
