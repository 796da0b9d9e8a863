using System.Text;
using System.Text.Json;
using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

/// <summary>Families that divide images, against the reference's pixels and against themselves.</summary>
public class ImageTilesTests
{
    private static ImageProcessor FromJson(string json) => ImageProcessor.FromJson(Encoding.UTF8.GetBytes(json), "preprocessor_config.json");

    /// <summary>The reference bounded its images to nine merged squares.</summary>
    [TestCase("qwen2-vl", 14, "0.48145466, 0.4578275, 0.40821073", "0.26862954, 0.26130258, 0.27577711")]
    [TestCase("qwen2.5-vl", 14, "0.48145466, 0.4578275, 0.40821073", "0.26862954, 0.26130258, 0.27577711")]
    [TestCase("qwen3-vl", 16, "0.5, 0.5, 0.5", "0.5, 0.5, 0.5")]
    public void Patches_are_the_references(string fixture, int patch, string mean, string std)
    {
        var processor = FromJson($$"""
            {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": {{patch}}, "max_pixels": {{36 * patch * patch}}, "min_pixels": {{4 * patch * patch}},
             "image_mean": [{{mean}}], "image_std": [{{std}}]}
            """);
        using var expected = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", fixture + ".json")));
        using var tensors = Trimtab.Checkpoints.Checkpoint.Open(Shared.Path("fixtures", "expected", fixture + ".safetensors"));
        foreach (var element in expected.RootElement.GetProperty("cases").EnumerateArray().Where(c => c.GetProperty("image").ValueKind == JsonValueKind.String))
        {
            var image = Image.Open(Shared.Path("fixtures", "images", element.GetProperty("image").GetString()!));
            var thw = element.GetProperty("grid_thw").EnumerateArray().Select(e => e.GetInt32()).ToArray();
            Assert.That(processor.Grid(image.Width, image.Height), Is.EqualTo((thw[1], thw[2])));
            using var tensor = tensors.Map(element.GetProperty("id").GetString() + ".pixel_values");
            var pixels = new float[tensor.Info.Elements];
            processor.Patches(processor.Prepare(image), pixels);
            // A level is 0.015: the reference's tensor resize may round to another one here and there.
            Assert.That(pixels.Zip(tensor.ToFloats(), (a, b) => Math.Abs(a - b)).Max(), Is.LessThan(0.016), element.GetProperty("id").GetString());
        }
    }

    private const string Next = """
        {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 28}, "crop_size": 28,
         "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]}
        """;

    private const string Idefics = """
        {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 28}}
        """;

    [Test]
    public void A_grid_is_known_from_the_size_alone([Values(1, 27, 28, 29, 100, 333)] int width, [Values(1, 30, 56, 200)] int height)
    {
        foreach (var json in (string[])[Next, Idefics])
        {
            var processor = FromJson(json);
            var (rows, columns) = processor.Grid(width, height);
            var tiles = processor.Tiles(Image.Noise(width, height, 1));
            Assert.That(tiles, Has.Count.EqualTo(rows * columns == 1 && json == Idefics ? 1 : rows * columns + 1));
            Assert.That(tiles.Select(t => (t.Width, t.Height)), Is.All.EqualTo(processor.Size));
        }
    }

    [Test]
    public void An_image_of_any_resolution_is_fitted_in_the_middle_of_black()
    {
        var processor = FromJson(Next);
        var tiles = processor.Tiles(Image.Blank(100, 20, 200, 200, 200));
        Assert.That(processor.Grid(100, 20), Is.EqualTo((1, 3)));
        foreach (var tile in tiles.Skip(1))
        {
            // 84 wide, 17 high: 5 rows of black above, 6 below.
            Assert.That(Enumerable.Range(0, 28).Select(y => (int)tile.Pixels[3 * 28 * y]), Is.EqualTo(Enumerable.Range(0, 28).Select(y => y is >= 5 and < 22 ? 200 : 0)));
        }
        Assert.That(tiles[0].Pixels, Is.All.EqualTo(200));
    }

    [TestCase(28, 28, 4, 4)]
    [TestCase(10, 10, 4, 4)]
    [TestCase(1000, 10, 2, 72)]
    [TestCase(4000, 3000, 60, 82)]
    public void Native_sizes_keep_to_their_bounds(int width, int height, int rows, int columns)
    {
        var processor = FromJson("""{"image_processor_type": "Qwen2VLImageProcessor"}""");
        Assert.That(processor.Grid(width, height), Is.EqualTo((rows, columns)));
        Assert.That(() => processor.Grid(2010, 10), Throws.TypeOf<InvalidImageException>().With.Message.Contains("200 times"));
    }
}
