using System.Text;

namespace Trimtab.Engine;

/// <summary>
/// Ends a streamed text before the first of several stop strings, wherever the borders of the pieces (tokens) fall: the text that comes out is the whole
/// text up to the leftmost occurrence of any stop string, or all of it if there is none. Text that may be the beginning of a stop string is held back
/// until it is known. Time is linear in the text for each stop string (Knuth, Morris, Pratt 1977). Comparison is by UTF-16 code unit.
/// </summary>
public sealed class StopStrings
{
    private readonly string[] _stops;

    /// <summary>Per stop string and number of matched chars: how many stay matched if the next one does not fit.</summary>
    private readonly int[][] _fallbacks;

    /// <summary>Per stop string: how many of its chars the text ends with.</summary>
    private readonly int[] _matched;

    /// <summary>Text not yet emitted, and the position of its first char in the whole text.</summary>
    private readonly StringBuilder _held = new();
    private long _start;
    private long _end;

    /// <summary>The leftmost complete occurrence so far, or −1.</summary>
    private long _found = -1;
    private int _foundStop;

    /// <summary>A matcher at the start of a text.</summary>
    /// <param name="stops">The stop strings; none means that nothing is held back.</param>
    /// <exception cref="ArgumentException">A stop string is empty.</exception>
    public StopStrings(IEnumerable<string> stops)
    {
        _stops = stops.Distinct(StringComparer.Ordinal).ToArray();
        if (_stops.Any(string.IsNullOrEmpty))
            throw new ArgumentException("a stop string is empty; expected at least one character", nameof(stops));
        _matched = new int[_stops.Length];
        _fallbacks = Array.ConvertAll(_stops, Fallbacks);
    }

    /// <summary>Whether a stop string has been found: the text is complete.</summary>
    public bool Stopped { get; private set; }

    /// <summary>The stop string that was found, or null.</summary>
    public string? Found => Stopped ? _stops[_foundStop] : null;

    private static int[] Fallbacks(string stop)
    {
        var fallbacks = new int[stop.Length + 1];
        for (int i = 1, matched = 0; i < stop.Length; i++)
        {
            while (matched > 0 && stop[i] != stop[matched])
                matched = fallbacks[matched];
            if (stop[i] == stop[matched])
                matched++;
            fallbacks[i + 1] = matched;
        }
        return fallbacks;
    }

    /// <summary>Takes the next piece and returns the text that is now safe to emit.</summary>
    /// <param name="piece">Text; may be empty.</param>
    /// <param name="stopped">Whether a stop string was found, now or earlier: what is returned is the last of the text.</param>
    public string Append(string piece, out bool stopped)
    {
        foreach (var c in piece)
        {
            if (Stopped)
                break;
            _held.Append(c);
            _end++;
            Advance(c);
            // An occurrence further left may still be on its way.
            Stopped = _found >= 0 && EarliestCandidate() >= _found;
        }
        stopped = Stopped;
        return Stopped ? Finish() : Emit(_found >= 0 ? Math.Min(_found, EarliestCandidate()) : EarliestCandidate());
    }

    /// <summary>Says that the text has ended, and returns what was held back (up to a stop string, if one is in it: see <see cref="Stopped"/>).</summary>
    public string Flush()
    {
        Stopped |= _found >= 0;
        return Finish();
    }

    private void Advance(char c)
    {
        for (var s = 0; s < _stops.Length; s++)
        {
            var stop = _stops[s];
            var matched = _matched[s];
            if (matched == stop.Length)
                matched = _fallbacks[s][matched];
            while (matched > 0 && stop[matched] != c)
                matched = _fallbacks[s][matched];
            if (stop[matched] == c)
                matched++;
            _matched[s] = matched;
            if (matched == stop.Length && (_found < 0 || _end - matched < _found))
                (_found, _foundStop) = (_end - matched, s);
        }
    }

    /// <summary>The leftmost position at which a stop string may have begun that is not complete yet.</summary>
    private long EarliestCandidate()
    {
        var earliest = _end;
        for (var s = 0; s < _stops.Length; s++)
        {
            var matched = _matched[s] == _stops[s].Length ? _fallbacks[s][_matched[s]] : _matched[s];
            earliest = Math.Min(earliest, _end - matched);
        }
        return earliest;
    }

    private string Emit(long until)
    {
        var text = _held.ToString(0, (int)(until - _start));
        _held.Remove(0, text.Length);
        _start = until;
        return text;
    }

    private string Finish()
    {
        var text = Emit(_found >= 0 ? Math.Max(_found, _start) : _end);
        _held.Clear();
        _start = _end;
        return text;
    }
}
