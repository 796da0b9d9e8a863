using System.Text;

namespace Trimtab.Text;

/// <summary>A change of the text before it is split: one of tokenizer.json's normalizers.</summary>
internal abstract class Normalizer
{
    /// <summary>The text, changed. It holds no lone surrogate, before or after.</summary>
    public abstract string Apply(string text);

    /// <summary>Writes <paramref name="content"/> in place of every match.</summary>
    public static string Replace(string text, TextPattern pattern, string content)
    {
        if (pattern is LiteralPattern literal)
            return text.Replace(literal.Literal, content, StringComparison.Ordinal);
        var matches = new List<(int Start, int End)>();
        pattern.FindAll(text, matches);
        if (matches.Count == 0)
            return text;
        var result = new StringBuilder(text.Length);
        var done = 0;
        foreach (var (start, end) in matches)
        {
            result.Append(text, done, start - done).Append(content);
            done = end;
        }
        return result.Append(text, done, text.Length - done).ToString();
    }
}

internal sealed class UnicodeNormalizer(bool compatibility, bool compose) : Normalizer
{
    public override string Apply(string text) => UnicodeForms.Normalize(text, compatibility, compose);
}

/// <summary>Rust's char::to_lowercase, character by character (no final sigma).</summary>
internal sealed class LowercaseNormalizer : Normalizer
{
    // U+0130 is the one character whose lower case is two; invariant casing leaves it alone.
    public override string Apply(string text) => text.Replace("\u0130", "i\u0307", StringComparison.Ordinal).ToLowerInvariant();
}

internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override string Apply(string text) => left ? right ? text.Trim() : text.TrimStart() : right ? text.TrimEnd() : text;
}

internal sealed class ReplaceNormalizer(TextPattern pattern, string content) : Normalizer
{
    public override string Apply(string text) => Replace(text, pattern, content);
}

/// <summary>Writes a text before every non-empty stretch.</summary>
internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    public override string Apply(string text) => text.Length == 0 ? text : prefix + text;
}
