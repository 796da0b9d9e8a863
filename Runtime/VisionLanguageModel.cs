using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Trimtab.Engine;
using Trimtab.Imaging;
using Trimtab.Kernels;
using Trimtab.Kernels.Cpu;
using Trimtab.Kernels.Cuda;
using Trimtab.Model;
using Trimtab.Text;

namespace Trimtab;

/// <summary>How a model is opened.</summary>
public sealed record ModelOptions
{
    /// <summary>The vision file of a GGUF model; null looks for *mmproj*.gguf beside it.</summary>
    public string? MmprojPath { get; init; }

    /// <summary>Form for the decoder's matrices: F32, BF16, F16, Q8_0 or Q4_0; null keeps the checkpoint's own.</summary>
    public DType? WeightType { get; init; }

    /// <summary>Threads of the CPU device; 0 for one per core.</summary>
    public int Threads { get; init; }

    /// <summary>How the CPU multiplies activations with quantised weights.</summary>
    public Activations Activations { get; init; }

    /// <summary>The engine's capacities.</summary>
    public EngineOptions Engine { get; init; } = new();

    /// <summary>A device of the caller's, which stays the caller's; null opens one.</summary>
    public Device? Device { get; init; }

    /// <summary>The GPU to open where there is no device of the caller's; null opens the CPU.</summary>
    public CudaOptions? Cuda { get; init; }

    /// <summary>Whether the weights' files are hashed (<see cref="VisionLanguageModel.WeightsHash"/>), at some 2 GB a second and core.</summary>
    public bool HashWeights { get; init; }

    /// <summary>Is told of loading.</summary>
    public IProgress<LoadProgress>? Progress { get; init; }
}

/// <summary>A piece of an answer as it is generated.</summary>
/// <param name="Text">Text that became complete; never half a code point, and never part of a stop text.</param>
/// <param name="Token">The token drawn, or null in the last update.</param>
/// <param name="Finish">Why the answer ended; None but in the last update.</param>
/// <param name="Sequence">The sequence: tokens, timings, captures.</param>
public sealed record GenerationUpdate(string Text, Sampled? Token, FinishReason Finish, Sequence Sequence);

/// <summary>
/// A vision-language model (or a language model alone) opened from disk, with everything a host needs: tokenizer, chat
/// template, image processor, network, and an engine thread that batches whatever is generated at the same time.
/// </summary>
public sealed partial class VisionLanguageModel : IDisposable
{
    private readonly Device? _ownDevice;
    private readonly ModelOptions _options;
    private readonly Lock _lock = new();
    private EngineLoop? _loop;

    private VisionLanguageModel(
        ModelFiles files, Network network, Device? ownDevice, ModelOptions options, TimeSpan loadTime, string? weightsHash)
    {
        (Files, Network, _ownDevice, _options, LoadTime, WeightsHash) = (files, network, ownDevice, options, loadTime, weightsHash);
    }

    /// <summary>Tokenizer, chat template and image processor.</summary>
    public ModelFiles Files { get; }

    /// <summary>The loaded network.</summary>
    public Network Network { get; }

    /// <summary>How it was opened.</summary>
    public ModelOptions Options => _options;

    /// <summary>How long loading took.</summary>
    public TimeSpan LoadTime { get; }

    /// <summary>See <see cref="ModelSource.Hash"/>; null unless it was asked for.</summary>
    public string? WeightsHash { get; }

    /// <summary>The tokenizer.</summary>
    public Tokenizer Tokenizer => Files.Tokenizer;

    /// <summary>Opens a model: a Hugging Face folder, a .safetensors file in one, or a .gguf file.</summary>
    /// <param name="path">Folder or file.</param>
    /// <param name="options">How.</param>
    /// <param name="cancel">Stops loading.</param>
    /// <exception cref="FileNotFoundException">There is nothing to open; the message says what was looked for.</exception>
    /// <exception cref="UnsupportedModelException">The model asks for something that is not computed here.</exception>
    public static VisionLanguageModel Open(string path, ModelOptions? options = null, CancellationToken cancel = default)
    {
        options ??= new();
        var start = System.Diagnostics.Stopwatch.GetTimestamp();
        var files = ModelFiles.OpenWithWeights(path, options.MmprojPath, out var source);
        using var _ = source;
        var device = options.Device ?? (options.Cuda is { } cuda ? CudaDevice.Open(cuda) : new CpuDevice(options.Threads, options.Activations));
        var own = options.Device is null ? device : null;
        try
        {
            var network = Network.Load(source, device, options.WeightType, options.Progress, cancel);
            var loaded = System.Diagnostics.Stopwatch.GetElapsedTime(start);
            return new(files, network, own, options, loaded, options.HashWeights ? source.Hash() : null);
        }
        catch
        {
            own?.Dispose();
            throw;
        }
    }

