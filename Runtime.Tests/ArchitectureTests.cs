using Mono.Cecil;
using Mono.Cecil.Cil;

namespace Trimtab.Tests;

/// <summary>Holds the direction of dependencies: Server → Runtime → Kernels, and inside Runtime one way down.</summary>
public class ArchitectureTests
{
    /// <summary>What each namespace of the runtime may use of the others.</summary>
    private static readonly Dictionary<string, string[]> Allowed = new()
    {
        ["Trimtab.Checkpoints"] = [],
        ["Trimtab.Text"] = [],
        ["Trimtab.Imaging"] = [],
        ["Trimtab.Steering"] = ["Trimtab.Checkpoints"],
        ["Trimtab.Model"] = ["Trimtab.Checkpoints"],
        ["Trimtab.Engine"] = ["Trimtab.Model", "Trimtab.Steering", "Trimtab.Text"],
        ["Trimtab.Evaluation"] = ["Trimtab", "Trimtab.Checkpoints", "Trimtab.Text", "Trimtab.Imaging", "Trimtab.Steering", "Trimtab.Model", "Trimtab.Engine"],
        ["Trimtab"] = ["Trimtab.Checkpoints", "Trimtab.Text", "Trimtab.Imaging", "Trimtab.Steering", "Trimtab.Model", "Trimtab.Engine"],
    };

    [Test]
    public void Assemblies_depend_downwards()
    {
        Assert.Multiple(() =>
        {
            Assert.That(References(typeof(Trimtab.Kernels.Device)), Has.None.StartsWith("Trimtab"));
            Assert.That(References(typeof(VisionLanguageModel)).Where(r => r.StartsWith("Trimtab", StringComparison.Ordinal)), Is.EqualTo(new[] { "Trimtab.Kernels" }));
        });
    }

    [Test]
    public void Namespaces_of_the_runtime_depend_one_way()
    {
        using var module = ModuleDefinition.ReadModule(typeof(VisionLanguageModel).Assembly.Location);
        var wrong = new SortedSet<string>();
        foreach (var type in module.GetTypes())
        {
            var from = Namespace(type);
            if (!Allowed.TryGetValue(from, out var allowed))
                continue;
            foreach (var used in Uses(type))
            {
                var to = Namespace(used);
                if (to != from && Allowed.ContainsKey(to) && !allowed.Contains(to))
                    wrong.Add($"{type.FullName} uses {used.FullName}");
            }
        }
        Assert.That(wrong, Is.Empty);
    }

    [Test]
    public void Devices_know_no_model()
    {
        using var module = ModuleDefinition.ReadModule(typeof(Trimtab.Kernels.Device).Assembly.Location);
        var names = module.GetTypes().Select(t => t.Name).Where(n =>
            n.Contains("Llama", StringComparison.OrdinalIgnoreCase) || n.Contains("Llava", StringComparison.OrdinalIgnoreCase) || n.Contains("Clip", StringComparison.Ordinal));
        Assert.That(names, Is.Empty);
    }

    private static IEnumerable<string> References(Type type) => type.Assembly.GetReferencedAssemblies().Select(a => a.Name!);

    private static string Namespace(TypeReference type)
    {
        while (type.DeclaringType is not null)
            type = type.DeclaringType;
        return type.Namespace;
    }

    private static IEnumerable<TypeReference> Uses(TypeDefinition type)
    {
        IEnumerable<TypeReference?> direct =
        [
            type.BaseType,
            .. type.Interfaces.Select(i => i.InterfaceType),
            .. type.Fields.Select(f => f.FieldType),
            .. type.Properties.Select(p => p.PropertyType),
            .. type.Methods.Select(m => m.ReturnType),
            .. type.Methods.SelectMany(m => m.Parameters).Select(p => p.ParameterType),
            .. type.Methods.Where(m => m.HasBody).SelectMany(m => m.Body.Variables).Select(v => v.VariableType),
            .. type.Methods.Where(m => m.HasBody).SelectMany(m => m.Body.Instructions).Select(Operand),
        ];
        return direct.OfType<TypeReference>().SelectMany(Flatten);
    }

    private static TypeReference? Operand(Instruction instruction) => instruction.Operand switch
    {
        MethodReference method => method.DeclaringType,
        FieldReference field => field.DeclaringType,
        TypeReference reference => reference,
        _ => null,
    };

    private static IEnumerable<TypeReference> Flatten(TypeReference type) => type switch
    {
        GenericInstanceType generic => generic.GenericArguments.SelectMany(Flatten).Append(generic.ElementType),
        TypeSpecification specification => Flatten(specification.ElementType),
        _ => [type],
    };
}
