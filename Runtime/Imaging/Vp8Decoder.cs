namespace Trimtab.Imaging;

/// <summary>How the loop filter treats a macroblock: its limits (0: not at all), and whether edges inside it count.</summary>
internal readonly record struct Vp8Filter(byte Limit, byte Interior, byte HighVariance, bool Inner);

/// <summary>Decodes VP8 key frames, the lossy kind of WebP (RFC 6386), to planes of luma and halved chroma.</summary>
internal sealed class Vp8Decoder
{
    private const int LumaBlocks = 16, Coefficients = 16;

    // Block types of coefficient probabilities (RFC 6386, section 13.3).
    private const int LumaAfterMeans = 0, Means = 1, Chroma = 2, WholeLuma = 3;

    private readonly Vp8Header header;
    private readonly int wide, high;             // macroblocks
    private readonly Vp8Plane luma;
    private readonly Vp8Plane[] chroma;
    private readonly Vp8Filter[] filters;        // [high, wide]
    private readonly Vp8Mode[] above;            // [wide × 4] modes of the subblocks at the bottom of the row above
    private readonly Vp8Mode[] left = new Vp8Mode[4];
    private readonly Vp8Mode[] modes = new Vp8Mode[16]; // of the macroblock at hand
    private readonly bool[] coded;               // [wide, 9] whether the blocks above have coefficients: 4 luma, 2 + 2 chroma, means
    private readonly bool[] codedLeft = new bool[9];
    private readonly int[] coefficients = new int[24 * Coefficients];

    private Vp8Decoder(byte[] data)
    {
        header = new(data);
        wide = (header.Width + 15) / 16;
        high = (header.Height + 15) / 16;
        luma = new(wide * 16, high * 16);
        chroma = [new(wide * 8, high * 8), new(wide * 8, high * 8)];
        filters = new Vp8Filter[wide * high];
        above = new Vp8Mode[wide * 4];
        coded = new bool[wide * 9];
    }

    /// <summary>Decodes a frame to pixels of <paramref name="channels"/> bytes, of which the first three are written.</summary>
    internal static byte[] Decode(byte[] data, int channels)
    {
        var decoder = new Vp8Decoder(data);
        decoder.ReadMacroblocks();
        if (decoder.header.Filtered)
            Vp8LoopFilter.Apply(decoder.luma, decoder.chroma, decoder.filters, decoder.wide, decoder.header.Simple);
        return WebpColour.ToRgb(decoder.luma, decoder.chroma[0], decoder.chroma[1], decoder.header.Width, decoder.header.Height, channels);
    }

    private void ReadMacroblocks()
    {
        for (var y = 0; y < high; y++)
        {
            var tokens = header.Coefficients[y & (header.Coefficients.Length - 1)];
            left.AsSpan().Clear();
            codedLeft.AsSpan().Clear();
            for (var x = 0; x < wide; x++)
                ReadMacroblock(x, y, tokens);
            if (header.Modes.Ended || tokens.Ended)
                throw WebpDecoder.Bad($"a lossy frame is truncated in macroblock row {y} of {high}");
        }
    }

    private void ReadMacroblock(int x, int y, Vp8Bits tokens)
    {
        var bits = header.Modes;
        var segment = 0;
        if (header.SegmentMap)
        {
            var p = header.SegmentProbabilities;
            segment = bits.Bit(p[0]) == 0 ? bits.Bit(p[1]) : 2 + bits.Bit(p[2]);
        }
        var skip = header.SkipProbability >= 0 && bits.Bit(header.SkipProbability) == 1;
        var subblocks = bits.Bit(145) == 0;
        var whole = ReadModes(bits, above.AsSpan(x * 4, 4), subblocks);
        var colour = bits.Bit(142) == 0 ? Vp8Mode.Dc
            : bits.Bit(114) == 0 ? Vp8Mode.Vertical
            : bits.Bit(183) == 0 ? Vp8Mode.Horizontal : Vp8Mode.TrueMotion;

        var top = coded.AsSpan(x * 9, 9);
        if (!skip)
            skip = !ReadCoefficients(tokens, header.Steps[segment], top, subblocks);
        else
        {
            // The block of means keeps its context where there is none.
            top[..8].Clear();
            codedLeft.AsSpan(0, 8).Clear();
            if (!subblocks)
                top[8] = codedLeft[8] = false;
        }
        filters[y * wide + x] = Filter(header.Levels[segment, subblocks ? 1 : 0], subblocks || !skip);

        PredictLuma(x, y, subblocks, whole, skip);
        for (var c = 0; c < 2; c++)
        {
            Vp8Prediction.Predict(chroma[c], colour, x * 8, y * 8, 8);
            for (var i = 0; i < 4 && !skip; i++)
                Vp8Prediction.AddTransform(Block(LumaBlocks + 4 * c + i),
                    chroma[c].Data.AsSpan(chroma[c].At(x * 8 + (i & 1) * 4, y * 8 + (i >> 1) * 4)), chroma[c].Stride);
        }
        if (!skip)
            coefficients.AsSpan().Clear();
    }

