using Microsoft.Playwright;
using Trimtab.Imaging;
using Trimtab.Server.Commands;
using Trimtab.Server.Serving;
using Trimtab.Steering;

namespace Trimtab.Tests.Server;

/// <summary>The page in a browser, against a server with the demo model.</summary>
[NonParallelizable]
public class PageTests
{
    private static string Browser => new[] { "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome" }.FirstOrDefault(File.Exists)
        ?? throw new IgnoreException("no Chromium: expected /usr/bin/chromium or /usr/bin/google-chrome (Debian: apt-get install chromium)");

    private static SteeredModel OpenDemo(Func<NamedVectors, Policy> policy)
    {
        var path = DemoCommand.Find();
        var model = VisionLanguageModel.Open(path, new() { Threads = 2 }, CancellationToken.None);
        var catalog = new VectorCatalog(model.Network.Spec.Text.Layers, model.Network.Spec.Text.HiddenSize, model.Network.Fingerprint);
        catalog.Put([catalog.Read("cmrm", Path.Combine(path, "cmrm.safetensors"))]);
        return new(model, catalog, policy(catalog.Find("cmrm")!), new() { Port = 0, ModelName = "demo-vlm" });
    }

    private static async Task InPageAsync(Func<NamedVectors, Policy> policy, Func<IPage, Task> run)
    {
        var browserPath = Browser;
        using var model = OpenDemo(policy);
        await using var server = await ModelServer.StartAsync(model, null, TextWriter.Null);
        using var playwright = await Playwright.CreateAsync();
        await using var browser = await playwright.Chromium.LaunchAsync(new() { ExecutablePath = browserPath, Args = ["--no-sandbox"] });
        var page = await browser.NewPageAsync(new() { ViewportSize = new() { Width = 1400, Height = 1000 } });
        page.SetDefaultTimeout(60_000);
        var complaints = new List<string>();
        page.Console += (_, line) =>
        {
            // Chromium logs each answer that is no success; a refusal is one by design.
            if (line.Type == "error" && !line.Text.Contains("403", StringComparison.Ordinal))
                complaints.Add(line.Text);
        };
        page.PageError += (_, error) => complaints.Add(error);
        page.Request += (_, request) =>
        {
            if (!request.Url.StartsWith(server.Url, StringComparison.Ordinal) && !request.Url.StartsWith("data:", StringComparison.Ordinal) && !request.Url.StartsWith("blob:", StringComparison.Ordinal))
                complaints.Add($"asks {request.Url}");
        };
        await page.GotoAsync(server.Url);
        await Assertions.Expect(page.Locator("#server")).ToContainTextAsync("demo-vlm");
        await run(page);
        await server.StopAsync();
        Assert.That(complaints, Is.Empty);
    }

    private static Task DropAsync(IPage page) => page.EvaluateAsync(
        """
        base64 => {
          const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0)), data = new DataTransfer();
          data.items.add(new File([bytes], 'noise.png', { type: 'image/png' }));
          document.getElementById('prompt').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
        }
        """, Png());

