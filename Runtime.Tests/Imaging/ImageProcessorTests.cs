using System.Text;
using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

public class ImageProcessorTests
{
    private static ImageProcessor FromJson(string json) => ImageProcessor.FromJson(Encoding.UTF8.GetBytes(json), "preprocessor_config.json");

    private static Image Greys(int width, params int[] levels) =>
        new(width, levels.Length / width, [.. levels.SelectMany(level => Enumerable.Repeat((byte)level, 3))]);

    private static int[] Levels(Image image) => [.. image.Pixels.Where((_, i) => i % 3 == 0).Select(level => (int)level)];

    private static Image Resize(Image image, int width, int height, Resampling how) =>
        new ImageProcessor(new() { ShortestEdge = null, Crop = null, Exact = (width, height), Resampling = how }).Prepare(image);

    // What Pillow makes of 0 40 200 255 90, along either axis.
    [TestCase(Resampling.Nearest, new[] { 0, 200, 90 }, new[] { 0, 0, 40, 200, 200, 255, 90, 90 })]
    [TestCase(Resampling.Lanczos, new[] { 2, 192, 169 }, new[] { 1, 2, 48, 149, 246, 255, 155, 71 })]
    [TestCase(Resampling.Bilinear, new[] { 17, 177, 161 }, new[] { 0, 18, 50, 150, 217, 252, 162, 90 })]
    [TestCase(Resampling.Bicubic, new[] { 10, 186, 165 }, new[] { 0, 8, 47, 154, 232, 255, 158, 78 })]
    [TestCase(Resampling.Box, new[] { 20, 200, 173 }, new[] { 0, 0, 40, 200, 200, 255, 90, 90 })]
    [TestCase(Resampling.Hamming, new[] { 15, 185, 152 }, new[] { 0, 14, 41, 178, 208, 255, 149, 90 })]
    public void Resizes_as_pillow(Resampling how, int[] shrunk, int[] grown)
    {
        int[] levels = [0, 40, 200, 255, 90];
        Assert.That(Levels(Resize(Greys(5, levels), 3, 1, how)), Is.EqualTo(shrunk));
        Assert.That(Levels(Resize(Greys(5, levels), 8, 1, how)), Is.EqualTo(grown));
        Assert.That(Levels(Resize(Greys(1, levels), 1, 3, how)), Is.EqualTo(shrunk));
        Assert.That(Levels(Resize(Greys(1, levels), 1, 8, how)), Is.EqualTo(grown));
    }

    [TestCase(60, 120, 30, 60, true, TestName = "Rows_are_resized_before_columns")]
    [TestCase(60, 121, 30, 60, false, TestName = "Columns_are_resized_before_rows_where_the_height_loses_more_than_twice_what_the_width_loses")]
    [TestCase(60, 40, 80, 41, true, TestName = "Rows_are_resized_before_columns_where_both_grow")]
    public void One_axis_is_resized_after_the_other(int width, int height, int newWidth, int newHeight, bool rowsFirst)
    {
        // The result of two resizes of one axis each tells the order, as each rounds.
        var image = Image.Noise(width, height, 4);
        var between = rowsFirst ? Resize(image, newWidth, height, Resampling.Bicubic) : Resize(image, width, newHeight, Resampling.Bicubic);
        Assert.That(Resize(image, newWidth, newHeight, Resampling.Bicubic).Pixels, Is.EqualTo(Resize(between, newWidth, newHeight, Resampling.Bicubic).Pixels));
    }

    [Test]
    public void Resizing_to_the_same_size_changes_nothing([Values] Resampling how)
    {
        var image = Image.Noise(13, 9, 1);
        Assert.That(Resize(image, 13, 9, how).Pixels, Is.EqualTo(image.Pixels));
    }

    [Test]
    public void One_colour_stays_that_colour([Values] Resampling how, [Values(1, 7, 64, 301)] int size)
    {
        var image = Resize(Image.Blank(50, 31, 255, 1, 128), size, size + 3, how);
        Assert.That(image.Pixels, Is.EqualTo(Image.Blank(size, size + 3, 255, 1, 128).Pixels));
    }

