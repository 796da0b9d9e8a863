namespace Trimtab.Kernels;

/// <summary>What a <see cref="Device.Linear"/> does with its sums before it stores them.</summary>
public enum Epilogue
{
    /// <summary>Stores them (bias added).</summary>
    None,
    /// <summary>GELU with the error function: x · Φ(x).</summary>
    Gelu,
    /// <summary>GELU by the tanh approximation.</summary>
    GeluTanh,
    /// <summary>x · sigmoid(1.702 x), as CLIP uses.</summary>
    QuickGelu,
    /// <summary>Gated: weight rows [0, N) are the gate, [N, 2N) the value; stores silu(gate) · value, N columns.</summary>
    SiluGate,
    /// <summary>Gated with the tanh GELU (Gemma's GeGLU).</summary>
    GeluTanhGate,
    /// <summary>silu(x) = x · sigmoid(x).</summary>
    Silu,
}

/// <summary>What of an <see cref="Epilogue"/> shapes depend on.</summary>
public static class Epilogues
{
    /// <summary>Whether weight rows are half gates, half values, so that there are half as many outputs.</summary>
    public static bool IsGated(this Epilogue epilogue) => epilogue is Epilogue.SiluGate or Epilogue.GeluTanhGate;
}

/// <summary>
/// Options of ops that only some model families need. A device names those that it computes; a model that needs another one is refused
/// when it is loaded, so that no device ignores an option in silence.
/// </summary>
[Flags]
public enum Abilities
{
    /// <summary>What a LLaMA decoder and a CLIP vision tower need.</summary>
    None = 0,
    /// <summary><see cref="Heads.QueryNorm"/> and <see cref="Heads.KeyNorm"/> in <see cref="Device.RopeStore"/>.</summary>
    HeadNorm = 1,
    /// <summary><see cref="Heads.SoftCap"/> in <see cref="Device.AttendPaged"/>, and <see cref="Device.SoftCap"/>.</summary>
    SoftCap = 2,
    /// <summary><see cref="TokenMap.Span"/> in <see cref="Device.AttendPaged"/>.</summary>
    Spans = 4,
    /// <summary>A scale in <see cref="Device.Embed(Tensor, Weight, Tensor, Tensor, float)"/>.</summary>
    EmbeddingScale = 8,
    /// <summary><see cref="Device.Experts"/>.</summary>
    Experts = 16,
    /// <summary><see cref="Device.BlendRows"/>.</summary>
    BlendRows = 32,
    /// <summary><see cref="Junction.Added"/> in <see cref="Device.ResidualNorm"/>.</summary>
    Additions = 64,
    /// <summary>Every one of them.</summary>
    All = 127,
}

/// <summary>A normalisation's weights.</summary>
/// <param name="Weight">F32 [1, D].</param>
/// <param name="Bias">F32 [1, D]; none for RMSNorm.</param>
/// <param name="Epsilon">Added to the (mean) square before the root.</param>
/// <param name="Centered">True: LayerNorm (mean removed). False: RMSNorm.</param>
public readonly record struct NormWeights(Tensor Weight, Tensor Bias, float Epsilon, bool Centered);

/// <summary>
/// What happens to the residual stream at the output of a decoder layer, per token and by data: the CMRM edit
/// h := h − scale · v (arXiv 2410.09047, eq. 3) and the capture of h before it. The default value is "nothing".
/// </summary>
/// <param name="Layer">Decoder layer, 1-based; 0 for no junction.</param>
/// <param name="Layers">Number of decoder layers L.</param>
/// <param name="SteerSlot">I32 [1, T]: the row group in <paramref name="Vectors"/>; negative: this token is not steered.</param>
/// <param name="SteerScale">F32 [1, T]: alpha.</param>
/// <param name="Vectors">F32 [slots · L, D]: row slot · L + layer − 1 is subtracted.</param>
/// <param name="CaptureSlot">I32 [1, T]: the row group in <paramref name="Captures"/>; negative: not captured.</param>
/// <param name="Captures">F32 [slots · L, D]: receives h after the residual add and before the edit.</param>
/// <param name="ProductSlot">I32 [1, T]: the row of <paramref name="Products"/> of a token with a steer slot; negative: none.</param>
/// <param name="Products">F32 [rows, 2 · L]: columns 2 (layer − 1) and the next receive h · v before and after the edit.</param>
/// <param name="Rows">I32 [1, T], as <see cref="Device.Embed(Tensor, Weight, Tensor, Tensor)"/> takes them; used with <paramref name="Added"/>.</param>
/// <param name="Added">[I, D] in the activation type, or none: where rows[t] &lt; 0, row −1 − rows[t] is added to h after the edit (Qwen3-VL's deepstack).</param>
public readonly record struct Junction(
    int Layer, int Layers, Tensor SteerSlot, Tensor SteerScale, Tensor Vectors, Tensor CaptureSlot, Tensor Captures,
    Tensor ProductSlot = default, Tensor Products = default, Tensor Rows = default, Tensor Added = default);

