using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Trimtab.Server.Routing;

/// <summary>One server behind the router.</summary>
/// <param name="url">Its address, without a path.</param>
internal sealed class Replica(string url)
{
    private readonly byte[] _name = Encoding.UTF8.GetBytes(url);
    private int _open;
    private int _failures;
    private volatile string? _reason = "it has not been asked yet";

    /// <summary>Its address.</summary>
    public string Url => url;

    /// <summary>Requests that it has now.</summary>
    public int Open => Volatile.Read(ref _open);

    /// <summary>Whether it takes requests.</summary>
    public bool Ready => _reason is null;

    /// <summary>Why it takes none, or null.</summary>
    public string? Reason => _reason;

    /// <summary>Whether it is merely slow to say so: it took the last probe's connection.</summary>
    public bool Slow { get; private set; }

    /// <summary>A request goes to it.</summary>
    public void Enter() => Interlocked.Increment(ref _open);

    /// <summary>A request has come back from it.</summary>
    public void Leave() => Interlocked.Decrement(ref _open);

    /// <summary>It says that it is ready.</summary>
    public void Succeed()
    {
        _failures = 0;
        Slow = false;
        _reason = null;
    }

    /// <summary>It says that it is not ready, or takes no connection: nothing goes to it until it says otherwise.</summary>
    public void Fail(string reason)
    {
        Slow = false;
        _reason = reason;
    }

    /// <summary>A probe got no answer. One may be lost under load; two are no accident.</summary>
    public void Miss(string reason, bool slow)
    {
        Slow = slow;
        if (++_failures >= 2 || !Ready)
            _reason = reason;
    }

    /// <summary>How much a key wants this replica. The one that it wants most changes only when that one goes, or a new one is wanted more (rendezvous hashing).</summary>
    public ulong Weight(ReadOnlySpan<byte> key)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData([.. _name, .. key], hash);
        return BinaryPrimitives.ReadUInt64LittleEndian(hash);
    }

    /// <summary>Those that are ready, in the order in which to try them: as the key wants them, those with too much to do last; without a key those with least to do first.</summary>
    /// <param name="replicas">All replicas.</param>
    /// <param name="key">See <see cref="PromptPrefix.Key"/>.</param>
    /// <param name="spill">Requests that one may have whatever the others have; above it, at most a quarter more than the mean.</param>
    public static List<Replica> Order(IReadOnlyList<Replica> replicas, byte[]? key, int spill)
    {
        var ready = replicas.Where(replica => replica.Ready).ToList();
        // Where all are slow there is much to do, and nobody is dead.
        if (ready.Count == 0)
            ready = [.. replicas.Where(replica => replica.Slow)];
        if (ready.Count < 2)
            return ready;
        if (key is null)
            return [.. ready.OrderBy(replica => replica.Open).ThenBy(_ => Random.Shared.Next())];
        var most = Math.Max(spill, 1.25 * (1 + ready.Sum(replica => replica.Open)) / ready.Count);
        return [.. ready.OrderBy(replica => replica.Open >= most).ThenByDescending(replica => replica.Weight(key))];
    }
}