    [Test]
    public void Padding_that_is_never_stored_gives_what_stored_padding_gives([Values] Resampling how, [Values(5, 24, 61)] int size)
    {
        foreach (var (width, height) in ((int, int)[])[(40, 7), (7, 40), (31, 30), (1, 64), (9, 9)])
        {
            var image = Image.Noise(width, height, 5);
            var side = Math.Max(width, height);
            var options = new ImageProcessorOptions { PadToSquare = true, ShortestEdge = size, Crop = (size - 2, size), Resampling = how };
            // int(mean x 255), as LLaVA computes it.
            var square = Image.Blank(side, side, 122, 116, 104);
            for (var y = 0; y < height; y++)
                image.Pixels.AsSpan(3 * y * width, 3 * width).CopyTo(square.Pixels.AsSpan(3 * (((side - height) / 2 + y) * side + (side - width) / 2)));
            var expected = new ImageProcessor(options with { PadToSquare = false }).Prepare(square);
            Assert.That(new ImageProcessor(options).Prepare(image).Pixels, Is.EqualTo(expected.Pixels), $"{width} x {height}");
            var squashed = options with { ShortestEdge = null, Crop = null, Exact = (side, 3) };
            expected = new ImageProcessor(squashed with { PadToSquare = false }).Prepare(square);
            Assert.That(new ImageProcessor(squashed).Prepare(image).Pixels, Is.EqualTo(expected.Pixels), $"{width} x {height}, squashed");
        }
    }

    [Test]
    public void A_crop_is_a_window_of_the_whole([Values] Resampling how)
    {
        var image = Image.Noise(90, 37, 2);
        var whole = Resize(image, (int)(20 * 90.0 / 37), 20, how);
        var crop = new ImageProcessor(new() { ShortestEdge = 20, Crop = (11, 14), Resampling = how }).Prepare(image);
        for (var y = 0; y < 14; y++)
            Assert.That(crop.Pixels.AsSpan(33 * y, 33).SequenceEqual(whole.Pixels.AsSpan(3 * ((3 + y) * whole.Width + (whole.Width - 11) / 2), 33)), $"row {y}");
    }

    [TestCase("CLIPImageProcessor", new[] { 0, 0, 0, 0, 10, 20, 0, 30, 40 }, TestName = "A_smaller_image_is_padded_left_and_top_first")]
    [TestCase("CLIPImageProcessorFast", new[] { 10, 20, 0, 30, 40, 0, 0, 0, 0 }, TestName = "A_smaller_image_is_padded_right_and_bottom_first_by_fast_processors")]
    public void A_smaller_image_lies_in_the_middle_of_black(string type, int[] expected)
    {
        var processor = FromJson($$"""{"image_processor_type": "{{type}}", "do_resize": false, "crop_size": 3}""");
        Assert.That(Levels(processor.Prepare(Greys(2, 10, 20, 30, 40))), Is.EqualTo(expected));
    }

    [Test]
    public void A_crop_wider_and_lower_than_the_image_pads_and_cuts()
    {
        var processor = FromJson("""{"image_processor_type": "CLIPImageProcessor", "do_resize": false, "crop_size": {"height": 1, "width": 4}}""");
        Assert.That(Levels(processor.Prepare(Greys(2, 1, 2, 3, 4, 5, 6))), Is.EqualTo(new[] { 0, 3, 4, 0 }));
    }

    [Test]
    public void A_hair_of_an_image_takes_no_more_memory_than_its_crop()
    {
        var image = Image.Noise(1, 200_000, 1);
        var clip = Clip(56, [0, 0, 0], [1, 1, 1]);
        Assert.That(clip.Prepare(image).Height, Is.EqualTo(56));
        Assert.That(new ImageProcessor(clip.Options with { PadToSquare = true }).Prepare(image).Width, Is.EqualTo(56));
        var large = new ImageProcessor(clip.Options with { ShortestEdge = 4096 });
        Assert.That(() => large.Prepare(image), Throws.TypeOf<InvalidImageException>().With.Message.Contains("too narrow"));
    }

