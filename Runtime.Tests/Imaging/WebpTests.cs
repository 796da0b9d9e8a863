using System.Buffers.Binary;
using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

public class WebpTests
{
    private static IEnumerable<TestCaseData> Samples() =>
        WebpSamples.All.Select(s => new TestCaseData(s.File, s.Orientation, s.Pixels).SetArgDisplayNames(s.Name));

    private static byte[] Sample(string name) => WebpSamples.All.Single(s => s.Name == name).File;

    private static Raster Decode(ReadOnlySpan<byte> file) => WebpDecoder.Decode(file, JpegWebpGolden.Limit);

    private static string Refusal(byte[] file, long maxPixels = JpegWebpGolden.Limit) =>
        Assert.Throws<InvalidImageException>(() => WebpDecoder.Decode(file, maxPixels))!.Message;

    /// <summary>A file of these chunks, whatever they are.</summary>
    private static byte[] Riff(params byte[][] chunks)
    {
        byte[] body = [.. "WEBP"u8, .. chunks.SelectMany(c => c)];
        var size = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(size, body.Length);
        return [.. "RIFF"u8, .. size, .. body];
    }

    private static byte[] Chunk(string name, params byte[] body) =>
        [.. name.Select(c => (byte)c), (byte)body.Length, (byte)(body.Length >> 8), 0, 0, .. body, .. new byte[body.Length & 1]];

    private static byte[] Extended(int width, int height, int flags) =>
        Chunk("VP8X", (byte)flags, 0, 0, 0, (byte)(width - 1), 0, 0, (byte)(height - 1), 0, 0);

    [TestCaseSource(nameof(Samples))]
    public void Decodes_every_kind_bit_for_bit(byte[] file, int orientation, string pixels)
    {
        var raster = Decode(file);
        Assert.That((raster.Orientation, JpegWebpGolden.Hash(raster.Pixels)), Is.EqualTo((orientation, pixels)));
    }

    [Test]
    public void Decodes_the_golden_files_bit_for_bit()
    {
        foreach (var path in JpegWebpGolden.Files("*.webp"))
        {
            var name = Path.GetFileName(path);
            var raster = Decode(File.ReadAllBytes(path));
            JpegWebpGolden.IsExact(raster, name);
            if (raster.Channels != 4)
                continue;
            var white = JpegWebpGolden.Expected(name + ".on_white").Pixels;
            for (var i = 0; i < white.Length; i++)
            {
                int alpha = raster.Pixels[i / 3 * 4 + 3], colour = raster.Pixels[i / 3 * 4 + i % 3];
                Assert.That((colour * alpha + 255 * (255 - alpha)) / 255.0, Is.EqualTo(white[i]).Within(1), name);
            }
        }
    }

    [TestCaseSource(nameof(Samples))]
    public void Refuses_a_file_cut_off_anywhere(byte[] file, int orientation, string pixels)
    {
        for (var length = 0; length < file.Length; length++)
            Assert.Throws<InvalidImageException>(() => Decode(file.AsSpan(0, length)), $"{length} bytes");
        _ = (orientation, pixels);
    }

    [TestCaseSource(nameof(Samples))]
    public void Ignores_what_follows_the_file(byte[] file, int orientation, string pixels)
    {
        Assert.That(JpegWebpGolden.Hash(Decode((byte[])[.. file, 1, 2, 3]).Pixels), Is.EqualTo(pixels));
        _ = orientation;
    }

