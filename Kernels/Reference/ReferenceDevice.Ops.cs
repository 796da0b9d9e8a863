namespace Trimtab.Kernels.Reference;

public sealed partial class ReferenceDevice
{
    /// <inheritdoc/>
    public override void Norm(Tensor output, Tensor input, in NormWeights norm)
    {
        Contract.Norm(DType.F64, output, input, norm);
        for (var t = 0; t < input.Rows; t++)
            Norm(output.Row(t), input.Row(t), norm);
    }

    /// <inheritdoc/>
    public override void ResidualNorm(Tensor x, Tensor delta, Tensor output, in NormWeights norm, in Junction junction)
    {
        Contract.ResidualNorm(DType.F64, x, delta, output, norm, junction);
        for (var t = 0; t < x.Rows; t++)
        {
            Span<double> h = x.Row(t), d = delta.Row(t);
            for (var i = 0; i < h.Length; i++)
                h[i] += d[i];
            if (junction.Layer > 0)
                Meet(h, t, junction);
            if (!junction.Added.IsNone && junction.Rows.Integers()[t] is < 0 and var feature)
            {
                var added = junction.Added.Row(Contract.Index(nameof(ResidualNorm), "feature", -1 - feature, junction.Added.Rows));
                for (var i = 0; i < h.Length; i++)
                    h[i] += added[i];
            }
            Norm(output.Row(t), h, norm);
        }
    }

    private static void Meet(Span<double> h, int token, in Junction junction)
    {
        if (!junction.CaptureSlot.IsNone)
        {
            var row = Contract.SlotRow(junction, junction.CaptureSlot.Integers()[token], junction.Captures.Rows, "capture");
            if (row >= 0)
                for (var i = 0; i < h.Length; i++)
                    junction.Captures.Row(row)[i] = (float)h[i];
        }
        if (!junction.SteerSlot.IsNone)
        {
            var row = Contract.SlotRow(junction, junction.SteerSlot.Integers()[token], junction.Vectors.Rows, "steer");
            if (row < 0)
                return;
            var product = junction.ProductSlot.IsNone ? -1 : junction.ProductSlot.Integers()[token];
            if (product >= 0)
                junction.Products.Row(product)[2 * (junction.Layer - 1)] = (float)Dot(h, junction.Vectors.Row(row));
            for (var i = 0; i < h.Length; i++)
                h[i] -= junction.SteerScale.Values()[token] * junction.Vectors.Row(row)[i];
            if (product >= 0)
                junction.Products.Row(product)[2 * (junction.Layer - 1) + 1] = (float)Dot(h, junction.Vectors.Row(row));
        }
    }

    private static double Dot(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
            sum += a[i] * b[i];
        return sum;
    }

    private static void Norm(Span<double> output, ReadOnlySpan<double> x, in NormWeights norm)
    {
        double mean = 0, square = 0;
        if (norm.Centered)
        {
            foreach (var v in x)
                mean += v;
            mean /= x.Length;
        }
        foreach (var v in x)
            square += (v - mean) * (v - mean);
        var root = Math.Sqrt(square / x.Length + norm.Epsilon);
        for (var i = 0; i < x.Length; i++)
        {
            output[i] = (x[i] - mean) / root * norm.Weight.Values()[i];
            if (!norm.Bias.IsNone)
                output[i] += norm.Bias.Values()[i];
        }
    }

    /// <inheritdoc/>
    public override void RopeStore(Tensor qkv, Tensor rotary, in KvLayer cache, in TokenMap tokens, in Heads heads)
    {
        Contract.RopeStore(DType.F64, qkv, rotary, cache, tokens, heads);
        var dimension = heads.Dimension;
        for (var t = 0; t < qkv.Rows; t++)
        {
            var row = Contract.Index(nameof(RopeStore), "store row", tokens.StoreRow.Integers()[t], cache.Keys.Rows);
            var all = qkv.Row(t);
            var angles = rotary.Row(t);
            for (var h = 0; h < heads.Query + heads.KeyValue && !heads.QueryNorm.IsNone; h++)
            {
                var head = all.Slice(h * dimension, dimension);
                Norm(head, head.ToArray(), new(h < heads.Query ? heads.QueryNorm : heads.KeyNorm, default, heads.NormEpsilon, false));
            }
            for (var h = 0; h < heads.Query; h++)
                Rotate(all.Slice(h * dimension, dimension), angles);
            for (var h = 0; h < heads.KeyValue; h++)
            {
                var key = all.Slice((heads.Query + h) * dimension, dimension).ToArray();
                Rotate(key, angles);
                Keep(cache, cache.Keys, row, h, h, key);
                Keep(cache, cache.Values, row, h, heads.KeyValue + h, all.Slice((heads.Query + heads.KeyValue + h) * dimension, dimension));
            }
        }
    }