    [Test]
    public void Normalises_in_float32_as_numpy()
    {
        float[] mean = [0.48145466f, 0.4578275f, 0.40821073f], std = [0.26862954f, 0.26130258f, 0.27577711f];
        var processor = Clip(16, mean, std);
        var image = new Image(16, 16, [.. Enumerable.Range(0, 768).Select(i => (byte)(i / 3))]);
        var pixels = new float[768];
        processor.Normalise(image, pixels);
        for (var channel = 0; channel < 3; channel++)
            for (var level = 0; level < 256; level++)
                Assert.That(pixels[256 * channel + level], Is.EqualTo(((float)(level * (1.0 / 255)) - mean[channel]) / std[channel]));
        Assert.That(() => processor.Normalise(image, new float[767]), Throws.ArgumentException);
        Assert.That(() => processor.Normalise(Image.Blank(16, 15, 0, 0, 0), pixels), Throws.ArgumentException);
    }

    [Test]
    public void Fills_a_sparse_file_with_the_processors_own_defaults()
    {
        var clip = FromJson("""{"feature_extractor_type": "CLIPFeatureExtractor"}""").Options;
        Assert.That((clip.ShortestEdge, clip.Exact, clip.Crop, clip.Resampling, clip.PadToSquare), Is.EqualTo(((int?)224, ((int, int)?)null, ((int, int)?)(224, 224), Resampling.Bicubic, false)));
        Assert.That(clip.Mean, Is.EqualTo(new[] { 0.48145466, 0.4578275, 0.40821073 }));
        var siglip = FromJson("""{"image_processor_type": "SiglipImageProcessorFast"}""").Options;
        Assert.That((siglip.ShortestEdge, siglip.Exact, siglip.Crop, siglip.Resampling), Is.EqualTo(((int?)null, ((int, int)?)(224, 224), ((int, int)?)null, Resampling.Bicubic)));
        Assert.That(siglip.Std, Is.EqualTo(new[] { 0.5, 0.5, 0.5 }));
        Assert.That(FromJson("""{"image_processor_type": "ViTImageProcessor"}""").Options.Resampling, Is.EqualTo(Resampling.Bilinear));
    }

    [Test]
    public void Understands_every_form_of_a_size()
    {
        using var all = Assert.EnterMultipleScope();
        Assert.That(FromJson("""{"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": 20}""").Options, Has.Property("ShortestEdge").EqualTo(30));
        Assert.That(FromJson("""{"size": {"shortest_edge": 30, "longest_edge": null}, "crop_size": {"height": 20, "width": 10}}""").Size, Is.EqualTo((10, 20)));
        Assert.That(FromJson("""{"size": {"height": 30, "width": 40}, "do_center_crop": false}""").Size, Is.EqualTo((40, 30)));
        Assert.That(FromJson("""{"image_processor_type": "ViTFeatureExtractor", "size": 30}""").Size, Is.EqualTo((30, 30)));
        Assert.That(FromJson("""{"image_processor_type": "ViTImageProcessor", "size": [30, 40]}""").Size, Is.EqualTo((40, 30)));
        Assert.That(FromJson("""{"image_processor": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 30, "width": 40}}}""").Size, Is.EqualTo((40, 30)));
        Assert.That(FromJson("""{"image_processor_type": "LlavaImageProcessor", "do_pad": true, "size": {"shortest_edge": 30}, "do_center_crop": false}""").Size, Is.EqualTo((30, 30)));
        Assert.That(FromJson("""{"image_aspect_ratio": "pad"}""").Options.PadToSquare);
    }

    private static ImageProcessor Clip(int size, float[] mean, float[] std) => new(new()
    {
        ShortestEdge = size, Crop = (size, size), Mean = [.. mean.Select(x => (double)x)], Std = [.. std.Select(x => (double)x)],
    });