    [Test]
    public void Checks_the_pixel_limit_before_it_allocates()
    {
        Assert.That(Refusal(Sample("lossy, simple filter"), 37 * 35 - 1), Does.Contain("37 × 35"));
        Assert.That(Refusal(Sample("lossless, three colours"), 23 * 17 - 1), Does.Contain("23 × 17"));
        Assert.That(WebpDecoder.Decode(Sample("lossless, three colours"), 23 * 17).Height, Is.EqualTo(17));
        // A canvas far larger than its frame.
        var file = Sample("first of two frames, off the canvas's corner").ToArray();
        file.AsSpan(24, 6).Fill(255);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.That(Refusal(file, long.MaxValue), Does.Contain("16777216 × 16777216"));
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(100_000));
    }

    [Test]
    public void Decodes_a_plain_image_in_an_extended_file_with_unknown_chunks()
    {
        var image = Sample("lossless, three colours")[12..];
        var raster = Decode(Riff(Extended(23, 17, 0), Chunk("ABCD", 1, 2, 3), image, Chunk("wxyz")));
        Assert.That(raster.Pixels, Is.EqualTo(Decode(Sample("lossless, three colours")).Pixels));
    }

    [TestCase(0, 3)]
    [TestCase(16, 4)]
    public void Heeds_an_ALPH_chunk_that_the_header_announces(int flags, int channels)
    {
        var alpha = Chunk("ALPH", [0, .. Enumerable.Repeat((byte)7, 37 * 35)]);
        var raster = Decode(Riff(Extended(37, 35, flags), alpha, Sample("lossy, simple filter")[12..]));
        Assert.That(raster.Channels, Is.EqualTo(channels));
        Assert.That(raster.Pixels[^1] == 7, Is.EqualTo(channels == 4));
    }

    [TestCase(8, "", 3)]
    [TestCase(8, "Exif\0\0", 3)]
    [TestCase(0, "", 1)] // not announced: libwebp does not see it
    public void Finds_the_orientation_in_an_announced_exif_chunk(int flags, string prefix, int orientation)
    {
        byte[] exif = [.. prefix.Select(c => (byte)c), .. "MM\0*"u8, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0];
        var image = Sample("lossless, three colours")[12..];
        Assert.That(Decode(Riff(Extended(23, 17, flags), image, Chunk("EXIF", exif))).Orientation, Is.EqualTo(orientation));
    }

    [Test]
    public void Names_what_is_wrong_in_a_file()
    {
        var lossless = Sample("lossless, three colours")[12..];
        var lossy = Sample("lossy, simple filter")[12..];
        Assert.That(Refusal(Riff(Extended(22, 17, 0), lossless)), Does.Contain("23 × 17 on a canvas of 22 × 17"));
        Assert.That(Refusal(Riff(Extended(23, 17, 2), lossless)), Does.Contain("without a frame"));
        Assert.That(Refusal(Riff(Extended(23, 17, 0), Chunk("ICCP", 1))), Does.Contain("no image"));
        Assert.That(Refusal(Riff(Extended(37, 35, 16), Chunk("ALPH", 0, 1, 2), lossy)), Does.Contain("ALPH chunk of 2 bytes"));
        Assert.That(Refusal(Riff(Extended(37, 35, 16), Chunk("ALPH", 2), lossy)), Does.Contain("compression 2"));
        Assert.That(Refusal(Riff(Chunk("ABCD", 1))), Does.Contain("'ABCD'"));
        Assert.That(Refusal(Riff(Chunk("VP8L", 0x2E, 0, 0, 0, 0))), Does.Contain("2E, not 2F"));
        Assert.That(Refusal(Riff(Chunk("VP8L", 0x2F, 0, 0, 0, 0x20))), Does.Contain("version 1"));
        lossy[8] |= 1;
        Assert.That(Refusal(Riff(lossy)), Does.Contain("no key frame"));
    }

    [Test]
    public void Damaged_files_are_refused_or_decoded_but_never_crash()
    {
        var seed = 1;
        foreach (var (_, file, _, _) in WebpSamples.All)
            JpegWebpGolden.Fuzz(file, WebpDecoder.Decode, 2000, seed++);
    }

    [Test]
    public void Damaged_golden_files_are_refused_or_decoded_but_never_crash()
    {
        var seed = 1000;
        foreach (var path in JpegWebpGolden.Files("*.webp"))
            JpegWebpGolden.Fuzz(File.ReadAllBytes(path), WebpDecoder.Decode, 1500, seed++);
    }
}
