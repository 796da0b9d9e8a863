using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>
/// Loops that do nothing but read memory, or multiply and add in registers, as fast as the processor goes. Eight to twelve sums side by
/// side hide the latency of a multiply-add (4 to 5 cycles, two ports) and fit the registers beside the operands. Each multiply-add takes its own
/// last result as an operand, or loads one, so that no compiler can take it out of the loop.
/// </summary>
internal static unsafe class RooflineKernels
{
    private const int Rounds = 20_000; // some tens of microseconds: far above the price of starting the pool

    /// <summary>The float kernels that this machine has.</summary>
    public static IReadOnlyList<(string Name, Func<WorkerPool, long> Run)> Float()
    {
        var kernels = new List<(string, Func<WorkerPool, long>)>();
        if (Lanes512.IsSupported)
            kernels.Add(("512-bit FMA", pool => Floats<Lanes512>(pool)));
        if (Lanes256.IsSupported)
            kernels.Add(("256-bit FMA", pool => Floats<Lanes256>(pool)));
        if (kernels.Count == 0)
            kernels.Add(("128-bit multiply-add", pool => Floats<Lanes128>(pool)));
        return kernels;
    }

    /// <summary>The int8 kernels that this machine has.</summary>
    public static IReadOnlyList<(string Name, Func<WorkerPool, long> Run)> Int8()
    {
        var kernels = new List<(string, Func<WorkerPool, long>)>();
        if (EmittedDot.Instance is not null)
            kernels.Add(("512-bit vpdpbusd", pool => Bytes(pool, new Emitted(false), EmittedDot.PeakSums * 64)));
        if (AvxVnni.IsSupported)
            kernels.Add(("256-bit vpdpbusd", pool => Bytes(pool, new Vnni256(), 12 * 32)));
        if (Avx512BW.IsSupported)
            kernels.Add(("512-bit vpmaddubsw + vpmaddwd", pool => Bytes(pool, new Maddubs512(), 12 * 64)));
        if (Avx2.IsSupported)
            kernels.Add(("256-bit vpmaddubsw + vpmaddwd", pool => Bytes(pool, new Maddubs256(), 8 * 32)));
        if (kernels.Count == 0)
            kernels.Add(("128-bit widening multiply", pool => Bytes(pool, new Portable(), 4 * 16)));
        return kernels;
    }

    /// <summary>The kernels for products of BF16 that this machine has; without any, BF16 is made into floats.</summary>
    public static IReadOnlyList<(string Name, Func<WorkerPool, long> Run)> BF16()
        => EmittedDot.Instance?.HasBF16 == true ? [("512-bit vdpbf16ps", pool => Bytes(pool, new Emitted(true), EmittedDot.PeakSums * 32))] : Float();

    private static long Floats<T>(WorkerPool pool) where T : struct, ILanes<T>
    {
        pool.Run(pool.Threads, new Multiply<T>());
        return 2L * Multiply<T>.Sums * 16 * Rounds * pool.Threads;
    }

    private static long Bytes<TWork>(WorkerPool pool, TWork work, int products) where TWork : struct, IWork
    {
        pool.Run(pool.Threads, work);
        return 2L * products * Rounds * pool.Threads;
    }

