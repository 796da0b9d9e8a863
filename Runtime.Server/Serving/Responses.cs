using System.Text;
using System.Text.Json;

namespace Trimtab.Server.Serving;

/// <summary>POST /v1/responses: text and images in, text out. Nothing is stored, so nothing can be gone on from.</summary>
internal static class Responses
{
    /// <summary>Answers a request.</summary>
    public static async Task RunAsync(Exchange exchange)
    {
        var (question, settings, instructions) = await ReadAsync(exchange).ConfigureAwait(false);
        using var answer = await exchange.Model.AskAsync(exchange, "resp_", question, settings).ConfigureAwait(false);
        var writer = new ResponseWriter(answer, instructions);
        if (settings.Stream)
        {
            await writer.StreamAsync(exchange.Stream()).ConfigureAwait(false);
            return;
        }
        var collected = await AnswerWire.CollectAsync(answer).ConfigureAwait(false);
        await exchange.SendAsync(writer.Ended(collected[0].Text.ToString()), Wire.Readable.Response).ConfigureAwait(false);
    }

    /// <summary>Reads a request. Its body is gone when this returns: answers take long.</summary>
    private static async Task<(Question Question, AnswerSettings Settings, string? Instructions)> ReadAsync(Exchange exchange)
    {
        using var body = await exchange.ReadBodyAsync().ConfigureAwait(false);
        var request = new Fields(body.RootElement);
        var conversation = Conversation.ReadInput(request, exchange.Model.Options);
        var settings = Read(request, exchange.Model);
        var instructions = request.Text("instructions");
        request.End();
        return (await exchange.Model.QuestionAsync(exchange, conversation, settings.Count).ConfigureAwait(false), settings, instructions);
    }

    private static AnswerSettings Read(Fields request, SteeredModel model)
    {
        var settings = AnswerSettings.ReadCommon(request, model.Options, model.Layers, model.Vocabulary, "max_output_tokens");
        request.Refuse("previous_response_id", why: "nothing is stored");
        request.Refuse("conversation", why: "nothing is stored");
        request.Refuse("background", e => e.ValueKind == JsonValueKind.False);
        request.Refuse("truncation", e => e.ValueKind == JsonValueKind.String && e.ValueEquals("disabled"), "prompts are never cut");
        request.Refuse("include", e => e.ValueKind == JsonValueKind.Array && e.GetArrayLength() == 0);
        request.Refuse("reasoning", e => e.ValueKind == JsonValueKind.Object && e.EnumerateObject().All(p => p.Value.ValueKind == JsonValueKind.Null));
        if (request.Object("stream_options") is { } stream)
        {
            stream.Ignore("include_obfuscation");
            stream.End();
        }
        return settings with { Format = ResponseFormat.ReadResponse(request, model.Model.Tokenizer), Stop = AnswerSettings.ReadStop(request) };
    }
}

/// <summary>Tells of an answer as a response and as its events.</summary>
internal sealed class ResponseWriter(Answer answer, string? instructions)
{
    private readonly string _item = "msg_" + answer.Id["resp_".Length..];
    private int _events;

    /// <summary>The response of an answer that has ended.</summary>
    public Response Ended(string text)
    {
        var cut = answer.Ended[0]!.Finish != Engine.FinishReason.Stop;
        var usage = AnswerWire.Usage(answer);
        return Of(cut ? "incomplete" : "completed", [Item(cut ? "incomplete" : "completed", [new("output_text", text)])]) with
        {
            IncompleteDetails = cut ? new("max_output_tokens") : null,
            Usage = new(usage.PromptTokens, usage.PromptTokensDetails, usage.CompletionTokens, new(0), usage.TotalTokens),
            SteeringReceipt = answer.Receipt(0),
        };
    }

    /// <summary>Sends the answer as events.</summary>
    public async Task StreamAsync(EventStream stream)
    {
        stream.Failing = error => Send("error", e => e with { Message = error.Message, Code = error.Code, Param = error.Param });
        await Send("response.created", e => e with { Response = Of("in_progress", []) }).ConfigureAwait(false);
        await Send("response.in_progress", e => e with { Response = Of("in_progress", []) }).ConfigureAwait(false);
        await Send("response.output_item.added", e => e with { OutputIndex = 0, Item = Item("in_progress", []) }).ConfigureAwait(false);
        await Send("response.content_part.added", e => Part(e) with { Part = new("output_text", "") }).ConfigureAwait(false);
        var text = new StringBuilder();
        await foreach (var (_, update) in answer.ReadAsync().ConfigureAwait(false))
        {
            if (update.Text.Length == 0)
                continue;
            text.Append(update.Text);
            await Send("response.output_text.delta", e => Part(e) with { Delta = update.Text, Logprobs = [] }).ConfigureAwait(false);
        }
        var ended = Ended(text.ToString());
        await Send("response.output_text.done", e => Part(e) with { Text = text.ToString(), Logprobs = [] }).ConfigureAwait(false);
        await Send("response.content_part.done", e => Part(e) with { Part = ended.Output[0].Content[0] }).ConfigureAwait(false);
        await Send("response.output_item.done", e => e with { OutputIndex = 0, Item = ended.Output[0] }).ConfigureAwait(false);
        await Send($"response.{ended.Status}", e => e with { Response = ended }).ConfigureAwait(false);

        Task Send(string type, Func<ResponseEvent, ResponseEvent> fill) => stream.SendAsync(type, fill(new(type, _events++)), Wire.Readable.ResponseEvent);
    }

    private ResponseEvent Part(ResponseEvent e) => e with { ItemId = _item, OutputIndex = 0, ContentIndex = 0 };

    private ResponseItem Item(string status, IReadOnlyList<ResponsePart> content) => new("message", _item, status, "assistant", content);

    private Response Of(string status, IReadOnlyList<ResponseItem> output) => new(answer.Id, "response", answer.Created, status, answer.ModelName, output)
    {
        Instructions = instructions,
        MaxOutputTokens = answer.Settings.MaxTokens,
        Temperature = answer.Settings.Sampling.Temperature,
        TopP = answer.Settings.Sampling.TopP,
        Text = new(Format()),
    };

    private ResponseTextFormat Format()
    {
        if (answer.Settings.Format?.Source is not { } source)
            return new("text");
        return new(source.GetProperty("type").GetString()!)
        {
            Name = source.TryGetProperty("name", out var name) ? name.GetString() : null,
            Schema = source.TryGetProperty("schema", out var schema) ? schema : null,
        };
    }
}
