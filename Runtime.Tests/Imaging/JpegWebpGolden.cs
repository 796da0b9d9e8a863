using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Trimtab.Imaging;

namespace Trimtab.Tests.Imaging;

internal delegate Raster Decode(ReadOnlySpan<byte> data, long maxPixels);

/// <summary>What the tests of both codecs share: expected pixels and hostile files.</summary>
internal static class JpegWebpGolden
{
    internal const long Limit = 64_000_000;

    internal static IEnumerable<string> Files(string pattern) =>
        Directory.EnumerateFiles(Shared.Path("fixtures", "images"), pattern).Order(StringComparer.Ordinal);

    internal static string Hash(byte[] pixels) => Convert.ToHexString(SHA256.HashData(pixels));

    /// <summary>An expected image, [height, width, 3].</summary>
    internal static (int Height, int Width, byte[] Pixels) Expected(string name)
    {
        using var file = File.OpenRead(Shared.Path("fixtures", "images", "expected.safetensors"));
        using var reader = new BinaryReader(file);
        var header = reader.ReadBytes((int)reader.ReadUInt64());
        using var json = JsonDocument.Parse(header);
        var entry = json.RootElement.GetProperty(name);
        int From(string field, int i) => entry.GetProperty(field)[i].GetInt32();
        file.Position = 8 + header.Length + From("data_offsets", 0);
        return (From("shape", 0), From("shape", 1), reader.ReadBytes(From("data_offsets", 1) - From("data_offsets", 0)));
    }

    /// <summary>Holds a golden file's colours, transparency ignored, against Pillow's: not one may differ.</summary>
    internal static void IsExact(Raster raster, string name)
    {
        var (height, width, pixels) = Expected(name);
        Assert.That((raster.Height, raster.Width), Is.EqualTo((height, width)), name);
        var colours = raster.Pixels.Where((_, i) => raster.Channels == 3 || i % 4 != 3);
        Assert.That(colours.SequenceEqual(pixels), name);
    }

    /// <summary>Decodes damaged copies of a file. Each must be a sane image or refused, within a second.</summary>
    internal static void Fuzz(byte[] file, Decode decode, int times, int seed)
    {
        var random = new Random(seed);
        for (var i = 0; i < times; i++)
        {
            var damaged = Damage(file, random);
            var clock = Stopwatch.StartNew();
            try
            {
                var raster = decode(damaged, 1 << 16);
                if (raster.Pixels.Length != raster.Width * raster.Height * raster.Channels || raster.Channels is not (3 or 4)
                    || raster.Orientation is < 1 or > 8 || raster.Width < 1 || raster.Height < 1)
                    Assert.Fail($"copy {i} of seed {seed} became {raster} of {raster.Pixels.Length} bytes");
            }
            catch (InvalidImageException e)
            {
                if (e.Message.Length < 10)
                    Assert.Fail($"copy {i} of seed {seed}: {e.Message}");
            }
            catch (Exception e) when (e is not AssertionException)
            {
                Assert.Fail($"copy {i} of seed {seed}: {e}");
            }
            if (clock.ElapsedMilliseconds > 5000)
                Assert.Fail($"copy {i} of seed {seed} took {clock.Elapsed}");
        }
    }

    private static byte[] Damage(byte[] file, Random random)
    {
        var bytes = file.ToList();
        for (var edits = 1 + random.Next(random.Next(1, 8)); edits > 0 && bytes.Count > 0; edits--)
        {
            // Headers come first and are worth more than their share.
            var at = random.Next(2) == 0 ? random.Next(Math.Min(bytes.Count, 200)) : random.Next(bytes.Count);
            switch (random.Next(8))
            {
                case 0 or 1:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 2 or 3:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 4:
                    bytes[at] = random.Next(2) == 0 ? (byte)0 : (byte)255;
                    break;
                case 5:
                    bytes.Insert(at, (byte)random.Next(256));
                    break;
                case 6:
                    bytes.RemoveRange(at, Math.Min(bytes.Count - at, random.Next(1, 20)));
                    break;
                default:
                    var piece = bytes.GetRange(at, Math.Min(bytes.Count - at, random.Next(1, 60)));
                    bytes.InsertRange(random.Next(bytes.Count), piece);
                    break;
            }
        }
        if (random.Next(6) == 0)
            bytes.RemoveRange(bytes.Count / 2, random.Next(bytes.Count - bytes.Count / 2 + 1));
        return [.. bytes];
    }
}
