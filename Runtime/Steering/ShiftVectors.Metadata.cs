using System.Globalization;
using System.Text.Json;
using Trimtab.Checkpoints;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Steering;

/// <summary>The setting that a calibration chose for its vectors.</summary>
/// <param name="Alpha">Strength.</param>
/// <param name="Scope">Which tokens.</param>
/// <param name="Layers">Which decoder layers, or null for all.</param>
public sealed record OperatingPoint(float Alpha, SteeringScope Scope, LayerSet? Layers);

/// <summary>How the differences of the anchors lie along one layer's vector: their projections d · v/|v|.</summary>
/// <param name="Mean">Mean over the anchors.</param>
/// <param name="Sigma">Population standard deviation.</param>
public readonly record struct Projection(double Mean, double Sigma);

/// <summary>
/// How the anchors' own states (not their differences) lie along each layer's vector: h_l · v_l/|v_l| at the prompt's last token with its
/// image, before the edit, while the layers below are steered by the same setting that a request is compared under.
/// </summary>
/// <param name="Values">[L], the first of layer 1.</param>
/// <param name="Alpha">The setting's alpha; 0 for unsteered states.</param>
/// <param name="Layers">The setting's layers, or null for all.</param>
public sealed record StateProjections(IReadOnlyList<Projection> Values, float Alpha, LayerSet? Layers)
{
    /// <summary>Whether states steered so can be compared with these.</summary>
    public bool Fit(float alpha, LayerSet? layers) => alpha == Alpha && (alpha == 0 || Equals(layers, Layers));
}

public sealed partial class ShiftVectors
{
    /// <summary>Metadata key: the mean projection of each decoder layer, a JSON array of L numbers.</summary>
    public const string ProjectionMeansKey = "stats.projection_mean";

    /// <summary>Metadata key: the standard deviation of each decoder layer's projections, a JSON array of L numbers.</summary>
    public const string ProjectionSigmasKey = "stats.projection_sigma";

    /// <summary>Metadata key: the mean projection of the anchors' states on each decoder layer's vector, a JSON array of L numbers.</summary>
    public const string StateMeansKey = "stats.state_mean";

    /// <summary>Metadata key: the standard deviation of the same.</summary>
    public const string StateSigmasKey = "stats.state_sigma";

    /// <summary>Metadata key: the alpha that those states were steered by; 0 where it is missing.</summary>
    public const string StateAlphaKey = "stats.state_alpha";

    /// <summary>Metadata key: the layers that those states were steered in; "all" where it is missing.</summary>
    public const string StateLayersKey = "stats.state_layers";

    /// <summary>Metadata key: alpha of the operating point.</summary>
    public const string AlphaKey = "alpha";

    /// <summary>Metadata key: scope of the operating point: all, prefill or decode.</summary>
    public const string ScopeKey = "scope";

    /// <summary>Metadata key: layers of the operating point, "all" or such as "1-4,7".</summary>
    public const string PointLayersKey = "layers";

    /// <summary>The anchors' projections on each decoder layer's vector, [<see cref="Layers"/>], the first of layer 1; null where the file has none.</summary>
    public IReadOnlyList<Projection>? Projections { get; }

    /// <summary>How the anchors' states lie along the vectors, which a request's drift is told by; null where the file does not say.</summary>
    public StateProjections? StateProjections { get; }

    /// <summary>The setting that a calibration chose, or null.</summary>
    public OperatingPoint? OperatingPoint { get; }

    /// <summary>The same vectors with more metadata; keys that are there already are replaced.</summary>
    /// <exception cref="InvalidCheckpointException">The metadata's statistics or operating point are none.</exception>
    public ShiftVectors With(IReadOnlyDictionary<string, string> metadata)
    {
        ArgumentNullException.ThrowIfNull(metadata);
        var all = new Dictionary<string, string>(Metadata, StringComparer.Ordinal);
        foreach (var (key, value) in metadata)
            all[key] = value;
        return new(_directions, all, _source);
    }

    /// <summary>The same vectors with an operating point, as a calibration leaves them.</summary>
    public ShiftVectors With(OperatingPoint point)
    {
        ArgumentNullException.ThrowIfNull(point);
        return With(new Dictionary<string, string>
        {
            [AlphaKey] = point.Alpha.ToString("R", CultureInfo.InvariantCulture),
            [ScopeKey] = point.Scope.ToString().ToLowerInvariant(),
            [PointLayersKey] = point.Layers?.ToString() ?? "all",
        });
    }

    /// <summary>The same vectors with how the anchors' states lie along them.</summary>
    public ShiftVectors With(StateProjections states)
    {
        ArgumentNullException.ThrowIfNull(states);
        return With(new Dictionary<string, string>
        {
            [StateMeansKey] = Numbers(state => state.Mean),
            [StateSigmasKey] = Numbers(state => state.Sigma),
            [StateAlphaKey] = states.Alpha.ToString("R", CultureInfo.InvariantCulture),
            [StateLayersKey] = states.Layers?.ToString() ?? "all",
        });

        string Numbers(Func<Projection, double> value) => $"[{string.Join(',', states.Values.Select(value).Select(v => v.ToString("R", CultureInfo.InvariantCulture)))}]";
    }

