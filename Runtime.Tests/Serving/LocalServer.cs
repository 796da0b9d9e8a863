using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;

namespace Trimtab.Tests.Serving;

/// <summary>Servers that tests stand up beside ours.</summary>
internal static class LocalServer
{
    /// <summary>A server on a free port of this machine; its address is its <see cref="Trimtab.Server.Serving.HttpHost.Url"/>.</summary>
    public static async Task<WebApplication> StartAsync(RequestDelegate answer)
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        var app = builder.Build();
        app.Run(answer);
        await app.StartAsync();
        return app;
    }
}
