using System.Text;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

/// <summary>PTX compiled ahead, for machines without NVRTC.</summary>
public class AheadTests
{
    /// <summary>Needs no compiler: a source that was changed has another key. docs/cuda.md says how the file is written anew.</summary>
    [Test]
    public void Every_kernel_was_compiled_ahead_as_it_is_now()
        => Assert.That(CudaPtx.Wanted.Select(w => CudaPtx.Key(CudaSources.Text(w.File), w.Defines)), Is.EquivalentTo(CudaPtx.Keys),
            "Kernels/Cuda/Ptx.br is of other sources: TRIMTAB_WRITE_KERNELS=1 with NVRTC writes it anew (docs/cuda.md)");

    [Test]
    public void Without_a_compiler_a_kernel_is_had_as_ptx_that_names_it()
    {
        var compiler = new CudaCompiler(CudaPtx.Architecture, null, ahead: true);
        var ptx = compiler.Compile("norm.cu", CudaSources.Text("norm.cu"), "ACT_BF16");
        Assert.That(ptx[^1], Is.Zero); // the driver takes it for a text
        Assert.That(Encoding.UTF8.GetString(ptx), Does.Contain(".target sm_80").And.Contain(".version 7.8").And.Contain(".entry norm_rows"));
        Assert.That(compiler.Compiled, Is.Zero);
        Assert.That(() => compiler.Compile("norm.cu", CudaSources.Text("norm.cu")),
            Throws.TypeOf<CudaException>().With.Message.Contains("was not compiled ahead").And.Message.Contains("no NVRTC was found"));
    }

    [Test]
    public void What_is_written_is_read_and_hints_of_later_versions_are_left_out()
    {
        var ptx = CudaPtx.Portable("//\n// Generated\n.version 8.4\n.target sm_80\n\t.pragma \"used_bytes_mask 15\";\n\tret;\n\0"u8);
        Assert.That(Encoding.UTF8.GetString(ptx), Is.EqualTo(".version 7.8\n.target sm_80\n\tret;\n\0"));
        using var file = new MemoryStream();
        CudaPtx.Write(file, [("a", ptx), ("b", []), ("c", [10, 10])]);
        file.Position = 0;
        var read = CudaPtx.Read(file);
        Assert.That(read.Keys, Is.EqualTo(new[] { "a", "b", "c" }));
        Assert.That(read["a"], Is.EqualTo(ptx));
        Assert.That(read["c"], Is.EqualTo(new byte[] { 10, 10 }));
    }
}
