using System.Runtime.InteropServices;
using System.Text;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Model;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Checkpoints;

/// <summary>GPTQ, AWQ and scaled FP8, packed here as their papers and first programs do, against their definitions in double precision.</summary>
public class QuantizedCheckpointTests
{
    private const int Out = 24, In = 128;

    private string _folder = null!;

    [SetUp]
    public void Make() => _folder = Directory.CreateTempSubdirectory("trimtab-quantised-").FullName;

    [TearDown]
    public void Delete() => Directory.Delete(_folder, true);

    /// <summary>Random codes, zeros, scales; their packed tensors, and the values that they stand for.</summary>
    private sealed class Matrix
    {
        public readonly List<TensorData> Tensors = [];
        public readonly double[] Values;
        public readonly float LargestScale;

        public Matrix(string stem, QuantizationForm form, int rows, int columns, int seed)
        {
            var random = new Random(seed);
            Values = new double[rows * columns];
            if (form.Method == QuantizationMethod.Fp8)
            {
                var bytes = new byte[rows * columns];
                random.NextBytes(bytes);
                for (var i = 0; i < bytes.Length; i++)
                    if ((bytes[i] & 0x7F) == 0x7F) // no number
                        bytes[i] = 0x38;
                var codes = new float[bytes.Length];
                Blocks.Dequantize(DType.F8E4M3, bytes, codes);
                var byRow = form.GroupSize == 1;
                float[] factors = [.. Enumerable.Range(0, byRow ? rows : 1).Select(_ => random.NextSingle() / 1000)];
                for (var i = 0; i < Values.Length; i++)
                    Values[i] = (double)codes[i] * factors[byRow ? i / columns : 0];
                Tensors.Add(TensorData.Of(stem + ".weight", DType.F8E4M3, [rows, columns], bytes));
                Tensors.Add(TensorData.Of(stem + ".weight_scale", byRow ? [rows, 1] : [1], factors));
                Tensors.Add(TensorData.Of(stem + ".input_scale", [1], new float[] { 0.5f }));
                return;
            }
            var size = form.GroupSize == 0 ? columns : form.GroupSize;
            var groups = columns / size;
            int[] group = [.. Enumerable.Range(0, columns).Select(i => i / size)];
            if (form.ActOrder)
                random.Shuffle(group);
            var scales = new Half[groups * rows];
            for (var i = 0; i < scales.Length; i++)
                scales[i] = (Half)(0.001f + 0.02f * random.NextSingle());
            LargestScale = (float)scales.Max();
            int[] zeros = [.. Enumerable.Range(0, groups * rows).Select(_ => form.Symmetric ? 8 : form.ZeroOffset + random.Next(16))];
            int[,] code = new int[rows, columns];
            for (var o = 0; o < rows; o++)
                for (var i = 0; i < columns; i++)
                {
                    code[o, i] = random.Next(16);
                    Values[o * columns + i] = (code[o, i] - zeros[group[i] * rows + o]) * (double)scales[group[i] * rows + o];
                }
            var awq = form.Method == QuantizationMethod.Awq;
            int[] order = awq ? [0, 2, 4, 6, 1, 3, 5, 7] : [0, 1, 2, 3, 4, 5, 6, 7];
            var words = new uint[rows * columns / 8];
            for (var w = 0; w < words.Length; w++)
                for (var k = 0; k < 8; k++)
                    words[w] |= (uint)(awq ? code[w % (rows / 8) * 8 + order[k], w / (rows / 8)] : code[w % rows, w / rows * 8 + k]) << 4 * k;
            var packedZeros = new uint[groups * rows / 8];
            for (var w = 0; w < packedZeros.Length; w++)
                for (var k = 0; k < 8; k++)
                    packedZeros[w] |= (uint)(zeros[w / (rows / 8) * rows + w % (rows / 8) * 8 + order[k]] - form.ZeroOffset) << 4 * k;
            Tensors.Add(TensorData.Of(stem + ".qweight", DType.I32, awq ? [columns, rows / 8] : [columns / 8, rows], MemoryMarshal.AsBytes(words.AsSpan()).ToArray()));
            Tensors.Add(TensorData.Of(stem + ".qzeros", DType.I32, [groups, rows / 8], MemoryMarshal.AsBytes(packedZeros.AsSpan()).ToArray()));
            Tensors.Add(TensorData.Of(stem + ".scales", DType.F16, [groups, rows], MemoryMarshal.AsBytes(scales.AsSpan()).ToArray()));
            if (!awq)
                Tensors.Add(TensorData.Of(stem + ".g_idx", DType.I32, [columns], MemoryMarshal.AsBytes(group.AsSpan()).ToArray()));
        }
    }

