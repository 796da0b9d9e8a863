using System.Runtime.CompilerServices;
using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>
/// Tensors whose bytes are made when they are mapped and given back when they are unmapped: a checkpoint of any size without a file, of
/// which one tensor at a time is in memory. Bytes depend on the seed and the tensor's name alone. Matrices have zero mean and a standard
/// deviation of about 1/√columns, so that states and logits stay in the range of a trained model's.
/// </summary>
internal sealed unsafe class SyntheticCheckpoint(string name, IEnumerable<TensorInfo> tensors, int seed)
    : Checkpoint(name, [], tensors.ToDictionary(tensor => tensor.Name), new Dictionary<string, string>())
{
    private const int ChunkBytes = 1 << 20;

    private protected override MappedTensor View(TensorInfo info)
    {
        var memory = new OwnedBytes(info.Bytes);
        try
        {
            Fill(info, memory.Data);
            return new(info, memory, memory.Data);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    private void Fill(TensorInfo info, byte* data)
    {
        var form = new Form(info);
        // Chunks of whole blocks and whole words, each with a stream of its own: threads change nothing.
        long unit = 8L * info.Type.BlockBytes(), chunk = Math.Max(1, ChunkBytes / unit) * unit;
        var stream = Mix((ulong)seed);
        foreach (var c in info.Name)
            stream = Mix(stream ^ c);
        Parallel.For(0, (info.Bytes + chunk - 1) / chunk, i =>
            form.Fill(data + i * chunk, (int)Math.Min(chunk, info.Bytes - i * chunk), Mix(stream + (ulong)i)));
    }

    /// <summary>The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).</summary>
    private static ulong Mix(ulong z)
    {
        z += 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }

    /// <summary>
    /// Which bits are random. A plain float has a fixed exponent e under a random sign and mantissa: ± [2^e, 2^(e+1)), a standard deviation
    /// of √(7/3) · 2^e. Quantised blocks are random throughout but for their scales, which are such floats.
    /// </summary>
    private readonly struct Form
    {
        private readonly DType _type;
        private readonly ulong _random;          // bits of a word that are random
        private readonly ulong _fixed;           // and bits that are set
        private readonly ushort _scaleRandom, _scaleFixed;

        public Form(TensorInfo info)
        {
            _type = info.Type;
            // A norm's weight: [1, 2).
            var vector = info.Shape.Count == 1 && info.Name.EndsWith(".weight", StringComparison.Ordinal);
            var deviation = vector ? Math.Sqrt(7 / 3.0) : 1 / Math.Sqrt(Math.Max(16, info.Shape.Skip(1).Aggregate(1L, (a, b) => a * b)));
            var unit = _type switch // deviation of a block of random bits under a scale of 1
            {
                DType.Q8_0 => 73.9,
                DType.Q4_0 or DType.Q4_1 => 4.61,
                DType.Q4_K => 257,
                DType.Q6_K => 1367,
                _ => 1,
            };
            var exponent = (int)Math.Round(Math.Log2(deviation / unit / Math.Sqrt(7 / 3.0)));
            var sign = vector ? 0u : 1u;
            (_random, _fixed) = _type switch
            {
                DType.F32 => (0x0000_0001_0000_0001ul * (sign << 31 | 0x7F_FFFFu), 0x0000_0001_0000_0001ul * ((uint)(exponent + 127) << 23)),
                DType.BF16 => (0x0001_0001_0001_0001ul * (sign << 15 | 0x7Fu), 0x0001_0001_0001_0001ul * ((uint)(exponent + 127) << 7)),
                DType.F16 => (0x0001_0001_0001_0001ul * (sign << 15 | 0x3FFu), 0x0001_0001_0001_0001ul * ((uint)(exponent + 15) << 10)),
                _ => (ulong.MaxValue, 0ul),
            };
            // Below binary16's normal numbers the leading bit is the mantissa's own.
            var leading = 1 << Math.Clamp(exponent + 24, 0, 10);
            var mantissa = leading - 1;
            _scaleRandom = (ushort)(mantissa | (_type == DType.Q4_0 ? 0x8000 : 0)); // its values −8 … 7 have a mean; the sign takes it away
            _scaleFixed = (ushort)(exponent >= -14 ? exponent + 15 << 10 : leading);
        }

        public void Fill(byte* data, int bytes, ulong state)
        {
            var at = 0;
            for (; at + 8 <= bytes; at += 8)
                Unsafe.WriteUnaligned(data + at, Mix(state += 8) & _random | _fixed);
            if (at < bytes)
            {
                var last = Mix(state + 8) & _random | _fixed;
                new ReadOnlySpan<byte>(&last, bytes - at).CopyTo(new(data + at, bytes - at));
            }
            if (!_type.IsQuantized())
                return;
            var size = _type.BlockBytes();
            for (var block = data; block < data + bytes; block += size)
            {
                var scale = (ushort*)(_type == DType.Q6_K ? block + size - 2 : block);
                Unsafe.WriteUnaligned(scale, (ushort)(Unsafe.ReadUnaligned<ushort>(scale) & _scaleRandom | _scaleFixed));
                var minimum = _type switch { DType.Q4_1 => -7.5f, DType.Q4_K => 7.5f, _ => 0 }; // takes the mean of 0 … 15 away
                if (minimum != 0)
                    Unsafe.WriteUnaligned(scale + 1, (Half)(minimum * (float)Unsafe.ReadUnaligned<Half>(scale)));
            }
        }
    }
}
