using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Tests.Checkpoints;

public class GgufTests
{
    private CheckpointFiles _files = null!;

    [SetUp]
    public void Make() => _files = new();

    [TearDown]
    public void Remove() => _files.Dispose();

    [Test]
    public void Reads_all_value_types_in_both_versions([Values(2u, 3u)] uint version)
    {
        var path = _files.Gguf("a.gguf", bytes => bytes
            .Text("u8").U32(0).Raw(200)
            .Text("i8").U32(1).Raw(0xFE)
            .Text("u16").U32(2).Raw(1, 2)
            .Text("i16").U32(3).Raw(0xFF, 0xFF)
            .Text("u32").U32(4).U32(uint.MaxValue)
            .Text("i32").U32(5).U32(uint.MaxValue)
            .Text("f32").U32(6).Raw(BitConverter.GetBytes(1.5f))
            .Text("yes").U32(7).Raw(1)
            .Text("text").U32(8).Text("é\0x")
            .Text("u64").U32(10).U64(ulong.MaxValue)
            .Text("i64").U32(11).U64(ulong.MaxValue)
            .Text("f64").U32(12).Raw(BitConverter.GetBytes(0.1))
            .Text("texts").U32(9).U32(8).U64(2).Text("a").Text("")
            .Text("ints").U32(9).U32(5).U64(2).U32(7).U32(uint.MaxValue)
            .Text("flags").U32(9).U32(7).U64(2).Raw(0, 1)
            .Text("nested").U32(9).U32(9).U64(2).U32(0).U64(1).Raw(5).U32(8).U64(1).Text("b")
            .Text("nothing").U32(9).U32(6).U64(0), pairs: 17, version: version);
        using var file = (GgufCheckpoint)Checkpoint.Open(path);
        Assert.That(file.Version, Is.EqualTo(version));
        Assert.That(file.Metadata["u8"], Is.EqualTo((byte)200));
        Assert.That(file.Metadata["i8"], Is.EqualTo((sbyte)-2));
        Assert.That(file.Metadata["u16"], Is.EqualTo((ushort)513));
        Assert.That(file.Metadata["i16"], Is.EqualTo((short)-1));
        Assert.That(file.Metadata["u64"], Is.EqualTo(ulong.MaxValue));
        Assert.That(file.Metadata["i64"], Is.EqualTo(-1L));
        Assert.That(file.Metadata["f64"], Is.EqualTo(0.1));
        Assert.That(file.Metadata["nested"], Is.EqualTo(new object[] { new byte[] { 5 }, new[] { "b" } }));
        Assert.That(file.GetString("text"), Is.EqualTo("é\0x"));
        Assert.That(file.GetUInt("u32"), Is.EqualTo(uint.MaxValue));
        Assert.That(file.GetUInt("u8"), Is.EqualTo(200));
        Assert.That(file.GetFloat("f32"), Is.EqualTo(1.5f));
        Assert.That(file.GetFloat("i8"), Is.EqualTo(-2f));
        Assert.That(file.GetBool("yes"), Is.True);
        Assert.That(file.GetArray<string>("texts"), Is.EqualTo(new[] { "a", "" }));
        Assert.That(file.GetArray<int>("ints"), Is.EqualTo(new[] { 7, -1 }));
        Assert.That(file.GetArray<float>("ints"), Is.EqualTo(new[] { 7f, -1f }));
        Assert.That(file.GetArray<bool>("flags"), Is.EqualTo(new[] { false, true }));
        Assert.That(file.GetArray<float>("nothing"), Is.Empty);
        Assert.That(file.GetUInt("gone", 4), Is.EqualTo(4));
        Assert.That(file.GetString("gone", ""), Is.EqualTo(""));

        foreach (var wrong in new Action[]
        {
            () => file.GetString("gone"), () => file.GetString("u8"), () => file.GetUInt("i8"), () => file.GetUInt("u64"), () => file.GetUInt("f32"), () => file.GetUInt("yes"),
            () => file.GetFloat("text"), () => file.GetBool("u8"), () => file.GetArray<uint>("ints"), () => file.GetArray<int>("texts"), () => file.GetArray<int>("u8"),
            () => file.GetArray<string>("ints"), () => file.GetArray<int>("flags"),
        })
            Assert.That(wrong, Throws.TypeOf<InvalidCheckpointException>().With.Message.StartsWith(path).And.Message.Contains("expected"));
        Assert.That(() => file.GetUInt("text"), Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("'text'").And.Message.Contains("whole number"));
    }

