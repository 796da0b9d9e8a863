using System.Text.Json;

namespace Trimtab.Text;

/// <summary>
/// Reads Hugging Face's tokenizer.json. Vocabulary and merges, which are most of the file, are read straight from its bytes; the rest,
/// small, from a document. What is not supported is refused by name.
/// </summary>
internal static class TokenizerJson
{
    public static Tokenizer.Parts Read(ReadOnlyMemory<byte> utf8, string name, ReadOnlyMemory<byte> config)
    {
        try
        {
            return ReadChecked(utf8.Span, name, config);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException) // the latter: strings that are not Unicode
        {
            throw new InvalidDataException($"{name}: {error.Message}; a JSON object was expected", error);
        }
    }

    private static ReadOnlySpan<byte> WithoutMark(ReadOnlySpan<byte> utf8) => utf8.StartsWith("\uFEFF"u8) ? utf8[3..] : utf8;

    private static Tokenizer.Parts ReadChecked(ReadOnlySpan<byte> utf8, string name, ReadOnlyMemory<byte> config)
    {
        var reader = new Utf8JsonReader(WithoutMark(utf8));
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
            throw new InvalidDataException($"{name}: a JSON object was expected");
        var fields = new Dictionary<string, JsonElement>();
        var model = default(TokenizerJsonModel);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var field = reader.GetString()!;
            reader.Read();
            if (field == "model")
                model = TokenizerJsonModel.Read(ref reader, name);
            else
                fields[field] = JsonElement.ParseValue(ref reader);
        }
        if (reader.Read())
            throw new InvalidDataException($"{name}: there is more after the JSON object");
        if (model is null)
            throw new InvalidDataException($"{name}: model is missing; an object was expected");
        TokenizerField Top(string field) => new(name, field, fields.GetValueOrDefault(field));

        var added = ReadAdded(Top("added_tokens"), model.Vocabulary);
        var normalizers = new List<Normalizer>();
        var preTokenizers = new List<PreTokenizer>();
        var decoders = new List<Decoder>();
        TokenizerJsonSteps.ReadNormalizer(Top("normalizer"), normalizers);
        TokenizerJsonSteps.ReadPreTokenizer(Top("pre_tokenizer"), preTokenizers);
        TokenizerJsonSteps.ReadDecoder(Top("decoder"), decoders);
        if (decoders.Count == 0)
            decoders.Add(static next => new SpaceStep(next));
        var before = new List<int>();
        var after = new List<int>();
        ReadPostProcessor(Top("post_processor"), before, after);

        int? bos = before.Count > 0 ? before[0] : null;
        int? eos = after.Count > 0 ? after[^1] : null;
        if (!config.IsEmpty)
            ReadConfig(config, name, IdOf, before, after, ref bos, ref eos);
        foreach (var id in before.Concat(after))
            if (model.Vocabulary.TextOf(id) is null && !added.Exists(t => t.Id == id))
                throw Top("post_processor").Expected($"ids of known tokens, which {id} is not,");
        return new Tokenizer.Parts(name, model.Vocabulary, model.Merges)
        {
            Added = added,
            Normalizers = normalizers,
            PreTokenizers = preTokenizers,
            Decoders = decoders,
            Before = before,
            After = after,
            Bos = bos,
            Eos = eos,
            Ends = eos is { } end ? [end] : [],
        };

        int? IdOf(string token) =>
            added.FirstOrDefault(t => t.Content == token)?.Id ?? (model.Vocabulary.IdOf(token) is var id and >= 0 ? id : null);
    }

    private static List<AddedToken> ReadAdded(TokenizerField field, Vocabulary vocabulary)
    {
        var tokens = new Dictionary<string, AddedToken>(); // a later one of the same content takes the place of an earlier
        if (field.IsNull)
            return [];
        foreach (var item in field.Items())
        {
            var content = item["content"].Text();
            if (content.Length == 0)
                continue;
            // The model's own id of that text goes before the one written here.
            var id = vocabulary.IdOf(content);
            if (id < 0)
            {
                id = item["id"].Integer(0, Vocabulary.MaximumSize);
                if (vocabulary.TextOf(id) is { } other)
                    throw item["id"].Expected($"an id other than that of \"{other}\" in model.vocab");
            }
            var special = item["special"].Flag(false);
            tokens[content] = new AddedToken(
                content, id, special, item["normalized"].Flag(!special), item["single_word"].Flag(false),
                item["lstrip"].Flag(false), item["rstrip"].Flag(false));
        }
        return [.. tokens.Values];
    }

    private static void ReadPostProcessor(TokenizerField field, List<int> before, List<int> after)
    {
        if (field.IsNull)
            return;
        switch (field["type"].Text())
        {
            case "ByteLevel": // changes offsets only
                return;
            case "Sequence":
                foreach (var item in field["processors"].Items())
                    ReadPostProcessor(item, before, after);
                return;
            case "TemplateProcessing":
                break;
            default:
                throw field["type"].Unsupported("TemplateProcessing, ByteLevel, Sequence");
        }
        List<int> head = [], tail = [];
        var side = head;
        foreach (var item in field["single"].Items())
        {
            if (item["SpecialToken"] is { IsNull: false } special)
            {
                var entry = field["special_tokens"][special["id"].Text()];
                foreach (var id in entry["ids"].Items())
                    side.Add(id.Integer(0, Vocabulary.MaximumSize));
            }
            else if (item["Sequence"]["id"].Text() == "A" && side == head)
            {
                side = tail;
            }
            else
            {
                throw item.Unsupported("special tokens around one sequence A");
            }
        }
        if (side == head)
            throw field["single"].Unsupported("special tokens around one sequence A");
        before.InsertRange(0, head);
        after.AddRange(tail);
    }

    /// <summary>What tokenizer_config.json says of BOS and EOS: it goes before the post-processor, as in transformers.</summary>
    private static void ReadConfig(
        ReadOnlyMemory<byte> utf8, string name, Func<string, int?> idOf, List<int> before, List<int> after, ref int? bos, ref int? eos)
    {
        var reader = new Utf8JsonReader(WithoutMark(utf8.Span));
        var config = new TokenizerField($"{name} (its tokenizer_config.json)", "", JsonElement.ParseValue(ref reader));
        bos = Id("bos_token") ?? bos;
        eos = Id("eos_token") ?? eos;
        if (bos is { } begin && !config["add_bos_token"].IsNull)
        {
            var has = before.Count > 0 && before[0] == begin;
            if (config["add_bos_token"].Flag(false) && !has)
                before.Insert(0, begin);
            else if (!config["add_bos_token"].Flag(false) && has)
                before.RemoveAt(0);
        }
        if (eos is { } end && !config["add_eos_token"].IsNull)
        {
            var has = after.Count > 0 && after[^1] == end;
            if (config["add_eos_token"].Flag(false) && !has)
                after.Add(end);
            else if (!config["add_eos_token"].Flag(false) && has)
                after.RemoveAt(after.Count - 1);
        }

        int? Id(string field)
        {
            var token = config[field];
            if (token.Element.ValueKind == JsonValueKind.Object)
                token = token["content"];
            return token.IsNull ? null : idOf(token.Text());
        }
    }
}
