using System.Runtime.InteropServices;
using System.Text;

namespace Trimtab.Text;

/// <summary>
/// Text to token ids and back, exactly as Hugging Face tokenizers does it for the same tokenizer.json, or as the vocabulary within a GGUF
/// file means it. Byte-pair encoding only: SentencePiece's (Llama 2, Vicuna, LLaVA, Mistral, Gemma) and byte-level (GPT-2, Llama 3, Qwen2,
/// SmolLM, DeepSeek). Immutable; may be used from many threads at once.
/// </summary>
public sealed class Tokenizer
{
    private readonly Parts _parts;
    private readonly AddedTokens _written;
    private readonly AddedTokens _normalized;
    private readonly Dictionary<string, int> _addedIds = [];
    private readonly Dictionary<int, AddedToken> _added = [];

    /// <summary>Whether pieces are written in the byte alphabet: a space tells, which other vocabularies write as text that the decoders undo.</summary>
    private readonly Lazy<bool> _byteLevel;

    private Tokenizer(Parts parts)
    {
        _parts = parts;
        _byteLevel = new(() => IdOf("\u0120") is { } space && Decode([space, space]) == "  ");
        foreach (var token in parts.Added)
        {
            _addedIds[token.Content] = token.Id;
            _added[token.Id] = token;
        }
        _written = new AddedTokens(parts.Added.Where(t => !t.Normalized).Select(t => (t.Content, t)));
        _normalized = new AddedTokens(parts.Added.Where(t => t.Normalized).Select(t => (Normalize(t.Content), t)));
        VocabularySize = Math.Max(parts.Vocabulary.Size, parts.Added.Select(t => t.Id + 1).DefaultIfEmpty(0).Max());
    }

    /// <summary>What a file describes.</summary>
    internal sealed record Parts(string Name, Vocabulary Vocabulary, MergeModel Model)
    {
        public IReadOnlyList<AddedToken> Added { get; init; } = [];

        public IReadOnlyList<Normalizer> Normalizers { get; init; } = [];

        public IReadOnlyList<PreTokenizer> PreTokenizers { get; init; } = [];

        /// <summary>The decoders, the first applied first.</summary>
        public IReadOnlyList<Decoder> Decoders { get; init; } = [];

        /// <summary>The ids before and after a text that is encoded with special tokens.</summary>
        public IReadOnlyList<int> Before { get; init; } = [];

        public IReadOnlyList<int> After { get; init; } = [];

        public int? Bos { get; init; }

        public int? Eos { get; init; }

        public IReadOnlyList<int> Ends { get; init; } = [];
    }

    /// <summary>The file or model that errors name.</summary>
    public string Name => _parts.Name;

    /// <summary>The highest id + 1; a model's embedding may have more rows.</summary>
    public int VocabularySize { get; }

    /// <summary>The id of the token that begins a text, where one is known.</summary>
    public int? BosId => _parts.Bos;

    /// <summary>The id of the token that ends a text, where one is known.</summary>
    public int? EosId => _parts.Eos;

    /// <summary>All ids known to end a generation: <see cref="EosId"/>, and in a GGUF file also its end-of-turn and the like.</summary>
    public IReadOnlyList<int> EndIds => _parts.Ends;

    /// <summary>Reads a tokenizer.json.</summary>
    /// <param name="path">The file, or a folder with a file of that name. A tokenizer_config.json beside it is read for bos_token, eos_token,
    /// add_bos_token and add_eos_token.</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">The file is malformed, or asks for what is not supported; the message names the field.</exception>
    public static Tokenizer Open(string path)
    {
        if (Directory.Exists(path))
            path = Path.Combine(path, "tokenizer.json");
        if (!File.Exists(path))
            throw new FileNotFoundException($"{path}: there is no such file; a tokenizer.json, or a folder that holds one, was expected", path);
        var config = Path.Combine(Path.GetDirectoryName(path) ?? "", "tokenizer_config.json");
        return FromJson(File.ReadAllBytes(path), path, File.Exists(config) ? File.ReadAllBytes(config) : default);
    }

    /// <summary>Reads a tokenizer.json from memory. Its truncation and padding are left aside, as a model's caller does.</summary>
    /// <param name="utf8">The file.</param>
    /// <param name="name">What errors call it.</param>
    /// <param name="tokenizerConfig">tokenizer_config.json, or nothing.</param>
    /// <exception cref="InvalidDataException">The file is malformed, or asks for what is not supported; the message names the field.</exception>
    public static Tokenizer FromJson(ReadOnlyMemory<byte> utf8, string name, ReadOnlyMemory<byte> tokenizerConfig = default) =>
        new(TokenizerJson.Read(utf8, name, tokenizerConfig));

    /// <summary>Reads the vocabulary within a GGUF file: `tokenizer.ggml.model` llama (SentencePiece) or gpt2 (byte-level BPE).</summary>
    /// <param name="metadata">The file's key-value pairs: strings, booleans, numbers, and arrays of them as typed arrays.</param>
    /// <param name="name">What errors call the file.</param>
    /// <exception cref="InvalidDataException">A key is missing or malformed, or asks for what is not supported; the message names it.</exception>
    public static Tokenizer FromGguf(IReadOnlyDictionary<string, object> metadata, string name) => new(TokenizerGguf.Read(metadata, name));

