using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>Functions of sixteen floats at once.</summary>
internal static class LanesMath
{
    /// <summary>e^x within 2 units in the last place, denormal results included; 0 and infinity beyond, NaN of NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Exp<T>(T x) where T : struct, ILanes<T>
    {
        const float Round = 12582912; // 1.5 · 2^23: what is added to it is rounded to an integer, in its low bits
        x = T.Max(T.Broadcast(-104), T.Min(T.Broadcast(89), x));
        var shifted = T.MultiplyAdd(x, T.Broadcast(1.44269504f), T.Broadcast(Round));
        var n = shifted - T.Broadcast(Round);
        // ln 2 in two pieces, the first short enough for n times it to be exact.
        var r = T.MultiplyAdd(n, T.Broadcast(-0.693359375f), x);
        r = T.MultiplyAdd(n, T.Broadcast(2.12194440e-4f), r);
        // Minimax on ±ln 2 / 2 of (e^r − 1 − r) / r², relative error of e^r 1e-9.
        var p = T.MultiplyAdd(T.Broadcast(0.0013926392f), r, T.Broadcast(0.0083633458f));
        p = T.MultiplyAdd(p, r, T.Broadcast(0.0416665533f));
        p = T.MultiplyAdd(p, r, T.Broadcast(0.1666657598f));
        p = T.MultiplyAdd(p, r, T.Broadcast(0.5f));
        p = T.MultiplyAdd(p, r, T.Broadcast(1));
        p = T.MultiplyAdd(p, r, T.Broadcast(1));
        // 2^n as two factors, so that neither leaves the range of normal numbers.
        var exponent = T.AddIntegers(T.SubtractIntegers(shifted, T.Broadcast(Round)), T.BroadcastBits(254));
        var half = T.ShiftRight(exponent, 1);
        return p * T.ShiftLeft(half, 23) * T.ShiftLeft(T.SubtractIntegers(exponent, half), 23);
    }

    /// <summary>1 / (1 + e^−x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Sigmoid<T>(T x) where T : struct, ILanes<T> =>
        T.Broadcast(1) / (T.Broadcast(1) + Exp(T.Broadcast(0) - x));

    /// <summary>cap · tanh(x / cap), absolute error 2e-7 of the cap.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T SoftCap<T>(T x, float cap) where T : struct, ILanes<T> =>
        T.Broadcast(cap) - T.Broadcast(2 * cap) / (T.Broadcast(1) + Exp(x * T.Broadcast(2 / cap)));

    /// <summary>
    /// Φ(x), the normal distribution function: (1 + erf(x/√2)) / 2, absolute error 2e-7, relative error in the lower tail 1e-6 down to
    /// x = −5. As e^(−z²) · t · Q(t) with z = |x|/√2, t = 1 / (1 + z/2); Q is a minimax fit of half the scaled complementary error function.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T NormalCdf<T>(T x) where T : struct, ILanes<T>
    {
        var z = x & T.BroadcastBits(0x7FFFFFFF);
        var t = T.Broadcast(1) / T.MultiplyAdd(z, T.Broadcast(0.35355339f), T.Broadcast(1));
        var q = T.MultiplyAdd(T.Broadcast(-0.060171502743f), t, T.Broadcast(0.28937701115f));
        q = T.MultiplyAdd(q, t, T.Broadcast(-0.49589343892f));
        q = T.MultiplyAdd(q, t, T.Broadcast(0.28654627324f));
        q = T.MultiplyAdd(q, t, T.Broadcast(-0.031459232396f));
        q = T.MultiplyAdd(q, t, T.Broadcast(0.20432476362f));
        q = T.MultiplyAdd(q, t, T.Broadcast(0.24278180898f));
        q = T.MultiplyAdd(q, t, T.Broadcast(0.28240939734f));
        q = T.MultiplyAdd(q, t, T.Broadcast(0.28208486293f));
        var tail = T.Broadcast(0.5f) * t * q * Exp(T.Broadcast(-0.5f) * x * x);
        return T.WhereLess(x, T.Broadcast(0), tail, T.Broadcast(1) - tail);
    }

    /// <summary>Binary16 in the low half of each lane as floats, exactly: denormals, infinities and NaN too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T FromHalf<T>(T halves) where T : struct, ILanes<T>
    {
        var sign = T.ShiftLeft(halves & T.BroadcastBits(0x8000), 16);
        // Exponent and mantissa moved into place, the exponent's bias raised from 15 to 127.
        var wide = T.AddIntegers(T.ShiftLeft(halves & T.BroadcastBits(0x7FFF), 13), T.BroadcastBits(112 << 23));
        // A denormal m · 2^−24 has become (1 + m / 1024) · 2^−15: twice that less 2^−14 is right, and the lesser of the two just there.
        // No lane is ever a float denormal, on which some processors stall.
        var value = T.Min(T.MultiplyAdd(wide, T.Broadcast(2), T.BroadcastBits(0x80000000 | 113 << 23)), wide);
        var special = T.WhereLess(T.Broadcast(65504), wide, T.BroadcastBits(0x7F800000), default);
        return value | special | sign;
    }
}
