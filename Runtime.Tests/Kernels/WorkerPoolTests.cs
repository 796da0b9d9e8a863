using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

public class WorkerPoolTests
{
    private struct Mark(int[] counts, int[] workers) : IWork
    {
        public readonly void Run(int first, int end, int worker)
        {
            for (var i = first; i < end; i++)
            {
                Interlocked.Increment(ref counts[i]);
                workers[i] = worker;
            }
        }
    }

    private struct Call(Action<int, int, int> action) : IWork
    {
        public readonly void Run(int first, int end, int worker) => action(first, end, worker);
    }

    [Test]
    public void Every_item_is_done_once_in_contiguous_ranges([Values(1, 2, 3, 5)] int threads)
    {
        using var pool = new WorkerPool(threads);
        Assert.That(pool.Threads, Is.EqualTo(threads));
        foreach (var items in (int[])[0, 1, 2, 3, 4, 7, 8, 100, 1001])
            foreach (var grain in (int[])[1, 3, 50, 5000])
            {
                var (counts, workers) = (new int[items], new int[items]);
                pool.Run(items, new Mark(counts, workers), grain);
                Assert.That(counts, Is.All.EqualTo(1));
                Assert.That(workers, Is.Ordered, "ranges go to workers in order");
                var sizes = workers.CountBy(w => w).Select(p => p.Value).ToArray();
                if (sizes.Length > 0)
                    Assert.That(sizes.Max() - sizes.Min(), Is.LessThanOrEqualTo(1));
                if (sizes.Length > 1)
                    Assert.That(sizes.Min(), Is.GreaterThanOrEqualTo(grain));
            }
    }

    [Test]
    public void Shared_items_are_done_once([Values(1, 2, 3, 5)] int threads, [Values(1, 4, 2000, int.MaxValue)] int chunk)
    {
        using var pool = new WorkerPool(threads);
        foreach (var items in (int[])[0, 1, 2, 7, 100, 1001])
        {
            var counts = new int[items];
            pool.Share(items, new Mark(counts, new int[items]), chunk);
            Assert.That(counts, Is.All.EqualTo(1));
        }
    }

    [Test]
    public void Many_short_runs_with_pauses_lose_nothing()
    {
        using var pool = new WorkerPool(4);
        var counts = new int[64];
        var workers = new int[64];
        for (var i = 0; i < 4000; i++)
        {
            pool.Run(1 + i % 64, new Mark(counts, workers));
            // Some pauses end while the workers spin, some after they have gone to sleep, some between.
            if (i % 50 == 0)
                Thread.Sleep(1);
            else if (i % 7 == 0)
                Thread.SpinWait(i % 3000);
        }
        Assert.That(counts.Sum(), Is.EqualTo(Enumerable.Range(0, 4000).Sum(i => 1 + i % 64)));
    }

    [Test]
    public void An_exception_of_any_worker_reaches_the_caller_and_the_pool_lives_on([Values(0, 1, 2)] int failing, [Values] bool share)
    {
        using var pool = new WorkerPool(3);
        var work = new Call((first, end, worker) =>
        {
            for (var i = first; i < end; i++)
                if (i == failing)
                    throw new InvalidDataException($"item {i}");
        });
        for (var i = 0; i < 20; i++)
            Assert.That(() => { if (share) pool.Share(3, work); else pool.Run(3, work); },
                Throws.TypeOf<InvalidDataException>().With.Message.EqualTo($"item {failing}"));
        var counts = new int[9];
        pool.Run(9, new Mark(counts, new int[9]));
        Assert.That(counts, Is.All.EqualTo(1));
    }

    [Test]
    public void A_run_inside_a_run_is_done_on_the_spot_under_the_same_number()
    {
        using var pool = new WorkerPool(3);
        var count = 0;
        pool.Run(3, new Call((first, end, worker) => pool.Share(10, new Call((f, e, inner) =>
        {
            Assert.That((f, e, inner), Is.EqualTo((0, 10, worker)));
            Interlocked.Add(ref count, e - f);
        }))));
        Assert.That(count, Is.EqualTo(30));
    }

    [Test]
    public void Runs_of_several_threads_take_turns()
    {
        using var pool = new WorkerPool(3);
        var inside = new int[3];
        var total = 0;
        var callers = Enumerable.Range(0, 6).Select(c => new Thread(() =>
        {
            for (var i = 0; i < 300; i++)
                pool.Run(1 + (c + i) % 5, new Call((first, end, worker) =>
                {
                    // A worker's number, and so its scratch, is one thread's at a time.
                    if (Interlocked.Increment(ref inside[worker]) != 1)
                        Interlocked.Add(ref total, 1_000_000);
                    Interlocked.Add(ref total, end - first);
                    Interlocked.Decrement(ref inside[worker]);
                }));
        })).ToArray();
        foreach (var caller in callers)
            caller.Start();
        foreach (var caller in callers)
            caller.Join();
        Assert.That(total, Is.EqualTo(Enumerable.Range(0, 6).Sum(c => Enumerable.Range(0, 300).Sum(i => 1 + (c + i) % 5))));
    }

    private struct Count(long[] bytes) : IWork
    {
        public readonly void Run(int first, int end, int worker) => bytes[worker] = GC.GetAllocatedBytesForCurrentThread();
    }

    [Test]
    public void Runs_allocate_nothing_in_any_worker()
    {
        using var pool = new WorkerPool(3);
        var bytes = new long[3];
        var warm = new long[3];
        for (var i = 0; i < 1000; i++)
        {
            if (i == 10)
                bytes.CopyTo(warm, 0);
            pool.Run(30, new Count(bytes));
            pool.Share(30, new Count(bytes), 30);
            if (i % 100 == 0)
                Thread.Sleep(1);
        }
        Assert.That(bytes, Is.EqualTo(warm));
    }

    [Test]
    public void Idle_workers_sleep()
    {
        using var pool = new WorkerPool(4);
        pool.Run(4, new Mark(new int[4], new int[4]));
        Thread.Sleep(50);
        var threads = (Thread[])[.. pool.Workers];
        Assert.That(threads, Has.Length.EqualTo(3));
        Assert.That(threads.Select(t => t.ThreadState), Is.All.EqualTo(ThreadState.Background | ThreadState.WaitSleepJoin));
        Assert.That(threads.Select(t => t.Name), Is.EqualTo((string[])["Trimtab worker 1", "Trimtab worker 2", "Trimtab worker 3"]));
    }

    [Test]
    public void Disposal_ends_the_threads_and_later_runs_are_refused()
    {
        var pool = new WorkerPool(3);
        var threads = (Thread[])[.. pool.Workers];
        pool.Run(1, new Call((_, _, _) => Assert.That(pool.Dispose, Throws.InvalidOperationException)));
        pool.Dispose();
        pool.Dispose();
        Assert.That(threads.Select(t => t.IsAlive), Is.All.False);
        Assert.That(() => pool.Run(3, new Mark(new int[3], new int[3])), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public unsafe void Scratch_is_aligned_and_each_workers_own()
    {
        using var pool = new WorkerPool(2);
        byte* first = pool.Scratch(0, 100), second = pool.Scratch(1, 100);
        Assert.That((first != second, (nuint)first % 64, (nuint)second % 64), Is.EqualTo((true, (nuint)0, (nuint)0)));
        Assert.That(pool.Scratch(0, 50) == first);
        new Span<byte>(pool.Scratch(0, 100_000), 100_000).Fill(1);
    }
}
