using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

/// <summary>
/// NVIDIA's own compiler takes every kernel, for every generation of GPU that they are for. Needs NVRTC (no GPU): TRIMTAB_NVRTC names its
/// file, or the loader finds it; the tests are skipped where it is not.
/// </summary>
public sealed unsafe class NvrtcTests
{
    private static readonly string[] Architectures = ["sm_80", "sm_89", "sm_90a"];
    private static readonly Dictionary<string, byte[]> Images = [];
    private static nint library;

    [OneTimeSetUp]
    public void Load()
    {
        if (library != 0)
            return;
        string[] names = EmulatedCuda.NamedNvrtc is { Length: > 0 } named ? [named] : ["libnvrtc.so.13", "libnvrtc.so.12", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
        foreach (var name in names)
        {
            // It loads this one by name, from wherever the loader looks: not from its own folder.
            if (Path.GetDirectoryName(name) is { Length: > 0 } folder)
                foreach (var builtins in Directory.GetFiles(folder, "libnvrtc-builtins.so.*"))
                    NativeLibrary.TryLoad(builtins, out _);
            if (NativeLibrary.TryLoad(name, out library))
                return;
        }
        Assert.Ignore($"no NVRTC here (tried {string.Join(", ", names)}); TRIMTAB_NVRTC names its file");
    }

    private static string[] Files => [.. CudaSources.Files];

    /// <summary>The forms a file is compiled for here: all for the oldest target, one plain and one of blocks for the others, whose front end is the same.</summary>
    private static IEnumerable<string?> Forms(string file, string architecture)
    {
        if (!CudaSources.HasForms(file))
            return [null];
        DType[] forms = architecture == "sm_80" ? CudaForms.All.ToArray() : [DType.BF16, DType.Q4_K];
        return forms.Select(form => $"FORM={CudaForms.Number(form)}");
    }

    [Test]
    public void Every_kernel_compiles_with_the_hosts_parameters([ValueSource(nameof(Architectures))] string architecture, [ValueSource(nameof(Files))] string file)
    {
        foreach (var form in Forms(file, architecture))
            foreach (var activations in file switch { "linear_mma.cu" or "attend_mma.cu" => ["ACT_BF16"], "linear_tile.cu" => [""], _ => new[] { "ACT_BF16", "" } })
            {
                // Float activations differ in a conversion: once is enough, and half the time.
                if (activations.Length == 0 && (architecture != "sm_80" || form is not (null or "FORM=0")))
                    continue;
                string[] defines = [.. new[] { form, activations }.Where(d => d is { Length: > 0 })!];
                Assert.That(Compile(architecture, file, CudaSources.Text(file) + ParametersTests.Assertions(file), defines), Is.Not.Empty);
            }
    }

    /// <summary>A kernel that keeps registers in memory, or that needs so many that too few warps fit, waits where it should stream.</summary>
    [TestCase("linear.cu", DType.BF16, "linear_1", 32), TestCase("linear.cu", DType.BF16, "linear_gated_1", 40), TestCase("linear.cu", DType.BF16, "linear_16", 64)]
    [TestCase("linear.cu", DType.Q4_K, "linear_1", 64), TestCase("linear_mma.cu", DType.BF16, "linear_mma_plain", 128), TestCase("linear_mma.cu", DType.BF16, "linear_mma_gated", 128)]
    [TestCase("norm.cu", null, "norm_rows", 40), TestCase("attend.cu", null, "attend_split", 64), TestCase("attend.cu", null, "attend_merge", 40), TestCase("rope.cu", null, "rope_store", 40)]
    public void Hot_kernels_keep_to_their_registers(string file, DType? form, string kernel, int most)
    {
        string[] defines = form is { } f ? [$"FORM={CudaForms.Number(f)}", "ACT_BF16"] : ["ACT_BF16"];
        var (registers, frame) = Resources(Compile("sm_90a", file, CudaSources.Text(file) + ParametersTests.Assertions(file), defines), kernel);
        TestContext.Out.WriteLine($"{kernel} {form}: {registers} registers, a frame of {frame} bytes");
        Assert.That(frame, Is.Zero, "registers or arrays that lie in memory");
        Assert.That(registers, Is.InRange(1, most));
    }

    private static byte[] Compile(string architecture, string file, string source, string[] defines)
    {
        var key = $"{architecture} {file} {string.Join(' ', defines)}";
        return Images.TryGetValue(key, out var image) ? image : Images[key] = Build(architecture, file, source, defines);
    }

    private static byte[] Build(string architecture, string file, string source, string[] defines)
    {
        var create = (delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int>)NativeLibrary.GetExport(library, "nvrtcCreateProgram");
        var compile = (delegate* unmanaged<nint, int, byte**, int>)NativeLibrary.GetExport(library, "nvrtcCompileProgram");
        var destroy = (delegate* unmanaged<nint*, int>)NativeLibrary.GetExport(library, "nvrtcDestroyProgram");
        nint program;
        fixed (byte* text = Encoding.UTF8.GetBytes(source + '\0'), name = Encoding.UTF8.GetBytes(file + '\0'))
            Assert.That(create(&program, text, name, 0, null, null), Is.Zero);
        var options = Array.ConvertAll(CudaCompiler.Options(architecture, defines), Marshal.StringToCoTaskMemUTF8);
        try
        {
            int result;
            fixed (nint* p = options)
                result = compile(program, options.Length, (byte**)p);
            var log = Encoding.UTF8.GetString(Read(program, "nvrtcGetProgramLog")).TrimEnd('\0');
            Assert.That(result, Is.Zero, $"{file} {string.Join(' ', defines)} for {architecture}:\n{log}");
            Assert.That(log, Does.Not.Contain("warning"), file);
            return Read(program, "nvrtcGetCUBIN");
        }
        finally
        {
            foreach (var option in options)
                Marshal.FreeCoTaskMem(option);
            destroy(&program);
        }
    }

    private static byte[] Read(nint program, string what)
    {
        var length = (delegate* unmanaged<nint, nuint*, int>)NativeLibrary.GetExport(library, what + "Size");
        var read = (delegate* unmanaged<nint, byte*, int>)NativeLibrary.GetExport(library, what);
        nuint size;
        Assert.That(length(program, &size), Is.Zero);
        var bytes = new byte[size];
        fixed (byte* p = bytes)
            Assert.That(read(program, p), Is.Zero);
        return bytes;
    }

    /// <summary>Registers and frame bytes of a kernel, from the .nv.info section of its ELF file: entries of format, attribute, size, and words.</summary>
    private static (int Registers, int Frame) Resources(byte[] cubin, string kernel)
    {
        long Long(long at) => BinaryPrimitives.ReadInt64LittleEndian(cubin.AsSpan((int)at));
        int Int(long at) => BinaryPrimitives.ReadInt32LittleEndian(cubin.AsSpan((int)at));
        int Short(long at) => BinaryPrimitives.ReadUInt16LittleEndian(cubin.AsSpan((int)at));
        string Text(long at) => Encoding.ASCII.GetString(cubin.AsSpan((int)at, Array.IndexOf(cubin, (byte)0, (int)at) - (int)at));
        long headers = Long(0x28), entry = Short(0x3A), count = Short(0x3C), names = Long(headers + Short(0x3E) * entry + 0x18);
        long Section(string name)
        {
            for (var i = 0; i < count; i++)
                if (Text(names + Int(headers + i * entry)) == name)
                    return headers + i * entry;
            throw new InvalidDataException($"the compiled kernel has no {name}");
        }
        long symbols = Long(Section(".symtab") + 0x18), strings = Long(Section(".strtab") + 0x18);
        long info = Section(".nv.info"), begin = Long(info + 0x18), end = begin + Long(info + 0x20);
        var (registers, frame) = (-1, -1);
        for (var at = begin; at < end;)
        {
            var (format, attribute, size) = (cubin[at], cubin[at + 1], Short(at + 2));
            if (format == 4 && size == 8 && Text(strings + Int(symbols + 24L * Int(at + 4))) == kernel)
            {
                if (attribute == 0x2f)
                    registers = Int(at + 8);
                else if (attribute == 0x11)
                    frame = Int(at + 8);
            }
            at += format == 4 ? 4 + size : 4;
        }
        return (registers, frame);
    }
}
