using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;

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
        ["demo"] = ["trimtab demo", "trimtab demo --limit 30 --out quick"],
        ["generate"] =
        [
            "trimtab generate -m SmolLM2-135M-Instruct.Q4_1.gguf -p \"Why is the sky blue?\"",
            "trimtab generate -m llava -i photo.jpg -p \"What is this?\" --vectors cmrm.safetensors --alpha 1 --scope prefill",
            "trimtab generate -m llava -i photo.jpg -p \"What is this?\" --sample-level --vectors cmrm.safetensors --cap 3",
            "trimtab generate -m llava --raw -i a.png -p \"USER: <image>\\nHi ASSISTANT:\" --json",
            "echo \"Tell me a story.\" | trimtab generate -m model.gguf -p - --temperature 0.8 --seed 7",
        ],
        ["extract"] =
        [
            "trimtab extract -m llava --anchors harmful.txt --out cmrm.safetensors",
            "trimtab extract -m llava --anchors harmful.jsonl --field question --method sequential --out cmrm.safetensors",
            "trimtab extract -m llava --anchors harmful.txt --image noise --seed 1 --method pc --limit 200 --out cmrm.gguf",
        ],
        ["calibrate"] =
        [
            "trimtab calibrate -m llava --vectors cmrm.safetensors --harmful dev-harmful.txt --benign dev-benign.txt",
            "trimtab calibrate -m llava --vectors cmrm.safetensors --harmful h.jsonl --benign b.jsonl --utility vqa.jsonl --alpha 0.5,1 --layers \"all;1-16\"",
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
        ["pull"] =
        [
            "trimtab pull llava-hf/llava-1.5-7b-hf",
            "trimtab pull Qwen/Qwen2-0.5B-Instruct-GGUF --file \"*q4_0.gguf\"",
            "trimtab generate -m \"$(trimtab pull llava-hf/llava-1.5-7b-hf)\" -i photo.jpg -p \"What is this?\"",
        ],
        ["evaluate"] =
        [
            "trimtab evaluate -m llava -d vlsafe:vlsafe_examine_eval.jsonl --images coco --vectors cmrm.safetensors --alpha 0,0.5,1,1.5 --out run",
            "trimtab evaluate -m llava -d siuo:siuo_gen.json siuo-mcqa:siuo_mcqa.json --images siuo --judge refusal,choice,openai:http://localhost:8080/v1#llama-3-8b --out run",
            "trimtab evaluate -m llava -d mine=csv:questions.csv --map prompt=question,image=img,answer=gold,category=cat --out run",
        ],
        ["serve"] =
        [
            "trimtab serve",
            "trimtab serve -m llava --vectors cmrm=cmrm.safetensors --policy policy.json --api-keys keys.json --audit-log audit.jsonl",
            "trimtab serve -m model.gguf --host 0.0.0.0 --port 80 --api-keys keys.json --kv-memory 8G --max-batch 64",
        ],
        ["route"] =
        [
            "trimtab route --replica http://10.0.0.1:8080 --replica http://10.0.0.2:8080",
            "trimtab route --discover http://trimtab-replicas:8080 --host 0.0.0.0 --port 8080",
        ],
        ["replay"] = ["trimtab replay receipt.json --image photo.jpg", "trimtab replay answer.json -m llava --vectors cmrm.safetensors --image photo.jpg"],
        ["audit verify"] = ["trimtab audit verify audit.jsonl"],
        ["gpu-check"] = ["trimtab gpu-check --json h100.json > h100.md", "trimtab gpu-check --checks-only", "trimtab gpu-check --quick"],
        ["bench"] =
        [
            "trimtab bench -m model.gguf -b 1,8,32 --steered 8",
            "trimtab bench --synthetic 1.1b-q8_0 --threads 2 --json q8_0.json",
            "trimtab bench --synthetic llava-7b-q4_0 --image -p 0 -n 0",
            "trimtab bench --synthetic 1.1b-q4_0 --write m.gguf -t 2 --peer \"llama-bench -m m.gguf -p 512 -n 64 -t 2 -r 1 -o json\"",
        ],
        ["bench serve"] =
        [
            "trimtab bench serve --target trimtab=http://127.0.0.1:8080/v1 --clients 1,8,32",
            "trimtab bench serve --target trimtab=http://127.0.0.1:8080/v1 --target llama=http://127.0.0.1:8081/v1 --prefix 256 --words 32",
            "trimtab bench serve --target trimtab=http://127.0.0.1:8080/v1 --target llama=http://127.0.0.1:8081/v1 --prefix 256 --words 32 --alpha 0.5,1,1.5,2",
            "trimtab bench serve --target trimtab=http://127.0.0.1:8080/v1 --rate 4 --image photo.png --image-share 0.5 --alpha 0.5,1",
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
            if (ByCommand.TryGetValue(Name(parseResult.CommandResult), out var examples))
            {
                var output = parseResult.InvocationConfiguration.Output;
                output.WriteLine("Examples:");
                foreach (var example in examples)
                    output.WriteLine($"  {example}");
                output.WriteLine();
            }
            return code;

            // A command's name with those above it, but for the program's own.
            static string Name(CommandResult result) => result.Parent is not CommandResult parent
                ? "trimtab"
                : parent.Parent is null ? result.Command.Name : $"{Name(parent)} {result.Command.Name}";
        }
    }
}
