using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// A storage form as panels hold it. A panel is 16 weight rows, one a SIMD lane, cut into chunks of <see cref="Panels.Chunk"/> columns;
/// a chunk is a head (scales) and then groups of columns that share a scale. Quantised elements are unsigned bytes or parts of
/// bytes, four columns to a 32-bit lane, and worth element · scale + offset: what integer dot products want, too.
/// </summary>
internal unsafe interface IForm
{
    /// <summary>Columns that share a scale; 8 where there are no scales.</summary>
    static abstract int Group { get; }

    /// <summary>Bytes of a group of all 16 rows.</summary>
    static abstract int GroupBytes { get; }

    /// <summary>Bytes of the scales of a chunk.</summary>
    static abstract int HeadBytes(int groups);

    /// <summary>Writes a chunk.</summary>
    /// <param name="rows">16 addresses in source rows, where the chunk begins; null for rows that are not there.</param>
    /// <param name="columns">Columns in the chunk.</param>
    /// <param name="chunk">Zeroed.</param>
    static abstract void Pack(byte** rows, int columns, byte* chunk);

    /// <summary>Scales and offsets of a group.</summary>
    static abstract T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>;

    /// <summary>Column 8 · <paramref name="octet"/> + <paramref name="j"/> of a group.</summary>
    static abstract T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T>;
}

/// <summary>Binary32, column by column.</summary>
internal readonly unsafe struct FormF32 : IForm
{
    public static int Group => 8;

    public static int GroupBytes => 512;

    public static int HeadBytes(int groups) => 0;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var k = 0; k < columns; k++)
                ((uint*)chunk)[16 * k + r] = ((uint*)rows[r])[k];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T> => offset = default;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> => T.Load(group + 64 * j);
}

/// <summary>Binary16, column by column.</summary>
internal readonly unsafe struct FormF16 : IForm
{
    public static int Group => 8;

    public static int GroupBytes => 256;

    public static int HeadBytes(int groups) => 0;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var k = 0; k < columns; k++)
                ((ushort*)chunk)[16 * k + r] = ((ushort*)rows[r])[k];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T> => offset = default;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> =>
        LanesMath.FromHalf(T.LoadHalves(group + 32 * j));
}

/// <summary>BF16, two columns to a lane, the first in the low half: the pairs of a BF16 dot product.</summary>
internal readonly unsafe struct FormBF16 : IForm
{
    public static int Group => 8;

    public static int GroupBytes => 256;

    public static int HeadBytes(int groups) => 0;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var k = 0; k < columns; k++)
                ((ushort*)chunk)[32 * (k / 2) + 2 * r + k % 2] = ((ushort*)rows[r])[k];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T> => offset = default;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T>
    {
        var pair = T.Load(group + 64 * (j >> 1));
        return (j & 1) == 0 ? T.ShiftLeft(pair, 16) : pair & T.BroadcastBits(0xFFFF0000);
    }
}

/// <summary>Q8_0: f16 scales; bytes moved from −128 … 127 to 0 … 255.</summary>
internal readonly unsafe partial struct FormQ8_0 : IForm
{
    public static int Group => 32;

    public static int GroupBytes => 512;

    public static int HeadBytes(int groups) => Panels.Align(32 * groups);

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        var elements = (uint*)(chunk + HeadBytes(columns / 32));
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var g = 0; g < columns / 32; g++)
            {
                var block = rows[r] + 34 * g;
                ((ushort*)chunk)[16 * g + r] = *(ushort*)block;
                for (var i = 0; i < 8; i++)
                    elements[16 * (8 * g + i) + r] = ((uint*)(block + 2))[i] ^ 0x80808080;
            }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>
    {
        var scale = LanesMath.FromHalf(T.LoadHalves(head + 32 * group));
        offset = scale * T.Broadcast(-128);
        return scale;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> =>
        T.MultiplyAdd(T.Byte(T.Load(group + 128 * octet + 64 * (j >> 2)), j & 3), scale, offset);
}

