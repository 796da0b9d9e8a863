using System.Diagnostics;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Kernels;

/// <summary>What a product's factors are.</summary>
public enum Arithmetic
{
    /// <summary>float32.</summary>
    F32,
    /// <summary>bfloat16, summed in float32.</summary>
    BF16,
    /// <summary>Bytes, summed in int32.</summary>
    Int8,
}

/// <summary>
/// What this machine can do at most, measured: the two axes of a roofline (Williams, Waterman, Patterson, CACM 52(4), 2009). Memory is
/// read as the STREAM benchmark counts it (bytes asked for, no caches), arithmetic is what the fastest instructions that the kernels use give out
/// of registers, a multiply-add counting as two operations. Caches lie above these figures, so that a kernel can come out at more than all of a roofline.
/// </summary>
/// <param name="ReadBytesPerSecond">Memory read by all threads, each its own part of a buffer larger than the last-level cache.</param>
/// <param name="FloatOpsPerSecond">float32 fused multiply-adds, two operations a lane.</param>
/// <param name="BF16OpsPerSecond">Products of BF16 summed into float32, two operations a product; those of floats where there is no instruction for it.</param>
/// <param name="Int8OpsPerSecond">Products of unsigned and signed bytes summed into int32, two operations a product.</param>
/// <param name="Threads">Threads that took part.</param>
/// <param name="FloatInstruction">What gave <paramref name="FloatOpsPerSecond"/>.</param>
/// <param name="BF16Instruction">What gave <paramref name="BF16OpsPerSecond"/>.</param>
/// <param name="Int8Instruction">What gave <paramref name="Int8OpsPerSecond"/>.</param>
public sealed record Roofline(
    double ReadBytesPerSecond, double FloatOpsPerSecond, double BF16OpsPerSecond, double Int8OpsPerSecond, int Threads,
    string FloatInstruction, string BF16Instruction, string Int8Instruction)
{
    private const long LeastBuffer = 256L << 20, MostBuffer = 2L << 30;

    /// <summary>Parts of the buffer that a pass reads one of: short enough to find a moment in which nothing else runs.</summary>
    private const int Parts = 16;

    /// <summary>Measures, best pass of each: about a second with the default time.</summary>
    /// <param name="threads">Threads; 0 for one a processor.</param>
    /// <param name="time">How long each of the four is measured, null for 0.3 seconds.</param>
    /// <exception cref="OutOfMemoryException">There is no room for a buffer larger than the last-level cache.</exception>
    public static Roofline Measure(int threads = 0, TimeSpan? time = null)
    {
        var each = time ?? TimeSpan.FromSeconds(0.3);
        using var pool = new WorkerPool(threads);
        var read = Read(pool, each);
        var (floats, floatName) = Best(pool, each, RooflineKernels.Float());
        var (halves, halvesName) = Best(pool, each, RooflineKernels.BF16());
        var (bytes, bytesName) = Best(pool, each, RooflineKernels.Int8());
        return new(read, floats, halves, bytes, pool.Threads, floatName, halvesName, bytesName);
    }

    /// <summary>The least time in seconds that reading and computing take here: the longer of the two, as they overlap.</summary>
    /// <param name="bytes">Bytes that come from memory.</param>
    /// <param name="operations">Arithmetic operations, a multiply-add counting as two.</param>
    /// <param name="arithmetic">What is multiplied.</param>
    public double Seconds(double bytes, double operations, Arithmetic arithmetic)
        => Math.Max(bytes / ReadBytesPerSecond, operations / Math.Max(FloatOpsPerSecond,
            arithmetic switch { Arithmetic.Int8 => Int8OpsPerSecond, Arithmetic.BF16 => BF16OpsPerSecond, _ => 0 }));

    private static unsafe double Read(WorkerPool pool, TimeSpan time)
    {
        var size = Math.Clamp(4 * LastLevelCache(), LeastBuffer, MostBuffer) / (Parts * pool.Threads) / 4096 * 4096 * (Parts * pool.Threads);
        using var storage = new CpuStorage(size);
        // Pages that were never written are all one page of zeros, which the cache holds; each thread writes what it will read.
        pool.Run(pool.Threads, new Touch(storage.Pointer, size / pool.Threads));
        var part = 0;
        return Fastest(time, () =>
        {
            // The same part comes back when all others have been through the cache.
            part = (part + 1) % Parts;
            var share = size / pool.Threads;
            pool.Run(pool.Threads, new RooflineKernels.Read(storage.Pointer + part * (share / Parts), share, share / Parts));
            return size / Parts;
        });
    }

    /// <summary>The fastest of several kernels for the same thing; wider is not always faster.</summary>
    private static (double PerSecond, string Name) Best(WorkerPool pool, TimeSpan time, IReadOnlyList<(string Name, Func<WorkerPool, long> Run)> kernels)
        => kernels.Select(kernel => (Fastest(time / kernels.Count, () => kernel.Run(pool)), kernel.Name)).Max();

    /// <summary>Amount a second of the fastest pass. The first does not count: it pays for compilation and sleeping threads.</summary>
    private static double Fastest(TimeSpan time, Func<long> pass)
    {
        pass();
        var best = 0.0;
        var start = Stopwatch.GetTimestamp();
        do
        {
            var begin = Stopwatch.GetTimestamp();
            var amount = pass();
            best = Math.Max(best, amount / Stopwatch.GetElapsedTime(begin).TotalSeconds);
        }
        while (Stopwatch.GetElapsedTime(start) < time);
        return best;
    }

    /// <summary>Bytes of the largest cache that the system tells of, or 0.</summary>
    private static long LastLevelCache()
    {
        var largest = 0L;
        for (var index = 0; index < 8; index++)
        {
            var file = $"/sys/devices/system/cpu/cpu0/cache/index{index}/size";
            if (!File.Exists(file))
                continue;
            var text = File.ReadAllText(file).Trim();
            var unit = text.EndsWith('K') ? 1L << 10 : text.EndsWith('M') ? 1L << 20 : 1;
            if (long.TryParse(text.TrimEnd('K', 'M'), out var size))
                largest = Math.Max(largest, Math.Min(size, MostBuffer / unit) * unit);
        }
        return largest;
    }

    private readonly unsafe struct Touch(byte* data, long share) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var at = first * share; at < end * share; at += 1 << 20)
                new Span<byte>(data + at, (int)Math.Min(1 << 20, end * share - at)).Fill(1);
        }
    }
}
