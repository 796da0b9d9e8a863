using System.Buffers.Binary;
using System.Text;

namespace Trimtab.Tests.Cuda;

/// <summary>What machine code takes of a GPU, read from the compiler's ELF file.</summary>
/// <param name="Kernel">Its name.</param>
/// <param name="Threads">Most threads a block.</param>
/// <param name="Registers">A thread's.</param>
/// <param name="Frame">Bytes of a thread's that lie in memory: spilled registers, or arrays with indices that are not known.</param>
/// <param name="Shared">Bytes of shared memory a block, beside what a launch asks for.</param>
internal sealed record KernelResources(string Kernel, int Threads, int Registers, int Frame, int Shared)
{
    /// <summary>Blocks that fit a multiprocessor at once, by its registers, threads and shared memory (CUDA C++ Programming Guide, technical specifications).</summary>
    public int Blocks(string architecture, int dynamicShared)
    {
        var (warps, blocks, shared) = architecture switch { "sm_80" => (64, 32, 164 << 10), "sm_89" => (48, 24, 100 << 10), _ => (64, 32, 228 << 10) };
        var own = Threads / 32;
        var registers = (Registers * 32 + 255) / 256 * 256 * own;
        var bytes = (Math.Max(0, Shared - (architecture == "sm_90a" ? 1024 : 0)) + dynamicShared + 1024 + 127) / 128 * 128; // a kilobyte of each block's is the system's
        return Math.Min(Math.Min(warps / own, blocks), Math.Min(65536 / registers, shared / bytes));
    }
}

/// <summary>A compiled file.</summary>
internal sealed class Cubin
{
    private readonly byte[] _bytes;
    private readonly Dictionary<string, (long Begin, long Size)> _sections = [];
    private readonly List<string> _symbols = [];

    public Cubin(byte[] bytes)
    {
        _bytes = bytes;
        long headers = Long(0x28), entry = Short(0x3A), count = Short(0x3C), names = Long(headers + Short(0x3E) * entry + 0x18);
        for (var i = 0; i < count; i++)
            _sections[Text(names + Int(headers + i * entry))] = (Long(headers + i * entry + 0x18), Int(headers + i * entry + 4) == 8 /* takes no bytes of the file */ ? -Long(headers + i * entry + 0x20) : Long(headers + i * entry + 0x20));
        for (long at = _sections[".symtab"].Begin; at < _sections[".symtab"].Begin + _sections[".symtab"].Size; at += 24)
            _symbols.Add(Text(_sections[".strtab"].Begin + Int(at)));
        var found = new Dictionary<string, (int Registers, int Frame)>();
        foreach (var (attribute, at, size) in Entries(".nv.info"))
        {
            if (size != 8 || attribute is not (0x2f or 0x11))
                continue;
            var kernel = _symbols[Int(at)];
            var (registers, frame) = found.GetValueOrDefault(kernel);
            found[kernel] = attribute == 0x2f ? (Int(at + 4), frame) : (registers, Int(at + 4));
        }
        Kernels = [.. found.Where(f => _sections.ContainsKey(".nv.info." + f.Key)).Select(f => new KernelResources(f.Key, Threads(f.Key), f.Value.Registers, f.Value.Frame,
            (int)Math.Abs(_sections.GetValueOrDefault(".nv.shared." + f.Key).Size))).OrderBy(k => k.Kernel, StringComparer.Ordinal)];
    }

    /// <summary>Its kernels, by name.</summary>
    public IReadOnlyList<KernelResources> Kernels { get; }

    /// <summary>A kernel's instructions, 128 bits each, low half first.</summary>
    public IEnumerable<(ulong Low, ulong High)> Instructions(string kernel)
    {
        var (begin, size) = _sections[".text." + kernel];
        for (var at = begin; at < begin + size; at += 16)
            yield return ((ulong)Long(at), (ulong)Long(at + 8));
    }

    private int Threads(string kernel) => Entries(".nv.info." + kernel).Where(e => e.Attribute == 0x05).Select(e => Int(e.At) * Int(e.At + 4) * Int(e.At + 8)).First();

    /// <summary>A section of attributes: format, number, and a size with its bytes where the format is 4.</summary>
    private IEnumerable<(int Attribute, long At, int Size)> Entries(string section)
    {
        var (begin, length) = _sections[section];
        for (var at = begin; at < begin + length;)
        {
            var size = _bytes[at] == 4 ? Short(at + 2) : 0;
            yield return (_bytes[at + 1], at + 4, size);
            at += 4 + size;
        }
    }

    private long Long(long at) => BinaryPrimitives.ReadInt64LittleEndian(_bytes.AsSpan((int)at));

    private int Int(long at) => BinaryPrimitives.ReadInt32LittleEndian(_bytes.AsSpan((int)at));

    private int Short(long at) => BinaryPrimitives.ReadUInt16LittleEndian(_bytes.AsSpan((int)at));

    private string Text(long at) => Encoding.ASCII.GetString(_bytes.AsSpan((int)at, Array.IndexOf(_bytes, (byte)0, (int)at) - (int)at));
}
