using System.Diagnostics;
using System.Text;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>The program itself as a service manager meets it.</summary>
[NonParallelizable]
[Platform(Exclude = "Win")]
public class ServeProcessTests
{
    [Test]
    public async Task A_termination_signal_lets_answers_end()
    {
        var audit = Path.Combine(Directory.CreateTempSubdirectory("trimtab-serve-").FullName, "audit.jsonl");
        using var serve = Process.Start(new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "trimtab.dll"), "serve", "--port", "0", "--audit-log", audit, "--name", "demo", "-t", "1", "--drain-time", "60"])
        { RedirectStandardOutput = true, RedirectStandardError = true })!;
        try
        {
            var line = await serve.StandardOutput.ReadLineAsync() ?? await serve.StandardError.ReadToEndAsync();
            Assert.That(line, Does.Contain(" at http://"));
            using var http = new HttpClient { BaseAddress = new(line.Split(" at ")[1].Split(' ')[0]) };
            var request = Served.Ask(images: 0, tokens: 150);
            request["stream"] = true;
            request["ignore_eos"] = true;
            var begun = await Task.WhenAll(Enumerable.Range(0, 4).Select(async _ =>
            {
                var message = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(request.ToJsonString(), Encoding.UTF8, "application/json") };
                return await http.SendAsync(message, HttpCompletionOption.ResponseHeadersRead);
            }));
            using var kill = Process.Start("kill", ["-TERM", serve.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)])!;
            foreach (var response in begun)
            {
                Assert.That((int)response.StatusCode, Is.EqualTo(200));
                Assert.That(await response.Content.ReadAsStringAsync(), Does.EndWith("data: [DONE]\n\n"));
                response.Dispose();
            }
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(70));
            await serve.WaitForExitAsync(limit.Token);
            Assert.That(serve.ExitCode, Is.Zero, await serve.StandardError.ReadToEndAsync(CancellationToken.None));
            Assert.That(AuditLog.Verify(audit).Lines, Is.EqualTo(9)); // start, and asked and answered for each
        }
        finally
        {
            if (!serve.HasExited)
                serve.Kill(entireProcessTree: true);
        }
    }
}
