using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>How an image becomes rows of features.</summary>
public enum ImageDivision
{
    /// <summary>One square of a fixed size (LLaVA-1.5, Gemma 3).</summary>
    Whole,
    /// <summary>The whole image and a grid of squares that covers it, packed as one (LLaVA-NeXT, LLaVA-OneVision).</summary>
    AnyResolution,
    /// <summary>Squares of which each is an image of its own in the prompt (Idefics 3, SmolVLM).</summary>
    Tiles,
    /// <summary>Patches of the image in nearly its own size (Qwen2-VL and later).</summary>
    Native,
}

/// <summary>How one image is divided. The default value is one square of the tower's size.</summary>
/// <param name="Rows">Rows of squares (<see cref="ImageDivision.AnyResolution"/>) or of patches (<see cref="ImageDivision.Native"/>).</param>
/// <param name="Columns">Columns of them.</param>
/// <param name="Width">Of any resolution: the image's own width in pixels, which tells what of the squares is padding.</param>
/// <param name="Height">Its height.</param>
public readonly record struct ImageGrid(int Rows, int Columns, int Width = 0, int Height = 0);

/// <summary>A vision transformer: CLIP's (arXiv 2103.00020), SigLIP's (arXiv 2303.15343), Qwen2-VL's (arXiv 2409.12191).</summary>
/// <param name="Family">Hugging Face model_type: clip_vision_model, siglip_vision_model, idefics3_vision, qwen2_vl, ….</param>
/// <param name="HiddenSize">Width.</param>
/// <param name="IntermediateSize">Width of the MLP.</param>
/// <param name="Layers">Layers that the checkpoint's config declares.</param>
/// <param name="UsedLayers">Layers that are computed: up to the last selected feature layer.</param>
/// <param name="Heads">Attention heads.</param>
/// <param name="ImageSize">Pixels a side; of <see cref="ImageDivision.Native"/> those of a typical image.</param>
/// <param name="PatchSize">Pixels a patch's side.</param>
/// <param name="NormEpsilon">The norms' epsilon.</param>
/// <param name="Activation">The MLP's epilogue; a gated one has two first matrices.</param>
/// <param name="ClassToken">Whether row 0 is a class token.</param>
/// <param name="DropClassToken">Whether row 0 is dropped from the features (strategy "default").</param>
/// <param name="PreNorm">Whether a LayerNorm precedes the first layer (CLIP's pre_layrnorm).</param>
public sealed partial record VisionSpec(
    string Family, int HiddenSize, int IntermediateSize, int Layers, int UsedLayers, int Heads, int ImageSize, int PatchSize,
    float NormEpsilon, Epilogue Activation, bool ClassToken, bool DropClassToken, bool PreNorm)
{
    /// <summary>Layers whose outputs are the features, side by side, ascending; null: the last used one's.</summary>
    public int[]? FeatureLayers { get; init; }

    /// <summary>Whether the last layer's output is normed (the tower's post_layernorm, or the merger's norm of Qwen2-VL).</summary>
    public bool PostNorm { get; init; }

    /// <summary>Whether norms are RMSNorms without bias (Qwen2.5-VL).</summary>
    public bool RmsNorms { get; init; }

    /// <summary>Patches a side of a square that becomes one row: side by side, or their mean where <see cref="Pooled"/>.</summary>
    public int Merge { get; init; } = 1;

    /// <summary>Whether merged patches are averaged (Gemma 3).</summary>
    public bool Pooled { get; init; }

    /// <summary>How images are divided.</summary>
    public ImageDivision Division { get; init; }

    /// <summary>Of any resolution: heights and widths in pixels that an image may be fitted to.</summary>
    public (int Height, int Width)[] Pinpoints { get; init; } = [];

    /// <summary>Of any resolution: rows beyond so many squares' are interpolated down (LLaVA-OneVision's anyres_max_9); 0: never.</summary>
    public int MaxSquares { get; init; }

    /// <summary>Native: frames a patch; an image is repeated so often.</summary>
    public int TemporalPatch { get; init; } = 1;

    /// <summary>
    /// Native: what an image's place in time is multiplied with. 1, but for Qwen2.5-VL checkpoints that transformers 5.3 to 5.5 wrote: those versions
    /// turned by start · tokens_per_second where the model adds multiples of it to the start.
    /// </summary>
    public int TimeFactor { get; init; } = 1;

    /// <summary>Native: merged rows and columns of a window of attention; 0: none (Qwen2.5-VL has them).</summary>
    public int Window { get; init; }

    /// <summary>Native with windows: layers, from 0, that see the whole image.</summary>
    public int[] FullLayers { get; init; } = [];

    /// <summary>Native: side of the square table of learned positions, interpolated to the image's grid; 0: none (Qwen3-VL has one).</summary>
    public int PositionSide { get; init; }

    /// <summary>Layers, from 0, whose output is also projected and added after the decoder's first layers (Qwen3-VL's deepstack).</summary>
    public int[] Deepstack { get; init; } = [];

    /// <summary>Patches of a square.</summary>
    public int Patches => ImageSize / PatchSize * (ImageSize / PatchSize);

    /// <summary>Rows of a square inside the transformer.</summary>
    public int Rows => Patches + (ClassToken ? 1 : 0);

    /// <summary>Feature rows of a square: tokens that it takes in a prompt.</summary>
    public int Features => Merge > 1 ? Side * Side : DropClassToken && ClassToken ? Patches : Rows;

    /// <summary>Merged rows (and columns) of a square.</summary>
    internal int Side => ImageSize / PatchSize / Merge;

    /// <summary>Width of the features before the projector.</summary>
    public int FeatureSize => HiddenSize * (FeatureLayers?.Length ?? 1) * (Pooled ? 1 : Merge * Merge);

    /// <summary>Floats of a native patch: C · T · P · P.</summary>
    internal int PatchFloats => 3 * TemporalPatch * PatchSize * PatchSize;

    /// <summary>Whether the MLP is gated.</summary>
    internal bool IsGated => Activation.IsGated();

    /// <summary>What of a device it needs beyond what CLIP's tower does.</summary>
    public Abilities Needs =>
        (Division == ImageDivision.Native ? Abilities.Spans : 0) | (Deepstack.Length > 0 ? Abilities.Additions : 0)
        | (Pooled || PositionSide > 0 || MaxSquares > 0 ? Abilities.BlendRows : 0);
}

/// <summary>What stands between vision features and the decoder: LLaVA-1.5's MLP (arXiv 2310.03744), or one matrix.</summary>
/// <param name="InputSize">Width of the vision features.</param>
/// <param name="HiddenSize">Width between the layers; 0 for a single matrix.</param>
/// <param name="OutputSize">D of the decoder.</param>
/// <param name="Activation">Between the layers.</param>
/// <param name="Bias">Whether the layers have biases.</param>
public sealed record ProjectorSpec(int InputSize, int HiddenSize, int OutputSize, Epilogue Activation, bool Bias)
{
    /// <summary>Whether an RMSNorm precedes it (Gemma 3).</summary>
    public bool Norm { get; init; }

    /// <summary>Added to that norm's weights at loading: 1 where the checkpoint stores w of (1 + w).</summary>
    public float NormOffset { get; init; }

    /// <summary>Whether the single matrix is stored [InputSize, OutputSize] (Gemma 3).</summary>
    public bool Transposed { get; init; }
}
