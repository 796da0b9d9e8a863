using System.Diagnostics;
using FsCheck;
using FsCheck.Fluent;
using Trimtab.Imaging;
using static Trimtab.Tests.Imaging.ImageFiles;

namespace Trimtab.Tests.Imaging;

/// <summary>Damaged files: each ends in an image or an <see cref="InvalidImageException"/>, soon.</summary>
public class ImageFuzzTests
{
    private const long MaxPixels = 1 << 20;

    // What happens to a file, one after another: a kind, a place as a share of the length, and a value.
    private sealed record Damage((int Kind, int Place, int Value)[] Steps, bool FixChecks);

    private static readonly int[] Edges = [0, 1, -1, int.MaxValue, int.MinValue, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 255, 256, 4096];

    private static readonly Gen<Damage> AnyDamage =
        from count in Gen.Choose(1, 4)
        from steps in (from kind in Gen.Choose(0, 7) from place in Gen.Choose(0, 1 << 20) from value in Gen.Choose(0, int.MaxValue) select (kind, place, value)).ArrayOf(count)
        from fix in Gen.Choose(0, 3)
        select new Damage(steps, fix > 0);

    private static byte[] Apply(Damage damage, byte[] file)
    {
        var bytes = file.ToList();
        foreach (var (kind, place, value) in damage.Steps)
        {
            if (bytes.Count < 8)
                break;
            // Headers lie in front, so half of the damage is done there.
            var at = (int)((long)place * ((place & 1) == 0 ? Math.Min(64, bytes.Count) : bytes.Count) >> 20);
            at = Math.Min(at, bytes.Count - 1);
            var edge = Edges[value % Edges.Length];
            switch (kind)
            {
                case 0 or 1:
                    bytes[at] = (byte)value;
                    break;
                case 2:
                    bytes[at] ^= (byte)(1 << (value & 7));
                    break;
                case 3:
                    bytes.RemoveRange(at, bytes.Count - at);
                    break;
                case 4:
                    bytes.RemoveRange(at, Math.Min(value % 16 + 1, bytes.Count - at));
                    break;
                case 5:
                    bytes.InsertRange(at, bytes.GetRange(at, Math.Min(value % 64 + 1, bytes.Count - at)));
                    break;
                case 6:
                    for (var i = 0; i < 4 && at + i < bytes.Count; i++)
                        bytes[at + i] = BigEndian(edge)[i];
                    break;
                default:
                    for (var i = 0; i < 4 && at + i < bytes.Count; i++)
                        bytes[at + i] = LittleEndian(edge)[i];
                    break;
            }
        }
        var damaged = bytes.ToArray();
        return damage.FixChecks && damaged.Length > 8 && damaged[1] == 'P' ? WithChecks(damaged) : damaged;
    }

