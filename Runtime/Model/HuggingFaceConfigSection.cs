using System.Text.Json;
using System.Text.Unicode;

namespace Trimtab.Model;

/// <summary>
/// One object of a JSON configuration, read field by field with its type and range checked. A field that is absent or null
/// takes the default; errors carry the file and the field's whole path.
/// </summary>
internal readonly struct ConfigSection(JsonElement element, string file, string path = "")
{
    /// <summary>Widths, counts of rows and the like: more than any model has, and small enough for products of two in a long.</summary>
    public const int MaxSize = 1 << 24;

    /// <summary>Layers: each costs objects, so that a number in a file must not size them freely.</summary>
    public const int MaxLayers = 4096;

    private const int MaxIds = 1024;

    /// <summary>Parses a whole file.</summary>
    /// <exception cref="InvalidConfigException">It is not JSON, or not an object.</exception>
    public static JsonDocument Open(ReadOnlyMemory<byte> json, string file)
    {
        if (json.Span.StartsWith("\uFEFF"u8))
            json = json[3..];
        if (!Utf8.IsValid(json.Span))
            throw new InvalidConfigException($"{file}: not valid UTF-8");
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(json);
        }
        catch (JsonException e)
        {
            throw new InvalidConfigException($"{file}: not valid JSON: {e.Message}", e);
        }
        if (document.RootElement.ValueKind == JsonValueKind.Object)
            return document;
        document.Dispose();
        throw new InvalidConfigException($"{file}: expected a JSON object");
    }

    /// <summary>The same place without any field: a section that a file leaves out.</summary>
    public ConfigSection Empty(string field) => new(default, file, path + field + ".");

    /// <summary>Whether there is no field at all.</summary>
    public bool IsEmpty => element.ValueKind != JsonValueKind.Object || !element.EnumerateObject().Any();

    /// <summary>Whether the field is there, null or not.</summary>
    public bool States(string field) => element.ValueKind == JsonValueKind.Object && element.TryGetProperty(field, out _);

    /// <summary>Whether the field is there and not null.</summary>
    public bool Has(string field) => TryGet(field, out _);

    private bool TryGet(string field, out JsonElement value)
    {
        value = default;
        return element.ValueKind == JsonValueKind.Object && element.TryGetProperty(field, out value)
            && value.ValueKind != JsonValueKind.Null;
    }

    /// <summary>An object, or null.</summary>
    public ConfigSection? Object(string field)
    {
        if (!TryGet(field, out var value))
            return null;
        return value.ValueKind == JsonValueKind.Object ? new(value, file, path + field + ".") : throw Invalid(field, "an object");
    }

    /// <summary>A string, or null.</summary>
    public string? Text(string field)
    {
        if (!TryGet(field, out var value))
            return null;
        return value.ValueKind == JsonValueKind.String ? String(value, field) : throw Invalid(field, "a string");
    }

    /// <summary>A list of strings, or null.</summary>
    public string[]? Texts(string field)
    {
        if (!TryGet(field, out var value))
            return null;
        if (value.ValueKind != JsonValueKind.Array || value.EnumerateArray().Any(v => v.ValueKind != JsonValueKind.String))
            throw Invalid(field, "a list of strings");
        var texts = new string[value.GetArrayLength()];
        for (var i = 0; i < texts.Length; i++)
            texts[i] = String(value[i], field);
        return texts;
    }

    private string String(JsonElement value, string field)
    {
        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException) // half of a surrogate pair, escaped
        {
            throw Invalid(field, "valid Unicode");
        }
    }

    /// <summary>A boolean.</summary>
    public bool Flag(string field, bool otherwise)
    {
        if (!TryGet(field, out var value))
            return otherwise;
        return value.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw Invalid(field, "true or false"),
        };
    }

    /// <summary>A whole number of a range; 4096.0 counts as one.</summary>
    public int Size(string field, int otherwise, int most = MaxSize, int least = 1)
    {
        if (!TryGet(field, out var value))
            return otherwise;
        return Whole(value) is { } n && n >= least && n <= most ? (int)n : throw Invalid(field, $"a whole number from {least} to {most}");
    }

    private static double? Whole(JsonElement value) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var n) && n == Math.Floor(n) && double.IsFinite(n) ? n : null;

    /// <summary>A finite number of a range, or null.</summary>
    public double? Number(string field, double least, double most)
    {
        if (!TryGet(field, out var value))
            return null;
        return value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var n) && n >= least && n <= most
            ? n : throw Invalid(field, $"a number from {least} to {most}");
    }

    /// <summary>Token ids, given as one number or a list; none for null.</summary>
    public int[] Ids(string field)
    {
        const string Expected = "a token id or a list of them (whole numbers from 0)";
        if (!TryGet(field, out var value))
            return [];
        JsonElement[] values = value.ValueKind == JsonValueKind.Array && value.GetArrayLength() <= MaxIds ? [.. value.EnumerateArray()]
            : [value];
        var ids = new int[values.Length];
        for (var i = 0; i < ids.Length; i++)
            ids[i] = Whole(values[i]) is { } n and >= 0 and <= int.MaxValue ? (int)n : throw Invalid(field, Expected);
        return ids;
    }

    /// <summary>Whole numbers of a range, given as one or as a list that is not empty.</summary>
    public int[] Whole(string field, int otherwise, int least, int most)
    {
        if (!TryGet(field, out var value))
            return [otherwise];
        JsonElement[] values = value.ValueKind == JsonValueKind.Array && value.GetArrayLength() is > 0 and <= MaxIds ? [.. value.EnumerateArray()] : [value];
        var numbers = new int[values.Length];
        for (var i = 0; i < numbers.Length; i++)
            numbers[i] = Whole(values[i]) is { } n && n >= least && n <= most ? (int)n : throw Invalid(field, $"a whole number from {least} to {most}, or a list of them");
        return numbers;
    }

    /// <summary>A list of finite numbers of a range, or null.</summary>
    public double[]? Numbers(string field, double least, double most)
    {
        if (!TryGet(field, out var value))
            return null;
        return value.ValueKind == JsonValueKind.Array && value.GetArrayLength() <= MaxIds
            && value.EnumerateArray().All(v => v.ValueKind == JsonValueKind.Number && v.TryGetDouble(out var n) && n >= least && n <= most)
            ? [.. value.EnumerateArray().Select(v => v.GetDouble())] : throw Invalid(field, $"a list of at most {MaxIds} numbers from {least} to {most}");
    }

    /// <summary>A list of pairs of positive whole numbers, or null.</summary>
    public (int, int)[]? Pairs(string field)
    {
        const string Expected = "a list of [height, width]";
        if (!TryGet(field, out var value))
            return null;
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() > MaxIds)
            throw Invalid(field, Expected);
        var pairs = new (int, int)[value.GetArrayLength()];
        for (var i = 0; i < pairs.Length; i++)
            pairs[i] = value[i].ValueKind == JsonValueKind.Array && value[i].GetArrayLength() == 2
                && Whole(value[i][0]) is { } a and > 0 and < 1 << 16 && Whole(value[i][1]) is { } b and > 0 and < 1 << 16
                ? ((int)a, (int)b) : throw Invalid(field, Expected);
        return pairs;
    }

    /// <summary>Refuses options that would change the computation, unless they are at a value that does nothing.</summary>
    /// <param name="options">Field, and a number that does nothing; null, false, and empty lists and objects never do.</param>
    /// <exception cref="UnsupportedModelException">One of them does something.</exception>
    public void RefuseUnlessNeutral(ReadOnlySpan<(string Field, double Neutral)> options)
    {
        foreach (var (field, neutral) in options)
            if (TryGet(field, out var value) && value.ValueKind switch
                {
                    JsonValueKind.False => false,
                    JsonValueKind.Number => value.GetDouble() != neutral,
                    JsonValueKind.Array => value.GetArrayLength() > 0,
                    JsonValueKind.Object => value.EnumerateObject().Any(),
                    _ => true,
                })
                throw Unsupported(field, double.IsNaN(neutral) ? "models without it" : $"{neutral}");
    }

    /// <summary>The error for a value that is understood but not supported.</summary>
    public UnsupportedModelException Unsupported(string field, string supported) =>
        new($"{file}: {path}{field}: {Raw(field)} is not supported; supported: {supported}");

    /// <summary>The error for a value that makes no sense.</summary>
    public InvalidConfigException Invalid(string field,
        string expected) => new($"{file}: {path}{field}: {Raw(field)}; expected {expected}");

    private string Raw(string field)
    {
        if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty(field, out var value))
            return "absent";
        var raw = value.GetRawText().ReplaceLineEndings(" ");
        return raw.Length <= 100 ? raw : raw[..100] + " …";
    }
}