    /// <summary>Encodes a text. A lone surrogate counts as U+FFFD.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addSpecial">Adds the tokens that belong before and after a text (BOS), as the file says.</param>
    /// <param name="parseSpecial">Special tokens written out in the text are taken as such; otherwise they are text like any other. Added
    /// tokens that are not special always are tokens.</param>
    /// <returns>The ids.</returns>
    public int[] Encode(string text, bool addSpecial = true, bool parseSpecial = true)
    {
        ArgumentNullException.ThrowIfNull(text);
        var ids = new List<int>(text.Length / 3 + 8);
        if (addSpecial)
            ids.AddRange(_parts.Before);
        text = WithoutLoneSurrogates(text);
        var parts = new List<(int, int, AddedToken?)>();
        var inner = new List<(int, int, AddedToken?)>();
        var pieces = new List<Piece>();
        var scratch = new MergeModel.Scratch();
        _written.Cut(text, parseSpecial, parts);
        foreach (var (start, end, token) in parts)
        {
            if (token is not null)
            {
                ids.Add(token.Id);
                continue;
            }
            var normalized = Normalize(text[start..end]);
            inner.Clear();
            _normalized.Cut(normalized, parseSpecial, inner);
            foreach (var (innerStart, innerEnd, innerToken) in inner)
            {
                if (innerToken is not null)
                {
                    ids.Add(innerToken.Id);
                    continue;
                }
                pieces.Clear();
                pieces.Add(new Piece(normalized, innerStart, innerEnd, First: start == 0 && innerStart == 0));
                foreach (var piece in PreTokenize(pieces))
                    _parts.Model.Encode(piece.Span, ids, scratch);
            }
        }
        if (addSpecial)
            ids.AddRange(_parts.After);
        return [.. ids];
    }

    /// <summary>Decodes ids into text. Ids outside the vocabulary add nothing; bytes that are not UTF-8 become U+FFFD.</summary>
    /// <param name="ids">The ids.</param>
    /// <param name="skipSpecial">Leaves special tokens out.</param>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecial = false)
    {
        var decoder = Stream(skipSpecial);
        foreach (var id in ids)
            decoder.Take(id);
        return decoder.Flush();
    }

    /// <summary>The id of a token as the vocabulary writes it ("Ġhello", "▁hello", "&lt;0x0A&gt;"), or null.</summary>
    public int? IdOf(string token) =>
        _addedIds.TryGetValue(token, out var added) ? added : _parts.Vocabulary.IdOf(token) is var id and >= 0 ? id : null;

    /// <summary>The token of an id as the vocabulary writes it, or null where there is none.</summary>
    public string? TokenOf(int id) => _added.TryGetValue(id, out var added) ? added.Content : _parts.Vocabulary.TextOf(id);

    /// <summary>The bytes that a token adds to a text that it does not begin; none where there is no such token.</summary>
    public byte[] BytesOf(int id)
    {
        if (_added.TryGetValue(id, out var added))
            return Encoding.UTF8.GetBytes(added.Content);
        if (_parts.Vocabulary.TextOf(id) is not { } text)
            return [];
        if (Array.IndexOf(_parts.Vocabulary.ByteIds, id) is var value and >= 0)
            return [(byte)value];
        if (_byteLevel.Value)
            return ByteAlphabet.Read(text);
        var anchor = IdOf("a") ?? id;
        return Encoding.UTF8.GetBytes(Decode([anchor, id])[Decode([anchor]).Length..]);
    }

    /// <summary>Whether an id is a special token's (BOS, EOS, a turn's marks, …).</summary>
    public bool IsSpecial(int id) => _added.TryGetValue(id, out var added) && added.Special;

    /// <summary>A decoder for ids that arrive one by one.</summary>
    /// <param name="skipSpecial">Leaves special tokens out.</param>
    public StreamDecoder Stream(bool skipSpecial = true) => new(this, skipSpecial);

    /// <summary>The steps of decoding, before a last one.</summary>
    internal DecodeStep Decoding(DecodeStep last)
    {
        for (var i = _parts.Decoders.Count - 1; i >= 0; i--)
            last = _parts.Decoders[i](last);
        return last;
    }

    private string Normalize(string text)
    {
        foreach (var normalizer in _parts.Normalizers)
            text = normalizer.Apply(text);
        return text;
    }

    private List<Piece> PreTokenize(List<Piece> pieces)
    {
        foreach (var preTokenizer in _parts.PreTokenizers)
        {
            var next = new List<Piece>(pieces.Count);
            foreach (var piece in CollectionsMarshal.AsSpan(pieces))
                preTokenizer.Apply(piece, next);
            pieces = next;
        }
        return pieces;
    }

    private static string WithoutLoneSurrogates(string text)
    {
        char[]? changed = null;
        for (var i = text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF'); i >= 0 && i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i]))
                continue;
            if (i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1]))
                i++;
            else
                (changed ??= text.ToCharArray())[i] = '\uFFFD';
        }
        return changed is null ? text : new string(changed);
    }
}
