using System.Net;
using System.Security.Cryptography;
using System.Text;
using static Trimtab.Checkpoints.InvalidCheckpointException;

namespace Trimtab.Checkpoints;

/// <summary>Fetches one file: into an .incomplete file that a later try goes on with, checked, then renamed.</summary>
/// <param name="client">The hub.</param>
/// <param name="commit">The commit it is fetched from.</param>
/// <param name="progress">Told how many bytes came; negative where bytes are thrown away.</param>
internal sealed class HubTransfer(HubClient client, string commit, Action<long> progress)
{
    private const int Chunk = 1 << 17;

    /// <summary>Fetches <paramref name="file"/> to <paramref name="target"/>. Cancelled, it leaves what it has in <paramref name="incomplete"/>.</summary>
    /// <exception cref="HubException">The content is not what the hub said, or the connection broke too often.</exception>
    public async Task FetchAsync(HubFile file, string incomplete, string target, CancellationToken cancel)
    {
        var resumed = await DownloadAsync(file, incomplete, cancel).ConfigureAwait(false);
        // What lay there from an earlier run may have been damaged; what came in one run is as the server sends it.
        if (resumed is true)
            resumed = await DownloadAsync(file, incomplete, cancel).ConfigureAwait(false);
        if (resumed is not null)
            throw new HubException($"{client.Page}: {Quote(file.Name)} does not have the checksum that the hub tells ({file.Tag}); it was thrown away");
        File.Move(incomplete, target, overwrite: true);
    }

    /// <summary>Whether a file has the content that <paramref name="file"/> describes; its size alone where the hub tells no checksum.</summary>
    public static async Task<bool> IsSameAsync(string path, HubFile file, CancellationToken cancel)
    {
        if (Length(path) != file.Size)
            return false;
        var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 0, FileOptions.SequentialScan);
        await using var _ = stream.ConfigureAwait(false);
        using var hash = new Hash(file);
        await hash.AddAsync(stream, cancel).ConfigureAwait(false);
        return hash.Agrees();
    }

    /// <summary>Bytes of a file, through a link; −1 where there is none.</summary>
    public static long Length(string path)
    {
        if (!File.Exists(path))
            return -1;
        using var handle = File.OpenHandle(path);
        return RandomAccess.GetLength(handle);
    }

    /// <summary>Null when the file is whole; otherwise it was wrong and is deleted, and the value says whether it held bytes of an earlier run.</summary>
    private async Task<bool?> DownloadAsync(HubFile file, string incomplete, CancellationToken cancel)
    {
        bool resumed;
        var stream = new FileStream(incomplete, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 0, FileOptions.Asynchronous);
        await using (stream.ConfigureAwait(false))
        {
            if (stream.Length > file.Size)
                stream.SetLength(0);
            using var hash = new Hash(file);
            await hash.AddAsync(stream, cancel).ConfigureAwait(false);
            resumed = stream.Position > 0;
            var (retry, furthest) = (client.Retry(), stream.Position);
            while (stream.Position < file.Size)
            {
                try
                {
                    await AppendAsync(file, stream, hash, cancel).ConfigureAwait(false);
                }
                catch (HubTransientException failure)
                {
                    // A server that begins anew each time and breaks at the same place makes no progress.
                    if (stream.Position > furthest)
                    {
                        furthest = stream.Position;
                        retry.Reset();
                    }
                    await retry.WaitAsync(failure, cancel).ConfigureAwait(false);
                }
            }
            if (hash.Agrees())
            {
                stream.Flush(flushToDisk: true);
                return null;
            }
        }
        File.Delete(incomplete);
        progress(-file.Size);
        return resumed;
    }

    /// <summary>One request: appends what it brings.</summary>
    private async Task AppendAsync(HubFile file, FileStream stream, Hash hash, CancellationToken cancel)
    {
        using var response = await client.OpenAsync(commit, file.Name, stream.Position, cancel).ConfigureAwait(false);
        var range = response.Content.Headers.ContentRange;
        var continues = response.StatusCode == HttpStatusCode.PartialContent && range?.From == stream.Position;
        if (!continues && stream.Position > 0)
        {
            progress(-stream.Position);
            stream.SetLength(0);
            hash.Reset();
        }
        if (!continues && response.StatusCode != HttpStatusCode.OK)
            throw new HubTransientException($"the host of {Quote(file.Name)} does not go on where it was asked to");
        var told = continues ? range!.Length : response.Content.Headers.ContentLength;
        if (told > file.Size)
            throw new HubException($"{client.Page}: {Quote(file.Name)} has {file.Size} bytes by the list of files; the host of the file sends {told}");
        var body = await client.BodyAsync(response, cancel).ConfigureAwait(false);
        await using var _ = body.ConfigureAwait(false);
        var buffer = new byte[Chunk];
        while (stream.Position < file.Size)
        {
            var read = await client.ReadAsync(response, body, buffer, cancel).ConfigureAwait(false);
            if (read == 0)
                throw new HubTransientException($"{Quote(file.Name)} ended after {stream.Position} of {file.Size} bytes");
            if (stream.Position + read > file.Size)
                throw new HubException($"{client.Page}: {Quote(file.Name)} goes on after the {file.Size} bytes that the list of files tells");
            await stream.WriteAsync(buffer.AsMemory(0, read), cancel).ConfigureAwait(false);
            hash.Add(buffer.AsSpan(0, read));
            progress(read);
        }
    }

    /// <summary>The checksum that a file's tag holds: SHA-256 of the content, or SHA-1 of the git object "blob LENGTH\0CONTENT".</summary>
    private sealed class Hash : IDisposable
    {
        private readonly HubFile _file;
        private readonly IncrementalHash? _hash;

        public Hash(HubFile file)
        {
            _file = file;
            _hash = !file.IsHashed ? null : IncrementalHash.CreateHash(file.Tag.Length == 64 ? HashAlgorithmName.SHA256 : HashAlgorithmName.SHA1);
            Begin();
        }

        public void Add(ReadOnlySpan<byte> bytes) => _hash?.AppendData(bytes);

        /// <summary>Adds a file from its first byte to its last.</summary>
        public async Task AddAsync(FileStream stream, CancellationToken cancel)
        {
            if (_hash is null)
            {
                stream.Seek(0, SeekOrigin.End);
                return;
            }
            var buffer = new byte[Chunk];
            while (await stream.ReadAsync(buffer, cancel).ConfigureAwait(false) is > 0 and var read)
                _hash.AppendData(buffer, 0, read);
        }

        public void Reset()
        {
            _hash?.GetHashAndReset();
            Begin();
        }

        public bool Agrees() => _hash is null || Convert.ToHexStringLower(_hash.GetCurrentHash()) == _file.Tag;

        public void Dispose() => _hash?.Dispose();

        private void Begin()
        {
            if (_file.Tag.Length == 40)
                Add(Encoding.ASCII.GetBytes($"blob {_file.Size}\0"));
        }
    }
}
