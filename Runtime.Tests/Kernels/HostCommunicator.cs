using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;

namespace Trimtab.Tests.Kernels;

/// <summary>Adds up the ranks' tensors on the host, in the ranks' order: for devices of any kind.</summary>
internal sealed class HostCommunicator(IReadOnlyList<Device> ranks) : Communicator
{
    private static readonly Dictionary<int, Device> Shared = [];

    /// <summary>Sums that were made.</summary>
    public int Reductions { get; private set; }

    /// <summary>Processors of one thread each that divide layers; shared by tests.</summary>
    public static Device Cpus(int ranks)
    {
        lock (Shared)
        {
            if (!Shared.TryGetValue(ranks, out var device))
            {
                Device[] all = [.. Enumerable.Range(0, ranks).Select(_ => new CpuDevice(1))];
                Shared.Add(ranks, device = new TensorParallelDevice(all, new HostCommunicator(all)));
            }
            return device;
        }
    }

    public override void AllReduce(ReadOnlySpan<Tensor> sums)
    {
        Reductions++;
        float[] total = new float[sums[0].Count], part = new float[sums[0].Count];
        for (var r = 0; r < sums.Length; r++)
        {
            ranks[r].Download(sums[r], part);
            for (var i = 0; i < part.Length; i++)
                total[i] += part[i];
        }
        for (var r = 0; r < sums.Length; r++)
            ranks[r].Upload(total, sums[r]);
    }

    public override void AllGather(ReadOnlySpan<Tensor> shares, ReadOnlySpan<Tensor> wholes)
    {
        var (rows, width) = (shares[0].Rows, shares[0].Columns);
        float[] whole = new float[wholes[0].Count], part = new float[shares[0].Count];
        for (var r = 0; r < shares.Length; r++)
        {
            ranks[r].Download(shares[r], part);
            for (var row = 0; row < rows; row++)
                part.AsSpan(row * width, width).CopyTo(whole.AsSpan((row * shares.Length + r) * width));
        }
        for (var r = 0; r < shares.Length; r++)
            ranks[r].Upload(whole, wholes[r]);
    }

    protected override void Dispose(bool disposing)
    {
    }
}
