using System.Text.Json;
using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

/// <summary>The golden images: what Pillow and the Hugging Face processors made of each file.</summary>
public class ImageFixtureTests
{
    private static string Folder(string file) => Shared.Path("fixtures", "images", file);

    private static bool Ours(string file) => Path.GetExtension(file) is ".png" or ".gif" or ".bmp";

    private static JsonElement Expected() => JsonDocument.Parse(File.ReadAllBytes(Folder("expected.json"))).RootElement;

    [Test]
    public void Decodes_every_png_gif_and_bmp_fixture_exactly()
    {
        var tensors = new ExpectedTensors(Folder("expected.safetensors"));
        var seen = 0;
        using var all = Assert.EnterMultipleScope();
        foreach (var file in Expected().GetProperty("images").EnumerateObject().Select(image => image.Name).Where(Ours))
        {
            var tensor = tensors.Has(file + ".on_white") ? file + ".on_white" : tensors.Has(file + ".upright") ? file + ".upright" : file;
            var image = Image.Open(Folder(file));
            Assert.That(new[] { image.Height, image.Width, 3 }, Is.EqualTo(tensors.Shape(tensor)), file);
            Assert.That(image.Pixels.AsSpan().SequenceEqual(tensors.Bytes(tensor)), file);
            seen++;
        }
        Assert.That(seen, Is.GreaterThanOrEqualTo(20));
    }

    [Test]
    public void Resizes_crops_and_pads_the_fixtures_exactly_as_pillow()
    {
        var tensors = new ExpectedTensors(Folder("expected.safetensors"));
        var seen = 0;
        using var all = Assert.EnterMultipleScope();
        foreach (var tensor in tensors.Names)
        {
            var file = tensor[..(tensor.LastIndexOf('.') is > 0 and var dot ? dot : 0)];
            var what = tensor[(file.Length + 1)..];
            if (!Ours(file))
                continue;
            var shape = tensors.Shape(tensor);
            ImageProcessorOptions? options = what switch
            {
                _ when what.StartsWith("crop", StringComparison.Ordinal) => new() { ShortestEdge = shape[0], Crop = (shape[1], shape[0]) },
                _ when what.StartsWith("pad", StringComparison.Ordinal) => new() { PadToSquare = true, ShortestEdge = shape[0], Crop = (shape[1], shape[0]) },
                _ when what.StartsWith("bilinear", StringComparison.Ordinal) =>
                    new() { ShortestEdge = null, Crop = null, Exact = (shape[1], shape[0]), Resampling = Resampling.Bilinear },
                _ when what.StartsWith("lanczos", StringComparison.Ordinal) =>
                    new() { ShortestEdge = null, Crop = null, Exact = (shape[1], shape[0]), Resampling = Resampling.Lanczos },
                _ => null,
            };
            if (options is null)
                continue;
            var prepared = new ImageProcessor(options).Prepare(Image.Open(Folder(file)));
            Assert.That(new[] { prepared.Height, prepared.Width, 3 }, Is.EqualTo(shape), tensor);
            Assert.That(prepared.Pixels.AsSpan().SequenceEqual(tensors.Bytes(tensor)), tensor);
            seen++;
        }
        Assert.That(seen, Is.GreaterThanOrEqualTo(17));
    }

    [Test]
    public void Makes_the_pixel_values_of_the_llava_fixtures()
    {
        var seen = 0;
        using var all = Assert.EnterMultipleScope();
        foreach (var model in (string[])["llava-gqa", "llava-576", "llava-llama3", "llava-siglip-qwen2"])
        {
            var processor = ImageProcessor.Open(Shared.Path("fixtures", "models", model, "preprocessor_config.json"));
            var tensors = new ExpectedTensors(Shared.Path("fixtures", "expected", model + ".safetensors"));
            using var cases = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "expected", model + ".json")));
            foreach (var one in cases.RootElement.GetProperty("cases").EnumerateArray())
            {
                var tensor = one.GetProperty("id").GetString() + ".pixel_values";
                if (one.GetProperty("image").GetString() is not { } file || !Ours(file) || !tensors.Has(tensor))
                    continue;
                Assert.That(tensors.Shape(tensor), Is.EqualTo(new[] { 1, 3, processor.Size.Height, processor.Size.Width }), tensor);
                var pixels = new float[3 * processor.Size.Width * processor.Size.Height];
                processor.Normalise(processor.Tiles(Image.Open(Folder(file))).Single(), pixels);
                var worst = pixels.Zip(tensors.Floats(tensor), (a, b) => Math.Abs(a - b)).Max();
                TestContext.Out.WriteLine($"{model} {tensor}: largest deviation {worst:g3}");
                Assert.That(worst, Is.LessThanOrEqualTo(1e-6f), $"{model} {tensor}");
                seen++;
            }
        }
        Assert.That(seen, Is.GreaterThanOrEqualTo(6));
    }

    [Test]
    public void Refuses_every_fixture_cut_short_anywhere()
    {
        using var all = Assert.EnterMultipleScope();
        foreach (var file in Directory.GetFiles(Folder("")).Where(Ours))
        {
            var bytes = File.ReadAllBytes(file);
            for (var length = 0; length < bytes.Length; length += 1 + length / 8)
                Assert.That(() => ImageDecoder.Decode(bytes.AsSpan(0, length), "cut"), Throws.TypeOf<InvalidImageException>(), $"{file} {length}");
            Assert.That(() => ImageDecoder.Decode(bytes.AsSpan(0, bytes.Length - 1), "cut"), Throws.TypeOf<InvalidImageException>(), file);
        }
    }
}
