using System.Runtime.InteropServices;

namespace Trimtab.Kernels.Cuda;

/// <summary>cuBLASLt under its own names, as far as it is used. Results are cublasStatus_t: 0 is success. Matrices are column-major.</summary>
internal static unsafe partial class CublasLt
{
    /// <summary>What the library is called in declarations; resolved to the platform's file.</summary>
    public const string Library = "cublasLt";

    public const int CUDA_R_32F = 0, CUDA_R_16BF = 14, CUBLAS_COMPUTE_32F = 68, CUBLAS_OP_T = 1, CUBLAS_STATUS_NOT_SUPPORTED = 15;
    public const int CUBLASLT_MATMUL_DESC_TRANSA = 3, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8;

    static CublasLt() => CudaLibraries.Register();

    [LibraryImport(Library)] public static partial nuint cublasLtGetVersion();
    [LibraryImport(Library)] public static partial byte* cublasLtGetStatusName(int status);
    [LibraryImport(Library)] public static partial int cublasLtCreate(out nint handle);
    [LibraryImport(Library)] public static partial int cublasLtDestroy(nint handle);
    [LibraryImport(Library)] public static partial int cublasLtMatmulDescCreate(out nint desc, int computeType, int scaleType);
    [LibraryImport(Library)] public static partial int cublasLtMatmulDescSetAttribute(nint desc, int attribute, void* value, nuint bytes);
    [LibraryImport(Library)] public static partial int cublasLtMatmulDescDestroy(nint desc);
    [LibraryImport(Library)] public static partial int cublasLtMatrixLayoutCreate(out nint layout, int type, ulong rows, ulong columns, long leadingDimension);
    [LibraryImport(Library)] public static partial int cublasLtMatrixLayoutDestroy(nint layout);
    [LibraryImport(Library)] public static partial int cublasLtMatmulPreferenceCreate(out nint preference);
    [LibraryImport(Library)] public static partial int cublasLtMatmulPreferenceSetAttribute(nint preference, int attribute, void* value, nuint bytes);
    [LibraryImport(Library)] public static partial int cublasLtMatmulPreferenceDestroy(nint preference);
    [LibraryImport(Library)]
    public static partial int cublasLtMatmulAlgoGetHeuristic(nint handle, nint desc, nint a, nint b, nint c, nint d, nint preference, int requested,
        cublasLtMatmulHeuristicResult_t* results, out int returned);
    [LibraryImport(Library)]
    public static partial int cublasLtMatmul(nint handle, nint desc, void* alpha, nint a, nint layoutA, nint b, nint layoutB, void* beta, nint c, nint layoutC,
        nint d, nint layoutD, cublasLtMatmulAlgo_t* algo, nint workspace, nuint workspaceBytes, nint stream);

    /// <exception cref="CudaException">The call failed.</exception>
    public static void Check(int status, string operation)
    {
        if (status != 0)
            throw new CudaException($"{operation}: {Marshal.PtrToStringUTF8((nint)cublasLtGetStatusName(status))}");
    }
}

/// <summary>cublasLtMatmulAlgo_t: opaque.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct cublasLtMatmulAlgo_t
{
    public fixed ulong data[8];
}

/// <summary>cublasLtMatmulHeuristicResult_t.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct cublasLtMatmulHeuristicResult_t
{
    public cublasLtMatmulAlgo_t algo;
    public nuint workspaceSize;
    public int state;
    public float wavesCount;
    public fixed int reserved[4];
}

/// <summary>A cuBLASLt context.</summary>
internal sealed class CublasLtContext(nint value) : CudaHandle(value)
{
    protected override CUresult Free(nint value) => (CUresult)CublasLt.cublasLtDestroy(value);
}

/// <summary>
/// One product's shape, described to cuBLASLt once, with the algorithm that its heuristics put first:
/// d[tokens, rows] = input[tokens, columns] · weight[rows, columns]ᵀ, all of them row-major as everywhere here.
/// </summary>
internal sealed unsafe class CublasLtProduct : IDisposable
{
    private nint _desc, _weight, _input, _output;
    private readonly cublasLtMatmulAlgo_t _algo;
    private readonly nuint _workspace;