/// <summary>Q4_0: f16 scales; eight columns to a lane (see <see cref="Panels.Nibbles"/>).</summary>
internal readonly unsafe partial struct FormQ4_0 : IForm
{
    public static int Group => 32;

    public static int GroupBytes => 256;

    public static int HeadBytes(int groups) => Panels.Align(32 * groups);

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        var elements = (uint*)(chunk + HeadBytes(columns / 32));
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var g = 0; g < columns / 32; g++)
            {
                var block = rows[r] + 18 * g;
                ((ushort*)chunk)[16 * g + r] = *(ushort*)block;
                for (var o = 0; o < 4; o++)
                    elements[16 * (4 * g + o) + r] = Panels.Nibbles(block + 2 + 8 * (o & 1), 4 * (o >> 1));
            }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>
    {
        var scale = LanesMath.FromHalf(T.LoadHalves(head + 32 * group));
        offset = scale * T.Broadcast(-8);
        return scale;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> =>
        Panels.Nibble(group + 64 * octet, j, scale, offset);
}

/// <summary>Q4_1: f16 scales and minimums; eight columns to a lane.</summary>
internal readonly unsafe partial struct FormQ4_1 : IForm
{
    public static int Group => 32;

    public static int GroupBytes => 256;

    public static int HeadBytes(int groups) => 64 * groups;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        var elements = (uint*)(chunk + HeadBytes(columns / 32));
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
            for (var g = 0; g < columns / 32; g++)
            {
                var block = rows[r] + 20 * g;
                ((ushort*)chunk)[32 * g + r] = *(ushort*)block;
                ((ushort*)chunk)[32 * g + 16 + r] = *(ushort*)(block + 2);
                for (var o = 0; o < 4; o++)
                    elements[16 * (4 * g + o) + r] = Panels.Nibbles(block + 4 + 8 * (o & 1), 4 * (o >> 1));
            }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>
    {
        offset = LanesMath.FromHalf(T.LoadHalves(head + 64 * group + 32));
        return LanesMath.FromHalf(T.LoadHalves(head + 64 * group));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> =>
        Panels.Nibble(group + 64 * octet, j, scale, offset);
}

/// <summary>Q4_K: the super-block's scale and minimum as floats, the sub-blocks' as bytes; eight columns to a lane.</summary>
internal readonly unsafe partial struct FormQ4_K : IForm
{
    public static int Group => 32;

    public static int GroupBytes => 256;

    public static int HeadBytes(int groups) => 128 + 32 * groups;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        var elements = (uint*)(chunk + HeadBytes(8));
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
        {
            var block = rows[r];
            ((float*)chunk)[r] = (float)*(Half*)block;
            ((float*)chunk)[16 + r] = -(float)*(Half*)(block + 2);
            for (var g = 0; g < 8; g++)
            {
                var (scale, min) = Blocks.SixBits(new ReadOnlySpan<byte>(block + 4, 12), g);
                chunk[128 + 32 * g + r] = (byte)scale;
                chunk[128 + 32 * g + 16 + r] = (byte)min;
                for (var o = 0; o < 4; o++)
                    elements[16 * (4 * g + o) + r] = Panels.Nibbles(block + 16 + 32 * (g >> 1) + 8 * o, 4 * (g & 1));
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>
    {
        offset = T.Load(head + 64) * T.ToFloat(T.LoadBytes(head + 128 + 32 * group + 16));
        return T.Load(head) * T.ToFloat(T.LoadBytes(head + 128 + 32 * group));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T> =>
        Panels.Nibble(group + 64 * octet, j, scale, offset);
}

/// <summary>Q6_K: the super-block's scale as float, the sub-blocks' as bytes moved to 0 … 255; low four bits as eight columns to a lane, upper two as sixteen.</summary>
internal readonly unsafe partial struct FormQ6_K : IForm
{
    public static int Group => 16;

    public static int GroupBytes => 192;

    public static int HeadBytes(int groups) => 64 + 16 * groups;

    public static void Pack(byte** rows, int columns, byte* chunk)
    {
        for (var r = 0; r < Panels.Rows && rows[r] is not null; r++)
        {
            var block = rows[r];
            ((float*)chunk)[r] = (float)*(Half*)(block + 208);
            for (var g = 0; g < 16; g++)
            {
                int half = g / 8, quarter = g % 8 / 2, at = g % 2 * 16;
                chunk[64 + 16 * g + r] = (byte)(block[192 + g] ^ 0x80);
                var group = (uint*)(chunk + HeadBytes(16) + 192 * g);
                var low = block + 64 * half + 32 * (quarter & 1) + at;
                group[r] = Panels.Nibbles(low, 4 * (quarter >> 1));
                group[16 + r] = Panels.Nibbles(low + 8, 4 * (quarter >> 1));
                uint bits = 0;
                for (var i = 0; i < 4; i++)
                    bits |= (((uint*)(block + 128 + 32 * half + at))[i] >> 2 * quarter & 0x03030303) << 2 * i;
                group[32 + r] = bits;
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Scale<T>(byte* head, int group, out T offset) where T : struct, ILanes<T>
    {
        var scale = T.Load(head) * (T.ToFloat(T.LoadBytes(head + 64 + 16 * group)) - T.Broadcast(128));
        offset = scale * T.Broadcast(-32);
        return scale;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Element<T>(byte* group, int octet, int j, T scale, T offset) where T : struct, ILanes<T>
    {
        var low = T.Load(group + 64 * octet);
        var high = T.ShiftRight(T.Load(group + 128), 4 * octet);
        var packed = j < 4
            ? low & T.BroadcastBits(0x0F0F0F0F) | T.ShiftLeft(high, 4) & T.BroadcastBits(0x30303030)
            : T.ShiftRight(low, 4) & T.BroadcastBits(0x0F0F0F0F) | T.ShiftLeft(high, 2) & T.BroadcastBits(0x30303030);
        return T.MultiplyAdd(T.Byte(packed, j & 3), scale, offset);
    }
}

/// <summary>What all forms of panels share.</summary>
internal static unsafe class Panels
{
    /// <summary>Rows of a panel: SIMD lanes.</summary>
    public const int Rows = 16;

    /// <summary>Columns of a chunk: sums are carried this far before they are added to the total.</summary>
    public const int Chunk = 256;

    /// <summary>Bytes rounded up to a cache line.</summary>
    public static int Align(int bytes) => bytes + 63 & ~63;

    /// <summary>Bytes of a chunk of some columns.</summary>
    public static int ChunkBytes<TForm>(int columns) where TForm : struct, IForm
    {
        var groups = (columns + TForm.Group - 1) / TForm.Group;
        return groups == 0 ? 0 : TForm.HeadBytes(groups) + groups * TForm.GroupBytes;
    }

    /// <summary>Bytes of a panel.</summary>
    public static long Bytes<TForm>(int columns) where TForm : struct, IForm =>
        (long)(columns / Chunk) * ChunkBytes<TForm>(Chunk) + ChunkBytes<TForm>(columns % Chunk);

    /// <summary>Four bits at <paramref name="shift"/> of eight bytes as one lane: of byte i of the lane, the low half is column i, the high half column 4 + i.</summary>
    public static uint Nibbles(byte* source, int shift) =>
        ((uint*)source)[0] >> shift & 0x0F0F0F0F | (((uint*)source)[1] >> shift & 0x0F0F0F0F) << 4;

    /// <summary>Column j of such a lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Nibble<T>(byte* source, int j, T scale, T offset) where T : struct, ILanes<T> =>
        T.MultiplyAdd(T.Nibble(T.Load(source), 8 * (j & 3) + 4 * (j >> 2)), scale, offset);
}
