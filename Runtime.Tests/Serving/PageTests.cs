using Microsoft.Playwright;

namespace Trimtab.Tests.Serving;

/// <summary>The page in a headless Chromium, against a real server: ask, drop an image, move alpha, see both answers and the chart.</summary>
public class PageTests
{
    private static string? Chromium => ((string[])["chromium", "chromium-browser", "google-chrome"])
        .SelectMany(name => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Select(folder => Path.Combine(folder, name)))
        .FirstOrDefault(File.Exists);

    [Test]
    public async Task Asks_with_an_image_and_shows_both_answers_and_the_shift()
    {
        if (Chromium is not { } browserPath)
        {
            Assert.Ignore("no Chromium is installed (Debian: apt-get install chromium); this test needs one");
            return;
        }
        await using var served = await Served.StartAsync();
        using var playwright = await Playwright.CreateAsync();
        await using var browser = await playwright.Chromium.LaunchAsync(new() { ExecutablePath = browserPath, Args = ["--no-sandbox"] });
        var page = await browser.NewPageAsync();
        var (failures, foreign) = (new List<string>(), new List<string>());
        page.Console += (_, message) => _ = message.Type == "error" ? Add(failures, message.Text) : 0;
        page.PageError += (_, error) => failures.Add(error);
        page.Request += (_, request) => _ = request.Url.StartsWith(served.Server.Url, StringComparison.Ordinal) || request.Url.StartsWith("data:", StringComparison.Ordinal)
            || request.Url.StartsWith("blob:", StringComparison.Ordinal) ? 0 : Add(foreign, request.Url);

        await page.GotoAsync(served.Server.Url + "/");
        await Assertions.Expect(page.Locator("#model")).ToContainTextAsync("demo");
        await Assertions.Expect(page.Locator("#vectors")).ToHaveValueAsync("cmrm");
        await page.Locator("#alpha").FillAsync("0.5");
        await Assertions.Expect(page.Locator("#alpha-value")).ToHaveTextAsync("0.50");

        // A file dropped on the page, as the browser hands it over.
        var bytes = Convert.ToBase64String(await File.ReadAllBytesAsync(Served.ImageFile()));
        await page.EvaluateAsync("""
            base64 => {
              const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], 'scene.png', { type: 'image/png' }));
              document.getElementById('drop').dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data }));
            }
            """, bytes);
        await Assertions.Expect(page.GetByAltText("scene.png")).ToBeVisibleAsync();
        await page.GetByLabel("Question", new() { Exact = true }).FillAsync("How many shapes do you see?");
        await page.Keyboard.PressAsync("Enter");

        var receipt = page.Locator(".receipt");
        await Assertions.Expect(receipt).ToBeEnabledAsync(new() { Timeout = 60_000 });
        Assert.That(await page.Locator("[data-kind=steered] .text").InnerTextAsync(), Is.Not.Empty);
        Assert.That(await page.Locator("[data-kind=unsteered] .text").InnerTextAsync(), Is.Not.Empty);
        var layers = served.Model.Layers;
        Assert.That(await page.Locator(".chart circle.before").CountAsync(), Is.EqualTo(layers));
        Assert.That(await page.Locator(".chart circle.after").CountAsync(), Is.EqualTo(layers));
        var download = await page.RunAndWaitForDownloadAsync(() => receipt.ClickAsync());
        using var json = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(await download.PathAsync()));
        Assert.That(json.RootElement.GetProperty("steering").GetProperty("alpha").GetDouble(), Is.EqualTo(.5));
        foreach (var (width, height) in ((int Width, int Height)[])[(400, 800), (900, 800), (1400, 900)])
        {
            await page.SetViewportSizeAsync(width, height);
            Assert.That(await page.EvaluateAsync<bool>("document.documentElement.scrollWidth <= window.innerWidth"), Is.True, $"nothing scrolls sideways at {width} pixels");
        }
        if (Environment.GetEnvironmentVariable("TRIMTAB_SCREENSHOT") is { Length: > 0 } shot)
            await page.ScreenshotAsync(new() { Path = shot });
        Assert.That(failures, Is.Empty);
        Assert.That(foreign, Is.Empty);
    }

    private static int Add(List<string> list, string text)
    {
        list.Add(text);
        return list.Count;
    }
}
