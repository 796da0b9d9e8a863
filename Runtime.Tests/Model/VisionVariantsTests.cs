using System.Text;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Model;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests;

/// <summary>What no golden fixture has, against its definition: several feature layers, and features interpolated down.</summary>
public class VisionVariantsTests
{
    private static ModelSpec Parse(string type, string more) => HuggingFaceConfig.Parse(Encoding.UTF8.GetBytes($$"""
        {
          "model_type": "{{type}}", "text_config": {"model_type": "llama", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 40},
          "vision_config": {"model_type": "{{(type == "llava" ? "clip" : "siglip")}}_vision_model", "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}, {{more}}
        }
        """), "tiny");

    /// <summary>A network of made-up weights, which depend on tensors' names alone.</summary>
    private static Network Load(ModelSpec spec, Device device)
    {
        var tensors = TensorNames.Expect(spec, new(LayoutForm.HuggingFace)).Select(e =>
            new TensorInfo(e.Name, DType.F32, e.Shape, "", 0, sizeof(float) * e.Shape.Aggregate(1L, (a, b) => a * b)));
        using var source = ModelSource.Of(spec, null, new SyntheticCheckpoint("made up", tensors, 3));
        return Network.Load(source, device);
    }

    [Test]
    public void Several_feature_layers_lie_side_by_side([Values("default", "full")] string strategy, [Values(1, 3)] int images)
    {
        using var device = new CpuDevice(2);
        var pixels = Noise(images * 3 * 28 * 28, 1);
        float[] Features(string layers)
        {
            using var network = Load(Parse("llava", $"\"vision_feature_layer\": {layers}, \"vision_feature_select_strategy\": \"{strategy}\""), device);
            var spec = network.Vision!.Spec;
            var features = new float[images * spec.Features * spec.FeatureSize];
            var output = device.Allocate(DType.F32, images * spec.Features, 48);
            network.Vision.Forward(pixels, output, features);
            return features;
        }
        float[][] single = [Features("-2"), Features("1"), Features("0")];
        var together = Features("[-2, 1, 0]");
        Assert.That(together, Has.Length.EqualTo(3 * single[0].Length));
        for (var row = 0; row < together.Length / 96; row++)
            for (var layer = 0; layer < 3; layer++)
                Same(together[(96 * row + 32 * layer)..(96 * row + 32 * layer + 32)], single[layer][(32 * row)..(32 * row + 32)], $"row {row}, layer {layer}");
    }

    /// <summary>torch's bilinear interpolation with align_corners = False, written from its definition in double precision.</summary>
    [TestCase(200, 200, 2, 2), TestCase(190, 100, 2, 2), TestCase(300, 90, 1, 3)]
    public void Features_beyond_the_limit_are_interpolated(int width, int height, int rows, int columns)
    {
        using var device = new CpuDevice(2);
        const string Grids = "\"image_grid_pinpoints\": [[56, 56], [28, 84]]";
        using Network full = Load(Parse("llava_onevision", $"{Grids}, \"vision_aspect_ratio\": \"anyres_max_9\""), device);
        using Network less = Load(Parse("llava_onevision", $"{Grids}, \"vision_aspect_ratio\": \"anyres_max_1\""), device);
        var grid = new ImageGrid(rows, columns, width, height);
        var pixels = Noise((1 + rows * columns) * 3 * 28 * 28, 2);
        float[] Run(Network network)
        {
            var output = device.Allocate(DType.F32, network.Vision!.Spec.FeatureRows(grid), 48);
            network.Vision.Forward(pixels, grid, output);
            return device.Get(output);
        }
        float[] large = Run(full), small = Run(less);
        const int side = 4, whole = side * side;
        var (kept, across) = full.Vision!.Spec.Kept(grid, out var none);
        _ = less.Vision!.Spec.Kept(grid, out var down);
        Assert.That(none, Is.Null);
        var ratio = Math.Sqrt((double)kept.Count * across.Count / whole);
        var (h, w) = ((int)(kept.Count / ratio), (int)(across.Count / ratio));
        Assert.That(down, Is.EqualTo((h, w)));
        Assert.That(small, Has.Length.EqualTo((whole + h * (w + 1)) * 48));
        Same(small[..(48 * whole)], large[..(48 * whole)], "the whole image");
        for (var y = 0; y < h; y++)
        {
            for (var x = 0; x < w; x++)
                for (var d = 0; d < 48; d++)
                {
                    double sy = Math.Max(0, (y + 0.5) * kept.Count / h - 0.5), sx = Math.Max(0, (x + 0.5) * across.Count / w - 0.5), sum = 0;
                    for (var dy = 0; dy < 2; dy++)
                        for (var dx = 0; dx < 2; dx++)
                            sum += (dy == 0 ? 1 - sy % 1 : sy % 1) * (dx == 0 ? 1 - sx % 1 : sx % 1)
                                * large[(whole + Math.Min((int)sy + dy, kept.Count - 1) * (across.Count + 1) + Math.Min((int)sx + dx, across.Count - 1)) * 48 + d];
                    Assert.That(small[(whole + y * (w + 1) + x) * 48 + d], Is.EqualTo(sum).Within(1e-5), $"{y}, {x}");
                }
            Same(small[((whole + y * (w + 1) + w) * 48)..((whole + y * (w + 1) + w + 1) * 48)], large[^48..], "newline");
        }
    }

    [TestCase("llava_next", "\"image_grid_pinpoints\": [[30, 28]], \"vision_feature_select_strategy\": \"full\"", "image_grid_pinpoints")]
    [TestCase("llava_onevision", "\"vision_aspect_ratio\": \"square\"", "vision_aspect_ratio")]
    [TestCase("llava_onevision", "\"vision_feature_select_strategy\": \"default\"", "vision_feature_select_strategy")]
    [TestCase("idefics3", "\"scale_factor\": 3", "scale_factor")]
    [TestCase("gemma3", "\"mm_tokens_per_image\": 9", "mm_tokens_per_image")]
    public void Names_the_field_of_a_tower_that_does_not_fit(string type, string more, string field) =>
        Assert.That(() => Parse(type, more), Throws.InstanceOf<Exception>().With.Message.Contains(field).And.Message.Contains("config.json"));

    [Test]
    public void A_grid_that_a_tower_does_not_see_is_refused()
    {
        var spec = Parse("llava_onevision", "\"image_grid_pinpoints\": [[56, 56]]").Vision!;
        Assert.That(() => spec.FeatureRows(new(3, 1, 10, 10)), Throws.ArgumentException.With.Message.Contains("3 × 1"));
        Assert.That(() => spec.PixelCount(new(2, 2)), Throws.ArgumentException);
        Assert.That(spec.PixelCount(new(2, 2, 10, 10)), Is.EqualTo(5 * 3 * 28 * 28));
        Assert.That(() => Parse("llava", "\"vision_feature_layer\": -2").Vision!.PixelCount(new(1, 1)), Throws.ArgumentException);
    }
}
