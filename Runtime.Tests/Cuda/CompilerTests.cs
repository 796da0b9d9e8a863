using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

/// <summary>Kernels are compiled once, kept on disk, and compiled again where what was kept is not whole.</summary>
public class CompilerTests
{
    private const string Source = "struct P { int* p; };\n#include_next_is_not_used\n";
    private string _folder = null!;

    [SetUp]
    public void Make()
    {
        EmulatedCuda.Require();
        _folder = Directory.CreateTempSubdirectory("trimtab-compiler-").FullName;
    }

    [TearDown]
    public void Delete()
    {
        if (_folder is not null)
            Directory.Delete(_folder, true);
    }

    private static string Kernel(int number) => CudaSources.Text("rows.cu") + $"\n// {number}\n";

    [Test]
    public void What_was_compiled_is_kept_by_source_options_and_target()
    {
        var first = new CudaCompiler("sm_80", _folder);
        var image = first.Compile("rows.cu", Kernel(1));
        Assert.That((first.Compiled, Directory.GetFiles(_folder).Length), Is.EqualTo((1, 1)));
        var second = new CudaCompiler("sm_80", _folder);
        Assert.That(second.Compile("rows.cu", Kernel(1)), Is.EqualTo(image));
        Assert.That(second.Compiled, Is.Zero);
        second.Compile("rows.cu", Kernel(2));
        second.Compile("rows.cu", Kernel(1), "ACT_BF16");
        new CudaCompiler("sm_89", _folder).Compile("rows.cu", Kernel(1));
        Assert.That((second.Compiled, Directory.GetFiles(_folder).Length), Is.EqualTo((2, 4)));
    }

    [Test]
    public void A_file_that_is_torn_altered_or_anothers_is_compiled_again([Values("torn", "altered", "another's", "empty")] string how)
    {
        var image = new CudaCompiler("sm_80", _folder).Compile("rows.cu", Kernel(1));
        var file = Directory.GetFiles(_folder).Single();
        var bytes = File.ReadAllBytes(file);
        switch (how)
        {
            case "torn":
                File.WriteAllBytes(file, bytes[..^1]);
                break;
            case "altered":
                bytes[^100] ^= 1;
                File.WriteAllBytes(file, bytes);
                break;
            case "another's":
                bytes[20] ^= 1; // in the key
                File.WriteAllBytes(file, bytes);
                break;
            default:
                File.WriteAllBytes(file, []);
                break;
        }
        var again = new CudaCompiler("sm_80", _folder);
        Assert.That(again.Compile("rows.cu", Kernel(1)), Has.Length.EqualTo(image.Length));
        Assert.That(again.Compiled, Is.EqualTo(1));
        var kept = new CudaCompiler("sm_80", _folder);
        kept.Compile("rows.cu", Kernel(1));
        Assert.That(kept.Compiled, Is.Zero);
    }

    [Test]
    public void A_folder_that_cannot_be_written_costs_a_compilation_only()
    {
        var file = Path.Combine(_folder, "file");
        File.WriteAllText(file, "");
        var compiler = new CudaCompiler("sm_80", Path.Combine(file, "below"));
        Assert.That(compiler.Compile("rows.cu", Kernel(1)), Is.Not.Empty);
    }

    [Test]
    public void What_does_not_compile_says_why()
    {
        Assert.That(() => new CudaCompiler("sm_80", _folder).Compile("broken.cu", Source),
            Throws.TypeOf<CudaException>().With.Message.StartsWith("broken.cu does not compile for sm_80").And.Message.Contains("include_next_is_not_used"));
        Assert.That(Directory.GetFiles(_folder), Is.Empty);
    }

    [TestCase(8, 0, "sm_80"), TestCase(8, 9, "sm_89"), TestCase(9, 0, "sm_90a"), TestCase(12, 0, "compute_90"), TestCase(8, 7, "compute_86")]
    public void The_target_is_the_gpus_own_where_the_compiler_knows_it(int major, int minor, string expected)
        => Assert.That(CudaCompiler.Target(major, minor, [50, 80, 86, 89, 90]), Is.EqualTo(expected));
}
