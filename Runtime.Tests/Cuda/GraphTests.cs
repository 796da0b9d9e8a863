using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Tests.Kernels;

namespace Trimtab.Tests.Cuda;

/// <summary>Steps that are captured once and launched again: what lies in their tensors may change, where they lie may not unseen.</summary>
public class GraphTests
{
    private CudaDevice _device = null!;

    [OneTimeSetUp]
    public void Open() => _device = EmulatedCuda.Open();

    [OneTimeTearDown]
    public void Close() => _device?.Dispose();

    [Test]
    public void A_replay_reads_what_its_tensors_hold_now()
    {
        Tensor input = _device.Activations([1, 2, 3, 4, 5, 6], 2), output = _device.Activations(new float[4], 2), rows = _device.Integers(0, 0);
        var runs = 0;
        void Step()
        {
            runs++;
            _device.TakeRows(output, input, rows);
        }
        var before = _device.GraphCounts;
        for (var i = 0; i < 5; i++)
        {
            _device.Upload([i % 3, 2], rows);
            _device.Replay(1, Step);
            Assert.That(_device.Get(output), Is.EqualTo(new float[] { 2 * (i % 3) + 1, 2 * (i % 3) + 2, 5, 6 }));
        }
        // As it is, captured, and from the capture on replayed.
        Assert.That(runs, Is.EqualTo(2));
        Assert.That((_device.GraphCounts.Replayed - before.Replayed, _device.GraphCounts.Captured - before.Captured), Is.EqualTo((4, 1)));
    }

    [Test]
    public void Of_many_graphs_the_one_used_least_recently_goes()
    {
        Tensor input = _device.Activations([1, 2], 1), output = _device.Activations(new float[1], 1), rows = _device.Integers(1);
        var runs = 0;
        void Step()
        {
            runs++;
            _device.TakeRows(output, input, rows);
        }
        for (var i = 0; i < 3; i++)
            _device.Replay(1000, Step);
        for (var key = 1001; key < 1000 + CudaGraphs.Most; key++)
        {
            _device.Replay(key, Step);
            _device.Replay(1000, Step); // stays in use
        }
        runs = 0;
        _device.Replay(2000, Step); // takes the place of 1001, or of one of another test
        _device.Replay(1000, Step);
        Assert.That(runs, Is.EqualTo(1));
        _device.Replay(1001, Step);
        Assert.That(runs, Is.EqualTo(2));
        Assert.That(_device.Get(output), Is.EqualTo(new float[] { 2 }));
    }

    [Test]
    public void Without_graphs_every_step_is_run()
    {
        using var device = EmulatedCuda.Open();
        device.Graphs = false;
        var runs = 0;
        for (var i = 0; i < 4; i++)
            device.Replay(1, () => runs++);
        Assert.That((runs, device.GraphCounts), Is.EqualTo((4, (0L, 0L))));
    }

    [Test]
    public void Memory_that_is_freed_has_the_graph_captured_again()
    {
        Tensor input = _device.Activations([1, 2, 3], 1), output = _device.Activations(new float[1], 1), rows = _device.Integers(2);
        void Step() => _device.TakeRows(output, input, rows);
        for (var i = 0; i < 3; i++)
            _device.Replay(2, Step);
        var old = input;
        input = _device.Activations([7, 8, 9, 10], 1);
        old.Storage!.Dispose();
        var captured = _device.GraphCounts.Captured;
        _device.Replay(2, Step);
        Assert.That(_device.Get(output), Is.EqualTo(new float[] { 9 }));
        Assert.That(_device.GraphCounts.Captured, Is.EqualTo(captured + 1));
    }

    [Test]
    public void A_graph_of_other_kernels_takes_the_place_of_the_old_one()
    {
        Tensor input = _device.Activations([3, 4], 2), output = _device.Activations(new float[2], 2), rows = _device.Integers(0);
        var norm = new NormWeights(_device.Floats([1, 1], 2), default, 0, false);
        var twice = false;
        void Step()
        {
            _device.TakeRows(output, input, rows);
            if (twice)
                _device.Norm(output, output, norm);
        }
        for (var i = 0; i < 3; i++)
            _device.Replay(3, Step);
        twice = true;
        _device.Norm(output, output, norm);
        _device.Allocate(DType.F32, 1, 1).Storage!.Dispose();
        _device.Replay(3, Step);
        Assert.That(_device.Get(output)[1], Is.EqualTo(4 / MathF.Sqrt(12.5f)).Within(1e-6));
    }

    [Test]
    public void What_cannot_be_recorded_is_refused_and_the_next_step_runs()
    {
        Tensor input = _device.Activations([3, 4], 1), output = _device.Activations(new float[1], 1), rows = _device.Integers(1);
        var download = false;
        void Step()
        {
            _device.TakeRows(output, input, rows);
            if (download)
                _device.Get(output);
        }
        _device.Replay(4, Step);
        download = true;
        Assert.That(() => _device.Replay(4, Step), Throws.InvalidOperationException.With.Message.Contains("recorded"));
        download = false;
        _device.Replay(4, Step);
        Assert.That(_device.Get(output), Is.EqualTo(new float[] { 4 }));
    }

    [Test]
    public void A_bad_number_is_thrown_at_the_wait_and_the_device_goes_on()
    {
        Tensor input = _device.Activations([3, 4], 1), output = _device.Activations(new float[1], 1);
        _device.TakeRows(output, input, _device.Integers(2));
        _device.TakeRows(output, input, _device.Integers(5));
        Assert.That(() => _device.Get(output), Throws.ArgumentException.With.Message.EqualTo("TakeRows: row 2 of 2"));
        _device.TakeRows(output, input, _device.Integers(1));
        Assert.That(_device.Get(output), Is.EqualTo(new float[] { 4 }));
    }

    [Test]
    public void Uploads_larger_than_the_staging_memory_arrive_whole()
    {
        var values = new float[5 << 20];
        for (var i = 0; i < values.Length; i++)
            values[i] = i % 1021;
        var tensor = _device.Allocate(DType.F32, 5, 1 << 20);
        _device.Upload(values, tensor);
        Assert.That(_device.Get(tensor).AsSpan().SequenceEqual(values));
        tensor.Storage!.Dispose();
        Assert.That(() => _device.Get(tensor), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Memory_that_is_not_there_is_refused_with_its_size()
        => Assert.That(() => _device.Allocate(DType.F32, 1 << 20, 1 << 20), Throws.TypeOf<OutOfMemoryException>().With.Message.Contains("4398046511104 bytes"));

    [Test]
    public void Tensors_of_other_devices_are_refused()
    {
        var own = _device.Activations([1, 2], 2);
        var other = ReferenceDevicePair.Devices[1].Activations([1, 2], 2);
        Assert.That(() => _device.TakeRows(own, other, _device.Integers(0)), Throws.ArgumentException.With.Message.Contains("another device"));
        Assert.That(() => _device.Upload([1f], own), Throws.ArgumentException.With.Message.Contains("1 values"));
        Assert.That(() => _device.Allocate(DType.Q4_0, 1, 32), Throws.TypeOf<NotSupportedException>());
    }
}
