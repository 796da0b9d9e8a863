using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Trimtab.Kernels;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>
/// The metadata and the tensor table of one GGUF file, checked (github.com/ggml-org/ggml, docs/gguf.md). Every count and length is
/// held against what is left of the file before memory is taken for it.
/// </summary>
internal sealed class GgufHeader
{
    /// <summary>Metadata and tensor table together. A vocabulary of 256 k tokens with its merges takes about 20 MB.</summary>
    private const long LongestHeader = 1 << 27;
    private const int DeepestArray = 4;
    private const int MostDimensions = 4;

    private static readonly UTF8Encoding Lenient = new(false, false);
    private static readonly UTF8Encoding Strict = new(false, true);

    private readonly DataFile _file;
    private readonly long _end;
    private readonly byte[] _buffer = new byte[1 << 16];
    private long _bufferStart; // file offset of _buffer[0]
    private int _buffered;
    private long _at; // file offset of the next byte to read

    private GgufHeader(DataFile file) => (_file, _end) = (file, Math.Min(file.Length, LongestHeader));

    public uint Version { get; private set; }

    /// <summary>Values by key: the .NET type of the same width, string, bool, or an array of one of these (object[] of arrays).</summary>
    public Dictionary<string, object> Metadata { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, TensorInfo> Tensors { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, string> Unread { get; } = new(StringComparer.Ordinal);

    public static GgufHeader Read(DataFile file)
    {
        var header = new GgufHeader(file);
        header.Read();
        return header;
    }

    private void Read()
    {
        Span<byte> magic = stackalloc byte[4];
        Fill(magic, "the magic");
        if (!magic.SequenceEqual("GGUF"u8))
            throw Invalid($"is not a GGUF file: it begins with {Convert.ToHexString(magic)}, expected 47475546 (\"GGUF\")"
                + (magic is [_, _, (byte)'g', (byte)'g'] ? "; this may be llama.cpp's format before GGUF" : "")); // tjgg, lmgg, fmgg
        Version = Value<uint>("the version");
        if ((Version & 0xFFFF) == 0 && Version != 0)
            throw Invalid("is a big-endian GGUF file; expected a little-endian one");
        if (Version is not (2 or 3))
            throw Invalid($"has GGUF version {Version}; expected 2 or 3");
        // The smallest table entry: length, name of a byte, dimension count, type, offset; the smallest pair: length, key of a byte, type, value.
        var tensors = Count("tensors", 25);
        var pairs = Count("metadata pairs", 14);
        for (var i = 0; i < pairs; i++)
            ReadPair();
        var entries = new List<Entry>();
        for (var i = 0; i < tensors; i++)
            entries.Add(ReadEntry());
        Place(entries);
    }

    private readonly record struct Entry(string Name, long[] Shape, uint Type, ulong Offset);

    private void ReadPair()
    {
        var key = Text("a metadata key", Strict);
        if (key.Length == 0 || !Metadata.TryAdd(key, ReadValue(Value<uint>($"the type of {Quote(key)}"), key, 0)))
            throw Invalid(key.Length == 0 ? "has a metadata pair without a key" : $"has the metadata key {Quote(key)} twice");
    }

    private object ReadValue(uint type, string key, int depth)
    {
        var what = depth == 0 ? $"the value of {Quote(key)}" : $"the elements of {Quote(key)}";
        return type switch
        {
            0 => Value<byte>(what),
            1 => Value<sbyte>(what),
            2 => Value<ushort>(what),
            3 => Value<short>(what),
            4 => Value<uint>(what),
            5 => Value<int>(what),
            6 => Value<float>(what),
            7 => Flag(Value<byte>(what), key),
            8 => Text(what, Lenient),
            9 => ReadArray(Value<uint>($"the element type of {Quote(key)}"), key, depth + 1),
            10 => Value<ulong>(what),
            11 => Value<long>(what),
            12 => Value<double>(what),
            _ => throw Invalid($"metadata {Quote(key)} has the unknown value type {type}"),
        };
    }

    private Array ReadArray(uint type, string key, int depth)
    {
        if (depth > DeepestArray)
            throw Invalid($"metadata {Quote(key)} nests arrays deeper than {DeepestArray}");
        var what = $"elements of {Quote(key)}";
        return type switch
        {
            0 => Values<byte>(what),
            1 => Values<sbyte>(what),
            2 => Values<ushort>(what),
            3 => Values<short>(what),
            4 => Values<uint>(what),
            5 => Values<int>(what),
            6 => Values<float>(what),
            7 => Array.ConvertAll(Values<byte>(what), value => Flag(value, key)),
            8 => Elements(8, () => Text(what, Lenient)),
            9 => Elements<object>(12, () => ReadArray(Value<uint>($"the element type of {Quote(key)}"), key, depth + 1)),
            10 => Values<ulong>(what),
            11 => Values<long>(what),
            12 => Values<double>(what),
            _ => throw Invalid($"metadata {Quote(key)} is an array of the unknown value type {type}"),
        };

        T[] Elements<T>(int least, Func<T> read)
        {
            var count = Count(what, least);
            if (count == 0)
                return [];
            var elements = new T[count];
            for (var i = 0; i < elements.Length; i++)
                elements[i] = read();
            return elements;
        }
    }

    private bool Flag(byte value, string key) =>
        value <= 1 ? value == 1 : throw Invalid($"metadata {Quote(key)} holds the truth value {value}; expected 0 or 1");

    private Entry ReadEntry()
    {
        var name = Text("a tensor's name", Strict);
        if (name.Length == 0)
            throw Invalid("has a tensor without a name");
        var what = $"the table entry of tensor {Quote(name)}";
        var dimensions = Value<uint>(what);
        if (dimensions > MostDimensions)
            throw Invalid($"tensor {Quote(name)} has {dimensions} dimensions; expected at most {MostDimensions}");
        var shape = new long[dimensions];
        for (var i = 0; i < shape.Length; i++)
            shape[shape.Length - 1 - i] = Value<long>(what); // ne counts the innermost first
        return new(name, shape, Value<uint>(what), Value<ulong>(what));
    }

    private void Place(List<Entry> entries)
    {
        var unknown = entries.Where(entry => GgmlTypes.Find(entry.Type) is null && GgmlTypes.OpaqueBytes(entry.Type) is null)
            .Select(entry => $"{Quote(entry.Name)} of type {entry.Type} ({GgmlTypes.Name(entry.Type)})").ToList();
        if (unknown.Count > 0)
            throw Invalid($"{unknown.Count} tensors have types that this runtime does not read: {List(unknown)}");
        var alignment = 32u;
        if (Metadata.TryGetValue("general.alignment", out var value))
            alignment = value is uint number && BitOperations.IsPow2(number)
                ? number
                : throw Invalid($"general.alignment is {value} ({value.GetType().Name}); expected a power of two as uint32");
        var dataStart = (_at + alignment - 1) / alignment * alignment;
        var ranges = new List<(string Name, long Offset, long Bytes)>();
        foreach (var (name, shape, type, offset) in entries)
        {
            var bytes = Bytes(name, shape, type);
            if (offset % alignment != 0)
                throw Invalid($"tensor {Quote(name)} begins at byte {offset} of the data, which is no multiple of the alignment, {alignment}");
            if (offset > long.MaxValue || (Int128)dataStart + offset + bytes > _file.Length)
                throw Invalid($"tensor {Quote(name)}: {bytes} bytes at byte {offset} of the data do not lie within the file, "
                    + $"whose data is bytes {dataStart} to {_file.Length}");
            var added = GgmlTypes.Find(type) is { } known
                ? !Unread.ContainsKey(name) && Tensors.TryAdd(name, new(name, known, shape, _file.Path, dataStart + (long)offset, bytes))
                : !Tensors.ContainsKey(name) && Unread.TryAdd(name, GgmlTypes.Name(type));
            if (!added)
                throw Invalid($"has the tensor {Quote(name)} twice");
            ranges.Add((name, (long)offset, bytes));
        }
        if (TensorInfo.Overlap(ranges) is var (upper, lower))
            throw Invalid($"tensors {Quote(lower)} and {Quote(upper)} overlap");
    }

    private long Bytes(string name, long[] shape, uint type)
    {
        var (block, bytes) = GgmlTypes.Find(type) is { } known ? (known.BlockSize(), known.BlockBytes()) : (1, GgmlTypes.OpaqueBytes(type)!.Value);
        if (TensorInfo.Count(shape) is not { } elements || elements / block > long.MaxValue / bytes)
            throw Invalid($"tensor {Quote(name)} has the impossible shape {TensorInfo.Show(shape)}");
        if ((shape.Length == 0 ? 1 : shape[^1]) % block != 0)
            throw Invalid($"tensor {Quote(name)} of shape {TensorInfo.Show(shape)}: "
                + $"its rows are no whole number of {GgmlTypes.Name(type)} blocks of {block}");
        return elements / block * bytes;
    }

    /// <summary>A count of things of at least <paramref name="least"/> bytes each, which the rest of the header can hold.</summary>
    private int Count(string what, int least)
    {
        var count = Value<ulong>($"the number of {what}");
        return count <= (ulong)((_end - _at) / least)
            ? (int)count
            : throw Invalid($"claims {count} {what} at byte {_at - 8}, more than {Rest()} can hold");
    }

    private string Text(string what, UTF8Encoding encoding)
    {
        var length = Value<ulong>($"the length of {what}");
        if (length > (ulong)(_end - _at))
            throw Invalid($"claims {length} bytes for {what} at byte {_at - 8}, more than {Rest()} can hold");
        if (length == 0)
            return "";
        try
        {
            if (length <= 256)
            {
                Span<byte> small = stackalloc byte[(int)length];
                Fill(small, what);
                return encoding.GetString(small);
            }
            var bytes = new byte[length];
            Fill(bytes, what);
            return encoding.GetString(bytes);
        }
        catch (DecoderFallbackException e)
        {
            throw new InvalidCheckpointException($"{_file.Path}: {what} before byte {_at} is not valid UTF-8", e);
        }
    }

    private T[] Values<T>(string what) where T : unmanaged
    {
        var count = Count(what, Unsafe.SizeOf<T>());
        if (count == 0)
            return [];
        var values = new T[count];
        Fill(MemoryMarshal.AsBytes(values.AsSpan()), what);
        return values;
    }

    private T Value<T>(string what) where T : unmanaged
    {
        Unsafe.SkipInit(out T value);
        Fill(MemoryMarshal.AsBytes(new Span<T>(ref value)), what);
        return value;
    }

    private void Fill(Span<byte> into, string what)
    {
        if (into.Length > _end - _at)
            throw Invalid($"ends within {what}, at byte {_at}: {into.Length} bytes expected, more than {Rest()} can hold");
        while (into.Length > 0)
        {
            if (_at == _bufferStart + _buffered)
            {
                _bufferStart = _at;
                _buffered = (int)Math.Min(_buffer.Length, _file.Length - _at);
                _file.Read(_at, _buffer.AsSpan(0, _buffered));
            }
            var here = _buffer.AsSpan((int)(_at - _bufferStart), Math.Min(into.Length, (int)(_bufferStart + _buffered - _at)));
            here.CopyTo(into);
            into = into[here.Length..];
            _at += here.Length;
        }
    }

    private string Rest() => _end == _file.Length
        ? $"the {_end - _at} bytes left of the file"
        : $"the {_end - _at} bytes left of a header of at most {LongestHeader}";

    private InvalidCheckpointException Invalid(string what) => new($"{_file.Path}: {what}");
}
