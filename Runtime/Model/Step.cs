using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// A step's tensors on the device: the uploaded batch and the activations. Allocated once at capacity, so that a
/// captured graph finds everything at the same address.
/// </summary>
public sealed class Step : IDisposable
{
    private readonly Device _device;
    private readonly Rope _rope;
    private readonly Rope? _localRope;
    private readonly List<Tensor> _owned = [];
    private readonly float[] _rotaryHost; // [maxT, R]

    // The batch as tensors; row-sliced to T, then seen as [1, T].
    private readonly Tensor _rows, _sequence, _position, _storeRow, _steerSlot, _captureSlot, _productSlot; // I32 [maxT, 1]
    private readonly Tensor _steerScale; // F32 [maxT, 1]
    private readonly Tensor _pages;      // I32 [maxS, maxP]
    private readonly Tensor _rotary;     // F32 [maxT, R]
    private readonly Tensor _localRotary; // F32 [maxT, R] of layers with a window, or the same as _rotary
    private readonly Tensor _sampleRow;  // I32 [maxR, 1]
    private readonly Tensor _span;       // I32 [2 maxT, 1] or none
    private readonly int[] _spanHost;    // [2 maxT]

    // Of a device that draws.
    private readonly Tensor _drawNumbers;  // F32 [maxR, 6]
    private readonly Tensor _drawSettings; // I32 [maxR, 8]
    private readonly Tensor _drawn;        // I32 [maxR, 1]
    private Tensor _drawEdits;             // I32 [what was ever needed, 2]

    // Activations.
    private readonly Tensor _x, _h, _delta;      // [maxT, D]
    private readonly Tensor _qkv;                // [maxT, (H + 2 KV) d]
    private readonly Tensor _attended;           // [maxT, H d]
    private readonly Tensor _gated;              // [maxT, I]
    private readonly Tensor _scores;             // [maxT, E] or none
    private readonly Tensor _taken;              // [maxR, D]
    private readonly Tensor _logits;             // [maxR, V]

    /// <summary>Allocates a step for batches of the given capacity.</summary>
    /// <param name="device">The device.</param>
    /// <param name="decoder">The decoder.</param>
    /// <param name="capacity">A batch with the capacities.</param>
    /// <param name="maxCaptures">Tokens whose states can be captured in one step.</param>
    public Step(Device device, Decoder decoder, Batch capacity, int maxCaptures)
    {
        var spec = decoder.Spec;
        (_device, _rope, _localRope) = (device, decoder.Rope, decoder.LocalRope);
        MaxCaptures = maxCaptures;
        var (t, r, type) = (capacity.MaxTokens, capacity.MaxSamples, device.ActivationType);
        _rotaryHost = new float[t * spec.Rope.Dimension];
        _rows = Own(DType.I32, t, 1);
        _sequence = Own(DType.I32, t, 1);
        _position = Own(DType.I32, t, 1);
        _storeRow = Own(DType.I32, t, 1);
        _steerSlot = Own(DType.I32, t, 1);
        _captureSlot = Own(DType.I32, t, 1);
        _productSlot = Own(DType.I32, t, 1);
        _steerScale = Own(DType.F32, t, 1);
        _pages = Own(DType.I32, capacity.MaxSequences, capacity.MaxPages);
        _rotary = Own(DType.F32, t, spec.Rope.Dimension);
        _localRotary = _localRope is null ? _rotary : Own(DType.F32, t, spec.Rope.Dimension);
        _sampleRow = Own(DType.I32, r, 1);
        _span = spec.SeesAhead ? Own(DType.I32, 2 * t, 1) : default;
        _spanHost = spec.SeesAhead ? new int[2 * t] : [];
        _x = Own(type, t, spec.HiddenSize);
        _h = Own(type, t, spec.HiddenSize);
        _delta = Own(type, t, spec.HiddenSize);
        var heads = HeadDivision.Of(device, spec);
        _qkv = Own(type, t, heads.Qkv);
        _attended = Own(type, t, heads.Queries);
        _gated = Own(type, t, decoder.Inner);
        _scores = spec.Mixture is { } mixture ? Own(type, t, mixture.Experts) : default;
        _taken = Own(type, r, spec.HiddenSize);
        _logits = Own(type, r, spec.VocabularySize);
        if (device.Draws)
        {
            _drawNumbers = Own(DType.F32, r, DrawMap.NumberColumns);
            _drawSettings = Own(DType.I32, r, DrawMap.SettingColumns);
            _drawn = Own(DType.I32, r, 1);
            _drawEdits = device.Allocate(DType.I32, capacity.DrawEdits.Length / DrawMap.EditColumns, DrawMap.EditColumns);
        }
        Products = Own(DType.F32, capacity.MaxSequences, 2 * spec.Layers);
        Captures = Own(DType.F32, Math.Max(1, maxCaptures) * spec.Layers, spec.HiddenSize);
    }

    /// <summary>Tokens whose states can be captured in one step.</summary>
    public int MaxCaptures { get; }

    /// <summary>F32 [captures · L, D]: the states captured in the last step.</summary>
    public Tensor Captures { get; }

    /// <summary>F32 [observed, 2 · L]: h · v before and after the edit, in the last step; at most one token of each sequence.</summary>
    public Tensor Products { get; }

    internal int Tokens { get; private set; }
    internal int Samples { get; private set; }
    internal TokenMap Map { get; private set; }

