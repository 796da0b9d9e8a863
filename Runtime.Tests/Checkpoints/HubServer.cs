using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Trimtab.Tests.Checkpoints;

/// <summary>A hub on the loopback interface, with a second listener as the host that large files are redirected to.</summary>
internal sealed class HubServer : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";

    private readonly HttpListener _hub;
    private readonly HttpListener _cdn;

    public HubServer()
    {
        (_hub, Endpoint) = Listen();
        (_cdn, Cdn) = Listen();
        _ = ServeAsync(_hub, "hub", AnswerHub);
        _ = ServeAsync(_cdn, "cdn", AnswerCdn);
    }

    public record Request(string Host, string Method, string Path, string? Authorization, string? Range);

    public Uri Endpoint { get; }

    public Uri Cdn { get; }

    public string Repository { get; } = "org/name";

    public SortedDictionary<string, byte[]> Files { get; } = new(StringComparer.Ordinal);

    /// <summary>Whether the listing tells sizes and checksums.</summary>
    public bool TellsBlobs { get; set; } = true;

    /// <summary>Answers instead of the server; true when it did.</summary>
    public Func<Request, HttpListenerContext, bool> Instead { get; set; } = (_, _) => false;

    /// <summary>The listing instead of the true one.</summary>
    public string? Listing { get; set; }

    public ConcurrentQueue<Request> Requests { get; } = new();

    public IEnumerable<Request> Bodies => Requests.Where(r => r.Method == "GET" && !r.Path.StartsWith("/api/", StringComparison.Ordinal));

    public static string Sha256(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));

    /// <summary>What <c>git hash-object</c> prints.</summary>
    public static string GitSha1(byte[] content)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        hash.AppendData(Encoding.ASCII.GetBytes($"blob {content.Length}\0"));
        hash.AppendData(content);
        return Convert.ToHexStringLower(hash.GetCurrentHash());
    }

    public static bool IsLarge(string name) => Path.GetExtension(name) is ".safetensors" or ".gguf" or ".bin";

    public static string Tag(string name, byte[] content) => IsLarge(name) ? Sha256(content) : GitSha1(content);

    public static void Refuse(HttpListenerContext context, int status, params (string Name, string Value)[] headers)
    {
        context.Response.StatusCode = status;
        foreach (var (name, value) in headers)
            context.Response.Headers[name] = value;
        context.Response.Close();
    }

    /// <summary>Sends a part of the content from where it was asked for, and cuts the connection.</summary>
    public static void Break(HttpListenerContext context, byte[] content, int bytes)
    {
        var start = Begin(context, content);
        context.Response.OutputStream.Write(content, start, Math.Min(bytes, content.Length - start));
        context.Response.OutputStream.Flush();
        context.Response.Abort();
    }

    /// <summary>Sends the first <paramref name="length"/> bytes of the content as if they were all; without a length, what was asked for.</summary>
    public static void Send(HttpListenerContext context, byte[] content, int? length = null)
    {
        content = length is { } bytes ? content[..bytes] : content;
        var start = Begin(context, content);
        if (context.Request.HttpMethod != "HEAD")
            context.Response.OutputStream.Write(content, start, content.Length - start);
        context.Response.Close();
    }

    public void Dispose()
    {
        _hub.Close();
        _cdn.Close();
    }

    private static (HttpListener Listener, Uri Address) Listen()
    {
        while (true)
        {
            var probe = new TcpListener(IPAddress.Loopback, 0);
            probe.Start();
            var port = ((IPEndPoint)probe.LocalEndpoint).Port;
            probe.Stop();
            var listener = new HttpListener { Prefixes = { $"http://127.0.0.1:{port}/" } };
            try
            {
                listener.Start();
                return (listener, new($"http://127.0.0.1:{port}"));
            }
            catch (HttpListenerException)
            {
                // another process took the port in between
            }
        }
    }

    private static int Begin(HttpListenerContext context, byte[] content)
    {
        var start = 0;
        if (context.Request.Headers["Range"] is { } range)
        {
            start = int.Parse(range["bytes=".Length..^1], CultureInfo.InvariantCulture);
            context.Response.StatusCode = 206;
            context.Response.Headers["Content-Range"] = $"bytes {start}-{content.Length - 1}/{content.Length}";
        }
        context.Response.ContentLength64 = content.Length - start;
        return start;
    }

    private async Task ServeAsync(HttpListener listener, string host, Action<Request, HttpListenerContext> answer)
    {
        try
        {
            while (true)
            {
                var context = await listener.GetContextAsync();
                _ = Task.Run(() =>
                {
                    var request = new Request(host, context.Request.HttpMethod, context.Request.RawUrl!, context.Request.Headers["Authorization"], context.Request.Headers["Range"]);
                    Requests.Enqueue(request);
                    try
                    {
                        if (!Instead(request, context))
                            answer(request, context);
                    }
                    catch (Exception e) when (e is HttpListenerException or IOException or ObjectDisposedException or InvalidOperationException)
                    {
                        // the client went away
                    }
                });
            }
        }
        catch (Exception e) when (e is HttpListenerException or ObjectDisposedException)
        {
            // closed
        }
    }

    private void AnswerHub(Request request, HttpListenerContext context)
    {
        var path = Uri.UnescapeDataString(request.Path.Split('?')[0]);
        if (path == $"/api/models/{Repository}/revision/main" || path == $"/api/models/{Repository}/revision/{Commit}")
        {
            context.Response.Headers["X-Repo-Commit"] = Commit;
            Send(context, Encoding.UTF8.GetBytes(Listing ?? TrueListing()));
            return;
        }
        if (path.StartsWith("/api/", StringComparison.Ordinal))
        {
            Refuse(context, 404, ("X-Error-Code", path.Contains(Repository, StringComparison.Ordinal) ? "RevisionNotFound" : "RepoNotFound"));
            return;
        }
        var root = $"/{Repository}/resolve/{Commit}/";
        if (!path.StartsWith(root, StringComparison.Ordinal) || !Files.TryGetValue(path[root.Length..], out var content))
        {
            Refuse(context, 404, ("X-Error-Code", "EntryNotFound"));
            return;
        }
        var name = path[root.Length..];
        context.Response.Headers["X-Repo-Commit"] = Commit;
        if (!IsLarge(name))
        {
            context.Response.Headers["ETag"] = $"W/\"{GitSha1(content)}\"";
            Send(context, content);
            return;
        }
        Refuse(context, 302, ("X-Linked-ETag", $"\"{Sha256(content)}\""), ("X-Linked-Size", $"{content.Length}"), ("ETag", "\"of-the-redirect\""), ("Location", $"{Cdn}{Uri.EscapeDataString(name)}?signature=secret"));
    }

    private void AnswerCdn(Request request, HttpListenerContext context)
        => Send(context, Files[Uri.UnescapeDataString(request.Path.Split('?')[0][1..])]);

    private string TrueListing() => JsonSerializer.Serialize(new
    {
        id = Repository,
        sha = Commit,
        siblings = Files.Select(file => (object)(
            !TellsBlobs ? new { rfilename = file.Key }
            : IsLarge(file.Key) ? new { rfilename = file.Key, size = file.Value.Length, blobId = new string('a', 40), lfs = new { sha256 = Sha256(file.Value), size = file.Value.Length, pointerSize = 134 } }
            : new { rfilename = file.Key, size = file.Value.Length, blobId = GitSha1(file.Value) })),
    });
}
