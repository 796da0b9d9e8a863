namespace Trimtab.Server.Routing;

/// <summary>What a router is told.</summary>
internal sealed record RouteOptions
{
    /// <summary>Addresses of replicas.</summary>
    public IReadOnlyList<Uri> Replicas { get; init; } = [];

    /// <summary>Addresses whose host name stands for replicas: each of its IP addresses is one.</summary>
    public IReadOnlyList<Uri> Discover { get; init; } = [];

    /// <summary>Address to listen on.</summary>
    public string Host { get; init; } = "127.0.0.1";

    /// <summary>Port; 0 for any that is free.</summary>
    public int Port { get; init; }

    /// <summary>Bytes of a text that count for where a request goes.</summary>
    public int Prefix { get; init; } = 256;

    /// <summary>Requests that a replica may have before others take over prompts that are its own.</summary>
    public int Spill { get; init; } = 16;

    /// <summary>Replicas that a request may be tried on.</summary>
    public int Attempts { get; init; } = 3;

    /// <summary>Retries that can be saved up.</summary>
    public int RetryBudget { get; init; } = 100;

    /// <summary>Time between two probes of a replica, and the longest wait for one.</summary>
    public TimeSpan Probe { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Longest body in bytes.</summary>
    public long MaxBody { get; init; } = 32 << 20;

    /// <summary>Memory that all requests' bodies may take; more get 429.</summary>
    public long MaxMemory { get; init; } = 1 << 30;

    /// <summary>Most requests at a time.</summary>
    public int MaxRequests { get; init; } = 1024;

    /// <summary>Longest time without a byte from a replica that answers.</summary>
    public TimeSpan AnswerTime { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>Longest time for a client to send a body.</summary>
    public TimeSpan BodyTime { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Longest time from SIGTERM to the end of the last answer.</summary>
    public TimeSpan DrainTime { get; init; } = TimeSpan.FromSeconds(30);
}
