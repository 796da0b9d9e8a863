using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

public class JpegTests
{
    private static IEnumerable<TestCaseData> Samples() =>
        JpegSamples.All.Select(s => new TestCaseData(s.File, s.Orientation, s.Pixels).SetArgDisplayNames(s.Name));

    private static byte[] Sample(string name) => JpegSamples.All.Single(s => s.Name == name).File;

    private static Raster Decode(ReadOnlySpan<byte> file) => JpegDecoder.Decode(file, JpegWebpGolden.Limit);

    private static string Refusal(byte[] file, long maxPixels = JpegWebpGolden.Limit) =>
        Assert.Throws<InvalidImageException>(() => JpegDecoder.Decode(file, maxPixels))!.Message;

    private static int Marker(byte[] file, byte code)
    {
        for (var i = 2; ; i += 2 + (file[i + 2] << 8 | file[i + 3]))
            if (file[i + 1] == code)
                return i;
    }

    [TestCaseSource(nameof(Samples))]
    public void Decodes_every_kind_bit_for_bit(byte[] file, int orientation, string pixels)
    {
        var raster = Decode(file);
        Assert.That((raster.Channels, raster.Orientation, JpegWebpGolden.Hash(raster.Pixels)), Is.EqualTo((3, orientation, pixels)));
    }

    [Test]
    public void Decodes_the_golden_files_bit_for_bit()
    {
        foreach (var path in JpegWebpGolden.Files("*.jpg"))
        {
            var name = Path.GetFileName(path);
            var raster = Decode(File.ReadAllBytes(path));
            JpegWebpGolden.IsExact(raster, name);
            Assert.That(raster.Orientation, Is.EqualTo(name.StartsWith("exif-") ? name[5] - '0' : 1), name);
        }
    }

    [TestCaseSource(nameof(Samples))]
    public void Refuses_a_file_cut_off_anywhere_but_in_its_end_marker(byte[] file, int orientation, string pixels)
    {
        for (var length = 0; length < file.Length - 2; length++)
            Assert.Throws<InvalidImageException>(() => Decode(file.AsSpan(0, length)), $"{length} bytes");
        foreach (var length in new[] { file.Length - 2, file.Length - 1 })
            Assert.That(JpegWebpGolden.Hash(Decode(file.AsSpan(0, length)).Pixels), Is.EqualTo(pixels));
        _ = orientation;
    }

    [TestCaseSource(nameof(Samples))]
    public void Passes_over_fill_and_stray_bytes_between_segments(byte[] file, int orientation, string pixels)
    {
        var loose = new List<byte>(file[..2]);
        var at = 2;
        for (var scan = false; !scan;)
        {
            var length = 2 + (file[at + 2] << 8 | file[at + 3]);
            scan = file[at + 1] == 0xDA;
            loose.AddRange([0x12, 0xFF, 0x00, 0x34, 0xFF, 0xFF, .. file[at..(at + length)]]);
            at += length;
        }
        var raster = Decode((byte[])[.. loose, .. file[at..], 1, 2, 3]);
        Assert.That((raster.Orientation, JpegWebpGolden.Hash(raster.Pixels)), Is.EqualTo((orientation, pixels)));
    }

    [TestCase(0xC3, "lossless")]
    [TestCase(0xC5, "hierarchical")]
    [TestCase(0xC9, "arithmetic")]
    [TestCase(0xCA, "arithmetic")]
    public void Refuses_other_coding_processes_by_name(int code, string name)
    {
        var file = Sample("grey").ToArray();
        file[Marker(file, 0xC0) + 1] = (byte)code;
        Assert.That(Refusal(file), Does.Contain(name));
    }

