namespace Trimtab.Model;

/// <summary>
/// Cosines and sines of rotary position embedding (RoFormer, arXiv 2104.09864, eq. 34) with its context extensions: linear
/// position interpolation (arXiv 2306.15595), dynamic NTK, LLaMA 3.1's, YaRN (arXiv 2309.00071) and LongRoPE (arXiv 2402.13753). Thread-safe.
/// </summary>
/// <remarks>
/// transformers computes the frequencies, the angles and their cosines in float32, one rounding a step, and models are trained
/// with that: at position 4,000 an angle in double differs from it by up to 1e-4. So the same steps are taken here in float.
/// Only the functions themselves go through double, which rounds them correctly.
/// </remarks>
public sealed class Rope
{
    private const int BlockPositions = 256;

    /// <summary>Positions whose rows are kept; later ones are computed each time.</summary>
    private const int CachedPositions = 1 << 18;

    private readonly RopeSpec spec;
    private readonly float[] inverse;
    private readonly float scale;
    private readonly float[]?[] blocks = new float[]?[CachedPositions / BlockPositions];

    /// <summary>LongRoPE: frequencies of long sequences, and their blocks.</summary>
    private readonly (float[] Inverse, float[]?[] Blocks)? lengthy;

    /// <summary>Dynamic NTK: the frequencies of the last length beyond MaxPositions.</summary>
    private volatile Lengthened? lengthened;

    private sealed record Lengthened(int Length, float[] Inverse);

    /// <summary>Computes the frequencies.</summary>
    /// <exception cref="ArgumentException">The dimension is odd or not positive, or the divisors are not half as many.</exception>
    public Rope(RopeSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        if (spec.Dimension < 2 || spec.Dimension % 2 != 0)
            throw new ArgumentException($"a rotary dimension of {spec.Dimension} is not even and positive", nameof(spec));
        if (spec.Frequencies is { } divisors && divisors.Length != spec.Dimension / 2)
            throw new ArgumentException($"{divisors.Length} frequency divisors for {spec.Dimension / 2} frequencies", nameof(spec));
        this.spec = spec;
        if (spec.Kind == RopeKind.LongRope && (spec.Frequencies is null || spec.LongFrequencies?.Length != spec.Dimension / 2))
            throw new ArgumentException($"LongRoPE needs divisors for {spec.Dimension / 2} frequencies, for short and for long sequences", nameof(spec));
        scale = spec.Kind switch { RopeKind.Yarn => (float)YarnScale(spec), RopeKind.LongRope => (float)LongScale(spec), _ => 1 };
        inverse = spec.Kind switch
        {
            RopeKind.Linear => [.. Geometric(spec.Theta).Select(f => f / (float)spec.Factor)],
            RopeKind.Llama3 => [.. Geometric(spec.Theta).Select(Llama3)],
            RopeKind.Yarn => Yarn(),
            _ => Geometric(spec.Theta),
        };
        Divide(inverse, spec.Frequencies);
        if (spec.Kind == RopeKind.LongRope)
        {
            lengthy = (Geometric(spec.Theta), new float[]?[blocks.Length]);
            Divide(lengthy.Value.Inverse, spec.LongFrequencies);
        }
    }

    /// <summary>R: elements of a row.</summary>
    public int Dimension => spec.Dimension;

    /// <summary>Radians a position of each pair, for a sequence no longer than MaxPositions; [R/2].</summary>
    public ReadOnlySpan<float> InverseFrequencies => inverse;

    /// <summary>Factor on all cosines and sines: 1 but for YaRN and LongRoPE.</summary>
    public float AttentionScale => scale;

