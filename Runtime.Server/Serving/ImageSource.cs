using System.Net;
using System.Net.Sockets;
using Trimtab.Imaging;

namespace Trimtab.Server.Serving;

/// <summary>An image file as it came.</summary>
/// <param name="Bytes">The file.</param>
/// <param name="Param">The request's field.</param>
/// <param name="Width">Of the upright image, as its header says.</param>
/// <param name="Height">The same.</param>
internal sealed record ImageFile(ReadOnlyMemory<byte> Bytes, string Param, int Width, int Height);

/// <summary>
/// Turns a request's image URL into pixels. <c>data:</c> URLs always; <c>http(s)</c> only for hosts that are listed, and there only
/// from public addresses, without following a redirect to another host, within limits of size and time.
/// </summary>
internal sealed class ImageSource : IDisposable
{
    private readonly ServeOptions _options;
    private readonly SemaphoreSlim _decoding = new(2); // a decoded image takes far more memory than its file
    private readonly HttpClient _http;

    /// <param name="options">Limits and hosts.</param>
    /// <param name="allowed">Which addresses may be connected to; null for public ones.</param>
    /// <param name="resolve">Looks up a host's addresses; null for the system's way.</param>
    public ImageSource(ServeOptions options, Func<IPAddress, bool>? allowed = null, Func<string, CancellationToken, Task<IPAddress[]>>? resolve = null)
    {
        _options = options;
        allowed ??= IsPublic;
        resolve ??= Dns.GetHostAddressesAsync;
        _http = new(new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            UseProxy = false, // a proxy would resolve the name itself
            ConnectTimeout = TimeSpan.FromSeconds(5),
            MaxResponseHeadersLength = 32,
            // The address that was checked is the one that is connected to: a second look-up could give another.
            ConnectCallback = async (context, cancel) =>
            {
                var addresses = await resolve(context.DnsEndPoint.Host, cancel).ConfigureAwait(false);
                if (addresses.Length == 0 || !addresses.All(allowed))
                    throw new HttpRequestException("the host has an address that is not public");
                var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                try
                {
                    await socket.ConnectAsync(addresses, context.DnsEndPoint.Port, cancel).ConfigureAwait(false);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
        })
        { Timeout = options.ImageTime };
    }

    /// <summary>Reads an image's file and how large the image is. Nothing is decoded.</summary>
    /// <param name="url">The URL.</param>
    /// <param name="param">The request's field.</param>
    /// <param name="memory">Takes the memory of a file that is fetched.</param>
    /// <param name="cancel">Stops it.</param>
    public async Task<ImageFile> ReadAsync(string url, string param, MemoryBudget.Share memory, CancellationToken cancel)
    {
        var bytes = url.StartsWith("data:", StringComparison.OrdinalIgnoreCase) ? FromData(url, param) : await FetchAsync(url, param, memory, cancel).ConfigureAwait(false);
        return Checked(param, () =>
        {
            var (width, height) = ImageHeader.Measure(bytes.Span, param);
            return (long)width * height <= _options.MaxPixels ? new ImageFile(bytes, param, width, height)
                : throw new InvalidImageException($"{param}: {width} x {height} pixels are more than the {_options.MaxPixels} that an image may have");
        });
    }

    /// <summary>Decodes an image.</summary>
    public Image Decode(ImageFile file) => Checked(file.Param, () => ImageDecoder.Decode(file.Bytes.Span, file.Param, _options.MaxPixels));

    /// <summary>Runs what decodes images, two at a time: while it is decoded an image takes far more memory than before and after.</summary>
    public async Task<T> DecodingAsync<T>(Func<T> run, CancellationToken cancel)
    {
        await _decoding.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            return await Task.Run(run, cancel).ConfigureAwait(false);
        }
        finally
        {
            _decoding.Release();
        }
    }

    private static T Checked<T>(string param, Func<T> run)
    {
        try
        {
            return run();
        }
        catch (InvalidImageException error)
        {
            throw new ApiException(400, error.Message, param, "invalid_image");
        }
    }

    /// <summary>The bytes of a data: URL (RFC 2397) in base64.</summary>
    internal static ReadOnlyMemory<byte> FromData(string url, string param)
    {
        var comma = url.IndexOf(',', StringComparison.Ordinal);
        if (comma is < 0 or > 200)
            throw ApiException.Invalid(param, "is a data: URL without a comma after its type; expected data:image/png;base64,…", "invalid_image");
        var head = url.AsSpan("data:".Length, comma - "data:".Length);
        if (!head.StartsWith("image/", StringComparison.OrdinalIgnoreCase) || !head.EndsWith(";base64", StringComparison.OrdinalIgnoreCase))
            throw ApiException.Invalid(param, $"has the type '{head.ToString()}'; expected an image in base64, such as data:image/png;base64,…", "invalid_image");
        var text = url.AsSpan(comma + 1);
        var bytes = new byte[text.Length / 4 * 3 + 3];
        if (!Convert.TryFromBase64Chars(text, bytes, out var count))
            throw ApiException.Invalid(param, "is not valid base64", "invalid_image");
        return count > 0 ? bytes.AsMemory(0, count) : throw ApiException.Invalid(param, "holds no image", "invalid_image");
    }

