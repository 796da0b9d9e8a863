using System.CommandLine;
using Trimtab.Checkpoints;

namespace Trimtab.Server.Commands;

/// <summary>trace: the prompt's last-token states at every layer.</summary>
internal static class TraceCommand
{
    public static Command Create(Terminal terminal)
    {
        var (model, prompt, steering) = (new ModelArguments(), new PromptArguments(), new SteeringArguments());
        var file = new Option<string>("--out", "-o") { Description = "The safetensors file to write.", HelpName = "FILE", Required = true };
        var command = new Command(
            "trace", "Writes the prompt's last-token states at each decoder layer's output, before that layer's edit (hidden [L, D]), and the logits [V].");
        model.AddTo(command);
        prompt.AddTo(command);
        steering.AddTo(command);
        command.Options.Add(file);
        command.SetAction(async (parse, cancel) =>
        {
            using var opened = model.Open(parse, terminal, cancel);
            var sequence = await opened.RunAsync(
                prompt.Build(parse, opened, terminal),
                new() { MaxTokens = 0, Capture = true, Steering = steering.Read(parse, opened, terminal) }, cancel).ConfigureAwait(false);
            var text = opened.Network.Spec.Text;
            var target = parse.GetRequiredValue(file);
            SafetensorsWriter.Write(target,
            [
                TensorData.Of("hidden", [text.Layers, text.HiddenSize], sequence.States),
                TensorData.Of("logits", [text.VocabularySize], sequence.Logits),
            ], new Dictionary<string, string>
            {
                ["model.fingerprint"] = opened.Network.Fingerprint,
                ["prompt_tokens"] = sequence.Prompt.Tokens.Length.ToString(),
            });
            await terminal.Output.WriteLineAsync($"{target}: hidden [{text.Layers}, {text.HiddenSize}], logits [{text.VocabularySize}]").ConfigureAwait(false);
            return 0;
        });
        return command;
    }
}
