using System.Diagnostics;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;
using Trimtab.Server.Benchmarks;
using Trimtab.Text;

namespace Trimtab.Server.GpuCheck;

/// <summary>A figure, and what it should be on an H100.</summary>
/// <param name="Name">What was measured.</param>
/// <param name="Value">The figure.</param>
/// <param name="Unit">Its unit.</param>
/// <param name="Target">What the design asks of an H100, or null.</param>
/// <param name="AtLeast">Whether the target is the least, or the most.</param>
internal sealed record Figure(string Name, double Value, string Unit, double? Target = null, bool AtLeast = true)
{
    /// <summary>Whether the target is met; null where there is none.</summary>
    public bool? Met => Target is not { } target ? null : AtLeast ? Value >= target : Value <= target;
}

/// <summary>How a GPU multiplies [tokens, columns] with one of the model's matrices, in operations a second.</summary>
internal sealed record ProductRate(string Matrix, int Rows, int Columns, int Tokens, double Own, double? Cublas);

/// <summary>Everything that gpu-check measures, each beside its target.</summary>
internal sealed class GpuMeasurements(CudaDevice device, SyntheticModel model, bool quick, Action<string> say, CancellationToken cancel)
{
    public List<Figure> Figures { get; } = [];

    public List<ProductRate> Products { get; } = [];

    private double _copy;

    public void Run()
    {
        using var source = model.Open();
        var text = source.Spec.Text;
        Copies();
        Rates(text);
        say($"loading {model.Name}");
        using var network = Network.Load(source, device, null, null, cancel);
        var tokenizer = Tokenizer.FromGguf(model.Metadata, model.Name);
        var (depth, tokens) = quick ? (16, 4) : (768, 64);

        // One sequence: unsteered, steered, and the prompts.
        foreach (var prompt in quick ? (int[])[24] : [512, 2048])
        {
            var prefill = Bench(network, tokenizer, new(prompt, 0, [1], 0, false, 1, 1, Repetitions, KvType.BF16)).Find(m => m.Steered == 0)!;
            Figures.Add(new($"prefill of {prompt} tokens", Rate(prefill), "tokens/s"));
            if (Bound(text, prompt) is { } bound)
                Figures.Add(new($"prefill of {prompt} tokens: share of its matrices' time by cuBLASLt", bound / prefill.Seconds.Min(), "", 0.75));
        }
        var single = Bench(network, tokenizer, new(0, tokens, [1], depth, network.Vision is not null, 1, 1, Repetitions, KvType.BF16));
        var (plain, steered) = (single.Find(m => m is { Test: "decode", Steered: 0 })!, single.Find(m => m is { Test: "decode", Steered: 1 })!);
        Figures.Add(new($"decoding, 1 sequence at {depth}", Rate(plain), "tokens/s"));
        Figures.Add(new($"decoding, 1 sequence at {depth}, steered", Rate(steered), "tokens/s", 200));
        Figures.Add(new($"steering's tax, 1 sequence", 100 * (steered.Seconds.Min() / plain.Seconds.Min() - 1), "%", 1, AtLeast: false));
        Figures.Add(Share(plain, text, depth));
        if (single.Find(m => m.Test == "image") is { } image)
            Figures.Add(new("images, one at a time", 1 / image.Seconds.Min(), "images/s", 60));

        device.Graphs = false;
        var launched = Bench(network, tokenizer, new(0, tokens, [1], depth, false, 0, 1, Repetitions, KvType.BF16)).Find(m => m.Test == "decode")!;
        device.Graphs = true;
        Figures.Add(new("decoding without graphs: time of a step over that with", launched.Seconds.Min() / plain.Seconds.Min(), "×"));

        if (device.ProgrammaticLaunch)
        {
            device.ProgrammaticLaunch = false;
            var apart = Bench(network, tokenizer, new(0, tokens, [1], depth, false, 0, 1, Repetitions, KvType.BF16)).Find(m => m.Test == "decode")!;
            device.ProgrammaticLaunch = true;
            Figures.Add(new("decoding without programmatic dependent launch: time of a step over that with", apart.Seconds.Min() / plain.Seconds.Min(), "×"));
        }

        // Many sequences: at a long context, and with from one to as many vectors as sequences.
        var batch = Bench(network, tokenizer, new(0, tokens / 2, [quick ? 3 : 128], depth - tokens / 2, false, 0, 1, Repetitions, KvType.BF16)).Single(m => m.Test == "decode");
        Figures.Add(new($"decoding, {batch.Batch} sequences at {depth}", Rate(batch), "tokens/s"));
        Figures.Add(Share(batch, text, depth) with { Target = 75 });
        var many = quick ? 4 : 256;
        foreach (var vectors in quick ? (int[])[1, 4] : [1, 16, 256])
        {
            var taxed = Bench(network, tokenizer, new(0, tokens / 2, [many], 16, false, vectors, 1, Repetitions, KvType.BF16));
            Figures.Add(new($"steering's tax, {many} sequences, {vectors} vector{(vectors == 1 ? "" : "s")}",
                100 * (taxed.Find(m => m.Steered > 0)!.Seconds.Min() / taxed.Find(m => m.Steered == 0)!.Seconds.Min() - 1), "%", 1, AtLeast: false));
        }
    }

