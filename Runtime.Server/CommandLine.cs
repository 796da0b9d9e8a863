using System.CommandLine;
using System.CommandLine.Completions;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using Trimtab.Server.Commands;

namespace Trimtab.Server;

/// <summary>A wrong use of the command line that the parser cannot see; ends with exit code 2.</summary>
internal sealed class UsageException(string message) : Exception(message);

/// <summary>The trimtab program: its commands, and how errors leave it.</summary>
internal static class CommandLine
{
    private static readonly Option<bool> Verbose = new("--verbose")
    {
        Description = "Print the whole trace of an error.",
        Recursive = true,
    };

    /// <summary>Runs the program.</summary>
    /// <returns>0 done, 1 error, 2 wrong usage, 130 interrupted.</returns>
    public static async Task<int> RunAsync(string[] args, TextWriter output, TextWriter error, TextReader? input = null)
    {
        var root = Build(new(output, error, input ?? Console.In));
        // Prompts may begin with @; the command reads files itself.
        var result = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (result.Action is ParseErrorAction)
        {
            error.WriteLine($"trimtab: {OneLine(string.Join("; ", result.Errors.Select(e => e.Message)))} (see: {PathOf(result.CommandResult)} --help)");
            return 2;
        }
        try
        {
            var configuration = new InvocationConfiguration { Output = output, Error = error, EnableDefaultExceptionHandler = false };
            if (result.CommandResult.Command is { Name: "serve" or "route" })
                configuration.ProcessTerminationTimeout = null; // they take signals themselves: they drain
            return await result.InvokeAsync(configuration).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            error.WriteLine("trimtab: interrupted");
            return 130;
        }
        catch (Exception exception)
        {
            if (exception is AggregateException { InnerExceptions.Count: 1 })
                exception = exception.InnerException!;
            error.WriteLine(result.GetValue(Verbose) ? exception.ToString() : $"trimtab: {OneLine(exception.Message)}");
            return exception is UsageException ? 2 : 1;
        }
    }

    /// <summary>The commands, for the program and for its completion.</summary>
    public static RootCommand Build(Terminal terminal)
    {
        var root = new RootCommand(
            "Runs safety-steered vision-language models: at every decoder layer an alpha-scaled shift vector is subtracted " +
            "from the last token's hidden state (CMRM, arXiv 2410.09047).")
        {
            Verbose,
            DemoCommand.Create(terminal),
            GenerateCommand.Create(terminal),
            ExtractCommand.Create(terminal),
            CalibrateCommand.Create(terminal),
            ScoreCommand.Create(terminal),
            TraceCommand.Create(terminal),
            TokenizeCommand.Create(terminal),
            TokenizeCommand.CreateReverse(terminal),
            SeeCommand.Create(terminal),
            InspectCommand.Create(terminal),
            ConvertCommand.Create(terminal),
            PullCommand.Create(terminal),
            EvaluateCommand.Create(terminal),
            ServeCommand.Create(terminal),
            RouteCommand.Create(terminal),
            ReplayCommand.Create(terminal),
            AuditCommand.Create(terminal),
            BenchCommand.Create(terminal),
            GpuCheckCommand.Create(terminal),
            CompletionCommand.Create(terminal),
        };
        if (!root.Directives.OfType<SuggestDirective>().Any())
            root.Directives.Add(new SuggestDirective());
        Examples.AddToHelp(root);
        return root;
    }

    private static string PathOf(CommandResult result)
        => result.Parent is CommandResult parent ? $"{PathOf(parent)} {result.Command.Name}" : "trimtab";

    private static string OneLine(string message) => string.Join(' ', message.Split((char[]?)['\r', '\n'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
}
