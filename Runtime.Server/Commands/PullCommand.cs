using System.CommandLine;
using Trimtab.Checkpoints;
using Trimtab.Model;

namespace Trimtab.Server.Commands;

/// <summary>pull: fetches a model from a Hugging Face hub.</summary>
internal static class PullCommand
{
    public static Command Create(Terminal terminal)
    {
        var name = new Argument<string?>("repository") { Description = "The model: ORG/NAME.", HelpName = "ORG/NAME", Arity = ArgumentArity.ZeroOrOne };
        var revision = new Option<string>("--revision") { Description = "A branch, a tag or a commit.", HelpName = "R", DefaultValueFactory = _ => "main" };
        var files = new Option<string[]>("--file")
        {
            Description = "Only files that match (*, ?, [...]); for one quantisation of several, say.",
            HelpName = "PATTERN",
            AllowMultipleArgumentsPerToken = true,
        };
        var folder = new Option<string?>("--dir") { Description = "Put plain files into this folder instead of the cache.", HelpName = "DIR" };
        var tokenFile = new Option<string?>("--token-file")
        {
            Description = "A file that holds the account's token; by default HF_TOKEN and what huggingface_hub reads.",
            HelpName = "FILE",
        };
        var command = new Command(
            "pull", "Fetches a model from a Hugging Face hub (HF_ENDPOINT) into the cache of its tools (HF_HUB_CACHE, HF_HOME), and prints its folder. " +
            "Goes on where it was interrupted; checks every file; never fetches pickles. With HF_HUB_OFFLINE=1 only looks into the cache.")
        { name, revision, files, folder, tokenFile };
        command.SetAction(async (parse, cancel) =>
        {
            var (repository, patterns) = (parse.GetValue(name), parse.GetValue(files) ?? []);
            // --file takes all that follows it, the repository too where it stands last.
            if (repository is null && patterns is [.. var before, var last])
                (repository, patterns) = (last, before);
            if (repository is null || !HubCache.IsName(repository))
                throw new UsageException($"pull needs the name of a repository, ORG/NAME{(repository is null ? "" : $"; '{repository}' is none")}");
            var options = HubOptions.FromEnvironment();
            if (parse.GetValue(tokenFile) is { } file)
                options = options with { Token = HubOptions.ReadToken(file) };
            var request = new HubRequest(repository)
            {
                Revision = parse.GetRequiredValue(revision),
                Files = patterns,
                Folder = parse.GetValue(folder),
            };
            try
            {
                var snapshot = await Task.Run(
                    () => terminal.WithProgress(
                        $"Fetching {repository}",
                        progress => Hub.PullAsync(request, options, progress is null ? null : new Fetching(progress), cancel).GetAwaiter().GetResult()),
                    CancellationToken.None).ConfigureAwait(false);
                foreach (var note in snapshot.Notes)
                    await terminal.Error.WriteLineAsync($"trimtab: {note}").ConfigureAwait(false);
                await terminal.Output.WriteLineAsync(snapshot.Folder).ConfigureAwait(false);
                return 0;
            }
            catch (OperationCanceledException)
            {
                terminal.Note("What was fetched is kept: the same command goes on from there.");
                throw;
            }
        });
        return command;
    }

    private sealed class Fetching(IProgress<LoadProgress> terminal) : IProgress<HubProgress>
    {
        public void Report(HubProgress value) => terminal.Report(new(value.Bytes, value.TotalBytes, ""));
    }
}
