using System.Numerics;
using System.Runtime.CompilerServices;

namespace Trimtab.Kernels.Cpu;

/// <summary>Rotary positions (arXiv 2104.09864, pairs (i, i + R/2) as in GPT-NeoX and Hugging Face) and the store to the cache.</summary>
internal unsafe struct RopeWork : IWork
{
    public Heads Heads;

    /// <summary>Rotary columns R.</summary>
    public int Rotated;
    public float* Qkv;
    public float* Rotary;

    /// <summary>Of keys and values.</summary>
    public DType Type;
    public byte* Keys;
    public byte* Values;

    /// <summary>Of U8 keys and values: [CacheRows, 2 · key heads].</summary>
    public float* Scales;
    public int* StoreRow;
    public int CacheRows;

    /// <summary>[Dimension] each, or null.</summary>
    public float* QueryNorm, KeyNorm;

    /// <summary>Columns of a head that a rounded cache takes: what lies on a stack meanwhile.</summary>
    public const int MostDimension = 1024;

    public readonly void Run(int first, int end, int worker)
    {
        int dimension = Heads.Dimension, width = Heads.KeyValue * dimension;
        if (Type != DType.F32 && dimension > MostDimension)
            throw new NotSupportedException($"{nameof(Device.RopeStore)}: heads of {dimension} in a {Type} cache; at most {MostDimension}");
        for (var t = first; t < end; t++)
        {
            var row = Contract.Index(nameof(Device.RopeStore), "store row", StoreRow[t], CacheRows);
            var angles = Rotary + (long)t * Rotated;
            var query = Qkv + (long)t * Heads.Columns;
            for (var h = 0; QueryNorm != null && h < Heads.Query + Heads.KeyValue; h++)
                Norm(query + (long)h * dimension, h < Heads.Query ? QueryNorm : KeyNorm);
            for (var h = 0; h < Heads.Query; h++)
                Rotate(query + (long)h * dimension, query + (long)h * dimension, angles, Rotated / 2);
            var source = query + (long)Heads.Query * dimension;
            if (Type == DType.F32)
                Store(source, (float*)Keys + (long)row * width, (float*)Values + (long)row * width, angles);
            else
                StoreSmall(source, (long)row, angles);
        }
    }

    private readonly void Norm(float* head, float* weight)
    {
        var row = new NormRow { Columns = Heads.Dimension, X = head };
        if (Lanes512.IsSupported)
            row.Run<Lanes512>(head, weight, null, Heads.NormEpsilon, false);
        else if (Lanes256.IsSupported)
            row.Run<Lanes256>(head, weight, null, Heads.NormEpsilon, false);
        else
            row.Run<Lanes128>(head, weight, null, Heads.NormEpsilon, false);
    }

    private readonly void Store(float* source, float* keys, float* values, float* angles)
    {
        int dimension = Heads.Dimension, width = Heads.KeyValue * dimension;
        for (var h = 0; h < Heads.KeyValue; h++)
        {
            Rotate(keys + h * dimension, source + h * dimension, angles, Rotated / 2);
            new ReadOnlySpan<float>(source + h * dimension + Rotated, dimension - Rotated)
                .CopyTo(new Span<float>(keys + h * dimension + Rotated, dimension - Rotated));
        }
        new ReadOnlySpan<float>(source + width, width).CopyTo(new Span<float>(values, width));
    }

    private readonly void StoreSmall(float* source, long row, float* angles)
    {
        int dimension = Heads.Dimension, width = Heads.KeyValue * dimension, size = Type.BlockBytes();
        var key = stackalloc float[MostDimension];
        for (var h = 0; h < Heads.KeyValue; h++)
        {
            Rotate(key, source + h * dimension, angles, Rotated / 2);
            new ReadOnlySpan<float>(source + h * dimension + Rotated, dimension - Rotated).CopyTo(new Span<float>(key + Rotated, dimension - Rotated));
            var at = (row * width + h * dimension) * size;
            float* value = source + width + h * dimension, scale = Scales + row * 2 * Heads.KeyValue + h;
            if (Lanes512.IsSupported)
                Round<Lanes512>(key, value, at, scale);
            else if (Lanes256.IsSupported)
                Round<Lanes256>(key, value, at, scale);
            else
                Round<Lanes128>(key, value, at, scale);
        }
    }

    private readonly void Round<T>(float* key, float* value, long at, float* scale) where T : struct, ILanes<T>
    {
        if (Type == DType.BF16)
        {
            KvRounding.ToBFloat16(key, (ushort*)(Keys + at), Heads.Dimension);
            KvRounding.ToBFloat16(value, (ushort*)(Values + at), Heads.Dimension);
        }
        else
        {
            *scale = KvRounding.ToBytes<T>(key, Keys + at, Heads.Dimension);
            scale[Heads.KeyValue] = KvRounding.ToBytes<T>(value, Values + at, Heads.Dimension);
        }
    }

    /// <summary>Each product is rounded, as in the models' own code, so vector and scalar part agree bit for bit.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Rotate(float* target, float* source, float* angles, int half)
    {
        var i = 0;
        for (; i <= half - Vector<float>.Count; i += Vector<float>.Count)
        {
            Vector<float> x = Vector.Load(source + i), y = Vector.Load(source + half + i);
            Vector<float> cos = Vector.Load(angles + i), sin = Vector.Load(angles + half + i);
            (x * cos - y * sin).Store(target + i);
            (y * cos + x * sin).Store(target + half + i);
        }
        for (; i < half; i++)
        {
            float x = source[i], y = source[half + i];
            target[i] = x * angles[i] - y * angles[half + i];
            target[half + i] = y * angles[i] + x * angles[half + i];
        }
    }
}
