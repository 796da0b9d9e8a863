namespace Trimtab.Imaging;

/// <summary>One colour component of a JPEG frame (T.81, annex A.1).</summary>
internal sealed class JpegComponent(int id, int horizontal, int vertical, int quantizer)
{
    /// <summary>Its name in scan headers.</summary>
    internal readonly int Id = id;

    /// <summary>Samples across and down in one unit of the frame.</summary>
    internal readonly int Horizontal = horizontal, Vertical = vertical;

    /// <summary>Which quantization table it uses.</summary>
    internal readonly int Quantizer = quantizer;

    /// <summary>Samples across and down that belong to the image.</summary>
    internal int Width, Height;

    /// <summary>Blocks across and down that hold those samples.</summary>
    internal int BlocksWide, BlocksHigh;

    /// <summary>Blocks across and down with those that pad interleaved units.</summary>
    internal int PaddedWide, PaddedHigh;

    /// <summary>[64] steps in zigzag order, as they stood at the component's first scan; null before that.</summary>
    internal int[]? Steps;

    /// <summary>Progressive only: [PaddedHigh, PaddedWide, 64], quantized, rows of a block first.</summary>
    internal short[]? Coefficients;

    /// <summary>Progressive only: [64] in zigzag order, the lowest bit known of each coefficient; −1 before its first scan.</summary>
    internal readonly int[] Known = Enumerable.Repeat(-1, 64).ToArray();

    /// <summary>[BlocksHigh × 8, Stride] decoded samples.</summary>
    internal byte[] Samples = [];

    /// <summary>Tables of the current scan.</summary>
    internal JpegHuffman? Dc, Ac;

    /// <summary>The last block's DC coefficient in the current scan.</summary>
    internal int Predictor;

    /// <summary>Samples from one row to the next.</summary>
    internal int Stride => BlocksWide * 8;
}

/// <summary>What a JPEG frame header says (T.81, B.2.2).</summary>
internal sealed class JpegFrame
{
    internal JpegFrame(bool progressive, int width, int height, JpegComponent[] components)
    {
        (Progressive, Width, Height, Components) = (progressive, width, height, components);
        Across = components.Max(c => c.Horizontal);
        Down = components.Max(c => c.Vertical);
        UnitsWide = Ceiling(width, 8 * Across);
        UnitsHigh = Ceiling(height, 8 * Down);
        foreach (var c in components)
        {
            c.Width = Ceiling(width * c.Horizontal, Across);
            c.Height = Ceiling(height * c.Vertical, Down);
            c.BlocksWide = Ceiling(c.Width, 8);
            c.BlocksHigh = Ceiling(c.Height, 8);
            c.PaddedWide = UnitsWide * c.Horizontal;
            c.PaddedHigh = UnitsHigh * c.Vertical;
        }
    }

    internal readonly bool Progressive;
    internal readonly int Width, Height;
    internal readonly JpegComponent[] Components;

    /// <summary>The largest sampling factors, which are those of the image itself.</summary>
    internal readonly int Across, Down;

    /// <summary>Interleaved units (MCUs) across and down.</summary>
    internal readonly int UnitsWide, UnitsHigh;

    /// <summary>Blocks of all components, padding left out.</summary>
    internal long Blocks => Components.Sum(c => (long)c.BlocksWide * c.BlocksHigh);

    /// <summary>Whether nothing more can come: every coefficient of every component is known to its last bit.</summary>
    internal bool Complete => Components.All(c => Progressive ? c.Known.All(bit => bit == 0) : c.Steps is not null);

    /// <summary>Sets the space of samples and coefficients up, once the header is known to be sane.</summary>
    internal void Allocate()
    {
        foreach (var c in Components)
        {
            if (Progressive)
                c.Coefficients = new short[checked(c.PaddedWide * c.PaddedHigh * 64)];
            else
                c.Samples = new byte[checked(c.Stride * c.BlocksHigh * 8)];
        }
    }

    private static int Ceiling(int value, int divisor) => (value + divisor - 1) / divisor;
}
