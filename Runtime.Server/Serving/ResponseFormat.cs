using System.Text.Json;
using Trimtab.Kernels;
using Trimtab.Text;

namespace Trimtab.Server.Serving;

/// <summary>The form that an answer is held to while it is decoded.</summary>
/// <param name="Source">What the request asked, for its receipt.</param>
/// <param name="Begin">Makes one answer's constraint.</param>
internal sealed record ResponseFormat(JsonElement Source, Func<TokenConstraint> Begin)
{
    private const int LongestSchema = 256 << 10;

    /// <summary>Whether the request has a schema, whose names and constants are words of the answer.</summary>
    public bool HasSchema => Source.GetProperty("type").ValueEquals("json_schema");

    /// <summary>Reads response_format of a chat completion: text, json_object or json_schema.</summary>
    public static ResponseFormat? ReadChat(Fields request, Tokenizer tokenizer) => Of(request.Object("response_format"), request.Any("response_format"), tokenizer, nested: true);

    /// <summary>Reads text.format of a response, whose schema stands beside its type.</summary>
    public static ResponseFormat? ReadResponse(Fields request, Tokenizer tokenizer)
    {
        if (request.Object("text") is not { } text)
            return null;
        text.Refuse("verbosity", e => e.ValueKind == JsonValueKind.String && e.GetString() == "medium");
        var format = Of(text.Object("format"), text.Any("format"), tokenizer, nested: false);
        text.End();
        return format;
    }

    /// <summary>Reads it again from a receipt.</summary>
    public static ResponseFormat? Read(JsonElement? source, Tokenizer tokenizer)
        => source is not { } element ? null : Of(new(element, "response_format"), element, tokenizer, nested: element.TryGetProperty("json_schema", out _));

    private static ResponseFormat? Of(Fields? format, JsonElement? source, Tokenizer tokenizer, bool nested)
    {
        if (format is null || source is not { } element)
            return null;
        switch (format.Word("type", "text", "json_object", "json_schema") ?? throw ApiException.Invalid(format.At("type"), "is missing"))
        {
            case "text":
                format.End();
                return null;
            case "json_object":
                format.End();
                return new(element.Clone(), () => JsonConstraint.ForObject(tokenizer));
            default:
                var holder = nested ? format.Object("json_schema") ?? throw ApiException.Invalid(format.At("json_schema"), "is missing; expected an object with name and schema") : format;
                holder.Ignore("name", "description", "strict"); // the schema is enforced either way
                if (holder.Any("schema") is not { } schema)
                    throw ApiException.Invalid(holder.At("schema"), "is missing; expected a JSON Schema");
                holder.End();
                format.End();
                return new(element.Clone(), Compile(schema.Clone(), holder.At("schema"), tokenizer));
        }
    }

    private static Func<TokenConstraint> Compile(JsonElement schema, string path, Tokenizer tokenizer)
    {
        if (schema.GetRawText().Length > LongestSchema)
            throw ApiException.Invalid(path, $"is longer than {LongestSchema} characters");
        try
        {
            JsonConstraint.ForSchema(schema, tokenizer); // an unusable schema is told before anything runs
        }
        catch (Exception error) when (error is FormatException or InvalidOperationException or JsonException)
        {
            throw ApiException.Invalid(path, error.Message, "invalid_json_schema");
        }
        return () => JsonConstraint.ForSchema(schema, tokenizer);
    }
}
