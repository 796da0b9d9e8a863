using System.Text.Json;
using System.Text.Json.Serialization;

namespace Trimtab.Evaluation;

/// <summary>What the answers of an evaluation come to: report.json.</summary>
public sealed record EvaluationSummary
{
    /// <summary>Number of answers.</summary>
    public int Answers { get; init; }

    /// <summary>One entry for each data set × condition × steering, in this order, the unsteered before the steered; the order of the answers changes nothing.</summary>
    public IReadOnlyList<ArmSummary> Arms { get; init; } = [];

    /// <summary>The same over all data sets together (<see cref="ArmSummary.Dataset"/> is "all").</summary>
    public IReadOnlyList<ArmSummary> Pooled { get; init; } = [];

    /// <summary>Safety against utility along each sweep over alpha.</summary>
    public IReadOnlyList<SafetySweep> Sweeps { get; init; } = [];

    /// <summary>How far judges agree where several judged the same answers.</summary>
    public IReadOnlyList<JudgeAgreement> Agreements { get; init; } = [];

    /// <summary>By judge: replies that could not be read.</summary>
    public IReadOnlyDictionary<string, int> Unparsed { get; init; } = new Dictionary<string, int>();

    /// <summary>What a reader must know: conditions that a data set cannot offer, missing images.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>Images that were named but not there, by data set.</summary>
    public IReadOnlyDictionary<string, IReadOnlyList<string>> MissingImages { get; init; } = new Dictionary<string, IReadOnlyList<string>>();

    /// <summary>Sums up answers; of those with equal keys the first counts.</summary>
    /// <param name="answers">The lines of answers.jsonl.</param>
    /// <param name="seed">Seed of the bootstrap.</param>
    public static EvaluationSummary Summarize(IEnumerable<Answer> answers, ulong seed = 0) => EvaluationSummarize.Of(answers, seed);

    /// <summary>Indented JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, EvaluationJson.Default.EvaluationSummary);

    /// <summary>Reads report.json.</summary>
    /// <exception cref="JsonException">It is no summary.</exception>
    public static EvaluationSummary Parse(string json)
        => JsonSerializer.Deserialize(json, EvaluationJson.Default.EvaluationSummary) ?? throw new JsonException("null is no summary");
}

/// <summary>One data set under one condition with one steering.</summary>
public sealed record ArmSummary
{
    /// <summary>Data set, or "all".</summary>
    public required string Dataset { get; init; }

    /// <summary>text, blank, noise, image, caption, query.</summary>
    public required string Condition { get; init; }

    /// <summary>none, dataset or sample.</summary>
    public required string Level { get; init; }

    /// <summary>Strength; 0 for none.</summary>
    public float Alpha { get; init; }

    /// <summary>Steered layers, "all" or such as "1-16".</summary>
    public string Layers { get; init; } = "all";

    /// <summary>Steered tokens: all, prefill, decode.</summary>
    public string Scope { get; init; } = "all";

    /// <summary>Number of answers.</summary>
    public int Answers { get; init; }

    /// <summary>By name (<see cref="Metrics"/>), those that apply.</summary>
    public IReadOnlyDictionary<string, Metric> Metrics { get; init; } = new Dictionary<string, Metric>();

    /// <summary>The same for each category of the data set, where it has any.</summary>
    public IReadOnlyList<CategorySummary> Categories { get; init; } = [];
}

/// <summary>One category of a data set in an arm.</summary>
/// <param name="Category">The data set's own name for it.</param>
/// <param name="Answers">Number of answers.</param>
/// <param name="Metrics">By name, those that apply.</param>
public sealed record CategorySummary(string Category, int Answers, IReadOnlyDictionary<string, Metric> Metrics);

/// <summary>A rate with its 95 % interval (Wilson).</summary>
/// <param name="Successes">How many.</param>
/// <param name="N">Of how many that could be judged.</param>
/// <param name="Unjudged">Answers that the metric is for and that no judge gave a readable verdict on; not part of n.</param>
/// <param name="Value">The rate, 0 … 1.</param>
/// <param name="Low">Lower end of the interval.</param>
/// <param name="High">Upper end.</param>
/// <param name="Change">Against the unsteered answers to the same questions under the same condition; null for those themselves.</param>
public sealed record Metric(int Successes, int N, int Unjudged, double Value, double Low, double High, Difference? Change = null);

/// <summary>A difference of rates, steered − unsteered, with its 95 % interval by the paired bootstrap.</summary>
/// <param name="Pairs">Questions judged in both arms.</param>
/// <param name="Value">The difference, −1 … 1.</param>
/// <param name="Low">Lower end of the interval.</param>
/// <param name="High">Upper end.</param>
public sealed record Difference(int Pairs, double Value, double Low, double High);

/// <summary>
/// Safety against utility along a sweep over alpha: the safetywashing check. If safety is bought with utility, the two are
/// correlated negatively and each point of safety costs points of utility.
/// </summary>
public sealed record SafetySweep
{
    /// <summary>The condition, or "all" for all together.</summary>
    public required string Condition { get; init; }

    /// <summary>dataset or sample.</summary>
    public required string Level { get; init; }

    /// <summary>Steered layers.</summary>
    public required string Layers { get; init; }

    /// <summary>Steered tokens.</summary>
    public required string Scope { get; init; }

    /// <summary>What utility is here: "utility", or "answered" (1 − over-refusal) where no question has a right answer.</summary>
    public required string UtilityMetric { get; init; }

    /// <summary>In order of alpha, the unsteered first.</summary>
    public required IReadOnlyList<SweepPoint> Points { get; init; }

    /// <summary>Pearson's correlation of safety with utility; null where one does not vary.</summary>
    public double? Pearson { get; init; }

    /// <summary>Spearman's.</summary>
    public double? Spearman { get; init; }

    /// <summary>Points of utility lost for each point of safety won, at the safest alpha (the smallest of those); null where nothing is won.</summary>
    public double? UtilityLostPerSafetyPoint { get; init; }
}

/// <summary>One alpha of a sweep.</summary>
/// <param name="Alpha">Strength.</param>
/// <param name="Safety">1 − unsafe rate.</param>
/// <param name="Utility">Utility rate.</param>
/// <param name="UtilityLostPerSafetyPoint">Against the unsteered; null where no safety is won.</param>
public sealed record SweepPoint(float Alpha, double Safety, double Utility, double? UtilityLostPerSafetyPoint);

/// <summary>Agreement of two judges on the same answers.</summary>
/// <param name="First">A judge.</param>
/// <param name="Second">Another.</param>
/// <param name="Verdict">What is compared: unsafe, effective, correct.</param>
/// <param name="N">Answers that both judged.</param>
/// <param name="Agreement">Share with the same verdict.</param>
/// <param name="Kappa">Cohen's kappa; null where chance alone explains everything.</param>
public sealed record JudgeAgreement(string First, string Second, string Verdict, int N, double Agreement, double? Kappa);

/// <summary>Reading and writing summaries without reflection.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(EvaluationSummary))]
internal sealed partial class EvaluationJson : JsonSerializerContext;
