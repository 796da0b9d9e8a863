using System.Buffers.Binary;
using System.IO.Compression;
using System.Numerics;
using System.Text;

namespace Trimtab.Imaging;

/// <summary>
/// Reads PNG files (W3C PNG, third edition), all colour types, depths and interlacing. 16-bit samples keep their high byte, as Pillow does.
/// </summary>
/// <remarks>
/// Damage is refused where it could show: a bad check of a critical chunk or of tRNS, an unknown critical chunk, a chunk out of order, a
/// missing IEND. An ancillary chunk that is damaged, misplaced or unknown is passed over, as libpng does; colour management (gAMA, iCCP …)
/// is ignored and of an animation only the default image is read. An index beyond the palette is opaque black.
/// </remarks>
internal sealed class PngDecoder
{
    /// <summary>No deflate stream expands further (258 bytes for two bits), so a larger claim is known to be false before memory is taken.</summary>
    private const long MaxExpansion = 1032;

    private readonly int _width, _height, _depth, _colourType;
    private readonly bool _interlaced;

    // RGBA of each index; of an index beyond the palette, opaque black.
    private readonly byte[] _palette = new byte[4 * 256];
    private int _paletteSize = -1;

    // The samples, at full depth, that mean transparent: grey, or red, green and blue.
    private int[]? _transparent;
    private bool _paletteAlpha;
    private int _orientation = 1;

    private PngDecoder(ReadOnlySpan<byte> header, long maxPixels)
    {
        var (width, height) = (BinaryPrimitives.ReadUInt32BigEndian(header), BinaryPrimitives.ReadUInt32BigEndian(header[4..]));
        ImageDecoder.CheckSize("PNG IHDR", width, height, maxPixels);
        (_width, _height, _depth, _colourType) = ((int)width, (int)height, header[8], header[9]);
        if (!(_colourType switch { 0 => _depth is 1 or 2 or 4 or 8 or 16, 2 or 4 or 6 => _depth is 8 or 16, 3 => _depth is 1 or 2 or 4 or 8, _ => false }))
            throw new InvalidImageException($"PNG IHDR: there is no colour type {_colourType} with {_depth} bits");
        if (header[10] != 0 || header[11] != 0 || header[12] > 1)
            throw new InvalidImageException(
                $"PNG IHDR: compression, filter and interlace methods are {header[10]}, {header[11]}, {header[12]}; expected 0, 0, and 0 or 1");
        _interlaced = header[12] == 1;
        for (var i = 3; i < _palette.Length; i += 4)
            _palette[i] = 255;
    }

    private int Channels => _transparent is not null || _paletteAlpha || _colourType >= 4 ? 4 : 3;

    private int BitsPerPixel => _depth * _colourType switch { 2 => 3, 4 => 2, 6 => 4, _ => 1 };

    internal static Raster Decode(ReadOnlySpan<byte> data, long maxPixels)
    {
        PngDecoder? png = null;
        var packed = new List<Range>();
        long packedBytes = 0;
        var packedEnd = 0;
        for (var at = 8; ;)
        {
            if (data.Length - at < 12)
                throw new InvalidImageException($"PNG: cut short at byte {data.Length}: no IEND chunk");
            var length = BinaryPrimitives.ReadUInt32BigEndian(data[at..]);
            var type = data.Slice(at + 4, 4);
            foreach (var letter in type)
                if (!char.IsAsciiLetter((char)letter))
                    throw new InvalidImageException($"PNG: no chunk type at byte {at + 4}: {Convert.ToHexString(type)}");
            var name = Encoding.ASCII.GetString(type);
            if (length > (uint)(data.Length - at - 12))
                throw new InvalidImageException($"PNG {name} at byte {at}: of its {length} bytes {data.Length - at - 8} are there");
            var content = data.Slice(at + 8, (int)length);
            var sound = Crc32.Of(type, content) == BinaryPrimitives.ReadUInt32BigEndian(data[(at + 8 + (int)length)..]);
            if (!sound && (name is "tRNS" || (type[0] & 0x20) == 0))
                throw new InvalidImageException($"PNG {name} at byte {at}: its check (CRC) does not fit");
            if ((png is null) != (name == "IHDR"))
                throw new InvalidImageException($"PNG {name} at byte {at}: there must be one IHDR, as the first chunk");
            switch (name)
            {
                case "IHDR":
                    if (length != 13)
                        throw new InvalidImageException($"PNG IHDR: {length} bytes, expected 13");
                    png = new(content, maxPixels);
                    break;
                case "PLTE":
                    png!.ReadPalette(content, at, packed.Count > 0);
                    break;
                case "tRNS":
                    png!.ReadTransparency(content, at, packed.Count > 0);
                    break;
                case "IDAT":
                    if (packed.Count > 0 && packedEnd != at)
                        throw new InvalidImageException($"PNG IDAT at byte {at}: not next to the IDAT before it");
                    packed.Add(new(at + 8, at + 8 + (int)length));
                    packedBytes += length;
                    packedEnd = at + 12 + (int)length;
                    break;
                case "eXIf":
                    if (sound)
                        png!._orientation = Exif.Orientation(content);
                    break;
                case "IEND":
                    if (packed.Count == 0)
                        throw new InvalidImageException($"PNG: no IDAT before the IEND at byte {at}");
                    var stream = new byte[packedBytes];
                    var end = 0;
                    foreach (var part in packed)
                    {
                        data[part].CopyTo(stream.AsSpan(end));
                        end += part.End.Value - part.Start.Value;
                    }
                    return png!.ReadPixels(stream);
                default:
                    if ((type[0] & 0x20) == 0)
                        throw new InvalidImageException($"PNG {name} at byte {at}: an unknown critical chunk");
                    break;
            }
            at += 12 + (int)length;
        }
    }

