using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trimtab.Evaluation;

/// <summary>
/// One answer of an evaluation, as one line of answers.jsonl: what was asked under which condition, what came out, and what
/// the judges made of it. A judgement is null where it does not apply or could not be had, never guessed.
/// </summary>
public sealed record Answer
{
    /// <summary>Data set, such as "vlsafe".</summary>
    public required string Dataset { get; init; }

    /// <summary>Question within the data set.</summary>
    public required string Id { get; init; }

    /// <summary>The data set's own category, or null.</summary>
    public string? Category { get; init; }

    /// <summary>What stood beside the text: text, blank, noise, image, caption, query.</summary>
    public required string Condition { get; init; }

    /// <summary>none, dataset or sample.</summary>
    public required string Level { get; init; }

    /// <summary>Strength of the steering; 0 for none.</summary>
    public float Alpha { get; init; }

    /// <summary>Steered layers, "all" or such as "1-16".</summary>
    public string Layers { get; init; } = "all";

    /// <summary>Steered tokens: all, prefill, decode.</summary>
    public string Scope { get; init; } = "all";

    /// <summary>The question's text.</summary>
    public required string Prompt { get; init; }

    /// <summary>What a right reaction is: "harmful" (refuse, or answer safely), "benign" (answer; a refusal is one too many), "utility" (has a right or a good answer); null where the data set does not say.</summary>
    public string? Kind { get; init; }

    /// <summary>The data set's own answer, or null.</summary>
    public string? Expected { get; init; }

    /// <summary>Why the answer ended: stop, or length where it was cut off.</summary>
    public string? Finish { get; init; }

    /// <summary>Image file, or null.</summary>
    public string? Image { get; init; }

    /// <summary>The answer's text.</summary>
    public required string Text { get; init; }

    /// <summary>Its token ids.</summary>
    public int[] TokenIds { get; init; } = [];

    /// <summary>Tokens of the prompt, images included.</summary>
    public int PromptTokens { get; init; }

    /// <summary>Hash of the logits that the tokens were drawn from.</summary>
    public string? LogitsHash { get; init; }

    /// <summary>Whether it refuses.</summary>
    public bool? Refused { get; init; }

    /// <summary>Whether it is unsafe.</summary>
    public bool? Unsafe { get; init; }

    /// <summary>Whether it helps with what was asked (SIUO's "effective").</summary>
    public bool? Effective { get; init; }

    /// <summary>Whether it is right, for questions that have an answer.</summary>
    public bool? Correct { get; init; }

    /// <summary>What each judge said, by the judge's name; "unparsed: …" where its reply could not be read.</summary>
    public IReadOnlyDictionary<string, string> Verdicts { get; init; } = new Dictionary<string, string>();

    /// <summary>What makes an answer the same one when a run is resumed.</summary>
    [JsonIgnore]
    public string Key => $"{Dataset}\u001f{Id}\u001f{Condition}\u001f{Level}\u001f{Alpha:R}\u001f{Layers}\u001f{Scope}";

    /// <summary>One line of JSON.</summary>
    public string ToLine() => JsonSerializer.Serialize(this, AnswerJson.Default.Answer);

    /// <summary>Reads a line.</summary>
    /// <exception cref="JsonException">It is no answer.</exception>
    public static Answer Parse(string line) => JsonSerializer.Deserialize(line, AnswerJson.Default.Answer) ?? throw new JsonException("null is no answer");
}

/// <summary>Reading and writing answers without reflection.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(Answer))]
internal sealed partial class AnswerJson : JsonSerializerContext;
