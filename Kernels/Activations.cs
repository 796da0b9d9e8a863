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
