using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>A span as a collector gets it.</summary>
internal sealed record CollectedSpan(string Trace, string Id, string Parent, string Name, ulong Start, ulong End, IReadOnlyDictionary<string, object> Tags, bool Failed);

/// <summary>An OpenTelemetry collector: takes OTLP by HTTP and protobuf, and reads as much of it as the tests ask for.</summary>
internal sealed class Collector : IAsyncDisposable
{
    private WebApplication _app = null!;

    public string Url => _app.Url();

    public ConcurrentQueue<CollectedSpan> Spans { get; } = new();

    public ConcurrentDictionary<string, bool> Metrics { get; } = new();

    /// <summary>Names of the services that sent anything.</summary>
    public ConcurrentDictionary<string, bool> Services { get; } = new();

    public static async Task<Collector> StartAsync()
    {
        var collector = new Collector();
        collector._app = await LocalServer.StartAsync(collector.TakeAsync);
        return collector;
    }

    private async Task TakeAsync(HttpContext context)
    {
        using var body = new MemoryStream();
        await context.Request.Body.CopyToAsync(body);
        // Resource(Spans|Metrics) is field 1 of a request; in it 1 is the resource, 2 the scopes; of a scope 2 are its spans or metrics.
        foreach (var of in Fields(body.ToArray()).Where(f => f.Number == 1).Select(f => f.Bytes))
        {
            foreach (var attribute in Fields(Fields(of).Single(f => f.Number == 1).Bytes).Where(f => f.Number == 1))
            {
                if (Attribute(attribute.Bytes) is ("service.name", string name))
                    Services[name] = true;
            }
            foreach (var item in Fields(of).Where(f => f.Number == 2).SelectMany(scope => Fields(scope.Bytes)).Where(f => f.Number == 2))
            {
                if (context.Request.Path == "/v1/traces")
                    Spans.Enqueue(Span(item.Bytes));
                else
                    Metrics[Text(item.Bytes, 1)] = true;
            }
        }
        context.Response.ContentType = "application/x-protobuf";
    }

    private static CollectedSpan Span(byte[] bytes)
    {
        var fields = Fields(bytes).ToList();
        byte[] Bytes(int number) => fields.Where(f => f.Number == number).Select(f => f.Bytes).FirstOrDefault() ?? [];
        return new(
            Convert.ToHexStringLower(Bytes(1)), Convert.ToHexStringLower(Bytes(2)), Convert.ToHexStringLower(Bytes(4)), Encoding.UTF8.GetString(Bytes(5)),
            fields.Single(f => f.Number == 7).Value, fields.Single(f => f.Number == 8).Value,
            fields.Where(f => f.Number == 9).Select(f => Attribute(f.Bytes)).ToDictionary(a => a.Key, a => a.Value),
            Fields(Bytes(15)).Any(f => f is { Number: 3, Value: 2 }));
    }

    private static (string Key, object Value) Attribute(byte[] bytes)
    {
        var value = Fields(Fields(bytes).Single(f => f.Number == 2).Bytes).Single();
        return (Text(bytes, 1), value.Number switch
        {
            1 => Encoding.UTF8.GetString(value.Bytes),
            2 => value.Value != 0,
            3 => (long)value.Value,
            4 => BitConverter.UInt64BitsToDouble(value.Value),
            _ => Fields(value.Bytes).Select(f => Text(f.Bytes, 1)).ToArray(),
        });
    }

    private static string Text(byte[] message, int field) => Encoding.UTF8.GetString(Fields(message).Single(f => f.Number == field).Bytes);

    /// <summary>The fields of a protobuf message: a number, or the bytes of what is longer.</summary>
    private static IEnumerable<(int Number, ulong Value, byte[] Bytes)> Fields(byte[] message)
    {
        var at = 0;
        while (at < message.Length)
        {
            var tag = Varint();
            var number = (int)(tag >> 3);
            switch (tag & 7)
            {
                case 0:
                    yield return (number, Varint(), []);
                    break;
                case 1:
                    yield return (number, BinaryPrimitives.ReadUInt64LittleEndian(message.AsSpan(at)), []);
                    at += 8;
                    break;
                case 2:
                    var length = (int)Varint();
                    yield return (number, 0, message[at..(at + length)]);
                    at += length;
                    break;
                default:
                    at += 4;
                    break;
            }
        }

        ulong Varint()
        {
            var value = 0ul;
            for (var shift = 0; ; shift += 7)
            {
                var next = message[at++];
                value |= (ulong)(next & 127) << shift;
                if (next < 128)
                    return value;
            }
        }
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
