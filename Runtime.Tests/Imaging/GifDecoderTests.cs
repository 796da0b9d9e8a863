using Trimtab.Imaging;
using static Trimtab.Tests.Imaging.ImageFiles;

namespace Trimtab.Tests.Imaging;

/// <summary>GIF files built by hand.</summary>
public class GifDecoderTests
{
    // Black, red, green, blue.
    private const string Palette = "000000 FF0000 00FF00 0000FF";
    private const string Black = "000000", Red = "FF0000", Green = "00FF00", Blue = "0000FF", White = "FFFFFF";

    // A screen with the palette, blocks, and the trailer.
    private static byte[] Gif(int width, int height, params string[] blocks) =>
        Join("GIF89a"u8.ToArray(), [(byte)width, 0, (byte)height, 0, 0x81, 0, 0], Bytes(Palette), Bytes(string.Concat(blocks)), [0x3B]);

    private static string Frame(int x, int y, int width, int height, string data, int packed = 0, string palette = "") =>
        $"2C {x:X2}00 {y:X2}00 {width:X2}00 {height:X2}00 {packed:X2} {palette} {data}";

    // Indices as three-bit codes, a clear code before every second so that codes never grow.
    private static string Plain(params int[] indices)
    {
        var (bits, count, bytes) = (0, 0, new List<byte>());
        void Put(int code)
        {
            bits |= code << count;
            for (count += 3; count >= 8; count -= 8, bits >>= 8)
                bytes.Add((byte)bits);
        }
        foreach (var (i, index) in indices.Index())
        {
            if (i % 2 == 0)
                Put(4);
            Put(index);
        }
        Put(5);
        if (count > 0)
            bytes.Add((byte)bits);
        return $"02 {bytes.Count:X2}{Convert.ToHexString([.. bytes])} 00";
    }

    private static Image Decode(byte[] file) => ImageDecoder.Decode(file, "test.gif");

    [Test]
    public void Decodes_a_frame()
    {
        var image = Decode(Gif(2, 2, Frame(0, 0, 2, 2, Plain(1, 2, 3, 0))));
        Assert.That((image.Width, image.Height), Is.EqualTo((2, 2)));
        Assert.That(image.Pixels, Is.EqualTo(Bytes(Red + Green + Blue + Black)));
    }

    [Test]
    public void Decodes_codes_that_are_defined_by_themselves()
    {
        // Clear, 1, then 6 = 1 1 and 7 = 1 1 1, each being defined as it is used; from there codes have four bits: 1, end. Lowest bits first.
        const string bits = "001" + "100" + "011" + "111" + "1000" + "1010";
        var bytes = Enumerable.Range(0, (bits.Length + 7) / 8)
            .Select(i => (byte)bits.Skip(8 * i).Take(8).Select((bit, at) => (bit - '0') << at).Sum()).ToArray();
        var image = Decode(Gif(7, 1, Frame(0, 0, 7, 1, $"02 {bytes.Length:X2}{Convert.ToHexString(bytes)} 00")));
        Assert.That(image.Pixels, Is.EqualTo(Bytes(string.Concat(Enumerable.Repeat(Red, 7)))));
    }

    [Test]
    public void Decodes_interlaced_rows()
    {
        // Of ten rows, the passes are 0 8, 4, 2 6, 1 3 5 7 9.
        var image = Decode(Gif(1, 10, Frame(0, 0, 1, 10, Plain(1, 2, 3, 0, 1, 2, 3, 0, 1, 2), packed: 0x40)));
        Assert.That(image.Pixels, Is.EqualTo(Bytes(Red + Green + Black + Blue + Blue + Black + Red + Red + Green + Green)));
    }

    [Test]
    public void Fills_what_a_smaller_frame_leaves_of_the_screen_with_the_first_colour() =>
        Assert.That(Decode(Gif(3, 1, Frame(1, 0, 1, 1, Plain(2)))).Pixels, Is.EqualTo(Bytes(Black + Green + Black)));

    [Test]
    public void Puts_the_transparent_colour_and_the_uncovered_screen_on_white() =>
        Assert.That(Decode(Gif(4, 1, "21F9 04 01 0000 02 00", Frame(1, 0, 2, 1, Plain(2, 3)))).Pixels, Is.EqualTo(Bytes(White + White + Blue + White)));

    [Test]
    public void Grows_the_screen_to_a_frame_that_reaches_beyond_it()
    {
        var image = Decode(Gif(1, 1, Frame(1, 1, 1, 1, Plain(1))));
        Assert.That((image.Width, image.Height), Is.EqualTo((2, 2)));
        Assert.That(image.Pixels, Is.EqualTo(Bytes(Black + Black + Black + Red)));
    }

    [Test]
    public void Prefers_the_frames_own_palette_and_takes_indices_beyond_it_for_black() =>
        Assert.That(Decode(Gif(3, 1, Frame(0, 0, 3, 1, Plain(0, 1, 2), packed: 0x80, palette: "0A0B0C 0D0E0F"))).Pixels, Is.EqualTo(Bytes("0A0B0C 0D0E0F 000000")));

    [Test]
    public void Takes_indices_for_levels_of_grey_without_any_palette()
    {
        var file = Join("GIF87a"u8.ToArray(), Bytes("0200 0100 00 00 00"), Bytes(Frame(0, 0, 2, 1, Plain(1, 3))), [0x3B]);
        Assert.That(Decode(file).Pixels, Is.EqualTo(Bytes("010101 030303")));
    }

    [Test]
    public void Decodes_the_first_frame_alone() =>
        Assert.That(Decode(Gif(1, 1, "21FE 02 4142 00", Frame(0, 0, 1, 1, Plain(1)), "21F9 04 01 0000 01 00", Frame(0, 0, 1, 1, Plain(2)))).Pixels, Is.EqualTo(Bytes(Red)));

    [Test]
    public void Says_what_is_wrong_where()
    {
        var good = Gif(2, 2, Frame(0, 0, 2, 2, Plain(1, 2, 3, 0)));
        using var all = Assert.EnterMultipleScope();
        for (var length = 6; length < good.Length; length++)
            Refuses(good[..length], "cut short");
        Refuses(Gif(1, 1), "no image");
        Refuses(Gif(1, 1, "99"), "0x99");
        Refuses(Gif(2, 2, Frame(0, 0, 2, 2, Plain(1, 2, 3))), "ends after 3 of 4 pixels");
        Refuses(Gif(2, 2, Frame(0, 0, 2, 2, "02 01 0C 00")), "end after 1 of 4 pixels");
        Refuses(Gif(1, 1, Frame(0, 0, 1, 1, "02 01 07 00")), "code 7");
        Refuses(Gif(1, 1, Frame(0, 0, 1, 1, "0C 01 07 00")), "code size 12");
        Refuses(Gif(1, 1, Frame(0, 0, 0, 1, Plain(1))), "0 x 1 pixels");
        Refuses(Gif(1, 1, Frame(0, 0, 1, 1, Plain(1)).Replace("0100 0100", "FFFF FFFF", StringComparison.Ordinal)), "limit");
    }

    private static void Refuses(byte[] file, string why) =>
        Assert.That(() => Decode(file), Throws.TypeOf<InvalidImageException>().With.Message.StartsWith("test.gif: GIF").And.Message.Contains(why));
}
