using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Trimtab.Engine;
using Trimtab.Model;
using Trimtab.Steering;
using Trimtab.Text;

namespace Trimtab.Evaluation;

/// <summary>How shift vectors are extracted.</summary>
public sealed record ExtractionOptions
{
    /// <summary>How differences become vectors.</summary>
    public ShiftMethod Method { get; init; }

    /// <summary>The images that stand beside the anchors.</summary>
    public ExtractionImages Images { get; init; } = ExtractionImages.Blank;

    /// <summary>Anchors are prompts as they stand, each with one image placeholder, instead of what a user says in the chat template.</summary>
    public bool Raw { get; init; }

    /// <summary>File that keeps what was measured, so that the same extraction goes on from it; null keeps nothing after the run.</summary>
    public string? PartialPath { get; init; }

    /// <summary>Is told how far it is.</summary>
    public IProgress<StepProgress>? Progress { get; init; }
}

/// <summary>How far a long run is.</summary>
/// <param name="Done">Steps done.</param>
/// <param name="Total">Steps in all.</param>
public readonly record struct StepProgress(long Done, long Total);

/// <summary>Extracted vectors and what tells how good they are.</summary>
/// <param name="Vectors">The vectors, with metadata and the anchors' projections.</param>
/// <param name="Layers">Each decoder layer's, [L].</param>
/// <param name="Anchors">N.</param>
/// <param name="Resumed">Measurements that an earlier run had left.</param>
/// <param name="Discarded">Whether the partial file belonged to something else and was begun anew.</param>
public sealed record ExtractionResult(ShiftVectors Vectors, IReadOnlyList<LayerShift> Layers, int Anchors, int Resumed, bool Discarded);

/// <summary>
/// Dataset-level shift vectors of CMRM (arXiv 2410.09047): for every anchor the unsteered last-token states of each decoder layer with
/// text and image, less those with text alone; then one vector a layer (<see cref="ShiftExtraction"/>).
/// <para><see cref="ShiftMethod.Sequential"/> is ours: d_1 is as above; for l = 2 … L, d_l = h_l(text, image) while the layers 1 … l − 1 are
/// steered at the last token by the v found for them (alpha 1), less the unsteered h_l(text); v_l = mean d_l. Plain vectors overshoot
/// where all layers are steered, because the residual stream carries each layer's correction upward; these do not. Since only the last
/// position is steered, everything before it stays valid: an anchor that the cache still holds computes one position for each further layer.</para>
/// <para>Last, every anchor runs once more with its image, steered by the result (alpha 1, all layers): where its states lie along the vectors is kept as
/// <see cref="ShiftVectors.StateProjections"/>, which a server tells a request's drift by.</para>
/// Memory: differences go to a file (N · L · D · 4 bytes, twice that for sequential); then a layer at a time, N · D · 12 bytes.
/// </summary>
public static class Extraction
{
    /// <summary>Extracts vectors. Anchors are run together in the model's engine; that changes none of the numbers.</summary>
    /// <param name="model">A vision-language model.</param>
    /// <param name="anchors">N prompts.</param>
    /// <param name="options">How.</param>
    /// <param name="cancel">Stops it; what was measured stays in the partial file.</param>
    /// <exception cref="ArgumentException">No anchors, or one of them does not fit; the message names it.</exception>
    /// <exception cref="IOException">The partial file cannot be used.</exception>
    public static async Task<ExtractionResult> RunAsync(
        VisionLanguageModel model, IReadOnlyList<string> anchors, ExtractionOptions? options = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(anchors);
        options ??= new();
        var text = model.Network.Spec.Text;
        var run = new Run(model, anchors, options);
        run.Check();
        using var file = new ExtractionFile(
            options.PartialPath, run.Key(), anchors.Count, text.Layers, text.HiddenSize, options.Method == ShiftMethod.Sequential);
        var resumed = file.Done;
        var extraction = new ShiftExtraction(text.Layers, text.HiddenSize, anchors.Count, file.ReadDifference);
        await (options.Method == ShiftMethod.Sequential ? run.SequentialAsync(file, extraction, cancel) : run.PlainAsync(file, cancel)).ConfigureAwait(false);
        var layers = await Task.Run(() => extraction.Measure(options.Method, null, cancel), cancel).ConfigureAwait(false);
        var vectors = ShiftVectors.Create([.. layers.Select(layer => layer.Vector)], Metadata(model, anchors, options, layers));
        vectors = await run.ObserveAsync(vectors, file.Total, cancel).ConfigureAwait(false);
        return new(vectors, layers, anchors.Count, resumed, file.Discarded);
    }

