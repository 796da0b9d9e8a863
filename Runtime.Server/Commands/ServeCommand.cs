using System.CommandLine;
using System.Globalization;
using System.Net;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;
using Trimtab.Server.Serving;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>serve: the model behind OpenAI's HTTP interfaces, steered as a policy says.</summary>
internal static class ServeCommand
{
    private static readonly Option<string?> ModelPath = new("--model", "-m") { Description = "A Hugging Face folder, a .gguf file, or ORG/NAME once it is pulled; without it the demo model with its vectors.", HelpName = "PATH" };
    private static readonly Option<string?> Mmproj = new("--mmproj") { Description = "The vision file of a GGUF model; by default *mmproj*.gguf beside it.", HelpName = "FILE" };
    private static readonly Option<string[]> Vectors = new("--vectors") { Description = "Shift vectors under the name that requests and the policy use.", HelpName = "NAME=FILE", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<string?> PolicyPath = new("--policy") { Description = "The policy (see docs/policy.md); without it images are steered with the first vectors, and requests may ask for anything.", HelpName = "FILE" };
    private static readonly Option<string?> Keys = new("--api-keys") { Description = "API keys, by their SHA-256; without it everybody may ask.", HelpName = "FILE" };
    private static readonly Option<string?> Audit = new("--audit-log") { Description = "An append-only, hash-chained log of every request and change; nothing is answered that cannot be logged.", HelpName = "FILE" };
    private static readonly Option<string?> Name = new("--name") { Description = "The model's name in requests; by default the file's or folder's.", HelpName = "NAME" };
    private static readonly Option<string> Host = new("--host") { Description = "Address to listen on.", HelpName = "ADDRESS", DefaultValueFactory = _ => "127.0.0.1" };
    private static readonly Option<int> Port = new("--port") { Description = "Port to listen on; 0 for any that is free.", HelpName = "N", DefaultValueFactory = _ => 8080 };
    private static readonly Option<int> Context = new("--context") { Description = "Positions that prompt and answer may take together; 0 for the model's own limit, at most 4096.", HelpName = "N" };
    private static readonly Option<string?> KvMemory = new("--kv-memory") { Description = "Memory for keys and values, such as 512M or 4G; by default that of four contexts.", HelpName = "SIZE" };
    private static readonly Option<int> MaxBatch = new("--max-batch") { Description = "Answers that are computed at the same time.", HelpName = "N", DefaultValueFactory = _ => 32 };
    private static readonly Option<int> MaxWaiting = new("--max-waiting") { Description = "Answers that may wait; one more gets 429.", HelpName = "N", DefaultValueFactory = _ => 256 };
    private static readonly Option<int> MaxRequests = new("--max-requests") { Description = "Requests that may be open; one more gets 429.", HelpName = "N", DefaultValueFactory = _ => 512 };
    private static readonly Option<int> MaxTokens = new("--max-tokens") { Description = "Most tokens of an answer.", HelpName = "N", DefaultValueFactory = _ => 1024 };
    private static readonly Option<int> MaxBody = new("--max-body") { Description = "Longest request, in MiB.", HelpName = "N", DefaultValueFactory = _ => 32 };
    private static readonly Option<string> RequestMemory = new("--request-memory") { Description = "Memory for the bodies and images of open requests; what would take more gets 429.", HelpName = "SIZE", DefaultValueFactory = _ => "1G" };
    private static readonly Option<int> MaxImages = new("--max-images") { Description = "Most images in a request.", HelpName = "N", DefaultValueFactory = _ => 8 };
    private static readonly Option<int> AnswerTime = new("--answer-time") { Description = "Longest time for one answer, in seconds.", HelpName = "N", DefaultValueFactory = _ => 600 };
    private static readonly Option<int> DrainTime = new("--drain-time") { Description = "Longest time from SIGTERM to the end of the last answer, in seconds.", HelpName = "N", DefaultValueFactory = _ => 20 };
    private static readonly Option<bool> ProtectMetrics = new("--protect-metrics") { Description = "Ask for an API key at /metrics too." };
    private static readonly Option<bool> PrivateCache = new("--private-cache") { Description = "Let a key's prompts find only its own in the cache: else usage and time tell who has asked the same before." };
    private static readonly Option<string[]> ImageHosts = new("--allow-image-hosts") { Description = "Hosts that http(s) image URLs may name, at ports 80 and 443 or as HOST:PORT; by default none.", HelpName = "HOST", AllowMultipleArgumentsPerToken = true };
    private static readonly Option<string> Device = ModelArguments.DeviceOption();
    private static readonly Option<int> TensorParallel = ModelArguments.TensorParallelOption();
    private static readonly Option<int> Threads = new("--threads", "-t") { Description = "CPU threads; 0 for one per core.", HelpName = "N" };
    private static readonly Option<string> Dtype = ModelArguments.Dtype();
    private static readonly Option<string> Activations = ModelArguments.ActivationsOption();
    private static readonly Option<string> Kv = ModelArguments.KvOption();

    /// <summary>The command.</summary>
    public static Command Create(Terminal terminal)
    {
        var command = new Command("serve", "Serves a model by OpenAI's HTTP interfaces, steered as a policy says; answers carry receipts. SIGTERM ends it once its answers have.");
        foreach (var option in (ReadOnlySpan<Option>)[ModelPath, Mmproj, Vectors, PolicyPath, Keys, Audit, Name, Host, Port, Context, KvMemory, MaxBatch, MaxWaiting,
            MaxRequests, MaxTokens, MaxBody, RequestMemory, MaxImages, AnswerTime, DrainTime, ProtectMetrics, PrivateCache, ImageHosts, Device, TensorParallel, Threads, Dtype, Activations, Kv])
            command.Options.Add(option);
        command.SetAction(async (parse, cancel) =>
        {
            var options = Read(parse);
            var sets = NamedFiles(parse.GetValue(Vectors) ?? []);
            var keys = parse.GetValue(Keys) is { } file ? ApiKeys.Open(file) : null;
            if (options.ProtectMetrics && keys is null)
                throw new UsageException("--protect-metrics: there are no keys to ask for; expected --api-keys FILE");
            if (options.PrivateCache && keys is null)
                throw new UsageException("--private-cache: without keys all are one caller; expected --api-keys FILE");
            var path = parse.GetValue(ModelPath);
            var demo = path is null;
            path ??= DemoCommand.Find();
            if (demo && sets.Count == 0)
                sets = [("cmrm", Path.Combine(path, "cmrm.safetensors"))];
            options = options with { ModelName = parse.GetValue(Name) ?? Path.GetFileNameWithoutExtension(Path.TrimEndingDirectorySeparator(path)) };
            var audit = parse.GetValue(Audit) is { } log ? AuditLog.Open(log) : null;
            using var model = Open(parse, terminal, path, sets, demo, options, audit, cancel);
            await ServeAsync(model, keys, terminal, cancel).ConfigureAwait(false);
            return 0;
        });
        return command;
    }

    private static async Task ServeAsync(SteeredModel model, ApiKeys? keys, Terminal terminal, CancellationToken cancel)
    {
        var server = await ModelServer.StartAsync(model, keys, terminal.Error, cancel).ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            if (!model.Options.Loopback && keys is null)
                await terminal.Error.WriteLineAsync($"trimtab: listens on {model.Options.Host} without API keys: whoever reaches it may ask").ConfigureAwait(false);
            foreach (var (kind, rule) in new[] { ("images", model.Policy.Images), ("text", model.Policy.Text) })
                if (keys is not null && model.Policy.Hash.Length > 0 && rule is { Required: true, VectorsHash: null, NormFloor: 0 })
                    await terminal.Error.WriteLineAsync($"trimtab: the policy's rule '{kind}' has neither vectors_hash nor norm_floor: an admin may put weaker vectors under the name '{rule.Vectors}'").ConfigureAwait(false);
            if (model.ImagesRefused is { } reason)
                await terminal.Error.WriteLineAsync($"trimtab: requests with images are refused: {reason}").ConfigureAwait(false);
            await terminal.Output.WriteLineAsync($"trimtab serves {model.Options.ModelName} at {server.Url} (policy {model.Policy.Version}, {model.Vectors.Sets.Count} vector sets)").ConfigureAwait(false);
            await terminal.Output.FlushAsync(cancel).ConfigureAwait(false);
            // Signals reach the host itself; this is for a caller that cancels.
            using var registration = cancel.Register(() => _ = server.StopAsync());
            await server.WaitAsync().ConfigureAwait(false);
        }
    }