    private Span<int> Block(int i) => coefficients.AsSpan(i * Coefficients, Coefficients);

    /// <summary>The mode of the whole luma block, or those of the 4×4 blocks into <see cref="modes"/>.</summary>
    private Vp8Mode ReadModes(Vp8Bits bits, Span<Vp8Mode> top, bool subblocks)
    {
        if (!subblocks)
        {
            var whole = bits.Bit(156) == 0
                ? bits.Bit(163) == 0 ? Vp8Mode.Dc : Vp8Mode.Vertical
                : bits.Bit(128) == 0 ? Vp8Mode.Horizontal : Vp8Mode.TrueMotion;
            top.Fill(whole);
            left.AsSpan().Fill(whole);
            return whole;
        }
        for (var i = 0; i < 16; i++)
        {
            ref Vp8Mode up = ref top[i & 3], back = ref left[i >> 2];
            modes[i] = up = back = ReadMode(bits, Vp8Tables.SubblockModes.Slice(((int)up * 10 + (int)back) * 9, 9));
        }
        return default;
    }

    private static Vp8Mode ReadMode(Vp8Bits bits, ReadOnlySpan<byte> p)
    {
        if (bits.Bit(p[0]) == 0)
            return Vp8Mode.Dc;
        if (bits.Bit(p[1]) == 0)
            return Vp8Mode.TrueMotion;
        if (bits.Bit(p[2]) == 0)
            return Vp8Mode.Vertical;
        if (bits.Bit(p[3]) == 0)
            return bits.Bit(p[4]) == 0 ? Vp8Mode.Horizontal : bits.Bit(p[5]) == 0 ? Vp8Mode.RightDown : Vp8Mode.VerticalRight;
        if (bits.Bit(p[6]) == 0)
            return Vp8Mode.LeftDown;
        if (bits.Bit(p[7]) == 0)
            return Vp8Mode.VerticalLeft;
        return bits.Bit(p[8]) == 0 ? Vp8Mode.HorizontalDown : Vp8Mode.HorizontalUp;
    }

    private void PredictLuma(int x, int y, bool subblocks, Vp8Mode whole, bool skip)
    {
        if (!subblocks)
            Vp8Prediction.Predict(luma, whole, x * 16, y * 16, 16);
        // What is right of the macroblock is known in the row above alone, and serves the subblocks below too.
        Span<byte> right = stackalloc byte[4];
        var aboveRight = luma.At(x * 16 + 16, y * 16 - 1);
        if (y == 0)
            right.Fill(127);
        else if (x == wide - 1)
            right.Fill(luma.Data[aboveRight - 1]);
        else
            luma.Data.AsSpan(aboveRight, 4).CopyTo(right);
        for (var i = 0; i < LumaBlocks; i++)
        {
            var at = luma.At(x * 16 + (i & 3) * 4, y * 16 + (i >> 2) * 4);
            if (subblocks)
                Vp8Prediction.PredictSubblock(luma, modes[i], at, (i & 3) == 3 ? right : luma.Data.AsSpan(at - luma.Stride + 4, 4));
            if (!skip)
                Vp8Prediction.AddTransform(Block(i), luma.Data.AsSpan(at), luma.Stride);
        }
    }

    private Vp8Filter Filter(int level, bool inner)
    {
        if (level == 0)
            return default;
        var interior = level;
        if (header.Sharpness > 0)
            interior = Math.Min(interior >> (header.Sharpness > 4 ? 2 : 1), 9 - header.Sharpness);
        interior = Math.Max(interior, 1);
        return new((byte)(2 * level + interior), (byte)interior, (byte)(level >= 40 ? 2 : level >= 15 ? 1 : 0), inner);
    }