    private void ReadPalette(ReadOnlySpan<byte> content, int at, bool late)
    {
        // In true colour a palette is a hint for displays, in grey it is out of place; neither shows.
        if (_colourType != 3)
            return;
        if (_paletteSize >= 0 || late)
            throw new InvalidImageException($"PNG PLTE at byte {at}: there must be one, before IDAT");
        if (content.Length is 0 or > 3 * 256 || content.Length % 3 != 0)
            throw new InvalidImageException($"PNG PLTE at byte {at}: {content.Length} bytes are not 1 to 256 colours");
        _paletteSize = content.Length / 3;
        for (var i = 0; i < _paletteSize; i++)
            content.Slice(3 * i, 3).CopyTo(_palette.AsSpan(4 * i));
    }

    private void ReadTransparency(ReadOnlySpan<byte> content, int at, bool late)
    {
        if (_colourType >= 4)
            return;
        if (late || _transparent is not null || _paletteAlpha || (_colourType == 3 && _paletteSize < 0))
            throw new InvalidImageException($"PNG tRNS at byte {at}: there must be one, after PLTE and before IDAT");
        var expected = _colourType switch { 0 => 2, 2 => 6, _ => _paletteSize };
        if (_colourType == 3 ? content.Length is 0 || content.Length > expected : content.Length != expected)
            throw new InvalidImageException($"PNG tRNS at byte {at}: {content.Length} bytes, expected {(_colourType == 3 ? "1 to " : "")}{expected}");
        if (_colourType == 3)
        {
            _paletteAlpha = true;
            for (var i = 0; i < content.Length; i++)
                _palette[4 * i + 3] = content[i];
            return;
        }
        // Only the low bits count where samples have fewer than 16.
        _transparent = new int[expected / 2];
        for (var i = 0; i < _transparent.Length; i++)
            _transparent[i] = BinaryPrimitives.ReadUInt16BigEndian(content[(2 * i)..]) & ((1 << _depth) - 1);
    }

