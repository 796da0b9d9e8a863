using System.CommandLine;
using System.Text.Json;

namespace Trimtab.Server.Commands;

/// <summary>tokenize and detokenize.</summary>
internal static class TokenizeCommand
{
    private static Option<string> Model() => new("--model", "-m")
    {
        Description = "A model, a folder with a tokenizer.json, or such a file.",
        HelpName = "PATH",
        Required = true,
    };

    public static Command Create(Terminal terminal)
    {
        var model = Model();
        var text = new Argument<string?>("text") { Description = "The text, @FILE to read one, or - for standard input.", Arity = ArgumentArity.ZeroOrOne };
        var prompt = new Option<string?>("--prompt", "-p") { Description = "The text, as an option.", HelpName = "TEXT|@FILE|-" };
        var noSpecial = new Option<bool>("--no-special") { Description = "Add no begin- or end-of-sequence token." };
        var plain = new Option<bool>("--plain") { Description = "Read special tokens that are written in the text as plain text." };
        var jsonl = new Option<bool>("--jsonl") { Description = "Read one JSON string a line from standard input, write one array of ids a line." };
        var command = new Command("tokenize", "Turns text into token ids.") { model, text, prompt, noSpecial, plain, jsonl };
        command.SetAction(parse =>
        {
            var tokenizer = ModelFiles.OpenTokenizer(parse.GetRequiredValue(model));
            int[] Encode(string value) => tokenizer.Encode(value, !parse.GetValue(noSpecial), !parse.GetValue(plain));
            if (parse.GetValue(jsonl))
            {
                EachLine(terminal, line => Json.Write(writer =>
                {
                    writer.WriteStartArray();
                    foreach (var id in Encode(line.ValueKind == JsonValueKind.String ? line.GetString()! : throw new FormatException("expected a JSON string")))
                        writer.WriteNumberValue(id);
                    writer.WriteEndArray();
                }));
                return 0;
            }
            var value = parse.GetValue(text) ?? parse.GetValue(prompt) ?? throw new UsageException("tokenize needs a text, - for standard input, or --jsonl");
            terminal.Output.WriteLine(string.Join(' ', Encode(PromptArguments.Text(value, terminal))));
            return 0;
        });
        return command;
    }

    public static Command CreateReverse(Terminal terminal)
    {
        var model = Model();
        var ids = new Argument<int[]>("ids") { Description = "Token ids.", Arity = ArgumentArity.ZeroOrMore };
        var noSpecial = new Option<bool>("--no-special") { Description = "Leave special tokens out of the text." };
        var jsonl = new Option<bool>("--jsonl") { Description = "Read one JSON array of ids a line from standard input, write one JSON string a line." };
        var command = new Command("detokenize", "Turns token ids into text.") { model, ids, noSpecial, jsonl };
        command.SetAction(parse =>
        {
            var tokenizer = ModelFiles.OpenTokenizer(parse.GetRequiredValue(model));
            string Decode(int[] tokens)
            {
                foreach (var id in tokens)
                {
                    if (tokenizer.TokenOf(id) is null)
                        throw new FormatException($"token {id} is not in the vocabulary");
                }
                return tokenizer.Decode(tokens, parse.GetValue(noSpecial));
            }
            if (parse.GetValue(jsonl))
            {
                EachLine(terminal, line => Json.Write(writer => writer.WriteStringValue(Decode(Ids(line)))));
                return 0;
            }
            if (parse.GetValue(ids) is not { Length: > 0 } given)
                throw new UsageException("detokenize needs token ids, or --jsonl");
            terminal.Output.WriteLine(Decode(given));
            return 0;
        });
        return command;
    }

    private static int[] Ids(JsonElement line)
        => line.ValueKind == JsonValueKind.Array && line.EnumerateArray().All(e => e.ValueKind == JsonValueKind.Number && e.TryGetInt32(out _))
            ? [.. line.EnumerateArray().Select(e => e.GetInt32())]
            : throw new FormatException("expected a JSON array of token ids");

    /// <summary>Maps JSON lines to JSON lines; an error names the line.</summary>
    private static void EachLine(Terminal terminal, Func<JsonElement, string> map)
    {
        var number = 0;
        while (terminal.Input.ReadLine() is { } line)
        {
            number++;
            if (string.IsNullOrWhiteSpace(line))
                continue;
            try
            {
                using var document = JsonDocument.Parse(line);
                terminal.Output.WriteLine(map(document.RootElement));
            }
            catch (Exception error) when (error is JsonException or FormatException or InvalidOperationException)
            {
                throw new FormatException($"standard input, line {number}: {error.Message}", error);
            }
        }
        terminal.Output.Flush();
    }
}
