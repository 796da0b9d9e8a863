namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Sixteen 32-bit lanes, in however many registers the instruction set needs. Kernels are written once, generic over this,
/// and the JIT specialises them. Lanes hold floats or bare bits; arithmetic operators take floats, &amp; and | take bits.
/// </summary>
internal unsafe interface ILanes<T> where T : struct, ILanes<T>
{
    /// <summary>Instruction set, for people.</summary>
    static abstract string Name { get; }

    /// <summary>Whether this machine has it.</summary>
    static abstract bool IsSupported { get; }

    /// <summary>Whether there are registers for 16 values and more.</summary>
    static abstract bool IsWide { get; }

    static abstract T operator +(T a, T b);
    static abstract T operator -(T a, T b);
    static abstract T operator *(T a, T b);
    static abstract T operator /(T a, T b);
    static abstract T operator &(T a, T b);
    static abstract T operator |(T a, T b);

    /// <summary>a · b + c, rounded once where the hardware can.</summary>
    static abstract T MultiplyAdd(T a, T b, T c);

    /// <summary>a · (the one float at <paramref name="b"/>) + c: the broadcast can be part of the instruction.</summary>
    static abstract T MultiplyAdd(T a, float* b, T c);

    /// <summary>The lesser; <paramref name="b"/> or a NaN where either is no number.</summary>
    static abstract T Min(T a, T b);

    /// <summary>The greater; <paramref name="b"/> or a NaN where either is no number.</summary>
    static abstract T Max(T a, T b);

    /// <summary>Where a &lt; b the lanes of <paramref name="then"/>, elsewhere those of <paramref name="otherwise"/>.</summary>
    static abstract T WhereLess(T a, T b, T then, T otherwise);

    static abstract T Broadcast(float value);
    static abstract T BroadcastBits(uint value);
    static abstract T Load(void* source);
    static abstract void Store(T value, float* target);

    /// <summary>Sixteen 16-bit values as 32-bit integers.</summary>
    static abstract T LoadHalves(void* source);

    /// <summary>Sixteen bytes as 32-bit integers.</summary>
    static abstract T LoadBytes(void* source);

    /// <summary>Integers to floats.</summary>
    static abstract T ToFloat(T integers);
    static abstract T AddIntegers(T a, T b);
    static abstract T SubtractIntegers(T a, T b);
    static abstract T ShiftLeft(T a, int bits);
    static abstract T ShiftRight(T a, int bits);

    /// <summary>Byte <paramref name="index"/> of each lane as a float.</summary>
    static abstract T Byte(T packed, int index);

    /// <summary>The four bits of each lane from <paramref name="bit"/> on as a float.</summary>
    static abstract T Nibble(T packed, int bit);
}
