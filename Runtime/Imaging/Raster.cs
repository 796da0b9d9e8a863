namespace Trimtab.Imaging;

/// <summary>Pixels as a file format's decoder leaves them, before transparency and orientation are resolved.</summary>
/// <param name="Width">Columns.</param>
/// <param name="Height">Rows.</param>
/// <param name="Channels">3 for RGB, 4 for RGBA (straight alpha).</param>
/// <param name="Pixels">[Height, Width, Channels], 8 bits each.</param>
/// <param name="Orientation">EXIF orientation 1 … 8; 1 is upright.</param>
internal sealed record Raster(int Width, int Height, int Channels, byte[] Pixels, int Orientation = 1);

/// <summary>An image file that is truncated, corrupt, too large or of an unknown kind. The message says what was wrong and where.</summary>
public sealed class InvalidImageException(string message, Exception? inner = null) : Exception(message, inner);
