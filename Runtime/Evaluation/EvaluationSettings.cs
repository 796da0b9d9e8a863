using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using Trimtab.Steering;

namespace Trimtab.Evaluation;

/// <summary>What an evaluation asks, and how.</summary>
public sealed record EvaluationSettings
{
    /// <summary>The data sets; names differ.</summary>
    public required IReadOnlyList<Dataset> Datasets { get; init; }

    /// <summary>Folder of the data sets' images; null looks beside each data file only.</summary>
    public string? Images { get; init; }

    /// <summary>Of <see cref="Condition.All"/>.</summary>
    public IReadOnlyList<string> Conditions { get; init; } = [Condition.Text, Condition.Blank, Condition.Image];

    /// <summary>Dataset-level shift vectors, or null.</summary>
    public ShiftVectors? Vectors { get; init; }

    /// <summary>Strengths; 0 is the unsteered model.</summary>
    public IReadOnlyList<float> Alphas { get; init; } = [0];

    /// <summary>Sets of steered layers, null for all.</summary>
    public IReadOnlyList<LayerSet?> Layers { get; init; } = [null];

    /// <summary>Steered tokens.</summary>
    public IReadOnlyList<SteeringScope> Scopes { get; init; } = [SteeringScope.All];

    /// <summary>dataset (<see cref="Vectors"/>), sample (each request's own shift), or both.</summary>
    public IReadOnlyList<string> Levels { get; init; } = ["dataset"];

    /// <summary>The first so many questions of each data set; null for all.</summary>
    public int? Limit { get; init; }

    /// <summary>Most tokens of an answer.</summary>
    public int MaxTokens { get; init; } = 256;

    /// <summary>Seed of the noise image and of the bootstrap; answers are greedy.</summary>
    public ulong Seed { get; init; }

    /// <summary>Answers at the same time; changes none of them.</summary>
    public int Parallel { get; init; } = 32;

    /// <summary>Refuses what cannot be meant.</summary>
    /// <exception cref="ArgumentException">The message names the setting.</exception>
    public void Validate(VisionLanguageModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        var text = model.Network.Spec.Text;
        Require(Datasets.Count > 0, "data: expected at least one data set");
        if (Datasets.GroupBy(set => set.Name, StringComparer.Ordinal).FirstOrDefault(group => group.Count() > 1) is { } twice)
            throw new ArgumentException($"data: two data sets are called {twice.Key}; name one of them otherwise, as OTHER={twice.First().Format}:FILE");
        Require(Conditions.Count > 0 && Conditions.All(Condition.All.Contains), $"conditions: expected some of {string.Join(", ", Condition.All)}");
        Require(Levels.Count > 0 && Levels.All(level => level is "dataset" or "sample"), "level: expected dataset, sample or both");
        Require(Alphas.Count > 0 && Alphas.All(float.IsFinite), "alpha: expected finite numbers");
        Require(Layers.Count > 0 && Scopes.Count > 0, "layers, scope: expected at least one of each");
        Require(Limit is null or > 0, "limit: expected at least 1");
        Require(MaxTokens > 0, "max-tokens: expected at least 1");
        Require(Parallel is > 0 and <= 1024, "parallel: expected 1 to 1024");
        var steers = Alphas.Any(alpha => alpha != 0);
        Require(!steers || Vectors is not null || !Levels.Contains("dataset"), "alpha: steering at the level of the data set needs vectors");
        Require(!steers || !Levels.Contains("sample") || model.Files.Processor is not null, "level: sample-level steering needs a model that sees images");
        Vectors?.Check(text.Layers, text.HiddenSize, null);
        foreach (var set in Layers)
            Require(set is null || set.Layers.Count == 0 || set.Layers.Max() <= text.Layers, $"layers {set}: the model has decoder layers 1-{text.Layers}");

        static void Require(bool holds, string message)
        {
            if (!holds)
                throw new ArgumentException(message);
        }
    }

