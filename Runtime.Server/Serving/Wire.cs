using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trimtab.Server.Serving;

/// <summary>OpenAI's error object.</summary>
internal sealed record ErrorBody(ErrorDetail Error);

/// <summary>What an error says.</summary>
internal sealed record ErrorDetail(
    string Message, string Type,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Param,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Code);

/// <summary>Tokens of a completion.</summary>
internal sealed record Usage(int PromptTokens, int CompletionTokens, int TotalTokens, CachedTokens PromptTokensDetails);

/// <summary>Prompt tokens that the cache had.</summary>
internal sealed record CachedTokens([property: JsonPropertyName("cached_tokens")] int Count);

/// <summary>A chat completion, whole or (with deltas) a chunk of one.</summary>
internal sealed record ChatCompletion(string Id, string Object, long Created, string Model, string SystemFingerprint, IReadOnlyList<ChatChoice> Choices)
{
    public Usage? Usage { get; init; }

    /// <summary>Of the only choice, or of the first; in a stream, of the choice that ends in this chunk.</summary>
    public Receipt? SteeringReceipt { get; init; }

    /// <summary>Of every choice, where there are several.</summary>
    public IReadOnlyList<Receipt>? SteeringReceipts { get; init; }
}

/// <summary>One choice of a chat completion.</summary>
internal sealed record ChatChoice(int Index, ChatReply? Message, ChatDelta? Delta, ChatLogProbs? Logprobs,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? FinishReason);

/// <summary>A whole answer.</summary>
internal sealed record ChatReply(string Role, string Content, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Refusal = null);

/// <summary>A piece of an answer.</summary>
internal sealed record ChatDelta(string? Role = null, string? Content = null);

/// <summary>Likelihoods of tokens.</summary>
internal sealed record ChatLogProbs(IReadOnlyList<TokenLogProb> Content);

/// <summary>Likelihood of a token.</summary>
internal sealed record TokenLogProb(string Token, float Logprob, IReadOnlyList<int>? Bytes, IReadOnlyList<TokenLogProb>? TopLogprobs = null);

/// <summary>A completion, whole or a chunk of one.</summary>
internal sealed record TextCompletion(string Id, string Object, long Created, string Model, string SystemFingerprint, IReadOnlyList<TextChoice> Choices)
{
    public Usage? Usage { get; init; }
    public Receipt? SteeringReceipt { get; init; }
    public IReadOnlyList<Receipt>? SteeringReceipts { get; init; }
}

/// <summary>One choice of a completion.</summary>
internal sealed record TextChoice(int Index, string Text,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] TextLogProbs? Logprobs,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? FinishReason);

/// <summary>Likelihoods of a completion's tokens, in its older form.</summary>
internal sealed record TextLogProbs(IReadOnlyList<string> Tokens, IReadOnlyList<float> TokenLogprobs, IReadOnlyList<IReadOnlyDictionary<string, float>> TopLogprobs, IReadOnlyList<int> TextOffset);

/// <summary>A list of things.</summary>
internal sealed record ModelList(string Object, IReadOnlyList<ModelEntry> Data);

/// <summary>A model as /v1/models lists it.</summary>
internal sealed record ModelEntry(string Id, string Object, long Created, string OwnedBy, int MaxModelLen, bool Vision, string Fingerprint, int Layers);

/// <summary>Answer of /tokenize.</summary>
internal sealed record Tokenized(int Count, int MaxModelLen, IReadOnlyList<int> Tokens);

/// <summary>Answer of /detokenize.</summary>
internal sealed record Detokenized(string Prompt);

/// <summary>Answer of /health and /ready.</summary>
internal sealed record Health(string Status, string? Reason = null);

/// <summary>Answer of GET /v1/steering/vectors.</summary>
internal sealed record SteeringList(string Object, IReadOnlyList<VectorEntry> Data, PolicyEntry Policy);

/// <summary>A vector set.</summary>
/// <param name="Layers">Layers with a vector, such as 1-4.</param>
/// <param name="Norms">Length of each layer's vector, 0 where it has none.</param>
internal sealed record VectorEntry(string Name, string Hash, string Layers, IReadOnlyList<float> Norms, string? Method, string? Images, PointEntry? OperatingPoint, DateTimeOffset Added);

/// <summary>Where a calibration found the vectors to work best.</summary>
internal sealed record PointEntry(float Alpha, string Scope, string Layers);

/// <summary>The policy as a caller meets it.</summary>
/// <param name="May">What this caller may ask for beside the defaults: alpha, scope, layers, vectors, sample, off.</param>
internal sealed record PolicyEntry(string Version, string Hash, IReadOnlyList<string> May, RuleEntry Images, RuleEntry Text);

/// <summary>A policy's rule.</summary>
internal sealed record RuleEntry(bool Required, string? Vectors, float Alpha, float AlphaFloor, float AlphaCeiling, string Scope, string Layers, string BelowFloor, string? Unavailable);

/// <summary>Answer of an admin's change.</summary>
internal sealed record AdminDone(string Done, string? Name = null, string? Hash = null, int? Count = null);

/// <summary>The server's JSON, by generated code.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals)]
[JsonSerializable(typeof(ErrorBody))]
[JsonSerializable(typeof(ChatCompletion))]
[JsonSerializable(typeof(TextCompletion))]
[JsonSerializable(typeof(ModelList))]
[JsonSerializable(typeof(Tokenized))]
[JsonSerializable(typeof(Detokenized))]
[JsonSerializable(typeof(Health))]
[JsonSerializable(typeof(SteeringList))]
[JsonSerializable(typeof(AdminDone))]
[JsonSerializable(typeof(Receipt))]
[JsonSerializable(typeof(Response))]
[JsonSerializable(typeof(ResponseEvent))]
internal sealed partial class Wire : JsonSerializerContext
{
    /// <summary>With text readable.</summary>
    public static Wire Readable { get; } = new(Relaxed());

    private static JsonSerializerOptions Relaxed() => new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };
}
