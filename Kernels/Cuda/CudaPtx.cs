using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// The kernels with bfloat16 activations as PTX for compute capability 8.0, compiled ahead: what runs where there is no NVRTC; the driver
/// translates it for any later GPU. One compressed file in the assembly, whose programs are keyed by their text and options, so that
/// PTX of another text is never taken for it. A test compares the keys with the sources and writes the file anew (docs/cuda.md).
/// </summary>
internal static class CudaPtx
{
    /// <summary>What it is for: the oldest that the kernels run on.</summary>
    public const string Architecture = "compute_80";

    private const string Resource = "Trimtab.Kernels.Cuda.Ptx.br";

    private static readonly Lazy<Dictionary<string, byte[]>> Programs = new(() =>
    {
        using var stream = typeof(CudaPtx).Assembly.GetManifestResourceStream(Resource);
        return stream is null ? [] : Read(stream);
    });

    /// <summary>The programs that belong in it: file and macros.</summary>
    public static IEnumerable<(string File, string[] Defines)> Wanted =>
        from file in CudaSources.Files
        where file != "linear_tile.cu" // of float activations alone
        from form in CudaSources.HasForms(file) ? CudaForms.All.ToArray().Select(f => $"FORM={CudaForms.Number(f)}") : [""]
        select (file, (string[])["ACT_BF16", .. form.Length > 0 ? (string[])[form] : []]);

    /// <summary>Keys of the programs that are there.</summary>
    public static IReadOnlyCollection<string> Keys => Programs.Value.Keys;

    /// <summary>What a program's PTX is found by: all that decides it but the compiler's version.</summary>
    public static string Key(string source, string[] defines) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{string.Join('\n', CudaCompiler.Options(Architecture, defines))}\n{source}")))[..32];

    /// <summary>A program's PTX with the zero that the driver wants at its end, or null where it was not compiled ahead.</summary>
    public static byte[]? Find(string source, string[] defines) => Programs.Value.GetValueOrDefault(Key(source, defines));

    /// <summary>
    /// The text for drivers from CUDA 11.8 on: without the line table, and without a hint that needs a later version of the language.
    /// </summary>
    public static byte[] Portable(ReadOnlySpan<byte> ptx)
    {
        var lines = Encoding.UTF8.GetString(ptx.TrimEnd((byte)0)).Split('\n')
            .Where(line => !line.StartsWith("//", StringComparison.Ordinal) && !line.Contains(".pragma \"used_bytes_mask", StringComparison.Ordinal))
            .Select(line => line.StartsWith(".version ", StringComparison.Ordinal) ? ".version 7.8" : line);
        return Encoding.UTF8.GetBytes(string.Join('\n', lines).Trim('\n') + "\n\0");
    }

    /// <summary>Writes the file: a line of key and length before each program, all of it compressed together, since the forms differ in little.</summary>
    public static void Write(Stream target, IEnumerable<(string Key, byte[] Ptx)> programs)
    {
        using var brotli = new BrotliStream(target, new BrotliCompressionOptions { Quality = 11 }, leaveOpen: true);
        foreach (var (key, ptx) in programs)
        {
            brotli.Write(Encoding.ASCII.GetBytes($"{key} {ptx.Length}\n"));
            brotli.Write(ptx);
        }
    }

    /// <summary>Reads it.</summary>
    public static Dictionary<string, byte[]> Read(Stream source)
    {
        using var brotli = new BrotliStream(source, CompressionMode.Decompress);
        using var whole = new MemoryStream();
        brotli.CopyTo(whole);
        var bytes = whole.GetBuffer().AsSpan(0, (int)whole.Length);
        var programs = new Dictionary<string, byte[]>();
        while (!bytes.IsEmpty)
        {
            var end = bytes.IndexOf((byte)'\n');
            var head = Encoding.ASCII.GetString(bytes[..end]).Split(' ');
            var length = int.Parse(head[1], System.Globalization.CultureInfo.InvariantCulture);
            programs.Add(head[0], bytes.Slice(end + 1, length).ToArray());
            bytes = bytes[(end + 1 + length)..];
        }
        return programs;
    }
}
