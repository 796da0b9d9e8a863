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
    private readonly Dictionary<Key, int> _byKey = [];
    private readonly Queue<int> _unused = new(); // longest first; one that came into use again is passed over
    private readonly float[] _rows = new float[layers * width];

    /// <summary>Vectors by identity, layers by value.</summary>
    private readonly record struct Key(ShiftVectors Vectors, LayerSet? Layers)
    {
        public bool Equals(Key other) => ReferenceEquals(Vectors, other.Vectors) && Equals(Layers, other.Layers);

        public override int GetHashCode() => HashCode.Combine(System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(Vectors), Layers);
    }

    private sealed class Slot(Key key)
    {
        public Key Key { get; set; } = key;
        public int Users { get; set; }
        public bool Queued { get; set; }
    }

    /// <summary>F32 [capacity · L, D], or none before the first use.</summary>
    public Tensor Vectors { get; private set; }

    /// <summary>Uses of all slots.</summary>
    public int Uses => _slots.Sum(slot => slot.Users);

    /// <summary>The slot of these vectors and layers; uploads them where no slot has them yet.</summary>
    public int Acquire(SteeringOptions steering)
    {
        var key = new Key(steering.Vectors, steering.Layers);
        if (!_byKey.TryGetValue(key, out var index))
        {
            index = Unused();
            if (index >= 0)
            {
                _byKey.Remove(_slots[index].Key);
                _slots[index].Key = key;
            }
            else
            {
                index = _slots.Count;
                _slots.Add(new(key));
                Reserve();
            }
            _byKey.Add(key, index);
            Upload(index);
        }
        _slots[index].Users++;
        return index;
    }

    /// <summary>Ends one use of a slot; its vectors stay until another needs the place.</summary>
    public void Release(int slot)
    {
        if (--_slots[slot].Users > 0 || _slots[slot].Queued)
            return;
        _slots[slot].Queued = true;
        _unused.Enqueue(slot);
    }

    private int Unused()
    {
        while (_unused.TryDequeue(out var slot))
        {
            _slots[slot].Queued = false;
            if (_slots[slot].Users == 0)
                return slot;
        }
        return -1;
    }

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
        var (vectors, set) = (_slots[slot].Key.Vectors, _slots[slot].Key.Layers);
        for (var layer = 1; layer <= layers; layer++)
        {
            var row = _rows.AsSpan((layer - 1) * width, width);
            row.Clear();
            if (set?.Contains(layer) ?? true)
                vectors[layer].CopyTo(row); // none where the vectors have none
        }
        device.Upload(_rows, Vectors.Slice(slot * layers, layers));
    }

    public void Dispose() => Vectors.Storage?.Dispose();
}
