using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Trimtab.Evaluation;

/// <summary>
/// The partial file of an extraction: what was measured, appended record by record, so that a killed run goes on where it stopped and
/// memory does not grow with the anchors. Plain: N records of d [L, D]. Sequential: N records of h(text) [L, D] and d_1 [D], then for
/// each layer from 2 on N records of d_l [D]. A header says what it belongs to; another header, or none, begins the file anew.
/// </summary>
internal sealed class ExtractionFile : IDisposable
{
    private const int HeaderBytes = 64;
    private readonly FileStream _stream;
    private readonly int _anchors, _layers, _width;
    private readonly bool _sequential;

    /// <summary>Opens or begins a file.</summary>
    /// <param name="path">The file; null takes a temporary one that vanishes.</param>
    /// <param name="key">[32] hash of everything that the measurements depend on.</param>
    /// <param name="anchors">N.</param>
    /// <param name="layers">L.</param>
    /// <param name="width">D.</param>
    /// <param name="sequential">Which of the two layouts.</param>
    /// <exception cref="IOException">It cannot be opened, or another run has it.</exception>
    public ExtractionFile(string? path, ReadOnlySpan<byte> key, int anchors, int layers, int width, bool sequential)
    {
        (_anchors, _layers, _width, _sequential) = (anchors, layers, width, sequential);
        var target = path ?? Path.Combine(Path.GetTempPath(), $"trimtab-{Guid.NewGuid():N}.partial");
        // No buffer: a record that is appended is the system's, and survives the process.
        _stream = new(target, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 0, path is null ? FileOptions.DeleteOnClose : FileOptions.None);
        try
        {
            var header = new byte[HeaderBytes];
            "trimtab extract\n"u8.CopyTo(header);
            BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(16), anchors);
            BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(20), layers);
            BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(24), width);
            header[28] = (byte)(sequential ? 1 : 0);
            key[..32].CopyTo(header.AsSpan(32));
            var existing = new byte[HeaderBytes];
            Discarded = _stream.Length > 0 && (_stream.ReadAtLeast(existing, HeaderBytes, false) < HeaderBytes || !existing.AsSpan().SequenceEqual(header));
            if (_stream.Length == 0 || Discarded)
            {
                _stream.SetLength(0);
                _stream.Position = 0;
                _stream.Write(header);
            }
            var floats = (_stream.Length - HeaderBytes) / sizeof(float);
            Done = (int)Math.Min(Total, floats < Offset(anchors) ? floats / FirstRecord : anchors + (floats - Offset(anchors)) / width);
            _stream.SetLength(HeaderBytes + sizeof(float) * Offset(Done)); // less half a record
        }
        catch
        {
            _stream.Dispose();
            throw;
        }
    }

    /// <summary>Whether a file was there that belongs to something else.</summary>
    public bool Discarded { get; }

    /// <summary>Records that are there.</summary>
    public int Done { get; private set; }

    /// <summary>Records of the whole extraction.</summary>
    public int Total => checked(_sequential ? _anchors * _layers : _anchors);

    private int FirstRecord => checked((_sequential ? _layers + 1 : _layers) * _width);

    /// <summary>Appends the next record.</summary>
    /// <exception cref="ArithmeticException">A value is NaN or infinite; the message names the anchor.</exception>
    public void Append(ReadOnlySpan<float> record)
    {
        var at = System.Numerics.Tensors.TensorPrimitives.IsFiniteAll(record) ? -1 : 0;
        if (at >= 0)
        {
            while (float.IsFinite(record[at]))
                at++;
            throw new ArithmeticException(string.Create(CultureInfo.InvariantCulture,
                $"anchor {Done % _anchors + 1}: the states of the last token hold {record[at]}; expected finite numbers"));
        }
        _stream.Position = HeaderBytes + sizeof(float) * Offset(Done);
        _stream.Write(MemoryMarshal.AsBytes(record));
        Done++;
    }

    /// <summary>Reads d of an anchor at a layer, both from 0.</summary>
    public void ReadDifference(int anchor, int layer, Span<float> difference)
        => Read(!_sequential ? Offset(anchor) + (long)layer * _width
            : layer == 0 ? Offset(anchor) + (long)_layers * _width
            : Offset(layer * _anchors + anchor), difference);

    /// <summary>Reads h(text) of an anchor at a layer, both from 0; sequential alone.</summary>
    public void ReadText(int anchor, int layer, Span<float> states) => Read(Offset(anchor) + (long)layer * _width, states);

    /// <summary>Floats before a record.</summary>
    private long Offset(int record) => record <= _anchors
        ? (long)record * FirstRecord
        : (long)_anchors * FirstRecord + (long)(record - _anchors) * _width;

    private void Read(long offset, Span<float> values)
    {
        _stream.Position = HeaderBytes + sizeof(float) * offset;
        _stream.ReadExactly(MemoryMarshal.AsBytes(values));
    }

    public void Dispose() => _stream.Dispose();
}