    /// <summary>Writes a head's key or value to the cache in the cache's type.</summary>
    private static void Keep(in KvLayer cache, Tensor target, int row, int head, int scaleColumn, ReadOnlySpan<double> source)
    {
        var place = target.Row(row).Slice(head * source.Length, source.Length);
        if (target.Type is DType.U8 or DType.F8E4M3)
        {
            var largest = 0.0;
            foreach (var v in source)
                largest = Math.Max(largest, Math.Abs(v));
            var scale = (double)(float)(largest / (target.Type == DType.U8 ? 127 : 448));
            cache.Scales.Row(row)[scaleColumn] = scale;
            for (var i = 0; i < source.Length; i++)
            {
                var steps = scale == 0 ? 0 : source[i] / scale;
                place[i] = target.Type == DType.U8 ? 128 + Math.Round(steps) : E4M3(steps);
            }
        }
        else if (target.Type == DType.BF16)
        {
            for (var i = 0; i < source.Length; i++)
                place[i] = Rounded(source[i]);
        }
        else
            source.CopyTo(place);
    }

    /// <summary>To the nearest E4M3, of two equally near ones to the even one: three bits after the first, steps of 2^−9 at least, 448 at most.</summary>
    private static double E4M3(double value)
    {
        var step = Math.ScaleB(1, Math.Max(value == 0 ? -9 : Math.ILogB(value) - 3, -9));
        return Math.Clamp(Math.Round(value / step) * step, -448, 448);
    }

    /// <summary>To the nearest bfloat16, of two equally near ones to the even one.</summary>
    private static double Rounded(double value)
    {
        var bits = BitConverter.SingleToUInt32Bits((float)value);
        return BitConverter.UInt32BitsToSingle(bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000);
    }

    private static void Rotate(Span<double> head, ReadOnlySpan<double> angles)
    {
        var half = angles.Length / 2;
        for (var i = 0; i < half; i++)
        {
            double x = head[i], y = head[half + i], cos = angles[i], sin = angles[half + i];
            head[i] = x * cos - y * sin;
            head[half + i] = y * cos + x * sin;
        }
    }

    /// <inheritdoc/>
    public override void AttendPaged(
        Tensor output, Tensor qkv, in KvLayer cache, in TokenMap tokens, in Heads heads, int window)
    {
        Contract.AttendPaged(DType.F64, output, qkv, cache, tokens, heads, window);
        for (var t = 0; t < qkv.Rows; t++)
        {
            var sequence = Contract.Index(nameof(AttendPaged), "sequence", tokens.Sequence.Integers()[t], tokens.Pages.Rows);
            var position = Contract.Index(nameof(AttendPaged), "position", tokens.Position.Integers()[t], int.MaxValue);
            var pages = tokens.Pages.Slice(sequence, 1).Integers();
            var rows = new List<int>();
            var (low, high) = (window > 0 ? Math.Max(0, position - window + 1) : 0, position);
            if (!tokens.Span.IsNone)
            {
                var (first, last) = (tokens.Span.Integers()[t], tokens.Span.Integers()[qkv.Rows + t]);
                Contract.Span(first, position, last);
                (low, high) = (Math.Min(low, first), last);
            }
            for (var p = low; p <= high; p++)
                rows.Add(Contract.CacheRow(cache, pages, sequence, p));
            for (var h = 0; h < heads.Query; h++)
                Attend(output.Row(t), qkv.Row(t), h, heads, cache.Keys, cache.Values, rows, 0, 0, cache.Scales);
        }
    }

    /// <inheritdoc/>
    public override void AttendFull(Tensor output, Tensor qkv, int length, in Heads heads)
    {
        Contract.AttendFull(DType.F64, output, qkv, length, heads);
        int keys = heads.Query * heads.Dimension, values = (heads.Query + heads.KeyValue) * heads.Dimension;
        for (var t = 0; t < qkv.Rows; t++)
            for (var h = 0; h < heads.Query; h++)
                Attend(output.Row(t), qkv.Row(t), h, heads, qkv, qkv, [.. Enumerable.Range(t - t % length, length)], keys, values);
    }

