using Trimtab.Checkpoints;
using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>A loaded model: the decoder and, for a vision-language model, the vision encoder, on one device.</summary>
public sealed class Network : IDisposable
{
    private Network(Device device, ModelSpec spec, Decoder decoder, VisionEncoder? vision, string fingerprint, IReadOnlyList<string> notes)
        => (Device, Spec, Decoder, Vision, Fingerprint, Notes) = (device, spec, decoder, vision, fingerprint, notes);

    /// <summary>Where it lives; not owned.</summary>
    public Device Device { get; }

    /// <summary>What it is.</summary>
    public ModelSpec Spec { get; }

    /// <summary>The language model.</summary>
    public Decoder Decoder { get; }

    /// <summary>The vision encoder with its projector, or null.</summary>
    public VisionEncoder? Vision { get; }

    /// <summary>Names the decoder's weights independently of how they are stored (SHA-256, hexadecimal).</summary>
    public string Fingerprint { get; }

    /// <summary>What loading did that a user should know, such as conversions.</summary>
    public IReadOnlyList<string> Notes { get; }

    /// <summary>Loads a network.</summary>
    /// <param name="source">The opened checkpoint files and their spec.</param>
    /// <param name="device">Where it goes.</param>
    /// <param name="matrixType">Form for the decoder's matrices (F32, BF16, Q8_0, Q4_0), or null for the checkpoint's own.</param>
    /// <param name="progress">Is told of every tensor.</param>
    /// <param name="cancel">Stops between tensors.</param>
    /// <exception cref="UnsupportedModelException">The device lacks something that the model needs.</exception>
    /// <exception cref="MismatchedTensorsException">Tensors are missing, surplus or of another shape; all are listed.</exception>
    public static Network Load(
        ModelSource source, Device device, DType? matrixType = null, IProgress<LoadProgress>? progress = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(device);
        var needs = source.Spec.Needs & ~device.Abilities;
        if (needs != 0)
            throw new UnsupportedModelException($"{source.Files[0].Path}: the device ({device.Name}) does not compute {needs}, which {source.Spec.Architecture} needs");
        var loader = new WeightLoader(device, source.Roles(), matrixType, progress, cancel) { RotaryRowOrder = source.RotaryRowOrder };
        var decoder = loader.Decoder(source.Spec.Text);
        var vision = source.Spec.Vision is { } spec ? loader.Vision(spec, source.Spec.Projector!) : null;
        return new(device, source.Spec, decoder, vision, loader.Fingerprint(source.Spec.Text),
            source.Spec.Quantization is { } form ? [form.Note(matrixType is null && form.Exact(source.Spec.Text.HiddenSize) is var exact && device.Computes(exact, exact.BlockSize()) ? exact : form.Target), .. loader.Notes] : loader.Notes);
    }

    /// <summary>Frees the weights.</summary>
    public void Dispose()
    {
        Decoder.Dispose();
        Vision?.Dispose();
    }
}
