namespace Trimtab.Model;

public static partial class HuggingFaceConfig
{
    private const double MaxFactor = 1e9;

    /// <summary>
    /// RoPE from transformers 5's rope_parameters, or from rope_theta and rope_scaling, whose kind is under rope_type or type.
    /// Where a file has both forms, rope_scaling wins, as in transformers.
    /// </summary>
    private static RopeSpec Rope(ConfigSection text, TextFamily family, int headDimension, int maxPositions)
    {
        var scaling = text.Object("rope_scaling");
        if (scaling is { IsEmpty: true })
            scaling = null;
        var given = scaling ?? text.Object("rope_parameters") ?? text.Empty("rope_parameters");
        if (family.LocalTheta is not null && given.Object("full_attention") is { } full)
            given = full;
        return Rope(text, given, family, headDimension, maxPositions, family.Theta);
    }

    /// <summary>Of layers with a window, where theirs is another: transformers 5 has both sets side by side, 4 only the base of this one.</summary>
    private static RopeSpec? LocalRope(ConfigSection text, TextFamily family, int headDimension, int maxPositions)
    {
        if (family.LocalTheta is not { } theta)
            return null;
        if (text.Object("rope_parameters")?.Object("sliding_attention") is { } local)
            return Rope(text.Empty("rope_parameters"), local, family, headDimension, maxPositions, theta);
        return new(RopeKind.Default, text.Number("rope_local_base_freq", LeastTheta, MostTheta) ?? theta, headDimension, maxPositions);
    }

    // A base of 1 or less has no falling frequencies.
    private const double LeastTheta = 1.000001, MostTheta = 1e15;

    private static RopeSpec Rope(ConfigSection text, ConfigSection given, TextFamily family, int headDimension, int maxPositions, double otherwise)
    {
        foreach (var nested in (ReadOnlySpan<string>)["full_attention", "sliding_attention"])
            if (given.Has(nested))
                throw given.Unsupported(nested, "one set of parameters for all layers");
        given.RefuseUnlessNeutral([("alpha", double.NaN)]);
        if (!family.Reads.Contains("partial_rotary_factor"))
            given.RefuseUnlessNeutral([("partial_rotary_factor", 1)]);
        if (!family.MRope)
            given.RefuseUnlessNeutral([("mrope_section", double.NaN), ("mrope_interleaved", double.NaN)]);
        var part = given.Number("partial_rotary_factor", 0.01, 1) ?? text.Number("partial_rotary_factor", 0.01, 1) ?? 1;
        var dimension = (int)(headDimension * part);
        if (dimension < 2 || dimension % 2 != 0)
            throw text.Invalid("partial_rotary_factor", $"a part of the head dimension, {headDimension}, that is even");
        var theta = given.Number("rope_theta", LeastTheta, MostTheta) ?? text.Number("rope_theta", LeastTheta, MostTheta) ?? otherwise;
        var field = given.Has("rope_type") ? "rope_type" : "type";
        var spec = new RopeSpec(RopeKind.Default, theta, dimension, maxPositions);
        if (family.MRope)
            spec = spec with { Sections = Sections(given, dimension), Interleaved = given.Flag("mrope_interleaved", false) };
        if (family.MRope && given.Text(field) == "mrope")
            return spec;
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
            case "longrope":
            case "su": // Phi-3's first name of it
                var within = Original();
                return spec with
                {
                    Kind = RopeKind.LongRope, OriginalPositions = within, Factor = Optional("factor") ?? (double)maxPositions / within,
                    AttentionFactor = given.Number("attention_factor", 1e-9, MaxFactor),
                    Frequencies = Divisors("short_factor"), LongFrequencies = Divisors("long_factor"),
                };
            default:
                throw given.Unsupported(field, "default, linear, dynamic, llama3, yarn, longrope");
        }

        double Required(string name) => given.Number(name, 1e-9, MaxFactor) ?? throw given.Invalid(name, "a number: this kind needs it");

        float[] Divisors(string name)
        {
            var divisors = given.Numbers(name, 1e-9, MaxFactor);
            return divisors?.Length == dimension / 2 ? Array.ConvertAll(divisors, d => (float)d) : throw given.Invalid(name, $"{dimension / 2} positive numbers");
        }

        double? Optional(string name) => given.Number(name, 0, MaxFactor) is { } n and > 0 ? n : null;

        // Beside the parameters it has priority (Phi 3 put it there first); absent, the model was not extended.
        int Original() => text.Size("original_max_position_embeddings",
            given.Size("original_max_position_embeddings", maxPositions, 1 << 30), 1 << 30);
    }

    /// <summary>M-RoPE's sections: frequencies for time, row and column.</summary>
    private static int[] Sections(ConfigSection given, int dimension)
    {
        var sections = given.Ids("mrope_section");
        if (sections.Length != 3 || sections.Any(s => s > dimension) || sections.Sum() != dimension / 2)
            throw given.Invalid("mrope_section", $"three counts that sum to half the rotary dimension, {dimension / 2}");
        return sections;
    }
}
