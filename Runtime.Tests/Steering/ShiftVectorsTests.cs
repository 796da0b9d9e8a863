using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Steering;
using Trimtab.Tests.Checkpoints;

namespace Trimtab.Tests.Steering;

public class ShiftVectorsTests
{
    private CheckpointFiles _files = null!;

    [SetUp]
    public void Make() => _files = new();

    [TearDown]
    public void Remove() => _files.Dispose();

    [Test]
    public void Safetensors_keep_layers_metadata_and_hash()
    {
        var vectors = ShiftVectors.Create([null, [1, 2], null, [3, -0f], null], new Dictionary<string, string> { ["method"] = "mean", [ShiftVectors.FingerprintKey] = "abc" });
        Assert.That(vectors.Save(_files.At("v.safetensors")), Is.Empty);
        var read = ShiftVectors.Open(_files.At("v.safetensors"));
        Assert.That(read.Layers, Is.EqualTo(5));
        Assert.That(read.HiddenSize, Is.EqualTo(2));
        Assert.That(read[1].IsEmpty && read[3].IsEmpty && read[5].IsEmpty && read[6].IsEmpty);
        Assert.That(read[2].ToArray(), Is.EqualTo(new[] { 1f, 2 }));
        Assert.That(read[4].ToArray(), Is.EqualTo(new[] { 3f, 0 }));
        Assert.That(read.Metadata["method"], Is.EqualTo("mean"));
        Assert.That(read.Hash, Is.EqualTo(vectors.Hash).And.Length.EqualTo(64));
        Assert.That(() => read[0].Length, Throws.TypeOf<ArgumentOutOfRangeException>());
        using var file = Checkpoint.Open(_files.At("v.safetensors"));
        Assert.That(file.Tensors.Keys, Is.EquivalentTo(new[] { "direction.2", "direction.4" }));
    }

    [Test]
    public void The_hash_is_of_the_layers_alone()
    {
        var hash = ShiftVectors.Create([[1, 2], [3, 4]]).Hash;
        Assert.That(ShiftVectors.Create([[1, 2], [3, 4], null], new Dictionary<string, string> { ["a"] = "b" }).Hash, Is.EqualTo(hash));
        Assert.That(ShiftVectors.Create([[1, 2], null, [3, 4]]).Hash, Is.Not.EqualTo(hash));
        Assert.That(ShiftVectors.Create([[1, 2], [3, 5]]).Hash, Is.Not.EqualTo(hash));
    }

    [Test]
    public void Control_vectors_turn_the_sign_and_move_the_layer()
    {
        var vectors = ShiftVectors.Create([[9, 9], [1, -2], null, [3, 4]], new Dictionary<string, string> { ["method"] = "pc" });
        Assert.That(vectors.Save(_files.At("v.GGUF")), Has.Count.EqualTo(1).And.One.Contains("layer 1 cannot be written"));
        using (var file = (GgufCheckpoint)Checkpoint.Open(_files.At("v.GGUF")))
        {
            Assert.That(file.GetString("general.architecture"), Is.EqualTo("controlvector"));
            Assert.That(file.GetUInt("controlvector.layer_count"), Is.EqualTo(3));
            Assert.That(file.Metadata.ContainsKey("controlvector.model_hint"));
            Assert.That(file.Tensors.Keys, Is.EquivalentTo(new[] { "direction.1", "direction.3" }));
            Assert.That(SafetensorsTests.Floats(file, "direction.1"), Is.EqualTo(new[] { -1f, 2 }));
        }
        var read = ShiftVectors.Open(_files.At("v.GGUF"));
        Assert.That(read.Layers, Is.EqualTo(4));
        Assert.That(read[1].IsEmpty && read[3].IsEmpty);
        Assert.That(read[2].ToArray(), Is.EqualTo(new[] { 1f, -2 }));
        Assert.That(read[4].ToArray(), Is.EqualTo(new[] { 3f, 4 }));
        Assert.That(read.Metadata["method"], Is.EqualTo("pc"));
        Assert.That(read.Save(_files.At("w.gguf")), Is.Empty);
        Assert.That(ShiftVectors.Open(_files.At("w.gguf")).Hash, Is.EqualTo(read.Hash));
        Assert.That(() => ShiftVectors.Create([[1, 2], null]).Save(_files.At("x.gguf")), Throws.ArgumentException.With.Message.Contains("layer 1"));
        Assert.That(() => vectors.Save(_files.At("x.npz")), Throws.ArgumentException.With.Message.Contains(".safetensors"));
        Assert.That(Directory.GetFiles(_files.Folder), Has.Length.EqualTo(2));
    }

