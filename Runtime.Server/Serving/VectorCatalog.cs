using System.Collections.Immutable;
using System.Numerics.Tensors;
using Trimtab.Checkpoints;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>Vectors under the name that requests use.</summary>
/// <param name="Name">Name.</param>
/// <param name="Vectors">The vectors, which fit the model.</param>
/// <param name="Path">The file that a reload reads again, or null for uploaded ones.</param>
/// <param name="Added">When they came under this name.</param>
internal sealed record NamedVectors(string Name, ShiftVectors Vectors, string? Path, DateTimeOffset Added);

/// <summary>
/// The vector sets of a running server. A change puts a new dictionary in place of the old one at once; an answer that has begun holds
/// the vectors themselves, so it ends with what it began with.
/// </summary>
internal sealed class VectorCatalog(int layers, int hiddenSize, string fingerprint)
{
    private readonly Lock _changes = new();
    private ImmutableSortedDictionary<string, NamedVectors> _sets = ImmutableSortedDictionary.Create<string, NamedVectors>(StringComparer.Ordinal);

    /// <summary>The sets of this moment.</summary>
    public ImmutableSortedDictionary<string, NamedVectors> Sets => Volatile.Read(ref _sets);

    /// <summary>The set of a name, or null.</summary>
    public NamedVectors? Find(string name) => Sets.GetValueOrDefault(name);

    /// <summary>Reads a vector file and refuses what could not steer this model.</summary>
    /// <exception cref="InvalidCheckpointException">It does not fit, holds NaN or infinity, or steers nothing.</exception>
    public NamedVectors Read(string name, string path, bool reloadable = true)
    {
        CheckName(name);
        var vectors = ShiftVectors.Open(path);
        vectors.Check(layers, hiddenSize, fingerprint);
        if (!Steers(vectors, null))
            throw new InvalidCheckpointException($"{path}: all of its vectors are zero, so it steers nothing");
        return new(name, vectors, reloadable ? System.IO.Path.GetFullPath(path) : null, DateTimeOffset.UtcNow);
    }

    /// <summary>Adds sets, in place of those of the same names.</summary>
    public void Put(params IReadOnlyCollection<NamedVectors> sets)
    {
        lock (_changes)
            Volatile.Write(ref _sets, Sets.SetItems(sets.Select(set => KeyValuePair.Create(set.Name, set))));
    }

    /// <summary>Takes a set out.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Remove(string name)
    {
        lock (_changes)
        {
            var there = Sets.ContainsKey(name);
            Volatile.Write(ref _sets, Sets.Remove(name));
            return there;
        }
    }

    /// <summary>Reads every set's file again.</summary>
    /// <exception cref="InvalidCheckpointException">One of the files is not usable.</exception>
    public IReadOnlyCollection<NamedVectors> ReadAgain() => [.. Sets.Values.Where(set => set.Path is not null).Select(set => Read(set.Name, set.Path!))];

    /// <summary>Refuses what cannot be a name.</summary>
    public static void CheckName(string name)
    {
        if (name.Length is 0 or > 64 || !name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.'))
            throw new ArgumentException($"'{name}' is no name for vectors; expected at most 64 letters, digits, '-', '_' and '.'");
    }

    /// <summary>The vectors' mean length over these layers, or over all that they have.</summary>
    public static float Norm(ShiftVectors vectors, LayerSet? layers)
    {
        var over = layers?.Layers.Where(layer => layer <= vectors.Layers) ?? Enumerable.Range(1, vectors.Layers).Where(layer => !vectors[layer].IsEmpty);
        return over.Select(layer => vectors[layer].IsEmpty ? 0 : TensorPrimitives.Norm(vectors[layer])).DefaultIfEmpty(0).Average();
    }

    /// <summary>Whether vectors change anything in some of these layers.</summary>
    public static bool Steers(ShiftVectors vectors, LayerSet? layers)
    {
        for (var layer = 1; layer <= vectors.Layers; layer++)
        {
            if ((layers?.Contains(layer) ?? true) && vectors[layer].ContainsAnyExcept(0))
                return true;
        }
        return false;
    }
}
