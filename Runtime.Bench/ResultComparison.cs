using System.Globalization;
using System.Text.Json;

namespace Trimtab.Bench;

/// <summary>Two saved results beside each other: kernels (<c>--save</c>) or whole models (<c>trimtab bench --json</c>).</summary>
internal static class ResultComparison
{
    /// <summary>Prints the speed of the second over that of the first for everything that both measured, the largest loss first.</summary>
    /// <param name="before">A result file.</param>
    /// <param name="after">Another of the same kind.</param>
    /// <param name="output">Where.</param>
    /// <exception cref="InvalidDataException">A file is no such result, or they have nothing in common.</exception>
    public static void Print(string before, string after, TextWriter output)
    {
        var (old, now) = (Read(before), Read(after));
        if (old.Machine != now.Machine)
            output.WriteLine($"Different machines; ratios between them say little: {old.Machine} / {now.Machine}");
        var pairs = old.Speeds.Where(speed => now.Speeds.ContainsKey(speed.Key))
            .Select(speed => (Name: speed.Key, Before: speed.Value, After: now.Speeds[speed.Key], Ratio: now.Speeds[speed.Key] / speed.Value))
            .OrderBy(pair => pair.Ratio).ToList();
        if (pairs.Count == 0)
            throw new InvalidDataException($"{before} and {after} have no measurement in common");
        var width = pairs.Max(pair => pair.Name.Length);
        output.WriteLine($"{"per second".PadRight(width)} {"before",12} {"after",12} {"ratio",7}");
        foreach (var (name, was, @is, ratio) in pairs)
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name.PadRight(width)} {was,12:G5} {@is,12:G5} {ratio,7:F3}"));
        var ratios = pairs.ConvertAll(pair => pair.Ratio);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{pairs.Count} in common: median ratio {(ratios[(ratios.Count - 1) / 2] + ratios[ratios.Count / 2]) / 2:F3}, geometric mean {Math.Exp(ratios.Average(Math.Log)):F3}"));
        foreach (var (file, here, there) in new[] { (before, old.Speeds, now.Speeds), (after, now.Speeds, old.Speeds) })
        {
            if (here.Keys.Count(name => !there.ContainsKey(name)) is > 0 and var alone)
                output.WriteLine($"{alone} only in {file}");
        }
    }

    private static (string Machine, Dictionary<string, double> Speeds) Read(string path)
    {
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(path));
            var root = json.RootElement;
            var speeds = new Dictionary<string, double>();
            if (root.TryGetProperty("kernels", out var kernels))
            {
                foreach (var kernel in kernels.EnumerateArray())
                    Add(kernel.GetProperty("name").GetString()!, 1e6 / kernel.GetProperty("median_us").GetDouble());
            }
            else
            {
                foreach (var result in root.GetProperty("results").EnumerateArray())
                {
                    int Number(string name) => result.GetProperty(name).GetInt32();
                    Add($"{result.GetProperty("test").GetString()} {Number("tokens")}, batch {Number("batch")}, depth {Number("depth")}, {Number("steered")} vectors",
                        result.GetProperty("tokens_per_second").GetDouble());
                }
            }
            return (root.GetProperty("machine").GetProperty("cpu").GetString() ?? "unknown", speeds);

            void Add(string name, double speed)
            {
                if (!(speed > 0 && double.IsFinite(speed)) || !speeds.TryAdd(name, speed))
                    throw new FormatException($"'{name}' occurs twice, or its speed is no positive number");
            }
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new InvalidDataException($"{path}: expected a result of Runtime.Bench --save or trimtab bench --json: {error.Message}", error);
        }
    }
}
