using System.Text.Json;
using static Trimtab.Server.Benchmarks.BenchReport;

namespace Trimtab.Server.Benchmarks;

/// <summary>Load runs of several servers, for people and for programs.</summary>
internal sealed record ServeReport(Machine Machine, ServeLoad Load, IReadOnlyList<ServeTarget> Targets)
{
    /// <summary>One server's runs of one kind.</summary>
    private sealed record Level(ServeTarget Target, int Clients, double Rate, IReadOnlyList<ServeRun> Runs)
    {
        public string Name => Clients > 0 ? $"{Clients} client{(Clients == 1 ? "" : "s")}" : $"{Number(Rate)} a second";

        public IEnumerable<ServeAnswer> Answers => Runs.SelectMany(run => run.Answers);

        public IReadOnlyList<double> FirstTokens { get; } = [.. Runs.SelectMany(run => run.Answers).Where(a => a.Error is null).Select(a => a.FirstToken).Order()];

        public IReadOnlyList<double> Gaps { get; } = [.. Runs.SelectMany(run => run.Answers).SelectMany(a => a.Gaps).Order()];

        public double CachedShare => Answers.Sum(a => (double)a.CachedTokens) / Math.Max(1, Answers.Sum(a => (double)a.PromptTokens));
    }

    private IEnumerable<Level> Levels => Targets
        .SelectMany((target, order) => target.Runs.GroupBy(run => (run.Clients, run.Rate)).Select(group => (order, new Level(target, group.Key.Clients, group.Key.Rate, [.. group]))))
        .OrderBy(l => l.Item2.Clients == 0).ThenBy(l => l.Item2.Clients).ThenBy(l => l.Item2.Rate).ThenBy(l => l.order).Select(l => l.Item2);

    /// <summary>Throughput of the first target over this one's, run by run.</summary>
    private IReadOnlyList<double> Ratios(Level level)
    {
        if (ReferenceEquals(level.Target, Targets[0]))
            return [];
        var first = Targets[0].Runs.Where(run => (run.Clients, run.Rate) == (level.Clients, level.Rate));
        return [.. first.Zip(level.Runs, (a, b) => b.Throughput > 0 ? a.Throughput / b.Throughput : double.NaN)];
    }

    /// <summary>The value that a share of sorted values does not exceed (nearest rank); 0 where there are none.</summary>
    internal static double Percentile(IReadOnlyList<double> sorted, double share)
        => sorted.Count == 0 ? 0 : sorted[Math.Clamp((int)Math.Ceiling(share * sorted.Count) - 1, 0, sorted.Count - 1)];

    /// <summary>Prints a table that is Markdown, and legible without a reader of it.</summary>
    public void Print(TextWriter output, bool markdown)
    {
        (string Name, string Text)[] lines =
        [
            ("machine", $"{Machine.Cpu}, {Machine.Processors} processors; clients and servers share it where the servers are local"),
            ("software", $"trimtab {Machine.Version}, {Machine.DotNet}, {Machine.System}"),
            ("load", $"{Load.Requests} requests a run; {Load.PrefixWords} shared words in {Load.Prefixes} group{(Load.Prefixes == 1 ? "" : "s")} and {Load.Words} of a prompt's own, "
                + $"at most {Load.MaxTokens} tokens back" + (Load.Images.Count > 0 ? $", {Load.ImageShare:P0} with an image" : "")
                + (Load.Alphas.Count > 0 ? $"; alphas {string.Join(", ", Load.Alphas)} in turn" : "")),
            ("runs", $"{Targets[0].Runs.GroupBy(run => (run.Clients, run.Rate)).First().Count()} of each, in turn; throughput is the median (least – most), times are percentiles over all of them"),
        ];
        foreach (var (name, text) in lines)
            output.WriteLine(markdown ? $"- {name}: {text}" : $"{name,-10} {text}");
        output.WriteLine();
        List<string[]> rows = [["load", "server", "tokens/s", $"{Targets[0].Name} : it", "first token ms p50 / p95 / p99", "between ms p50 / p95 / p99", "cached", "errors"]];
        foreach (var level in Levels)
        {
            var (rates, ratios) = (Spread.Of(level.Runs.Select(run => run.Throughput)), Ratios(level));
            rows.Add([level.Name, level.Target.Name, $"{Number(rates.Median)} ({Number(rates.Least)} – {Number(rates.Most)})", ratios.Count > 0 ? Number(Spread.Of(ratios).Median) : "",
                Times(level.FirstTokens), Times(level.Gaps), Percent(level.CachedShare), $"{level.Runs.Sum(run => run.Errors)}"]);
        }
        Table(output, rows);
        foreach (var group in Targets.SelectMany(target => target.Runs.SelectMany(run => run.Answers).Where(a => a.Error is not null).GroupBy(a => (target.Name, a.Error))))
            output.WriteLine($"{group.Key.Name}: {group.Count()} × {group.Key.Error}");

        static string Times(IReadOnlyList<double> sorted) => string.Join(" / ", Shares.Select(share => Number(1e3 * Percentile(sorted, share))));
    }

    private static readonly double[] Shares = [.5, .95, .99];

    /// <summary>All figures as one JSON object.</summary>
    public void Write(Utf8JsonWriter writer)
    {
        writer.WriteStartObject();
        Machine.Write(writer);
        writer.WriteStartObject("load");
        writer.WriteNumber("requests", Load.Requests);
        writer.WriteNumber("prefix_words", Load.PrefixWords);
        writer.WriteNumber("prefixes", Load.Prefixes);
        writer.WriteNumber("words", Load.Words);
        writer.WriteNumber("max_tokens", Load.MaxTokens);
        writer.WriteNumber("image_share", Load.Images.Count > 0 ? Load.ImageShare : 0);
        Numbers(writer, "alphas", Load.Alphas.Select(a => (double)a));
        writer.WriteEndObject();
        writer.WriteStartArray("results");
        foreach (var level in Levels)
        {
            writer.WriteStartObject();
            writer.WriteString("server", level.Target.Name);
            writer.WriteNumber("clients", level.Clients);
            writer.WriteNumber("rate", Rounded(level.Rate));
            Numbers(writer, "tokens_per_second", level.Runs.Select(run => run.Throughput));
            Numbers(writer, "ratios", Ratios(level));
            Numbers(writer, "first_token_seconds", Shares.Select(share => Percentile(level.FirstTokens, share)));
            Numbers(writer, "between_seconds", Shares.Select(share => Percentile(level.Gaps, share)));
            writer.WriteNumber("prompt_tokens", level.Answers.Sum(a => a.PromptTokens));
            writer.WriteNumber("cached_tokens", level.Answers.Sum(a => a.CachedTokens));
            writer.WriteNumber("tokens", level.Answers.Sum(a => a.Tokens));
            writer.WriteNumber("errors", level.Runs.Sum(run => run.Errors));
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();
    }
}
