using System.Text.Json;
using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Tests.Checkpoints;

public class SafetensorsTests
{
    private CheckpointFiles _files = null!;

    [SetUp]
    public void Make() => _files = new();

    [TearDown]
    public void Remove() => _files.Dispose();

    [Test]
    public void Reads_what_was_written_tensor_by_tensor()
    {
        var path = _files.At("a.safetensors");
        SafetensorsWriter.Write(path,
            [
                TensorData.Of("half \"quoted\" é\n", DType.F16, [3], BytesOf((Half)1, (Half)(-2.5), (Half)65504)),
                TensorData.Of("single", [2, 2], new float[] { 1, 2, 3, float.NegativeInfinity }),
                TensorData.Of("brain", DType.BF16, [2], new byte[] { 0x80, 0x3F, 0x20, 0xC0 }),
                TensorData.Of("double", DType.F64, [1], BytesOf(Math.PI)),
                TensorData.Of("scalar", DType.I64, [], BytesOf(-7L)),
                TensorData.Of("none", DType.F32, [0, 5], ReadOnlyMemory<byte>.Empty),
                TensorData.Of("f8", DType.F8E4M3, [3], new byte[] { 1, 2, 3 }),
            ],
            new Dictionary<string, string> { ["format"] = "pt", ["né"] = "ü\u0001" });

        using var file = (SafetensorsCheckpoint)Checkpoint.Open(path);
        Assert.That(file.Path, Is.EqualTo(path));
        Assert.That(file.Metadata, Is.EqualTo(new Dictionary<string, string> { ["format"] = "pt", ["né"] = "ü\u0001" }));
        Assert.That(file.Tensors, Has.Count.EqualTo(7));
        Assert.That(Floats(file, "half \"quoted\" é\n"), Is.EqualTo(new[] { 1, -2.5f, 65504 }));
        Assert.That(Floats(file, "single"), Is.EqualTo(new[] { 1, 2, 3, float.NegativeInfinity }));
        Assert.That(Floats(file, "brain"), Is.EqualTo(new[] { 1, -2.5f }));
        Assert.That(Floats(file, "double"), Is.EqualTo(new[] { (float)Math.PI }));
        Assert.That(Floats(file, "none"), Is.Empty);
        Assert.That(file.Tensors["single"].Shape, Is.EqualTo(new long[] { 2, 2 }));
        Assert.That(file.Tensors["scalar"], Has.Property("Bytes").EqualTo(8).And.Property("Elements").EqualTo(1));
        using var scalar = file.Map("scalar");
        Assert.That(BitConverter.ToInt64(scalar.Span), Is.EqualTo(-7));
        Assert.That((long)scalar.Address % 8, Is.Zero);
        Assert.That(() => scalar.ToFloats(), Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("'scalar'").And.Message.Contains("I64"));
    }

