using System.CommandLine;
using Trimtab.Steering;

namespace Trimtab.Server;

/// <summary>The options that steer an answer.</summary>
internal sealed class SteeringArguments
{
    private readonly Option<string?> _vectors = new("--vectors")
    {
        Description = "Shift vectors: .safetensors, or a llama.cpp control vector (.gguf).",
        HelpName = "FILE",
    };

    private readonly Option<float?> _alpha = new("--alpha")
    {
        Description = "Strength of the edit h := h - alpha v; 1 is the paper's optimum, and the default where the vectors are not calibrated.",
        HelpName = "A",
    };

    private readonly Option<string?> _scope = new("--scope")
    {
        Description = "Tokens that are steered: the prompt's last one (prefill), the generated ones (decode), or both (all).",
    };

    private readonly Option<string?> _layers = new("--layers")
    {
        Description = "Decoder layers that are steered, counted from 1, such as 1-4,7; by default all.",
        HelpName = "LIST",
    };

    private readonly Option<bool> _force = new("--force")
    {
        Description = "Use vectors that were made for another model of the same shape.",
    };

    private readonly Option<bool> _sampleLevel = new("--sample-level")
    {
        Description = "Take the vectors from this very request: two more prefills, with blank images and without any.",
    };

    private readonly Option<double?> _cap = new("--cap")
    {
        Description = "With --sample-level and --vectors: keep each layer's projection on the file's vector within SIGMA standard deviations of its anchors' mean.",
        HelpName = "SIGMA",
    };

    public SteeringArguments() => _scope.AcceptOnlyFromAmong("all", "prefill", "decode");

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_vectors, _alpha, _scope, _layers, _force])
            command.Options.Add(option);
    }

    /// <summary>Adds the options of sample-level steering too.</summary>
    public void AddWithSampleLevelTo(Command command)
    {
        AddTo(command);
        command.Options.Add(_sampleLevel);
        command.Options.Add(_cap);
    }

    /// <summary>Refuses options that do not go together, before a model is loaded.</summary>
    public void Check(ParseResult parse)
    {
        var (sample, vectors, cap) = (parse.GetValue(_sampleLevel), parse.GetValue(_vectors), parse.GetValue(_cap));
        if (cap is not null && (!sample || vectors is null))
            throw new UsageException("--cap bounds vectors of a request by those of a file: it needs --sample-level and --vectors");
        if (cap is { } sigmas && !(sigmas >= 0 && double.IsFinite(sigmas)))
            throw new UsageException($"--cap is {sigmas}; expected 0 or more standard deviations");
        if (sample && vectors is not null && cap is null)
            throw new UsageException("--sample-level takes its vectors from the request; --vectors beside it needs --cap");
    }

    /// <summary>Reads the vectors, of a file or of the request itself, and checks them against the model.</summary>
    /// <param name="parse">The command line.</param>
    /// <param name="model">The model.</param>
    /// <param name="terminal">Is told of a stored operating point.</param>
    /// <param name="pair">Makes the request's prompts with blank images and without any.</param>
    /// <param name="cancel">Stops it.</param>
    public async Task<SteeringOptions?> ReadAsync(
        ParseResult parse, VisionLanguageModel model, Terminal terminal, Func<PromptPair> pair, CancellationToken cancel)
    {
        if (!parse.GetValue(_sampleLevel))
            return Read(parse, model, terminal);
        var vectors = await model.SampleShiftAsync(pair(), cancel: cancel).ConfigureAwait(false);
        if (parse.GetValue(_cap) is { } sigmas)
            vectors = vectors.Cap(OpenVectors(parse, model, parse.GetValue(_vectors)!), sigmas);
        return Read(parse, model, vectors);
    }

    /// <summary>Reads the vectors and checks them against the model. A stored operating point holds where no other setting is given.</summary>
    public SteeringOptions? Read(ParseResult parse, VisionLanguageModel model, Terminal? terminal = null)
    {
        if (parse.GetValue(_vectors) is not { } file)
        {
            foreach (var option in (ReadOnlySpan<Option>)[_alpha, _scope, _layers, _force])
            {
                if (parse.GetResult(option) is { Implicit: false })
                    throw new UsageException($"{option.Name} needs --vectors");
            }
            return null;
        }
        Layers(parse); // a mistake in the command line is told before one in a file
        var vectors = OpenVectors(parse, model, file);
        if (vectors.OperatingPoint is null || new Option[] { _alpha, _scope, _layers }.Any(option => parse.GetResult(option) is { Implicit: false }))
            return Read(parse, model, vectors);
        var calibrated = SteeringOptions.Of(vectors);
        calibrated.Validate(model.Network.Spec.Text.Layers);
        terminal?.Error.WriteLine($"trimtab: steers as {Path.GetFileName(file)} was calibrated: alpha {calibrated.Alpha}, "
            + $"scope {calibrated.Scope.ToString().ToLowerInvariant()}, layers {calibrated.Layers?.ToString() ?? "all"}");
        return calibrated;
    }

    private LayerSet? Layers(ParseResult parse)
    {
        try
        {
            return parse.GetValue(_layers) is { } text ? LayerSet.Parse(text) : null;
        }
        catch (FormatException error)
        {
            throw new UsageException($"--{error.Message}");
        }
    }

    private ShiftVectors OpenVectors(ParseResult parse, VisionLanguageModel model, string file)
    {
        var vectors = ShiftVectors.Open(file);
        var spec = model.Network.Spec.Text;
        vectors.Check(spec.Layers, spec.HiddenSize, model.Network.Fingerprint, parse.GetValue(_force));
        return vectors;
    }

    /// <summary>The vectors at the alpha, scope and layers that are given, or their defaults.</summary>
    private SteeringOptions Read(ParseResult parse, VisionLanguageModel model, ShiftVectors vectors)
    {
        var scope = parse.GetValue(_scope) switch
        {
            "prefill" => SteeringScope.Prefill,
            "decode" => SteeringScope.Decode,
            _ => SteeringScope.All,
        };
        var steering = new SteeringOptions(vectors, parse.GetValue(_alpha) ?? 1, scope, Layers(parse));
        try
        {
            steering.Validate(model.Network.Spec.Text.Layers);
        }
        catch (ArgumentException error)
        {
            throw new UsageException(error.Message);
        }
        return steering;
    }
}
