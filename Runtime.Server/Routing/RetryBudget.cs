namespace Trimtab.Server.Routing;

/// <summary>
/// Retries that may still be made: every request earns a fifth of one. So a replica that fails costs its requests a second attempt, and
/// replicas that all fail are not buried under attempts.
/// </summary>
/// <param name="most">Retries that can be saved up; it begins with them.</param>
internal sealed class RetryBudget(int most)
{
    private const int Parts = 5;
    private readonly Lock _lock = new();
    private long _parts = (long)most * Parts;

    /// <summary>A request came.</summary>
    public void Earn()
    {
        lock (_lock)
            _parts = Math.Min(_parts + 1, (long)most * Parts);
    }

    /// <summary>Takes a retry if there is one.</summary>
    public bool TrySpend()
    {
        lock (_lock)
        {
            if (_parts < Parts)
                return false;
            _parts -= Parts;
            return true;
        }
    }
}