    /// <summary>Whether an address is reachable from everywhere: not this machine, not a private or special network.</summary>
    internal static bool IsPublic(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
            address = address.MapToIPv4();
        var b = address.GetAddressBytes();
        if (address.AddressFamily == AddressFamily.InterNetwork)
        {
            // RFC 6890 and its updates, multicast and reserved.
            return b[0] is not (0 or 10 or 127 or >= 224) && !(b[0] == 100 && b[1] is >= 64 and < 128) && !(b[0] == 169 && b[1] == 254)
                && !(b[0] == 172 && b[1] is >= 16 and < 32) && !(b[0] == 192 && b[1] == 168) && !(b[0] == 192 && b[1] == 0 && b[2] is 0 or 2)
                && !(b[0] == 192 && b[1] == 88 && b[2] == 99) && !(b[0] == 198 && b[1] is 18 or 19) && !(b[0] == 198 && b[1] == 51 && b[2] == 100) && !(b[0] == 203 && b[1] == 0 && b[2] == 113);
        }
        // Global unicast alone, without 6to4, Teredo and documentation, which hide other addresses.
        return (b[0] & 0xE0) == 0x20 && !(b[0] == 0x20 && b[1] == 0x02) && !(b[0] == 0x20 && b[1] == 0x01 && (b[2] is 0 or 0x0D && b[3] is 0 or 0xB8));
    }

    /// <summary>Whether images may be fetched from there: a listed host at the ports of the web, or a listed host and port.</summary>
    private bool IsListed(Uri uri) => uri.UserInfo.Length == 0
        && (uri.Port is 80 or 443 && _options.ImageHosts.Contains(uri.Host, StringComparer.OrdinalIgnoreCase) || _options.ImageHosts.Contains($"{uri.Host}:{uri.Port}", StringComparer.OrdinalIgnoreCase));

    private async Task<ReadOnlyMemory<byte>> FetchAsync(string url, string param, MemoryBudget.Share memory, CancellationToken cancel)
    {
        if (!Uri.TryCreate(url, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https"))
            throw ApiException.Invalid(param, "is no URL of an image; expected data:image/png;base64,…", "invalid_image_url");
        if (!IsListed(uri))
            throw ApiException.Invalid(param, $"is on the host '{uri.Authority}', from which this server fetches nothing; send the image as a data: URL", "image_host_not_allowed");
        using var time = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        time.CancelAfter(_options.ImageTime);
        try
        {
            for (var hop = 0; hop < 4; hop++)
            {
                using var response = await _http.GetAsync(uri, HttpCompletionOption.ResponseHeadersRead, time.Token).ConfigureAwait(false);
                if ((int)response.StatusCode is >= 300 and < 400 && response.Headers.Location is { } location)
                {
                    if (!Uri.TryCreate(uri, location, out var next) || next.Host != uri.Host || next.Scheme is not ("http" or "https") || uri.Scheme == "https" && next.Scheme == "http" || !IsListed(next))
                        throw ApiException.Invalid(param, "leads to another host", "image_not_fetched");
                    uri = next;
                    continue;
                }
                if (response.StatusCode != HttpStatusCode.OK)
                    throw ApiException.Invalid(param, $"answers with HTTP {(int)response.StatusCode}", "image_not_fetched");
                return await ReadAsync(response, param, memory, time.Token).ConfigureAwait(false);
            }
            throw ApiException.Invalid(param, "redirects again and again", "image_not_fetched");
        }
        catch (Exception error) when (error is HttpRequestException or IOException or SocketException || error is OperationCanceledException && !cancel.IsCancellationRequested)
        {
            // No word of why: what a name resolves to here is nobody's business.
            throw ApiException.Invalid(param, "could not be fetched", "image_not_fetched");
        }
    }

    private async Task<ReadOnlyMemory<byte>> ReadAsync(HttpResponseMessage response, string param, MemoryBudget.Share memory, CancellationToken cancel)
    {
        var body = await response.Content.ReadAsStreamAsync(cancel).ConfigureAwait(false);
        await using var __ = body.ConfigureAwait(false);
        using var bytes = new MemoryStream();
        var block = new byte[1 << 16];
        for (int read; (read = await body.ReadAsync(block, cancel).ConfigureAwait(false)) > 0;)
        {
            if (bytes.Length + read > _options.MaxImageBytes)
                throw ApiException.Invalid(param, $"is longer than {_options.MaxImageBytes} bytes", "image_too_large");
            memory.Take(2L * read); // the buffer grows by doubling
            bytes.Write(block, 0, read);
        }
        return bytes.GetBuffer().AsMemory(0, (int)bytes.Length);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _http.Dispose();
        _decoding.Dispose();
    }
}
