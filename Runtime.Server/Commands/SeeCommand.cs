using System.CommandLine;
using Trimtab.Imaging;

namespace Trimtab.Server.Commands;

/// <summary>see: what an image is once decoded, and what a model sees of it.</summary>
internal static class SeeCommand
{
    public static Command Create(Terminal terminal)
    {
        var image = new Option<string>("--image", "-i") { Description = "The image.", HelpName = "FILE", Required = true };
        var file = new Option<string>("--out", "-o") { Description = "Where the decoded image goes: .png or .ppm.", HelpName = "FILE", Required = true };
        var model = new Option<string?>("--model", "-m") { Description = "Also write what this model sees, beside the output as NAME.model.EXT.", HelpName = "PATH" };
        var mmproj = new Option<string?>("--mmproj") { Description = "The vision file of a GGUF model.", HelpName = "FILE" };
        var maxPixels = new Option<long>("--max-pixels") { Description = "Largest image that is decoded, in pixels.", HelpName = "N", DefaultValueFactory = _ => ImageDecoder.DefaultMaxPixels };
        var command = new Command("see", "Decodes an image (upright, on white) and writes it; with a model, also what the model sees.") { image, file, model, mmproj, maxPixels };
        command.SetAction(parse =>
        {
            var target = parse.GetRequiredValue(file);
            if (Path.GetExtension(target).ToLowerInvariant() is not (".png" or ".ppm"))
                throw new UsageException($"--out {target}: expected a name that ends in .png or .ppm");
            var decoded = Image.Open(parse.GetRequiredValue(image), parse.GetValue(maxPixels));
            ModelFiles? files = null;
            if (parse.GetValue(model) is { } path)
            {
                files = ModelFiles.Open(path, parse.GetValue(mmproj));
                if (files.Processor is null)
                    throw new ArgumentException($"{path} is a language model without a vision encoder; it sees no images");
            }
            decoded.Save(target);
            terminal.Output.WriteLine($"{target}: {decoded.Width} x {decoded.Height}");
            if (files is not null)
            {
                var seen = files.Processor!.Prepare(decoded);
                var beside = Path.ChangeExtension(target, ".model" + Path.GetExtension(target));
                seen.Save(beside);
                terminal.Output.WriteLine($"{beside}: {seen.Width} x {seen.Height}, {files.ImageTokens(decoded.Width, decoded.Height)} tokens");
            }
            return 0;
        });
        return command;
    }
}
