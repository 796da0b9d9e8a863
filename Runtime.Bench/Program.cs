using BenchmarkDotNet.Running;
using Trimtab.Bench;
using Trimtab.Kernels;

// compare OLD NEW: ratios of two saved results, of this program's --save or of trimtab bench --json.
if (args is ["compare", ..])
{
    if (args is not [_, var before, var after])
    {
        Console.Error.WriteLine("expected: compare OLD.json NEW.json");
        return 2;
    }
    try
    {
        ResultComparison.Print(before, after, Console.Out);
        return 0;
    }
    catch (Exception error) when (error is IOException or InvalidDataException or UnauthorizedAccessException)
    {
        Console.Error.WriteLine(error.Message);
        return 1;
    }
}

// --save and --job are this program's (BenchmarkDotNet's own --job would add a second job in a process of its own); the rest is passed on.
var rest = args.ToList();
if (!Take("--save", value => value.AsSpan().IndexOfAny('/', '\\') < 0, "a name without folders, such as zen4-2threads", out var save)
    || !Take("--job", value => value is "default" or "short" or "dry", "default, short or dry", out var job))
    return 2;
var measures = !args.Any(argument => argument is "--list" or "--help" or "--info" or "--version");
var roofline = measures ? Roofline.Measure() : null;
var summaries = BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly)
    .Run([.. rest], new KernelConfig(roofline, job ?? "default")).ToList();
if (save is not null && roofline is not null && summaries.Count > 0)
    Console.WriteLine($"saved {SavedResults.Write(save, roofline, summaries)}");
return measures && (summaries.Count == 0 || summaries.Any(summary => summary.HasCriticalValidationErrors || summary.Reports.Any(report => !report.Success))) ? 1 : 0;

bool Take(string option, Predicate<string> valid, string expected, out string? value)
{
    value = null;
    var at = rest.IndexOf(option);
    if (at < 0)
        return true;
    value = at + 1 < rest.Count ? rest[at + 1] : "";
    if (value.Length == 0 || !valid(value))
    {
        Console.Error.WriteLine($"{option} takes {expected}");
        return false;
    }
    rest.RemoveRange(at, 2);
    return true;
}
