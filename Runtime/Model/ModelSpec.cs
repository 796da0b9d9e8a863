using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>Rotary position embedding (RoFormer, arXiv 2104.09864) and its context extensions.</summary>
/// <param name="Kind">Which extension.</param>
/// <param name="Theta">Base of the geometric frequencies.</param>
/// <param name="Dimension">Rotated elements a head, R ≤ head dimension.</param>
/// <param name="MaxPositions">The model's max_position_embeddings.</param>
/// <param name="Factor">Extension factor.</param>
/// <param name="OriginalPositions">Positions before the extension (llama3, yarn, longrope), else 0.</param>
/// <param name="LowFrequencyFactor">llama3.</param>
/// <param name="HighFrequencyFactor">llama3.</param>
/// <param name="BetaFast">yarn.</param>
/// <param name="BetaSlow">yarn.</param>
/// <param name="AttentionFactor">yarn, longrope: factor on cos and sin, or null for the formula's.</param>
/// <param name="MScale">yarn (DeepSeek's variant), or null.</param>
/// <param name="MScaleAllDimensions">yarn (DeepSeek's variant), or null.</param>
/// <param name="Truncate">yarn: whether the correction range is rounded to whole dimensions.</param>
/// <param name="Frequencies">Divisors on the frequencies, as a GGUF's rope_freqs.weight holds them, or null; longrope: within OriginalPositions.</param>
public sealed record RopeSpec(
    RopeKind Kind, double Theta, int Dimension, int MaxPositions, double Factor = 1, int OriginalPositions = 0,
    double LowFrequencyFactor = 1, double HighFrequencyFactor = 4, double BetaFast = 32, double BetaSlow = 1,
    double? AttentionFactor = null, double? MScale = null, double? MScaleAllDimensions = null, bool Truncate = true,
    float[]? Frequencies = null)
{
    /// <summary>
    /// M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1): how many frequencies turn with a token's time, its row and its column; null: all with
    /// its position. [3].
    /// </summary>
    public int[]? Sections { get; init; }

    /// <summary>Positions that it is made for: dynamic NTK's are more than the model was trained on.</summary>
    public int Reach => Kind == RopeKind.Dynamic ? (int)Math.Min(MaxPositions * Factor, 1 << 30) : MaxPositions;

    /// <summary>longrope: divisors of every position of a sequence that is longer than OriginalPositions; [R/2].</summary>
    public float[]? LongFrequencies { get; init; }

    /// <summary>Whether the three take turns (Qwen3-VL: time, row, column, time, …) instead of lying one after another.</summary>
    public bool Interleaved { get; init; }
}

/// <summary>Kinds of RoPE.</summary>
public enum RopeKind
{
    /// <summary>Plain.</summary>
    Default,
    /// <summary>Positions divided by the factor.</summary>
    Linear,
    /// <summary>Dynamic NTK: the base grows with the sequence once it is longer than MaxPositions.</summary>
    Dynamic,
    /// <summary>LLaMA 3.1's piecewise interpolation.</summary>
    Llama3,
    /// <summary>YaRN (arXiv 2309.00071).</summary>
    Yarn,
    /// <summary>LongRoPE (arXiv 2402.13753): searched divisors, one set for short sequences, one for long ones.</summary>
    LongRope,
}

/// <summary>A decoder-only language model.</summary>
/// <param name="Family">Hugging Face model_type: llama, mistral, qwen2, gemma2, …; <see cref="TextFamily"/> has them all.</param>
/// <param name="HiddenSize">D: width of the residual stream.</param>
/// <param name="IntermediateSize">Width of the MLP.</param>
/// <param name="Layers">L.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KeyValueHeads">Key and value heads.</param>
/// <param name="HeadDimension">Elements a head.</param>
/// <param name="VocabularySize">V: rows of the embedding.</param>
/// <param name="NormEpsilon">RMSNorm's epsilon.</param>
/// <param name="Activation">The gated MLP's epilogue.</param>
/// <param name="QkvBias">Biases on q, k, v.</param>
/// <param name="OutputBias">Bias on the attention's output projection.</param>
/// <param name="MlpBias">Biases on gate, up, down.</param>
/// <param name="TieEmbeddings">The output projection is the embedding table.</param>
/// <param name="Windows">Sliding window of each layer, 0 for none; [L].</param>
/// <param name="Rope">Positions.</param>
/// <param name="BosId">Begin-of-sequence token, or null.</param>
/// <param name="EosIds">Tokens that end a generation (config and generation_config together).</param>
public sealed record TextSpec(
    string Family, int HiddenSize, int IntermediateSize, int Layers, int Heads, int KeyValueHeads, int HeadDimension,
    int VocabularySize, float NormEpsilon, Epilogue Activation, bool QkvBias, bool OutputBias, bool MlpBias, bool TieEmbeddings,
    int[] Windows, RopeSpec Rope, int? BosId, int[] EosIds)
{
    /// <summary>Whether query and key heads are RMS-normed before they are rotated (Qwen3, Gemma 3).</summary>
    public bool QkNorm { get; init; }

    /// <summary>Whether what attention and MLP add to the residual stream is normed before (Gemma 2 and 3).</summary>
    public bool PostNorms { get; init; }

    /// <summary>Added to norm weights at loading: 1 where a checkpoint stores w of (1 + w) (Gemma in Hugging Face's form).</summary>
    public float NormOffset { get; init; }

    /// <summary>Factor on embedded tokens: √D for Gemma.</summary>
    public float EmbeddingScale { get; init; } = 1;

    /// <summary>Factor on q · k, or null for 1/√HeadDimension.</summary>
    public float? QueryScale { get; init; }

    /// <summary>Cap of attention scores, 0 for none (Gemma 2).</summary>
    public float AttentionSoftCap { get; init; }

    /// <summary>Cap of logits, 0 for none (Gemma 2).</summary>
    public float FinalSoftCap { get; init; }

    /// <summary>Positions of layers that have a window, or null where they are as the others' (Gemma 3).</summary>
    public RopeSpec? LocalRope { get; init; }

    /// <summary>Its experts, or null for a dense model.</summary>
    public MixtureSpec? Mixture { get; init; }

    /// <summary>Whether an image's rows see all of their image, also what follows them (Gemma 3).</summary>
    public bool SeesWholeImages { get; init; }

    /// <summary>Whether a prompt's positions, images and text, see the whole prompt (PaliGemma, arXiv 2407.07726); what is generated sees what came before.</summary>
    public bool SeesWholePrompts { get; init; }

    /// <summary>Whether some positions see later ones.</summary>
    internal bool SeesAhead => SeesWholeImages || SeesWholePrompts;

    /// <summary>Layers, from the first, after each of which further features of an image are added to its rows (Qwen3-VL's deepstack).</summary>
    public int AddedLayers { get; init; }

    /// <summary>What of a device it needs beyond what LLaMA does.</summary>
    public Abilities Needs =>
        (QkNorm ? Abilities.HeadNorm : 0) | (AttentionSoftCap > 0 || FinalSoftCap > 0 ? Abilities.SoftCap : 0)
        | (EmbeddingScale != 1 ? Abilities.EmbeddingScale : 0) | (Mixture is not null ? Abilities.Experts : 0)
        | (SeesAhead ? Abilities.Spans : 0);
}

