namespace Trimtab.Model;

/// <summary>
/// A GGUF file's metadata, read key by key with type and range checked; a key that is absent takes the default, or is an
/// error where there is none. Errors carry the file and the key.
/// </summary>
internal readonly struct GgufSection(IReadOnlyDictionary<string, object> metadata, string file)
{
    /// <summary>The file, for errors about its tensors.</summary>
    public string File => file;

    public bool Has(string key) => metadata.ContainsKey(key);

    /// <summary>A string.</summary>
    public string Text(string key, string? otherwise = null) => metadata.TryGetValue(key, out var value)
        ? value as string ?? throw Invalid(key, "a string")
        : otherwise ?? throw Invalid(key, "a string");

    /// <summary>A boolean.</summary>
    public bool Flag(string key, bool otherwise) => !metadata.TryGetValue(key, out var value)
        ? otherwise
        : value as bool? ?? throw Invalid(key, "true or false");

    /// <summary>A whole number of a range.</summary>
    public int Size(string key, int? otherwise = null, int most = ConfigSection.MaxSize, int least = 1)
    {
        if (!metadata.TryGetValue(key, out var value))
            return otherwise ?? throw Invalid(key, $"a whole number from {least} to {most}");
        return Real(value) is { } n && n == Math.Floor(n) && n >= least && n <= most
            ? (int)n : throw Invalid(key, $"a whole number from {least} to {most}");
    }

    /// <summary>A whole number that a file may give once for each layer: supported where all layers have the same.</summary>
    public int UniformSize(string key, int? otherwise = null)
    {
        if (!metadata.TryGetValue(key, out var value) || value is string || value is not System.Collections.IList list)
            return Size(key, otherwise);
        if (list.Count == 0 || list.Count > ConfigSection.MaxLayers)
            throw Invalid(key, "one number, or one a layer");
        foreach (var item in list)
            if (!Equals(item, list[0]))
                throw Unsupported(key, "the same number in all layers");
        return Real(list[0]!) is { } n && n == Math.Floor(n) && n >= 1 && n <= ConfigSection.MaxSize
            ? (int)n : throw Invalid(key, $"whole numbers from 1 to {ConfigSection.MaxSize}");
    }

    /// <summary>A finite number of a range.</summary>
    public double Number(string key, double least, double most, double? otherwise = null)
    {
        if (!metadata.TryGetValue(key, out var value))
            return otherwise ?? throw Invalid(key, $"a number from {least} to {most}");
        return Real(value) is { } n && n >= least && n <= most ? n : throw Invalid(key, $"a number from {least} to {most}");
    }

    /// <summary>A list of a known number of finite numbers.</summary>
    public float[] Numbers(string key, int count, double least, double most)
    {
        if (!metadata.TryGetValue(key,
            out var value) || value is string || value is not System.Collections.IList list || list.Count != count)
            throw Invalid(key, $"{count} numbers");
        var numbers = new float[count];
        for (var i = 0; i < count; i++)
            numbers[i] = Real(list[i]!) is { } n && n >= least && n <= most ? (float)n : throw Invalid(key,
                $"numbers from {least} to {most}");
        return numbers;
    }

    /// <summary>A list of any kind, or null.</summary>
    public System.Collections.IList? List(string key) => !metadata.TryGetValue(key, out var value) ? null
        : value is not string and System.Collections.IList list ? list : throw Invalid(key, "a list");

    /// <summary>Refuses keys that would change the computation, unless they are at a value that does nothing.</summary>
    public void RefuseUnlessNeutral(string prefix, ReadOnlySpan<(string Key, double Neutral)> options)
    {
        foreach (var (key, neutral) in options)
            if (metadata.TryGetValue(prefix + key, out var value) && value is not false && !(Real(value) == neutral))
                throw Unsupported(prefix + key, double.IsNaN(neutral) ? "models without it" : $"{neutral}");
    }

    public UnsupportedModelException Unsupported(string key, string supported) =>
        new($"{file}: {key}: {Shown(key)} is not supported; supported: {supported}");

    public InvalidConfigException Invalid(string key, string expected) => new($"{file}: {key}: {Shown(key)}; expected {expected}");

    private static double? Real(object value) => value switch
    {
        byte n => n,
        sbyte n => n,
        ushort n => n,
        short n => n,
        uint n => n,
        int n => n,
        ulong n => n,
        long n => n,
        float n when float.IsFinite(n) => n,
        double n when double.IsFinite(n) => n,
        _ => null,
    };

    private string Shown(string key)
    {
        if (!metadata.TryGetValue(key, out var value))
            return "absent";
        var shown = value is string text ? $"\"{text}\"" : value is System.Collections.IList list
            ? "[" + string.Join(", ", list.Cast<object>().Take(8)) + (list.Count > 8 ? ", …]" : "]") : $"{value}";
        shown = shown.ReplaceLineEndings(" ");
        return shown.Length <= 100 ? shown : shown[..100] + " …";
    }
}