    /// <summary>The method's name as metadata and the command line write it: mean, pc, pc_sigma, unit_pc, sequential.</summary>
    public static string Name(ShiftMethod method) => method switch
    {
        ShiftMethod.PcSigma => "pc_sigma",
        ShiftMethod.UnitPc => "unit_pc",
        _ => method.ToString().ToLowerInvariant(),
    };

    private static Dictionary<string, string> Metadata(
        VisionLanguageModel model, IReadOnlyList<string> anchors, ExtractionOptions options, IReadOnlyList<LayerShift> layers)
    {
        var metadata = new Dictionary<string, string>
        {
            ["method"] = Name(options.Method),
            ["images"] = options.Images.Name,
            ["images.identity"] = options.Images.Identity,
            ["anchors"] = anchors.Count.ToString(CultureInfo.InvariantCulture),
            ["anchors.sha256"] = Anchors.Hash(anchors),
            ["prompt"] = options.Raw ? "raw" : "chat",
            [ShiftVectors.FingerprintKey] = model.Network.Fingerprint,
            [ShiftVectors.ProjectionMeansKey] = Numbers(layer => layer.ProjectionMean),
            [ShiftVectors.ProjectionSigmasKey] = Numbers(layer => layer.ProjectionSigma),
            ["stats.explained"] = Numbers(layer => layer.Explained),
            ["stats.cosine"] = Numbers(layer => layer.Cosine),
            ["stats.split_half"] = Numbers(layer => layer.SplitHalf),
        };
        if (options.Images.Seed is { } seed)
            metadata["seed"] = seed.ToString(CultureInfo.InvariantCulture);
        return metadata;

        string Numbers(Func<LayerShift, double> value) => $"[{string.Join(',', layers.Select(value).Select(v =>
            double.IsFinite(v) ? v.ToString("R", CultureInfo.InvariantCulture) : "null"))}]";
    }

    /// <summary>One extraction's prompts and passes.</summary>
    private sealed class Run(VisionLanguageModel model, IReadOnlyList<string> anchors, ExtractionOptions options)
    {
        private readonly int _layers = model.Network.Spec.Text.Layers;
        private readonly int _width = model.Network.Spec.Text.HiddenSize;
        private readonly (int Width, int Height) _size = model.ImageSize;

        /// <summary>Refuses anchors that cannot run before any is run.</summary>
        public void Check()
        {
            if (anchors.Count == 0)
                throw new ArgumentException("there are no anchors");
            if (options.Method == ShiftMethod.PcSigma && anchors.Count < 2)
                throw new ArgumentException("pc_sigma needs at least 2 anchors: one has no standard deviation");
            for (var i = 0; i < anchors.Count; i++)
            {
                var ids = Guard(i, () => options.Raw
                    ? model.Files.Encode(anchors[i], rendered: false)
                    : model.Files.Encode(model.Files.Render([new("user", anchors[i], 1)]), rendered: true));
                var (placeholders, features) = (ids.Count(id => id == model.Files.Spec.ImageTokenId), model.Files.ImageTokens(_size.Width, _size.Height));
                if (placeholders != 1)
                    throw new ArgumentException($"anchor {i + 1}: has {placeholders} image placeholders ({model.Files.ImagePlaceholder}); expected "
                        + (options.Raw ? "one in a raw anchor" : "none in an anchor's own text"));
                if (ids.Length - 1 + features > model.ContextLength)
                    throw new ArgumentException($"anchor {i + 1}: has {ids.Length - 1 + features} tokens with its image; the context holds {model.ContextLength}");
            }
        }

        /// <summary>Names everything that the measurements depend on: model, anchors, images, and what became of the first anchor.</summary>
        public byte[] Key()
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            var pair = Pair(0);
            hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture,
                $"{model.Network.Fingerprint}\n{model.Network.Decoder.WeightBytes}\n{Path.GetFullPath(model.Files.Path)}\n{Anchors.Hash(anchors)}\n{options.Images.Identity}\n{options.Raw}\n")));
            hash.AppendData(MemoryMarshal.AsBytes(pair.TextAlone.Tokens.AsSpan()));
            hash.AppendData(MemoryMarshal.AsBytes(pair.WithImages.Tokens.AsSpan()));
            hash.AppendData(MemoryMarshal.AsBytes(pair.WithImages.Images[0].Pixels.AsSpan()));
            return hash.GetHashAndReset();
        }

        /// <summary>d of every anchor.</summary>
        public Task PlainAsync(ExtractionFile file, CancellationToken cancel)
        {
            return InFlight.RunAsync(file.Done, anchors.Count, async (i, stop) =>
            {
                var (with, alone) = await BothAsync(i, stop).ConfigureAwait(false);
                return Less(with.States!, alone.States!);
            }, (_, difference) => Append(file, difference), cancel);
        }

        /// <summary>Layer by layer: d_l of every anchor, then v_l, which the next layer is measured under.</summary>
        public async Task SequentialAsync(ExtractionFile file, ShiftExtraction extraction, CancellationToken cancel)
        {
            var n = anchors.Count;
            await InFlight.RunAsync(file.Done, n, async (i, stop) =>
            {
                var (with, alone) = await BothAsync(i, stop).ConfigureAwait(false);
                return (float[])[.. alone.States!, .. Less(with.States.AsSpan(0, _width), alone.States.AsSpan(0, _width))];
            }, (_, record) => Append(file, record), cancel).ConfigureAwait(false);

            var directions = new float[]?[_layers];
            for (var layer = 2; layer <= _layers; layer++)
            {
                directions[layer - 2] = extraction.MeanOf(layer - 2);
                var steering = new SteeringOptions(ShiftVectors.Create(directions), 1, SteeringScope.Prefill);
                var (at, first) = ((layer - 1) * n, (layer - 1) * _width);
                if (file.Done >= at + n)
                    continue;
                // The engine still has most of a prompt's keys and values: all positions but the last are as they were.
                await InFlight.RunAsync(file.Done - at, n, async (i, stop) =>
                {
                    var sequence = await Guarded(i, model.CaptureAsync(Pair(i).WithImages, steering, cancel: stop)).ConfigureAwait(false);
                    return sequence.States.AsSpan(first, _width).ToArray();
                }, (i, state) =>
                {
                    var alone = new float[_width];
                    file.ReadText(i, layer - 1, alone);
                    Append(file, Less(state, alone));
                }, cancel).ConfigureAwait(false);
            }
        }

        /// <summary>Where the anchors' states lie along the vectors while these steer: mean and standard deviation of each layer.</summary>
        public async Task<ShiftVectors> ObserveAsync(ShiftVectors vectors, long before, CancellationToken cancel)
        {
            var (n, done) = (anchors.Count, 0);
            var (sums, squares) = (new double[_layers], new double[_layers]);
            var generation = new GenerationOptions { MaxTokens = 0, Steering = new(vectors, 1, SteeringScope.Prefill), Telemetry = TelemetryDetail.Summary };
            await InFlight.RunAsync(0, n, async (i, stop) =>
                (await Guarded(i, model.RunAsync(Pair(i).WithImages, generation, stop)).ConfigureAwait(false)).Telemetry!.PromptBefore, (_, states) =>
            {
                for (var layer = 0; layer < _layers; layer++)
                {
                    sums[layer] += states[layer];
                    squares[layer] += (double)states[layer] * states[layer];
                }
                options.Progress?.Report(new(before + ++done, before + n));
            }, cancel).ConfigureAwait(false);
            return vectors.With(new StateProjections([.. sums.Zip(squares, (sum, square) => new Projection(sum / n, Math.Sqrt(Math.Max(0, square / n - sum / n * (sum / n)))))], 1, null));
        }

        private Task<(Sequence With, Sequence Alone)> BothAsync(int i, CancellationToken cancel) => Guarded(i, BothAsync(Pair(i), cancel));

        private async Task<(Sequence With, Sequence Alone)> BothAsync(PromptPair pair, CancellationToken cancel)
        {
            var (with, alone) = (model.CaptureAsync(pair.WithImages, cancel: cancel), model.CaptureAsync(pair.TextAlone, cancel: cancel));
            await Task.WhenAll(with, alone).ConfigureAwait(false);
            return (await with.ConfigureAwait(false), await alone.ConfigureAwait(false));
        }

        private PromptPair Pair(int i) => Guard(i, () =>
        {
            var image = options.Images.Of(i, _size);
            return options.Raw ? model.RawPair(anchors[i], [image]) : model.ChatPair([new("user", anchors[i], 1)], [image]);
        });

        private void Append(ExtractionFile file, ReadOnlySpan<float> record)
        {
            file.Append(record);
            options.Progress?.Report(new(file.Done, file.Total + anchors.Count));
        }

        private static float[] Less(ReadOnlySpan<float> left, ReadOnlySpan<float> right)
        {
            var difference = new float[left.Length];
            System.Numerics.Tensors.TensorPrimitives.Subtract(left, right, difference);
            return difference;
        }

        private static T Guard<T>(int i, Func<T> make)
        {
            try
            {
                return make();
            }
            catch (Exception error) when (error is ArgumentException or ChatTemplateException or FormatException)
            {
                throw new ArgumentException($"anchor {i + 1}: {error.Message}", error);
            }
        }

        private static async Task<T> Guarded<T>(int i, Task<T> task)
        {
            try
            {
                return await task.ConfigureAwait(false);
            }
            catch (ArgumentException error)
            {
                throw new ArgumentException($"anchor {i + 1}: {error.Message}", error);
            }
        }
    }
}
