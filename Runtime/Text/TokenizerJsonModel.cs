using System.Runtime.CompilerServices;
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
                vocabulary = ReadVocabulary(ref reader, name);
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

    // This and the next are fully optimised from the start: each runs once, for most of the time that a load takes.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Vocabulary ReadVocabulary(ref Utf8JsonReader reader, string name)
    {
        var vocabulary = new Vocabulary();
        var buffer = new char[256];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var token = Text(ref reader, ref buffer, 0, name, "model.vocab");
            reader.Read();
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt32(out var id) || id < 0 || id >= Vocabulary.MaximumSize)
                throw new InvalidDataException($"{name}: model.vocab[\"{token}\"]: an id from 0 to below {Vocabulary.MaximumSize} was expected");
            vocabulary.Add(token, id);
        }
        return vocabulary.Seal();
    }

    /// <summary>Reads a string into the buffer, which grows where it must, from an index on.</summary>
    private static ReadOnlySpan<char> Text(ref Utf8JsonReader reader, ref char[] buffer, int from, string name, string path)
    {
        if (reader.ValueSpan.Length > buffer.Length - from)
            Array.Resize(ref buffer, checked(2 * (from + reader.ValueSpan.Length)));
        try
        {
            return buffer.AsSpan(from, reader.CopyString(buffer.AsSpan(from)));
        }
        catch (InvalidOperationException)
        {
            throw new InvalidDataException($"{name}: {path} has a string that is not of whole Unicode characters");
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static MergeTable ReadMerges(Utf8JsonReader reader, Vocabulary vocabulary, string name)
    {
        const string Path = "model.merges";
        var merges = new MergeTable(vocabulary, name, Path);
        var buffer = new char[256];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType == JsonTokenType.String)
            {
                merges.Add(Text(ref reader, ref buffer, 0, name, Path));
                continue;
            }
            if (reader.TokenType != JsonTokenType.StartArray || !reader.Read() || reader.TokenType != JsonTokenType.String)
                throw merges.Malformed();
            var left = Text(ref reader, ref buffer, 0, name, Path).Length;
            if (!reader.Read() || reader.TokenType != JsonTokenType.String)
                throw merges.Malformed();
            var right = Text(ref reader, ref buffer, left, name, Path);
            if (!reader.Read() || reader.TokenType != JsonTokenType.EndArray)
                throw merges.Malformed();
            merges.Add(buffer.AsSpan(0, left), right);
        }
        return merges;
    }
}
