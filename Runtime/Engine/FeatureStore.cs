using Trimtab.Kernels;

namespace Trimtab.Engine;

/// <summary>
/// Projected image features on the device, found by their image's content. Sequences hold those that they still read; the others stay until their
/// rows are needed, longest unused first. Not thread-safe: the engine's own.
/// </summary>
/// <param name="device">The device.</param>
/// <param name="rows">Rows there are.</param>
/// <param name="width">D: columns of a row.</param>
/// <param name="levels">Tensors of the same rows: the features, and those that are added after the decoder's first layers.</param>
internal sealed class FeatureStore(Device device, int rows, int width, int levels = 1) : IDisposable
{
    private readonly List<(int Start, int Count)> _free = [(0, rows)]; // ascending, never adjacent
    private readonly Dictionary<long, Entry> _entries = [];
    private readonly LinkedList<long> _idle = new(); // longest unused first
    private Tensor _features;

    private sealed class Entry
    {
        public int Start, Count, Users;
        public LinkedListNode<long>? Idle;
    }

    /// <summary>[levels · rows, D], or none before the first image.</summary>
    public Tensor Features => _features;

    /// <summary>Some rows of a level.</summary>
    public Tensor Rows(int level, int first, int count) => _features.Slice(level * rows + first, count);

    /// <summary>Rows that no sequence holds.</summary>
    public int FreeRows => rows - _entries.Values.Where(entry => entry.Users > 0).Sum(entry => entry.Count);

    /// <summary>Holds an image's features if they are here.</summary>
    /// <returns>The first row, or −1.</returns>
    public int Hold(long image)
    {
        if (!_entries.TryGetValue(image, out var entry))
            return -1;
        if (entry.Users++ == 0)
        {
            _idle.Remove(entry.Idle!);
            entry.Idle = null;
        }
        return entry.Start;
    }

    /// <summary>Takes consecutive rows for images that are not here yet, and holds each once.</summary>
    /// <returns>The first row, or −1 when no gap is large enough now.</returns>
    public int Take(IReadOnlyList<(long Image, int Rows)> images)
    {
        if (_features.IsNone)
            _features = device.Allocate(device.ActivationType, checked(levels * rows), width);
        var count = images.Sum(image => image.Rows);
        int at;
        while ((at = _free.FindIndex(f => f.Count >= count)) < 0)
        {
            if (_idle.First is not { } oldest)
                return -1;
            Forget(oldest.Value);
        }
        var (start, length) = _free[at];
        if (length == count)
            _free.RemoveAt(at);
        else
            _free[at] = (start + count, length - count);
        var row = start;
        foreach (var (image, n) in images)
        {
            _entries.Add(image, new() { Start = row, Count = n, Users = 1 });
            row += n;
        }
        return start;
    }

    /// <summary>Ends one use.</summary>
    public void Return(long image)
    {
        var entry = _entries[image];
        if (--entry.Users == 0)
            entry.Idle = _idle.AddLast(image);
    }

    /// <summary>Gives up everything, held or not.</summary>
    public void Clear()
    {
        _entries.Clear();
        _idle.Clear();
        _free.Clear();
        _free.Add((0, rows));
    }

    /// <summary>Gives up an image's rows, which no sequence holds.</summary>
    private void Forget(long image)
    {
        _entries.Remove(image, out var entry);
        if (entry!.Idle is not null)
            _idle.Remove(entry.Idle);
        var at = _free.FindIndex(f => f.Start > entry.Start);
        if (at < 0)
            at = _free.Count;
        _free.Insert(at, (entry.Start, entry.Count));
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
