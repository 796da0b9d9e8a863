using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;

namespace Trimtab.Server.Serving;

/// <summary>One request and its response, after its caller is known.</summary>
/// <param name="Context">The connection's.</param>
/// <param name="Caller">Who asks.</param>
/// <param name="Model">Who answers.</param>
/// <param name="Images">Reads images.</param>
internal sealed record Exchange(HttpContext Context, Caller Caller, SteeredModel Model, ImageSource Images)
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
    public async Task<ReadOnlyMemory<byte>> ReadBytesAsync()
    {
        var options = Model.Options;
        using var time = CancellationTokenSource.CreateLinkedTokenSource(Cancel);
        time.CancelAfter(options.BodyTime);
        var length = Context.Request.ContentLength;
        if (length > options.MaxBody)
            throw TooLong(options);
        using var bytes = new MemoryStream((int)(length ?? 4096));
        try
        {
            var block = new byte[1 << 16];
            for (int read; (read = await Context.Request.Body.ReadAsync(block, time.Token).ConfigureAwait(false)) > 0;)
            {
                if (bytes.Length + read > options.MaxBody)
                    throw TooLong(options);
                bytes.Write(block, 0, read);
            }
        }
        catch (OperationCanceledException) when (!Cancel.IsCancellationRequested)
        {
            throw new ApiException(408, $"the body did not come within {options.BodyTime.TotalSeconds:0} s");
        }
        return bytes.GetBuffer().AsMemory(0, (int)bytes.Length);
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

    /// <summary>Begins a stream of events.</summary>
    public EventStream Stream() => new(Context, Model.Options.WriteTime);

    private static ApiException TooLong(ServeOptions options) => new(413, $"the body is longer than {options.MaxBody} bytes", null, "body_too_large");
}
