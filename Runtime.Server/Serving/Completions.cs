using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Trimtab.Engine;
using Trimtab.Kernels;

namespace Trimtab.Server.Serving;

/// <summary>POST /v1/completions: a text goes on. It takes no images: an image placeholder in the text finds none and is refused.</summary>
internal static class Completions
{
    /// <summary>Answers a request.</summary>
    public static async Task RunAsync(Exchange exchange)
    {
        var (question, settings) = await ReadAsync(exchange).ConfigureAwait(false);
        using var answer = await exchange.Model.AskAsync(exchange, "cmpl-", question, settings).ConfigureAwait(false);
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
        var ids = ReadPrompt(request, exchange.Model);
        var settings = Read(request, exchange.Model);
        request.End();
        exchange.Memory.Keep(0);
        return (exchange.Model.Ask(ids), settings);
    }

    private static int[] ReadPrompt(Fields request, SteeredModel model)
    {
        if (request.Any("prompt") is not { } prompt)
            throw ApiException.Invalid("prompt", "is missing; expected a string or an array of token ids");
        if (prompt.ValueKind == JsonValueKind.Array && prompt.GetArrayLength() == 1 && prompt[0].ValueKind is JsonValueKind.String or JsonValueKind.Array)
            prompt = prompt[0];
        if (prompt.ValueKind == JsonValueKind.String)
            return model.Encode(Fields.Text(prompt, "prompt"));
        if (prompt.ValueKind != JsonValueKind.Array)
            throw ApiException.Invalid("prompt", $"is {Fields.Kind(prompt)}; expected a string or an array of token ids");
        if (prompt.GetArrayLength() > model.Model.ContextLength)
            throw ApiException.Invalid("prompt", $"has {prompt.GetArrayLength()} tokens; the context holds {model.Model.ContextLength}", "context_length_exceeded");
        return [.. prompt.EnumerateArray().Select((id, i) => id.ValueKind == JsonValueKind.Number && id.TryGetInt32(out var value) && value >= 0 && value < model.Vocabulary
            ? value : throw ApiException.Invalid($"prompt[{i}]", $"expected a token id below {model.Vocabulary}, or one prompt in each request"))];
    }

    private static AnswerSettings Read(Fields request, SteeredModel model)
    {
        var settings = AnswerSettings.ReadCommon(request, model.Options, model.Layers, model.Vocabulary, "max_tokens");
        var top = request.Integer("logprobs", 0, 5);
        request.Refuse("echo", e => e.ValueKind == JsonValueKind.False);
        request.Refuse("suffix", e => e.ValueKind == JsonValueKind.String && e.ValueEquals(""));
        request.Refuse("best_of", e => e.ValueKind == JsonValueKind.Number && e.TryGetInt32(out var best) && best == 1);
        return settings with
        {
            Operation = "text_completion",
            MaxTokens = settings.MaxTokens ?? 16, // as OpenAI has it
            Count = (int)(request.Integer("n", 1, model.Options.MaxCount) ?? 1),
            Stop = AnswerSettings.ReadStop(request),
            LogProbs = top is not null,
            TopLogProbs = (int)(top ?? 0),
            Sampling = settings.Sampling with { TopLogProbs = top is { } most ? Math.Max(1, (int)most) : 0 },
            Format = ResponseFormat.ReadChat(request, model.Model.Tokenizer),
            IncludeUsage = AnswerSettings.ReadIncludeUsage(request, settings.Stream),
        };
    }

    private static async Task WholeAsync(Exchange exchange, Answer answer)
    {
        var settings = answer.Settings;
        var collected = await AnswerWire.CollectAsync(answer).ConfigureAwait(false);
        var choices = collected.Select((choice, i) =>
        {
            var offset = 0;
            return new TextChoice(i, choice.Text.ToString(), settings.LogProbs ? AnswerWire.Text(choice.Tokens, exchange.Model.Model.Tokenizer, settings.TopLogProbs, ref offset) : null,
                Answer.FinishWord(answer.Ended[i]!.Finish));
        });
        await exchange.SendAsync(Head(answer, [.. choices]) with
        {
            Usage = AnswerWire.Usage(answer),
            SteeringReceipt = answer.Receipt(0),
            SteeringReceipts = AnswerWire.Receipts(answer),
        }, Wire.Readable.TextCompletion).ConfigureAwait(false);
    }

    private static async Task StreamAsync(Exchange exchange, Answer answer)
    {
        var (settings, stream, offsets) = (answer.Settings, exchange.Stream(), new int[answer.Settings.Count]);
        await foreach (var (index, update) in answer.ReadAsync().ConfigureAwait(false))
        {
            var likelihoods = settings.LogProbs && update.Token is { } token
                ? AnswerWire.Text([token], exchange.Model.Model.Tokenizer, settings.TopLogProbs, ref offsets[index]) : null;
            var ended = update.Finish != FinishReason.None;
            if (update.Text.Length == 0 && likelihoods is null && !ended)
                continue;
            await stream.SendAsync(null, Head(answer, [new(index, update.Text, likelihoods, ended ? Answer.FinishWord(update.Finish) : null)]) with
            {
                SteeringReceipt = ended ? answer.Receipt(index) : null,
            }, Wire.Readable.TextCompletion).ConfigureAwait(false);
        }
        if (settings.IncludeUsage)
            await stream.SendAsync(null, Head(answer, []) with { Usage = AnswerWire.Usage(answer) }, Wire.Readable.TextCompletion).ConfigureAwait(false);
        await stream.EndAsync().ConfigureAwait(false);
    }

    private static TextCompletion Head(Answer answer, IReadOnlyList<TextChoice> choices)
        => new(answer.Id, "text_completion", answer.Created, answer.ModelName, answer.SystemFingerprint, choices);
}
