using System.Text.Json;
using Trimtab.Text;

namespace Trimtab.Server.Serving;

/// <summary>The turns of a request and its images in order. Shared by /v1/chat/completions and /v1/responses, whose parts differ in names alone.</summary>
/// <param name="Turns">The turns.</param>
/// <param name="Images">URLs of the images of all turns, with the field of each.</param>
internal sealed record Conversation(IReadOnlyList<ChatMessage> Turns, IReadOnlyList<(string Url, string Param)> Images)
{
    private const int MostTurns = 2048;

    /// <summary>Reads the messages of a chat completion.</summary>
    public static Conversation ReadMessages(Fields request, ServeOptions options)
    {
        var messages = request.List("messages", MostTurns) ?? throw ApiException.Invalid("messages", "is missing; expected an array");
        if (messages.Count == 0)
            throw ApiException.Invalid("messages", "is empty; expected at least one message");
        var (turns, images) = (new List<ChatMessage>(), new List<(string, string)>());
        foreach (var (value, path) in messages)
        {
            var message = new Fields(value, path);
            var role = message.Word("role", "system", "developer", "user", "assistant") ?? throw ApiException.Invalid(message.At("role"), "is missing");
            message.Ignore("name");
            message.Refuse("refusal", e => e.ValueKind == JsonValueKind.String && e.GetString()!.Length == 0);
            message.Refuse("annotations", e => e.ValueKind == JsonValueKind.Array && e.GetArrayLength() == 0);
            foreach (var unknown in (ReadOnlySpan<string>)["audio", "tool_calls", "function_call", "tool_call_id"])
                message.Refuse(unknown, e => e.ValueKind == JsonValueKind.Array && e.GetArrayLength() == 0);
            turns.Add(Turn(role, message, images, options));
            message.End();
        }
        return new(turns, images);
    }

    /// <summary>Reads the input and instructions of a response.</summary>
    public static Conversation ReadInput(Fields request, ServeOptions options)
    {
        var (turns, images) = (new List<ChatMessage>(), new List<(string, string)>());
        if (request.Text("instructions") is { Length: > 0 } instructions)
            turns.Add(new("system", instructions));
        if (request.Any("input") is not { } input)
            throw ApiException.Invalid("input", "is missing; expected a string or an array");
        if (input.ValueKind == JsonValueKind.String)
        {
            turns.Add(new("user", Fields.Text(input, "input")));
            return new(turns, images);
        }
        var items = request.List("input", MostTurns)!;
        if (items.Count == 0)
            throw ApiException.Invalid("input", "is empty; expected at least one item");
        foreach (var (value, path) in items)
        {
            var item = new Fields(value, path);
            if (item.Text("type") is { } type and not "message")
                throw ApiException.Unsupported(item.At("type"), $"items of type '{type}' are not taken, only messages");
            var role = item.Word("role", "system", "developer", "user", "assistant") ?? throw ApiException.Invalid(item.At("role"), "is missing");
            item.Ignore("id", "status", "phase");
            turns.Add(Turn(role, item, images, options));
            item.End();
        }
        return new(turns, images);
    }

    private static ChatMessage Turn(string role, Fields message, List<(string, string)> images, ServeOptions options)
    {
        role = role == "developer" ? "system" : role;
        if (message.Any("content") is not { } content)
            throw ApiException.Invalid(message.At("content"), "is missing; expected a string or an array of parts");
        if (content.ValueKind == JsonValueKind.String)
            return new(role, Fields.Text(content, message.At("content")));
        var (texts, before) = (new List<string>(), images.Count);
        foreach (var (value, path) in message.List("content", MostTurns)!)
        {
            var part = new Fields(value, path);
            switch (part.RequiredText("type"))
            {
                case "text" or "input_text" or "output_text":
                    texts.Add(part.RequiredText("text"));
                    part.Ignore("annotations", "logprobs");
                    break;
                case "image_url":
                    Add(ImageUrl(part), part.At("image_url"));
                    break;
                case "input_image":
                    part.Ignore("detail"); // the model has one resolution
                    part.Refuse("file_id", why: "no files are stored");
                    Add(part.RequiredText("image_url"), part.At("image_url"));
                    break;
                case var type:
                    throw ApiException.Unsupported(part.At("type"), $"parts of type '{type}' are not taken, only text and images");
            }
            part.End();

            void Add(string url, string param)
            {
                if (role != "user")
                    throw ApiException.Invalid(param, $"is an image in a message of the role {role}; expected images in the user's messages");
                if (images.Count == options.MaxImages)
                    throw ApiException.Invalid(param, $"is one image more than the {options.MaxImages} that a request may have", "too_many_images");
                images.Add((url, param));
            }
        }
        return new(role, string.Join('\n', texts), images.Count - before);
    }

    private static string ImageUrl(Fields part)
    {
        if (part.Any("image_url") is { ValueKind: JsonValueKind.String } plain)
            return Fields.Text(plain, part.At("image_url"));
        var image = part.Object("image_url") ?? throw ApiException.Invalid(part.At("image_url"), "is missing");
        image.Ignore("detail");
        var url = image.RequiredText("url");
        image.End();
        return url;
    }
}