    [TestCase(4, 12, "12-bit")]
    [TestCase(6, 0, "DNL")]
    [TestCase(8, 0, "width 0")]
    [TestCase(9, 2, "components")]
    [TestCase(11, 0x50, "sampling factors")]
    [TestCase(12, 9, "quantization table")]
    [TestCase(10, 77, "does not name")]
    public void Names_what_is_wrong_in_a_frame_header(int offset, int value, string message)
    {
        var file = Sample("grey").ToArray();
        file[Marker(file, 0xC0) + offset] = (byte)value;
        if (offset == 9)
            Assert.That(Refusal(file), Does.Contain("number of components"));
        else
            Assert.That(Refusal(file), Does.Contain(message));
    }

    [Test]
    public void Checks_the_pixel_limit_before_it_allocates()
    {
        var file = Sample("grey").ToArray();
        Assert.That(Refusal(file, 21 * 13 - 1), Does.Contain("21 × 13"));
        Assert.That(JpegDecoder.Decode(file, 21 * 13).Width, Is.EqualTo(21));
        var frame = Marker(file, 0xC0);
        file.AsSpan(frame + 5, 4).Fill(255);
        Assert.That(Refusal(file, long.MaxValue), Does.Contain("65535 × 65535"));
        // Within the limit, but more blocks than the file has bits.
        file.AsSpan(frame + 5, 4).Fill(0x1F);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.That(Refusal(file), Does.Contain("cannot hold"));
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(100_000));
    }

    [Test]
    public void Bounds_the_work_of_a_progressive_file_with_thousands_of_scans()
    {
        // 512 × 512 grey; one bit a block of DC, then refinements of no coefficient, each a single run over all blocks.
        var file = new List<byte> { 0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0 };
        file.AddRange(Enumerable.Repeat((byte)1, 64));
        file.AddRange([0xFF, 0xC2, 0, 11, 8, 2, 0, 2, 0, 1, 1, 0x11, 0]);
        foreach (var (table, symbol) in new[] { (0x00, 0x00), (0x10, 0xE0) })
            file.AddRange([0xFF, 0xC4, 0, 20, (byte)table, 1, .. new byte[15], (byte)symbol]);
        file.AddRange([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0, .. new byte[512]]);
        var once = file.ToList();
        for (var i = 0; i < 5000; i++)
            file.AddRange([0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 63, 0x21, 0, 0]);
        Assert.That(Refusal([.. file, 0xFF, 0xD9]), Does.Contain("more scans"));
        Assert.That(Decode((byte[])[.. once, 0xFF, 0xD9]).Pixels, Is.All.EqualTo(128));
    }

    [Test]
    public void Refuses_missing_scans_and_tables()
    {
        var file = Sample("baseline 4:4:4 in three scans");
        var scan = Marker(file, 0xDA);
        var second = scan + 2 + file.AsSpan(scan + 2).IndexOf((ReadOnlySpan<byte>)[0xFF, 0xDA]);
        // A segment of tables may stand before the second scan.
        var tables = scan + 2 + file.AsSpan(scan + 2).IndexOf((ReadOnlySpan<byte>)[0xFF, 0xC4]);
        var end = Math.Min(second, tables > scan + 2 ? tables : second);
        Assert.That(Refusal([.. file[..end], 0xFF, 0xD9]), Does.Contain("without a scan of component 2"));
        Assert.That(Refusal([.. file[..2], 0xFF, 0xD9]), Does.Contain("without a frame header"));
        var steps = Marker(file, 0xDB);
        var length = 2 + (file[steps + 2] << 8 | file[steps + 3]);
        Assert.That(Refusal([.. file[..steps], .. file[(steps + length)..]]), Does.Contain("quantization table 0"));
    }

    [Test]
    public void Damaged_files_are_refused_or_decoded_but_never_crash()
    {
        var seed = 1;
        foreach (var (_, file, _, _) in JpegSamples.All)
            JpegWebpGolden.Fuzz(file, JpegDecoder.Decode, 2000, seed++);
    }

    [Test]
    public void Damaged_golden_files_are_refused_or_decoded_but_never_crash()
    {
        var seed = 1000;
        foreach (var path in JpegWebpGolden.Files("*.jpg"))
            JpegWebpGolden.Fuzz(File.ReadAllBytes(path), JpegDecoder.Decode, 1000, seed++);
    }
}
