namespace Trimtab.Server.Serving;

/// <summary>Where a server listens and what it accepts.</summary>
internal sealed record ServeOptions
{
    /// <summary>Address to listen on.</summary>
    public string Host { get; init; } = "127.0.0.1";

    /// <summary>Port; 0 for any that is free.</summary>
    public int Port { get; init; } = 8080;

    /// <summary>Name that requests call the model by.</summary>
    public string ModelName { get; init; } = "model";

    /// <summary>Longest body in bytes.</summary>
    public long MaxBody { get; init; } = 32 << 20;

    /// <summary>Memory that all requests' bodies and images may take before the engine has them; more get 429.</summary>
    public long MaxMemory { get; init; } = 1 << 30;

    /// <summary>Most images in a request.</summary>
    public int MaxImages { get; init; } = 8;

    /// <summary>Most pixels of an image.</summary>
    public long MaxPixels { get; init; } = 32_000_000;

    /// <summary>Most tokens of an answer.</summary>
    public int MaxTokens { get; init; } = 1024;

    /// <summary>Most answers of one request (n).</summary>
    public int MaxCount { get; init; } = 16;

    /// <summary>Most requests between their first byte and their last; more get 429.</summary>
    public int MaxRequests { get; init; } = 256;

    /// <summary>Longest time for one answer.</summary>
    public TimeSpan AnswerTime { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>Longest time from SIGTERM to the end of the last answer.</summary>
    public TimeSpan DrainTime { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>Longest time for a client to send a body.</summary>
    public TimeSpan BodyTime { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Longest wait for a client to take what is written to it.</summary>
    public TimeSpan WriteTime { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Whether a key's prompts find only its own in the cache.</summary>
    public bool PrivateCache { get; init; }

    /// <summary>Whether /metrics needs a key.</summary>
    public bool ProtectMetrics { get; init; }

    /// <summary>Longest time for fetching an image.</summary>
    public TimeSpan ImageTime { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>Hosts that images are fetched from, each with its default ports or as HOST:PORT; none by default.</summary>
    public IReadOnlyList<string> ImageHosts { get; init; } = [];

    /// <summary>Largest image file that is fetched.</summary>
    public long MaxImageBytes { get; init; } = 16 << 20;

    /// <summary>Whether it listens to this machine alone.</summary>
    public bool Loopback => Serving.Loopback.Is(Host);
}