    [Test]
    public void Reads_tensors_outermost_dimension_first()
    {
        var path = _files.Gguf("a.gguf", bytes => bytes
            .Text("general.alignment").U32(4).U32(64)
            .Tensor("w", 8, 64, 64, 3, 2).Tensor("s", 0, 0).Tensor("i8", 24, 512, 5).Tensor("none", 0, 512, 0, 4)
            .Align(64).Raw(new byte[512 + 5]), tensors: 4, pairs: 1);
        using var file = Checkpoint.Open(path);
        Assert.That(file.Tensors["w"].Shape, Is.EqualTo(new long[] { 2, 3, 64 }));
        Assert.That(file.Tensors["w"].Type, Is.EqualTo(DType.Q8_0));
        Assert.That(file.Tensors["w"].Bytes, Is.EqualTo(2 * 3 * 2 * 34));
        Assert.That(file.Tensors["w"].Offset % 64, Is.Zero);
        Assert.That(file.Tensors["s"].Shape, Is.Empty);
        Assert.That(file.Tensors["none"].Bytes, Is.Zero);
        Assert.That(() => file.Map("i8"), Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("I8"));
    }

    [Test]
    public void Reads_what_was_written()
    {
        var path = _files.At("a.gguf");
        KeyValuePair<string, object>[] metadata =
        [
            new("a", (byte)1), new("b", (sbyte)-1), new("c", (ushort)2), new("d", (short)-2), new("e", 3u), new("f", -3), new("g", 0.5f), new("h", true), new("i", "é"),
            new("j", 4ul), new("k", -4L), new("l", 0.25), new("m", new[] { "x", "y" }), new("n", new uint[] { 1 }), new("o", new[] { true }), new("p", new object[] { new[] { 1 }, new[] { "z" } }),
            new("q", new byte[] { 1 }), new("general.alignment", 128u),
        ];
        GgufWriter.Write(path, metadata, [TensorData.Of("x", [2, 1], new[] { 1f, 2 }), TensorData.Of("q", DType.Q4_0, [32], new byte[18]), TensorData.Of("y", [1], new[] { 3f })]);
        using var file = (GgufCheckpoint)Checkpoint.Open(path);
        foreach (var (key, value) in metadata)
            Assert.That(file.Metadata[key], Is.EqualTo(value).And.TypeOf(value.GetType()), key);
        Assert.That(file.Tensors["x"].Shape, Is.EqualTo(new long[] { 2, 1 }));
        Assert.That(SafetensorsTests.Floats(file, "x"), Is.EqualTo(new[] { 1f, 2 }));
        Assert.That(SafetensorsTests.Floats(file, "y"), Is.EqualTo(new[] { 3f }));
        Assert.That(file.Tensors["y"].Offset % 128, Is.Zero);

        Assert.That(() => GgufWriter.Write(path, [new("a", 1), new("a", 2)], []), Throws.ArgumentException);
        Assert.That(() => GgufWriter.Write(path, [new("a", 1m)], []), Throws.ArgumentException.With.Message.Contains("'a'"));
        Assert.That(() => GgufWriter.Write(path, [new("a", new object[] { 1 })], []), Throws.ArgumentException);
        Assert.That(() => GgufWriter.Write(path, [], [TensorData.Of("x", DType.Q4_0, [31], new byte[18])]), Throws.ArgumentException);
        Assert.That(() => GgufWriter.Write(path, [], [TensorData.Of("x", DType.F8E4M3, [1], new byte[1])]), Throws.ArgumentException);
        Assert.That(Directory.GetFiles(_files.Folder), Has.Length.EqualTo(1));
    }

