using System.Text.Json;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>transformers' <c>*.safetensors.index.json</c>: which shard holds which tensor.</summary>
internal static class SafetensorsIndex
{
    private const long LongestIndex = 100_000_000;

    /// <summary>Opens all shards; index and shards must name the same tensors.</summary>
    public static SafetensorsCheckpoint Open(DataFile index)
    {
        var weights = Read(index);
        var folder = Path.GetDirectoryName(index.Path)!;
        string[] shards = [.. weights.Values.Distinct().Order(StringComparer.Ordinal)];
        if (shards.Where(shard => !File.Exists(Path.Combine(folder, shard))).ToList() is { Count: > 0 } missing)
            throw new InvalidCheckpointException($"{index.Path}: {missing.Count} of {shards.Length} shards are missing beside it: {List(missing)}");

        var files = new List<DataFile>();
        try
        {
            var tensors = new Dictionary<string, TensorInfo>(StringComparer.Ordinal);
            var unread = new Dictionary<string, string>(StringComparer.Ordinal);
            var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
            var surplus = new List<string>();
            foreach (var shard in shards)
            {
                files.Add(DataFile.Open(Path.Combine(folder, shard)));
                var header = SafetensorsHeader.Read(files[^1]);
                foreach (var (key, value) in header.Metadata)
                    metadata.TryAdd(key, value);
                foreach (var name in header.Tensors.Keys.Concat(header.Unread.Keys))
                {
                    if (weights.GetValueOrDefault(name) != shard)
                        surplus.Add($"{Quote(name)} in {shard}");
                    else if (header.Tensors.TryGetValue(name, out var info))
                        tensors.Add(name, info);
                    else
                        unread.Add(name, header.Unread[name]);
                }
            }
            var absent = weights.Where(pair => !tensors.ContainsKey(pair.Key) && !unread.ContainsKey(pair.Key))
                .Select(pair => $"{Quote(pair.Key)} in {pair.Value}").ToList();
            if (absent.Count + surplus.Count > 0)
                throw new InvalidCheckpointException($"{index.Path}: index and shards do not agree"
                    + (absent.Count > 0 ? $"; the index names tensors that are not there: {List(absent)}" : "")
                    + (surplus.Count > 0 ? $"; the shards hold tensors that the index does not place there: {List(surplus)}" : ""));
            return new(index.Path, files, tensors, unread, metadata);
        }
        catch
        {
            files.ForEach(file => file.Dispose());
            throw;
        }
    }

    /// <summary>The index's weight_map, tensor → shard.</summary>
    private static Dictionary<string, string> Read(DataFile index)
    {
        if (index.Length > LongestIndex)
            throw new InvalidCheckpointException($"{index.Path}: has {index.Length} bytes; an index has at most {LongestIndex}");
        var json = new byte[index.Length];
        index.Read(0, json);
        var weights = new Dictionary<string, string>(StringComparer.Ordinal);
        var seen = false;
        SafetensorsHeader.ReadJson(index.Path, json, (ref Utf8JsonReader reader) =>
        {
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var isMap = reader.ValueTextEquals("weight_map"u8);
                reader.Read();
                if (!isMap)
                {
                    reader.Skip();
                    continue;
                }
                if (seen || reader.TokenType != JsonTokenType.StartObject)
                    throw new InvalidCheckpointException($"{index.Path}: weight_map occurs twice or is not an object of strings");
                seen = true;
                ReadWeightMap(ref reader, index.Path, weights);
            }
        });
        return weights.Count > 0 ? weights : throw new InvalidCheckpointException($"{index.Path}: has no weight_map of tensors to shards");
    }

    private static void ReadWeightMap(ref Utf8JsonReader reader, string path, Dictionary<string, string> weights)
    {
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var tensor = reader.GetString()!;
            reader.Read();
            var shard = reader.TokenType == JsonTokenType.String ? reader.GetString()! : "";
            // A shard is a plain file beside the index: an index must not reach for files elsewhere.
            if (shard is "" or "." or ".." || shard.AsSpan().ContainsAny("/\\:") || shard.Any(char.IsControl))
                throw new InvalidCheckpointException(
                    $"{path}: tensor {Quote(tensor)} is placed in {Quote(shard)}; expected the plain name of a file beside the index");
            if (!weights.TryAdd(tensor, shard))
                throw new InvalidCheckpointException($"{path}: tensor {Quote(tensor)} occurs twice in weight_map");
        }
    }
}
