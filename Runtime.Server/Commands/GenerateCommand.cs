using System.CommandLine;
using System.Text.Json;
using Trimtab.Engine;

namespace Trimtab.Server.Commands;

/// <summary>generate: a steered, streamed answer.</summary>
internal static class GenerateCommand
{
    public static Command Create(Terminal terminal)
    {
        var (model, prompt, steering, sampling) = (new ModelArguments(), new PromptArguments(), new SteeringArguments(), new SamplingArguments());
        var maxTokens = new Option<int>("--max-tokens", "-n") { Description = "Most tokens to generate.", HelpName = "N", DefaultValueFactory = _ => 256 };
        var stop = new Option<string[]>("--stop") { Description = "Texts that end the answer; they are not part of it.", HelpName = "TEXT", AllowMultipleArgumentsPerToken = true };
        var ignoreEos = new Option<bool>("--ignore-eos") { Description = "Go on after an end-of-sequence token." };
        var special = new Option<bool>("--show-special") { Description = "Print special tokens too." };
        var json = new Option<bool>("--json") { Description = "Print one JSON object at the end: tokens, text, usage, timings, a hash of the logits." };
        var command = new Command("generate", "Answers a prompt, with images and with steering; streams the text.");
        model.AddTo(command);
        prompt.AddTo(command);
        foreach (var option in (ReadOnlySpan<Option>)[maxTokens, stop, ignoreEos, special])
            command.Options.Add(option);
        sampling.AddTo(command);
        steering.AddWithSampleLevelTo(command);
        command.Options.Add(json);
        command.SetAction(async (parse, cancel) =>
        {
            var draws = sampling.Read(parse);
            if (parse.GetValue(maxTokens) < 0)
                throw new UsageException("--max-tokens is negative; expected 0 or more");
            if ((parse.GetValue(stop) ?? []).Contains(""))
                throw new UsageException("--stop is empty; expected a text");
            steering.Check(parse);
            prompt.Read(parse, terminal with { Input = TextReader.Null }); // images and files are checked before a model is loaded
            using var opened = model.Open(parse, terminal, cancel);
            var (asked, images) = prompt.Read(parse, terminal);
            var built = prompt.Build(parse, opened, asked, images);
            var options = new GenerationOptions
            {
                MaxTokens = parse.GetValue(maxTokens),
                Sampling = draws,
                Stop = parse.GetValue(stop) ?? [],
                IgnoreEos = parse.GetValue(ignoreEos),
                SkipSpecial = !parse.GetValue(special),
                Steering = await steering.ReadAsync(parse, opened, terminal, () => prompt.BuildPair(parse, opened, asked, images.Count), cancel).ConfigureAwait(false),
                HashLogits = parse.GetValue(json),
            };
            var streamed = !parse.GetValue(json);
            var text = new System.Text.StringBuilder();
            Sequence? sequence = null;
            await foreach (var update in opened.GenerateAsync(built, options, cancel).ConfigureAwait(false))
            {
                sequence = update.Sequence;
                text.Append(update.Text);
                if (!streamed || update.Text.Length == 0)
                    continue;
                await terminal.Output.WriteAsync(update.Text).ConfigureAwait(false);
                await terminal.Output.FlushAsync(cancel).ConfigureAwait(false);
            }
            if (streamed)
            {
                await terminal.Output.WriteLineAsync().ConfigureAwait(false);
                terminal.Note(Summary(opened, sequence!));
            }
            else
            {
                await terminal.Output.WriteLineAsync(Json.Write(writer => WriteResult(writer, opened, sequence!, text.ToString()))).ConfigureAwait(false);
            }
            return 0;
        });
        return command;
    }

    private static void WriteResult(Utf8JsonWriter writer, VisionLanguageModel model, Sequence sequence, string text)
    {
        writer.WriteStartObject();
        Json.WriteNumbers(writer, "prompt_token_ids", sequence.Prompt.Tokens);
        Json.WriteNumbers(writer, "token_ids", sequence.Generated);
        writer.WriteString("text", text);
        writer.WriteString("finish_reason", sequence.Finish == FinishReason.Stop ? "stop" : "length");
        if (sequence.Options.Steering is { } steering)
        {
            writer.WriteStartObject("steering");
            writer.WriteString("vectors", steering.Vectors.Hash);
            writer.WriteNumber("alpha", steering.Alpha);
            writer.WriteString("scope", steering.Scope.ToString().ToLowerInvariant());
            writer.WriteString("layers", steering.Layers?.ToString() ?? "all");
            writer.WriteBoolean("calibrated", steering.Calibrated);
            writer.WriteString("level", steering.Vectors.Metadata.GetValueOrDefault("method") == "sample" ? "sample" : "dataset");
            writer.WriteEndObject();
        }
        writer.WriteStartObject("usage");
        writer.WriteNumber("prompt_tokens", sequence.Prompt.Tokens.Length);
        writer.WriteNumber("completion_tokens", sequence.Generated.Count);
        writer.WriteNumber("total_tokens", sequence.Prompt.Tokens.Length + sequence.Generated.Count);
        writer.WriteEndObject();
        writer.WriteStartObject("timings");
        Number("load_ms", model.LoadTime.TotalMilliseconds);
        Number("image_ms", sequence.ImageTime.TotalMilliseconds);
        Number("prefill_ms", sequence.PrefillTime.TotalMilliseconds);
        Number("decode_ms", sequence.DecodeTime.TotalMilliseconds);
        Number("prefill_tokens_per_second", Rate(sequence.Prompt.Tokens.Length, sequence.PrefillTime));
        Number("decode_tokens_per_second", DecodeRate(sequence));
        Number("decode_gb_per_second", DecodeRate(sequence) * model.Network.Decoder.WeightBytes / 1e9);
        writer.WriteEndObject();
        writer.WriteString("logits_hash", sequence.LogitsHash);
        writer.WriteEndObject();

        void Number(string name, double value) => writer.WriteNumber(name, Math.Round(value, 3));
    }

    private static string Summary(VisionLanguageModel model, Sequence sequence)
        => $"prompt {sequence.Prompt.Tokens.Length} tokens, {Rate(sequence.Prompt.Tokens.Length, sequence.PrefillTime):F1} tokens/s; " +
           $"answer {sequence.Generated.Count} tokens, {DecodeRate(sequence):F1} tokens/s " +
           $"({DecodeRate(sequence) * model.Network.Decoder.WeightBytes / 1e9:F1} GB/s of weights); {model.Network.Device.Name}";

    // The first token comes out of the prefill; the others are decoded.
    private static double DecodeRate(Sequence sequence) => Rate(sequence.Generated.Count - 1, sequence.DecodeTime);

    private static double Rate(int tokens, TimeSpan time) => tokens > 0 && time > TimeSpan.Zero ? tokens / time.TotalSeconds : 0;
}
