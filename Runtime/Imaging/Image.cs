using System.Buffers.Binary;
using System.Text;

namespace Trimtab.Imaging;

/// <summary>An upright, opaque RGB image with 8 bits a channel.</summary>
public sealed class Image
{
    /// <summary>The longest file that <see cref="Open"/> reads, in bytes: above any image within the default pixel limit.</summary>
    private const int MaxFileBytes = 1 << 30;

    /// <summary>Wraps pixels (not copied).</summary>
    /// <param name="width">Columns, at least 1.</param>
    /// <param name="height">Rows, at least 1.</param>
    /// <param name="pixels">RGB, [height, width, 3].</param>
    /// <exception cref="ArgumentException">The sizes are not positive or do not fit the pixels.</exception>
    public Image(int width, int height, byte[] pixels)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(width);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(height);
        ArgumentNullException.ThrowIfNull(pixels);
        if (pixels.LongLength != 3L * width * height)
            throw new ArgumentException($"{width} x {height} RGB pixels are {3L * width * height} bytes, not {pixels.LongLength}", nameof(pixels));
        (Width, Height, Pixels) = (width, height, pixels);
    }

    /// <summary>Columns.</summary>
    public int Width { get; }

    /// <summary>Rows.</summary>
    public int Height { get; }

    /// <summary>RGB, [Height, Width, 3].</summary>
    public byte[] Pixels { get; }

    /// <summary>Reads and decodes an image file: see <see cref="ImageDecoder.Decode"/>.</summary>
    /// <param name="path">The file.</param>
    /// <param name="maxPixels">The most pixels (width x height) that are accepted.</param>
    /// <exception cref="InvalidImageException">The file is truncated, corrupt, too large or of an unknown kind.</exception>
    /// <exception cref="IOException">The file cannot be read.</exception>
    public static Image Open(string path, long maxPixels = ImageDecoder.DefaultMaxPixels)
    {
        using var stream = File.OpenRead(path);
        // A device or pipe has no length and may have no end.
        using var bytes = new MemoryStream(stream.CanSeek ? (int)Math.Min(stream.Length, MaxFileBytes) : 0);
        var block = new byte[1 << 16];
        for (int read; (read = stream.Read(block)) > 0;)
        {
            if (bytes.Length + read > MaxFileBytes)
                throw new InvalidImageException($"{path}: the file is longer than {MaxFileBytes} bytes");
            bytes.Write(block, 0, read);
        }
        return ImageDecoder.Decode(bytes.GetBuffer().AsSpan(0, (int)bytes.Length), path, maxPixels);
    }

    /// <summary>An image of one colour: with white or black, CMRM's meaningless image (arXiv 2410.09047, section 3).</summary>
    public static Image Blank(int width, int height, byte red, byte green, byte blue)
    {
        var pixels = Allocate(width, height);
        for (var i = 0; i < pixels.Length; i += 3)
            (pixels[i], pixels[i + 1], pixels[i + 2]) = (red, green, blue);
        return new(width, height, pixels);
    }

    /// <summary>
    /// An image of independent uniform bytes, the same for a seed everywhere: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started at
    /// <paramref name="seed"/>, each of its 64-bit outputs giving eight bytes, lowest first, in the order of <see cref="Pixels"/>.
    /// </summary>
    public static Image Noise(int width, int height, ulong seed)
    {
        var pixels = Allocate(width, height);
        Span<byte> word = stackalloc byte[8];
        for (var i = 0; i < pixels.Length; i += 8)
        {
            var z = seed += 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            BinaryPrimitives.WriteUInt64LittleEndian(word, z ^ (z >> 31));
            word[..Math.Min(8, pixels.Length - i)].CopyTo(pixels.AsSpan(i));
        }
        return new(width, height, pixels);
    }

    /// <summary>Writes a .png or a .ppm (binary, P6) file, complete or not at all: a temporary file beside it is renamed at the end.</summary>
    /// <exception cref="ArgumentException">The name ends otherwise.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public void Save(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var extension = Path.GetExtension(path).ToLowerInvariant();
        if (extension is not (".png" or ".ppm"))
            throw new ArgumentException($"{path}: images are written as .png or .ppm", nameof(path));
        var partial = $"{path}.{Guid.NewGuid():N}.partial";
        try
        {
            using (var stream = new FileStream(partial, FileMode.CreateNew, FileAccess.Write))
            {
                if (extension == ".png")
                {
                    PngEncoder.Write(this, stream);
                }
                else
                {
                    stream.Write(Encoding.ASCII.GetBytes($"P6\n{Width} {Height}\n255\n"));
                    stream.Write(Pixels);
                }
            }
            File.Move(partial, path, overwrite: true);
        }
        catch
        {
            File.Delete(partial);
            throw;
        }
    }

    private static byte[] Allocate(int width, int height)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(width);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(height);
        if (3L * width * height > Array.MaxLength)
            throw new ArgumentOutOfRangeException(nameof(width), $"{width} x {height} pixels are too many for one array");
        return new byte[3 * width * height];
    }
}