    private static readonly QuantizationForm[] Forms =
    [
        new(QuantizationMethod.Gptq, 32, ZeroOffset: 1), new(QuantizationMethod.Gptq, 64, Symmetric: true, ZeroOffset: 1), new(QuantizationMethod.Gptq, 0),
        new(QuantizationMethod.Gptq, 32, ActOrder: true, ZeroOffset: 1), new(QuantizationMethod.Gptq, 64, Symmetric: true, ActOrder: true),
        new(QuantizationMethod.Awq, 64), new(QuantizationMethod.Awq, 128), new(QuantizationMethod.Fp8), new(QuantizationMethod.Fp8, 1),
    ];

    [Test]
    public void Matrices_are_what_they_stand_for([ValueSource(nameof(Forms))] QuantizationForm form)
    {
        var matrix = new Matrix("a.b", form, Out, In, 1);
        var path = Path.Combine(_folder, "model.safetensors");
        SafetensorsWriter.Write(path, [.. matrix.Tensors, TensorData.Of("norm.weight", [4], new float[] { 1, 2, 3, 4 })]);
        using var checkpoint = QuantizedCheckpoint.Of(Checkpoint.Open(path), form);
        Assert.That(checkpoint.Tensors.Keys, Is.EquivalentTo(new[] { "a.b.weight", "norm.weight" }));
        using var mapped = checkpoint.Map("a.b.weight");
        Assert.That((mapped.Info.Type, mapped.Info.Shape), Is.EqualTo((form.Target, new long[] { Out, In })));
        var actual = new float[Out * In];
        Blocks.Dequantize(mapped.Info.Type, mapped.Span, actual);
        for (var i = 0; i < actual.Length; i++)
        {
            var block = matrix.Values[(i / 32 * 32)..(i / 32 * 32 + 32)].Max(Math.Abs);
            // A scale of Q8_0 is itself a binary16, whose rounding 127 steps multiply.
            var bound = form.Target switch
            {
                DType.Q4_0 => 1e-7,
                DType.Q4_1 => matrix.LargestScale / 128,
                DType.Q8_0 => block * (1 / 254.0 + 1 / 2048.0),
                _ => Math.Abs(matrix.Values[i]) / 256 + 1e-9,
            };
            Assert.That(Math.Abs(actual[i] - matrix.Values[i]), Is.LessThanOrEqualTo(bound), $"element {i}");
        }
        using var exact = checkpoint.MapExact("a.b.weight", (_, _) => true, out var factors);
        Assert.That(exact is null, Is.EqualTo(form.Exact(In) == form.Target));
        if (exact is not null)
        {
            Assert.That((exact.Info.Type, exact.Bytes), Is.EqualTo((form.Exact(In), Out * form.Exact(In).RowBytes(In))));
            Blocks.Dequantize(exact.Info.Type, exact.Span, actual);
            for (var i = 0; i < actual.Length; i++)
                Assert.That((double)actual[i] * (factors.Length == 0 ? 1 : factors[i / In]), Is.EqualTo(matrix.Values[i]), $"element {i}");
        }
        Assert.That(checkpoint.MapExact("a.b.weight", (_, _) => false, out _), Is.Null);
        Assert.That(checkpoint.MapExact("norm.weight", (_, _) => true, out _), Is.Null);
        using var norm = checkpoint.Map("norm.weight");
        Assert.That(norm.ToFloats(), Is.EqualTo(new[] { 1f, 2, 3, 4 }));
    }

