using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>
/// A GGUF file, version 2 or 3 (github.com/ggml-org/ggml, docs/gguf.md), or the parts of a split one, opened by the first. Metadata
/// values are the .NET types of the same width, <see cref="string"/>, <see cref="bool"/>, or arrays of these (<c>object[]</c> of
/// arrays where arrays are nested). Invalid UTF-8 in a string value becomes U+FFFD; in a key or a name it is refused.
/// </summary>
public sealed class GgufCheckpoint : Checkpoint
{
    private GgufCheckpoint(
        string path, IReadOnlyList<DataFile> files, IReadOnlyDictionary<string, TensorInfo> tensors, IReadOnlyDictionary<string, string> unread,
        IReadOnlyDictionary<string, object> metadata, uint version) : base(path, files, tensors, unread) => (Metadata, Version) = (metadata, version);

    /// <summary>All metadata, of the first part where the file is split.</summary>
    public IReadOnlyDictionary<string, object> Metadata { get; }

    /// <summary>Format version, 2 or 3.</summary>
    public uint Version { get; }

    /// <summary>A string.</summary>
    /// <param name="key">Metadata key.</param>
    /// <param name="fallback">What a missing key means; null: a missing key is an error.</param>
    /// <exception cref="InvalidCheckpointException">The key is missing without fallback, or its value is no string.</exception>
    public string GetString(string key, string? fallback = null) => Get(key, fallback, "a string") as string ?? throw Wrong(key, "a string");

    /// <summary>A whole number from 0 to 2^32-1, stored in any integer type.</summary>
    /// <inheritdoc cref="GetString"/>
    public uint GetUInt(string key, uint? fallback = null)
    {
        const string expected = "a whole number from 0 to 2^32-1";
        return Integer(Get(key, fallback, expected)) is { } value && value >= 0 && value <= uint.MaxValue ? (uint)value : throw Wrong(key, expected);
    }

    /// <summary>A number, stored as float32, float64 or an integer type.</summary>
    /// <inheritdoc cref="GetString"/>
    public float GetFloat(string key, float? fallback = null) => Get(key, fallback, "a number") switch
    {
        float value => value,
        double value => (float)value,
        var other => Integer(other) is { } value ? (float)value : throw Wrong(key, "a number"),
    };

    /// <summary>A truth value.</summary>
    /// <inheritdoc cref="GetString"/>
    public bool GetBool(string key, bool? fallback = null) => Get(key, fallback, "a truth value") as bool? ?? throw Wrong(key, "a truth value");

    /// <summary>
    /// An array of <typeparamref name="T"/>: string, bool, a number, or object for nested arrays. Numbers are converted where every
    /// one keeps its value (int8 … uint64 to each other, integers and float64 to floating point, rounded).
    /// </summary>
    /// <exception cref="InvalidCheckpointException">The key is missing, or its value is no such array.</exception>
    public T[] GetArray<T>(string key) where T : notnull
    {
        var expected = $"an array of {typeof(T).Name}";
        var value = Get(key, null, expected) as Array ?? throw Wrong(key, expected);
        // The runtime lets uint[] pass for int[]: only the exact type is cast.
        if (value.GetType() == typeof(T[]))
            return (T[])value;
        if (value.Length == 0)
            return [];
        try
        {
            var target = Type.GetTypeCode(typeof(T));
            var source = Type.GetTypeCode(value.GetType().GetElementType());
            var integers = source is >= TypeCode.SByte and <= TypeCode.UInt64;
            var convertible = target is TypeCode.Single or TypeCode.Double
                ? source is >= TypeCode.SByte and <= TypeCode.Double
                : target is >= TypeCode.SByte and <= TypeCode.UInt64 && integers;
            if (convertible)
            {
                var result = new T[value.Length];
                for (var i = 0; i < result.Length; i++)
                    result[i] = (T)Convert.ChangeType(value.GetValue(i)!, target, System.Globalization.CultureInfo.InvariantCulture);
                return result;
            }
        }
        catch (OverflowException)
        {
            // a value does not fit: the same error as a wrong type
        }
        throw Wrong(key, expected);
    }

