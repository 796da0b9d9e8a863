using System.Collections.Concurrent;
using System.CommandLine;
using System.Globalization;
using Trimtab.Checkpoints;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;
using Trimtab.Server.Benchmarks;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab.Server.Commands;

/// <summary>bench: how fast a model runs here, beside this machine's limits and beside other programs.</summary>
internal static class BenchCommand
{
    private static readonly Option<string?> Model = new("--model", "-m") { Description = "A Hugging Face folder or a .gguf file.", HelpName = "PATH" };
    private static readonly Option<string?> Mmproj = new("--mmproj") { Description = "The vision file of a GGUF model; by default *mmproj*.gguf beside it.", HelpName = "FILE" };
    private static readonly Option<string?> Synthetic = new("--synthetic") { Description = $"In place of a model, one whose weights are made up: {SyntheticModel.Known}.", HelpName = "SPEC" };
    private static readonly Option<int> Seed = new("--seed") { Description = "Seed of the synthetic weights.", HelpName = "N", DefaultValueFactory = _ => 1 };
    private static readonly Option<string?> Save = new("--write") { Description = "Save the synthetic model (1.1b-q8_0 if none is named) as a GGUF file, for other programs to run.", HelpName = "FILE" };
    private static readonly Option<string?> SaveVectors = new("--write-vectors") { Description = "Save made-up shift vectors that fit the model, to serve it steered where only speed matters.", HelpName = "FILE" };
    private static readonly Option<string> Dtype = ModelArguments.Dtype();
    private static readonly Option<string> ActivationsOption = ModelArguments.ActivationsOption();
    private static readonly Option<string> Kv = ModelArguments.KvOption();
    private static readonly Option<string> DeviceOption = ModelArguments.DeviceOption();
    private static readonly Option<int> TensorParallel = ModelArguments.TensorParallelOption();
    private static readonly Option<int> Threads = new("--threads", "-t") { Description = "CPU threads; 0 for one per core.", HelpName = "N" };
    private static readonly Option<int> Prompt = new("--prompt", "-p") { Description = "Tokens of the prompt that is prefilled; 0 for none.", HelpName = "N", DefaultValueFactory = _ => 512 };
    private static readonly Option<int> Generate = new("--generate", "-n") { Description = "Tokens that are decoded; 0 for none.", HelpName = "N", DefaultValueFactory = _ => 64 };
    private static readonly Option<string> Batches = new("--batch", "-b") { Description = "Sequences that decode together, such as 1,8,32.", HelpName = "LIST", DefaultValueFactory = _ => "1" };
    private static readonly Option<int> Depth = new("--depth", "-d") { Description = "Positions that a sequence holds before its decoding is timed.", HelpName = "N" };
    private static readonly Option<int> Steered = new("--steered") { Description = "Measure steered too, over all layers, with this many distinct vectors in a batch.", HelpName = "K" };
    private static readonly Option<float> Alpha = new("--alpha") { Description = "Strength of that steering.", HelpName = "A", DefaultValueFactory = _ => 1 };
    private static readonly Option<float> Temperature = new("--temperature") { Description = "How tokens are drawn; 0 takes the most likely.", HelpName = "T" };
    private static readonly Option<float> TopP = new("--top-p") { Description = "Keep the smallest set of tokens whose mass reaches P.", HelpName = "P", DefaultValueFactory = _ => 1 };
    private static readonly Option<float> Repetition = new("--repetition-penalty") { Description = "Makes tokens that are there already less likely; 1 changes nothing.", HelpName = "P", DefaultValueFactory = _ => 1 };
    private static readonly Option<int> LogProbs = new("--logprobs") { Description = "Likelihoods that are told with each token; 0 for none.", HelpName = "N" };
    private static readonly Option<bool> HashLogits = new("--hash-logits") { Description = "Hash the logits of every token, as a server does for its receipts." };
    private static readonly Option<bool> Image = new("--image") { Description = "Measure the vision tower on one image." };
    private static readonly Option<bool> Profile = new("--profile") { Description = "Print how the time divides among the ops." };
    private static readonly Option<int> Repetitions = new("--repetitions", "-r") { Description = "How often each is measured, in turn; 0 with --write or --write-vectors only writes.", HelpName = "R", DefaultValueFactory = _ => 5 };
    private static readonly Option<bool> Paper = new("--plan") { Description = "With --device cuda: print what GPUs' data sheets allow for each launch of a step, and run nothing. No GPU is needed." };
    private static readonly Option<string[]> Peers = new("--peer")
    {
        Description = "A command run in turn with this program: llama-bench ... -r 1 -o json, or llama-batched-bench ... --output-format jsonl. May be repeated.",
        HelpName = "COMMAND",
    };
    private static readonly Option<string?> JsonFile = new("--json") { Description = "Write all figures as JSON; - for the output, in place of the tables.", HelpName = "FILE" };
    private static readonly Option<bool> Markdown = new("--markdown") { Description = "Print for a Markdown document." };