    [Test]
    public void Llama_cpps_file_holds_the_fixtures_vectors()
    {
        var path = Shared.Path("fixtures", "expected", "llava-gqa.controlvector.gguf");
        var vectors = ShiftVectors.Open(path);
        using var expected = Checkpoint.Open(Shared.Path("fixtures", "expected", "llava-gqa.safetensors"));
        var all = SafetensorsTests.Floats(expected, "vectors"); // [L, D]
        Assert.That(vectors.Layers, Is.EqualTo(4));
        Assert.That(vectors.HiddenSize, Is.EqualTo(64));
        Assert.That(vectors[1].IsEmpty);
        for (var layer = 2; layer <= 4; layer++)
            Assert.That(vectors[layer].ToArray(), Is.EqualTo(all[((layer - 1) * 64)..(layer * 64)]));
        Assert.That(vectors.Metadata["model_hint"], Is.EqualTo("llama"));
        vectors.Check(4, 64, "whatever");

        // Through our own form and back, the file is the same but for the layout of its metadata.
        vectors.Save(_files.At("v.safetensors"));
        Assert.That(ShiftVectors.Open(_files.At("v.safetensors")).Save(_files.At("v.gguf")), Is.Empty);
        Assert.That(File.ReadAllBytes(_files.At("v.gguf")), Is.EqualTo(File.ReadAllBytes(path)));
    }

    [Test]
    public void Projections_and_operating_point_survive_both_forms([Values("v.safetensors", "v.gguf")] string name)
    {
        var vectors = ShiftVectors.Create([[1, 2], [3, 4], null], new Dictionary<string, string>
        {
            [ShiftVectors.ProjectionMeansKey] = "[1, 2.5, 0]",
            [ShiftVectors.ProjectionSigmasKey] = "[0.5,1e-1,0]",
        });
        Assert.That(vectors.OperatingPoint, Is.Null);
        Assert.That(SteeringOptions.Of(vectors), Is.EqualTo(new SteeringOptions(vectors)));
        var point = new OperatingPoint(0.1f, SteeringScope.Prefill, new([1, 2]));
        vectors.With(point).Save(_files.At(name));
        var read = ShiftVectors.Open(_files.At(name));
        Assert.That(read.OperatingPoint, Is.EqualTo(point));
        Assert.That(read.Projections, Is.EqualTo(new Projection[] { new(1, 0.5), new(2.5, 0.1), new(0, 0) }));
        Assert.That(SteeringOptions.Of(read), Is.EqualTo(new SteeringOptions(read, 0.1f, SteeringScope.Prefill, new([1, 2])) { Calibrated = true }));
        Assert.That(read.With(point with { Layers = null }).OperatingPoint!.Layers, Is.Null);
        Assert.That(ShiftVectors.Create([[1, 2]]).Projections, Is.Null);
    }

