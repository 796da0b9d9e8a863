using System.Globalization;
using System.Text;
using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Server.Benchmarks;

/// <summary>The model that was measured.</summary>
/// <param name="Name">File, folder or synthetic name.</param>
/// <param name="Form">Form of its matrices.</param>
/// <param name="Parameters">Elements of all its tensors.</param>
/// <param name="WeightBytes">Bytes of the decoder's matrices that a token reads, as packed.</param>
/// <param name="Device">What it ran on: instruction set and threads.</param>
internal sealed record BenchModel(string Name, string Form, long Parameters, long WeightBytes, string Device);

/// <summary>All of a run, for people and for programs.</summary>
internal sealed record BenchReport(
    Machine Machine, Roofline Roofline, BenchModel Model, BenchPlan Plan, IReadOnlyList<Measurement> Measurements, IReadOnlyList<Peer> Peers, long PeakMemory)
{
    /// <summary>What steering adds to a measurement's time, a fraction for each pair of repetitions; empty where it is not steered.</summary>
    public IReadOnlyList<double> Tax(Measurement steered)
    {
        var plain = steered.Steered == 0 ? null : Measurements.FirstOrDefault(m =>
            m.Steered == 0 && (m.Test, m.Tokens, m.Batch, m.Depth) == (steered.Test, steered.Tokens, steered.Batch, steered.Depth));
        return plain is null ? [] : [.. steered.Seconds.Zip(plain.Seconds, (a, b) => a / b - 1)];
    }

    /// <summary>Prints tables that are Markdown, and legible without a reader of it.</summary>
    /// <param name="output">Where.</param>
    /// <param name="markdown">Whether the lines before the tables are Markdown too.</param>
    public void Print(TextWriter output, bool markdown)
    {
        var lines = new List<(string, string)>
        {
            ("machine", $"{Machine.Cpu}, {Machine.Processors} processors; {Model.Device}"),
            ("roofline", $"read {Number(Roofline.ReadBytesPerSecond / 1e9)} GB/s, {Roofline.FloatInstruction} {Number(Roofline.FloatOpsPerSecond / 1e9)} GFLOP/s, "
                + $"{Roofline.BF16Instruction} {Number(Roofline.BF16OpsPerSecond / 1e9)} GFLOP/s, {Roofline.Int8Instruction} {Number(Roofline.Int8OpsPerSecond / 1e9)} GOP/s"),
            ("software", $"trimtab {Machine.Version}, {Machine.DotNet}, {Machine.System}"),
            ("model", $"{Model.Name}: {Model.Form}, {Number(Model.Parameters / 1e6)} M parameters, {Number(Model.WeightBytes / 1e6)} MB read a token; keys and values {Plan.Kv}"),
            ("repetitions", $"{Plan.Repetitions}, in turn; medians (least – most); peak memory {Number(PeakMemory / 1e6)} MB"),
        };
        foreach (var (name, text) in lines)
            output.WriteLine(markdown ? $"- {name}: {text}" : $"{name,-12} {text}");
        output.WriteLine();
        List<string[]> rows = [["test", "tokens/s", "ms", "weights GB/s", "GFLOP/s", "of roofline", "steering tax", "logits hash"]];
        rows.AddRange(Measurements.Select(Row));
        Table(output, rows);
        foreach (var measurement in Measurements.Where(m => m.Profile.Count > 0))
            PrintProfile(output, measurement);
        foreach (var peer in Peers)
            PrintPeer(output, peer, markdown);
    }

    /// <summary>A table of the ops, longest first; Spread draws and hashes; the last row is what no op took: texts, filling batches.</summary>
    private static void PrintProfile(TextWriter output, Measurement measurement)
    {
        output.WriteLine();
        var (total, runs) = (measurement.Seconds.Sum(), measurement.Seconds.Count);
        List<string[]> rows = [[measurement.Name, "share", "ms", "calls", "µs a call"]];
        foreach (var (name, calls, seconds) in measurement.Profile.OrderByDescending(stage => stage.Seconds))
            rows.Add([name, Percent(seconds / total), Number(seconds / runs * 1e3), $"{calls / runs}", Number(seconds / calls * 1e6)]);
        var rest = Math.Max(0, total - measurement.Profile.Sum(stage => stage.Seconds));
        rows.Add(["outside the device", Percent(rest / total), Number(rest / runs * 1e3), "", ""]);
        Table(output, rows);
    }

    private string[] Row(Measurement measurement)
    {
        var (rates, seconds, tax) = (Spread.Of(measurement.Rates), Spread.Of(measurement.Seconds).Median, Tax(measurement));
        return
        [
            measurement.Name,
            $"{Number(rates.Median)} ({Number(rates.Least)} – {Number(rates.Most)})",
            Number(seconds * 1e3),
            measurement.Cost.WeightBytes > 0 ? Number(measurement.Cost.WeightBytes / seconds / 1e9) : "",
            Number(measurement.Cost.Operations / seconds / 1e9),
            Percent(measurement.Share(Roofline)),
            tax.Count > 0 ? Signed(Spread.Of(tax).Median) : "",
            measurement.Hash[..Math.Min(12, measurement.Hash.Length)],
        ];
    }

    private void PrintPeer(TextWriter output, Peer peer, bool markdown)
    {
        output.WriteLine();
        output.WriteLine(markdown ? $"Peer: `{peer.Command}`{(peer.Build is { } build ? $", build {build}" : "")}" : $"{"peer",-12} {peer.Command}{(peer.Build is { } b ? $", build {b}" : "")}");
        output.WriteLine();
        List<string[]> rows = [["test", "trimtab", "peer", "ratio", "pair by pair"]];
        foreach (var measurement in Measurements)
        {
            var ratios = peer.Ratios(measurement);
            if (ratios.Count > 0)
                rows.Add([measurement.Name, Number(Spread.Of(measurement.Rates).Median), Number(Spread.Of(peer.Rates(measurement)).Median),
                    Ratio(Spread.Of(ratios).Median), string.Join(' ', ratios.Select(Ratio))]);
        }
        Table(output, rows);
    }

    /// <summary>The run as one JSON object.</summary>
    public void Write(Utf8JsonWriter writer)
    {
        writer.WriteStartObject();
        Machine.Write(writer, Model.Device);
        writer.WriteStartObject("roofline");
        writer.WriteNumber("read_gb_per_second", Rounded(Roofline.ReadBytesPerSecond / 1e9));
        writer.WriteNumber("f32_gflop_per_second", Rounded(Roofline.FloatOpsPerSecond / 1e9));
        writer.WriteNumber("bf16_gflop_per_second", Rounded(Roofline.BF16OpsPerSecond / 1e9));
        writer.WriteNumber("int8_gop_per_second", Rounded(Roofline.Int8OpsPerSecond / 1e9));
        writer.WriteString("f32_instruction", Roofline.FloatInstruction);
        writer.WriteString("bf16_instruction", Roofline.BF16Instruction);
        writer.WriteString("int8_instruction", Roofline.Int8Instruction);
        writer.WriteEndObject();
        writer.WriteStartObject("model");
        writer.WriteString("name", Model.Name);
        writer.WriteString("form", Model.Form);
        writer.WriteNumber("parameters", Model.Parameters);
        writer.WriteNumber("weight_bytes", Model.WeightBytes);
        writer.WriteEndObject();
        writer.WriteNumber("repetitions", Plan.Repetitions);
        writer.WriteNumber("alpha", Plan.Alpha);
        writer.WriteString("kv", Plan.Kv.ToString());
        writer.WriteNumber("peak_memory_bytes", PeakMemory);
        writer.WriteStartArray("results");
        foreach (var measurement in Measurements)
            Write(writer, measurement);
        writer.WriteEndArray();
        writer.WriteStartArray("peers");
        foreach (var peer in Peers)
            Write(writer, peer);
        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private void Write(Utf8JsonWriter writer, Measurement measurement)
    {
        var (rates, seconds, tax) = (Spread.Of(measurement.Rates), Spread.Of(measurement.Seconds).Median, Tax(measurement));
        writer.WriteStartObject();
        Describe(writer, measurement);
        writer.WriteNumber("steered", measurement.Steered);
        writer.WriteNumber("tokens_per_second", Rounded(rates.Median));
        writer.WriteNumber("tokens_per_second_min", Rounded(rates.Least));
        writer.WriteNumber("tokens_per_second_max", Rounded(rates.Most));
        writer.WriteNumber("tokens_per_second_mad", Rounded(rates.Deviation));
        Numbers(writer, "seconds", measurement.Seconds);
        writer.WriteNumber("gb_per_second", Rounded(measurement.Cost.WeightBytes / seconds / 1e9));
        writer.WriteNumber("gflop_per_second", Rounded(measurement.Cost.Operations / seconds / 1e9));
        writer.WriteNumber("roofline_share", Rounded(measurement.Share(Roofline)));
        if (tax.Count > 0)
        {
            writer.WriteNumber("steering_tax", Rounded(Spread.Of(tax).Median));
            Numbers(writer, "steering_taxes", tax);
        }
        writer.WriteString("logits_hash", measurement.Hash);
        if (measurement.Profile.Count > 0)
        {
            writer.WriteStartArray("profile");
            foreach (var stage in measurement.Profile)
            {
                writer.WriteStartObject();
                writer.WriteString("op", stage.Name);
                writer.WriteNumber("calls", stage.Calls / measurement.Seconds.Count);
                writer.WriteNumber("seconds", Rounded(stage.Seconds / measurement.Seconds.Count));
                writer.WriteEndObject();
            }
            writer.WriteEndArray();
        }
        writer.WriteEndObject();
    }

    private void Write(Utf8JsonWriter writer, Peer peer)
    {
        writer.WriteStartObject();
        writer.WriteString("command", peer.Command);
        writer.WriteString("build", peer.Build);
        writer.WriteStartArray("results");
        foreach (var measurement in Measurements)
        {
            var ratios = peer.Ratios(measurement);
            if (ratios.Count == 0)
                continue;
            writer.WriteStartObject();
            Describe(writer, measurement);
            Numbers(writer, "tokens_per_second", peer.Rates(measurement));
            Numbers(writer, "ratios", ratios);
            writer.WriteNumber("ratio", Rounded(Spread.Of(ratios).Median));
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void Describe(Utf8JsonWriter writer, Measurement measurement)
    {
        writer.WriteString("test", measurement.Test);
        writer.WriteNumber("tokens", measurement.Tokens);
        writer.WriteNumber("batch", measurement.Batch);
        writer.WriteNumber("depth", measurement.Depth);
    }

    internal static void Numbers(Utf8JsonWriter writer, string name, IEnumerable<double> values)
    {
        writer.WriteStartArray(name);
        foreach (var value in values)
            writer.WriteNumberValue(Rounded(value));
        writer.WriteEndArray();
    }

    internal static void Table(TextWriter output, List<string[]> rows)
    {
        var widths = Enumerable.Range(0, rows[0].Length).Select(column => rows.Max(row => row[column].Length)).ToArray();
        for (var i = 0; i < rows.Count; i++)
        {
            output.WriteLine($"| {string.Join(" | ", rows[i].Select((cell, column) => column == 0 ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column])))} |");
            if (i == 0)
                output.WriteLine($"|{string.Join('|', widths.Select((width, column) => new string('-', width + (column == 0 ? 2 : 1)) + (column == 0 ? "" : ":")))}|");
        }
    }

    /// <summary>Six digits: more than any repetition repeats.</summary>
    internal static double Rounded(double value) => double.Parse(value.ToString("G6", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);

    internal static string Number(double value) => value switch
    {
        >= 1000 => value.ToString("F0", CultureInfo.InvariantCulture),
        >= 100 => value.ToString("F1", CultureInfo.InvariantCulture),
        _ => value.ToString("F2", CultureInfo.InvariantCulture),
    };

    internal static string Percent(double value) => value.ToString("P1", CultureInfo.InvariantCulture);

    private static string Signed(double value) => value.ToString("+0.0 %;-0.0 %", CultureInfo.InvariantCulture);

    private static string Ratio(double value) => value.ToString("F2", CultureInfo.InvariantCulture);
}