    [Test]
    public void Other_versions_and_byte_orders_are_refused_by_name()
    {
        Assert.That(CheckpointFiles.Refusal(_files.Gguf("a.gguf", _ => { }, version: 1)), Does.Contain("version 1").And.Contain("expected 2 or 3"));
        Assert.That(CheckpointFiles.Refusal(_files.Gguf("a.gguf", _ => { }, version: 4)), Does.Contain("version 4"));
        Assert.That(CheckpointFiles.Refusal(_files.Gguf("a.gguf", _ => { }, version: 0x03000000)), Does.Contain("big-endian"));
        Assert.That(CheckpointFiles.Refusal(_files.Text("a.gguf", "tjgg and more")), Does.Contain("before GGUF"));
    }

    [Test]
    public void Broken_metadata_is_refused_naming_the_key()
    {
        Refuses(bytes => bytes.Text("a").U32(13).U32(0), "'a'", "value type 13");
        Refuses(bytes => bytes.Text("a").U32(7).Raw(2), "'a'", "truth value 2");
        Refuses(bytes => bytes.Text("a").U32(9).U32(7).U64(1).Raw(2), "'a'", "truth value 2");
        Refuses(bytes => bytes.Text("a").U32(9).U32(13).U64(1).Raw(2), "'a'", "value type 13");
        Refuses(bytes => bytes.Text("a").U32(8).U64(ulong.MaxValue), "'a'", "18446744073709551615 bytes");
        Refuses(bytes => bytes.Text("a").U32(9).U32(8).U64(1 << 30).Raw(new byte[64]), "'a'", "1073741824");
        Refuses(bytes => bytes.Text("a").U32(9).U32(12).U64(ulong.MaxValue / 8).Raw(new byte[64]), "'a'", "elements");
        Refuses(bytes => bytes.Text("a").U32(4).Raw(1), "'a'", "ends within");
        Refuses(bytes => bytes.U64(1).Raw(0xFF).U32(4).U32(0), "UTF-8");
        Refuses(bytes => bytes.Text("").U32(4).U32(0).U32(0), "without a key");
        Refuses(bytes => bytes.Text("a").U32(4).U32(0).Text("a").U32(4).U32(0), 2, "'a'", "twice");
        Refuses(bytes =>
        {
            bytes.Text("a").U32(9);
            for (var i = 0; i < 100_000; i++)
                bytes.U32(9).U64(1);
        }, "'a'", "nests");
        Refuses(_ => { }, 1 << 30, "1073741824 metadata pairs");
    }

    [Test]
    public void Broken_text_in_a_value_does_not_make_a_model_unusable()
    {
        using var file = (GgufCheckpoint)Checkpoint.Open(_files.Gguf("a.gguf", bytes => bytes.Text("a").U32(8).U64(2).Raw((byte)'x', 0xFF), pairs: 1));
        Assert.That(file.GetString("a"), Is.EqualTo("x\uFFFD"));
    }

