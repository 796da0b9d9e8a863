using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Trimtab.Kernels.Cpu;

/// <summary>Work that a <see cref="WorkerPool"/> divides: items [first, end) go to one worker.</summary>
internal interface IWork
{
    /// <summary>Does items [first, end). Other ranges run at the same time, each under another worker's number.</summary>
    void Run(int first, int end, int worker);
}

/// <summary>
/// A fixed set of threads that runs divided work. The calling thread is worker 0. A run allocates nothing and, while the
/// workers are awake, takes no lock: each worker spins on a cache line of its own for a moment, then sleeps.
/// Runs of several threads take turns; a run from inside a run does all its items on the spot.
/// </summary>
internal sealed unsafe class WorkerPool : IDisposable
{
    // Ops of a decode step follow each other within microseconds; longer pauses should give the core to somebody else.
    private static readonly long SpinTicks = Environment.ProcessorCount > 1 ? Stopwatch.Frequency * 40 / 1_000_000 : 0;

    [ThreadStatic] private static Worker? current;

    private readonly Worker[] workers;
    private readonly Turn turn = new();

    // The job: written by the owner before it rings, read by the workers after.
    private delegate*<void*, int, int, int, void> call;
    private void* work;
    private int items, parts, chunk;
    private Exception? failure;
    private Shared shared;

    /// <summary>Starts the threads.</summary>
    /// <param name="threads">Workers, the calling thread included; 0 or less for one a processor.</param>
    public WorkerPool(int threads)
    {
        workers = new Worker[threads > 0 ? threads : Environment.ProcessorCount];
        for (var i = 0; i < workers.Length; i++)
            workers[i] = new Worker(this, i);
        for (var i = 1; i < workers.Length; i++)
        {
            workers[i].Thread = new Thread(static w => ((Worker)w!).Serve(), 1 << 20) { IsBackground = true, Name = $"Trimtab worker {i}" };
            workers[i].Thread!.Start(workers[i]);
        }
    }

    /// <summary>Workers, the calling thread included.</summary>
    public int Threads => workers.Length;

    /// <summary>The threads of the workers but the first.</summary>
    public IEnumerable<Thread> Workers => workers.Skip(1).Select(w => w.Thread!);

    /// <summary>
    /// Runs all items and returns when they are done. Every worker gets one range, of sizes that differ by one at most.
    /// </summary>
    /// <param name="items">Number of items.</param>
    /// <param name="work">What is done with them.</param>
    /// <param name="grain">Items that are worth waking a worker for: ranges are no smaller (but for the whole).</param>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Run<TWork>(int items, TWork work, int grain = 1) where TWork : struct, IWork =>
        Start(items, Math.Min(Threads, items / Math.Max(grain, 1)), 0, &Invoke<TWork>, Unsafe.AsPointer(ref work));

    /// <summary>
    /// Runs all items and returns when they are done. Workers take the next <paramref name="chunk"/> items when they are
    /// through with the last: for items of unequal cost, and for machines that do other things too.
    /// </summary>
    public void Share<TWork>(int items, TWork work, int chunk = 1) where TWork : struct, IWork
    {
        chunk = Math.Max(chunk, 1);
        Start(items, (int)Math.Min(Threads, ((long)items + chunk - 1) / chunk), chunk, &Invoke<TWork>, Unsafe.AsPointer(ref work));
    }

    /// <summary>
    /// Scratch memory of one worker, 64-byte aligned and not cleared; the next call for that worker may move it.
    /// </summary>
    public byte* Scratch(int worker, nuint bytes) => workers[worker].Scratch(bytes);

    /// <summary>Stops the threads; waits for a run of another thread to end.</summary>
    /// <exception cref="InvalidOperationException">Called from inside a run of this pool.</exception>
    public void Dispose()
    {
        if (Inside() is not null)
            throw new InvalidOperationException("a worker pool cannot be disposed from inside its own run");
        turn.Take();
        try
        {
            if (parts < 0)
                return;
            parts = -1;
            for (var i = 1; i < workers.Length; i++)
                workers[i].Bell.Ring();
            foreach (var worker in workers)
                worker.End();
        }
        finally
        {
            turn.Give();
        }
    }

    private static void Invoke<TWork>(void* work, int first, int end, int worker) where TWork : struct, IWork =>
        Unsafe.AsRef<TWork>(work).Run(first, end, worker);

    /// <summary>The worker of this pool that the calling thread is at this moment, if any.</summary>
    private Worker? Inside()
    {
        if (turn.Mine)
            return workers[0];
        return current is { } worker && worker.Pool == this ? worker : null;
    }

    private void Start(int items, int parts, int chunk, delegate*<void*, int, int, int, void> call, void* work)
    {
        if (items <= 0)
            return;
        if (Inside() is { } worker)
        {
            call(work, 0, items, worker.Index);
            return;
        }
        turn.Take();
        try
        {
            ObjectDisposedException.ThrowIf(this.parts < 0, this);
            // Alone, but in turn all the same: scratch of worker 0 belongs to one run at a time.
            if (parts <= 1)
                call(work, 0, items, 0);
            else
                Divide(items, parts, chunk, call, work);
        }
        finally
        {
            turn.Give();
        }
    }

    private void Divide(int items, int parts, int chunk, delegate*<void*, int, int, int, void> call, void* work)
    {
        this.items = items;
        this.parts = parts;
        this.chunk = chunk;
        this.call = call;
        this.work = work;
        shared.Next = 0;
        Volatile.Write(ref shared.Pending, parts - 1);
        for (var i = 1; i < parts; i++)
            workers[i].Bell.Ring();
        Part(0);
        // The work lies on this stack, so nobody leaves before the last worker has.
        for (var spin = new Spin(); Volatile.Read(ref shared.Pending) > 0;)
            if (!spin.Once())
                workers[0].Bell.Await(ref shared.Pending);
        this.work = null;
        if (failure is not { } e)
            return;
        failure = null;
        ExceptionDispatchInfo.Throw(e);
    }