/// <summary>The weights of a vision transformer's patch embedding, class token and position table.</summary>
/// <param name="Projection">[D, C · P · P]: the convolution, one row per output channel, columns in channel, y, x order.</param>
/// <param name="Bias">F32 [1, D] or none.</param>
/// <param name="ClassToken">F32 [1, D] or none: becomes row 0 of each image.</param>
/// <param name="Positions">F32 [S, D], S = patches (+ 1 with a class token), added to the rows.</param>
/// <param name="ImageSize">Height and width in pixels.</param>
/// <param name="PatchSize">Height and width of a patch in pixels.</param>
public readonly record struct PatchWeights(Weight Projection, Tensor Bias, Tensor ClassToken, Tensor Positions, int ImageSize, int PatchSize);

/// <summary>How a qkv row is divided into heads: query heads first, then key heads, then value heads; and what is done to each.</summary>
/// <param name="Query">Number of query heads; a multiple of <paramref name="KeyValue"/>.</param>
/// <param name="KeyValue">Number of key (and of value) heads.</param>
/// <param name="Dimension">Elements a head.</param>
/// <param name="Scale">Factor on q · k, usually 1/√Dimension.</param>
/// <param name="SoftCap">Where positive, scores s become SoftCap · tanh(s / SoftCap) before the softmax (Gemma 2).</param>
/// <param name="QueryNorm">F32 [1, Dimension] or none: each query head is RMS-normed with it before it is rotated (Qwen3, Gemma 3).</param>
/// <param name="KeyNorm">F32 [1, Dimension] or none: the same of each key head; there where <paramref name="QueryNorm"/> is.</param>
/// <param name="NormEpsilon">Of these norms.</param>
public readonly record struct Heads(
    int Query, int KeyValue, int Dimension, float Scale,
    float SoftCap = 0, Tensor QueryNorm = default, Tensor KeyNorm = default, float NormEpsilon = 0)
{
    /// <summary>Columns of a qkv row.</summary>
    public int Columns => (Query + 2 * KeyValue) * Dimension;
}

/// <summary>Keys and values of one layer in pages: position p of a sequence lies in row page(p / PageSize) · PageSize + p % PageSize.</summary>
/// <param name="Keys">[pages · PageSize, KeyValue · Dimension], rotated; of a type that the device <see cref="Device.Caches"/>.</param>
/// <param name="Values">[pages · PageSize, KeyValue · Dimension], of the same type.</param>
/// <param name="PageSize">Positions a page.</param>
/// <param name="Scales">
/// Of U8 and F8E4M3 keys and values, none otherwise: F32 [rows, 2 · KeyValue], of each key head, then of each value head. A number is
/// (element − 128) · scale and a head's scale its largest magnitude over 127; of F8E4M3 element · scale, and over 448.
/// </param>
public readonly record struct KvLayer(Tensor Keys, Tensor Values, int PageSize, Tensor Scales = default);

/// <summary>Where the T tokens of a step belong. One step may mix prefill chunks and decode tokens of several sequences.</summary>
/// <param name="Sequence">I32 [1, T]: row of <paramref name="Pages"/>.</param>
/// <param name="Position">I32 [1, T]: position in the sequence; a token attends to positions ≤ its own.</param>
/// <param name="StoreRow">I32 [1, T]: cache row that receives the token's key and value.</param>
/// <param name="Pages">I32 [sequences, P]: page numbers of each sequence in order.</param>
/// <param name="Span">
/// I32 [2, T] or none: the first and the last position of the stretch that a token belongs to and sees all of, before and after it, window or
/// not (an image of Gemma 3; a window of a vision transformer); both its own position where it belongs to none.
/// </param>
public readonly record struct TokenMap(Tensor Sequence, Tensor Position, Tensor StoreRow, Tensor Pages, Tensor Span = default);

