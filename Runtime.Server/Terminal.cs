using Spectre.Console;
using Trimtab.Evaluation;
using Trimtab.Model;

namespace Trimtab.Server;

/// <summary>Where a command reads and writes. Progress goes to the error stream, and only where a person watches it.</summary>
/// <param name="Output">Results.</param>
/// <param name="Error">Progress, notes and errors.</param>
/// <param name="Input">Prompts given as "-".</param>
internal sealed record Terminal(TextWriter Output, TextWriter Error, TextReader Input)
{
    private bool Watched => ReferenceEquals(Error, Console.Error) && !Console.IsErrorRedirected;

    /// <summary>Runs something that reports loading, with a bar where a person watches.</summary>
    public T WithProgress<T>(string title, Func<IProgress<LoadProgress>?, T> run)
    {
        if (!Watched)
            return run(null);
        var console = AnsiConsole.Create(new() { Out = new AnsiConsoleOutput(Error) });
        return console.Progress()
            .AutoClear(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new DownloadedColumn(), new TransferSpeedColumn(), new RemainingTimeColumn())
            .Start(context =>
            {
                var task = context.AddTask(Markup.Escape(title), maxValue: 1);
                return run(new Loading(progress =>
                {
                    task.MaxValue = Math.Max(1, progress.TotalBytes);
                    task.Value = progress.Bytes;
                }));
            });
    }

    /// <summary>Runs something of many steps, with a bar, a rate and the time left where a person watches.</summary>
    public async Task<T> WithSteps<T>(string title, string unit, Func<IProgress<StepProgress>?, Task<T>> run)
    {
        if (!Watched)
            return await run(null).ConfigureAwait(false);
        var console = AnsiConsole.Create(new() { Out = new AnsiConsoleOutput(Error) });
        return await console.Progress()
            .AutoClear(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn(), new RemainingTimeColumn())
            .StartAsync(async context =>
            {
                var task = context.AddTask(Markup.Escape(title), maxValue: 1);
                return await run(new Steps(progress =>
                {
                    task.MaxValue = Math.Max(1, progress.Total);
                    task.Value = progress.Done;
                    task.Description = Markup.Escape($"{title}: {progress.Done} of {progress.Total} {unit}");
                })).ConfigureAwait(false);
            }).ConfigureAwait(false);
    }

    /// <summary>Prints a report for people, and writes it as JSON where a file is named; "-" is the output, in place of what people read.</summary>
    public async Task ReportAsync(string? json, Action<System.Text.Json.Utf8JsonWriter> write, Action<TextWriter> print, CancellationToken cancel)
    {
        if (json == "-")
        {
            await Output.WriteLineAsync(Json.Write(write)).ConfigureAwait(false);
            return;
        }
        print(Output);
        if (json is not null)
            await File.WriteAllTextAsync(json, Json.Write(write) + "\n", cancel).ConfigureAwait(false);
    }

    /// <summary>Tells a person something beside the result.</summary>
    public void Note(string text)
    {
        if (Watched)
            Error.WriteLine(text);
    }

    private sealed class Steps(Action<StepProgress> action) : IProgress<StepProgress>
    {
        void IProgress<StepProgress>.Report(StepProgress value) => action(value);
    }

    private sealed class Loading(Action<LoadProgress> action) : IProgress<LoadProgress>
    {
        void IProgress<LoadProgress>.Report(LoadProgress value) => action(value);
    }
}
