using System.Text.Json;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>Where an answer's vectors come from.</summary>
internal enum SteeringMode
{
    /// <summary>A named vector set.</summary>
    Dataset,
    /// <summary>The request itself.</summary>
    Sample,
    /// <summary>Nowhere.</summary>
    Off,
}

/// <summary>What a request asks of its steering; null where it leaves a thing to the policy.</summary>
internal sealed record SteeringRequest
{
    /// <summary>Asks for nothing.</summary>
    public static SteeringRequest None { get; } = new();

    /// <summary>Name of a vector set.</summary>
    public string? Vectors { get; init; }

    /// <summary>Strength.</summary>
    public float? Alpha { get; init; }

    /// <summary>Tokens.</summary>
    public SteeringScope? Scope { get; init; }

    /// <summary>Layers; <see cref="AllLayers"/> tells an explicit "all" from nothing.</summary>
    public LayerSet? Layers { get; init; }

    /// <summary>Whether "all" layers were asked for.</summary>
    public bool AllLayers { get; init; }

    /// <summary>Where the vectors come from.</summary>
    public SteeringMode? Mode { get; init; }

    /// <summary>Whether the receipt tells every steered token's projections.</summary>
    public bool Series { get; init; }

    /// <summary>Reads the extension object of a request.</summary>
    /// <param name="request">The request.</param>
    /// <param name="layers">The model's decoder layers.</param>
    public static SteeringRequest Read(Fields request, int layers)
    {
        if (request.Object("steering") is not { } fields)
            return None;
        var list = fields.Text("layers", 1000);
        LayerSet? set = null;
        if (list is not null and not "all")
        {
            try
            {
                set = LayerSet.Parse(list);
            }
            catch (FormatException error)
            {
                throw ApiException.Invalid(fields.At("layers"), error.Message);
            }
            if (set.Layers.Max() > layers)
                throw ApiException.Invalid(fields.At("layers"), $"is {set}; the model has decoder layers 1-{layers}");
        }
        var read = new SteeringRequest
        {
            Vectors = fields.Text("vectors", 64),
            Alpha = (float?)fields.Number("alpha", -1000, 1000),
            Scope = ReadScope(fields.Word("scope", "all", "prefill", "decode")),
            Layers = set,
            AllLayers = list == "all",
            Series = fields.Word("telemetry", "summary", "series") == "series",
            Mode = fields.Word("mode", "dataset", "sample", "off") switch
            {
                "dataset" => SteeringMode.Dataset,
                "sample" => SteeringMode.Sample,
                "off" => SteeringMode.Off,
                _ => null,
            },
        };
        fields.End();
        if (read.Mode == SteeringMode.Off && read is not { Vectors: null, Alpha: null, Scope: null, Layers: null, AllLayers: false })
            throw ApiException.Invalid(fields.At("mode"), "is off, but other fields ask for steering; expected one or the other");
        if (read.Mode == SteeringMode.Sample && read.Vectors is not null)
            throw ApiException.Invalid(fields.At("vectors"), "a request of mode sample makes its own vectors; expected no name");
        return read;
    }

    /// <summary>A scope's word.</summary>
    public static string Word(SteeringScope scope) => scope switch
    {
        SteeringScope.Prefill => "prefill",
        SteeringScope.Decode => "decode",
        _ => "all",
    };

    /// <summary>A mode's word.</summary>
    public static string Word(SteeringMode mode) => mode switch
    {
        SteeringMode.Sample => "sample",
        SteeringMode.Off => "off",
        _ => "dataset",
    };

    /// <summary>The scope of a word.</summary>
    public static SteeringScope? ReadScope(string? word) => word switch
    {
        "all" => SteeringScope.All,
        "prefill" => SteeringScope.Prefill,
        "decode" => SteeringScope.Decode,
        _ => null,
    };
}