    [Test]
    public void Broken_tensor_tables_are_refused_naming_the_tensor()
    {
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 1, 1, 1, 1, 1), "'x'", "5 dimensions");
        RefusesTensor(bytes => bytes.Tensor("x", 16, 0, 256).Tensor("y", 99, 32, 1), 2, "'x' of type 16 (IQ2_XXS), 'y' of type 99 (unknown)");
        RefusesTensor(bytes => bytes.Tensor("x", 2, 0, 33), "'x'", "blocks of 32");
        RefusesTensor(bytes => bytes.Tensor("x", 12, 0, 128, 2), "'x'", "blocks of 256");
        RefusesTensor(bytes => bytes.Tensor("x", 2, 0), "'x'", "blocks of 32");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 16, 1), "'x'", "alignment");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 64, 1), "'x'", "within the file");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 17), "'x'", "within the file");
        RefusesTensor(bytes => bytes.Tensor("x", 0, ulong.MaxValue - 31, 1), "'x'", "within the file");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 1UL << 62), "'x'", "impossible shape");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 1UL << 32, 1UL << 32), "'x'", "impossible shape");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, ulong.MaxValue), "'x'", "impossible shape");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 9).Tensor("y", 0, 32, 1), 2, "'x' and 'y' overlap");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 1).Tensor("x", 24, 32, 1), 2, "'x' twice");
        RefusesTensor(bytes => bytes.Tensor("", 0, 0, 1).Raw(0), "without a name");
        RefusesTensor(bytes => bytes.Tensor("x", 0, 0, 1), 1 << 28, "268435456 tensors");

        foreach (var alignment in new uint[] { 0, 48 })
            Assert.That(CheckpointFiles.Refusal(_files.Gguf("a.gguf", bytes => bytes.Text("general.alignment").U32(4).U32(alignment), pairs: 1)), Does.Contain("general.alignment"));
        Assert.That(CheckpointFiles.Refusal(_files.Gguf("a.gguf", bytes => bytes.Text("general.alignment").U32(8).Text("32"), pairs: 1)), Does.Contain("general.alignment"));
    }

    [Test]
    public void Opens_the_fixtures_and_the_real_model()
    {
        using (var model = (GgufCheckpoint)Checkpoint.Open(Shared.Path("fixtures", "models", "llava-gqa-gguf")))
        {
            Assert.That(model.Path, Does.EndWith("model-bf16.gguf"));
            Assert.That(model.GetString("general.architecture"), Is.EqualTo("llama"));
            using var twin = Checkpoint.Open(Shared.Path("fixtures", "models", "llava-gqa"));
            Assert.That(model.Tensors["token_embd.weight"].Shape, Is.EqualTo(twin.Tensors.Values.Single(tensor => tensor.Name.EndsWith("embed_tokens.weight")).Shape));
            Assert.That(model.GetArray<string>("tokenizer.ggml.tokens"), Has.Length.EqualTo(model.Tensors["token_embd.weight"].Shape[0]));
        }
        using (var projector = (GgufCheckpoint)Checkpoint.Open(Shared.Path("fixtures", "models", "llava-gqa-gguf", "mmproj-bf16.gguf")))
            Assert.That(projector.GetArray<float>("clip.vision.image_mean"), Has.Length.EqualTo(3));
        using var smol = (GgufCheckpoint)Checkpoint.Open(Shared.Path("models", "SmolLM2-135M-Instruct.Q4_1.gguf"));
        Assert.That(smol.Tensors, Has.Count.EqualTo(272));
        Assert.That(smol.GetUInt("llama.block_count"), Is.EqualTo(30));
        Assert.That(smol.Tensors.Values.Select(tensor => tensor.Type), Does.Contain(DType.Q4_1));
    }

    private void Refuses(Action<GgufBytes> write, params string[] reasons) => Refuses(write, 1, reasons);

    private void Refuses(Action<GgufBytes> write, int pairs, params string[] reasons) => Expect(_files.Gguf("a.gguf", write, pairs: pairs), reasons);

    private void RefusesTensor(Action<GgufBytes> write, params string[] reasons) => RefusesTensor(write, 1, reasons);

    private void RefusesTensor(Action<GgufBytes> write, int tensors, params string[] reasons) => Expect(_files.Gguf("a.gguf", bytes =>
    {
        write(bytes);
        bytes.Align().Raw(new byte[64]);
    }, tensors), reasons);

    private static void Expect(string path, string[] reasons)
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        var message = CheckpointFiles.Refusal(path);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(1 << 20));
        foreach (var reason in reasons)
            Assert.That(message, Does.Contain(reason).And.StartWith(path));
    }
}
