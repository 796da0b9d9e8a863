using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// A quantised form whose elements are multiplied as integers with activations in eight bits. A group's elements come as pairs of
/// vectors of unsigned bytes (or 16-bit numbers), four (two) columns to a lane; sums are exact whatever instructions take them.
/// </summary>
internal unsafe interface IIntegerForm : IForm
{
    /// <summary>Pairs of vectors in a group.</summary>
    static abstract int Pairs { get; }

    /// <summary>Whether an element is worth something when it is zero: its group's offset.</summary>
    static virtual bool HasMinimum => false;

    /// <summary>Where a block of activations has what centers the sums (see <see cref="ActivationRows"/>); for forms without a minimum.</summary>
    static virtual int Center => 0;

    /// <summary>Whether activations are taken as 16-bit numbers: a pair has four bytes of them and four more 32 bytes on, instead of eight.</summary>
    static virtual bool IsWide => false;

    /// <summary>A pair of vectors.</summary>
    static abstract T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T>;

    /// <summary>A pair's activations, the same in all lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static virtual T Activations<T>(byte* x, out T second) where T : struct, ILanes<T>
    {
        second = T.BroadcastBits(*(uint*)(x + 4));
        return T.BroadcastBits(*(uint*)x);
    }

    /// <summary>Adds a pair's products with its activations.</summary>
    static abstract T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T>;

    /// <summary>A group's sums, when all its steps are done, as 32-bit integers.</summary>
    static virtual T End<T>(T sum) where T : struct, ILanes<T> => sum;
}

internal readonly unsafe partial struct FormQ4_0 : IIntegerForm
{
    public static int Pairs => 4;

    public static int Center => ActivationRows.Center8;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T> => FourBits.Pair(group, pair, out second);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> => FourBits.Step(sum, first, second, x, x2);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T End<T>(T sum) where T : struct, ILanes<T> => FourBits.End(sum);
}

internal readonly unsafe partial struct FormQ4_1 : IIntegerForm
{
    public static int Pairs => 4;

    public static bool HasMinimum => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T> => FourBits.Pair(group, pair, out second);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> => FourBits.Step(sum, first, second, x, x2);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T End<T>(T sum) where T : struct, ILanes<T> => FourBits.End(sum);
}

internal readonly unsafe partial struct FormQ4_K : IIntegerForm
{
    public static int Pairs => 4;

    public static bool HasMinimum => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T> => FourBits.Pair(group, pair, out second);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> => FourBits.Step(sum, first, second, x, x2);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T End<T>(T sum) where T : struct, ILanes<T> => FourBits.End(sum);
}

internal readonly unsafe partial struct FormQ6_K : IIntegerForm
{
    public static int Pairs => 2;

    public static int Center => ActivationRows.Center32;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T>
    {
        T low = T.Load(group + 64 * pair), high = T.ShiftRight(T.Load(group + 128), 4 * pair);
        T four = T.BroadcastBits(0x0F0F0F0F), two = T.BroadcastBits(0x30303030);
        second = T.ShiftRight(low, 4) & four | T.ShiftLeft(high, 2) & two;
        return low & four | T.ShiftLeft(high, 4) & two;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T>
    {
        // Four products of at most 63 · 127 fit in 16 bits.
        return T.HasDot ? T.Dot(T.Dot(sum, first, x), second, x2)
            : T.AddIntegers(sum, T.MultiplyShorts(T.AddShorts(T.MultiplyBytes(first, x), T.MultiplyBytes(second, x2)), T.BroadcastBits(0x00010001)));
    }
}

internal readonly unsafe partial struct FormQ8_0 : IIntegerForm
{
    public static int Pairs => 4;

    public static int Center => ActivationRows.Center128;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T>
    {
        second = T.Load(group + 128 * pair + 64);
        return T.Load(group + 128 * pair);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> =>
        T.Dot(T.Dot(sum, first, x), second, x2);
}

/// <summary>Q8_0 for machines without a dot product of bytes: two products of 255 · 127 do not fit in the 16 bits that those have, so even and odd columns are taken as 16-bit numbers.</summary>
internal readonly unsafe struct FormQ8_0Wide : IIntegerForm
{
    public static int Group => FormQ8_0.Group;

    public static int GroupBytes => FormQ8_0.GroupBytes;

    public static int Pairs => 8;

    public static int Center => ActivationRows.Center128;

    public static bool IsWide => true;

    public static int HeadBytes(int groups) => FormQ8_0.HeadBytes(groups);

    public static void Pack(byte** rows, int columns, byte* chunk) => FormQ8_0.Pack(rows, columns, chunk);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T> => FormQ8_0.Scale(head, group, out offset);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> => FormQ8_0.Element(group, octet, j, scale, offset);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T>
    {
        T packed = T.Load(group + 64 * pair), mask = T.BroadcastBits(0x00FF00FF);
        second = T.ShiftRight(packed, 8) & mask;
        return packed & mask;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Activations<T>(byte* x, out T second) where T : struct, ILanes<T>
    {
        second = T.BroadcastBits(*(uint*)(x + 32));
        return T.BroadcastBits(*(uint*)x);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> =>
        T.AddIntegers(sum, T.AddIntegers(T.MultiplyShorts(first, x), T.MultiplyShorts(second, x2)));
}

/// <summary>What the forms with four bits share. 16 products of at most 15 · 127, a lane's half of a whole group, fit in 16 bits.</summary>
internal static unsafe class FourBits
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Pair<T>(byte* group, int pair, out T second) where T : struct, ILanes<T>
    {
        T packed = T.Load(group + 64 * pair), mask = T.BroadcastBits(0x0F0F0F0F);
        second = T.ShiftRight(packed, 4) & mask;
        return packed & mask;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Step<T>(T sum, T first, T second, T x, T x2) where T : struct, ILanes<T> =>
        T.HasDot ? T.Dot(T.Dot(sum, first, x), second, x2) : T.AddShorts(T.AddShorts(sum, T.MultiplyBytes(first, x)), T.MultiplyBytes(second, x2));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T End<T>(T sum) where T : struct, ILanes<T> => T.HasDot ? sum : T.MultiplyShorts(sum, T.BroadcastBits(0x00010001));
}
