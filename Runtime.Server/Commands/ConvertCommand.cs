using System.CommandLine;
using Trimtab.Steering;

namespace Trimtab.Server.Commands;

/// <summary>convert: shift vectors between safetensors and llama.cpp's control vectors.</summary>
internal static class ConvertCommand
{
    public static Command Create(Terminal terminal)
    {
        var source = new Argument<string?>("input") { Description = "A vector file: .safetensors or .gguf.", Arity = ArgumentArity.ZeroOrOne };
        var target = new Argument<string?>("output") { Description = "The file to write; its ending says the form.", Arity = ArgumentArity.ZeroOrOne };
        var vectors = new Option<string?>("--vectors") { Description = "The vector file, as an option.", HelpName = "FILE" };
        var file = new Option<string?>("--out", "-o") { Description = "The file to write, as an option.", HelpName = "FILE" };
        var command = new Command(
            "convert", "Converts shift vectors. A llama.cpp control vector adds direction.N after its 0-based layer N, our decoder layer N + 1: " +
            "the sign turns, the index moves, and layer 1 has no place there.") { source, target, vectors, file };
        command.SetAction(parse =>
        {
            var from = parse.GetValue(vectors) ?? parse.GetValue(source) ?? throw new UsageException("convert needs a vector file");
            var to = parse.GetValue(file) ?? (parse.GetValue(vectors) is null ? parse.GetValue(target) : parse.GetValue(source))
                ?? throw new UsageException("convert needs a file to write");
            if (Path.GetExtension(to).ToLowerInvariant() is not (".safetensors" or ".gguf"))
                throw new UsageException($"{to}: expected a name that ends in .safetensors or .gguf");
            foreach (var note in ShiftVectors.Open(from).Save(to))
                terminal.Error.WriteLine($"trimtab: {note}");
            terminal.Output.WriteLine(to);
            return 0;
        });
        return command;
    }
}
