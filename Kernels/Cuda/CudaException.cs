using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>What CUDA refused: its own name for the error, and what was being done.</summary>
public sealed class CudaException : Exception
{
    /// <summary>An error of no call in particular.</summary>
    public CudaException()
    {
    }

    /// <summary>An error with a message.</summary>
    public CudaException(string message) : base(message)
    {
    }

    /// <summary>An error that another one caused.</summary>
    public CudaException(string message, Exception inner) : base(message, inner)
    {
    }

    private CudaException(string error, string message) : base(message) => Error = error;

    /// <summary>CUDA's name of the error, such as CUDA_ERROR_ILLEGAL_ADDRESS.</summary>
    public string Error { get; } = "";

    internal static unsafe CudaException Of(CUresult result, string operation)
    {
        var name = Driver.cuGetErrorName(result, out var p) == CUresult.CUDA_SUCCESS && p is not null ? Marshal.PtrToStringUTF8((nint)p)! : $"CUresult {(int)result}";
        var text = Driver.cuGetErrorString(result, out p) == CUresult.CUDA_SUCCESS && p is not null ? Marshal.PtrToStringUTF8((nint)p) : null;
        return new(name, $"{operation}: {name}{(text is null ? "" : $" ({text})")}");
    }

    internal static unsafe void ThrowNvrtc(int result, string operation)
    {
        if (result != 0)
            throw new CudaException("NVRTC_ERROR", $"{operation}: {Marshal.PtrToStringUTF8((nint)Nvrtc.nvrtcGetErrorString(result))}");
    }
}

/// <summary>Turns results into exceptions.</summary>
internal static class CudaResults
{
    /// <exception cref="CudaException">The call failed.</exception>
    public static void Check(this CUresult result, string operation)
    {
        if (result != CUresult.CUDA_SUCCESS)
            throw CudaException.Of(result, operation);
    }

    /// <summary>The same of a copy, whose text is made only when it is needed: a step has many.</summary>
    /// <exception cref="CudaException">The call failed.</exception>
    public static void Check(this CUresult result, string operation, nuint bytes)
    {
        if (result != CUresult.CUDA_SUCCESS)
            throw CudaException.Of(result, $"{operation} of {bytes} bytes");
    }
}
