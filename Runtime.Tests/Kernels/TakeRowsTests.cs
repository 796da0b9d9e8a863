using Trimtab.Kernels;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

[TestFixture("cpu")]
[TestFixture("cuda")]
public class TakeRowsTests(string kind)
{
    private Device[] _devices = null!, _exact = null!;

    [OneTimeSetUp]
    public void Open() => (_devices, _exact) = (All(kind), Exact(kind));

    [Test]
    public void Takes_the_rows_it_is_told([Values(1, 7, 64, 257)] int columns)
    {
        var values = Noise(9 * columns, 4);
        int[] rows = [8, 0, 3, 3, 5];
        foreach (var device in _devices)
        {
            var output = device.Activations(new float[rows.Length * columns], columns);
            device.TakeRows(output, device.Activations(values, columns), device.Integers(rows));
            Same(device.Get(output), Rows(values, columns, rows), device.Name);
        }
    }

    [Test]
    public void Rows_that_are_not_there_are_refused()
    {
        foreach (var device in _devices)
        {
            var input = device.Activations(new float[12], 4);
            var output = device.Activations(new float[4], 4);
            Assert.That(() => device.TakeRows(output, input, device.Integers(3)), Throws.ArgumentException.With.Message.EqualTo("TakeRows: row 3 of 3"));
            Assert.That(() => device.TakeRows(output, input, device.Integers(-1)), Throws.ArgumentException);
            Assert.That(() => device.TakeRows(output, input, device.Integers(0, 1)), Throws.ArgumentException.With.Message.Contains("rows is I32 [1, 2]"));
        }
    }
}