    [Test]
    public void Mapped_tensors_outlive_their_checkpoint_and_not_their_own_disposal()
    {
        var path = _files.At("a.safetensors");
        SafetensorsWriter.Write(path, [TensorData.Of("x", [1], new[] { 3f })]);
        var file = Checkpoint.Open(path);
        var tensor = file.Map("x");
        file.Dispose();
        Assert.That(tensor.ToFloats(), Is.EqualTo(new[] { 3f }));
        Assert.That(() => file.Map("x"), Throws.TypeOf<ObjectDisposedException>());
        tensor.Dispose();
        Assert.That(() => tensor.Span.Length, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => tensor.ToFloats(), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Data_that_is_not_aligned_is_read()
    {
        var path = _files.Bytes("a.safetensors", CheckpointFiles.SafetensorsBytes(
            """{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}""", [9, 0, 0, 0x80, 0x3F]));
        using var file = Checkpoint.Open(path);
        Assert.That(Floats(file, "b"), Is.EqualTo(new[] { 1f }));
    }

    [Test]
    public void Types_without_a_kernel_are_refused_when_used()
    {
        var path = _files.Safetensors("a.safetensors",
            """{"mask":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]},"four":{"dtype":"F4","shape":[2,2],"data_offsets":[4,6]},"x":{"dtype":"U8","shape":[],"data_offsets":[6,7]}}""", 7);
        using var file = Checkpoint.Open(path);
        Assert.That(file.Tensors.Keys, Is.EqualTo(new[] { "x" }));
        Assert.That(file.Unread, Is.EqualTo(new Dictionary<string, string> { ["mask"] = "BOOL", ["four"] = "F4" }));
        Assert.That(() => file.Map("mask"), Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("'mask'").And.Message.Contains("BOOL"));
        Assert.That(() => file.Map("y"), Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("'y'"));
    }

    [TestCase("""{} """, 0)]
    [TestCase("""{"__metadata__":null}   """, 0)]
    [TestCase("""{"x":{"data_offsets":[0,0],"shape":[0],"dtype":"F32","later":{"a":[1]}}}""", 0)]
    public void Accepts_odd_but_valid_headers(string header, int data) =>
        Assert.That(() => Checkpoint.Open(_files.Safetensors("a.safetensors", header, data)).Dispose(), Throws.Nothing);

    [TestCase("""[]""", 0, "begin with")]
    [TestCase(""" {}""", 0, "begin with")]
    [TestCase("""{}x""", 0, "not valid")]
    [TestCase("""{}""", 1, "holds 1")]
    [TestCase("""{"x":1}""", 0, "'x'")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1]}}""", 4, "no data_offsets")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", 8, "twice")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0078":{"dtype":"BOOL","shape":[4],"data_offsets":[4,8]}}""", 8, "twice")]
    [TestCase("""{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4, "dtype")]
    [TestCase("""{"x":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}""", 4, "'F33'")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}""", 4, "data_offsets [0, 8]")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}""", 4, "data_offsets [4, 0]")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}""", 4, "whole numbers")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}""", 4, "whole numbers")]
    [TestCase("""{"x":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}""", 4, "more than 64")]
    [TestCase("""{"x":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}""", 4, "whole numbers")]
    [TestCase("""{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""", 4, "does not fill")]
    [TestCase("""{"x":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}""", 0, "does not fill")]
    [TestCase("""{"x":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,4]}}""", 4, "does not fill")]
    [TestCase("""{"x":{"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]}}""", 8, "does not fill")]
    [TestCase("""{"x":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,8]}}""", 8, "whole numbers")]
    [TestCase("""{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}""", 6, "overlaps")]
    [TestCase("""{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}}""", 7, "hole")]
    [TestCase("""{"x":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}""", 5, "hole")]
    [TestCase("""{"__metadata__":{"a":1}}""", 0, "'a'")]
    [TestCase("""{"__metadata__":{"a":"1","a":"2"}}""", 0, "twice")]
    [TestCase("""{"__metadata__":[]}""", 0, "__metadata__")]
    [TestCase("""{"__metadata__":{},"__metadata__":{}}""", 0, "twice")]
    [TestCase("""{"x":{"a":[[[[[[[[[[[[]]]]]]]]]]]],"dtype":"F32","shape":[0],"data_offsets":[0,0]}}""", 0, "depth")]
    [TestCase("""{"\ud800":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}""", 1, "not valid")]
    [TestCase("""{"x":{"dtype":"U8","shape":[],"data_offsets":[0,1]},}""", 1, "not valid")]
    public void Refuses_headers_that_break_the_format(string header, int data, string reason)
    {
        var path = _files.Safetensors("a.safetensors", header, data);
        Assert.That(CheckpointFiles.Refusal(path), Does.Contain(reason).And.StartWith(path));
    }

    [Test]
    public void Refuses_broken_utf8_and_control_characters_stay_out_of_messages()
    {
        var bytes = CheckpointFiles.SafetensorsBytes("""{"x":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}""", [0]);
        bytes[10] = 0xFF;
        Assert.That(CheckpointFiles.Refusal(_files.Bytes("a.safetensors", bytes)), Does.Contain("UTF-8"));
        Assert.That(CheckpointFiles.Refusal(_files.Safetensors("b.safetensors", """{"a\n\u001b[31mb":1}""", 0)), Does.Contain("[31mb").And.Not.Contain("\u001b"));
        Assert.That(CheckpointFiles.Refusal(_files.Safetensors("c.safetensors", $$"""{"{{new string('n', 5000)}}":1}""", 0)).Length, Is.LessThan(1000));
    }

    [TestCase(ulong.MaxValue)]
    [TestCase(1UL << 40)]
    [TestCase(100_000_001UL)]
    [TestCase(1UL)]
    [TestCase(0UL)]
    public void Refuses_impossible_header_lengths_without_taking_memory(ulong length)
    {
        var path = _files.Bytes("a.safetensors", [.. BitConverter.GetBytes(length), .. "{}"u8]);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.That(CheckpointFiles.Refusal(path), Does.Contain(length.ToString()));
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(1 << 20));
    }

    [Test]
    public void Writing_replaces_a_file_whole_or_not_at_all()
    {
        var path = _files.At("a.safetensors");
        SafetensorsWriter.Write(path, [TensorData.Of("x", [1], new[] { 1f })]);
        Assert.That(() => SafetensorsWriter.Write(path, [new("x", DType.F32, [2], stream => stream.WriteByte(1))]), Throws.ArgumentException.With.Message.Contains("'x'"));
        Assert.That(() => SafetensorsWriter.Write(path, [new("x", DType.F32, [2], _ => throw new IOException("full"))]), Throws.TypeOf<IOException>());
        Assert.That(() => SafetensorsWriter.Write(path, [TensorData.Of("x", DType.Q4_0, [32], new byte[18])]), Throws.ArgumentException.With.Message.Contains("Q4_0"));
        Assert.That(() => SafetensorsWriter.Write(path, [TensorData.Of("x", [0], Array.Empty<float>()), TensorData.Of("x", [0], Array.Empty<float>())]), Throws.ArgumentException);
        using (var file = Checkpoint.Open(path))
            Assert.That(Floats(file, "x"), Is.EqualTo(new[] { 1f }));
        Assert.That(Directory.GetFiles(_files.Folder), Has.Length.EqualTo(1));
        SafetensorsWriter.Write(path, []);
        using (var file = Checkpoint.Open(path))
            Assert.That(file.Tensors, Is.Empty);
    }

    [Test]
    public void Opens_every_model_of_the_fixtures()
    {
        var opened = 0;
        foreach (var folder in Directory.GetDirectories(Shared.Path("fixtures", "models")))
        {
            using var file = Checkpoint.Open(folder);
            Assert.That(file.Tensors, Is.Not.Empty);
            foreach (var name in file.Tensors.Keys)
            {
                using var tensor = file.Map(name);
                Assert.That(tensor.Span.Length, Is.EqualTo(tensor.Info.Bytes));
            }
            opened++;
        }
        Assert.That(opened, Is.GreaterThan(10));
    }

    [Test]
    public void Values_of_a_fixture_agree_with_its_expected_greedy_tokens()
    {
        using var file = Checkpoint.Open(Shared.Path("fixtures", "expected", "text-llama.safetensors"));
        using var expected = JsonDocument.Parse(File.ReadAllText(Shared.Path("fixtures", "expected", "text-llama.json")));
        var @case = expected.RootElement.GetProperty("cases")[0];
        var name = $"{@case.GetProperty("id").GetString()}.logits";
        var vocabulary = (int)file.Tensors[name].Shape[1];
        var first = Floats(file, name).AsSpan(0, vocabulary).ToArray();
        Assert.That(Array.IndexOf(first, first.Max()), Is.EqualTo(@case.GetProperty("greedy")[0].GetInt32()));
    }

    internal static float[] Floats(Checkpoint file, string name)
    {
        using var tensor = file.Map(name);
        return tensor.ToFloats();
    }

    private static byte[] BytesOf<T>(params T[] values) where T : unmanaged =>
        System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()).ToArray();
}