    /// <summary>By threads: a machine's limits are measured once a process.</summary>
    private static readonly ConcurrentDictionary<int, Roofline> Rooflines = new();

    public static Command Create(Terminal terminal)
    {
        var command = new Command("bench", "Measures a model: prefill, decoding in batches, steering, images; repetitions in turn, beside the machine's measured limits and other programs.");
        foreach (var option in (ReadOnlySpan<Option>)[
            Model, Mmproj, Synthetic, Seed, Save, SaveVectors, Dtype, ActivationsOption, Kv, DeviceOption, TensorParallel, Threads, Prompt, Generate, Batches, Depth, Steered, Alpha, Temperature, TopP, Repetition, LogProbs, HashLogits, Image, Profile, Paper, Repetitions, Peers, JsonFile, Markdown])
            command.Options.Add(option);
        command.Subcommands.Add(BenchServeCommand.Create(terminal));
        command.SetAction(async (parse, cancel) =>
        {
            var plan = Plan(parse);
            var synthetic = Made(parse);
            if (synthetic is null && parse.GetValue(Model) is null)
                throw new UsageException("bench needs --model or --synthetic");
            if (parse.GetValue(Paper))
            {
                WritePlan(parse, plan, synthetic, terminal.Output);
                return 0;
            }
            if (parse.GetValue(Save) is { } path)
                foreach (var file in synthetic!.Write(path))
                    terminal.Note($"wrote {file}");
            if (parse.GetValue(SaveVectors) is { } vectors)
            {
                foreach (var file in MadeUp(SpecOf(parse, synthetic), new(parse.GetValue(Seed))).Save(vectors))
                    terminal.Note($"wrote {file}");
            }
            if (plan.Repetitions == 0)
                return 0;
            var report = await RunAsync(parse, plan, synthetic, terminal, cancel).ConfigureAwait(false);
            await terminal.ReportAsync(parse.GetValue(JsonFile), report.Write, output => report.Print(output, parse.GetValue(Markdown)), cancel).ConfigureAwait(false);
            return 0;
        });
        return command;
    }

    private static void WritePlan(ParseResult parse, BenchPlan plan, SyntheticModel? synthetic, TextWriter output)
    {
        if (parse.GetValue(DeviceOption) != "cuda")
            throw new UsageException("--plan is of GPUs; say --device cuda too");
        var (_, source) = Open(parse, synthetic);
        using var _ = source;
        var form = ModelArguments.Read(parse, Dtype) ?? FormOf(source.Files[0]);
        var name = $"{(synthetic is not null ? synthetic.Name : Path.GetFileName(parse.GetValue(Model)!))}, {form}";
        var ranks = ModelArguments.ReadDevice(parse, DeviceOption, ActivationsOption, TensorParallel)!.TensorParallel;
        foreach (var batch in plan.Batches)
        {
            new GpuPlan(source.Spec.Text, form, batch, Math.Max(1, plan.Depth), ranks, plan.Kv).Write(output, name);
            output.WriteLine();
        }
        if (plan.Prompt > 0)
            new GpuPlan(source.Spec.Text, form, plan.Prompt, 0, ranks, plan.Kv).Write(output, name);
    }