    /// <summary>A prompt by the model's chat template: one user turn.</summary>
    /// <param name="text">What the user says.</param>
    /// <param name="images">Images that come with it.</param>
    /// <param name="system">A system message, or null.</param>
    public Prompt Chat(string text, IReadOnlyList<Image>? images = null, string? system = null)
    {
        List<ChatMessage> messages = system is null ? [] : [new("system", system)];
        messages.Add(new("user", text, images?.Count ?? 0));
        return Chat(messages, images);
    }

    /// <summary>A prompt by the model's chat template.</summary>
    /// <param name="messages">The conversation so far.</param>
    /// <param name="images">The images of all messages in order.</param>
    public Prompt Chat(IReadOnlyList<ChatMessage> messages, IReadOnlyList<Image>? images = null)
        => Files.Expand(Files.Encode(Files.Render(messages), rendered: true), images ?? []);

    /// <summary>A prompt as it stands: special tokens in it are recognised, each image placeholder takes the next image.</summary>
    public Prompt Raw(string text, IReadOnlyList<Image>? images = null) => Files.Expand(Files.Encode(text, rendered: false), images ?? []);

    /// <summary>Generates an answer. Answers that are generated at the same time share batches; that changes none of them.</summary>
    /// <param name="prompt">From <see cref="Chat(string, IReadOnlyList{Image}?, string?)"/> or <see cref="Raw"/>.</param>
    /// <param name="options">How.</param>
    /// <param name="cancel">Ends the answer before the engine's next step.</param>
    public async IAsyncEnumerable<GenerationUpdate> GenerateAsync(
        Prompt prompt, GenerationOptions? options = null, [EnumeratorCancellation] CancellationToken cancel = default)
    {
        var updates = Channel.CreateUnbounded<GenerationUpdate>(new() { SingleReader = true, SingleWriter = true });
        Sequence? sequence = null;
        sequence = new(prompt, options ?? new(), Tokenizer, Network.Spec.Text.VocabularySize)
        {
            OnToken = (token, text) => updates.Writer.TryWrite(new(text, token, FinishReason.None, sequence!)),
            OnFinish = (ended, rest) =>
            {
                if (ended.Finish != FinishReason.Error)
                    updates.Writer.TryWrite(new(rest, null, ended.Finish, ended));
                updates.Writer.TryComplete(ended.Error);
            },
        };
        Loop().Submit(sequence);
        using var registration = cancel.Register(sequence.Cancel);
        try
        {
            await foreach (var update in updates.Reader.ReadAllAsync(cancel).ConfigureAwait(false))
                yield return update;
        }
        finally
        {
            sequence.Cancel();
        }
    }

    /// <summary>Runs a prompt to its end and returns the finished sequence.</summary>
    public async Task<Sequence> RunAsync(Prompt prompt, GenerationOptions? options = null, CancellationToken cancel = default)
    {
        Sequence? last = null;
        await foreach (var update in GenerateAsync(prompt, options, cancel).ConfigureAwait(false))
            last = update.Sequence;
        return last!;
    }

    /// <summary>What the engine has done and holds; may be asked from any thread.</summary>
    public EngineStatistics Statistics => Loop().Statistics;

    /// <summary>Refuses answers that would find no room now, before their images are decoded.</summary>
    /// <exception cref="EngineBusyException">As many wait as may (<see cref="EngineOptions.MaxWaiting"/>).</exception>
    public void CheckRoom(int answers = 1) => Loop().CheckRoom(answers);

    private EngineLoop Loop()
    {
        lock (_lock)
            return _loop ??= new(new Engine.Engine(Network, _options.Engine, Tokenizer.EndIds));
    }

    /// <summary>Ends running answers and frees everything.</summary>
    public void Dispose()
    {
        lock (_lock)
            _loop?.Dispose();
        Network.Dispose();
        _ownDevice?.Dispose();
    }
}
