#pragma warning disable OPENAI001 // the client of responses is declared experimental
using System.ClientModel;
using System.Diagnostics;
using System.Text.Json;
using OpenAI.Chat;
using OpenAI.Responses;

namespace Trimtab.Tests.Serving;

/// <summary>OpenAI's own clients, unchanged, against the server.</summary>
[NonParallelizable]
public class OpenAIClientTests
{
    private Served _served = null!;

    [OneTimeSetUp]
    public async Task Start() => _served = await Served.StartAsync();

    [OneTimeTearDown]
    public async Task Stop()
    {
        Assert.That(_served.Log, Is.Empty);
        await _served.DisposeAsync();
    }

    private ChatClient Client(string model = "demo")
        => new(model, new ApiKeyCredential("none"), new OpenAI.OpenAIClientOptions { Endpoint = new(_served.Server.Url + "/v1") });

    private static ChatMessage[] Ask(bool image = true) => image
        ? [new UserChatMessage(ChatMessageContentPart.CreateTextPart("How many shapes do you see?"), ChatMessageContentPart.CreateImagePart(BinaryData.FromBytes(File.ReadAllBytes(Served.ImageFile())), "image/png"))]
        : [new SystemChatMessage("Be brief."), new UserChatMessage("How are you?")];

    [TestCase(false)]
    [TestCase(true)]
    public async Task The_dotnet_client_streams_what_it_gets_whole(bool image)
    {
        var options = new ChatCompletionOptions { Temperature = 0.8f, MaxOutputTokenCount = 12, IncludeLogProbabilities = true, TopLogProbabilityCount = 3 };
        ChatCompletion whole = await Client().CompleteChatAsync(Ask(image), options);
        var (text, finish, likelihoods) = ("", default(ChatFinishReason?), 0);
        options = new() { Temperature = 0, MaxOutputTokenCount = 12, IncludeLogProbabilities = true };
        whole = await Client().CompleteChatAsync(Ask(image), options);
        ChatTokenUsage? usage = null;
        await foreach (var update in Client().CompleteChatStreamingAsync(Ask(image), options))
        {
            text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            finish ??= update.FinishReason;
            likelihoods += update.ContentTokenLogProbabilities.Count;
            usage ??= update.Usage;
        }
        Assert.Multiple(() =>
        {
            Assert.That(text, Is.EqualTo(whole.Content[0].Text));
            Assert.That(finish, Is.EqualTo(whole.FinishReason));
            Assert.That(likelihoods, Is.EqualTo(whole.ContentTokenLogProbabilities.Count).And.GreaterThan(0));
            Assert.That(usage?.OutputTokenCount, Is.EqualTo(whole.Usage.OutputTokenCount));
            Assert.That(whole.Usage.InputTokenDetails.CachedTokenCount, Is.GreaterThan(0), "it was asked before");
        });
    }

    [Test]
    public async Task The_dotnet_client_gets_json_by_schema()
    {
        var schema = BinaryData.FromString("""{"type":"object","properties":{"shapes":{"type":"integer","minimum":0,"maximum":9},"sure":{"type":"boolean"}},"required":["shapes","sure"],"additionalProperties":false}""");
        ChatCompletion answer = await Client().CompleteChatAsync(Ask(), new ChatCompletionOptions
        {
            MaxOutputTokenCount = 100,
            ResponseFormat = ChatResponseFormat.CreateJsonSchemaFormat("shapes", schema, jsonSchemaIsStrict: true),
        });
        var json = JsonDocument.Parse(answer.Content[0].Text).RootElement;
        Assert.That(json.GetProperty("shapes").GetInt32(), Is.InRange(0, 9));
        Assert.That(json.GetProperty("sure").ValueKind, Is.AnyOf(JsonValueKind.True, JsonValueKind.False));
    }