    /// <param name="handle">The context.</param>
    /// <param name="shape">What is multiplied; strides in elements.</param>
    /// <param name="workspace">Bytes of working memory that an algorithm may use.</param>
    public CublasLtProduct(nint handle, Shape shape, nuint workspace)
    {
        var operation = $"cuBLASLt [{shape.Tokens}, {shape.Columns}] by [{shape.Rows}, {shape.Columns}]";
        nint preference = 0;
        try
        {
            CublasLt.Check(CublasLt.cublasLtMatmulDescCreate(out _desc, CublasLt.CUBLAS_COMPUTE_32F, CublasLt.CUDA_R_32F), operation);
            var transposed = CublasLt.CUBLAS_OP_T;
            CublasLt.Check(CublasLt.cublasLtMatmulDescSetAttribute(_desc, CublasLt.CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(int)), operation);
            // Row-major [r, c] is column-major [c, r]: the weight is transposed, the input and the output are as they should be.
            CublasLt.Check(CublasLt.cublasLtMatrixLayoutCreate(out _weight, shape.Type, (ulong)shape.Columns, (ulong)shape.Rows, shape.WeightStride), operation);
            CublasLt.Check(CublasLt.cublasLtMatrixLayoutCreate(out _input, shape.Type, (ulong)shape.Columns, (ulong)shape.Tokens, shape.Columns), operation);
            CublasLt.Check(CublasLt.cublasLtMatrixLayoutCreate(out _output, shape.OutputType, (ulong)shape.Rows, (ulong)shape.Tokens, shape.OutputStride), operation);
            CublasLt.Check(CublasLt.cublasLtMatmulPreferenceCreate(out preference), operation);
            CublasLt.Check(CublasLt.cublasLtMatmulPreferenceSetAttribute(preference, CublasLt.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, (nuint)sizeof(nuint)), operation);
            var alignment = (uint)shape.Alignment;
            for (var of = CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; of <= CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; of++) // A, B, C, D
                CublasLt.Check(CublasLt.cublasLtMatmulPreferenceSetAttribute(preference, of, &alignment, sizeof(uint)), operation);
            cublasLtMatmulHeuristicResult_t result;
            var status = CublasLt.cublasLtMatmulAlgoGetHeuristic(handle, _desc, _weight, _input, _output, _output, preference, 1, &result, out var returned);
            // It may know none for a shape (rows that do not lie on 4 bytes, say).
            CanRun = status == 0 && returned > 0 && result.state == 0;
            if (status != CublasLt.CUBLAS_STATUS_NOT_SUPPORTED)
                CublasLt.Check(status, operation);
            (_algo, _workspace) = (result.algo, result.workspaceSize);
        }
        catch
        {
            Dispose();
            throw;
        }
        finally
        {
            if (preference != 0)
                _ = CublasLt.cublasLtMatmulPreferenceDestroy(preference);
        }
    }

    /// <summary>What is multiplied: types are cudaDataType, strides count elements; all addresses are multiples of the alignment.</summary>
    public readonly record struct Shape(int Tokens, int Rows, int Columns, int WeightStride, int OutputStride, int Type, int OutputType, int Alignment);

    /// <summary>Whether cuBLASLt knows an algorithm for the shape.</summary>
    public bool CanRun { get; }

    /// <summary>Queues the product.</summary>
    public void Run(string op, nint handle, nint output, nint input, nint weight, nint workspace, nint stream)
    {
        float one = 1, zero = 0;
        fixed (cublasLtMatmulAlgo_t* algo = &_algo)
            CublasLt.Check(CublasLt.cublasLtMatmul(handle, _desc, &one, weight, _weight, input, _input, &zero, output, _output, output, _output, algo, workspace, _workspace, stream),
                $"{op}: cublasLtMatmul");
    }

    public void Dispose()
    {
        foreach (var layout in new[] { _weight, _input, _output })
            if (layout != 0)
                _ = CublasLt.cublasLtMatrixLayoutDestroy(layout);
        if (_desc != 0)
            _ = CublasLt.cublasLtMatmulDescDestroy(_desc);
        _desc = _weight = _input = _output = 0;
    }
}
