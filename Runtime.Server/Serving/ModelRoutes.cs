using System.Text.Json;
using Trimtab.Steering;

namespace Trimtab.Server.Serving;

/// <summary>Routes that tell of the model: its name, its tokens, its vectors.</summary>
internal static class ModelRoutes
{
    /// <summary>GET /v1/models.</summary>
    public static Task ModelsAsync(Exchange exchange) => exchange.SendAsync(new("list", [Entry(exchange.Model)]), Wire.Readable.ModelList);

    /// <summary>GET /v1/models/NAME.</summary>
    public static Task ModelAsync(Exchange exchange)
    {
        var name = (string?)exchange.Context.Request.RouteValues["name"];
        return name == exchange.Model.Options.ModelName
            ? exchange.SendAsync(Entry(exchange.Model), Wire.Readable.ModelEntry)
            : throw new ApiException(404, $"there is no such model; this server has '{exchange.Model.Options.ModelName}'", "model", "model_not_found");
    }

    /// <summary>POST /tokenize: prompt (or content) as it stands, or messages through the chat template.</summary>
    public static async Task TokenizeAsync(Exchange exchange)
    {
        var model = exchange.Model.Model;
        using var body = await exchange.ReadBodyAsync().ConfigureAwait(false);
        var request = new Fields(body.RootElement);
        request.Ignore("model");
        int[] ids;
        if (request.Any("messages") is not null)
        {
            var conversation = Conversation.ReadMessages(request, exchange.Model.Options);
            ids = (await exchange.Model.QuestionAsync(exchange, conversation, answers: 0).ConfigureAwait(false)).Prompt.Tokens;
        }
        else
        {
            var text = request.Text("prompt") ?? request.Text("content") ?? throw ApiException.Invalid("prompt", "is missing; expected a string, or messages");
            SteeredModel.CheckLength(text.Length, SteeredModel.LongestText, "prompt");
            ids = model.Tokenizer.Encode(text, request.Flag("add_special_tokens") ?? request.Flag("add_special") ?? true);
        }
        request.End();
        await exchange.SendAsync(new(ids.Length, model.ContextLength, ids), Wire.Readable.Tokenized).ConfigureAwait(false);
    }

    /// <summary>POST /detokenize.</summary>
    public static async Task DetokenizeAsync(Exchange exchange)
    {
        using var body = await exchange.ReadBodyAsync().ConfigureAwait(false);
        var request = new Fields(body.RootElement);
        request.Ignore("model");
        var tokens = request.List("tokens", 1 << 20) ?? throw ApiException.Invalid("tokens", "is missing; expected an array of token ids");
        var ids = tokens.Select(token => token.Value.ValueKind == JsonValueKind.Number && token.Value.TryGetInt32(out var id) && id >= 0
            ? id : throw ApiException.Invalid(token.Path, "expected a token id")).ToArray();
        request.End();
        await exchange.SendAsync(new(exchange.Model.Model.Tokenizer.Decode(ids)), Wire.Readable.Detokenized).ConfigureAwait(false);
    }

    /// <summary>GET /v1/steering/vectors.</summary>
    public static Task VectorsAsync(Exchange exchange)
    {
        var (model, policy) = (exchange.Model, exchange.Model.Policy);
        return exchange.SendAsync(new("list", [.. model.Vectors.Sets.Values.Select(Entry)],
            new(policy.Version, policy.Hash, [.. PolicyFile.Words(policy.RightsOf(exchange.Caller))], Entry(policy.Images, model.Vectors), Entry(policy.Text, model.Vectors))),
            Wire.Readable.SteeringList);
    }

    private static ModelEntry Entry(SteeredModel model)
    {
        var spec = model.Model.Network.Spec;
        return new(model.Options.ModelName, "model", 0, "trimtab", model.Model.ContextLength, spec.Vision is not null, model.Model.Network.Fingerprint, spec.Text.Layers);
    }

    private static VectorEntry Entry(NamedVectors set)
    {
        var vectors = set.Vectors;
        var point = vectors.OperatingPoint;
        return new(set.Name, vectors.Hash,
            new LayerSet(Enumerable.Range(1, vectors.Layers).Where(layer => !vectors[layer].IsEmpty)).ToString(),
            [.. Enumerable.Range(1, vectors.Layers).Select(layer => vectors[layer].IsEmpty ? 0 : System.Numerics.Tensors.TensorPrimitives.Norm(vectors[layer]))],
            vectors.Metadata.GetValueOrDefault("method"), vectors.Metadata.GetValueOrDefault("images"),
            point is null ? null : new(point.Alpha, SteeringRequest.Word(point.Scope), point.Layers?.ToString() ?? "all"), set.Added);
    }

    private static RuleEntry Entry(PolicyRule rule, VectorCatalog catalog)
        => new(rule.Required, rule.Vectors, rule.Alpha, rule.Floor, rule.Ceiling, SteeringRequest.Word(rule.Scope), rule.Layers?.ToString() ?? "all",
            rule.Raise ? "raise" : "refuse", Policy.Missing(rule, catalog));
}
