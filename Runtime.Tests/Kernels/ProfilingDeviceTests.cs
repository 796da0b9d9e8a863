using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

public class ProfilingDeviceTests
{
    [Test]
    public void Ops_are_handed_on_and_counted()
    {
        using var device = new ProfilingDevice(Devices[1]);
        var rows = device.Integers(2, 0);
        Tensor input = device.Floats([1, 2, 3, 4, 5, 6], 2), output = device.Floats(new float[4], 2);
        device.Reset();
        for (var i = 0; i < 3; i++)
            device.TakeRows(output, input, rows);
        Assert.That(device.Get(output), Is.EqualTo(new float[] { 5, 6, 1, 2 }));
        Assert.That(device.Stages.Select(stage => (stage.Name, stage.Calls)), Is.EqualTo(new[] { ("TakeRows", 3L), ("Download", 1L) }));
        Assert.That(device.Stages[0].Seconds, Is.GreaterThan(0));
        device.Reset();
        Assert.That(device.Stages, Is.Empty);
    }
}
