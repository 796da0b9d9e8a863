using System.Runtime.CompilerServices;

namespace Trimtab.Imaging;

/// <summary>A Huffman table of a JPEG file (T.81, annex C and F.2.2.3), decoded by look-ahead.</summary>
internal sealed class JpegHuffman
{
    private const int Lookahead = 10;

    private readonly ushort[] lookup = new ushort[1 << Lookahead]; // [next bits]: code length × 256 + symbol; 0 where the code is longer
    private readonly int[] limit = new int[17];                    // [length]: first 16-bit prefix past its codes
    private readonly int[] offset = new int[17];                   // [length]: index of a symbol less its code
    private readonly byte[] symbols;

    /// <summary>Builds a table from the number of codes of each length 1 … 16 and their symbols in order of code.</summary>
    internal JpegHuffman(ReadOnlySpan<byte> counts, ReadOnlySpan<byte> symbols)
    {
        this.symbols = symbols.ToArray();
        int code = 0, index = 0;
        for (var length = 1; length <= 16; length++, code <<= 1)
        {
            offset[length] = index - code;
            for (var i = 0; i < counts[length - 1]; i++, code++, index++)
            {
                if (code >= 1 << length)
                    throw JpegDecoder.Bad($"a Huffman table has more codes of length {length} than there can be");
                if (length <= Lookahead)
                    lookup.AsSpan(code << (Lookahead - length), 1 << (Lookahead - length)).Fill((ushort)((length << 8) | symbols[index]));
            }
            limit[length] = code << (16 - length);
        }
        Largest = index == 0 ? 0 : this.symbols.Max();
    }

    /// <summary>The largest symbol.</summary>
    internal int Largest { get; }

    /// <summary>Takes one symbol; 16 bits must be available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Decode(ref JpegBits bits)
    {
        int entry = lookup[bits.Peek(Lookahead)];
        if (entry == 0)
            return DecodeLong(ref bits);
        bits.Skip(entry >> 8);
        return entry & 0xFF;
    }

    private int DecodeLong(ref JpegBits bits)
    {
        var code = bits.Peek(16);
        for (var length = Lookahead + 1; length <= 16; length++)
        {
            if (code >= limit[length])
                continue;
            bits.Skip(length);
            return symbols[(code >> (16 - length)) + offset[length]];
        }
        if (bits.Overrun)
            throw JpegDecoder.Cut(bits.Position);
        throw JpegDecoder.Bad($"an invalid Huffman code before byte {bits.Position}");
    }

    /// <summary>
    /// The tables that a motion-JPEG frame may leave out (T.81, annex K.3): DC luma, DC chroma, AC luma, AC chroma.
    /// </summary>
    internal static JpegHuffman Standard(bool ac, bool chroma) => (ac, chroma) switch
    {
        (false, false) => new([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (false, true) => new([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (true, false) => new([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], Convert.FromHexString(AcLuma)),
        (true, true) => new([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], Convert.FromHexString(AcChroma)),
    };

    private const string AcLuma =
        "01020300041105122131410613516107227114328191A1082342B1C11552D1F02433627282090A161718191A25262728292A34353637" +
        "38393A434445464748494A535455565758595A636465666768696A737475767778797A838485868788898A92939495969798999AA2A3" +
        "A4A5A6A7A8A9AAB2B3B4B5B6B7B8B9BAC2C3C4C5C6C7C8C9CAD2D3D4D5D6D7D8D9DAE1E2E3E4E5E6E7E8E9EAF1F2F3F4F5F6F7F8F9FA";

    private const string AcChroma =
        "000102031104052131061241510761711322328108144291A1B1C109233352F0156272D10A162434E125F11718191A262728292A3536" +
        "3738393A434445464748494A535455565758595A636465666768696A737475767778797A82838485868788898A92939495969798999A" +
        "A2A3A4A5A6A7A8A9AAB2B3B4B5B6B7B8B9BAC2C3C4C5C6C7C8C9CAD2D3D4D5D6D7D8D9DAE2E3E4E5E6E7E8E9EAF2F3F4F5F6F7F8F9FA";
}
