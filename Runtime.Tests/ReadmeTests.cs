using System.Text.RegularExpressions;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Steering;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests;

/// <summary>The README's library example compiles, runs, and is this code to the letter.</summary>
[NonParallelizable]
public partial class ReadmeTests
{
    internal static string Root
    {
        get
        {
            var folder = new DirectoryInfo(AppContext.BaseDirectory);
            while (!File.Exists(Path.Combine(folder.FullName, "Native.sln")))
                folder = folder.Parent ?? throw new DirectoryNotFoundException("Native.sln is not above the tests");
            return folder.FullName;
        }
    }

    [Test]
    public async Task The_example_runs()
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-readme-").FullName;
        var (before, output) = (Environment.CurrentDirectory, Console.Out);
        using var text = new StringWriter();
        try
        {
            Environment.CurrentDirectory = folder;
            Console.SetOut(text);
            var path = TinyModel.WriteLlava(Path.Combine(folder, "model"));
            Image.Noise(64, 48, 5).Save("photo.png");
            File.Move("photo.png", "photo.jpg"); // the signature decides, not the name
            ShiftVectors.Create([new float[48], null, new float[48]]).Save("cmrm.safetensors");
            await Example(path, CancellationToken.None);
        }
        finally
        {
            Console.SetOut(output);
            Environment.CurrentDirectory = before;
            Directory.Delete(folder, true);
        }
        Assert.That(text.ToString(), Is.Not.Empty);
    }

    [Test]
    public void The_example_is_this_code()
    {
        var readme = File.ReadAllText(Path.Combine(Root, "README.md"));
        var source = File.ReadAllText(Path.Combine(Root, "Runtime.Tests", "ReadmeTests.cs"));
        var shown = Lines(CSharpBlock().Match(readme).Groups[1].Value);
        Assert.That(shown, Has.Length.EqualTo(5));
        Assert.That(Lines(source), Is.SupersetOf(shown));
    }

    private static string[] Lines(string text) => text.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);

    private static async Task Example(string path, CancellationToken cancel)
    {
        using var model = VisionLanguageModel.Open(path, cancel: cancel);
        var prompt = model.Chat("What is shown in this picture?", [Image.Open("photo.jpg")]);
        var options = new GenerationOptions { Steering = new(ShiftVectors.Open("cmrm.safetensors"), Alpha: 1), MaxTokens = 64 };
        await foreach (var update in model.GenerateAsync(prompt, options, cancel))
            Console.Write(update.Text);
    }

    [GeneratedRegex("```csharp\n(.*?)```", RegexOptions.Singleline)]
    private static partial Regex CSharpBlock();
}
