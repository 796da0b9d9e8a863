using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Trimtab.Evaluation;

/// <summary>
/// Writes HTML from interpolated strings: what stands in the code is markup, what stands in a hole is text and always escaped,
/// so that no answer of a model can become part of the page.
/// </summary>
internal sealed class ReportHtml(TextWriter writer)
{
    private int _ids;

    /// <summary>An id that nothing else on the page has.</summary>
    public string NextId(string prefix) => $"{prefix}-{++_ids}";

    /// <summary>Writes markup with escaped holes.</summary>
    public void Write([InterpolatedStringHandlerArgument("")] ref Markup markup) => _ = markup;

    /// <summary>Writes trusted text as it is: our own style sheet and script.</summary>
    public void WriteRaw(string text) => writer.Write(text);

    /// <summary>Text that is safe between tags and inside quoted attributes. What HTML forbids (controls, lone surrogates, non-characters) becomes U+FFFD.</summary>
    public static string Escape(string? text)
    {
        var escaped = new StringBuilder(text?.Length ?? 0);
        foreach (var rune in (text ?? "").EnumerateRunes())
            _ = rune.Value switch
            {
                '&' => escaped.Append("&amp;"),
                '<' => escaped.Append("&lt;"),
                '>' => escaped.Append("&gt;"),
                '"' => escaped.Append("&quot;"),
                '\'' => escaped.Append("&#39;"),
                '\r' => escaped.Append("&#13;"),
                '\t' or '\n' => escaped.Append((char)rune.Value),
                var value when value < 0x20 || value is >= 0x7F and <= 0x9F or >= 0xFDD0 and <= 0xFDEF || (value & 0xFFFE) == 0xFFFE => escaped.Append('\uFFFD'),
                _ => escaped.Append(rune.ToString()),
            };
        return escaped.ToString();
    }

    /// <summary>The compiler's way from an interpolated string to the page.</summary>
    [InterpolatedStringHandler]
    public readonly ref struct Markup
    {
        private readonly TextWriter _writer;

        /// <summary>Called by the compiler.</summary>
        public Markup(int literalLength, int formattedCount, ReportHtml html)
        {
            _ = literalLength + formattedCount;
            _writer = html.Writer;
        }

        /// <summary>Markup.</summary>
        public void AppendLiteral(string markup) => _writer.Write(markup);

        /// <summary>Text.</summary>
        public void AppendFormatted(string? text) => _writer.Write(Escape(text));

        /// <summary>A count.</summary>
        public void AppendFormatted(int value) => _writer.Write(value.ToString(CultureInfo.InvariantCulture));

        /// <summary>A coordinate: two decimals say where a pixel is.</summary>
        public void AppendFormatted(double value) => _writer.Write(value.ToString("0.##", CultureInfo.InvariantCulture));
    }

    private TextWriter Writer => writer;
}
