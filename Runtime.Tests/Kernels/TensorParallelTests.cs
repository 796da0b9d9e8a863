using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Kernels.Reference;
using Trimtab.Model;
using Trimtab.Tests.Golden;
using static Trimtab.Tests.Kernels.ReferenceDevicePair;

namespace Trimtab.Tests.Kernels;

/// <summary>
/// Layers that several devices divide, on processors whose sums the host adds up: whole models of every fixture are in <see cref="GoldenTests"/>
/// ("2 × cpu"), GPUs with NCCL in <see cref="Cuda.NcclTests"/>.
/// </summary>
public unsafe class TensorParallelTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Create() => _folder = Directory.CreateTempSubdirectory("trimtab-parallel-").FullName;

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    [Test]
    public void Divisions_cover_the_whole_in_units()
    {
        var even = Division.Even(11 * 16, 4, 16);
        Assert.That(Enumerable.Range(0, 4).Select(r => even[r][0]), Is.EqualTo(new[] { (0, 32), (32, 48), (80, 48), (128, 48) }));
        var joined = Division.Join(even, even.Times(2));
        Assert.That(joined[1].ToArray(), Is.EqualTo(new[] { (32, 48), (176 + 64, 96) }));
        Assert.That((joined.Count, joined.CountOf(1), joined.Ranks), Is.EqualTo((3 * 176, 144, 4)));
        Assert.That(() => Division.Even(3, 4), Throws.ArgumentException.With.Message.Contains("3 columns"));
        Assert.That(() => Division.Even(20, 2, 16), Throws.ArgumentException);
        Assert.That(() => Division.Of(10, (0, 4), (4, 7)), Throws.ArgumentException.With.Message.Contains("[4, 11) of 10"));
    }

    [TestCase(2, 32, 8, "0+16/0+4 16+16/4+4"), TestCase(2, 9, 3, "0+3/0+1 3+6/1+2"), TestCase(4, 8, 2, "0+2/0+1 2+2/0+1 4+2/1+1 6+2/1+1")]
    [TestCase(3, 4, 1, "0+1/0+1 1+1/0+1 2+2/0+1")]
    public void Key_heads_go_with_their_query_heads(int ranks, int heads, int keyValue, string expected)
    {
        var of = HeadDivision.Of(ranks, heads, keyValue, 10);
        Assert.That(string.Join(' ', Enumerable.Range(0, ranks).Select(r =>
            $"{of.Queries[r][0].First / 10}+{of.Queries[r][0].Count / 10}/{of.Keys[r][0].First / 10}+{of.Keys[r][0].Count / 10}")), Is.EqualTo(expected));
        Assert.That(of.Qkv.Count, Is.EqualTo((heads + 2 * keyValue) * 10));
        Assert.That(of.Qkv[ranks - 1][2].First, Is.EqualTo((heads + keyValue) * 10 + of.Keys[ranks - 1][0].First));
    }

    [Test]
    public void Heads_that_do_not_divide_are_refused() =>
        Assert.That(() => HeadDivision.Of(3, 8, 2, 10), Throws.TypeOf<UnsupportedModelException>().With.Message.Contains("8 query and 2 key heads").And.Message.Contains("3 devices"));

    [Test]
    public void A_divided_tensor_is_written_and_read_as_a_whole()
    {
        var device = HostCommunicator.Cpus(2);
        var heads = HeadDivision.Of(2, 3, 1, 4); // the key head is on both
        float[] values = Noise(7 * heads.Qkv.Count, 1), read = new float[values.Length];
        var tensor = device.Allocate(DType.F32, 7, heads.Qkv);
        device.Upload(values, tensor);
        device.Download(tensor, read);
        Assert.That(read, Is.EqualTo(values));
        device.Download(tensor.Slice(2, 3), read.AsSpan(0, 3 * tensor.Columns));
        Assert.That(read[..(3 * tensor.Columns)], Is.EqualTo(values[(2 * tensor.Columns)..(5 * tensor.Columns)]));
        Assert.That(() => device.Upload(values.AsSpan(1), tensor), Throws.ArgumentException.With.Message.Contains("values"));
        Assert.That(() => device.Upload(values, tensor.Reshape(tensor.Columns, 7)), Throws.ArgumentException.With.Message.Contains("divided"));
    }

    /// <summary>Rows that change places within their head, parts of other forms, scales, ranges that overlap, columns at blocks: as the weight in one piece.</summary>
    [Test]
    public void Divided_weights_multiply_as_whole_ones([Values(DType.F32, DType.BF16, DType.Q8_0, DType.Q4_K, DType.F8E4M3, DType.I4G128)] DType type)
    {
        Device[] ranks = [new ReferenceDevice(), new ReferenceDevice()];
        using var device = new TensorParallelDevice(ranks, new HostCommunicator(ranks));
        using var whole = new ReferenceDevice();
        const int Columns = 768, Tokens = 3;
        var heads = HeadDivision.Of(2, 4, 1, 6);
        var random = new Random(3);
        byte[] queries = BlocksData.Random(type, 24, Columns, random, null), keys = BlocksData.Random(DType.F16, 12, Columns, random, null);
        int[] order = [.. Enumerable.Range(0, 24).Select(row => row / 6 * 6 + (row % 6 * 5 + 1) % 6)];
        ReadOnlyMemory<float> scales = type == DType.F8E4M3 ? Noise(24, 2) : default;
        fixed (byte* q = queries, k = keys)
        {
            WeightData[] parts = [new(type, 24, Columns, (nint)q, order, scales), new(DType.F16, 12, Columns, (nint)k)];
            float[] bias = Noise(36, 5), input = Noise(Tokens * Columns, 6);
            float[] Product(Device on, Weight weight, Division rows, bool biased = true)
            {
                Tensor output = on.Allocate(on.ActivationType, Tokens, rows), b = on.Allocate(DType.F32, 1, rows);
                on.Upload(bias.AsSpan(0, rows.Count), b);
                on.Linear(output, on.Activations(input, Columns), weight, biased ? b : default, Epilogue.None);
                return on.Get(output);
            }
            var expected = Product(whole, whole.Pack(parts), Division.Whole(36));
            Assert.That(Product(device, device.PackDivided(heads.Qkv, false, parts), heads.Qkv), Is.EqualTo(expected), "by rows");
            Assert.That(Product(device, device.Pack(parts), Division.Whole(36)), Is.EqualTo(expected), "not at all");
            Close(Product(device, device.PackDivided(Division.Even(36, 2), false, parts), Division.Whole(36), false),
                Product(whole, whole.Pack(parts), Division.Whole(36), false), 0, "by rows, gathered");

            // By columns: the ranks' sums are added up, the bias once; 768 columns in blocks of 256 are 256 and 512.
            var columns = Division.Even(Columns, 2, 256);
            Tensor input2 = device.Allocate(device.ActivationType, Tokens, columns), sums = device.Allocate(device.ActivationType, Tokens, 36), b2 = device.Floats(bias, 36);
            device.Upload(input, input2);
            using var divided = device.PackDivided(columns, true, parts);
            device.Linear(sums, input2, divided, b2, Epilogue.None);
            Close(device.Get(sums), expected, 1e-6, "by columns");
            Assert.That(() => device.Linear(sums, input2, divided, b2, Epilogue.Gelu), Throws.ArgumentException.With.Message.Contains("Gelu"));
            if (type == DType.Q4_K)
                Assert.That(() => device.PackDivided(Division.Even(Columns, 2), true, parts), Throws.ArgumentException.With.Message.Contains("blocks have 256"));
            Assert.That(() => device.PackDivided(Division.Even(38, 2), false, parts), Throws.ArgumentException.With.Message.Contains("38 rows"));
        }
    }

    /// <summary>The parts of a model that the fixtures have in one form only: quantised weights, bytes in the cache, more devices than key heads.</summary>
    [TestCase(DType.Q4_1, 2), TestCase(DType.Q8_0, 2), TestCase(DType.Q4_0, 4)]
    public void Quantised_models_answer_as_on_one_device(DType type, int ranks)
    {
        var path = TinyModel.WriteGguf(Path.Combine(_folder, $"{type}-{ranks}.gguf"), type);
        using var one = VisionLanguageModel.Open(path, new() { Threads = 1 });
        using var several = VisionLanguageModel.Open(path, new() { Device = HostCommunicator.Cpus(ranks) });
        foreach (var kv in new[] { KvType.F32, KvType.Int8 })
        {
            float[] Logits(VisionLanguageModel model) =>
                Outcome.Run(model, [(model.Raw("the answer in the rain"), new GenerationOptions { MaxTokens = 2, IgnoreEos = true })], new EngineOptions { KvType = kv })[0].Logits[0];
            var (expected, actual) = (Logits(one), Logits(several));
            Close(actual, expected, kv == KvType.F32 ? 2e-5 * (expected.Max() - expected.Min()) : 0.02, $"{type}, {kv}");
        }
    }

    [Test]
    public void Blocks_that_heads_would_cut_are_refused_by_name()
    {
        var path = TinyModel.WriteGguf(Path.Combine(_folder, "cut.gguf"), DType.Q4_K); // 4 heads of 64: two devices have half a block of 256 each
        var error = Assert.Throws<UnsupportedModelException>(() => VisionLanguageModel.Open(path, new() { Device = HostCommunicator.Cpus(2) }));
        Assert.That(error!.Message, Does.Contain("cut.gguf").And.Contain("attn_output").And.Contain("blocks of 256").And.Contain("Q8_0"));
    }

    [Test]
    public void Devices_of_several_kinds_are_refused()
    {
        Device[] ranks = [new ReferenceDevice(), new CpuDevice(1)];
        Assert.That(() => new TensorParallelDevice(ranks, new HostCommunicator(ranks)), Throws.ArgumentException.With.Message.Contains("one kind"));
        foreach (var rank in ranks)
            rank.Dispose();
    }
}