    [TestCase("alpha", "much"), TestCase("alpha", "NaN"), TestCase("alpha", "1", "scope", "some"), TestCase("alpha", "1", "layers", "2-1")]
    [TestCase("stats.projection_mean", "[1,2]"), TestCase("stats.projection_mean", "[1,2]", "stats.projection_sigma", "[1]")]
    [TestCase("stats.projection_mean", "[1,2]", "stats.projection_sigma", "[1,-2]"), TestCase("stats.projection_mean", "[1,1e999]", "stats.projection_sigma", "[1,2]")]
    [TestCase("stats.projection_mean", "[1,\"2\"]", "stats.projection_sigma", "[1,2]"), TestCase("stats.projection_mean", "[1,", "stats.projection_sigma", "[1,2]")]
    public void Damaged_statistics_and_operating_points_are_refused_by_key(params string[] pairs)
    {
        SafetensorsWriter.Write(_files.At("v.safetensors"), [TensorData.Of("direction.1", [1], new float[1]), TensorData.Of("direction.2", [1], new float[1])],
            pairs.Chunk(2).ToDictionary(pair => pair[0], pair => pair[1]));
        Assert.That(() => ShiftVectors.Open(_files.At("v.safetensors")), Throws.TypeOf<InvalidCheckpointException>()
            .With.Message.StartsWith(_files.At("v.safetensors")).And.Message.Contains("metadata").And.Message.Contains(pairs.Length == 2 ? pairs[0] : pairs[^2][..5]));
    }

    [Test]
    public void A_cap_moves_the_projection_and_nothing_else()
    {
        var anchors = ShiftVectors.Create([[0, 2], [3, 4], [0, 0], null], new Dictionary<string, string>
        {
            [ShiftVectors.ProjectionMeansKey] = "[2,5,0,0]",
            [ShiftVectors.ProjectionSigmasKey] = "[0.5,1,0,0]",
        });
        var own = ShiftVectors.Create([[7, 9], [3, 4], [1, 1], [2, 2]]);
        var capped = own.Cap(anchors, 2);
        Assert.That(capped[1].ToArray(), Is.EqualTo(new float[] { 7, 3 }), "9 is above 2 + 2 · 0.5");
        Assert.That(capped[2].ToArray(), Is.EqualTo(new float[] { 3, 4 }), "within");
        Assert.That(capped[3].ToArray(), Is.EqualTo(new float[] { 1, 1 }), "no direction");
        Assert.That(capped[4].ToArray(), Is.EqualTo(new float[] { 2, 2 }), "no vector");
        Assert.That(ShiftVectors.Create([[7, -9], [3, 4], null, null]).Cap(anchors, 0)[1].ToArray(), Is.EqualTo(new float[] { 7, 2 }));
        Assert.That(() => own.Cap(ShiftVectors.Create([[1, 1]]), 1), Throws.ArgumentException.With.Message.Contains("statistics"));
        Assert.That(() => own.Cap(anchors, -1), Throws.ArgumentException);
        Assert.That(() => own.Cap(anchors, double.NaN), Throws.ArgumentException);
    }

    [Test]
    public void Half_precision_is_read()
    {
        SafetensorsWriter.Write(_files.At("v.safetensors"), [TensorData.Of("direction.3", DType.BF16, [2], new byte[] { 0x80, 0x3F, 0x20, 0xC0 }), TensorData.Of("direction.1", DType.F16, [2], new byte[] { 0, 0x3C, 0, 0xBC })]);
        var vectors = ShiftVectors.Open(_files.At("v.safetensors"));
        Assert.That(vectors[1].ToArray(), Is.EqualTo(new[] { 1f, -1 }));
        Assert.That(vectors[3].ToArray(), Is.EqualTo(new[] { 1f, -2.5f }));
        Assert.That(vectors.Metadata, Is.Empty);
        vectors.Check(3, 2, "any");
        vectors.Check(7, 2, null);
    }

    [Test]
    public void Vectors_that_do_not_fit_the_model_are_refused()
    {
        var path = _files.At("v.safetensors");
        ShiftVectors.Create([[1, 2], null, [3, 4], null], new Dictionary<string, string> { [ShiftVectors.FingerprintKey] = "abc" }).Save(path);
        var vectors = ShiftVectors.Open(path);
        vectors.Check(4, 2, "abc");
        vectors.Check(4, 2, null);
        vectors.Check(4, 2, "other", force: true);
        Refuses(() => vectors.Check(4, 2, "other"), "'abc'", "'other'");
        Refuses(() => vectors.Check(4, 3, "abc"), "2 wide", "expects 3");
        Refuses(() => vectors.Check(4, 3, "abc", force: true), "2 wide");
        Refuses(() => vectors.Check(2, 2, "abc", force: true), "layer 3", "2 layers");
        Refuses(() => vectors.Check(3, 2, "abc"), "4 layers", "3");
        Refuses(() => vectors.Check(5, 2, "abc"), "4 layers", "5");

        void Refuses(Action check, params string[] reasons)
        {
            var message = Assert.Throws<InvalidCheckpointException>(check)!.Message;
            Assert.That(message, Does.StartWith(path));
            foreach (var reason in reasons)
                Assert.That(message, Does.Contain(reason));
        }
    }

