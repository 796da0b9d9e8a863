using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>How much of the shift telemetry is kept.</summary>
public enum TelemetryDetail
{
    /// <summary>None.</summary>
    None,
    /// <summary>Sums over tokens, and the prompt's last token.</summary>
    Summary,
    /// <summary>Every token as well: 8 · L bytes each.</summary>
    Series,
}

/// <summary>
/// Where a sequence's hidden states lie along its steering vectors: for every decoder layer l the projection h_l · v_l/|v_l| before and
/// after the edit h_l := h_l − alpha · v_l, computed where the edit is. Counted are the tokens in the steering's scope (with alpha 0, that is
/// observed only, those that would be steered); the prompt's last token is observed in any case. Layers without a vector are 0.
/// Written by the engine's thread; read it when the sequence has ended or from its callbacks.
/// </summary>
public sealed class ShiftTelemetry
{
    private readonly double[] _before, _after;        // [L] sums
    private readonly float[] _norms;                  // [L] |v_l|, 0 where the layer is not steered
    private readonly List<float>? _series;            // tokens · [L, 2]
    private readonly StateProjections? _anchors;

    internal ShiftTelemetry(SteeringOptions steering, int layers, bool series)
    {
        (_before, _after, _norms) = (new double[layers], new double[layers], new float[layers]);
        (PromptBefore, PromptAfter) = (new float[layers], new float[layers]);
        Minimum = Filled(layers, float.PositiveInfinity);
        Maximum = Filled(layers, float.NegativeInfinity);
        for (var layer = 1; layer <= layers; layer++)
        {
            var vector = steering.Vectors[layer];
            if (!vector.IsEmpty && (steering.Layers?.Contains(layer) ?? true))
                _norms[layer - 1] = (float)Math.Sqrt(System.Numerics.Tensors.TensorPrimitives.SumOfSquares<double>(Array.ConvertAll(vector.ToArray(), v => (double)v)));
        }
        _series = series ? [] : null;
        var alpha = steering.Scope == SteeringScope.Decode ? 0 : steering.Alpha; // what the prompt is steered by
        _anchors = steering.Vectors.StateProjections is { } anchors && anchors.Fit(alpha, steering.Layers) ? anchors : null;
    }

    /// <summary>L: decoder layers.</summary>
    public int Layers => _norms.Length;

    /// <summary>Tokens counted.</summary>
    public int Tokens { get; private set; }

    /// <summary>Whether the prompt's last token was seen: <see cref="PromptBefore"/> and <see cref="PromptAfter"/> are set.</summary>
    public bool HasPrompt { get; private set; }

    /// <summary>[L] projection of the prompt's last token before the edit.</summary>
    public float[] PromptBefore { get; }

    /// <summary>[L] the same after it; equal where the scope leaves the prompt out.</summary>
    public float[] PromptAfter { get; }

    /// <summary>[L] mean over the counted tokens before the edit; zeros without tokens.</summary>
    public float[] MeanBefore => Mean(_before);

    /// <summary>[L] mean over the counted tokens after the edit; zeros without tokens.</summary>
    public float[] MeanAfter => Mean(_after);

    /// <summary>[L] least projection before the edit; +∞ without tokens.</summary>
    public float[] Minimum { get; }

    /// <summary>[L] greatest projection before the edit; −∞ without tokens.</summary>
    public float[] Maximum { get; }

    /// <summary>[Tokens · L · 2] every counted token's projections: token, layer, then before and after; null without <see cref="TelemetryDetail.Series"/>.</summary>
    public IReadOnlyList<float>? Series => _series;

    /// <summary>
    /// [L] how many standard deviations the prompt's last token lies from the anchors' mean before the edit, 0 where a layer has no vector or
    /// its anchors no spread. Null before the prompt was seen, and where the vectors carry no <see cref="ShiftVectors.StateProjections"/> of
    /// this alpha and these layers: an edit in a lower layer moves the states of those above it, so other settings do not compare.
    /// </summary>
    public float[]? Drift => !HasPrompt || _anchors is null ? null :
        [.. PromptBefore.Select((value, l) => _norms[l] > 0 && _anchors.Values[l].Sigma > 0 ? (float)((value - _anchors.Values[l].Mean) / _anchors.Values[l].Sigma) : 0)];

    /// <summary>
    /// Whether the prompt is unlike those that the vectors were made from: the root mean square of <see cref="Drift"/> over the layers with
    /// vectors is above <see cref="DriftLimit"/>. Null where there is no drift to tell.
    /// </summary>
    public bool? Drifted => Drift is not { } drift ? null : Math.Sqrt(drift.Sum(z => (double)z * z) / Math.Max(1, _norms.Count(n => n > 0))) > DriftLimit;

    /// <summary>
    /// Limit of <see cref="Drifted"/>, 4: anchors themselves have a root mean square of 1 on average, and layers move together, so a few of a
    /// hundred ordinary requests reach 2 and none 4 where projections are anywhere near normal.
    /// </summary>
    public const double DriftLimit = 4;

    /// <summary>Takes one token's dot products with v, [L, 2]: before and after the edit.</summary>
    internal void Add(ReadOnlySpan<float> products, bool prompt, bool counted)
    {
        if (counted)
            Tokens++;
        for (var l = 0; l < _norms.Length; l++)
        {
            var (before, after) = _norms[l] > 0 ? (products[2 * l] / _norms[l], products[2 * l + 1] / _norms[l]) : (0, 0);
            if (prompt)
                (PromptBefore[l], PromptAfter[l]) = (before, after);
            if (!counted)
                continue;
            _before[l] += before;
            _after[l] += after;
            Minimum[l] = MathF.Min(Minimum[l], before);
            Maximum[l] = MathF.Max(Maximum[l], before);
            _series?.Add(before);
            _series?.Add(after);
        }
        HasPrompt |= prompt;
    }

    private float[] Mean(double[] sums) => Array.ConvertAll(sums, sum => (float)(sum / Math.Max(1, Tokens)));

    private static float[] Filled(int count, float value)
    {
        var array = new float[count];
        Array.Fill(array, value);
        return array;
    }
}
