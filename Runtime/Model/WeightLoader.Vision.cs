using Trimtab.Kernels;

namespace Trimtab.Model;

// The vision tower and the projectors.
internal sealed partial class WeightLoader
{
    public VisionEncoder Vision(VisionSpec spec, ProjectorSpec projector)
    {
        // Quantised decoders keep their vision tower as it is: it is small, and its outliers suffer most.
        DType? type = _matrixType is DType.F32 or DType.BF16 ? _matrixType : null;
        var layers = new VisionLayer[spec.UsedLayers];
        // A tower whose heads or blocks do not allow it is not divided: every rank computes it.
        var divides = spec.Heads >= _device.Ranks;
        var heads = HeadDivision.Of(divides ? _device.Ranks : 1, spec.Heads, spec.Heads, spec.HiddenSize / spec.Heads);
        if (Cut(heads.Queries, type, "vision.layers.{0}.o", layers.Length) is not null)
            heads = HeadDivision.Of(1, spec.Heads, spec.Heads, spec.HiddenSize / spec.Heads);
        var inner = Between(spec.IntermediateSize, type, "vision.layers.{0}.fc2", layers.Length, optional: true);
        var first = spec.IsGated ? Division.Join(inner, inner) : inner;
        for (var l = 0; l < layers.Length; l++)
        {
            var at = $"vision.layers.{l}.";
            layers[l] = new(
                Norm(at + "norm1", spec),
                Matrix(type, heads.Qkv, false, (at + "q", null), (at + "k", null), (at + "v", null)),
                Vector(heads.Qkv, (at + "q.bias", null), (at + "k.bias", null), (at + "v.bias", null)),
                Matrix(type, heads.Queries, true, (at + "o", null)),
                Vector(at + "o.bias"),
                Norm(at + "norm2", spec),
                spec.IsGated ? Matrix(type, first, false, (at + "gate", null), (at + "up", null)) : Matrix(type, first, false, (at + "fc1", null)),
                spec.IsGated ? Vector(first, (at + "gate.bias", null), (at + "up.bias", null)) : Vector(first, (at + "fc1.bias", null)),
                Matrix(type, inner, true, (at + "fc2", null)),
                Vector(at + "fc2.bias"));
        }
        var native = spec.Division == ImageDivision.Native;
        var patches = new PatchWeights(
            _roles.ContainsKey("vision.patch.second") ? Frames("vision.patch", "vision.patch.second") : Matrix(type, "vision.patch"),
            _roles.ContainsKey("vision.patch.bias") ? Vector("vision.patch.bias") : default,
            spec.ClassToken ? Vector("vision.class") : default,
            !native ? Table("vision.position", DType.F32) : spec.PositionSide > 0 ? Table("vision.position", _device.ActivationType) : default,
            spec.ImageSize, spec.PatchSize);
        var norm = !projector.Norm ? default : new NormWeights(Upload(Shifted("projector.norm", projector.NormOffset)), default, spec.NormEpsilon, false);
        return new(_device, spec, projector, new(
            patches,
            spec.PreNorm ? Norm("vision.pre_norm", spec) : default,
            spec.PostNorm ? Norm("vision.post_norm", spec) : default,
            layers,
            Projector(type, "projector", projector, norm),
            [.. Enumerable.Range(0, spec.Deepstack.Length).Select(k => Projector(type, $"deepstack.{k}", projector, Norm($"deepstack.{k}.norm", spec)))],
            spec.Division == ImageDivision.AnyResolution ? Table("vision.newline", _device.ActivationType) : default,
            heads, inner));
    }

    private ProjectorWeights Projector(DType? type, string role, ProjectorSpec spec, NormWeights norm) => new(
        norm,
        spec.Transposed ? Transposed(role + ".linear1") : Matrix(type, role + ".linear1"),
        spec.Bias ? Vector(role + ".linear1.bias") : default,
        spec.HiddenSize > 0 ? Matrix(type, role + ".linear2") : null,
        spec.HiddenSize > 0 && spec.Bias ? Vector(role + ".linear2.bias") : default);

    private NormWeights Norm(string role, VisionSpec spec) =>
        new(Vector(role), spec.RmsNorms ? default : Vector(role + ".bias"), spec.NormEpsilon, !spec.RmsNorms);

    /// <summary>A tensor's rows in a type of activations; a vector is one row.</summary>
    private Tensor Table(string role, DType type)
    {
        var part = _roles[role];
        var table = part.Columns == 1 ? _device.Allocate(type, 1, part.Rows) : _device.Allocate(type, part.Rows, part.Columns);
        _device.Upload(Floats(role), table);
        return table;
    }

    /// <summary>Patches of two frames, each frame's matrix a tensor: of each channel one frame after the other.</summary>
    private Weight Frames(string first, string second)
    {
        var part = _roles[first];
        float[][] frames = [Floats(first), Floats(second)];
        var (plane, values) = (part.Columns / 3, new float[2 * frames[0].Length]);
        for (var i = 0; i < values.Length / plane; i++)
            frames[i % 2].AsSpan(i / 2 * plane, plane).CopyTo(values.AsSpan(i * plane));
        return Plain(values, part.Rows, 2 * part.Columns, part.Info.Type);
    }

    /// <summary>A matrix that is stored by input features.</summary>
    private Weight Transposed(string role)
    {
        var part = _roles[role];
        var source = Floats(role);
        var values = new float[source.Length];
        for (var i = 0; i < part.Rows; i++)
            for (var o = 0; o < part.Columns; o++)
                values[o * part.Rows + i] = source[i * part.Columns + o];
        return Plain(values, part.Columns, part.Rows, part.Info.Type);
    }

    /// <summary>A matrix of values that were put in order here, in the plain form that its elements had, or in float32.</summary>
    private unsafe Weight Plain(float[] values, int rows, int columns, DType stored)
    {
        var type = stored is DType.BF16 or DType.F16 && _matrixType != DType.F32 && _device.Computes(stored, columns) ? stored : DType.F32;
        var bytes = new byte[type.RowBytes(columns) * rows];
        Blocks.Quantize(type, values, bytes);
        fixed (byte* data = bytes)
            return _device.Pack(new WeightData(type, rows, columns, (nint)data));
    }
}
