using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Checkpoints;

/// <summary>Writes safetensors files (github.com/huggingface/safetensors, "Format").</summary>
public static class SafetensorsWriter
{
    /// <summary>
    /// Writes a file whole or not at all: under a temporary name beside <paramref name="path"/>, then renamed. Tensors are laid out with
    /// the largest elements first, otherwise as given, so that each is aligned to its element.
    /// </summary>
    /// <exception cref="ArgumentException">A name occurs twice or is reserved, safetensors has no such type, or data and shape differ in size.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static void Write(string path, IReadOnlyList<TensorData> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(tensors);
        if (tensors.CountBy(tensor => tensor.Name).FirstOrDefault(pair => pair.Value > 1 || pair.Key == "__metadata__") is { Key: { } name })
            throw new ArgumentException($"tensor '{name}' occurs twice or has a reserved name");
        TensorData[] ordered = [.. tensors.OrderByDescending(tensor => tensor.Type.BlockBytes())];
        var header = Header(ordered, metadata);
        Replacement.Write(path, stream =>
        {
            stream.Write(BitConverter.GetBytes((ulong)header.Length));
            stream.Write(header);
            foreach (var tensor in ordered)
                tensor.WriteTo(stream);
        });
    }

    private static byte[] Header(TensorData[] tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            if (metadata is { Count: > 0 })
            {
                json.WriteStartObject("__metadata__");
                foreach (var (key, value) in metadata)
                    json.WriteString(key, value);
                json.WriteEndObject();
            }
            var at = 0L;
            foreach (var tensor in tensors)
            {
                json.WriteStartObject(tensor.Name);
                json.WriteString("dtype", SafetensorsTypes.Name(tensor.Type)
                    ?? throw new ArgumentException($"tensor '{tensor.Name}': safetensors has no type {tensor.Type}"));
                json.WriteStartArray("shape");
                foreach (var dimension in tensor.Shape)
                    json.WriteNumberValue(dimension);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(at);
                json.WriteNumberValue(at = checked(at + tensor.Bytes));
                json.WriteEndArray();
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        var length = (buffer.WrittenCount + 7) / 8 * 8; // data begins aligned; the format pads with spaces
        buffer.GetSpan(length - buffer.WrittenCount)[..(length - buffer.WrittenCount)].Fill((byte)' ');
        buffer.Advance(length - buffer.WrittenCount);
        return buffer.WrittenSpan.ToArray();
    }
}
