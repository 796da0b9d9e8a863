using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

public class EmbedTests
{
    private static readonly DType[] Forms = LinearFixture.Forms;

    [Test]
    public void Rows_come_out_of_their_panels_and_features_between_them([ValueSource(nameof(Forms))] DType type, [Values("AVX-512", "AVX2", "portable", "CUDA")] string lanes)
    {
        var columns = type.BlockSize() == 1 ? 263 : 512;
        using var f = new LinearFixture(columns, [(type, 35), (DType.F16, 5)], 2, lanes);
        int[] rows = [0, -1, 39, 15, 16, -3, 34, 35, 17, 0, -2];
        var features = LinearFixture.Floats(3 * columns, 8);
        var output = f.Poisoned(rows.Length, columns);
        f.Device.Embed(output, f.Weight, f.Tensor(3, columns, features), Order(f.Device, rows));
        var actual = f.Read(output);
        for (var t = 0; t < rows.Length; t++)
        {
            var expected = (rows[t] >= 0 ? f.Values.AsSpan(rows[t] * columns, columns) : features.AsSpan((-1 - rows[t]) * columns, columns)).ToArray();
            // A minimum is added in one rounding here, in two by the definition.
            var within = rows[t] < 0 || type is not (DType.Q4_1 or DType.Q4_K) ? 0 : 1e-7 * expected.Max(Math.Abs);
            Assert.That(actual[(t * columns)..((t + 1) * columns)], Is.EqualTo(expected).Within(within));
        }
    }

    [Test]
    public void Rows_that_are_not_there_are_refused([Values(6, -1, int.MaxValue, int.MinValue)] int row, [Values("", "CUDA")] string lanes)
    {
        using var f = new LinearFixture(8, [(DType.F32, 6)], lanes: lanes);
        var output = f.Device.Allocate(DType.F32, 2, 8);
        var rows = Order(f.Device, [0, row]);
        Assert.That(() => f.Device.Embed(output, f.Weight, default, rows), Throws.InstanceOf<ArgumentException>().With.Message.Contains(row == -1 || row == int.MinValue ? "0" : "6"));
    }

    [Test]
    public void Shapes_that_do_not_fit_are_refused()
    {
        using var f = new LinearFixture(8, [(DType.F32, 6)]);
        Tensor Make(int rows, int columns) => f.Device.Allocate(DType.F32, rows, columns);
        Assert.That(() => f.Device.Embed(Make(2, 9), f.Weight, default, Order(f.Device, [0, 1])), Throws.ArgumentException.With.Message.Contains("[2, 9]"));
        Assert.That(() => f.Device.Embed(Make(2, 8), f.Weight, default, Order(f.Device, [0])), Throws.ArgumentException);
        Assert.That(() => f.Device.Embed(Make(1, 8), f.Weight, Make(3, 7), Order(f.Device, [0])), Throws.ArgumentException.With.Message.Contains("[3, 7]"));
    }

    [Test]
    public void Values_go_up_and_down_in_every_plain_type()
    {
        using var device = new CpuDevice(1);
        float[] values = [1, -2.5f, 0.333f, 65504], actual = new float[4];
        foreach (var (type, within) in new[] { (DType.F32, 0.0), (DType.F16, 1e-3), (DType.BF16, 1e-2) })
        {
            var tensor = device.Allocate(type, 2, 2);
            device.Download(tensor, actual);
            Assert.That(actual, Is.All.Zero, "memory comes zeroed");
            device.Upload(values, tensor);
            device.Download(tensor, actual);
            Assert.That(actual, Is.EqualTo(values).Within(within * 100).Percent);
        }
        device.Upload(new[] { 3, -7 }, device.Allocate(DType.I32, 1, 2) is var integers ? integers : default);
        device.Download(integers, actual.AsSpan(0, 2));
        Assert.That(actual[..2], Is.EqualTo(new float[] { 3, -7 }));
        Assert.That(() => device.Upload(values, device.Allocate(DType.F32, 1, 3)), Throws.ArgumentException.With.Message.Contains("[1, 3]"));
        Assert.That(() => device.Upload(new[] { 1 }, device.Allocate(DType.F32, 1, 1)), Throws.ArgumentException.With.Message.Contains("I32"));
        Assert.That(() => device.Allocate(DType.F32, -1, 3), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => device.Allocate(DType.F64, int.MaxValue, int.MaxValue), Throws.InstanceOf<OutOfMemoryException>().Or.InstanceOf<OverflowException>());
    }

    [Test]
    public void Storage_is_aligned_bounded_and_zeroed()
    {
        using var storage = new CpuStorage(100);
        unsafe
        {
            Assert.That((long)storage.Pointer % 64, Is.Zero);
        }
        Assert.That(() => new Tensor(storage, DType.F32, 0, 5, 5) is var t && Address(t) != 0);
        Assert.That(() => Address(new Tensor(storage, DType.F32, 1, 5, 5)), Throws.ArgumentException.With.Message.Contains("100 bytes"));
        Assert.That(() => Address(new Tensor(storage, DType.F32, -1, 5, 5)), Throws.ArgumentException);
        Assert.That(() => Address(new Tensor(storage, DType.I32, 0, 5, 5)), Throws.ArgumentException.With.Message.Contains("F32"));
        Assert.That(() => Address(default), Throws.ArgumentException);
        storage.Dispose();
        Assert.That(() => Address(new Tensor(storage, DType.F32, 0, 1, 1)), Throws.TypeOf<ObjectDisposedException>());

        static unsafe nint Address(Tensor t) => (nint)t.F32();
    }

    private static Tensor Order(Device device, int[] rows)
    {
        var tensor = device.Allocate(DType.I32, 1, rows.Length);
        device.Upload(rows, tensor);
        return tensor;
    }
}
