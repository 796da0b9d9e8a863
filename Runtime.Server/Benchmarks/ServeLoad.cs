using System.Text;
using System.Text.Json;

namespace Trimtab.Server.Benchmarks;

/// <summary>What a server is asked.</summary>
/// <param name="Requests">Requests of one run.</param>
/// <param name="PrefixWords">Words that prompts of one group begin with; 0: nothing is shared.</param>
/// <param name="Prefixes">Groups, each with its own beginning.</param>
/// <param name="Words">Words of each prompt that no other has.</param>
/// <param name="MaxTokens">Most tokens of an answer.</param>
/// <param name="Images">data: URLs, taken in turn.</param>
/// <param name="ImageShare">Share of the requests that carry one, 0 to 1.</param>
/// <param name="Alphas">Steering strengths, which each group's prompts take in turn; none: the requests say nothing of steering.</param>
/// <param name="Extra">Further fields of each request, a JSON object, or null.</param>
/// <param name="Seed">Of prompts and arrivals.</param>
internal sealed record ServeLoad(
    int Requests, int PrefixWords, int Prefixes, int Words, int MaxTokens, IReadOnlyList<string> Images, double ImageShare, IReadOnlyList<float> Alphas,
    JsonElement? Extra, int Seed)
{
    private static readonly string[] Vocabulary =
        ("the a of in to on by with from over under after before river road house garden window letter ship harbour winter summer morning evening "
        + "teacher farmer sailor painter doctor child friend stone paper glass iron wooden quiet bright narrow distant early late walks writes carries "
        + "finds opens builds reads sells keeps turns brings green white yellow small large old new seven twelve hundred market village bridge forest field "
        + "mountain island tower kitchen table lamp clock mirror basket bottle blanket ladder engine wheel").Split(' ');

    /// <summary>The body of one request. Runs differ in every word, so that no run finds an earlier one's prompts in a cache.</summary>
    /// <param name="model">What the server calls its model.</param>
    /// <param name="run">Number of the run.</param>
    /// <param name="index">Number of the request in it.</param>
    /// <param name="vectors">Name of the vectors that <see cref="Alphas"/> are strengths of; null for a server that steers by none.</param>
    public byte[] Body(string model, int run, int index, string? vectors)
    {
        var prefix = Text(new Random(HashCode(run, -1 - index % Math.Max(1, Prefixes))), PrefixWords);
        var own = new Random(HashCode(run, index));
        var text = $"{prefix} {Text(own, Words)}".Trim();
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartObject();
            writer.WriteString("model", model);
            writer.WriteStartArray("messages");
            writer.WriteStartObject();
            writer.WriteString("role", "user");
            writer.WriteStartArray("content");
            if (Images.Count > 0 && own.NextDouble() < ImageShare)
                Image(writer, Images[index % Images.Count]);
            writer.WriteStartObject();
            writer.WriteString("type", "text");
            writer.WriteString("text", text);
            writer.WriteEndObject();
            writer.WriteEndArray();
            writer.WriteEndObject();
            writer.WriteEndArray();
            writer.WriteBoolean("stream", true);
            writer.WriteStartObject("stream_options");
            writer.WriteBoolean("include_usage", true);
            writer.WriteEndObject();
            writer.WriteNumber("max_tokens", MaxTokens);
            writer.WriteNumber("temperature", 0);
            if (vectors is not null && Alphas.Count > 0)
            {
                writer.WriteStartObject("steering");
                writer.WriteString("vectors", vectors);
                writer.WriteNumber("alpha", Alphas[index / Math.Max(1, Prefixes) % Alphas.Count]);
                writer.WriteEndObject();
            }
            foreach (var field in Extra?.EnumerateObject() ?? default)
                field.WriteTo(writer);
            writer.WriteEndObject();
        }
        return buffer.ToArray();
    }

    /// <summary>Seconds from a run's start to each request's sending: a Poisson process of <paramref name="rate"/> requests a second.</summary>
    public double[] Arrivals(double rate, int run)
    {
        var random = new Random(HashCode(run, int.MinValue));
        var times = new double[Requests];
        for (var i = 1; i < Requests; i++)
            times[i] = times[i - 1] - Math.Log(1 - random.NextDouble()) / rate;
        return times;
    }

    private static void Image(Utf8JsonWriter writer, string url)
    {
        writer.WriteStartObject();
        writer.WriteString("type", "image_url");
        writer.WriteStartObject("image_url");
        writer.WriteString("url", url);
        writer.WriteEndObject();
        writer.WriteEndObject();
    }

    private static string Text(Random random, int words)
    {
        var text = new StringBuilder();
        for (var i = 0; i < words; i++)
            text.Append(i > 0 ? " " : "").Append(Vocabulary[random.Next(Vocabulary.Length)]);
        return text.ToString();
    }

    /// <summary>A seed for each run and request; the same in every process.</summary>
    private int HashCode(int run, int index) => unchecked((Seed * 1_000_003 + run) * 1_000_003 + index);
}
