using System.Diagnostics;
using System.Globalization;

namespace Trimtab.Tests.Serving;

/// <summary>The program as a process of its own, once it says where it listens.</summary>
internal sealed class ServedProcess : IDisposable
{
    private readonly Process _process;
    private readonly Task<string> _errors;

    private ServedProcess(Process process, Task<string> errors, string url) => (_process, _errors, Url) = (process, errors, url);

    /// <summary>Where it listens.</summary>
    public string Url { get; }

    /// <summary>Starts a server of the demo model on a free port, with one thread.</summary>
    public static Task<ServedProcess> ServeAsync(IReadOnlyDictionary<string, string>? environment = null, params string[] arguments)
        => StartAsync(environment, ["serve", "--port", "0", "--name", "demo", "-t", "1", .. arguments]);

    /// <summary>Starts a router on a free port.</summary>
    public static Task<ServedProcess> RouteAsync(params string[] arguments) => StartAsync(null, ["route", "--port", "0", .. arguments]);

    private static async Task<ServedProcess> StartAsync(IReadOnlyDictionary<string, string>? environment, string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "trimtab.dll"), .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var line = await process.StandardOutput.ReadLineAsync() ?? await errors;
        Assert.That(line, Does.Contain(" at http://"));
        return new(process, errors, line.Split(" at ")[1].Split(' ')[0]);
    }

    /// <summary>Sends SIGTERM.</summary>
    public void Terminate()
    {
        using var kill = Process.Start("kill", ["-TERM", _process.Id.ToString(CultureInfo.InvariantCulture)])!;
    }

    /// <summary>Ends it at once, as a crash would.</summary>
    public void Kill() => _process.Kill(entireProcessTree: true);

    /// <summary>Waits for its end.</summary>
    /// <returns>Its exit code and what it wrote to its standard error.</returns>
    public async Task<(int Code, string Errors)> EndAsync()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(100));
        await _process.WaitForExitAsync(limit.Token);
        return (_process.ExitCode, await _errors);
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            Kill();
        _process.Dispose();
    }
}
