using System.ClientModel;
using System.ClientModel.Primitives;
using System.Text.Json;
using OpenAI;
using OpenAI.Chat;
using Trimtab.Evaluation;

namespace Trimtab.Server;

/// <summary>"openai:URL#model": a judge behind any endpoint that speaks OpenAI's chat completions. The only user of their client.</summary>
internal static class OpenAIJudge
{
    public const string Prefix = "openai:";

    /// <summary>Makes the judge; nothing is asked yet. The key is OPENAI_API_KEY, which local servers do not look at.</summary>
    /// <param name="spec">Such as "openai:http://localhost:8080/v1#llama-3-8b".</param>
    /// <param name="cache">Folder of replies, or null.</param>
    /// <param name="retries">How often a failed request is repeated.</param>
    /// <param name="delay">Wait before the first repeat; it doubles each time.</param>
    /// <exception cref="UsageException">The spec is no URL and model.</exception>
    public static IJudge Create(string spec, string? cache, int retries = 5, TimeSpan? delay = null)
    {
        var hash = spec.LastIndexOf('#');
        if (!spec.StartsWith(Prefix, StringComparison.Ordinal) || hash < Prefix.Length || hash == spec.Length - 1
            || !Uri.TryCreate(spec[Prefix.Length..hash], UriKind.Absolute, out var endpoint) || endpoint.Scheme is not ("http" or "https") || endpoint.UserInfo.Length > 0)
            throw new UsageException($"--judge {spec}: expected openai:URL#model, such as openai:http://localhost:8080/v1#llama-3-8b; a key goes into OPENAI_API_KEY");
        var key = Environment.GetEnvironmentVariable("OPENAI_API_KEY") is { Length: > 0 } own ? own : "none";
        var client = new ChatClient(spec[(hash + 1)..], new ApiKeyCredential(key), new OpenAIClientOptions
        {
            Endpoint = endpoint,
            NetworkTimeout = TimeSpan.FromSeconds(120),
            RetryPolicy = new Backoff(retries, delay ?? TimeSpan.FromSeconds(1)),
        });
        return new ModelJudge(spec, (system, user, cancel) => AskAsync(client, spec, system, user, cancel), cache);
    }

    private static async Task<string?> AskAsync(ChatClient client, string spec, string system, string user, CancellationToken cancel)
    {
        try
        {
            var reply = await client.CompleteChatAsync(
                [new SystemChatMessage(system), new UserChatMessage(user)], new() { Temperature = 0 }, cancel).ConfigureAwait(false);
            return string.Concat(reply.Value.Content.Select(part => part.Text)) is { Length: > 0 } text ? text : null;
        }
        catch (ClientResultException error) when (error.Status is 400 or 413 or 422)
        {
            return null; // this case is not taken (its content, its length): no verdict
        }
        catch (ClientResultException error)
        {
            throw new JudgeException($"the judge {spec} answers with HTTP {error.Status}{(error.Status is 401 or 403 ? " (is OPENAI_API_KEY right?)" : "")}", error);
        }
        catch (Exception error) when (error is HttpRequestException or IOException or AggregateException or TaskCanceledException && !cancel.IsCancellationRequested)
        {
            throw new JudgeException($"the judge {spec} cannot be reached: {(error as AggregateException)?.InnerExceptions[^1].Message ?? error.Message}", error);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or ArgumentException or FormatException or KeyNotFoundException or NullReferenceException or IndexOutOfRangeException)
        {
            return null; // a reply that is no chat completion is no verdict
        }
    }

    private sealed class Backoff(int retries, TimeSpan first) : ClientRetryPolicy(retries)
    {
        protected override TimeSpan GetNextDelay(PipelineMessage message, int tryCount)
        {
            var own = first * Math.Pow(2, Math.Clamp(tryCount - 1, 0, 6));
            // The server's own wish (Retry-After, in seconds) goes before, within reason.
            return message.Response?.Headers.TryGetValue("Retry-After", out var wish) == true && int.TryParse(wish, out var seconds) && seconds is > 0 and <= 300
                ? TimeSpan.FromSeconds(seconds)
                : own;
        }
    }
}
