using System.Collections.Concurrent;
using System.Diagnostics;

namespace Trimtab.Engine;

/// <summary>The thread that owns an engine. Any thread may submit; sequences that run at the same time share batches.</summary>
public sealed class EngineLoop : IDisposable
{
    private readonly Engine _engine;
    private readonly ConcurrentQueue<Sequence> _submitted = new();
    private readonly AutoResetEvent _wake = new(false);
    private readonly Thread _thread;
    private volatile bool _stopping;
    private int _open; // sequences that were submitted and have not ended
    private long _refused;
    private long _lastEnd;
    private double _pace = 1; // seconds from one end to the next, smoothed

    /// <summary>Starts the thread.</summary>
    /// <param name="engine">The engine; owned from here on.</param>
    public EngineLoop(Engine engine)
    {
        _engine = engine;
        _thread = new(Run) { IsBackground = true, Name = "trimtab engine" };
        _thread.Start();
    }

    /// <summary>Positions a sequence may reach.</summary>
    public int ContextLength => _engine.ContextLength;

    /// <inheritdoc cref="Engine.Statistics"/>
    public EngineStatistics Statistics => _engine.Statistics with { Refused = Interlocked.Read(ref _refused) };

    /// <summary>Hands a sequence to the engine; its callbacks tell the rest.</summary>
    /// <exception cref="ArgumentException">It cannot run here (see <see cref="Engine.Add"/>).</exception>
    /// <exception cref="EngineBusyException">As many wait as may.</exception>
    /// <exception cref="ObjectDisposedException">The loop has ended.</exception>
    public void Submit(Sequence sequence)
    {
        ObjectDisposedException.ThrowIf(_stopping, this);
        _engine.Check(sequence);
        foreach (var image in sequence.Prompt.Images)
            _ = image.Content; // hashed here: the engine's thread has better to do
        var open = Interlocked.Increment(ref _open);
        if (open > _engine.MaxOpen)
        {
            Interlocked.Decrement(ref _open);
            throw Refused(open - 1);
        }
        sequence.Ended = End;
        sequence.Submitted = Stopwatch.GetTimestamp();
        _submitted.Enqueue(sequence);
        _wake.Set();
        if (_stopping && !_thread.IsAlive)
            Drain();
    }

    /// <summary>Refuses, before anything is made ready for them, so many sequences as find no room now. It keeps no place for them.</summary>
    /// <exception cref="EngineBusyException">As many wait as may.</exception>
    public void CheckRoom(int sequences)
    {
        if (Volatile.Read(ref _open) is var open && open + sequences > _engine.MaxOpen)
            throw Refused(open);
    }

    private EngineBusyException Refused(int open)
    {
        Interlocked.Increment(ref _refused);
        return new(open, TimeSpan.FromSeconds(Math.Clamp(Volatile.Read(ref _pace) * (open + 1) / 2, 1, 60)));
    }

    private void End()
    {
        Interlocked.Decrement(ref _open);
        var (now, last) = (Stopwatch.GetTimestamp(), _lastEnd);
        _lastEnd = now;
        if (last > 0)
            Volatile.Write(ref _pace, .9 * _pace + .1 * Math.Min(60, Stopwatch.GetElapsedTime(last, now).TotalSeconds));
    }

    private void Run()
    {
        while (!_stopping)
        {
            Sequence? added = null;
            try
            {
                while (_submitted.TryDequeue(out added))
                    _engine.Add(added);
                if (!_engine.Step())
                    _wake.WaitOne();
            }
            catch (Exception error) when (error is not (StackOverflowException or AccessViolationException))
            {
                // A failed step leaves no sequence usable; the engine itself holds only what they held.
                added?.End(FinishReason.Error, error);
                _engine.Fail(error);
            }
        }
        _engine.Dispose();
        Drain();
    }

    private void Drain()
    {
        while (_submitted.TryDequeue(out var sequence))
            sequence.End(FinishReason.Error, new ObjectDisposedException(nameof(EngineLoop)));
    }

    /// <summary>Ends every sequence and the thread.</summary>
    public void Dispose()
    {
        if (_stopping)
            return;
        _stopping = true;
        _wake.Set();
        _thread.Join();
        _wake.Dispose();
    }
}
