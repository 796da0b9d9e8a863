using System.Globalization;
using System.Text.Json;
using Trimtab.Server.Benchmarks;

namespace Trimtab.Server.GpuCheck;

/// <summary>An op's result: the largest difference from the double reference, and what is allowed; or why it did not run.</summary>
internal sealed record OpResult(string Op, string Shape, double Difference, double Tolerance, string Error)
{
    public bool Passed => Difference <= Tolerance;
}

/// <summary>What gpu-check found, as Markdown for docs/gpu-log.md and as JSON.</summary>
internal sealed class GpuReport(string gpu, IReadOnlyList<(string Name, string Value)> facts)
{
    public List<OpResult> Ops { get; } = [];

    public List<ModelAnswer> Answers { get; } = [];

    public List<Figure> Figures { get; } = [];

    public List<ProductRate> Products { get; } = [];

    /// <summary>The GPU's facts after the measurements: clocks fall when it grows hot.</summary>
    public List<(string Name, string Value)> FactsAfter { get; } = [];

    public double Seconds { get; set; }

    /// <summary>Whether everything that was compared agrees.</summary>
    public bool Passed => Ops.TrueForAll(op => op.Passed) && Answers.TrueForAll(answer => answer.Passed);

    public void Print(TextWriter output)
    {
        void Line(FormattableString text) => output.WriteLine(text.ToString(CultureInfo.InvariantCulture));
        Line($"## {gpu}");
        Line($"");
        Line($"trimtab {Machine.Here.Version}, {DateTime.UtcNow:yyyy-MM-dd}, {Machine.Here.System}, {Machine.Here.Cpu}; {Seconds:F0} s.");
        Line($"");
        foreach (var (name, value) in facts)
            Line($"- {name}: {value}{FactsAfter.Where(f => f.Name == name && f.Value != value).Select(f => $"; after the measurements {f.Value}").FirstOrDefault()}");
        Line($"");
        Line($"**{(Passed ? "Everything agrees" : "SOMETHING DIFFERS")}**: {Ops.Count(op => op.Passed)} of {Ops.Count} ops, {Answers.Count(a => a.Passed)} of {Answers.Count} answers.");
        Line($"");
        Line($"| op | shapes | worst difference / allowed | of shape |");
        Line($"|---|---|---|---|");
        foreach (var group in Ops.GroupBy(op => op.Op))
        {
            var worst = group.MaxBy(Ratio)!;
            Line($"| {group.Key} | {group.Count()} | {worst.Difference:G3} / {worst.Tolerance:G3} | {worst.Shape} |");
        }
        Line($"");
        foreach (var op in Ops.Where(op => !op.Passed))
            Line($"- FAILED {op.Op}, {op.Shape}: {(op.Error.Length > 0 ? op.Error : $"differs by {op.Difference:G3}, allowed {op.Tolerance:G3}")}");
        Line($"");
        Line($"| answer of the model, against the CPU's in floats | tokens that agree |");
        Line($"|---|---|");
        foreach (var answer in Answers)
            Line($"| {answer.What} | {answer.Agreed} of {answer.Tokens}{(answer.Passed ? "" : " FAILED")} |");
        if (Figures.Count > 0)
        {
            Line($"");
            Line($"| figure | value | target on an H100 | |");
            Line($"|---|---|---|---|");
            foreach (var figure in Figures)
                Line($"| {figure.Name} | {figure.Value:G4} {figure.Unit} | {Target(figure)} | {(figure.Met is { } met ? met ? "met" : "missed" : "")} |");
            Line($"");
            Line($"| bfloat16 product | tokens | own kernels, TFLOP/s | cuBLASLt, TFLOP/s | own / cuBLASLt |");
            Line($"|---|---|---|---|---|");
            foreach (var p in Products)
                Line($"| {p.Matrix} [{p.Rows}, {p.Columns}] | {p.Tokens} | {p.Own / 1e12:G4} | {(p.Cublas is { } c ? (c / 1e12).ToString("G4", CultureInfo.InvariantCulture) : "–")} | {(p.Cublas is { } d ? (p.Own / d).ToString("F2", CultureInfo.InvariantCulture) : "–")} |");
        }
        Line($"");
        Line($"Still to be run, each once, with the toolkit's compute-sanitizer (docs/gpu-session.md):");
        Line($"");
        foreach (var tool in new[] { "memcheck", "racecheck", "initcheck", "synccheck" })
            Line($"    compute-sanitizer --tool {tool} --error-exitcode 9 trimtab gpu-check --quick --checks-only");
    }

    private static double Ratio(OpResult op) => op.Tolerance == 0 ? op.Difference == 0 ? 0 : double.PositiveInfinity : op.Difference / op.Tolerance;

    private static string Target(Figure figure)
        => figure.Target is { } target ? string.Create(CultureInfo.InvariantCulture, $"{(figure.AtLeast ? "≥" : "≤")} {target:G3} {figure.Unit}") : "";

    public void Write(Utf8JsonWriter writer)
    {
        writer.WriteStartObject();
        writer.WriteBoolean("passed", Passed);
        writer.WriteNumber("seconds", Math.Round(Seconds, 1));
        Machine.Here.Write(writer, gpu);
        writer.WriteStartObject("facts");
        foreach (var (name, value) in facts)
            writer.WriteString(name, value);
        writer.WriteEndObject();
        WriteAll(writer, "ops", Ops, op =>
        {
            writer.WriteString("op", op.Op);
            writer.WriteString("shape", op.Shape);
            if (double.IsFinite(op.Difference))
                writer.WriteNumber("difference", op.Difference);
            writer.WriteNumber("tolerance", op.Tolerance);
            writer.WriteBoolean("passed", op.Passed);
            if (op.Error.Length > 0)
                writer.WriteString("error", op.Error);
        });
        WriteAll(writer, "answers", Answers, answer =>
        {
            writer.WriteString("what", answer.What);
            writer.WriteNumber("agreed", answer.Agreed);
            writer.WriteNumber("tokens", answer.Tokens);
            writer.WriteBoolean("passed", answer.Passed);
        });
        WriteAll(writer, "figures", Figures, figure =>
        {
            writer.WriteString("name", figure.Name);
            writer.WriteNumber("value", figure.Value);
            writer.WriteString("unit", figure.Unit);
            if (figure.Target is { } target)
                writer.WriteNumber(figure.AtLeast ? "at_least" : "at_most", target);
            if (figure.Met is { } met)
                writer.WriteBoolean("met", met);
        });
        WriteAll(writer, "products", Products, p =>
        {
            writer.WriteString("matrix", p.Matrix);
            writer.WriteNumber("rows", p.Rows);
            writer.WriteNumber("columns", p.Columns);
            writer.WriteNumber("tokens", p.Tokens);
            writer.WriteNumber("own_flops", p.Own);
            if (p.Cublas is { } cublas)
                writer.WriteNumber("cublas_flops", cublas);
        });
        writer.WriteEndObject();
    }

    private static void WriteAll<T>(Utf8JsonWriter writer, string name, IEnumerable<T> items, Action<T> write)
    {
        writer.WriteStartArray(name);
        foreach (var item in items)
        {
            writer.WriteStartObject();
            write(item);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
    }
}
