using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>What a policy says of requests of one kind: those with images, or those without.</summary>
internal sealed record PolicyRule
{
    /// <summary>Whether an answer may be given only if it is steered at least as this rule says.</summary>
    public bool Required { get; init; }

    /// <summary>Name of the vectors; null: such requests are not steered unless they ask for it.</summary>
    public string? Vectors { get; init; }

    /// <summary>The vectors' hash (<see cref="ShiftVectors.Hash"/>); others under that name are a mismatch.</summary>
    public string? VectorsHash { get; init; }

    /// <summary>Least length of vectors, the mean over the rule's layers; weaker ones are a mismatch.</summary>
    public float NormFloor { get; init; }

    /// <summary>Further vectors that callers with the right to choose may choose.</summary>
    public IReadOnlyList<string> Alternatives { get; init; } = [];

    /// <summary>Strength where the request says nothing.</summary>
    public float Alpha { get; init; } = 1;

    /// <summary>Least strength.</summary>
    public float Floor { get; init; }

    /// <summary>Greatest strength.</summary>
    public float Ceiling { get; init; } = 4;

    /// <summary>Tokens that are steered, at least.</summary>
    public SteeringScope Scope { get; init; } = SteeringScope.All;

    /// <summary>Layers that are steered, at least; null for all that the vectors have.</summary>
    public LayerSet? Layers { get; init; }

    /// <summary>Whether an alpha below the floor is raised to it instead of refused.</summary>
    public bool Raise { get; init; }
}

/// <summary>What a caller may ask for beside the policy's defaults.</summary>
[Flags]
internal enum Rights
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Another strength between floor and ceiling.</summary>
    Alpha = 1,
    /// <summary>A wider scope.</summary>
    Scope = 2,
    /// <summary>More layers.</summary>
    Layers = 4,
    /// <summary>One of the rule's alternative vector sets.</summary>
    Vectors = 8,
    /// <summary>Vectors of the request itself.</summary>
    Sample = 16,
    /// <summary>No steering.</summary>
    Off = 32,
    /// <summary>A hand in the words of the answer, where only its beginning is steered.</summary>
    Force = 64,
}

/// <summary>How one request is steered, and what of it was not the request's or the default's.</summary>
/// <param name="Mode">Where the vectors come from.</param>
/// <param name="Set">The vector set; null for sample and off.</param>
/// <param name="Alpha">Strength.</param>
/// <param name="Scope">Tokens.</param>
/// <param name="Layers">Layers, or null for all.</param>
/// <param name="RaisedFrom">The alpha that was asked for, where it was raised to the floor.</param>
internal sealed record SteeringDecision(
    SteeringMode Mode, NamedVectors? Set = null, float Alpha = 0, SteeringScope Scope = SteeringScope.All, LayerSet? Layers = null, float? RaisedFrom = null);

/// <summary>
/// Which steering every request gets, and who may ask for another. It fails closed: where a rule requires steering, <see cref="Decide"/>
/// returns a decision that steers at least as the rule says or one that the caller has the right to, or throws.
/// </summary>
internal sealed record Policy
{
    /// <summary>The caller that stands for all that are not named.</summary>
    public const string Everybody = "*";

    /// <summary>Its author's name for this state of it; in every receipt.</summary>
    public required string Version { get; init; }

    /// <summary>SHA-256 of its file.</summary>
    public string Hash { get; init; } = "";

    /// <summary>Requests with an image in any turn.</summary>
    public PolicyRule Images { get; init; } = new();

    /// <summary>Requests without.</summary>
    public PolicyRule Text { get; init; } = new();

    /// <summary>Whether a server starts that lacks usable vectors, and refuses such requests until it has them.</summary>
    public bool StartWithoutVectors { get; init; }

    /// <summary>Rights by key id.</summary>
    public IReadOnlyDictionary<string, Rights> Callers { get; init; } = new Dictionary<string, Rights>();

    /// <summary>A caller's rights.</summary>
    public Rights RightsOf(Caller caller) => Callers.TryGetValue(caller.Id, out var own) ? own : Callers.GetValueOrDefault(Everybody);

    /// <summary>The rule for requests with or without images.</summary>
    public PolicyRule Rule(bool images) => images ? Images : Text;

    /// <summary>Why a rule's requests cannot be answered now, or null.</summary>
    public static string? Missing(PolicyRule rule, VectorCatalog catalog)
    {
        if (rule.Vectors is not { } name)
            return null;
        if (catalog.Find(name) is not { } set)
            return $"the policy steers with the vectors '{name}', which are not loaded";
        if (Mismatch(rule, set) is { } mismatch)
            return mismatch;
        if (!VectorCatalog.Steers(set.Vectors, rule.Layers))
            return $"the vectors '{name}' are zero in the layers that the policy steers ({Show(rule.Layers)})";
        return null;
    }

