namespace Trimtab.Kernels.Cuda;

/// <summary>How a GPU is used.</summary>
public sealed record CudaOptions
{
    /// <summary>Which GPU, as the driver counts them.</summary>
    public int Ordinal { get; init; }

    /// <summary>BF16, which tensor cores multiply, or F32.</summary>
    public DType ActivationType { get; init; } = DType.BF16;

    /// <summary>
    /// Sums every output in one order for a token alone and among others. Long prompts then read the weights once for every 16 tokens,
    /// instead of meeting them in tensor cores.
    /// </summary>
    public bool BatchInvariant { get; init; }

    /// <summary>Waits after every op, so that an error is thrown by the op that caused it; for finding errors.</summary>
    public bool Blocking { get; init; }

    /// <summary>The folder of compiled kernels; null for the user's own, empty for none.</summary>
    public string? CacheFolder { get; init; }
}