    internal Tensor Rows => Vector(_rows, Tokens);
    internal Tensor SteerSlot => Vector(_steerSlot, Tokens);
    internal Tensor SteerScale => Vector(_steerScale, Tokens);
    internal Tensor CaptureSlot => Vector(_captureSlot, Tokens);
    internal Tensor ProductSlot => Vector(_productSlot, Tokens);
    internal Tensor SampleRow => Vector(_sampleRow, Samples);
    internal Tensor Rotary => _rotary.Slice(0, Tokens);
    internal Tensor LocalRotary => _localRotary.Slice(0, Tokens);
    internal Tensor X => _x.Slice(0, Tokens);
    internal Tensor H => _h.Slice(0, Tokens);
    internal Tensor Delta => _delta.Slice(0, Tokens);
    internal Tensor Qkv => _qkv.Slice(0, Tokens);
    internal Tensor Attended => _attended.Slice(0, Tokens);
    internal Tensor Gated => _gated.Slice(0, Tokens);
    internal Tensor Scores => _scores.Slice(0, Tokens);
    internal Tensor Taken => _taken.Slice(0, Samples);

    /// <summary>[R, V]: the logits of the rows that the batch asked for.</summary>
    public Tensor Logits => _logits.Slice(0, Samples);

    /// <summary>I32 [1, R]: the tokens that the device drew, or −1.</summary>
    internal Tensor Drawn => Vector(_drawn, Samples);

    internal DrawMap Draws => new(_drawNumbers.Slice(0, Samples), _drawSettings.Slice(0, Samples), _drawEdits);

    /// <summary>Copies a batch to the device: the step's only transfers towards it.</summary>
    internal void Upload(Batch batch)
    {
        (Tokens, Samples) = (batch.Tokens, batch.Samples);
        var t = Tokens;
        _device.Upload(batch.Rows.AsSpan(0, t), Vector(_rows, t));
        _device.Upload(batch.Sequence.AsSpan(0, t), Vector(_sequence, t));
        _device.Upload(batch.Position.AsSpan(0, t), Vector(_position, t));
        _device.Upload(batch.StoreRow.AsSpan(0, t), Vector(_storeRow, t));
        _device.Upload(batch.SteerSlot.AsSpan(0, t), Vector(_steerSlot, t));
        _device.Upload(batch.CaptureSlot.AsSpan(0, t), Vector(_captureSlot, t));
        _device.Upload(batch.ProductSlot.AsSpan(0, t), Vector(_productSlot, t));
        _device.Upload(batch.SteerScale.AsSpan(0, t), Vector(_steerScale, t));
        _device.Upload(batch.Pages.AsSpan(0, batch.Sequences * batch.MaxPages), _pages.Slice(0, batch.Sequences));
        if (Samples > 0)
            _device.Upload(batch.SampleRow.AsSpan(0, Samples), Vector(_sampleRow, Samples));
        if (batch.Draws > 0)
            UploadDraws(batch);
        Rotate(batch, _rope, Rotary);
        if (_localRope is not null)
            Rotate(batch, _localRope, LocalRotary);
        Map = new(Vector(_sequence, t), Vector(_position, t), Vector(_storeRow, t), _pages, Spans(batch));
    }

    private void UploadDraws(Batch batch)
    {
        if (batch.EditRows > _drawEdits.Rows)
        {
            _drawEdits.Storage!.Dispose();
            _drawEdits = _device.Allocate(DType.I32, batch.DrawEdits.Length / DrawMap.EditColumns, DrawMap.EditColumns);
        }
        _device.Upload(batch.DrawNumbers.AsSpan(0, Samples * DrawMap.NumberColumns), _drawNumbers.Slice(0, Samples));
        _device.Upload(batch.DrawSettings.AsSpan(0, Samples * DrawMap.SettingColumns), _drawSettings.Slice(0, Samples));
        if (batch.EditRows > 0)
            _device.Upload(batch.DrawEdits.AsSpan(0, batch.EditRows * DrawMap.EditColumns), _drawEdits.Slice(0, batch.EditRows));
    }

    private void Rotate(Batch batch, Rope rope, Tensor rotary)
    {
        var width = rotary.Columns;
        for (var i = 0; i < rotary.Rows; i++)
        {
            var row = _rotaryHost.AsSpan(i * width, width);
            if (rope.HasSections)
                rope.Fill(batch.RotaryPosition[i], row);
            else
                rope.Fill(batch.Position[i], batch.RotaryLength[i], row);
        }
        _device.Upload(_rotaryHost.AsSpan(0, rotary.Rows * width), rotary);
    }

    private Tensor Spans(Batch batch)
    {
        if (_span.IsNone)
            return default;
        var t = batch.Tokens;
        batch.SpanFirst.AsSpan(0, t).CopyTo(_spanHost);
        batch.SpanLast.AsSpan(0, t).CopyTo(_spanHost.AsSpan(t));
        var span = _span.Slice(0, 2 * t).Reshape(2, t);
        _device.Upload(_spanHost.AsSpan(0, 2 * t), span);
        return span;
    }

    private static Tensor Vector(Tensor column, int count) => column.Slice(0, count).Reshape(1, count);

    private Tensor Own(DType type, int rows, int columns) => Own(type, rows, Division.Whole(columns));

    private Tensor Own(DType type, int rows, Division columns)
    {
        var tensor = _device.Allocate(type, rows, columns);
        _owned.Add(tensor);
        return tensor;
    }

    /// <summary>Frees the tensors.</summary>
    public void Dispose()
    {
        foreach (var tensor in _owned)
            tensor.Storage!.Dispose();
        _drawEdits.Storage?.Dispose();
    }
}