    private int Repetitions => quick ? 1 : 3;

    private static double Rate(Measurement measurement) => measurement.Tokens * measurement.Batch / measurement.Seconds.Min();

    private List<Measurement> Bench(Network network, Tokenizer tokenizer, BenchPlan plan)
    {
        using var session = new BenchSession(network, tokenizer, plan, default, default);
        foreach (var measurement in session.Measurements)
        {
            cancel.ThrowIfCancellationRequested();
            say(measurement.Name);
            session.Warm(measurement);
            for (var i = 0; i < plan.Repetitions; i++)
                session.Run(measurement);
        }
        return session.Measurements;
    }

    /// <summary>Of the time that this GPU's memory, as measured, and its tensor cores, as the products show them, would take.</summary>
    private Figure Share(Measurement decode, TextSpec text, int depth)
    {
        var sheet = new GpuSheet("", _copy, Products.Max(p => Math.Max(p.Own, p.Cublas ?? 0)), 0, double.PositiveInfinity);
        var least = new GpuPlan(text, DType.BF16, decode.Batch, depth + 1).Ops(false).Sum(op => op.Seconds(sheet));
        return new($"decoding, {decode.Batch} sequence{(decode.Batch == 1 ? "" : "s")} at {depth}: share of the measured memory's limit", 100 * least * decode.Tokens / decode.Seconds.Min(), "%");
    }

    /// <summary>What the prompt's matrices take by cuBLASLt at the rates measured for a step's tokens; null where it is not here.</summary>
    private double? Bound(TextSpec text, int prompt)
    {
        var seconds = 0.0;
        var step = Math.Min(prompt, quick ? 24 : 512);
        foreach (var rate in Products.Where(p => p.Tokens == step))
        {
            if (rate.Cublas is not { } flops)
                return null;
            seconds += text.Layers * 2.0 * rate.Rows * rate.Columns * prompt / flops;
        }
        return seconds;
    }

    /// <summary>Bytes a second that a copy on the device reads and writes.</summary>
    private void Copies()
    {
        var columns = quick ? 1 << 12 : 1 << 28;
        Tensor a = device.Allocate(DType.F32, 1, columns), b = device.Allocate(DType.F32, 1, columns);
        _copy = 2.0 * sizeof(float) * columns / Time(() => device.Copy(b, a));
        a.Storage!.Dispose();
        b.Storage!.Dispose();
        Figures.Add(new("memory, by a copy", _copy / 1e9, "GB/s"));
    }

    private void Rates(TextSpec text)
    {
        using var own = new CudaDevice(new() { UseCublas = false });
        using var library = new CudaDevice(new() { CublasTokens = 1 });
        var heads = text.Heads * text.HeadDimension;
        (string Name, int Rows, int Columns, Epilogue Epilogue)[] matrices =
        [
            ("qkv", heads + 2 * text.KeyValueHeads * text.HeadDimension, text.HiddenSize, Epilogue.None), ("output", text.HiddenSize, heads, Epilogue.None),
            ("gate, up", 2 * text.IntermediateSize, text.HiddenSize, Epilogue.SiluGate), ("down", text.HiddenSize, text.IntermediateSize, Epilogue.None),
        ];
        foreach (var (name, rows, columns, epilogue) in matrices)
        {
            var bytes = new byte[2L * rows * columns];
            new Random(1).NextBytes(bytes);
            for (var i = 1; i < bytes.Length; i += 2)
                bytes[i] = (byte)(bytes[i] & 0x83 | 0x3c); // magnitudes of 0.01 to 2
            foreach (var tokens in quick ? (int[])[1, 24] : [1, 4, 8, 16, 32, 64, 128, 256, 512, 2048])
            {
                cancel.ThrowIfCancellationRequested();
                say($"{name} of {tokens} tokens");
                double Flops(CudaDevice on)
                {
                    using var memory = new OpChecks.Memory(on);
                    using var weight = OpChecks.Pack(on, DType.BF16, bytes, rows, columns);
                    var outputs = epilogue == Epilogue.None ? rows : rows / 2;
                    Tensor input = memory.Put(DType.BF16, OpChecks.Noise(tokens * columns, 2), columns), output = memory.Put(DType.BF16, new float[tokens * outputs], outputs);
                    return 2.0 * rows * columns * tokens / Time(() => on.Linear(output, input, weight, default, epilogue), on);
                }
                var hasCublas = library.Products.StartsWith("cuBLASLt", StringComparison.Ordinal);
                Products.Add(new(name, rows, columns, tokens, Flops(own), hasCublas && tokens > 8 ? Flops(library) : null));
            }
        }
    }

    /// <summary>Seconds of one of many runs that are queued together.</summary>
    private double Time(Action work, CudaDevice? on = null)
    {
        on ??= device;
        work();
        on.Wait();
        var best = double.MaxValue;
        for (int repetition = 0, count = 1; repetition < (quick ? 1 : 3);)
        {
            var start = Stopwatch.GetTimestamp();
            for (var i = 0; i < count; i++)
                work();
            on.Wait();
            var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            if (!quick && seconds < 0.02)
            {
                count *= 2;
                continue;
            }
            best = Math.Min(best, seconds / count);
            repetition++;
        }
        return best;
    }
}
