using System.Diagnostics;
using Trimtab.Evaluation;

namespace Trimtab.Server.Commands;

/// <summary>One line that tells a watching person how far an evaluation is; nothing where nobody watches.</summary>
internal sealed class EvaluateProgress(Terminal terminal) : IProgress<EvaluationProgress>
{
    private readonly bool _watched = ReferenceEquals(terminal.Error, Console.Error) && !Console.IsErrorRedirected;
    private long _shown;
    private int _width;

    /// <summary>What was told last.</summary>
    public EvaluationProgress? Last { get; private set; }

    public void Report(EvaluationProgress value)
    {
        Last = value;
        if (!_watched || _shown != 0 && Stopwatch.GetElapsedTime(_shown).TotalSeconds < 0.2 && value.Done < value.Total)
            return;
        _shown = Stopwatch.GetTimestamp();
        var tokens = value.Elapsed > TimeSpan.Zero ? value.Tokens / value.Elapsed.TotalSeconds : 0;
        Show($"{value.Done} of {value.Total} answers, {value.Rate:F1} a second, {tokens:F0} tokens a second{(value.Left is { } left ? $", {Text(left)} left" : "")}");
    }

    /// <summary>Takes the line away.</summary>
    public void End()
    {
        if (_width > 0)
            terminal.Error.Write($"\r{new string(' ', _width)}\r");
        _width = 0;
    }

    private void Show(string text)
    {
        terminal.Error.Write($"\r{text.PadRight(_width)}");
        _width = text.Length;
    }

    private static string Text(TimeSpan time)
        => time.TotalHours >= 1 ? $"{(int)time.TotalHours} h {time.Minutes:00} min" : time.TotalMinutes >= 1 ? $"{time.Minutes} min {time.Seconds:00} s" : $"{time.TotalSeconds:F0} s";
}
