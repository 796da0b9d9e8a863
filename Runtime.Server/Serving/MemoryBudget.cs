namespace Trimtab.Server.Serving;

/// <summary>
/// Memory that open requests may hold together before the engine has them: bodies, image files, and what the vision encoder will read of images.
/// Who would take more gets 429 before it is allocated. One alone gets what it needs: the limits of a single request bound it.
/// </summary>
/// <param name="most">Bytes.</param>
internal sealed class MemoryBudget(long most)
{
    private readonly Lock _lock = new();
    private readonly long _most = most;
    private long _used;

    /// <summary>Bytes that requests hold.</summary>
    public long Used
    {
        get
        {
            lock (_lock)
                return _used;
        }
    }

    /// <summary>A request's share, of nothing yet.</summary>
    public Share Open() => new(this);

    /// <summary>What one request holds.</summary>
    internal sealed class Share(MemoryBudget budget) : IDisposable
    {
        private long _held;

        /// <summary>Takes memory before it is allocated.</summary>
        /// <exception cref="ApiException">429: others hold too much of it.</exception>
        public void Take(long bytes)
        {
            lock (budget._lock)
            {
                if (budget._used > _held && budget._used + bytes > budget._most)
                    throw new ApiException(429, "other requests' texts and images take all the memory that there is for them", null, "memory_full") { RetryAfter = TimeSpan.FromSeconds(2) };
                budget._used += bytes;
                _held += bytes;
            }
        }

        /// <summary>Gives back all but so much.</summary>
        public void Keep(long bytes)
        {
            lock (budget._lock)
            {
                budget._used -= _held - bytes;
                _held = bytes;
            }
        }

        /// <summary>Gives back all.</summary>
        public void Dispose() => Keep(0);
    }
}