    /// <summary>
    /// These vectors with each layer's projection on the direction of <paramref name="anchors"/>' vector moved to the nearest value within
    /// mean ± <paramref name="sigmas"/> · σ of the anchors' own projections: a request whose shift is unlike any anchor's is not steered
    /// further than anchors were. The part at right angles to that direction stays. A layer where the anchors have no vector stays as it is.
    /// </summary>
    /// <param name="anchors">Dataset-level vectors with <see cref="Projections"/>.</param>
    /// <param name="sigmas">Half the width of the interval in standard deviations, 0 or more.</param>
    /// <exception cref="ArgumentException">The anchors' vectors have no projections or another width, or sigmas is negative or not finite.</exception>
    public ShiftVectors Cap(ShiftVectors anchors, double sigmas)
    {
        ArgumentNullException.ThrowIfNull(anchors);
        if (!double.IsFinite(sigmas) || sigmas < 0)
            throw new ArgumentException($"the cap is {sigmas} standard deviations; expected 0 or more");
        if (anchors.Projections is not { } projections)
            throw new ArgumentException(
                $"{anchors._source}: holds no statistics of its anchors ({ProjectionMeansKey}, {ProjectionSigmasKey}), which a cap needs; extract writes them");
        if (anchors.HiddenSize != HiddenSize)
            throw new ArgumentException($"{anchors._source}: vectors are {anchors.HiddenSize} wide; expected {HiddenSize}");
        var capped = new float[]?[Layers];
        for (var layer = 1; layer <= Layers; layer++)
        {
            if (this[layer].IsEmpty)
                continue;
            var vector = capped[layer - 1] = this[layer].ToArray();
            var direction = anchors[layer];
            var length = direction.IsEmpty ? 0 : Math.Sqrt(Product(direction, direction));
            if (length == 0)
                continue;
            var own = Product(vector, direction) / length;
            var (mean, sigma) = projections[layer - 1]; // a layer with a direction is one of the anchors' layers
            var move = Math.Clamp(own, mean - sigmas * sigma, mean + sigmas * sigma) - own;
            if (move == 0)
                continue;
            for (var j = 0; j < vector.Length; j++)
                vector[j] = (float)(vector[j] + move * direction[j] / length);
        }
        return Create(capped, Metadata);
    }

    private static double Product(ReadOnlySpan<float> left, ReadOnlySpan<float> right)
    {
        var sum = 0.0;
        for (var i = 0; i < left.Length; i++)
            sum += (double)left[i] * right[i];
        return sum;
    }

    private Projection[]? ReadProjections(string meansKey, string sigmasKey)
    {
        var (means, sigmas) = (ReadNumbers(meansKey), ReadNumbers(sigmasKey));
        if (means is null && sigmas is null)
            return null;
        if (means is null || sigmas is null)
            throw new InvalidCheckpointException($"{_source}: its metadata has one of {meansKey} and {sigmasKey}; expected both or neither");
        if (sigmas.Any(sigma => sigma < 0))
            throw new InvalidCheckpointException($"{_source}: metadata {sigmasKey} holds a negative number; a standard deviation is 0 or more");
        return [.. means.Zip(sigmas, (mean, sigma) => new Projection(mean, sigma))];
    }

    private double[]? ReadNumbers(string key)
    {
        if (!Metadata.TryGetValue(key, out var text))
            return null;
        try
        {
            using var json = JsonDocument.Parse(text);
            if (json.RootElement.ValueKind == JsonValueKind.Array && json.RootElement.GetArrayLength() == Layers)
            {
                double[] values = [.. json.RootElement.EnumerateArray().Select(element => element.GetDouble())];
                if (values.All(double.IsFinite))
                    return values;
            }
        }
        catch (Exception error) when (error is JsonException or FormatException or InvalidOperationException)
        {
            // Told below, with what was expected.
        }
        throw new InvalidCheckpointException($"{_source}: metadata {key} is {Quote(text)}; expected a JSON array of {Layers} finite numbers, one a layer");
    }

    private StateProjections? ReadStateProjections() => ReadProjections(StateMeansKey, StateSigmasKey) is { } values
        ? new(values, ReadNumber(StateAlphaKey) ?? 0, ReadLayers(StateLayersKey))
        : null;

    private OperatingPoint? ReadOperatingPoint()
    {
        if (ReadNumber(AlphaKey) is not { } strength)
            return null;
        var scope = Metadata.GetValueOrDefault(ScopeKey, "all") switch
        {
            "all" => SteeringScope.All,
            "prefill" => SteeringScope.Prefill,
            "decode" => SteeringScope.Decode,
            var other => throw new InvalidCheckpointException($"{_source}: metadata {ScopeKey} is {Quote(other)}; expected all, prefill or decode"),
        };
        return new(strength, scope, ReadLayers(PointLayersKey));
    }

    private float? ReadNumber(string key)
    {
        if (!Metadata.TryGetValue(key, out var text))
            return null;
        return float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && float.IsFinite(number)
            ? number
            : throw new InvalidCheckpointException($"{_source}: metadata {key} is {Quote(text)}; expected a finite number");
    }

    private LayerSet? ReadLayers(string key)
    {
        var layers = Metadata.GetValueOrDefault(key, "all");
        try
        {
            return layers == "all" ? null : LayerSet.Parse(layers);
        }
        catch (FormatException)
        {
            throw new InvalidCheckpointException(
                $"{_source}: metadata {key} is {Quote(layers)}; expected 'all', or numbers and ranges counted from 1, such as 1-4,7");
        }
    }
}
