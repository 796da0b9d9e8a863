using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Trimtab.Server.Serving;

namespace Trimtab.Server.Routing;

/// <summary>The replicas that there are, asked again and again whether they are ready. Those behind a name come and go with its addresses.</summary>
internal sealed class ReplicaSet : IAsyncDisposable
{
    private readonly RouteOptions _options;
    private readonly TextWriter _log;
    private readonly HttpClient _http;
    private readonly CancellationTokenSource _stop = new();
    private IReadOnlyList<Replica> _all;
    private Task _probing = Task.CompletedTask;

    public ReplicaSet(RouteOptions options, TextWriter log)
    {
        (_options, _log) = (options, TextWriter.Synchronized(log));
        _all = [.. options.Replicas.Select(Address).Distinct().Select(url => new Replica(url))];
        _http = new(new SocketsHttpHandler { UseProxy = false, AllowAutoRedirect = false, PooledConnectionLifetime = TimeSpan.FromMinutes(1) }) { Timeout = options.Probe };
    }

    /// <summary>The replicas of this moment.</summary>
    public IReadOnlyList<Replica> All => Volatile.Read(ref _all);

    /// <summary>Asks all of them once, and goes on asking.</summary>
    public async Task StartAsync(CancellationToken cancel)
    {
        await ProbeAsync(cancel).ConfigureAwait(false);
        _probing = Task.Run(async () =>
        {
            using var timer = new PeriodicTimer(_options.Probe);
            while (await timer.WaitForNextTickAsync(_stop.Token).ConfigureAwait(false))
                await ProbeAsync(_stop.Token).ConfigureAwait(false);
        }, CancellationToken.None);
    }

    /// <summary>A replica failed at a request.</summary>
    public void Fail(Replica replica, string reason) => Tell(replica, () => replica.Fail(reason));

    private async Task ProbeAsync(CancellationToken cancel)
    {
        if (_options.Discover.Count > 0)
            await DiscoverAsync(cancel).ConfigureAwait(false);
        await Task.WhenAll(All.Select(replica => ProbeAsync(replica, cancel))).ConfigureAwait(false);
    }

    private async Task ProbeAsync(Replica replica, CancellationToken cancel)
    {
        try
        {
            using var response = await _http.GetAsync(new Uri($"{replica.Url}/ready"), cancel).ConfigureAwait(false);
            var reason = response.IsSuccessStatusCode ? null : await ReasonAsync(response, cancel).ConfigureAwait(false);
            Tell(replica, () =>
            {
                if (reason is null)
                    replica.Succeed();
                else
                    replica.Fail(reason);
            });
        }
        catch (Exception error) when (error is HttpRequestException or IOException or OperationCanceledException && !cancel.IsCancellationRequested)
        {
            Tell(replica, () => replica.Miss(error is OperationCanceledException ? "it does not answer in time" : "it does not answer", slow: error is OperationCanceledException));
        }
    }

    private static async Task<string> ReasonAsync(HttpResponseMessage response, CancellationToken cancel)
    {
        try
        {
            var bytes = await response.Content.ReadAsByteArrayAsync(cancel).ConfigureAwait(false);
            if (JsonSerializer.Deserialize(bytes, Wire.Readable.Health)?.Reason is { Length: > 0 and < 1000 } reason)
                return reason;
        }
        catch (JsonException)
        {
        }
        return $"it answers /ready with HTTP {(int)response.StatusCode}";
    }

    /// <summary>A name that cannot be looked up now leaves its replicas as they are: they may well be there.</summary>
    private async Task DiscoverAsync(CancellationToken cancel)
    {
        var urls = new List<string>(_options.Replicas.Select(Address));
        foreach (var name in _options.Discover)
        {
            try
            {
                foreach (var address in await Dns.GetHostAddressesAsync(name.IdnHost, cancel).ConfigureAwait(false))
                    urls.Add(Address(new UriBuilder(name) { Host = address.ToString() }.Uri));
            }
            catch (SocketException)
            {
                urls.AddRange(All.Select(replica => replica.Url));
            }
        }
        var now = All;
        var next = urls.Distinct().Order(StringComparer.Ordinal).Select(url => now.FirstOrDefault(replica => replica.Url == url) ?? new Replica(url)).ToList();
        foreach (var gone in now.Except(next))
            _log.WriteLine($"trimtab: the replica {gone.Url} is gone");
        Volatile.Write(ref _all, next);
    }

    private void Tell(Replica replica, Action change)
    {
        var before = replica.Reason;
        change();
        if (before is null != replica.Reason is null)
            _log.WriteLine($"trimtab: the replica {replica.Url} {(replica.Reason is { } reason ? $"is not ready: {reason}" : "is ready")}");
    }

    private static string Address(Uri url) => url.GetLeftPart(UriPartial.Authority);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        try
        {
            await _probing.ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
        }
        _http.Dispose();
        _stop.Dispose();
    }
}
