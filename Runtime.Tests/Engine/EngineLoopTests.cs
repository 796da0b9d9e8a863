using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Tests.Golden;

namespace Trimtab.Tests.Engine;

/// <summary>What a listener throws at the end of its sequence stays its own affair.</summary>
public class EngineLoopTests
{
    [Test]
    public async Task Listeners_that_throw_while_a_failed_step_ends_everybody_leave_the_loop_running()
    {
        var folder = Directory.CreateTempSubdirectory("trimtab-loop-").FullName;
        try
        {
            using var model = VisionLanguageModel.Open(TinyModel.WriteLlava(Path.Combine(folder, "llava")), new() { Threads = 1 });
            using var loop = new EngineLoop(new(model.Network));
            Sequence Make(Prompt prompt, int tokens, Action<Sequence> ended) => new(prompt, new() { MaxTokens = tokens, IgnoreEos = true }, model.Tokenizer, model.Network.Spec.Text.VocabularySize)
            {
                OnFinish = (sequence, _) => ended(sequence),
            };
            var text = model.Raw("the answer in the rain");
            var finished = new CountdownEvent(3);
            void Throw(Sequence sequence)
            {
                finished.Signal();
                throw new InvalidOperationException("the reader is gone");
            }
            Sequence[] running = [Make(text, 100, Throw), Make(text, 100, Throw)];
            var picture = model.Raw($"the {TinyModel.ImageToken} in the rain", [Image.Noise(40, 40, 1)]);
            model.Network.Vision!.Dispose(); // so that the step which encodes the image fails
            Sequence[] all = [.. running, Make(picture, 2, Throw)];
            foreach (var sequence in all)
                loop.Submit(sequence);
            Assert.That(finished.Wait(TimeSpan.FromMinutes(1)), Is.True);
            var done = new TaskCompletionSource<Sequence>();
            loop.Submit(Make(text, 3, done.SetResult));
            Assert.That((await done.Task).Finish, Is.EqualTo(FinishReason.Length));
            Assert.That(all.Select(sequence => sequence.Finish), Is.All.EqualTo(FinishReason.Error));
            Assert.That(all[2].Error, Is.Not.InstanceOf<InvalidOperationException>().Or.Message.Not.Contain("reader"), "the first failure is the one that is told");
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
