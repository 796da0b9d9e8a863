using System.Diagnostics;
using System.Text.Json;

namespace Trimtab.Server.Benchmarks;

/// <summary>What a peer measured.</summary>
/// <param name="Test">prefill or decode.</param>
/// <param name="Tokens">Tokens a sequence.</param>
/// <param name="Batch">Sequences.</param>
/// <param name="Depth">Positions before.</param>
/// <param name="Rate">Tokens a second: the median of its samples.</param>
internal sealed record PeerResult(string Test, int Tokens, int Batch, int Depth, double Rate)
{
    /// <summary>Whether it is the same work.</summary>
    public bool Matches(Measurement measurement)
        => measurement.Steered == 0 && (Test, Tokens, Batch, Depth) == (measurement.Test, measurement.Tokens, measurement.Batch, measurement.Depth);
}

/// <summary>
/// Another program that measures the same work in turn with this one: llama.cpp's llama-bench (or a fork's) with <c>-o json</c> or
/// <c>-o jsonl</c>, or its llama-batched-bench with <c>--output-format jsonl</c>.
/// </summary>
internal sealed class Peer(string command)
{
    /// <summary>The command line.</summary>
    public string Command => command;

    /// <summary>The program's build as it tells it, or null.</summary>
    public string? Build { get; private set; }

    /// <summary>What it measured, an entry a run.</summary>
    public List<IReadOnlyList<PeerResult>> Runs { get; } = [];

    /// <summary>Runs it once.</summary>
    /// <exception cref="InvalidDataException">It failed, or printed something else than it should.</exception>
    public async Task RunAsync(CancellationToken cancel)
    {
        var start = OperatingSystem.IsWindows() ? new ProcessStartInfo("cmd.exe", ["/c", command]) : new ProcessStartInfo("/bin/sh", ["-c", command]);
        (start.RedirectStandardOutput, start.RedirectStandardError, start.RedirectStandardInput) = (true, true, true);
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        try
        {
            var (output, error) = (process.StandardOutput.ReadToEndAsync(cancel), process.StandardError.ReadToEndAsync(cancel));
            await process.WaitForExitAsync(cancel).ConfigureAwait(false);
            if (process.ExitCode != 0)
                throw new InvalidDataException($"--peer '{command}' ended with {process.ExitCode}: {Last(await error.ConfigureAwait(false))}");
            Runs.Add(Parse(await output.ConfigureAwait(false)));
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
        }
    }

    /// <summary>Ratios of a measurement to this peer, pair by pair: above 1 where this program is faster; empty where the peer measured no such thing.</summary>
    public IReadOnlyList<double> Ratios(Measurement measurement) =>
    [
        .. measurement.Rates.Zip(Runs, (rate, run) => run.FirstOrDefault(result => result.Matches(measurement)) is { } peer ? rate / peer.Rate : double.NaN)
            .Where(double.IsFinite),
    ];

    /// <summary>The peer's rates of a measurement.</summary>
    public IReadOnlyList<double> Rates(Measurement measurement)
        => [.. Runs.Select(run => run.FirstOrDefault(result => result.Matches(measurement))).OfType<PeerResult>().Select(result => result.Rate)];

    private List<PeerResult> Parse(string output)
    {
        var results = new List<PeerResult>();
        try
        {
            // Programs print other lines too; an array begins a line and is the last thing.
            var from = output.StartsWith('[') ? 0 : output.IndexOf("\n[", StringComparison.Ordinal) + 1;
            if (output.AsSpan(from).StartsWith("["))
            {
                using var json = JsonDocument.Parse(output.AsMemory(from..(output.LastIndexOf(']') + 1)));
                foreach (var element in json.RootElement.EnumerateArray())
                    Read(element, results);
            }
            else
            {
                foreach (var line in output.Split('\n', StringSplitOptions.TrimEntries).Where(line => line.StartsWith('{')))
                {
                    using var json = JsonDocument.Parse(line);
                    Read(json.RootElement, results);
                }
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or FormatException or ArgumentException)
        {
            throw new InvalidDataException($"--peer '{command}' printed JSON that is not llama-bench's: {error.Message}", error);
        }
        return results.Count > 0 ? results : throw new InvalidDataException(
            $"--peer '{command}' printed no measurement; expected the JSON of llama-bench -o json or llama-batched-bench --output-format jsonl, found: {Last(output)}");
    }

    private void Read(JsonElement element, List<PeerResult> results)
    {
        if (element.TryGetProperty("speed_tg", out var decode))
        {
            var (prompt, tokens, batch) = (Number("pp"), Number("tg"), Number("pl"));
            Add("decode", tokens, batch, prompt, decode.GetDouble());
            if (batch == 1)
                Add("prefill", prompt, 1, 0, element.GetProperty("speed_pp").GetDouble());
            return;
        }
        if (element.TryGetProperty("build_commit", out var build) && build.ValueKind == JsonValueKind.String)
            Build = build.GetString();
        var (read, generated) = (Number("n_prompt"), Number("n_gen"));
        var rate = element.TryGetProperty("samples_ts", out var samples) && samples.GetArrayLength() > 0
            ? Spread.Of(samples.EnumerateArray().Select(sample => sample.GetDouble())).Median
            : element.GetProperty("avg_ts").GetDouble();
        if (generated == 0)
            Add("prefill", read, 1, Number("n_depth"), rate);
        else if (read == 0)
            Add("decode", generated, 1, Number("n_depth"), rate);

        int Number(string name) => element.TryGetProperty(name, out var value) ? value.GetInt32() : name == "n_depth" ? 0 : throw new FormatException($"there is no {name}");

        void Add(string test, int count, int batch, int depth, double perSecond)
        {
            if (count > 0)
                results.Add(new(test, count, batch, depth, perSecond > 0 && double.IsFinite(perSecond) ? perSecond : throw new FormatException($"{perSecond} tokens a second")));
        }
    }

    private static string Last(string text) => text.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "nothing";
}