/// <summary>A mixture of experts in place of MLPs (Mixtral, arXiv 2401.04088; Qwen3-MoE).</summary>
/// <param name="Experts">E.</param>
/// <param name="Used">Experts a token.</param>
/// <param name="IntermediateSize">Width of an expert.</param>
/// <param name="Normalised">Whether the weights of a token's experts are made to sum to 1.</param>
/// <param name="Layers">Whether each layer has experts, or else an MLP; [L].</param>
public sealed record MixtureSpec(int Experts, int Used, int IntermediateSize, bool Normalised, bool[] Layers);

/// <summary>What a checkpoint is, as data: everything the one forward pass needs to know.</summary>
/// <param name="Architecture">Name as the checkpoint gives it (LlavaForConditionalGeneration, or a GGUF's general.architecture).</param>
/// <param name="Text">The decoder.</param>
/// <param name="Vision">The vision encoder, or null for a language model alone.</param>
/// <param name="Projector">Its projector, or null.</param>
/// <param name="ImageTokenId">Token that an image's features replace, or null.</param>
/// <param name="StoredType">The checkpoint's declared dtype, or null when it says none.</param>
public sealed record ModelSpec(
    string Architecture, TextSpec Text, VisionSpec? Vision, ProjectorSpec? Projector, int? ImageTokenId, DType? StoredType)
{
    /// <summary>
    /// Texts around an image's rows that the model's processor writes, or null: begin and end of an image (Gemma 3), or the marker tokens of
    /// tiles (Idefics 3).
    /// </summary>
    public ImageMarkers? Markers { get; init; }

    /// <summary>How the checkpoint's matrices are quantised, where that is not the tensors' own form (GPTQ, AWQ, scaled FP8); else null.</summary>
    public QuantizationForm? Quantization { get; init; }

    /// <summary>What it is, for people: how images are seen, and the decoder.</summary>
    public string Description
    {
        get
        {
            var decoder = Text.Mixture is { } mixture ? $"{Text.Family}, {mixture.Used} of {mixture.Experts} experts" : Text.Family;
            if (Vision is null)
                return $"language model ({decoder})";
            var images = Vision.Division switch
            {
                ImageDivision.AnyResolution => "the whole image and a grid of squares",
                ImageDivision.Tiles => "squares, each an image of its own",
                ImageDivision.Native => "images in nearly their own size",
                _ => "one square",
            };
            return $"vision-language model ({Vision.Family}: {images}; {decoder})";
        }
    }

    /// <summary>What of a device it needs beyond what LLaVA-1.5 does.</summary>
    public Abilities Needs => Text.Needs | (Vision?.Needs ?? 0);
}

/// <summary>How a model's processor surrounds an image.</summary>
/// <param name="Begin">Token before an image's rows, or null.</param>
/// <param name="End">Token after them, or null.</param>
/// <param name="Tiles">Whether an image's tiles are marked by row and column, the whole image by "global" (Idefics 3, SmolVLM).</param>
public sealed record ImageMarkers(int? Begin, int? End, bool Tiles);

/// <summary>
/// A checkpoint that asks for something this runtime does not compute. The message names the file, the field, its value
/// and what is supported.
/// </summary>
public sealed class UnsupportedModelException(string message) : NotSupportedException(message);

/// <summary>
/// A configuration that is damaged or contradicts itself: not JSON, a wrong type, a size out of range, heads that do not
/// divide. The message names the file, the field, its value and what was expected.
/// </summary>
public sealed class InvalidConfigException(string message, Exception? inner = null) : Exception(message, inner);
