namespace Trimtab.Imaging;

/// <summary>One scan of a JPEG file: sequential (T.81, F.2) or one pass of a progressive frame (G.2).</summary>
internal ref struct JpegScan(ReadOnlySpan<byte> data, int position, JpegFrame frame, JpegComponent[] components)
{
    /// <summary>Natural place of each coefficient of a block, [zigzag place] (T.81, figure A.6).</summary>
    internal static ReadOnlySpan<byte> Natural =>
    [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
        12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
        58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ];

    private readonly ReadOnlySpan<byte> data = data;
    private JpegBits bits = new(data, position);
    private int skipped; // progressive AC: blocks still to come in a run of ends of block

    /// <summary>First and last coefficient in zigzag order.</summary>
    internal int First, Last = 63;

    /// <summary>The lowest bit known before (0 for a first pass) and after this scan.</summary>
    internal int High, Low;

    /// <summary>Coefficients to look at, and something for each block.</summary>
    internal readonly long Cost => components.Sum(c => (long)c.BlocksWide * c.BlocksHigh) * (Last - First + 5);

    /// <summary>Decodes the scan, with a restart every so many units (0: none). Returns where to look for the next marker.</summary>
    internal int Decode(int restartInterval)
    {
        var alone = components.Length == 1;
        var wide = alone ? components[0].BlocksWide : frame.UnitsWide;
        var high = alone ? components[0].BlocksHigh : frame.UnitsHigh;
        foreach (var c in components)
            c.Predictor = 0;
        Span<int> block = stackalloc int[64];
        int left = restartInterval, restarts = 0;
        for (var y = 0; y < high; y++)
        {
            for (var x = 0; x < wide; x++)
            {
                if (restartInterval > 0 && left-- == 0)
                {
                    Restart(restarts++ & 7);
                    left = restartInterval - 1;
                }
                foreach (var c in components)
                {
                    if (alone)
                        DecodeBlock(c, x, y, block);
                    else
                        for (var v = 0; v < c.Vertical; v++)
                            for (var h = 0; h < c.Horizontal; h++)
                                DecodeBlock(c, x * c.Horizontal + h, y * c.Vertical + v, block);
                }
                if (bits.Overrun)
                    throw JpegDecoder.Cut(bits.Position);
            }
        }
        return bits.Position;
    }

    private void Restart(int number)
    {
        var position = bits.Position;
        var marker = JpegDecoder.NextMarker(data, ref position);
        if (marker != 0xD0 + number)
            throw JpegDecoder.Bad($"restart marker {number} expected, marker {marker:X2} found before byte {position}");
        bits.Restart(position);
        skipped = 0;
        foreach (var c in components)
            c.Predictor = 0;
    }

    private void DecodeBlock(JpegComponent c, int x, int y, scoped Span<int> block)
    {
        if (!frame.Progressive)
        {
            block.Clear();
            var last = DecodeSequential(c, block);
            if (x < c.BlocksWide && y < c.BlocksHigh)
                JpegTransform.Inverse(block, last, c.Samples.AsSpan(y * 8 * c.Stride + x * 8), c.Stride);
            return;
        }
        var coefficients = c.Coefficients.AsSpan((y * c.PaddedWide + x) * 64, 64);
        if (First == 0)
        {
            if (High == 0)
                coefficients[0] = (short)(DecodeDc(c) << Low);
            else if (bits.Bit())
                coefficients[0] |= (short)(1 << Low);
        }
        else if (High == 0)
            DecodeFirstAc(c.Ac!, coefficients);
        else
            RefineAc(c.Ac!, coefficients);
    }

    private int DecodeDc(JpegComponent c)
    {
        bits.Need32();
        var size = c.Dc!.Decode(ref bits);
        if (size != 0)
            c.Predictor += bits.TakeSigned(size);
        return c.Predictor;
    }

    /// <summary>Dequantized coefficients in natural order; returns the last one's zigzag place.</summary>
    private int DecodeSequential(JpegComponent c, scoped Span<int> block)
    {
        var steps = c.Steps!.AsSpan(0, 64);
        var natural = Natural;
        var table = c.Ac!;
        block[0] = (short)DecodeDc(c) * steps[0];
        var last = 0;
        for (var k = 1; k < 64; k++)
        {
            bits.Need32();
            var symbol = table.Decode(ref bits);
            var size = symbol & 15;
            k += symbol >> 4;
            if (size == 0)
            {
                if (symbol != 0xF0)
                    break;
                continue;
            }
            if (k > 63)
                throw TooMany();
            block[natural[k]] = bits.TakeSigned(size) * steps[k];
            last = k;
        }
        return last;
    }

    private void DecodeFirstAc(JpegHuffman table, Span<short> block)
    {
        if (skipped > 0)
        {
            skipped--;
            return;
        }
        for (var k = First; k <= Last; k++)
        {
            bits.Need32();
            var symbol = table.Decode(ref bits);
            int run = symbol >> 4, size = symbol & 15;
            if (size == 0 && run < 15)
            {
                skipped = (1 << run) - 1 + (run == 0 ? 0 : bits.Take(run));
                return;
            }
            k += run;
            if (size == 0)
                continue;
            if (k > Last)
                throw TooMany();
            block[Natural[k]] = (short)(bits.TakeSigned(size) << Low);
        }
    }

    private void RefineAc(JpegHuffman table, Span<short> block)
    {
        var natural = Natural;
        var k = First;
        for (; skipped == 0 && k <= Last; k++)
        {
            bits.Need32();
            var symbol = table.Decode(ref bits);
            int run = symbol >> 4, size = symbol & 15;
            short value = 0;
            if (size > 1)
                throw JpegDecoder.Bad($"a refined coefficient of {size} bits before byte {bits.Position}");
            if (size == 1)
                value = (short)(bits.Take(1) == 1 ? 1 << Low : -1 << Low);
            else if (run < 15)
            {
                skipped = (1 << run) + (run == 0 ? 0 : bits.Take(run));
                break;
            }
            // The run counts coefficients that are still zero; the others on the way take one bit each.
            for (; k <= Last; k++)
            {
                ref var coefficient = ref block[natural[k]];
                if (coefficient != 0)
                    Refine(ref coefficient);
                else if (--run < 0)
                    break;
            }
            if (value == 0)
                continue;
            if (k > Last)
                throw TooMany();
            block[natural[k]] = value;
        }
        if (skipped == 0)
            return;
        // Most blocks of such a run are empty, and take no bits.
        for (var any = block[1..].ContainsAnyExcept((short)0); any && k <= Last; k++)
        {
            ref var coefficient = ref block[natural[k]];
            if (coefficient != 0)
                Refine(ref coefficient);
        }
        skipped--;
    }

    private void Refine(ref short coefficient)
    {
        if (bits.Bit() && (coefficient & (1 << Low)) == 0)
            coefficient += (short)(coefficient > 0 ? 1 << Low : -1 << Low);
    }

    private readonly InvalidImageException TooMany() =>
        bits.Overrun ? JpegDecoder.Cut(bits.Position) : JpegDecoder.Bad($"a block with too many coefficients before byte {bits.Position}");
}
