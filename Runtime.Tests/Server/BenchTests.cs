using System.Text.Json;
using Trimtab.Kernels;
using Trimtab.Server;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Server;

/// <summary>trimtab bench: what it reports, not how fast.</summary>
public class BenchTests
{
    private string _folder = null!;

    [OneTimeSetUp]
    public void Create() => _folder = Directory.CreateTempSubdirectory("trimtab-bench-").FullName;

    [OneTimeTearDown]
    public void Delete() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.RunAsync(["bench", .. args], output, error).GetAwaiter().GetResult();
        return (code, output.ToString(), error.ToString());
    }

    private static JsonElement Report(params string[] args)
    {
        var (code, output, error) = Run([.. args, "--json", "-"]);
        Assert.That(code, Is.Zero, error);
        return JsonDocument.Parse(output).RootElement;
    }

    private static List<JsonElement> Results(JsonElement report) => [.. report.GetProperty("results").EnumerateArray()];

    private static string Hash(JsonElement result) => result.GetProperty("logits_hash").GetString()!;

    /// <summary>A program that prints what llama-bench would.</summary>
    private string Script(string name, string output)
    {
        File.WriteAllText(At(name + ".out"), output);
        return OperatingSystem.IsWindows() ? $"type \"{At(name + ".out")}\"" : $"cat '{At(name + ".out")}'";
    }

    [Test]
    public void A_profile_divides_the_time_among_the_ops()
    {
        string[] args = ["--synthetic", "tiny-q4_0", "-p", "24", "-n", "3", "-r", "2", "-t", "2", "--kv", "int8", "--profile"];
        var decode = Results(Report(args))[1];
        var stages = decode.GetProperty("profile").EnumerateArray().ToList();
        Assert.That(stages.Select(s => s.GetProperty("op").GetString()), Is.SupersetOf(new[] { "Embed", "AttendPaged", "RopeStore", "ResidualNorm, junction", "Download" }));
        Assert.That(stages.Sum(s => s.GetProperty("seconds").GetDouble()), Is.LessThanOrEqualTo(decode.GetProperty("seconds").EnumerateArray().Average(s => s.GetDouble()) * 1.001));
        Assert.That(Run(args).Output, Does.Contain("| AttendPaged").And.Contain("| outside the device"));
    }

    /// <summary>A step of LLaVA-1.5-7B on paper: its matrices are read once, and data sheets say for how long.</summary>
    [Test]
    public void A_plan_adds_up_what_data_sheets_allow()
    {
        var spec = Trimtab.Model.SyntheticModel.Parse("7b-bf16").Open().Spec.Text;
        var decode = new Trimtab.Server.Benchmarks.GpuPlan(spec, Trimtab.Kernels.DType.BF16, 1, 768);
        var ops = decode.Ops(false);
        Assert.That(ops.Sum(o => o.Bytes), Is.EqualTo(2 * 6.607e9 + 2.0 * 32 * 768 * 2 * 4096).Within(1).Percent); // weights without the table, keys and values
        Assert.That(ops.Where(o => o.Op.StartsWith("Linear", StringComparison.Ordinal)).Sum(o => o.Flops), Is.EqualTo(2 * 6.607e9).Within(1).Percent);
        var h100 = Trimtab.Server.Benchmarks.GpuSheet.All[0];
        var (plain, steered) = (Trimtab.Server.Benchmarks.GpuPlan.Seconds(ops, h100), Trimtab.Server.Benchmarks.GpuPlan.Seconds(decode.Ops(true), h100));
        Assert.That(1 / plain, Is.InRange(200, 253)); // 3.35 TB/s over 13.2 GB
        Assert.That(steered / plain - 1, Is.InRange(0, 0.001));
        Assert.That(new Trimtab.Server.Benchmarks.GpuPlan(spec, Trimtab.Kernels.DType.BF16, 512, 0).Ops(false).Sum(o => o.Flops), Is.EqualTo(2 * 512 * 6.476e9).Within(3).Percent);
        var (code, output, error) = Run("--device", "cuda", "--plan", "--synthetic", "7b-bf16", "--depth", "768");
        Assert.That(code, Is.Zero, error);
        Assert.That(output, Does.Contain("decoding, 1 sequence at context 768").And.Contain("a prompt of 512 tokens").And.Contain("| H100 SXM |").And.Contain("Nothing here was measured"));
        Assert.That(Run("--plan", "--synthetic", "7b-bf16").Code, Is.EqualTo(2));

        // Bytes for keys and values, and a float a head of 128: 33 instead of 64 of 64.
        double Attended(Trimtab.Model.KvType kv) => new Trimtab.Server.Benchmarks.GpuPlan(spec, Trimtab.Kernels.DType.BF16, 128, 768, kv: kv).Ops(false).Single(o => o.Op == "AttendPaged").Bytes;
        Assert.That(Attended(Trimtab.Model.KvType.Fp8) / Attended(Trimtab.Model.KvType.BF16), Is.EqualTo(33.0 / 64).Within(1).Percent);

        // Two GPUs read half of the weights each, and 64 sums of a row of 8 KiB go over the link: once to the other.
        var two = new Trimtab.Server.Benchmarks.GpuPlan(spec, Trimtab.Kernels.DType.BF16, 1, 768, 2).Ops(false);
        Assert.That(two.Where(o => o.Op.StartsWith("Linear", StringComparison.Ordinal)).Sum(o => o.Bytes), Is.EqualTo(6.607e9).Within(1).Percent);
        Assert.That(two.Single(o => o.Op == "AllReduce").Exchanged, Is.EqualTo(64 * 8192));
        Assert.That(1 / Trimtab.Server.Benchmarks.GpuPlan.Seconds(two, h100), Is.InRange(1.4 / plain, 2 / plain));
        Assert.That(Run("--device", "cuda", "--plan", "--synthetic", "7b-bf16", "--tensor-parallel", "2").Output, Does.Contain("on each of 2 GPUs").And.Contain("AllGather"));
    }

    [Test]
    public void Vectors_are_made_up_that_fit_the_model()
    {
        var file = Path.Combine(Directory.CreateTempSubdirectory("trimtab-bench-").FullName, "vectors.safetensors");
        Assert.That(Run("--synthetic", "tiny-q4_0", "-r", "0", "--write-vectors", file).Code, Is.Zero);
        var vectors = Trimtab.Steering.ShiftVectors.Open(file);
        vectors.Check(2, 256, null);
        Assert.That(Trimtab.Server.Serving.VectorCatalog.Steers(vectors, null), Is.True);
    }

    [Test]
    public void Every_repetition_computes_its_prompts()
    {
        var synthetic = Trimtab.Model.SyntheticModel.Parse("llava-tiny-q4_0", 1);
        using var device = new Trimtab.Kernels.Cpu.CpuDevice(1);
        using var source = synthetic.Open();
        using var network = Trimtab.Model.Network.Load(source, device, null, null, default);
        using var session = new Trimtab.Server.Benchmarks.BenchSession(
            network, Trimtab.Text.Tokenizer.FromGguf(synthetic.Metadata, synthetic.Name), new(40, 3, [1, 3], 20, false, 2, 1, 2, default), Arithmetic.Int8, Arithmetic.F32);
        foreach (var measurement in session.Measurements)
        {
            session.Warm(measurement);
            session.Run(measurement);
            session.Run(measurement);
        }
        Assert.That(session.CachedTokens, Is.Zero);
    }

    [Test]
    public void A_report_has_speeds_limits_and_hashes()
    {
        string[] args = ["--synthetic", "llava-tiny-q4_0", "-p", "24", "-n", "3", "-b", "1,3", "--steered", "2", "-d", "5", "-r", "2", "--image"];
        var report = Report([.. args, "-t", "2"]);
        var results = Results(report);
        Assert.That(results.Select(r => (r.GetProperty("test").GetString(), r.GetProperty("batch").GetInt32(), r.GetProperty("steered").GetInt32())), Is.EqualTo(new[]
        {
            ("prefill", 1, 0), ("decode", 1, 0), ("decode", 3, 0), ("prefill", 1, 1), ("decode", 1, 1), ("decode", 3, 2), ("image", 1, 0),
        }));
        Assert.Multiple(() =>
        {
            foreach (var limit in (string[])["read_gb_per_second", "f32_gflop_per_second", "int8_gop_per_second"])
                Assert.That(report.GetProperty("roofline").GetProperty(limit).GetDouble(), Is.GreaterThan(0), limit);
            foreach (var field in (string[])["cpu", "device", "system", "dotnet", "version"])
                Assert.That(report.GetProperty("machine").GetProperty(field).GetString(), Is.Not.Empty, field);
            Assert.That(report.GetProperty("model").GetProperty("form").GetString(), Is.EqualTo("Q4_0"));
            Assert.That(report.GetProperty("peak_memory_bytes").GetInt64(), Is.GreaterThan(1 << 20));
            foreach (var result in results)
            {
                foreach (var field in (string[])["tokens_per_second", "tokens_per_second_min", "tokens_per_second_max", "gflop_per_second", "roofline_share"])
                    Assert.That(result.GetProperty(field).GetDouble(), Is.GreaterThan(0), field);
                Assert.That(result.GetProperty("seconds").GetArrayLength(), Is.EqualTo(2));
                Assert.That(Hash(result), Has.Length.EqualTo(64));
                Assert.That(result.TryGetProperty("steering_tax", out _), Is.EqualTo(result.GetProperty("steered").GetInt32() > 0));
            }
            Assert.That(Hash(results[3]), Is.Not.EqualTo(Hash(results[0])), "steering changes logits");
        });
        Assert.That(Results(Report([.. args, "-t", "1"])).Select(Hash), Is.EqualTo(results.Select(Hash)), "hashes repeat, with other threads too");
    }

    [Test]
    public void Steering_by_nothing_leaves_the_hash()
    {
        var results = Results(Report("--synthetic", "tiny-q8_0", "-p", "9", "-n", "3", "-b", "2", "--steered", "2", "--alpha", "0", "-r", "1"));
        Assert.That(results, Has.Count.EqualTo(4));
        Assert.That(Hash(results[2]), Is.EqualTo(Hash(results[0])));
        Assert.That(Hash(results[3]), Is.EqualTo(Hash(results[1])));
    }

    [TestCase("tiny-f32")]
    [TestCase("tiny-bf16")]
    [TestCase("tiny-q4_1")]
    [TestCase("tiny-q4_k_m")]
    [TestCase("llava-tiny-f16")]
    public void A_written_model_is_the_one_in_memory(string spec)
    {
        string[] measured = ["-p", "9", "-n", "2", "-r", "1", .. spec.StartsWith("llava", StringComparison.Ordinal) ? (string[])["--image"] : []];
        var path = Path.Combine(Directory.CreateDirectory(At(spec)).FullName, "model.gguf");
        var made = Results(Report(["--synthetic", spec, "--write", path, .. measured]));
        var read = Results(Report(["-m", path, .. measured]));
        Assert.That(read.Select(Hash), Is.EqualTo(made.Select(Hash)));
        Assert.That(Hash(Results(Report(["--synthetic", spec, "--seed", "2", .. measured]))[0]), Is.Not.EqualTo(Hash(made[0])));
    }

    [Test]
    public void Any_model_can_be_measured()
    {
        var results = Results(Report("-m", TinyModel.WriteLlava(At("llava")), "-p", "8", "-n", "2", "-r", "1", "--image", "--dtype", "bf16"));
        Assert.That(results, Has.Count.EqualTo(3));
    }

    [Test]
    public void A_peer_is_compared_pair_by_pair()
    {
        var bench = Script("bench", """
            some line of a log
            [
              { "build_commit": "abc123", "n_prompt": 16, "n_gen": 0, "avg_ts": 99.0, "samples_ts": [ 50.0, 100.0, 75.0 ] },
              { "build_commit": "abc123", "n_prompt": 0, "n_gen": 2, "n_depth": 0, "avg_ts": 12.5 },
              { "build_commit": "abc123", "n_prompt": 0, "n_gen": 2, "n_depth": 512, "avg_ts": 1.0 }
            ]
            """);
        var batched = Script("batched", """{"n_kv_max": 64, "pp": 0, "tg": 2, "pl": 3, "n_kv": 6, "t_pp": 0.1, "speed_pp": 0.0, "t_tg": 0.1, "speed_tg": 60.0, "speed": 60.0}""");
        var report = Report("--synthetic", "tiny-q8_0", "-p", "16", "-n", "2", "-b", "1,3", "--steered", "1", "-r", "2", "--peer", bench, "--peer", batched);
        var peers = report.GetProperty("peers").EnumerateArray().ToList();
        var (first, second) = (peers[0].GetProperty("results").EnumerateArray().ToList(), peers[1].GetProperty("results").EnumerateArray().ToList());
        Assert.Multiple(() =>
        {
            Assert.That(peers[0].GetProperty("build").GetString(), Is.EqualTo("abc123"));
            Assert.That(first.Select(r => r.GetProperty("test").GetString()), Is.EqualTo(new[] { "prefill", "decode" }));
            Assert.That(first[0].GetProperty("tokens_per_second").EnumerateArray().Select(r => r.GetDouble()), Is.EqualTo(new[] { 75.0, 75.0 }));
            Assert.That(second.Single().GetProperty("batch").GetInt32(), Is.EqualTo(3));
            var seconds = Results(report)[0].GetProperty("seconds").EnumerateArray().Select(s => s.GetDouble()).ToArray();
            Assert.That(first[0].GetProperty("ratios").EnumerateArray().Select(r => r.GetDouble()),
                Is.EqualTo(seconds.Select(s => 16 / s / 75)).Within(0.01).Percent);
            Assert.That(Run("--synthetic", "tiny-q8_0", "-p", "16", "-n", "2", "-r", "1", "--peer", bench, "--markdown").Output, Does.Contain("| prefill 16 |").And.Contain("Peer: `"));
        });
    }

    [TestCase("no json here", "llama-bench")]
    [TestCase("[ { \"n_prompt\": 16 } ]", "n_gen")]
    [TestCase("[ { \"n_prompt\": 16, \"n_gen\": 0, \"avg_ts\": 0 } ]", "tokens a second")]
    [TestCase("[ 1, 2", "JSON")]
    [TestCase("[ { \"n_prompt\": 17, \"n_gen\": 0, \"avg_ts\": 1.5 } ]", "prefill 17")]
    public void A_peer_that_measures_something_else_is_refused(string output, string named)
    {
        var (code, _, error) = Run("--synthetic", "tiny-q8_0", "-p", "16", "-n", "0", "-r", "1", "--peer", Script("other", output));
        Assert.That(code, Is.Not.Zero);
        Assert.That(error, Does.StartWith("trimtab: --peer").And.Contain(named));
    }

    [Test]
    public void A_peer_that_fails_is_named()
        => Assert.That(Run("--synthetic", "tiny-q8_0", "-p", "4", "-n", "0", "-r", "1", "--peer", "exit 3").Error, Does.Contain("exit 3").And.Contain("ended with 3"));

    [TestCase("", "--model")]
    [TestCase("-m x --synthetic tiny-f32", "exclude")]
    [TestCase("-m x --write x.gguf", "exclude")]
    [TestCase("--synthetic 9b-q4_0", "9b-q4_0")]
    [TestCase("--synthetic tiny", "tiny")]
    [TestCase("--synthetic 135m-q4_k", "576")]
    [TestCase("--synthetic tiny-f32 --write x.bin", ".gguf")]
    [TestCase("--synthetic tiny-f32 -b 1,0", "1,0")]
    [TestCase("--synthetic tiny-f32 -b 1,1", "1,1")]
    [TestCase("--synthetic tiny-f32 -p 0 -n 0", "nothing")]
    [TestCase("--synthetic tiny-f32 -p -1", "-1")]
    [TestCase("--synthetic tiny-f32 -r 0", "repetitions")]
    [TestCase("--synthetic tiny-f32 --alpha NaN", "alpha")]
    [TestCase("--synthetic tiny-f32 --image", "vision")]
    [TestCase("--synthetic tiny-f32 --dtype q9", "q9")]
    public void Wrong_usage_ends_with_two(string line, string named)
    {
        var (code, _, error) = Run(line.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.That(code, Is.EqualTo(2), error);
        Assert.That(error, Does.StartWith("trimtab: ").And.Contain(named));
    }

    [Test]
    public void A_missing_model_is_an_error() => Assert.That(Run("-m", "nowhere.gguf").Code, Is.EqualTo(1));
}
