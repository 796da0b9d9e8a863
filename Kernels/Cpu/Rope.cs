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
    public float* Keys;
    public float* Values;
    public int* StoreRow;
    public int CacheRows;

    public readonly void Run(int first, int end, int worker)
    {
        int dimension = Heads.Dimension, width = Heads.KeyValue * dimension;
        for (var t = first; t < end; t++)
        {
            var row = Contract.Index(nameof(Device.RopeStore), "store row", StoreRow[t], CacheRows);
            var angles = Rotary + (long)t * Rotated;
            var query = Qkv + (long)t * Heads.Columns;
            for (var h = 0; h < Heads.Query; h++)
                Rotate(query + (long)h * dimension, query + (long)h * dimension, angles, Rotated / 2);
            var source = query + (long)Heads.Query * dimension;
            var target = Keys + (long)row * width;
            for (var h = 0; h < Heads.KeyValue; h++)
            {
                Rotate(target + h * dimension, source + h * dimension, angles, Rotated / 2);
                new ReadOnlySpan<float>(source + h * dimension + Rotated, dimension - Rotated)
                    .CopyTo(new Span<float>(target + h * dimension + Rotated, dimension - Rotated));
            }
            new ReadOnlySpan<float>(source + width, width).CopyTo(new Span<float>(Values + (long)row * width, width));
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
