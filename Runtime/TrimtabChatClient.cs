using System.Runtime.CompilerServices;
using System.Text;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Steering;
using Trimtab.Text;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace Trimtab;

/// <summary>
/// A model in this process as an <see cref="IChatClient"/>: streaming, images as <see cref="DataContent"/>, usage, JSON by schema. Requests that run at the
/// same time share batches. Steering: the client's own, unless a request's <see cref="ChatOptions.AdditionalProperties"/> has <see cref="SteeringKey"/>.
/// </summary>
/// <param name="model">The model; the caller keeps it.</param>
/// <param name="steering">The CMRM edit of requests that name none, or null.</param>
public sealed class TrimtabChatClient(VisionLanguageModel model, SteeringOptions? steering = null) : IChatClient
{
    /// <summary>Key of <see cref="ChatOptions.AdditionalProperties"/>: a <see cref="SteeringOptions"/>, or null for an unsteered answer.</summary>
    public const string SteeringKey = "steering";

    private readonly ChatClientMetadata _metadata = new("trimtab", defaultModelId: Path.GetFileName(Path.TrimEndingDirectorySeparator(model.Files.Path)));

    /// <inheritdoc/>
    public Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
        => GetStreamingResponseAsync(messages, options, cancellationToken).ToChatResponseAsync(cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The messages or options hold something that a model of this kind cannot take; nothing is passed over.</exception>
    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        var prompt = Prompt(messages, options);
        var id = Guid.NewGuid().ToString("N");
        await foreach (var update in model.GenerateAsync(prompt, Generation(options), cancellationToken).ConfigureAwait(false))
        {
            if (update.Text.Length > 0)
                yield return Piece(new TextContent(update.Text));
            if (update.Finish == FinishReason.None)
                continue;
            var (prompted, generated) = (prompt.Tokens.Length, update.Sequence.Generated.Count);
            var last = Piece(new UsageContent(new() { InputTokenCount = prompted, OutputTokenCount = generated, TotalTokenCount = prompted + generated }));
            last.FinishReason = update.Finish switch
            {
                FinishReason.Stop => ChatFinishReason.Stop,
                FinishReason.Length => ChatFinishReason.Length,
                var other => new(other.ToString().ToLowerInvariant()),
            };
            yield return last;
        }

        ChatResponseUpdate Piece(AIContent content) => new(ChatRole.Assistant, [content]) { ResponseId = id, MessageId = id, ModelId = _metadata.DefaultModelId };
    }

    private Engine.Prompt Prompt(IEnumerable<ChatMessage> messages, ChatOptions? options)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var (turns, images) = (new List<Text.ChatMessage>(), new List<Image>());
        if (options?.Instructions is { Length: > 0 } instructions)
            turns.Add(new("system", instructions));
        foreach (var message in messages)
        {
            var (text, count) = (new StringBuilder(), images.Count);
            foreach (var content in message.Contents)
            {
                switch (content)
                {
                    case TextContent part:
                        text.Append(part.Text);
                        break;
                    case DataContent part when part.HasTopLevelMediaType("image"):
                        images.Add(ImageDecoder.Decode(part.Data.Span, part.Name ?? $"image {images.Count + 1}"));
                        break;
                    case UsageContent:
                        break;
                    default:
                        throw new ArgumentException($"a message holds {content.GetType().Name}; expected TextContent, or DataContent with an image", nameof(messages));
                }
            }
            turns.Add(new(message.Role.Value, text.ToString(), images.Count - count));
        }
        return model.Chat(turns, images);
    }

    private GenerationOptions Generation(ChatOptions? options)
    {
        if (options?.Tools is { Count: > 0 })
            throw new ArgumentException("tools are not supported", nameof(options));
        var (sampling, defaults) = (new SamplingOptions(), new GenerationOptions());
        if (options is null)
            return defaults with { Steering = steering };
        return defaults with
        {
            MaxTokens = options.MaxOutputTokens ?? defaults.MaxTokens,
            Stop = [.. options.StopSequences ?? []],
            Sampling = sampling with
            {
                Temperature = options.Temperature ?? sampling.Temperature,
                TopP = options.TopP ?? sampling.TopP,
                TopK = options.TopK ?? sampling.TopK,
                PresencePenalty = options.PresencePenalty ?? 0,
                FrequencyPenalty = options.FrequencyPenalty ?? 0,
                Seed = unchecked((ulong)(options.Seed ?? 0)),
            },
            Steering = Steered(options),
            Constraint = options.ResponseFormat switch
            {
                ChatResponseFormatJson { Schema: { } schema } => () => JsonConstraint.ForSchema(schema, model.Tokenizer),
                ChatResponseFormatJson => () => JsonConstraint.ForObject(model.Tokenizer),
                _ => null,
            },
        };
    }

    private SteeringOptions? Steered(ChatOptions options)
    {
        if (options.AdditionalProperties?.TryGetValue(SteeringKey, out var own) != true)
            return steering;
        // A value of another type must not become an unsteered answer.
        return own is null or SteeringOptions ? (SteeringOptions?)own
            : throw new ArgumentException($"AdditionalProperties[\"{SteeringKey}\"] is a {own.GetType().Name}; expected {nameof(SteeringOptions)} or null", nameof(options));
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? _metadata
            : serviceType.IsInstanceOfType(model) ? model
            : serviceType.IsInstanceOfType(this) ? this : null;
    }

    /// <summary>Does nothing: the model stays its owner's.</summary>
    public void Dispose()
    {
    }
}

/// <summary>Registers a model with a host.</summary>
public static class TrimtabServices
{
    /// <summary>Adds a <see cref="VisionLanguageModel"/>, opened at first use and closed with the host, and an <see cref="IChatClient"/> over it.</summary>
    /// <param name="services">The host's services.</param>
    /// <param name="path">Folder or file, as for <see cref="VisionLanguageModel.Open"/>.</param>
    /// <param name="options">How it is opened.</param>
    /// <param name="vectors">A vector file that steers every request that names no other steering, or null.</param>
    public static IServiceCollection AddTrimtab(this IServiceCollection services, string path, ModelOptions? options = null, string? vectors = null)
    {
        services.AddSingleton(_ => VisionLanguageModel.Open(path, options));
        services.AddSingleton<IChatClient>(provider =>
        {
            // Both are opened here: a host whose vectors are gone or do not fit gets an error, not unsteered answers.
            var model = provider.GetRequiredService<VisionLanguageModel>();
            var shift = vectors is null ? null : ShiftVectors.Open(vectors);
            shift?.Check(model.Network.Spec.Text.Layers, model.Network.Spec.Text.HiddenSize, model.Network.Fingerprint);
            return new TrimtabChatClient(model, shift is null ? null : SteeringOptions.Of(shift));
        });
        return services;
    }
}
