using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>Reads policy.json (docs/policy.md), and makes the policies of a server that is given none.</summary>
internal static class PolicyFile
{
    private const Rights All = Rights.Alpha | Rights.Scope | Rights.Layers | Rights.Vectors | Rights.Sample | Rights.Off | Rights.Force;

    /// <summary>Reads a policy file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="layers">The model's decoder layers.</param>
    /// <exception cref="InvalidDataException">It is no policy; the message names the field.</exception>
    public static Policy Open(string path, int layers) => Parse(File.ReadAllBytes(path), path, layers);

    /// <summary>Reads a policy.</summary>
    /// <param name="utf8">The file.</param>
    /// <param name="name">What errors call it.</param>
    /// <param name="layers">The model's decoder layers.</param>
    public static Policy Parse(byte[] utf8, string name, int layers)
    {
        try
        {
            using var json = JsonDocument.Parse(utf8, new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true });
            var fields = new Fields(json.RootElement);
            var policy = new Policy
            {
                Version = fields.RequiredText("version") is { Length: > 0 and <= 100 } version ? version : throw ApiException.Invalid("version", "expected 1 to 100 characters"),
                Hash = Convert.ToHexStringLower(SHA256.HashData(utf8)),
                Images = Rule(fields, "images", layers),
                Text = Rule(fields, "text", layers),
                StartWithoutVectors = fields.Word("when_vectors_missing", "refuse_to_start", "refuse_requests") == "refuse_requests",
                Callers = Callers(fields),
            };
            fields.End();
            return policy;
        }
        catch (Exception error) when (error is ApiException or JsonException)
        {
            throw new InvalidDataException($"{name}: {error.Message}", error);
        }
    }

    /// <summary>
    /// The policy of a server without a policy file: images are steered with the first vectors at their operating point, and every caller
    /// may ask for anything, unsteered answers included. Without vectors nothing is steered.
    /// </summary>
    public static Policy Open(NamedVectors? vectors, SteeringScope? scope = null)
    {
        if (vectors is null)
            return new() { Version = "none" };
        var point = SteeringOptions.Of(vectors.Vectors);
        return new()
        {
            Version = "open",
            Images = new() { Required = true, Vectors = vectors.Name, Alpha = point.Alpha, Floor = 0, Ceiling = 1000, Scope = scope ?? point.Scope, Layers = point.Layers, Alternatives = [] },
            Text = new() { Ceiling = 1000 },
            Callers = new Dictionary<string, Rights> { [Policy.Everybody] = All },
        };
    }

    private static PolicyRule Rule(Fields policy, string name, int layers)
    {
        if (policy.Object(name) is not { } fields)
            return name == "images" ? throw ApiException.Invalid("images", "is missing; expected the rule for requests with images") : new();
        var list = fields.Text("layers", 1000);
        LayerSet? set = null;
        try
        {
            set = list is null or "all" ? null : LayerSet.Parse(list);
        }
        catch (FormatException error)
        {
            throw ApiException.Invalid(fields.At("layers"), error.Message);
        }
        if (set is not null && set.Layers.Max() > layers)
            throw ApiException.Invalid(fields.At("layers"), $"is {set}; the model has decoder layers 1-{layers}");
        var vectors = fields.Text("vectors", 64);
        var required = fields.Flag("required") ?? vectors is not null;
        var alpha = (float)(fields.Number("alpha", -1000, 1000) ?? 1);
        var rule = new PolicyRule
        {
            Required = required,
            Vectors = vectors,
            VectorsHash = fields.Text("vectors_hash"),
            NormFloor = (float)(fields.Number("norm_floor", 0, 1e30) ?? 0),
            Alternatives = [.. (fields.List("alternatives", 1000) ?? []).Select(entry => Fields.Text(entry.Value, entry.Path, 64))],
            Alpha = alpha,
            Floor = (float)(fields.Number("alpha_floor", -1000, 1000) ?? (required ? alpha : 0)),
            Ceiling = (float)(fields.Number("alpha_ceiling", -1000, 1000) ?? Math.Max(alpha, 4)),
            Scope = SteeringRequest.ReadScope(fields.Word("scope", "all", "prefill", "decode")) ?? SteeringScope.All,
            Layers = set,
            Raise = fields.Word("below_floor", "refuse", "raise") == "raise",
        };
        fields.End();
        if (required && vectors is null)
            throw ApiException.Invalid(fields.At("vectors"), "is missing, but the rule requires steering; expected the name of vectors");
        if (rule.VectorsHash is { } hash && (hash.Length != 64 || !hash.All(char.IsAsciiHexDigit)))
            throw ApiException.Invalid(fields.At("vectors_hash"), "expected 64 hexadecimal digits, as inspect prints a vector file's hash");
        if (rule.Alpha < rule.Floor || rule.Alpha > rule.Ceiling)
            throw ApiException.Invalid(fields.At("alpha"), $"is {rule.Alpha}; expected a number between the floor {rule.Floor} and the ceiling {rule.Ceiling}");
        if (required && !(rule.Floor > 0))
            throw ApiException.Invalid(fields.At("alpha_floor"), $"is {rule.Floor}, but the rule requires steering; expected more than 0");
        if (required && !(rule.Alpha > 0))
            throw ApiException.Invalid(fields.At("alpha"), $"is {rule.Alpha}, but the rule requires steering; expected more than 0");
        return rule;
    }

    private static Dictionary<string, Rights> Callers(Fields policy)
    {
        var callers = new Dictionary<string, Rights>(StringComparer.Ordinal);
        if (policy.Any("callers") is not { } all)
            return callers;
        if (all.ValueKind != JsonValueKind.Object)
            throw ApiException.Invalid("callers", $"is {Fields.Kind(all)}; expected an object of key ids");
        foreach (var caller in all.EnumerateObject())
        {
            var fields = new Fields(caller.Value, $"callers.{caller.Name}");
            var rights = Rights.None;
            foreach (var (value, path) in fields.List("may", 100) ?? throw ApiException.Invalid(fields.At("may"), "is missing; expected an array"))
            {
                rights |= Fields.Text(value, path) switch
                {
                    "alpha" => Rights.Alpha,
                    "scope" => Rights.Scope,
                    "layers" => Rights.Layers,
                    "vectors" => Rights.Vectors,
                    "sample" => Rights.Sample,
                    "off" => Rights.Off,
                    "force" => Rights.Force,
                    var other => throw ApiException.Invalid(path, $"is '{other}'; expected alpha, scope, layers, vectors, sample, off or force"),
                };
            }
            fields.End();
            if (!callers.TryAdd(caller.Name, rights))
                throw ApiException.Invalid(fields.At("may"), "is there twice");
        }
        return callers;
    }

    /// <summary>The words of rights.</summary>
    public static IEnumerable<string> Words(Rights rights) => Enum.GetValues<Rights>().Where(right => right != Rights.None && rights.HasFlag(right)).Select(right => right switch
    {
        Rights.Alpha => "alpha",
        Rights.Scope => "scope",
        Rights.Layers => "layers",
        Rights.Vectors => "vectors",
        Rights.Sample => "sample",
        Rights.Force => "force",
        _ => "off",
    });
}
