namespace Trimtab.Kernels.Cpu;

/// <summary>Rounds keys and values to what a cache of fewer bits holds.</summary>
internal static unsafe class KvRounding
{
    private const int Width = LanesSums.Width;

    /// <summary>To the nearest bfloat16, of two equally near ones to the even one.</summary>
    public static void ToBFloat16(float* source, ushort* target, int count)
    {
        for (var i = 0; i < count; i++)
        {
            var bits = ((uint*)source)[i];
            target[i] = (ushort)(bits + 0x7FFF + (bits >> 16 & 1) >> 16);
        }
    }

    /// <summary>To bytes around 128.</summary>
    /// <returns>Their scale: the largest magnitude over 127.</returns>
    public static float ToBytes<T>(float* source, byte* target, int count) where T : struct, ILanes<T>
    {
        // What is added to it is rounded to an integer, to even where halfway, in the low bits.
        const float Round = 12582912 + 128;
        T highest = T.Broadcast(0), lowest = highest;
        var i = 0;
        for (; i <= count - Width; i += Width)
        {
            var x = T.Load(source + i);
            highest = T.Max(highest, x);
            lowest = T.Min(lowest, x);
        }
        var largest = MathF.Max(LanesSums.Highest(highest), LanesSums.Highest(T.Broadcast(0) - lowest));
        for (; i < count; i++)
            largest = MathF.Max(largest, MathF.Abs(source[i]));
        float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
        for (i = 0; i <= count - Width; i += Width)
            T.StoreBytes(T.Load(source + i) * T.Broadcast(inverse) + T.Broadcast(Round), target + i);
        for (; i < count; i++)
            target[i] = (byte)BitConverter.SingleToUInt32Bits(source[i] * inverse + Round);
        return scale;
    }
}
