namespace Trimtab.Kernels.Cuda;

/// <summary>How a GPU is used.</summary>
public sealed record CudaOptions
{
    /// <summary>Which GPU, as the driver counts them.</summary>
    public int Ordinal { get; init; }

    /// <summary>
    /// GPUs, from <see cref="Ordinal"/> on, among which each layer is divided (tensor parallelism), by NCCL 2; they are to be of one kind. Only
    /// <see cref="CudaDevice.Open"/> opens more than one.
    /// </summary>
    public int TensorParallel { get; init; } = 1;

    /// <summary>BF16, which tensor cores multiply, or F32.</summary>
    public DType ActivationType { get; init; } = DType.BF16;

    /// <summary>
    /// Sums every output in one order for a token alone and among others. Long prompts then read the weights once for every 8 tokens (16
    /// of floats), instead of meeting them in tensor cores: off, since what that costs is large and has not been measured. Steering does not
    /// need it; answers that are to be replayed bit by bit, whatever ran beside them, do.
    /// </summary>
    public bool BatchInvariant { get; init; }

    /// <summary>Has cuBLASLt multiply long prompts with weights where it is installed; else the kernels of this project do.</summary>
    public bool UseCublas { get; init; } = true;

    /// <summary>
    /// Tokens from which cuBLASLt is asked. Up to 128 the weights' way from memory bounds a product, and the own kernels' epilogues save a
    /// pass over the sums. Where the two meet on a GPU has not been measured.
    /// </summary>
    public int CublasTokens { get; init; } = 129;

    /// <summary>Waits after every op, so that an error is thrown by the op that caused it; for finding errors.</summary>
    public bool Blocking { get; init; }

    /// <summary>
    /// Has a kernel's blocks start while the last ones of the kernel before it still run: they fetch the beginning of their weights into the
    /// cache, and wait for its end before they touch anything else (programmatic dependent launch: CUDA C++ Programming Guide, "Programmatic
    /// Dependent Launch and Synchronization"). From compute capability 9.0 and CUDA 12.3 on; the numbers are the same. TRIMTAB_CUDA_PDL=0 turns it off.
    /// </summary>
    public bool ProgrammaticLaunch { get; init; } = Environment.GetEnvironmentVariable("TRIMTAB_CUDA_PDL") != "0";

    /// <summary>The folder of compiled kernels; null for the user's own, empty for none.</summary>
    public string? CacheFolder { get; init; }
}
