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

    /// <summary>
    /// Hot kernels: dynamic shared memory of their launches for a 7B model, and the least blocks a multiprocessor by design on sm_80,
    /// sm_89 and sm_90a. A kernel that keeps registers in memory, or of which too few warps fit, waits where it should stream.
    /// </summary>
    private static readonly (string File, DType? Form, string Kernel, int Dynamic, int[] Blocks)[] Hot =
    [
        ("linear.cu", DType.BF16, "linear_1", 0, [4, 4, 4]), ("linear.cu", DType.BF16, "linear_gated_1", 0, [5, 5, 5]), ("linear.cu", DType.BF16, "linear_8", 0, [4, 4, 4]),
        ("linear.cu", DType.Q4_K, "linear_1", 0, [4, 4, 4]), ("linear.cu", DType.Q4_K, "linear_gated_1", 0, [3, 3, 3]),
        ("linear.cu", DType.I4G128, "linear_1", 0, [4, 5, 5]), ("linear.cu", DType.I4G128, "linear_gated_1", 0, [3, 3, 3]),
        ("linear_mma.cu", DType.BF16, "linear_mma_32", 3 * 160 * 128, [2, 1, 3]), ("linear_mma.cu", DType.BF16, "linear_mma_64", 3 * 192 * 128, [2, 1, 3]),
        ("linear_mma.cu", DType.BF16, "linear_mma_128", 3 * 256 * 128, [1, 1, 2]), ("linear_mma.cu", DType.BF16, "linear_mma_gated_128", 3 * 256 * 128, [1, 1, 2]),
        ("norm.cu", null, "norm_rows", 4 * 4096, [6, 4, 6]), ("attend.cu", null, "attend_split", 0, [4, 4, 4]), ("attend.cu", null, "attend_merge", 0, [6, 6, 6]), ("rope.cu", null, "rope_store", 4 * 128, [12, 12, 12]),
    ];

    [Test]
    public void Hot_kernels_spill_nothing_and_fit_as_often_as_designed([ValueSource(nameof(Architectures))] string architecture)
    {
        foreach (var (file, form, name, dynamic, blocks) in Hot)
        {
            var kernel = Compiled(architecture, file, form is { } f ? $"FORM={CudaForms.Number(f)}" : null).Kernels.Single(k => k.Kernel == name);
            var fit = kernel.Blocks(architecture, dynamic);
            TestContext.Out.WriteLine($"{architecture} {kernel} {form}: {fit} blocks");
            var spilled = architecture == "sm_80" && name == "attend_split" ? 8 : 0; // two registers that the compiler gives up for another block
            Assert.That(kernel.Frame, Is.LessThanOrEqualTo(spilled), $"{name} for {architecture}: registers or arrays that lie in memory");
            Assert.That(fit, Is.GreaterThanOrEqualTo(blocks[Array.IndexOf(Architectures, architecture)]), $"{name} {form} for {architecture}: {kernel}");
        }
    }

    /// <summary>docs/cuda-kernels.tsv is what the compiler says; TRIMTAB_WRITE_KERNELS=1 writes it anew.</summary>
    [Test]
    public void The_table_of_registers_is_the_compilers()
    {
        var text = new StringBuilder($"# NVRTC {Version()}; bfloat16 activations. frame: bytes a thread in memory; shared: without what launches ask for.\narchitecture\tfile\tform\tkernel\tthreads\tregisters\tframe\tshared\n");
        foreach (var architecture in Architectures)
            foreach (var file in Files.Where(f => f != "linear_tile.cu"))
                foreach (var form in Forms(file, architecture))
                    foreach (var k in Compiled(architecture, file, form).Kernels)
                        text.Append($"{architecture}\t{file}\t{(form is null ? "" : CudaForms.All[int.Parse(form[5..], System.Globalization.CultureInfo.InvariantCulture)])}\t{k.Kernel}\t{k.Threads}\t{k.Registers}\t{k.Frame}\t{k.Shared}\n");
        var path = Path.Combine(ReadmeTests.Root, "docs", "cuda-kernels.tsv");
        if (Writes)
            File.WriteAllText(path, text.ToString());
        var kept = File.ReadAllText(path);
        if (kept.Split(';')[0] != text.ToString().Split(';')[0])
            Assert.Ignore($"the table is of another compiler: {kept.Split(';')[0]}");
        Assert.That(text.ToString().Split('\n').Except(kept.Split('\n')), Is.Empty, "TRIMTAB_WRITE_KERNELS=1 writes the table anew");
        Assert.That(kept, Is.EqualTo(text.ToString()));
    }

    /// <summary>
    /// The machine code of decoding: the loop over a row's chunks begins four loads of 128 bits of weights and four of activations before it
    /// multiplies the first, and turns no integers into floats. Of int4 weights, the next chunk's load is begun before this one's are multiplied.
    /// </summary>
    [Test]
    public void Decoding_loads_128_bits_at_a_time([ValueSource(nameof(Architectures))] string architecture)
    {
        const ulong Load = 0x981, MultiplyAdd = 0x023, IntegerToFloat = 0x306, FloatToFloat = 0x304;
        int UnderWay(DType form)
        {
            var (most, run) = (0, 0);
            foreach (var (low, high) in Compiled(architecture, "linear.cu", $"FORM={CudaForms.Number(form)}").Instructions("linear_1"))
            {
                run = (low & 0x1ff) == MultiplyAdd ? 0 : (low & 0xfff) == Load && (high >> 9 & 7) == 6 ? run + 1 : run;
                most = Math.Max(most, run);
            }
            return most;
        }
        Assert.That(UnderWay(DType.BF16), Is.GreaterThanOrEqualTo(8));
        Assert.That(UnderWay(DType.Q4_K), Is.GreaterThanOrEqualTo(8)); // before the loop the first one's elements and header; in it the next one's, and four of activations
        if (architecture == "sm_80")
            Assert.That(UnderWay(DType.I4G128), Is.GreaterThanOrEqualTo(6));
        List<(ulong Low, ulong High)> code = [.. Compiled(architecture, "linear.cu", $"FORM={CudaForms.Number(DType.BF16)}").Instructions("linear_1")];
        var wide = code.Count(i => (i.Low & 0xfff) == Load && (i.High >> 9 & 7) == 6);
        Assert.That(wide, Is.GreaterThanOrEqualTo(8 + 2 + 2)); // with the loop's rest, and the rows that are not read 128 bits at a time
        // Weights are loaded as what nobody writes; activations, which the kernel before writes, are not.
        Assert.That(code.Count(i => (i.Low & 0xfff) == Load && (i.High >> 9 & 7) == 6 && (i.High >> 15 & 1) != 0), Is.InRange(wide / 2, wide / 2 + 1));
        Assert.That(code.Count(i => (i.Low & 0xfff) is IntegerToFloat or FloatToFloat), Is.Zero);
    }

    /// <summary>
    /// The machine code for compute capability 9.0: every kernel lets the next one start and waits for the one before it, once, before any of it
    /// reads or writes device memory or ends; and what goes past the coherence of memory (.nc) is the weights, which are in nobody's output.
    /// For older GPUs there is neither.
    /// </summary>
    [Test]
    public void Nothing_touches_memory_before_the_wait([ValueSource(nameof(Files))] string file)
    {
        // LDG, LD, LDGSTS; STG, ST; ATOMG, RED, ATOM; EXIT.
        const ulong Launch = 0x82d, Wait = 0x82e, Load = 0x981;
        ulong[] memory = [Load, 0x980, 0xfae, 0x986, 0x985, 0x9a8, 0x3a9, 0x98e, 0x38a, 0x38b, 0x94d];
        foreach (var architecture in Architectures)
            foreach (var form in file == "linear_tile.cu" ? [] : Forms(file, architecture))
            {
                var cubin = Compiled(architecture, file, form);
                foreach (var name in cubin.Kernels.Select(k => k.Kernel))
                {
                    List<(ulong Low, ulong High)> code = [.. cubin.Instructions(name)];
                    List<ulong> opcodes = code.ConvertAll(i => i.Low & 0xfff);
                    var expected = architecture == "sm_90a" ? 1 : 0;
                    Assert.That((opcodes.Count(o => o == Launch), opcodes.Count(o => o == Wait)), Is.EqualTo((expected, expected)), $"{name} {form} for {architecture}");
                    if (expected > 0)
                        Assert.That(opcodes[..opcodes.IndexOf(Wait)].Intersect(memory), Is.Empty, $"{name} {form}");
                    if (form is null)
                        Assert.That(code.Count(i => (i.Low & 0xfff) == Load && (i.High >> 15 & 1) != 0), Is.Zero, $"{name} for {architecture}: loads that need not see what other kernels write");
                }
            }
    }

    /// <summary>Kernels/Cuda/Ptx.br is what this compiler makes of the sources; TRIMTAB_WRITE_KERNELS=1 writes it anew.</summary>
    [Test]
    public void What_was_compiled_ahead_is_of_these_sources()
    {
        (string Key, byte[] Ptx) One((string File, string[] Defines) wanted)
        {
            var text = CudaSources.Text(wanted.File);
            return (CudaPtx.Key(text, wanted.Defines), CudaPtx.Portable(Build(CudaPtx.Architecture, wanted.File, text, wanted.Defines, "nvrtcGetPTX")));
        }
        if (Writes)
        {
            using var file = File.Create(Path.Combine(ReadmeTests.Root, "Kernels", "Cuda", "Ptx.br"));
            CudaPtx.Write(file, CudaPtx.Wanted.Select(One));
            return; // it is in the assembly from the next build on
        }
        var small = One(CudaPtx.Wanted.Single(w => w.File == "norm.cu"));
        Assert.That(CudaPtx.Find(CudaSources.Text("norm.cu"), ["ACT_BF16"]), Is.Not.Null);
        if (Version() == "12.4")
            Assert.That(CudaPtx.Find(CudaSources.Text("norm.cu"), ["ACT_BF16"]), Is.EqualTo(small.Ptx));
    }

    private static bool Writes => Environment.GetEnvironmentVariable("TRIMTAB_WRITE_KERNELS") is { Length: > 0 };

    private static string Version()
    {
        int major, minor;
        ((delegate* unmanaged<int*, int*, int>)NativeLibrary.GetExport(library, "nvrtcVersion"))(&major, &minor);
        return $"{major}.{minor}";
    }

    private static Cubin Compiled(string architecture, string file, string? form)
        => new(Compile(architecture, file, CudaSources.Text(file) + ParametersTests.Assertions(file), form is null ? ["ACT_BF16"] : [form, "ACT_BF16"]));

    private static byte[] Compile(string architecture, string file, string source, string[] defines)
    {
        var key = $"{architecture} {file} {string.Join(' ', defines)}";
        return Images.TryGetValue(key, out var image) ? image : Images[key] = Build(architecture, file, source, defines);
    }

    private static byte[] Build(string architecture, string file, string source, string[] defines, string result = "nvrtcGetCUBIN")
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
            int failed;
            fixed (nint* p = options)
                failed = compile(program, options.Length, (byte**)p);
            var log = Encoding.UTF8.GetString(Read(program, "nvrtcGetProgramLog")).TrimEnd('\0');
            Assert.That(failed, Is.Zero, $"{file} {string.Join(' ', defines)} for {architecture}:\n{log}");
            Assert.That(log, Does.Not.Contain("warning"), file);
            return Read(program, result);
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
}
