namespace Trimtab.Text;

/// <summary>Writes messages the way a template reads them: content as a string, or as a list of parts. A probe rendered both ways tells.</summary>
internal sealed class ChatTemplateContent(Func<object?, string> render)
{
    private const string Probe = "zqprobeqz";
    private readonly Dictionary<string, (bool Text, bool Parts)> _roles = [];

    public List<object?> Build(IReadOnlyList<ChatMessage> messages, string imagePlaceholder)
    {
        var built = new List<object?>(messages.Count);
        foreach (var message in messages)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(message.Images, nameof(messages));
            var (takesText, takesParts) = Style(message.Role);
            // Parts for images if the template shows them, and wherever a string would be lost; else the simple form, which every template knows.
            var showsImages = message.Images > 0 && takesParts && ShowsImages(message.Role);
            var text = message.Images > 0 && !showsImages ? string.Concat(Enumerable.Repeat(imagePlaceholder, message.Images)) + message.Content : message.Content;
            built.Add(Message(message.Role, showsImages || takesParts && !takesText ? Parts(text, showsImages ? message.Images : 0) : text));
        }
        return built;
    }

    private (bool Text, bool Parts) Style(string role)
    {
        if (!_roles.TryGetValue(role, out var style))
            _roles[role] = style = (Shows(role, Probe), Shows(role, Parts(Probe, 0)));
        return style;
    }

    /// <summary>Whether a message's text arrives in the prompt, and as text: not inside a printed list.</summary>
    private bool Shows(string role, object content) =>
        Try(role, content) is { } prompt && prompt.Contains(Probe, StringComparison.Ordinal) && !prompt.Contains($"'{Probe}'", StringComparison.Ordinal) && !prompt.Contains($"\"{Probe}\"", StringComparison.Ordinal);

    private bool ShowsImages(string role) => Try(role, Parts(Probe, 1)) is { } with && Try(role, Parts(Probe, 0)) is { } without && with != without;

    private string? Try(string role, object content)
    {
        // Templates may want turns that alternate, starting with the user's; the user's own style is known before another role's is tried.
        var user = Message("user", role == "user" ? content : Style("user") is { Parts: true, Text: false } ? Parts("q", 0) : "q");
        List<object?> conversation = role switch
        {
            "user" => [user],
            "system" or "developer" => [Message(role, content), user],
            _ => [user, Message(role, content)],
        };
        try
        {
            return render(conversation);
        }
        catch (ChatTemplateException)
        {
            return null;
        }
    }

    private static JinjaDict Message(string role, object content)
    {
        var message = new JinjaDict();
        message["role"] = role;
        message["content"] = content;
        return message;
    }

    private static List<object?> Parts(string text, int images)
    {
        var parts = new List<object?>();
        for (var i = 0; i < images; i++)
            parts.Add(Part("image"));
        var last = Part("text");
        last["text"] = text;
        parts.Add(last);
        return parts;
    }

    private static JinjaDict Part(string type)
    {
        var part = new JinjaDict();
        part["type"] = type;
        return part;
    }
}