/// <summary>How a token is drawn from each row of logits: what <see cref="Sampler.Describe"/> writes.</summary>
/// <param name="Numbers">F32 [R, 6]: temperature, top-p, min-p; repetition, presence and frequency penalty. With a negative temperature nothing is drawn.</param>
/// <param name="Settings">I32 [R, 8]: top-k; seed and position, low words first; first row of <paramref name="Edits"/>, biases and seen tokens from there on.</param>
/// <param name="Edits">I32 [E, 2]: a token and the bits of its bias; a seen token and how often it was generated.</param>
public readonly record struct DrawMap(Tensor Numbers, Tensor Settings, Tensor Edits)
{
    /// <summary>Columns of <see cref="Numbers"/>.</summary>
    public const int NumberColumns = 6;

    /// <summary>Columns of <see cref="Settings"/>.</summary>
    public const int SettingColumns = 8;

    /// <summary>Columns of <see cref="Edits"/>.</summary>
    public const int EditColumns = 2;
}

/// <summary>The experts of one layer of a mixture (Mixtral, arXiv 2401.04088).</summary>
/// <param name="GateUp">Of each expert: [2 I, D], gate rows, then value rows.</param>
/// <param name="Down">Of each expert: [D, I].</param>
/// <param name="Used">Experts a token, those of the highest router scores.</param>
/// <param name="Normalised">Whether the weights of a token's experts sum to 1; else they are their shares among all experts.</param>
/// <param name="Activation">Gated epilogue.</param>
public readonly record struct ExpertWeights(Weight[] GateUp, Weight[] Down, int Used, bool Normalised, Epilogue Activation);

/// <summary>
/// The narrow waist: the fused operations that a model is written in, once for every device. Calls only enqueue
/// (<see cref="Download(Tensor, Span{float})"/> waits); shapes are [rows, columns], T is the number of tokens in the step.
/// Outputs never alias inputs unless said. Every output element is summed in an order that depends only on its own row,
/// so results do not depend on what else is in the batch; a device that gives this up for speed says so (<see cref="Cuda.CudaOptions"/>).
/// </summary>
public abstract class Device : IDisposable
{
    /// <summary>What the device is, for people: instruction set and threads, or the GPU's name.</summary>
    public abstract string Name { get; }

    /// <summary>Element type of activations on this device.</summary>
    public abstract DType ActivationType { get; }

    /// <summary>Which options of ops it computes.</summary>
    public virtual Abilities Abilities => Abilities.None;

    /// <summary>Allocates a zeroed tensor; the storage is the caller's to dispose.</summary>
    /// <exception cref="OutOfMemoryException">The device has no room; the message names the size.</exception>
    public abstract Tensor Allocate(DType type, int rows, int columns);

    /// <summary>Packs weight parts, rows one after another, into the device's layout. The data is not needed afterwards.</summary>
    /// <exception cref="NotSupportedException">The device does not compute in that form; convert first (see <see cref="Computes"/>).</exception>
    /// <exception cref="ArgumentException">Parts differ in their columns.</exception>
    public abstract Weight Pack(params ReadOnlySpan<WeightData> parts);

    /// <summary>Among how many ranks it divides layers (<see cref="TensorParallelDevice"/>); 1: it divides nothing.</summary>
    public virtual int Ranks => 1;

    /// <summary>Allocates a zeroed tensor whose columns the ranks divide.</summary>
    public virtual Tensor Allocate(DType type, int rows, Division columns)
    {
        ArgumentNullException.ThrowIfNull(columns);
        return Allocate(type, rows, columns.Count);
    }

    /// <summary>Packs weight parts whose rows, all parts' one after another, or whose columns the ranks divide.</summary>
    /// <param name="division">Who has which; of columns, one range a rank, which begins and ends with a block.</param>
    /// <param name="byColumns">Whether columns are divided: a product's outputs are then added up.</param>
    /// <param name="parts">The rows.</param>
    public virtual Weight PackDivided(Division division, bool byColumns, params ReadOnlySpan<WeightData> parts) => Pack(parts);

