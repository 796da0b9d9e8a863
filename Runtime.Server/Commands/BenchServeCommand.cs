using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Trimtab.Server.Benchmarks;

namespace Trimtab.Server.Commands;

/// <summary>bench serve: what a server gives its clients, beside other servers under the same load.</summary>
internal static class BenchServeCommand
{
    private static readonly Option<string[]> Targets = new("--target")
    {
        Description = "A server that speaks OpenAI's chat completions, and the name of its rows. May be repeated: the first is compared with the others. A key goes into OPENAI_API_KEY.",
        HelpName = "NAME=URL",
        Required = true,
    };
    private static readonly Option<string> Clients = new("--clients", "-c") { Description = "Clients that ask at the same time, each again as soon as it is answered, such as 1,8,32.", HelpName = "LIST", DefaultValueFactory = _ => "1,8,32" };
    private static readonly Option<double> Rate = new("--rate") { Description = "In place of clients, requests a second that arrive by chance (Poisson), however many wait.", HelpName = "R" };
    private static readonly Option<int> Requests = new("--requests", "-n") { Description = "Requests of a run.", HelpName = "N", DefaultValueFactory = _ => 64 };
    private static readonly Option<int> Prefix = new("--prefix") { Description = "Words that prompts share at their beginning.", HelpName = "WORDS", DefaultValueFactory = _ => 0 };
    private static readonly Option<int> Prefixes = new("--prefixes") { Description = "Groups of prompts, each with a shared beginning of its own.", HelpName = "N", DefaultValueFactory = _ => 1 };
    private static readonly Option<int> Words = new("--words") { Description = "Words that each prompt has for itself.", HelpName = "WORDS", DefaultValueFactory = _ => 64 };
    private static readonly Option<int> MaxTokens = new("--max-tokens") { Description = "Most tokens of an answer.", HelpName = "N", DefaultValueFactory = _ => 64 };
    private static readonly Option<string[]> Images = new("--image", "-i") { Description = "Image files that requests carry, in turn.", HelpName = "FILE", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<double> ImageShare = new("--image-share") { Description = "Share of the requests that carry one.", HelpName = "0-1", DefaultValueFactory = _ => 1 };
    private static readonly Option<string?> Alphas = new("--alpha") { Description = "Steering strengths that the prompts of each group ask for in turn, such as 0.5,1. Servers without vectors get the same prompts alone.", HelpName = "LIST" };
    private static readonly Option<string?> Vectors = new("--vectors") { Description = "The vectors that --alpha steers by; by default the first that a server lists.", HelpName = "NAME" };
    private static readonly Option<string?> Body = new("--body") { Description = "Further fields of each request, such as {\"ignore_eos\":true}.", HelpName = "JSON" };
    private static readonly Option<int> Repetitions = new("--repetitions", "-r") { Description = "Runs of each kind, the servers in turn.", HelpName = "R", DefaultValueFactory = _ => 3 };
    private static readonly Option<int> Seed = new("--seed") { Description = "Seed of prompts and arrivals.", HelpName = "N", DefaultValueFactory = _ => 1 };
    private static readonly Option<string?> JsonFile = new("--json") { Description = "Write all figures as JSON; - for the output, in place of the table.", HelpName = "FILE" };
    private static readonly Option<bool> Markdown = new("--markdown") { Description = "Print for a Markdown document." };

    public static Command Create(Terminal terminal)
    {
        var command = new Command("serve", "Loads servers with the same requests in turn: throughput, time to the first token, time between tokens.");
        foreach (var option in (ReadOnlySpan<Option>)[
            Targets, Clients, Rate, Requests, Prefix, Prefixes, Words, MaxTokens, Images, ImageShare, Alphas, Vectors, Body, Repetitions, Seed, JsonFile, Markdown])
            command.Options.Add(option);
        command.SetAction(async (parse, cancel) =>
        {
            var (load, targets) = (Load(parse), parse.GetValue(Targets)!.Select(Target).ToList());
            try
            {
                var report = await RunAsync(parse, load, targets, terminal, cancel).ConfigureAwait(false);
                await terminal.ReportAsync(parse.GetValue(JsonFile), report.Write, output => report.Print(output, parse.GetValue(Markdown)), cancel).ConfigureAwait(false);
                return targets.Any(target => target.Runs.Any(run => run.Errors > 0)) ? 1 : 0;
            }
            finally
            {
                targets.ForEach(target => target.Dispose());
            }
        });
        return command;
    }

    private static async Task<ServeReport> RunAsync(ParseResult parse, ServeLoad load, List<ServeTarget> targets, Terminal terminal, CancellationToken cancel)
    {
        var rate = parse.GetValue(Rate);
        if (!double.IsFinite(rate) || rate < 0)
            throw new UsageException($"--rate is {rate}; expected requests a second, more than 0");
        var levels = rate > 0 ? [0] : BenchCommand.Numbers("--clients", parse.GetValue(Clients)!);
        foreach (var target in targets)
        {
            await target.OpenAsync(cancel).ConfigureAwait(false);
            if (load.Alphas.Count > 0)
                await target.OpenVectorsAsync(parse.GetValue(Vectors), cancel).ConfigureAwait(false);
        }
        if (load.Alphas.Count > 0 && targets.TrueForAll(target => target.Vectors is null))
            throw new UsageException("--alpha: no server lists vectors (GET /v1/steering/vectors)");
        foreach (var target in targets)
        {
            if (load.Alphas.Count > 0)
                terminal.Note(target.Vectors is { } vectors ? $"{target.Name} steers by {vectors}" : $"{target.Name} has no vectors: it gets the prompts alone");
            // Untimed: connections, and whatever the server does at its first request.
            await target.ClosedAsync(load with { Requests = 1 }, 1, -1, cancel).ConfigureAwait(false);
            if (target.Runs[0].Answers[0].Error is { } error)
                throw new UsageException($"--target {target.Name}: its first answer failed: {error}");
            target.Runs.Clear();
        }
        var run = 0;
        var repetitions = Math.Max(1, ModelArguments.Range(parse, Repetitions, 1000));
        for (var repetition = 0; repetition < repetitions; repetition++)
            foreach (var clients in levels)
            {
                // Whoever comes first finds another machine: every other time the order is reversed.
                foreach (var target in repetition % 2 == 0 ? targets : Enumerable.Reverse(targets))
                {
                    var done = clients > 0
                        ? await target.ClosedAsync(load, clients, run, cancel).ConfigureAwait(false)
                        : await target.OpenLoopAsync(load, rate, run, cancel).ConfigureAwait(false);
                    terminal.Note($"repetition {repetition + 1} of {repetitions}, {(clients > 0 ? $"{clients} clients" : $"{rate} a second")}, {target.Name}: {done.Throughput:F1} tokens/s");
                }
                run++;
            }
        return new(Machine.Here, load, targets);
    }

    private static ServeTarget Target(string text)
    {
        var equals = text.IndexOf('=', StringComparison.Ordinal);
        if (equals < 1 || !Uri.TryCreate(text[(equals + 1)..], UriKind.Absolute, out var url) || url.Scheme is not ("http" or "https"))
            throw new UsageException($"--target {text}: expected NAME=URL, such as trimtab=http://127.0.0.1:8080/v1");
        return new(text[..equals], url, Environment.GetEnvironmentVariable("OPENAI_API_KEY") is { Length: > 0 } key ? key : null);
    }

    private static ServeLoad Load(ParseResult parse)
    {
        var share = parse.GetValue(ImageShare);
        if (share is not (>= 0 and <= 1))
            throw new UsageException($"--image-share is {share}; expected 0 to 1");
        return new(
            Math.Max(1, ModelArguments.Range(parse, Requests, 1 << 20)), ModelArguments.Range(parse, Prefix, 1 << 20), Math.Max(1, ModelArguments.Range(parse, Prefixes, 1 << 20)),
            Math.Max(1, ModelArguments.Range(parse, Words, 1 << 20)), Math.Max(1, ModelArguments.Range(parse, MaxTokens, 1 << 20)),
            [.. (parse.GetValue(Images) ?? []).Select(DataUrl)], share, AlphaList(parse.GetValue(Alphas)), Fields(parse.GetValue(Body)), parse.GetValue(Seed));
    }

    /// <summary>The file as it is: servers tell formats by the first bytes.</summary>
    private static string DataUrl(string file)
    {
        var type = Path.GetExtension(file).ToLowerInvariant() is ".jpg" or ".jpeg" ? "jpeg" : Path.GetExtension(file).TrimStart('.').ToLowerInvariant();
        return $"data:image/{type};base64,{Convert.ToBase64String(File.ReadAllBytes(file))}";
    }

    private static List<float> AlphaList(string? text)
    {
        var alphas = new List<float>();
        foreach (var part in text?.Split(',') ?? [])
            alphas.Add(float.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out var alpha) && float.IsFinite(alpha)
                ? alpha
                : throw new UsageException($"--alpha '{text}': expected numbers, such as 0.5,1"));
        return alphas;
    }

    private static JsonElement? Fields(string? text)
    {
        if (text is null)
            return null;
        try
        {
            var fields = JsonDocument.Parse(text).RootElement;
            return fields.ValueKind == JsonValueKind.Object ? fields : throw new UsageException($"--body {text}: expected a JSON object");
        }
        catch (JsonException error)
        {
            throw new UsageException($"--body {text}: {error.Message}");
        }
    }
}
