using System.Collections;
using System.Globalization;

namespace Trimtab.Text;

/// <summary>Reads the vocabulary in a GGUF file's metadata (the keys `tokenizer.ggml.*`, gguf.md and llama.cpp).</summary>
internal sealed class TokenizerGguf
{
    // llama.cpp's token types.
    private const int Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6;

    /// <summary>Tokens that end a turn or a text in known models, whatever keys a file has.</summary>
    private static readonly string[] KnownEnds =
    [
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>",
        "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    ];

    private readonly IReadOnlyDictionary<string, object> _metadata;
    private readonly string _name;
    private readonly string[] _tokens;
    private readonly int[] _types;

    private TokenizerGguf(IReadOnlyDictionary<string, object> metadata, string name)
    {
        _metadata = metadata;
        _name = name;
        _tokens = Value("tokens") as string[] ?? throw Expected("tokens", "an array of strings");
        if (_tokens.Length is 0 or >= Vocabulary.MaximumSize)
            throw Expected("tokens", $"1 to {Vocabulary.MaximumSize - 1} tokens");
        _types = Value("token_type") is null ? [.. Enumerable.Repeat(Normal, _tokens.Length)] : Numbers("token_type").Select(t => (int)t).ToArray();
    }

    public static Tokenizer.Parts Read(IReadOnlyDictionary<string, object> metadata, string name)
    {
        var file = new TokenizerGguf(metadata, name);
        return file.Text("model") switch
        {
            "llama" => file.ReadSentencePieces(),
            "gpt2" => file.ReadBytePairs(),
            _ => throw file.Expected("model", "a supported vocabulary (llama, gpt2)"),
        };
    }

    private Tokenizer.Parts ReadSentencePieces()
    {
        // Descending scores as ranks: equal scores are equal, and the leftmost pair goes first.
        var scores = Value("scores") is null ? throw Expected("scores", "a number for each token") : Numbers("scores").ToArray();
        if (scores.Any(double.IsNaN))
            throw Expected("scores", "numbers");
        var order = scores.Distinct().OrderDescending().Select((score, rank) => (score, rank)).ToDictionary(p => p.score, p => p.rank);
        var ranks = new int[_tokens.Length];
        var unused = new bool[_tokens.Length];
        for (var id = 0; id < _tokens.Length; id++)
        {
            unused[id] = _types[id] == Unused;
            ranks[id] = _types[id] is Normal or Unused && _tokens[id].Length > 0 ? order[scores[id]] : -1;
        }
        var unknown = Id("unknown_token_id", 0);
        var spaceBefore = Flag("add_space_prefix", true);
        var vocabulary = Pieces();
        List<Decoder> decoders =
        [
            static next => new ReplaceStep(next, new LiteralPattern("▁"), " "),
            static next => new ByteFallbackStep(next),
            static next => new FuseStep(next),
        ];
        if (spaceBefore)
            decoders.Add(static next => new StripStep(next, ' ', start: 1, stop: 0));
        return Finish(
            vocabulary, new ScoredPieces(vocabulary, ranks, unused, unknown ?? -1), decoders, Id("bos_token_id", 1), Id("eos_token_id", 2),
            addBos: true) with
        {
            Normalizers = spaceBefore ? [new PrependNormalizer("▁"), Escape()] : [Escape()],
        };

        static ReplaceNormalizer Escape() => new(new LiteralPattern(" "), "▁");
    }

    private Tokenizer.Parts ReadBytePairs()
    {
        var vocabulary = Pieces();
        var merges = new MergeTable(vocabulary, _name, "tokenizer.ggml.merges");
        foreach (var pair in Value("merges") as string[] ?? throw Expected("merges", "an array of strings"))
            merges.Add(pair);
        var kind = Value("pre") is null ? "default" : Text("pre");
        var split = GgufSplits.Find(kind) ?? throw Expected("pre", $"a known way to split a text ({GgufSplits.Known})");
        PreTokenizer[] steps =
        [
            .. split.Patterns.Select(p => new SplitPreTokenizer(new RegexPattern(p), SplitBehavior.Isolated)), new BytePreTokenizer(false, null),
        ];
        return Finish(
            vocabulary, new RankedMerges(vocabulary, merges, -1, false, false, split.IgnoreMerges),
            [static next => new BytesStep(next)], Id("bos_token_id", null), Id("eos_token_id", null), split.AddBos) with
        {
            Normalizers = split.Composed ? [new UnicodeNormalizer(compatibility: false, compose: true)] : [],
            PreTokenizers = steps,
        };
    }

    private Vocabulary Pieces()
    {
        var vocabulary = new Vocabulary();
        for (var id = 0; id < _tokens.Length; id++)
            if (_tokens[id].Length > 0)
                vocabulary.Add(_tokens[id], id);
        return vocabulary.Seal();
    }

    private Tokenizer.Parts Finish(Vocabulary vocabulary, MergeModel model, IReadOnlyList<Decoder> decoders, int? bos, int? eos, bool addBos)
    {
        var added = new Dictionary<string, AddedToken>();
        for (var id = 0; id < _tokens.Length; id++)
            if (_types[id] is Control or Unknown or UserDefined && _tokens[id].Length > 0)
                added[_tokens[id]] = new AddedToken(_tokens[id], id, Special: _types[id] != UserDefined);
        var ends = new List<int?> { eos, Id("eot_token_id", null), Id("eom_token_id", null) };
        foreach (var text in KnownEnds)
            ends.Add(added.TryGetValue(text, out var token) ? token.Id : null);
        return new Tokenizer.Parts(_name, vocabulary, model)
        {
            Added = [.. added.Values],
            Decoders = decoders,
            Before = Flag("add_bos_token", addBos) && bos is { } before ? [before] : [],
            After = Flag("add_eos_token", false) && eos is { } after ? [after] : [],
            Bos = bos,
            Eos = eos,
            Ends = [.. ends.OfType<int>().Distinct()],
        };
    }

    private object? Value(string key) => _metadata.GetValueOrDefault("tokenizer.ggml." + key);

    private InvalidDataException Expected(string key, string what) => new(
        $"{_name}: tokenizer.ggml.{key} is {Value(key) switch { null => "missing", string text => $"\"{text}\"", Array a => $"an array of {a.Length}", var value => value.ToString() }}; {what} was expected");

