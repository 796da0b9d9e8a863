using System.Text.Json;

namespace Trimtab.Text;

/// <summary>A place in a tokenizer's JSON that knows its path, so that errors can name it.</summary>
internal readonly record struct TokenizerField(string File, string Path, JsonElement Element)
{
    public bool IsNull => Element.ValueKind is JsonValueKind.Null or JsonValueKind.Undefined;

    public InvalidDataException Expected(string what) =>
        new($"{File}: {Path} is {(Element.ValueKind == JsonValueKind.Undefined ? "missing" : Shown(Element.GetRawText()))}; {what} was expected");

    public InvalidDataException Unsupported(string supported) => Expected($"a supported value ({supported})");

    /// <summary>A member; null-like where it is not there.</summary>
    public TokenizerField this[string name] => Element.ValueKind == JsonValueKind.Object
        ? new(File, Path.Length == 0 ? name : $"{Path}.{name}", Element.TryGetProperty(name, out var value) ? value : default)
        : throw Expected("an object");

    public IEnumerable<TokenizerField> Items()
    {
        if (Element.ValueKind != JsonValueKind.Array)
            throw Expected("an array");
        var field = this;
        return Element.EnumerateArray().Select((item, i) => new TokenizerField(field.File, $"{field.Path}[{i}]", item));
    }

    public string Text()
    {
        if (Element.ValueKind != JsonValueKind.String)
            throw Expected("a string");
        try
        {
            return Element.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw Expected("a string of whole Unicode characters");
        }
    }

    public bool Flag(bool otherwise) => Element.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ when IsNull => otherwise,
        _ => throw Expected("true or false"),
    };

    public int Integer(int least, int below) =>
        Element.ValueKind == JsonValueKind.Number && Element.TryGetInt32(out var value) && value >= least && value < below
            ? value
            : throw Expected($"an integer of at least {least} and below {below}");

    private static string Shown(string text) => text.Length <= 80 ? text : text[..80] + "…";
}
