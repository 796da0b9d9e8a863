using System.Text.Json;

namespace Trimtab.Text;

/// <summary>The `model` of a tokenizer.json, of type BPE.</summary>
/// <param name="Vocabulary">Its pieces.</param>
/// <param name="Merges">Its merges.</param>
internal sealed record TokenizerJsonModel(Vocabulary Vocabulary, RankedMerges Merges)
{
    /// <summary>Reads the object that the reader stands at, and leaves the reader at its end.</summary>
    public static TokenizerJsonModel Read(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
            throw new InvalidDataException($"{name}: model is no JSON object");
        var fields = new Dictionary<string, JsonElement>();
        Vocabulary? vocabulary = null;
        var merges = default(Utf8JsonReader);
        var hasMerges = false;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var field = reader.GetString()!;
            reader.Read();
            if (field == "vocab" && reader.TokenType == JsonTokenType.StartObject)
            {
                vocabulary = new Vocabulary(ReadVocabulary(ref reader, name));
            }
            else if (field == "merges" && reader.TokenType == JsonTokenType.StartArray)
            {
                // Read later: the vocabulary may come after.
                merges = reader;
                hasMerges = true;
                reader.Skip();
            }
            else if (field is "vocab" or "merges")
            {
                fields[field] = default;
                reader.Skip();
            }
            else
            {
                fields[field] = JsonElement.ParseValue(ref reader);
            }
        }

        TokenizerField Field(string field) => new(name, $"model.{field}", fields.GetValueOrDefault(field));
        // Old files have no type; BPE alone has merges.
        if (Field("type") is { IsNull: false } type && type.Text() != "BPE")
            throw type.Unsupported("BPE");
        if (vocabulary is null)
            throw new InvalidDataException($"{name}: model.vocab is missing or no object; token strings with their ids were expected");
        if (!hasMerges)
            throw new InvalidDataException($"{name}: model.merges is missing or no array; pairs of tokens were expected");
        if (Field("dropout") is { IsNull: false } dropout && !(dropout.Element.ValueKind == JsonValueKind.Number && dropout.Element.GetDouble() == 0))
            throw dropout.Unsupported("null");
        foreach (var affix in (ReadOnlySpan<string>)["continuing_subword_prefix", "end_of_word_suffix"])
            if (Field(affix) is { IsNull: false } value && value.Text().Length > 0)
                throw value.Unsupported("null");
        var unknown = -1;
        if (Field("unk_token") is { IsNull: false } token && token.Text() is { Length: > 0 } text && (unknown = vocabulary.IdOf(text)) < 0)
            throw token.Expected("a token of model.vocab");
        return new TokenizerJsonModel(vocabulary, new RankedMerges(
            vocabulary, ReadMerges(merges, vocabulary, name), unknown, Field("fuse_unk").Flag(false), Field("byte_fallback").Flag(false),
            Field("ignore_merges").Flag(false)));
    }

    private static Dictionary<string, int> ReadVocabulary(ref Utf8JsonReader reader, string name)
    {
        var ids = new Dictionary<string, int>();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var token = Text(ref reader, name, "model.vocab");
            reader.Read();
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt32(out var id) || id < 0 || id >= Vocabulary.MaximumSize)
                throw new InvalidDataException($"{name}: model.vocab[\"{token}\"]: an id from 0 to below {Vocabulary.MaximumSize} was expected");
            ids[token] = id;
        }
        return ids;
    }

    private static string Text(ref Utf8JsonReader reader, string name, string path)
    {
        try
        {
            return reader.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw new InvalidDataException($"{name}: {path} has a string that is not of whole Unicode characters");
        }
    }

    private static Dictionary<long, (int, int)> ReadMerges(Utf8JsonReader reader, Vocabulary vocabulary, string name)
    {
        var merges = new MergeList(vocabulary, name, "model.merges");
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType == JsonTokenType.String)
            {
                merges.Add(Text(ref reader, name, "model.merges"));
                continue;
            }
            if (reader.TokenType != JsonTokenType.StartArray)
                throw merges.Malformed();
            string? left = null, right = null;
            while (reader.Read() && reader.TokenType == JsonTokenType.String)
            {
                if (right is not null)
                    throw merges.Malformed();
                (left, right) = left is null ? (Text(ref reader, name, "model.merges"), null) : (left, Text(ref reader, name, "model.merges"));
            }
            if (reader.TokenType != JsonTokenType.EndArray || right is null)
                throw merges.Malformed();
            merges.Add(left, right);
        }
        return merges.Merges;
    }
}

/// <summary>Merges as they are read, in order of rank.</summary>
internal sealed class MergeList(Vocabulary vocabulary, string name, string path)
{
    private int _index = -1;
    private int _rank;

    public Dictionary<long, (int Rank, int Id)> Merges { get; } = [];

    /// <summary>Adds "left right".</summary>
    public void Add(string pair)
    {
        if (pair.StartsWith("#version", StringComparison.Ordinal))
        {
            _index++;
            return;
        }
        var space = pair.IndexOf(' ');
        if (space < 0 || pair.AsSpan(space + 1).Contains(' '))
        {
            _index++;
            throw Malformed();
        }
        Add(pair.AsSpan(0, space), pair.AsSpan(space + 1));
    }

    public void Add(ReadOnlySpan<char> left, ReadOnlySpan<char> right)
    {
        _index++;
        var length = left.Length + right.Length;
        var joined = length <= 256 ? stackalloc char[length] : new char[length];
        left.CopyTo(joined);
        right.CopyTo(joined[left.Length..]);
        Merges[RankedMerges.Key(Id(left), Id(right))] = (_rank++, Id(joined));
    }

    public InvalidDataException Malformed() => new($"{name}: {path}[{_index}]: two tokens were expected, as \"a b\" or [\"a\", \"b\"]");

    private int Id(ReadOnlySpan<char> token) => vocabulary.IdOf(token) is var id and >= 0
        ? id
        : throw new InvalidDataException($"{name}: {path}[{_index}] needs the token \"{token}\", which the vocabulary does not have");
}
