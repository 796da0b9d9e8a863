namespace Trimtab.Evaluation;

/// <summary>What the page of an evaluation is made of. Texts may hold anything: they are escaped.</summary>
public sealed record ReportInput
{
    /// <summary>The model's name.</summary>
    public required string Model { get; init; }

    /// <summary>Hash that says which weights these were, or null.</summary>
    public string? Fingerprint { get; init; }

    /// <summary>Shift vectors that steered, or null where nothing did.</summary>
    public string? Vectors { get; init; }

    /// <summary>How the vectors were made, such as "mean over 200 anchors, white image".</summary>
    public string? Method { get; init; }

    /// <summary>When it was run, as it is to be printed.</summary>
    public required string Date { get; init; }

    /// <summary>What else was held fixed, such as seed, judge, program and machine: a name and a value each.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Facts { get; init; } = [];

    /// <summary>The command line that makes this evaluation again, or null.</summary>
    public string? Command { get; init; }

    /// <summary>Remarks on the method beside those that hold for every evaluation, one paragraph each.</summary>
    public IReadOnlyList<string> Methods { get; init; } = [];

    /// <summary>The strength to compare with "unsteered"; null takes the one nearest to 1, the paper's optimum.</summary>
    public float? Alpha { get; init; }

    /// <summary>The level to compare with "unsteered", dataset or sample; null with <see cref="Layers"/> and <see cref="Scope"/> takes the steering with the longest sweep.</summary>
    public string? Level { get; init; }

    /// <summary>The layers to compare with "unsteered".</summary>
    public string? Layers { get; init; }

    /// <summary>The scope to compare with "unsteered".</summary>
    public string? Scope { get; init; }

    /// <summary>All rates, as in report.json.</summary>
    public required EvaluationSummary Summary { get; init; }

    /// <summary>All answers, as in answers.jsonl.</summary>
    public required IReadOnlyList<Answer> Answers { get; init; }

    /// <summary>Last-token states to draw, in groups of the same questions under different circumstances, the plain text first.</summary>
    public IReadOnlyList<StatesSample> States { get; init; } = [];

    /// <summary>The shift of each layer, and what steering leaves of it.</summary>
    public IReadOnlyList<LayerProjection> Shift { get; init; } = [];
}

/// <summary>The last token's states of one prompt at the output of every decoder layer.</summary>
public sealed record StatesSample
{
    /// <summary>Under which circumstances, such as "text", "with image", "with image, steered".</summary>
    public required string Group { get; init; }

    /// <summary>Number of decoder layers L.</summary>
    public required int Layers { get; init; }

    /// <summary>The states, [L, D].</summary>
    public required float[] States { get; init; }
}

/// <summary>What an image does to one layer's last-token state, measured along the shift vector's direction.</summary>
/// <param name="Layer">Decoder layer, counted from 1.</param>
/// <param name="Norm">Euclidean norm of the shift vector v.</param>
/// <param name="Before">Mean projection of the image's shift, h(with image) − h(text), on v / |v| without steering.</param>
/// <param name="After">The same with steering.</param>
public sealed record LayerProjection(int Layer, double Norm, double Before, double After);
