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

public sealed partial class ShiftVectors
{
    /// <summary>Metadata key: the mean projection of each decoder layer, a JSON array of L numbers.</summary>
    public const string ProjectionMeansKey = "stats.projection_mean";

    /// <summary>Metadata key: the standard deviation of each decoder layer's projections, a JSON array of L numbers.</summary>
    public const string ProjectionSigmasKey = "stats.projection_sigma";

    /// <summary>Metadata key: alpha of the operating point.</summary>
    public const string AlphaKey = "alpha";

    /// <summary>Metadata key: scope of the operating point: all, prefill or decode.</summary>
    public const string ScopeKey = "scope";

    /// <summary>Metadata key: layers of the operating point, "all" or such as "1-4,7".</summary>
    public const string PointLayersKey = "layers";

    /// <summary>The anchors' projections on each decoder layer's vector, [<see cref="Layers"/>], the first of layer 1; null where the file has none.</summary>
    public IReadOnlyList<Projection>? Projections { get; }

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

    private Projection[]? ReadProjections()
    {
        var (means, sigmas) = (ReadNumbers(ProjectionMeansKey), ReadNumbers(ProjectionSigmasKey));
        if (means is null && sigmas is null)
            return null;
        if (means is null || sigmas is null)
            throw new InvalidCheckpointException($"{_source}: its metadata has one of {ProjectionMeansKey} and {ProjectionSigmasKey}; expected both or neither");
        if (sigmas.Any(sigma => sigma < 0))
            throw new InvalidCheckpointException($"{_source}: metadata {ProjectionSigmasKey} holds a negative number; a standard deviation is 0 or more");
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

    private OperatingPoint? ReadOperatingPoint()
    {
        if (!Metadata.TryGetValue(AlphaKey, out var alpha))
            return null;
        if (!float.TryParse(alpha, NumberStyles.Float, CultureInfo.InvariantCulture, out var strength) || !float.IsFinite(strength))
            throw new InvalidCheckpointException($"{_source}: metadata {AlphaKey} is {Quote(alpha)}; expected a finite number");
        var scope = Metadata.GetValueOrDefault(ScopeKey, "all") switch
        {
            "all" => SteeringScope.All,
            "prefill" => SteeringScope.Prefill,
            "decode" => SteeringScope.Decode,
            var other => throw new InvalidCheckpointException($"{_source}: metadata {ScopeKey} is {Quote(other)}; expected all, prefill or decode"),
        };
        var layers = Metadata.GetValueOrDefault(PointLayersKey, "all");
        try
        {
            return new(strength, scope, layers == "all" ? null : LayerSet.Parse(layers));
        }
        catch (FormatException)
        {
            throw new InvalidCheckpointException(
                $"{_source}: metadata {PointLayersKey} is {Quote(layers)}; expected 'all', or numbers and ranges counted from 1, such as 1-4,7");
        }
    }
}
