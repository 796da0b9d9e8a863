namespace Trimtab.Engine;

/// <summary>An image in a prompt: where its rows stand and what the vision encoder will see.</summary>
/// <param name="Start">Position of its first row in the prompt.</param>
/// <param name="Rows">Rows (tokens) that it takes.</param>
/// <param name="Pixels">Normalised pixels, [3 · H · W] channel planes.</param>
public sealed record PromptImage(int Start, int Rows, float[] Pixels);

/// <summary>A prompt as the decoder reads it: token ids, and the image token repeated once for every image row.</summary>
/// <param name="Tokens">Token ids.</param>
/// <param name="Images">Its images in order of position.</param>
public sealed record Prompt(int[] Tokens, IReadOnlyList<PromptImage> Images)
{
    /// <summary>A prompt without images.</summary>
    public Prompt(int[] tokens) : this(tokens, []) { }
}
