using System.CommandLine;
using Trimtab.Server.Serving;

namespace Trimtab.Server.Commands;

/// <summary>audit: checks a server's log.</summary>
internal static class AuditCommand
{
    /// <summary>The command.</summary>
    public static Command Create(Terminal terminal)
    {
        var file = new Argument<string>("FILE") { Description = "A log that serve --audit-log wrote." };
        var last = new Option<string?>("--last") { Description = "The hash that its last line, or an earlier one, had: shows lines cut off at the end.", HelpName = "HASH" };
        var verify = new Command("verify", "Follows the log's chain of hashes from its first line and names the line that breaks it.") { file, last };
        verify.SetAction((parse, _) =>
        {
            var path = parse.GetRequiredValue(file);
            var (lines, hash) = AuditLog.Verify(path);
            if (parse.GetValue(last) is { } expected && expected != hash && !File.ReadLines(path).Any(line => line.EndsWith($"\"hash\":\"{expected}\"}}", StringComparison.Ordinal)))
                throw new InvalidDataException($"{path}: no line has the hash {expected}: lines were cut off");
            terminal.Output.WriteLine($"{path}: {lines} lines, intact; the last one's hash is {hash}");
            return Task.FromResult(0);
        });
        return new("audit", "Checks the log of a server.") { verify };
    }
}
