using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;

namespace Trimtab.Server;

/// <summary>Examples at the end of each command's help.</summary>
internal static class Examples
{
    private static readonly Dictionary<string, string[]> ByCommand = new()
    {
        ["trimtab"] =
        [
            "trimtab generate --model llava-1.5-7b-hf --image photo.jpg --prompt \"What is shown here?\"",
            "trimtab generate --model llava-1.5-7b-hf --image photo.jpg --prompt \"...\" --vectors cmrm.safetensors --alpha 1",
            "trimtab inspect llava-1.5-7b-hf",
        ],
        ["generate"] =
        [
            "trimtab generate -m SmolLM2-135M-Instruct.Q4_1.gguf -p \"Why is the sky blue?\"",
            "trimtab generate -m llava -i photo.jpg -p \"What is this?\" --vectors cmrm.safetensors --alpha 1 --scope prefill",
            "trimtab generate -m llava --raw -i a.png -p \"USER: <image>\\nHi ASSISTANT:\" --json",
            "echo \"Tell me a story.\" | trimtab generate -m model.gguf -p - --temperature 0.8 --seed 7",
        ],
        ["score"] = ["trimtab score -m model.gguf -p @book.txt --json"],
        ["trace"] = ["trimtab trace -m llava -i photo.jpg -p \"What is this?\" --out states.safetensors"],
        ["tokenize"] =
        [
            "trimtab tokenize -m llava \"Hello world\"",
            "trimtab tokenize -m tokenizer.json --no-special --jsonl < strings.jsonl > ids.jsonl",
        ],
        ["detokenize"] = ["trimtab detokenize -m llava 15043 3186"],
        ["see"] = ["trimtab see --image photo.jpg --out seen.png", "trimtab see --image photo.jpg --out seen.png --model llava"],
        ["inspect"] = ["trimtab inspect llava-1.5-7b-hf", "trimtab inspect cmrm.safetensors --json"],
        ["convert"] = ["trimtab convert cmrm.safetensors cmrm.gguf", "trimtab convert control-vector.gguf vectors.safetensors"],
        ["bench"] =
        [
            "trimtab bench -m model.gguf -b 1,8,32 --steered 8",
            "trimtab bench --synthetic 1.1b-q8_0 --threads 2 --json q8_0.json",
            "trimtab bench --synthetic llava-7b-q4_0 --image -p 0 -n 0",
            "trimtab bench --synthetic 1.1b-q4_0 --write m.gguf -t 2 --peer \"llama-bench -m m.gguf -p 512 -n 64 -t 2 -r 1 -o json\"",
        ],
        ["completion"] = ["source <(trimtab completion bash)", "trimtab completion pwsh | Out-String | Invoke-Expression"],
    };

    /// <summary>Puts the examples behind the help that the parser writes.</summary>
    public static void AddToHelp(RootCommand root)
    {
        var help = root.Options.OfType<HelpOption>().Single();
        help.Action = new HelpWithExamples((SynchronousCommandLineAction)help.Action!);
    }

    private sealed class HelpWithExamples(SynchronousCommandLineAction inner) : SynchronousCommandLineAction
    {
        public override int Invoke(ParseResult parseResult)
        {
            var code = inner.Invoke(parseResult);
            var command = parseResult.CommandResult.Command;
            if (ByCommand.TryGetValue(command is RootCommand ? "trimtab" : command.Name, out var examples))
            {
                var output = parseResult.InvocationConfiguration.Output;
                output.WriteLine("Examples:");
                foreach (var example in examples)
                    output.WriteLine($"  {example}");
                output.WriteLine();
            }
            return code;
        }
    }
}
