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

    /// <summary>Whether there is a dot product of bytes in one instruction.</summary>
    static abstract bool HasDot { get; }

    /// <summary>Adds to each lane the products of its four unsigned with its four signed bytes; only where <see cref="HasDot"/>.</summary>
    static abstract T Dot(T sum, T unsigned, T signed);

    /// <summary>Products of unsigned and signed bytes, neighbours added, in 16 bits; the sums have to fit.</summary>
    static abstract T MultiplyBytes(T unsigned, T signed);

    /// <summary>Sums of 16-bit integers.</summary>
    static abstract T AddShorts(T a, T b);

    /// <summary>Products of signed 16-bit integers, neighbours added, in 32 bits.</summary>
    static abstract T MultiplyShorts(T a, T b);

    /// <summary>Stores the low byte of each lane; 16 of them.</summary>
    static abstract void StoreBytes(T integers, byte* target);
}
