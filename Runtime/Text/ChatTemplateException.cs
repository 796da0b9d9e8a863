namespace Trimtab.Text;

/// <summary>A chat template that cannot be read, or that cannot render a conversation.</summary>
public sealed class ChatTemplateException : FormatException
{
    /// <summary>An error of the template <paramref name="template"/>.</summary>
    /// <param name="template">The template's name, usually its file.</param>
    /// <param name="line">1-based line, or 0 if none applies.</param>
    /// <param name="message">What is wrong and what was expected.</param>
    /// <param name="innerException">The cause, if another exception.</param>
    public ChatTemplateException(string template, int line, string message, Exception? innerException = null)
        : base(line > 0 ? $"chat template {template}, line {line}: {message}" : $"chat template {template}: {message}", innerException)
    {
        Template = template;
        Line = line;
        Reason = message;
    }

    /// <summary>The template's name.</summary>
    public string Template { get; }

    /// <summary>1-based line of the template, or 0.</summary>
    public int Line { get; }

    /// <summary>The message without the template's name and line: for an error that the template itself raises
    /// (<c>raise_exception</c>), exactly what it says to the user.</summary>
    public string Reason { get; }

    /// <summary>Whether the template itself raised the error by <c>raise_exception</c>: the conversation is at fault, not the template.</summary>
    public bool RaisedByTemplate { get; internal init; }
}

/// <summary>An error inside the interpreter, before it is known which template it happened in.</summary>
internal sealed class JinjaError(string message, int line = 0, bool raised = false) : Exception(message)
{
    public int Line { get; } = line;

    public bool Raised { get; } = raised;
}
