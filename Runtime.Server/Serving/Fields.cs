using System.Text.Json;
using static Trimtab.Server.Serving.ApiException;

namespace Trimtab.Server.Serving;

/// <summary>
/// One JSON object of a request, read strictly: what was not asked for by the end (<see cref="End"/>) is refused by name, because a
/// parameter that is silently ignored gives another answer than the caller meant.
/// </summary>
internal sealed class Fields
{
    private readonly Dictionary<string, JsonElement> _values = new(StringComparer.Ordinal);
    private readonly HashSet<string> _left = new(StringComparer.Ordinal);
    private readonly string _path;

    /// <param name="element">The object.</param>
    /// <param name="path">Its place in the request, "" for the whole.</param>
    public Fields(JsonElement element, string path = "")
    {
        _path = path;
        if (element.ValueKind != JsonValueKind.Object)
            throw new ApiException(400, $"{(path.Length > 0 ? path : "the body")} is {Kind(element)}; expected an object", path.Length > 0 ? path : null);
        foreach (var property in element.EnumerateObject())
        {
            var name = Name(property);
            if (!_values.TryAdd(name, property.Value))
                throw Invalid(At(name), "is there twice");
            _left.Add(name);
        }
    }

    private string Name(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException)
        {
            throw new ApiException(400, $"{(_path.Length > 0 ? _path : "the body")} has a name that is not Unicode text", _path.Length > 0 ? _path : null);
        }
    }

    /// <summary>A field's place in the request.</summary>
    public string At(string name) => _path.Length > 0 ? $"{_path}.{name}" : name;

    /// <summary>A field that is there and not null.</summary>
    public JsonElement? Any(string name)
    {
        _left.Remove(name);
        return _values.TryGetValue(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    /// <summary>A text, or null.</summary>
    public string? Text(string name, int longest = int.MaxValue)
    {
        if (Any(name) is not { } value)
            return null;
        return Text(value, At(name), longest);
    }

    /// <summary>A text that must be there.</summary>
    public string RequiredText(string name) => Text(name) ?? throw Invalid(At(name), "is missing; expected a string");

    /// <summary>A value as text.</summary>
    public static string Text(JsonElement value, string path, int longest = int.MaxValue)
    {
        if (value.ValueKind != JsonValueKind.String)
            throw Invalid(path, $"is {Kind(value)}; expected a string");
        string text;
        try
        {
            text = value.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw Invalid(path, "is not Unicode text");
        }
        return text.Length <= longest ? text : throw Invalid(path, $"has {text.Length} characters; at most {longest} are taken");
    }

    /// <summary>One of some words, or null.</summary>
    public string? Word(string name, params ReadOnlySpan<string> words)
    {
        if (Text(name) is not { } text)
            return null;
        foreach (var word in words)
        {
            if (word == text)
                return text;
        }
        throw Invalid(At(name), $"is '{Shown(text)}'; expected {string.Join(", ", words!)}");
    }

    /// <summary>A number in a range, or null.</summary>
    public double? Number(string name, double least, double most)
    {
        if (Any(name) is not { } value)
            return null;
        if (value.ValueKind != JsonValueKind.Number || !value.TryGetDouble(out var number) || !double.IsFinite(number) || number < least || number > most)
            throw Invalid(At(name), $"is {Shown(value)}; expected a number from {least} to {most}");
        return number;
    }

    /// <summary>A whole number in a range, or null.</summary>
    public long? Integer(string name, long least, long most)
    {
        if (Any(name) is not { } value)
            return null;
        if (value.ValueKind != JsonValueKind.Number || !value.TryGetInt64(out var number) || number < least || number > most)
            throw Invalid(At(name), $"is {Shown(value)}; expected a whole number from {least} to {most}");
        return number;
    }

    /// <summary>True or false, or null.</summary>
    public bool? Flag(string name) => Any(name) is not { } value ? null : value.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Invalid(At(name), $"is {Kind(value)}; expected true or false"),
    };

    /// <summary>An object, or null.</summary>
    public Fields? Object(string name) => Any(name) is { } value ? new(value, At(name)) : null;

    /// <summary>Elements of an array with their places, or null.</summary>
    public IReadOnlyList<(JsonElement Value, string Path)>? List(string name, int most)
    {
        if (Any(name) is not { } value)
            return null;
        if (value.ValueKind != JsonValueKind.Array)
            throw Invalid(At(name), $"is {Kind(value)}; expected an array");
        if (value.GetArrayLength() > most)
            throw Invalid(At(name), $"has {value.GetArrayLength()} entries; at most {most} are taken");
        return [.. value.EnumerateArray().Select((element, i) => (element, $"{At(name)}[{i}]"))];
    }

    /// <summary>Fields that change no answer here, whatever they hold.</summary>
    public void Ignore(params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
            _left.Remove(name);
    }

    /// <summary>A field that is known and not computed: refused unless it is null or says what would happen anyway.</summary>
    public void Refuse(string name, Func<JsonElement, bool>? harmless = null, string? why = null)
    {
        if (Any(name) is { } value && harmless?.Invoke(value) != true)
            throw Unsupported(At(name), why);
    }

    /// <summary>Refuses what was not asked for.</summary>
    public void End()
    {
        foreach (var name in _left)
        {
            if (_values[name].ValueKind != JsonValueKind.Null)
                throw new ApiException(400, $"{At(Shown(name))}: unknown parameter; this server ignores none that could change an answer", At(Shown(name)), "unknown_parameter");
        }
    }

    /// <summary>What errors call a value.</summary>
    public static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => "a string",
        JsonValueKind.Number => "a number",
        JsonValueKind.Null => "null",
        _ => "a boolean",
    };

    private static string Shown(JsonElement value) => value.ValueKind == JsonValueKind.Number ? Shown(value.GetRawText()) : Kind(value);

    private static string Shown(string text) => text.Length <= 40 ? text : text[..40] + "…";
}
