using System.Runtime.CompilerServices;
using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>Numbers for what position keys name: images by content, edits by vectors, layers and alpha. A number is never given twice.</summary>
internal sealed class Identities
{
    private const int Most = 1 << 16; // beyond it numbers begin anew: what was kept under old ones is found no more

    private readonly Dictionary<ContentHash, long> _images = [];
    private readonly Dictionary<(long Vectors, float Alpha, LayerSet? Layers), long> _edits = [];
    private readonly ConditionalWeakTable<ShiftVectors, StrongBox<long>> _vectors = [];
    private long _next;

    /// <summary>The number of an image's content.</summary>
    public long Of(ContentHash image)
    {
        if (_images.TryGetValue(image, out var number))
            return number;
        if (_images.Count >= Most)
            _images.Clear();
        return _images[image] = ++_next;
    }

    /// <summary>The number of an edit, 0 for one that changes nothing.</summary>
    public long Of(SteeringOptions? steering)
    {
        if (steering is null || steering.Alpha == 0)
            return 0;
        if (!_vectors.TryGetValue(steering.Vectors, out var vectors))
            _vectors.Add(steering.Vectors, vectors = new(++_next));
        var edit = (vectors.Value, steering.Alpha, steering.Layers);
        if (_edits.TryGetValue(edit, out var number))
            return number;
        if (_edits.Count >= Most)
            _edits.Clear();
        return _edits[edit] = ++_next;
    }
}
