using Trimtab.Kernels;

namespace Trimtab.Engine;

/// <summary>Rows of projected image features on the device, lent to sequences from their admission to the end of their prefill.</summary>
internal sealed class FeatureStore(Device device, int rows, int width) : IDisposable
{
    private readonly List<(int Start, int Count)> _free = [(0, rows)]; // ascending, never adjacent
    private Tensor _features;

    /// <summary>[rows, D], or none before the first image.</summary>
    public Tensor Features => _features;

    /// <summary>Takes consecutive rows.</summary>
    /// <returns>The first row, or −1 when no gap is large enough now.</returns>
    public int Take(int count)
    {
        if (_features.IsNone)
            _features = device.Allocate(device.ActivationType, rows, width);
        var at = _free.FindIndex(f => f.Count >= count);
        if (at < 0)
            return -1;
        var (start, length) = _free[at];
        if (length == count)
            _free.RemoveAt(at);
        else
            _free[at] = (start + count, length - count);
        return start;
    }

    /// <summary>Gives rows back.</summary>
    public void Return(int start, int count)
    {
        if (count == 0)
            return;
        var at = _free.FindIndex(f => f.Start > start);
        if (at < 0)
            at = _free.Count;
        _free.Insert(at, (start, count));
        Join(at);
        Join(at - 1);
    }

    private void Join(int at)
    {
        if (at < 0 || at + 1 >= _free.Count || _free[at].Start + _free[at].Count != _free[at + 1].Start)
            return;
        _free[at] = (_free[at].Start, _free[at].Count + _free[at + 1].Count);
        _free.RemoveAt(at + 1);
    }

    public void Dispose() => _features.Storage?.Dispose();
}