    /// <summary>All coefficients of a macroblock, dequantized. Returns whether there are any.</summary>
    private bool ReadCoefficients(Vp8Bits tokens, in Vp8Steps steps, Span<bool> top, bool subblocks)
    {
        int first = 0, type = WholeLuma;
        var any = false;
        if (!subblocks)
        {
            Span<int> means = stackalloc int[Coefficients];
            means.Clear();
            top[8] = codedLeft[8] = ReadBlock(tokens, Means, Context(top[8], codedLeft[8]), steps.SecondDc, steps.SecondAc, 0, means) > 0;
            Vp8Prediction.AddMeans(means, coefficients);
            (first, type) = (1, LumaAfterMeans);
        }
        for (var i = 0; i < LumaBlocks; i++)
        {
            ref bool up = ref top[i & 3], back = ref codedLeft[i >> 2];
            var end = ReadBlock(tokens, type, Context(up, back), steps.LumaDc, steps.LumaAc, first, Block(i));
            up = back = end > first;
            any |= end > 1 || Block(i)[0] != 0;
        }
        for (var i = 0; i < 8; i++)
        {
            ref bool up = ref top[4 + (i >> 2) * 2 + (i & 1)], back = ref codedLeft[4 + (i >> 1)];
            any |= up = back = ReadBlock(tokens, Chroma, Context(up, back), steps.ChromaDc, steps.ChromaAc, 0, Block(LumaBlocks + i)) > 0;
        }
        return any;

        static int Context(bool above, bool left) => (above ? 1 : 0) + (left ? 1 : 0);
    }

    private static ReadOnlySpan<byte> ZigZag => [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];

    /// <summary>Band of a coefficient; one past the last too, whose probabilities are not used.</summary>
    private static ReadOnlySpan<byte> Bands => [0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0];

    /// <summary>One block's tokens (section 13). Returns the place after the last coefficient.</summary>
    private int ReadBlock(Vp8Bits tokens, int type, int context, int dcStep, int acStep, int n, Span<int> block)
    {
        ReadOnlySpan<byte> probabilities = header.Probabilities.AsSpan(type * 8 * 33, 8 * 33);
        var p = probabilities.Slice(Bands[n] * 33 + context * 11, 11);
        for (; n < Coefficients; n++)
        {
            if (tokens.Bit(p[0]) == 0)
                return n;
            while (tokens.Bit(p[1]) == 0)
            {
                if (++n == Coefficients)
                    return n;
                p = probabilities.Slice(Bands[n] * 33, 11);
            }
            var value = 1;
            context = 1;
            if (tokens.Bit(p[2]) == 1)
            {
                value = ReadLarge(tokens, p);
                context = 2;
            }
            if (tokens.Flag())
                value = -value;
            block[ZigZag[n]] = (short)(value * (n > 0 ? acStep : dcStep));
            p = probabilities.Slice(Bands[n + 1] * 33 + context * 11, 11);
        }
        return n;
    }

    /// <summary>Probabilities of the extra bits of the four widest categories of values.</summary>
    private static ReadOnlySpan<byte> Extra =>
    [
        173, 148, 140,
        176, 155, 140, 135,
        180, 157, 141, 134, 130,
        254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129,
    ];

    private static int ReadLarge(Vp8Bits tokens, ReadOnlySpan<byte> p)
    {
        if (tokens.Bit(p[3]) == 0)
            return tokens.Bit(p[4]) == 0 ? 2 : 3 + tokens.Bit(p[5]);
        if (tokens.Bit(p[6]) == 0)
            return tokens.Bit(p[7]) == 0 ? 5 + tokens.Bit(159) : 7 + 2 * tokens.Bit(165) + tokens.Bit(145);
        var category = 2 * tokens.Bit(p[8]);
        category += tokens.Bit(p[9 + category / 2]);
        var extra = category switch { 0 => Extra[..3], 1 => Extra[3..7], 2 => Extra[7..12], _ => Extra[12..] };
        var value = 0;
        foreach (var probability in extra)
            value = 2 * value + tokens.Bit(probability);
        return value + 3 + (8 << category);
    }
}
