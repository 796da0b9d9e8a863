using System.Text;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>The program itself as a service manager meets it.</summary>
[NonParallelizable]
[Platform(Exclude = "Win")]
public class ServeProcessTests
{
    [Test]
    public async Task A_router_lets_answers_end_too()
    {
        using var serve = await ServedProcess.ServeAsync();
        using var route = await ServedProcess.RouteAsync("--replica", serve.Url);
        using var http = new HttpClient { BaseAddress = new(route.Url) };
        var request = Served.Ask(tokens: 150);
        request["stream"] = true;
        request["ignore_eos"] = true;
        using var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") };
        using var response = await http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead);
        route.Terminate();
        Assert.That(await response.Content.ReadAsStringAsync(), Does.EndWith("data: [DONE]\n\n"));
        var (code, errors) = await route.EndAsync();
        Assert.That(code, Is.Zero, errors);
    }

    [Test]
    public async Task A_termination_signal_lets_answers_end()
    {
        var audit = Path.Combine(Directory.CreateTempSubdirectory("trimtab-serve-").FullName, "audit.jsonl");
        using var serve = await ServedProcess.ServeAsync(null, "--audit-log", audit, "--drain-time", "60");
        using var http = new HttpClient { BaseAddress = new(serve.Url) };
        var request = Served.Ask(images: 0, tokens: 150);
        request["stream"] = true;
        request["ignore_eos"] = true;
        var begun = await Task.WhenAll(Enumerable.Range(0, 4).Select(async _ =>
        {
            var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") };
            return await http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead);
        }));
        serve.Terminate();
        foreach (var response in begun)
        {
            Assert.That((int)response.StatusCode, Is.EqualTo(200));
            Assert.That(await response.Content.ReadAsStringAsync(), Does.EndWith("data: [DONE]\n\n"));
            response.Dispose();
        }
        var (code, errors) = await serve.EndAsync();
        Assert.That(code, Is.Zero, errors);
        Assert.That(AuditLog.Verify(audit).Lines, Is.EqualTo(9)); // start, and asked and answered for each
    }
}
