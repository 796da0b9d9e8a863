using System.Text;

namespace Trimtab.Text;

/// <summary>Reads the normalizers, pre-tokenizers and decoders of a tokenizer.json.</summary>
internal static class TokenizerJsonSteps
{
    public static void ReadNormalizer(TokenizerField field, List<Normalizer> normalizers)
    {
        if (field.IsNull)
            return;
        switch (field["type"].Text())
        {
            case "Sequence":
                foreach (var item in field["normalizers"].Items())
                    ReadNormalizer(item, normalizers);
                return;
            case "NFC": normalizers.Add(new UnicodeNormalizer(compatibility: false, compose: true)); return;
            case "NFD": normalizers.Add(new UnicodeNormalizer(compatibility: false, compose: false)); return;
            case "NFKC": normalizers.Add(new UnicodeNormalizer(compatibility: true, compose: true)); return;
            case "NFKD": normalizers.Add(new UnicodeNormalizer(compatibility: true, compose: false)); return;
            case "Lowercase": normalizers.Add(new LowercaseNormalizer()); return;
            case "Strip": normalizers.Add(new StripNormalizer(field["strip_left"].Flag(true), field["strip_right"].Flag(true))); return;
            case "Replace": normalizers.Add(new ReplaceNormalizer(Pattern(field["pattern"]), field["content"].Text())); return;
            case "Prepend": normalizers.Add(new PrependNormalizer(field["prepend"].Text())); return;
            default: throw field["type"].Unsupported("Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Replace, Prepend");
        }
    }

    public static void ReadPreTokenizer(TokenizerField field, List<PreTokenizer> preTokenizers)
    {
        if (field.IsNull)
            return;
        preTokenizers.AddRange(field["type"].Text() switch
        {
            "Sequence" => Sequence(field["pretokenizers"]),
            "ByteLevel" =>
            [
                new BytePreTokenizer(
                    field["add_prefix_space"].Flag(true),
                    field["use_regex"].Flag(true) ? new SplitPreTokenizer(new RegexPattern(PreTokenizer.Gpt2), SplitBehavior.Isolated) : null),
            ],
            "Split" => [new SplitPreTokenizer(Pattern(field["pattern"]), Behavior(field["behavior"]), field["invert"].Flag(false))],
            "Digits" =>
            [
                new SplitPreTokenizer(
                    new RunePattern(RuneSet.Number), field["individual_digits"].Flag(false) ? SplitBehavior.Isolated : SplitBehavior.Contiguous),
            ],
            "Punctuation" =>
            [
                new SplitPreTokenizer(
                    new RunePattern(RuneSet.Punctuation), field["behavior"].IsNull ? SplitBehavior.Isolated : Behavior(field["behavior"])),
            ],
            // This one's \w is that of Rust's regex, which has the join controls.
            "Whitespace" =>
                [new SplitPreTokenizer(new RegexPattern(@"[\w\u200C\u200D]+|[^\w\s\u200C\u200D]+"), SplitBehavior.Removed, invert: true)],
            "WhitespaceSplit" => [new SplitPreTokenizer(new RunePattern(RuneSet.Space), SplitBehavior.Removed)],
            "Metaspace" => [new MetaspacePreTokenizer(Character(field["replacement"]), Scheme(field), field["split"].Flag(true))],
            _ => throw field["type"].Unsupported(
                "Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace"),
        });

        static List<PreTokenizer> Sequence(TokenizerField items)
        {
            var inner = new List<PreTokenizer>();
            foreach (var item in items.Items())
                ReadPreTokenizer(item, inner);
            return inner;
        }
    }

    public static void ReadDecoder(TokenizerField field, List<Decoder> decoders)
    {
        if (field.IsNull)
            return;
        switch (field["type"].Text())
        {
            case "Sequence":
                foreach (var item in field["decoders"].Items())
                    ReadDecoder(item, decoders);
                return;
            case "ByteLevel":
                decoders.Add(static next => new BytesStep(next));
                return;
            case "ByteFallback":
                decoders.Add(static next => new ByteFallbackStep(next));
                return;
            case "Fuse":
                decoders.Add(static next => new FuseStep(next));
                return;
            case "Replace":
                var (pattern, replacement) = (Pattern(field["pattern"]), field["content"].Text());
                decoders.Add(next => new ReplaceStep(next, pattern, replacement));
                return;
            case "Strip":
                if (field["content"].Text() is not [var content])
                    throw field["content"].Expected("one character of the basic multilingual plane");
                var (start, stop) = (field["start"].Integer(0, int.MaxValue), field["stop"].Integer(0, int.MaxValue));
                decoders.Add(next => new StripStep(next, content, start, stop));
                return;
            case "Metaspace":
                var (space, prepended) = (Character(field["replacement"]), Scheme(field) != PrependScheme.Never);
                decoders.Add(next => new MetaspaceStep(next, space, prepended));
                return;
            default:
                throw field["type"].Unsupported("Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace");
        }
    }

    private static TextPattern Pattern(TokenizerField field)
    {
        if (field["String"] is { IsNull: false } literal)
            return literal.Text() is { Length: > 0 } text ? new LiteralPattern(text) : throw literal.Expected("a text that is not empty");
        var regex = field["Regex"];
        try
        {
            return new RegexPattern(regex.Text());
        }
        catch (FormatException error)
        {
            throw new InvalidDataException($"{field.File}: {regex.Path}: {error.Message}", error);
        }
    }

    private static SplitBehavior Behavior(TokenizerField field) => field.Text() switch
    {
        "Isolated" => SplitBehavior.Isolated,
        "Removed" => SplitBehavior.Removed,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        _ => throw field.Unsupported("Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous"),
    };

    private static string Character(TokenizerField field) =>
        field.Text() is { Length: > 0 } text && Rune.GetRuneAt(text, 0).Utf16SequenceLength == text.Length
            ? text
            : throw field.Expected("one character");

    // Older files have add_prefix_space in prepend_scheme's place.
    private static PrependScheme Scheme(TokenizerField field)
    {
        var scheme = field["prepend_scheme"];
        var written = scheme.IsNull ? PrependScheme.Always : scheme.Text() switch
        {
            "always" => PrependScheme.Always,
            "first" => PrependScheme.First,
            "never" => PrependScheme.Never,
            _ => throw scheme.Unsupported("always, first, never"),
        };
        if (field["add_prefix_space"].Flag(true) || written == PrependScheme.Never)
            return written;
        return scheme.IsNull ? PrependScheme.Never : throw scheme.Expected("never, where add_prefix_space is false,");
    }
}
