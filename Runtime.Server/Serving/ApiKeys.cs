using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Trimtab.Server.Serving;

/// <summary>Who asks.</summary>
/// <param name="Id">The key's name, or "anonymous" where the server has no keys.</param>
/// <param name="Admin">May use /admin.</param>
/// <param name="MaxRequests">Most requests at the same time; 0 for the server's own limit.</param>
internal sealed record Caller(string Id, bool Admin, int MaxRequests = 0)
{
    /// <summary>Everybody, where the server has no keys.</summary>
    public static Caller Anonymous { get; } = new("anonymous", false);
}

/// <summary>
/// The API keys of a server: a JSON file <c>{"keys": [{"id": "alice", "sha256": "…", "admin": false, "max_requests": 8}]}</c> with the
/// SHA-256 of each key, so that the file gives none away. Keys are random, so a plain hash is enough.
/// </summary>
internal sealed class ApiKeys
{
    private readonly (byte[] Hash, Caller Caller)[] _keys;

    private ApiKeys((byte[] Hash, Caller Caller)[] keys) => _keys = keys;

    /// <summary>Names of the keys.</summary>
    public IEnumerable<string> Ids => _keys.Select(key => key.Caller.Id);

    /// <summary>Reads the file.</summary>
    /// <exception cref="InvalidDataException">It is no such file; the message names the field.</exception>
    public static ApiKeys Open(string path)
    {
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(path));
            var root = new Fields(json.RootElement);
            var keys = new List<(byte[], Caller)>();
            foreach (var (value, place) in root.List("keys", 100_000) ?? throw ApiException.Invalid("keys", "is missing; expected an array"))
            {
                var key = new Fields(value, place);
                var id = key.RequiredText("id");
                var hash = key.RequiredText("sha256");
                if (id.Length == 0 || keys.Any(k => k.Item2.Id == id))
                    throw ApiException.Invalid(key.At("id"), $"is '{id}'; expected a name of its own for each key");
                if (hash.Length != 64 || !hash.All(char.IsAsciiHexDigit))
                    throw ApiException.Invalid(key.At("sha256"), "expected 64 hexadecimal digits, the SHA-256 of the key");
                keys.Add((Convert.FromHexString(hash), new(id, key.Flag("admin") ?? false, (int)(key.Integer("max_requests", 0, 1_000_000) ?? 0))));
                key.End();
            }
            root.End();
            return keys.Count > 0 ? new([.. keys]) : throw ApiException.Invalid("keys", "is empty; expected at least one key");
        }
        catch (Exception error) when (error is ApiException or JsonException)
        {
            throw new InvalidDataException($"{path}: {error.Message}", error);
        }
    }

    /// <summary>Whose key it is, or null. Compares with every key in constant time.</summary>
    public Caller? Find(string key)
    {
        Span<byte> hash = stackalloc byte[32];
        SHA256.HashData(Encoding.UTF8.GetBytes(key), hash);
        Caller? found = null;
        foreach (var (known, caller) in _keys)
        {
            if (CryptographicOperations.FixedTimeEquals(known, hash))
                found = caller;
        }
        return found;
    }
}
