using System.CommandLine;
using Trimtab.Kernels;

namespace Trimtab.Server;

/// <summary>The options that say which model runs and how it is loaded.</summary>
internal sealed class ModelArguments
{
    private readonly Option<string> _model = new("--model", "-m")
    {
        Description = "A Hugging Face folder or a .gguf file.",
        HelpName = "PATH",
        Required = true,
    };

    private readonly Option<string?> _mmproj = new("--mmproj")
    {
        Description = "The vision file of a GGUF model; by default *mmproj*.gguf beside it.",
        HelpName = "FILE",
    };

    private readonly Option<string> _dtype = new("--dtype")
    {
        Description = "Form of the decoder's matrices; auto keeps the checkpoint's own.",
        DefaultValueFactory = _ => "auto",
    };

    private readonly Option<string> _activations = new("--activations")
    {
        Description = "Activations that meet quantised matrices: int8 is fast, f32 exact.",
        DefaultValueFactory = _ => "int8",
    };

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

    public ModelArguments()
    {
        _dtype.AcceptOnlyFromAmong("auto", "f32", "bf16", "f16", "q8_0", "q4_0");
        _activations.AcceptOnlyFromAmong("int8", "f32");
    }

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_model, _mmproj, _dtype, _activations, _threads, _context])
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
            WeightType = parse.GetValue(_dtype) switch
            {
                "f32" => DType.F32,
                "bf16" => DType.BF16,
                "f16" => DType.F16,
                "q8_0" => DType.Q8_0,
                "q4_0" => DType.Q4_0,
                _ => null,
            },
            Activations = parse.GetValue(_activations) == "f32" ? Activations.F32 : Activations.Int8,
            Threads = threads,
            Engine = new() { ContextLength = context },
            Progress = progress,
        }, cancel));
        foreach (var note in model.Network.Notes)
            terminal.Note(note);
        return model;
    }

    private static int Range(ParseResult parse, Option<int> option, int most)
        => parse.GetValue(option) is var value && value >= 0 && value <= most
            ? value
            : throw new UsageException($"{option.Name} is {value}; expected 0 to {most}");
}
