using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Trimtab.Server.Serving;

/// <summary>Metrics at /metrics, and metrics and traces by OTLP where OpenTelemetry's environment variables say where to.</summary>
internal static class Telemetry
{
    /// <summary>Adds it to a server.</summary>
    /// <param name="builder">The server's builder, an empty one.</param>
    /// <param name="service">Name of the service where the environment gives no other.</param>
    /// <param name="meter">Its meter.</param>
    /// <param name="sources">Its sources of traces, beside HTTP's own.</param>
    public static void Add(WebApplicationBuilder builder, string service, string meter, params string[] sources)
    {
        // The builder is empty, so the exporters would not see these.
        builder.Configuration.AddInMemoryCollection(Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>()
            .Where(entry => ((string)entry.Key).StartsWith("OTEL_", StringComparison.Ordinal))
            .Select(entry => KeyValuePair.Create((string)entry.Key, (string?)entry.Value)));
        bool Exported(string signal) => !string.IsNullOrEmpty(builder.Configuration["OTEL_EXPORTER_OTLP_ENDPOINT"])
            || !string.IsNullOrEmpty(builder.Configuration[$"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"]);
        var telemetry = builder.Services.AddOpenTelemetry().ConfigureResource(resource => resource.AddService(service).AddEnvironmentVariableDetector()).WithMetrics(metrics =>
        {
            metrics.AddMeter(meter).AddPrometheusExporter();
            if (Exported("METRICS"))
                metrics.AddOtlpExporter();
        });
        if (Exported("TRACES"))
        {
            telemetry.WithTracing(traces => traces.AddSource(sources)
                .AddAspNetCoreInstrumentation(requests => requests.Filter = context => !IsProbe(context.Request.Path)).AddOtlpExporter());
        }
    }

    /// <summary>Whether a path is asked for every few seconds, and says nothing in a trace.</summary>
    private static bool IsProbe(PathString path) => path.Value is "/health" or "/ready" or "/metrics";
}
