using System.CommandLine;
using Trimtab.Engine;

namespace Trimtab.Server.Commands;

/// <summary>score: how likely a text is.</summary>
internal static class ScoreCommand
{
    public static Command Create(Terminal terminal)
    {
        var model = new ModelArguments();
        var prompt = new Option<string>("--prompt", "-p") { Description = "The text, as it stands: a text, @FILE to read one, or - for standard input.", HelpName = "TEXT|@FILE|-", Required = true };
        var json = new Option<bool>("--json") { Description = "Print one JSON object: nll of each token after the first, mean_nll, perplexity." };
        var command = new Command("score", "Prints the negative log-likelihood of a text in nats a token, and its perplexity.");
        model.AddTo(command);
        command.Options.Add(prompt);
        command.Options.Add(json);
        command.SetAction(async (parse, cancel) =>
        {
            var text = PromptArguments.Text(parse.GetRequiredValue(prompt), terminal);
            using var opened = model.Open(parse, terminal, cancel);
            var tokens = opened.Raw(text);
            if (tokens.Tokens.Length < 2)
                throw new UsageException($"the text has {tokens.Tokens.Length} tokens; a likelihood needs at least 2");
            var sequence = await opened.RunAsync(tokens, new() { MaxTokens = 0, Score = true }, cancel).ConfigureAwait(false);
            var nll = sequence.Nll!;
            var mean = nll.Average(value => (double)value);
            if (!parse.GetValue(json))
            {
                await terminal.Output.WriteLineAsync($"{nll.Length} tokens, mean nll {mean:F6}, perplexity {Math.Exp(mean):F4}").ConfigureAwait(false);
                return 0;
            }
            await terminal.Output.WriteLineAsync(Json.Write(writer =>
            {
                writer.WriteStartObject();
                Json.WriteNumbers(writer, "token_ids", tokens.Tokens);
                writer.WriteStartArray("nll");
                foreach (var value in nll)
                    writer.WriteNumberValue(value);
                writer.WriteEndArray();
                writer.WriteNumber("mean_nll", mean);
                writer.WriteNumber("perplexity", Math.Exp(mean));
                writer.WriteEndObject();
            })).ConfigureAwait(false);
            return 0;
        });
        return command;
    }
}
