using System.Buffers.Binary;
using System.Numerics;

namespace Trimtab.Imaging;

/// <summary>
/// Reads Windows and OS/2 bitmaps: 1, 2, 4, 8, 16, 24 and 32 bits a pixel, RLE4, RLE8, bit fields, rows from either end; headers of 12
/// (OS/2 1, core), 40, 52, 56, 108, 124 (Windows 3 to 5) and 16 or 64 bytes (OS/2 2).
/// </summary>
/// <remarks>
/// As Pillow does: the fourth byte of a 32-bit pixel is alpha only where a mask says so, fields are scaled to 8 bits rounding down, pixels
/// that RLE passes over have index 0, and an index beyond the palette is black.
/// </remarks>
internal sealed class BmpDecoder
{
    private const int FileHeader = 14;

    private readonly int _width, _height, _bits, _pixelsAt;
    private readonly bool _topDown;
    private readonly uint _compression;

    // RGB of each index.
    private readonly byte[] _palette = new byte[3 * 256];

    // Red, green, blue, alpha of 16- and 32-bit pixels; 0 for no such field.
    private readonly uint[] _masks = new uint[4];

    private BmpDecoder(ReadOnlySpan<byte> data, long maxPixels)
    {
        if (data.Length < FileHeader + 4)
            throw new InvalidImageException($"BMP: cut short at byte {data.Length}, within the header");
        var size = Word(data[FileHeader..]);
        if (size is not (12 or 16 or 40 or 52 or 56 or 64 or 108 or 124))
            throw new InvalidImageException($"BMP: there is no header of {size} bytes");
        var at = FileHeader + (int)size;
        if (data.Length < at)
            throw new InvalidImageException($"BMP: cut short at byte {data.Length}, within the header of {size} bytes");
        // The fields that a short header lacks are 0.
        Span<byte> header = stackalloc byte[124];
        data[FileHeader..at].CopyTo(header);
        var core = size == 12;
        long width = core ? Half(header[4..]) : (int)Word(header[4..]);
        long height = core ? Half(header[6..]) : (int)Word(header[8..]);
        _topDown = height < 0;
        height = Math.Abs(height);
        ImageDecoder.CheckSize("BMP", width, height, maxPixels);
        (_width, _height) = ((int)width, (int)height);
        _bits = (int)Half(header[(core ? 10 : 14)..]);
        _compression = core ? 0 : Word(header[16..]);
        // OS/2 2 counts 3 and 4 otherwise: Huffman and 24-bit RLE. Windows' 4 and 5 are JPEG and PNG for printers.
        if (!(_compression switch
        {
            0 => _bits is 1 or 2 or 4 or 8 or 16 or 24 or 32,
            1 => _bits == 8,
            2 => _bits == 4,
            3 or 6 => _bits is 16 or 32 && size != 64,
            _ => false,
        }))
            throw new InvalidImageException($"BMP: compression {_compression} with {_bits} bits a pixel is not read");

        var offset = Word(data[10..]);
        if (_bits <= 8)
            at = ReadPalette(data, at, offset, core ? 3 : 4, core ? 0 : Word(header[32..]));
        else
            at = ReadMasks(data, at);
        if (offset > (uint)data.Length)
            throw new InvalidImageException($"BMP: the pixels begin at byte {offset} of {data.Length}");
        // An offset into the headers, or to the palette, is none.
        _pixelsAt = offset < FileHeader + size + (_bits <= 8 ? 1 : 0) ? at : (int)offset;
    }

    internal static Raster Decode(ReadOnlySpan<byte> data, long maxPixels)
    {
        var bitmap = new BmpDecoder(data, maxPixels);
        return bitmap._compression is 1 or 2 ? bitmap.ReadRuns(data) : bitmap.ReadRows(data[bitmap._pixelsAt..]);
    }

    private int ReadPalette(ReadOnlySpan<byte> data, int at, uint offset, int entry, uint used)
    {
        var colours = used is > 0 and <= 65536 ? (int)used : 1 << _bits;
        // Some writers leave out colours that are not used, and say so only by where the pixels begin.
        if (offset > at && offset < at + colours * entry)
            colours = (int)(offset - at) / entry;
        if (data.Length - at < colours * entry)
            throw new InvalidImageException($"BMP: cut short at byte {data.Length}, within the palette of {colours} colours");
        for (var i = 0; i < Math.Min(256, colours); i++)
            (_palette[3 * i], _palette[3 * i + 1], _palette[3 * i + 2]) = (data[at + entry * i + 2], data[at + entry * i + 1], data[at + entry * i]);
        return at + colours * entry;
    }

