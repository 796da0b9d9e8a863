using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Server.Serving;

/// <summary>How a request's answers are made, whichever interface it came through.</summary>
internal sealed record AnswerSettings
{
    /// <summary>What OpenTelemetry calls the request: chat or text_completion.</summary>
    public string Operation { get; init; } = "chat";

    /// <summary>Most tokens, or null for the server's limit.</summary>
    public int? MaxTokens { get; init; }

    /// <summary>How tokens are drawn; its seed is the first answer's, and each further one counts up from it.</summary>
    public SamplingOptions Sampling { get; init; } = new();

    /// <summary>Texts that end an answer.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    /// <summary>Answers to one prompt.</summary>
    public int Count { get; init; } = 1;

    /// <summary>Whether each token's likelihood is told; <see cref="SamplingOptions.TopLogProbs"/> then is at least 1.</summary>
    public bool LogProbs { get; init; }

    /// <summary>Alternatives told with each token.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>Whether the answer is streamed.</summary>
    public bool Stream { get; init; }

    /// <summary>Whether a stream ends with a chunk of usage.</summary>
    public bool IncludeUsage { get; init; }

    /// <summary>The form that the answer must have, or null.</summary>
    public ResponseFormat? Format { get; init; }

    /// <summary>Whether an answer goes on after an end-of-sequence token.</summary>
    public bool IgnoreEos { get; init; }

    /// <summary>What is asked of the steering.</summary>
    public SteeringRequest Steering { get; init; } = SteeringRequest.None;

    /// <summary>The field by which the caller has a hand in the words of the answer, or null.</summary>
    public string? Forces(Question question) => question.Raw ? "prompt" : Sampling.LogitBias is not null ? "logit_bias" : Format is { HasSchema: true } ? "response_format"
        // A refusal's words that stand in the prompt are made unlikely by it.
        : Sampling.RepetitionPenalty != 1 ? "repetition_penalty" : IgnoreEos ? "ignore_eos" : null;

    /// <summary>Reads what all three interfaces have in common.</summary>
    /// <param name="request">The request.</param>
    /// <param name="options">Limits.</param>
    /// <param name="layers">The model's decoder layers.</param>
    /// <param name="vocabulary">The model's tokens.</param>
    /// <param name="limits">Names of the field that limits tokens.</param>
    public static AnswerSettings ReadCommon(Fields request, ServeOptions options, int layers, int vocabulary, params ReadOnlySpan<string> limits)
    {
        CheckModel(request, options);
        long? most = null;
        foreach (var name in limits)
        {
            var value = request.Integer(name, 0, int.MaxValue);
            if (value is not null && most is not null && value != most)
                throw ApiException.Invalid(request.At(name), $"is {value}, but {limits[0]} is {most}; expected one of them");
            most ??= value;
        }
        request.Ignore("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls");
        request.Refuse("store", e => e.ValueKind == JsonValueKind.False, "nothing is stored");
        request.Refuse("service_tier", e => e.ValueKind == JsonValueKind.String && e.GetString() is "auto" or "default");
        request.Refuse("tools", e => e.ValueKind == JsonValueKind.Array && e.GetArrayLength() == 0, "it calls no tools");
        request.Refuse("tool_choice", e => e.ValueKind == JsonValueKind.String && e.GetString() is "none" or "auto", "it calls no tools");
        var bias = Bias(request, vocabulary);
        return new()
        {
            MaxTokens = most is { } tokens ? (int)Math.Min(tokens, options.MaxTokens) : null,
            Steering = SteeringRequest.Read(request, layers),
            Stream = request.Flag("stream") ?? false,
            IgnoreEos = request.Flag("ignore_eos") ?? false,
            Sampling = new()
            {
                Temperature = (float)(request.Number("temperature", 0, 2) ?? 1),
                TopP = (float)Math.Max(request.Number("top_p", 0, 1) ?? 1, 1e-6), // OpenAI takes 0 for the most likely token alone
                TopK = (int)(request.Integer("top_k", 0, int.MaxValue) ?? 0),
                MinP = (float)(request.Number("min_p", 0, 1) ?? 0),
                RepetitionPenalty = (float)(request.Number("repetition_penalty", 0.01, 100) ?? 1),
                PresencePenalty = (float)(request.Number("presence_penalty", -2, 2) ?? 0),
                FrequencyPenalty = (float)(request.Number("frequency_penalty", -2, 2) ?? 0),
                LogitBias = bias,
                // Some clients write seeds as signed numbers; a request without one gets one that its receipt tells.
                Seed = request.Integer("seed", long.MinValue, long.MaxValue) is { } seed ? unchecked((ulong)seed) : (ulong)RandomNumberGenerator.GetInt32(int.MaxValue),
            },
        };
    }

    /// <summary>Reads stop: a string or up to sixteen.</summary>
    public static IReadOnlyList<string> ReadStop(Fields request)
    {
        if (request.Any("stop") is { ValueKind: JsonValueKind.String } one)
            return [Stop(one, "stop")];
        return [.. (request.List("stop", 16) ?? []).Select(entry => Stop(entry.Value, entry.Path))];

        static string Stop(JsonElement value, string path)
            => Fields.Text(value, path, 1000) is { Length: > 0 } text ? text : throw ApiException.Invalid(path, "is empty; expected at least one character");
    }

    /// <summary>Reads stream_options.</summary>
    public static bool ReadIncludeUsage(Fields request, bool stream)
    {
        if (request.Object("stream_options") is not { } fields)
            return false;
        if (!stream)
            throw ApiException.Invalid("stream_options", "is only for stream: true");
        var usage = fields.Flag("include_usage") ?? false;
        fields.Ignore("include_obfuscation");
        fields.End();
        return usage;
    }

    /// <summary>Refuses another model's name.</summary>
    private static void CheckModel(Fields request, ServeOptions options)
    {
        var name = request.RequiredText("model");
        if (name != options.ModelName)
            throw new ApiException(404, $"model: there is no model '{(name.Length <= 80 ? name : name[..80] + "…")}'; this server has '{options.ModelName}'", "model", "model_not_found");
    }

    private static Dictionary<int, float>? Bias(Fields request, int vocabulary)
    {
        if (request.Any("logit_bias") is not { } value)
            return null;
        if (value.ValueKind != JsonValueKind.Object)
            throw ApiException.Invalid("logit_bias", $"is {Fields.Kind(value)}; expected an object of token ids");
        _ = new Fields(value, "logit_bias"); // a token twice is refused
        var biases = new Dictionary<int, float>();
        foreach (var entry in value.EnumerateObject())
        {
            if (!int.TryParse(entry.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var id) || id >= vocabulary)
                throw ApiException.Invalid("logit_bias", $"has the key '{(entry.Name.Length <= 40 ? entry.Name : entry.Name[..40])}'; expected token ids below {vocabulary}");
            if (entry.Value.ValueKind != JsonValueKind.Number || !entry.Value.TryGetDouble(out var bias) || bias is not (>= -100 and <= 100))
                throw ApiException.Invalid("logit_bias", $"of token {id}: expected a number from -100 to 100");
            if (biases.Count == 4096)
                throw ApiException.Invalid("logit_bias", "has more than 4096 entries");
            if (!biases.TryAdd(id, (float)bias))
                throw ApiException.Invalid("logit_bias", $"has token {id} twice");
        }
        return biases.Count > 0 ? biases : null;
    }
}
