namespace Trimtab.Kernels.Cuda;

public sealed unsafe partial class CudaDevice
{
    private const int ProductWorkspace = 32 << 20; // what NVIDIA's own guide gives Hopper
    private const int PartialScratch = 5, ExpandedScratch = 6; // slots of Scratch

    private readonly Dictionary<CublasLtProduct.Shape, CublasLtProduct> _products = [];
    private CublasLtContext? _cublas;
    private CudaStorage? _workspace;
    private bool _sought;

    /// <summary>What multiplies long prompts with weights: cuBLASLt with its version, or the kernels of this project.</summary>
    public string Products
    {
        get
        {
            Enter();
            return Cublas() is null ? "kernels of Trimtab" : $"cuBLASLt {CublasLt.cublasLtGetVersion()}";
        }
    }

    private CublasLtContext? Cublas()
    {
        if (_sought || !_options.UseCublas || _options.BatchInvariant)
            return _cublas;
        _sought = true;
        try
        {
            CublasLt.Check(CublasLt.cublasLtCreate(out var handle), "cublasLtCreate");
            _cublas = new(handle);
            _workspace = Take(ProductWorkspace, "cuBLASLt's working memory", zeroed: false);
        }
        catch (DllNotFoundException)
        {
            // The project's own kernels do it.
        }
        return _cublas;
    }

    /// <summary>
    /// Has cuBLASLt multiply a part, or says that it cannot. Sums that need a bias, an activation or a gate come out as floats and meet in
    /// linear_merge: cuBLASLt's own bias is of the output's type, which would round it and the sums once more.
    /// </summary>
    private bool Product(DType type, in LinearParameters p)
    {
        if (p.Tiles != 0 || p.Tokens < _options.CublasTokens || Cublas() is not { } context)
            return false;
        var rows = p.Rows + p.Gate;
        var element = ActivationType.BlockBytes();
        var plain = p.Gate == 0 && p.Bias == 0 && p.Epilogue == (int)Epilogue.None;
        var kind = ActivationType == DType.F32 ? CublasLt.CUDA_R_32F : CublasLt.CUDA_R_16BF;
        var stride = CudaForms.ElementStride(ActivationType, p.Columns) / element;
        var weight = type == ActivationType ? p.Elements : Scratch(ExpandedScratch, (long)rows * stride * element);
        var output = plain ? p.Output + (nint)((long)p.FirstRow * element) : Scratch(PartialScratch, (long)p.Tokens * rows * sizeof(float));
        var together = (long)(weight | p.Input | output);
        var shape = new CublasLtProduct.Shape(p.Tokens, rows, p.Columns, stride, plain ? p.OutputColumns : rows, kind, plain ? kind : CublasLt.CUDA_R_32F,
            (int)Math.Min(256, together & -together));
        if (!_products.TryGetValue(shape, out var product))
        {
            if (_products.Count >= 4096) // lengths of prompts are many
            {
                foreach (var old in _products.Values)
                    old.Dispose();
                _products.Clear();
            }
            _products.Add(shape, product = new(context.Value, shape, ProductWorkspace));
        }
        if (!product.CanRun)
            return false;
        var op = Op(type, p);
        if (type != ActivationType)
            Launch(op, Kernel("linear_expand.cu", "linear_expand", type), (rows, (p.Columns + 2047) / 2048, 1), 256, 0,
                new ExpandParameters { Output = weight, Elements = p.Elements, Scales = p.Scales, ElementStride = p.ElementStride, ScaleStride = p.ScaleStride, Columns = p.Columns, OutputColumns = stride });
        _lastOp = op;
        product.Run(op, context.Value, output, p.Input, weight, _workspace!.Pointer, _stream.Value);
        if (!plain)
            Merge(p with { Partial = output, Rows = rows, Splits = 1 });
        else if (_options.Blocking && !_capturing)
            Wait();
        return true;
    }

    private void Merge(in LinearParameters p) => Launch("Linear, merge", Kernel("linear_merge.cu", "linear_merge"), ((p.Rows - p.Gate + 255) / 256, p.Tokens, 1), 256, 0, p);

    /// <summary>
    /// Into how many stretches of columns the blocks of a product of few tiles divide their work, and columns a stretch. Two blocks fit a
    /// multiprocessor; a stretch of fewer than four stages would do little else than begin and end.
    /// </summary>
    private (int Splits, int Depth) Split(int blocks, int columns)
    {
        const int Stage = 64;
        var stages = (columns + Stage - 1) / Stage;
        var splits = Math.Clamp(Math.Min(2 * _multiprocessors / Math.Max(blocks, 1), stages / 4), 1, 16);
        var depth = (stages + splits - 1) / splits * Stage;
        return ((columns + depth - 1) / depth, depth);
    }
}
