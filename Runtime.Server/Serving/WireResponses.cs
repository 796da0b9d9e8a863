using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trimtab.Server.Serving;

/// <summary>A response of /v1/responses.</summary>
internal sealed record Response(string Id, string Object, long CreatedAt, string Status, string Model, IReadOnlyList<ResponseItem> Output)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public ErrorDetail? Error { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public ResponseIncomplete? IncompleteDetails { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Instructions { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public int? MaxOutputTokens { get; init; }

    public float Temperature { get; init; }
    public float TopP { get; init; }
    public ResponseText Text { get; init; } = new(new("text"));
    public bool ParallelToolCalls { get; init; }
    public string ToolChoice { get; init; } = "none";
    public IReadOnlyList<int> Tools { get; init; } = [];
    public string Truncation { get; init; } = "disabled";
    public bool Store { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? PreviousResponseId { get; init; }

    public IReadOnlyDictionary<string, string> Metadata { get; init; } = new Dictionary<string, string>();

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public ResponseUsage? Usage { get; init; }

    public Receipt? SteeringReceipt { get; init; }
}

/// <summary>Why a response is not complete.</summary>
internal sealed record ResponseIncomplete(string Reason);

/// <summary>The form of a response's text.</summary>
internal sealed record ResponseText(ResponseTextFormat Format);

/// <summary>The form's type.</summary>
internal sealed record ResponseTextFormat(string Type)
{
    public string? Name { get; init; }
    public JsonElement? Schema { get; init; }
}

/// <summary>A message of a response.</summary>
internal sealed record ResponseItem(string Type, string Id, string Status, string Role, IReadOnlyList<ResponsePart> Content);

/// <summary>A part of a message.</summary>
internal sealed record ResponsePart(string Type, string Text)
{
    public IReadOnlyList<int> Annotations { get; init; } = [];
    public IReadOnlyList<int> Logprobs { get; init; } = [];
}

/// <summary>Tokens of a response.</summary>
internal sealed record ResponseUsage(int InputTokens, CachedTokens InputTokensDetails, int OutputTokens, ReasoningTokens OutputTokensDetails, int TotalTokens);

/// <summary>Tokens of hidden reasoning: none here.</summary>
internal sealed record ReasoningTokens([property: JsonPropertyName("reasoning_tokens")] int Count);

/// <summary>An event of a response's stream.</summary>
internal sealed record ResponseEvent(string Type, int SequenceNumber)
{
    public Response? Response { get; init; }
    public string? ItemId { get; init; }
    public int? OutputIndex { get; init; }
    public int? ContentIndex { get; init; }
    public ResponseItem? Item { get; init; }
    public ResponsePart? Part { get; init; }
    public string? Delta { get; init; }
    public string? Text { get; init; }
    public IReadOnlyList<int>? Logprobs { get; init; }

    // Of an event of the type error.
    public string? Message { get; init; }
    public string? Code { get; init; }
    public string? Param { get; init; }
}
