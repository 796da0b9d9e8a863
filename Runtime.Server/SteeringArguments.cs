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
        Description = "Strength of the edit h := h - alpha v; 1 is the paper's optimum, and the default.",
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

    public SteeringArguments() => _scope.AcceptOnlyFromAmong("all", "prefill", "decode");

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_vectors, _alpha, _scope, _layers, _force])
            command.Options.Add(option);
    }

    /// <summary>Reads the vectors and checks them against the model.</summary>
    public SteeringOptions? Read(ParseResult parse, VisionLanguageModel model)
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
        LayerSet? layers = null;
        try
        {
            if (parse.GetValue(_layers) is { } text)
                layers = LayerSet.Parse(text);
        }
        catch (FormatException error)
        {
            throw new UsageException($"--{error.Message}");
        }
        var vectors = ShiftVectors.Open(file);
        var spec = model.Network.Spec.Text;
        vectors.Check(spec.Layers, spec.HiddenSize, model.Network.Fingerprint, parse.GetValue(_force));
        var scope = parse.GetValue(_scope) switch
        {
            "prefill" => SteeringScope.Prefill,
            "decode" => SteeringScope.Decode,
            _ => SteeringScope.All,
        };
        var steering = new SteeringOptions(vectors, parse.GetValue(_alpha) ?? 1, scope, layers);
        try
        {
            steering.Validate(spec.Layers);
        }
        catch (ArgumentException error)
        {
            throw new UsageException(error.Message);
        }
        return steering;
    }
}
