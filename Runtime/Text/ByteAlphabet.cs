using System.Text;

namespace Trimtab.Text;

/// <summary>
/// The printable stand-ins for bytes that byte-level BPE writes its pieces in (GPT-2's bytes_to_unicode): the printable bytes of Latin-1
/// stand for themselves, the others in order for U+0100 and on. Space is Ġ, newline Ċ.
/// </summary>
internal static class ByteAlphabet
{
    private static readonly char[] Characters = new char[256];
    private static readonly short[] Bytes = new short[0x144];

    static ByteAlphabet()
    {
        Bytes.AsSpan().Fill(-1);
        var next = '\u0100';
        for (var value = 0; value < 256; value++)
        {
            var printable = value is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE;
            Characters[value] = printable ? (char)value : next++;
            Bytes[Characters[value]] = (short)value;
        }
    }

    /// <summary>The UTF-8 bytes of a text, each as its stand-in.</summary>
    public static string Write(ReadOnlySpan<char> text)
    {
        Span<byte> few = stackalloc byte[256];
        var bytes = Encoding.UTF8.GetByteCount(text) is var count && count <= few.Length ? few[..count] : new byte[count];
        Encoding.UTF8.GetBytes(text, bytes);
        return string.Create(count, bytes, static (characters, bytes) =>
        {
            for (var i = 0; i < bytes.Length; i++)
                characters[i] = Characters[bytes[i]];
        });
    }

    /// <summary>The bytes that a piece stands for; the piece's own UTF-8 where it holds anything but stand-ins.</summary>
    public static byte[] Read(string piece)
    {
        var bytes = new byte[piece.Length];
        for (var i = 0; i < bytes.Length; i++)
        {
            if (piece[i] >= Bytes.Length || Bytes[piece[i]] < 0)
                return Encoding.UTF8.GetBytes(piece);
            bytes[i] = (byte)Bytes[piece[i]];
        }
        return bytes;
    }
}
