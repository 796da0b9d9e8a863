using System.Security.Cryptography;
using System.Text;
using Trimtab.Imaging;

namespace Trimtab.Evaluation;

/// <summary>The images that stand beside a set of prompts: a blank one, noise, one file, or a folder's images in turn.</summary>
public sealed class ExtractionImages
{
    private static readonly string[] Endings = [".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp"];

    private readonly Func<int, (int Width, int Height), Image> _make;
    private readonly bool _same; // one image for all
    private Image? _only;

    private ExtractionImages(string name, string identity, bool same, Func<int, (int Width, int Height), Image> make)
        => (Name, Identity, _same, _make) = (name, identity, same, make);

    /// <summary>What a vector file says of them: blank, noise, or a name.</summary>
    public string Name { get; }

    /// <summary>Equal for the same images: name, and seed or content.</summary>
    public string Identity { get; }

    /// <summary>Seed of noise; null for other images.</summary>
    public uint? Seed { get; private init; }

    /// <summary>White (CMRM's meaningless image).</summary>
    public static ExtractionImages Blank { get; } = new("blank", "blank", true, (_, size) => Image.Blank(size.Width, size.Height, 255, 255, 255));

    /// <summary>Uniform RGB noise, another for every index; the same for a seed everywhere.</summary>
    public static ExtractionImages Noise(uint seed) => new("noise", $"noise {seed}", false, (index, size) => Image.Noise(size.Width, size.Height, ((ulong)seed << 32) + (uint)index)) { Seed = seed };

    /// <summary>Reads "blank", "noise", or the path of an image file or of a folder with images (sorted by name, taken in turn).</summary>
    /// <param name="text">The text; a file that is called blank is ./blank.</param>
    /// <param name="seed">Seed of noise.</param>
    /// <exception cref="FileNotFoundException">There is no such file, or no image in the folder.</exception>
    /// <exception cref="InvalidImageException">The file is no image.</exception>
    public static ExtractionImages Parse(string text, uint seed = 0)
    {
        ArgumentNullException.ThrowIfNull(text);
        switch (text)
        {
            case "blank":
                return Blank;
            case "noise":
                return Noise(seed);
        }
        if (Directory.Exists(text))
        {
            var files = Directory.GetFiles(text).Where(file => Endings.Contains(Path.GetExtension(file).ToLowerInvariant())).Order(StringComparer.Ordinal).ToArray();
            if (files.Length == 0)
                throw new FileNotFoundException($"{text}: the folder holds no image ({string.Join(", ", Endings)})", text);
            var list = string.Join('\n', files.Select(file => $"{Path.GetFileName(file)} {new FileInfo(file).Length}"));
            var folder = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(text)));
            return new($"{folder} ({files.Length} images)", Hash(Encoding.UTF8.GetBytes(list)), false, (index, _) => Image.Open(files[index % files.Length]));
        }
        if (!File.Exists(text))
            throw new FileNotFoundException($"{text}: no such image; expected blank, noise, an image file, or a folder with images", text);
        var image = Image.Open(text);
        return new(Path.GetFileName(text), Hash(image.Pixels), true, (_, _) => image);
    }

    /// <summary>The image of a prompt.</summary>
    /// <param name="index">The prompt's index from 0.</param>
    /// <param name="size">Pixels that the vision encoder sees, for images that are made.</param>
    public Image Of(int index, (int Width, int Height) size)
    {
        if (!_same)
            return _make(index, size);
        return _only is { } only && (only.Width, only.Height) == size ? only : _only = _make(index, size);
    }

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}
