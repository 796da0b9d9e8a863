using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

[TestFixture(typeof(Lanes512)), TestFixture(typeof(Lanes256)), TestFixture(typeof(Lanes128))]
internal unsafe class LinearLanesTests<T> where T : struct, ILanes<T>
{
    [OneTimeSetUp]
    public void Machine()
    {
        if (!T.IsSupported)
            Assert.Ignore($"this machine has no {T.Name}");
    }

    [Test]
    public void Exp_is_right_to_two_units_in_the_last_place()
    {
        for (var x = -87.3f; x < 88.7f; x += 0.0137f)
        {
            var (actual, exact) = (Map(LanesMath.Exp, x), Math.Exp(x));
            Assert.That(Math.Abs(actual - exact), Is.LessThanOrEqualTo(2 * (MathF.BitIncrement((float)exact) - (float)exact)), $"e^{x}");
        }
        Assert.That(Map(LanesMath.Exp, 0), Is.EqualTo(1));
        Assert.That(Map(LanesMath.Exp, -100), Is.EqualTo((float)Math.Exp(-100)).Within(1.5e-45), "a denormal");
        Assert.That(Map(LanesMath.Exp, 89), Is.EqualTo(float.PositiveInfinity));
        Assert.That(Map(LanesMath.Exp, float.PositiveInfinity), Is.EqualTo(float.PositiveInfinity));
        Assert.That(Map(LanesMath.Exp, float.NegativeInfinity), Is.Zero);
        Assert.That(Map(LanesMath.Exp, -1e30f), Is.Zero);
        Assert.That(Map(LanesMath.Exp, float.NaN), Is.NaN);
    }

    [Test]
    public void Normal_distribution_function_is_right_to_the_seventh_digit()
    {
        for (var x = -12f; x < 12; x += 0.0071f)
        {
            var (actual, exact) = (Map(LanesMath.NormalCdf, x), LinearLanesTests.NormalCdf(x));
            Assert.That(Math.Abs(actual - exact), Is.LessThanOrEqualTo(2e-7), $"at {x}");
            if (x is < 0 and > -5)
                Assert.That(actual / exact, Is.EqualTo(1).Within(2e-6), $"at {x}");
        }
        Assert.That(Map(LanesMath.NormalCdf, float.NaN), Is.NaN);
    }

    [Test]
    public void Sigmoid_is_right_to_the_seventh_digit()
    {
        for (var x = -80f; x < 80; x += 0.0171f)
            Assert.That(Map(LanesMath.Sigmoid, x) * (1 + Math.Exp(-x)), Is.EqualTo(1).Within(4e-7), $"at {x}");
        Assert.That(Map(LanesMath.Sigmoid, -1000), Is.Zero);
        Assert.That(Map(LanesMath.Sigmoid, 1000), Is.EqualTo(1));
    }

    [Test]
    public void Every_half_is_converted_exactly()
    {
        var halves = stackalloc ushort[16];
        var floats = stackalloc float[16];
        for (var bits = 0; bits < 65536; bits += 16)
        {
            for (var i = 0; i < 16; i++)
                halves[i] = (ushort)(bits + i);
            T.Store(LanesMath.FromHalf(T.LoadHalves(halves)), floats);
            for (var i = 0; i < 16; i++)
                if (BitConverter.SingleToInt32Bits(floats[i]) != BitConverter.SingleToInt32Bits((float)BitConverter.UInt16BitsToHalf(halves[i]))
                    && !(float.IsNaN(floats[i]) && Half.IsNaN(BitConverter.UInt16BitsToHalf(halves[i]))))
                    Assert.Fail($"0x{halves[i]:X4} became {floats[i]}");
        }
    }

    [Test]
    public void Bytes_and_nibbles_are_found_in_their_places()
    {
        var lanes = stackalloc uint[16];
        var floats = stackalloc float[16];
        var random = new Random(3);
        for (var i = 0; i < 16; i++)
            lanes[i] = (uint)random.NextInt64(1L << 32);
        for (var j = 0; j < 8; j++)
        {
            T.Store(T.Nibble(T.Load(lanes), 4 * j), floats);
            for (var i = 0; i < 16; i++)
                Assert.That(floats[i], Is.EqualTo(lanes[i] >> 4 * j & 15));
            T.Store(T.Byte(T.Load(lanes), j / 2), floats);
            for (var i = 0; i < 16; i++)
                Assert.That(floats[i], Is.EqualTo(lanes[i] >> 8 * (j / 2) & 255));
        }
    }

    /// <summary>A function's value, the same in all lanes whatever their neighbours hold.</summary>
    private static float Map(Func<T, T> function, float x)
    {
        var lanes = stackalloc float[16];
        for (var i = 0; i < 16; i++)
            lanes[i] = i % 3 == 0 ? x : i * 7 - 50;
        T.Store(function(T.Load(lanes)), lanes);
        Assert.That(lanes[15].Equals(lanes[0]));
        return lanes[0];
    }
}

internal static class LinearLanesTests
{
    /// <summary>Φ(x) in double precision: a series near zero, a continued fraction in the tails.</summary>
    public static double NormalCdf(double x)
    {
        if (x > 0)
            return 1 - NormalCdf(-x);
        if (x > -3)
        {
            double term = x, sum = x;
            for (var n = 1; n < 100; n++)
                sum += term *= x * x / (2 * n + 1);
            return 0.5 + sum * Math.Exp(-x * x / 2) / Math.Sqrt(2 * Math.PI);
        }
        var fraction = 0.0;
        for (var n = 100; n > 0; n--)
            fraction = n / (-x + fraction);
        return Math.Exp(-x * x / 2) / Math.Sqrt(2 * Math.PI) / (-x + fraction);
    }
}
