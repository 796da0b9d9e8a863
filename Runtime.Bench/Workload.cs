using System.Reflection;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Reports;
using Trimtab.Kernels;

namespace Trimtab.Bench;

/// <summary>What one call of a benchmark asks of the machine.</summary>
/// <param name="Bytes">Bytes it reads and writes, each once: what memory must move if no cache helps.</param>
/// <param name="Operations">Arithmetic operations, a multiply-add counting as two.</param>
/// <param name="Arithmetic">What is multiplied.</param>
public readonly record struct Workload(double Bytes, double Operations, Arithmetic Arithmetic = Arithmetic.F32)
{
    /// <summary>What a case declares, or null.</summary>
    public static Workload? Of(BenchmarkCase benchmark)
    {
        var type = benchmark.Descriptor.Type;
        if (!type.IsAssignableTo(typeof(IWorkload)))
            return null;
        var map = type.GetInterfaceMap(typeof(IWorkload));
        return (Workload)map.TargetMethods.Single().Invoke(null, BindingFlags.DoNotWrapExceptions, null, [benchmark], null)!;
    }

    /// <summary>Seconds of a call, or null where nothing was measured.</summary>
    public static double? Seconds(Summary summary, BenchmarkCase benchmark)
        => summary[benchmark]?.ResultStatistics is { Median: > 0 } statistics ? statistics.Median / 1e9 : null;
}

/// <summary>A benchmark class that says what its cases ask of the machine.</summary>
public interface IWorkload
{
    /// <summary>The workload of a case, from its method and parameters.</summary>
    static abstract Workload Of(BenchmarkCase benchmark);
}