    [TestCase(32, true, DType.Q4_0), TestCase(64, true, DType.Q4_0), TestCase(128, true, DType.I4G128), TestCase(32, false, DType.I4G32), TestCase(96, false, DType.I4G32)]
    [TestCase(64, false, DType.I4G64), TestCase(192, false, DType.I4G64), TestCase(128, false, DType.I4G128), TestCase(256, false, DType.I4G128), TestCase(0, false, DType.I4G64)]
    public void Groups_are_kept_in_the_largest_that_divide_them(int group, bool symmetric, DType expected)
    {
        Assert.That(new QuantizationForm(QuantizationMethod.Gptq, group, symmetric).Exact(192), Is.EqualTo(expected));
        Assert.That(new QuantizationForm(QuantizationMethod.Gptq, group, symmetric, ActOrder: true).Exact(192), Is.EqualTo(DType.Q8_0));
    }

    /// <summary>A whole quantised model beside the same in float32.</summary>
    [TestCase("""{"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false, "sym": false}""", 0)]
    [TestCase("""{"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": true, "sym": true, "checkpoint_format": "gptq_v2"}""", 4)]
    [TestCase("""{"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": "gemm"}""", 5)]
    [TestCase(Fp8, 8)]
    public void Models_answer_as_their_plain_forms(string quantization, int formIndex)
    {
        var form = Forms[formIndex] with { GroupSize = formIndex == 5 ? 32 : Forms[formIndex].GroupSize };
        using var plain = VisionLanguageModel.Open(Write("plain", form, null), new() { WeightType = DType.F32, Threads = 2 });
        using var quantised = VisionLanguageModel.Open(Write("quantised", form, quantization), new() { Threads = 2 });
        Assert.That(quantised.Network.Notes, Has.Some.Contains(form.Target.ToString()));
        Assert.That(quantised.Network.Fingerprint, Is.EqualTo(plain.Network.Fingerprint));
        var options = new Trimtab.Engine.GenerationOptions { MaxTokens = 1, Capture = true };
        var (a, b) = (Outcome.Run(quantised, [(quantised.Raw("the rain in"), options)])[0], Outcome.Run(plain, [(plain.Raw("the rain in"), options)])[0]);
        var spread = b.Logits[0].Max() - b.Logits[0].Min();
        Assert.That(a.Logits[0].Zip(b.Logits[0], (x, y) => Math.Abs(x - y)).Max() / spread, Is.LessThan(form.Target == DType.Q4_1 ? 3e-3 : 3e-2));
    }

    private const string Fp8 = """{"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}}""";

    /// <summary>
    /// A device that computes int4 groups and E4M3 gets codes, zeros and scales as they are stored: nothing is rounded. Rows of 64 and 128: a
    /// group, two and four a row.
    /// </summary>
    [TestCase(5, """{"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": true, "version": "gemm"}""")]
    [TestCase(0, """{"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false, "sym": false}""")]
    [TestCase(2, """{"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": false, "sym": false, "checkpoint_format": "gptq_v2"}""")]
    [TestCase(7, Fp8), TestCase(8, Fp8)]
    public void Quantised_weights_are_computed_as_they_are_stored(int formIndex, string quantization)
    {
        var device = Trimtab.Tests.Cuda.EmulatedCuda.Get();
        using var plain = VisionLanguageModel.Open(Write("plain", Forms[formIndex], null), new() { WeightType = DType.F32, Threads = 2 });
        using var quantised = VisionLanguageModel.Open(Write("quantised", Forms[formIndex], quantization), new() { Device = device });
        Assert.That(quantised.Network.Notes, Is.EqualTo(new[] { Forms[formIndex].Note(Forms[formIndex].Exact(64)) }).And.Some.Contains("exact"));
        var options = new Trimtab.Engine.GenerationOptions { MaxTokens = 1, Capture = true };
        var (a, b) = (Outcome.Run(quantised, [(quantised.Raw("the rain in"), options)])[0], Outcome.Run(plain, [(plain.Raw("the rain in"), options)])[0]);
        var spread = b.Logits[0].Max() - b.Logits[0].Min();
        Assert.That(a.Logits[0].Zip(b.Logits[0], (x, y) => Math.Abs(x - y)).Max() / spread, Is.LessThan(2e-5));
    }

