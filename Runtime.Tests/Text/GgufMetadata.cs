using System.Text;

namespace Trimtab.Tests.Text;

/// <summary>The key-value pairs of a GGUF file, for these tests.</summary>
internal static class GgufMetadata
{
    public static Dictionary<string, object> Read(string path)
    {
        using var reader = new BinaryReader(File.OpenRead(path), Encoding.UTF8);
        reader.BaseStream.Position = 16;
        var metadata = new Dictionary<string, object>();
        for (var left = reader.ReadInt64(); left > 0; left--)
        {
            var key = Text(reader);
            metadata[key] = Value(reader, reader.ReadInt32());
        }
        return metadata;
    }

    private static string Text(BinaryReader reader) => Encoding.UTF8.GetString(reader.ReadBytes(checked((int)reader.ReadInt64())));

    private static object Value(BinaryReader reader, int type)
    {
        if (type != 9)
            return type switch
            {
                0 => reader.ReadByte(),
                1 => reader.ReadSByte(),
                2 => reader.ReadUInt16(),
                3 => reader.ReadInt16(),
                4 => reader.ReadUInt32(),
                5 => reader.ReadInt32(),
                6 => reader.ReadSingle(),
                7 => reader.ReadBoolean(),
                8 => Text(reader),
                10 => reader.ReadUInt64(),
                11 => reader.ReadInt64(),
                _ => reader.ReadDouble(),
            };
        var element = reader.ReadInt32();
        var items = new object[checked((int)reader.ReadInt64())];
        for (var i = 0; i < items.Length; i++)
            items[i] = Value(reader, element);
        return element switch
        {
            5 => items.Cast<int>().ToArray(),
            6 => items.Cast<float>().ToArray(),
            8 => items.Cast<string>().ToArray(),
            _ => items,
        };
    }
}