    private static DType FormOf(Checkpoint file)
        => file.Tensors.Values.Where(tensor => tensor.Shape.Count == 2).GroupBy(tensor => tensor.Type).MaxBy(group => group.Sum(tensor => tensor.Bytes))!.Key;

    private static async Task<BenchReport> RunAsync(ParseResult parse, BenchPlan plan, SyntheticModel? synthetic, Terminal terminal, CancellationToken cancel)
    {
        var activations = ModelArguments.ReadActivations(parse, ActivationsOption);
        using Device device = ModelArguments.ReadDevice(parse, DeviceOption, ActivationsOption, TensorParallel) is { } cuda
            ? CudaDevice.Open(cuda)
            : new CpuDevice(ModelArguments.Range(parse, Threads, 1024), activations);
        var (tokenizer, source) = Open(parse, synthetic);
        using var _ = source;
        if (plan.Image && source.Spec.Vision is null)
            throw new UsageException("--image: the model has no vision encoder");
        var roofline = Rooflines.GetOrAdd(parse.GetValue(Threads), threads => Roofline.Measure(threads));
        var name = synthetic is not null ? $"synthetic {synthetic.Name}" : Path.GetFileName(Path.TrimEndingDirectorySeparator(parse.GetValue(Model)!));
        var asked = ModelArguments.Read(parse, Dtype);
        using var profile = parse.GetValue(Profile) ? new ProfilingDevice(device) : null;
        using var network = terminal.WithProgress($"Loading {name}", progress => Network.Load(source, profile ?? device, asked, progress, cancel));
        foreach (var note in network.Notes)
            terminal.Note(note);

        var form = asked ?? FormOf(source.Files[0]);
        Arithmetic Used(DType type) => activations.Arithmetic(device.Prefers(type));
        var parameters = source.Files.SelectMany(file => file.Tensors.Values).Sum(tensor => tensor.Elements);
        using var session = new BenchSession(network, tokenizer, plan, Used(form), Used(FormOf(source.Files[^1])), profile);
        var peers = (parse.GetValue(Peers) ?? []).Select(command => new Peer(command)).ToList();
        foreach (var measurement in session.Measurements)
            session.Warm(measurement);
        for (var repetition = 0; repetition < plan.Repetitions; repetition++)
        {
            foreach (var measurement in session.Measurements)
            {
                cancel.ThrowIfCancellationRequested();
                session.Run(measurement);
            }
            foreach (var peer in peers)
            {
                await peer.RunAsync(cancel).ConfigureAwait(false);
                if (!session.Measurements.Exists(measurement => peer.Ratios(measurement).Count > 0))
                    throw new UsageException($"--peer '{peer.Command}' measured {Listed(peer.Runs[^1].Select(r => (r.Test, r.Tokens, r.Batch, r.Depth)))}; "
                        + $"this run measures {Listed(session.Measurements.Where(m => m.Steered == 0).Select(m => (m.Test, m.Tokens, m.Batch, m.Depth)))}");
            }
            terminal.Note($"repetition {repetition + 1} of {plan.Repetitions}");
        }
        var model = new BenchModel(name, form.ToString(), parameters, network.Decoder.WeightBytes, device.Name);
        return new(Machine.Here, roofline, model, plan, session.Measurements, peers, Machine.PeakMemory());
    }

    private static (Tokenizer, ModelSource) Open(ParseResult parse, SyntheticModel? synthetic)
    {
        if (synthetic is not null)
            return (Tokenizer.FromGguf(synthetic.Metadata, synthetic.Name), synthetic.Open());
        var files = ModelFiles.OpenWithWeights(parse.GetValue(Model)!, parse.GetValue(Mmproj), out var source);
        return (files.Tokenizer, source);
    }