    [Test]
    public void Steps_that_are_switched_off_do_nothing()
    {
        var processor = FromJson("""{"do_resize": false, "do_rescale": false, "do_normalize": false, "crop_size": 2, "image_mean": null, "do_pad": null}""");
        var pixels = new float[12];
        processor.Normalise(processor.Prepare(Greys(2, 0, 1, 128, 255)), pixels);
        Assert.That(pixels[..4], Is.EqualTo(new float[] { 0, 1, 128, 255 }));
    }

    [TestCase("""{"image_processor_type": "MllamaImageProcessor"}""", "MllamaImageProcessor")]
    [TestCase("""{"image_processor_type": "PixtralImageProcessor"}""", "PixtralImageProcessor")]
    [TestCase("""{"image_processor_type": "Gemma3ImageProcessor", "do_pan_and_scan": true}""", "do_pan_and_scan")]
    [TestCase("""{"image_processor_type": "Qwen2VLImageProcessor", "do_resize": false}""", "do_resize")]
    [TestCase("""{"image_aspect_ratio": "anyres"}""", "image_aspect_ratio anyres")]
    [TestCase("""{"do_image_splitting": true}""", "do_image_splitting")]
    [TestCase("""{"pad_size": {"height": 3, "width": 3}}""", "pad_size")]
    [TestCase("""{"size": {"longest_edge": 3}}""", "size.longest_edge")]
    public void Refuses_what_is_not_supported_by_name(string json, string name) =>
        Assert.That(() => FromJson(json), Throws.TypeOf<NotSupportedException>().With.Message.StartsWith("preprocessor_config.json: ").And.Message.Contains(name));

    [TestCase("", "not JSON")]
    [TestCase("{", "not JSON")]
    [TestCase("[]", "a JSON object")]
    [TestCase("""{"image_processor": 1}""", "a JSON object")]
    [TestCase("""{"image_processor_type": 1}""", "image_processor_type is 1")]
    [TestCase("""{"size": {"shortest_edge": 0}}""", "size.shortest_edge is 0")]
    [TestCase("""{"size": {"shortest_edge": 1e99}}""", "size.shortest_edge")]
    [TestCase("""{"size": {"shortest_edge": "a"}}""", "size.shortest_edge is a")]
    [TestCase("""{"size": {"height": 3}}""", "size is")]
    [TestCase("""{"size": {"height": 3, "width": 1.5}}""", "size.width is 1.5")]
    [TestCase("""{"crop_size": 100000}""", "crop_size is 100000")]
    [TestCase("""{"crop_size": []}""", "crop_size is []")]
    [TestCase("""{"resample": 6}""", "resample is 6")]
    [TestCase("""{"resample": "bicubic"}""", "resample is bicubic")]
    [TestCase("""{"do_resize": 1}""", "do_resize is 1")]
    [TestCase("""{"image_mean": [1, 2]}""", "image_mean has 2")]
    [TestCase("""{"image_std": [1, 0, 1]}""", "image_std")]
    [TestCase("""{"image_std": [1, "x", 1]}""", "image_std is x")]
    [TestCase("""{"rescale_factor": "x"}""", "rescale_factor is x")]
    [TestCase("""{"do_center_crop": false}""", "same size")]
    [TestCase("""{"image_processor_type": "LlavaNextImageProcessor"}""", "image_grid_pinpoints")]
    [TestCase("""{"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": [[1, 2], [3]]}""", "image_grid_pinpoints is [3]")]
    [TestCase("""{"image_processor_type": "Idefics3ImageProcessor", "max_image_size": 3}""", "max_image_size is 3")]
    [TestCase("""{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 0}""", "patch_size is 0")]
    [TestCase("""{"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 100, "max_pixels": 99}""", "at least 100 and at most 99")]
    public void Says_which_field_is_wrong(string json, string why) =>
        Assert.That(() => FromJson(json), Throws.TypeOf<InvalidDataException>().With.Message.StartsWith("preprocessor_config.json: ").And.Message.Contains(why));
}
