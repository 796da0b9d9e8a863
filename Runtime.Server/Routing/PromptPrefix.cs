using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;

namespace Trimtab.Server.Routing;

/// <summary>
/// The key of a request's beginning: requests with equal keys share keys and values, so one replica should answer them. It takes in the
/// model, the instructions, and the first question: its images if it has any, which are most of a prompt and stand before the text, else
/// its text. Long texts count by their beginning alone, so that questions at the end of one long document stay together. Later turns of a
/// conversation, its steering and its sampling do not count.
/// </summary>
internal static class PromptPrefix
{
    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 64 };

    /// <summary>The key, or null where any replica does as well.</summary>
    /// <param name="path">The request's path.</param>
    /// <param name="body">Its body.</param>
    /// <param name="longest">Bytes of each text that count.</param>
    public static byte[]? Key(string path, ReadOnlyMemory<byte> body, int longest)
    {
        if (path is not ("/v1/chat/completions" or "/v1/completions" or "/v1/responses"))
            return null;
        try
        {
            using var json = JsonDocument.Parse(body, Strict);
            if (json.RootElement.ValueKind != JsonValueKind.Object)
                return null;
            using var key = new Hash(longest);
            key.Add(json.RootElement, "model");
            key.Add(json.RootElement, "prompt");
            key.Add(json.RootElement, "instructions");
            if (json.RootElement.TryGetProperty("messages", out var turns) || json.RootElement.TryGetProperty("input", out turns))
                key.AddTurns(turns);
            return key.End();
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException) // the latter at text that is not Unicode
        {
            return null; // a replica will say what is wrong with it
        }
    }

    private sealed class Hash(int longest) : IDisposable
    {
        private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

        public void Add(JsonElement of, string name)
        {
            if (of.ValueKind == JsonValueKind.Object && of.TryGetProperty(name, out var value))
                Add(value, longest);
        }

        /// <summary>Everything up to the first turn of a user.</summary>
        public void AddTurns(JsonElement turns)
        {
            if (turns.ValueKind != JsonValueKind.Array)
            {
                Add(turns, longest);
                return;
            }
            foreach (var turn in turns.EnumerateArray())
            {
                if (turn.ValueKind != JsonValueKind.Object)
                    return;
                Add(turn, "role");
                if (turn.TryGetProperty("content", out var content))
                    AddContent(content);
                if (turn.TryGetProperty("role", out var role) && role.ValueKind == JsonValueKind.String && role.ValueEquals("user"))
                    return;
            }
        }

        private void AddContent(JsonElement content)
        {
            if (content.ValueKind != JsonValueKind.Array)
            {
                Add(content, longest);
                return;
            }
            var images = content.EnumerateArray().Where(part => part.ValueKind == JsonValueKind.Object && part.TryGetProperty("image_url", out _)).ToList();
            foreach (var image in images)
                Add(Url(image.GetProperty("image_url")), int.MaxValue);
            if (images.Count > 0)
                return;
            foreach (var part in content.EnumerateArray())
                Add(part, "text");
        }

        private static JsonElement Url(JsonElement image) => image.ValueKind == JsonValueKind.Object && image.TryGetProperty("url", out var url) ? url : image;

        private void Add(JsonElement value, int most)
        {
            var raw = JsonMarshal.GetRawUtf8Value(value);
            _hash.AppendData(raw[..Math.Min(raw.Length, most)]);
            _hash.AppendData([0]); // never in JSON: texts do not run together
        }

        public byte[] End() => _hash.GetHashAndReset();

        public void Dispose() => _hash.Dispose();
    }
}