    /// <summary>What every <c>Pack</c> asks of its parts.</summary>
    private protected void CheckParts(ReadOnlySpan<WeightData> parts)
    {
        if (parts.IsEmpty)
            throw new ArgumentException("Pack: a weight has at least one part");
        foreach (var part in parts)
        {
            if (part.Columns != parts[0].Columns)
                throw new ArgumentException($"Pack: parts have {parts[0].Columns} and {part.Columns} columns");
            if (part.Rows <= 0 || part.Data == 0)
                throw new ArgumentException($"Pack: a part [{part.Rows}, {part.Columns}] of {part.Type} without rows or data");
            if (!Computes(part.Type, part.Columns))
                throw new NotSupportedException($"Pack: {part.Type} weights of {part.Columns} columns are not computed as they are; convert them first");
            if (!part.Scales.IsEmpty && (part.Type != DType.F8E4M3 || part.Scales.Length != part.Rows))
                throw new ArgumentException($"Pack: {part.Scales.Length} scales of a part of {part.Rows} rows of {part.Type}; expected one of each row of F8E4M3");
            if (part.RowOrder is { } order && (order.Length != part.Rows || Array.Exists(order, row => (uint)row >= (uint)part.Rows)))
                throw new ArgumentException($"Pack: the row order of a part of {part.Rows} rows has {order.Length} entries or one outside the part");
        }
    }

    /// <summary>Whether weights of this form are computed as they are, with <paramref name="columns"/> input features.</summary>
    public abstract bool Computes(DType type, int columns);

    /// <summary>The form in which this device multiplies weights that come in another: the same, unless it was asked to round them for speed.</summary>
    public virtual DType Prefers(DType type) => type;

    /// <summary>Whether keys and values can be of this type: the activation type; on some devices BF16, or U8 or F8E4M3 with scales.</summary>
    public virtual bool Caches(DType type) => type == ActivationType;

    /// <summary>Copies host values into a tensor, converting to its type; counts must be equal.</summary>
    public abstract void Upload(ReadOnlySpan<float> source, Tensor target);

    /// <summary>Copies host integers into an I32 tensor; counts must be equal.</summary>
    public abstract void Upload(ReadOnlySpan<int> source, Tensor target);

    /// <summary>Waits for the work before it, then copies a tensor to the host, converting to float; counts must be equal.</summary>
    public abstract void Download(Tensor source, Span<float> target);

    /// <summary>target = source: equal types and shapes, no element in both.</summary>
    public abstract void Copy(Tensor target, Tensor source);

    /// <summary>Does the host's own work, items that know nothing of each other, on the threads that the device has: one after the other where it has none.</summary>
    /// <param name="items">How many.</param>
    /// <param name="work">Does one; may run on any thread, and throws nothing.</param>
    public virtual void Spread(int items, Action<int> work)
    {
        ArgumentNullException.ThrowIfNull(work);
        for (var i = 0; i < items; i++)
            work(i);
    }

    /// <summary>Runs a recorded step: the action itself on a CPU, a captured graph under the same key on a GPU.</summary>
    public virtual void Replay(long key, Action record) => record();

    /// <summary>output[t] = rows[t] ≥ 0 ? table[rows[t]] : features[−1 − rows[t]]. Splices image features at no extra pass.</summary>
    /// <param name="output">[T, D].</param>
    /// <param name="table">[V, D].</param>
    /// <param name="features">[I, D] in the activation type, or none.</param>
    /// <param name="rows">I32 [1, T].</param>
    public abstract void Embed(Tensor output, Weight table, Tensor features, Tensor rows);

    /// <summary>The same with the table's rows multiplied by <paramref name="scale"/>, the features not (Gemma's √D).</summary>
    public virtual void Embed(Tensor output, Weight table, Tensor features, Tensor rows, float scale)
    {
        if (scale != 1)
            throw Lacks(Abilities.EmbeddingScale);
        Embed(output, table, features, rows);
    }

    /// <summary>Patch embedding, class token and positions of n images.</summary>
    /// <param name="output">[n · S, D].</param>
    /// <param name="pixels">F32 [n, C · H · W], channel-major planes, normalised.</param>
    /// <param name="weights">The embedding.</param>
    public abstract void Patches(Tensor output, Tensor pixels, in PatchWeights weights);

    /// <summary>output = norm(input), both [T, D]; may alias.</summary>
    public abstract void Norm(Tensor output, Tensor input, in NormWeights norm);

