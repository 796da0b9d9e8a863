using System.Globalization;

namespace Trimtab.Server.Serving;

/// <summary>A request that gets no answer; leaves the server as OpenAI's error object.</summary>
/// <param name="status">HTTP status.</param>
/// <param name="message">What is wrong and what was expected.</param>
/// <param name="param">The request's field at fault, or null.</param>
/// <param name="code">A word for programs, or null.</param>
internal sealed class ApiException(int status, string message, string? param = null, string? code = null) : Exception(message)
{
    /// <summary>HTTP status.</summary>
    public int Status => status;

    /// <summary>The request's field at fault, or null.</summary>
    public string? Param => param;

    /// <summary>A word for programs, or null.</summary>
    public string? Code => code;

    /// <summary>When to try again; sent as Retry-After.</summary>
    public TimeSpan? RetryAfter { get; init; }

    /// <summary>OpenAI's kind of error.</summary>
    public string Type => status switch
    {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        503 => "service_unavailable",
        >= 500 => "server_error",
        _ => "invalid_request_error",
    };

    /// <summary>Seconds for Retry-After, at least one.</summary>
    public string RetryAfterSeconds => Math.Max(1, (int)Math.Ceiling(RetryAfter?.TotalSeconds ?? 1)).ToString(CultureInfo.InvariantCulture);

    /// <summary>What the caller is told.</summary>
    public ErrorBody Body => new(new(Message, Type, Param, Code));

    /// <summary>A message with names in the place of paths: what lies where is the operator's business, not the answer's.</summary>
    public static string Pathless(string message)
        => string.Join(' ', message.Split(' ').Select(word => word.Contains(Path.DirectorySeparatorChar) ? Path.GetFileName(word) : word));

    /// <summary>A field that is not what it should be.</summary>
    public static ApiException Invalid(string param, string message, string? code = null) => new(400, $"{param}: {message}", param, code);

    /// <summary>A parameter that would change the answer and is not computed here.</summary>
    public static ApiException Unsupported(string param, string? why = null)
        => new(400, $"{param}: this server does not support it{(why is null ? "" : ": " + why)}; leave it out", param, "unsupported_parameter");
}
