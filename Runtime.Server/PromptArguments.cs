using System.CommandLine;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Text;

namespace Trimtab.Server;

/// <summary>The options that make a prompt.</summary>
internal sealed class PromptArguments
{
    private readonly Option<string> _prompt = new("--prompt", "-p")
    {
        Description = "The prompt: a text, @FILE to read one, or - for standard input.",
        HelpName = "TEXT|@FILE|-",
        Required = true,
    };

    private readonly Option<string[]> _images = new("--image", "-i")
    {
        Description = "Images (PNG, JPEG, GIF, BMP, WebP) in order.",
        HelpName = "FILE",
        AllowMultipleArgumentsPerToken = true,
    };

    private readonly Option<string?> _system = new("--system")
    {
        Description = "A system message for the chat template.",
        HelpName = "TEXT",
    };

    private readonly Option<bool> _raw = new("--raw")
    {
        Description = "Take the prompt as it stands instead of through the chat template; each <image> in it takes the next image.",
    };

    private readonly Option<long> _maxPixels = new("--max-pixels")
    {
        Description = "Largest image that is decoded, in pixels.",
        HelpName = "N",
        DefaultValueFactory = _ => ImageDecoder.DefaultMaxPixels,
    };

    public void AddTo(Command command)
    {
        foreach (var option in (ReadOnlySpan<Option>)[_prompt, _images, _system, _raw, _maxPixels])
            command.Options.Add(option);
    }

    /// <summary>Reads the prompt's text and its images.</summary>
    public Prompt Build(ParseResult parse, VisionLanguageModel model, Terminal terminal)
    {
        var (text, images) = Read(parse, terminal);
        return Build(parse, model, text, images);
    }

    /// <summary>A prompt of what <see cref="Read"/> read.</summary>
    public Prompt Build(ParseResult parse, VisionLanguageModel model, string text, IReadOnlyList<Image> images)
        => parse.GetValue(_raw) ? model.Raw(text, images) : model.Chat(text, images, parse.GetValue(_system));

    /// <summary>The same prompt with blank images and without any, on which the shift of this very request is measured.</summary>
    public PromptPair BuildPair(ParseResult parse, VisionLanguageModel model, string text, int images)
    {
        if (parse.GetValue(_raw))
            return model.RawPair(text);
        List<ChatMessage> messages = parse.GetValue(_system) is { } system ? [new("system", system)] : [];
        return model.ChatPair([.. messages, new("user", text, images)]);
    }

    /// <summary>Reads everything that can fail before a model is loaded for it.</summary>
    public (string Text, IReadOnlyList<Image> Images) Read(ParseResult parse, Terminal terminal)
    {
        if (parse.GetValue(_raw) && parse.GetValue(_system) is not null)
            throw new UsageException("--system goes through the chat template; it cannot be used with --raw");
        var maxPixels = parse.GetValue(_maxPixels);
        if (maxPixels < 1)
            throw new UsageException($"--max-pixels is {maxPixels}; expected at least 1");
        var images = (parse.GetValue(_images) ?? []).Select(file => Image.Open(file, maxPixels)).ToList();
        return (Text(parse.GetRequiredValue(_prompt), terminal), images);
    }

    /// <summary>A text as given, from a file (@FILE) or from standard input (-).</summary>
    public static string Text(string argument, Terminal terminal)
        => argument == "-" ? terminal.Input.ReadToEnd()
        : argument.StartsWith('@') ? File.ReadAllText(argument[1..])
        : argument;
}