    private static string Png()
    {
        var file = Path.Combine(Path.GetTempPath(), $"trimtab-{Guid.NewGuid():N}.png");
        try
        {
            Image.Noise(48, 48, 5).Save(file);
            return Convert.ToBase64String(File.ReadAllBytes(file));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Test]
    public Task Both_answers_the_chart_and_the_receipt_come() => InPageAsync(vectors => PolicyFile.Open(vectors, SteeringScope.Prefill), async page =>
    {
        await DropAsync(page);
        await Assertions.Expect(page.Locator("#images img")).ToHaveCountAsync(1);
        await page.Locator("#alpha").FillAsync("1.5");
        await Assertions.Expect(page.Locator("#alphaValue")).ToHaveTextAsync("1.50");
        await page.Locator("summary").First.ClickAsync();
        await page.Locator("#tokens").FillAsync("12");
        await page.Locator("#prompt").FillAsync("What is shown here?");
        await page.Locator("#prompt").PressAsync("Enter");
        await Assertions.Expect(page.Locator("#said")).ToContainTextAsync("Both answers have ended.");
        Assert.Multiple(async () =>
        {
            Assert.That(await page.Locator("#steered .answer").InnerTextAsync(), Is.Not.Empty);
            Assert.That(await page.Locator("#unsteered .answer").InnerTextAsync(), Is.Not.Empty);
        });
        await Assertions.Expect(page.Locator("#steered .facts")).ToContainTextAsync("cmrm, alpha 1.5");
        await Assertions.Expect(page.Locator("#unsteered .facts")).ToContainTextAsync("unsteered");
        await Assertions.Expect(page.Locator("#chart polyline")).ToHaveCountAsync(2);
        await Assertions.Expect(page.Locator("#marks i.floor")).ToHaveCountAsync(0);
        Assert.That(await page.Locator("#steered .answer").EvaluateAsync<string>("e => e.textContent"), Does.Not.StartWith(" "));
        await page.SetViewportSizeAsync(400, 1000);
        await Assertions.Expect(page.Locator("#chart svg")).ToHaveAttributeAsync("viewBox", new System.Text.RegularExpressions.Regex("^0 0 3[0-9]{2} "));
        Assert.That(await page.EvaluateAsync<double>("Math.min(...[...document.querySelectorAll('#chart text')].map(text => text.getBoundingClientRect().height))"), Is.GreaterThan(11));
        await page.SetViewportSizeAsync(1400, 1000);
        var download = await page.RunAndWaitForDownloadAsync(() => page.Locator("#steered button").ClickAsync());
        var receipt = ReplayCommand.Read((await download.PathAsync())!);
        Assert.That(receipt.Steering.Alpha, Is.EqualTo(1.5f));
        if (Environment.GetEnvironmentVariable("TRIMTAB_PAGE_SHOTS") is { Length: > 0 } folder)
            await ShootAsync(page, folder);
    });

    [Test]
    public Task A_new_conversation_ends_the_answers_of_the_old_one() => InPageAsync(vectors => PolicyFile.Open(vectors, SteeringScope.Prefill), async page =>
    {
        await page.Locator("summary").First.ClickAsync();
        await page.Locator("#tokens").FillAsync("900");
        // Answers that do not end by themselves.
        await page.RouteAsync("**/v1/chat/completions", route => route.ContinueAsync(new()
        {
            PostData = System.Text.Encoding.UTF8.GetBytes(route.Request.PostData!.Replace("\"stream\":true", "\"stream\":true,\"ignore_eos\":true", StringComparison.Ordinal)),
        }));
        await page.Locator("#prompt").FillAsync("Tell me a story.");
        await page.Locator("#prompt").PressAsync("Enter");
        await Assertions.Expect(page.Locator("#steered .answer")).Not.ToBeEmptyAsync();
        await page.Locator("#fresh").ClickAsync();
        await Assertions.Expect(page.Locator("#send")).ToBeEnabledAsync();
        await Assertions.Expect(page.Locator(".turn")).ToHaveCountAsync(0);
        await Assertions.Expect(page.Locator("#said")).ToBeEmptyAsync();
        await Assertions.Expect(page.Locator("#shift")).ToBeHiddenAsync();
        Assert.That(await page.EvaluateAsync<int>("panes.steered.turns.length + panes.unsteered.turns.length"), Is.Zero);
    });

    private static async Task ShootAsync(IPage page, string folder)
    {
        foreach (var scheme in new[] { ColorScheme.Light, ColorScheme.Dark })
        {
            await page.EmulateMediaAsync(new() { ColorScheme = scheme });
            foreach (var width in new[] { 400, 900, 1400 })
            {
                await page.SetViewportSizeAsync(width, 1000);
                await page.ScreenshotAsync(new() { Path = Path.Combine(folder, $"{width}-{scheme}.png"), FullPage = true });
                Assert.That(await page.EvaluateAsync<int>("document.documentElement.scrollWidth"), Is.LessThanOrEqualTo(width));
            }
        }
    }

    [Test]
    public Task A_policy_that_forbids_unsteered_answers_is_told_in_their_pane() => InPageAsync(
        vectors => PolicyFile.Open(vectors, SteeringScope.Prefill) with { Version = "strict", Callers = new Dictionary<string, Rights>() }, async page =>
    {
        await DropAsync(page);
        await Assertions.Expect(page.Locator("#images img")).ToHaveCountAsync(1);
        await Assertions.Expect(page.Locator("#alpha")).ToBeDisabledAsync();
        await page.Locator("#prompt").FillAsync("What is shown here?");
        await page.Locator("#prompt").PressAsync("Enter");
        await Assertions.Expect(page.Locator("#said")).ToContainTextAsync("Both answers have ended.");
        await Assertions.Expect(page.Locator("#unsteered .answer")).ToContainTextAsync("the policy does not allow anonymous to switch steering off");
        await Assertions.Expect(page.Locator("#steered .answer")).Not.ToBeEmptyAsync();
    });
}