    private readonly struct Emitted(bool bf16) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var item = first; item < end; item++)
                EmittedDot.Instance!.Peak(bf16, Rounds);
        }
    }

    /// <summary>Reads some bytes at the same place of each worker's share of memory.</summary>
    public readonly struct Read(byte* data, long share, long bytes) : IWork
    {
        public void Run(int first, int end, int worker)
        {
            for (var item = first; item < end; item++)
            {
                var p = data + item * share;
                if (Vector512.IsHardwareAccelerated)
                    Wide(p, p + bytes);
                else
                    Narrow(p, p + bytes);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Wide(byte* p, byte* end)
        {
            Vector512<int> a = default, b = default, c = default, d = default;
            for (; p + 256 <= end; p += 256)
            {
                a |= Vector512.Load((int*)p);
                b |= Vector512.Load((int*)(p + 64));
                c |= Vector512.Load((int*)(p + 128));
                d |= Vector512.Load((int*)(p + 192));
            }
            Keep(Vector512.Sum(a | b | c | d));
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Narrow(byte* p, byte* end)
        {
            Vector256<int> a = default, b = default, c = default, d = default;
            for (; p + 128 <= end; p += 128)
            {
                a |= Vector256.Load((int*)p);
                b |= Vector256.Load((int*)(p + 32));
                c |= Vector256.Load((int*)(p + 64));
                d |= Vector256.Load((int*)(p + 96));
            }
            Keep(Vector256.Sum(a | b | c | d));
        }
    }

    /// <summary>s := s · m + n in as many sums of sixteen lanes as the registers hold: twelve registers of 512 bits, ten of 256, eight of 128.</summary>
    private readonly struct Multiply<T> : IWork where T : struct, ILanes<T>
    {
        /// <summary>Sums that go on side by side.</summary>
        public static int Sums => T.IsWide ? 12 : typeof(T) == typeof(Lanes256) ? 5 : 2;

        public void Run(int first, int end, int worker)
        {
            for (var item = first; item < end; item++)
            {
                if (Sums == 12)
                    Twelve();
                else if (Sums == 5)
                    Five();
                else
                    Two();
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Twelve()
        {
            T m = T.Broadcast(0.5f), n = T.Broadcast(1);
            T a = n, b = n, c = n, d = n, e = n, f = n, g = n, h = n, i = n, j = n, k = n, l = n;
            for (var round = 0; round < Rounds; round++)
            {
                a = T.MultiplyAdd(a, m, n);
                b = T.MultiplyAdd(b, m, n);
                c = T.MultiplyAdd(c, m, n);
                d = T.MultiplyAdd(d, m, n);
                e = T.MultiplyAdd(e, m, n);
                f = T.MultiplyAdd(f, m, n);
                g = T.MultiplyAdd(g, m, n);
                h = T.MultiplyAdd(h, m, n);
                i = T.MultiplyAdd(i, m, n);
                j = T.MultiplyAdd(j, m, n);
                k = T.MultiplyAdd(k, m, n);
                l = T.MultiplyAdd(l, m, n);
            }
            Keep(((a + b) + (c + d)) + ((e + f) + (g + h)) + ((i + j) + (k + l)));
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Five()
        {
            T m = T.Broadcast(0.5f), n = T.Broadcast(1), a = n, b = n, c = n, d = n, e = n;
            for (var round = 0; round < Rounds; round++)
            {
                a = T.MultiplyAdd(a, m, n);
                b = T.MultiplyAdd(b, m, n);
                c = T.MultiplyAdd(c, m, n);
                d = T.MultiplyAdd(d, m, n);
                e = T.MultiplyAdd(e, m, n);
            }
            Keep(a + b + (c + d) + e);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Two()
        {
            T m = T.Broadcast(0.5f), n = T.Broadcast(1), a = n, b = n;
            for (var round = 0; round < Rounds; round++)
            {
                a = T.MultiplyAdd(a, m, n);
                b = T.MultiplyAdd(b, m, n);
            }
            Keep(a + b);
        }

        private static void Keep(T sum)
        {
            var lanes = stackalloc float[16];
            T.Store(sum, lanes);
            RooflineKernels.Keep((int)*lanes);
        }
    }

    private readonly struct Vnni256 : IWork
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run(int first, int end, int worker)
        {
            var x = Vector256.Create((byte)1);
            var y = Vector256.Create((sbyte)1);
            for (var item = first; item < end; item++)
            {
                Vector256<int> a = default, b = default, c = default, d = default, e = default, f = default;
                Vector256<int> g = default, h = default, i = default, j = default, k = default, l = default;
                for (var round = 0; round < Rounds; round++)
                {
                    a = AvxVnni.MultiplyWideningAndAdd(a, x, y);
                    b = AvxVnni.MultiplyWideningAndAdd(b, x, y);
                    c = AvxVnni.MultiplyWideningAndAdd(c, x, y);
                    d = AvxVnni.MultiplyWideningAndAdd(d, x, y);
                    e = AvxVnni.MultiplyWideningAndAdd(e, x, y);
                    f = AvxVnni.MultiplyWideningAndAdd(f, x, y);
                    g = AvxVnni.MultiplyWideningAndAdd(g, x, y);
                    h = AvxVnni.MultiplyWideningAndAdd(h, x, y);
                    i = AvxVnni.MultiplyWideningAndAdd(i, x, y);
                    j = AvxVnni.MultiplyWideningAndAdd(j, x, y);
                    k = AvxVnni.MultiplyWideningAndAdd(k, x, y);
                    l = AvxVnni.MultiplyWideningAndAdd(l, x, y);
                }
                Keep(Vector256.Sum(a + b + c + d + e + f + g + h + i + j + k + l));
            }
        }
    }

    // The weights are loaded, from the nearest cache: loads have ports of their own.
    private readonly struct Maddubs512 : IWork
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run(int first, int end, int worker)
        {
            var data = stackalloc byte[1024 + 12 * 64];
            new Span<byte>(data, 1024 + 12 * 64).Fill(1);
            var (y, one) = (Vector512.Create((sbyte)1), Vector512.Create((short)1));
            for (var item = first; item < end; item++)
            {
                Vector512<int> a = default, b = default, c = default, d = default, e = default, f = default;
                Vector512<int> g = default, h = default, i = default, j = default, k = default, l = default;
                for (var round = 0; round < Rounds; round++)
                {
                    var p = data + (round & 15) * 64;
                    a += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p), y), one);
                    b += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 64), y), one);
                    c += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 128), y), one);
                    d += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 192), y), one);
                    e += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 256), y), one);
                    f += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 320), y), one);
                    g += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 384), y), one);
                    h += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 448), y), one);
                    i += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 512), y), one);
                    j += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 576), y), one);
                    k += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 640), y), one);
                    l += Avx512BW.MultiplyAddAdjacent(Avx512BW.MultiplyAddAdjacent(Vector512.Load(p + 704), y), one);
                }
                Keep(Vector512.Sum(a + b + c + d + e + f + g + h + i + j + k + l));
            }
        }
    }

    private readonly struct Maddubs256 : IWork
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run(int first, int end, int worker)
        {
            var data = stackalloc byte[512 + 8 * 32];
            new Span<byte>(data, 512 + 8 * 32).Fill(1);
            var (y, one) = (Vector256.Create((sbyte)1), Vector256.Create((short)1));
            for (var item = first; item < end; item++)
            {
                Vector256<int> a = default, b = default, c = default, d = default, e = default, f = default, g = default, h = default;
                for (var round = 0; round < Rounds; round++)
                {
                    var p = data + (round & 15) * 32;
                    a += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p), y), one);
                    b += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 32), y), one);
                    c += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 64), y), one);
                    d += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 96), y), one);
                    e += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 128), y), one);
                    f += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 160), y), one);
                    g += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 192), y), one);
                    h += Avx2.MultiplyAddAdjacent(Avx2.MultiplyAddAdjacent(Vector256.Load(p + 224), y), one);
                }
                Keep(Vector256.Sum(a + b + c + d + e + f + g + h));
            }
        }
    }

    private readonly struct Portable : IWork
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run(int first, int end, int worker)
        {
            var data = stackalloc sbyte[256 + 64];
            new Span<sbyte>(data, 256 + 64).Fill(1);
            var y = Vector128.Create((short)1);
            for (var item = first; item < end; item++)
            {
                Vector128<int> a = default, b = default, c = default, d = default;
                for (var round = 0; round < Rounds; round++)
                {
                    var p = data + (round & 15) * 16;
                    a += Dot(Vector128.Load(p), y);
                    b += Dot(Vector128.Load(p + 16), y);
                    c += Dot(Vector128.Load(p + 32), y);
                    d += Dot(Vector128.Load(p + 48), y);
                }
                Keep(Vector128.Sum(a + b + c + d));
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static Vector128<int> Dot(Vector128<sbyte> x, Vector128<short> y)
        {
            var (low, high) = Vector128.Widen(x);
            var ((a, b), (c, d)) = (Vector128.Widen(low * y), Vector128.Widen(high * y));
            return a + b + (c + d);
        }
    }

    /// <summary>Lets nothing that was computed count as unused.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Keep(int value) => sink = value;

    private static volatile int sink;
}