    /// <summary>x += delta; capture and steer as the junction says; output = norm(x). All [T, D].</summary>
    public abstract void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction);

    /// <summary>output = epilogue(input · weightᵀ + bias).</summary>
    /// <param name="output">[T, N]; N = weight rows, or half of them for a gated epilogue.</param>
    /// <param name="input">[T, K].</param>
    /// <param name="weight">[N or 2N, K].</param>
    /// <param name="bias">F32 [1, weight rows] or none.</param>
    /// <param name="epilogue">What is done to the sums.</param>
    public abstract void Linear(Tensor output, Tensor input, Weight weight, Tensor bias, Epilogue epilogue);

    /// <summary>
    /// Rotates the query heads of qkv in place and writes rotated keys and plain values to the cache. Halves convention:
    /// (x_i, x_{i+R/2}) is the pair of frequency i; elements from R on are not rotated. With norms in <paramref name="heads"/>, query and key
    /// heads are normed in place before.
    /// </summary>
    /// <param name="qkv">[T, heads.Columns].</param>
    /// <param name="rotary">F32 [T, R]: cos of the R/2 angles, then their sin (scaled, where the RoPE kind scales).</param>
    /// <param name="cache">Where keys and values go.</param>
    /// <param name="tokens">Cache rows of the tokens.</param>
    /// <param name="heads">Head layout.</param>
    public abstract void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads);

    /// <summary>Causal attention over the paged cache, which already holds this step's keys and values.</summary>
    /// <param name="output">[T, Query · Dimension].</param>
    /// <param name="qkv">[T, heads.Columns], queries rotated.</param>
    /// <param name="cache">Keys and values.</param>
    /// <param name="tokens">Sequence, position and pages of the tokens.</param>
    /// <param name="heads">Head layout.</param>
    /// <param name="window">Sliding window: only the last <paramref name="window"/> positions, its own included; 0 for all.</param>
    public abstract void AttendPaged(Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window);

    /// <summary>Full (bidirectional) attention within each run of <paramref name="length"/> rows: a vision transformer's.</summary>
    /// <param name="output">[n · length, Query · Dimension].</param>
    /// <param name="qkv">[n · length, heads.Columns].</param>
    /// <param name="length">Rows an image.</param>
    /// <param name="heads">Head layout.</param>
    public abstract void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads);

    /// <summary>output[i] = input[rows[i]].</summary>
    /// <param name="output">[R, D].</param>
    /// <param name="input">[T, D].</param>
    /// <param name="rows">I32 [1, R].</param>
    public abstract void TakeRows(Tensor output, Tensor input, Tensor rows);

    /// <summary>output[i] = Σ_g weights[g, i] · input[rows[g, i]], in the order of g: pooled and interpolated image features.</summary>
    /// <param name="output">[R, D].</param>
    /// <param name="input">[T, D].</param>
    /// <param name="rows">I32 [G, R].</param>
    /// <param name="weights">F32 [G, R].</param>
    public virtual void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights) => throw Lacks(Abilities.BlendRows);

    /// <summary>x = cap · tanh(x / cap), in place: Gemma 2's logits.</summary>
    /// <param name="x">[T, D].</param>
    /// <param name="cap">Positive.</param>
    public virtual void SoftCap(Tensor x, float cap) => throw Lacks(Abilities.SoftCap);

    /// <summary>
    /// A mixture of experts: output[t] = Σ_e w_e(t) · down_e(activation(gate_e · x) · (up_e · x)) with x = input[t] over the token's experts, in
    /// the order of their numbers. Its experts are those of the highest scores (of equal ones the first), w their softmax over all experts.
    /// </summary>
    /// <param name="output">[T, D].</param>
    /// <param name="input">[T, D].</param>
    /// <param name="scores">[T, E]: the router's.</param>
    /// <param name="weights">The experts.</param>
    public virtual void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights) => throw Lacks(Abilities.Experts);

    /// <summary>Whether it draws tokens itself, so that logits need not leave it.</summary>
    public virtual bool Draws => false;

    /// <summary>
    /// Draws a token from each row as <see cref="Sampler"/> does, whose weights are doubles; here they may be whole numbers of a small unit, so that a
    /// draw within 10⁻⁸ of the border between two tokens may take the other one.
    /// </summary>
    /// <param name="tokens">I32 [1, R]: receives them; −1 where none was to be drawn, or where the row's logits admit none.</param>
    /// <param name="logits">[R, V].</param>
    /// <param name="map">How each is drawn.</param>
    public virtual void Draw(Tensor tokens, Tensor logits, in DrawMap map) => throw new NotSupportedException($"the device ({Name}) does not draw tokens");

    private NotSupportedException Lacks(Abilities ability) => new($"the device ({Name}) does not compute {ability}");

    /// <summary>Gives everything back.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the device.</summary>
    protected abstract void Dispose(bool disposing);
}
