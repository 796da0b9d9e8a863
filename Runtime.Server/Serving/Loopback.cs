using System.Net;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Trimtab.Server.Serving;

/// <summary>Listening, and what holds for a server that only this machine can reach.</summary>
internal static class Loopback
{
    /// <summary>Whether an address is this machine's alone.</summary>
    public static bool Is(string host) => host is "localhost" || IPAddress.TryParse(host, out var address) && IPAddress.IsLoopback(address);

    /// <summary>Listens on an IP address or localhost.</summary>
    public static void Listen(this KestrelServerOptions kestrel, string host, int port)
    {
        if (host == "localhost")
            kestrel.ListenLocalhost(port);
        else
            kestrel.Listen(IPAddress.Parse(host), port);
    }

    /// <summary>Against foreign pages whose name was made to lead to this machine.</summary>
    /// <param name="context">The request.</param>
    /// <param name="cure">What lets the server answer under other names.</param>
    /// <exception cref="ApiException">It asks for another name than this machine's.</exception>
    public static void CheckHost(HttpContext context, string cure)
    {
        var host = context.Request.Host.Host;
        if (!host.Equals("localhost", StringComparison.OrdinalIgnoreCase) && !(IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address)))
            throw new ApiException(421, $"Host: this server answers only under localhost or a loopback address; {cure}", null, "host_not_allowed");
    }
}