    /// <summary>Four heads of 16 between two devices: 32 columns each of o's rows of 64, which are two groups of 32, or one of 64 that would be cut.</summary>
    [Test]
    public void Devices_divide_layers_between_groups()
    {
        Device[] ranks = [new Trimtab.Kernels.Reference.ReferenceDevice(), new Trimtab.Kernels.Reference.ReferenceDevice()];
        using var device = new TensorParallelDevice(ranks, new Trimtab.Tests.Kernels.HostCommunicator(ranks));
        const string Awq = """{"quant_method": "awq", "bits": 4, "group_size": $, "zero_point": true, "version": "gemm"}""";
        var form = Forms[5] with { GroupSize = 32 };
        using var plain = VisionLanguageModel.Open(Write("plain", form, null), new() { WeightType = DType.F32, Threads = 2 });
        using var divided = VisionLanguageModel.Open(Write("quantised", form, Awq.Replace("$", "32", StringComparison.Ordinal)), new() { Device = device });
        var options = new Trimtab.Engine.GenerationOptions { MaxTokens = 1, Capture = true };
        var (a, b) = (Outcome.Run(divided, [(divided.Raw("the rain in"), options)])[0], Outcome.Run(plain, [(plain.Raw("the rain in"), options)])[0]);
        Assert.That(a.Logits[0].Zip(b.Logits[0], (x, y) => Math.Abs(x - y)).Max() / (b.Logits[0].Max() - b.Logits[0].Min()), Is.LessThan(2e-5));
        Assert.That(() => VisionLanguageModel.Open(Write("cut", form with { GroupSize = 64 }, Awq.Replace("$", "64", StringComparison.Ordinal)), new() { Device = device }),
            Throws.TypeOf<Trimtab.Model.UnsupportedModelException>().With.Message.Contains("o_proj").And.Message.Contains("blocks of 64"));
    }

    [Test]
    public void A_code_that_is_no_number_is_named_with_its_tensor()
    {
        var folder = Write("bad", Forms[7], Fp8);
        var path = Path.Combine(folder, "model.safetensors");
        var bytes = File.ReadAllBytes(path);
        using (var checkpoint = Checkpoint.Open(path))
            bytes[checkpoint.Tensors["model.layers.1.self_attn.o_proj.weight"].Offset] = 0x7F;
        File.WriteAllBytes(path, bytes);
        Assert.That(() => VisionLanguageModel.Open(folder, new() { Device = Trimtab.Tests.Cuda.EmulatedCuda.Get() }),
            Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("model.layers.1.self_attn.o_proj.weight: ").And.Message.Contains("element 0 of row 0"));
    }

    [Test]
    public unsafe void What_is_no_number_and_scales_of_other_rows_are_refused()
    {
        var device = Trimtab.Tests.Cuda.EmulatedCuda.Get();
        byte[] codes = [1, 2, 3, 0xFF];
        fixed (byte* p = codes)
        {
            var data = new WeightData(DType.F8E4M3, 2, 2, (nint)p);
            Assert.That(() => device.Pack(data), Throws.ArgumentException.With.Message.Contains("element 1 of row 1"));
            Assert.That(() => device.Pack(data with { Scales = new float[3] }), Throws.ArgumentException.With.Message.Contains("3 scales of a part of 2 rows"));
            Assert.That(() => device.Pack(data with { Type = DType.BF16, Columns = 1, Scales = new float[2] }), Throws.ArgumentException.With.Message.Contains("expected one of each row of F8E4M3"));
        }
    }

