using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;

namespace Trimtab.Server.Serving;

/// <summary>One request and its response, after its caller is known.</summary>
/// <param name="Context">The connection's.</param>
/// <param name="Caller">Who asks.</param>
/// <param name="Model">Who answers.</param>
/// <param name="Images">Reads images.</param>
/// <param name="Memory">What it holds.</param>
/// <param name="Started">Time stamp of its coming.</param>
internal sealed record Exchange(HttpContext Context, Caller Caller, SteeredModel Model, ImageSource Images, MemoryBudget.Share Memory, long Started)
{
    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 64 };

    /// <summary>Set when the client is gone.</summary>
    public CancellationToken Cancel => Context.RequestAborted;

    /// <summary>The id of what is made, told in a header too.</summary>
    public string NewId(string prefix)
    {
        var id = prefix + Guid.NewGuid().ToString("N");
        Context.Response.Headers["X-Request-Id"] = id;
        return id;
    }

    /// <summary>Reads a JSON body.</summary>
    /// <exception cref="ApiException">It is too long, comes too slowly, or is no JSON.</exception>
    public async Task<JsonDocument> ReadBodyAsync()
    {
        // Browsers send JSON from foreign pages only after asking, and are told no.
        if (Context.Request.ContentType?.Split(';')[0].Trim() is not { } type || !type.Equals("application/json", StringComparison.OrdinalIgnoreCase))
            throw new ApiException(415, "Content-Type: expected application/json");
        var bytes = await ReadBytesAsync().ConfigureAwait(false);
        // What JSON becomes: an index of 12 bytes a value, texts of two bytes a character, and files.
        Memory.Take(7L * bytes.Length);
        try
        {
            return JsonDocument.Parse(bytes, Strict);
        }
        catch (JsonException error)
        {
            throw new ApiException(400, $"the body is not valid JSON: {error.Message}", null, "invalid_json");
        }
    }

    /// <summary>Reads a body.</summary>
    public async Task<ReadOnlyMemory<byte>> ReadBytesAsync() => await ReadBytesAsync(Context, Model.Options.MaxBody, Model.Options.BodyTime, Memory).ConfigureAwait(false);

    /// <summary>Reads a body of at most so many bytes in at most so much time.</summary>
    public static async Task<ArraySegment<byte>> ReadBytesAsync(HttpContext context, long most, TimeSpan limit, MemoryBudget.Share memory)
    {
        using var time = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        time.CancelAfter(limit);
        var length = context.Request.ContentLength;
        if (length > most)
            throw HttpHost.TooLong(most);
        memory.Take(length ?? 0);
        using var bytes = new MemoryStream((int)(length ?? 4096));
        try
        {
            var block = new byte[1 << 16];
            for (int read; (read = await context.Request.Body.ReadAsync(block, time.Token).ConfigureAwait(false)) > 0;)
            {
                if (bytes.Length + read > most)
                    throw HttpHost.TooLong(most);
                if (length is null)
                    memory.Take(read);
                bytes.Write(block, 0, read);
            }
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            throw new ApiException(408, $"the body did not come within {limit.TotalSeconds:0} s");
        }
        return new(bytes.GetBuffer(), 0, (int)bytes.Length);
    }

    /// <summary>Sends a JSON body.</summary>
    public Task SendAsync<T>(T value, JsonTypeInfo<T> type, int status = 200) => SendAsync(Context, value, type, status);

    /// <summary>Sends a JSON body.</summary>
    public static async Task SendAsync<T>(HttpContext context, T value, JsonTypeInfo<T> type, int status)
    {
        var bytes = JsonSerializer.SerializeToUtf8Bytes(value, type);
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/json; charset=utf-8";
        context.Response.ContentLength = bytes.Length;
        await context.Response.Body.WriteAsync(bytes, context.RequestAborted).ConfigureAwait(false);
    }

    /// <summary>Sends OpenAI's error object, or cuts off a response that has begun.</summary>
    public static async Task RefuseAsync(HttpContext context, ApiException refusal)
    {
        try
        {
            if (context.Response.HasStarted)
            {
                context.Abort();
                return;
            }
            context.Response.Clear();
            context.Response.Headers.XContentTypeOptions = "nosniff";
            if (refusal.Status is 429 or 503)
                context.Response.Headers.RetryAfter = refusal.RetryAfterSeconds;
            if (refusal.Status == 401)
                context.Response.Headers.WWWAuthenticate = "Bearer";
            if (refusal.Status is 408 or 413)
                context.Response.Headers.Connection = "close";
            await SendAsync(context, refusal.Body, Wire.Readable.ErrorBody, refusal.Status).ConfigureAwait(false);
        }
        catch (Exception lost) when (lost is OperationCanceledException or IOException or InvalidOperationException)
        {
            context.Abort();
        }
    }

    /// <summary>Begins a stream of events.</summary>
    public EventStream Stream() => new(Context, Model.Options.WriteTime);
}
