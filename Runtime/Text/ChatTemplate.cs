using System.Text.Json;
using System.Text.Json.Nodes;

namespace Trimtab.Text;

/// <summary>A turn of a conversation.</summary>
/// <param name="Role">"system", "user", "assistant", or another that the template knows.</param>
/// <param name="Content">The text.</param>
/// <param name="Images">How many images precede the text.</param>
public sealed record ChatMessage(string Role, string Content, int Images = 0);

/// <summary>What a template may use up, and the clock it reads. The defaults are far above what real templates need.</summary>
public sealed record ChatTemplateOptions
{
    /// <summary>Longest output, and longest text made on the way, in UTF-16 chars.</summary>
    public int MaxOutput { get; init; } = 4 << 20;

    /// <summary>Iterations of all loops (and of filters over sequences) together.</summary>
    public int MaxIterations { get; init; } = 1_000_000;

    /// <summary>Depth of macro calls and recursive loops.</summary>
    public int MaxDepth { get; init; } = 200;

    /// <summary>Evaluated nodes, compared or copied items, and produced chars divided by four, together: bounds time and memory.</summary>
    public long MaxWork { get; init; } = 20_000_000;

    /// <summary>What strftime_now reads, in its local time zone.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;
}

/// <summary>
/// A model's chat template: Jinja source that turns a conversation into a prompt, interpreted in a sandbox (no files, no reflection, bounded time
/// and memory) as Hugging Face's <c>apply_chat_template</c> does: Jinja 3.1's immutable sandbox with trim_blocks, lstrip_blocks, loop controls,
/// <c>tojson</c> in transformers' form, <c>raise_exception</c>, <c>strftime_now</c> and the <c>generation</c> tag. Instances are immutable and safe to share.
/// </summary>
public sealed class ChatTemplate
{
    private const int MaxSource = 1 << 20;
    private readonly IReadOnlyList<JinjaStatement> _body;
    private readonly ChatTemplateOptions _options;

    private ChatTemplate(string source, string name, IReadOnlyList<JinjaStatement> body, ChatTemplateOptions options) =>
        (Source, Name, _body, _options) = (source, name, body, options);

    /// <summary>The Jinja source.</summary>
    public string Source { get; }

    /// <summary>The name that errors use, usually a file.</summary>
    public string Name { get; }

    /// <summary>
    /// Vicuna 1.1 as LLaVA-1.5 uses it, for checkpoints without a template: <c>USER: &lt;image&gt;\n{question} ASSISTANT: {answer}&lt;/s&gt;USER: …</c>.
    /// A system message, if there is one, comes first as it is. Content may be a string or a list of parts.
    /// </summary>
    public static ChatTemplate Vicuna11 { get; } = Parse(
        """
        {%- macro text(content) -%}
            {%- if content is string -%}
                {{- content -}}
            {%- else -%}
                {%- for part in content if part.type == 'image' -%}{{- '<image>\n' -}}{%- endfor -%}
                {%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
            {%- endif -%}
        {%- endmacro -%}
        {%- for message in messages -%}
            {%- if message.role == 'system' -%}
                {{- text(message.content) ~ ' ' -}}
            {%- elif message.role == 'user' -%}
                {{- 'USER: ' ~ text(message.content) ~ ' ' -}}
            {%- elif message.role == 'assistant' -%}
                {{- 'ASSISTANT: ' ~ text(message.content) | trim ~ (eos_token or '</s>') -}}
            {%- else -%}
                {{- raise_exception('Vicuna 1.1 knows the roles system, user and assistant, not ' ~ message.role) -}}
            {%- endif -%}
        {%- endfor -%}
        {%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
        """, "vicuna-1.1");

    /// <summary>One question as it stands, for PaliGemma, which was trained on no conversations.</summary>
    public static ChatTemplate OneQuestion { get; } = Parse(
        """
        {%- if messages | length != 1 or messages[0].role != 'user' -%}
            {{- raise_exception('this model takes one message of a user, no conversation') -}}
        {%- endif -%}
        {{- messages[0].content -}}
        """, "one-question");

    /// <summary>Reads a template.</summary>
    /// <param name="source">Jinja source.</param>
    /// <param name="name">The name that errors use.</param>
    /// <param name="options">Limits and clock.</param>
    /// <exception cref="ChatTemplateException">The source is not a template: the message has the line and what was expected.</exception>
    public static ChatTemplate Parse(string source, string name, ChatTemplateOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(source);
        if (source.Length > MaxSource)
            throw new ChatTemplateException(name, 0, $"the source has {source.Length} characters, {MaxSource} are allowed");
        try
        {
            return new ChatTemplate(source, name, JinjaParser.Parse(source), options ?? new ChatTemplateOptions());
        }
        catch (JinjaError error)
        {
            throw new ChatTemplateException(name, error.Line, error.Message, error);
        }
    }

    /// <summary>
    /// The template of a model folder in Hugging Face's layout: <c>chat_template.jinja</c>, else <c>chat_template.json</c>, else
    /// <c>processor_config.json</c>'s or <c>tokenizer_config.json</c>'s member <c>chat_template</c> (a string, or a list of named ones of which "default" is taken).
    /// </summary>
    /// <returns>Null if the folder has none of them.</returns>
    /// <exception cref="ChatTemplateException">A file is there but holds no usable template.</exception>
    public static ChatTemplate? Find(string modelFolder, ChatTemplateOptions? options = null)
    {
        var jinja = Path.Combine(modelFolder, "chat_template.jinja");
        if (File.Exists(jinja))
            return Parse(new FileInfo(jinja).Length <= 4L * MaxSource ? File.ReadAllText(jinja) : throw new ChatTemplateException(jinja, 0, "the file is too large for a template"), jinja, options);
        foreach (var file in (string[])["chat_template.json", "processor_config.json", "tokenizer_config.json"])
        {
            var path = Path.Combine(modelFolder, file);
            if (File.Exists(path) && FromJson(path) is { } source)
                return Parse(source, path, options);
        }
        return null;
    }