    /// <summary>Why vectors are not those that a rule means, or null.</summary>
    public static string? Mismatch(PolicyRule rule, NamedVectors set)
    {
        if (rule.VectorsHash is { } hash && set.Name == rule.Vectors && !string.Equals(hash, set.Vectors.Hash, StringComparison.OrdinalIgnoreCase))
            return $"the vectors '{set.Name}' have the hash {set.Vectors.Hash}; the policy expects {hash}";
        return VectorCatalog.Norm(set.Vectors, rule.Layers) is var norm && norm < rule.NormFloor
            ? $"the vectors '{set.Name}' have a mean length of {norm:G4} in the layers that the policy steers ({Show(rule.Layers)}); the policy demands at least {rule.NormFloor}" : null;
    }

    /// <summary>Decides a request's steering.</summary>
    /// <param name="caller">Who asks.</param>
    /// <param name="images">Whether the prompt, as it will run, has images.</param>
    /// <param name="request">What is asked for.</param>
    /// <param name="catalog">The vector sets of this moment.</param>
    /// <exception cref="ApiException">403: not allowed. 404: no such vectors. 503: what the policy requires is not there.</exception>
    public SteeringDecision Decide(Caller caller, bool images, SteeringRequest request, VectorCatalog catalog)
    {
        var (rule, rights) = (Rule(images), RightsOf(caller));
        var mode = request.Mode ?? (rule.Vectors is null && request.Vectors is null ? SteeringMode.Off : SteeringMode.Dataset);
        if (mode == SteeringMode.Off)
            return Off(caller, rule, rights, request);
        if (mode == SteeringMode.Sample)
        {
            Demand(caller, rights, Rights.Sample, "steering.mode", "to be steered by its own vectors");
            if (!images)
                throw ApiException.Invalid("steering.mode", "is sample, but the request has no image that shifts it");
        }
        var set = mode == SteeringMode.Dataset ? Set(caller, rule, rights, request, catalog) : null;
        var layers = request.Layers ?? (request.AllLayers ? null : rule.Layers);
        if ((request.Layers is not null || request.AllLayers) && !Same(layers, rule.Layers))
            Demand(caller, rights, Rights.Layers, "steering.layers", "to choose layers");
        var scope = request.Scope ?? rule.Scope;
        if (scope != rule.Scope)
            Demand(caller, rights, Rights.Scope, "steering.scope", "to choose a scope");
        var alpha = request.Alpha ?? rule.Alpha;
        if (alpha != rule.Alpha)
            Demand(caller, rights, Rights.Alpha, "steering.alpha", "to choose alpha");
        if (!(alpha <= rule.Ceiling))
            throw new ApiException(403, $"steering.alpha: is {alpha}; the policy allows at most {rule.Ceiling}", "steering.alpha", "above_ceiling");
        float? raisedFrom = null;
        // Who may switch steering off may weaken it; an alpha below 0 pushes the other way and is no weaker steering.
        var floor = rights.HasFlag(Rights.Off) ? Math.Min(rule.Floor, 0) : rule.Floor;
        if (!(alpha >= floor))
        {
            if (!rule.Raise)
                throw new ApiException(403, $"steering.alpha: is {alpha}; the policy demands at least {rule.Floor}", "steering.alpha", "below_floor");
            (raisedFrom, alpha) = (alpha, rule.Floor);
        }
        var decision = new SteeringDecision(mode, set, alpha, scope, layers, raisedFrom);
        if (set is not null && !VectorCatalog.Steers(set.Vectors, layers))
            throw new ApiException(403, $"steering.layers: the vectors '{set.Name}' are zero in the layers {Show(layers)}, so nothing would be steered", "steering.layers", "steers_nothing");
        Confirm(caller, images, decision);
        return decision;
    }

    /// <summary>Refuses a decision that falls short of the rule and that the caller has no right to. Asked again just before an answer runs.</summary>
    public void Confirm(Caller caller, bool images, SteeringDecision decision)
    {
        var rule = Rule(images);
        if (rule.Required && !RightsOf(caller).HasFlag(Rights.Off) && Shortfall(rule, decision) is { } shortfall)
            throw new ApiException(403, shortfall.Message, shortfall.Param, "below_policy");
    }

