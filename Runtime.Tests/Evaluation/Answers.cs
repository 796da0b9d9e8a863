using Trimtab.Evaluation;

namespace Trimtab.Tests.Evaluation;

/// <summary>Answers of the tests' own.</summary>
internal static class Answers
{
    public static Answer Of(
        string set, string id, string condition = "image", float alpha = 0, string? kind = null, string text = "text", bool? refused = null, bool? harm = null,
        bool? effective = null, bool? correct = null, string? category = null, Dictionary<string, string>? verdicts = null) => new()
    {
        Dataset = set, Id = id, Condition = condition, Level = alpha == 0 ? "none" : "dataset", Alpha = alpha, Kind = kind, Prompt = "prompt", Text = text,
        Refused = refused, Unsafe = harm, Effective = effective, Correct = correct, Category = category, Verdicts = verdicts ?? [],
    };
}
