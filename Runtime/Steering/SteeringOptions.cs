using System.Globalization;
using System.Text;

namespace Trimtab.Steering;

/// <summary>Which tokens are steered.</summary>
public enum SteeringScope
{
    /// <summary>The prompt's last token and every generated token.</summary>
    All,
    /// <summary>The prompt's last token only.</summary>
    Prefill,
    /// <summary>Generated tokens only.</summary>
    Decode,
}

/// <summary>A set of decoder layers, 1-based; the default value is every layer.</summary>
public sealed class LayerSet : IEquatable<LayerSet>
{
    private readonly SortedSet<int> _layers;

    /// <summary>Makes a set.</summary>
    /// <param name="layers">1-based layer numbers.</param>
    /// <exception cref="ArgumentOutOfRangeException">A number is below 1.</exception>
    public LayerSet(IEnumerable<int> layers)
    {
        _layers = [.. layers];
        if (_layers.Count > 0 && _layers.Min < 1)
            throw new ArgumentOutOfRangeException(nameof(layers), _layers.Min, "decoder layers are counted from 1");
    }

    /// <summary>The layers in order.</summary>
    public IReadOnlyCollection<int> Layers => _layers;

    /// <summary>Whether a layer is in the set.</summary>
    public bool Contains(int layer) => _layers.Contains(layer);

    /// <summary>Reads "1-4,7": single layers and ranges, separated by commas.</summary>
    /// <exception cref="FormatException">The text is something else.</exception>
    public static LayerSet Parse(string text)
    {
        var layers = new List<int>();
        foreach (var part in text.Split(','))
        {
            var ends = part.Split('-');
            if (ends.Length > 2 || !Number(ends[0], out var first) || !Number(ends[^1], out var last) || first < 1 || last < first || last > 100_000)
                throw new FormatException($"layers '{text}': expected numbers and ranges counted from 1, such as 1-4,7");
            layers.AddRange(Enumerable.Range(first, last - first + 1));
        }
        return new(layers);

        static bool Number(string digits, out int value)
            => int.TryParse(digits.AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out value);
    }

    /// <summary>The shortest text that <see cref="Parse"/> reads back.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        var layers = _layers.ToArray();
        for (var i = 0; i < layers.Length;)
        {
            var end = i;
            while (end + 1 < layers.Length && layers[end + 1] == layers[end] + 1)
                end++;
            text.Append(text.Length > 0 ? "," : "").Append(layers[i]);
            if (end > i)
                text.Append('-').Append(layers[end]);
            i = end + 1;
        }
        return text.ToString();
    }

    /// <inheritdoc/>
    public bool Equals(LayerSet? other) => other is not null && _layers.SetEquals(other._layers);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as LayerSet);

    /// <inheritdoc/>
    public override int GetHashCode() => ToString().GetHashCode(StringComparison.Ordinal);
}

/// <summary>
/// How one request is steered: h_l := h_l − alpha · v_l at the last token (CMRM, arXiv 2410.09047, section 3.3).
/// </summary>
/// <param name="Vectors">v_l of each decoder layer.</param>
/// <param name="Alpha">Strength; 1 is the paper's optimum.</param>
/// <param name="Scope">Which tokens.</param>
/// <param name="Layers">Which decoder layers, or null for all that the vectors have.</param>
public sealed record SteeringOptions(ShiftVectors Vectors, float Alpha = 1, SteeringScope Scope = SteeringScope.All, LayerSet? Layers = null)
{
    /// <summary>Whether alpha, scope and layers are the vectors' own <see cref="ShiftVectors.OperatingPoint"/>.</summary>
    public bool Calibrated { get; init; }

    /// <summary>The vectors at their stored operating point, where a calibration left one; else at the defaults.</summary>
    public static SteeringOptions Of(ShiftVectors vectors)
    {
        ArgumentNullException.ThrowIfNull(vectors);
        return vectors.OperatingPoint is { } point ? new(vectors, point.Alpha, point.Scope, point.Layers) { Calibrated = true } : new(vectors);
    }

    /// <summary>Refuses what cannot be meant.</summary>
    /// <exception cref="ArgumentException">Alpha is no finite number, or a layer is beyond the model's last.</exception>
    public void Validate(int layers)
    {
        if (!float.IsFinite(Alpha))
            throw new ArgumentException($"alpha is {Alpha}; expected a finite number");
        if (Layers is not null && Layers.Layers.Count > 0 && Layers.Layers.Max() > layers)
            throw new ArgumentException($"layers {Layers}: the model has decoder layers 1-{layers}");
    }
}
