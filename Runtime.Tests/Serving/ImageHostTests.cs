using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Trimtab.Server.Serving;

namespace Trimtab.Tests.Serving;

/// <summary>--allow-image-hosts: what is fetched and what is not, with hosts that the test resolves itself.</summary>
public class ImageHostTests
{
    private WebApplication _host = null!;
    private int _port, _asked;
    private readonly TaskCompletionSource _end = new();

    [OneTimeSetUp]
    public async Task Start()
    {
        _host = await LocalServer.StartAsync(async context =>
        {
            Interlocked.Increment(ref _asked);
            var path = context.Request.Path.Value!;
            if (path.StartsWith("/to/", StringComparison.Ordinal))
                context.Response.Redirect(Uri.UnescapeDataString(path[4..]).Replace("PORT", $"{_port}", StringComparison.Ordinal));
            else if (path == "/image")
                await context.Response.SendFileAsync(Served.ImageFile());
            else if (path == "/long")
                await context.Response.BodyWriter.WriteAsync(new byte[2 << 20]);
            else if (path == "/text")
                await context.Response.WriteAsync("no image");
            else if (path == "/slow")
                await _end.Task;
            else
                context.Response.StatusCode = 404;
        });
        _port = new Uri(_host.Url()).Port;
    }

    [OneTimeTearDown]
    public async Task Stop()
    {
        _end.SetResult();
        await _host.DisposeAsync();
    }

    /// <summary>This machine stands for a public one; private.test has an inner address beside it.</summary>
    private ImageSource Source(params string[] hosts) => new(
        new() { ImageHosts = [.. hosts.Select(host => host.Replace("PORT", $"{_port}", StringComparison.Ordinal))], MaxImageBytes = 1 << 20, ImageTime = TimeSpan.FromSeconds(2) },
        address => address.Equals(IPAddress.Loopback) || ImageSource.IsPublic(address),
        (host, _) => Task.FromResult<IPAddress[]>(host switch
        {
            "images.test" or "other.test" => [IPAddress.Loopback],
            "private.test" => [IPAddress.Loopback, IPAddress.Parse("10.0.0.7")],
            "metadata.test" => [IPAddress.Parse("169.254.169.254")],
            _ => throw new System.Net.Sockets.SocketException(),
        }));

    private async Task<string?> CodeAsync(string url, params string[] hosts)
    {
        using var source = Source(hosts);
        try
        {
            using var memory = new MemoryBudget(long.MaxValue).Open();
            source.Decode(await source.ReadAsync(url.Replace("PORT", $"{_port}", StringComparison.Ordinal), "image", memory, default));
            return null;
        }
        catch (ApiException error)
        {
            Assert.That(error.Message, Does.Not.Contain("10.0.0").And.Not.Contain("169.254"), "where a name leads to is nobody's business");
            return error.Code;
        }
    }

    [TestCase("http://images.test:PORT/image", null)]
    [TestCase("http://IMAGES.test:PORT/image", null)]
    [TestCase("http://images.test:PORT/to/%2Fimage", null)]
    [TestCase("http://images.test:PORT/to/http%3A%2F%2Fimages.test%3APORT%2Fimage", null)]
    [TestCase("http://other.test:PORT/image", "image_host_not_allowed")]
    [TestCase("http://images.test:1/image", "image_host_not_allowed")]
    [TestCase("http://images.test/image", "image_host_not_allowed")]
    [TestCase("http://images.test.evil.test:PORT/image", "image_host_not_allowed")]
    [TestCase("http://images.test@other.test:PORT/image", "image_host_not_allowed")]
    [TestCase("http://user:secret@images.test:PORT/image", "image_host_not_allowed")]
    [TestCase("http://images.test:PORT/to/http%3A%2F%2Fother.test%3APORT%2Fimage", "image_not_fetched")]
    [TestCase("http://images.test:PORT/to/http%3A%2F%2Fimages.test%3A1%2Fimage", "image_not_fetched")]
    [TestCase("http://images.test:PORT/to/http%3A%2F%2Fuser@images.test%3APORT%2Fimage", "image_not_fetched")]
    [TestCase("http://images.test:PORT/to/file%3A%2F%2F%2Fetc%2Fpasswd", "image_not_fetched")]
    [TestCase("http://images.test:PORT/to/%2Fto%2F%252Fto%252F%25252Fto%25252F%2525252Fimage", "image_not_fetched")]
    [TestCase("http://images.test:PORT/nothing", "image_not_fetched")]
    [TestCase("http://images.test:PORT/long", "image_too_large")]
    [TestCase("http://images.test:PORT/text", "invalid_image")]
    [TestCase("http://images.test:PORT/slow", "image_not_fetched")]
    [TestCase("ftp://images.test:PORT/image", "invalid_image_url")]
    [TestCase("//images.test:PORT/image", "invalid_image_url")]
    public async Task A_listed_host_and_port_is_fetched_from_and_no_other(string url, string? code) => Assert.That(await CodeAsync(url, "images.test:PORT"), Is.EqualTo(code));

    [Test]
    public async Task A_host_without_a_port_is_the_webs_ports_alone()
    {
        var before = Volatile.Read(ref _asked);
        Assert.That(await CodeAsync("http://images.test:PORT/image", "images.test"), Is.EqualTo("image_host_not_allowed"));
        Assert.That(Volatile.Read(ref _asked), Is.EqualTo(before));
        // Allowed, and nobody is there: at 80 and at 443, whichever the scheme.
        foreach (var url in new[] { "http://images.test/image", "http://images.test:443/image", "https://images.test/image" })
            Assert.That(await CodeAsync(url, "images.test"), Is.EqualTo("image_not_fetched"), url);
    }

    [TestCase("private.test")]
    [TestCase("metadata.test")]
    [TestCase("unknown.test")]
    public async Task A_listed_name_that_leads_inside_is_not_followed(string host)
    {
        var before = Volatile.Read(ref _asked);
        Assert.That(await CodeAsync($"http://{host}:PORT/image", $"{host}:PORT"), Is.EqualTo("image_not_fetched"));
        Assert.That(Volatile.Read(ref _asked), Is.EqualTo(before));
    }

    [Test]
    public async Task Addresses_are_names_like_others()
    {
        using var source = new ImageSource(new() { ImageHosts = [$"127.0.0.1:{_port}", $"[::1]:{_port}"] });
        using var memory = new MemoryBudget(long.MaxValue).Open();
        foreach (var url in new[] { $"http://127.0.0.1:{_port}/image", $"http://[::1]:{_port}/image", $"http://2130706433:{_port}/image" })
            Assert.That((await Assert.ThrowsAsync<ApiException>(() => source.ReadAsync(url, "image", memory, default)))!.Code, Is.EqualTo("image_not_fetched"), url);
    }
}