    /// <summary>Takes over the file, and opens its other parts.</summary>
    internal static GgufCheckpoint Open(DataFile first)
    {
        var header = GgufHeader.Read(first);
        var parts = header.Metadata.TryGetValue("split.count", out var value) ? Integer(value) : 1;
        if (parts is null || parts < 0 || parts > 99_999)
            throw new InvalidCheckpointException($"{first.Path}: split.count is {value}; expected 0 to 99999");
        if (parts < 2)
            return new(first.Path, [first], header.Tensors, header.Unread, header.Metadata, header.Version);

        if (CheckpointFolder.Split(first.Path) is not var (prefix, part, named) || named != parts)
            throw new InvalidCheckpointException(
                $"{first.Path}: is one of {parts} parts; expected a name ending in -00001-of-{parts:D5}.gguf");
        var paths = Enumerable.Range(1, named).Select(number => $"{prefix}-{number:D5}-of-{named:D5}.gguf").ToList();
        if (part != 1)
            throw new InvalidCheckpointException($"{first.Path}: is part {part} of {named}; open the first, {System.IO.Path.GetFileName(paths[0])}");
        if (paths.Where(path => !File.Exists(path)).Select(path => System.IO.Path.GetFileName(path)).ToList() is { Count: > 0 } missing)
            throw new InvalidCheckpointException($"{first.Path}: {missing.Count} of its {named} parts are missing: {List(missing)}");

        var files = new List<DataFile> { first };
        try
        {
            CheckNumber(first, header, 0, named);
            var tensors = new Dictionary<string, TensorInfo>(header.Tensors, StringComparer.Ordinal);
            var unread = new Dictionary<string, string>(header.Unread, StringComparer.Ordinal);
            for (var i = 1; i < named; i++)
            {
                files.Add(DataFile.Open(paths[i]));
                var next = GgufHeader.Read(files[i]);
                CheckNumber(files[i], next, i, named);
                foreach (var (name, info) in next.Tensors)
                    Once(name, !unread.ContainsKey(name) && tensors.TryAdd(name, info));
                foreach (var (name, type) in next.Unread)
                    Once(name, !tensors.ContainsKey(name) && unread.TryAdd(name, type));
            }
            if (header.Metadata.TryGetValue("split.tensors.count", out var total) && Integer(total) != tensors.Count + unread.Count)
                throw new InvalidCheckpointException(
                    $"{first.Path}: split.tensors.count is {total}, but the parts hold {tensors.Count + unread.Count} tensors");
            return new(first.Path, files, tensors, unread, header.Metadata, header.Version);
        }
        catch
        {
            files.ForEach(file => file.Dispose());
            throw;
        }

        void Once(string name, bool added)
        {
            if (!added)
                throw new InvalidCheckpointException(
                    $"{files[^1].Path}: has the tensor {Quote(name)}, which an earlier part has too");
        }
    }

    private static void CheckNumber(DataFile file, GgufHeader header, int number, int parts)
    {
        var (no, count) = (header.Metadata.GetValueOrDefault("split.no"), header.Metadata.GetValueOrDefault("split.count"));
        if (Integer(no) != number || Integer(count) != parts)
            throw new InvalidCheckpointException(
                $"{file.Path}: split.no {no ?? "missing"} of split.count {count ?? "missing"}; expected {number} of {parts}");
    }

    private object Get(string key, object? fallback, string expected) => Metadata.GetValueOrDefault(key) ?? fallback
        ?? throw new InvalidCheckpointException($"{Path}: has no metadata {Quote(key)}; expected {expected}");

    private InvalidCheckpointException Wrong(string key, string expected)
    {
        var found = Metadata[key] is Array array
            ? $"{array.Length} × {array.GetType().GetElementType()!.Name}"
            : $"{Quote($"{Metadata[key]}")} ({Metadata[key].GetType().Name})";
        return new($"{Path}: metadata {Quote(key)} is {found}; expected {expected}");
    }

    private static Int128? Integer(object? value) => value switch
    {
        byte number => number,
        sbyte number => number,
        ushort number => number,
        short number => number,
        uint number => number,
        int number => number,
        ulong number => number,
        long number => number,
        _ => null,
    };
}
