using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Steering;

namespace Trimtab.Tests.Checkpoints;

/// <summary>Damaged files end in one kind of exception or in an object that can be used; never in another, and never in much memory.</summary>
public class CheckpointFuzzTests
{
    private const int Mutations = 3000;

    [Test]
    public void Damaged_safetensors_are_refused_or_readable()
    {
        using var files = new CheckpointFiles();
        SafetensorsWriter.Write(files.At("seed"),
            [TensorData.Of("a", [2, 3], new float[6]), TensorData.Of("b", DType.BF16, [4], new byte[8]), TensorData.Of("direction.1", DType.U8, [0], ReadOnlyMemory<byte>.Empty)],
            new Dictionary<string, string> { ["k"] = "v\u0001é" });
        Fuzz(files, "seed", "mutant.safetensors", 1);
    }

    [Test]
    public void Damaged_ggufs_are_refused_or_readable()
    {
        using var files = new CheckpointFiles();
        GgufWriter.Write(files.At("seed"),
            [
                new("general.architecture", "llama"), new("general.alignment", 32u), new("tokens", new[] { "a", "bc", "é" }), new("scores", new[] { 1f, 2 }),
                new("nested", new object[] { new[] { 1, 2 }, new[] { "x" } }), new("flags", new[] { true, false }), new("n", 5L), new("d", 0.5),
            ],
            [TensorData.Of("x", [2, 3], new float[6]), TensorData.Of("q", DType.Q4_K, [2, 256], new byte[288]), TensorData.Of("h", DType.F16, [3], new byte[6])]);
        Fuzz(files, "seed", "mutant.gguf", 2);
    }

    [Test]
    public void Damaged_vector_files_are_refused_or_readable()
    {
        using var files = new CheckpointFiles();
        var vectors = ShiftVectors.Create([[1, 2, 3], null, [4, 5, 6], [7, 8, 9]]);
        vectors.Save(files.At("seed.gguf"));
        vectors.Save(files.At("seed.safetensors"));
        Fuzz(files, "seed.gguf", "mutant.gguf", 3);
        Fuzz(files, "seed.safetensors", "mutant.safetensors", 4);
    }

    [Test]
    public void Damaged_indexes_are_refused_or_readable()
    {
        using var files = new CheckpointFiles();
        SafetensorsWriter.Write(files.At("s1"), [TensorData.Of("a", [1], new float[1])]);
        SafetensorsWriter.Write(files.At("s2"), [TensorData.Of("b", [1], new float[1])]);
        files.Text("seed", """{"metadata":{"total_size":8},"weight_map":{"a":"s1","b":"s2"}}""");
        Fuzz(files, "seed", "mutant.index.json", 5);
    }

    private static void Fuzz(CheckpointFiles files, string seed, string name, int randomSeed)
    {
        var original = File.ReadAllBytes(files.At(seed));
        var random = new Random(randomSeed);
        var survivors = 0;
        for (var i = 0; i < Mutations; i++)
        {
            var path = files.Bytes(name, Mutate(original, random));
            var before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                using var file = Checkpoint.Open(path);
                foreach (var tensor in file.Tensors.Keys)
                {
                    using var mapped = file.Map(tensor);
                    var sum = 0;
                    foreach (var value in mapped.Span)
                        sum += value;
                    if (mapped.Info.Type is DType.F32 or DType.F16 or DType.BF16 or DType.F64)
                        mapped.ToFloats();
                }
                survivors++;
                _ = ShiftVectors.Open(path).Hash;
            }
            catch (InvalidCheckpointException e)
            {
                Assert.That(e.Message, Does.StartWith(files.Folder));
            }
            Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(1 << 21), "bytes allocated");
        }
        Assert.That(survivors, Is.InRange(Mutations / 100, Mutations - 1));
    }

    private static byte[] Mutate(byte[] original, Random random)
    {
        var bytes = original.ToList();
        for (var edits = random.Next(1, 4); edits > 0 && bytes.Count > 8; edits--)
        {
            var at = random.Next(bytes.Count);
            switch (random.Next(8))
            {
                case 0:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 2:
                    bytes[at] = (byte)"0123456789{}[]\",:\\-.eE"[random.Next(22)];
                    break;
                case 3:
                    bytes.RemoveRange(at, Math.Min(random.Next(1, 9), bytes.Count - at));
                    break;
                case 4:
                    bytes.InsertRange(at, bytes.GetRange(random.Next(bytes.Count / 2), random.Next(1, bytes.Count / 2)));
                    break;
                case 5:
                    bytes.RemoveRange(at, bytes.Count - at);
                    break;
                case 6:
                    for (var i = at & ~3; i < bytes.Count && i < (at & ~3) + 4 * random.Next(1, 3); i++)
                        bytes[i] = 0xFF;
                    break;
                default:
                    bytes[at] += (byte)random.Next(-2, 3);
                    break;
            }
        }
        return [.. bytes];
    }
}
