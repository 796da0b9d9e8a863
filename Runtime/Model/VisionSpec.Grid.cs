namespace Trimtab.Model;

// From a grid to rows: what is known of an image's features before it is decoded.
public sealed partial record VisionSpec
{
    /// <summary>Most patches a side of a native image: their number stays far from an int's end.</summary>
    private const int MaxSide = 1 << 12;

    /// <summary>Feature rows of an image: tokens that it takes in a prompt.</summary>
    /// <exception cref="ArgumentException">The grid is none of this tower's.</exception>
    public int FeatureRows(ImageGrid grid)
    {
        switch (Division)
        {
            case ImageDivision.Native:
                Check(grid);
                return grid.Rows / Merge * (grid.Columns / Merge);
            case ImageDivision.AnyResolution when grid.Rows > 0:
                var (rows, columns) = Kept(grid, out var down);
                return Features + (down is var (h, w) ? h * (w + 1) : rows.Count * (columns.Count + 1));
            case ImageDivision.AnyResolution:
                return Features + 1;
            default:
                Check(grid);
                return Features;
        }
    }

    /// <summary>How an image of the tower's own size is divided: what is measured and planned with.</summary>
    public ImageGrid Typical => Division == ImageDivision.Native ? new(ImageSize / PatchSize, ImageSize / PatchSize) : default;

    /// <summary>Floats of an image's normalised pixels.</summary>
    /// <exception cref="ArgumentException">The grid is none of this tower's.</exception>
    public long PixelCount(ImageGrid grid)
    {
        Check(grid);
        return Division == ImageDivision.Native ? (long)grid.Rows * grid.Columns * PatchFloats : (long)Squares(grid) * 3 * ImageSize * ImageSize;
    }

    /// <summary>Squares of an image, the whole one included.</summary>
    internal int Squares(ImageGrid grid) => Division == ImageDivision.AnyResolution ? 1 + grid.Rows * grid.Columns : 1;

    /// <summary>Rows and columns of an image's features as positions of M-RoPE count them.</summary>
    internal (int Rows, int Columns) Extent(ImageGrid grid) => Division == ImageDivision.Native ? (grid.Rows / Merge, grid.Columns / Merge) : (Side, Side);

    private void Check(ImageGrid grid)
    {
        var good = Division switch
        {
            ImageDivision.Native => grid.Rows > 0 && grid.Columns > 0 && grid.Rows <= MaxSide && grid.Columns <= MaxSide
                && grid.Rows % Merge == 0 && grid.Columns % Merge == 0,
            ImageDivision.AnyResolution => grid == default || grid is { Width: > 0, Height: > 0 }
                && Pinpoints.Contains((grid.Rows * ImageSize, grid.Columns * ImageSize)),
            _ => grid == default,
        };
        if (!good)
            throw new ArgumentException($"an image in a grid of {grid.Rows} × {grid.Columns}, which the vision tower ({Family}) does not see so");
    }

    /// <summary>
    /// The rows and columns of an any-resolution grid's features that are no padding (LLaVA-NeXT's unpad), and, where they are more than
    /// <see cref="MaxSquares"/> squares', the size that they are interpolated to. The arithmetic is transformers'.
    /// </summary>
    internal (Stretch Rows, Stretch Columns) Kept(ImageGrid grid, out (int Height, int Width)? down)
    {
        Check(grid);
        int height = grid.Rows * Side, width = grid.Columns * Side;
        Stretch rows = new(0, height), columns = new(0, width);
        if ((double)grid.Width / grid.Height > (double)width / height)
        {
            var padding = (height - (int)Math.Round(grid.Height * ((double)width / grid.Width), 7)) / 2;
            rows = new(padding, height - 2 * padding);
        }
        else
        {
            var padding = (width - (int)Math.Round(grid.Width * ((double)height / grid.Height), 7)) / 2;
            columns = new(padding, width - 2 * padding);
        }
        var ratio = MaxSquares == 0 ? 1 : Math.Sqrt((double)rows.Count * columns.Count / ((double)MaxSquares * Side * Side));
        down = ratio > 1.1 ? ((int)Math.Floor(rows.Count / ratio), (int)Math.Floor(columns.Count / ratio)) : null;
        return (rows, columns);
    }

    /// <summary>Consecutive numbers.</summary>
    internal readonly record struct Stretch(int First, int Count);
}
