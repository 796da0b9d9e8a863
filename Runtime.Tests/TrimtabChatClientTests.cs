using System.Text.Json;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Steering;

namespace Trimtab.Tests;

/// <summary>IChatClient over the demo model: the same answers as the library's, steering, images, usage, JSON.</summary>
public class TrimtabChatClientTests
{
    private static string Demo => Path.Combine(AppContext.BaseDirectory, "demo-vlm");

    private VisionLanguageModel _model = null!;

    [OneTimeSetUp]
    public void Open() => _model = VisionLanguageModel.Open(Demo);

    [OneTimeTearDown]
    public void Close() => _model.Dispose();

    private static byte[] Png(int seed)
    {
        var path = Path.Combine(Path.GetTempPath(), $"trimtab-{Guid.NewGuid():N}.png");
        Image.Noise(56, 56, (ulong)seed).Save(path);
        var bytes = File.ReadAllBytes(path);
        File.Delete(path);
        return bytes;
    }

    private static ChatMessage Ask(string text, byte[]? image = null)
        => new(ChatRole.User, image is null ? [new TextContent(text)] : [new DataContent(image, "image/png"), new TextContent(text)]);

    [Test]
    public async Task Answers_are_the_librarys_and_carry_usage()
    {
        var png = Png(3);
        var prompt = _model.Chat("How do I bake a cake?", [ImageDecoder.Decode(png, "png")]);
        var expected = await _model.RunAsync(prompt, new() { MaxTokens = 20 });
        var client = new TrimtabChatClient(_model);
        var reply = await client.GetResponseAsync([Ask("How do I bake a cake?", png)], new() { MaxOutputTokens = 20 });
        Assert.Multiple(() =>
        {
            Assert.That(reply.Text, Is.EqualTo(_model.Tokenizer.Decode([.. expected.Generated], skipSpecial: true)));
            Assert.That(reply.Usage!.InputTokenCount, Is.EqualTo(prompt.Tokens.Length));
            Assert.That(reply.Usage!.OutputTokenCount, Is.EqualTo(expected.Generated.Count));
            Assert.That(reply.FinishReason, Is.EqualTo(expected.Finish == FinishReason.Stop ? ChatFinishReason.Stop : ChatFinishReason.Length));
            Assert.That(client.GetService(typeof(VisionLanguageModel)), Is.SameAs(_model));
        });
    }

    [Test]
    public async Task Steering_is_the_clients_unless_the_request_has_its_own()
    {
        var vectors = ShiftVectors.Open(Path.Combine(Demo, "cmrm.safetensors"));
        var (strong, png) = (new SteeringOptions(vectors, 3, SteeringScope.Prefill), Png(4));
        var prompt = _model.Chat("What colour is the circle?", [ImageDecoder.Decode(png, "png")]);
        async Task<string> Direct(SteeringOptions? steering) => _model.Tokenizer.Decode([.. (await _model.RunAsync(prompt, new() { MaxTokens = 12, Steering = steering })).Generated], skipSpecial: true);
        async Task<string> Asked(AdditionalPropertiesDictionary? properties)
            => (await new TrimtabChatClient(_model, strong).GetResponseAsync([Ask("What colour is the circle?", png)], new() { MaxOutputTokens = 12, AdditionalProperties = properties })).Text;
        Assert.That(await Asked(null), Is.EqualTo(await Direct(strong)));
        Assert.That(await Asked(new() { ["steering"] = strong with { Alpha = .5f } }), Is.EqualTo(await Direct(strong with { Alpha = .5f })));
        Assert.That(await Asked(new() { ["steering"] = null }), Is.EqualTo(await Direct(null)));
        Assert.That(async () => await Asked(new() { ["steering"] = "off" }), Throws.ArgumentException.With.Message.Contains("String"));
    }

    [Test]
    public async Task Answers_keep_to_a_schema()
    {
        var schema = JsonDocument.Parse("""{"type":"object","properties":{"shape":{"enum":["circle","square"]},"count":{"type":"integer","minimum":0,"maximum":9}},"required":["shape","count"],"additionalProperties":false}""").RootElement;
        var reply = await new TrimtabChatClient(_model).GetResponseAsync([Ask("What is shown?", Png(5))], new() { MaxOutputTokens = 300, ResponseFormat = ChatResponseFormat.ForJsonSchema(schema) });
        Assert.That(reply.FinishReason, Is.EqualTo(ChatFinishReason.Stop), reply.Text);
        var answer = JsonDocument.Parse(reply.Text).RootElement;
        Assert.That(answer.GetProperty("shape").GetString(), Is.EqualTo("circle").Or.EqualTo("square"));
        Assert.That(answer.GetProperty("count").GetInt32(), Is.InRange(0, 9));
    }

    [Test]
    public void What_the_model_cannot_take_is_refused()
    {
        var client = new TrimtabChatClient(_model);
        Assert.That(async () => await client.GetResponseAsync([new(ChatRole.User, [new UriContent("http://example.com/a.png", "image/png")])]), Throws.ArgumentException.With.Message.Contains("UriContent"));
        Assert.That(async () => await client.GetResponseAsync([Ask("x")], new() { Tools = [AIFunctionFactory.Create(() => 1)] }), Throws.ArgumentException.With.Message.Contains("tools"));
    }

    [Test]
    public async Task A_host_gets_the_model_and_a_steered_client()
    {
        using var services = new ServiceCollection().AddTrimtab(Demo, vectors: Path.Combine(Demo, "cmrm.safetensors")).BuildServiceProvider();
        var reply = await services.GetRequiredService<IChatClient>().GetResponseAsync([Ask("Hello")], new() { MaxOutputTokens = 4 });
        Assert.That(reply.Usage!.OutputTokenCount, Is.InRange(1, 4));
        using var broken = new ServiceCollection().AddTrimtab(Demo, vectors: Path.Combine(Demo, "gone.safetensors")).BuildServiceProvider();
        Assert.That(() => broken.GetRequiredService<IChatClient>(), Throws.InstanceOf<Trimtab.Checkpoints.InvalidCheckpointException>());
    }
}
