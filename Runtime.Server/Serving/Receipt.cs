using System.Security.Cryptography;
using System.Runtime.InteropServices;
using System.Text.Json;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>
/// What made one answer: enough to make it again (<c>trimtab replay</c>), and hashes to tell whether it is the same. Images are in it by
/// the hash of what the model saw.
/// </summary>
internal sealed record Receipt
{
    /// <summary>Version of this form.</summary>
    public int Version { get; init; } = Current;

    /// <summary>The form that is written. That before had another hash of logits: SHA-256 of all of them.</summary>
    public const int Current = 2;

    /// <summary>Id of the response.</summary>
    public required string Id { get; init; }

    /// <summary>Index of the choice.</summary>
    public int Choice { get; init; }

    /// <summary>When, in seconds since 1970.</summary>
    public long Created { get; init; }

    /// <summary>The model.</summary>
    public required ReceiptModel Model { get; init; }

    /// <summary>The policy that decided.</summary>
    public required ReceiptPolicy Policy { get; init; }

    /// <summary>How it was steered.</summary>
    public required ReceiptSteering Steering { get; init; }

    /// <summary>The prompt.</summary>
    public required ReceiptPrompt Prompt { get; init; }

    /// <summary>How tokens were drawn.</summary>
    public required ReceiptSampling Sampling { get; init; }

    /// <summary>What came of it.</summary>
    public required ReceiptAnswer Answer { get; init; }

    /// <summary>Where the hidden states lay along the vectors, or null where nothing was observed.</summary>
    public ReceiptTelemetry? Telemetry { get; init; }

    /// <summary>SHA-256 of numbers, little-endian.</summary>
    public static string HashOf<T>(ReadOnlySpan<T> values) where T : unmanaged => Convert.ToHexStringLower(SHA256.HashData(MemoryMarshal.AsBytes(values)));
}

/// <summary>The model of a receipt.</summary>
internal sealed record ReceiptModel(string Name, string Fingerprint, string Device)
{
    /// <summary>Form of the decoder's matrices where it is another than the checkpoint's, or null.</summary>
    public string? Dtype { get; init; }

    /// <summary>How activations met them.</summary>
    public string Activations { get; init; } = nameof(Kernels.Activations.F32);

    /// <summary>Form of keys and values.</summary>
    public string Kv { get; init; } = nameof(Trimtab.Model.KvType.F32);

    /// <summary>What the weights' files hold (<see cref="Trimtab.Model.ModelSource.Hash"/>); the fingerprint is that of quantised copies too.</summary>
    public string? WeightsHash { get; init; }

    /// <summary>What a model is.</summary>
    public static ReceiptModel Of(string name, VisionLanguageModel model) => new(name, model.Network.Fingerprint, model.Network.Device.Name)
    {
        Dtype = model.Options.WeightType?.ToString(),
        Activations = model.Options.Activations.ToString(),
        Kv = model.Options.Engine.KvType.ToString(),
        WeightsHash = model.WeightsHash,
    };
}

/// <summary>The policy of a receipt.</summary>
internal sealed record ReceiptPolicy(string Version, string Hash, string Caller);

/// <summary>The steering of a receipt.</summary>
/// <param name="Mode">dataset, sample or off.</param>
/// <param name="Vectors">Name, or null.</param>
/// <param name="VectorsHash">Hash of the vectors that steered, or null.</param>
/// <param name="Alpha">Strength.</param>
/// <param name="Scope">Tokens.</param>
/// <param name="Layers">Layers, or "all".</param>
/// <param name="RaisedFrom">The alpha that was asked for, where the policy raised it to its floor.</param>
internal sealed record ReceiptSteering(string Mode, string? Vectors, string? VectorsHash, float Alpha, string? Scope, string? Layers, float? RaisedFrom);

/// <summary>The prompt of a receipt.</summary>
/// <param name="TokenIds">Ids with one image token for each image.</param>
/// <param name="TokenIdsHash">SHA-256 of the ids as the model read them, image rows included, 32-bit little-endian.</param>
/// <param name="Images">SHA-256 of each image's normalised pixels.</param>
/// <param name="TextAloneIds">For mode sample: the ids without images.</param>
internal sealed record ReceiptPrompt(IReadOnlyList<int> TokenIds, string TokenIdsHash, IReadOnlyList<string> Images, IReadOnlyList<int>? TextAloneIds);

