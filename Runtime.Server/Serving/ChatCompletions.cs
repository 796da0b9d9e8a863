using Microsoft.AspNetCore.Http;

namespace Trimtab.Server.Serving;

/// <summary>POST /v1/chat/completions.</summary>
internal static class ChatCompletions
{
    /// <summary>Answers a request.</summary>
    public static async Task RunAsync(Exchange exchange)
    {
        var (question, settings) = await ReadAsync(exchange).ConfigureAwait(false);
        using var answer = await exchange.Model.AskAsync(exchange, "chatcmpl-", question, settings).ConfigureAwait(false);
        if (settings.Stream)
            await StreamAsync(exchange, answer).ConfigureAwait(false);
        else
            await WholeAsync(exchange, answer).ConfigureAwait(false);
    }

    /// <summary>Reads a request. Its body is gone when this returns: answers take long.</summary>
    private static async Task<(Question Question, AnswerSettings Settings)> ReadAsync(Exchange exchange)
    {
        using var body = await exchange.ReadBodyAsync().ConfigureAwait(false);
        var request = new Fields(body.RootElement);
        var conversation = Conversation.ReadMessages(request, exchange.Model.Options);
        var settings = Read(request, exchange.Model);
        request.End();
        return (await exchange.Model.QuestionAsync(exchange, conversation, settings.Count).ConfigureAwait(false), settings);
    }

    private static AnswerSettings Read(Fields request, SteeredModel model)
    {
        var settings = AnswerSettings.ReadCommon(request, model.Options, model.Layers, model.Vocabulary, "max_completion_tokens", "max_tokens");
        var logProbs = request.Flag("logprobs") ?? false;
        var top = (int)(request.Integer("top_logprobs", 0, 20) ?? 0);
        if (top > 0 && !logProbs)
            throw ApiException.Invalid("top_logprobs", "is only for logprobs: true");
        request.Refuse("functions", e => e.ValueKind == System.Text.Json.JsonValueKind.Array && e.GetArrayLength() == 0, "it calls no functions");
        request.Refuse("modalities", e => e.ValueKind == System.Text.Json.JsonValueKind.Array && e.GetArrayLength() == 1
            && e[0].ValueKind == System.Text.Json.JsonValueKind.String && e[0].ValueEquals("text"), "it answers in text");
        return settings with
        {
            Count = (int)(request.Integer("n", 1, model.Options.MaxCount) ?? 1),
            Stop = AnswerSettings.ReadStop(request),
            LogProbs = logProbs,
            TopLogProbs = top,
            Sampling = settings.Sampling with { TopLogProbs = logProbs ? Math.Max(1, top) : 0 },
            Format = ResponseFormat.ReadChat(request, model.Model.Tokenizer),
            IncludeUsage = AnswerSettings.ReadIncludeUsage(request, settings.Stream),
        };
    }

    private static async Task WholeAsync(Exchange exchange, Answer answer)
    {
        var settings = answer.Settings;
        var collected = await AnswerWire.CollectAsync(answer).ConfigureAwait(false);
        var choices = collected.Select((choice, i) => new ChatChoice(
            i, new("assistant", choice.Text.ToString()), null,
            settings.LogProbs ? AnswerWire.Chat(choice.Tokens, exchange.Model.Model.Tokenizer, settings.TopLogProbs) : null,
            Answer.FinishWord(answer.Ended[i]!.Finish)));
        await exchange.SendAsync(Head(answer, "chat.completion", [.. choices]) with
        {
            Usage = AnswerWire.Usage(answer),
            SteeringReceipt = answer.Receipt(0),
            SteeringReceipts = AnswerWire.Receipts(answer),
        }, Wire.Readable.ChatCompletion).ConfigureAwait(false);
    }

    private static async Task StreamAsync(Exchange exchange, Answer answer)
    {
        var (settings, stream) = (answer.Settings, exchange.Stream());
        Task Send(ChatCompletion chunk) => stream.SendAsync(null, chunk, Wire.Readable.ChatCompletion);
        ChatCompletion Chunk(params IReadOnlyList<ChatChoice> choices) => Head(answer, "chat.completion.chunk", choices);
        for (var i = 0; i < settings.Count; i++)
            await Send(Chunk(new ChatChoice(i, null, new("assistant", ""), null, null))).ConfigureAwait(false);
        await foreach (var (index, update) in answer.ReadAsync().ConfigureAwait(false))
        {
            var likelihoods = settings.LogProbs && update.Token is { } token ? AnswerWire.Chat([token], exchange.Model.Model.Tokenizer, settings.TopLogProbs) : null;
            if (update.Text.Length > 0 || likelihoods is not null)
                await Send(Chunk(new ChatChoice(index, null, new(Content: update.Text), likelihoods, null))).ConfigureAwait(false);
            if (update.Finish != Engine.FinishReason.None)
            {
                await Send(Chunk(new ChatChoice(index, null, new(), null, Answer.FinishWord(update.Finish))) with { SteeringReceipt = answer.Receipt(index) })
                    .ConfigureAwait(false);
            }
        }
        if (settings.IncludeUsage)
            await Send(Chunk() with { Usage = AnswerWire.Usage(answer) }).ConfigureAwait(false);
        await stream.EndAsync().ConfigureAwait(false);
    }

    private static ChatCompletion Head(Answer answer, string kind, IReadOnlyList<ChatChoice> choices)
        => new(answer.Id, kind, answer.Created, answer.ModelName, answer.SystemFingerprint, choices);
}
