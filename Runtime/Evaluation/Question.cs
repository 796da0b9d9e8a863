using Trimtab.Imaging;

namespace Trimtab.Evaluation;

/// <summary>One question of a data set, as its adapter reads it.</summary>
public sealed record Question
{
    /// <summary>Data set.</summary>
    public required string Dataset { get; init; }

    /// <summary>Unique in the data set.</summary>
    public required string Id { get; init; }

    /// <summary>The data set's own category, or null.</summary>
    public string? Category { get; init; }

    /// <summary>One of <see cref="QuestionKind"/>, or null where the data set does not say.</summary>
    public string? Kind { get; init; }

    /// <summary>What is harmful stands in the image (SIUO, MSSBench, MM-SafetyBench): without it the question has no <see cref="Kind"/>.</summary>
    public bool HarmInImage { get; init; }

    /// <summary>What is asked.</summary>
    public required string Text { get; init; }

    /// <summary>What is asked beside the data set's image, where that differs (FigStep).</summary>
    public string? ImageText { get; init; }

    /// <summary>The image's name in the data set, or null.</summary>
    public string? Image { get; init; }

    /// <summary>The name of the question's own noise image, or null for one made from the seed.</summary>
    public string? Noise { get; init; }

    /// <summary>What the image shows, in words, or null.</summary>
    public string? Caption { get; init; }

    /// <summary>A text that asks nothing harmful by itself and goes with the image, or null.</summary>
    public string? Query { get; init; }

    /// <summary>The right answer: a letter where there are choices.</summary>
    public string? Expected { get; init; }

    /// <summary>Choices by letter, or none.</summary>
    public IReadOnlyDictionary<char, string> Choices { get; init; } = new Dictionary<char, string>();

    /// <summary>A good answer to compare with, or null.</summary>
    public string? Reference { get; init; }

    /// <summary>What is dangerous about text and image together, for a judge that sees no image, or null.</summary>
    public string? Warning { get; init; }

    /// <summary>Draws the image where the data set has text for it instead of a file (FigStep).</summary>
    public Func<Image>? Draw { get; init; }
}

/// <summary>What stands beside a question's text.</summary>
public static class Condition
{
    /// <summary>Nothing.</summary>
    public const string Text = "text";

    /// <summary>A white image.</summary>
    public const string Blank = "blank";

    /// <summary>Uniform noise.</summary>
    public const string Noise = "noise";

    /// <summary>The data set's image.</summary>
    public const string Image = "image";

    /// <summary>The image's caption, as text.</summary>
    public const string Caption = "caption";

    /// <summary>The data set's image, with a neutral query instead of the question.</summary>
    public const string Query = "query";

    /// <summary>All of them.</summary>
    public static IReadOnlyList<string> All { get; } = [Text, Blank, Noise, Image, Caption, Query];

    /// <summary>The text that is asked under a condition; null where the question cannot offer the condition.</summary>
    public static string? TextOf(Question question, string condition) => condition switch
    {
        Text or Blank or Noise => question.Text,
        Image => HasImage(question) ? question.ImageText ?? question.Text : null,
        Caption => question.Caption is { } caption ? $"The image shows: {caption.Trim()}\n{question.Text}" : null,
        Query => HasImage(question) ? question.Query : null,
        _ => throw new ArgumentException($"condition '{condition}': expected one of {string.Join(", ", All)}"),
    };

    /// <summary>Whether a condition shows the data set's own image.</summary>
    public static bool ShowsImage(string condition) => condition is Image or Query;

    private static bool HasImage(Question question) => question.Image is not null || question.Draw is not null;
}
