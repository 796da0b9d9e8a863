namespace Trimtab.Text;

/// <summary>
/// Decodes ids one by one, as they are generated. The pieces joined are exactly what <see cref="Tokenizer.Decode"/> gives for all the ids;
/// none ends within a code point. A piece is empty while what it will be depends on ids to come: an incomplete UTF-8 sequence, or (with
/// SentencePiece vocabularies) a run of byte tokens, of which an invalid one decodes to U+FFFD from its start.
/// </summary>
public sealed class StreamDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly bool _skipSpecial;
    private readonly DecodedText _text = new();
    private DecodeStep _first;

    internal StreamDecoder(Tokenizer tokenizer, bool skipSpecial)
    {
        _tokenizer = tokenizer;
        _skipSpecial = skipSpecial;
        _first = tokenizer.Decoding(_text);
    }

    /// <summary>Takes the next id.</summary>
    /// <param name="id">The id; one outside the vocabulary adds nothing.</param>
    /// <returns>The text that is now certain.</returns>
    public string Append(int id)
    {
        Take(id);
        return _text.Take();
    }

    /// <summary>Ends the sequence; the decoder is then ready for another.</summary>
    /// <returns>The rest of the text; incomplete bytes become U+FFFD.</returns>
    public string Flush()
    {
        _first.End();
        _first = _tokenizer.Decoding(_text);
        return _text.Take();
    }

    internal void Take(int id)
    {
        if (_tokenizer.TokenOf(id) is { } token && !(_skipSpecial && _tokenizer.IsSpecial(id)))
            _first.Append(token, endsToken: true);
    }
}