    /// <summary>softmax(scale · q · K) · V of one query head, keys and values in the given rows from the given columns on.</summary>
    private static void Attend(Span<double> output, ReadOnlySpan<double> qkv, int head, in Heads heads,
        Tensor keys, Tensor values, List<int> rows, int keyColumn, int valueColumn, Tensor scales = default)
    {
        var group = head / (heads.Query / heads.KeyValue);
        double Stored(double element, int row, int scaleColumn) =>
            keys.Type == DType.U8 ? (element - 128) * scales.Row(row)[scaleColumn] : keys.Type == DType.F8E4M3 ? element * scales.Row(row)[scaleColumn] : element;
        var keyHeads = heads.KeyValue;
        var dimension = heads.Dimension;
        var first = group * dimension;
        var query = qkv.Slice(head * dimension, dimension);
        var weight = new double[rows.Count];
        for (var j = 0; j < weight.Length; j++)
        {
            var key = keys.Row(rows[j])[(keyColumn + first)..];
            for (var i = 0; i < dimension; i++)
                weight[j] += query[i] * Stored(key[i], rows[j], group);
            weight[j] *= heads.Scale;
            if (heads.SoftCap > 0)
                weight[j] = heads.SoftCap * Math.Tanh(weight[j] / heads.SoftCap);
        }
        double highest = weight.Max(), total = 0;
        for (var j = 0; j < weight.Length; j++)
            total += weight[j] = Math.Exp(weight[j] - highest);
        var result = output.Slice(head * dimension, dimension);
        result.Clear();
        for (var j = 0; j < weight.Length; j++)
        {
            var value = values.Row(rows[j])[(valueColumn + first)..];
            for (var i = 0; i < dimension; i++)
                result[i] += weight[j] / total * Stored(value[i], rows[j], keyHeads + group);
        }
    }

    /// <inheritdoc/>
    public override void BlendRows(Tensor output, Tensor input, Tensor rows, Tensor weights)
    {
        Contract.BlendRows(DType.F64, output, input, rows, weights);
        for (var i = 0; i < output.Rows; i++)
        {
            var target = output.Row(i);
            target.Clear();
            for (var g = 0; g < rows.Rows; g++)
            {
                var source = input.Row(Contract.Index(nameof(BlendRows), "row", rows.Integers()[g * output.Rows + i], input.Rows));
                for (var d = 0; d < target.Length; d++)
                    target[d] += weights.Row(g)[i] * source[d];
            }
        }
    }

    /// <inheritdoc/>
    public override void SoftCap(Tensor x, float cap)
    {
        Contract.Expect(nameof(SoftCap), nameof(x), x, DType.F64, x.Rows, x.Columns);
        foreach (ref var value in x.Values())
            value = cap * Math.Tanh(value / cap);
    }

    /// <inheritdoc/>
    public override void Experts(Tensor output, Tensor input, Tensor scores, in ExpertWeights weights)
    {
        Contract.Experts(DType.F64, output, input, scores, weights);
        for (var t = 0; t < input.Rows; t++)
        {
            var share = scores.Row(t).ToArray();
            var highest = share.Max();
            share = Array.ConvertAll(share, s => Math.Exp(s - highest));
            var used = Enumerable.Range(0, share.Length).OrderByDescending(e => share[e]).Take(weights.Used).Order().ToList();
            var total = weights.Normalised ? used.Sum(e => share[e]) : share.Sum();
            var target = output.Row(t);
            target.Clear();
            foreach (var e in used)
            {
                double[][] up = weights.GateUp[e].OfReference().Values, down = weights.Down[e].OfReference().Values;
                var middle = new double[down[0].Length];
                for (var i = 0; i < middle.Length; i++)
                    middle[i] = Activate(weights.Activation, Sum(input.Row(t), up, default, i)) * Sum(input.Row(t), up, default, middle.Length + i);
                for (var d = 0; d < target.Length; d++)
                    target[d] += share[e] / total * Sum(middle, down, default, d);
            }
        }
    }

    /// <inheritdoc/>
    public override void TakeRows(Tensor output, Tensor input, Tensor rows)
    {
        Contract.TakeRows(DType.F64, output, input, rows);
        for (var i = 0; i < output.Rows; i++)
            input.Row(Contract.Index(nameof(TakeRows), "row", rows.Integers()[i], input.Rows)).CopyTo(output.Row(i));
    }
}
