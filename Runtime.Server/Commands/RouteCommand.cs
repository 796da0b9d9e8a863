using System.CommandLine;
using System.Net;
using Trimtab.Server.Routing;
using Trimtab.Server.Serving;

namespace Trimtab.Server.Commands;

/// <summary>route: replicas of a server behind one address.</summary>
internal static class RouteCommand
{
    private static readonly Option<string[]> Replicas = new("--replica") { Description = "A server to send requests to. May be repeated.", HelpName = "URL", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<string[]> Discover = new("--discover") { Description = "A URL whose host name stands for servers: each of its addresses is one, looked up again at every probe.", HelpName = "URL", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<string> Host = new("--host") { Description = "Address to listen on.", HelpName = "ADDRESS", DefaultValueFactory = _ => "127.0.0.1" };
    private static readonly Option<int> Port = new("--port") { Description = "Port to listen on; 0 for any that is free.", HelpName = "N", DefaultValueFactory = _ => 8090 };
    private static readonly Option<int> Prefix = new("--prefix") { Description = "Bytes at the beginning of instructions and of the first question that decide where a request goes.", HelpName = "N", DefaultValueFactory = _ => 256 };
    private static readonly Option<int> Spill = new("--spill") { Description = "Open requests from which on a server with a quarter more than the mean leaves its prompts to others.", HelpName = "N", DefaultValueFactory = _ => 16 };
    private static readonly Option<int> Attempts = new("--attempts") { Description = "Servers that a request is tried on while none has begun to answer.", HelpName = "N", DefaultValueFactory = _ => 3 };
    private static readonly Option<int> Budget = new("--retry-budget") { Description = "Further attempts that may be saved up; each request earns a fifth of one.", HelpName = "N", DefaultValueFactory = _ => 100 };
    private static readonly Option<int> Probe = new("--probe") { Description = "Time between two looks at a server's /ready, and the longest wait for one, in milliseconds.", HelpName = "N", DefaultValueFactory = _ => 2000 };
    private static readonly Option<int> MaxBody = new("--max-body") { Description = "Longest request, in MiB.", HelpName = "N", DefaultValueFactory = _ => 32 };
    private static readonly Option<string> RequestMemory = new("--request-memory") { Description = "Memory for the bodies of open requests; what would take more gets 429.", HelpName = "SIZE", DefaultValueFactory = _ => "1G" };
    private static readonly Option<int> MaxRequests = new("--max-requests") { Description = "Requests that may be open; one more gets 429.", HelpName = "N", DefaultValueFactory = _ => 1024 };
    private static readonly Option<int> AnswerTime = new("--answer-time") { Description = "Longest time without a byte of an answer, in seconds; not less than the servers' own.", HelpName = "N", DefaultValueFactory = _ => 600 };
    private static readonly Option<int> DrainTime = new("--drain-time") { Description = "Longest time from SIGTERM to the end of the last answer, in seconds.", HelpName = "N", DefaultValueFactory = _ => 30 };

    /// <summary>The command.</summary>
    public static Command Create(Terminal terminal)
    {
        var command = new Command("route", "Spreads requests over servers, those that begin alike to the same one, and tries the next where one fails. SIGTERM ends it once its answers have.");
        foreach (var option in (ReadOnlySpan<Option>)[Replicas, Discover, Host, Port, Prefix, Spill, Attempts, Budget, Probe, MaxBody, RequestMemory, MaxRequests, AnswerTime, DrainTime])
            command.Options.Add(option);
        command.SetAction(async (parse, cancel) =>
        {
            var options = Read(parse);
            var router = await Router.StartAsync(options, terminal.Error, cancel).ConfigureAwait(false);
            await using (router.ConfigureAwait(false))
            {
                var ready = router.Replicas.Count(replica => replica.Ready);
                await terminal.Output.WriteLineAsync($"trimtab routes at {router.Url} ({ready} of {router.Replicas.Count} replicas ready)").ConfigureAwait(false);
                await terminal.Output.FlushAsync(cancel).ConfigureAwait(false);
                // Signals reach the host itself; this is for a caller that cancels.
                using var registration = cancel.Register(() => _ = router.StopAsync());
                await router.WaitAsync().ConfigureAwait(false);
            }
            return 0;
        });
        return command;
    }

    private static RouteOptions Read(ParseResult parse)
    {
        var host = parse.GetRequiredValue(Host);
        if (host != "localhost" && !IPAddress.TryParse(host, out _))
            throw new UsageException($"--host is '{host}'; expected an IP address or localhost");
        var options = new RouteOptions
        {
            Replicas = Urls(parse, Replicas),
            Discover = Urls(parse, Discover),
            Host = host,
            Port = ModelArguments.Range(parse, Port, 65535),
            Prefix = ModelArguments.Range(parse, Prefix, 1 << 20),
            Spill = ModelArguments.Range(parse, Spill, 1 << 20),
            Attempts = ModelArguments.AtLeastOne(parse, Attempts, 100),
            RetryBudget = ModelArguments.Range(parse, Budget, 1 << 20),
            Probe = TimeSpan.FromMilliseconds(ModelArguments.AtLeastOne(parse, Probe, 600_000)),
            MaxBody = (long)ModelArguments.AtLeastOne(parse, MaxBody, 1024) << 20,
            MaxMemory = ServeCommand.Bytes(parse, RequestMemory),
            MaxRequests = ModelArguments.AtLeastOne(parse, MaxRequests, 1 << 20),
            AnswerTime = TimeSpan.FromSeconds(ModelArguments.AtLeastOne(parse, AnswerTime, 86400)),
            DrainTime = TimeSpan.FromSeconds(ModelArguments.AtLeastOne(parse, DrainTime, 86400)),
        };
        return options.Replicas.Count + options.Discover.Count > 0 ? options
            : throw new UsageException("there is no server to route to; expected --replica URL for each, or --discover URL");
    }

    private static List<Uri> Urls(ParseResult parse, Option<string[]> option)
        => [.. (parse.GetValue(option) ?? []).Select(text => Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme is ("http" or "https") && url is { AbsolutePath: "/", Query: "" }
            ? url : throw new UsageException($"{option.Name} {text}: expected the address of a server, such as http://10.0.0.1:8080"))];
}