    private string Write(string name, QuantizationForm form, string? quantization)
    {
        var folder = Path.Combine(_folder, name);
        TinyModel.WriteLlava(folder); // for its tokenizer; the rest is written over
        File.Delete(Path.Combine(folder, "preprocessor_config.json"));
        using var tokenizer = System.Text.Json.JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "tokenizer.json")));
        var vocabulary = tokenizer.RootElement.GetProperty("model").GetProperty("vocab").EnumerateObject().Count();
        File.WriteAllText(Path.Combine(folder, "config.json"), $$"""
            {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "vocab_size": {{vocabulary}}, "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float16"
             {{(quantization is null ? "" : ", \"quantization_config\": " + quantization)}} }
            """);
        var tensors = new List<TensorData>();
        var random = new Random(5);
        float[] Random(int count, float scale) => [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() - 0.5f) * scale)];
        tensors.Add(TensorData.Of("model.embed_tokens.weight", [vocabulary, 64], Random(vocabulary * 64, 1)));
        tensors.Add(TensorData.Of("lm_head.weight", [vocabulary, 64], Random(vocabulary * 64, 1)));
        tensors.Add(TensorData.Of("model.norm.weight", [64], Random(64, 2)));
        for (var l = 0; l < 2; l++)
        {
            tensors.Add(TensorData.Of($"model.layers.{l}.input_layernorm.weight", [64], Random(64, 2)));
            tensors.Add(TensorData.Of($"model.layers.{l}.post_attention_layernorm.weight", [64], Random(64, 2)));
            var seed = 100 * l;
            foreach (var (part, rows, columns) in new[]
            {
                ("self_attn.q_proj", 64, 64), ("self_attn.k_proj", 32, 64), ("self_attn.v_proj", 32, 64), ("self_attn.o_proj", 64, 64),
                ("mlp.gate_proj", 128, 64), ("mlp.up_proj", 128, 64), ("mlp.down_proj", 64, 128),
            })
            {
                var matrix = new Matrix($"model.layers.{l}.{part}", form, rows, columns, ++seed);
                if (quantization is null)
                    tensors.Add(TensorData.Of($"model.layers.{l}.{part}.weight", [rows, columns], Array.ConvertAll(matrix.Values, v => (float)v)));
                else
                    tensors.AddRange(matrix.Tensors);
            }
        }
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors);
        return folder;
    }

    [Test]
    public void Parts_that_do_not_fit_are_named()
    {
        var form = Forms[0];
        var good = new Matrix("a.b", form, Out, In, 1).Tensors;
        void Refused(IEnumerable<TensorData> tensors, string what, QuantizationForm? other = null)
        {
            var path = Path.Combine(_folder, "bad.safetensors");
            SafetensorsWriter.Write(path, [.. tensors]);
            using var inner = Checkpoint.Open(path);
            Assert.That(() => QuantizedCheckpoint.Of(inner, other ?? form).Map("a.b.weight"),
                Throws.TypeOf<InvalidCheckpointException>().With.Message.Contains("a.b").And.Message.Contains(what));
        }
        Refused(good.Where(t => !t.Name.EndsWith(".scales", StringComparison.Ordinal)), "scales: absent");
        Refused(good.Where(t => !t.Name.EndsWith(".qzeros", StringComparison.Ordinal)), "qzeros: absent");
        Refused(good, "scales: F16 [4, 24]; expected [2, 24]", form with { GroupSize = 64 });
        Refused(good, "whole groups of 96", form with { GroupSize = 96 });
        Refused(good, "in a checkpoint that says it is symmetric", form with { Symmetric = true });
        Refused(new Matrix("a.b", form with { ActOrder = true }, Out, In, 1).Tensors, "as desc_act is false");
    }

    [TestCase("""{"quant_method": "gptq", "bits": 8}""", "quantization_config.bits")]
    [TestCase("""{"quant_method": "gptq", "bits": 4, "group_size": 40}""", "quantization_config.group_size")]
    [TestCase("""{"quant_method": "gptq", "checkpoint_format": "marlin"}""", "checkpoint_format")]
    [TestCase("""{"quant_method": "awq", "version": "gemv"}""", "version")]
    [TestCase("""{"quant_method": "fp8", "weight_block_size": [128, 128]}""", "weight_block_size")]
    [TestCase("""{"quant_method": "compressed-tensors", "format": "pack-quantized"}""", "format")]
    [TestCase("""{"quant_method": "bitsandbytes", "load_in_4bit": true}""", "quant_method")]
    [TestCase("""{"load_in_4bit": true}""", "quant_method")]
    public void Other_forms_are_refused_by_name(string quantization, string field) =>
        Assert.That(() => HuggingFaceConfig.Parse(Encoding.UTF8.GetBytes($$"""{"model_type": "llama", "quantization_config": {{quantization}}}"""), "tiny"),
            Throws.TypeOf<UnsupportedModelException>().With.Message.Contains(field).And.Message.Contains("supported:"));
}
