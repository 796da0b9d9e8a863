using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

/// <summary>The machine's measured limits.</summary>
public class RooflineTests
{
    [Test]
    public void Every_limit_is_measured()
    {
        var roofline = Roofline.Measure(2, TimeSpan.FromMilliseconds(5));
        Assert.Multiple(() =>
        {
            Assert.That(roofline.Threads, Is.EqualTo(2));
            Assert.That(roofline.ReadBytesPerSecond, Is.GreaterThan(1e6));
            Assert.That(roofline.FloatOpsPerSecond, Is.GreaterThan(1e6));
            Assert.That(roofline.BF16OpsPerSecond, Is.GreaterThan(1e6));
            Assert.That(roofline.Int8OpsPerSecond, Is.GreaterThan(1e6));
        });
    }

    [Test]
    public void Every_kernel_of_this_machine_runs()
    {
        using var pool = new WorkerPool(1);
        foreach (var (name, run) in RooflineKernels.Float().Concat(RooflineKernels.BF16()).Concat(RooflineKernels.Int8()))
            Assert.That(run(pool), Is.GreaterThan(0), name);
    }

    [Test]
    public void Time_is_bound_by_the_slower_of_reading_and_computing()
    {
        var roofline = new Roofline(100, 10, 20, 40, 1, "", "", "");
        Assert.Multiple(() =>
        {
            Assert.That(roofline.Seconds(200, 10, Arithmetic.F32), Is.EqualTo(2));
            Assert.That(roofline.Seconds(200, 40, Arithmetic.F32), Is.EqualTo(4));
            Assert.That(roofline.Seconds(200, 40, Arithmetic.Int8), Is.EqualTo(2));
            Assert.That(roofline.Seconds(20, 40, Arithmetic.BF16), Is.EqualTo(2));
            Assert.That((roofline with { Int8OpsPerSecond = 5 }).Seconds(0, 40, Arithmetic.Int8), Is.EqualTo(4), "floats where bytes are no faster");
        });
    }
}
