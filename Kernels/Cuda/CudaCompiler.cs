using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Trimtab.Kernels.Cuda;

/// <summary>
/// Compiles kernels for a GPU by NVRTC, and keeps what came out in a folder: keyed by all that goes into it, written beside and renamed
/// into place, its own hash before it, so that a torn or foreign file is compiled again and never loaded.
/// </summary>
/// <param name="architecture">The target, such as "sm_80"; a "compute_" one gives PTX, which the driver translates.</param>
/// <param name="folder">Where results are kept; null to keep none.</param>
/// <param name="ahead">Whether there is no NVRTC, and only what was compiled ahead can be had (<see cref="CudaPtx"/>).</param>
internal sealed unsafe class CudaCompiler(string architecture, string? folder, bool ahead = false)
{
    private const string Magic = "trimtab-kernel-1";

    /// <summary>The target.</summary>
    public string Architecture => architecture;

    /// <summary>The target's compute capability, as 10 · major + minor.</summary>
    public int Capability { get; } = int.Parse(architecture.AsSpan(architecture.IndexOf('_', StringComparison.Ordinal) + 1).TrimEnd('a'), CultureInfo.InvariantCulture);

    /// <summary>Programs that were compiled and not found in the folder.</summary>
    public int Compiled { get; private set; }

