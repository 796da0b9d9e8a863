using Trimtab.Kernels;

namespace Trimtab.Model;

/// <summary>One vision layer's weights.</summary>
internal sealed record VisionLayer(
    NormWeights Norm1, Weight Qkv /* [3 W, W] */, Tensor QkvBias, Weight Output /* [W, W] */, Tensor OutputBias,
    NormWeights Norm2, Weight Fc1 /* [I, W], or [2 I, W] where it is gated */, Tensor Fc1Bias, Weight Fc2 /* [W, I] */, Tensor Fc2Bias)
{
    public IEnumerable<IDisposable?> Owned =>
    [
        Qkv, Output, Fc1, Fc2, Norm1.Weight.Storage, Norm1.Bias.Storage, Norm2.Weight.Storage, Norm2.Bias.Storage,
        QkvBias.Storage, OutputBias.Storage, Fc1Bias.Storage, Fc2Bias.Storage,
    ];
}

/// <summary>A projector's weights; without <see cref="Linear2"/> it is one matrix.</summary>
internal sealed record ProjectorWeights(
    NormWeights Norm /* [F], or none */, Weight Linear1 /* [P, F] */, Tensor Bias1, Weight? Linear2 /* [D, P] */, Tensor Bias2)
{
    public IEnumerable<IDisposable?> Owned => [Linear1, Linear2, Norm.Weight.Storage, Norm.Bias.Storage, Bias1.Storage, Bias2.Storage];
}

/// <summary>A vision encoder's weights, the projectors included.</summary>
/// <param name="Patches">Of a native tower only the projection, its bias, and the table of positions in the activation type.</param>
/// <param name="PreNorm">Before the first layer, or none.</param>
/// <param name="PostNorm">After the last one, or none.</param>
/// <param name="Layers">The layers that are used.</param>
/// <param name="Projector">To the decoder.</param>
/// <param name="Deepstack">Of the layers of <see cref="VisionSpec.Deepstack"/>.</param>
/// <param name="Newline">[1, D] in the activation type, or none: the row at the end of each row of squares' features.</param>
/// <param name="Heads">How the device's ranks divide attention.</param>
/// <param name="Inner">How they divide what is between an MLP's matrices, [I].</param>
internal sealed record VisionWeights(
    PatchWeights Patches, NormWeights PreNorm, NormWeights PostNorm, VisionLayer[] Layers,
    ProjectorWeights Projector, ProjectorWeights[] Deepstack, Tensor Newline, HeadDivision Heads, Division Inner) : IDisposable
{
    public void Dispose()
    {
        IEnumerable<IDisposable?> owned =
        [
            Patches.Projection, Patches.Bias.Storage, Patches.ClassToken.Storage, Patches.Positions.Storage,
            PreNorm.Weight.Storage, PreNorm.Bias.Storage, PostNorm.Weight.Storage, PostNorm.Bias.Storage, Newline.Storage,
            .. Layers.SelectMany(l => l.Owned), .. Projector.Owned, .. Deepstack.SelectMany(d => d.Owned),
        ];
        foreach (var one in owned)
            one?.Dispose();
    }
}
