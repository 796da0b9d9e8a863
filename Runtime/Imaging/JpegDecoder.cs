using System.Buffers.Binary;

namespace Trimtab.Imaging;

/// <summary>
/// Reads JPEG files (ITU-T T.81, T.871, Adobe's APP14): 8-bit Huffman-coded baseline, extended sequential and progressive, grey, RGB,
/// YCbCr, CMYK and YCCK, any integral sampling. Roundings follow libjpeg-turbo's defaults.
/// </summary>
internal ref struct JpegDecoder
{
    // What the scans of a file may cost, in coefficients looked at: so much a block, or so much in all where that is more. Files in use
    // need about 300 a block; all fourteen bits of all coefficients would be 896.
    private const long CostPerBlock = 1024, CostAnyway = 64_000_000;

    private readonly ReadOnlySpan<byte> data;
    private readonly long maxPixels;
    private readonly int[]?[] steps = new int[]?[4]; // [table][zigzag place]
    private readonly JpegHuffman?[] dc = new JpegHuffman?[4], ac = new JpegHuffman?[4];
    private JpegFrame? frame;
    private int restartInterval;
    private int orientation;  // 0: not seen
    private bool jfif;
    private int adobe = -1;   // its colour transform; −1: no such marker
    private long cost;

    private JpegDecoder(ReadOnlySpan<byte> data, long maxPixels)
    {
        this.data = data;
        this.maxPixels = maxPixels;
    }

    /// <summary>Decodes a file to RGB.</summary>
    /// <exception cref="InvalidImageException">The file is truncated, corrupt, larger than allowed or of an unsupported kind.</exception>
    internal static Raster Decode(ReadOnlySpan<byte> data, long maxPixels) => new JpegDecoder(data, maxPixels).Read();

    internal static InvalidImageException Bad(string what) => new($"JPEG: {what}");

    internal static InvalidImageException Cut(int position) => Bad($"image data end too early, at byte {position}");

    /// <summary>Moves past the next marker and returns its code; stuffed and stray bytes before it are passed over.</summary>
    internal static int NextMarker(ReadOnlySpan<byte> data, ref int position)
    {
        while (position < data.Length)
        {
            var found = data[position..].IndexOf((byte)0xFF);
            if (found < 0)
                break;
            position += found;
            while (position < data.Length && data[position] == 0xFF)
                position++;
            if (position < data.Length && data[position++] is var code and not 0)
                return code;
        }
        throw Bad($"truncated at byte {data.Length}, where a marker was expected");
    }

    private Raster Read()
    {
        if (!data.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xD8]))
            throw Bad("no start-of-image marker at byte 0");
        var position = 2;
        // A file whose pixels are all there is not refused for what is missing behind them.
        while (frame is not { Complete: true })
        {
            var code = NextMarker(data, ref position);
            if (code == 0xD9)
            {
                CheckAllScanned();
                break;
            }
            if (code is 0x01 or (>= 0xD0 and <= 0xD7))
                continue;
            if (code == 0xD8)
                throw Bad($"a second start of image before byte {position}");
            var start = position;
            var segment = Segment(code, ref position);
            switch (code)
            {
                case 0xC0 or 0xC1 or 0xC2:
                    ReadFrame(segment, code == 0xC2);
                    break;
                case 0xC4:
                    ReadHuffman(segment, start);
                    break;
                case >= 0xC3 and <= 0xCF and not 0xCC:
                    throw Bad(Unsupported(code));
                case 0xDA:
                    position = ReadScan(segment, position);
                    break;
                case 0xDB:
                    ReadSteps(segment, start);
                    break;
                case 0xDC:
                    throw Bad("the number of lines comes after the first scan (DNL), which is not supported");
                case 0xDD:
                    if (segment.Length != 2)
                        throw Bad($"a restart interval of {segment.Length} bytes at byte {start}, not 2");
                    restartInterval = BinaryPrimitives.ReadUInt16BigEndian(segment);
                    break;
                case 0xE0:
                    jfif |= segment.Length >= 14 && segment.StartsWith("JFIF\0"u8);
                    break;
                case 0xE1:
                    if (orientation == 0 && segment.StartsWith("Exif\0"u8) && segment.Length > 6)
                        orientation = Exif.Orientation(segment[6..]);
                    break;
                case 0xEE:
                    if (segment.Length >= 12 && segment.StartsWith("Adobe"u8))
                        adobe = segment[11];
                    break;
            }
        }

        var colours = Colours();
        if (frame!.Progressive)
            foreach (var c in frame.Components)
                Transform(c);
        return new(frame.Width, frame.Height, 3, JpegColour.ToRgb(frame, colours), Math.Max(orientation, 1));
    }

    private static string Unsupported(int code) => code switch
    {
        0xC3 => "lossless coding is not supported",
        0xC5 or 0xC6 or 0xC7 => "hierarchical coding is not supported",
        0xC9 or 0xCA => "arithmetic coding is not supported",
        0xCB => "lossless arithmetic coding is not supported",
        0xCD or 0xCE or 0xCF => "hierarchical arithmetic coding is not supported",
        _ => $"coding process {code:X2} is not supported",
    };

    private readonly ReadOnlySpan<byte> Segment(int code, ref int position)
    {
        if (position + 2 > data.Length)
            throw Bad($"truncated in the length of segment {code:X2} at byte {position}");
        var length = BinaryPrimitives.ReadUInt16BigEndian(data[position..]);
        if (length < 2)
            throw Bad($"segment {code:X2} at byte {position} has length {length}, less than 2");
        if (position + length > data.Length)
            throw Bad($"truncated in segment {code:X2} at byte {position}: {length} bytes expected, {data.Length - position} left");
        var segment = data.Slice(position + 2, length - 2);
        position += length;
        return segment;
    }

    private void ReadFrame(scoped ReadOnlySpan<byte> segment, bool progressive)
    {
        if (frame is not null)
            throw Bad("a second frame header");
        if (segment.Length < 6 || segment.Length != 6 + 3 * segment[5])
            throw Bad($"a frame header of {segment.Length} bytes does not fit its number of components");
        if (segment[0] != 8)
            throw Bad($"{segment[0]}-bit samples are not supported, only 8-bit ones");
        int height = BinaryPrimitives.ReadUInt16BigEndian(segment[1..]), width = BinaryPrimitives.ReadUInt16BigEndian(segment[3..]);
        if (height == 0)
            throw Bad("height 0 (number of lines given later, DNL) is not supported");
        if (width == 0)
            throw Bad("width 0");
        if ((long)width * height > Math.Min(maxPixels, Array.MaxLength / 4))
            throw Bad($"{width} × {height} pixels are more than the {Math.Min(maxPixels, Array.MaxLength / 4)} allowed");
        if (segment[5] is not (1 or 3 or 4))
            throw Bad($"{segment[5]} colour components, where 1, 3 or 4 are known");

        var components = new JpegComponent[segment[5]];
        for (var i = 0; i < components.Length; i++)
        {
            var entry = segment[(6 + 3 * i)..];
            int horizontal = entry[1] >> 4, vertical = entry[1] & 15;
            if (horizontal is < 1 or > 4 || vertical is < 1 or > 4)
                throw Bad($"sampling factors {horizontal} × {vertical} of component {i}, outside 1 … 4");
            if (entry[2] > 3)
                throw Bad($"quantization table {entry[2]} of component {i}, outside 0 … 3");
            components[i] = new(entry[0], horizontal, vertical, entry[2]);
        }
        frame = new(progressive, width, height, components);
        foreach (var c in components)
            if (frame.Across % c.Horizontal != 0 || frame.Down % c.Vertical != 0)
                throw Bad($"fractional sampling ({c.Horizontal} × {c.Vertical} of {frame.Across} × {frame.Down}) is not supported");
        // Every block takes a bit at the least, so a short file cannot claim much space.
        if (frame.Blocks > data.Length * 8L)
            throw Bad($"truncated: {data.Length} bytes cannot hold {width} × {height} pixels");
        if (components.Any(c => (long)c.PaddedWide * c.PaddedHigh * 64 > Array.MaxLength))
            throw Bad($"{width} × {height} pixels with padding are more than can be held");
        frame.Allocate();
    }

    private readonly void ReadHuffman(ReadOnlySpan<byte> segment, int start)
    {
        while (segment.Length > 0)
        {
            if (segment.Length < 17)
                throw Bad($"a Huffman table cut off in the segment at byte {start}");
            var count = 0;
            foreach (var n in segment[1..17])
                count += n;
            if (count > 256 || count > segment.Length - 17)
                throw Bad($"a Huffman table of {count} symbols in the segment at byte {start}, which holds {segment.Length - 17}");
            int kind = segment[0] >> 4, index = segment[0] & 15;
            if (kind > 1 || index > 3)
                throw Bad($"Huffman table {segment[0]:X2} at byte {start}, where class 0 or 1 and number 0 … 3 were expected");
            var table = new JpegHuffman(segment[1..17], segment.Slice(17, count));
            if (kind == 0 && table.Largest > 15)
                throw Bad($"a DC Huffman table with symbol {table.Largest} in the segment at byte {start}");
            (kind == 0 ? dc : ac)[index] = table;
            segment = segment[(17 + count)..];
        }
    }

    private readonly void ReadSteps(ReadOnlySpan<byte> segment, int start)
    {
        while (segment.Length > 0)
        {
            int wide = segment[0] >> 4, index = segment[0] & 15;
            if (wide > 1 || index > 3)
                throw Bad($"quantization table {segment[0]:X2} at byte {start}, where 8 or 16 bits and number 0 … 3 were expected");
            var size = 1 + 64 * (1 + wide);
            if (segment.Length < size)
                throw Bad($"a quantization table cut off in the segment at byte {start}");
            var table = new int[64];
            for (var i = 0; i < 64; i++)
                table[i] = wide == 0 ? segment[1 + i] : BinaryPrimitives.ReadUInt16BigEndian(segment[(1 + 2 * i)..]);
            steps[index] = table;
            segment = segment[size..];
        }
    }

    private int ReadScan(scoped ReadOnlySpan<byte> segment, int position)
    {
        if (frame is null)
            throw Bad($"a scan before the frame header, before byte {position}");
        if (segment.Length < 1 || segment[0] is < 1 or > 4 || segment.Length != 4 + 2 * segment[0])
            throw Bad($"a scan header of {segment.Length} bytes before byte {position} does not fit its number of components");
        var components = new JpegComponent[segment[0]];
        var tail = segment[^3..];
        var scan = new JpegScan(data, position, frame, components);
        if (frame.Progressive)
        {
            (scan.First, scan.Last, scan.High, scan.Low) = (tail[0], tail[1], tail[2] >> 4, tail[2] & 15);
            var spectrum = scan.First == 0 ? scan.Last == 0 : scan.Last >= scan.First && scan.Last < 64 && components.Length == 1;
            if (!spectrum || scan.Low > 13 || (scan.High != 0 && scan.High != scan.Low + 1))
                throw Bad($"a progressive scan of coefficients {scan.First} … {scan.Last}, bits {scan.High} → {scan.Low}, "
                    + $"before byte {position}");
        }
        for (var i = 0; i < components.Length; i++)
        {
            int id = segment[1 + 2 * i], tables = segment[2 + 2 * i];
            components[i] = Array.Find(frame.Components, c => c.Id == id && Array.IndexOf(components, c) < 0)
                ?? throw Bad($"a scan of component {id} before byte {position}, which the frame header does not name");
            Prepare(components[i], tables, in scan);
        }
        cost += scan.Cost;
        if (cost > Math.Max(CostAnyway, frame.Blocks * CostPerBlock))
            throw Bad($"more scans than an image of {frame.Width} × {frame.Height} can need, before byte {position}");
        return scan.Decode(restartInterval);
    }

    private readonly void Prepare(JpegComponent c, int tables, in JpegScan scan)
    {
        c.Steps ??= steps[c.Quantizer] ?? throw Bad($"quantization table {c.Quantizer} of component {c.Id} is missing");
        if (scan.First == 0 && scan.High == 0)
            c.Dc = Table(dc, tables >> 4, false);
        if (scan.Last > 0)
            c.Ac = Table(ac, tables & 15, true);
        for (var k = scan.First; frame!.Progressive && k <= scan.Last; k++)
            c.Known[k] = scan.Low;
    }

    private static JpegHuffman Table(JpegHuffman?[] tables, int index, bool ac)
    {
        if (index < 2)
            return tables[index] ??= JpegHuffman.Standard(ac, index == 1);
        return (index < 4 ? tables[index] : null) ?? throw Bad($"{(ac ? "AC" : "DC")} Huffman table {index} is missing");
    }

    private readonly void CheckAllScanned()
    {
        if (frame is null)
            throw Bad("the image ends without a frame header");
        foreach (var c in frame.Components)
            if (frame.Progressive ? c.Known[0] < 0 : c.Steps is null)
                throw Bad($"the image ends without a scan of component {c.Id}");
    }

    private readonly JpegColours Colours()
    {
        var components = frame!.Components;
        if (components.Length == 1)
            return JpegColours.Grey;
        if (components.Length == 4)
            return adobe is 0 or -1 ? JpegColours.Cmyk : JpegColours.Ycck;
        if (jfif)
            return JpegColours.YCbCr;
        if (adobe >= 0)
            return adobe == 0 ? JpegColours.Rgb : JpegColours.YCbCr;
        return (components[0].Id, components[1].Id, components[2].Id) == ('R', 'G', 'B') ? JpegColours.Rgb : JpegColours.YCbCr;
    }

    private static void Transform(JpegComponent c)
    {
        c.Samples = new byte[checked(c.Stride * c.BlocksHigh * 8)];
        var natural = JpegScan.Natural;
        Span<int> steps = stackalloc int[64], block = stackalloc int[64];
        for (var k = 0; k < 64; k++)
            steps[natural[k]] = c.Steps![k];
        for (var y = 0; y < c.BlocksHigh; y++)
            for (var x = 0; x < c.BlocksWide; x++)
            {
                var coefficients = c.Coefficients.AsSpan((y * c.PaddedWide + x) * 64, 64);
                var last = coefficients[1..].ContainsAnyExcept((short)0) ? 63 : 0;
                for (var k = 0; k < 64; k++)
                    block[k] = coefficients[k] * steps[k];
                JpegTransform.Inverse(block, last, c.Samples.AsSpan(y * 8 * c.Stride + x * 8), c.Stride);
            }
        c.Coefficients = null;
    }
}