    /// <summary>The folder that holds compiled kernels unless another is named.</summary>
    public static string DefaultFolder => Environment.GetEnvironmentVariable("TRIMTAB_CUDA_CACHE") is { Length: > 0 } named
        ? named
        : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData), "trimtab", "kernels");

    /// <summary>The target for a GPU: its own machine code where NVRTC knows it, else PTX of the newest that NVRTC knows.</summary>
    public static string Target(int major, int minor, ReadOnlySpan<int> known)
    {
        var own = 10 * major + minor;
        var newest = 0;
        foreach (var k in known)
            newest = k <= own ? Math.Max(newest, k) : newest;
        // "a" is what Hopper's own matrix instructions are behind; only exactly that GPU runs it.
        return newest == own ? own == 90 ? "sm_90a" : $"sm_{own}" : $"compute_{newest}";
    }

    /// <summary>A compiler for a GPU: NVRTC, or what was compiled ahead where there is none.</summary>
    public static CudaCompiler For(int major, int minor, string? folder)
    {
        int[] known;
        try
        {
            known = Known();
        }
        catch (DllNotFoundException)
        {
            return new(CudaPtx.Architecture, null, ahead: true);
        }
        return new(Target(major, minor, known), folder);
    }

    /// <summary>Architectures that the loaded NVRTC compiles for, as 10 · major + minor.</summary>
    public static int[] Known()
    {
        CudaException.ThrowNvrtc(Nvrtc.nvrtcGetNumSupportedArchs(out var count), "nvrtcGetNumSupportedArchs");
        var known = new int[count];
        fixed (int* p = known)
            CudaException.ThrowNvrtc(Nvrtc.nvrtcGetSupportedArchs(p), "nvrtcGetSupportedArchs");
        return known;
    }

    /// <summary>The options of every compilation: sums are fused only where a kernel says so, on every target alike.</summary>
    public static string[] Options(string architecture, IEnumerable<string> defines) =>
        [$"--gpu-architecture={architecture}", "--std=c++17", "--fmad=false", "--device-as-default-execution-space", .. architecture == CudaPtx.Architecture ? (string[])[] : ["-lineinfo"], .. defines.Select(d => "-D" + d)];

    /// <summary>Machine code or PTX of a source.</summary>
    /// <exception cref="CudaException">It does not compile; the message is the compiler's.</exception>
    public byte[] Compile(string name, string source, params string[] defines)
    {
        if (ahead)
            return CudaPtx.Find(source, defines) ?? throw new CudaException($"{name} with {string.Join(", ", defines)} was not compiled ahead, and {CudaLibraries.Missing(Nvrtc.Library)}");
        CudaException.ThrowNvrtc(Nvrtc.nvrtcVersion(out var major, out var minor), "nvrtcVersion");
        var options = Options(architecture, defines);
        var key = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{Magic}\n{major}.{minor}\n{string.Join('\n', options)}\n{source}")));
        var path = folder is null ? null : Path.Combine(folder, $"{Path.GetFileNameWithoutExtension(name)}-{key[..32]}.bin");
        if (path is not null && Read(path, key) is { } kept)
            return kept;
        var image = Build(name, source, options);
        Compiled++;
        if (path is not null)
            Write(path, key, image);
        return image;
    }

    private byte[] Build(string name, string source, string[] options)
    {
        CudaException.ThrowNvrtc(Nvrtc.nvrtcCreateProgram(out var program, source, name, 0, null, null), $"{name}: nvrtcCreateProgram");
        var texts = Array.ConvertAll(options, static o => Marshal.StringToCoTaskMemUTF8(o));
        try
        {
            int result;
            fixed (nint* p = texts)
                result = Nvrtc.nvrtcCompileProgram(program, texts.Length, (byte**)p);
            if (result != 0)
                throw new CudaException($"{name} does not compile for {architecture}:\n{Log(program)}");
            nuint size;
            if (architecture.StartsWith("compute_", StringComparison.Ordinal))
            {
                CudaException.ThrowNvrtc(Nvrtc.nvrtcGetPTXSize(program, out size), "nvrtcGetPTXSize");
                var ptx = new byte[size]; // its end is a zero, which the driver wants
                fixed (byte* p = ptx)
                    CudaException.ThrowNvrtc(Nvrtc.nvrtcGetPTX(program, p), "nvrtcGetPTX");
                return ptx;
            }
            CudaException.ThrowNvrtc(Nvrtc.nvrtcGetCUBINSize(program, out size), "nvrtcGetCUBINSize");
            var cubin = new byte[size];
            fixed (byte* p = cubin)
                CudaException.ThrowNvrtc(Nvrtc.nvrtcGetCUBIN(program, p), "nvrtcGetCUBIN");
            return cubin;
        }
        finally
        {
            foreach (var text in texts)
                Marshal.FreeCoTaskMem(text);
            _ = Nvrtc.nvrtcDestroyProgram(ref program);
        }
    }

    private static string Log(nint program)
    {
        if (Nvrtc.nvrtcGetProgramLogSize(program, out var size) != 0 || size <= 1)
            return "(the compiler says nothing)";
        var log = new byte[size];
        fixed (byte* p = log)
            if (Nvrtc.nvrtcGetProgramLog(program, p) != 0)
                return "(the compiler's log cannot be read)";
        return Encoding.UTF8.GetString(log).TrimEnd('\0', '\n');
    }

    /// <summary>A kept result, or null where there is none or it is not whole.</summary>
    private static byte[]? Read(string path, string key)
    {
        byte[] file;
        try
        {
            file = File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
        var head = Head(key);
        if (file.Length < head.Length + 32 + 8 || !file.AsSpan(0, head.Length).SequenceEqual(head))
            return null;
        var image = file.AsSpan(head.Length + 40);
        return BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(head.Length)) == image.Length
            && SHA256.HashData(image).AsSpan().SequenceEqual(file.AsSpan(head.Length + 8, 32)) ? image.ToArray() : null;
    }

    private static void Write(string path, string key, byte[] image)
    {
        var head = Head(key);
        var file = new byte[head.Length + 40 + image.Length];
        head.CopyTo(file, 0);
        BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(head.Length), image.Length);
        SHA256.HashData(image, file.AsSpan(head.Length + 8));
        image.CopyTo(file, head.Length + 40);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            var beside = $"{path}.{Environment.ProcessId}.{Guid.NewGuid():N}";
            File.WriteAllBytes(beside, file);
            File.Move(beside, path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A folder that cannot be written costs the next start a compilation, nothing else.
        }
    }

    private static byte[] Head(string key) => Encoding.ASCII.GetBytes($"{Magic} {key}\n");
}
