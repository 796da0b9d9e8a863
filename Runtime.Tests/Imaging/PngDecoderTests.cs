using Trimtab.Imaging;
using static Trimtab.Tests.Imaging.ImageFiles;

namespace Trimtab.Tests.Imaging;

/// <summary>PNG files built by hand, the values worked out from the standard.</summary>
public class PngDecoderTests
{
    private static byte[] Decode(byte[] file) => ImageDecoder.Decode(file, "test").Pixels;

    private static byte[] Grey(params int[] levels) => [.. levels.SelectMany(level => Enumerable.Repeat((byte)level, 3))];

    [TestCase(1, "A0", 3, new[] { 255, 0, 255 })]
    [TestCase(2, "1B", 4, new[] { 0, 85, 170, 255 })]
    [TestCase(4, "07F0", 3, new[] { 0, 119, 255 })]
    [TestCase(8, "0080FF", 3, new[] { 0, 128, 255 })]
    [TestCase(16, "00FF 8000 FFFF", 3, new[] { 0, 128, 255 })]
    public void Decodes_grey_of_every_depth(int depth, string row, int width, int[] levels) =>
        Assert.That(Decode(Png(width, 1, depth, 0, Bytes("00" + row))), Is.EqualTo(Grey(levels)));

    [Test]
    public void Decodes_true_colour_of_8_and_16_bits()
    {
        Assert.That(Decode(Png(2, 1, 8, 2, Bytes("00 010203 F0F1F2"))), Is.EqualTo(Bytes("010203F0F1F2")));
        Assert.That(Decode(Png(1, 1, 16, 2, Bytes("00 01FF 02FF 03FF"))), Is.EqualTo(Bytes("010203")));
    }

    [Test]
    public void Decodes_palettes_and_takes_indices_beyond_them_for_black() =>
        Assert.That(Decode(Png(4, 1, 2, 3, Bytes("00 1B"), 0, Chunk("PLTE", Bytes("0A0B0C 141516 1E1F20")))), Is.EqualTo(Bytes("0A0B0C 141516 1E1F20 000000")));

    [Test]
    public void Puts_transparent_pixels_on_white()
    {
        // 128 of 255: 255 - 128 + level * 128 / 255, rounded.
        Assert.That(Decode(Png(3, 1, 8, 4, Bytes("00 0080 6400 64FF"))), Is.EqualTo(Grey(127, 255, 100)));
        Assert.That(Decode(Png(1, 1, 16, 4, Bytes("00 00FF 80FF"))), Is.EqualTo(Grey(127)));
        Assert.That(Decode(Png(2, 1, 8, 6, Bytes("00 0A141EFF 0A141E00"))), Is.EqualTo(Bytes("0A141E FFFFFF")));
        Assert.That(Decode(Png(1, 1, 16, 6, Bytes("00 0AFF 14FF 1EFF FFFF"))), Is.EqualTo(Bytes("0A141E")));
        Assert.That(Decode(Png(2, 1, 1, 3, Bytes("00 40"), 0, Chunk("PLTE", Bytes("0A0B0C 141516")), Chunk("tRNS", 0))), Is.EqualTo(Bytes("FFFFFF 141516")));
    }

    [Test]
    public void Compares_transparent_colours_at_the_full_depth_of_the_samples()
    {
        Assert.That(Decode(Png(2, 1, 16, 0, Bytes("00 1234 1235"), 0, Chunk("tRNS", Bytes("1235")))), Is.EqualTo(Grey(0x12, 255)));
        Assert.That(Decode(Png(2, 1, 16, 2, Bytes("00 123412341234 123412341235"), 0, Chunk("tRNS", Bytes("123412341234")))),
            Is.EqualTo(Grey(255, 0x12)));
        Assert.That(Decode(Png(4, 1, 2, 0, Bytes("00 1B"), 0, Chunk("tRNS", Bytes("0002")))), Is.EqualTo(Grey(0, 85, 255, 255)));
        Assert.That(Decode(Png(2, 1, 8, 2, Bytes("00 010203 010204"), 0, Chunk("tRNS", Bytes("000100020003")))), Is.EqualTo(Bytes("FFFFFF 010204")));
    }

    [Test]
    public void Undoes_all_five_filters()
    {
        // Three columns of grey, one row a filter: none, sub, up, average, Paeth.
        var rows = Bytes("00 0A141E  01 0A0A0A  02 010101  03 050505  04 010203");
        Assert.That(Decode(Png(3, 5, 8, 0, rows)), Is.EqualTo(Grey(10, 20, 30, 10, 20, 30, 11, 21, 31, 10, 20, 30, 11, 22, 33)));
    }

    [TestCase(1)]
    [TestCase(2)]
    [TestCase(3)]
    [TestCase(5)]
    [TestCase(9)]
    public void Decodes_interlaced_rows_of_every_width(int width)
    {
        (int X, int Y, int StepX, int StepY)[] passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
        const int Height = 7;
        var rows = new List<byte>();
        foreach (var (x0, y0, stepX, stepY) in passes)
            for (var y = y0; y < Height && x0 < width; y += stepY)
            {
                rows.Add(0);
                for (var x = x0; x < width; x += stepX)
                    rows.Add((byte)(10 * y + x));
            }
        var expected = Grey([.. Enumerable.Range(0, Height * width).Select(i => 10 * (i / width) + i % width)]);
        Assert.That(Decode(Png(width, Height, 8, 0, [.. rows], interlace: 1)), Is.EqualTo(expected));
    }

