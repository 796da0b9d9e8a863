using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

public class ImageHeaderTests
{
    /// <summary>Every golden image that decodes, EXIF turns among them, is measured as what it decodes to.</summary>
    [Test]
    public void Sizes_are_those_of_the_decoded_images()
    {
        var kinds = new Dictionary<string, int>();
        using var all = Assert.EnterMultipleScope();
        foreach (var path in Directory.GetFiles(Shared.Path("fixtures", "images")).Where(p => Path.GetExtension(p) is ".png" or ".jpg" or ".gif" or ".bmp" or ".webp"))
        {
            Image image;
            try
            {
                image = Image.Open(path);
            }
            catch (InvalidImageException)
            {
                continue;
            }
            Assert.That(ImageHeader.Measure(File.ReadAllBytes(path), "x"), Is.EqualTo((image.Width, image.Height)), Path.GetFileName(path));
            kinds[Path.GetExtension(path)] = kinds.GetValueOrDefault(Path.GetExtension(path)) + 1;
        }
        Assert.That(kinds.Keys, Is.SupersetOf(new[] { ".png", ".jpg", ".gif", ".bmp" }));
    }

    /// <summary>Whatever is cut off or changed, the answer is a size or the one error.</summary>
    [Test]
    public void Damage_is_refused_or_measured_and_nothing_else()
    {
        var random = new Random(1);
        foreach (var path in Directory.GetFiles(Shared.Path("fixtures", "images")).Where(p => Path.GetExtension(p) is ".png" or ".jpg" or ".gif" or ".bmp" or ".webp"))
        {
            var file = File.ReadAllBytes(path);
            for (var run = 0; run < 200; run++)
            {
                var damaged = file[..random.Next(Math.Min(file.Length, 400) + 1)];
                for (var i = 0; i < run % 4 && damaged.Length > 0; i++)
                    damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
                try
                {
                    Assert.That(ImageHeader.Measure(damaged, "x").Width, Is.Positive);
                }
                catch (InvalidImageException e)
                {
                    Assert.That(e.Message, Does.StartWith("x: "));
                }
            }
        }
    }
}
