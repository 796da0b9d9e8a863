using System.Buffers;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;

namespace Trimtab.Server.Serving;

/// <summary>Server-sent events to one client. A client that does not take them within the limit of time is cut off.</summary>
internal sealed class EventStream
{
    private readonly HttpContext _context;
    private readonly TimeSpan _limit;

    /// <summary>Begins the stream: the status is sent with the first event.</summary>
    public EventStream(HttpContext context, TimeSpan limit)
    {
        (_context, _limit) = (context, limit);
        Failing = error => SendAsync(null, new ErrorBody(error), Wire.Readable.ErrorBody);
        context.Features.Set(this);
        context.Response.ContentType = "text/event-stream; charset=utf-8";
        context.Response.Headers.CacheControl = "no-cache";
        context.Response.Headers["X-Accel-Buffering"] = "no"; // a proxy would hold tokens back
    }

    /// <summary>Sends the event of a failure, which is the last; OpenAI's error object unless an interface has another.</summary>
    public Func<ErrorDetail, Task> Failing { get; set; }

    /// <summary>Sends an event.</summary>
    /// <param name="name">Its name, or null.</param>
    /// <param name="data">Its data.</param>
    /// <param name="type">How data is written.</param>
    public Task SendAsync<T>(string? name, T data, JsonTypeInfo<T> type)
    {
        var body = _context.Response.BodyWriter;
        if (name is not null)
            Write($"event: {name}\n");
        Write("data: ");
        using (var writer = new Utf8JsonWriter(body, new() { Encoder = type.Options.Encoder }))
            JsonSerializer.Serialize(writer, data, type);
        Write("\n\n");
        return FlushAsync();
    }

    /// <summary>Sends OpenAI's mark of the end.</summary>
    public Task EndAsync()
    {
        Write("data: [DONE]\n\n");
        return FlushAsync();
    }

    private void Write(string text) => _context.Response.BodyWriter.Write(System.Text.Encoding.UTF8.GetBytes(text));

    private async Task FlushAsync()
    {
        var flush = _context.Response.BodyWriter.FlushAsync(_context.RequestAborted);
        if (flush.IsCompletedSuccessfully)
            return;
        try
        {
            await flush.AsTask().WaitAsync(_limit, _context.RequestAborted).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _context.Abort();
            throw new OperationCanceledException("the client takes nothing");
        }
    }
}
