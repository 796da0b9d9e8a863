using System.Text.Json;

namespace Trimtab.Evaluation;

/// <summary>One record of a data set file, JSON or CSV, whose fields are read by name or by dotted path ("metadata.category").</summary>
internal sealed class DatasetRow
{
    private const long MostBytes = 1L << 30;

    private readonly JsonElement _json;
    private readonly IReadOnlyDictionary<string, string>? _csv;

    private DatasetRow(string place, int number, JsonElement json, IReadOnlyDictionary<string, string>? csv)
        => (Place, Number, _json, _csv) = (place, number, json, csv);

    /// <summary>File and line or element, for messages.</summary>
    public string Place { get; }

    /// <summary>Counted from 1.</summary>
    public int Number { get; }

    /// <summary>A field's text; null where there is none, it is null or it is blank.</summary>
    public string? this[string path]
    {
        get
        {
            if (_csv is not null)
                return _csv.TryGetValue(path, out var field) && !string.IsNullOrWhiteSpace(field) ? field : null;
            var text = Find(path) is not { } element ? null : element.ValueKind switch
            {
                JsonValueKind.String => element.GetString(),
                JsonValueKind.Null or JsonValueKind.Undefined => null,
                _ => element.GetRawText(),
            };
            return string.IsNullOrWhiteSpace(text) ? null : text;
        }
    }

    /// <summary>The first of several fields that there is.</summary>
    public string? First(params ReadOnlySpan<string> paths)
    {
        foreach (var path in paths)
        {
            if (this[path] is { } text)
                return text;
        }
        return null;
    }

    /// <summary>The first of several fields that there is.</summary>
    /// <exception cref="InvalidDataException">There is none.</exception>
    public string Need(params ReadOnlySpan<string> paths)
        => First(paths) ?? throw new InvalidDataException($"{Place}: has no field {string.Join(" or ", paths.ToArray())}, or it is empty");

    /// <summary>An object of choices by letter, or an array of them lettered from A.</summary>
    /// <exception cref="InvalidDataException">It is neither.</exception>
    public IReadOnlyDictionary<char, string> Choices(string path)
    {
        if (_csv is not null || Find(path) is not { } element || element.ValueKind == JsonValueKind.Null)
            return new Dictionary<char, string>();
        var choices = new SortedDictionary<char, string>();
        if (element.ValueKind == JsonValueKind.Array)
        {
            foreach (var choice in element.EnumerateArray())
                Add(((char)('A' + choices.Count)).ToString(), choice);
        }
        else if (element.ValueKind == JsonValueKind.Object)
        {
            foreach (var choice in element.EnumerateObject())
                Add(choice.Name, choice.Value);
        }
        else
        {
            throw new InvalidDataException($"{Place}: field {path} is no object and no array; expected choices");
        }
        return choices;

        void Add(string letter, JsonElement text)
        {
            if (letter.Trim() is not [>= 'A' and <= 'Z' or >= 'a' and <= 'z'] || text.ValueKind is not (JsonValueKind.String or JsonValueKind.Number)
                || !choices.TryAdd(char.ToUpperInvariant(letter.Trim()[0]), text.ToString()))
                throw new InvalidDataException($"{Place}: field {path} has a choice '{letter}'; expected texts by letters A to Z");
        }
    }

    private JsonElement? Find(string path)
    {
        var at = _json;
        if (at.TryGetProperty(path, out var whole))
            return whole;
        foreach (var name in path.Split('.'))
        {
            if (at.ValueKind != JsonValueKind.Object || !at.TryGetProperty(name, out at))
                return null;
        }
        return at;
    }

    /// <summary>Reads a file: .csv by its name; else a JSON array of objects, or an object a line.</summary>
    /// <exception cref="InvalidDataException">It is none of these; the message names the place.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static IEnumerable<DatasetRow> Read(string path)
    {
        if (!File.Exists(path))
            throw new FileNotFoundException($"{path}: no such file", path);
        if (new FileInfo(path).Length > MostBytes)
            throw new InvalidDataException($"{path}: is longer than {MostBytes} bytes");
        if (path.EndsWith(".csv", StringComparison.OrdinalIgnoreCase))
            return ReadCsv(path);
        using var reader = new StreamReader(path);
        int first;
        while ((first = reader.Peek()) >= 0 && char.IsWhiteSpace((char)first))
            reader.Read();
        return first == '[' ? ReadArray(path) : ReadLines(path);
    }

    private static IEnumerable<DatasetRow> ReadCsv(string path)
    {
        using var reader = new StreamReader(path);
        IReadOnlyList<string>? header = null;
        var number = 0;
        foreach (var (line, fields) in Csv.Read(reader, path))
        {
            if (header is null)
            {
                header = [.. fields.Select(name => name.Trim())];
                if (header.Distinct().Count() != header.Count)
                    throw new InvalidDataException($"{path}: line 1: a column's name occurs twice");
                continue;
            }
            if (fields.Count != header.Count)
                throw new InvalidDataException($"{path}: line {line}: has {fields.Count} fields; the header has {header.Count}");
            yield return new($"{path}: line {line}", ++number, default, header.Zip(fields).ToDictionary(pair => pair.First, pair => pair.Second));
        }
    }

    private static IEnumerable<DatasetRow> ReadLines(string path)
    {
        var (line, number) = (0, 0);
        foreach (var text in File.ReadLines(path))
        {
            line++;
            if (!string.IsNullOrWhiteSpace(text))
                yield return Object(Parse(text, $"{path}: line {line}"), $"{path}: line {line}", ++number);
        }
    }

    private static IEnumerable<DatasetRow> ReadArray(string path)
    {
        var number = 0;
        foreach (var element in Parse(File.ReadAllText(path), path).EnumerateArray())
            yield return Object(element, $"{path}: element {++number}", number);
    }

    private static JsonElement Parse(string text, string place)
    {
        try
        {
            using var document = JsonDocument.Parse(text);
            return document.RootElement.Clone();
        }
        catch (JsonException error)
        {
            throw new InvalidDataException($"{place}: is no JSON ({error.Message})");
        }
    }

    private static DatasetRow Object(JsonElement element, string place, int number)
        => element.ValueKind == JsonValueKind.Object
            ? new(place, number, element, null)
            : throw new InvalidDataException($"{place}: is a JSON {element.ValueKind}; expected an object");
}
