using Trimtab.Imaging;
using static Trimtab.Tests.Imaging.ImageFiles;

namespace Trimtab.Tests.Imaging;

public class ImageTests
{
    private string _folder = "";

    [SetUp]
    public void MakeFolder() => _folder = Directory.CreateTempSubdirectory("trimtab-images").FullName;

    [TearDown]
    public void RemoveFolder() => Directory.Delete(_folder, recursive: true);

    [TestCase(1, 1)]
    [TestCase(37, 5)]
    [TestCase(300, 211)]
    public void Saved_pngs_read_back_as_they_were(int width, int height)
    {
        var image = Image.Noise(width, height, 7);
        var path = Path.Combine(_folder, "a.png");
        image.Save(path);
        image.Save(path);
        var read = Image.Open(path);
        Assert.That((read.Width, read.Height), Is.EqualTo((width, height)));
        Assert.That(read.Pixels, Is.EqualTo(image.Pixels));
        Assert.That(Directory.GetFiles(_folder), Has.Length.EqualTo(1), "no temporary file is left");
    }

    [Test]
    public void Saves_ppm()
    {
        var path = Path.Combine(_folder, "a.PPM");
        new Image(2, 1, [1, 2, 3, 4, 5, 6]).Save(path);
        Assert.That(File.ReadAllBytes(path), Is.EqualTo(Join("P6\n2 1\n255\n"u8.ToArray(), [1, 2, 3, 4, 5, 6])));
    }

    [Test]
    public void Saves_no_other_format_and_leaves_nothing_when_it_fails()
    {
        var image = Image.Blank(1, 1, 0, 0, 0);
        Assert.That(() => image.Save(Path.Combine(_folder, "a.jpg")), Throws.ArgumentException);
        Directory.CreateDirectory(Path.Combine(_folder, "b.png"));
        Assert.That(() => image.Save(Path.Combine(_folder, "b.png")), Throws.Exception);
        Assert.That(Directory.GetFiles(_folder), Is.Empty);
    }

    [Test]
    public void Blank_has_one_colour() => Assert.That(Image.Blank(2, 1, 9, 8, 7).Pixels, Is.EqualTo(new byte[] { 9, 8, 7, 9, 8, 7 }));

    [Test]
    public void Noise_is_splitmix64_of_its_seed()
    {
        // SplitMix64 from 0 begins E220A8397B1DCDAF, 6E789E6AA1B965F4.
        Assert.That(Image.Noise(1, 4, 0).Pixels, Is.EqualTo(Bytes("AFCD1D7B39A820E2 F465B9A1")));
        Assert.That(Image.Noise(8, 8, 1).Pixels, Is.Not.EqualTo(Image.Noise(8, 8, 2).Pixels));
        var levels = Image.Noise(256, 256, 3).Pixels.GroupBy(level => level).Select(group => group.Count()).ToArray();
        // Chi-square of 255 degrees of freedom: 347 is its 1 - 1e-4 quantile.
        var expected = 256 * 256 * 3 / 256.0;
        Assert.That(levels.Sum(count => (count - expected) * (count - expected) / expected), Is.LessThan(347));
    }

    [Test]
    public void Sizes_must_fit_the_pixels()
    {
        Assert.That(() => new Image(2, 2, new byte[11]), Throws.ArgumentException);
        Assert.That(() => new Image(0, 2, []), Throws.InstanceOf<ArgumentException>());
        Assert.That(() => Image.Noise(1 << 20, 1 << 20, 0), Throws.InstanceOf<ArgumentException>());
    }

    [Test]
    public void Refuses_what_is_no_image_and_names_the_file()
    {
        var path = Path.Combine(_folder, "notes.png");
        File.WriteAllText(path, "hello");
        Assert.That(() => Image.Open(path), Throws.TypeOf<InvalidImageException>().With.Message.Contains("notes.png: not a PNG").And.Message.Contains("68656C6C6F"));
        File.WriteAllBytes(path, []);
        Assert.That(() => Image.Open(path), Throws.TypeOf<InvalidImageException>().With.Message.Contains("empty"));
        Assert.That(() => Image.Open(Path.Combine(_folder, "none.png")), Throws.InstanceOf<IOException>());
    }

    [Test]
    public void Holds_to_the_pixel_limit_it_is_given()
    {
        var file = Png(3, 2, 8, 0, Bytes("00 010203 00 040506"));
        Assert.That(ImageDecoder.Decode(file, "a", maxPixels: 6).Width, Is.EqualTo(3));
        Assert.That(() => ImageDecoder.Decode(file, "a", maxPixels: 5), Throws.TypeOf<InvalidImageException>().With.Message.Contains("3 x 2").And.Message.Contains("5 pixels"));
    }

    [Test]
    public void Turns_an_image_upright_from_each_orientation()
    {
        // Stored as  a b c  and seen as the standard's table of rows and columns says.
        //            d e f
        var expected = new[] { "abc/def", "cba/fed", "fed/cba", "def/abc", "ad/be/cf", "da/eb/fc", "fc/eb/da", "cf/be/ad" };
        for (var orientation = 1; orientation <= 8; orientation++)
        {
            var exif = Chunk("eXIf", Bytes($"49492A00 08000000 0100 1201 0300 01000000 {orientation:X2}000000 00000000"));
            var image = ImageDecoder.Decode(Png(3, 2, 8, 0, [0, .. "abc"u8, 0, .. "def"u8], 0, exif), "a");
            var rows = image.Pixels.Where((_, i) => i % 3 == 0).Select(level => (char)level).Chunk(image.Width).Select(row => new string(row));
            Assert.That(string.Join('/', rows), Is.EqualTo(expected[orientation - 1]), $"orientation {orientation}");
        }
    }

    [TestCase("", 1)]
    [TestCase("4D4D002A", 1)]
    [TestCase("4D4D002A FFFFFFFF 0000", 1)]
    [TestCase("4D4D002A 00000008 0001", 1)]
    [TestCase("4D4D002A 00000008 FFFF 0112 0003 00000001 0003", 1)]
    [TestCase("4D4D002A 00000008 FFFF 0112 0003 00000001 00030000", 3)]
    [TestCase("457869660000 4D4D002A 00000008 0001 0112 0003 00000001 00080000", 8)]
    [TestCase("49492A00 08000000 0200 0F01 0200 01000000 00000000 1201 0400 01000000 05000000", 5)]
    [TestCase("49492A00 08000000 0100 1201 0100 01000000 07000000", 7)]
    [TestCase("49492A00 08000000 0100 1201 0300 01000000 09000000", 1)]
    [TestCase("49492A00 08000000 0100 1201 0300 01000000 00000000", 1)]
    [TestCase("49492A00 08000000 0100 1201 0200 01000000 03000000", 1)]
    public void Reads_the_orientation_of_exif_or_takes_it_for_upright(string tiff, int orientation) =>
        Assert.That(Exif.Orientation(Bytes(tiff)), Is.EqualTo(orientation));
}
