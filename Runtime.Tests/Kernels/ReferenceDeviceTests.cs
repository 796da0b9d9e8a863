using System.Runtime.InteropServices;
using Trimtab.Kernels;
using Trimtab.Kernels.Reference;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

/// <summary>The oracle against cases that were worked out by hand.</summary>
public class ReferenceDeviceTests
{
    private readonly ReferenceDevice device = new();

    private unsafe Weight Pack(int columns, int[]? order, params float[] values)
    {
        fixed (float* p = values)
            return device.Pack(new WeightData(DType.F32, values.Length / columns, columns, (nint)p, order));
    }

    private static void Near(float[] actual, params float[] expected) => Close(actual, expected, 1e-6, "by hand");

    [Test]
    public void Rms_norm_divides_by_the_root_of_the_mean_square()
    {
        // Squares 9 and 16, mean 12.5; epsilon 3.5 makes it 16.
        var x = device.Activations([3, 4], 2);
        device.Norm(x, x, new NormWeights(device.Floats([1, 10], 2), default, 3.5f, false));
        Near(device.Get(x), 0.75f, 10);
    }

    [Test]
    public void Layer_norm_removes_the_mean_first()
    {
        // Mean 3, variance 4.
        var x = device.Activations([1, 5, 3, 3, 1, 5, 5, 1], 4);
        device.Norm(x, x, new NormWeights(device.Floats([1, 1, 1, 2], 4), device.Floats([0, 0, 7, 1], 4), 0, true));
        var root = MathF.Sqrt(2);
        Near(device.Get(x), -root, root, 7, 1, -1, 1, 8, -1);
    }

    [Test]
    public void Residual_norm_adds_captures_steers_and_norms_in_this_order()
    {
        var x = device.Activations([1, 2, 1, 2], 2);
        var output = device.Activations(new float[4], 2);
        var captures = device.Floats(new float[8], 2);
        // Two slots of two layers: slot 1 at layer 2 is row 3.
        var vectors = device.Floats([9, 9, 9, 9, 9, 9, 1, -1], 2);
        device.ResidualNorm(x, device.Activations([10, 20, 10, 20], 2), output, new NormWeights(device.Floats([1, 1], 2), default, 0, false),
            new Junction(2, 2, device.Integers(-1, 1), device.Floats([5, 2], 2), vectors, device.Integers(-1, 0), captures));
        Near(device.Get(x), 11, 22, 9, 24);
        Near(device.Get(captures), 0, 0, 11, 22, 0, 0, 0, 0);
        var scale = 1 / MathF.Sqrt((9 * 9 + 24 * 24) / 2f);
        Near(device.Get(output)[2..], 9 * scale, 24 * scale);
    }

    [Test]
    public void Rope_turns_pairs_of_halves_and_stores_keys_and_values()
    {
        // A quarter turn of (x0, x1); x2 is not rotated. One query, key and value head.
        var qkv = device.Activations([1, 2, 3, 4, 5, 6, 7, 8, 9], 9);
        Tensor keys = device.Activations(new float[6], 3), values = device.Activations(new float[6], 3);
        device.RopeStore(qkv, device.Floats([0, 1], 2), new KvLayer(keys, values, 2),
            new TokenMap(default, default, device.Integers(1), default), new Heads(1, 1, 3, 1));
        Near(device.Get(qkv), -2, 1, 3, 4, 5, 6, 7, 8, 9);
        Near(device.Get(keys), 0, 0, 0, -5, 4, 6);
        Near(device.Get(values), 0, 0, 0, 7, 8, 9);
    }

    [Test]
    public void Paged_attention_weighs_values_by_softmax_over_pages_and_window()
    {
        // Weights e^0 and e^(ln 3): a quarter and three quarters. Position 0 lies in row 1, position 1 in row 0; row 2 in neither.
        var keys = device.Activations([MathF.Log(3), 0, float.NaN], 1);
        var values = device.Activations([8, 4, float.NaN], 1);
        var output = device.Activations(new float[2], 2);
        void Run(int position, int window) => device.AttendPaged(output, device.Activations([2, 0, 99, 99], 4), new KvLayer(keys, values, 1),
            new TokenMap(device.Integers(0), device.Integers(position), default, device.Integers(1, 0, 2)), new Heads(2, 1, 1, 0.5f), window);
        Run(1, 0);
        Near(device.Get(output), 7, 6);
        Run(1, 1);
        Near(device.Get(output), 8, 8);
        Run(0, 0);
        Near(device.Get(output), 4, 4);
    }

    [Test]
    public void Full_attention_stays_in_its_run()
    {
        // Columns query, key, value; two runs of two rows.
        var qkv = device.Activations([1, 0, 4, 0, MathF.Log(3), 8, 1, 0, 1, 1, 0, 3], 3);
        var output = device.Activations(new float[4], 1);
        device.AttendFull(output, qkv, 2, new Heads(1, 1, 1, 1));
        Near(device.Get(output), 7, 6, 2, 2);
    }

