using System.Text.Json;
using Trimtab.Kernels;

namespace Trimtab.Text;

/// <summary>A schema under which an answer cannot be followed at a bearable cost; only the answer shows that, so it ends with this error.</summary>
public sealed class ConstraintTooCostlyException(string message) : Exception(message);

/// <summary>
/// Constrained decoding to JSON: tokens that would leave the grammar get a logit of −∞ before each draw. What is written is valid JSON, and satisfies the
/// schema where there is one; only a token limit can cut it short. One sequence's state: make one for each answer (grammars are kept, so that this is cheap).
/// </summary>
public sealed class JsonConstraint : TokenConstraint
{
    private readonly TokenTrie _trie;
    private readonly ByteGrammar _grammar;
    private ByteGrammar.State _state;
    private long _work;

    private JsonConstraint(TokenTrie trie, ByteGrammar grammar) => (_trie, _grammar, _state) = (trie, grammar, grammar.Start);

    /// <summary>Any JSON object, its values at most 48 deep.</summary>
    public static JsonConstraint ForObject(Tokenizer tokenizer)
    {
        var trie = TokenTrie.Of(tokenizer);
        return new(trie, trie.Grammar("", JsonSchemaGrammar.OfObject));
    }

    /// <summary>
    /// Values that satisfy a JSON Schema (draft 2020-12): types, enum, const, properties, required, additionalProperties, items, lengths and counts, bounds
    /// of numbers, anyOf, $ref within the schema; formats date, time, date-time and uuid. Members come in the schema's order; unnamed members are not written.
    /// </summary>
    /// <exception cref="FormatException">A keyword is not enforced, or nothing satisfies the schema; the message names where.</exception>
    public static JsonConstraint ForSchema(JsonElement schema, Tokenizer tokenizer)
    {
        var trie = TokenTrie.Of(tokenizer);
        return new(trie, trie.Grammar(schema.GetRawText(), () => JsonSchemaGrammar.Of(schema)));
    }

    /// <inheritdoc/>
    public override bool Complete => _state.IsComplete;

    /// <inheritdoc/>
    public override bool MayEnd => _state.CanEnd;

    /// <inheritdoc/>
    public override void Mask(Span<float> logits)
    {
        var allowed = _trie.Allowed(_grammar, _state, ref _work);
        for (var i = 0; i < logits.Length; i += 64)
        {
            var bits = (i >> 6) < allowed.Length ? allowed[i >> 6] : 0;
            var part = logits.Slice(i, Math.Min(64, logits.Length - i));
            if (bits == 0)
                part.Fill(float.NegativeInfinity);
            else if (bits != ulong.MaxValue)
                for (var j = 0; j < part.Length; j++)
                    if ((bits >> j & 1) == 0)
                        part[j] = float.NegativeInfinity;
        }
    }

    /// <inheritdoc/>
    public override void Accept(int token)
    {
        var state = _state;
        var bytes = _trie[token];
        foreach (var value in bytes)
            state = _grammar.Next(state, value, ref _work);
        if (bytes.IsEmpty || state.IsDead)
            throw new ArgumentException($"token {token} cannot come next in the JSON", nameof(token));
        _state = state;
    }
}