    private static void Survives(byte[] file, int times, ref int images)
    {
        var decoded = 0;
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(times).WithQuietOnSuccess(true), Prop.ForAll(AnyDamage.ToArbitrary(), damage =>
        {
            var damaged = Apply(damage, file);
            var watch = Stopwatch.StartNew();
            try
            {
                var image = ImageDecoder.Decode(damaged, "damaged", MaxPixels);
                decoded++;
                return (long)image.Width * image.Height <= MaxPixels && watch.Elapsed < TimeSpan.FromSeconds(5);
            }
            catch (InvalidImageException)
            {
                return watch.Elapsed < TimeSpan.FromSeconds(5);
            }
        }));
        images += decoded;
    }

    // Of each kind of file one, small.
    private static IEnumerable<byte[]> Files()
    {
        var noise = Image.Noise(40, 40, 1).Pixels;
        foreach (var (depth, type) in ((int, int)[])[(1, 0), (16, 0), (8, 2), (2, 3), (8, 3), (8, 4), (16, 6)])
            foreach (var interlace in (int[])[0, 1])
            {
                // Rows of any bytes are pixels; filters come round.
                var rowBytes = (9 * depth * (type switch { 2 => 3, 4 => 2, 6 => 4, _ => 1 }) + 7) / 8;
                var rows = new byte[12 * (1 + rowBytes)];
                for (var i = 0; i < rows.Length; i++)
                    rows[i] = i % (1 + rowBytes) == 0 ? (byte)(i / (1 + rowBytes) % 5) : noise[i];
                if (interlace == 1)
                    rows = new byte[2 * rows.Length];
                byte[][] chunks = type == 3 ? [Chunk("PLTE", noise[..12]), Chunk("tRNS", 1, 128)] : type == 0 ? [Chunk("tRNS", 0, 1)] : [];
                yield return Png(9, 9, depth, type, rows, interlace, [.. chunks, Chunk("eXIf", Bytes("4D4D002A 00000008 0001 0112 0003 00000001 00060000"))]);
            }
        foreach (var bits in (int[])[1, 4, 8, 16, 24, 32])
            yield return Bmp(BmpHeader(5, 6, bits), bits <= 8 ? noise[..(4 << bits)] : [], noise[..(6 * (5 * bits + 31) / 32 * 4)]);
        yield return Bmp(BmpHeader(5, 6, 8, 1), noise[..1024], Bytes("0501 0000 00050102030405 00 0000 00020101 0103 0001"));
        yield return Bmp(BmpHeader(5, 6, 4, 2), noise[..64], Bytes("0512 0000 00051234 5000 0000 00020101 0133 0001"));
        var masks = BmpHeader(5, 6, 32, 3, size: 124);
        Bytes("0000FF00 00FF0000 FF000000 000000FF").CopyTo(masks, 40);
        yield return Bmp(masks, [], noise[..120]);
        // Every code of eight bits is a pixel at nine bits a code, until the table makes them ten.
        var codes = new byte[254];
        for (var i = 1; i < 225; i++)
            for (var (bit, code) = (0, i == 1 ? 256 : noise[i]); bit < 9; bit++)
                codes[(9 * (i - 1) + bit) >> 3] |= (byte)(((code >> bit) & 1) << ((9 * (i - 1) + bit) & 7));
        yield return Join("GIF89a"u8.ToArray(), Bytes("1400 1400 F7 00 00"), noise[..768], Bytes("21F9 04 01 0000 02 00 2C 0200 0100 0C00 0C00 40 08 FE"), codes, Bytes("00 3B"));
    }

    [Test]
    public void Damaged_files_of_every_kind_are_refused_or_read()
    {
        var (images, files) = (0, 0);
        foreach (var file in Files())
        {
            Assert.That(() => ImageDecoder.Decode(file, "whole"), Throws.Nothing, $"file {files}");
            Survives(file, 1500, ref images);
            files++;
        }
        TestContext.Out.WriteLine($"{images} of {1500 * files} could still be read");
        Assert.That(images, Is.GreaterThan(files), "some damage leaves an image");
    }

    [Test]
    public void Damaged_fixtures_are_refused_or_read()
    {
        var (images, files) = (0, 0);
        foreach (var file in Directory.GetFiles(Shared.Path("fixtures", "images")).Where(file => Path.GetExtension(file) is ".png" or ".gif" or ".bmp"))
        {
            Survives(File.ReadAllBytes(file), 2000, ref images);
            files++;
        }
        TestContext.Out.WriteLine($"{images} of {2000 * files} could still be read");
    }

    [Test]
    public void Damaged_pixels_behind_sound_compression_are_refused_or_read()
    {
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(3000).WithQuietOnSuccess(true), Prop.ForAll(
            (from width in Gen.Choose(1, 20)
             from height in Gen.Choose(1, 20)
             from kind in Gen.Elements((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6))
             from interlace in Gen.Choose(0, 1)
             from rows in Gen.Choose(0, 255).Select(level => (byte)(level < 128 ? level % 6 : level)).ArrayOf(400)
             select (width, height, kind, interlace, rows)).ToArbitrary(),
            one =>
            {
                var (width, height, (depth, type), interlace, rows) = one;
                try
                {
                    var image = ImageDecoder.Decode(Png(width, height, depth, type, rows, interlace, Chunk("PLTE", 1, 2, 3, 4, 5, 6)), "png");
                    return image.Width == width && image.Height == height;
                }
                catch (InvalidImageException)
                {
                    return true;
                }
            }));
    }
}
