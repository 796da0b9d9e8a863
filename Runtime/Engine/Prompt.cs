using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Trimtab.Model;

namespace Trimtab.Engine;

/// <summary>SHA-256 of what the vision encoder sees of an image.</summary>
/// <param name="A">Bytes 0 to 7, and so on, as numbers of this machine.</param>
/// <param name="B">Bytes 8 to 15.</param>
/// <param name="C">Bytes 16 to 23.</param>
/// <param name="D">Bytes 24 to 31.</param>
public readonly record struct ContentHash(ulong A, ulong B, ulong C, ulong D)
{
    /// <summary>The hash of numbers, as they lie in memory.</summary>
    public static ContentHash Of(ReadOnlySpan<float> values)
    {
        Span<ulong> hash = stackalloc ulong[4];
        SHA256.HashData(MemoryMarshal.AsBytes(values), MemoryMarshal.AsBytes(hash));
        return new(hash[0], hash[1], hash[2], hash[3]);
    }

    /// <summary>The hash of an image's pixels and, where it is not one square, of its grid.</summary>
    public static ContentHash Of(ReadOnlySpan<float> pixels, ImageGrid grid)
    {
        if (grid == default)
            return Of(pixels);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(MemoryMarshal.AsBytes(pixels));
        hash.AppendData(MemoryMarshal.AsBytes([grid.Rows, grid.Columns, grid.Width, grid.Height]));
        Span<ulong> value = stackalloc ulong[4];
        hash.GetHashAndReset(MemoryMarshal.AsBytes(value));
        return new(value[0], value[1], value[2], value[3]);
    }

    /// <summary>Hexadecimal, as other programs print a SHA-256.</summary>
    public override string ToString() => Convert.ToHexStringLower(MemoryMarshal.AsBytes([A, B, C, D]));
}

/// <summary>An image in a prompt: where its rows stand and what the vision encoder will see.</summary>
/// <param name="Start">Position of its first row in the prompt.</param>
/// <param name="Rows">Rows (tokens) that it takes.</param>
/// <param name="Pixels">Normalised pixels as the vision encoder reads them; not changed once the prompt was submitted.</param>
/// <param name="Grid">How it is divided.</param>
public sealed record PromptImage(int Start, int Rows, float[] Pixels, ImageGrid Grid = default)
{
    private readonly Lazy<ContentHash> _content = new(() => ContentHash.Of(Pixels, Grid));

    /// <summary>What identifies its content: images of equal pixels, divided alike, share features, keys and values.</summary>
    public ContentHash Content => _content.Value;
}

/// <summary>A prompt as the decoder reads it: token ids, and the image token repeated once for every image row.</summary>
/// <param name="Tokens">Token ids.</param>
/// <param name="Images">Its images in order of position.</param>
public sealed record Prompt(int[] Tokens, IReadOnlyList<PromptImage> Images)
{
    /// <summary>A prompt without images.</summary>
    public Prompt(int[] tokens) : this(tokens, []) { }
}
