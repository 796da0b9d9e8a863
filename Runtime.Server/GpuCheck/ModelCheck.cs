using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;
using Trimtab.Steering;

namespace Trimtab.Server.GpuCheck;

/// <summary>Answers of one model on a GPU beside the CPU's.</summary>
/// <param name="What">Prompt, steering and arithmetic.</param>
/// <param name="Agreed">Tokens from the start that are the same.</param>
/// <param name="Tokens">Tokens of the CPU's answer.</param>
/// <param name="Required">Whether they have to be the same: with float activations; bfloat16 may turn at a near tie.</param>
internal sealed record ModelAnswer(string What, int Agreed, int Tokens, bool Required)
{
    public bool Passed => !Required || Agreed == Tokens;
}

/// <summary>A whole model, steered and unsteered, with text and an image, step by step and as graphs: greedy tokens against the CPU's.</summary>
internal static class ModelCheck
{
    public static async Task<List<ModelAnswer>> RunAsync(string path, int tokens, Action<string> say, CancellationToken cancel)
    {
        // The demo model comes with vectors of its own; others are steered by made-up ones, short beside any hidden state.
        var kept = Path.Combine(path, "cmrm.safetensors");
        var image = Image.Noise(96, 96, 1);
        say("the model on the CPU");
        List<(string What, int[] Tokens)> expected;
        ShiftVectors vectors;
        using (var cpu = VisionLanguageModel.Open(path, new() { Engine = Capacity }, cancel))
        {
            vectors = File.Exists(kept) ? ShiftVectors.Open(kept) : MadeUp(cpu.Network.Spec.Text);
            expected = await AnswersAsync(cpu, vectors, image, tokens, cancel).ConfigureAwait(false);
        }
        var answers = new List<ModelAnswer>();
        foreach (var (activations, graphs, ranks) in new[] { (DType.F32, true, 1), (DType.F32, false, 1), (DType.BF16, true, 1), (DType.F32, true, 2), (DType.BF16, true, 2) })
        {
            if (ranks > CudaDevice.Count)
                continue;
            var kind = $"{activations}{(graphs ? "" : ", without graphs")}{(ranks == 1 ? "" : $", divided among {ranks} GPUs")}";
            say($"the model on the GPU, {kind}");
            using var device = Open(new() { ActivationType = activations, TensorParallel = ranks }, graphs, say);
            if (device is null)
                continue;
            using var gpu = VisionLanguageModel.Open(path, new() { Device = device, Engine = Capacity with { KvType = activations == DType.BF16 ? KvType.BF16 : KvType.F32 } }, cancel);
            var actual = await AnswersAsync(gpu, vectors, image, tokens, cancel).ConfigureAwait(false);
            foreach (var ((what, want), (_, got)) in expected.Zip(actual))
                answers.Add(new($"{what}, {kind}", want.Zip(got).TakeWhile(pair => pair.First == pair.Second).Count(), want.Length, activations == DType.F32));
            if (graphs && tokens > 3 && device is CudaDevice one)
                answers.Add(new($"steps replayed as graphs, {kind}: {one.GraphCounts.Replayed}", one.GraphCounts.Replayed > 0 ? 1 : 0, 1, true));
        }
        return answers;
    }

    private static Device? Open(CudaOptions options, bool graphs, Action<string> say)
    {
        if (options.TensorParallel == 1)
            return new CudaDevice(options) { Graphs = graphs };
        try
        {
            return CudaDevice.Open(options);
        }
        catch (Exception exception) when (exception is CudaException or ArgumentException)
        {
            say($"left out: {exception.Message}"); // no NCCL, or GPUs of several kinds
            return null;
        }
    }

    private static EngineOptions Capacity => new() { ContextLength = 512, MaxSequences = 4 };

    public static ShiftVectors MadeUp(TextSpec text)
        => ShiftVectors.Create([.. Enumerable.Range(0, text.Layers).Select(float[]? (layer) => OpChecks.Noise(text.HiddenSize, layer, 1 / 32f))]);

    private static async Task<List<(string, int[])>> AnswersAsync(VisionLanguageModel model, ShiftVectors vectors, Image image, int tokens, CancellationToken cancel)
    {
        var answers = new List<(string, int[])>();
        foreach (var sees in model.Network.Vision is null ? (bool[])[false] : [false, true])
            foreach (var alpha in new[] { 0f, 1 })
            {
                var sequence = await model.RunAsync(model.Chat("Describe what you see, and say what is in the middle.", sees ? [image] : null), new()
                {
                    MaxTokens = tokens,
                    IgnoreEos = true,
                    Steering = alpha == 0 ? null : new(vectors, alpha),
                }, cancel).ConfigureAwait(false);
                answers.Add(($"{(sees ? "text and image" : "text")}, {(alpha == 0 ? "unsteered" : "steered")}", [.. sequence.Generated]));
            }
        return answers;
    }
}
