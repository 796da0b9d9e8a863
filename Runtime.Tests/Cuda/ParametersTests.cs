using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using Trimtab.Kernels.Cuda;

namespace Trimtab.Tests.Cuda;

/// <summary>Parameter structs are the same on both sides: the kernels' compiler compares sizes and offsets.</summary>
public class ParametersTests
{
    private static readonly (string File, Type Type)[] Structs =
    [
        ("linear.cu", typeof(LinearParameters)), ("linear_expand.cu", typeof(ExpandParameters)), ("norm.cu", typeof(NormParameters)), ("embed.cu", typeof(EmbedParameters)),
        ("rows.cu", typeof(TakeParameters)), ("rows.cu", typeof(BlendParameters)), ("rows.cu", typeof(CapParameters)),
        ("experts.cu", typeof(ExpertsParameters)), ("draw.cu", typeof(DrawParameters)), ("linear.cu", typeof(Tile)), ("linear.cu", typeof(ExpertRows)), ("rows.cu", typeof(PatchParameters)), ("rows.cu", typeof(GateParameters)),
        ("rope.cu", typeof(RopeParameters)), ("rope.cu", typeof(Trimtab.Kernels.Cuda.Cache)), ("rope.cu", typeof(Status)), ("attend.cu", typeof(AttendParameters)),
    ];

    [Test]
    public void Sizes_and_offsets_are_the_kernels([ValueSource(nameof(Structs))] (string File, Type Type) one)
    {
        EmulatedCuda.Require();
        var source = CudaSources.Text(one.File) + Assertions(one.Type, 0);
        var compiler = new CudaCompiler(EmulatedCuda.Architecture, Path.Combine(EmulatedCuda.Folder, "kernels"));
        Assert.That(compiler.Compile(one.File, source, "FORM=0"), Is.Not.Empty);
    }

    [Test]
    public void A_field_that_moved_is_found()
    {
        EmulatedCuda.Require();
        var compiler = new CudaCompiler(EmulatedCuda.Architecture, null);
        Assert.That(() => compiler.Compile("rows.cu", CudaSources.Text("rows.cu") + Assertions(typeof(GateParameters), 4)),
            Throws.TypeOf<CudaException>().With.Message.Contains("GateParameters.sums"));
    }

    [Test]
    public void Every_parameter_struct_is_compared()
    {
        var named = typeof(CudaDevice).Assembly.GetTypes().Where(t => t.Namespace == typeof(CudaDevice).Namespace && t.Name.EndsWith("Parameters", StringComparison.Ordinal));
        Assert.That(named, Is.SubsetOf(Structs.Select(s => s.Type)));
    }

    /// <summary>Assertions about all structs of a file.</summary>
    public static string Assertions(string file) => string.Concat(Structs.Where(s => s.File == file).Select(s => Assertions(s.Type, 0)));

    private static string Assertions(Type type, int wrong)
    {
        // NVRTC has no offsetof; what its front end makes of the host compiler's is this.
        var text = new StringBuilder("#ifdef __CUDACC_RTC__\n#define OFFSET(T, f) __INTADDR__(&((T*)0)->f)\n#else\n#define OFFSET(T, f) __builtin_offsetof(T, f)\n#endif\n");
        foreach (var field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
        {
            var name = char.ToLowerInvariant(field.Name[0]) + field.Name[1..];
            var offset = Marshal.OffsetOf(type, field.Name) + (name == "sums" ? wrong : 0);
            text.Append($"static_assert(OFFSET({type.Name}, {name}) == {offset}, \"{type.Name}.{name}\");\n");
            text.Append($"static_assert(sizeof((({type.Name}*)0)->{name}) == {Marshal.SizeOf(field.FieldType)}, \"{type.Name}.{name}\");\n");
        }
        return text.Append($"static_assert(sizeof({type.Name}) == {Marshal.SizeOf(type)}, \"{type.Name}\");\n").ToString();
    }
}
