using System.Collections.Concurrent;
using System.Runtime.CompilerServices;

namespace Trimtab.Text;

/// <summary>A vocabulary's tokens by their bytes, so that those which a grammar allows are found in one walk. Made once for a tokenizer.</summary>
internal sealed class TokenTrie
{
    private const int MostGrammars = 16; // each may hold some 40 MB
    private static readonly ConditionalWeakTable<Tokenizer, TokenTrie> Made = [];

    // A node's children are its neighbours: node i's first child is i + 1, its next sibling is _skip[i].
    private readonly byte[] _bytes;
    private readonly int[] _skip;
    private readonly int[] _firstToken; // tokens that end at node i: _tokens[_firstToken[i] .. _firstToken[i + 1]]
    private readonly int[] _tokens;
    private readonly byte[][] _texts;
    private readonly ConcurrentDictionary<string, ByteGrammar> _grammars = new(StringComparer.Ordinal);

    private TokenTrie(Tokenizer tokenizer)
    {
        _texts = new byte[tokenizer.VocabularySize][];
        var ids = new List<int>();
        for (var id = 0; id < _texts.Length; id++)
        {
            _texts[id] = tokenizer.IsSpecial(id) ? [] : tokenizer.BytesOf(id);
            if (_texts[id].Length > 0)
                ids.Add(id);
        }
        ids.Sort((a, b) => _texts[a].AsSpan().SequenceCompareTo(_texts[b]) is var order and not 0 ? order : a - b);
        var (bytes, skip, firstToken, path) = (new List<byte>(), new List<int>(), new List<int>(), new List<int>());
        for (var i = 0; i < ids.Count; i++)
        {
            var text = _texts[ids[i]];
            var common = i == 0 ? 0 : text.AsSpan().CommonPrefixLength(_texts[ids[i - 1]]);
            Close(common);
            for (var depth = common; depth < text.Length; depth++)
            {
                path.Add(bytes.Count);
                bytes.Add(text[depth]);
                skip.Add(0);
                firstToken.Add(i);
            }
        }
        Close(0);
        firstToken.Add(ids.Count);
        (_bytes, _skip, _firstToken, _tokens) = ([.. bytes], [.. skip], [.. firstToken], [.. ids]);

        void Close(int depth)
        {
            while (path.Count > depth)
            {
                skip[path[^1]] = bytes.Count;
                path.RemoveAt(path.Count - 1);
            }
        }
    }

    /// <summary>The tokens of a tokenizer.</summary>
    public static TokenTrie Of(Tokenizer tokenizer) => Made.GetValue(tokenizer, t => new(t));

    /// <summary>A grammar that was asked for lately, or a new one: its states remember which of these tokens they allow.</summary>
    public ByteGrammar Grammar(string name, Func<ByteGrammar> make)
    {
        if (_grammars.TryGetValue(name, out var known))
            return known;
        var made = make();
        if (_grammars.Count >= MostGrammars)
            _grammars.Clear();
        return _grammars.GetOrAdd(name, made);
    }

    /// <summary>The bytes of a token; none for a special one.</summary>
    public ReadOnlySpan<byte> this[int token] => (uint)token < (uint)_texts.Length ? _texts[token] : [];

    /// <summary>A bit for each token that may follow; the end's tokens are not among them.</summary>
    /// <param name="grammar">The grammar.</param>
    /// <param name="state">Where the text stands in it.</param>
    /// <param name="work">See <see cref="ByteGrammar.Next"/>.</param>
    public ulong[] Allowed(ByteGrammar grammar, ByteGrammar.State state, ref long work)
    {
        if (state.Allowed is { } known)
            return known;
        var allowed = new ulong[(_texts.Length + 63) / 64];
        // The state before each byte of the path to the node at hand.
        var states = new Stack<(int End, ByteGrammar.State State)>();
        states.Push((_bytes.Length, state));
        for (var node = 0; node < _bytes.Length;)
        {
            while (node >= states.Peek().End)
                states.Pop();
            var next = grammar.Next(states.Peek().State, _bytes[node], ref work);
            if (next.IsDead)
            {
                node = _skip[node];
                continue;
            }
            for (var i = _firstToken[node]; i < _firstToken[node + 1]; i++)
                allowed[_tokens[i] >> 6] |= 1ul << _tokens[i];
            states.Push((_skip[node], next));
            node++;
        }
        grammar.Charge(8L * allowed.Length);
        return state.Allowed = allowed;
    }
}
