namespace Trimtab.Kernels;

/// <summary>How a CPU multiplies activations with weights.</summary>
public enum Activations
{
    /// <summary>As they are, with weights made into floats: exact.</summary>
    F32,
    /// <summary>With quantised weights rounded to eight bits with one scale per 32 elements, multiplied as integers: several times as fast.</summary>
    Int8,
    /// <summary>As <see cref="Int8"/>, and with BF16 weights rounded to BF16 where the processor multiplies that; F16 weights are made BF16 there.</summary>
    Auto,
}

/// <summary>What <see cref="Activations"/> means for a weight.</summary>
public static class ActivationsOf
{
    /// <summary>What weights of a form are multiplied as, where the processor has an instruction for it.</summary>
    public static Arithmetic Arithmetic(this Activations activations, DType form)
        => activations != Activations.F32 && form.IsQuantized() ? Kernels.Arithmetic.Int8
            : activations == Activations.Auto && form == DType.BF16 ? Kernels.Arithmetic.BF16 : Kernels.Arithmetic.F32;
}