    private static SteeredModel Open(
        ParseResult parse, Terminal terminal, string path, IReadOnlyList<(string Name, string File)> sets, bool demo, ServeOptions options, AuditLog? audit, CancellationToken cancel)
    {
        var (kv, cuda) = (ModelArguments.ReadKv(parse, Kv), ModelArguments.ReadDevice(parse, Device, Activations, TensorParallel));
        var opened = terminal.WithProgress($"Loading {options.ModelName}", progress => VisionLanguageModel.Open(path, new()
        {
            MmprojPath = parse.GetValue(Mmproj),
            WeightType = ModelArguments.Read(parse, Dtype),
            Activations = ModelArguments.ReadActivations(parse, Activations),
            Threads = ModelArguments.Range(parse, Threads, 1024),
            Cuda = cuda,
            Engine = new()
            {
                ContextLength = ModelArguments.Range(parse, Context, 1 << 20),
                MaxSequences = ModelArguments.AtLeastOne(parse, MaxBatch, 4096),
                MaxWaiting = ModelArguments.AtLeastOne(parse, MaxWaiting, 1 << 20),
                KvType = kv,
                CachePositions = parse.GetValue(KvMemory) is { } size ? Positions(Bytes(KvMemory.Name, size), ModelFiles.Open(path, parse.GetValue(Mmproj)).Spec.Text, kv, cuda) : 0,
            },
            HashWeights = true,
            Progress = progress,
        }, cancel));
        try
        {
            foreach (var note in opened.Network.Notes)
                terminal.Note(note);
            var spec = opened.Network.Spec.Text;
            var catalog = new VectorCatalog(spec.Layers, spec.HiddenSize, opened.Network.Fingerprint);
            catalog.Put([.. sets.Select(set => catalog.Read(set.Name, set.File))]);
            return new(opened, catalog, PolicyOf(parse, sets, catalog, demo, spec.Layers), options, audit);
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    private static Policy PolicyOf(ParseResult parse, IReadOnlyList<(string Name, string File)> sets, VectorCatalog catalog, bool demo, int layers)
    {
        if (parse.GetValue(PolicyPath) is { } file)
            return PolicyFile.Open(file, layers);
        var first = sets.Count > 0 ? catalog.Find(sets[0].Name) : null;
        return PolicyFile.Open(first, demo && first?.Vectors.OperatingPoint is null ? SteeringScope.Prefill : null);
    }

    private static ServeOptions Read(ParseResult parse)
    {
        var host = parse.GetRequiredValue(Host);
        if (host != "localhost" && !IPAddress.TryParse(host, out _))
            throw new UsageException($"--host is '{host}'; expected an IP address or localhost");
        return new()
        {
            Host = host,
            Port = ModelArguments.Range(parse, Port, 65535),
            MaxRequests = ModelArguments.AtLeastOne(parse, MaxRequests, 1 << 20),
            MaxTokens = ModelArguments.AtLeastOne(parse, MaxTokens, 1 << 20),
            MaxBody = (long)ModelArguments.AtLeastOne(parse, MaxBody, 1024) << 20,
            MaxMemory = Bytes(parse, RequestMemory),
            MaxImages = ModelArguments.Range(parse, MaxImages, 1024),
            AnswerTime = TimeSpan.FromSeconds(ModelArguments.AtLeastOne(parse, AnswerTime, 86400)),
            DrainTime = TimeSpan.FromSeconds(ModelArguments.AtLeastOne(parse, DrainTime, 86400)),
            ProtectMetrics = parse.GetValue(ProtectMetrics),
            PrivateCache = parse.GetValue(PrivateCache),
            ImageHosts = parse.GetValue(ImageHosts) ?? [],
        };
    }

    private static List<(string Name, string File)> NamedFiles(IEnumerable<string> entries)
    {
        var files = new List<(string Name, string File)>();
        foreach (var entry in entries)
        {
            var at = entry.IndexOf('=', StringComparison.Ordinal);
            if (at <= 0 || at == entry.Length - 1)
                throw new UsageException($"--vectors {entry}: expected NAME=FILE");
            try
            {
                VectorCatalog.CheckName(entry[..at]);
            }
            catch (ArgumentException error)
            {
                throw new UsageException($"--vectors {entry}: {error.Message}");
            }
            if (files.Any(file => file.Name == entry[..at]))
                throw new UsageException($"--vectors {entry}: there are other vectors of that name");
            files.Add((entry[..at], entry[(at + 1)..]));
        }
        return files;
    }

    /// <summary>Reads a size in bytes.</summary>
    internal static long Bytes(ParseResult parse, Option<string> option) => Bytes(option.Name, parse.GetRequiredValue(option));

    private static long Bytes(string option, string size)
    {
        var unit = size.Length == 0 ? 0 : char.ToUpperInvariant(size[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, _ => 0 };
        var digits = unit == 0 ? size : size[..^1];
        if (!double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) || !(number > 0) || number > 1e15)
            throw new UsageException($"{option} is '{size}'; expected a size such as 512M or 4G");
        return (long)Math.Min(number * Math.Pow(2, unit), long.MaxValue / 2);
    }

    /// <summary>How many positions' keys and values a size holds, of several GPUs all of theirs together.</summary>
    internal static int Positions(long bytes, TextSpec text, KvType kv, CudaOptions? cuda)
    {
        var position = (long)text.Layers * KvCache.PositionBytes(cuda?.ActivationType ?? DType.F32, text, kv);
        var positions = bytes / position;
        return positions >= 16 ? (int)Math.Min(positions, int.MaxValue / 2) : throw new UsageException($"--kv-memory is {bytes} bytes; 16 positions of this model take {16 * position} bytes");
    }
}
