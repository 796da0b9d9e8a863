using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab;

/// <summary>A prompt with images, and the same prompt as text alone: what the shift that images cause is measured on.</summary>
/// <param name="WithImages">With images.</param>
/// <param name="TextAlone">Without; nothing else differs.</param>
public sealed record PromptPair(Prompt WithImages, Prompt TextAlone);

// Shifts of last-token states (CMRM, arXiv 2410.09047): d_l = h_l(text, image) − h_l(text), for one request or for an anchor.
public sealed partial class VisionLanguageModel
{
    /// <summary>Positions that a prompt and its answer may take together.</summary>
    public int ContextLength => Loop().ContextLength;

    /// <summary>CMRM's meaningless image: white, in the size that the vision encoder sees.</summary>
    /// <exception cref="InvalidOperationException">The model sees no images.</exception>
    public Image BlankImage()
    {
        var (width, height) = ImageSize;
        return Image.Blank(width, height, 255, 255, 255);
    }

    /// <summary>Size in pixels that the vision encoder sees.</summary>
    internal (int Width, int Height) ImageSize => Files.Processor?.Size
        ?? throw new InvalidOperationException($"{Files.Path} is a language model without a vision encoder; no image shifts it");

    /// <summary>A conversation through the chat template, with images and without.</summary>
    /// <param name="messages">The conversation so far; at least one turn has an image.</param>
    /// <param name="images">The images of all turns in order; null takes a blank one for each.</param>
    /// <exception cref="ArgumentException">No turn has an image, or turns and images differ in number.</exception>
    public PromptPair ChatPair(IReadOnlyList<ChatMessage> messages, IReadOnlyList<Image>? images = null)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var count = messages.Sum(message => message.Images);
        return new(Chat(messages, images ?? Blanks(count)), Chat([.. messages.Select(message => message with { Images = 0 })]));
    }

    /// <summary>A prompt as it stands, with images, and without its placeholders and the one line break that may follow each.</summary>
    /// <param name="text">The prompt, with at least one image placeholder.</param>
    /// <param name="images">Its images in order; null takes a blank one for each placeholder.</param>
    /// <exception cref="ArgumentException">There is no placeholder, or placeholders and images differ in number.</exception>
    public PromptPair RawPair(string text, IReadOnlyList<Image>? images = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        var parts = text.Replace(Files.ImagePlaceholder, Files.ImageToken, StringComparison.Ordinal).Split(Files.ImageToken);
        var alone = string.Concat(parts.Select((part, i) => i == 0 ? part : AfterLineBreak(part)));
        return new(Raw(text, images ?? Blanks(parts.Length - 1)), Raw(alone));

        static string AfterLineBreak(string part)
            => part.StartsWith("\r\n", StringComparison.Ordinal) ? part[2..] : part.StartsWith('\n') ? part[1..] : part;
    }

    /// <summary>
    /// Sample-level CMRM (arXiv 2410.09047): v_l = h_l(text, blank image) − h_l(text) of one request at its prompt's last token, every
    /// decoder layer, unsteered. Costs two prefills. The result steers that request: <c>new SteeringOptions(v, Alpha: 1)</c>, whose own
    /// prompt holds the real images; <see cref="ShiftVectors.Cap"/> bounds it by what a vector file's anchors showed.
    /// </summary>
    /// <param name="pair">From <see cref="ChatPair"/> or <see cref="RawPair"/> without images given: blank ones stand in.</param>
    /// <param name="cacheGroup">See <see cref="GenerationOptions.CacheGroup"/>.</param>
    /// <param name="cancel">Stops it.</param>
    public async Task<ShiftVectors> SampleShiftAsync(PromptPair pair, string? cacheGroup = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(pair);
        var with = CaptureAsync(pair.WithImages, null, cacheGroup, cancel);
        var alone = CaptureAsync(pair.TextAlone, null, cacheGroup, cancel);
        await Task.WhenAll(with, alone).ConfigureAwait(false);
        var (a, b) = ((await with.ConfigureAwait(false)).States!, (await alone.ConfigureAwait(false)).States!);
        var width = Network.Spec.Text.HiddenSize;
        float[] Layer(int layer) => [.. a.AsSpan(layer * width, width).ToArray().Zip(b.AsSpan(layer * width, width).ToArray(), (x, y) => x - y)];
        return ShiftVectors.Create([.. Enumerable.Range(0, Network.Spec.Text.Layers).Select(Layer)], new Dictionary<string, string>
        {
            ["method"] = "sample",
            ["images"] = "blank",
            [ShiftVectors.FingerprintKey] = Network.Fingerprint,
        });
    }

    /// <summary>Runs a prompt alone, without an answer, and keeps its last-token states.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="steering">How its last token is steered, or null.</param>
    /// <param name="cacheGroup">See <see cref="GenerationOptions.CacheGroup"/>.</param>
    /// <param name="cancel">Stops it.</param>
    internal async Task<Sequence> CaptureAsync(
        Prompt prompt, SteeringOptions? steering = null, string? cacheGroup = null, CancellationToken cancel = default)
    {
        var ended = new TaskCompletionSource<Sequence>(TaskCreationOptions.RunContinuationsAsynchronously);
        var options = new GenerationOptions { MaxTokens = 0, Capture = true, Steering = steering, CacheGroup = cacheGroup };
        var sequence = new Sequence(prompt, options, Tokenizer, Network.Spec.Text.VocabularySize)
        {
            OnFinish = (sequence, _) =>
            {
                if (sequence.Error is { } error)
                    ended.TrySetException(error);
                else if (sequence.Finish == FinishReason.Cancelled)
                    ended.TrySetCanceled(cancel);
                else
                    ended.TrySetResult(sequence);
            },
        };
        Loop().Submit(sequence);
        using var registration = cancel.Register(sequence.Cancel);
        return await ended.Task.ConfigureAwait(false);
    }

    private Image[] Blanks(int count)
        => count > 0 ? [.. Enumerable.Repeat(BlankImage(), count)] : throw new ArgumentException("the prompt has no image, so no image has shifted it");
}
