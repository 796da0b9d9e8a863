using System.Numerics;
using System.Text;
using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>Writes GGUF files of version 3 (github.com/ggml-org/ggml, docs/gguf.md).</summary>
public static class GgufWriter
{
    /// <summary>
    /// Writes a file whole or not at all: under a temporary name beside <paramref name="path"/>, then renamed. Tensors are laid out as
    /// given, aligned to 32 bytes or to what a <c>general.alignment</c> (uint) among the metadata says.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="metadata">Keys and values: string, bool, a number of 8 to 64 bits, or an array of these (object[] of arrays), in order.</param>
    /// <param name="tensors">The tensors, at most four dimensions each.</param>
    /// <exception cref="ArgumentException">A key or name is empty or occurs twice, GGUF has no such type, or data and shape differ in size.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static void Write(string path, IReadOnlyList<KeyValuePair<string, object>> metadata, IReadOnlyList<TensorData> tensors)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(metadata);
        ArgumentNullException.ThrowIfNull(tensors);
        CheckUnique(metadata.Select(pair => pair.Key));
        CheckUnique(tensors.Select(tensor => tensor.Name));
        var alignment = metadata.FirstOrDefault(pair => pair.Key == "general.alignment").Value is { } value
            ? value is uint number && BitOperations.IsPow2(number)
                ? number
                : throw new ArgumentException($"general.alignment is {value}; expected a power of two as uint")
            : 32u;
        Replacement.Write(path, stream =>
        {
            using var writer = new BinaryWriter(stream, Encoding.UTF8, leaveOpen: true);
            writer.Write("GGUF"u8);
            writer.Write(3u);
            writer.Write((ulong)tensors.Count);
            writer.Write((ulong)metadata.Count);
            foreach (var (key, item) in metadata)
            {
                WriteText(writer, key);
                WriteValue(writer, item, key);
            }
            var at = 0L;
            foreach (var tensor in tensors)
            {
                WriteEntry(writer, tensor, at);
                at = Align(checked(at + tensor.Bytes), alignment);
            }
            foreach (var tensor in tensors)
            {
                Pad(writer, alignment);
                writer.Flush();
                tensor.WriteTo(stream);
            }
            Pad(writer, alignment);
        });
    }

    private static void CheckUnique(IEnumerable<string> names)
    {
        if (names.CountBy(name => name).FirstOrDefault(pair => pair.Value > 1 || pair.Key.Length == 0) is { Key: { } name })
            throw new ArgumentException($"the name '{name}' is empty or occurs twice");
    }

    private static void WriteEntry(BinaryWriter writer, TensorData tensor, long offset)
    {
        if (tensor.Shape.Count > 4)
            throw new ArgumentException($"tensor '{tensor.Name}' has {tensor.Shape.Count} dimensions; GGUF has at most 4");
        WriteText(writer, tensor.Name);
        writer.Write((uint)tensor.Shape.Count);
        foreach (var dimension in tensor.Shape.Reverse())
            writer.Write(dimension);
        writer.Write(GgmlTypes.Number(tensor.Type) ?? throw new ArgumentException($"tensor '{tensor.Name}': GGUF has no type {tensor.Type}"));
        writer.Write(offset);
    }

    private static long Align(long at, uint alignment) => checked((at + alignment - 1) / alignment * alignment);

    private static void Pad(BinaryWriter writer, uint alignment)
    {
        writer.Flush();
        var padding = Align(writer.BaseStream.Position, alignment) - writer.BaseStream.Position;
        for (; padding > 0; padding--)
            writer.Write((byte)0);
    }

    private static void WriteText(BinaryWriter writer, string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        writer.Write((ulong)bytes.Length);
        writer.Write(bytes);
    }

    private static void WriteValue(BinaryWriter writer, object value, string key)
    {
        writer.Write(TypeNumber(value.GetType(), key));
        WritePayload(writer, value, key);
    }

    private static void WritePayload(BinaryWriter writer, object value, string key)
    {
        switch (value)
        {
            case string text:
                WriteText(writer, text);
                break;
            case Array array:
                WriteArray(writer, array, key);
                break;
            case byte number:
                writer.Write(number);
                break;
            case sbyte number:
                writer.Write(number);
                break;
            case ushort number:
                writer.Write(number);
                break;
            case short number:
                writer.Write(number);
                break;
            case uint number:
                writer.Write(number);
                break;
            case int number:
                writer.Write(number);
                break;
            case float number:
                writer.Write(number);
                break;
            case bool flag:
                writer.Write(flag);
                break;
            case ulong number:
                writer.Write(number);
                break;
            case long number:
                writer.Write(number);
                break;
            default:
                writer.Write((double)value); // TypeNumber has refused the rest
                break;
        }
    }

    private static void WriteArray(BinaryWriter writer, Array array, string key)
    {
        var nested = array.GetType() == typeof(object[]);
        writer.Write(nested ? 9u : TypeNumber(array.GetType().GetElementType()!, key));
        writer.Write((ulong)array.Length);
        foreach (var element in array)
        {
            if (nested && element is not Array)
                throw new ArgumentException($"metadata '{key}': an object[] holds arrays; this one holds {element}");
            WritePayload(writer, element!, key);
        }
    }

    private static uint TypeNumber(Type type, string key) => type.IsArray ? 9u : Type.GetTypeCode(type) switch
    {
        TypeCode.Byte => 0,
        TypeCode.SByte => 1,
        TypeCode.UInt16 => 2,
        TypeCode.Int16 => 3,
        TypeCode.UInt32 => 4,
        TypeCode.Int32 => 5,
        TypeCode.Single => 6,
        TypeCode.Boolean => 7,
        TypeCode.String => 8,
        TypeCode.UInt64 => 10,
        TypeCode.Int64 => 11,
        TypeCode.Double => 12,
        _ => throw new ArgumentException($"metadata '{key}': GGUF has no value of type {type.Name}"),
    };
}
