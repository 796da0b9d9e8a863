namespace Trimtab.Kernels;

/// <summary>How a CPU multiplies activations with quantised weights.</summary>
public enum Activations
{
    /// <summary>As they are, with weights made into floats: exact, and the default.</summary>
    F32,
    /// <summary>Rounded to eight bits with one scale per 32 elements, multiplied as integers: several times as fast.</summary>
    Int8,
}