    private int ReadMasks(ReadOnlySpan<byte> data, int at)
    {
        // Bit fields lie after a header of 40 bytes and, at the same place of the file, within the longer ones.
        var from = FileHeader + 40;
        var fields = _compression switch { 3 when at >= FileHeader + 56 => 4, 3 => 3, 6 => 4, _ => 0 };
        if (fields > 0 && data.Length < from + 4 * fields)
            throw new InvalidImageException($"BMP: cut short at byte {data.Length}, within the bit fields");
        for (var i = 0; i < fields; i++)
            _masks[i] = Word(data[(from + 4 * i)..]) & (uint)((1UL << _bits) - 1);
        if (Array.TrueForAll(_masks, mask => mask == 0))
            (_masks[0], _masks[1], _masks[2], _masks[3]) = _bits == 16 ? (0x7C00u, 0x3E0u, 0x1Fu, 0u)
                : (0xFF0000u, 0xFF00u, 0xFFu, fields > 0 ? 0xFF000000u : 0u);
        foreach (var mask in _masks)
            if (mask != 0 && !BitOperations.IsPow2((ulong)(mask >> BitOperations.TrailingZeroCount(mask)) + 1))
                throw new InvalidImageException($"BMP: the bits of the field 0x{mask:X8} are not next to each other");
        return fields == 0 ? at : Math.Max(at, from + 4 * fields);
    }

    private Raster ReadRows(ReadOnlySpan<byte> data)
    {
        // Rows are padded to four bytes.
        var stride = ((long)_width * _bits + 31) / 32 * 4;
        if (data.Length < stride * _height)
            throw new InvalidImageException($"BMP: {data.Length} bytes of pixels, expected {stride * _height}: cut short in row {data.Length / stride}");
        var channels = _masks[3] != 0 ? 4 : 3;
        var pixels = new byte[_width * _height * channels];
        for (var y = 0; y < _height; y++)
        {
            var row = data.Slice((int)(y * stride), (int)stride);
            var output = pixels.AsSpan((_topDown ? y : _height - 1 - y) * _width * channels, _width * channels);
            if (_bits == 24)
                for (var i = 0; i < output.Length; i += 3)
                    (output[i], output[i + 1], output[i + 2]) = (row[i + 2], row[i + 1], row[i]);
            else if (_bits <= 8)
                for (var x = 0; x < _width; x++)
                    _palette.AsSpan(3 * (row[x * _bits >> 3] >> (8 - _bits - (x * _bits & 7)) & ((1 << _bits) - 1)), 3).CopyTo(output[(3 * x)..]);
            else
                Fields(row, output, channels);
        }
        return new(_width, _height, channels, pixels);
    }

    private void Fields(ReadOnlySpan<byte> row, Span<byte> output, int channels)
    {
        for (var channel = 0; channel < channels; channel++)
        {
            var mask = _masks[channel];
            if (mask == 0)
                continue;
            var shift = BitOperations.TrailingZeroCount(mask);
            ulong largest = mask >> shift;
            for (int x = 0, to = channel; x < _width; x++, to += channels)
            {
                var pixel = _bits == 16 ? Half(row[(2 * x)..]) : Word(row[(4 * x)..]);
                output[to] = (byte)(((pixel & mask) >> shift) * 255UL / largest);
            }
        }
    }

    private Raster ReadRuns(ReadOnlySpan<byte> data)
    {
        var indices = new byte[_width * _height];
        int x = 0, y = 0, at = _pixelsAt;
        var ended = false;
        while (!ended && y < _height && !(y == _height - 1 && x >= _width))
        {
            if (data.Length - at < 2)
                throw new InvalidImageException($"BMP: the runs end at byte {data.Length}, in row {y} of {_height}");
            var (count, value) = (data[at], data[at + 1]);
            at += 2;
            if (count > 0)
            {
                // A run of one index, or of two in turn; what does not fit the row is dropped.
                for (var i = 0; i < count && x < _width; i++)
                    indices[y * _width + x++] = _bits == 8 ? value : (byte)((i & 1) == 0 ? value >> 4 : value & 15);
                continue;
            }
            switch (value)
            {
                case 0:
                    (x, y) = (0, y + 1);
                    break;
                case 1:
                    ended = true;
                    break;
                case 2:
                    if (data.Length - at < 2)
                        throw new InvalidImageException($"BMP: the runs end at byte {data.Length}, in row {y} of {_height}");
                    (x, y) = (Math.Min(_width, x + data[at]), y + data[at + 1]);
                    at += 2;
                    break;
                default:
                    // Indices as they are, padded to two bytes.
                    var length = _bits == 8 ? value : (value + 1) / 2;
                    if (data.Length - at < length)
                        throw new InvalidImageException($"BMP: the runs end at byte {data.Length}, in row {y} of {_height}");
                    for (var i = 0; i < value && x < _width; i++)
                        indices[y * _width + x++] = _bits == 8 ? data[at + i] : (byte)((i & 1) == 0 ? data[at + i / 2] >> 4 : data[at + i / 2] & 15);
                    at += length + (length & 1);
                    break;
            }
        }
        var pixels = new byte[3 * indices.Length];
        for (var row = 0; row < _height; row++)
        {
            var to = 3 * _width * (_topDown ? row : _height - 1 - row);
            for (x = 0; x < _width; x++, to += 3)
                _palette.AsSpan(3 * indices[row * _width + x], 3).CopyTo(pixels.AsSpan(to));
        }
        return new(_width, _height, 3, pixels);
    }

    private static uint Half(ReadOnlySpan<byte> at) => BinaryPrimitives.ReadUInt16LittleEndian(at);

    private static uint Word(ReadOnlySpan<byte> at) => BinaryPrimitives.ReadUInt32LittleEndian(at);
}