    private Raster ReadPixels(byte[] packed)
    {
        if (_colourType == 3 && _paletteSize < 0)
            throw new InvalidImageException("PNG: no PLTE before IDAT");
        // Adam7: seven passes, each a coarser grid. (first column, first row, column step, row step)
        ReadOnlySpan<(int X, int Y, int StepX, int StepY)> passes = _interlaced
            ? [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
            : [(0, 0, 1, 1)];
        long needed = 0;
        foreach (var (x, y, stepX, stepY) in passes)
            needed += Columns(x, stepX) is > 0 and var columns ? (long)Rows(y, stepY) * (1 + RowBytes(columns)) : 0;
        if (needed > MaxExpansion * packed.Length)
            throw new InvalidImageException($"PNG IDAT: {packed.Length} bytes cannot hold {_width} x {_height} pixels; cut short?");

        var channels = Channels;
        var pixels = new byte[_width * _height * channels];
        var (row, above) = (new byte[1 + RowBytes(_width)], new byte[1 + RowBytes(_width)]);
        using var stream = new ZLibStream(new MemoryStream(packed), CompressionMode.Decompress);
        try
        {
            foreach (var (x, firstRow, stepX, stepY) in passes)
            {
                var columns = Columns(x, stepX);
                if (columns == 0)
                    continue;
                var length = 1 + RowBytes(columns);
                Array.Clear(above);
                for (var y = firstRow; y < _height; y += stepY)
                {
                    if (stream.ReadAtLeast(row.AsSpan(0, length), length, throwOnEndOfStream: false) < length)
                        throw new InvalidImageException($"PNG IDAT: the pixels end in row {y} of {_height}");
                    Unfilter(row[0], row.AsSpan(1, length - 1), above.AsSpan(1, length - 1), y);
                    Expand(row.AsSpan(1, length - 1), columns, pixels.AsSpan((y * _width + x) * channels), stepX * channels, channels);
                    (row, above) = (above, row);
                }
            }
            // Brings the stream's own check (Adler-32) about. Pixels beyond the last row, as some writers leave, do not matter.
            _ = stream.Read(row, 0, 1);
        }
        catch (Exception e) when (e is InvalidDataException or IOException)
        {
            throw new InvalidImageException($"PNG IDAT: not a sound zlib stream ({e.Message})", e);
        }
        return new(_width, _height, channels, pixels, _orientation);
    }

    private int Columns(int first, int step) => (_width - first + step - 1) / step;

    private int Rows(int first, int step) => (_height - first + step - 1) / step;

    private int RowBytes(int columns) => (int)(((long)columns * BitsPerPixel + 7) / 8);

    private void Unfilter(byte filter, Span<byte> row, ReadOnlySpan<byte> above, int y)
    {
        var step = Math.Max(1, BitsPerPixel / 8);
        switch (filter)
        {
            case 0:
                break;
            case 1:
                for (var i = step; i < row.Length; i++)
                    row[i] += row[i - step];
                break;
            case 2:
                var done = 0;
                for (; done <= row.Length - Vector<byte>.Count; done += Vector<byte>.Count)
                    (new Vector<byte>(row[done..]) + new Vector<byte>(above[done..])).CopyTo(row[done..]);
                for (; done < row.Length; done++)
                    row[done] += above[done];
                break;
            case 3:
                for (var i = 0; i < row.Length; i++)
                    row[i] += (byte)((above[i] + (i < step ? 0 : row[i - step])) >> 1);
                break;
            case 4:
                for (var i = 0; i < Math.Min(step, row.Length); i++)
                    row[i] += above[i];
                for (var i = step; i < row.Length; i++)
                    row[i] += Paeth(row[i - step], above[i], above[i - step]);
                break;
            default:
                throw new InvalidImageException($"PNG IDAT: row {y} has filter {filter}; there are 0 to 4");
        }
    }

    /// <summary>Of left, above and above-left, the one nearest to left + above - above-left.</summary>
    internal static byte Paeth(byte left, byte above, byte corner)
    {
        var (toLeft, toAbove, toCorner) = (Math.Abs(above - corner), Math.Abs(left - corner), Math.Abs(left + above - 2 * corner));
        return toLeft <= toAbove && toLeft <= toCorner ? left : toAbove <= toCorner ? above : corner;
    }

    // Samples of one row to RGB or RGBA, the pixels step bytes apart.
    private void Expand(ReadOnlySpan<byte> row, int columns, Span<byte> output, int step, int channels)
    {
        if (_colourType == 2 && _depth == 8 && step == 3)
        {
            row[..(3 * columns)].CopyTo(output);
            return;
        }
        var scale = _depth < 8 ? 255 / ((1 << _depth) - 1) : 1;
        var high = Math.Max(0, _depth - 8);
        for (int i = 0, at = 0; i < columns; i++, at += step)
        {
            var pixel = output.Slice(at, channels);
            switch (_colourType)
            {
                case 0:
                    var grey = Sample(row, i);
                    pixel[..3].Fill((byte)((grey >> high) * scale));
                    if (channels == 4)
                        pixel[3] = grey == _transparent![0] ? (byte)0 : (byte)255;
                    break;
                case 2:
                    var (red, green, blue) = (Sample(row, 3 * i), Sample(row, 3 * i + 1), Sample(row, 3 * i + 2));
                    (pixel[0], pixel[1], pixel[2]) = ((byte)(red >> high), (byte)(green >> high), (byte)(blue >> high));
                    if (channels == 4)
                        pixel[3] = red == _transparent![0] && green == _transparent[1] && blue == _transparent[2] ? (byte)0 : (byte)255;
                    break;
                case 3:
                    _palette.AsSpan(4 * Sample(row, i), channels).CopyTo(pixel);
                    break;
                case 4:
                    pixel[..3].Fill((byte)(Sample(row, 2 * i) >> high));
                    pixel[3] = (byte)(Sample(row, 2 * i + 1) >> high);
                    break;
                default:
                    for (var c = 0; c < 4; c++)
                        pixel[c] = (byte)(Sample(row, 4 * i + c) >> high);
                    break;
            }
        }
    }

    private int Sample(ReadOnlySpan<byte> row, int i) => _depth switch
    {
        8 => row[i],
        16 => BinaryPrimitives.ReadUInt16BigEndian(row[(2 * i)..]),
        _ => (row[i * _depth >> 3] >> (8 - _depth - (i * _depth & 7))) & ((1 << _depth) - 1),
    };
}
