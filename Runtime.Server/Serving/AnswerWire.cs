using System.Text;
using Trimtab.Engine;
using Trimtab.Kernels;
using Trimtab.Text;

namespace Trimtab.Server.Serving;

/// <summary>What the interfaces have in common in telling of an answer.</summary>
internal static class AnswerWire
{
    /// <summary>The tokens of an answer that has ended.</summary>
    public static Usage Usage(Answer answer)
    {
        var prompt = answer.Question.Prompt.Tokens.Length;
        return new(prompt, answer.CompletionTokens, prompt + answer.CompletionTokens, new(answer.CachedTokens));
    }

    /// <summary>Every choice's receipt, where there are several.</summary>
    public static IReadOnlyList<Receipt>? Receipts(Answer answer)
        => answer.Settings.Count == 1 ? null : [.. Enumerable.Range(0, answer.Settings.Count).Select(answer.Receipt)];

    /// <summary>Collects an answer's choices.</summary>
    public static async Task<(StringBuilder Text, List<Sampled> Tokens)[]> CollectAsync(Answer answer)
    {
        var choices = new (StringBuilder Text, List<Sampled> Tokens)[answer.Settings.Count];
        for (var i = 0; i < choices.Length; i++)
            choices[i] = (new(), []);
        await foreach (var part in answer.ReadAsync().ConfigureAwait(false))
        {
            choices[part.Choice].Text.Append(part.Update.Text);
            if (part.Update.Token is { } token)
                choices[part.Choice].Tokens.Add(token);
        }
        return choices;
    }

    /// <summary>Likelihoods as chat completions tell them.</summary>
    public static ChatLogProbs Chat(IEnumerable<Sampled> tokens, Tokenizer tokenizer, int top)
        => new([.. tokens.Select(token => Entry(token.Token, token.LogProb, tokenizer) with
        {
            TopLogprobs = [.. (token.Top ?? []).Take(top).Select(other => Entry(other.Token, other.LogProb, tokenizer))],
        })]);

    /// <summary>Likelihoods as completions tell them.</summary>
    public static TextLogProbs Text(IReadOnlyList<Sampled> tokens, Tokenizer tokenizer, int top, ref int offset)
    {
        var offsets = new int[tokens.Count];
        for (var i = 0; i < tokens.Count; i++)
        {
            offsets[i] = offset;
            offset += TextOf(tokens[i].Token, tokenizer).Length;
        }
        return new(
            [.. tokens.Select(token => TextOf(token.Token, tokenizer))], [.. tokens.Select(token => Finite(token.LogProb))],
            [.. tokens.Select(IReadOnlyDictionary<string, float> (token) =>
            {
                var likelihoods = new Dictionary<string, float>();
                foreach (var (id, value) in (token.Top ?? []).Take(top))
                    likelihoods.TryAdd(TextOf(id, tokenizer), Finite(value)); // two tokens may have one text; the likelier is first
                return likelihoods;
            })],
            offsets);
    }

    /// <summary>A token's text by itself; U+FFFD for part of a code point.</summary>
    private static string TextOf(int id, Tokenizer tokenizer)
    {
        var text = tokenizer.Decode([id]);
        // SentencePiece drops the space before a text's first word.
        return tokenizer.TokenOf(id) is ['▁', ..] && !text.StartsWith(' ') ? " " + text : text;
    }

    private static TokenLogProb Entry(int id, float logProb, Tokenizer tokenizer)
    {
        // A part of a code point has no text, but bytes.
        var bytes = tokenizer.IsSpecial(id) ? Encoding.UTF8.GetBytes(TextOf(id, tokenizer)) : tokenizer.BytesOf(id);
        return new(TextOf(id, tokenizer), Finite(logProb), Array.ConvertAll(bytes, b => (int)b));
    }

    // What OpenAI sends for the least likely; JSON has no infinity.
    private static float Finite(float logProb) => float.IsFinite(logProb) ? logProb : -9999;
}
