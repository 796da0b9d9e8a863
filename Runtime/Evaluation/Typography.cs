using Trimtab.Imaging;

namespace Trimtab.Evaluation;

/// <summary>Draws text as the typographic attacks do (FigStep, arXiv 2311.05608): black on a white square, large, wrapped.</summary>
internal static class Typography
{
    private const int Side = 760, Margin = 12, CellWidth = 6, CellHeight = 10, GlyphRows = 9, GlyphColumns = 5, LargestScale = 8;

    /// <summary>Glyphs of ' ' to '~', nine rows each from the top, a digit of base 32 a row; the highest bit is the left column.</summary>
    private const string Glyphs =
        "000000000444440400AAA000000AAVAVAA004FKE5U400OP248J300CIK8LID0044400000024888420084222480004LEL4000044V4400000000C480000V0000000000CC0001248G000" +
        "EHJLPHE004C4444E00EH168GV00EH161HE0026AIV2200VGU11HE0068GUHHE00V12444400EHHEHHE00EHHF12C000CC0CC0000CC0C4800248G8420000V0V0000842124800EH1240400" +
        "EHNLNGE00EHHVHHH00UHHUHHU00EHGGGHE00UHHHHHU00VGGUGGV00VGGUGGG00EHGNHHF00HHHVHHH00E44444E0072222IC00HIKOKIH00GGGGGGV00HRLLHHH00HPLJHHH00EHHHHHE00" +
        "UHHUGGG00EHHHLID00UHHUKIH00FGGE11U00V44444400HHHHHHE00HHHHHA400HHHLLRH00HHA4AHH00HHA444400V1248GV00E88888E000G8421000E22222E004AH000000000000V00" +
        "84200000000E1FHF00GGUHHHU0000EHGHE0011FHHHF0000EHVGE0068S88880000FHHHF1EGGUHHHH0040C444E002062222ICGGIKOKI00C44444E0000QLLLL0000UHHHH0000EHHHE00" +
        "00UHHHUGG00FHHHF1100MPGGG0000FGE1U0088S88960000HHHJD0000HHHA40000HHLLA0000HA4AH0000HHHHF1E00V248V00244844200444444400844244800008L20000";

    /// <summary>A square image of the text, in the largest letters that hold all of it.</summary>
    /// <param name="text">Lines end in \n; longer ones are wrapped at spaces. Letters that are not ASCII become their nearest, or a box.</param>
    public static Image Draw(string text)
    {
        var (scale, lines) = (LargestScale, Wrap(text, LargestScale));
        while (scale > 1 && lines.Count * CellHeight * scale > Side - 2 * Margin)
            lines = Wrap(text, --scale);
        var image = Image.Blank(Side, Side, 255, 255, 255);
        for (var row = 0; row < lines.Count; row++)
        {
            for (var column = 0; column < lines[row].Length; column++)
                Stamp(image.Pixels, lines[row][column], Margin + column * CellWidth * scale, Margin + row * CellHeight * scale, scale);
        }
        return image;
    }

    private static List<string> Wrap(string text, int scale)
    {
        var width = (Side - 2 * Margin) / (CellWidth * scale);
        var lines = new List<string>();
        foreach (var paragraph in text.ReplaceLineEndings("\n").Split('\n'))
        {
            var line = "";
            foreach (var whole in paragraph.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            {
                var word = whole;
                if (line.Length > 0 && line.Length + 1 + word.Length > width)
                {
                    lines.Add(line);
                    line = "";
                }
                for (; word.Length > width; word = word[width..])
                    lines.Add(word[..width]);
                line += line.Length > 0 ? " " + word : word;
            }
            lines.Add(line);
        }
        return lines;
    }

    private static void Stamp(byte[] pixels, char letter, int left, int top, int scale)
    {
        for (var row = 0; row < GlyphRows; row++)
        {
            var bits = Row(letter, row);
            for (var column = 0; column < GlyphColumns; column++)
            {
                if ((bits >> (GlyphColumns - 1 - column) & 1) == 0)
                    continue;
                for (var y = top + row * scale; y < Math.Min(Side, top + (row + 1) * scale); y++)
                {
                    for (var x = left + column * scale; x < Math.Min(Side, left + (column + 1) * scale); x++)
                        pixels.AsSpan(3 * (y * Side + x), 3).Clear();
                }
            }
        }
    }

    private static int Row(char letter, int row)
    {
        letter = letter switch
        {
            '‘' or '’' => '\'',
            '“' or '”' => '"',
            '–' or '—' => '-',
            '\t' => ' ',
            _ => letter,
        };
        if (letter is < ' ' or > '~')
            return row is 0 or 6 ? 31 : row < 6 ? 17 : 0; // a box
        var digit = Glyphs[(letter - ' ') * GlyphRows + row];
        return digit <= '9' ? digit - '0' : digit - 'A' + 10;
    }
}
