namespace Trimtab.Text;

/// <summary>How a byte-level vocabulary in a GGUF file splits a text: what `tokenizer.ggml.pre` stands for.</summary>
/// <param name="Patterns">Oniguruma patterns; a text is split at the matches of each in turn, which stay.</param>
/// <param name="IgnoreMerges">A piece that is in the vocabulary is taken whole.</param>
/// <param name="AddBos">BOS is added where the file does not say.</param>
/// <param name="Composed">The original tokenizer brings a text to NFC first.</param>
internal sealed record GgufSplits(string[] Patterns, bool IgnoreMerges = false, bool AddBos = false, bool Composed = false)
{
    private const string Contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    private const string Spaces = @"\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Upper = @"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", Lower = @"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", Lead = @"[^\r\n\p{L}\p{N}]?";

    private const string Llama3 = Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + Spaces;
    private const string Qwen2 = Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + Spaces;

    private const string Tekken = Lead + Upper + "*" + Lower + "+|" + Lead + Upper + "+" + Lower + @"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + Spaces;

    private const string Gpt4o = Lead + Upper + "*" + Lower + "+" + Contractions + "?|" + Lead + Upper + "+" + Lower + "*" + Contractions
        + @"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + Spaces;

    private const string DeepSeek3 = @"[!""#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
        + Spaces;

    /// <summary>The names that are known.</summary>
    public const string Known = "default, gpt-2, llama-bpe, llama3, llama-v3, smaug-bpe, dbrx, qwen2, deepseek-r1-qwen, smollm, starcoder, refact, "
        + "command-r, olmo, mpt, falcon, tekken, gpt-4o, llama4, deepseek-v3";

    /// <summary>The splits of a name, or null where it is not known.</summary>
    public static GgufSplits? Find(string name) => name switch
    {
        // What llama.cpp does where a file does not say.
        "default" => new([@"[\p{P}$+<=>^~|]+", PreTokenizer.Gpt2, @"\p{N}+", "[0-9][0-9][0-9]"]),
        "gpt-2" => new([PreTokenizer.Gpt2]),
        "llama-bpe" or "llama3" or "llama-v3" => new([Llama3], IgnoreMerges: true, AddBos: true),
        "smaug-bpe" or "dbrx" => new([Llama3]),
        "qwen2" or "deepseek-r1-qwen" => new([Qwen2], Composed: true),
        "smollm" or "starcoder" or "refact" => new([@"\p{N}", PreTokenizer.Gpt2]),
        "command-r" => new([@"\p{N}", PreTokenizer.Gpt2], Composed: true),
        "olmo" or "mpt" => new([PreTokenizer.Gpt2], Composed: true),
        "falcon" => new([@"[\p{P}$+<=>^~|`]+", PreTokenizer.Gpt2, "[0-9][0-9][0-9]"]),
        "tekken" => new([Tekken], IgnoreMerges: true, AddBos: true),
        "gpt-4o" or "llama4" => new([Gpt4o]),
        "deepseek-v3" => new([@"\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", DeepSeek3]),
        _ => null,
    };
}