/// <summary>The sampling of a receipt.</summary>
internal sealed record ReceiptSampling
{
    public ulong Seed { get; init; }
    public float Temperature { get; init; }
    public float TopP { get; init; }
    public int TopK { get; init; }
    public float MinP { get; init; }
    public float RepetitionPenalty { get; init; }
    public float PresencePenalty { get; init; }
    public float FrequencyPenalty { get; init; }
    public IReadOnlyDictionary<string, float>? LogitBias { get; init; }
    public int MaxTokens { get; init; }
    public bool IgnoreEos { get; init; }
    public IReadOnlyList<string> Stop { get; init; } = [];
    public JsonElement? ResponseFormat { get; init; }

    public static ReceiptSampling Of(GenerationOptions options, JsonElement? format) => new()
    {
        Seed = options.Sampling.Seed,
        Temperature = options.Sampling.Temperature,
        TopP = options.Sampling.TopP,
        TopK = options.Sampling.TopK,
        MinP = options.Sampling.MinP,
        RepetitionPenalty = options.Sampling.RepetitionPenalty,
        PresencePenalty = options.Sampling.PresencePenalty,
        FrequencyPenalty = options.Sampling.FrequencyPenalty,
        LogitBias = options.Sampling.LogitBias?.ToDictionary(entry => entry.Key.ToString(System.Globalization.CultureInfo.InvariantCulture), entry => entry.Value),
        MaxTokens = options.MaxTokens,
        IgnoreEos = options.IgnoreEos,
        Stop = options.Stop,
        ResponseFormat = format,
    };

    /// <summary>The options that these were.</summary>
    public SamplingOptions Sampling() => new()
    {
        Seed = Seed,
        Temperature = Temperature,
        TopP = TopP,
        TopK = TopK,
        MinP = MinP,
        RepetitionPenalty = RepetitionPenalty,
        PresencePenalty = PresencePenalty,
        FrequencyPenalty = FrequencyPenalty,
        LogitBias = LogitBias?.ToDictionary(entry => int.Parse(entry.Key, System.Globalization.CultureInfo.InvariantCulture), entry => entry.Value),
    };
}

/// <summary>The answer of a receipt.</summary>
/// <param name="TokenIds">Tokens drawn.</param>
/// <param name="TokenIdsHash">SHA-256 of them, 32-bit little-endian.</param>
/// <param name="LogitsHash">SHA-256 of the XXH128 of each token's logits.</param>
/// <param name="FinishReason">Why it ended.</param>
internal sealed record ReceiptAnswer(IReadOnlyList<int> TokenIds, string TokenIdsHash, string? LogitsHash, string FinishReason);

/// <summary>Projections h_l · v_l/|v_l| of the steered tokens, an entry a decoder layer.</summary>
internal sealed record ReceiptTelemetry
{
    public int Tokens { get; init; }
    public float[]? PromptBefore { get; init; }
    public float[]? PromptAfter { get; init; }
    public float[] MeanBefore { get; init; } = [];
    public float[] MeanAfter { get; init; } = [];
    public float[]? Minimum { get; init; }
    public float[]? Maximum { get; init; }
    public float[]? Drift { get; init; }
    public bool? Drifted { get; init; }

    /// <summary>For each token, for each layer: before and after.</summary>
    public IReadOnlyList<float>? Series { get; init; }

    public static ReceiptTelemetry? Of(ShiftTelemetry? telemetry) => telemetry is null ? null : new()
    {
        Tokens = telemetry.Tokens,
        PromptBefore = telemetry.HasPrompt ? telemetry.PromptBefore : null,
        PromptAfter = telemetry.HasPrompt ? telemetry.PromptAfter : null,
        MeanBefore = telemetry.MeanBefore,
        MeanAfter = telemetry.MeanAfter,
        Minimum = telemetry.Tokens > 0 ? telemetry.Minimum : null,
        Maximum = telemetry.Tokens > 0 ? telemetry.Maximum : null,
        Drift = telemetry.Drift,
        Drifted = telemetry.Drifted,
        Series = telemetry.Series,
    };
}
