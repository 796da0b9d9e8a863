using System.CommandLine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;

namespace Trimtab.Server;

/// <summary>The options that say which model runs and how it is loaded.</summary>
internal sealed class ModelArguments
{
    private readonly Option<string> _model = new("--model", "-m")
    {
        Description = "A Hugging Face folder, a .gguf file, or ORG/NAME once it is pulled.",
        HelpName = "PATH",
        Required = true,
    };

    private readonly Option<string?> _mmproj = new("--mmproj")
    {
        Description = "The vision file of a GGUF model; by default *mmproj*.gguf beside it.",
        HelpName = "FILE",
    };

    private readonly Option<string> _dtype = Dtype();

    private readonly Option<string> _activations = ActivationsOption();

    private readonly Option<string> _kv = KvOption();

    private readonly Option<string> _device = DeviceOption();

    private readonly Option<int> _tensorParallel = TensorParallelOption();

    private readonly Option<int> _threads = new("--threads", "-t")
    {
        Description = "CPU threads; 0 for one per core.",
        HelpName = "N",
    };

    private readonly Option<int> _context = new("--context")
    {
        Description = "Positions that prompt and answer may take together; 0 for the model's own limit, at most 4096.",
        HelpName = "N",
    };

    /// <summary>--dtype.</summary>
    public static Option<string> Dtype()
    {
        var option = new Option<string>("--dtype")
        {
            Description = "Form of the decoder's matrices; auto keeps the checkpoint's own.",
            DefaultValueFactory = _ => "auto",
        };
        return option.AcceptOnlyFromAmong("auto", "f32", "bf16", "f16", "q8_0", "q4_0");
    }

    /// <summary>What --dtype asks for, or null.</summary>
    public static DType? Read(ParseResult parse, Option<string> dtype) => parse.GetValue(dtype) switch
    {
        "f32" => DType.F32,
        "bf16" => DType.BF16,
        "f16" => DType.F16,
        "q8_0" => DType.Q8_0,
        "q4_0" => DType.Q4_0,
        _ => null,
    };

    /// <summary>--activations.</summary>
    public static Option<string> ActivationsOption()
    {
        var option = new Option<string>("--activations")
        {
            Description = "Activations that meet matrices: f32 is exact; int8 rounds them for quantised ones, several times as fast; auto also rounds them to bf16 for bf16 ones, where the processor multiplies that.",
            DefaultValueFactory = _ => "auto",
        };
        return option.AcceptOnlyFromAmong("f32", "int8", "auto");
    }

    /// <summary>--kv.</summary>
    public static Option<string> KvOption()
    {
        var option = new Option<string>("--kv")
        {
            Description = "Form of the cached keys and values: f32 is exact, bf16 takes half and int8 a quarter of its memory; so does fp8 (E4M3), with --device cuda.",
            DefaultValueFactory = _ => "f32",
        };
        return option.AcceptOnlyFromAmong("f32", "bf16", "int8", "fp8");
    }

    /// <summary>What --kv asks for.</summary>
    public static KvType ReadKv(ParseResult parse, Option<string> kv) => parse.GetValue(kv) switch
    {
        "bf16" => KvType.BF16,
        "int8" => KvType.Int8,
        "fp8" => KvType.Fp8,
        _ => KvType.F32,
    };

    /// <summary>--device.</summary>
    public static Option<string> DeviceOption()
        => new Option<string>("--device") { Description = "Where the model runs: the CPU, or NVIDIA GPUs.", DefaultValueFactory = _ => "cpu" }.AcceptOnlyFromAmong("cpu", "cuda");

    /// <summary>--tensor-parallel.</summary>
    public static Option<int> TensorParallelOption()
        => new("--tensor-parallel", "-tp") { Description = "With --device cuda: how many GPUs divide each layer among them (needs NCCL).", HelpName = "N", DefaultValueFactory = _ => 1 };

    /// <summary>The GPUs that --device asks for, or null. --activations f32 computes in floats there; else they are bfloat16.</summary>
    /// <exception cref="UsageException">So many are not to be had.</exception>
    public static CudaOptions? ReadDevice(ParseResult parse, Option<string> device, Option<string> activations, Option<int> tensorParallel)
    {
        var ranks = AtLeastOne(parse, tensorParallel, 64);
        if (parse.GetValue(device) == "cuda")
            return new() { ActivationType = parse.GetValue(activations) == "f32" ? DType.F32 : DType.BF16, TensorParallel = ranks };
        return ranks == 1 ? null : throw new UsageException("--tensor-parallel is of GPUs; say --device cuda too");
    }

    /// <summary>What --activations asks for.</summary>
    public static Activations ReadActivations(ParseResult parse, Option<string> activations)
        => Enum.Parse<Activations>(parse.GetValue(activations)!, ignoreCase: true);

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_model, _mmproj, _dtype, _activations, _kv, _device, _tensorParallel, _threads, _context])
            command.Options.Add(option);
    }

    /// <summary>Loads the model, with progress.</summary>
    public VisionLanguageModel Open(ParseResult parse, Terminal terminal, CancellationToken cancel)
    {
        var path = parse.GetRequiredValue(_model);
        var (threads, context) = (Range(parse, _threads, 1024), Range(parse, _context, 1 << 20));
        var model = terminal.WithProgress($"Loading {Path.GetFileName(Path.TrimEndingDirectorySeparator(path))}", progress => VisionLanguageModel.Open(path, new()
        {
            MmprojPath = parse.GetValue(_mmproj),
            WeightType = Read(parse, _dtype),
            Activations = ReadActivations(parse, _activations),
            Threads = threads,
            Cuda = ReadDevice(parse, _device, _activations, _tensorParallel),
            Engine = new() { ContextLength = context, KvType = ReadKv(parse, _kv) },
            Progress = progress,
        }, cancel));
        foreach (var note in model.Network.Notes)
            terminal.Note(note);
        return model;
    }

    /// <summary>A number from 0 to <paramref name="most"/>.</summary>
    public static int Range(ParseResult parse, Option<int> option, int most)
        => parse.GetValue(option) is var value && value >= 0 && value <= most
            ? value
            : throw new UsageException($"{option.Name} is {value}; expected 0 to {most}");

    public static int AtLeastOne(ParseResult parse, Option<int> option, int most)
        => Range(parse, option, most) is > 0 and var value ? value : throw new UsageException($"{option.Name} is 0; expected 1 to {most}");
}
