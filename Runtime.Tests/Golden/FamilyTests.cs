using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels.Reference;
using Trimtab.Steering;

namespace Trimtab.Tests.Golden;

/// <summary>
/// What must hold of every family beside the reference's values: double precision agrees, batches, chunks and shared pages change no bit, and an
/// image's tokens are known from its size.
/// </summary>
[TestFixture("llava-siglip-qwen2", "cpu")]
[TestFixture("llava-next-mistral", "cpu")]
[TestFixture("llava-onevision", "cpu")]
[TestFixture("idefics3-smolvlm", "cpu")]
[TestFixture("gemma3", "cpu")]
[TestFixture("qwen2-vl", "cpu")]
[TestFixture("qwen2.5-vl", "cpu")]
[TestFixture("qwen3-vl", "cpu")]
[TestFixture("text-qwen3-moe", "cpu")]
[TestFixture("text-gemma2", "cpu")]
[TestFixture("gemma3", "cuda")]
[TestFixture("qwen3-vl", "cuda")]
[TestFixture("text-qwen3-moe", "cuda")]
[TestFixture("text-gemma2", "cuda")]
public class FamilyTests(string name, string device)
{
    private Fixture _fixture = null!;

    [OneTimeSetUp]
    public void Open() => _fixture = Fixture.OpenOn(device, name, batchInvariant: true);

    [OneTimeTearDown]
    public void Close() => _fixture?.Dispose();

    [Test]
    public void Double_precision_agrees()
    {
        using var reference = new ReferenceDevice();
        using var fixture = Fixture.Open(name, options: new() { Device = reference });
        var (expected, actual) = (Run(fixture), Run(_fixture));
        Assert.That(expected.Sequence.States!.Zip(actual.Sequence.States!, (a, b) => Math.Abs(a - b)).Max(), Is.LessThan(1e-4f));
        Assert.That(expected.Logits[0].Zip(actual.Logits[0], (a, b) => Math.Abs(a - b)).Max(), Is.LessThan(1e-4f));

        static Outcome Run(Fixture fixture)
        {
            var element = fixture.Cases.Last();
            return fixture.Run(fixture.ReferencePrompt(element), new() { MaxTokens = 2, IgnoreEos = true, Capture = true });
        }
    }

    [Test]
    public void Batches_chunks_and_shared_pages_change_no_bit()
    {
        var requests = new List<(Prompt, GenerationOptions)>();
        var vectors = _fixture.Tensor("vectors");
        var steering = ShiftVectors.Create([.. Enumerable.Range(0, _fixture.Layers).Select(l => (float[]?)vectors[(l * _fixture.Width)..((l + 1) * _fixture.Width)])]);
        foreach (var element in _fixture.Cases.Concat(_fixture.Cases.Take(2)))
            requests.Add((_fixture.ReferencePrompt(element), new()
            {
                MaxTokens = 5, IgnoreEos = true, Capture = true,
                Steering = requests.Count % 3 == 0 ? null : new(steering, requests.Count % 3 == 1 ? 0.5f : 1),
            }));
        var together = Outcome.Run(_fixture.Model, requests);
        var chunked = Outcome.Run(_fixture.Model, requests, new() { MaxBatchTokens = 5, MaxSequences = 3 });
        var apart = Outcome.Run(_fixture.Model, requests, new() { MaxBatchTokens = 17, PrefillChunk = 3, PrefixCache = false });
        for (var i = 0; i < requests.Count; i++)
        {
            var alone = Outcome.Run(_fixture.Model, [requests[i]], new() { PrefixCache = false })[0];
            foreach (var other in (Outcome[])[together[i], chunked[i], apart[i]])
            {
                Assert.That(other.Sequence.States, Is.EqualTo(alone.Sequence.States), $"states of {i}");
                for (var step = 0; step < alone.Logits.Count; step++)
                    Assert.That(other.Logits[step].AsSpan().SequenceEqual(alone.Logits[step]), $"logits of {i} at step {step}");
            }
        }
    }

    /// <summary>v = h(text, blank image) − h(text) at the junction; a prompt with that image, steered by it, starts from the text's own states.</summary>
    [Test]
    public async Task A_blank_images_shift_brings_its_prompt_back_to_the_text()
    {
        if (_fixture.Model.Files.Processor is null)
            Assert.Ignore("a language model alone");
        var model = _fixture.Model;
        var pair = model.RawPair($"{model.Files.ImagePlaceholder}\nWhat is shown?");
        var shift = await model.SampleShiftAsync(pair);
        Assert.That((shift.Layers, shift.HiddenSize), Is.EqualTo((_fixture.Layers, _fixture.Width)));
        var options = new GenerationOptions { MaxTokens = 1, Capture = true, Steering = new(shift, 1, SteeringScope.Prefill, new([1])) };
        var (text, steered) = (_fixture.Run(pair.TextAlone, options with { Steering = null }), _fixture.Run(pair.WithImages, options));
        // Captured before the edit: layer 1's state less its vector is the text's.
        for (var i = 0; i < _fixture.Width; i++)
            Assert.That(steered.Sequence.States![i] - shift[1][i], Is.EqualTo(text.Sequence.States![i]).Within(1e-4f));
        Assert.That(() => _fixture.Run(pair.TextAlone, options with { Steering = new(ShiftVectors.Create([.. Enumerable.Repeat(new float[_fixture.Width + 1], _fixture.Layers)])) }),
            Throws.InstanceOf<Exception>().With.Message.Contains((_fixture.Width + 1).ToString()));
    }

    [Test]
    public void A_decode_step_allocates_nothing()
    {
        using var engine = new Trimtab.Engine.Engine(_fixture.Model.Network, new() { ContextLength = 400 });
        foreach (var element in _fixture.Cases)
            engine.Add(new(_fixture.ReferencePrompt(element), new() { MaxTokens = 60, IgnoreEos = true }, _fixture.Model.Tokenizer, _fixture.Vocabulary));
        for (var i = 0; i < 12; i++)
            engine.Step();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 20; i++)
            engine.Step();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }

    [Test]
    public void An_images_tokens_are_known_from_its_size()
    {
        var files = _fixture.Model.Files;
        if (files.Processor is null)
        {
            Assert.That(() => files.ImageTokens(10, 10), Throws.InvalidOperationException.With.Message.Contains("without a vision encoder"));
            return;
        }
        var token = files.Spec.ImageTokenId!.Value;
        foreach (var (width, height) in ((int, int)[])[(56, 56), (1, 1), (30, 200), (500, 90), (113, 57), (300, 301)])
        {
            foreach (var count in (int[])[1, 2])
            {
                var prompt = files.Expand([.. Enumerable.Repeat(token, count)], [.. Enumerable.Repeat(Image.Noise(width, height, 1), count)]);
                Assert.That(prompt.Tokens, Has.Length.EqualTo(count * files.ImageTokens(width, height, count == 1)), $"{count} of {width} x {height}");
            }
        }
    }
}