    [Test]
    public void Joins_pixels_split_over_chunks_even_empty_ones()
    {
        var packed = Deflate(Bytes("00 010203"));
        var file = Png(Header(1, 1, 8, 2), Chunk("IDAT"), Chunk("IDAT", packed[..3]), Chunk("IDAT", packed[3..]));
        Assert.That(Decode(file), Is.EqualTo(Bytes("010203")));
    }

    [Test]
    public void Turns_the_image_by_its_exif_chunk()
    {
        // Orientation 6: the stored image is turned a quarter clockwise to be seen.
        var exif = Chunk("eXIf", Bytes("4D4D002A 00000008 0001 0112 0003 00000001 00060000 00000000"));
        var image = ImageDecoder.Decode(Png(2, 1, 8, 0, Bytes("00 0AC8"), 0, exif), "test");
        Assert.That((image.Width, image.Height), Is.EqualTo((1, 2)));
        Assert.That(image.Pixels, Is.EqualTo(Grey(10, 200)));
    }

    [Test]
    public void Passes_over_ancillary_chunks_unknown_or_damaged()
    {
        var damaged = Chunk("tEXt", 65, 0, 66);
        damaged[^1] ^= 1;
        Assert.That(Decode(Png(1, 1, 8, 0, Bytes("00 0A"), 0, damaged, Chunk("gAMA", 1, 2, 3), Chunk("acTL", new byte[8]), Chunk("xyZz"))), Is.EqualTo(Grey(10)));
    }

    [Test]
    public void Says_what_is_wrong_where()
    {
        var row = Bytes("00 010203");
        var good = Png(1, 1, 8, 2, row);
        var idat = Chunk("IDAT", Deflate(row));
        var flipped = good.ToArray();
        flipped[20] ^= 1;
        using var all = Assert.EnterMultipleScope();
        Refuses(flipped, "IHDR at byte 8: its check");
        Refuses(good[..^12], "no IEND");
        Refuses(good[..40], "no IEND");
        Refuses(good[..50], "PNG IDAT at byte 33: of its");
        Refuses(Png(idat), "one IHDR, as the first chunk");
        Refuses(Png(Header(1, 1, 8, 2), Header(1, 1, 8, 2), idat), "one IHDR, as the first chunk");
        Refuses(Png(Header(1, 1, 8, 2)), "no IDAT");
        Refuses(Png(Header(0, 1, 8, 2), idat), "0 x 1 pixels");
        Refuses(Png(Header(1, 1, 4, 2), idat), "colour type 2 with 4 bits");
        Refuses(Png(Header(1, 1, 8, 5), idat), "colour type 5");
        Refuses(Png(Header(1, 1, 8, 2, 2), idat), "interlace");
        Refuses(Png(Chunk("IHDR", 1, 2, 3), idat), "expected 13");
        Refuses(Png(Header(1, 1, 8, 2), Chunk("ABCD"), idat), "ABCD at byte 33: an unknown critical chunk");
        Refuses(Png(Header(1, 1, 8, 2), Chunk("IDAT"), Chunk("tEXt"), idat), "not next to");
        Refuses(Png(Header(1, 1, 8, 3), Chunk("IDAT", Deflate(0, 0))), "no PLTE");
        Refuses(Png(Header(1, 1, 8, 3), Chunk("PLTE", 1, 2), Chunk("IDAT", Deflate(0, 0))), "not 1 to 256 colours");
        Refuses(Png(Header(1, 1, 8, 3), Chunk("tRNS", 1), Chunk("PLTE", 1, 2, 3), Chunk("IDAT", Deflate(0, 0))), "after PLTE");
        Refuses(Png(Header(1, 1, 8, 2), Chunk("tRNS", 1, 2), idat), "expected 6");
        Refuses(Png(1, 1, 8, 2, Bytes("05 010203")), "filter 5");
        Refuses(Png(1, 2, 8, 2, row), "end in row 1 of 2");
        Refuses(Png(Header(1, 1, 8, 2), Chunk("IDAT", 1, 2, 3, 4)), "zlib");
        Refuses(Png(Header(1, 1, 8, 2), Chunk("IDAT", [.. Deflate(row)[..^4], 1, 2, 3, 4])), "zlib");
        // The sizes are believed only as far as the data could go.
        Refuses(Png(Header(8000, 8000, 8, 2), idat), "cannot hold 8000 x 8000");
        Refuses(Png(Header(8001, 8000, 8, 2), idat), "limit of 64000000 pixels");
        Refuses(Png(Header(int.MaxValue, int.MaxValue, 16, 6), idat), "limit");
        Refuses(Png(Header(-1, -1, 16, 6), idat), "limit");
    }

    private static void Refuses(byte[] file, string why) =>
        Assert.That(() => ImageDecoder.Decode(file, "test.png"),
            Throws.TypeOf<InvalidImageException>().With.Message.StartsWith("test.png: PNG").And.Message.Contains(why));
}
