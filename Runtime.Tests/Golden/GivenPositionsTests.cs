using System.Text.Json;
using Trimtab.Engine;
using Trimtab.Model;

namespace Trimtab.Tests.Golden;

/// <summary>
/// M-RoPE models at the positions that the reference used, step by step through the decoder. A habit of it is none of the models': after an image it
/// moves the generated tokens of the next prompt too, which the fixtures' steered texts are. Everything else of them is compared through the engine.
/// </summary>
[TestFixture("qwen2-vl", "cpu"), TestFixture("qwen2.5-vl", "cpu"), TestFixture("qwen3-vl", "cpu")]
[TestFixture("qwen2-vl", "cuda"), TestFixture("qwen2.5-vl", "cuda"), TestFixture("qwen3-vl", "cuda")]
public class GivenPositionsTests(string name, string device)
{
    private Fixture _fixture = null!;

    [OneTimeSetUp]
    public void Open() => _fixture = Fixture.OpenOn(device, name);

    [OneTimeTearDown]
    public void Close() => _fixture?.Dispose();

    [Test]
    public void Steered_prompts_agree()
    {
        var moved = 0;
        foreach (var element in _fixture.Json.GetProperty("steering").EnumerateArray())
        {
            var @case = _fixture.Case(element.GetProperty("case").GetString()!);
            moved = Check(element, @case, moved);
        }
    }

    /// <param name="element">What is expected.</param>
    /// <param name="case">The prompt.</param>
    /// <param name="moved">By how much the prompt before moved generated tokens.</param>
    /// <returns>By how much this one does.</returns>
    private int Check(JsonElement element, JsonElement @case, int moved)
    {
        var (id, prompt) = (element.GetProperty("id").GetString()!, _fixture.ReferencePrompt(@case));
        var length = prompt.Tokens.Length;
        var given = @case.GetProperty("id").GetString() + ".position_ids";
        int[] positions = _fixture.Has(given) ? [.. _fixture.Tensor(given).Select(p => (int)p)] : [.. Enumerable.Repeat(Enumerable.Range(0, length), 3).SelectMany(p => p)];
        var shift = _fixture.Has(given) ? positions.Max() + 1 - length : moved;

        var (network, expected) = (_fixture.Model.Network, Fixture.Ints(element, "greedy"));
        var (device, spec) = (network.Device, network.Spec.Text);
        var total = length + expected.Length;
        var batch = new Batch(total, 1, KvCache.PagesFor(total), 1);
        using var step = new Step(device, network.Decoder, batch, 1);
        using var cache = new KvCache(device, spec, total);
        var vectors = device.Allocate(device.ActivationType, spec.Layers, spec.HiddenSize);
        device.Upload(_fixture.Tensor("vectors"), vectors);
        var image = prompt.Images.Count > 0 ? prompt.Images[0] : new PromptImage(length, 0, []);
        var features = device.Allocate(device.ActivationType, (1 + spec.AddedLayers) * Math.Max(1, image.Rows), spec.HiddenSize);
        if (image.Rows > 0)
            network.Vision!.Forward(image.Pixels, image.Grid, features.Slice(0, image.Rows),
                [.. Enumerable.Range(1, spec.AddedLayers).Select(l => features.Slice(l * image.Rows, image.Rows))]);
        var (logits, next) = (new float[spec.VocabularySize], new List<int>());
        for (int first = 0, n = length; next.Count < expected.Length; first += n, n = 1)
        {
            batch.Clear();
            batch.AddSequence([.. Enumerable.Range(0, KvCache.PagesFor(total))]);
            for (var p = first; p < first + n; p++)
            {
                var steered = p >= length - 1;
                var row = p >= length ? next[p - length] : p >= image.Start && p < image.Start + image.Rows ? image.Start - 1 - p : prompt.Tokens[p];
                var token = batch.AddToken(row, p, length, steered ? 0 : -1, steered ? element.GetProperty("alpha").GetSingle() : 0);
                if (p < length)
                    batch.Turn(token, positions[p], positions[length + p], positions[2 * length + p]);
                else
                    batch.Turn(token, p + shift, p + shift, p + shift);
            }
            if (first == 0)
                batch.Capture(length - 1);
            batch.Sample(n - 1);
            step.Upload(batch);
            network.Decoder.Forward(step, cache, features, vectors);
            if (first == 0)
            {
                var states = new float[spec.Layers * spec.HiddenSize];
                device.Download(step.Captures, states);
                Near(states, _fixture.Tensor(id + ".hidden"), $"{id} hidden");
            }
            device.Download(step.Logits, logits);
            var reference = _fixture.Tensor(id + ".logits");
            if ((next.Count + 1) * logits.Length <= reference.Length)
                Near(logits, reference[(next.Count * logits.Length)..((next.Count + 1) * logits.Length)], $"{id} step {next.Count}");
            next.Add(Array.IndexOf(logits, logits.Max()));
        }
        Assert.That(next, Is.EqualTo(expected), id);
        vectors.Storage!.Dispose();
        features.Storage!.Dispose();
        return shift;
    }

    private static void Near(float[] actual, float[] expected, string what) =>
        Assert.That(actual.Zip(expected, (a, e) => Math.Abs(a - e)).Max(), Is.LessThan(1e-4f), what);
}
