using System.Globalization;

namespace Trimtab.Checkpoints;

/// <summary>
/// Where a hub is and how it is spoken to; <see cref="FromEnvironment"/> reads the variables that Hugging Face's own tools read
/// (huggingface.co/docs/huggingface_hub, "Environment variables").
/// </summary>
public sealed record HubOptions
{
    /// <summary>The hub. A path before the repositories is kept (mirrors have one).</summary>
    public Uri Endpoint { get; init; } = new("https://huggingface.co");

    /// <summary>The token of an account, or null. It is sent to <see cref="Endpoint"/> alone, never to a host that it redirects to.</summary>
    public string? Token { get; init; }

    /// <summary>The cache's folder: the one that holds <c>models--ORG--NAME</c>.</summary>
    public required string Cache { get; init; }

    /// <summary>Use the cache alone.</summary>
    public bool Offline { get; init; }

    /// <summary>How long a server may send nothing before the connection counts as broken.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>The wait before the first of several tries.</summary>
    internal TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(0.5);

    /// <summary>Whether snapshots may be made of symbolic links.</summary>
    internal bool Links { get; init; } = true;

    /// <summary>Bytes that may be written to a folder's disk.</summary>
    internal Func<string, long> FreeSpace { get; init; } = SpaceOf;

    /// <summary>
    /// Reads <c>HF_ENDPOINT</c>; the token from <c>HF_TOKEN</c>, <c>HUGGING_FACE_HUB_TOKEN</c> or the file <c>HF_TOKEN_PATH</c>
    /// (<c>$HF_HOME/token</c>); the cache from <c>HF_HUB_CACHE</c>, <c>HUGGINGFACE_HUB_CACHE</c> or <c>$HF_HOME/hub</c>, where
    /// <c>HF_HOME</c> is <c>~/.cache/huggingface</c> (<c>XDG_CACHE_HOME</c> stands for <c>~/.cache</c>); <c>HF_HUB_OFFLINE</c>,
    /// <c>TRANSFORMERS_OFFLINE</c>, <c>HF_HUB_DISABLE_IMPLICIT_TOKEN</c>; <c>HF_HUB_DOWNLOAD_TIMEOUT</c> in seconds.
    /// </summary>
    /// <param name="variables">Looks a variable up; null asks the process's environment.</param>
    /// <exception cref="HubException">The endpoint is no web address, or the token is none.</exception>
    public static HubOptions FromEnvironment(Func<string, string?>? variables = null)
    {
        variables ??= Environment.GetEnvironmentVariable;
        var options = new HubOptions { Cache = CacheFolder(variables), Offline = IsOn("HF_HUB_OFFLINE") || IsOn("TRANSFORMERS_OFFLINE") };
        if (Set(variables, "HF_ENDPOINT") is { } endpoint)
        {
            options = options with
            {
                Endpoint = Uri.TryCreate(endpoint.Trim().TrimEnd('/'), UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https"
                    && uri is { UserInfo: "", Query: "", Fragment: "" }
                    ? uri
                    : throw new HubException($"HF_ENDPOINT is {InvalidCheckpointException.Quote(endpoint)}; expected an address such as https://huggingface.co"),
            };
        }
        if (!IsOn("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
            options = options with { Token = ImplicitToken(variables) };
        return int.TryParse(variables("HF_HUB_DOWNLOAD_TIMEOUT"), NumberStyles.None, CultureInfo.InvariantCulture, out var seconds) && seconds is > 0 and < 100_000
            ? options with { Timeout = TimeSpan.FromSeconds(seconds) }
            : options;

        bool IsOn(string name) => variables(name)?.Trim().ToUpperInvariant() is "1" or "ON" or "YES" or "TRUE";
    }

    /// <summary>Reads a token from a file that holds nothing else.</summary>
    /// <exception cref="HubException">There is no such file, or no token in it.</exception>
    public static string ReadToken(string file)
    {
        ArgumentNullException.ThrowIfNull(file);
        try
        {
            if (File.Exists(file) && new FileInfo(file).Length > 10_000)
                throw new HubException($"{file}: is too long for a token");
            return CheckToken(File.ReadAllText(file), file) ?? throw new HubException($"{file}: is empty; expected a token");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HubException($"{file}: the token cannot be read ({e.Message})", e);
        }
    }

    /// <summary>Names the hub and not the token.</summary>
    public override string ToString() => $"{Endpoint} ({Cache})";

    /// <summary>The folder of the cache.</summary>
    internal static string CacheFolder(Func<string, string?> variables)
        => Path.GetFullPath(Home(Set(variables, "HF_HUB_CACHE") ?? Set(variables, "HUGGINGFACE_HUB_CACHE") ?? Path.Combine(HubHome(variables), "hub")));

    private static long SpaceOf(string folder)
    {
        try
        {
            return new DriveInfo(folder).AvailableFreeSpace;
        }
        catch (Exception e) when (e is ArgumentException or IOException or UnauthorizedAccessException)
        {
            return long.MaxValue; // a share without a drive: nobody can say
        }
    }

    private static string? ImplicitToken(Func<string, string?> variables)
    {
        foreach (var name in (ReadOnlySpan<string>)["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
        {
            if (CheckToken(variables(name), name) is { } token)
                return token;
        }
        var file = Home(Set(variables, "HF_TOKEN_PATH") ?? Path.Combine(HubHome(variables), "token"));
        return File.Exists(file) && new FileInfo(file).Length > 0 ? ReadToken(file) : null;
    }

    // Only what may stand in a header: a token with a line break in it would end the header and begin another.
    private static string? CheckToken(string? text, string source)
        => text?.Trim() is not { Length: > 0 } token ? null
        : token.All(c => c is > ' ' and < '\x7f') ? token
        : throw new HubException($"{source}: the token has spaces or characters that no token has");

    private static string HubHome(Func<string, string?> variables)
        => Home(Set(variables, "HF_HOME") ?? Path.Combine(Set(variables, "XDG_CACHE_HOME") ?? "~/.cache", "huggingface"));

    private static string Home(string path)
        => path == "~" || path.StartsWith("~/", StringComparison.Ordinal)
            ? Path.Join(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), path[1..])
            : path;

    private static string? Set(Func<string, string?> variables, string name) => variables(name) is { Length: > 0 } value ? value : null;
}
