using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Steering;

namespace Trimtab.Tests.Engine;

public class SteeringBankTests
{
    private static ShiftVectors Vectors(float value) => ShiftVectors.Create([[value, value], [value + 1, value + 1]]);

    [Test]
    public void Slots_are_shared_kept_and_given_to_others_longest_unused_first()
    {
        using var device = new CpuDevice(1);
        using var bank = new SteeringBank(device, 2, 2);
        float[] Rows(int slot)
        {
            var rows = new float[4];
            device.Download(bank.Vectors.Slice(slot * 2, 2), rows);
            return rows;
        }
        ShiftVectors a = Vectors(1), b = Vectors(10), c = Vectors(20), d = Vectors(30);
        Assert.That(bank.Acquire(new(a)), Is.Zero);
        Assert.That(bank.Acquire(new(b)), Is.EqualTo(1));
        Assert.That(bank.Acquire(new(a, 3)), Is.Zero, "alpha is the token's");
        Assert.That(bank.Acquire(new(a, Layers: new LayerSet([2]))), Is.EqualTo(2), "a layer set is a slot of its own");
        Assert.That(bank.Acquire(new(a, Layers: new LayerSet([2]))), Is.EqualTo(2), "and equal by value");
        Assert.That(Rows(2), Is.EqualTo(new float[] { 0, 0, 2, 2 }));

        bank.Release(1);
        bank.Release(0);
        Assert.That(bank.Acquire(new(c)), Is.EqualTo(1), "one of two users is left at 0");
        bank.Release(0);
        Assert.That(bank.Acquire(new(a)), Is.Zero, "kept");
        Assert.That(bank.Acquire(new(d)), Is.EqualTo(3), "a came into use again");
        bank.Release(3);
        bank.Release(0);
        Assert.That(bank.Acquire(new(b)), Is.EqualTo(3), "longest unused");
        Assert.That(Rows(3), Is.EqualTo(new float[] { 10, 10, 11, 11 }));
        Assert.That(Rows(0), Is.EqualTo(new float[] { 1, 1, 2, 2 }));
    }

    [Test]
    public void Growing_keeps_what_is_there()
    {
        using var device = new CpuDevice(1);
        using var bank = new SteeringBank(device, 2, 2);
        for (var i = 0; i < 40; i++)
            Assert.That(bank.Acquire(new(Vectors(i))), Is.EqualTo(i));
        var rows = new float[4 * 40];
        device.Download(bank.Vectors.Slice(0, 80), rows);
        Assert.That(rows, Is.EqualTo(Enumerable.Range(0, 40).SelectMany(i => new float[] { i, i, i + 1, i + 1 })));
    }
}
