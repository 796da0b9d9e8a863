using System.CommandLine;
using Trimtab.Kernels;

namespace Trimtab.Server;

/// <summary>The options that say how tokens are drawn.</summary>
internal sealed class SamplingArguments
{
    private readonly Option<float> _temperature = new("--temperature") { Description = "0 takes the most likely token; higher is more random.", HelpName = "T" };
    private readonly Option<int> _topK = new("--top-k") { Description = "Keep the K most likely tokens; 0 keeps all.", HelpName = "K" };
    private readonly Option<float> _topP = new("--top-p") { Description = "Keep the smallest set of tokens whose mass reaches P.", HelpName = "P", DefaultValueFactory = _ => 1 };
    private readonly Option<float> _minP = new("--min-p") { Description = "Keep tokens at least P times as likely as the most likely one.", HelpName = "P" };
    private readonly Option<float> _repetition = new("--repetition-penalty") { Description = "Divides the logits of tokens seen before; 1 is none.", HelpName = "R", DefaultValueFactory = _ => 1 };
    private readonly Option<float> _presence = new("--presence-penalty") { Description = "Subtracted from the logits of tokens generated before.", HelpName = "P" };
    private readonly Option<float> _frequency = new("--frequency-penalty") { Description = "Subtracted for every time a token was generated before.", HelpName = "F" };
    private readonly Option<ulong> _seed = new("--seed") { Description = "Seed of the draws; the same seed draws the same tokens.", HelpName = "N" };
    private readonly Option<string[]> _bias = new("--logit-bias") { Description = "Added to a token's logit, as ID=BIAS.", HelpName = "ID=BIAS", AllowMultipleArgumentsPerToken = true };

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_temperature, _topK, _topP, _minP, _repetition, _presence, _frequency, _seed, _bias])
            command.Options.Add(option);
    }

    public SamplingOptions Read(ParseResult parse)
    {
        var bias = new Dictionary<int, float>();
        foreach (var entry in parse.GetValue(_bias) ?? [])
        {
            var at = entry.IndexOf('=');
            if (at < 0 || !int.TryParse(entry.AsSpan(0, at), out var id) || !float.TryParse(entry.AsSpan(at + 1), out var value))
                throw new UsageException($"--logit-bias {entry}: expected ID=BIAS, such as 42=-100");
            bias[id] = value;
        }
        var options = new SamplingOptions
        {
            Temperature = parse.GetValue(_temperature),
            TopK = parse.GetValue(_topK),
            TopP = parse.GetValue(_topP),
            MinP = parse.GetValue(_minP),
            RepetitionPenalty = parse.GetValue(_repetition),
            PresencePenalty = parse.GetValue(_presence),
            FrequencyPenalty = parse.GetValue(_frequency),
            Seed = parse.GetValue(_seed),
            LogitBias = bias.Count > 0 ? bias : null,
        };
        try
        {
            options.Validate();
        }
        catch (ArgumentException error)
        {
            throw new UsageException(error.Message);
        }
        return options;
    }
}
