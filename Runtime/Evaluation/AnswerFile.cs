using System.Text;
using System.Text.Json;

namespace Trimtab.Evaluation;

/// <summary>answers.jsonl: answers are appended and flushed one by one, so that a killed run loses none that it finished.</summary>
public sealed class AnswerFile : IDisposable
{
    private readonly FileStream _owner;
    private readonly FileStream _stream;
    private readonly Lock _lock = new();
    private readonly List<Answer> _answers = [];
    private readonly HashSet<string> _keys = new(StringComparer.Ordinal);

    /// <summary>Opens a file, or makes it. A last line that was torn off in writing is dropped.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidDataException">A line before the last is no answer; the message has its number.</exception>
    /// <exception cref="IOException">It cannot be opened, or another run has it open.</exception>
    public AnswerFile(string path)
    {
        // The answers may be read while they grow, so that another file says who writes them.
        try
        {
            _owner = new(path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (IOException error)
        {
            throw new IOException($"{path} cannot be written, or another run is writing it: {error.Message}", error);
        }
        _stream = new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite);
        try
        {
            _stream.SetLength(ReadAll(_stream, path, Take));
            _stream.Seek(0, SeekOrigin.End);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The answers so far, in the order in which they were given.</summary>
    public IReadOnlyList<Answer> Answers
    {
        get
        {
            lock (_lock)
                return [.. _answers];
        }
    }

    /// <summary>Whether an answer with this key is there.</summary>
    public bool Has(string key)
    {
        lock (_lock)
            return _keys.Contains(key);
    }

    /// <summary>Appends an answer and hands it to the operating system. Any thread may call it.</summary>
    public void Append(Answer answer)
    {
        ArgumentNullException.ThrowIfNull(answer);
        var line = Encoding.UTF8.GetBytes(answer.ToLine() + "\n");
        lock (_lock)
        {
            _stream.Write(line);
            _stream.Flush();
            Take(answer);
        }
    }

    /// <summary>Reads a file's answers, without a torn last line.</summary>
    /// <exception cref="InvalidDataException">A line before the last is no answer; the message has its number.</exception>
    public static IReadOnlyList<Answer> Read(string path)
    {
        var answers = new List<Answer>();
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        ReadAll(stream, path, answers.Add);
        return answers;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _stream.Dispose();
        _owner.Dispose();
    }

    private void Take(Answer answer)
    {
        if (_keys.Add(answer.Key))
            _answers.Add(answer);
    }

    /// <returns>Length of the whole lines.</returns>
    private static long ReadAll(Stream stream, string path, Action<Answer> take)
    {
        var (line, good) = (new MemoryStream(), 0L);
        var (block, number) = (new byte[1 << 16], 1);
        (int Number, string Message)? torn = null;
        for (int read; (read = stream.Read(block)) > 0;)
        {
            var rest = block.AsSpan(0, read);
            for (int end; (end = rest.IndexOf((byte)'\n')) >= 0; rest = rest[(end + 1)..])
            {
                line.Write(rest[..end]);
                if (torn is { } earlier)
                    throw new InvalidDataException($"{path}: line {earlier.Number} is no answer ({earlier.Message})");
                try
                {
                    if (line.Length > 0)
                        take(Answer.Parse(Encoding.UTF8.GetString(line.GetBuffer(), 0, (int)line.Length)));
                    good += line.Length + 1;
                }
                catch (JsonException error)
                {
                    torn = (number, error.Message); // forgiven if it is the last
                }
                line.SetLength(0);
                number++;
            }
            line.Write(rest);
        }
        return torn is { } bad && line.Length > 0 ? throw new InvalidDataException($"{path}: line {bad.Number} is no answer ({bad.Message})") : good;
    }
}