    private static TextSpec SpecOf(ParseResult parse, SyntheticModel? synthetic)
    {
        if (synthetic is null)
            return ModelFiles.Open(parse.GetValue(Model)!, parse.GetValue(Mmproj)).Spec.Text;
        using var source = synthetic.Open();
        return source.Spec.Text;
    }

    /// <summary>Vectors over all layers, short beside any hidden state.</summary>
    private static ShiftVectors MadeUp(TextSpec text, Random random)
        => ShiftVectors.Create([.. Enumerable.Range(0, text.Layers).Select(float[]? (_) => [.. Enumerable.Range(0, text.HiddenSize).Select(_ => (random.NextSingle() - 0.5f) / 16)])]);

    private static SyntheticModel? Made(ParseResult parse)
    {
        var spec = parse.GetValue(Synthetic) ?? (parse.GetValue(Save) is not null ? "1.1b-q8_0" : null);
        if (spec is null)
            return null;
        if (parse.GetValue(Model) is not null)
            throw new UsageException("--model and a synthetic model (--synthetic, --write) exclude each other");
        if (parse.GetValue(Save)?.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) == false)
            throw new UsageException($"--write {parse.GetValue(Save)}: expected a name ending in .gguf");
        try
        {
            return SyntheticModel.Parse(spec, parse.GetValue(Seed));
        }
        catch (FormatException error)
        {
            throw new UsageException($"--synthetic: {error.Message}");
        }
    }

    private static BenchPlan Plan(ParseResult parse)
    {
        var plan = new BenchPlan(
            ModelArguments.Range(parse, Prompt, 1 << 20), ModelArguments.Range(parse, Generate, 1 << 20), Numbers("--batch", parse.GetValue(Batches)!),
            ModelArguments.Range(parse, Depth, 1 << 20), parse.GetValue(Image), ModelArguments.Range(parse, Steered, 1024), parse.GetValue(Alpha),
            ModelArguments.Range(parse, Repetitions, 1000), ModelArguments.ReadKv(parse, Kv), new()
            {
                Temperature = parse.GetValue(Temperature), TopP = parse.GetValue(TopP), RepetitionPenalty = parse.GetValue(Repetition), TopLogProbs = ModelArguments.Range(parse, LogProbs, 100),
            }, parse.GetValue(HashLogits));
        try
        {
            plan.Sampling!.Validate();
        }
        catch (ArgumentOutOfRangeException error)
        {
            throw new UsageException(error.Message);
        }
        if (plan is { Prompt: 0, Generate: 0, Image: false })
            throw new UsageException("-p 0 and -n 0 without --image measure nothing");
        if (!float.IsFinite(plan.Alpha))
            throw new UsageException($"--alpha is {plan.Alpha}; expected a finite number");
        if (plan.Repetitions == 0 && parse.GetValue(Save) is null && parse.GetValue(SaveVectors) is null)
            throw new UsageException("--repetitions is 0; expected 1 or more, or --write");
        if ((parse.GetValue(Peers) ?? []).Any(string.IsNullOrWhiteSpace))
            throw new UsageException("--peer is empty; expected a command");
        return plan;
    }

    /// <summary>Reads a list of different numbers.</summary>
    internal static List<int> Numbers(string option, string text)
    {
        var numbers = new List<int>();
        foreach (var part in text.Split(','))
        {
            if (!int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number is < 1 or > 1024 || numbers.Contains(number))
                throw new UsageException($"{option} '{text}': expected different numbers from 1 to 1024, such as 1,8,32");
            numbers.Add(number);
        }
        return numbers;
    }

    private static string Listed(IEnumerable<(string Test, int Tokens, int Batch, int Depth)> work)
        => string.Join(", ", work.Select(w => $"{w.Test} {w.Tokens}{(w.Batch > 1 ? $" × {w.Batch}" : "")}{(w.Depth > 0 ? $" at {w.Depth}" : "")}"));
}
