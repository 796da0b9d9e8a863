using System.Globalization;
using System.Text;

namespace Trimtab.Text;

/// <summary>
/// One step of decoding, at work on one sequence of tokens. Text arrives in chunks, the last of a token marked as such, so that a step which
/// joins all tokens into one (Fuse, ByteLevel) need not wait for the end.
/// </summary>
internal abstract class DecodeStep
{
    /// <summary>Takes the next chunk of the current token.</summary>
    public abstract void Append(ReadOnlySpan<char> chunk, bool endsToken);

    /// <summary>Takes the end of the sequence.</summary>
    public abstract void End();
}

/// <summary>One of tokenizer.json's decoders: makes a step that hands on to the next.</summary>
internal delegate DecodeStep Decoder(DecodeStep next);

/// <summary>The last step: collects the text.</summary>
internal sealed class DecodedText : DecodeStep
{
    private readonly StringBuilder _text = new();

    public override void Append(ReadOnlySpan<char> chunk, bool endsToken) => _text.Append(chunk);

    public override void End() { }

    /// <summary>The text since the last call.</summary>
    public string Take()
    {
        var text = _text.ToString();
        _text.Clear();
        return text;
    }
}

/// <summary>A step that needs its tokens whole.</summary>
internal abstract class TokenStep(DecodeStep next) : DecodeStep
{
    private readonly StringBuilder _token = new();

    protected DecodeStep Next { get; } = next;

    public override void Append(ReadOnlySpan<char> chunk, bool endsToken)
    {
        if (endsToken && _token.Length == 0)
        {
            Token(chunk.ToString());
            return;
        }
        _token.Append(chunk);
        if (!endsToken)
            return;
        var token = _token.ToString();
        _token.Clear();
        Token(token);
    }

    public override void End() => Next.End();

    protected abstract void Token(string token);
}

/// <summary>Replaces a pattern in each token.</summary>
internal sealed class ReplaceStep(DecodeStep next, TextPattern pattern, string content) : TokenStep(next)
{
    protected override void Token(string token) => Next.Append(Normalizer.Replace(token, pattern, content), endsToken: true);
}

/// <summary>With no decoder, tokens are joined by spaces.</summary>
internal sealed class SpaceStep(DecodeStep next) : TokenStep(next)
{
    private bool _later;

    protected override void Token(string token)
    {
        Next.Append(_later ? " " + token : token, endsToken: true);
        _later = true;
    }
}

/// <summary>
/// Joins each run of byte tokens ("&lt;0x41&gt;") into text. A run that is not valid UTF-8 as a whole becomes one U+FFFD for each of its
/// bytes, so nothing of a run is known before it ends.
/// </summary>
internal sealed class ByteFallbackStep(DecodeStep next) : TokenStep(next)
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);
    private readonly List<byte> _run = [];

    public override void End()
    {
        EndRun();
        base.End();
    }

    protected override void Token(string token)
    {
        if (token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
            && byte.TryParse(token.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value))
        {
            _run.Add(value);
            return;
        }
        EndRun();
        Next.Append(token, endsToken: true);
    }

    private void EndRun()
    {
        if (_run.Count == 0)
            return;
        try
        {
            Next.Append(Strict.GetString(_run.ToArray()), endsToken: true);
        }
        catch (DecoderFallbackException)
        {
            foreach (var _ in _run)
                Next.Append("\uFFFD", endsToken: true);
        }
        _run.Clear();
    }
}

/// <summary>Joins all tokens into one.</summary>
internal sealed class FuseStep(DecodeStep next) : DecodeStep
{
    public override void Append(ReadOnlySpan<char> chunk, bool endsToken) => next.Append(chunk, endsToken: false);

    public override void End()
    {
        next.Append("", endsToken: true);
        next.End();
    }
}

/// <summary>Reads all tokens' byte alphabet into one text; what is not UTF-8 becomes U+FFFD, one for each maximal part.</summary>
internal sealed class BytesStep(DecodeStep next) : TokenStep(next)
{
    private readonly System.Text.Decoder _utf8 = new UTF8Encoding(false).GetDecoder();

    public override void End()
    {
        Read([], flush: true);
        Next.Append("", endsToken: true);
        base.End();
    }

    protected override void Token(string token) => Read(ByteAlphabet.Read(token), flush: false);

    private void Read(ReadOnlySpan<byte> bytes, bool flush)
    {
        var characters = new char[_utf8.GetCharCount(bytes, flush)];
        Next.Append(characters.AsSpan(0, _utf8.GetChars(bytes, characters, flush)), endsToken: false);
    }
}

/// <summary>Takes up to so many of one character off each token's start and end.</summary>
internal sealed class StripStep(DecodeStep next, char content, int start, int stop) : DecodeStep
{
    private int _taken;       // off the start of this token so far
    private bool _started;    // another character has come
    private int _held;        // of the character at the end, which may be the token's

    public override void Append(ReadOnlySpan<char> chunk, bool endsToken)
    {
        while (!_started && chunk.Length > 0)
        {
            _started = chunk[0] != content || _taken == start;
            if (_started)
                break;
            _taken++;
            chunk = chunk[1..];
        }
        var body = stop == 0 ? chunk : chunk.TrimEnd(content);
        if (body.Length > 0)
        {
            Release(_held);
            _held = 0;
            next.Append(body, endsToken: false);
        }
        _held += chunk.Length - body.Length;
        if (!endsToken)
            return;
        Release(Math.Max(0, _held - stop));
        next.Append("", endsToken: true);
        (_taken, _started, _held) = (0, false, 0);
    }

    public override void End() => next.End();

    private void Release(int count)
    {
        if (count > 0)
            next.Append(new string(content, count), endsToken: false);
    }
}

/// <summary>Turns Metaspace's character back into a space, and (unless it is never prepended) into nothing in the first token.</summary>
internal sealed class MetaspaceStep(DecodeStep next, string replacement, bool prepended) : TokenStep(next)
{
    private bool _later;

    protected override void Token(string token)
    {
        Next.Append(token.Replace(replacement, _later || !prepended ? " " : "", StringComparison.Ordinal), endsToken: true);
        _later = true;
    }
}
