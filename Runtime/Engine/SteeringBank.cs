using Trimtab.Kernels;
using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>
/// The steering vectors that running sequences use, on the device: slot s holds rows [s · L, (s + 1) · L). A layer that
/// is not steered is a row of zeros, so a layer set is a slot of its own and the kernel knows no sets.
/// </summary>
internal sealed class SteeringBank(Device device, int layers, int width) : IDisposable
{
    private readonly List<Slot> _slots = [];

    private sealed class Slot(ShiftVectors vectors, LayerSet? layers)
    {
        public ShiftVectors Vectors { get; set; } = vectors;
        public LayerSet? Layers { get; set; } = layers;
        public int Users { get; set; }
    }

    /// <summary>F32 [capacity · L, D], or none before the first use.</summary>
    public Tensor Vectors { get; private set; }

    /// <summary>The slot of these vectors and layers; uploads them where no slot has them yet.</summary>
    public int Acquire(SteeringOptions steering)
    {
        var index = _slots.FindIndex(s => ReferenceEquals(s.Vectors, steering.Vectors) && Equals(s.Layers, steering.Layers));
        if (index < 0)
        {
            index = _slots.FindIndex(s => s.Users == 0);
            if (index >= 0)
            {
                (_slots[index].Vectors, _slots[index].Layers) = (steering.Vectors, steering.Layers);
            }
            else
            {
                index = _slots.Count;
                _slots.Add(new(steering.Vectors, steering.Layers));
                Reserve();
            }
            Upload(index);
        }
        _slots[index].Users++;
        return index;
    }

    /// <summary>Ends one use of a slot; its vectors stay until another needs the place.</summary>
    public void Release(int slot) => _slots[slot].Users--;

    private void Reserve()
    {
        if (!Vectors.IsNone && _slots.Count * layers <= Vectors.Rows)
            return;
        Vectors.Storage?.Dispose();
        var capacity = Math.Max(4, _slots.Count * 2);
        Vectors = device.Allocate(DType.F32, capacity * layers, width);
        for (var slot = 0; slot < _slots.Count - 1; slot++)
            Upload(slot);
    }

    private void Upload(int slot)
    {
        var rows = new float[layers * width];
        for (var layer = 1; layer <= layers; layer++)
        {
            if (_slots[slot].Layers?.Contains(layer) ?? true)
                _slots[slot].Vectors[layer].CopyTo(rows.AsSpan((layer - 1) * width, width));
        }
        device.Upload(rows, Vectors.Slice(slot * layers, layers));
    }

    public void Dispose() => Vectors.Storage?.Dispose();
}