    /// <summary>Writes a position's row.</summary>
    /// <param name="position">From 0.</param>
    /// <param name="length">
    /// Length of the sequence that dynamic NTK and LongRoPE see: the prompt's for all of its tokens, position + 1 for a generated one; other
    /// kinds ignore it.
    /// </param>
    /// <param name="row">[R]: cosines of the R/2 angles, then their sines, scaled.</param>
    /// <exception cref="ArgumentException">The row has another size.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The position is negative.</exception>
    public void Fill(int position, int length, Span<float> row)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(position);
        if (row.Length != spec.Dimension)
            throw new ArgumentException($"a row of {row.Length} elements; expected {spec.Dimension}", nameof(row));
        var (frequencies, cache) = lengthy is { } other && IsLong(length) ? other : (inverse, blocks);
        if (spec.Kind == RopeKind.Dynamic && length > spec.MaxPositions)
            Compute(position, Lengthen(length), row);
        else if (position >= CachedPositions)
            Compute(position, frequencies, row);
        else
            Block(cache, frequencies, position / BlockPositions).AsSpan(position % BlockPositions * row.Length, row.Length).CopyTo(row);
    }

    /// <summary>Whether a sequence of a length has other angles at all of its positions than its own beginning had (LongRoPE).</summary>
    public bool IsLong(int length) => spec.Kind == RopeKind.LongRope && length > spec.OriginalPositions;

    /// <summary>Whether positions have three parts (M-RoPE).</summary>
    public bool HasSections => spec.Sections is not null;

    /// <summary>Writes the row of a position of three parts: which part turns a pair, its section says (arXiv 2409.12191, section 2.1).</summary>
    /// <param name="position">Each from 0; text has three equal ones.</param>
    /// <param name="row">[R], as of <see cref="Fill(int, int, Span{float})"/>.</param>
    public void Fill((int Time, int Row, int Column) position, Span<float> row)
    {
        var (time, y, x) = position;
        if (spec.Sections is not { } sections || time == y && time == x)
        {
            Fill(time, 0, row);
            return;
        }
        for (var i = 0; i < inverse.Length; i++)
        {
            var part = spec.Interleaved
                ? i % 3 == 1 && i < 3 * sections[1] ? y : i % 3 == 2 && i < 3 * sections[2] ? x : time
                : i < sections[0] ? time : i < sections[0] + sections[1] ? y : x;
            var (sin, cos) = Math.SinCos((float)part * inverse[i]);
            (row[i], row[inverse.Length + i]) = ((float)cos * scale, (float)sin * scale);
        }
    }

    /// <summary>Makes the angles of the first positions, so that no step has to.</summary>
    public void Reserve(int positions)
    {
        for (var block = 0; block * BlockPositions < Math.Min(positions, CachedPositions); block++)
        {
            Block(blocks, inverse, block);
            if (lengthy is { } other && IsLong(positions))
                Block(other.Blocks, other.Inverse, block);
        }
    }

    private float[] Block(float[]?[] cache, float[] frequencies, int index)
    {
        if (Volatile.Read(ref cache[index]) is { } ready)
            return ready;
        var block = new float[BlockPositions * spec.Dimension];
        for (var i = 0; i < BlockPositions; i++)
            Compute(index * BlockPositions + i, frequencies, block.AsSpan(i * spec.Dimension, spec.Dimension));
        // Two threads may compute the same block: it has the same values.
        Volatile.Write(ref cache[index], block);
        return block;
    }

    private void Compute(int position, float[] frequencies, Span<float> row)
    {
        for (var i = 0; i < frequencies.Length; i++)
        {
            var (sin, cos) = Math.SinCos((float)position * frequencies[i]);
            row[i] = (float)cos * scale;
            row[frequencies.Length + i] = (float)sin * scale;
        }
    }

    /// <summary>θ^(−2i/R).</summary>
    private float[] Geometric(double theta)
    {
        var frequencies = new float[spec.Dimension / 2];
        for (var i = 0; i < frequencies.Length; i++)
            frequencies[i] = 1 / (float)Math.Pow((float)theta, 2f * i / spec.Dimension);
        return frequencies;
    }

    /// <summary>Dynamic NTK: a base that stretches the lowest frequency by the excess length.</summary>
    private float[] Lengthen(int length)
    {
        if (lengthened is { } last && last.Length == length)
            return last.Inverse;
        var factor = (float)spec.Factor;
        var stretch = factor * length / spec.MaxPositions - (factor - 1);
        var power = (float)Math.Pow(stretch, (float)(spec.Dimension / (spec.Dimension - 2.0)));
        var frequencies = Geometric((float)spec.Theta * power);
        Divide(frequencies, spec.Frequencies);
        lengthened = new(length, frequencies);
        return frequencies;
    }

    /// <summary>Keeps wavelengths that turn often within the original context, divides those that turn seldom, blends between.</summary>
    private float Llama3(float frequency)
    {
        var wavelength = (float)(2 * Math.PI) / frequency;
        double low = spec.LowFrequencyFactor, high = spec.HighFrequencyFactor;
        if (wavelength < (float)(spec.OriginalPositions / high))
            return frequency;
        if (wavelength > (float)(spec.OriginalPositions / low))
            return frequency / (float)spec.Factor;
        var smooth = (spec.OriginalPositions / wavelength - (float)low) / (float)(high - low);
        return (1 - smooth) * frequency / (float)spec.Factor + smooth * frequency;
    }

    /// <summary>YaRN's "NTK by parts" (section 3.2): from dimension low on a ramp leads from extrapolation to interpolation.</summary>
    private float[] Yarn()
    {
        var (low, high) = (Correction(spec.BetaFast), Correction(spec.BetaSlow));
        if (spec.Truncate)
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        (low, high) = (Math.Max(low, 0), Math.Min(high, spec.Dimension - 1));
        if (low == high)
            high += 0.001; // no division by zero: the ramp is a step
        var frequencies = new float[spec.Dimension / 2];
        for (var i = 0; i < frequencies.Length; i++)
        {
            var period = (float)Math.Pow((float)spec.Theta, 2f * i / spec.Dimension);
            var kept = 1 - Math.Clamp((i - (float)low) / (float)(high - low), 0, 1);
            frequencies[i] = 1 / ((float)spec.Factor * period) * (1 - kept) + 1 / period * kept;
        }
        return frequencies;

        // The dimension whose pair turns this many times within the original context.
        double Correction(double turns) =>
            spec.Dimension * Math.Log(spec.OriginalPositions / (turns * 2 * Math.PI)) / (2 * Math.Log(spec.Theta));
    }

    /// <summary>Section 3.4: the softmax's temperature, as a factor on both queries and keys.</summary>
    private static double YarnScale(RopeSpec spec)
    {
        if (spec.AttentionFactor is { } stated)
            return stated;
        return spec is { MScale: { } m and not 0, MScaleAllDimensions: { } all and not 0 } ? Scale(m) / Scale(all) : Scale(1);

        double Scale(double m) => spec.Factor <= 1 ? 1 : 0.1 * m * Math.Log(spec.Factor) + 1;
    }

    /// <summary>Section 3.3 of LongRoPE: the softmax's temperature, as a factor on both queries and keys.</summary>
    private static double LongScale(RopeSpec spec) =>
        spec.AttentionFactor ?? (spec.Factor <= 1 ? 1 : Math.Sqrt(1 + Math.Log(spec.Factor) / Math.Log(spec.OriginalPositions)));

    private static void Divide(float[] frequencies, float[]? divisors)
    {
        for (var i = 0; i < divisors?.Length; i++)
            frequencies[i] /= divisors[i];
    }
}
