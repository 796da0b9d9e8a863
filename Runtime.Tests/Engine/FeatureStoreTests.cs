using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Engine;

/// <summary>Image features that stay for later prompts: never in the way of one, and never those of an encoding that failed.</summary>
public class FeatureStoreTests
{
    private string _folder = null!;
    private VisionLanguageModel _model = null!;

    [SetUp]
    public void Open()
    {
        _folder = Directory.CreateTempSubdirectory("trimtab-features-").FullName;
        _model = VisionLanguageModel.Open(TinyModel.WriteLlava(Path.Combine(_folder, "llava")), new() { Threads = 2 });
    }

    [TearDown]
    public void Close()
    {
        _model.Dispose();
        Directory.Delete(_folder, true);
    }

    private Sequence Add(Trimtab.Engine.Engine engine, string text, params int[] seeds)
    {
        var sequence = new Sequence(
            _model.Raw(text + string.Concat(Enumerable.Repeat(TinyModel.ImageToken, seeds.Length)), [.. seeds.Select(seed => Image.Noise(30, 30, (ulong)seed))]),
            new() { MaxTokens = 1, IgnoreEos = true, HashLogits = true }, _model.Tokenizer, _model.Network.Spec.Text.VocabularySize);
        engine.Add(sequence);
        return sequence;
    }

    /// <summary>Eight images fit. One of them was the fourth of another prompt: no gap beside it holds the seven that are new.</summary>
    [Test]
    public void A_kept_image_does_not_keep_out_the_others_of_its_prompt()
    {
        var options = new EngineOptions { ContextLength = 34, CachedImages = 0 };
        using var engine = new Trimtab.Engine.Engine(_model.Network, options);
        using var empty = new Trimtab.Engine.Engine(_model.Network, options);
        Add(engine, "", 1, 2, 3, 4);
        while (engine.Step())
        {
        }
        var (sequence, alone) = (Add(engine, "", 4, 5, 6, 7, 8, 9, 10, 11), Add(empty, "", 4, 5, 6, 7, 8, 9, 10, 11));
        for (var i = 0; i < 4; i++)
            engine.Step();
        while (empty.Step())
        {
        }
        Assert.That(sequence.Finish, Is.EqualTo(FinishReason.Length));
        Assert.That(sequence.LogitsHash, Is.EqualTo(alone.LogitsHash));
    }

    [Test]
    public void An_encoding_that_failed_leaves_nothing_behind()
    {
        using var engine = new Trimtab.Engine.Engine(_model.Network);
        var before = engine.Unheld;
        var text = string.Concat(Enumerable.Repeat("in the rain ", 12));
        Add(engine, text);
        while (engine.Step())
        {
        }
        _model.Network.Vision!.Dispose();
        for (var i = 0; i < 2; i++)
        {
            var sequence = Add(engine, text, 1, 1, 2);
            var error = Assert.Catch(() => engine.Step()); // the second time too: its features are not taken for those of the first
            engine.Fail(error!);
            Assert.That((sequence.Finish, engine.Busy, engine.Unheld), Is.EqualTo((FinishReason.Error, false, before)));
        }
    }
}
