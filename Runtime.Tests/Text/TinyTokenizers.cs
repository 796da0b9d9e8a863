using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Trimtab.Text;

namespace Trimtab.Tests.Text;

/// <summary>Small tokenizers made in the tests.</summary>
internal static class TinyTokenizers
{
    /// <summary>The model's JSON: pieces with ids in order, and merges "a b".</summary>
    public static string Model(IEnumerable<string> pieces, IEnumerable<string> merges, string extra = "")
    {
        var vocabulary = new JsonObject();
        foreach (var piece in pieces)
            vocabulary[piece] = vocabulary.Count;
        return $$"""{"type":"BPE","vocab":{{vocabulary.ToJsonString()}},"merges":{{JsonSerializer.Serialize(merges)}}{{extra}}}""";
    }

    public static Tokenizer Json(string model, string rest = "", string config = "") =>
        Tokenizer.FromJson(Encoding.UTF8.GetBytes($$"""{"model":{{model}}{{(rest.Length > 0 ? "," : "")}}{{rest}}}"""), "tiny.json", Encoding.UTF8.GetBytes(config));

    /// <summary>The 256 characters of the byte alphabet, in the order of their bytes.</summary>
    public static IEnumerable<string> Bytes => Enumerable.Range(0, 256).Select(b =>
        ByteAlphabetOf((byte)b));

    /// <summary>A byte-level tokenizer with a few merges.</summary>
    public static Tokenizer ByteLevel(string rest = "", string config = "") => Json(
        Model([.. Bytes, "Ġa", "th", "the", "Ġt", "Ġthe", "aa", "aaaa", "ĠĠ", "ĠĠĠĠ", "ðŁ", "ðŁĻ"],
            ["Ġ a", "t h", "th e", "Ġ t", "Ġ the", "a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ", "ð Ł", "ðŁ Ļ"]),
        """
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":"ByteLevel"}
        """ + (rest.Length > 0 ? "," : "") + rest, config);

    /// <summary>A tokenizer with every printable ASCII character and no merges: its ids show how a text was split, once joined by '|'.</summary>
    public static string Split(string preTokenizer, string text)
    {
        var matches = new List<string>();
        // ignore_merges: every piece that occurs is made a token of its own, so one id is one piece.
        var tokenizer = Json(Model(Pieces(text), [], ""","ignore_merges":true"""), $"\"pre_tokenizer\":{preTokenizer}");
        foreach (var id in tokenizer.Encode(text))
            matches.Add(tokenizer.TokenOf(id)!);
        return string.Join('|', matches);
    }

    private static IEnumerable<string> Pieces(string text)
    {
        text = text.Replace(' ', '_') + text + "_" + text.Replace(' ', '_');
        return Enumerable.Range(0, text.Length).SelectMany(i => Enumerable.Range(1, text.Length - i).Select(n => text.Substring(i, n))).Distinct();
    }

    private static string ByteAlphabetOf(byte value) =>
        value is >= (byte)'!' and <= (byte)'~' or >= 0xA1 and <= 0xAC or >= 0xAE
            ? ((char)value).ToString()
            : ((char)(0x100 + Enumerable.Range(0, value).Count(b => b is not (>= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE)))).ToString();
}