    /// <summary>One worker's part of the job; no exception leaves it.</summary>
    private void Part(int worker)
    {
        try
        {
            if (chunk == 0)
                call(work, (int)((long)items * worker / parts), (int)((long)items * (worker + 1) / parts), worker);
            else
                for (long first; (first = Interlocked.Add(ref shared.Next, chunk) - chunk) < items;)
                    call(work, (int)first, (int)Math.Min(first + chunk, items), worker);
        }
        catch (Exception e)
        {
            Interlocked.CompareExchange(ref failure, e, null);
        }
    }

    /// <summary>What all workers write to, each on a cache line of its own (two, for the adjacent-line prefetcher).</summary>
    [StructLayout(LayoutKind.Explicit, Size = 384)]
    private struct Shared
    {
        [FieldOffset(128)] public long Next;
        [FieldOffset(256)] public int Pending;
    }

    /// <summary>Spins for a few tens of microseconds in all. One pause a look: the runtime's own SpinWait is some 40 ns each.</summary>
    private ref struct Spin
    {
        private const int Looks = 64; // between two readings of the clock

        private long until;
        private int looks;

        /// <summary>Passes a moment; false when it is time to sleep instead.</summary>
        public bool Once()
        {
            if (X86Base.IsSupported)
                X86Base.Pause();
            else if (ArmBase.IsSupported)
                ArmBase.Yield();
            else
                Thread.SpinWait(1);
            if (++looks % Looks != 0)
                return true;
            var now = Stopwatch.GetTimestamp();
            if (until == 0)
                until = now + SpinTicks;
            return now < until;
        }
    }

    /// <summary>Wakes one sleeper. Whoever rings writes first and looks for the sleeper second; the sleeper does it the other
    /// way round, with full fences between, so one of them sees the other.</summary>
    private sealed class Bell
    {
        private Line line;

        /// <summary>How often it has been rung.</summary>
        public int Rung => Volatile.Read(ref line.Rung);

        public void Ring()
        {
            Interlocked.Increment(ref line.Rung);
            Wake();
        }

        /// <summary>Wakes the sleeper after a change that a fence follows.</summary>
        public void Wake()
        {
            if (Volatile.Read(ref line.Asleep) == 0)
                return;
            lock (this)
                Monitor.Pulse(this);
        }

        /// <summary>Sleeps until it has been rung more than <paramref name="seen"/> times.</summary>
        public void Await(int seen)
        {
            lock (this)
            {
                Interlocked.Exchange(ref line.Asleep, 1);
                while (Volatile.Read(ref line.Rung) == seen)
                    Monitor.Wait(this);
                Volatile.Write(ref line.Asleep, 0);
            }
        }

        /// <summary>Sleeps until the count is 0; whoever brings it there calls <see cref="Wake"/>.</summary>
        public void Await(ref int pending)
        {
            lock (this)
            {
                Interlocked.Exchange(ref line.Asleep, 1);
                while (Volatile.Read(ref pending) > 0)
                    Monitor.Wait(this);
                Volatile.Write(ref line.Asleep, 0);
            }
        }

        [StructLayout(LayoutKind.Explicit, Size = 256)]
        private struct Line
        {
            [FieldOffset(128)] public int Rung;
            [FieldOffset(132)] public int Asleep;
        }
    }

    /// <summary>Who may use the workers: one thread at a time.</summary>
    private sealed class Turn
    {
        private int owner, waiting;

        /// <summary>Whether the calling thread has it.</summary>
        public bool Mine => Volatile.Read(ref owner) == Environment.CurrentManagedThreadId;

        public void Take()
        {
            var me = Environment.CurrentManagedThreadId;
            if (Interlocked.CompareExchange(ref owner, me, 0) == 0)
                return;
            lock (this)
            {
                Interlocked.Increment(ref waiting);
                while (Interlocked.CompareExchange(ref owner, me, 0) != 0)
                    Monitor.Wait(this);
                Interlocked.Decrement(ref waiting);
            }
        }

        public void Give()
        {
            Interlocked.Exchange(ref owner, 0);
            if (Volatile.Read(ref waiting) == 0)
                return;
            lock (this)
                Monitor.Pulse(this);
        }
    }

    private sealed class Worker(WorkerPool pool, int index)
    {
        private byte* scratch;
        private nuint scratchBytes;

        public WorkerPool Pool { get; } = pool;

        public int Index { get; } = index;

        public Bell Bell { get; } = new();

        public Thread? Thread { get; set; }

        /// <summary>The thread's whole life.</summary>
        public void Serve()
        {
            current = this;
            for (var seen = 0; ; seen++)
            {
                for (var spin = new Spin(); Bell.Rung == seen;)
                    if (!spin.Once())
                        Bell.Await(seen);
                if (Pool.parts < 0)
                    return;
                Pool.Part(Index);
                if (Interlocked.Decrement(ref Pool.shared.Pending) == 0)
                    Pool.workers[0].Bell.Wake();
            }
        }

        public byte* Scratch(nuint bytes)
        {
            if (bytes <= scratchBytes)
                return scratch;
            NativeMemory.AlignedFree(scratch);
            scratchBytes = 0;
            scratch = null;
            scratch = (byte*)NativeMemory.AlignedAlloc(bytes, 64);
            scratchBytes = bytes;
            return scratch;
        }

        public void End()
        {
            Thread?.Join();
            NativeMemory.AlignedFree(scratch);
            scratch = null;
            scratchBytes = 0;
        }
    }
}
