using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Trimtab.Server.Serving;

/// <summary>
/// An append-only log, one JSON object a line. Each line holds the hash of the line before (<c>prev</c>) and, last, its own
/// (<c>hash</c>, SHA-256 of the line up to it), so that a line changed, removed or put in between shows. Lines cut off at the end do
/// not: keep the last hash elsewhere.
/// </summary>
internal sealed class AuditLog : IDisposable
{
    private const string First = "0000000000000000000000000000000000000000000000000000000000000000";
    private const string Mark = ",\"hash\":\"";
    private readonly Stream _file;
    private readonly Lock _lock = new();
    private string _last;
    private long _next;

    /// <summary>Goes on with an open file that holds so many lines, the last with this hash.</summary>
    internal AuditLog(Stream file, long next = 0, string last = First) => (_file, _next, _last) = (file, next, last);

    /// <summary>Opens a log to go on with it, or a new one.</summary>
    /// <exception cref="InvalidDataException">What is there is no intact log.</exception>
    public static AuditLog Open(string path)
    {
        var (count, last) = File.Exists(path) ? Verify(path) : (0, First);
        // Others may read while it is written; a second writer would break the chain.
        return new(new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0), count, last);
    }

    /// <summary>Appends a line. It is with the operating system when this returns.</summary>
    /// <param name="what">What happened.</param>
    /// <param name="write">Writes further members.</param>
    /// <exception cref="IOException">It cannot be written.</exception>
    public void Append(string what, Action<Utf8JsonWriter> write)
    {
        lock (_lock)
        {
            var open = Json.Write(writer =>
            {
                writer.WriteStartObject();
                writer.WriteNumber("seq", _next);
                writer.WriteString("time", DateTime.UtcNow);
                writer.WriteString("what", what);
                write(writer);
                writer.WriteString("prev", _last);
                writer.WriteEndObject();
            })[..^1];
            var hash = Hash(open);
            var line = Encoding.UTF8.GetBytes($"{open}{Mark}{hash}\"}}\n");
            var length = _file.Length;
            try
            {
                _file.Write(line);
            }
            catch
            {
                _file.SetLength(length); // half a line would break the chain for good
                throw;
            }
            (_last, _next) = (hash, _next + 1);
        }
    }

    /// <summary>Follows the chain from its first line.</summary>
    /// <returns>Lines, and the last one's hash.</returns>
    /// <exception cref="InvalidDataException">A line breaks it; the message says which and how.</exception>
    public static (long Lines, string Last) Verify(string path)
    {
        var (number, last) = (0L, First);
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        if (file.Length > 0)
        {
            file.Seek(-1, SeekOrigin.End);
            if (file.ReadByte() != '\n')
                throw new InvalidDataException($"{path}: its last line is cut off");
            file.Seek(0, SeekOrigin.Begin);
        }
        using var reader = new StreamReader(file, new UTF8Encoding(false, true));
        try
        {
            for (; reader.ReadLine() is { } line; number++)
            {
                var at = line.LastIndexOf(Mark, StringComparison.Ordinal);
                if (at < 0 || line.Length != at + Mark.Length + 64 + 2 || !line.EndsWith("\"}", StringComparison.Ordinal))
                    throw Broken(path, number, "does not end with its hash");
                var hash = line.Substring(at + Mark.Length, 64);
                if (hash != Hash(line[..at]))
                    throw Broken(path, number, "was changed: its hash is another");
                using var json = JsonDocument.Parse(line);
                if (json.RootElement.GetProperty("prev").GetString() != last)
                    throw Broken(path, number, "does not follow the line before it: lines were removed, added or moved");
                if (json.RootElement.GetProperty("seq").GetInt64() != number)
                    throw Broken(path, number, $"has another number than {number}");
                last = hash;
            }
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException or FormatException or DecoderFallbackException)
        {
            throw Broken(path, number, "is no line of an audit log");
        }
        return (number, last);
    }

    private static InvalidDataException Broken(string path, long number, string how) => new($"{path}, line {number + 1}: {how}");

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();
}
