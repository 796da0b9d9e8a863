using System.Buffers.Binary;
using System.Text.Json;
using System.Text.Unicode;
using Trimtab.Kernels;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>
/// The header of one safetensors file, checked: the format's description (github.com/huggingface/safetensors, "Format") asks for a
/// 64-bit length, a JSON object of at most 100 MB that begins with '{', and tensors that cover the rest of the file without holes.
/// </summary>
internal sealed class SafetensorsHeader
{
    private const ulong LongestHeader = 100_000_000;
    /// <summary>More dimensions than PyTorch's arrays have; keeps a header of zeros from growing in memory.</summary>
    private const int MostNumbers = 64;
    private const string MetadataKey = "__metadata__";

    private static readonly JsonReaderOptions Strict = new() { MaxDepth = 8 };

    private readonly DataFile _file;
    private readonly long _dataStart;
    private readonly List<(string Name, long Begin, long End)> _ranges = [];

    private SafetensorsHeader(DataFile file, long dataStart) => (_file, _dataStart) = (file, dataStart);

    public Dictionary<string, string> Metadata { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, TensorInfo> Tensors { get; } = new(StringComparer.Ordinal);

    /// <summary>Tensors of types without a <see cref="DType"/>, name → type.</summary>
    public Dictionary<string, string> Unread { get; } = new(StringComparer.Ordinal);

    public static SafetensorsHeader Read(DataFile file)
    {
        if (file.Length < 8)
            throw new InvalidCheckpointException(
                $"{file.Path}: has {file.Length} bytes; a safetensors file begins with the 8 bytes of its header's length");
        Span<byte> prefix = stackalloc byte[8];
        file.Read(0, prefix);
        var length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > (ulong)file.Length - 8 || length > LongestHeader || length < 2)
            throw new InvalidCheckpointException(
                $"{file.Path}: is not a safetensors file, or truncated: it claims a header of {length} bytes; "
                + $"expected 2 to {Math.Min(file.Length - 8, (long)LongestHeader)}");
        var json = new byte[length];
        file.Read(8, json);
        if (json[0] != '{')
            throw new InvalidCheckpointException($"{file.Path}: is not a safetensors file: its header does not begin with '{{'");
        var header = new SafetensorsHeader(file, 8 + (long)length);
        ReadJson(file.Path, json, header.ReadRoot);
        header.CheckCover();
        return header;
    }

    /// <summary>What reads an object whose '{' is the reader's current token.</summary>
    internal delegate void ObjectReader(ref Utf8JsonReader reader);

    /// <summary>Reads a text that is one JSON object; what is wrong in it becomes one kind of exception.</summary>
    internal static void ReadJson(string path, ReadOnlySpan<byte> json, ObjectReader read)
    {
        // GetString throws on broken UTF-8, but only in strings that are asked for.
        if (!Utf8.IsValid(json))
            throw new InvalidCheckpointException($"{path}: its JSON is not valid UTF-8");
        try
        {
            var reader = new Utf8JsonReader(json, Strict);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
                throw new InvalidCheckpointException($"{path}: its JSON is not an object");
            read(ref reader);
            while (reader.Read()) { } // anything but white space after the object throws
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InvalidCheckpointException($"{path}: its JSON is not valid ({e.Message})", e);
        }
    }

    private void ReadRoot(ref Utf8JsonReader reader)
    {
        var metadataSeen = false;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var name = reader.GetString()!;
            reader.Read();
            if (name != MetadataKey)
            {
                ReadTensor(ref reader, name);
                continue;
            }
            if (metadataSeen)
                throw Invalid($"{MetadataKey} occurs twice");
            metadataSeen = true;
            if (reader.TokenType != JsonTokenType.Null)
                ReadMetadata(ref reader);
        }
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
            throw Invalid($"{MetadataKey} is not an object of strings");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
                throw Invalid($"{MetadataKey} {Quote(key)} is not a string");
            if (!Metadata.TryAdd(key, reader.GetString()!))
                throw Invalid($"{MetadataKey} {Quote(key)} occurs twice");
        }
    }

    private void ReadTensor(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
            throw Invalid($"tensor {Quote(name)} is not an object of dtype, shape and data_offsets");
        string? type = null;
        List<long>? shape = null, offsets = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var field = reader.GetString()!;
            reader.Read();
            switch (field)
            {
                case "dtype" when type is null && reader.TokenType == JsonTokenType.String:
                    type = reader.GetString()!;
                    break;
                case "shape" when shape is null:
                    shape = ReadNumbers(ref reader, name, field);
                    break;
                case "data_offsets" when offsets is null:
                    offsets = ReadNumbers(ref reader, name, field);
                    break;
                case "dtype" or "shape" or "data_offsets":
                    throw Invalid($"tensor {Quote(name)}: {field} occurs twice or is of the wrong kind");
                default:
                    reader.Skip();
                    break;
            }
        }
        Add(name, type ?? throw Lacks("dtype"), shape ?? throw Lacks("shape"), offsets ?? throw Lacks("data_offsets"));

        InvalidCheckpointException Lacks(string field) => Invalid($"tensor {Quote(name)} has no {field}");
    }

    private List<long> ReadNumbers(ref Utf8JsonReader reader, string name, string field)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
            throw Invalid($"tensor {Quote(name)}: {field} is not an array of whole numbers");
        var numbers = new List<long>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out var number) || number < 0)
                throw Invalid($"tensor {Quote(name)}: {field} holds something else than whole numbers from 0 to 2^63-1");
            if (numbers.Count == MostNumbers)
                throw Invalid($"tensor {Quote(name)}: {field} has more than {MostNumbers} numbers");
            numbers.Add(number);
        }
        return numbers;
    }

    private void Add(string name, string typeName, List<long> shape, List<long> offsets)
    {
        if (SafetensorsTypes.Find(typeName) is not var (bits, type))
            throw Invalid($"tensor {Quote(name)} has the unknown dtype {Quote(typeName)}");
        if (offsets is not [var begin, var end] || begin > end || end > _file.Length - _dataStart)
            throw Invalid(
                $"tensor {Quote(name)}: data_offsets {TensorInfo.Show(offsets)} do not lie within the file's {_file.Length - _dataStart} bytes of data");
        if (TensorInfo.Count(shape) is not { } elements || (Int128)elements * bits != (Int128)(end - begin) * 8)
            throw Invalid($"tensor {Quote(name)}: shape {TensorInfo.Show(shape)} of {typeName} does not fill its {end - begin} bytes");
        var added = type is { } known
            ? !Unread.ContainsKey(name) && Tensors.TryAdd(name, new(name, known, [.. shape], _file.Path, _dataStart + begin, end - begin))
            : !Tensors.ContainsKey(name) && Unread.TryAdd(name, typeName);
        if (!added)
            throw Invalid($"tensor {Quote(name)} occurs twice");
        _ranges.Add((name, begin, end));
    }

    /// <summary>Tensors follow each other without hole or overlap and reach the end of the file.</summary>
    private void CheckCover()
    {
        var at = 0L;
        foreach (var (name, begin, end) in _ranges.OrderBy(range => range.Begin).ThenBy(range => range.End))
        {
            if (begin != at)
                throw Invalid($"tensor {Quote(name)} begins at byte {begin} of the data, which "
                    + $"{(begin < at ? "overlaps the tensor" : "leaves a hole after the tensor")} that ends at {at}");
            at = end;
        }
        if (at != _file.Length - _dataStart)
            throw Invalid($"its tensors end at byte {at} of the data, but the file holds {_file.Length - _dataStart}");
    }

    private InvalidCheckpointException Invalid(string what) => new($"{_file.Path}: {what}");
}