    private static string? FromJson(string path)
    {
        if (new FileInfo(path).Length > 256 << 20)
            throw new ChatTemplateException(path, 0, "the file is larger than 256 MiB");
        try
        {
            using var stream = File.OpenRead(path);
            using var document = JsonDocument.Parse(stream);
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object)
                throw new ChatTemplateException(path, 0, $"expected a JSON object, found {root.ValueKind}");
            if (!root.TryGetProperty("chat_template", out var template) || template.ValueKind == JsonValueKind.Null)
                return null;
            if (template.ValueKind == JsonValueKind.String)
                return template.GetString();
            // Older files list several by name, or hold a dictionary of them.
            var named = template.ValueKind switch
            {
                JsonValueKind.Array => template.EnumerateArray().Where(t => t.ValueKind == JsonValueKind.Object).Select(t => (Text(t, "name"), Text(t, "template"))).ToList(),
                JsonValueKind.Object => template.EnumerateObject().Select(t => ((string?)t.Name, t.Value.ValueKind == JsonValueKind.String ? t.Value.GetString() : null)).ToList(),
                _ => throw new ChatTemplateException(path, 0, $"'chat_template' is {template.ValueKind}; expected a string or a list of named templates"),
            };
            return named.Find(t => t.Item1 == "default").Item2 ?? (named.Count == 1 ? named[0].Item2 : null)
                ?? throw new ChatTemplateException(path, 0, $"'chat_template' has no template named \"default\" (found: {string.Join(", ", named.Select(t => t.Item1 ?? "?"))})");
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            throw new ChatTemplateException(path, 0, "not valid JSON: " + error.Message, error);
        }
    }

    private static string? Text(JsonElement owner, string name) =>
        owner.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    /// <summary>Renders a conversation given as JSON, as OpenAI's and Hugging Face's interfaces write it.</summary>
    /// <param name="messages">A list of objects with "role" and "content" (a string, or a list of parts such as {"type":"image"}).</param>
    /// <param name="addGenerationPrompt">Whether the prompt ends where the assistant's answer begins.</param>
    /// <param name="variables">bos_token, eos_token, tools, documents, enable_thinking and whatever else the template reads: JSON (element or
    /// node), strings, numbers, booleans, lists and dictionaries. "tools" and "documents" are none unless given here.</param>
    /// <exception cref="ChatTemplateException">The template refuses the conversation (<c>raise_exception</c>), uses a value wrongly, or exceeds a limit.</exception>
    /// <exception cref="ArgumentException">A variable has a type that is not listed above, or JSON text is not valid Unicode.</exception>
    public string Render(JsonElement messages, bool addGenerationPrompt = true, IReadOnlyDictionary<string, object?>? variables = null) =>
        RenderValue(JinjaJson.Read(messages, "messages"), addGenerationPrompt, variables);

    /// <inheritdoc cref="Render(JsonElement, bool, IReadOnlyDictionary{string, object?}?)"/>
    public string Render(JsonNode messages, bool addGenerationPrompt = true, IReadOnlyDictionary<string, object?>? variables = null) =>
        RenderValue(JinjaJson.Read(messages, "messages"), addGenerationPrompt, variables);

    /// <summary>
    /// Renders a conversation of texts and images. A template that walks through parts of the content gets parts, with one {"type":"image"} per image
    /// before the text; one that takes content as a string gets a string, with <paramref name="imagePlaceholder"/> for each image before the text.
    /// Which of the two a template does is found by rendering a small probe both ways, for each role.
    /// </summary>
    /// <param name="messages">The turns.</param>
    /// <param name="addGenerationPrompt">Whether the prompt ends where the assistant's answer begins.</param>
    /// <param name="variables">As for the other overload.</param>
    /// <param name="imagePlaceholder">What marks an image in the prompt of a template that knows only text.</param>
    /// <exception cref="ChatTemplateException">As for the other overload.</exception>
    public string Render(
        IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt = true, IReadOnlyDictionary<string, object?>? variables = null, string imagePlaceholder = "<image>\n")
    {
        var content = new ChatTemplateContent(conversation => RenderValue(conversation, false, variables));
        return RenderValue(content.Build(messages, imagePlaceholder), addGenerationPrompt, variables);
    }

    private string RenderValue(object? messages, bool addGenerationPrompt, IReadOnlyDictionary<string, object?>? variables)
    {
        var given = new JinjaScope(null);
        given.Set("tools", null);
        given.Set("documents", null);
        foreach (var (name, value) in variables ?? new Dictionary<string, object?>())
            given.Set(name, JinjaJson.Read(value, name));
        given.Set("messages", messages);
        given.Set("add_generation_prompt", addGenerationPrompt);
        var run = new JinjaRun(_options);
        try
        {
            JinjaStatement.ExecuteAll(_body, run, new JinjaScope(given));
            return run.Output;
        }
        catch (JinjaError error)
        {
            throw new ChatTemplateException(Name, error.Line > 0 ? error.Line : run.Line, error.Message, error) { RaisedByTemplate = error.Raised };
        }
    }
}
