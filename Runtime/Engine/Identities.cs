using System.Runtime.CompilerServices;
using Trimtab.Steering;

namespace Trimtab.Engine;

/// <summary>Numbers for what position keys name: groups, images by content, edits by vectors, layers and alpha. A number is never given twice.</summary>
internal sealed class Identities
{
    private const int Most = 1 << 16; // beyond it numbers begin anew: what was kept under old ones is found no more

    private readonly Dictionary<string, long> _groups = [];
    private readonly Dictionary<(ContentHash Image, long Group), long> _images = [];
    private readonly Dictionary<(long Vectors, float Alpha, LayerSet? Layers), long> _edits = [];
    private readonly ConditionalWeakTable<ShiftVectors, StrongBox<long>> _vectors = [];
    private long _next;

    /// <summary>The number of a group, 0 for none.</summary>
    public long Of(string? group) => group is null ? 0 : Of(_groups, group);

    /// <summary>The number of an image's content within a group.</summary>
    public long Of(ContentHash image, long group) => Of(_images, (image, group));

    /// <summary>The number of an edit, 0 for one that changes nothing.</summary>
    public long Of(SteeringOptions? steering)
    {
        if (steering is null || steering.Alpha == 0)
            return 0;
        if (!_vectors.TryGetValue(steering.Vectors, out var vectors))
            _vectors.Add(steering.Vectors, vectors = new(++_next));
        return Of(_edits, (vectors.Value, steering.Alpha, steering.Layers));
    }

    private long Of<T>(Dictionary<T, long> numbers, T what) where T : notnull
    {
        if (numbers.TryGetValue(what, out var number))
            return number;
        if (numbers.Count >= Most)
            numbers.Clear();
        return numbers[what] = ++_next;
    }
}
