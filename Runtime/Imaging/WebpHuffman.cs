using System.Runtime.CompilerServices;

namespace Trimtab.Imaging;

/// <summary>A prefix code of a lossless WebP stream (RFC 9649, section 3.7.2), decoded by look-ahead.</summary>
internal sealed class WebpHuffman
{
    /// <summary>The longest code.</summary>
    internal const int Longest = 15;

    private const int Lookahead = 9;
    private const ushort Long = 0xFFFF;

    private readonly int width;         // bits of look-ahead
    private readonly ushort[] lookup;   // [next bits]: code length × 4096 + symbol, or Long
    private readonly int[] limit = [];  // [length]: first 15-bit prefix, first bit highest, that is no code of this length or shorter
    private readonly int[] offset = []; // [length]: index of a symbol less its code
    private readonly ushort[] symbols = [];

    /// <summary>Builds the code whose symbols have these lengths (0: not used); a lone symbol takes no bits.</summary>
    internal WebpHuffman(ReadOnlySpan<byte> lengths)
    {
        Span<int> counts = stackalloc int[Longest + 1];
        counts.Clear();
        var longest = 0;
        foreach (var length in lengths)
        {
            counts[length]++;
            longest = Math.Max(longest, length);
        }
        var used = lengths.Length - counts[0];
        if (used == 0)
            throw WebpDecoder.Bad("a prefix code without symbols");
        if (used == 1)
        {
            lookup = [(ushort)lengths.IndexOfAnyExcept((byte)0)];
            return;
        }

        width = Math.Min(longest, Lookahead);
        lookup = new ushort[1 << width];
        lookup.AsSpan().Fill(Long);
        limit = new int[Longest + 1];
        offset = new int[Longest + 1];
        symbols = new ushort[used];
        Span<int> next = stackalloc int[Longest + 1]; // [length]: the next code
        for (int length = 1, code = 0, index = 0; length <= Longest; length++)
        {
            code <<= 1;
            next[length] = code;
            offset[length] = index - code;
            code += counts[length];
            index += counts[length];
            limit[length] = code << (Longest - length);
        }
        if (limit[Longest] != 1 << Longest)
            throw WebpDecoder.Bad(limit[Longest] > 1 << Longest ? "a prefix code with too many codes" : "an incomplete prefix code");
        for (var symbol = 0; symbol < lengths.Length; symbol++)
        {
            int length = lengths[symbol];
            if (length == 0)
                continue;
            var code = next[length]++;
            symbols[code + offset[length]] = (ushort)symbol;
            for (var i = Reverse(code << (Longest - length)); length <= width && i < lookup.Length; i += 1 << length)
                lookup[i] = (ushort)((length << 12) | symbol);
        }
    }

    /// <summary>Takes one symbol; 15 bits must be available.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Decode(ref WebpBits bits)
    {
        int entry = lookup[bits.Peek(width)];
        if (entry == Long)
            return DecodeLong(ref bits);
        bits.Skip(entry >> 12);
        return entry & 0xFFF;
    }

    private int DecodeLong(ref WebpBits bits)
    {
        var code = Reverse(bits.Peek(Longest));
        var length = Lookahead + 1;
        while (code >= limit[length])
            length++;
        bits.Skip(length);
        return symbols[(code >> (Longest - length)) + offset[length]];
    }

    /// <summary>15 bits in the opposite order.</summary>
    private static int Reverse(int bits)
    {
        bits = ((bits >> 1) & 0x5555) | ((bits & 0x5555) << 1);
        bits = ((bits >> 2) & 0x3333) | ((bits & 0x3333) << 2);
        bits = ((bits >> 4) & 0x0F0F) | ((bits & 0x0F0F) << 4);
        return ((bits >> 8) | ((bits & 0xFF) << 8)) >> 1;
    }
}
