using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// One step's tokens as data: of which sequence and position each is, which row it embeds, how it is steered, whether
/// its states are captured, and which rows go on to logits. Prefill chunks and decode tokens of several sequences mix.
/// Filled by the engine on the host, uploaded once a step.
/// </summary>
public sealed class Batch
{
    /// <summary>Makes an empty batch with fixed capacities.</summary>
    /// <param name="maxTokens">Tokens a step.</param>
    /// <param name="maxSequences">Sequences a step.</param>
    /// <param name="maxPages">Pages a sequence.</param>
    /// <param name="maxSamples">Rows to logits a step.</param>
    public Batch(int maxTokens, int maxSequences, int maxPages, int maxSamples)
    {
        MaxTokens = maxTokens;
        MaxSequences = maxSequences;
        MaxPages = maxPages;
        MaxSamples = maxSamples;
        Rows = new int[maxTokens];
        Sequence = new int[maxTokens];
        Position = new int[maxTokens];
        RotaryPosition = new (int, int, int)[maxTokens];
        SpanFirst = new int[maxTokens];
        SpanLast = new int[maxTokens];
        RotaryLength = new int[maxTokens];
        StoreRow = new int[maxTokens];
        SteerSlot = new int[maxTokens];
        SteerScale = new float[maxTokens];
        CaptureSlot = new int[maxTokens];
        ProductSlot = new int[maxTokens];
        Pages = new int[maxSequences * maxPages];
        SampleRow = new int[maxSamples];
        DrawNumbers = new float[maxSamples * DrawMap.NumberColumns];
        DrawSettings = new int[maxSamples * DrawMap.SettingColumns];
    }

    /// <summary>Capacity in tokens.</summary>
    public int MaxTokens { get; }

    /// <summary>Capacity in sequences.</summary>
    public int MaxSequences { get; }

    /// <summary>Capacity in pages a sequence.</summary>
    public int MaxPages { get; }

    /// <summary>Capacity in rows that go on to logits.</summary>
    public int MaxSamples { get; }

    /// <summary>Tokens in this step, T.</summary>
    public int Tokens { get; private set; }

    /// <summary>Sequences in this step.</summary>
    public int Sequences { get; private set; }

    /// <summary>Rows that go on to logits, R.</summary>
    public int Samples { get; private set; }

    /// <summary>Tokens whose states are captured in this step.</summary>
    public int Captures { get; private set; }

    /// <summary>Tokens whose projections on their steering vectors are wanted in this step.</summary>
    public int Products { get; private set; }

    internal int[] Rows { get; }           // [T] token id, or -1 - row of the image features
    internal int[] Sequence { get; }       // [T] row of Pages
    internal int[] Position { get; }       // [T]
    internal (int Time, int Row, int Column)[] RotaryPosition { get; } // [T] what M-RoPE turns by
    internal int[] SpanFirst { get; }      // [T] of the stretch of positions that the token sees all of
    internal int[] SpanLast { get; }       // [T]
    internal int[] RotaryLength { get; }   // [T] what dynamic NTK sees as the sequence's length
    internal int[] StoreRow { get; }       // [T] row of the KV cache
    internal int[] SteerSlot { get; }      // [T] negative: not steered
    internal float[] SteerScale { get; }   // [T] alpha
    internal int[] CaptureSlot { get; }    // [T] negative: not captured
    internal int[] ProductSlot { get; }    // [T] negative: not observed
    internal int[] Pages { get; }          // [sequences, MaxPages]
    internal int[] SampleRow { get; }      // [R] token index in this step
    internal float[] DrawNumbers { get; }  // [R, 6] see DrawMap
    internal int[] DrawSettings { get; }   // [R, 8]
    internal int[] DrawEdits { get; private set; } = new int[64 * DrawMap.EditColumns]; // [EditRows, 2]; grows
    internal int EditRows { get; private set; }
    internal int Draws { get; private set; } // rows of the logits that the device draws from

    /// <summary>Forgets the last step.</summary>
    public void Clear() => Tokens = Sequences = Samples = Captures = Products = EditRows = Draws = 0;

    /// <summary>Adds a sequence and its page table; its tokens follow.</summary>
    /// <returns>Its number in this step.</returns>
    public int AddSequence(ReadOnlySpan<int> pages)
    {
        pages.CopyTo(Pages.AsSpan(Sequences * MaxPages, MaxPages));
        return Sequences++;
    }

    /// <summary>Adds a token of the sequence that was added last.</summary>
    /// <param name="row">Token id, or −1 − row of the image features.</param>
    /// <param name="position">Its position in the sequence.</param>
    /// <param name="rotaryLength">See <see cref="Rope.Fill(int, int, Span{float})"/>.</param>
    /// <param name="steerSlot">Row group of the steering vectors, or −1.</param>
    /// <param name="steerScale">Alpha.</param>
    /// <returns>Its index in this step.</returns>
    public int AddToken(int row, int position, int rotaryLength, int steerSlot = -1, float steerScale = 0)
    {
        var sequence = Sequences - 1;
        var t = Tokens++;
        Rows[t] = row;
        Sequence[t] = sequence;
        Position[t] = SpanFirst[t] = SpanLast[t] = position;
        RotaryPosition[t] = (position, position, position);
        RotaryLength[t] = rotaryLength;
        StoreRow[t] = Pages[sequence * MaxPages + position / KvCache.PageSize] * KvCache.PageSize + position % KvCache.PageSize;
        SteerSlot[t] = steerSlot;
        SteerScale[t] = steerScale;
        CaptureSlot[t] = ProductSlot[t] = -1;
        return t;
    }

    /// <summary>Gives a token other positions to be rotated by than its own (M-RoPE).</summary>
    public void Turn(int token, int time, int row, int column) => RotaryPosition[token] = (time, row, column);

    /// <summary>Lets a token see a stretch of positions around its own, after it too.</summary>
    public void See(int token, int first, int last) => (SpanFirst[token], SpanLast[token]) = (first, last);

    /// <summary>Sends a token's final state on to logits.</summary>
    /// <returns>The row of the logits.</returns>
    public int Sample(int token)
    {
        SampleRow[Samples] = token;
        DrawNumbers[Samples * DrawMap.NumberColumns] = -1;
        return Samples++;
    }

    /// <summary>Has the device draw from a row of the logits (<see cref="Device.Draw"/>).</summary>
    public void Draw(int sample, Sampler sampler)
    {
        ArgumentNullException.ThrowIfNull(sampler);
        var (first, end) = (EditRows, EditRows + sampler.Edits);
        if (end * DrawMap.EditColumns > DrawEdits.Length)
        {
            var larger = new int[2 * end * DrawMap.EditColumns];
            DrawEdits.CopyTo(larger, 0);
            DrawEdits = larger;
        }
        sampler.Describe(DrawNumbers.AsSpan(sample * DrawMap.NumberColumns, DrawMap.NumberColumns), DrawSettings.AsSpan(sample * DrawMap.SettingColumns, DrawMap.SettingColumns),
            DrawEdits.AsSpan(first * DrawMap.EditColumns), first);
        EditRows = end;
        Draws++;
    }

    /// <summary>Captures a token's residual stream at every layer's output.</summary>
    /// <returns>The row group of the captures.</returns>
    public int Capture(int token) => CaptureSlot[token] = Captures++;

    /// <summary>Observes a token that has a steer slot: h · v before and after the edit at every layer.</summary>
    /// <returns>The row of the products.</returns>
    public int Observe(int token) => ProductSlot[token] = Products++;
}
