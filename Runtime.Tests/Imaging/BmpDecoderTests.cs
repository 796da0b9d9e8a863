using Trimtab.Imaging;
using static Trimtab.Tests.Imaging.ImageFiles;

namespace Trimtab.Tests.Imaging;

/// <summary>Bitmaps built by hand.</summary>
public class BmpDecoderTests
{
    private static byte[] Decode(byte[] file) => ImageDecoder.Decode(file, "test.bmp").Pixels;

    // Four entries, blue first: colours 0A0B0C, 141516, 1E1F20, 28292A.
    private static readonly byte[] Palette = Bytes("0C0B0A00 16151400 201F1E00 2A292800");
    private static readonly string[] Colours = ["0A0B0C", "141516", "1E1F20", "28292A"];

    private static byte[] Indexed(params int[] indices) => Bytes(string.Concat(indices.Select(i => Colours[i])));

    private static byte[] WithColours(byte[] header, int colours)
    {
        header[32] = (byte)colours;
        return header;
    }

    [TestCase(1, "40000000", new[] { 0, 1, 0 })]
    [TestCase(2, "1B000000", new[] { 0, 1, 2, 3 })]
    [TestCase(4, "01230000", new[] { 0, 1, 2, 3 })]
    [TestCase(8, "0001020300000000", new[] { 0, 1, 2, 3, 0 })]
    public void Decodes_indices_of_every_depth(int bits, string row, int[] indices) =>
        Assert.That(Decode(Bmp(WithColours(BmpHeader(indices.Length, 1, bits), 4), Palette, Bytes(row))), Is.EqualTo(Indexed(indices)));

    [Test]
    public void Decodes_rows_from_either_end()
    {
        var pixels = Bytes("03020100 06050400");
        Assert.That(Decode(Bmp(BmpHeader(1, 2, 24), [], pixels)), Is.EqualTo(Bytes("040506 010203")));
        Assert.That(Decode(Bmp(BmpHeader(1, -2, 24), [], pixels)), Is.EqualTo(Bytes("010203 040506")));
    }

    [Test]
    public void Decodes_16_and_32_bits_and_ignores_what_no_mask_calls_alpha()
    {
        Assert.That(Decode(Bmp(BmpHeader(2, 1, 16), [], Bytes("1F7C E003"))), Is.EqualTo(Bytes("FF00FF 00FF00")));
        Assert.That(Decode(Bmp(BmpHeader(1, 1, 32), [], Bytes("03020100"))), Is.EqualTo(Bytes("010203")));
    }

    [Test]
    public void Decodes_bit_fields_of_any_width()
    {
        // 5-6-5, after a header of 40 bytes.
        Assert.That(Decode(Bmp(BmpHeader(2, 1, 16, 3), Join(LittleEndian(0xF800), LittleEndian(0x7E0), LittleEndian(0x1F)), Bytes("E007 0180"))),
            Is.EqualTo(Bytes("00FF00 830008")));
        // 10-10-10 and two bits of alpha, within a header of 108: half red on white at 1/3, then opaque.
        var header = BmpHeader(2, 1, 32, 3, size: 108);
        Join(LittleEndian(0x3FF00000), LittleEndian(0xFFC00), LittleEndian(0x3FF), LittleEndian(unchecked((int)0xC0000000))).CopyTo(header, 40);
        Assert.That(Decode(Bmp(header, [], Join(LittleEndian(0x60000000), LittleEndian(unchecked((int)0xFFF00000))))), Is.EqualTo(Bytes("D4AAAA FF0000")));
    }

    [Test]
    public void Decodes_the_header_of_os2_with_colours_of_three_bytes()
    {
        var file = Join([0x42, 0x4D], new byte[8], LittleEndian(14 + 12 + 6), LittleEndian(12), Bytes("0200 0100 0100 0100"), Bytes("0C0B0A 161514"), Bytes("40000000"));
        Assert.That(Decode(file), Is.EqualTo(Indexed(0, 1)));
    }

    [Test]
    public void Decodes_runs_of_8_bits()
    {
        // A run; indices as they are; end of line; a step right and up; end.
        var runs = Bytes("0201 0003020100 00 0000 00020101 0103 0001");
        Assert.That(Decode(Bmp(WithColours(BmpHeader(5, 3, 8, 1), 4), Palette, runs)),
            Is.EqualTo(Indexed(0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 0)));
    }

    [Test]
    public void Decodes_runs_of_4_bits()
    {
        var runs = Bytes("0312 0003 1230 0000 0133 0001");
        Assert.That(Decode(Bmp(WithColours(BmpHeader(6, 2, 4, 2), 4), Palette, runs)), Is.EqualTo(Indexed(3, 0, 0, 0, 0, 0, 1, 2, 1, 1, 2, 3)));
    }

    [Test]
    public void Drops_what_runs_beyond_a_row_and_never_leaves_the_image()
    {
        var runs = Bytes("FF01 0000 0002FFFF 0001");
        Assert.That(Decode(Bmp(WithColours(BmpHeader(2, 2, 8, 1), 4), Palette, runs)), Is.EqualTo(Indexed(0, 0, 1, 1)));
    }

    [Test]
    public void Says_what_is_wrong_where()
    {
        var good = Bmp(WithColours(BmpHeader(2, 2, 8), 4), Palette, Bytes("00010000 02030000"));
        var far = good.ToArray();
        far[13] = 0x7F;
        using var all = Assert.EnterMultipleScope();
        Assert.That(Decode(good), Is.EqualTo(Indexed(2, 3, 0, 1)));
        for (var length = 2; length < good.Length; length++)
            Refuses(good[..length], "");
        Refuses(good[..^1], "cut short in row 1");
        Refuses(far, "begin at byte");
        Refuses(Bmp(BmpHeader(1, 1, 24, 0, size: 41), [], new byte[4]), "no header of 41 bytes");
        Refuses(Bmp(BmpHeader(1, 1, 7), [], new byte[4]), "with 7 bits");
        Refuses(Bmp(BmpHeader(1, 1, 24, 4), [], new byte[4]), "compression 4");
        Refuses(Bmp(BmpHeader(1, 1, 8, 2), [], new byte[4]), "compression 2 with 8 bits");
        Refuses(Bmp(BmpHeader(0, 1, 24), [], new byte[4]), "0 x 1 pixels");
        Refuses(Bmp(BmpHeader(-1, 1, 24), [], new byte[4]), "-1 x 1 pixels");
        Refuses(Bmp(BmpHeader(1, int.MinValue, 24), [], new byte[4]), "limit");
        Refuses(Bmp(BmpHeader(9000, 9000, 24), [], new byte[4]), "limit");
        Refuses(Bmp(BmpHeader(1, 1, 16, 3), Join(LittleEndian(0xF0F), LittleEndian(0xF0), LittleEndian(0xF000)), new byte[4]), "0x00000F0F");
        Refuses(Bmp(WithColours(BmpHeader(5, 3, 8, 1), 4), Palette, Bytes("0501 0000 0501")), "the runs end");
    }

    private static void Refuses(byte[] file, string why) =>
        Assert.That(() => Decode(file), Throws.TypeOf<InvalidImageException>().With.Message.StartsWith("test.bmp: BMP").And.Message.Contains(why));
}
