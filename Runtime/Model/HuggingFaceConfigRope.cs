namespace Trimtab.Model;

public static partial class HuggingFaceConfig
{
    private const double MaxFactor = 1e9;

    /// <summary>
    /// RoPE from transformers 5's rope_parameters, or from rope_theta and rope_scaling, whose kind is under rope_type or type.
    /// Where a file has both forms, rope_scaling wins, as in transformers.
    /// </summary>
    private static RopeSpec Rope(ConfigSection text, int dimension, int maxPositions)
    {
        var scaling = text.Object("rope_scaling");
        if (scaling is { IsEmpty: true })
            scaling = null;
        var given = scaling ?? text.Object("rope_parameters") ?? text.Empty("rope_parameters");
        foreach (var nested in (ReadOnlySpan<string>)["full_attention", "sliding_attention"])
            if (given.Has(nested))
                throw given.Unsupported(nested, "one set of parameters for all layers");
        given.RefuseUnlessNeutral([("partial_rotary_factor", 1), ("mrope_section", double.NaN), ("mrope_interleaved", double.NaN),
            ("alpha", double.NaN)]);

        // A base of 1 or less has no falling frequencies.
        const double LeastTheta = 1.000001, MostTheta = 1e15;
        var theta = given.Number("rope_theta", LeastTheta, MostTheta) ?? text.Number("rope_theta", LeastTheta, MostTheta) ?? 10000;
        var field = given.Has("rope_type") ? "rope_type" : "type";
        var spec = new RopeSpec(RopeKind.Default, theta, dimension, maxPositions);
        switch (given.Text(field))
        {
            case null or "default":
                return spec;
            case "linear":
                return spec with { Kind = RopeKind.Linear, Factor = Required("factor") };
            case "dynamic":
                if (dimension < 4)
                    throw given.Invalid(field, "a head dimension of at least 4 for this kind");
                return spec with { Kind = RopeKind.Dynamic, Factor = Required("factor") };
            case "llama3":
                var (low, high) = (Required("low_freq_factor"), Required("high_freq_factor"));
                if (high <= low)
                    throw given.Invalid("high_freq_factor", $"more than low_freq_factor, {low}");
                return spec with
                {
                    Kind = RopeKind.Llama3, Factor = Required("factor"), LowFrequencyFactor = low, HighFrequencyFactor = high,
                    OriginalPositions = Original(),
                };
            case "yarn":
                // In transformers 0 counts as absent for the betas and the mscales.
                var (fast, slow) = (Optional("beta_fast") ?? 32, Optional("beta_slow") ?? 1);
                if (fast < slow)
                    throw given.Invalid("beta_fast", $"at least beta_slow, {slow}");
                var original = Original();
                return spec with
                {
                    Kind = RopeKind.Yarn, OriginalPositions = original, BetaFast = fast, BetaSlow = slow,
                    Factor = given.Has("factor") ? Required("factor") : (double)maxPositions / original,
                    AttentionFactor = given.Number("attention_factor", 1e-9, MaxFactor),
                    MScale = Optional("mscale"), MScaleAllDimensions = Optional("mscale_all_dim"), Truncate = given.Flag("truncate", true),
                };
            default:
                throw given.Unsupported(field, "default, linear, dynamic, llama3, yarn");
        }

        double Required(string name) => given.Number(name, 1e-9, MaxFactor) ?? throw given.Invalid(name, "a number: this kind needs it");

        double? Optional(string name) => given.Number(name, 0, MaxFactor) is { } n and > 0 ? n : null;

        // Beside the parameters it has priority (Phi 3 put it there first); absent, the model was not extended.
        int Original() => text.Size("original_max_position_embeddings",
            given.Size("original_max_position_embeddings", maxPositions, 1 << 30), 1 << 30);
    }
}
