using Trimtab.Kernels;

namespace Trimtab.Tests.Kernels;

public class PatchesTests
{
    [Test]
    public void Each_patch_is_projected_and_placed(
        [Values(DType.F32, DType.BF16)] DType type, [Values(12, 14)] int size, [Values] bool classToken, [Values] bool hasBias, [Values(1, 3)] int channels, [Values("", "CUDA")] string lanes)
    {
        const int Patch = 4, Width = 19, Images = 2; // 14 = 3 patches and a rest that belongs to none
        var area = channels * Patch * Patch;
        using var f = new LinearFixture(area, [(type, Width)], 2, lanes);
        var (side, first) = (size / Patch, classToken ? 1 : 0);
        var length = side * side + first;
        float[] pixels = LinearFixture.Floats(Images * channels * size * size, 5), bias = LinearFixture.Floats(Width, 6),
            positions = LinearFixture.Floats(length * Width, 7), token = LinearFixture.Floats(Width, 8);
        var output = f.Poisoned(Images * length, Width);
        var weights = new PatchWeights(
            f.Weight, hasBias ? f.Tensor(1, Width, bias) : default, classToken ? f.Tensor(1, Width, token) : default, f.Tensor(length, Width, positions), size, Patch);
        f.Device.Patches(output, f.Tensor(Images, channels * size * size, pixels), weights);
        var actual = f.Read(output);
        for (var image = 0; image < Images; image++)
            for (var s = 0; s < length; s++)
                for (var d = 0; d < Width; d++)
                {
                    double expected = positions[s * Width + d];
                    if (s < first)
                        expected += token[d];
                    else
                    {
                        expected += hasBias ? bias[d] : 0;
                        var (py, px) = ((s - first) / side, (s - first) % side);
                        for (var c = 0; c < channels; c++)
                            for (var y = 0; y < Patch; y++)
                                for (var x = 0; x < Patch; x++)
                                    expected += (double)f.Values[d * area + (c * Patch + y) * Patch + x]
                                        * pixels[((image * channels + c) * size + py * Patch + y) * size + px * Patch + x];
                    }
                    Assert.That(actual[(image * length + s) * Width + d], Is.EqualTo(expected).Within(1e-5));
                }
    }

    [Test]
    public void Shapes_that_do_not_fit_are_refused_with_the_shapes()
    {
        using var f = new LinearFixture(3 * 16, [(DType.F32, 8)]);
        Tensor Make(int rows, int columns) => f.Device.Allocate(DType.F32, rows, columns);
        var weights = new PatchWeights(f.Weight, default, default, Make(9, 8), 12, 4);
        void Refused(Tensor output, Tensor pixels, PatchWeights w, string part) =>
            Assert.That(() => f.Device.Patches(output, pixels, w), Throws.ArgumentException.With.Message.Contains("Patches").And.Message.Contains(part));

        Assert.DoesNotThrow(() => f.Device.Patches(Make(9, 8), Make(1, 3 * 144), weights));
        Assert.DoesNotThrow(() => f.Device.Patches(Make(0, 8), Make(0, 3 * 144), weights));
        Refused(Make(9, 8), Make(1, 143), weights, "[1, 143]");
        Refused(Make(8, 8), Make(1, 3 * 144), weights, "[8, 8]");
        Refused(Make(9, 8), Make(1, 3 * 144), weights with { PatchSize = 5 }, "patches of 5");
        Refused(Make(9, 8), Make(1, 3 * 144), weights with { PatchSize = 0 }, "patches of 0");
        Refused(Make(9, 8), Make(1, 3 * 144), weights with { Positions = Make(10, 8) }, "positions");
        Refused(Make(9, 8), Make(1, 3 * 144), weights with { Bias = Make(1, 7) }, "bias");
        Refused(Make(10, 8), Make(1, 3 * 144), weights with { ClassToken = Make(1, 7) }, "class token");
    }
}
