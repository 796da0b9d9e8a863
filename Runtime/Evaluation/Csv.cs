using System.Text;

namespace Trimtab.Evaluation;

/// <summary>Comma-separated values as RFC 4180 has them: quoted fields may hold commas, quotes (doubled) and line breaks.</summary>
internal static class Csv
{
    /// <summary>The records of a text with the line that each begins on. A blank line is no record.</summary>
    /// <exception cref="InvalidDataException">A quoted field does not end, or text follows its closing quote.</exception>
    public static IEnumerable<(int Line, IReadOnlyList<string> Fields)> Read(TextReader reader, string name)
    {
        var (fields, field) = (new List<string>(), new StringBuilder());
        var (line, start, quoted, closed) = (1, 1, false, false);
        for (int next; (next = reader.Read()) >= 0;)
        {
            var c = (char)next;
            if (quoted)
            {
                line += c == '\n' ? 1 : 0;
                if (c != '"')
                    field.Append(c);
                else if (reader.Peek() == '"')
                    field.Append((char)reader.Read());
                else
                    (quoted, closed) = (false, true);
                continue;
            }
            switch (c)
            {
                case '"' when field.Length == 0 && !closed:
                    quoted = true;
                    break;
                case ',':
                    End();
                    break;
                case '\r' when reader.Peek() == '\n':
                    break;
                case '\r' or '\n':
                    var empty = fields.Count == 0 && field.Length == 0 && !closed;
                    End();
                    if (!empty)
                        yield return (start, fields.ToArray());
                    fields.Clear();
                    start = ++line;
                    break;
                default:
                    if (closed)
                        throw new InvalidDataException($"{name}: line {line}: text follows a closing quote; expected a comma or the line's end");
                    field.Append(c);
                    break;
            }
        }
        if (quoted)
            throw new InvalidDataException($"{name}: line {start}: a quoted field does not end");
        if (fields.Count > 0 || field.Length > 0 || closed)
        {
            End();
            yield return (start, fields.ToArray());
        }

        void End()
        {
            fields.Add(field.ToString());
            field.Clear();
            closed = false;
        }
    }
}