    [Test]
    public void Files_that_are_no_vectors_are_refused()
    {
        Refuses("direction.1", "NaN", TensorData.Of("direction.1", [2], new[] { 1, float.NaN }));
        Refuses("direction.2", "element 0", TensorData.Of("direction.2", [2], new[] { float.PositiveInfinity, 1 }));
        Refuses("direction.2", "3 wide", TensorData.Of("direction.1", [2], new float[2]), TensorData.Of("direction.2", [3], new float[3]));
        Refuses("direction.1", "[1, 2]", TensorData.Of("direction.1", [1, 2], new float[2]));
        Refuses("direction.1", "[0]", TensorData.Of("direction.1", [0], Array.Empty<float>()));
        Refuses("direction.1", "I32", TensorData.Of("direction.1", DType.I32, [1], new byte[4]));
        foreach (var name in new[] { "direction.0", "direction.-1", "direction.01", "direction.+1", "direction. 1", "direction.", "direction.x", "Direction.1", "mean", "direction.10001", "direction.4294967297", "direction.1.bias" })
            Refuses($"'{name}'", "direction.N", TensorData.Of("direction.1", [2], new float[2]), TensorData.Of(name, [2], new float[2]));
        Refuses("direction.N", "no tensor");
        foreach (var layers in new[] { "1", "x", "-3", "10001", "99999999999" })
        {
            SafetensorsWriter.Write(_files.At("v.safetensors"), [TensorData.Of("direction.2", [2], new float[2])], new Dictionary<string, string> { [ShiftVectors.LayersKey] = layers });
            Assert.That(Refusal("v.safetensors"), Does.Contain($"'{layers}'").And.Contain(ShiftVectors.LayersKey));
        }
        GgufWriter.Write(_files.At("m.gguf"), [new("general.architecture", "llama")], [TensorData.Of("direction.1", [2], new float[2])]);
        Assert.That(Refusal("m.gguf"), Does.Contain("'llama'").And.Contain("'controlvector'"));
        GgufWriter.Write(_files.At("z.gguf"), [new("general.architecture", "controlvector")], [TensorData.Of("direction.0", [2], new float[2])]);
        Assert.That(Refusal("z.gguf"), Does.Contain("'direction.0'"));
        Assert.That(Refusal("gone.safetensors"), Does.Contain("no such file"));
        Assert.That(Refusal("."), Does.Contain("folder"));

        Assert.That(() => ShiftVectors.Create([]), Throws.ArgumentException);
        Assert.That(() => ShiftVectors.Create([null, null]), Throws.ArgumentException);
        Assert.That(() => ShiftVectors.Create([[]]), Throws.ArgumentException);
        Assert.That(() => ShiftVectors.Create([[1], [1, 2]]), Throws.ArgumentException.With.Message.Contains("layer 2"));
        Assert.That(() => ShiftVectors.Create([null, [float.NaN]]), Throws.ArgumentException.With.Message.Contains("layer 2"));

        void Refuses(string what, string reason, params TensorData[] tensors)
        {
            if (tensors.GroupBy(tensor => tensor.Name).Any(group => group.Count() > 1))
                tensors = tensors[1..];
            SafetensorsWriter.Write(_files.At("v.safetensors"), tensors);
            Assert.That(Refusal("v.safetensors"), Does.Contain(what).And.Contain(reason));
        }

        string Refusal(string name) => Assert.Throws<InvalidCheckpointException>(() => ShiftVectors.Open(_files.At(name)))!.Message;
    }
}