    private string Text(string key) => Value(key) as string ?? throw Expected(key, "a string");

    private bool Flag(string key, bool otherwise) => Value(key) switch
    {
        null => otherwise,
        bool flag => flag,
        _ => throw Expected(key, "a boolean"),
    };

    /// <summary>A token's id; null where the key is missing and the default is not in the vocabulary, or where it says −1 for none.</summary>
    private int? Id(string key, int? otherwise)
    {
        if (Value(key) is not { } value)
            return otherwise < _tokens.Length ? otherwise : null;
        var number = Number(value) ?? throw Expected(key, "a token's id");
        if (number is -1 or uint.MaxValue)
            return null;
        return number >= 0 && number < _tokens.Length && number == Math.Floor(number)
            ? (int)number
            : throw Expected(key, $"a token's id, below {_tokens.Length},");
    }

    /// <summary>An array with a number for each token.</summary>
    private IEnumerable<double> Numbers(string key)
    {
        if (Value(key) is not Array array || array.Length != _tokens.Length)
            throw Expected(key, $"an array of {_tokens.Length} numbers");
        return array switch
        {
            float[] floats => floats.Select(f => (double)f),
            int[] integers => integers.Select(i => (double)i),
            _ => ((IEnumerable)array).Cast<object>().Select(v => Number(v) ?? throw Expected(key, "numbers")),
        };
    }

    private static double? Number(object value) => value is byte or sbyte or short or ushort or int or uint or long or ulong or float or double
        ? Convert.ToDouble(value, CultureInfo.InvariantCulture)
        : null;
}
