using System.Globalization;
using Trimtab.Evaluation;
using Trimtab.Steering;

namespace Trimtab.Server;

/// <summary>report.html of an evaluation: its answers and rates, and what steering does to the states of some of its questions.</summary>
internal static class EvaluationPage
{
    private const int Prompts = 40; // points a group in the picture of states: enough to see clusters

    /// <summary>Measures the states and writes the page into the evaluation's folder.</summary>
    public static async Task WriteAsync(
        VisionLanguageModel model, EvaluationSettings settings, EvaluationSummary summary, IReadOnlyList<Answer> answers, string folder, string command,
        CancellationToken cancel)
    {
        var vectors = settings.Vectors;
        ShiftSamples? samples = null;
        if (vectors is not null && model.Files.Processor is not null && settings.Alphas.Any(alpha => alpha != 0))
        {
            var questions = answers.Where(a => a.Kind == QuestionKind.Harmful).Select(a => a.Prompt).Distinct().Take(Prompts).ToList();
            var alpha = settings.Alphas.Where(a => a != 0).MinBy(a => Math.Abs(a - 1));
            samples = await ShiftSamples.MeasureAsync(
                model, questions, new(vectors, alpha, settings.Scopes[0], settings.Layers[0]), cancel).ConfigureAwait(false);
        }
        Report.WriteHtml(Path.Combine(folder, "report.html"), new()
        {
            Model = Path.GetFileName(Path.TrimEndingDirectorySeparator(model.Files.Path)),
            Fingerprint = model.Network.Fingerprint,
            Vectors = vectors?.Hash,
            Method = vectors is null ? null : Method(vectors),
            Date = DateTime.UtcNow.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture),
            Command = command,
            Facts = [new("device", model.Network.Device.Name), new("seed", settings.Seed.ToString(CultureInfo.InvariantCulture)), new("decoding", $"greedy, at most {settings.MaxTokens} tokens")],
            Summary = summary,
            Answers = answers,
            States = samples?.States ?? [],
            Shift = samples?.Layers ?? [],
        });
    }

    private static string Method(ShiftVectors vectors)
        => string.Join(", ", ((List<string>)["method", "images", "anchors"]).Where(vectors.Metadata.ContainsKey).Select(key => $"{key} {vectors.Metadata[key]}"));
}