    /// <summary>Everything that answers depend on, by name: what a resumed run must have in common with the first.</summary>
    internal SortedDictionary<string, string> Fields(VisionLanguageModel model, IEnumerable<IJudge> judges) => new(StringComparer.Ordinal)
    {
        ["model.fingerprint"] = model.Network.Fingerprint,
        ["data"] = string.Join("; ", Datasets.Select(set => $"{set.Name}={set.Format}:{Hash(set.Path)}{Mapping(set)}")),
        ["images"] = Images is null ? "" : Path.GetFullPath(Images),
        ["conditions"] = string.Join(",", Conditions),
        ["vectors"] = Vectors?.Hash ?? "",
        ["alpha"] = string.Join(",", Alphas.Select(alpha => alpha.ToString("R", CultureInfo.InvariantCulture))),
        ["layers"] = string.Join(";", Layers.Select(set => set?.ToString() ?? "all")),
        ["scope"] = string.Join(",", Scopes.Select(Name)),
        ["level"] = string.Join(",", Levels),
        ["judge"] = string.Join(",", judges.Select(judge => judge.Name)),
        ["limit"] = Limit?.ToString(CultureInfo.InvariantCulture) ?? "",
        ["max-tokens"] = MaxTokens.ToString(CultureInfo.InvariantCulture),
        ["seed"] = Seed.ToString(CultureInfo.InvariantCulture),
    };

    internal static string Name(SteeringScope scope) => scope.ToString().ToLowerInvariant();

    private static string Mapping(Dataset set)
        => set.Map is not { Count: > 0 } map ? "" : $" ({string.Join(",", map.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => $"{pair.Key}={pair.Value}"))})";

    private static string Hash(string path)
    {
        using var stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }
}

/// <summary>run.json: the settings of the run whose answers stand beside it.</summary>
internal static class RunFile
{
    /// <summary>Names the first setting that differs from those of an earlier run; null where none does or there was none.</summary>
    /// <exception cref="InvalidDataException">The file is no run.json.</exception>
    public static string? Difference(string path, SortedDictionary<string, string> fields)
    {
        if (!File.Exists(path))
            return null;
        var earlier = new Dictionary<string, string>(StringComparer.Ordinal);
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(path));
            foreach (var field in json.RootElement.GetProperty("settings").EnumerateObject())
                earlier[field.Name] = field.Value.GetString() ?? "";
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or KeyNotFoundException)
        {
            throw new InvalidDataException($"{path}: is no record of a run's settings ({error.Message})");
        }
        foreach (var (name, value) in fields)
        {
            var was = earlier.GetValueOrDefault(name);
            if (was != value)
                return $"{name} was '{was}' and is '{value}'";
        }
        return null;
    }

    /// <summary>Writes it, whole or not at all.</summary>
    public static void Write(string path, SortedDictionary<string, string> fields, VisionLanguageModel model, ShiftVectors? vectors)
    {
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer, new() { Indented = true }))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("settings");
            foreach (var (name, value) in fields)
                writer.WriteString(name, value);
            writer.WriteEndObject();
            writer.WriteStartObject("model");
            writer.WriteString("path", Path.GetFullPath(model.Files.Path));
            writer.WriteString("fingerprint", model.Network.Fingerprint);
            writer.WriteString("device", model.Network.Device.Name);
            writer.WriteEndObject();
            if (vectors is not null)
            {
                writer.WriteStartObject("vectors");
                writer.WriteString("hash", vectors.Hash);
                foreach (var (key, value) in vectors.Metadata.Where(pair => pair.Value.Length <= 200))
                    writer.WriteString(key, value);
                writer.WriteEndObject();
            }
            writer.WriteStartObject("versions");
            writer.WriteString("trimtab", typeof(RunFile).Assembly.GetName().Version?.ToString(3));
            writer.WriteString("dotnet", Environment.Version.ToString());
            writer.WriteString("os", System.Runtime.InteropServices.RuntimeInformation.OSDescription);
            writer.WriteEndObject();
            writer.WriteEndObject();
        }
        Whole(path, buffer.ToArray());
    }

    /// <summary>Writes a file beside its place and moves it there.</summary>
    public static void Whole(string path, byte[] content)
    {
        File.WriteAllBytes(path + ".partial", content);
        File.Move(path + ".partial", path, overwrite: true);
    }
}
