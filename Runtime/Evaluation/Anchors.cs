using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Trimtab.Evaluation;

/// <summary>
/// An anchor set: the prompts that a shift is measured on. A file has a prompt a line, or a JSON object a line with the prompt in one of
/// its fields. Blank lines are skipped.
/// </summary>
public static class Anchors
{
    private const int MaxBytes = 256 << 20;

    /// <summary>Fields that are looked for in a JSON object, the first one that is there being taken.</summary>
    public static IReadOnlyList<string> Fields { get; } = ["prompt", "question", "text", "instruction"];

    /// <summary>Reads a file.</summary>
    /// <param name="path">UTF-8 text; lines are JSON objects where the name ends in .jsonl, a field is named, or the first line is such an object.</param>
    /// <param name="field">The field that holds the prompt; null takes the first of <see cref="Fields"/>.</param>
    /// <param name="limit">Most prompts to read.</param>
    /// <exception cref="InvalidDataException">It holds no prompt, or a line is none; the message names the line and what was expected.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static IReadOnlyList<string> Read(string path, string? field = null, int limit = int.MaxValue)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1);
        var prompts = new List<string>();
        bool? objects = field is not null || path.EndsWith(".jsonl", StringComparison.OrdinalIgnoreCase) ? true : null;
        foreach (var (number, line) in Lines(path))
        {
            objects ??= IsObject(line);
            prompts.Add(objects.Value ? Prompt(line, field, $"{path}, line {number}") : line);
            if (prompts.Count == limit)
                break;
        }
        return prompts.Count > 0 ? prompts : throw new InvalidDataException($"{path}: holds no prompt; expected one a line, or JSON lines");
    }

    /// <summary>SHA-256 of the prompts, in hexadecimal: equal for the same prompts in the same order, whatever file they came from.</summary>
    public static string Hash(IEnumerable<string> prompts)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var prompt in prompts)
        {
            var bytes = Encoding.UTF8.GetBytes(prompt);
            hash.AppendData(BitConverter.GetBytes((long)bytes.Length)); // else a prompt's end could move
            hash.AppendData(bytes);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>The lines of a file that are not blank, with their numbers.</summary>
    internal static IEnumerable<(int Number, string Line)> Lines(string path)
    {
        var text = ReadText(path);
        var number = 0;
        using var reader = new StringReader(text);
        while (reader.ReadLine() is { } line)
        {
            number++;
            if (!string.IsNullOrWhiteSpace(line))
                yield return (number, line);
        }
    }

    private static string ReadText(string path)
    {
        if (Directory.Exists(path))
            throw new InvalidDataException($"{path}: is a folder; expected a file with a prompt a line, or JSON lines");
        using var stream = File.OpenRead(path);
        using var bytes = new MemoryStream();
        var block = new byte[1 << 16];
        for (int read; (read = stream.Read(block)) > 0;) // a device or pipe has no length and may have no end
        {
            if (bytes.Length + read > MaxBytes)
                throw new InvalidDataException($"{path}: is longer than {MaxBytes} bytes");
            bytes.Write(block, 0, read);
        }
        try
        {
            return new UTF8Encoding(false, true).GetString(bytes.GetBuffer(), 0, (int)bytes.Length).TrimStart('\uFEFF');
        }
        catch (DecoderFallbackException)
        {
            throw new InvalidDataException($"{path}: is not UTF-8 text");
        }
    }

    private static bool IsObject(string line)
    {
        if (!line.TrimStart().StartsWith('{'))
            return false;
        try
        {
            using var json = JsonDocument.Parse(line);
            return json.RootElement.ValueKind == JsonValueKind.Object;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    private static string Prompt(string line, string? field, string where)
    {
        using var json = ParseObject(line, where);
        var names = field is null ? Fields : [field];
        foreach (var name in names)
        {
            if (json.RootElement.TryGetProperty(name, out var value))
                return Text(value, name, where);
        }
        throw new InvalidDataException($"{where}: has no field {string.Join(" or ", names.Select(name => $"'{name}'"))}");
    }

    /// <summary>A line's JSON object; the caller disposes it.</summary>
    internal static JsonDocument ParseObject(string line, string where)
    {
        JsonDocument json;
        try
        {
            json = JsonDocument.Parse(line);
        }
        catch (JsonException error)
        {
            throw new InvalidDataException($"{where}: is not JSON ({error.Message})", error);
        }
        if (json.RootElement.ValueKind == JsonValueKind.Object)
            return json;
        json.Dispose();
        throw new InvalidDataException($"{where}: is not a JSON object");
    }

    /// <summary>A text that is not blank.</summary>
    internal static string Text(JsonElement value, string name, string where)
    {
        try
        {
            if (value.ValueKind == JsonValueKind.String && value.GetString() is { } text && !string.IsNullOrWhiteSpace(text))
                return text;
        }
        catch (InvalidOperationException)
        {
            // Half a surrogate pair, which is no text.
        }
        throw new InvalidDataException($"{where}: field '{name}' is no text, or a blank one");
    }
}