    /// <summary>
    /// Refuses words of the answer that the caller chooses where steering is required at the prompt's last token alone: it acts on how an answer
    /// begins, and an answer that the caller has begun, or whose refusal he has ruled out, leaves it behind.
    /// </summary>
    /// <param name="caller">Who asks.</param>
    /// <param name="images">Whether the prompt has images.</param>
    /// <param name="decision">What was decided.</param>
    /// <param name="field">The field by which he does it, or null.</param>
    public void CheckForced(Caller caller, bool images, SteeringDecision decision, string? field)
    {
        if (field is not null && Rule(images).Required && decision is { Mode: not SteeringMode.Off, Scope: SteeringScope.Prefill } && !RightsOf(caller).HasFlag(Rights.Force))
            throw new ApiException(403, $"{field}: the policy steers how answers begin, and does not allow {caller.Id} a hand in their words", field, "forced_answer");
    }

    /// <summary>What a decision lacks of a rule that requires steering, or null.</summary>
    private static (string Param, string Message)? Shortfall(PolicyRule rule, SteeringDecision decision)
    {
        if (decision.Mode == SteeringMode.Off)
            return ("steering.mode", "steering.mode: is off; the policy demands steering");
        if (!(decision.Alpha >= rule.Floor) || !(decision.Alpha > 0) || !float.IsFinite(decision.Alpha))
            return ("steering.alpha", $"steering.alpha: is {decision.Alpha}; the policy demands at least {rule.Floor}, and more than 0");
        if (decision.Scope != rule.Scope && decision.Scope != SteeringScope.All)
            return ("steering.scope", $"steering.scope: is {SteeringRequest.Word(decision.Scope)}; the policy demands {SteeringRequest.Word(rule.Scope)} or all");
        if (decision.Layers is { } layers && !Includes(layers, rule.Layers, decision.Set?.Vectors))
            return ("steering.layers", $"steering.layers: is {layers}; the policy demands at least {Show(rule.Layers)}");
        return null;
    }

    private static SteeringDecision Off(Caller caller, PolicyRule rule, Rights rights, SteeringRequest request)
    {
        if (request is not { Alpha: null or 0, Scope: null, Layers: null, AllLayers: false })
            throw ApiException.Invalid("steering", "asks for a strength, a scope or layers, but names no vectors, and the policy has none for this kind of request", "no_vectors");
        if (rule.Required)
            Demand(caller, rights, Rights.Off, "steering.mode", "to switch steering off");
        return new(SteeringMode.Off);
    }

    private static NamedVectors Set(Caller caller, PolicyRule rule, Rights rights, SteeringRequest request, VectorCatalog catalog)
    {
        var name = request.Vectors ?? rule.Vectors
            ?? throw ApiException.Invalid("steering.vectors", "is missing, and the policy has no vectors for this kind of request");
        if (name != rule.Vectors)
        {
            Demand(caller, rights, Rights.Vectors, "steering.vectors", "to choose vectors");
            if (rule.Required && !rule.Alternatives.Contains(name))
                throw new ApiException(403, $"steering.vectors: is '{name}'; the policy allows {string.Join(", ", rule.Alternatives.Prepend(rule.Vectors ?? ""))}", "steering.vectors", "vectors_not_allowed");
            var chosen = catalog.Find(name)
                ?? throw new ApiException(404, $"steering.vectors: there are no vectors '{name}'; see GET /v1/steering/vectors", "steering.vectors", "vectors_not_found");
            return !rule.Required || Mismatch(rule, chosen) is not { } weak ? chosen : throw new ApiException(503, weak, "steering.vectors", "steering_unavailable");
        }
        if (Missing(rule, catalog) is { } missing)
            throw new ApiException(503, missing, null, "steering_unavailable") { RetryAfter = TimeSpan.FromSeconds(30) };
        // A set that is replaced between the check and here must not slip through.
        var set = catalog.Find(name);
        return set is not null && Mismatch(rule, set) is null
            ? set
            : throw new ApiException(503, $"the vectors '{name}' have just been taken out", null, "steering_unavailable") { RetryAfter = TimeSpan.FromSeconds(1) };
    }

    private static void Demand(Caller caller, Rights rights, Rights right, string param, string what)
    {
        if (!rights.HasFlag(right))
            throw new ApiException(403, $"{param}: the policy does not allow {caller.Id} {what}", param, "override_not_allowed");
    }

    private static bool Same(LayerSet? one, LayerSet? other) => one is null ? other is null : one.Equals(other);

    /// <summary>Whether layers include those demanded; null demands every layer that the vectors have (or the model, without vectors).</summary>
    private static bool Includes(LayerSet layers, LayerSet? demanded, ShiftVectors? vectors)
    {
        if (demanded is not null)
            return demanded.Layers.All(layers.Contains);
        return vectors is not null && Enumerable.Range(1, vectors.Layers).All(layer => vectors[layer].IsEmpty || layers.Contains(layer));
    }

    private static string Show(LayerSet? layers) => layers?.ToString() ?? "all";
}
