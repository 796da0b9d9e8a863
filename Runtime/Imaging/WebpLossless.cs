namespace Trimtab.Imaging;

/// <summary>Reads lossless WebP streams (VP8L; RFC 9649, section 3) to pixels of alpha, red, green, blue, highest byte first.</summary>
internal ref struct WebpLossless
{
    private const int Literals = 256, Lengths = 24, Distances = 40;

    private WebpBits bits;

    private WebpLossless(ReadOnlySpan<byte> stream) => bits = new(stream);

    private readonly record struct Transform(int Kind, int Bits, int Width, uint[] Data);

    /// <summary>The five prefix codes of a tile.</summary>
    private sealed record Codes(WebpHuffman Green, WebpHuffman Red, WebpHuffman Blue, WebpHuffman Alpha, WebpHuffman Distance);

    /// <summary>Where the near neighbours of a pixel are, [code − 1]: rows up × 16 + 8 − columns left (section 3.6.2.2).</summary>
    private static ReadOnlySpan<byte> Neighbours =>
    [
        24, 7, 23, 25, 40, 6, 39, 41, 22, 26, 38, 42, 56, 5, 55, 57, 21, 27, 54, 58, 37, 43, 72, 4, 71, 73, 20, 28, 53, 59,
        70, 74, 36, 44, 88, 69, 75, 52, 60, 3, 87, 89, 19, 29, 86, 90, 35, 45, 68, 76, 85, 91, 51, 61, 104, 2, 103, 105, 18, 30,
        102, 106, 34, 46, 84, 92, 67, 77, 101, 107, 50, 62, 120, 1, 119, 121, 83, 93, 17, 31, 100, 108, 66, 78, 118, 122, 33, 47, 117, 123,
        49, 63, 99, 109, 82, 94, 0, 116, 124, 65, 79, 16, 32, 98, 110, 48, 115, 125, 81, 95, 64, 114, 126, 97, 111, 80, 113, 127, 96, 112,
    ];

    /// <summary>The order in which the lengths of the code of code lengths come.</summary>
    private static ReadOnlySpan<byte> LengthOrder => [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    /// <summary>Size and use of alpha as the stream's header has them.</summary>
    internal static (int Width, int Height, bool Alpha) Header(ReadOnlySpan<byte> stream)
    {
        if (stream.Length < 5)
            throw WebpDecoder.Bad($"a lossless stream of {stream.Length} bytes is truncated in its header");
        if (stream[0] != 0x2F)
            throw WebpDecoder.Bad($"a lossless stream starts with {stream[0]:X2}, not 2F");
        var header = BitConverter.ToUInt32(stream[1..5]);
        if (header >> 29 != 0)
            throw WebpDecoder.Bad($"lossless version {header >> 29} is not supported, only 0");
        return ((int)(header & 0x3FFF) + 1, (int)((header >> 14) & 0x3FFF) + 1, ((header >> 28) & 1) == 1);
    }

    /// <summary>[height, width] pixels of a stream, which begins behind the header.</summary>
    internal static uint[] Decode(ReadOnlySpan<byte> stream, int width, int height) => new WebpLossless(stream).ReadImage(width, height);

    private uint[] ReadImage(int width, int height)
    {
        var transforms = new Stack<Transform>();
        var packed = width;
        while (bits.Read(1) == 1)
        {
            var kind = bits.Read(2);
            if (transforms.Any(t => t.Kind == kind))
                throw Fail($"lossless transform {kind} comes twice");
            var size = 0;
            uint[] data = [];
            var wide = packed;
            if (kind == WebpTransforms.Palette)
            {
                data = ReadPixels(bits.Read(8) + 1, 1, false);
                WebpTransforms.AddUp(data);
                size = data.Length > 16 ? 0 : data.Length > 4 ? 1 : data.Length > 2 ? 2 : 3;
                packed = Tiles(packed, size);
            }
            else if (kind != WebpTransforms.Green)
            {
                size = bits.Read(3) + 2;
                data = ReadPixels(Tiles(packed, size), Tiles(height, size), false);
            }
            transforms.Push(new(kind, size, wide, data));
        }

        var pixels = ReadPixels(packed, height, true);
        foreach (var t in transforms)
        {
            if (t.Kind == WebpTransforms.Predictor)
                WebpTransforms.Predict(pixels, t.Width, height, t.Data, t.Bits);
            else if (t.Kind == WebpTransforms.Colour)
                WebpTransforms.Recolour(pixels, t.Width, t.Data, t.Bits);
            else if (t.Kind == WebpTransforms.Green)
                WebpTransforms.AddGreen(pixels);
            else
                pixels = WebpTransforms.LookUp(pixels, t.Width, height, t.Data, t.Bits);
        }
        return pixels;
    }

    private static int Tiles(int size, int bits) => (size + (1 << bits) - 1) >> bits;

    private readonly InvalidImageException Fail(string what) => WebpDecoder.Bad(bits.Overrun ? "a lossless stream is truncated" : what);

    /// <summary>An entropy-coded image; the main one may use several groups of codes, chosen by tile.</summary>
    private uint[] ReadPixels(int width, int height, bool main)
    {
        var cacheBits = 0;
        if (bits.Read(1) == 1 && (cacheBits = bits.Read(4)) is < 1 or > 11)
            throw Fail($"a colour cache of {cacheBits} bits, outside 1 … 11");
        int tileBits = 0, tilesWide = 0;
        uint[] tiles = [];
        if (main && bits.Read(1) == 1)
        {
            tileBits = bits.Read(3) + 2;
            tilesWide = Tiles(width, tileBits);
            tiles = ReadPixels(tilesWide, Tiles(height, tileBits), false);
            foreach (ref var tile in tiles.AsSpan())
                tile = (tile >> 8) & 0xFFFF;
        }
        var groups = ReadGroups(tiles, cacheBits);
        var pixels = new uint[width * height];
        var cache = cacheBits == 0 ? [] : new uint[1 << cacheBits];
        var cacheShift = 32 - cacheBits;
        var codes = groups[0]!;
        var tileMask = (1 << tileBits) - 1;
        int x = 0, y = 0;
        var jumped = false;
        for (var i = 0; i < pixels.Length;)
        {
            // Chosen anew at a tile's edge, and after a copy, which may end inside another tile.
            if (tiles.Length > 0 && (jumped || (x & tileMask) == 0))
                codes = groups[(int)tiles[(y >> tileBits) * tilesWide + (x >> tileBits)]]!;
            bits.Need48();
            var symbol = codes.Green.Decode(ref bits);
            int run;
            if (symbol < Literals)
            {
                var red = codes.Red.Decode(ref bits);
                var blue = codes.Blue.Decode(ref bits);
                bits.Need48();
                pixels[i] = ((uint)codes.Alpha.Decode(ref bits) << 24) | ((uint)red << 16) | ((uint)symbol << 8) | (uint)blue;
                run = 1;
            }
            else if (symbol < Literals + Lengths)
            {
                run = ReadLength(symbol - Literals);
                bits.Need48();
                var distance = Distance(ReadLength(codes.Distance.Decode(ref bits)), width);
                if (distance > i || run > pixels.Length - i)
                    throw Fail($"a lossless copy of {run} pixels from {distance} back at pixel {i} of {pixels.Length}");
                if (distance >= run)
                    pixels.AsSpan(i - distance, run).CopyTo(pixels.AsSpan(i));
                else
                    for (var j = i; j < i + run; j++)
                        pixels[j] = pixels[j - distance];
            }
            else
            {
                pixels[i] = cache[symbol - Literals - Lengths];
                run = 1;
            }
            if (cacheBits > 0)
                foreach (var pixel in pixels.AsSpan(i, run))
                    cache[(0x1E35A7BD * pixel) >> cacheShift] = pixel;
            i += run;
            x += run;
            jumped = run > 1;
            if (x >= width)
            {
                if (bits.Overrun)
                    throw Fail("");
                y += x / width;
                x %= width;
            }
        }
        if (bits.Overrun)
            throw Fail("");
        return pixels;
    }

    private static int Distance(int code, int width)
    {
        if (code > Neighbours.Length)
            return code - Neighbours.Length;
        int place = Neighbours[code - 1];
        return Math.Max((place >> 4) * width + 8 - (place & 15), 1);
    }

    /// <summary>A number coded as a prefix and extra bits (section 3.6.2.2).</summary>
    private int ReadLength(int prefix)
    {
        if (prefix < 4)
            return prefix + 1;
        var extra = (prefix - 2) >> 1;
        return ((2 + (prefix & 1)) << extra) + bits.Read(extra) + 1;
    }

    /// <summary>All groups of codes; those that no tile names are read and dropped.</summary>
    private Codes?[] ReadGroups(ReadOnlySpan<uint> tiles, int cacheBits)
    {
        var count = 1;
        foreach (var tile in tiles)
            count = Math.Max(count, (int)tile + 1);
        var used = new bool[count];
        used[0] = tiles.IsEmpty;
        foreach (var tile in tiles)
            used[tile] = true;
        var groups = new Codes?[count];
        Span<byte> lengths = stackalloc byte[Literals + Lengths + (1 << 11)];
        var greens = Literals + Lengths + (cacheBits == 0 ? 0 : 1 << cacheBits);
        for (var i = 0; i < count; i++)
        {
            var codes = new Codes(ReadCode(lengths[..greens]), ReadCode(lengths[..Literals]), ReadCode(lengths[..Literals]),
                ReadCode(lengths[..Literals]), ReadCode(lengths[..Distances]));
            if (used[i])
                groups[i] = codes;
        }
        groups[0] ??= groups[tiles.IsEmpty ? 0 : (int)tiles[0]];
        return groups;
    }

    /// <summary>One prefix code (section 3.7.2.1); <paramref name="lengths"/> is its alphabet, to be filled.</summary>
    private WebpHuffman ReadCode(scoped Span<byte> lengths)
    {
        lengths.Clear();
        if (bits.Read(1) == 1)
        {
            var two = bits.Read(1) == 1;
            Mark(lengths, bits.Read(bits.Read(1) == 0 ? 1 : 8));
            if (two)
                Mark(lengths, bits.Read(8));
        }
        else
            ReadLengths(lengths);
        if (bits.Overrun)
            throw Fail("");
        return new(lengths);
    }

    /// <summary>A symbol outside the alphabet is no symbol; a code without any is refused later.</summary>
    private static void Mark(Span<byte> lengths, int symbol)
    {
        if (symbol < lengths.Length)
            lengths[symbol] = 1;
    }

    private void ReadLengths(scoped Span<byte> lengths)
    {
        Span<byte> outer = stackalloc byte[19];
        outer.Clear();
        var count = bits.Read(4) + 4;
        for (var i = 0; i < count; i++)
            outer[LengthOrder[i]] = (byte)bits.Read(3);
        var code = new WebpHuffman(outer);
        var left = lengths.Length;
        if (bits.Read(1) == 1)
        {
            left = 2 + bits.Read(2 + 2 * bits.Read(3));
            if (left > lengths.Length)
                throw Fail($"{left} code lengths for an alphabet of {lengths.Length}");
        }
        byte before = 8;
        for (var symbol = 0; symbol < lengths.Length && left-- > 0;)
        {
            bits.Need48();
            var length = code.Decode(ref bits);
            if (length < 16)
            {
                lengths[symbol++] = (byte)length;
                if (length != 0)
                    before = (byte)length;
                continue;
            }
            var repeat = length switch { 16 => 3 + bits.Read(2), 17 => 3 + bits.Read(3), _ => 11 + bits.Read(7) };
            if (symbol + repeat > lengths.Length)
                throw Fail($"code lengths past the end of an alphabet of {lengths.Length}");
            lengths.Slice(symbol, repeat).Fill(length == 16 ? before : (byte)0);
            symbol += repeat;
        }
    }
}