    [Test]
    public async Task The_dotnet_client_gets_errors()
    {
        Assert.That((await Assert.ThrowsAsync<ClientResultException>(() => Client("other").CompleteChatAsync(Ask(false))))!.Status, Is.EqualTo(404));
        var error = (await Assert.ThrowsAsync<ClientResultException>(() => Client().CompleteChatAsync(Ask(false), new ChatCompletionOptions { Temperature = 3 })))!;
        Assert.That(error.Status, Is.EqualTo(400));
        Assert.That(error.Message, Does.Contain("temperature"));
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task The_dotnet_client_gets_responses_whole_and_streamed(bool image)
    {
        var client = new ResponsesClient(new ApiKeyCredential("none"), new ResponsesClientOptions { Endpoint = new(_served.Server.Url + "/v1") });
        List<ResponseContentPart> parts = [ResponseContentPart.CreateInputTextPart("How many shapes do you see?")];
        if (image)
            parts.Insert(0, ResponseContentPart.CreateInputImagePart(BinaryData.FromBytes(await File.ReadAllBytesAsync(Served.ImageFile()), "image/png"), ResponseImageDetailLevel.Auto));
        CreateResponseOptions Options() => new("demo", [ResponseItem.CreateUserMessageItem(parts)]) { Temperature = 0, MaxOutputTokenCount = 12, Instructions = "Be brief." };
        ResponseResult whole = await client.CreateResponseAsync(Options());
        var (text, kinds, ended) = ("", new List<string>(), default(ResponseResult));
        var options = Options();
        options.StreamingEnabled = true;
        await foreach (var update in await client.CreateResponseStreamingAsync(options))
        {
            kinds.Add(update.GetType().Name);
            text += (update as StreamingResponseOutputTextDeltaUpdate)?.Delta;
            ended ??= (update as StreamingResponseCompletedUpdate)?.Response ?? (update as StreamingResponseIncompleteUpdate)?.Response;
        }
        Assert.Multiple(() =>
        {
            Assert.That(whole.GetOutputText(), Is.Not.Empty);
            Assert.That(text, Is.EqualTo(whole.GetOutputText()));
            Assert.That(ended?.GetOutputText(), Is.EqualTo(whole.GetOutputText()));
            Assert.That(ended?.Status, Is.EqualTo(whole.Status));
            Assert.That(ended?.Usage.OutputTokenCount, Is.EqualTo(whole.Usage.OutputTokenCount).And.GreaterThan(0));
            Assert.That(whole.Usage.InputTokenCount, image ? Is.GreaterThan(16) : Is.GreaterThan(0));
            Assert.That(kinds[0], Is.EqualTo(nameof(StreamingResponseCreatedUpdate)));
            Assert.That(kinds, Has.None.Contains("Unknown"));
        });
    }

    [Test]
    public async Task The_dotnet_client_gets_responses_by_schema_and_errors()
    {
        var client = new ResponsesClient(new ApiKeyCredential("none"), new ResponsesClientOptions { Endpoint = new(_served.Server.Url + "/v1") });
        var schema = BinaryData.FromString("""{"type":"object","properties":{"shapes":{"type":"integer","minimum":0,"maximum":9}},"required":["shapes"],"additionalProperties":false}""");
        ResponseResult answer = await client.CreateResponseAsync(new CreateResponseOptions("demo", [ResponseItem.CreateUserMessageItem("How many shapes?")])
        {
            MaxOutputTokenCount = 100,
            TextOptions = new() { TextFormat = ResponseTextFormat.CreateJsonSchemaFormat("shapes", schema, jsonSchemaIsStrict: true) },
        });
        Assert.That(JsonDocument.Parse(answer.GetOutputText()).RootElement.GetProperty("shapes").GetInt32(), Is.InRange(0, 9));
        var error = (await Assert.ThrowsAsync<ClientResultException>(() => client.CreateResponseAsync("demo", "hi", "resp_0")))!;
        Assert.That((error.Status, error.Message), Is.EqualTo((400, error.Message)));
        Assert.That(error.Message, Does.Contain("previous_response_id"));
    }

    /// <summary>Where TRIMTAB_NPM names a folder with node_modules/openai.</summary>
    [Test]
    public async Task The_npm_client_chats_streams_and_fails()
    {
        var folder = Environment.GetEnvironmentVariable("TRIMTAB_NPM");
        if (folder is null || !Directory.Exists(Path.Combine(folder, "node_modules", "openai")))
            Assert.Ignore("needs node and a folder with node_modules/openai, named by TRIMTAB_NPM (npm install openai)");
        const string Script = """
            const OpenAI = require('openai').default || require('openai');
            const fs = require('fs');
            const [url, file] = process.argv.slice(1);
            const client = new OpenAI({ apiKey: 'none', baseURL: url + '/v1', maxRetries: 0 });
            const image = 'data:image/png;base64,' + fs.readFileSync(file).toString('base64');
            const ask = { model: 'demo', temperature: 0, max_tokens: 12, messages: [{ role: 'user', content: [{ type: 'text', text: 'How many shapes do you see?' }, { type: 'image_url', image_url: { url: image } }] }] };
            (async () => {
              const whole = await client.chat.completions.create(ask);
              let text = '', receipt;
              for await (const chunk of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
                text += chunk.choices[0]?.delta?.content ?? '';
                receipt ??= chunk.steering_receipt;
              }
              const input = [{ role: 'user', content: [{ type: 'input_text', text: 'How many shapes do you see?' }, { type: 'input_image', image_url: image, detail: 'auto' }] }];
              const response = await client.responses.create({ model: 'demo', temperature: 0, max_output_tokens: 12, input });
              let streamed = '';
              for await (const event of await client.responses.create({ model: 'demo', temperature: 0, max_output_tokens: 12, input, stream: true }))
                if (event.type === 'response.output_text.delta') streamed += event.delta;
              const schema = { type: 'object', properties: { n: { type: 'integer', minimum: 0, maximum: 9 } }, required: ['n'], additionalProperties: false };
              const json = await client.chat.completions.create({ ...ask, max_tokens: 200, response_format: { type: 'json_schema', json_schema: { name: 'n', strict: true, schema } } });
              let status = 0, param = '';
              try { await client.chat.completions.create({ ...ask, temperature: 9 }); } catch (e) { status = e.status; param = e.param; }
              console.log(JSON.stringify({ whole: whole.choices[0].message.content, text, mode: receipt.steering.mode, response: response.output_text, streamed, n: JSON.parse(json.choices[0].message.content).n, status, param }));
            })().catch(e => { console.error(e); process.exit(1); });
            """;
        using var node = Process.Start(new ProcessStartInfo("node", ["-e", Script, _served.Server.Url, Served.ImageFile()]) { WorkingDirectory = folder!, RedirectStandardOutput = true, RedirectStandardError = true })!;
        var (output, errors) = (node.StandardOutput.ReadToEndAsync(), node.StandardError.ReadToEndAsync());
        await node.WaitForExitAsync();
        Assert.That(node.ExitCode, Is.Zero, await errors);
        var said = JsonDocument.Parse(await output).RootElement;
        string Text(string name) => said.GetProperty(name).GetString()!;
        Assert.Multiple(() =>
        {
            Assert.That(Text("text"), Is.EqualTo(Text("whole")));
            Assert.That(Text("response"), Is.EqualTo(Text("whole")));
            Assert.That(Text("streamed"), Is.EqualTo(Text("whole")));
            Assert.That(Text("mode"), Is.EqualTo("dataset"));
            Assert.That((said.GetProperty("status").GetInt32(), Text("param")), Is.EqualTo((400, "temperature")));
        });
    }
}
