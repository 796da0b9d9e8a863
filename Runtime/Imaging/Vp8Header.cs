namespace Trimtab.Imaging;

/// <summary>The header of a VP8 key frame (RFC 6386, sections 9 and 19.2) and the readers of its partitions.</summary>
internal sealed class Vp8Header
{
    private const int FrameTag = 10;

    private readonly bool segmented, absolute;
    private readonly int[] segmentQuantizers = new int[4], segmentLevels = new int[4];

    internal readonly int Width, Height;

    /// <summary>The first partition: modes of the macroblocks.</summary>
    internal readonly Vp8Bits Modes;

    /// <summary>Partitions of coefficients; macroblock row y uses partition y modulo their number.</summary>
    internal readonly Vp8Bits[] Coefficients;

    /// <summary>Whether each macroblock names its segment.</summary>
    internal readonly bool SegmentMap;

    /// <summary>Probabilities of the two levels of a segment's number.</summary>
    internal readonly byte[] SegmentProbabilities = [255, 255, 255];

    /// <summary>No filter, only its simple kind on luma, or the normal kind.</summary>
    internal readonly bool Filtered, Simple;
    internal readonly int Sharpness;

    /// <summary>[4 segments] steps of the coefficients.</summary>
    internal readonly Vp8Steps[] Steps = new Vp8Steps[4];

    /// <summary>[4 segments, whole or 4×4 prediction] strength of the loop filter.</summary>
    internal readonly int[,] Levels = new int[4, 2];

    /// <summary>[4 block types, 8 bands, 3 contexts, 11] probabilities of coefficient tokens.</summary>
    internal readonly byte[] Probabilities = Vp8Tables.Coefficients.ToArray();

    /// <summary>Probability that a macroblock has coefficients; −1 where none says.</summary>
    internal readonly int SkipProbability = -1;

    internal Vp8Header(byte[] data)
    {
        (Width, Height) = Size(data);
        var tag = data[0] | data[1] << 8 | data[2] << 16;
        var first = tag >> 5;
        if (first > data.Length - FrameTag)
            throw WebpDecoder.Bad($"the first partition of a lossy frame has {first} bytes, {data.Length - FrameTag} are left");
        var bits = Modes = new(data, FrameTag, FrameTag + first);
        bits.Number(2); // colour space and clamping: the first has one value, the second is always done

        segmented = bits.Flag();
        if (segmented)
        {
            SegmentMap = bits.Flag();
            if (bits.Flag())
            {
                absolute = bits.Flag();
                for (var i = 0; i < 4; i++)
                    segmentQuantizers[i] = bits.OptionalSigned(7);
                for (var i = 0; i < 4; i++)
                    segmentLevels[i] = bits.OptionalSigned(6);
            }
            for (var i = 0; SegmentMap && i < 3; i++)
                SegmentProbabilities[i] = (byte)(bits.Flag() ? bits.Number(8) : 255);
        }

        Simple = bits.Flag();
        var level = bits.Number(6);
        Filtered = level > 0;
        Sharpness = bits.Number(3);
        int ownDelta = 0, subblockDelta = 0;
        var deltas = bits.Flag();
        if (deltas && bits.Flag())
            for (var i = 0; i < 8; i++)
            {
                // Of the four reference frames and the four modes, a key frame has the first.
                var delta = bits.OptionalSigned(6);
                if (i == 0)
                    ownDelta = delta;
                else if (i == 4)
                    subblockDelta = delta;
            }
        for (var s = 0; s < 4; s++)
        {
            var strength = (segmented ? segmentLevels[s] : 0) + (segmented && absolute ? 0 : level) + ownDelta;
            Levels[s, 0] = Math.Clamp(strength, 0, 63);
            Levels[s, 1] = Math.Clamp(strength + subblockDelta, 0, 63);
        }

        Coefficients = Partitions(data, FrameTag + first, 1 << bits.Number(2));
        ReadSteps(bits);
        bits.Flag(); // whether the probabilities outlive this frame
        var updates = Vp8Tables.CoefficientUpdates;
        for (var i = 0; i < Probabilities.Length; i++)
            if (bits.Bit(updates[i]) == 1)
                Probabilities[i] = (byte)bits.Number(8);
        if (bits.Flag())
            SkipProbability = bits.Number(8);
        if (bits.Ended)
            throw WebpDecoder.Bad("the first partition of a lossy frame ends in its header");
    }

    /// <summary>Columns and rows of a frame, whose tag is checked.</summary>
    internal static (int Width, int Height) Size(ReadOnlySpan<byte> data)
    {
        if (data.Length < FrameTag)
            throw WebpDecoder.Bad($"a lossy frame of {data.Length} bytes is truncated in its header");
        if ((data[0] & 1) != 0)
            throw WebpDecoder.Bad("a lossy frame that is no key frame");
        if (((data[0] >> 1) & 7) > 3)
            throw WebpDecoder.Bad($"lossy profile {(data[0] >> 1) & 7}, outside 0 … 3");
        if ((data[0] & 0x10) == 0)
            throw WebpDecoder.Bad("a lossy frame that is not to be shown");
        if (data[3] != 0x9D || data[4] != 0x01 || data[5] != 0x2A)
            throw WebpDecoder.Bad("a lossy frame without the start code 9D 01 2A");
        int width = (data[6] | data[7] << 8) & 0x3FFF, height = (data[8] | data[9] << 8) & 0x3FFF;
        if (width == 0 || height == 0)
            throw WebpDecoder.Bad($"a lossy frame of {width} × {height} pixels");
        return (width, height);
    }

    private static Vp8Bits[] Partitions(byte[] data, int start, int count)
    {
        var at = start + 3 * (count - 1);
        if (at >= data.Length)
            throw WebpDecoder.Bad($"a lossy frame is truncated in the sizes of its {count} partitions");
        var partitions = new Vp8Bits[count];
        for (var i = 0; i < count; i++, start += 3)
        {
            var left = data.Length - at;
            var size = i == count - 1 ? left : data[start] | data[start + 1] << 8 | data[start + 2] << 16;
            if (size > left)
                throw WebpDecoder.Bad($"partition {i} of a lossy frame has {size} bytes, {left} are left");
            partitions[i] = new(data, at, at + size);
            at += size;
        }
        return partitions;
    }

    private void ReadSteps(Vp8Bits bits)
    {
        var index = bits.Number(7);
        int lumaDc = bits.OptionalSigned(4), secondDc = bits.OptionalSigned(4), secondAc = bits.OptionalSigned(4);
        int chromaDc = bits.OptionalSigned(4), chromaAc = bits.OptionalSigned(4);
        for (var s = 0; s < 4; s++)
        {
            var q = segmented ? segmentQuantizers[s] + (absolute ? 0 : index) : index;
            Steps[s] = new(Dc(q + lumaDc), Ac(q), Dc(q + secondDc) * 2, Math.Max(Ac(q + secondAc) * 155 / 100, 8),
                Dc(Math.Min(q + chromaDc, 117)), Ac(q + chromaAc));
        }

        static int Dc(int q) => Vp8Tables.DcSteps[Math.Clamp(q, 0, 127)];
        static int Ac(int q) => Vp8Tables.AcSteps[Math.Clamp(q, 0, 127)];
    }
}

/// <summary>Steps of the first and the later coefficients of luma blocks, of the block of luma means, and of chroma blocks.</summary>
internal readonly record struct Vp8Steps(int LumaDc, int LumaAc, int SecondDc, int SecondAc, int ChromaDc, int ChromaAc);
