using System.Text;
using System.Text.Json;

namespace Trimtab.Evaluation;

/// <summary>
/// A sweep as JSON: budgets, and for every setting [count, of, low, high] of refused harmful requests (refused), refused benign ones
/// (over_refused) and right answers (right, where there are utility questions), low and high being Wilson's 95 % interval.
/// </summary>
public static class CalibrationCurve
{
    /// <summary>Writes a sweep as one JSON object.</summary>
    public static void Write(Utf8JsonWriter writer, CalibrationResult result)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(result);
        writer.WriteStartObject();
        writer.WriteNumber("over_refusal_budget", result.Options.OverRefusalBudget);
        writer.WriteNumber("utility_budget", result.Options.UtilityBudget);
        writer.WriteNumber("max_tokens", result.Options.MaxTokens);
        writer.WriteString("images", result.Options.Images.Name);
        writer.WriteStartArray("points");
        foreach (var point in result.Points)
        {
            writer.WriteStartObject();
            writer.WriteNumber("alpha", point.Setting.Alpha);
            writer.WriteString("scope", point.Setting.Scope.ToString().ToLowerInvariant());
            writer.WriteString("layers", point.Setting.Layers?.ToString() ?? "all");
            Write(writer, "refused", point.Refused);
            Write(writer, "over_refused", point.OverRefused);
            if (point.Right.Of > 0)
                Write(writer, "right", point.Right);
            writer.WriteBoolean("within_budget", point.WithinBudget);
            writer.WriteBoolean("chosen", ReferenceEquals(point, result.Best));
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    /// <summary>A sweep as JSON text.</summary>
    public static string ToJson(CalibrationResult result)
    {
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer))
            Write(writer, result);
        return Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length);
    }

    private static void Write(Utf8JsonWriter writer, string name, Share share)
    {
        writer.WriteStartArray(name);
        writer.WriteNumberValue(share.Count);
        writer.WriteNumberValue(share.Of);
        writer.WriteNumberValue(Math.Round(share.Interval.Low, 6));
        writer.WriteNumberValue(Math.Round(share.Interval.High, 6));
        writer.WriteEndArray();
    }
}
