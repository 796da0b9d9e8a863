using System.Net;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>Speaks HTTP with a hub about one revision of one repository. Used from several threads.</summary>
internal sealed class HubClient : IDisposable
{
    private const int MostHops = 8;

    private readonly HttpClient _http;
    private readonly HubOptions _options;
    private readonly string _repository;
    private readonly string _revision;

    public HubClient(HubOptions options, string repository, string revision)
    {
        (_options, _repository, _revision) = (options, repository, revision);
        // Redirects are followed by hand: the token must not follow to another host, and the hub's headers are on its own answer.
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            AutomaticDecompression = DecompressionMethods.None,
            ConnectTimeout = options.Timeout,
        };
        _http = new(handler) { Timeout = Timeout.InfiniteTimeSpan };
        _http.DefaultRequestHeaders.UserAgent.Add(new("trimtab", typeof(HubClient).Assembly.GetName().Version?.ToString(3)));
        _http.DefaultRequestHeaders.AcceptEncoding.Add(new("identity"));
    }

    /// <summary>The repository's page, for messages.</summary>
    public string Page => $"{Root}/{_repository}";

    private string Root => _options.Endpoint.AbsoluteUri.TrimEnd('/');

    public HubRetry Retry() => new(_options.RetryDelay);

    /// <summary>The commit of the revision and its files.</summary>
    public Task<HubListing> ListAsync(CancellationToken cancel)
    {
        var uri = new Uri($"{Root}/api/models/{_repository}/revision/{Uri.EscapeDataString(_revision)}?blobs=true");
        return Retry().RunAsync(
            async () =>
            {
                using var answer = await SendAsync(HttpMethod.Get, uri, 0, null, null, cancel).ConfigureAwait(false);
                return HubListing.Parse(await ReadJsonAsync(answer.Response, cancel).ConfigureAwait(false), Page);
            },
            cancel);
    }

    /// <summary>Size and tag of a file that the listing says too little about, from the headers of its address.</summary>
    public Task<HubFile> DescribeAsync(string commit, string name, CancellationToken cancel) => Retry().RunAsync(
        async () =>
        {
            using var answer = await SendAsync(HttpMethod.Head, Address(commit, name), 0, commit, name, cancel).ConfigureAwait(false);
            var tag = (answer.LinkedTag ?? answer.Tag)?.Trim();
            tag = (tag?.StartsWith("W/", StringComparison.Ordinal) == true ? tag[2..] : tag)?.Trim('"');
            if (tag is not { Length: > 0 and <= 128 } || !tag.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'))
                throw new HubException($"{Page}: {Quote(name)} has no ETag that could name its content");
            var size = answer.LinkedSize ?? (answer.Response.IsSuccessStatusCode ? answer.Response.Content.Headers.ContentLength : null);
            return size is >= 0 and <= HubFile.LargestFile
                ? new HubFile(name, size.Value, tag)
                : throw new HubException($"{Page}: the hub tells no size of {Quote(name)}, or no sane one");
        },
        cancel);

    /// <summary>Asks for a file's bytes from <paramref name="offset"/> on. The answer may begin at 0 all the same: see its status.</summary>
    public async Task<HttpResponseMessage> OpenAsync(string commit, string name, long offset, CancellationToken cancel)
        => (await SendAsync(HttpMethod.Get, Address(commit, name), offset, commit, name, cancel).ConfigureAwait(false)).Response;

    /// <summary>Opens the body of an answer.</summary>
    public Task<Stream> BodyAsync(HttpResponseMessage response, CancellationToken cancel)
        => GuardAsync(token => response.Content.ReadAsStreamAsync(token), response.RequestMessage!.RequestUri!, cancel);

    /// <summary>Reads from the body of an answer; 0 at its end.</summary>
    public Task<int> ReadAsync(HttpResponseMessage response, Stream body, Memory<byte> into, CancellationToken cancel)
        => GuardAsync(token => body.ReadAsync(into, token).AsTask(), response.RequestMessage!.RequestUri!, cancel);

    public void Dispose() => _http.Dispose();

    private Uri Address(string commit, string name)
        => new($"{Page}/resolve/{commit}/{string.Join('/', name.Split('/').Select(Uri.EscapeDataString))}");

    private async Task<byte[]> ReadJsonAsync(HttpResponseMessage response, CancellationToken cancel)
    {
        using var json = new MemoryStream();
        var body = await BodyAsync(response, cancel).ConfigureAwait(false);
        await using var _ = body.ConfigureAwait(false);
        var buffer = new byte[1 << 16];
        while (await ReadAsync(response, body, buffer, cancel).ConfigureAwait(false) is > 0 and var read)
        {
            if (json.Length + read > HubListing.LongestJson)
                throw new HubException($"{Page}: the list of files is longer than {HubListing.LongestJson} bytes");
            json.Write(buffer, 0, read);
        }
        return json.ToArray();
    }

    /// <summary>One request and the redirects that it leads to. A HEAD stops where it would leave the hub: the hub's own headers are the answer.</summary>
    private async Task<Answer> SendAsync(HttpMethod method, Uri uri, long offset, string? commit, string? file, CancellationToken cancel)
    {
        var answer = new Answer();
        var home = true;
        for (var hop = 0; hop <= MostHops; hop++)
        {
            using var request = new HttpRequestMessage(method, uri);
            if (home && _options.Token is { } token)
                request.Headers.Authorization = new("Bearer", token);
            if (offset > 0)
                request.Headers.Range = new(offset, null);
            var response = await GuardAsync(limit => _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limit), uri, cancel).ConfigureAwait(false);
            answer.Response = response;
            try
            {
                if (home)
                    answer.Note(response);
                if (commit is not null && answer.Commit is { } other && other != commit)
                    throw new HubException($"{Page}: asked for commit {commit}, the hub answers for {Quote(other)}");
                if ((int)response.StatusCode is 301 or 302 or 303 or 307 or 308 && response.Headers.Location is { } location)
                {
                    var next = Next(uri, location);
                    if (method == HttpMethod.Head && !IsHome(next))
                        return answer;
                    // Once away, always away: another host does not get the token by sending us back.
                    (home, uri) = (home && IsHome(next), next);
                    response.Dispose();
                    continue;
                }
                if (method == HttpMethod.Head && response.StatusCode is HttpStatusCode.MethodNotAllowed or HttpStatusCode.NotImplemented)
                {
                    method = HttpMethod.Get;
                    response.Dispose();
                    continue;
                }
                var unsatisfiable = offset > 0 && response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable;
                if (response.StatusCode is not (HttpStatusCode.OK or HttpStatusCode.PartialContent) && !unsatisfiable)
                    throw Failure(response, uri, home, file);
                if (response.Content.Headers.ContentEncoding.FirstOrDefault(e => !e.Equals("identity", StringComparison.OrdinalIgnoreCase)) is { } encoding)
                    throw new HubException($"{uri.Authority} sends {Quote(encoding)}-encoded content that was not asked for");
                return answer;
            }
            catch
            {
                response.Dispose();
                throw;
            }
        }
        throw new HubException($"{Page}: more than {MostHops} redirects");
    }

    private static Uri Next(Uri from, Uri location)
    {
        if (!Uri.TryCreate(from, location, out var next) || next.Scheme is not ("http" or "https") || (from.Scheme == "https" && next.Scheme == "http"))
            throw new HubException($"{from.Authority} redirects to {Quote(location.OriginalString)}, which is not followed");
        return next;
    }

    private bool IsHome(Uri uri)
        => uri.Scheme == _options.Endpoint.Scheme && uri.Port == _options.Endpoint.Port
            && uri.IdnHost.Equals(_options.Endpoint.IdnHost, StringComparison.OrdinalIgnoreCase);

    /// <summary>Runs one step of a conversation; a break in it, or silence for too long, is worth another try.</summary>
    private async Task<T> GuardAsync<T>(Func<CancellationToken, Task<T>> run, Uri uri, CancellationToken cancel)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        limit.CancelAfter(_options.Timeout);
        try
        {
            return await run(limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException e) when (!cancel.IsCancellationRequested)
        {
            throw new HubTransientException($"{uri.Authority} sent nothing for {_options.Timeout.TotalSeconds:F0} seconds", null, e);
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            throw new HubTransientException($"the connection to {uri.Authority} failed ({e.Message})", null, e);
        }
    }

    // Addresses of other hosts are signed: messages name the host alone.
    private Exception Failure(HttpResponseMessage response, Uri uri, bool home, string? file)
    {
        var (status, code, said) = ((int)response.StatusCode, Answer.Header(response, "X-Error-Code"), Answer.Header(response, "X-Error-Message"));
        said = $"{status}{(said is null ? "" : " " + (said.Length > 300 ? said[..300] : said))}";
        // 403 of another host: the signature of the address has run out; the next try gets a new one.
        if (status is 408 or 429 or >= 500 || (status == 403 && !home))
        {
            var after = response.Headers.RetryAfter;
            var wait = after?.Delta ?? (after?.Date is { } date ? date - DateTimeOffset.UtcNow : null);
            return new HubTransientException($"{uri.Authority} answered {said}", wait < TimeSpan.Zero ? TimeSpan.Zero : wait);
        }
        if (!home)
            return new HubException($"{uri.Authority}, to which the hub redirects for {Quote(file ?? _repository)}, answered {said}");
        if (status is 401 or 403)
        {
            var what = code == "GatedRepo" ? $"{_repository} is gated ({said})"
                : code == "RepoNotFound" ? $"{Root} has no repository {_repository}, or it is private or gated ({said})"
                : $"{Root} denies access to {_repository}: private, gated, or the token is not valid ({said})";
            return new HubException($"{what}; if it is gated, accept its licence at {Page}; then set HF_TOKEN to a token of that account"
                + (_options.Token is null ? " (none is set)" : " (the one that is set does not do)"));
        }
        if (status == 404)
        {
            return new HubException(
                code == "RevisionNotFound" ? $"{Page} has no revision {Quote(_revision)}"
                : file is not null ? $"{Page} has no file {Quote(file)} at revision {Quote(_revision)} ({said})"
                : $"{Root} has no repository {_repository}, or it has no revision {Quote(_revision)} ({said})");
        }
        return new HubException($"{uri.GetLeftPart(UriPartial.Path)} answered {said}");
    }

    /// <summary>An answer, and what the hub's own headers said on the way to it.</summary>
    private sealed class Answer : IDisposable
    {
        public HttpResponseMessage Response { get; set; } = null!;

        public string? LinkedTag { get; private set; }

        public string? Tag { get; private set; }

        public long? LinkedSize { get; private set; }

        public string? Commit { get; private set; }

        public void Note(HttpResponseMessage response)
        {
            LinkedTag ??= Header(response, "X-Linked-ETag");
            Tag = Header(response, "ETag") ?? Tag;
            Commit ??= Header(response, "X-Repo-Commit");
            LinkedSize ??= long.TryParse(Header(response, "X-Linked-Size"), out var size) ? size : null;
        }

        public void Dispose() => Response.Dispose();

        public static string? Header(HttpResponseMessage response, string name)
            => response.Headers.TryGetValues(name, out var values) ? values.FirstOrDefault() : null;
    }
}