    [Test]
    public void Linear_multiplies_adds_and_activates()
    {
        using var weight = Pack(2, [1, 0], 3, 4, 1, 2);
        var input = device.Activations([1, 10, 0, -1], 2);
        var output = device.Activations(new float[4], 2);
        device.Linear(output, input, weight, device.Floats([0, 0.5f], 2), Epilogue.None);
        Near(device.Get(output), 21, 43.5f, -2, -3.5f);
        var gated = device.Activations(new float[2], 1);
        device.Linear(gated, input, weight, default, Epilogue.SiluGate);
        Near(device.Get(gated), (float)(21 / (1 + Math.Exp(-21)) * 43), (float)(-2 / (1 + Math.Exp(2)) * -4));
    }

    [TestCase(Epilogue.None, 1.0, 1.0)]
    [TestCase(Epilogue.Gelu, 1.0, 0.84134474606854293)] // Φ(1)
    [TestCase(Epilogue.Gelu, -3.0, -0.0040496940948902)] // −3 Φ(−3)
    [TestCase(Epilogue.GeluTanh, 1.0, 0.84119199060827)]
    [TestCase(Epilogue.QuickGelu, 1.0, 0.84579576601)]
    [TestCase(Epilogue.Silu, 1.0, 0.73105857863000490)]
    public void Activations_have_their_known_values(Epilogue epilogue, double x, double expected) =>
        Assert.That(ReferenceDevice.Activate(epilogue, x), Is.EqualTo(expected).Within(1e-10));

    [TestCase(0, 0)]
    [TestCase(0.5, 0.52049987781304654)]
    [TestCase(-2, -0.99532226501895273)]
    [TestCase(5, 0.99999999999846254)]
    [TestCase(7, 1)]
    [TestCase(double.NegativeInfinity, -1)]
    [TestCase(double.NaN, double.NaN)]
    public void Erf_has_its_known_values(double x, double expected) => Assert.That(ReferenceDevice.Erf(x), Is.EqualTo(expected).Within(1e-15));

    [Test]
    public void Embedding_takes_table_rows_and_image_features()
    {
        using var table = Pack(2, null, 1, 2, 3, 4);
        var output = device.Activations(new float[6], 2);
        device.Embed(output, table, device.Activations([5, 6, 7, 8], 2), device.Integers(1, -2, 0));
        Near(device.Get(output), 3, 4, 7, 8, 1, 2);
        Assert.That(() => device.Embed(output, table, default, device.Integers(1, 2, 0)), Throws.ArgumentException.With.Message.Contains("row 2 of 2"));
        Assert.That(() => device.Embed(output, table, default, device.Integers(1, -1, 0)), Throws.ArgumentException.With.Message.Contains("feature 0 of 0"));
    }

    [Test]
    public void Patches_are_projected_in_channel_row_column_order()
    {
        // 4 × 4 pixels 0 … 15 and their hundredfold in a second channel; patches of 2 × 2; the two outputs pick corners.
        var image = Enumerable.Range(0, 32).Select(i => (float)(i < 16 ? i : 100 * (i - 16))).ToArray();
        using var projection = Pack(8, null, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0);
        var output = device.Activations(new float[10], 2);
        device.Patches(output, device.Floats(image, 32), new PatchWeights(projection, device.Floats([0, 0.5f], 2), device.Floats([7, 8], 2),
            device.Floats([0, 0, 0, 0, 0, 0, 0, 0, 0.25f, 0], 2), 4, 2));
        Near(device.Get(output), 7, 8, 500, 1.5f, 702, 3.5f, 1308, 9.5f, 1510.25f, 11.5f);
    }

    [Test]
    public unsafe void Packs_parts_of_several_forms_one_after_another()
    {
        Half[] halves = [(Half)1.5f, (Half)(-2)];
        float[] floats = [3, 4];
        fixed (Half* h = halves)
        fixed (float* f = floats)
        {
            using var weight = device.Pack(new WeightData(DType.F16, 1, 2, (nint)h), new WeightData(DType.F32, 1, 2, (nint)f));
            Assert.That((weight.Rows, weight.Columns), Is.EqualTo((2, 2)));
            var output = device.Activations(new float[2], 2);
            device.Linear(output, device.Activations([1, 1], 2), weight, default, Epilogue.None);
            Near(device.Get(output), -0.5f, 7);
            var address = (nint)f;
            Assert.That(() => device.Pack(new WeightData(DType.F32, 1, 2, address), new WeightData(DType.F32, 2, 1, address)),
                Throws.ArgumentException.With.Message.Contains("columns"));
        }
    }

    [Test]
    public void Tensors_hold_floats_and_integers_and_check_counts()
    {
        Assert.That(device.Get(device.Integers(1, -5)), Is.EqualTo((float[])[1, -5]));
        Assert.That(() => device.Upload((float[])[1], device.Allocate(DType.F64, 1, 2)), Throws.ArgumentException);
        Assert.That(() => device.Upload((int[])[1], device.Allocate(DType.F64, 1, 1)), Throws.ArgumentException);
        Assert.That(() => device.Allocate(DType.Q4_0, 1, 32), Throws.TypeOf<NotSupportedException>());
        Assert.That(Enum.GetValues<DType>().Select(t => device.Computes(t, 64)), Is.All.True);
        Assert.That(MemoryMarshal.Cast<float, byte>(device.Get(device.Allocate(DType.F64, 2, 2))).ToArray(), Is.All.Zero);
    }
}
