using System.Text;

namespace Trimtab.Kernels.Cuda;

/// <summary>The kernels' text, embedded in the assembly; includes are put in place, so that the compiler needs no folder.</summary>
internal static class CudaSources
{
    private const string Prefix = "Trimtab.Kernels.Cuda.Source.";

    /// <summary>The kernel files.</summary>
    public static IEnumerable<string> Files => typeof(CudaSources).Assembly.GetManifestResourceNames()
        .Where(name => name.StartsWith(Prefix, StringComparison.Ordinal) && name.EndsWith(".cu", StringComparison.Ordinal))
        .Select(name => name[Prefix.Length..]).Order(StringComparer.Ordinal);

    /// <summary>A kernel file with what it includes.</summary>
    public static string Text(string file)
    {
        var text = new StringBuilder();
        Append(text, file, []);
        return text.ToString();
    }

    /// <summary>Whether a file is compiled once for every storage form of weights.</summary>
    public static bool HasForms(string file) => Read(file).Contains("#include \"forms.cuh\"", StringComparison.Ordinal);

    private static void Append(StringBuilder text, string file, HashSet<string> seen)
    {
        if (!seen.Add(file))
            return;
        text.Append("#line 1 \"").Append(file).Append("\"\n");
        var number = 0;
        foreach (var line in Read(file).Split('\n'))
        {
            number++;
            if (line.StartsWith("#include \"", StringComparison.Ordinal))
            {
                Append(text, line.Split('"')[1], seen);
                text.Append("#line ").Append(number + 1).Append(" \"").Append(file).Append("\"\n");
            }
            else
            {
                text.Append(line).Append('\n');
            }
        }
    }

    private static string Read(string file)
    {
        using var stream = typeof(CudaSources).Assembly.GetManifestResourceStream(Prefix + file)
            ?? throw new FileNotFoundException($"there is no kernel source {file} in the assembly");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().ReplaceLineEndings("\n");
    }
}
