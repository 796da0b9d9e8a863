using System.Numerics.Tensors;
using Trimtab.Engine;
using Trimtab.Steering;

namespace Trimtab.Evaluation;

/// <summary>What an image and its correction do to the last-token states of some prompts, for the report's pictures.</summary>
/// <param name="States">Each prompt's states: text alone, with a blank image, and the same steered (after each layer's edit).</param>
/// <param name="Layers">The image's shift along v of each steered layer, before and after.</param>
public sealed record ShiftSamples(IReadOnlyList<StatesSample> States, IReadOnlyList<LayerProjection> Layers)
{
    /// <summary>Measures prompts together.</summary>
    /// <param name="model">A vision-language model.</param>
    /// <param name="prompts">What users say; by the chat template.</param>
    /// <param name="steering">The edit.</param>
    /// <param name="cancel">Stops it.</param>
    public static async Task<ShiftSamples> MeasureAsync(
        VisionLanguageModel model, IReadOnlyList<string> prompts, SteeringOptions steering, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(prompts);
        ArgumentNullException.ThrowIfNull(steering);
        var spec = model.Network.Spec.Text;
        var (layers, width) = (spec.Layers, spec.HiddenSize);
        var capture = new GenerationOptions { MaxTokens = 0, Capture = true };
        var samples = await Task.WhenAll(prompts.Select(async prompt =>
        {
            var pair = model.ChatPair([new("user", prompt, 1)]);
            var runs = await Task.WhenAll(
                model.RunAsync(pair.TextAlone, capture, cancel),
                model.RunAsync(pair.WithImages, capture, cancel),
                model.RunAsync(pair.WithImages, capture with { Steering = steering }, cancel)).ConfigureAwait(false);
            return (Text: runs[0].States!, Image: runs[1].States!, Steered: runs[2].States!);
        })).ConfigureAwait(false);
        var measured = new List<LayerProjection>();
        for (var layer = 1; layer <= layers; layer++)
        {
            var v = steering.Vectors[layer];
            if (v.IsEmpty || steering.Layers?.Contains(layer) == false || steering.Scope == SteeringScope.Decode)
                continue;
            var (norm, before, after) = ((double)TensorPrimitives.Norm(v), 0.0, 0.0);
            foreach (var (text, image, steered) in samples)
            {
                var at = (layer - 1) * width;
                // States are captured before a layer's own edit; what the next layer reads is after it.
                TensorPrimitives.MultiplyAdd(v, -steering.Alpha, steered.AsSpan(at, width), steered.AsSpan(at, width));
                before += TensorPrimitives.Dot(v, image.AsSpan(at, width)) - TensorPrimitives.Dot(v, text.AsSpan(at, width));
                after += TensorPrimitives.Dot(v, steered.AsSpan(at, width)) - TensorPrimitives.Dot(v, text.AsSpan(at, width));
            }
            if (norm > 0 && samples.Length > 0)
                measured.Add(new(layer, norm, before / norm / samples.Length, after / norm / samples.Length));
        }
        StatesSample Sample(string group, float[] states) => new() { Group = group, Layers = layers, States = states };
        return new(
            [
                .. samples.Select(s => Sample("text", s.Text)),
                .. samples.Select(s => Sample("with image", s.Image)),
                .. samples.Select(s => Sample("with image, steered", s.Steered)),
            ],
            measured);
    }
}
